"""Addresses on this machine, and the question to who listens there: which server are you, and is JetStream up?

Not here: speaking NATS as a client does (`mesh.connection`). The few lines of protocol below need no client, and ask
whoever listens, also when it is no NATS server at all.
"""

from __future__ import annotations

import errno
import json
import socket
from typing import Any

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream

from mesh.errors import MeshError, ServerFailed

# One question to a server on this machine. A server that is busy opening its store just gets asked again.
PROBE_TIMEOUT_S = 2.0
INFO_BYTES_MAX = 64 * 1024


# --- addresses and the protocol


def check_address(host: str, port: int) -> None:
    """Say clearly, before the server has opened its whole store, that it could not listen."""
    if not 0 <= port <= 65535:
        raise ServerFailed(f"cannot listen on {host} port {port}: ports go from 1 to 65535, and 0 means any free one")
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, proto) as probe:
            # As the server does; otherwise connections of its predecessor that linger in TIME_WAIT would count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ServerFailed(
                f"port {port} on {host} is taken by another program; choose another port (0 takes any free one), "
                "or stop that program"
            ) from error
        raise ServerFailed(f"cannot listen on {host} port {port}: {error}") from error


def client_host(host: str) -> str:
    """Return where to reach a server that listens on this host: "all addresses" is no address to connect to."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # compared, not bound


def url_of(host: str, port: int) -> str:
    """The address that clients use of a server that listens there."""
    reached = client_host(host)
    return f"nats://[{reached}]:{port}" if ":" in reached else f"nats://{reached}:{port}"


async def ready_server_at(host: str, port: int) -> str | None:
    """The id of the server that listens there, once its JetStream answers; None while it does not, or another does."""
    with anyio.move_on_after(PROBE_TIMEOUT_S):
        try:
            return await _probe(host, port)
        except _NotReadyError:
            return None
    return None


class _NotReadyError(MeshError):
    """Raised when what listens there is no NATS server, or one whose JetStream is not up yet."""


async def _probe(host: str, port: int) -> str:
    """Return the id of the server that listens there if JetStream answers, else raise _NotReadyError; no deadline."""
    try:
        async with await anyio.connect_tcp(client_host(host), port) as stream:
            received = BufferedByteReceiveStream(stream)
            info = _json_object(await received.receive_until(b"\r\n", INFO_BYTES_MAX), b"INFO ")
            options = {"verbose": False, "headers": True, "no_responders": True, "name": "mesh probe"}
            await stream.send(
                b"CONNECT " + json.dumps(options).encode() + b"\r\n"
                b"SUB _INBOX.mesh.probe 1\r\nPUB $JS.API.INFO _INBOX.mesh.probe 0\r\n\r\nPING\r\n"
            )
            while True:
                line = await received.receive_until(b"\r\n", INFO_BYTES_MAX)
                if line.startswith(b"MSG "):
                    answer = _json_object(await received.receive_exactly(int(line.split()[-1])))
                    if "error" in answer:
                        raise _NotReadyError(f"JetStream answers {answer['error']}")
                    return str(info["server_id"])
                if line.startswith((b"HMSG ", b"-ERR")):
                    # HMSG is the status 503: nobody serves the JetStream API yet.
                    raise _NotReadyError(line.decode("utf-8", "replace"))
    except (
        OSError,
        ValueError,
        LookupError,
        anyio.EndOfStream,
        anyio.BrokenResourceError,
        anyio.IncompleteRead,
        anyio.DelimiterNotFound,
    ) as error:
        raise _NotReadyError(repr(error)) from error


def _json_object(line: bytes, prefix: bytes = b"") -> dict[str, Any]:
    # Any: JSON of the server; the few fields that we read are converted where they are read.
    if not line.startswith(prefix):
        raise ValueError(f"no NATS server: {line[:80]!r}")
    value = json.loads(line[len(prefix) :])
    if not isinstance(value, dict):
        raise ValueError(f"no object: {value!r}")  # wrong data, not a wrong argument
    return value
