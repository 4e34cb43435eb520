"""What is seen of a mesh while it is under attack: whether it gets on, and which partitions change hands."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import anyio

from mesh.client import Client
from mesh.errors import MeshError
from mesh.follower import Delivered, Follower
from mesh.roster import BUCKET
from tests.chaos.record import Record

LOOK_EVERY_S: Final = 0.1
_CLAIMS: Final = f"$KV.{BUCKET}.claim."


@dataclass(slots=True)
class LineCount:
    """How many lines a growing file has; reads only what is new."""

    path: Path
    lines: int = 0
    _read: int = 0

    def look(self) -> int:
        """Count on."""
        if self.path.exists():
            with self.path.open("rb") as opened:
                opened.seek(self._read)
                new = opened.read()
            self._read += len(new)
            self.lines += new.count(b"\n")
        return self.lines


@dataclass(slots=True)
class Progress:
    """How many effects and ledger lines there are, and for how long at most no effect came.

    An effect is what a function did: as long as they come, workflows get on.
    """

    record: Record
    effects: int = 0
    ledger_lines: int = 0
    longest_pause_s: float = 0.0
    longest_pause_at_s: float = 0.0
    _counts: dict[Path, LineCount] = field(default_factory=dict)

    async def watch(self) -> None:
        """Look again and again, until cancelled."""
        begun = moved = anyio.current_time()
        while True:
            now, before = anyio.current_time(), self.effects
            self.look()
            if self.effects != before:
                moved = now
            elif now - moved > self.longest_pause_s:
                self.longest_pause_s, self.longest_pause_at_s = now - moved, moved - begun
            await anyio.sleep(LOOK_EVERY_S)

    def look(self) -> None:
        """Count what is new."""
        files = [self.record.ledger_file, *sorted((self.record.directory / "effects").glob("*.jsonl"))]
        counts = [self._counts.setdefault(file, LineCount(file)).look() for file in files]
        self.ledger_lines, self.effects = counts[0], sum(counts[1:])


class Takeovers:
    """Counts how often a partition got another owner than it had before."""

    def __init__(self) -> None:
        self.count = 0
        self._owners: dict[str, str] = {}
        self._seq = 0

    async def watch(self, client: Client) -> None:
        """Follow the claims until cancelled. A server that refuses is asked again: it is under attack, too."""
        while True:
            try:
                await Follower(client.conn, client.js, f"KV_{BUCKET}", [f"{_CLAIMS}>"], 1, self._see).run()
            except MeshError:
                await anyio.sleep(LOOK_EVERY_S)

    def _see(self, message: Delivered) -> None:
        node = (json.loads(message.data) if message.data else {}).get("node") or ""
        if not node:
            return  # released: whoever takes it next counts
        partition = message.subject.removeprefix(_CLAIMS)
        if message.seq <= self._seq:
            return  # seen before the follower had to begin anew
        self._seq = message.seq
        if self._owners.get(partition, node) != node:
            self.count += 1
        self._owners[partition] = node
