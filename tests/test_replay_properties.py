"""Replay is a fixed point: random workflows, random histories with duplicates and junk, replayed from every kind of prefix.

What a fresh machine in a fresh VM makes of the recorded events is what the live one made of them: the same ops, the same
answers, the same end, and afterwards the same things outstanding. Programs and schedules come from hypothesis; a failure
prints both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Final

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from mesh import codec
from mesh.events import StartSpec
from mesh.failure import Failure, Kind
from mesh.subjects import token
from node.machine.vm import LuaVM
from node.workflows.attempts import retry_tick
from node.workflows.ops import Effect, RetryLater, WriteMark
from tests.flows import RUN, Flow

EVENTS_MAX: Final = 40

PRELUDE: Final = """
local log = {}
local function out(...)
  local parts = {}
  for i = 1, select("#", ...) do
    local v = (select(i, ...))
    if type(v) == "table" then
      local inner = {}
      for k, x in pairs(v) do inner[#inner + 1] = tostring(k) .. "=" .. tostring(x) end
      v = "{" .. table.concat(inner, " ") .. "}"
    end
    parts[i] = tostring(v)
  end
  log[#log + 1] = table.concat(parts, ",")
  print(log[#log])
end
local c0, c1 = channel.new(), channel.new(2)
local futures, timers = {}, {}
local quick = funcs.new():with_options{retry_policy = {initial_interval = "10ms", maximum_attempts = 3}}
local slow = funcs.new():with_options{retry_policy = {initial_interval = "20s", maximum_attempts = 4}}
local once = funcs.new():with_options{retry_policy = {maximum_attempts = 1}}
local wrong = funcs.new():with_options{retry_policy = 5}
"""

# Statements; # is a number of its own, $ a block of further ones.
STATEMENTS: Final = (
    "out('call', funcs.call('a:f#', {n = #, list = {1, 2}}))",
    "out('quick', quick:call('a:q#', #))",
    "out('slow', slow:call('a:s#'))",
    "out('once', once:call('a:o#'))",
    "out('wrong', wrong:call('a:w#'))",
    "futures[#futures + 1] = funcs.async('a:g#', #)",
    "if futures[1] then local f = table.remove(futures, 1) local v, ok = f:channel():receive() out('future', ok, v and (v.data and v:data() or v:message())) end",
    "if futures[1] then out('cancel', table.remove(futures):cancel()) end",
    "time.sleep('#ms') out('slept', time.now():unix_nano())",
    "timers[#timers + 1] = time.timer('#s')",
    "if timers[1] then out('stop', timers[#timers]:stop()) end",
    "if timers[1] then out('reset', timers[1]:reset('#ms')) end",
    "local tick = time.ticker('#s') out('tick', (tick:channel():receive()):unix()) tick:stop()",
    "coroutine.spawn(function() $ end)",
    "coroutine.spawn(function() c0:send(#) out('sent') end)",
    "coroutine.spawn(function() out('got', c0:receive()) end)",
    "do local r = channel.select{c1:case_send(#), c0:case_receive(), default = true} out('select', r.ok, r.value, r.default) end",
    "do local t = time.after('#s') local r = channel.select{process.inbox():case_receive(), t:case_receive(), c0:case_receive()} out('first', r.channel == t, r.ok, r.channel ~= t and type(r.value)) end",
    "do local m = process.inbox():receive() out('message', m:topic(), m:from(), m.x, m:payload() and m:payload():data()) end",
    "out('listen', process.listen('t#'):receive())",
    "do local e = process.events():receive() out('event', e.kind, e.from, e.result and (e.result.value or e.result.error)) end",
    "out('spawn', process.spawn('a:child#', 'w', #))",
    "out('exec', process.exec('a:exec#', 'w'))",
    "out('send', process.send('{c@w|other}', 'topic', #, {a = 1}))",
    "out('told', process.cancel('{c@w|other}'))",
    "for k, v in pairs{b = #, a = 1, [3] = 2, [1.5] = 'x', [true] = 0} do out(k, v) $ break end",
    "for i = 1, 2 do $ end",
    "if math.random(3) == 1 then $ else out('random', math.random(1000)) end",
    "out(uuid.v4(), tostring({}), tostring(print), os.time(), workflow.history_length(), workflow.history_size())",
    "out('version', workflow.version('change#', 1, 3))",
    "workflow.attrs{search = {k# = #}, memo = {m = {#}}}",
    "out(pcall(function() $ error('inner #') end))",
    "out(pcall(function() $ error(errors.new{message = 'typed #', kind = 'Conflict'}) end))",
    "local gen = coroutine.wrap(function() $ coroutine.yield(#) return 2 end) out('wrapped', gen(), gen())",
    "subscribe('s#', c1)",
    "out('both', c1:receive())",
    "print('only said', #)",
)
ENDINGS: Final = (
    "return log", "return log", "return log", "return log", "error('the end')", "return nil, errors.new{message = table.concat(log, ';'), kind = 'Conflict'}",
    "process.upgrade(nil, log)", "process.inbox():receive() return log",
)  # fmt: skip


def program(random: Random) -> str:
    budget = [random.randint(2, 14)]

    def block(depth: int) -> str:
        lines = []
        for _ in range(random.randint(1, 5 if depth == 0 else 2)):
            if budget[0] <= 0:
                break
            budget[0] -= 1
            text = random.choice(STATEMENTS)
            if "$" in text:
                text = text.replace("$", block(depth + 1) if depth < 2 else "")
            text = text.replace("#futures", "\0f").replace("#timers", "\0t").replace("#", str(random.randint(1, 4)))
            lines.append("do " + text.replace("\0f", "#futures").replace("\0t", "#timers") + " end")
        return "\n".join(lines)

    return f"return function(...)\n{PRELUDE}\nout(...)\n{block(0)}\n{block(0)}\n{random.choice(ENDINGS)}\nend"


@dataclass
class Live:
    """A run that is being told a random story, and what it looked like after each event."""

    flow: Flow
    random: Random
    outstanding: list[list[str]] = field(default_factory=list)
    opened: list[list[tuple[object, ...]]] = field(default_factory=list)
    looks: list[object] = field(default_factory=list)
    dropped: dict[int, int] = field(
        default_factory=dict
    )  # sequence of a deleted attempt -> history length at that time

    def after(self) -> None:
        """Do at once what the engine does before anything else may be seen, and take a picture."""
        effects: list[Effect] = list(self.flow.effects)
        self.picture()
        for effect in effects:
            if isinstance(effect, RetryLater):
                self.dropped |= dict.fromkeys(effect.drop, len(self.flow.events))
        for effect in effects:
            if isinstance(effect, WriteMark):
                self.flow.event("mark", str(RUN), token(effect.name), data=effect.payload)
                self.flow.run.mark_recorded(effect.name)
                self.picture()

    def picture(self) -> None:
        marks = {e.args[1] for e in self.flow.events if e.kind == "mark"}
        seen = [
            text
            for text in self.flow.outstanding()
            if not (text.startswith("mark ") and token(text.split()[1]) in marks)
        ]
        self.outstanding.append(seen)
        self.opened.append(opened(self.flow))
        self.looks.append(looked_at(self.flow) if is_looked_at(self.flow) else None)

    def event(self) -> None:
        flow, random = self.flow, self.random
        flow.now_ns += random.choice(
            (0, 0, 1, 1_000_000, 1_500_000_000, 86_400_000_000_000, -50_000_000)
        )  # leaders' clocks differ
        choices: list[Callable[[], object]] = [self.signal, self.noise, self.repeat]
        if flow.run.open:
            choices += [self.answer] * 8
        if flow.run.children.by_n:
            choices += [
                lambda: flow.exit(
                    random.choice(list(flow.run.children.by_n)), random.choice((1, Failure("child", Kind.CONFLICT)))
                )
            ] * 2
        if flow.run.delayed_until_ns:
            choices += [lambda: flow.tick("delay")] * 5
        before = len(flow.events)
        random.choice(choices)()
        if len(flow.events) > before:
            self.after()

    def answer(self) -> None:
        flow, random = self.flow, self.random
        op = random.choice(list(flow.run.open.values()))
        if op.kind == "timer":
            flow.tick(op.n)
        elif op.durable and random.random() < 0.8:
            flow.tick(retry_tick(op))
        elif op.kind == "spawn" and random.random() < 0.2:
            flow.exit(op.n, random.choice(("early", Failure("early"))))
        else:
            attempt = random.choice((op.attempt, op.attempt, op.attempt, max(1, op.attempt - 1), op.attempt + 1))
            if op.kind == "spawn" and random.random() < 0.8:
                flow.ok(op.n, {"pid": f"{{c@w|kid{op.n}}}", "queue": "q", "id": "kid"}, attempt=attempt)
            elif random.random() < 0.4:
                flow.ok(
                    op.n,
                    random.choice((None, 5, "text", {"b": 1, "a": [1, 2]}, b"\xff", Failure("as a value"))),
                    attempt=attempt,
                )
            elif random.random() < 0.7:
                kind = random.choice(("", Kind.INTERNAL, Kind.TIMEOUT, "HostLost", Kind.CONFLICT))
                flow.fails(
                    op.n, Failure("failed", kind, random.choice((None, None, True, False)), {"d": 1}), attempt=attempt
                )
            else:
                flow.ret(
                    op.n,
                    random.choice(JUNK),
                    attempt=attempt,
                    headers=random.choice((None, {"Nats-Service-Error-Code": "503"})),
                )

    def signal(self) -> None:
        random = self.random
        body = random.choice((None, 1, "text", {"x": 1}, [1, 2]))
        raw = random.choice((None, None, *JUNK, b'{"x": true}'))
        once = random.choice(("", "", "q/w/1/1", "q/w/1/2"))
        self.flow.signal(
            random.choice(("t1", "t2", "s1", "s2", "other", "a b")),
            body,
            raw=raw,
            sender=random.choice(("", "{c@w|x}")),
            once=once,
        )

    def noise(self) -> None:
        """Events that are of no concern, or of somebody else's."""
        flow, random = self.flow, self.random
        n, other = str(random.randint(1, max(1, flow.run.ops.next_n - 1))), str(random.choice((RUN - 1, RUN + 1)))
        kind = random.randint(0, 9)
        if kind == 0:
            flow.event("ret", other, n, "1", "0000000000", data=codec.encode_success("stale"))
        elif kind == 1:
            flow.event("tick", other, n)
        elif kind == 2:
            flow.event("exit", other, n, data=b"")
        elif kind == 3:
            flow.event("claim", str(RUN), n, "1")
        elif kind == 4:
            flow.event(
                "tick",
                str(RUN),
                random.choice(("delay", "retry-1-2", "retry-2-2", "retry-1-3", "retry-x", "x", "timeout")),
            )
        elif kind == 5:
            flow.event("end", other)
        elif kind == 6:
            flow.start()
        elif kind == 7:
            flow.event("monitor")
        elif kind == 8:
            flow.event("cancel", data=random.choice(JUNK))
        elif random.random() < 0.2:
            # Code that does not fit, or somebody's mistake: suspended, live and in replay.
            flow.event("ret", str(RUN), n, "1", "0000000000", data=codec.NIL_OUTCOME)
        elif random.random() < 0.1:
            flow.event("kill")

    def repeat(self) -> None:
        """A writer that had no acknowledgement writes once more."""
        old = self.random.choice(self.flow.events)
        if old.kind not in ("mark", "kill") and not (old.kind == "signal" and not old.raw_headers):
            again = old._replace(seq=self.flow.seq, at_ns=self.flow.now_ns)
            self.flow.seq += 1
            self.flow.apply(again)


JUNK: Final = (
    b"", b"\xc1", b"\xc1\x92\x00", b"not json", b'{"x": 1}', b"\xff\xfe", b"\xc1\x92\x00\x81\xc0\x01", b"\xc1\xd4\x05\x00", b"[" * 200,
    b"\xc1\x92\x01\x81\xa7message\x05",
)  # fmt: skip


def opened(flow: Flow) -> list[tuple[object, ...]]:
    """The open ops and children, without what refers to events that may be deleted."""
    ops = [*flow.run.open.values(), *flow.run.children.by_n.values()]
    return [
        (
            op.n,
            op.kind,
            op.target,
            op.payload,
            dict(op.options),
            op.issued_ns,
            op.due_ns,
            op.attempt,
            op.durable,
            op.claimed,
        )
        for op in ops
    ]


def is_looked_at(flow: Flow) -> bool:
    """Whether the live run is looked at after every event; its replays are not, and there must be no difference."""
    return len(flow.source) % 3 == 0


def looked_at(flow: Flow) -> object:
    """What a look at the machine shows."""
    machine = flow.run.machine
    return machine.inspect() if machine is not None else None


def visible(step: list[str]) -> list[str]:
    """Without what a replay has no need to do again: lines that were printed, versions that are recorded."""
    return [text for text in step if not text.startswith(("info ", "mark "))]


def told(random: Random, source: str) -> Live:
    spec = StartSpec(workflow="app:flow", entropy=b"e", args=codec.pack([1, {"k": "v"}]))
    if random.random() < 0.2:
        spec = replace(spec, start_delay_ns=1_000_000_000)
    if random.random() < 0.3:
        spec = replace(spec, messages=({"topic": "t1", "body": codec.encode({"x": 9}), "from": "{c@w|boss}"},))
    if random.random() < 0.3:
        spec = replace(spec, retry_policy={"maximum_attempts": 2}, run_timeout_ns=10**15)
    live = Live(Flow(source, spec=spec), random)
    live.flow.start()
    live.after()
    for _ in range(random.randint(1, EVENTS_MAX)):
        live.event()
    return live


def check_replay(live: Live, length: int, vm: LuaVM | None = None) -> None:
    """Replay the first events and compare everything that can be seen."""
    flow = live.flow
    again = flow.replay(events=flow.events[:length], vm=vm)
    for i in range(length):
        assert visible(again.steps[i]) == visible(flow.steps[i]), f"event {i}: {flow.events[i]}"
    assert again.outstanding() == live.outstanding[length - 1]
    assert opened(again) == live.opened[length - 1]
    if is_looked_at(again):
        assert looked_at(again) == live.looks[length - 1]
    if length == len(flow.events):
        assert again.run.finished == flow.run.finished
        assert again.run.suspended == flow.run.suspended
        assert again.run.closed == flow.run.closed
        ours, replayed = flow.run.attributes, again.run.attributes
        assert (replayed.search, replayed.memo) == (ours.search, ours.memo)
        assert (again.run.length, again.run.size, again.run.now_ns) == (flow.run.length, flow.run.size, flow.run.now_ns)
        assert again.run.quiet() == flow.run.quiet()


@pytest.mark.timeout(240)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.randoms(use_true_random=False))
def test_replay_from_any_prefix_gives_what_the_live_run_gave(random: Random) -> None:
    source = program(random)
    note(source.removeprefix(f"return function(...)\n{PRELUDE}"))
    live = told(random, source)
    note(
        "\n".join(
            f"{e.kind} {'.'.join(e.args)} {e.data[:40]!r} -> {s}"
            for e, s in zip(live.flow.events, live.flow.steps, strict=True)
        )
    )
    flow = live.flow
    total = len(flow.events)
    for length in {1, random.randint(1, total), random.randint(1, total), total}:
        check_replay(live, length)
    # In a VM that has others in it, and without the attempts that were deleted from the history by then.
    vm = LuaVM()
    Flow(
        "return function() for i = 1, 99 do tostring({}) end getmetatable('').x = 1 process.inbox():receive() end",
        vm=vm,
    ).start()
    for length in {random.randint(1, total), total}:
        check_without_dropped(live, length, vm)


def check_without_dropped(live: Live, length: int, vm: LuaVM | None = None) -> None:
    """Replay the first events without the attempts that had been deleted by then; only the way there may differ."""
    flow = live.flow
    gone = {seq for seq, by in live.dropped.items() if by <= length}
    again = flow.replay(events=[e for e in flow.events[:length] if e.seq not in gone], vm=vm)
    assert again.outstanding() == live.outstanding[length - 1]
    assert opened(again) == live.opened[length - 1]
    if length == len(flow.events):
        assert again.run.finished == flow.run.finished
        assert again.run.suspended == flow.run.suspended
        assert (again.run.length, again.run.size, again.run.now_ns) == (flow.run.length, flow.run.size, flow.run.now_ns)


@pytest.mark.timeout(240)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.randoms(use_true_random=False))
def test_a_new_owner_goes_on_as_the_old_one_would_have(random: Random) -> None:
    """The run changes hands in the middle of its history; from there on both are told the same."""
    source = program(random)
    note(source.removeprefix(f"return function(...)\n{PRELUDE}"))
    live = told(random, source)
    flow = live.flow
    at = random.randint(1, len(flow.events))
    heir = flow.replay(events=flow.events[:at])
    for i in range(at, len(flow.events)):
        if flow.events[i].kind == "mark":
            heir.run.mark_recorded("version:" + flow.events[i].args[1].split(":")[-1])
        heir.apply(flow.events[i])
        assert visible(heir.steps[i]) == visible(flow.steps[i]), f"event {i}: {flow.events[i]}"
    assert heir.run.finished == flow.run.finished
    assert heir.run.suspended == flow.run.suspended
    assert opened(heir) == live.opened[-1]


def test_the_programs_do_what_they_are_made_of() -> None:
    """Guard against a generator that proves nothing: the random stories reach ops of each kind and each kind of end."""
    seen: set[str] = set()
    for seed in range(150):
        random = Random(seed)
        live = told(random, program(random))
        for step in live.flow.steps:
            seen |= {" ".join(text.split()[: 2 if text.startswith("end") else 1]) for text in step}
        for picture in live.outstanding:
            seen |= {"open " + text.split()[0] for text in picture}
        if live.dropped:
            seen.add("dropped")
    wanted = {
        "call", "timer", "spawn", "send", "cancel", "abandon", "retry", "mark", "info", "suspend", "end completed", "end failed", "end continued",
        "end retried", "end terminated", "open call", "open timer", "open retry", "open spawn", "dropped",
    }  # fmt: skip
    assert wanted <= seen, wanted - seen
