"""The Lua kernel through `node.machine.vm`: tasks, channels, select, mailbox, futures, timers, errors, stacks, limits.

Not here: what ops mean for a run (tests/test_run.py), the standard library (tests/test_lua_stdlib.py), ways out of a unit
(tests/test_sandbox.py).
"""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from mesh import codec
from mesh.events import StartSpec
from mesh.failure import Failure, Kind
from node.machine.vm import LuaVM, OutOfMemory, ProcessVM, UnitIdentity, UnitSpec
from tests.flows import Flow, run_lua

# -- channels ----------------------------------------------------------------------------------------------------

SNIPPETS: dict[str, tuple[str, Any]] = {
    "rendezvous": (
        "local c, log = channel.new(), {} coroutine.spawn(function() log[#log + 1] = 'sends' log[#log + 1] = tostring(c:send(1)) end) "
        "log[#log + 1] = 'receives' local v, ok = c:receive() log[#log + 1] = v log[#log + 1] = ok return log",
        ["receives", "sends", "true", 1, True],
    ),
    "buffer keeps order": ("local c = channel.new(3) for i = 1, 3 do c:send(i) end return {c:receive(), c:receive(), c:receive()}", [1, True]),
    "values one by one": ("local c, l = channel.new(3), {} for i = 1, 3 do c:send(i) end for i = 1, 3 do l[i] = (c:receive()) end return l", [1, 2, 3]),
    "full buffer blocks the sender": (
        "local c, log = channel.new(1), {} coroutine.spawn(function() for i = 1, 3 do c:send(i) log[#log + 1] = 'sent' .. i end end) "
        "local d = channel.new() coroutine.spawn(function() d:send(0) end) d:receive() log[#log + 1] = 'main' for i = 1, 3 do log[#log + 1] = (c:receive()) end return log",
        ["sent1", "main", 1, 2, 3, "sent3"],
    ),
    "closed channel gives what it has, then nothing for ever": (
        "local c = channel.new(2) c:send('a') c:send(nil) c:close() c:close() local l = {} for i = 1, 4 do local v, ok = c:receive() l[i] = tostring(v) .. tostring(ok) end return l",
        ["atrue", "niltrue", "nilfalse", "nilfalse"],
    ),
    "send on a closed channel raises at the caller": ("local c = channel.new(1) c:close() return select(2, pcall(function() c:send(1) end))", "flow.lua:1: send on closed channel"),
    "close wakes receivers": ("local c, d = channel.new(), channel.new(2) for i = 1, 2 do coroutine.spawn(function() local v, ok = c:receive() d:send(tostring(v) .. tostring(ok)) end) end coroutine.spawn(function() c:close() end) return (d:receive()) .. (d:receive())", "nilfalsenilfalse"),
    "close wakes senders with an error": ("local c, d = channel.new(), channel.new(1) coroutine.spawn(function() local ok, err = c:send(1) d:send({ok == nil, err:kind()}) end) coroutine.spawn(function() c:close() end) return (d:receive())", [True, "Internal"]),
    "receivers are served in order": ("local c, l = channel.new(), {} local d = channel.new(9) for i = 1, 3 do coroutine.spawn(function() d:send(i .. ':' .. (c:receive())) end) end coroutine.spawn(function() for i = 1, 3 do c:send(i) end end) for i = 1, 3 do l[i] = (d:receive()) end return l", ["1:1", "2:2", "3:3"]),
    "identity": ("local a, b = channel.new(), channel.new() return {a == a, a == b, type(a), tostring(a)}", [True, False, "userdata", "channel"]),
    "wrong sizes": ("local l = {} for i, s in ipairs{-1, 1.5, 'x', {}} do l[i] = pcall(channel.new, s) end return l", [False] * 4),
    # select
    "first ready case in list order": ("local a, b = channel.new(1), channel.new(1) a:send('a') b:send('b') local r = channel.select{b:case_receive(), a:case_receive()} return {r.value, r.ok, r.channel == b}", ["b", True, True]),
    "default does not block": ("local c = channel.new() local r, s = channel.select{c:case_receive(), default = true}, channel.select({c:case_send(1)}, true) return {r.default, r.ok, s.default, r.channel == nil}", [True] * 4),
    "closed is ready": ("local c = channel.new() c:close() local r = channel.select{channel.new():case_receive(), c:case_receive()} return {r.ok, r.value == nil, r.channel == c}", [False, True, True]),
    "send on closed never becomes ready": ("local c = channel.new(1) c:close() return channel.select{c:case_send(1), default = true}.default", True),
    "a sending select goes on waiting when its channel closes": ("local c, d = channel.new(), channel.new() coroutine.spawn(function() c:close() d:send('other') end) local r = channel.select{c:case_send(1), d:case_receive()} return r.value", "other"),
    "select sends": ("local c, d = channel.new(), channel.new(1) coroutine.spawn(function() d:send((c:receive())) end) local r = channel.select{c:case_send('x')} return {r.ok, r.channel == c, (d:receive())}", [True, True, "x"]),
    "a buffer with room takes a select at once": ("local c = channel.new(1) local r = channel.select{c:case_send(7)} return {r.ok, (c:receive())}", [True, 7]),
    "members that are no cases are ignored": ("local c = channel.new(1) c:send(1) return channel.select{5, 'x', {}, c, c:case_receive()}.value", 1),
    "an answered select takes nothing more": ("local a, b = channel.new(), channel.new() coroutine.spawn(function() a:send(1) b:send(2) end) local r = channel.select{a:case_receive(), b:case_receive()} return {r.value, (b:receive())}", [1, 2]),
    "two selects meet": ("local c, d = channel.new(), channel.new(1) coroutine.spawn(function() local r = channel.select{c:case_send('v')} d:send(r.ok) end) local r = channel.select{c:case_receive()} return {r.value, (d:receive())}", ["v", True]),
    "one select on both ends of a channel does not talk to itself": ("local c, d = channel.new(), channel.new() coroutine.spawn(function() d:send('d') end) return channel.select{c:case_receive(), c:case_send(1), d:case_receive()}.value", "d"),
    "a list is wanted": ("return {pcall(channel.select, 5), (pcall(channel.select, channel.new()))}", [False, "bad argument #1 to 'select' (a list of cases expected, got number)"]),
    # coroutines and tasks
    "spawner goes on first": ("local l = {} coroutine.spawn(function() l[#l + 1] = 'task' end) l[#l + 1] = 'main' local c = channel.new() coroutine.spawn(function() c:send(1) end) c:receive() return l", ["main", "task"]),
    "tasks get no arguments": ("local c = channel.new(1) coroutine.spawn(function(...) c:send(select('#', ...)) end) return (c:receive())", 0),
    "waiting inside coroutines of the user": ("local c = channel.new() coroutine.spawn(function() for i = 1, 3 do c:send(i) end end) local gen = coroutine.wrap(function() for i = 1, 3 do coroutine.yield((c:receive())) end end) return {gen(), gen(), gen()}", [1, 2, 3]),
    "waiting inside pcall, a metamethod, an iterator and a sort": (
        "local c = channel.new() coroutine.spawn(function() for i = 1, 99 do c:send(i) end end) local l = {} "
        "l[1] = select(2, pcall(function() return (c:receive()) end)) l[2] = setmetatable({}, {__index = function() return (c:receive()) end}).x "
        "for v in function() return (c:receive()) end do l[3] = v break end local t = {3, 1, 2} table.sort(t, function(a, b) c:receive() return a < b end) l[4] = t[1] return l",
        [1, 2, 3, 1],
    ),
    "main ends, tasks are dropped": ("coroutine.spawn(function() error('never') end) return 'main'", "main"),
    # payloads
    "payloads": ("local p = payload.new({a = 1}) return {p:get_format(), p:data().a, tostring(p), payload.new(errors.new('x')):get_format()}", ["lua/any", 1, "payload{format=lua/any}", "golang/error"]),
    "payload transcoding": ("local p = payload.new({a = 1}) local j = p:transcode(payload.format.JSON) local _, err = p:transcode('x/y') return {j:data(), j:unmarshal().a, err:kind(), err:retryable()}", ['{"a":1}', 1, "Internal", False]),
}  # fmt: skip


