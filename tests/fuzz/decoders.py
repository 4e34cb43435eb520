"""Everything that reads bytes from the network or from files, as a list: how it is fed, and what it may raise.

A decoder answers, or raises one of the errors that its docstring names; nothing else, whatever it is fed, within a
time and a memory that have limits. `attack` holds it to that.
"""

from __future__ import annotations

import gzip
import io
import json
import reprlib
import resource
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, Final

from mesh import codec
from mesh.context import BadContext, UnknownContext, load_context
from mesh.duration import SECOND, BadDuration, parse_duration_ns
from mesh.encryption import BadKeys, Keyring
from mesh.envelopes import Closed, may_open_later, read_encrypted, why_closed
from mesh.errors import InvalidName, Undecodable
from mesh.events import (
    EndRecord,
    Event,
    Parent,
    StartSpec,
    decode_attrs,
    decode_end,
    decode_start,
    parse,
    reset_of,
    start_spec_of,
)
from mesh.failure import Failure
from mesh.follower import Delivered
from mesh.history_files import BadHistoryFile, HistoryHeader, dump_history, scan_histories
from mesh.hosts import HostRecord
from mesh.hosts import _decode as decode_host
from mesh.imported import import_of, original_ns
from mesh.instants import parse_iso_ns
from mesh.jetstream_api import json_answer
from mesh.key_files import read_key_file
from mesh.listing import BadQuery, ListQuery, read_page, read_query
from mesh.pids import parse_pid
from mesh.references import Reference, holder_of, reference_to, run_of
from mesh.roster import Roster
from mesh.schedules import BadSchedule, check_schedule, next_ns
from mesh.schedules import _decoded as decode_schedule
from mesh.stored_messages import StoredMessage, direct_message
from mesh.subjects import parse_delivery, parse_stored, parse_workflow, untoken
from mesh.timers import cron_headers
from mesh.tracecontext import parse_context, read_context
from mesh.wire import Parser, denied_subject, encode_headers, is_no_responders, parse_headers, status_of
from node.api.endpoints import ENDPOINTS
from node.api.requests import BadRequest, Field, Kind, read_request
from node.cli.archiving import BadIndex
from node.functions.call_bodies import checked_request, decode_request
from node.functions.held_calls import HeldCall, decode_held, encode_held
from node.machine.lua_tokens import TypedSyntaxError
from node.machine.typed_lua import erase
from node.machine.yaml_text import json_of_yaml
from node.registry import load_registry
from node.registry.documents import Unreadable, parse_json, parse_yaml
from node.registry.environment import parse_env_file
from node.registry.finding import BadFilter
from node.registry.placeholders import BadPlaceholder, substitute
from node.telemetry.address import BadAddress, parse_address
from node.telemetry.trace_settings import TracingNotPossible, trace_settings
from node.units.retry_option import decode_retry
from node.units.spawn_request import SpawnRequest
from node.workflows.call_options import decode_call_options
from node.workflows.outcomes import normal_outcome, read_outcome
from store.filters import FilterError, parse_filter
from store.projection import Projection, open_projection
from store.retention import end_fact, start_fact
from store.search import read_cursor
from tests.apps import key
from tests.flows import RUN, T0_NS, Flow
from tests.fuzz.mutation import Mutator

# What one input may take. Inputs have at most 200 KB; all but a few take under a millisecond.
SECONDS_MAX: Final = 1.0
MEMORY_KB_MAX: Final = 96 * 1024

_PROJECT: Final = Path(__file__).parent.parent.parent


@dataclass(frozen=True, slots=True)
class Decoder:
    """Something that reads. samples: good input. mutated: makes hostile input of a sample. raises: its own errors.

    pace: how often compared with the others, as some take long for what they do.
    """

    name: str
    samples: Sequence[Any]
    mutated: Callable[[Mutator, Any, Sequence[Any]], Any]
    read: Callable[[Any], object]
    raises: tuple[type[BaseException], ...] = ()
    pace: float = 1.0


class HostileInput(AssertionError):
    """Raised when a decoder does what it must not, with the input that makes it."""

    def __init__(self, decoder: Decoder, given: Any, what: str) -> None:
        shown = _shown(given)
        text = shown if len(shown) <= 3000 else f"{shown[:1500]} ... {shown[-1500:]}"
        super().__init__(f"{decoder.name}: {what}\ninput ({len(shown)} characters as shown by repr): {text}")


def _shown(given: object) -> str:
    try:
        return repr(given)
    except RecursionError:
        return reprlib.repr(given)


def attack(decoder: Decoder, random: Random, times: int) -> int:
    """Feed a decoder hostile input; returns how often it refused. Raises HostileInput."""
    mutator = Mutator(random)
    refused = 0
    for sample in decoder.samples:
        decoder.read(sample)  # what is good is taken
    for _ in range(times):
        given = decoder.mutated(mutator, random.choice(list(decoder.samples)), decoder.samples)
        refused += feed(decoder, given)
    return refused


