"""NATS contexts: the connection settings that `nats context add` keeps in files (ADR-21), read and never written.

`$XDG_CONFIG_HOME/nats` (else `~/.config/nats`) holds `context.txt` with the name of the selected context and
`context/<name>.json` with the settings of each. A file made by the `nats` tool is taken unchanged; keys that are not
about connecting are left alone.

Not here: flags and environment variables, which win over a context; connecting.
Invariant: what a context asks for and we cannot do raises BadContext. Leaving it out would connect as somebody else.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from mesh.errors import MeshError, NotFound
from mesh.spelling import proposal

DEFAULT_URL: Final = "nats://localhost:4222"
_VARIABLE: Final = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
# Authentication and routing that would be lost without a word.
_UNSUPPORTED: Final = ("nsc", "socks_proxy", "windows_cert_store")


class BadContext(MeshError, ValueError):
    """Raised when a context's file cannot be read or asks for something that is not supported."""

    code = "bad-context"


class UnknownContext(NotFound):
    """Raised when there is no context with that name."""

    code = "unknown-context"

    def __init__(self, name: str, directory: Path, known: list[str]) -> None:
        self.name = name
        super().__init__(f"no NATS context {name!r} in {directory}; {proposal(name, known)}")


@dataclass(frozen=True, slots=True)
class Context:
    """The settings of one context; empty text = not set. Only one way of authenticating is set, by ADR-21's order.

    creds, nkey, tls_cert, tls_key, tls_ca are paths with `~` and variables expanded.
    """

    name: str = ""
    url: str = DEFAULT_URL
    user: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    creds: str = ""
    nkey: str = ""
    user_jwt: str = field(default="", repr=False)
    user_seed: str = field(default="", repr=False)
    tls_cert: str = ""
    tls_key: str = ""
    tls_ca: str = ""
    tls_first: bool = False
    inbox_prefix: str = ""
    jetstream_domain: str = ""
    jetstream_api_prefix: str = ""


def contexts_directory(environ: Mapping[str, str]) -> Path:
    """Where the contexts of this user are; the same on every system, as the `nats` tool has it."""
    base = environ.get("XDG_CONFIG_HOME")
    home = Path(environ["HOME"]) if environ.get("HOME") else Path.home()
    return (Path(base) if base else home / ".config") / "nats"


def context_names(environ: Mapping[str, str]) -> list[str]:
    """The names of all contexts."""
    directory = contexts_directory(environ) / "context"
    return sorted(path.stem for path in directory.glob("*.json")) if directory.is_dir() else []


def selected_context(environ: Mapping[str, str]) -> str | None:
    """The name of the selected context, None when none is selected."""
    try:
        name = (contexts_directory(environ) / "context.txt").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return name or None


def load_context(name: str, environ: Mapping[str, str]) -> Context:
    """Read one context. Raises UnknownContext, BadContext.

    name: as `nats context ls` shows it, or the absolute path of a context file.
    """
    path = Path(name) if name.startswith("/") else contexts_directory(environ) / "context" / f"{name}.json"
    if not name or (not path.is_absolute() and os.sep in name) or ".." in Path(name).parts:
        raise UnknownContext(name, path.parent, context_names(environ))
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UnknownContext(name, path.parent, context_names(environ)) from None
    except (OSError, ValueError) as error:
        raise BadContext(f"the NATS context {path} cannot be read: {error}") from error
    if not isinstance(settings, dict):
        raise BadContext(f"the NATS context {path} is no JSON object")
    return _read(name, path, settings, environ)


def _read(name: str, path: Path, settings: Mapping[str, object], environ: Mapping[str, str]) -> Context:
    for key in _UNSUPPORTED:
        if settings.get(key):
            raise BadContext(
                f"the NATS context {path} uses {key!r}, which is not supported; use creds, nkey, user or token"
            )

    def text(key: str) -> str:
        value = settings.get(key) or ""
        if not isinstance(value, str):
            raise BadContext(f"the NATS context {path}: {key} is no text")
        return value

    def file(key: str) -> str:
        return _expand(text(key), environ)

    user, creds, nkey, token = text("user"), file("creds"), file("nkey"), text("token")
    jwt, seed = text("user_jwt"), text("user_seed")
    if jwt and not seed:
        raise BadContext(f"the NATS context {path} has a user_jwt without a user_seed")
    ways = (("user", user), ("creds", creds), ("nkey", nkey), ("jwt", jwt), ("token", token))
    way = next((way for way, value in ways if value), "")
    return Context(
        name=name,
        url=text("url") or DEFAULT_URL,
        user=user if way == "user" else "",
        password=text("password") if way == "user" else "",
        token=token if way == "token" else "",
        creds=creds if way == "creds" else "",
        nkey=nkey if way == "nkey" else "",
        user_jwt=jwt if way == "jwt" else "",
        user_seed=seed if way == "jwt" else "",
        tls_cert=file("cert"),
        tls_key=file("key"),
        tls_ca=file("ca"),
        tls_first=settings.get("tls_first") is True,
        inbox_prefix=text("inbox_prefix"),
        jetstream_domain=text("jetstream_domain"),
        jetstream_api_prefix=text("jetstream_api_prefix"),
    )


def _expand(path: str, environ: Mapping[str, str]) -> str:
    """Put a leading `~` and variables in; a variable that is not set becomes nothing, as in Go's os.ExpandEnv."""
    expanded = _VARIABLE.sub(lambda found: environ.get(found[1] or found[2], ""), path)
    if expanded == "~" or expanded.startswith("~/"):
        return (environ.get("HOME") or str(Path.home())) + expanded[1:]
    return expanded