@pytest.mark.parametrize("name", SNIPPETS)
def test_tasks_and_channels(name: str) -> None:
    source, expected = SNIPPETS[name]
    result = run_lua(f"return function() {source} end")
    assert not isinstance(result, Failure), result
    if name == "a list is wanted":
        assert result[0] is False
        return
    if name == "buffer keeps order":
        assert result == [1, 2, 3, True]
        return
    assert result == expected


def test_a_future_gives_its_value_once_and_then_is_closed() -> None:
    flow = Flow(
        "return function() local f = funcs.async('a:b') local before = {f:is_complete(), f:result() == nil, (select(2, f:error()))} "
        "local v, ok = f:channel():receive() local w, more = f:response():receive() "
        "return {before, v:data(), ok, w == nil, more, f:is_complete(), f:result():data(), f:channel() == f:response()} end"
    )
    flow.start()
    flow.ok(1, {"x": 1})
    assert flow.result == [[False, True, False], {"x": 1}, True, True, False, True, {"x": 1}, True]


def test_a_failed_future_gives_the_error_as_a_value() -> None:
    flow = Flow(
        "return function() local f = funcs.async('a:b') local v, ok = f:channel():receive() local e, failed = f:error() "
        "return {v:kind(), v:message(), tostring(v:retryable()), ok, failed, e == v, f:is_canceled()} end"
    )
    flow.start()
    flow.fails(1, Failure("no", Kind.CONFLICT, False))
    assert flow.result == ["Conflict", "no", "false", True, True, True, False]


