"""The stored messages of a run as the checker reads them: with a reader of its own, apart from the engine's.

Rules of the stream that the checker judges by, from docs/architecture.md: a start opens a run when none is open; the
first end that names the open run closes it; the first outcome of an op counts, where only the last failed attempt says
anything. Subjects are `mesh.log.<queue>.<partition>.<id>.<kind>...`, payloads 0xC1 and msgpack, or JSON, or text.
"""

from __future__ import annotations

import base64
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final
from urllib.parse import unquote

import msgpack

MARKER: Final = b"\xc1"
ERROR_TYPE: Final = 1
# Of calls that may run only once: nobody knows, and what comes later does not change that.
UNKNOWN_OUTCOME: Final = "UnknownOutcome"


@dataclass(frozen=True)
class Message:
    """One stored message. args: the subject's tokens after the kind. place: of its line in the record."""

    seq: int
    at_ns: int
    workflow: str
    kind: str
    args: tuple[str, ...]
    headers: Mapping[str, str]
    data: bytes
    place: str
    partition: int = 0

    @cached_property
    def value(self) -> Any:
        """What it carries."""
        return decoded(self.data)

    def is_told_by(self, event: Mapping[str, Any]) -> bool:
        """Whether an event of an exported history is this message. The run may have been put in: it is not compared."""
        if event["kind"] != self.kind:
            return False
        if "base64" in event:
            return base64.b64decode(event["base64"]) == self.data
        if "text" in event:
            return str(event["text"]).encode() == self.data
        return bool(event.get("data") == self.value)

    @property
    def run(self) -> int:
        """The run it names, 0 for none."""
        return int(self.args[0]) if self.args and self.args[0].isdecimal() else 0

    @property
    def op(self) -> int:
        """The op it is about, 0 for none."""
        return int(self.args[1]) if len(self.args) > 1 and self.args[1].isdecimal() else 0

    @property
    def attempt(self) -> int:
        return int(self.args[2]) if len(self.args) > 2 and self.args[2].isdecimal() else 0

    @property
    def outcome(self) -> tuple[bool, Any]:
        """Of an outcome: whether it is a success, and its value or failure."""
        if self.data[:1] != MARKER:
            return True, self.value
        code, value = self.value
        return code == 0, value

    @property
    def once(self) -> str:
        """The identity under which it is to be taken one time only."""
        return self.headers.get("Mesh-Once", "")

    def __str__(self) -> str:
        return f"{self.place} (seq {self.seq}: {'.'.join((self.kind, *self.args))})"


@dataclass
class Run:
    """One run of a workflow: from the start that opened it to the first end that names it."""

    start: Message
    end: Message | None = None
    own: list[Message] = field(default_factory=list)

    @property
    def number(self) -> int:
        return self.start.seq

    @property
    def status(self) -> str:
        return str(self.end.value["status"]) if self.end is not None else "running"

    @property
    def goes_on(self) -> bool:
        """Whether another run follows."""
        return self.end is not None and bool(self.end.value.get("next"))

    @property
    def result(self) -> tuple[bool, Any]:
        """Whether it has completed, and its result or its failure."""
        if self.end is None:
            return False, {}
        code, value = decoded(self.end.value["outcome"])
        return code == 0, value

    @property
    def parent(self) -> tuple[str, int, int] | None:
        """The workflow, run and op that started it, for a child."""
        wire = self.start.value
        found = wire.get("parent") if isinstance(wire, dict) else None
        return (str(found[1]), int(found[2]), int(found[3])) if found else None

    def outcomes(self) -> dict[int, list[Message]]:
        """All outcomes by op, in the order in which they were stored."""
        found: dict[int, list[Message]] = defaultdict(list)
        for message in self.own:
            if message.kind == "ret":
                found[message.op].append(message)
        return found

    def effective(self) -> dict[int, Message]:
        """By op, the outcome that counts: the first success, or the failure that nothing can change."""
        counts = {}
        for op, messages in self.outcomes().items():
            for message in messages:
                ok, value = message.outcome
                if ok or value.get("kind") == UNKNOWN_OUTCOME or value.get("retryable") is False:
                    counts[op] = message
                    break
        return counts


@dataclass
class Workflow:
    """Everything stored about one workflow, in order, and its runs."""

    id: str
    messages: list[Message] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)

    @property
    def last(self) -> Run:
        return self.runs[-1]

    def of(self, kind: str) -> list[Message]:
        """The messages of a kind."""
        return [message for message in self.messages if message.kind == kind]

    def due(self, run: Run) -> list[Message]:
        """The messages that belong into the history of a run: its own and those to all runs, from its start to its end.

        Of ticks, exits and the like on one subject the first: the others are the same once more.
        """
        until = run.end.seq if run.end is not None else float("inf")
        shared = [message for message in self.messages if message.kind in ("signal", "cancel", "kill")]
        found: dict[object, Message] = {}
        for message in sorted([run.start, *run.own, *shared], key=lambda message: message.seq):
            if run.number <= message.seq <= until:
                every_one = message.kind in ("signal", "cancel", "kill", "ret")
                found.setdefault((message.kind, message.seq if every_one else message.args), message)
        return list(found.values())

    def signals(self) -> list[Message]:
        """The signals that are to be taken: of those under one identity the first."""
        seen, found = set(), []
        for message in self.of("signal"):
            if message.once in seen:
                continue
            if message.once:
                seen.add(message.once)
            found.append(message)
        return found


def read_workflows(lines: Iterable[Mapping[str, Any]]) -> dict[str, Workflow]:
    """The workflows in the lines of stream.jsonl, by id."""
    found: dict[str, Workflow] = {}
    for line in lines:
        message = read_message(line)
        if message is None:
            continue
        workflow = found.setdefault(message.workflow, Workflow(message.workflow))
        workflow.messages.append(message)
    for workflow in found.values():
        _find_runs(workflow)
    return found


def read_message(line: Mapping[str, Any]) -> Message | None:
    """One line of stream.jsonl; None when its subject is no event's."""
    parts = str(line["subject"]).split(".")
    if len(parts) < 6 or parts[:2] != ["mesh", "log"]:
        return None
    return Message(
        int(line["seq"]), int(line["at_ns"]), unquote(parts[4]), parts[5], tuple(map(unquote, parts[6:])),
        dict(line["headers"]), base64.b64decode(line["base64"]), str(line.get("place", "")), int(parts[3]),
    )  # fmt: skip


def _find_runs(workflow: Workflow) -> None:
    is_open: Run | None = None
    by_number: dict[int, Run] = {}
    for message in workflow.messages:
        if message.kind == "start" and is_open is None:
            is_open = by_number[message.seq] = Run(message)
            workflow.runs.append(is_open)
        elif message.kind == "end" and is_open is not None and message.run == is_open.number:
            is_open.end = message
            is_open = None
        if message.kind in ("ret", "tick", "exit", "claim", "mark", "end") and message.run in by_number:
            by_number[message.run].own.append(message)


def decoded(data: bytes) -> Any:
    """What bytes mean: a payload of the mesh, JSON, or text."""
    if data[:1] == MARKER:
        return unpacked(data[1:])
    if not data:
        return None
    try:
        return json.loads(data)
    except ValueError:
        return data.decode("utf-8", "replace")


def unpacked(data: bytes) -> Any:
    """A value in msgpack; an error is the map that it carries."""
    return msgpack.unpackb(data, raw=False, strict_map_key=False, ext_hook=_extension)


def _extension(code: int, data: bytes) -> Any:
    return unpacked(data) if code == ERROR_TYPE else None
