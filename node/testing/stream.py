"""The histories of a simulation: what the streams of a mesh hold, in memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress

from mesh.errors import Undecodable
from mesh.events import Event, StartSpec, parse, start_spec_of
from mesh.lineage import arranged
from mesh.subjects import WorkflowKey
from mesh.wire import encode_headers


class Stream:
    """The events of all workflows, numbered as the stream of their queue numbers them."""

    def __init__(self) -> None:
        self._last: defaultdict[str, int] = defaultdict(int)  # by queue
        self._events: defaultdict[WorkflowKey, list[Event]] = defaultdict(list)

    def append(
        self, key: WorkflowKey, kind: tuple[str, ...], at_ns: int, data: bytes, headers: Mapping[str, str] | None
    ) -> Event:
        """Store an event. kind: the subject tokens from the kind on."""
        seq = self._last[key.queue] + 1
        raw = encode_headers(headers) if headers else None
        event = parse(key.stored(0, *kind), seq, at_ns, data, raw)
        if event is None:
            raise ValueError(f"{'.'.join(kind)} is no event")
        self._last[key.queue] = seq
        self._events[key].append(event)
        return event

    def delete(self, key: WorkflowKey, seq: int) -> None:
        """Delete an event: a failed attempt after which another one has failed."""
        self._events[key] = [event for event in self._events[key] if event.seq != seq]

    def newest(self, key: WorkflowKey, *kind: str) -> Event | None:
        """The newest event of one subject."""
        found = [event for event in self._events[key] if (event.kind, *event.args) == kind]
        return found[-1] if found else None

    def events(self, key: WorkflowKey, run: int) -> list[Event]:
        """The history of a run up to its end or up to now, as `mesh.history.History.events` gives it."""
        starts: dict[int, StartSpec] = {}
        found: list[Event] = []
        for event in self._events[key]:
            if event.kind == "start":
                if event.seq > run:
                    continue
                with suppress(Undecodable):
                    starts[event.seq] = start_spec_of(event)
            found.append(event)
            if event.kind == "end" and event.run == run:
                break
        return arranged(run, found, starts)
