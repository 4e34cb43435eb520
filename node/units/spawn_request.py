"""What is to be spawned, as units ask for it and as it goes from node to node. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mesh import codec


@dataclass(frozen=True, slots=True)
class SpawnRequest:
    """What is to be spawned. request: a payload [arguments, context]. messages: (topic, bodies), delivered first."""

    entry_id: str
    host_id: str
    request: bytes
    name: str = ""
    messages: tuple[tuple[str, bytes], ...] = ()
    monitor: bool = False
    link: bool = False

    def to_wire(self) -> list[Any]:
        """The arguments of a `spawn` request to another node."""
        messages = [list(message) for message in self.messages]
        return [self.entry_id, self.host_id, self.request, self.name, messages, self.monitor, self.link]

    @classmethod
    def from_wire(cls, wire: list[Any]) -> SpawnRequest:
        """Read the arguments of a `spawn` request."""
        entry_id, host_id, request, name, messages, monitor, link = wire
        first = tuple((m[0], m[1]) for m in messages)
        texts = (entry_id, host_id, name, *(topic for topic, _ in first))
        if not all(isinstance(text, str) for text in texts) or not all(isinstance(body, bytes) for _, body in first):
            raise ValueError("a spawn is [entry, host, request, name, messages, monitor, link]")
        codec.decode(request)
        return cls(entry_id, host_id, request, name, first, bool(monitor), bool(link))
