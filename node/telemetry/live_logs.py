"""What a node logs, for whoever listens now (`mesh.logs.<node>`) and for whoever asks a little later.

A logging handler beside the one that writes to standard error. It keeps the last lines (`mesh.node.<node>.logs` answers
with them) and publishes each as a message that nobody need take. Logging never waits for that: lines go into a short
queue, which the event loop empties; what does not fit is counted, and said when there is room again.

Invariants: publishing a line logs nothing, and a server that forbids it is not asked again; a line that is logged while
there is no connection is published after it has come back, if it still fits.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from contextlib import suppress
from typing import Final

from mesh.connection import Connection
from mesh.envelopes import answer_context
from mesh.errors import MeshError, PayloadTooLarge
from mesh.subjects import log_subject, node_request
from node.log_fields import fields_of
from node.telemetry.log_lines import encode_line, line_of

KEPT_LINES_MAX: Final = 2000
# All that is kept fits into one answer.
KEPT_BYTES_MAX: Final = 512 * 1024
WAITING_LINES_MAX: Final = 1000


class LiveLogs(logging.Handler):
    """The log lines of one node. dropped: how many were never published."""

    def __init__(self, node_id: str) -> None:
        super().__init__()
        self.dropped = 0
        self._node_id = node_id
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._conn: Connection | None = None
        self._kept: deque[bytes] = deque()
        self._kept_bytes = 0
        self._waiting: deque[bytes] = deque()
        self._unsaid = 0
        self._n = 0
        self._woken = False
        self._forbidden = False

    def attach(self, conn: Connection) -> None:
        """Publish on this connection, and answer on it, as long as it lives."""
        self._conn = conn
        conn.subscribe_direct(node_request(self._node_id, "logs"), self._on_request)
        conn.on_state(lambda connected: self._publish() if connected else None)
        conn.on_denied(self._on_denied)
        self._publish()

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record, from any thread."""
        # The handler's lock is held: one at a time.
        try:
            self._n += 1
            line = encode_line(line_of(record, fields_of(record), self._node_id, self._n))
        except Exception:  # a value that cannot even be shown; the other handler says so
            self.handleError(record)
            return
        self._keep(line)
        if self._forbidden:
            return
        if len(self._waiting) >= WAITING_LINES_MAX:
            self.dropped += 1
            self._unsaid += 1
            return
        self._waiting.append(line)
        if not self._woken and self._conn is not None:
            self._woken = True
            with suppress(RuntimeError):  # the loop is closed: nobody listens any more
                if threading.get_ident() == self._loop_thread:
                    self._loop.call_soon(self._publish)
                else:
                    self._loop.call_soon_threadsafe(self._publish)

    def _keep(self, line: bytes) -> None:
        kept = self._kept
        kept.append(line)
        self._kept_bytes += len(line) + 1
        while len(kept) > KEPT_LINES_MAX or self._kept_bytes > KEPT_BYTES_MAX:
            self._kept_bytes -= len(kept.popleft()) + 1

    def _publish(self) -> None:
        self._woken = False
        conn, waiting, subject = self._conn, self._waiting, log_subject(self._node_id)
        if conn is None or self._forbidden:
            return
        try:
            while waiting and conn.is_connected:
                try:
                    conn.publish_nowait(subject, waiting[0])
                except PayloadTooLarge:
                    self.dropped += 1  # this server takes less than a line may have
                waiting.popleft()
        except MeshError:
            return  # there is no room, or no connection any more; the next line or the connection wakes us again
        if not self._unsaid or not conn.is_connected:
            return
        self.acquire()
        try:
            unsaid, self._unsaid = self._unsaid, 0
        finally:
            self.release()
        text = "log lines were not published, there were too many at once"
        self.handle(_record(f"{unsaid} {text}; they are in the log of the node itself"))

    def _on_denied(self, subject: str) -> None:
        if subject == log_subject(self._node_id):
            self._forbidden = True
            self._waiting.clear()

    def _on_request(self, subject: str, reply: str, _data: bytes, _raw_headers: bytes | None) -> None:
        if not reply or self._conn is None:
            return
        self.acquire()
        try:
            kept = list(self._kept)
        finally:
            self.release()
        with suppress(MeshError):
            # A server may take less than a megabyte; the newest lines are the ones that are wanted.
            kept = [line for line in kept if len(line) <= self._conn.message_bytes_max]
            while len(answer := b"\n".join(kept)) > self._conn.message_bytes_max:
                kept = kept[(len(kept) + 1) // 2 :]
            self._conn.publish_nowait(reply, answer, context=answer_context(subject))


def _record(text: str) -> logging.LogRecord:
    return logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, None, None)
