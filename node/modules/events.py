"""The Python half of `events`: who gets which event, on this node and across the mesh (contract 14.3).

An event goes to every unit of this node that has subscribed to it, at once and in order, as a message with the internal
topic `@events:<subscription number>`. One that is sent for the mesh goes over NATS too (`mesh.events.<system>`, core
NATS): every node hands it to its own subscribers. Nothing is stored; a node without a connection misses what others
send meanwhile, and cannot send for the mesh itself.

Anybody may publish on these subjects: a payload of ours or JSON with `kind`, `path` and, if wanted, `data`.

Invariants: a subscriber gets each event once, also one of its own node's that comes back over NATS; the events of one
sender arrive in the order of sending. A mesh event that cannot be published reaches nobody.
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass
from typing import Any, Final

import anyio
import anyio.abc

from mesh import codec
from mesh.connection import Connection
from mesh.errors import Disconnected, InvalidName, PayloadTooLarge, Undecodable
from mesh.failure import Kind
from mesh.subjects import EVERY_EVENT, event_subject, event_system
from node.modules import Caller, Deliver, Refused, text_of
from node.refusals import Refusals

SUBSCRIPTIONS_PER_UNIT_MAX: Final = 1000

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pattern:
    """A text, or the beginning of one."""

    text: str
    prefix: bool

    @classmethod
    def read(cls, given: str) -> Pattern:
        """Read `*` (all), `x*` (prefix) or an exact text."""
        return cls(given.removesuffix("*"), given.endswith("*"))

    def fits(self, text: str) -> bool:
        """Whether a text is of this pattern."""
        return text.startswith(self.text) if self.prefix else text == self.text


@dataclass(frozen=True, slots=True)
class Subscription:
    """What one unit wants to hear."""

    number: int
    pid: str
    system: Pattern
    kind: Pattern

    @property
    def topic(self) -> str:
        """The topic of the messages that carry its events."""
        return f"@events:{self.number}"


class EventsModule:
    """The event bus of a node. conn: for events of the mesh; None when there is no mesh. Run it to hear other nodes."""

    def __init__(
        self, deliver: Deliver, conn: Connection | None = None, *, per_unit_max: int = SUBSCRIPTIONS_PER_UNIT_MAX
    ) -> None:
        self._deliver = deliver
        self._conn = conn
        self._per_unit_max = per_unit_max
        self._sender = secrets.token_hex(8)  # tells what comes back from what others have sent
        self._refusals = Refusals(_log)
        self._last = 0
        self._subscriptions: dict[int, Subscription] = {}
        self._of_unit: dict[str, set[int]] = {}

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Hear the events of other nodes until cancelled. Ready when the subscription has been asked for."""
        if self._conn is None:
            task_status.started()
            return
        subscription = self._conn.subscribe_direct(EVERY_EVENT, self._on_event)
        try:
            task_status.started()
            await anyio.sleep_forever()
        finally:
            subscription.unsubscribe()

    async def ask(self, verb: str, args: list[Any], caller: Caller) -> Any:
        """Answer one call. Raises Refused."""
        match verb, args:
            case "subscribe", [system, kind]:
                return self._subscribe(text_of(system, "events: system"), text_of(kind, "events: kind"), caller)
            case "close", [number]:
                self._close(number, caller.pid)
                return True
            case "send", [system, kind, path, data, mesh]:
                said = {"system": system, "kind": kind, "path": path}
                event: dict[str, Any] = {name: text_of(value, f"events: {name}") for name, value in said.items()}
                self._send(event if data is None else {**event, "data": data}, mesh=mesh)
                return True
            case _:
                raise Refused(f"events.{verb} is not known")

    def unit_ended(self, pid: str) -> None:
        """End the subscriptions of a unit."""
        for number in self._of_unit.pop(pid, ()):
            del self._subscriptions[number]

    def statistics(self) -> dict[str, int]:
        """What is subscribed to here."""
        return {"subscriptions": len(self._subscriptions), "units": len(self._of_unit)}

    def _subscribe(self, system: str, kind: str, caller: Caller) -> int:
        numbers = self._of_unit.setdefault(caller.pid, set())
        if len(numbers) >= self._per_unit_max:
            reason = f"events.subscribe: a unit may have {self._per_unit_max} subscriptions; close what is not needed"
            raise Refused(reason, Kind.RATE_LIMITED)
        self._last += 1
        subscription = Subscription(self._last, caller.pid, Pattern.read(system), Pattern.read(kind))
        self._subscriptions[self._last] = subscription
        numbers.add(self._last)
        return self._last

    def _close(self, number: int, pid: str) -> None:
        numbers = self._of_unit.get(pid, set())
        if number in numbers:
            numbers.discard(number)
            del self._subscriptions[number]
            if not numbers:
                del self._of_unit[pid]

    def _send(self, event: dict[str, Any], *, mesh: bool) -> None:
        if mesh:
            self._publish(event)
        self._hand_out(event)

    def _hand_out(self, event: dict[str, Any]) -> None:
        system, kind = event["system"], event["kind"]
        for subscription in list(self._subscriptions.values()):
            if subscription.system.fits(system) and subscription.kind.fits(kind):
                self._deliver(subscription.pid, subscription.topic, event)

    def _publish(self, event: dict[str, Any]) -> None:
        if self._conn is None:
            raise Refused("events.send: this node is in no mesh", Kind.UNAVAILABLE)
        wire = {name: value for name, value in event.items() if name != "system"} | {"sender": self._sender}
        try:
            self._conn.publish_nowait(event_subject(event["system"]), codec.encode(wire))
        except (InvalidName, PayloadTooLarge) as error:
            raise Refused(f"events.send: {error}", Kind.INVALID) from error
        except Disconnected as error:
            raise Refused(f"events.send: {error}", Kind.UNAVAILABLE, retryable=True) from error

    def _on_event(self, subject: str, _reply: str, data: bytes, _raw_headers: bytes | None) -> None:
        try:
            wire = codec.decode(self._conn.opened(subject, data) if self._conn is not None else data)
        except Undecodable as error:
            wire = str(error)
        if not isinstance(wire, dict) or not all(wire.get(name) and _is_text(wire[name]) for name in ("kind", "path")):
            self._refusals.note("what was published on %s is no event: it needs the texts kind and path", subject)
            return
        if wire.get("sender") == self._sender:
            return
        event = {"system": event_system(subject), "kind": wire["kind"], "path": wire["path"]}
        if wire.get("data") is not None:
            event["data"] = wire["data"]
        self._hand_out(event)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def build(deliver: Deliver, conn: Connection) -> EventsModule:
    """Make the module of a node. Its `run` belongs into the node's task group."""
    return EventsModule(deliver, conn)
