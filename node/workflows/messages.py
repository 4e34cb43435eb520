"""The messages of one run: in which order its code is given them, and each of them once.

Pure. First comes what the run was started with, then what was sent to it before it began, then the rest as it arrives.

Invariants:
  * of several signals that carry one `Mesh-Once` the first in stream order is a message, the others are nothing, also
    when a run that follows is sent them: it is told what the runs before it have heard, the newest HEARD_MAX of it;
  * while something is undelivered, nothing that came later has been delivered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from mesh import codec
from mesh.errors import Undecodable
from mesh.events import HEADER_FROM, HEADER_ONCE, Event

# Of these the next run is told, in its start. Whoever repeats a message does so within seconds or minutes; a run that
# has many more in that time has the server's own memory (two minutes) for those that come with a message id.
HEARD_MAX: Final = 1000


class Message(NamedTuple):
    """What somebody sent to a workflow. sender: a PID, "" when nobody said. body: in our own form."""

    topic: str
    body: bytes
    sender: str


class Messages:
    """What a run has been sent and has not been given yet, and whose messages it knows already.

    heard: the identities of messages that the runs before it were given.
    """

    def __init__(self, heard: Iterable[str] = ()) -> None:
        self._early: list[Event] = []  # came before a delayed run began
        # What was there at the beginning and was not fed yet; nearly always nothing, and a deque is not small.
        self._undelivered: deque[Message] | None = None
        self._senders: dict[str, set[str]] = {}
        self._newest: deque[str] | None = None
        for once in heard:
            self._is_news(once)

    def keep(self, event: Event) -> None:
        """Keep a signal until the run begins."""
        self._early.append(event)

    def line_up(self, given: Sequence[Mapping[str, Any]]) -> Iterator[Event]:
        """The run begins: line up what was given to it and what it was sent; yield the events of the latter."""
        early, self._early = self._early, []
        if not given and not early:
            return
        self._undelivered = deque(Message(m["topic"], m["body"], m["from"]) for m in given)
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
        return tuple({"topic": m.topic, "body": m.body, "from": m.sender} for m in self._undelivered or ())

    def heard(self) -> tuple[str, ...]:
        """The newest identities under which it was given messages; for the run that follows."""
        return tuple(self._newest or ())

    def read(self, event: Event) -> Message | None:
        """The message of a signal; None when it was taken before."""
        headers = event.headers
        once = headers.get(HEADER_ONCE)
        if once and not self._is_news(once):
            return None
        try:
            body = codec.as_marked(event.data)
        except Undecodable:
            body = codec.encode(event.data)  # nobody can read it: the code gets the bytes
        return Message(event.topic, body, headers.get(HEADER_FROM, ""))

    def _is_news(self, once: str) -> bool:
        sender, _, n = once.rpartition("/")
        seen = self._senders.setdefault(sender, set())
        if n in seen:
            return False
        seen.add(n)
        if self._newest is None:
            self._newest = deque(maxlen=HEARD_MAX)
        self._newest.append(once)
        return True