def feed(decoder: Decoder, given: Any) -> bool:
    """Feed one input; whether it was refused. Raises HostileInput."""
    memory_kb, began = _peak_kb(anew=True), time.thread_time()
    refused = False
    try:
        decoder.read(given)
    except decoder.raises as error:
        refused = True
        if not str(error):
            raise HostileInput(decoder, given, f"refused without a word: {error!r}") from error
    except HostileInput:
        raise
    except Exception as error:
        raise HostileInput(decoder, given, f"raises {type(error).__name__}: {str(error)[:300]}") from error
    took_s = time.thread_time() - began
    if took_s > SECONDS_MAX:
        raise HostileInput(decoder, given, f"takes {took_s:.2f} s")
    grown_kb = _peak_kb() - memory_kb
    if grown_kb > MEMORY_KB_MAX:
        raise HostileInput(decoder, given, f"takes {grown_kb // 1024} MB")
    return refused


def _peak_kb(*, anew: bool = False) -> int:
    """The most memory that this process has had; anew: from now on, where the system can forget what was before.

    Else a process that has ever been large takes everything for little.
    """
    try:
        if anew:
            Path("/proc/self/clear_refs").write_text("5")
        status = Path("/proc/self/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


# -- how hostile input is made ----------------------------------------------------------------------------------------


def _msgpack(mutator: Mutator, sample: bytes, others: Sequence[bytes]) -> bytes:
    return mutator.msgpack(sample, others)


def _json(mutator: Mutator, sample: bytes, others: Sequence[bytes]) -> bytes:
    return mutator.json(sample, others)


def _bytes(mutator: Mutator, sample: bytes, others: Sequence[bytes]) -> bytes:
    return mutator.octets(sample, others)


def _text(mutator: Mutator, sample: str, others: Sequence[str]) -> str:
    return mutator.text(sample, others)


def _header(mutator: Mutator, sample: bytes, _others: Sequence[bytes]) -> bytes:
    return mutator.header(sample)


def _value(mutator: Mutator, sample: Any, _others: Sequence[Any]) -> Any:
    return mutator.value(sample)


def _message(
    mutator: Mutator, sample: tuple[str, bytes, bytes | None], others: Sequence[tuple[str, bytes, bytes | None]]
) -> Any:
    """A message with its subject, its body or its headers changed, or with parts of two."""
    subject, data, headers = sample
    other = mutator.random.choice(list(others))
    what = mutator.random.randrange(6)
    if what == 0:
        subject = mutator.tokens(subject)
    elif what in (1, 2):
        data = mutator.msgpack(data, [each[1] for each in others])
    elif what == 3:
        headers = mutator.header(headers or b"NATS/1.0\r\n\r\n")
    elif what == 4:
        subject, data = mutator.tokens(subject), other[1]
    else:
        data, headers = other[1], other[2]
    return subject, data, headers


def _lines(mutator: Mutator, sample: bytes, others: Sequence[bytes]) -> bytes:
    """A file of JSON lines: a line changed, dropped, doubled; sometimes compressed."""
    lines = sample.splitlines(keepends=True)
    at = mutator.random.randrange(len(lines))
    how = mutator.random.randrange(6)
    if how < 3:
        lines[at] = mutator.json(lines[at]) + b"\n"
    elif how == 3:
        del lines[at]
    elif how == 4:
        lines.insert(at, lines[mutator.random.randrange(len(lines))])
    else:
        return mutator.octets(sample, others)
    return b"".join(lines)


# -- samples ----------------------------------------------------------------------------------------------------------

START: Final = StartSpec(
    "app:flow", codec.pack([1, {"k": b"\xff"}]), "app:worker", "app:client", {"k": 1}, b"entropy", Parent("orders", "p", 3, 4),
    ({"topic": "t", "body": codec.encode(1), "from": ""},), 10**9, 10**10, 10**6, {"maximum_attempts": 3}, "*/5 * * * *", {"m": [1]}, {"a": ["x", "y"], "n": 2.5},
    2, 17, 5,
)  # fmt: skip
RESET: Final = b"\xc1" + codec.pack({"workflow": "app:flow", "base": [3, 9, 3, 10**18, 120, True], "reason": "why"})
FAILURE: Final = Failure("it failed", "Conflict", False, {"b": 1, "a": [None, {"x": 2}]})
OUTCOMES: Final = (
    codec.encode_success({"a": [1, 2.5, None, b"\xff", "grüße"]}),
    codec.encode_failure(FAILURE),
    codec.NIL_OUTCOME,
    b'{"a": 1}',
    b"text",
    codec.encode_success(FAILURE),
)
HEADERS: Final = encode_headers({
    "Mesh-From": "{app:client@app:worker|w-1}", "Mesh-Once": "q/w/1/2", "Mesh-Workflow": "app:flow", "Mesh-Host": "app:worker", "Nats-Service-Error-Code": "503",
    "Nats-Service-Error": "busy", "Mesh-Imported": "orders 17", "Mesh-Origin": "orders w 3 3", "Mesh-Events": "4", "Mesh-Took": "12", "Mesh-Node": "a", "Mesh-Hops": "1",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "a=b,c=d", "Nats-Schedule-Next": "2026-11-25T10:00:00Z",
})  # fmt: skip
DIRECT: Final = encode_headers({
    "Mesh-From": "x", "Nats-Stream": "MESH_orders", "Nats-Subject": "mesh.log.orders.0.w.start", "Nats-Sequence": "5", "Nats-Time-Stamp": "2026-11-25T10:00:00.5Z",
    "Nats-Num-Pending": "0", "Nats-Last-Sequence": "4",
})  # fmt: skip
_RUN_SUBJECTS: Final = (
    "start", "signal.s1", f"ret.{RUN}.1.1.3ece621c0d", f"ret.{RUN}.2.1.3ece621c0d", f"claim.{RUN}.1.1", f"tick.{RUN}.3", f"tick.{RUN}.retry-1-2", f"tick.{RUN}.delay",
    f"tick.{RUN}.timeout", f"exit.{RUN}.4", f"mark.{RUN}.version%3Achange", f"attrs.{RUN}", "cancel", "monitor", f"end.{RUN}", "kill",
)  # fmt: skip
_BODIES: Final = (
    START.encode(), RESET, codec.encode({"search": {"n": 1}, "memo": {"m": [1]}}), EndRecord("completed", codec.encode_success([1]), b"").encode(), *OUTCOMES,
    codec.encode({"pid": "{app:client@app:worker|kid}", "queue": "orders", "id": "kid"}), codec.encode(3), b"", codec.encode([[1, 2], {"k": 1}]),
)  # fmt: skip
MESSAGES: Final = tuple(
    (f"mesh.log.orders.0.w-1.{subject}", _BODIES[i % len(_BODIES)], HEADERS if i % 3 == 0 else None)
    for i, subject in enumerate(_RUN_SUBJECTS * 3)
)
EVENTS: Final = tuple(
    event
    for i, (subject, data, headers) in enumerate(MESSAGES)
    if (event := parse(subject, i + 1, T0_NS, data, headers))
)

_FLOW: Final = """
return function()
  local inbox, events = process.inbox(), process.events()
  process.listen("s1")
  coroutine.spawn(function() while true do inbox:receive() end end)
  coroutine.spawn(function() while true do events:receive() end end)
  coroutine.spawn(function() print(workflow.version("change", 1, 2)) end)
  coroutine.spawn(function() funcs.new():with_options{retry_policy = {initial_interval = "20s"}}:call("app:f1", 1) end)
  coroutine.spawn(function() local f = funcs.async("app:f1", 2) f:channel():receive() end)
  coroutine.spawn(function() time.sleep("1h") end)
  process.spawn("app:kid", "app:worker", 1)
  time.sleep("2h")
  return "done"
end
"""


def _apply_to_a_run(message: tuple[str, bytes, bytes | None]) -> object:
    """A run in the midst of its work gets the message as an event, twice, then a good signal; and so in a replay."""
    subject, data, headers = message
    flow = Flow(_FLOW)
    flow.start()
    for _ in range(2):
        event = parse(subject, flow.seq, flow.now_ns, data, headers)
        flow.seq += 1
        if event is not None:
            flow.apply(event)
    flow.signal("other", 1)
    flow.run.outstanding()
    again = flow.replay()
    if (again.run.suspended, again.run.finished) != (flow.run.suspended, flow.run.finished):
        raise RuntimeError(f"a replay comes to something else: {flow.run.suspended!r}, {again.run.suspended!r}")
    flow.run.close()
    again.run.close()
    return None


def _read_message(message: tuple[str, bytes, bytes | None]) -> object:
    """All that is done to a stored message before a run has it, and in lists and retention."""
    subject, data, headers = message
    stored = StoredMessage(subject, 7, T0_NS, data, headers)
    start_fact(stored)
    if subject.count(".") > 4:
        end_fact(stored)
    parse_stored(subject)
    parse_workflow(subject.replace("mesh.log.orders.0.", "mesh.wf.orders."))
    import_of(headers)
    original_ns(headers, T0_NS)
    event = parse(subject, 7, T0_NS, data, headers)
    if event is None:
        return None
    reset_of(event)
    read_outcome(event)
    normal_outcome(event)
    decode_end(data).value()
    _ = event.run, event.headers, event.kind == "signal" and event.topic
    with suppress(Undecodable):
        start_spec_of(event)
    with suppress(Undecodable):
        decode_attrs(data)
    return event


class _Listed:
    """A projection in memory that takes in whatever comes, and is asked."""

    def __init__(self) -> None:
        self.projection: Projection = open_projection(None)
        self.projection.begin("orders", "now")
        self.seq = 0

    def take(self, message: tuple[str, bytes, bytes | None]) -> object:
        """List what the message says, and search for it."""
        events = []
        for subject, data, headers in (MESSAGES[0], message):
            self.seq += 1
            event = parse(subject, self.seq, T0_NS + self.seq, data, headers)
            if event is not None:
                events.append(event)
        self.projection.take_in("orders", events, self.seq, T0_NS)
        page = self.projection.page(ListQuery(limit=3, all_runs=True), T0_NS)
        return codec.to_json(page.to_wire())

    def search(self, text: str) -> object:
        """Search with a where-text. Raises BadQuery."""
        return self.projection.page(ListQuery(where=text, limit=5), T0_NS)


@cache
def _listed() -> _Listed:
    listed = _Listed()
    for message in MESSAGES:
        listed.take(message)
    return listed


class _FakeRoster(Roster):
    """A roster that hears what is in its bucket and has no mesh to act on."""

    def __init__(self) -> None:
        nowhere: Any = None
        super().__init__(
            nowhere, nowhere, node_id="a", incarnation=lambda: "i", queues=frozenset({"orders"}), on_change=lambda: None
        )


def _see_in_roster(message: tuple[str, bytes, bytes | None]) -> object:
    roster = _FakeRoster()
    for subject, data, headers in (*ROSTER[:3], message, message):
        roster._see(Delivered(subject, 5, T0_NS, data, headers, 0))
    roster.plan("orders", 4)
    for claim in roster.claims():
        roster.standing(claim)
        roster.busy(claim)
    return [
        roster.members(),
        roster.function_hosts(),
        [roster.details(str(member.node_id)) for member in roster.members()],
    ]


ROSTER: Final = (
    ("$KV.mesh_roster.member.a", b'{"incarnation": "i", "queues": ["orders"], "leaving": false, "functions": ["a:b"], "hosts": ["x"], "boot": "01234567"}', None),
    ("$KV.mesh_roster.claim.orders.0", b'{"node": "a", "incarnation": "i", "checkpoint": 5, "busy": ["w-1", "w-2"]}', None),
    ("$KV.mesh_roster.claim.orders.1", b'{"node": "b", "incarnation": "j", "checkpoint": 7, "busy": []}', None),
    ("$KV.mesh_roster.host.c", b'{"functions": ["a:b"], "node": "c"}', None),
    ("$KV.mesh_roster.member.b", b"", b"NATS/1.0\r\nKV-Operation: DEL\r\n\r\n"),
)  # fmt: skip


def _roster_message(mutator: Mutator, sample: tuple[str, bytes, bytes | None], _others: Sequence[Any]) -> Any:
    subject, data, headers = sample
    if mutator.random.random() < 0.25:
        subject = mutator.tokens(subject)
    return subject, mutator.json(data), headers if mutator.random.random() < 0.9 else HEADERS


def _parse_wire(data: bytes) -> object:
    seen: list[object] = []
    parser = Parser({b"1": lambda *given: seen.append(given), b"2": lambda *given: seen.append(given)}, seen.append)
    for at in range(0, len(data), 997):
        parser.feed(data[at : at + 997])
    return seen


_WIRE: Final = (
    b'INFO {"server_id":"x","max_payload":1048576}\r\nPING\r\nMSG a.b 1 5\r\nhello\r\nMSG a.b 2 re.ply 3\r\nabc\r\n+OK\r\n',
    b"HMSG a 1 12 17\r\nNATS/1.0\r\n\r\nhello\r\nHMSG a 1 re 22 22\r\nNATS/1.0 503\r\nX: y\r\n\r\n-ERR 'Permissions Violation for Publish to \"a\"'\r\n",
)


def _histories() -> tuple[bytes, ...]:
    file = io.BytesIO()
    events = [
        parse(subject, RUN + i, T0_NS + i, data, headers) for i, (subject, data, headers) in enumerate(MESSAGES[:8])
    ]
    told = [event for event in events if event is not None]
    header = HistoryHeader(
        "orders", "w-1", RUN, "app:flow", "app:worker", "running", "2026-11-25T10:00:00.000000000Z", len(told)
    )
    dump_history(file, header, told)
    dump_history(file, header, told)
    return (file.getvalue(),)


def _read_histories(data: bytes) -> object:
    return [(header, list(events)) for header, events in scan_histories(io.BytesIO(data), "file")]


@cache
def _directory() -> Path:
    return Path(tempfile.mkdtemp(prefix="mesh-fuzz-"))


def _context(data: bytes) -> object:
    file = _directory() / "context.json"
    file.write_bytes(data)
    return load_context(str(file), {"HOME": "/home/x", "VAR": "value"})


REGISTRY_YAML: Final = """
version: "1.0"
namespace: app
meta: {team: core}
entries:
  - name: client
    kind: mesh.client
    address: nats://127.0.0.1:4222
    connection_timeout: 5s
    auth: {type: api_key, api_key_env: KEY}
    tls: {enabled: true, ca_file: /x}
  - name: worker
    kind: mesh.worker
    client: app:client
    task_queue: "${env:QUEUE|orders}"
    worker_options: {worker_activities_per_second: 5.5, identity: x}
    lifecycle: {auto_start: true, restart: {initial_delay: 1s, max_attempts: 3}, requires: [client]}
  - name: flow
    kind: workflow.lua
    source: |
      return function(x) return x end
    modules: [time, funcs]
    imports: {lib: app:lib}
    meta: {mesh.workflow.worker: app:worker, list: [1, 2.5, null, ~, true, 0x1f, 1e3]}
  - name: lib
    kind: library.lua
    source: file://lib.lua
  - &f
    name: f
    kind: function.lua
    source: return {main = function() end}
    method: main
    pool: {type: lazy, max_size: 4}
    meta: {options: {retry: {max_attempts: 3, initial_delay: 100ms}}}
  - name: host
    kind: process.host
    host: {workers: 2}
  - name: service
    kind: process.service
    process: p
    host: host
    input: [1, {a: b}]
  - {name: p, kind: process.lua, source: "return function() end", meta: {default_host: host}}
  - {name: q, kind: queue.queue, driver: d, codec: json/plain, queue_name: x}
  - {name: d, kind: queue.driver.memory}
  - {name: c, kind: queue.consumer, queue: q, func: f, concurrency: 2}
  - {name: s, kind: store.memory, max_size: 5}
  - {name: v, kind: env.variable, variable: QUEUE, storage: e, default: x}
  - {name: e, kind: env.storage.static, values: {A: b}}
  - {name: n, kind: function.nats, subject: a.b.c}
"""


def _registry(text: str) -> object:
    directory = _directory() / "app"
    directory.mkdir(exist_ok=True)
    (directory / "lib.lua").write_text("return {}")
    (directory / "_index.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
    registry = load_registry(directory, environ={"KEY": "k"})
    if not registry.problems and not registry.entries and "namespace:" in text and "entries:" in text and ":" in text:
        return None
    return [str(problem) for problem in registry.problems] + [str(note) for note in registry.notes]


def _sources() -> tuple[str, ...]:
    found = [file.read_text() for file in sorted((_PROJECT / "examples").rglob("*.lua"))][:6]
    typed = """
type Order = {id: string, lines: {[number]: Line}, note?: string} | nil
local function total<T>(order: Order, f: (Line, ...any) -> (number, string?), ...: T): (number, ...T)
  local sum: number = 0 for _, line in ipairs(order!.lines :: {Line}) do sum = sum + f(line as Line) end
  return sum as number, ...
end
local s = [==[ long ]] ]==] .. 'a\\z  b' .. "\\u{1F600}"
return {total = total, x = 0x1p4 // 3, y = ~1 | 2 & 3 << 4}
"""
    return (*found, typed)


_QUERIES: Final = (
    "status = 'failed' and started > -1h", "memo.customer.name like 'Ad%' or not (attrs.total >= 12.5)", "type in ('a', 'b') and attempt != 1",
    "attrs.\"odd name\" = null", "ended < '2026-11-25T10:00:00Z' and started >= 2026-01-01", "duration > 1h30m and id like 'order-%'", "attrs.tags in ('x', 5, true)",
)  # fmt: skip


@cache
def _requests() -> tuple[tuple[str, bytes], ...]:
    bodies = {
        "start": b'{"workflow": "app:flow", "id": "x", "args": [1, {"a": null}], "memo": {"a": 1}, "run_timeout": "1h", "messages": [{"topic": "t", "value": 1}], "cron": "* * * * *"}',
        "signal": b'{"id": "x", "topic": "t", "value": {"a": [1]}, "queue": "orders"}', "result": b'{"id": "x", "run": 3, "timeout": 1.5}',
        "list": b'{"status": ["running"], "where": "attrs.a = 1", "limit": 5, "order": "-started"}',
    }  # fmt: skip

    def anything(field: Field) -> object:
        values = {Kind.INTEGER: 3, Kind.FLAG: True, Kind.OBJECT: {"a": 1}, Kind.LIST: [1], Kind.DURATION: "1m"}
        return field.choices[0] if field.choices else values.get(field.kind, "x")

    made = {
        spec.name: json.dumps({field.name: anything(field) for field in spec.fields}).encode() for spec in ENDPOINTS
    }
    return tuple((name, bodies.get(name, body)) for name, body in made.items())


def _request(given: tuple[str, bytes]) -> object:
    verb, data = given
    return read_request(next(spec.fields for spec in ENDPOINTS if spec.name == verb), data)


def _unit(data: bytes) -> object:
    request = codec.decode(data)
    if isinstance(request, list) and request and request[0] == "spawn":
        return SpawnRequest.from_wire(request[2:])
    return None


def _schedule(message: tuple[str, bytes, bytes | None]) -> object:
    subject, data, headers = message
    if subject.count(".") < 4:
        return None
    schedule = decode_schedule("orders", StoredMessage(subject, 7, T0_NS, data, headers))
    last = StoredMessage(subject, 9, T0_NS + 1, data, headers)
    return [schedule.every, next_ns(schedule, T0_NS + 5 * SECOND, None), next_ns(schedule, T0_NS + 5 * SECOND, last)]


def _schedules() -> tuple[tuple[str, bytes, bytes], ...]:
    def headers(expression: str, zone: str = "UTC") -> bytes:
        return encode_headers(
            {**cron_headers(key("w"), expression, zone), "Nats-Schedule-Next": "2026-11-25T10:00:00Z"}
        )

    def spec(cron: str) -> bytes:
        return StartSpec("app:flow", cron=cron).encode()

    return (
        ("mesh.at.orders.cron.w-1", spec("*/5 * * * *"), headers("*/5 * * * *")), ("mesh.at.orders.cron.w-2", spec("@every 5m"), headers("@every 5m")),
        ("mesh.at.orders.paused.w-3", spec("@daily"), headers("@daily")), ("mesh.at.orders.cron.w-4", b'{"x": 1}', headers("0 9 * * 1", "Europe/Paris")),
    )  # fmt: skip


def _texts(given: str) -> object:
    """Readers of small texts that answer None, or something, to anything."""
    untoken(given)
    parse_pid(given)
    parse_context(given)
    denied_subject(given)
    parse_delivery(given)
    return codec.to_json(given)


def _header_block(block: bytes) -> object:
    read_context(block)
    status_of(block)
    is_no_responders(b"", block)
    import_of(block)
    return parse_headers(block)


def _to_json(data: bytes) -> object:
    value = codec.decode(data)
    text = codec.to_json(value)
    json.loads(text)
    return codec.encode(value)


def _gunzipped(data: bytes) -> object:
    file = _directory() / "histories.gz"
    file.write_bytes(data)
    from mesh.history_files import load_histories

    return list(load_histories(file))


def decoders() -> tuple[Decoder, ...]:
    """All of them."""
    payloads = (
        *_BODIES,
        codec.encode({"a": FAILURE, "b": [1.5, -1, 2**63, b"\xff", None, True, {"1": 1}]}),
        b'[1, {"a": "\xc3\xbc"}]',
    )
    options = {
        "retry_policy": {"initial_interval": "1s", "backoff_coefficient": 2.0, "maximum_interval": 5000, "maximum_attempts": 3, "non_retryable_error_types": ["Conflict"]},
        "activity.start_to_close_timeout": "10m", "temporal.activity.heartbeat_timeout": 500, "schedule_to_close_timeout": "1h", "wait_for_cancellation": True, "id": "x",
    }  # fmt: skip
    return (
        Decoder("payload", payloads, _msgpack, codec.decode, (Undecodable,), 3),
        Decoder("payload, there and back", payloads, _msgpack, _to_json, (Undecodable,), 3),
        Decoder("payload as marked", payloads, _msgpack, codec.as_marked, (Undecodable,)),
        Decoder("outcome", OUTCOMES, _msgpack, codec.decode_outcome, (Undecodable,), 2),
        Decoder("start", [(START.encode(), {}), (RESET, {}), (b'{"a": 1}', parse_headers(HEADERS))],
                lambda m, s, o: (m.msgpack(s[0]), parse_headers(m.header(HEADERS)) if m.random.random() < 0.5 else s[1]),
                lambda s: decode_start(*s), (Undecodable,), 3),
        Decoder("attributes", [codec.encode({"search": {"n": 1}, "memo": {}})], _msgpack, decode_attrs, (Undecodable,)),
        Decoder("stored message", MESSAGES, _message, _read_message, (), 3),
        Decoder("event of a run", MESSAGES, _message, _apply_to_a_run, (), 0.3),
        Decoder("event of a list", MESSAGES, _message, lambda m: _listed().take(m), (), 1),
        Decoder("roster", ROSTER, _roster_message, _see_in_roster, (), 2),
        Decoder("host record", [json.dumps({"worker": "a:w", "client": "a:c", "queue": "q", "workflows": ["a:b"]}).encode()], _json, decode_host, (Undecodable,)),
        Decoder("server's answer", [b'{"stream": "x", "seq": 5}', b'{"error": {"code": 400, "err_code": 10071, "description": "x"}}'], _json,
                lambda d: json_answer("x", d), (Undecodable,)),
        Decoder("direct read", [DIRECT], _header, lambda h: direct_message(b"x", h), (Undecodable,)),
        Decoder("server's protocol", _WIRE, _bytes, _parse_wire, (Undecodable,), 2),
        Decoder("header block", [HEADERS], _header, _header_block, ()),
        Decoder("small texts", ["{app:client@app:worker|w-1}", "{a@h:p|0x0123456700001}", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "%41b%2ec", "$JS.ACK.a.b.1.2.3.4.5",
                                "Permissions Violation for Publish to \"a.b\""], _text, _texts, ()),
        Decoder("duration", ["1h30m", "-1.5s", "250ms", "1µs", "0", "9223372036854775807ns"], _text, lambda t: parse_duration_ns(t, number_unit_ns=SECOND), (BadDuration,)),
        Decoder("duration of any type", [1, 1.5], lambda m, s, o: m.odd() if m.random.random() < 0.5 else m.random.choice((1e300, 2**70, -1, 0.1, 2**1000)),
                lambda v: parse_duration_ns(v, number_unit_ns=SECOND) if type(v) in (int, float, str) else None, (BadDuration,)),
        Decoder("instant", ["2026-11-25", "2026-11-25T10:00:00.123456789Z", "2026-11-25 10:00:00+02:00"], _text, parse_iso_ns, (ValueError,)),
        Decoder("history file", _histories(), _lines, _read_histories, (BadHistoryFile,), 0.6),
        Decoder("compressed history file", [gzip.compress(each) for each in _histories()], _bytes, _gunzipped, (BadHistoryFile,), 0.5),
        Decoder("NATS context", [json.dumps({"url": "nats://x", "user": "u", "password": "p", "creds": "~/x/$VAR", "nkey": "", "tls_first": True, "inbox_prefix": "_I", "nsc": ""}).encode()],
                _json, _context, (BadContext, UnknownContext), 0.5),
        Decoder("registry file", [REGISTRY_YAML], _text, _registry, (), 0.08),
        Decoder("YAML", [REGISTRY_YAML[:REGISTRY_YAML.index("  - name: flow")], "a: [1, {b: c}]\n&x d: *x\n", "- |\n  text\n- >-\n  more\n"], _text, parse_yaml, (Unreadable,), 0.3),
        Decoder("YAML for Lua", [b"a: [1, {b: c}]\n", b"- |\n  text\n"], _bytes, json_of_yaml, (), 0.3),
        Decoder("JSON of a registry", ['{"namespace": "a", "entries": [{"name": "x", "kind": "y", "n": 1.5}]}'], _text, parse_json, (Unreadable,)),
        Decoder("placeholders", ["${env:NAME}", "a${env:NAME|fallback}b$${c", "${NAME|x}"], _text, lambda t: substitute(t, lambda name: {"NAME": "value"}.get(name)), (BadPlaceholder,)),
        Decoder("env file", ["A=b\n# c\nexport X='y'\n"], _text, lambda t: parse_env_file(t.splitlines(keepends=True)), ()),
        Decoder("typed Lua", _sources(), _text, lambda t: erase(t, "x.lua"), (TypedSyntaxError,), 0.4),
        Decoder("query", _QUERIES, _text, lambda t: parse_filter(t, T0_NS), (FilterError,)),
        Decoder("query, asked", _QUERIES, _text, lambda t: _listed().search(t), (BadQuery,), 0.4),
        Decoder("list request", [{"status": ["running"], "where": "attrs.a = 1", "limit": 5, "order": "-started", "cursor": "", "id": "a", "type": "b", "queue": "c", "all_runs": True}],
                _value, lambda v: read_query(v), (BadQuery,)),
        Decoder("cursor", [ListQuery(cursor="eyJhIjoxfQ")], lambda m, s, o: ListQuery(cursor=m.text(m.random.choice(("WzEsMl0", "eyJhIjoxfQ==", "AAAA")))), _cursor, (BadQuery,)),
        Decoder("API request", _requests(), lambda m, s, o: (s[0], m.json(s[1])), _request, (BadRequest,), 3),
        Decoder("call request", [codec.encode([[1, {"a": b"\xff"}], {"k": 1}]), b'{"a": 1}', b""], _msgpack, lambda d: (checked_request(d), decode_request(d)), (Undecodable,)),
        Decoder("calls that a host has", [encode_held([HeldCall("mesh.wf.q.w.ret.17.3.1.ab.cd", 1.5), HeldCall("mesh.wf.q.w.ret.17.4.1.ab.cd", 0.0, (OUTCOMES[0], HEADERS))])], _msgpack, decode_held, ()),
        Decoder("unit request", [codec.encode(["spawn", "{a@b|c}", "app:p", "app:host", codec.encode([[1], None]), "name", [["t", codec.encode(1)]], True, False,
                                               "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", ""])], _msgpack, _unit, (Undecodable, ValueError, TypeError)),
        Decoder("call options", [options], _value, lambda v: decode_call_options(v) if isinstance(v, Mapping) else None, (ValueError,)),
        Decoder("retry option", [{"max_attempts": 3, "initial_delay": "100ms", "max_delay": 5000, "backoff_factor": 2.0, "jitter": 0.1, "retry_kinds": ["a"], "skip_kinds": []}],
                _value, decode_retry, (ValueError,)),
        Decoder("schedule", ["*/5 * * * *", "@daily", "@every 5m", "0 9 * * 1-5", "0 0 L * *"], _text, lambda t: check_schedule(t, "UTC"), (BadSchedule, InvalidName)),
        Decoder("time zone of a schedule", ["Europe/Paris", "UTC"], _text, lambda t: check_schedule("* * * * *", t), (BadSchedule, InvalidName), 0.2),
        Decoder("stored schedule", _schedules(), _message, _schedule, ()),
        Decoder("metrics address", [":9464", "127.0.0.1:9464", "[::1]:0"], _text, parse_address, (BadAddress,)),
        Decoder("envelope", _envelopes(), _octets, _open_envelope, (), 2),
        Decoder("reference", _references(), _reference_bytes, _read_reference, (Undecodable,), 2),
        Decoder("file of keys", [b"primary: k1\nkeys:\n  k1: " + b"QUFB" * 10 + b"QUE=\n"], _octets, _key_file, (BadKeys,), 0.3),
        Decoder("variables for traces", [{"OTEL_TRACES_EXPORTER": "otlp,console", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}],
                lambda m, s, o: {name: m.text(value) for name, value in s.items()}, trace_settings, (TracingNotPossible,)),
        Decoder("page of a list", [{"workflows": [{"id": "a", "run": 1}], "next": "x", "lag": {"queues": {}, "behind": 1}}], _value,
                lambda v: read_page(v) if isinstance(v, Mapping) else None, (BadQuery, Undecodable)),
    )  # fmt: skip


_CONTEXT: Final = "mesh.wf.orders.w-1.signal.s1"


@cache
def _ring() -> Keyring:
    return Keyring({"k1": b"k" * 32, "k2": b"x" * 32}, "k1")


def _envelopes() -> tuple[bytes, ...]:
    return tuple(_ring().seal(_CONTEXT, body) for body in _BODIES[:4])


def _octets(mutator: Mutator, sample: bytes, others: Sequence[bytes]) -> bytes:
    """Bytes that mostly begin as they did."""
    kept = mutator.random.choice((0, 3, 3, 4))
    return sample[:kept] + mutator.octets(sample[kept:], others)


def _open_envelope(data: bytes) -> object:
    """What was sealed comes out of it again; what was changed is never taken for anything."""
    why_closed(data)
    may_open_later(data)
    with suppress(Undecodable):
        read_encrypted(data)
    opened = _ring().open(_CONTEXT, data)
    if not isinstance(opened, Closed) and opened not in _BODIES:
        raise RuntimeError("an envelope that was changed opens")
    return opened


def _references() -> tuple[bytes, ...]:
    names = ("w-1.17.ret.abc", "w-1.18.start.abc")
    return tuple(Reference(name, 5_000_000, 40, b"d" * 32).encode() for name in names)


def _reference_bytes(mutator: Mutator, sample: bytes, others: Sequence[bytes]) -> bytes:
    return sample[:3] + mutator.msgpack(sample[3:], [other[3:] for other in others])


def _read_reference(data: bytes) -> object:
    run_of(data)
    holder_of(f"mesh.wf.orders.w-1.ret.17.1.1.{data[:4].hex()}")
    return reference_to(data, "w-1").about


def _key_file(data: bytes) -> object:
    file = _directory() / "keys.yaml"
    file.write_bytes(data)
    return read_key_file(file)


def _cursor(query: ListQuery) -> object:
    return read_cursor(query) if query.cursor != "eyJhIjoxfQ" else None


__all__ = [
    "EVENTS",
    "MESSAGES",
    "BadFilter",
    "BadIndex",
    "Decoder",
    "Event",
    "HostRecord",
    "HostileInput",
    "attack",
    "decoders",
    "feed",
]
