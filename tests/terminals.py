r"""A program on a real terminal, with somebody who types.

with on_terminal("run", str(app), "-x", "app:cli") as terminal:
    terminal.expect("name? ")
    terminal.type("Ada\n")
    assert terminal.wait() == 0
"""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pyte

from tests.cluster import plain_environment

CTRL_C = "\x03"
CTRL_D = "\x04"
TIMEOUT_S = 20.0
COLUMNS = 120
LINES = 40

# The leader of a session gets the first terminal that it opens as its own: from then on Ctrl-C is a signal.
_WITH_TERMINAL = """
import os, sys
os.close(os.open(os.ttyname(0), os.O_RDWR))
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


class Terminal:
    """The other side of the terminal."""

    def __init__(self, process: subprocess.Popen[bytes], side: int, columns: int = COLUMNS) -> None:
        self.process = process
        self.seen = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a character may come in two pieces
        self._side = side
        self._columns = columns
        self._read_to = 0

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._side, text.encode())

    def expect(self, text: str, timeout_s: float = TIMEOUT_S) -> None:
        """Wait until a text appears after what was expected before."""
        deadline = time.monotonic() + timeout_s
        while (at := self.seen.find(text, self._read_to)) < 0:
            if not self._read(deadline - time.monotonic()):
                raise AssertionError(f"{text!r} did not appear; there is:\n{self.seen}")
        self._read_to = at + len(text)

    def expect_all(self, *texts: str) -> None:
        """Wait until all of these appear after what was expected before, in any order."""
        before, ends = self._read_to, []
        for text in texts:
            self._read_to = before
            self.expect(text)
            ends.append(self._read_to)
        self._read_to = max(ends)

    def screen(self) -> str:
        """What stands on the screen by now, without blank lines and what is behind the last letter of a line."""
        screen = pyte.Screen(self._columns, LINES)
        pyte.Stream(screen).feed(self.seen.replace("\n", "\r\n"))
        return "\n".join(line.rstrip() for line in screen.display if line.strip())

    def expect_screen(self, fits: Callable[[str], bool], timeout_s: float = TIMEOUT_S) -> None:
        """Wait until the screen is as it should be: one that is being drawn has parts of what was and of what comes."""
        deadline = time.monotonic() + timeout_s
        while not fits(self.screen()):
            if not self._read(deadline - time.monotonic()):
                raise AssertionError(f"the screen did not become so; there is:\n{self.screen()}")
        self._read_to = len(self.seen)

    def wait(self, timeout_s: float = TIMEOUT_S) -> int:
        """Wait for the end of the program; returns its exit status."""
        deadline = time.monotonic() + timeout_s
        while self._read(deadline - time.monotonic()):
            pass
        return self.process.wait(max(deadline - time.monotonic(), 0.1))

    def _read(self, timeout_s: float) -> bool:
        ready, _, _ = select.select([self._side], [], [], max(timeout_s, 0))
        try:
            data = os.read(self._side, 65536) if ready else b""
        except OSError:  # how Linux says that the other side is closed
            data = b""
        text = self._decoder.decode(data)
        if self.seen.endswith("\r") and text.startswith("\n"):  # and so may the end of a line
            self.seen = self.seen[:-1]
        self.seen += text.replace("\r\n", "\n")
        return bool(data)


@contextmanager
def on_terminal(
    *arguments: str, directory: Path | None = None, environ: Mapping[str, str] | None = None
) -> Iterator[Terminal]:
    """Run `mesh` with these arguments on a terminal of its own while the block runs."""
    with a_program_on_terminal("-m", "node", *arguments, directory=directory, environ=environ) as terminal:
        yield terminal


@contextmanager
def a_program_on_terminal(
    *arguments: str, directory: Path | None = None, environ: Mapping[str, str] | None = None, columns: int = COLUMNS
) -> Iterator[Terminal]:
    """Run Python with these arguments on a terminal of its own while the block runs."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-c", _WITH_TERMINAL, *arguments],
        stdin=its, stdout=its, stderr=its, cwd=directory, env=plain_environment(environ), start_new_session=True,
    )  # fmt: skip
    os.close(its)
    try:
        yield Terminal(process, ours, columns)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        os.close(ours)
