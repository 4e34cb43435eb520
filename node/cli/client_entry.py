"""The server that an app's own client entry names (`mesh.client`, contract 2.2), for a node that nobody tells of one.

A flag, variable or context wins over it. An address that is no NATS URL, as in an app that was written for another
system, is passed over. Texts of keys and certificates are put into files that only this user can read, as that is how
the connection takes them, for as long as the process lives.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from mesh.errors import MeshError
from mesh.handshake import ConnectOptions
from node.registry import AuthSpec, AuthType, ClientEntry, Registry

SCHEMES: Final = ("nats://", "tls://")
_CREDS_MARK: Final = "BEGIN NATS USER JWT"

_log = logging.getLogger(__name__)


class BadClient(MeshError):
    """Raised when a client entry names credentials that are not there."""

    code = "bad-client"


def client_of(registry: Registry) -> ClientEntry | None:
    """The client entry with a NATS address, the first by id; None when there is none."""
    for entry in registry.clients().values():
        if entry.address.startswith(SCHEMES):
            return entry
        _log.info("client %s: its address %s is no NATS URL and is passed over", entry.id, entry.address)
    return None


def connection_of(
    entry: ClientEntry, options: ConnectOptions, environ: Mapping[str, str]
) -> tuple[str, ConnectOptions]:
    """The address or addresses of an entry, and the options with what it says. Raises BadClient."""
    url = entry.address
    options = replace(
        options,
        connect_timeout_s=entry.connection_timeout_s,
        ping_interval_s=min(options.ping_interval_s, entry.keep_alive_time_s),
    )
    if entry.tls is not None and entry.tls.enabled:
        url = url.replace("nats://", "tls://")
        options = replace(
            options,
            tls_ca=entry.tls.ca_file,
            tls_hostname=entry.tls.server_name,
            tls_insecure=entry.tls.insecure_skip_verify,
        )
    match entry.auth.type:
        case AuthType.API_KEY:
            key = _api_key(entry, environ)
            options = replace(options, creds=_as_file(key)) if _CREDS_MARK in key else replace(options, token=key)
        case AuthType.MTLS:
            url = url.replace("nats://", "tls://")
            options = replace(options, tls_cert=_certificate(entry.auth), tls_key=_key(entry, environ))
        case AuthType.NONE:
            pass
    return url, options


def _api_key(entry: ClientEntry, environ: Mapping[str, str]) -> str:
    auth = entry.auth
    if auth.api_key is not None:
        return auth.api_key
    if auth.api_key_env is not None:
        return _variable(entry, auth.api_key_env, environ)
    return _read(entry, auth.api_key_file or "").strip()


def _certificate(auth: AuthSpec) -> str:
    return auth.cert_file if auth.cert_file is not None else _as_file(auth.cert_pem or "")


def _key(entry: ClientEntry, environ: Mapping[str, str]) -> str:
    auth = entry.auth
    if auth.key_file is not None:
        return auth.key_file
    return _as_file(auth.key_pem if auth.key_pem is not None else _variable(entry, auth.key_pem_env or "", environ))


def _variable(entry: ClientEntry, name: str, environ: Mapping[str, str]) -> str:
    value = environ.get(name, "")
    if not value:
        raise BadClient(f"client {entry.id}: the variable {name}, which its auth names, is not set")
    return value


def _read(entry: ClientEntry, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise BadClient(f"client {entry.id}: {path}, which its auth names, cannot be read: {error}") from error


def _as_file(text: str) -> str:
    directory = tempfile.mkdtemp(prefix="mesh-client-")  # made for this user alone
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    path = os.path.join(directory, "secret")
    Path(path).write_text(text, encoding="utf-8")
    return path