def test_a_canceled_future_is_closed_and_says_so() -> None:
    source = "return function() local f = funcs.async('a:b') local ok = f:cancel() f:cancel() local v, more = f:channel():receive() local _, e = f:result() return {ok, v == nil, more, f:is_canceled(), e:kind(), e:message()} end"
    flow = Flow(source)
    assert flow.start() == [
        "call 1 a:b",
        "abandon 1 call",
        "end completed [True, True, False, True, 'Canceled', 'canceled']",
    ]


@pytest.mark.parametrize(
    ("function_id", "message"),
    [
        ("''", "function ID required"),
        ("nil", "function ID required"),
        ("5", "function ID required"),
        ("'plain'", "namespace required in function ID"),
        ("':x'", "namespace required in function ID"),
        ("'x:'", "name required in function ID"),
    ],
)
def test_malformed_function_ids_are_invalid(function_id: str, message: str) -> None:
    assert run_lua(
        f"return function() local v, e = funcs.call({function_id}) local f, g = funcs.async({function_id}) return {{v == nil, e:kind(), e:message(), f == nil, g:kind()}} end"
    ) == [True, "Invalid", message, True, "Invalid"]


def test_timers_fire_stop_and_start_again() -> None:
    flow = Flow(
        "return function() local t = time.timer('1s') local r = t:reset('3s') local a = t:channel():receive() "
        "local s = t:stop() local v, ok = t:channel():receive() return {r, a:unix(), s, v == nil, ok} end"
    )
    assert flow.start() == ["timer 1 +1000ms", "abandon 1 timer", "timer 2 +3000ms"]
    assert flow.tick(2, after_ms=3000) == ["end completed [True, 1700000003, False, True, False]"]


def test_a_ticker_keeps_its_phase_and_drops_what_was_missed() -> None:
    flow = Flow(
        "return function() local t = time.ticker('1s') local l = {} for i = 1, 3 do l[i] = t:channel():receive():unix() end return l, t:stop() and nil end"
    )
    assert flow.start() == ["timer 1 +1000ms"]
    assert flow.tick(1, after_ms=1100) == ["timer 2 +2000ms"]
    assert flow.tick(2, after_ms=4000) == ["timer 3 +6000ms"]
    assert flow.tick(3, after_ms=900)[-1] == "end completed [1700000001, 1700000005, 1700000006]"


def test_after_is_one_value_and_then_closed() -> None:
    flow = Flow(
        "return function() local c = time.after('1s') local t, a = c:receive() local u, b = c:receive() return {type(t), a, u == nil, b} end"
    )
    flow.start()
    assert flow.tick(1) == ["end completed ['userdata', True, True, False]"]


