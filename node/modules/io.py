"""The module `io`: the standard streams of this process, for Lua code.

Everybody may write. Input and arguments belong to one process, that of a command line (`mesh run -x`), which is told
from others by the host that it runs on.

Reading and writing may block, so each has a thread of its own. Those threads are daemons and no workers of the event
loop: one that waits for a person to type must not keep the program from ending.

Invariants: what is written leaves in the order in which it was asked for, whichever unit asked and whichever of the two
streams it goes to. A stream that is closed on the other side harms nobody but who writes to it.
"""

from __future__ import annotations

import asyncio
import os
import select
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

import anyio

from mesh.failure import Kind
from mesh.pids import ProcessPid, parse_pid
from node.modules import Caller, Refused

UNWRITTEN_BYTES_MAX: Final = 64 * 1024  # above it, whoever writes waits: as much as a pipe holds
LINE_BYTES_MAX: Final = 16 * 1024 * 1024
READ_BYTES_MAX: Final = 16 * 1024 * 1024
CHUNK_BYTES: Final = 64 * 1024
WRITER_IDLE_S: Final = 1.0  # a writer with nothing to do ends, so that nobody has to stop it

END: Final = "EOF"


@dataclass(frozen=True, slots=True)
class Terminal:
    """Whose the input is: processes on this host. args: what stood after the entry on the command line."""

    host_id: str
    args: tuple[str, ...]


class StandardStreams:
    """The module. File descriptors: those of this process, unless a test gives others."""

    def __init__(self, *, stdin: int = 0, stdout: int = 1, stderr: int = 2) -> None:
        self._streams = {"stdout": stdout, "stderr": stderr}
        self._output = _Output()
        self._input = _Input(stdin)
        self._terminal: Terminal | None = None

    def attach(self, host_id: str, args: Sequence[str]) -> None:
        """Give input and arguments to the processes on a host."""
        self._terminal = Terminal(host_id, tuple(args))

    def interrupt(self) -> None:
        """End whatever reads or will read with a failure of kind Canceled: a person has pressed Ctrl-C."""
        self._input.interrupt()

    async def flush(self) -> None:
        """Wait until everything is written. Returns also when it cannot be, as the other side is closed."""
        await self._output.flush()

    async def wait_closed(self) -> None:
        """Wait until somebody has written to a standard output that nobody reads any more."""
        await self._output.wait_broken(self._streams["stdout"])

    async def ask(self, verb: str, args: list[Any], caller: Caller) -> Any:
        """Answer one call."""
        match verb:
            case "write":
                stream, text = args
                await self._output.write(self._streams[stream], _as_bytes(text))
                return True
            case "flush":
                await self._output.flush()
                return True
            case "readline":
                self._check_terminal(verb, caller)
                await self._output.flush()  # a question stands before its answer
                return await self._input.readline()
            case "read":
                self._check_terminal(verb, caller)
                await self._output.flush()
                return await self._input.read(_checked_count(args[0]))
            case "args":
                return list(self._terminal.args) if self._terminal and self._is_terminal(caller) else []
            case _:
                raise Refused(f"io has no {verb}", Kind.INVALID)

    def unit_ended(self, pid: str) -> None:
        """Nothing is held for a unit."""

    def _is_terminal(self, caller: Caller) -> bool:
        pid = parse_pid(caller.pid)
        return self._terminal is not None and isinstance(pid, ProcessPid) and pid.host == self._terminal.host_id

    def _check_terminal(self, verb: str, caller: Caller) -> None:
        if not self._is_terminal(caller):
            raise Refused(
                f"io.{verb}: {caller.entry_id} has no input, as it does not run on a terminal.host; "
                "only the process that `mesh run APP -x ENTRY` runs there has one",
                Kind.INVALID,
            )


