"""The events of a history: what a stored message means, and the bodies of `start` and `end`.

Pure: bytes and subjects in, values out. Nothing that arrives on a subject may raise anything but `Undecodable` here;
what does not even look like an event is None.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from reprlib import repr as short  # as deep as anybody has nested it
from typing import Any, Final, NamedTuple

from mesh import codec
from mesh.envelopes import may_open_later, why_closed
from mesh.errors import Undecodable
from mesh.failure import Failure, Kind
from mesh.imported import HEADER_ORIGIN, Origin, read_origin
from mesh.subjects import CACHED_NAMES_MAX, WorkflowKey, can_be_named, is_canonical, token, untoken
from mesh.wire import parse_headers

# Headers a plain `nats pub` may use, and those our own writers set.
HEADER_WORKFLOW: Final = "Mesh-Workflow"
HEADER_HOST: Final = "Mesh-Host"
HEADER_FROM: Final = "Mesh-From"
HEADER_ONCE: Final = "Mesh-Once"
# A node has set it in the start of somebody who may not write into the stream (`node.intake`).
HEADER_INTAKE: Final = "Mesh-Intake"
# On the start of a child: its parent, in plain, for whoever ends it without being able to read it.
HEADER_CHILD_OF: Final = "Mesh-Child-Of"
# On a kill: end the run although not even its start can be read.
HEADER_FORCE: Final = "Mesh-Force"
# What our function hosts say in an outcome: which node ran the call, and for how many milliseconds.
HEADER_NODE: Final = "Mesh-Node"
HEADER_TOOK: Final = "Mesh-Took"

# Never read from a subject: a history says so where the server cannot read an event that it counts.
UNREADABLE: Final = "unreadable"
# Marks that suspend a run on every node: events are gone that it had seen; its code cannot be interrupted. All others
# are decisions of the code.
MARK_LOST: Final = "lost"
MARK_STUCK: Final = "stuck"
# How many subject tokens follow each kind; a signal's topic may have any number from one. Behind those of an outcome
# stands what the code had seen when it asked for the op; not in histories that are older than that.
_ARGS: Final = {
    "start": 0,
    "ret": 4,
    "claim": 3,
    "tick": 2,
    "exit": 2,
    "mark": 2,
    "attrs": 1,
    "cancel": 0,
    "kill": 0,
    "monitor": 0,
    "end": 1,
}


class Event(NamedTuple):
    """One stored message of a workflow. args: the subject tokens after the kind. seq: the stream's sequence."""

    kind: str
    id_token: str
    seq: int
    at_ns: int
    args: list[str]
    data: bytes
    raw_headers: bytes | None

    @property
    def run(self) -> int:
        """The run this event names; 0 for kinds that name none."""
        return int(self.args[0]) if self.kind in _NAMES_RUN else 0

    @property
    def seen(self) -> str:
        """Of an outcome: what the code had seen when it asked for the op; "" when nobody has said."""
        return self.args[4] if len(self.args) > 4 else ""

    @property
    def topic(self) -> str:
        """The topic of a signal."""
        return ".".join(untoken(part) for part in self.args)

    @property
    def headers(self) -> dict[str, str]:
        """The headers, parsed anew each time."""
        return parse_headers(self.raw_headers) if self.raw_headers else {}


# Sequences, Unix times and durations in nanoseconds: what the server and SQLite keep, too.
_INTEGER_MAX: Final = 2**63 - 1
# What a run is while it has no end.
_NOT_ENDED: Final = frozenset({"running", "suspended"})
# How a run has ended whose end cannot be opened here.
ENDED: Final = "ended"
_NUMBER: Final = re.compile(r"\d{1,19}", re.ASCII)
_NAMES_RUN: Final = frozenset({"ret", "claim", "tick", "exit", "mark", "attrs", "end"})


def parse(subject: str, seq: int, at_ns: int, data: bytes, raw_headers: bytes | None) -> Event | None:
    """Read a stored message as an event; None when its subject is not one of ours, or the server itself is its author.

    The server answers a publish on the reply subject that it has, whatever that is, so whoever may publish anything at
    all can have an acknowledgement stored as an event of any workflow: no writer of ours writes such a thing.
    """
    parts = subject.split(".")
    if len(parts) < 6 or not can_be_named(subject):
        return None
    kind = parts[5]
    args = parts[6:]
    want = _ARGS.get(kind)
    if want is None:
        if kind != "signal" or not args:
            return None
    elif (len(args) != want and not (kind == "ret" and len(args) == want + 1)) or (
        kind in _NAMES_RUN and not args[0].isdecimal()
    ):
        return None
    if (kind in ("ret", "claim") and not (args[1].isdecimal() and args[2].isdecimal())) or (
        kind == "exit" and not args[1].isdecimal()
    ):
        return None
    if not _is_canonical(parts[4]) or (data[:1] == b"{" and is_acknowledgement(data)):
        return None
    return Event(kind, parts[4], seq, at_ns, args, data, raw_headers)