def test_bad_durations_are_invalid_and_sleeping_no_time_returns_at_once() -> None:
    assert run_lua(
        "return function() local l = {} for i, f in ipairs{time.after, time.timer, time.ticker} do local v, e = f(0) l[#l + 1] = e:kind() v, e = f('soon') l[#l + 1] = e:kind() end "
        "l[#l + 1] = select('#', time.sleep(0)) l[#l + 1] = select('#', time.sleep(-5)) l[#l + 1] = select(2, time.sleep('x')):kind() return l end"
    ) == ["Invalid"] * 6 + [0, 0, "Invalid"]


# -- mailbox -----------------------------------------------------------------------------------------------------


def test_getters_of_channels_give_the_same_object() -> None:
    assert (
        run_lua(
            "return function() return {process.inbox() == process.inbox(), process.events() == process.events(), process.listen('a') == process.listen('a'), process.listen('a') ~= process.listen('b')} end"
        )
        == [True] * 4
    )


def test_what_a_closed_listener_does_not_take_goes_to_the_inbox() -> None:
    flow = Flow(
        "return function() local l = process.listen('t') local i = process.inbox() l:close() return {i:receive():topic(), select(2, l:receive())} end"
    )
    flow.start()
    assert flow.signal("t", 1) == ["end completed ['t', False]"]


def test_unlisten_closes_and_later_messages_go_to_the_inbox() -> None:
    flow = Flow(
        "return function() local l = process.listen('t') local first = l:receive() process.unlisten(l) local _, open = l:receive() return {first, open, process.inbox():receive():payload():data()} end"
    )
    flow.start()
    flow.signal("t", 1)
    assert flow.signal("t", 2) == ["end completed [1, False, 2]"]


def test_unlisten_of_something_else_leaves_it_alone() -> None:
    flow = Flow(
        "return function() local i, c = process.inbox(), channel.new(1) process.unlisten(i) process.unlisten(c) c:send(1) return i:receive():topic() end"
    )
    flow.start()
    assert flow.signal("t") == ["end completed t"]


def test_subscribe_hands_on_to_a_channel_of_any_size_and_drops_nothing() -> None:
    flow = Flow(
        "return function() funcs.call('a:b') local ch = channel.new() local early = subscribe('t', ch) local l = {} for i = 1, 5 do l[i] = (ch:receive()) end "
        "unsubscribe(ch) l[6] = select(2, ch:receive()) l[7] = process.inbox():receive():payload():data() return l end"
    )
    flow.start()
    for n in range(1, 4):
        flow.signal("t", n)
    flow.ok(1)
    for n in range(4, 7):
        flow.signal("t", n)
    assert flow.result == [1, 2, 3, 4, 5, False, 6]


def test_reserved_topics_wait_for_their_own_listener_only() -> None:
    flow = Flow(
        "return function() local i = process.inbox() local _, e = process.listen('@x') return {e:kind(), i:receive():topic()} end"
    )
    flow.start()
    assert flow.signal("@pg/events") == []
    assert flow.signal("plain") == ["end completed ['Invalid', 'plain']"]


