"""What the demo sees of the mesh: who is alive, who owns what, and everything that happens to a workflow.

It only listens: to the bucket in which nodes and claims are kept, to the stream of the histories, and to the calls as
they are published. It turns them into facts; how they look is in `screen`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from mesh import codec
from mesh.client import Client
from mesh.errors import Undecodable
from mesh.events import Event, decode_end, decode_start, parse
from mesh.follower import Delivered, Follower
from mesh.roster import BUCKET
from mesh.subjects import bucket_key_name, parse_workflow, stream_name, untoken
from mesh.wire import parse_headers
from node.workflows.ops import fingerprint

CLIENT = "client"
SERVER = "server"
FUNCTION = "function"
SERVICE = "service"

_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that happened. who: a node, or one of the names above: `function` when no event says which node ran it.

    kind: of the event; `call` and `timer` for what its owner asks for, `failure` for an outcome that is none.
    due_ns: when a timer is due, 0 for everything else.
    """

    at_ns: int
    who: str
    workflow: str
    kind: str
    text: str
    due_ns: int = 0


class Roster:
    """The members and the claims as they stand. `on_join(node, at_ns)` and the like are called as things happen."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._members: dict[str, tuple[str, int]] = {}
        self._claims: dict[tuple[str, int], tuple[str, str, int]] = {}
        self.on_join: Callable[[str, int, int], None] = lambda _node, _pid, _at_ns: None
        self.on_gone: Callable[[str, int], None] = lambda _node, _at_ns: None

    @property
    def members(self) -> dict[str, int]:
        """The live nodes and their process ids."""
        return {node: pid for node, (_, pid) in sorted(self._members.items())}

    def owner(self, queue: str, partition: int) -> str | None:
        """Who owns a partition; None while its last owner is gone and nobody has claimed it yet."""
        node, incarnation, _ = self._claims.get((queue, partition), ("", "", 0))
        member = self._members.get(node)
        return node if member is not None and member[0] == incarnation else None

    def claimed_at_ns(self, queue: str, partition: int) -> int:
        """When the server stored the claim that stands."""
        return self._claims[queue, partition][2]

    def shares(self) -> Counter[str]:
        """How many partitions each live node owns."""
        return Counter(owner for key in self._claims if (owner := self.owner(*key)) is not None)

    def is_settled(self, partitions: int) -> bool:
        """Tell whether so many partitions are owned by live nodes."""
        return self.shares().total() == partitions

    def follower(self) -> Follower:
        """Return what has to be run to keep this up to date."""
        client = self._client
        stream = f"KV_{BUCKET}"
        return Follower(client.conn, client.js, stream, [f"$KV.{BUCKET}.>"], 1, self._see, consumer_prefix="demo")

    def _see(self, message: Delivered) -> None:
        kind, _, rest = message.subject.removeprefix(f"$KV.{BUCKET}.").partition(".")
        headers = parse_headers(message.raw_headers)
        gone = "KV-Operation" in headers or "Nats-Marker-Reason" in headers
        value = {} if gone or not message.data else json.loads(message.data)
        if kind == "member":
            self._see_member(bucket_key_name(rest), value, message.timestamp_ns)
        elif kind == "claim":
            queue, _, partition = rest.rpartition(".")
            key = (bucket_key_name(queue), int(partition))
            node, incarnation, _ = before = self._claims.get(key, ("", "", 0))
            if (value.get("node"), value.get("incarnation")) == (node, incarnation):
                at_ns = before[2]  # a checkpoint, not a new owner
            else:
                at_ns = message.timestamp_ns
            self._claims[key] = (value.get("node") or "", value.get("incarnation", ""), at_ns)

    def _see_member(self, node: str, value: dict[str, object], at_ns: int) -> None:
        if not value:
            if self._members.pop(node, None) is not None:
                self.on_gone(node, at_ns)
            return
        pid = value.get("pid")
        new = node not in self._members
        self._members[node] = (str(value.get("incarnation")), pid if isinstance(pid, int) else 0)
        if new:
            self.on_join(node, self._members[node][1], at_ns)


class Histories:
    """Everything that happens to the workflows of one queue, as facts, in the order of the stream.

    functions: the ids of all functions, and who answers for each.
    """

    def __init__(
        self, client: Client, queue: str, functions: Mapping[str, str], roster: Roster, tell: Callable[[Fact], None]
    ) -> None:
        self._client = client
        self._queue = queue
        self._roster = roster
        self._tell = tell
        # An outcome names the call by its fingerprint; the registry knows what may be called.
        self._targets = {fingerprint("call", function): function for function in functions}
        self._functions = functions
        self._takers: dict[tuple[str, ...], str] = {}
        self._partitions: dict[str, int] = {}

    def follower(self) -> Follower:
        """Return what has to be run to hear of everything."""
        filters = [f"mesh.log.{self._queue}.>", f"mesh.at.{self._queue}.>"]
        client = self._client
        return Follower(client.conn, client.js, stream_name(self._queue), filters, 1, self._see, consumer_prefix="demo")

    def listen_to_calls(self, clock_ns: Callable[[], int]) -> None:
        """Listen to the calls that workflows make, too. They are not stored, so the time is ours."""

        def on_call(subject: str, reply: str, _data: bytes, _raw_headers: bytes | None) -> None:
            parsed = parse_workflow(reply)
            if parsed is None or parsed[1] != "ret":
                return
            key, _, (_run, _n, attempt, fp, *_) = parsed
            again = "" if attempt == "1" else f", attempt {attempt}"
            function = self._targets.get(fp, subject)
            self._tell(Fact(clock_ns(), self._owner_of(key.id), key.id, "call", f"calls {function}{again}"))

        self._client.conn.subscribe_direct("mesh.fn.>", on_call)

    def partition(self, workflow: str) -> int:
        """Return the partition of a workflow that has been heard of."""
        return self._partitions[workflow]

    def _owner_of(self, workflow: str) -> str:
        partition = self._partitions.get(workflow)
        return (self._roster.owner(self._queue, partition) if partition is not None else None) or "?"

    def _see(self, message: Delivered) -> None:
        tokens = message.subject.split(".")
        workflow = untoken(tokens[4])
        self._partitions[workflow] = int(tokens[3])
        if tokens[1] == "at":
            self._see_timer(workflow, message)
            return
        event = parse(message.subject, message.seq, message.timestamp_ns, message.data, message.raw_headers)
        if event is None:
            return
        kind = event.kind
        try:
            who, text = self._words(workflow, event)
            if kind == "ret" and not codec.decode_outcome(event.data)[0]:
                kind = "failure"
        except Undecodable as error:
            who, text = "", f"{kind}: {error}"
        self._tell(Fact(event.at_ns, who, workflow, kind, text))

    def _see_timer(self, workflow: str, message: Delivered) -> None:
        schedule = parse_headers(message.raw_headers).get("Nats-Schedule", "")
        if not schedule.startswith("@at "):
            return
        due_ns = int(datetime.fromisoformat(schedule.removeprefix("@at ")).timestamp() * 1e9)
        text = f"gives the server a timer: wake me in {_duration((due_ns - message.timestamp_ns) / 1e9)}"
        self._tell(Fact(message.timestamp_ns, self._owner_of(workflow), workflow, "timer", text, due_ns))

    def _words(self, workflow: str, event: Event) -> tuple[str, str]:
        match event.kind:
            case "start":
                spec = decode_start(event.data, parse_headers(event.raw_headers))
                args = ", ".join(brief(value) for value in codec.unpack(spec.args))
                return CLIENT, f"starts {spec.workflow}: {args}"
            case "claim":
                node = event.data.decode("utf-8", "replace")
                self._takers[workflow, *event.args] = node
                return node, "takes the call and claims it: nobody ever runs it again"
            case "ret":
                run, n, attempt, fp, *_ = event.args
                target = self._targets.get(fp, "")
                who = self._takers.get((workflow, run, n, attempt)) or self._functions.get(target, FUNCTION)
                ok, value = codec.decode_outcome(event.data)
                return who, f"{target or 'outcome'} → {brief(value) if ok else f'failed: {value}'}"
            case "tick":
                return SERVER, "the timer fires"
            case "signal":
                return CLIENT, f"signals {event.topic}: {brief(codec.decode(event.data))}"
            case "end":
                return self._owner_of(workflow), f"writes the end: {decode_end(event.data).status}"
            case kind:
                return "", kind


def brief(value: object) -> str:
    """Write a value in few characters: `key=value` for the fields of a table."""
    match value:
        case dict():
            return " ".join(f"{key}={_nested(inner)}" for key, inner in value.items())
        case _:
            return _nested(value)


def _nested(value: object) -> str:
    match value:
        case dict():
            return f"({brief(value)})"
        case list():
            return f"[{', '.join(_nested(inner) for inner in value)}]"
        case str() if value and " " not in value:
            return value
        case _:
            return codec.to_json(value)


def _duration(seconds: float) -> str:
    seconds = round(seconds, 1)
    for unit, name in ((_DAY_S, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds:g} s"