def unreadable_event(subject: str, start: Event) -> Event:
    """What stands in a history, right behind its start, for an event that the server has and cannot read."""
    parts = subject.split(".")
    return Event(UNREADABLE, parts[4], start.seq, start.at_ns, parts[5:], b"", None)


# The names of the mesh's streams, in what a server says of a publish: `{"stream":"WF_orders","seq":7}`, or an error.
_ACKNOWLEDGED: Final = re.compile(rb'"stream":\s*"(?:WF|KV|OBJ)_')
_ACKNOWLEDGEMENT_BYTES_MAX: Final = 2048


def is_acknowledgement(data: bytes) -> bool:
    """Whether a message is what the server answers a publish into a stream of the mesh with."""
    if len(data) > _ACKNOWLEDGEMENT_BYTES_MAX or _ACKNOWLEDGED.search(data) is None:
        return False
    try:
        said = json.loads(data)
    except ValueError:
        return False
    return isinstance(said, dict) and isinstance(said.get("stream"), str) and isinstance(said.get("seq"), int)


_is_canonical = lru_cache(maxsize=CACHED_NAMES_MAX)(is_canonical)


class NotForOthers(Undecodable):
    """Raised when a start that came through the intake says what only the mesh may say. field: which it is."""

    code = "not-for-others"

    def __init__(self, field_name: str) -> None:
        super().__init__(
            f"the start's field {field_name} is for the mesh alone; who starts workflows from outside leaves it out, "
            "and has runs reset by `mesh reset` or the control API"
        )


@dataclass(frozen=True, slots=True)
class Parent:
    """Who started a child: the workflow, its run and the op."""

    queue: str
    id: str
    run: int
    n: int

    @property
    def key(self) -> WorkflowKey:
        """The parent's key."""
        return WorkflowKey(self.queue, self.id)


def parent_headers(parent: Parent | None) -> dict[str, str]:
    """What the start of a child says of its parent in its headers, beside its body.

    The parent's history says as much in plain: there the child's end is stored under run and op, with who has sent it.
    """
    if parent is None:
        return {}
    return {HEADER_CHILD_OF: f"{token(parent.queue)} {token(parent.id)} {parent.run} {parent.n}"}


def parent_in_headers(headers: Mapping[str, str]) -> Parent | None:
    """The parent that the headers of a start name: for a start that cannot be read. None when nobody is to be told.

    Nobody vouches for a header. But who may write one into a stream may also write the end of a child into it, and what
    comes from outside, or from another mesh, has no parent here.
    """
    parts = headers.get(HEADER_CHILD_OF, "").split(" ")
    if HEADER_INTAKE in headers or HEADER_ORIGIN in headers or len(parts) != 4 or not all(parts):
        return None
    if not (all(map(is_canonical, parts[:2])) and all(map(_NUMBER.fullmatch, parts[2:]))):
        return None
    return Parent(untoken(parts[0]), untoken(parts[1]), int(parts[2]), int(parts[3]))


@dataclass(frozen=True, slots=True)
class Base:
    """What a reset run rests on: the history of an older run of the same workflow, up to one of its events.

    run: the older run. upto: sequence of the last event taken over, 0 for its start alone.
    origin, started_ns: the first of the runs that rest on each other, and its beginning: whence the code has its
        randomness and its clock.
    start_bytes: what the start counts for in the size of the history, as it did then.
    signals: whether the signals that came after `upto` are given to the new run.
    """

    run: int
    upto: int
    origin: int
    started_ns: int
    start_bytes: int
    signals: bool = True


