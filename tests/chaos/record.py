"""The record of one run: the directory in which everything is that the checker needs, and nothing else.

    run.json            seed, arguments, what was skipped and why
    ledger.jsonl        what the clients attempted, and what they were told
    effects/<who>.jsonl what functions and services did, in their own words
    stream.jsonl        every message of the queue's stream, as stored
    histories/*.jsonl   the histories as `mesh export` writes them
    leftovers.json      what streams, schedules and queues still hold after the drain
    nemesis.jsonl       what was done to nodes, servers and networks
    logs/               what the processes wrote

Lines are appended by single writes, so several processes may write one file and a kill leaves no half line but the
last. Reading gives every record its place (`file:line`), so that a finding can say where its evidence is.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

APP: Final = Path(__file__).parent / "app"
QUEUE: Final = "chaos"
EFFECTS_ENVIRONMENT: Final = "MESH_CHAOS_EFFECTS"
PLACE: Final = "place"


class Record:
    """A record directory; it is made when it is not there."""

    def __init__(self, directory: Path | str) -> None:
        self.directory = Path(directory).resolve()
        for part in ("effects", "histories", "logs"):
            (self.directory / part).mkdir(parents=True, exist_ok=True)

    @property
    def ledger_file(self) -> Path:
        return self.directory / "ledger.jsonl"

    @property
    def stream_file(self) -> Path:
        return self.directory / "stream.jsonl"

    @property
    def leftovers_file(self) -> Path:
        return self.directory / "leftovers.json"

    @property
    def nemesis_file(self) -> Path:
        return self.directory / "nemesis.jsonl"

    def effects_file(self, who: str) -> Path:
        """Where the functions of a node, or a service, write down what they do."""
        return self.directory / "effects" / f"{who}.jsonl"

    # -- writing -----------------------------------------------------------------------------------------------

    def note(self, op: str, workflow: str, **fields: Any) -> None:
        """Append a line to the ledger."""
        append(self.ledger_file, {"at_ns": time.time_ns(), "op": op, "workflow": workflow, **fields})

    def write_leftovers(self, leftovers: dict[str, Any]) -> None:
        """Write down what is left after the drain."""
        self.leftovers_file.write_text(json.dumps(leftovers, indent=1, sort_keys=True) + "\n")

    # -- reading -----------------------------------------------------------------------------------------------

    def ledger(self) -> list[dict[str, Any]]:
        """The lines of the ledger, in order."""
        return list(lines_of(self.ledger_file))

    def effects(self) -> list[dict[str, Any]]:
        """What all functions and services wrote, oldest first.

        By the machine's monotonic clock, which all processes on it share: their clocks may be set differently.
        """
        found = [line for file in sorted((self.directory / "effects").glob("*.jsonl")) for line in lines_of(file)]
        return sorted(found, key=lambda line: line["mono_ns"])

    def messages(self) -> list[dict[str, Any]]:
        """The stored messages {seq, at_ns, subject, headers, base64}, in stream order."""
        return list(lines_of(self.stream_file))

    def leftovers(self) -> dict[str, Any]:
        """What was left; empty when the drain did not come to looking."""
        if not self.leftovers_file.exists():
            return {}
        found: dict[str, Any] = json.loads(self.leftovers_file.read_text())
        return found

    def histories(self) -> dict[tuple[str, int], list[dict[str, Any]]]:
        """The events of the exported histories, by workflow and run."""
        found: dict[tuple[str, int], list[dict[str, Any]]] = {}
        for file in self.history_files():
            events: list[dict[str, Any]] = []
            for line in lines_of(file):
                if "moonmesh" in line:
                    events = found[line["id"], line["run"]] = []
                else:
                    events.append(line)
        return found

    def history_files(self) -> list[Path]:
        """The exported histories."""
        return sorted((self.directory / "histories").glob("*.jsonl"))


def append(file: Path, record: dict[str, Any]) -> None:
    """Append one line by one write."""
    descriptor = os.open(file, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        os.write(descriptor, (json.dumps(record) + "\n").encode())
    finally:
        os.close(descriptor)


def lines_of(file: Path) -> Iterator[dict[str, Any]]:
    """The records of a file, each with its place. A last line without its end is what a kill has left: skipped."""
    if not file.exists():
        return
    with file.open() as opened:
        for number, line in enumerate(opened, 1):
            if line.endswith("\n"):
                yield json.loads(line) | {PLACE: f"{file.name}:{number}"}
