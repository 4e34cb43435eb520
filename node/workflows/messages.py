"""The messages of one run: in which order its code is given them, and each of them once.

Pure. First comes what the run was started with, then what was sent to it before it began, then the rest as it arrives.

Invariants:
  * of several signals that carry one `Mesh-Once` the first in stream order is a message, the others are nothing;
  * while something is undelivered, nothing that came later has been delivered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from mesh import codec
from mesh.errors import Undecodable
from mesh.events import HEADER_FROM, HEADER_ONCE, Event


class Message(NamedTuple):
    """What somebody sent to a workflow. sender: a PID, "" when nobody said. body: in our own form."""

    topic: str
    body: bytes
    sender: str


class Messages:
    """What a run has been sent and has not been given yet, and whose messages it knows already."""

    def __init__(self) -> None:
        self._early: list[Event] = []  # came before a delayed run began
        self._undelivered: deque[Message] = deque()  # what was there at the beginning, not fed yet
        self._senders: dict[str, set[str]] = {}

    def keep(self, event: Event) -> None:
        """Keep a signal until the run begins."""
        self._early.append(event)

    def line_up(self, given: Iterable[Mapping[str, Any]]) -> Iterator[Event]:
        """The run begins: line up what was given to it and what it was sent; yield the events of the latter."""
        self._undelivered.extend(Message(m["topic"], m["body"], m["from"]) for m in given)
        early, self._early = self._early, []
        for event in early:
            message = self.read(event)
            if message is not None:
                self._undelivered.append(message)
                yield event

    def next(self) -> Message | None:
        """Take out the first message that was there at the beginning and was not fed yet."""
        return self._undelivered.popleft() if self._undelivered else None

    def undelivered(self) -> tuple[dict[str, Any], ...]:
        """What the code was not given, in the form in which a run is given its messages."""
        return tuple({"topic": m.topic, "body": m.body, "from": m.sender} for m in self._undelivered)

    def read(self, event: Event) -> Message | None:
        """The message of a signal; None when it was taken before."""
        headers = event.headers
        once = headers.get(HEADER_ONCE)
        if once:
            sender, _, n = once.rpartition("/")
            seen = self._senders.setdefault(sender, set())
            if n in seen:
                return None
            seen.add(n)
        try:
            body = codec.as_marked(event.data)
        except Undecodable:
            body = codec.encode(event.data)  # nobody can read it: the code gets the bytes
        return Message(event.topic, body, headers.get(HEADER_FROM, ""))