class _Output:
    """Writes to file descriptors, in order, in a thread."""

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._queue: deque[tuple[int, bytes]] = deque()
        self._has_thread = False
        self._loop: asyncio.AbstractEventLoop | None = None
        # All below is touched on the event loop only.
        self._accepted = 0
        self._written = 0
        self._broken: dict[int, str] = {}
        self._progress = anyio.Event()

    async def write(self, fd: int, data: bytes) -> None:
        """Take what is to be written; waits while much is unwritten. Raises Refused when nobody reads it any more."""
        self._check(fd)
        if data:
            self._accepted += len(data)
            self._hand_over(fd, data)
        while self._accepted - self._written > UNWRITTEN_BYTES_MAX:
            await self._progress.wait()
        self._check(fd)

    async def flush(self) -> None:
        """Wait until what was taken so far is written, or was lost."""
        accepted = self._accepted
        while self._written < accepted:
            await self._progress.wait()

    async def wait_broken(self, fd: int) -> None:
        """Wait until a stream has turned out to be closed."""
        while fd not in self._broken:
            await self._progress.wait()

    def _check(self, fd: int) -> None:
        if (problem := self._broken.get(fd)) is not None:
            raise Refused(problem, Kind.UNAVAILABLE)

    def _hand_over(self, fd: int, data: bytes) -> None:
        self._loop = asyncio.get_running_loop()
        with self._lock:
            self._queue.append((fd, data))
            if not self._has_thread:
                self._has_thread = True
                threading.Thread(target=self._run, name="standard output", daemon=True).start()
            self._lock.notify()

    def _run(self) -> None:
        """The thread: write what there is, as few times as the order allows."""
        while batch := self._next_batch():
            problems = {}
            for fd, group in groupby(batch, key=lambda item: item[0]):
                problem = _write_all(fd, b"".join(data for _, data in group))
                if problem is not None:
                    problems[fd] = problem
            self._tell(sum(len(data) for _, data in batch), problems)

    def _next_batch(self) -> list[tuple[int, bytes]]:
        with self._lock:
            if not self._lock.wait_for(lambda: self._queue, WRITER_IDLE_S):
                self._has_thread = False
                return []
            batch = list(self._queue)
            self._queue.clear()
            return batch

    def _tell(self, count: int, problems: dict[int, str]) -> None:
        if self._loop is not None:
            _call_on(self._loop, self._done, count, problems)

    def _done(self, count: int, problems: dict[int, str]) -> None:
        self._written += count
        self._broken |= problems
        self._progress.set()
        self._progress = anyio.Event()


class _Input:
    """Reads a file descriptor when somebody asks for something, one after the other."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._buffer = bytearray()
        self._scanned = 0  # no line ends before it
        self._at_end = False
        self._interrupted = False
        self._is_reading = False
        self._arrived = anyio.Event()
        self._turn: anyio.Lock | None = None  # made where there is an event loop

    def interrupt(self) -> None:
        """Refuse everything from now on."""
        self._interrupted = True
        self._arrived.set()

    async def readline(self) -> bytes:
        """The next line, without its end. Raises Refused at the end of the input."""
        async with self._my_turn():
            while (end := self._buffer.find(b"\n", self._scanned)) < 0 and not self._at_end:
                self._scanned = len(self._buffer)
                if self._scanned > LINE_BYTES_MAX:
                    raise Refused(f"a line is longer than {LINE_BYTES_MAX // 2**20} MB; use io.read", Kind.INVALID)
                await self._fill()
            self._check()
            self._scanned = 0
            if end < 0:
                end = len(self._buffer)
                if end == 0:
                    raise Refused(END, Kind.NOT_FOUND)
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            return line.removesuffix(b"\r")

    async def read(self, count: int) -> bytes:
        """What there is, at least one byte and at most `count`. Raises Refused at the end of the input."""
        async with self._my_turn():
            while not self._buffer and not self._at_end:
                await self._fill()
            self._check()
            if not self._buffer:
                raise Refused(END, Kind.NOT_FOUND)
            data = bytes(self._buffer[:count])
            del self._buffer[:count]
            self._scanned = 0
            return data

    def _my_turn(self) -> anyio.Lock:
        if self._turn is None:
            self._turn = anyio.Lock()
        return self._turn

    def _check(self) -> None:
        if self._interrupted:
            raise Refused("interrupted", Kind.CANCELED)

    async def _fill(self) -> None:
        """Wait until more has come. A reader that was given up leaves its thread to the next one."""
        self._check()
        if not self._is_reading:
            self._is_reading = True
            self._arrived = anyio.Event()
            loop = asyncio.get_running_loop()
            threading.Thread(target=self._read, args=(loop,), name="standard input", daemon=True).start()
        await self._arrived.wait()

    def _read(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            data = os.read(self._fd, CHUNK_BYTES)
        except OSError:  # a terminal that is gone, or an input that was closed from the start
            data = b""
        _call_on(loop, self._got, data)

    def _got(self, data: bytes) -> None:
        self._is_reading = False
        self._at_end = not data
        self._buffer += data
        self._arrived.set()


def _call_on(loop: asyncio.AbstractEventLoop, what: Any, *args: Any) -> None:
    """Call something on the event loop, if there still is one."""
    try:
        loop.call_soon_threadsafe(what, *args)
    except RuntimeError:
        return  # closed: nobody waits any more


def _write_all(fd: int, data: bytes) -> str | None:
    """Write everything; None, or why that is impossible."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(fd, rest) :]
        except BlockingIOError:  # somebody who shares the stream has made it so
            select.select([], [fd], [])
        except BrokenPipeError:
            return "nobody reads the output any more"
        except OSError as error:
            return f"the output cannot be written: {error.strerror or error}"
    return None


def _as_bytes(text: object) -> bytes:
    return text if isinstance(text, bytes) else str(text).encode("utf-8", "surrogateescape")


def _checked_count(count: object) -> int:
    if not isinstance(count, int) or not 0 < count <= READ_BYTES_MAX:
        raise Refused(f"io.read takes 1 to {READ_BYTES_MAX} bytes, got {count}", Kind.INVALID)
    return count
