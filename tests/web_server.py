"""A web server for tests of what asks the web: it tells what it was asked, or does what the path says."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def a_web_server() -> Iterator[WebServer]:
    """Run a server in a thread."""
    with WebServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.released.set()
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    """Tells what it was asked, or does what the path says."""

    protocol_version = "HTTP/1.1"
    server: WebServer

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        path = self.path.partition("?")[0]
        if path == "/slow":
            self.server.released.wait(30)
        if path == "/meet":
            self.server.meeting.wait()
        if path == "/loop":
            self._send(302, b"", {"Location": "/loop"})
        elif path == "/moved":
            self._send(302, b"", {"Location": "/echo"})
        elif path == "/gone":
            self._send(410, b"no more")
        elif path == "/bytes":
            self._send(200, b"x" * int(self.path.partition("?")[2]))
        elif path == "/binary":
            self._send(200, b"\x00\xff\xfe")
        elif path == "/gzip":
            self._send(200, gzip.compress(b"y" * 100_000), {"Content-Encoding": "gzip"})
        elif path == "/cookie":
            self._send(200, b"", {"Set-Cookie": "session=abc; Path=/"})
        elif path == "/hangup":
            self.close_connection = True
            self.connection.shutdown(2)
        else:
            told = {
                "method": self.command, "path": self.path, "body": body.decode("latin-1"),
                "headers": {name.lower(): value for name, value in self.headers.items()},
            }  # fmt: skip
            self._send(200, json.dumps(told).encode(), {"Content-Type": "application/json", "X-Two": "1"})

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = _serve  # noqa: N815

    def log_message(self, *_args: object) -> None: ...


class WebServer(ThreadingHTTPServer):
    """Serves on a free port of 127.0.0.1. `/slow` answers when `released` is set, `/meet` when three have come to it."""

    daemon_threads = True

    def __init__(self) -> None:
        self.released = threading.Event()
        self.meeting = threading.Barrier(3, timeout=30)
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, *_args: object) -> None: ...

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server_port}"
