"""What is to be spawned, as units ask for it and as it goes from node to node. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mesh import codec
from mesh.tracecontext import TraceContext, parse_context


@dataclass(frozen=True, slots=True)
class SpawnRequest:
    """What is to be spawned. request: a payload [arguments, context]. messages: (topic, bodies), delivered first.

    trace: the span it is spawned in; the calls that it makes are below that.
    """

    entry_id: str
    host_id: str
    request: bytes
    name: str = ""
    messages: tuple[tuple[str, bytes], ...] = ()
    monitor: bool = False
    link: bool = False
    trace: TraceContext | None = None

    def to_wire(self) -> list[Any]:
        """The arguments of a `spawn` request to another node."""
        messages = [list(message) for message in self.messages]
        wire = [self.entry_id, self.host_id, self.request, self.name, messages, self.monitor, self.link]
        return wire if self.trace is None else [*wire, self.trace.text, self.trace.state]

    @classmethod
    def from_wire(cls, wire: list[Any]) -> SpawnRequest:
        """Read the arguments of a `spawn` request. Raises ValueError, Undecodable."""
        match wire:
            case [str(entry_id), str(host_id), bytes(request), str(name), list(messages), monitor, link, *trace] if all(
                isinstance(text, str) for text in trace
            ) and all(map(_is_message, messages)):
                first = tuple((topic, body) for topic, body in messages)
            case _:
                raise ValueError("a spawn is [entry, host, request, name, messages, monitor, link] and maybe its trace")
        codec.decode(request)
        context = parse_context(*trace[:2]) if trace else None
        return cls(entry_id, host_id, request, name, first, bool(monitor), bool(link), context)


def _is_message(message: object) -> bool:
    return isinstance(message, list) and [type(part) for part in message] == [str, bytes]
