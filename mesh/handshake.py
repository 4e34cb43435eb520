"""How a connection begins: addresses, the handshake, who we are, TLS.

This is the only module that imports `nats`. nats-py does here what it does well; once the handshake is over,
`mesh.connection` takes the streams and does the rest itself.

Not here: trying again, several addresses, anything after the handshake. Invariants: one call is one try at one
server; a failed or cancelled one leaves no socket open; no password gets into a message.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import nats.aio.client
import nats.errors
import nkeys
from nats.aio.transport import TcpTransport

from mesh.envelopes import PayloadCodec
from mesh.errors import BadCredentials, NotLetIn, NotTrusted, Unreachable
from mesh.redaction import with_scheme, without_secrets

READ_BYTES = 256 * 1024
# A payload is in memory as a whole, at its sender and its receiver, and in a Lua VM that has a limit of its own.
PAYLOAD_BYTES_MAX = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ConnectOptions:
    """How to connect: who we are (one of user, token, creds, nkey, jwt with seed), TLS, and how patient to be.

    creds and nkey are paths of files, jwt and seed what would be in one. tls_ca, tls_cert, tls_key are paths of PEM
    files; a `tls://` address without them is checked against the system's authorities.
    patience_s: how long the first connection is tried again: 0 = each address once (command line), inf = for ever
    (nodes). A connection that was up once is always tried again until it is closed.
    codec: what encrypts payloads end to end (docs/security.md); None = they are sent and stored as they are.
    payload_bytes_max: of one payload of a workflow; above the server's limit it goes into an object store
    (docs/large-payloads.md).
    """

    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    creds: str | None = None
    nkey: str | None = None
    jwt: str | None = field(default=None, repr=False)
    seed: str | None = field(default=None, repr=False)
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_hostname: str | None = None
    tls_insecure: bool = False  # take any certificate
    tls_first: bool = False
    inbox_prefix: str = "_INBOX"
    # Where JetStream is asked; another one where the streams are in another account than the user's.
    js_api_prefix: str = "$JS.API"
    js_domain: str = ""  # of a JetStream beyond a leaf node; wins over js_api_prefix
    patience_s: float = 0.0
    connect_timeout_s: float = 2.0
    # A server that has stopped without closing is noticed after two to three intervals.
    ping_interval_s: float = 2.0
    pings_outstanding_max: int = 2
    reconnect_wait_max_s: float = 0.5
    codec: PayloadCodec | None = field(default=None, repr=False)
    payload_bytes_max: int = PAYLOAD_BYTES_MAX

    def ssl_context(self) -> ssl.SSLContext | None:
        """Build the TLS context from the given files, None if there are none. Raises BadCredentials."""
        if not (self.tls_ca or self.tls_cert or self.tls_insecure):
            return None
        try:
            context = ssl.create_default_context(cafile=self.tls_ca)
        except OSError as error:
            raise BadCredentials(self.tls_ca or "the system's file", _reason(error), "certificates") from error
        if self.tls_insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.tls_cert:
            try:
                context.load_cert_chain(self.tls_cert, self.tls_key)
            except OSError as error:
                both = f"{self.tls_cert} with {self.tls_key}" if self.tls_key else self.tls_cert
                raise BadCredentials(both, _reason(error), "certificate and key") from error
        return context


class Link(NamedTuple):
    """One TCP or TLS connection after its handshake, and the INFO of its server.

    plain: the writer below that of TLS. It has to be held as long as the connection: collected, it closes the socket.
    """

    address: str
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    info: dict[str, object]
    plain: asyncio.StreamWriter | None = None


def check_address(address: str) -> None:
    """Refuse what is no address, mostly for its password. Raises Unreachable."""
    try:
        parts = urlsplit(with_scheme(address))
        _ = parts.port  # raises for what is no number
        # nats:/host reads as the port of a host named nats, and there is none behind the colon.
        is_sound = ("@" in parts.netloc or "@" not in address) and not parts.netloc.endswith(":")
    except ValueError:
        is_sound = False
    if not is_sound:
        raise Unreachable(
            without_secrets(address),
            "the address cannot be read: write nats://HOST:PORT; in a user and a password write / as %2F, # as %23, ? "
            "as %3F, [ as %5B and a comma as %2C, or say them with --user and --password",
        )


async def dial(address: str, name: str, options: ConnectOptions, *, hostname: str | None) -> Link:
    """Connect to one server once. Raises Unreachable, NotLetIn, NotTrusted, BadCredentials.

    hostname: the name a TLS certificate has to be for; None = the one in the address.
    """
    address = with_scheme(address)
    if urlsplit(address).scheme not in ("nats", "tls"):
        raise Unreachable(without_secrets(address), "only nats:// and tls:// addresses are supported")
    _check_files(options)
    client = _HandshakeClient()
    try:
        await client.connect(
            servers=[address],
            name=name,
            error_cb=_ignore,
            allow_reconnect=False,
            connect_timeout=options.connect_timeout_s,  # type: ignore[arg-type]  # says int, takes any number
            user=options.user,
            password=options.password,
            token=options.token,
            user_credentials=_credentials(options.jwt, options.seed) if options.jwt else options.creds,
            nkeys_seed=options.nkey,
            tls=options.ssl_context(),
            tls_hostname=hostname,
            tls_handshake_first=options.tls_first,
        )
        link = client.take_over(address)
    except BaseException as error:
        client.abort()
        if isinstance(error, (nkeys.NkeysError, nats.errors.InvalidUserCredentialsError)):
            raise BadCredentials(options.creds or options.nkey or "the nkey", str(error)) from error
        if isinstance(error, BadCredentials):
            raise
        if isinstance(error, (OSError, TimeoutError, nats.errors.Error, ValueError)):
            raise _failure(without_secrets(address), error, options, client.wants_certificate) from error
        raise
    return link


def _check_files(options: ConnectOptions) -> None:
    """Say which file is no good before nats-py reads it, which would look for a missing JWT for ever."""
    for path, marks in (
        (options.creds, ("-BEGIN NATS USER JWT-", "-BEGIN USER NKEY SEED-")),
        (options.nkey, ()),
    ):
        if path and not options.jwt:
            try:
                text = Path(path).read_text(encoding="ascii")
            except (OSError, UnicodeDecodeError) as error:
                reason = _reason(error) if isinstance(error, OSError) else "it is no text"
                raise BadCredentials(path, reason) from error
            missing = [mark.strip("-") for mark in marks if mark not in text]
            if missing:
                raise BadCredentials(path, f"there is no {' and no '.join(missing)} in it")


def _failure(address: str, error: Exception, options: ConnectOptions, wants_certificate: bool) -> Unreachable:
    """What a try at one server has failed of."""
    if isinstance(error, ssl.SSLCertVerificationError):  # we do not trust the server
        return NotTrusted(address, error.verify_message.rstrip("."))
    reason = _reason(error)
    if "authorization" in reason.lower():
        return NotLetIn(address, reason)
    # How it shows that one is missing or not trusted differs: an alert, a reset, or a connection that is simply lost.
    if wants_certificate and not options.tls_cert:
        return NotLetIn(address, "it wants a client certificate: --tlscert and --tlskey")
    if wants_certificate and not isinstance(error, TimeoutError):
        return NotLetIn(address, f"it hung up when it was shown the certificate {options.tls_cert}")
    return Unreachable(address, reason)


class _HandshakeClient(nats.aio.client.Client):
    """nats-py 2.16 as far as the end of the handshake: one address, one try, and none of its own tasks.

    The base class would loop on a first connect whatever it is told about reconnecting, and would start its reader,
    pinger and flusher, whose place is taken by `Connection`.
    """

    async def _select_next_server(self) -> None:
        server = self._server_pool[0]
        self._transport = TcpTransport()  # type: ignore[no-untyped-call]  # nats-py has no types there
        await self._transport.connect(server.uri, READ_BYTES, self.options["connect_timeout"])
        self._current_server = server

    async def _read_loop(self) -> None:
        return

    async def _ping_interval(self) -> None:
        return

    async def _flusher(self) -> None:
        return

    def take_over(self, address: str) -> Link:
        """Hand out the streams of a finished handshake. Raises ConnectionError if the server hung up meanwhile."""
        transport = self._transport
        reader, writer = getattr(transport, "_io_reader", None), getattr(transport, "_io_writer", None)
        if reader is None or writer is None or reader.at_eof():
            raise ConnectionResetError("the server hung up during the handshake")
        protocol = writer.transport.get_protocol()
        if writer.get_extra_info("ssl_object") is not None and isinstance(protocol, asyncio.StreamReaderProtocol):
            # It was made for a plain connection, and its answer to the end of a TLS one would be complained of.
            protocol._over_ssl = True  # type: ignore[attr-defined]
        return Link(address, reader, writer, self._server_info, getattr(transport, "_bare_io_writer", None))

    @property
    def wants_certificate(self) -> bool:
        """Whether the server has said that clients have to show a certificate."""
        return bool(self._server_info and self._server_info.get("tls_verify"))

    def abort(self) -> None:
        """Close at once, waiting for nothing."""
        for name in ("_io_writer", "_bare_io_writer"):
            writer = getattr(self._transport, name, None)
            if writer is not None:
                writer.transport.abort()


def _credentials(jwt: str, seed: str | None) -> nats.aio.client.RawCredentials:
    """A JWT and the seed of its key as they stand in a credentials file."""
    return nats.aio.client.RawCredentials(
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed or ''}\n------END USER NKEY SEED------\n"
    )


def _reason(error: BaseException) -> str:
    """Why there is no connection, in words: asyncio has only the number of an error in its text, or several of them."""
    text = str(error).removeprefix("nats: ").strip("'")
    if isinstance(error, ssl.SSLError):
        return re.sub(r"^\[[^]]*\] ?| ?\(_ssl\.c:\d+\)$", "", text)
    if isinstance(error, OSError):
        numbers = re.findall(r"\[Errno (-?\d+)\]", text)
        if isinstance(error, socket.gaierror):
            text = (error.strerror or text).lower()
        elif numbers:
            text = os.strerror(int(numbers[-1])).lower()
    return text or "no answer in time"


async def _ignore(_error: Exception) -> None:
    """Stand in for nats-py's error callback; the same error is also raised."""