# -- errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raised", "message", "kind"),
    [
        ('"text"', "flow.lua:2: text", "Internal"),
        ('"text", 0', "text", "Internal"),
        ("nil", "flow.lua:2: raised nil", "Internal"),
        ("5", "flow.lua:2: raised 5", "Internal"),
        ("5.5", "flow.lua:2: raised 5.5", "Internal"),
        ("true", "flow.lua:2: raised true", "Internal"),
        ("{}", "flow.lua:2: raised table: 0x00000001", "Internal"),
        ("print", "flow.lua:2: raised function: 0x00000001", "Internal"),
        ("coroutine.create(print)", "flow.lua:2: raised thread: 0x00000001", "Internal"),
        ("channel.new()", "flow.lua:2: raised channel", "Internal"),
        ("setmetatable({}, {__tostring = function() return 'mine' end})", "flow.lua:2: raised mine", "Internal"),
        (
            "setmetatable({}, {__tostring = function() error('x') end})",
            "flow.lua:2: raised a table whose __tostring failed",
            "Internal",
        ),
        (
            "setmetatable({}, {__tostring = function() return 5 end})",
            "flow.lua:2: raised a table whose __tostring failed",
            "Internal",
        ),
        (
            "setmetatable({}, {__tostring = function() time.sleep('1s') end})",
            "flow.lua:2: raised a table whose __tostring failed",
            "Internal",
        ),
        (
            "setmetatable({}, {__tostring = function() while true do end end})",
            "flow.lua:2: raised a table whose __tostring failed",
            "Internal",
        ),
        ("setmetatable({}, {__name = 'Mine'})", "flow.lua:2: raised Mine: 0x00000001", "Internal"),
        ("errors.new('e')", "e", "Internal"),
        ("errors.new{message = 'e', kind = errors.CONFLICT}", "e", "Conflict"),
        (
            "errors.new{message = 'e', kind = {}}",
            "flow.lua:2: bad argument #1 to 'errors.new' (kind must be a string, got table)",
            "Internal",
        ),
        ("errors.new{message = 'e', kind = 'K', details = 5}", None, "Internal"),
    ],
)
def test_a_raised_value_of_any_type_is_a_failure(raised: str, message: str | None, kind: str) -> None:
    failure = run_lua(f"return function()\n error({raised}) end")
    assert isinstance(failure, Failure)
    assert "flow.lua:2" in failure.stack
    if message is not None:
        assert failure.message == message
    if kind:
        assert failure.kind == kind


def test_an_error_keeps_all_it_says_and_details_that_cannot_be_sent_are_replaced() -> None:
    failure = run_lua(
        "return function() return nil, errors.new{message='m', kind='Custom', retryable=true, details={a={b=1}}} end"
    )
    assert (failure.message, failure.kind, failure.retryable, failure.details) == ("m", "Custom", True, {"a": {"b": 1}})
    failure = run_lua("return function() local d = {} d.d = d error(errors.new{message='m', details=d}) end")
    assert failure.message == "m"
    assert failure.details == {"note": "details could not be sent: cyclic table"}


@pytest.mark.parametrize(("retryable", "seen"), [(True, "true"), (False, "false"), (None, "nil")])
def test_an_error_from_outside_keeps_whether_it_may_be_retried(retryable: bool | None, seen: str) -> None:
    flow = Flow("return function() local _, e = process.send('{c@w|o}', 't') return tostring(e:retryable()) end")
    flow.start()
    assert flow.fails(1, Failure("x", "K", retryable)) == [f"end completed {seen}"]


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        ("1, nil", 1),
        ("1, 5", 1),
        ("1, {}", 1),
        ("nil", None),
        ("false", False),
        ("1, 'text'", Failure("text", Kind.INTERNAL, False)),
        ("nil, errors.new('e')", Failure("e", Kind.INTERNAL)),
    ],
)
def test_the_second_result_decides(returned: str, expected: Any) -> None:
    result = run_lua(f"return function() return {returned} end")
    if isinstance(expected, Failure):
        assert (result.message, result.kind, result.retryable) == (expected.message, expected.kind, expected.retryable)
    else:
        assert result == expected


def test_an_error_in_any_task_ends_the_unit() -> None:
    failure = run_lua(
        "return function()\n coroutine.spawn(function()\n error('inner') end)\n process.inbox():receive() end"
    )
    assert failure.message == "flow.lua:3: inner"


def test_what_a_file_returns_must_lead_to_a_function() -> None:
    for source in (
        "return 5",
        "return {}",
        "return {main = 5}",
        "",
        "return nil",
        "return setmetatable({}, {__call = print})",
    ):
        failure = run_lua(source)
        assert (failure.kind, failure.message) == ("NotFound", 'method "main" not found in module')
    assert run_lua("return {main = function() return 1 end}") == 1


def test_a_chunk_that_raises_fails_the_unit() -> None:
    assert run_lua("local x = nil\nreturn x.y").message == "flow.lua:2: attempt to index a nil value (local 'x')"