@dataclass(frozen=True, slots=True)
class StartSpec:
    """The body of a `start`. `args` is a msgpack array; durations are integer nanoseconds, 0 = none.

    messages: startup messages, each {"topic": text, "body": payload of ours, "from": PID or ""}.
    chain_started_ns: when the first run of a chain (retries, continue-as-new) began, 0 for a first run.
    since: events after this sequence belong to the new run too (a continued run takes over what its predecessor
    had not seen); 0 = none. A reset run keeps that of the run it rests on.
    heard: identities of messages (`Mesh-Once`) that the runs before this one were given, the newest ones: a message
    that comes again after a run has been followed by another one is still no message.
    encrypted: payloads that come in plain are none of its. It holds when the start itself came encrypted, so a history
    that somebody has decrypted replays all the same.
    base: what a reset run rests on. reason: why it was reset, as somebody said.
    without: sequences of signals that a reset has left out, for the reset run and for those that follow it.
    origin: what an imported run was where it was recorded. Not in the body but in a header; of such a run everything
    is under its own start, so `since` and `base` are left out.
    """

    workflow: str
    args: bytes = b"\x90"
    host: str = ""
    client: str = ""
    context: Mapping[str, Any] = field(default_factory=dict)
    entropy: bytes = b""
    parent: Parent | None = None
    messages: tuple[Mapping[str, Any], ...] = ()
    run_timeout_ns: int = 0
    execution_timeout_ns: int = 0
    start_delay_ns: int = 0
    retry_policy: Mapping[str, Any] | None = None
    cron: str = ""
    memo: Mapping[str, Any] = field(default_factory=dict)
    attrs: Mapping[str, Any] = field(default_factory=dict)
    attempt: int = 1
    chain_started_ns: int = 0
    since: int = 0
    encrypted: bool = False
    heard: tuple[str, ...] = ()
    base: Base | None = None
    reason: str = ""
    without: tuple[int, ...] = ()
    origin: Origin | None = None

    def encode(self) -> bytes:
        """The bytes of this start; fields that have their default are left out."""
        wire: dict[str, Any] = {}
        for name in self.__slots__:
            value = getattr(self, name)
            if name == "origin":
                continue
            if name == "parent" and value is not None:
                wire[name] = [value.queue, value.id, value.run, value.n]
            elif name == "base" and value is not None:
                wire[name] = [value.run, value.upto, value.origin, value.started_ns, value.start_bytes, value.signals]
            elif name == "workflow" or value != getattr(_DEFAULT_START, name):
                wire[name] = list(value) if isinstance(value, tuple) else value
        return codec.encode(wire)


_DEFAULT_START = StartSpec(workflow="")


def decode_start(data: bytes, headers: Mapping[str, str]) -> StartSpec:
    """Read a start of ours, or one that a person published: the name in a header, the input as JSON or text.

    Raises Undecodable, whose text says what is wrong; NotForOthers.
    """
    spec = _decoded_start(data, headers)
    if HEADER_INTAKE in headers:
        _check_is_of_others(spec)
    origin = read_origin(headers)
    return replace(spec, since=0, base=None, origin=origin) if origin is not None else spec


# The end of a run is told to its parent: who names one writes into that history. The others are what a run that
# follows another one, or rests on it, says of that.
_OF_THE_MESH: Final = ("parent", "attempt", "chain_started_ns", "since", "heard", "base")


def _check_is_of_others(spec: StartSpec) -> None:
    for name in _OF_THE_MESH:
        if getattr(spec, name) != getattr(_DEFAULT_START, name):
            raise NotForOthers(name)
    if any(message["from"] for message in spec.messages):
        raise NotForOthers("messages.from")


def _decoded_start(data: bytes, headers: Mapping[str, str]) -> StartSpec:
    if data[:1] != codec.MARKER:
        name = headers.get(HEADER_WORKFLOW, "")
        if not name:
            raise Undecodable(f"a start needs the workflow's name in the header {HEADER_WORKFLOW}")
        value = codec.decode_foreign(data)
        return StartSpec(
            workflow=name, args=codec.pack([] if value is None else [value]), host=headers.get(HEADER_HOST, "")
        )
    wire = codec.decode(data)
    if not isinstance(wire, dict) or not isinstance(wire.get("workflow"), str):
        raise Undecodable("a start is a map with the workflow's name")
    known = {name: wire[name] for name in StartSpec.__slots__ if name in wire and name != "origin"}
    for name, value in known.items():
        default = getattr(_DEFAULT_START, name)
        if value == [] and (isinstance(default, dict) or name == "retry_policy"):
            known[name] = default  # an empty Lua table is written as an empty list
        elif name not in ("parent", "base") and not _same_shape(value, default):
            raise Undecodable(f"the start's field {name} is a {type(value).__name__}")
        elif type(value) is int and not 0 <= value <= _INTEGER_MAX:
            raise Undecodable(f"the start's field {name} is {value}: below 0 or beyond 63 bits")
    parent = known.pop("parent", None)
    if parent is not None:
        if not (isinstance(parent, list) and [type(p) for p in parent] == [str, str, int, int]):
            raise Undecodable("the start's field parent is not [queue, id, run, n]")
        known["parent"] = Parent(*parent)
    base = known.pop("base", None)
    if base is not None:
        if not (isinstance(base, list) and [type(part) for part in base] == [int, int, int, int, int, bool]):
            raise Undecodable("the start's field base is not [run, upto, origin, started_ns, start_bytes, signals]")
        if not all(0 <= number <= _INTEGER_MAX for number in base):
            raise Undecodable("the start's field base has a number that is below 0 or beyond 63 bits")
        known["base"] = Base(*base)
    if "messages" in known:
        known["messages"] = tuple(_startup_message(m) for m in known["messages"])
    if "heard" in known:
        known["heard"] = tuple(once for once in known["heard"] if isinstance(once, str))
    if "without" in known:
        known["without"] = tuple(seq for seq in known["without"] if type(seq) is int)
    spec = StartSpec(**known)
    try:
        args = codec.unpack(spec.args)
    except Undecodable as error:
        raise Undecodable(f"the start's arguments: {error}") from error
    if not isinstance(args, list):
        raise Undecodable("the start's arguments are no list")
    return spec


