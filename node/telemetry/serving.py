"""The small HTTP server of a node: /metrics for Prometheus, /healthz and /readyz for whoever keeps it running.

It has a thread of its own, so that it answers also while the event loop does not: that is what /healthz tells. What
belongs to the node is read on the loop. It serves from before the node has joined the mesh until after it has left.

    /healthz   200 while the process lives and its event loop turns, else 503: worth a restart
    /readyz    200 while the node is a member of the mesh, connected, and its engines run, else 503 and the reason
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import errno
import logging
import socket
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, TypeVar

import anyio
import anyio.to_thread

from mesh.errors import MeshError
from node.telemetry.address import parse_address
from node.telemetry.metrics import Exposition
from node.telemetry.readings import Reading

LOOP_ANSWER_S: Final = 2.0  # a loop that takes longer to answer is stuck
CLIENT_TIMEOUT_S: Final = 10.0
_TEXT: Final = "text/plain; charset=utf-8"

_log = logging.getLogger(__name__)

T = TypeVar("T")


class AddressTaken(MeshError):
    """Raised when metrics cannot be served where they should."""

    code = "metrics-address-taken"

    def __init__(self, address: str, reason: str) -> None:
        self.address = address
        super().__init__(f"metrics cannot be served on {address}: {reason}; choose another --metrics address")


class Status:
    """What the server tells of a node, all of it read on the event loop.

    read: its figures. why_not_ready: what keeps it from work, nothing when it is ready. answer_s: how long the loop may
    take before it counts as stuck.
    """

    def __init__(
        self,
        read: Callable[[], Sequence[Reading]],
        why_not_ready: Callable[[], Sequence[str]],
        *,
        answer_s: float = LOOP_ANSWER_S,
    ) -> None:
        self._answer_s = answer_s
        self._loop = asyncio.get_running_loop()
        self._why_not_ready = why_not_ready
        self._exposition = Exposition(lambda: self._on_loop(read))

    def metrics(self, accept: str) -> tuple[HTTPStatus, bytes, str]:
        """Answer to /metrics."""
        try:
            text, content_type = self._exposition.write(accept)
        except TimeoutError:
            return self._stuck()
        return HTTPStatus.OK, text, content_type

    def health(self) -> tuple[HTTPStatus, bytes, str]:
        """Answer to /healthz."""
        try:
            self._on_loop(lambda: None)
        except TimeoutError:
            return self._stuck()
        return HTTPStatus.OK, b"ok\n", _TEXT

    def readiness(self) -> tuple[HTTPStatus, bytes, str]:
        """Answer to /readyz."""
        try:
            reasons = self._on_loop(self._why_not_ready)
        except TimeoutError:
            return self._stuck()
        if reasons:
            return HTTPStatus.SERVICE_UNAVAILABLE, f"not ready: {'; '.join(reasons)}\n".encode(), _TEXT
        return HTTPStatus.OK, b"ready\n", _TEXT

    def _stuck(self) -> tuple[HTTPStatus, bytes, str]:
        text = f"the event loop has not turned for {self._answer_s:g} s\n"
        return HTTPStatus.SERVICE_UNAVAILABLE, text.encode(), _TEXT

    def _on_loop(self, ask: Callable[[], T]) -> T:
        """Ask on the event loop, from another thread. Raises TimeoutError when it does not turn."""
        answer: concurrent.futures.Future[T] = concurrent.futures.Future()

        def run() -> None:
            if answer.set_running_or_notify_cancel():
                try:
                    answer.set_result(ask())
                except BaseException as error:  # handed to the thread that asked
                    answer.set_exception(error)

        try:
            self._loop.call_soon_threadsafe(run)
        except RuntimeError as error:  # the loop is closed: the node is just going
            raise TimeoutError from error
        try:
            return answer.result(self._answer_s)
        finally:
            answer.cancel()


@asynccontextmanager
async def serving(address: str, status: Status) -> AsyncIterator[str]:
    """Serve while the block runs; gives the address that is served. Raises BadAddress, AddressTaken."""
    host, port = parse_address(address)
    try:
        server = _Server(_listen(host, port), status)
    except OSError as error:
        reason = "another program uses it" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
        raise AddressTaken(address, reason) from error
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="metrics", daemon=True)
    thread.start()
    shown = f"[{host}]" if ":" in host else host
    try:
        yield f"http://{shown or 'localhost'}:{server.server_address[1]}"
    finally:
        # Not on the loop: a request that is being served may wait for it.
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(server.shutdown)
        server.server_close()


def _listen(host: str, port: int) -> socket.socket:
    if host:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    if socket.has_dualstack_ipv6():
        try:
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise
    return socket.create_server(("", port))


class _Server(ThreadingHTTPServer):
    """Serves on a socket that listens already."""

    daemon_threads = True

    def __init__(self, listening: socket.socket, status: Status) -> None:
        super().__init__(("", 0), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening
        self.server_address = listening.getsockname()
        self.status = status

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Note it: whoever hangs up in the middle is no concern of ours, everything else a fault."""
        _log.debug("a request for metrics from %s failed", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    timeout = CLIENT_TIMEOUT_S
    server: _Server

    def do_GET(self) -> None:
        """Answer a request."""
        status = self.server.status
        match self.path.partition("?")[0]:
            case "/metrics":
                answer = status.metrics(self.headers.get("Accept", ""))
            case "/healthz":
                answer = status.health()
            case "/readyz":
                answer = status.readiness()
            case _:
                answer = HTTPStatus.NOT_FOUND, b"there are /metrics, /healthz and /readyz\n", _TEXT
        code, body, content_type = answer
        self.send_response(code)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        """Answer with the head of what a GET would get."""
        self.do_GET()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: a scrape every few seconds is no news."""