@pytest.mark.parametrize(
    "waits",
    [
        "time.sleep('1s')",
        "process.inbox():receive()",
        "channel.new():send(1)",
        "channel.select{channel.new():case_receive()}",
        "funcs.call('a:b')",
        "funcs.async('a:b')",
        "time.after('1s')",
        "process.send('{c@w|o}', 't')",
        "process.exec('a:b', 'w')",
        "coroutine.wrap(function() channel.new():receive() end)()",
        "pcall(function() error('x') end) process.inbox():receive()",
    ],
)
def test_a_file_may_not_wait_at_its_top_level(waits: str) -> None:
    failure = run_lua(f"local here = 1\n{waits}\nreturn function() end")
    assert failure.message.startswith("flow.lua:2: this call ")
    assert "a file's top level may not" in failure.message


def test_channels_and_tasks_may_be_made_at_top_level() -> None:
    assert run_lua(
        "local c = channel.new(1) c:send(5) coroutine.spawn(function() c:send(6) end) return function() return {c:receive()} end"
    ) == [5, True]


def test_stacks_show_where_each_task_waits() -> None:
    vm = LuaVM()
    assert (
        vm.compile(
            "code",
            "local function deep()\n  process.inbox():receive()\nend\nreturn function()\n  coroutine.spawn(function()\n    channel.new():receive()\n  end)\n  deep()\nend",
            "app/flow.lua",
        )
        is None
    )
    machine = vm.open(UnitSpec(kind="workflow", entry_id="a:b", code="code"), UnitIdentity())
    assert list(machine.feed("start", 1, b"\x90")) == []
    main, task = machine.stacks()
    assert main.splitlines()[0].startswith("app/flow.lua:2: in")
    assert "app/flow.lua:8" in main
    assert task.startswith("app/flow.lua:6: in")
    machine.close()


def test_source_that_does_not_compile_says_where() -> None:
    assert (
        LuaVM().compile("x", "return function(\nend end", "app/x.lua")
        == "app/x.lua:2: a name expected as a parameter near 'end'"
    )
    problem = LuaVM().compile("x", "\x1bLua", "app/x.lua")
    assert problem is not None
    assert problem.startswith("app/x.lua")


# -- limits ------------------------------------------------------------------------------------------------------

LOOP = "ran 10000000 instructions in one step without waiting; an endless loop?"
MEMORY = "took more than 64 MB of memory in one step"
BLOCKED = "all coroutines blocked: nothing is left that could wake this workflow"
RUNAWAYS: dict[str, tuple[str, str]] = {
    "loop": ("while true do end", LOOP),
    "loop in pcall": ("while true do pcall(function() while true do end end) end", LOOP),
    "loop in xpcall and its handler": ("xpcall(function() while true do end end, function() while true do end end)", LOOP),
    "loop in a handler": ("xpcall(error, function() while true do end end)", LOOP),
    "loop in wrap": ("coroutine.wrap(function() while true do end end)()", LOOP),
    "loop of resumes": ("while true do coroutine.resume(coroutine.create(function() while true do end end)) end", LOOP),
    "loop in a task": ("coroutine.spawn(function()\nwhile true do end end) process.inbox():receive()", LOOP),
    "loop of tail calls": ("local function f() return f() end f()", LOOP),
    "loop in a closing variable": ("pcall(function() local x <close> = setmetatable({}, {__close = function() while true do end end}) error('a') end) while true do end", LOOP),
    "loop in a metamethod": ("return setmetatable({}, {__index = function() while true do end end}).x", LOOP),
    "loop in a comparison": ("table.sort({3, 2, 1}, function() while true do end end)", LOOP),
    "loop in gsub": ("('x'):gsub('x', function() while true do end end)", LOOP),
    "a length that lies": ("table.insert(setmetatable({}, {__len = function() return 1 << 52 end}), 1, 5)", LOOP),
    "a length that lies, removing": ("table.remove(setmetatable({}, {__len = function() return 1 << 52 end}), 1)", LOOP),
    "a concat of nothing without end": ("table.concat(setmetatable({}, {__index = function() return '' end}), '', 1, 1 << 60)", LOOP),
    "tasks without end": ("local function f() coroutine.spawn(f) end f() process.inbox():receive()", LOOP),
    "memory": ("local t = {} for i = 1, 1e9 do t[i] = {i} end", MEMORY),
    "memory in pcall": ("while true do pcall(function() local t = {} for i = 1, 1e9 do t[i] = {i} end end) end", MEMORY),
    "doubling text": ("local s = 'xxxxxxxxxxxxxxxx' while true do s = s .. s end", MEMORY),
    "doubling text in pcall": ("while true do pcall(function() local s = 'xxxxxxxxxxxxxxxx' while true do s = s .. s end end) end", MEMORY),
    "doubling text in coroutines": ("while true do coroutine.resume(coroutine.create(function() local s = 'xxxxxxxxxxxxxxxx' while true do s = s .. s end end)) end", MEMORY),
    "many texts by rep": ("local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(30e6) end", MEMORY),
    "many texts by rep, in a global": ("hog = {} for i = 1, 1e9 do hog[i] = ('x'):rep(30e6) end", MEMORY),
    "one text by rep": ("local s = ('x'):rep(1e10) return #s", "resulting string too large (10000000000 bytes, limit 67108864)"),
    "recursion": ("local function f(n) return 1 + f(n + 1) end return f(1)", "stack overflow"),
    "recursion with errors": ("local function f(n) if n == 100000 then error('deep') end return 1 + f(n + 1) end return f(1)", "deep"),
    "recursion through a metamethod": ("local t = setmetatable({}, {__index = function(t, k) return t[k .. 1] .. 1 end}) return t.x", "C stack overflow"),
    "blocked": ("channel.new():receive()", BLOCKED),
    "blocked on nothing": ("channel.select{}", BLOCKED),
    "blocked with others": ("coroutine.spawn(function() channel.new():send(1) end) channel.new():receive()", BLOCKED),
    "yield outside": ("coroutine.yield(1)", "attempt to yield from outside a coroutine"),
    "too many elements to move": ("table.move({}, 1, 1e9, 2)", "too many elements to move"),
}  # fmt: skip


