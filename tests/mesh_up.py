"""A whole mesh as a person runs it: `mesh up` as a process of its own.

    with Up(app, "--nodes", "2") as up:
        lines = await up.lines_until("Ctrl-C")

Its server listens on a free port and is named in the first line. It works in `directory`, by default the app's parent.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import anyio

from tests.cluster import plain_environment
from tests.servers import tied_to_us


class Up:
    """`mesh up` as a process whose lines can be waited for."""

    def __init__(self, app: Path, *arguments: str, directory: Path | None = None) -> None:
        where = directory or app.parent
        self.log = where / "up.log"
        with self.log.open("wb") as stderr:
            self.process = subprocess.Popen(
                tied_to_us(
                    sys.executable, "-m", "node", "up", str(app), "--port", "0", "--sync", "relaxed", *arguments
                ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                cwd=where,
                env=plain_environment(),
                text=True,
            )

    def __enter__(self) -> Up:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

    async def lines_until(self, text: str) -> list[str]:
        return await anyio.to_thread.run_sync(self._read_until, text)

    def _read_until(self, text: str) -> list[str]:
        assert self.process.stdout is not None
        lines = []
        for line in self.process.stdout:
            lines.append(line.rstrip("\n"))
            if text in line:
                return lines
        raise AssertionError(f"no {text!r} in {lines}; it logged:\n{self.log.read_text()}")