def _startup_message(wire: object) -> dict[str, Any]:
    if not isinstance(wire, dict):
        raise Undecodable("a startup message is a map of topic, body and from")
    topic, sender, body = wire.get("topic"), wire.get("from") or "", wire.get("body")
    if isinstance(topic, bytes):
        topic = topic.decode("utf-8", "surrogateescape")
    if not isinstance(topic, str) or not isinstance(sender, str):
        raise Undecodable("a startup message has a topic and a sender that are texts")
    return {
        "topic": topic,
        "body": codec.as_marked(body) if isinstance(body, bytes) else codec.encode(body),
        "from": sender,
    }


def _same_shape(value: object, default: object) -> bool:
    if default is None:
        return value is None or isinstance(value, dict)
    if isinstance(default, tuple):
        return isinstance(value, list)
    if isinstance(default, bool) or isinstance(value, bool):
        return type(value) is type(default)
    return isinstance(value, type(default))


def decode_attrs(data: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """The search attributes and the memo in the body of an `attrs` event. Raises Undecodable."""
    said = codec.decode(data)
    if not isinstance(said, dict):
        raise Undecodable("attributes are a map of search and memo")
    # An empty Lua table is written as an empty list.
    search, memo = said.get("search") or {}, said.get("memo") or {}
    if not (isinstance(search, dict) and isinstance(memo, dict)):
        raise Undecodable("search attributes and memo are maps")
    return dict(search), dict(memo)


@dataclass(frozen=True, slots=True)
class EndRecord:
    """The body of an `end`: the outcome of a run as outcome bytes, or the start of the run that follows.

    status: completed, failed, canceled, terminated, timed-out, continued (by the code) or retried (by the policy).
    closed: why it cannot be read here, when it is an envelope that others can open; then the status is `ended`, and
    whether another run follows is not known.
    """

    status: str
    outcome: bytes = codec.NIL_OUTCOME
    next_start: bytes = b""
    closed: str = ""

    @property
    def may_go_on(self) -> bool:
        """Whether another run follows, as far as can be known here."""
        return bool(self.next_start or self.closed)

    def encode(self) -> bytes:
        """The bytes of this end."""
        return codec.encode({"status": self.status, "outcome": self.outcome, "next": self.next_start})

    def value(self) -> Any:
        """The result of a completed run; anything else, also an outcome nobody can read, is a Failure."""
        try:
            _, value = codec.decode_outcome(self.outcome)
        except Undecodable as error:
            return codec.undecodable_failure("result", error)
        return value


def decode_end(data: bytes) -> EndRecord:
    """Read an end. What nobody can read ended the run all the same: the failure says so."""
    if may_open_later(data):
        closed = why_closed(data) or ""
        return EndRecord(ENDED, codec.encode_failure(Failure(f"the result is {closed}", Kind.INTERNAL)), closed=closed)
    try:
        wire = codec.decode(data)
    except Undecodable as error:
        wire = error
    if (
        isinstance(wire, dict)
        and isinstance(status := wire.get("status"), str)
        and status not in _NOT_ENDED
        and isinstance(wire.get("outcome"), bytes)
    ):
        following = wire.get("next")
        return EndRecord(wire["status"], wire["outcome"], following if isinstance(following, bytes) else b"")
    failure = Failure(
        message=f"the end of this run was written by somebody else: {short(wire)}"[:300], kind=Kind.INTERNAL
    )
    return EndRecord("failed", codec.encode_failure(failure))


def next_attempt(
    spec: StartSpec, *, delay_ns: int, chain_started_ns: int, since: int, heard: tuple[str, ...] = ()
) -> StartSpec:
    """The start that a retry policy asks for after a failed run."""
    return replace(
        spec,
        attempt=spec.attempt + 1,
        start_delay_ns=delay_ns,
        chain_started_ns=chain_started_ns,
        since=since,
        heard=heard,
        base=None,
        reason="",
    )


def start_spec_of(event: Event) -> StartSpec:
    """The body of a stored start. Raises Undecodable."""
    return decode_start(event.data, event.headers)


def reset_of(event: Event) -> StartSpec | None:
    """The start that a `kill` asks for: that of a run which rests on the one it ends. None for a plain kill."""
    if event.kind != "kill" or event.data[:1] != codec.MARKER:
        return None
    try:
        spec = decode_start(event.data, {})
    except Undecodable:
        return None
    return spec if spec.base is not None else None