@pytest.mark.parametrize("name", RUNAWAYS)
def test_a_unit_that_runs_away_ends_alone_with_an_error_that_names_its_line(name: str) -> None:
    """No endless loop, memory hog or deadlock may harm another unit of the VM, or the node."""
    source, message = RUNAWAYS[name]
    vm = LuaVM()
    neighbours = [
        Flow(
            "return function() keep = ('x'):rep(1000) local n = process.inbox():receive():payload():data() return n + #keep end",
            vm=vm,
            workflow_id=f"n-{n}",
        )
        for n in range(3)
    ]
    for neighbour in neighbours:
        neighbour.start()
    flow = Flow(f"return function()\n{source}\nend", vm=vm)
    begun = time.monotonic()
    flow.start()
    assert time.monotonic() - begun < 20
    failure = flow.result
    assert isinstance(failure, Failure), failure
    assert message in failure.message
    assert failure.message.startswith(("flow.lua:2: ", "flow.lua:3: ")), failure.message
    assert len(failure.stack) < 5000
    for n, neighbour in enumerate(neighbours):
        assert neighbour.signal("x", n) == [f"end completed {n + 1000}"]
    assert run_lua("return function() local t = {} for i = 1, 1e5 do t[i] = {i} end return #t end", vm=vm) == 100_000


def test_a_runaway_after_a_wait_ends_the_same_way() -> None:
    flow = Flow("return function()\n process.inbox():receive()\n while true do end end")
    flow.start()
    assert flow.signal("x")[1].startswith("end failed Internal: flow.lua:3: ran 10000000 instructions")


def test_each_step_has_a_budget_of_its_own() -> None:
    flow = Flow("return function() for i = 1, 5 do for j = 1, 1e6 do end funcs.call('a:b') end return 'done' end")
    vm = LuaVM(instructions_max=3_000_000)
    flow = Flow(flow.source, vm=vm)
    flow.start()
    for n in range(1, 6):
        flow.ok(n)
    assert flow.result == "done"


def test_the_budget_is_what_was_asked_for() -> None:
    source = "return function() for j = 1, %d do end return 'done' end"
    assert run_lua(source % 90_000, vm=LuaVM(instructions_max=100_000)) == "done"
    failure = run_lua(source % 120_000, vm=LuaVM(instructions_max=100_000))
    assert "ran 100000 instructions in one step" in failure.message


def test_a_text_that_sounds_like_lost_memory_costs_only_the_one_who_raised_it() -> None:
    """Lua's own message is a text; a unit that raises it must not cost its neighbours their VM."""
    vm = LuaVM()
    neighbour = Flow("return function() return process.inbox():receive():topic() end", vm=vm)
    neighbour.start()
    assert isinstance(run_lua("return function() error('not enough memory', 0) end", vm=vm), Failure)
    assert neighbour.signal("x") == ["end completed x"]


def test_context_values_are_copies() -> None:
    """What code does to a value it was given does not change what later calls pass on."""
    flow = Flow(
        "return function() ctx.get('user').name = 'x' ctx.all().user.name = 'y' ctx.all().more = 1 return {ctx.get('user'), ctx.all()} end",
        spec=StartSpec(workflow="app:flow", entropy=b"entropy", context={"user": {"name": "ada"}}),
    )
    flow.start()
    assert flow.result == [{"name": "ada"}, {"user": {"name": "ada"}}]


# -- the end of a VM -------------------------------------------------------------------------------------------------


@pytest.fixture
def no_cycles_are_looked_for() -> Iterator[None]:
    """As on a node, which has Python look for cycles so rarely that what waits for it counts as kept."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_cycles_are_looked_for")
@pytest.mark.parametrize("make", [LuaVM, ProcessVM])
def test_a_vm_nobody_uses_is_gone_at_once(make: type[LuaVM]) -> None:
    """Or a node that replaces a full VM would have the memory of both: half a gigabyte that no limit speaks of."""
    vm = make()
    left = weakref.ref(vm)
    assert vm.compile("k", "return { main = function() return #require('hash').sha256('x') end }", "t.lua") is None
    machine = vm.open(UnitSpec("function", "app:k", "k", modules=("hash",)), UnitIdentity(pid="p"))
    assert [op.target for op in machine.feed("request", 1, codec.encode([[], None]), b"p")] == ["ok"]
    del vm
    assert left() is not None, "its machine is still there"
    del machine
    assert left() is None


@pytest.mark.usefixtures("no_cycles_are_looked_for")
def test_a_vm_that_has_failed_is_gone_with_its_error() -> None:
    """The error knows where it was raised, and that is in the VM."""
    vm = LuaVM(memory_bytes_max=24 * 1024 * 1024)
    left = weakref.ref(vm)
    source = "return { main = function() local kept = {} for i = 1, 100 do kept[i] = ('x'):rep(1 << 20) .. i end end }"
    assert vm.compile("k", source, "t.lua") is None
    machine = vm.open(UnitSpec("function", "app:k", "k"), UnitIdentity(pid="p"))
    with pytest.raises(OutOfMemory) as caught:
        machine.feed("request", 1, codec.encode([[], None]), b"p")
    del vm, machine, caught
    assert left() is None


KEEPER = """
local kept = {}
return function(what, mb)
  local made = {}
  for i = 1, mb * 64 do made[i] = string.rep("x", 16384) .. i end
  if what == "keep" then kept[#kept + 1] = made end
end
"""


@pytest.mark.parametrize("held_mb", [5, 60])
def test_garbage_gathers_before_it_is_collected_and_no_more_than_it_may(held_mb: int) -> None:
    """Each cycle goes through all that is in use: not often where that is little, nor ever later where it is much."""
    vm = LuaVM()
    assert vm.compile("keeper", KEEPER, "keeper.lua") is None
    machine = vm.open(UnitSpec("function", "app:keeper", "keeper"))

    def request(what: str, mb: float) -> None:
        ops = machine.feed("request", 0, codec.encode([[what, mb], {}]), b"{n|app:keeper|0x1}")
        assert ops[-1].target == "ok"

    for _ in range(held_mb // 5):
        request("keep", 5)
    used_mb = []
    for _ in range(800):
        request("drop", 0.25)
        used_mb.append(vm._memory_used() / 1024 / 1024)

    in_use_mb = held_mb + 2
    used_mb = used_mb[400:]
    assert max(used_mb) < in_use_mb + max(40.0, 1.2 * in_use_mb)
    assert max(used_mb) - min(used_mb) > 15, "it was collected all the time"
