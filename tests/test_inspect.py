"""Looking at a unit: its tasks, what they wait for, and what their variables hold.

Not here: how that is shown (tests/test_show.py), and how a workflow was at an event (tests/test_time_travel.py).
"""

from __future__ import annotations

from typing import Any

import pytest

from node.machine.vm import LuaVM, NoRoom, UnitIdentity, UnitSpec
from tests.flows import Flow

MAIN = "main function"


def looked_at(source: str, *args: Any, **options: Any) -> dict[str, Any]:
    """What a look at a workflow in its first wait shows."""
    flow = Flow(source, args=args, **options)
    flow.start()
    return look(flow)


def look(flow: Flow) -> dict[str, Any]:
    machine = flow.run.machine
    assert machine is not None, flow.run.finished
    seen = machine.inspect()
    assert "problem" not in seen, seen
    return seen


def variables(frame: dict[str, Any]) -> dict[str, str]:
    """The locals of a frame by name; each name is there once."""
    assert len(dict(frame["locals"])) == len(frame["locals"])
    return dict(frame["locals"])


def held(expression: str, before: str = "") -> str:
    """How a value is shown."""
    seen = looked_at(f"return function(...) {before} local it = {expression} funcs.call('a:b') end")
    return variables(seen["tasks"][0]["frames"][0])["it"]


def test_a_task_shows_its_frames_innermost_first_with_their_locals_and_upvalues() -> None:
    source = """local rate, funcs = 7, require("funcs")
local function charge(order)
  local total = order.price * rate
  do local gone = true end
  local total = "twice " .. total
  return (funcs.call("app:charge", total))
end
return function(order, ...)
  local note = "hurry"
  local receipt = charge(order)
  return receipt, note
end"""
    seen = looked_at(source, {"id": "o-1", "price": 6}, "x", None)
    (task,) = seen["tasks"]
    assert (task["id"], task["main"], task["waits"]) == (1, True, {"kind": "op", "op": 1})
    inner, outer = task["frames"]
    assert (inner["file"], inner["line"], inner["function"]) == ("flow.lua", 6, "charge")
    assert inner["locals"] == [["order", '{id = "o-1", price = 6}'], ["total", '"twice 42"']]
    assert inner["upvalues"] == [["rate", "7"]], "modules and functions are code, not state"
    assert (outer["file"], outer["line"], outer["function"]) == ("flow.lua", 10, MAIN)
    assert outer["locals"] == [["order", '{id = "o-1", price = 6}'], ["note", '"hurry"'], ["...", '"x", nil']]
    assert seen["tasks_total"] == 1


def test_each_task_says_what_it_waits_for() -> None:
    source = """return function()
  local done, full, both, out = channel.new(), channel.new(1), {a = channel.new(), b = channel.new(2)}, channel.new()
  local f = funcs.async("app:late")
  local approvals = process.listen("approve")
  coroutine.spawn(function() done:receive() end)
  coroutine.spawn(function() full:send(1) full:send({two = 2}) end)
  coroutine.spawn(function() channel.select{both.a:case_receive(), both.b:case_receive(), f:channel():case_receive()} end)
  coroutine.spawn(function() approvals:receive() end)
  coroutine.spawn(function() process.inbox():receive() end)
  coroutine.spawn(function() process.events():receive() end)
  coroutine.spawn(function() local t = time.after("5s") t:receive() end)
  coroutine.spawn(function() channel.select{out:case_send("v")} end)
  subscribe("news", channel.new())
  process.exec("app:child", "app:worker")
end"""
    tasks = {task["id"]: task for task in looked_at(source)["tasks"]}
    waits = {
        n: [task["waits"]["kind"], task["frames"][0]["line"]]
        + [(case["verb"], case.get("name"), case.get("op")) for case in task["waits"].get("cases", ())]
        for n, task in tasks.items()
        if task["frames"]
    }
    assert waits == {
        1: ["op", 14],
        2: ["receive", 5, ("receive", "done", None)],
        3: ["send", 6, ("send", "full", None)],
        4: ["select", 7, ("receive", "both.a", None), ("receive", "both.b", None), ("receive", "f", 1)],
        5: ["receive", 8, ("receive", 'process.listen("approve")', None)],
        6: ["receive", 9, ("receive", "process.inbox()", None)],
        7: ["receive", 10, ("receive", "process.events()", None)],
        8: ["receive", 11, ("receive", "t", 3)],
        9: ["select", 12, ("send", "out", None)],
    }
    assert [tasks[3]["waits"]["cases"][0][name] for name in ("held", "size", "value")] == [1, 1, "{two = 2}"]
    (news,) = (task for task in tasks.values() if task["runtimes"])
    assert news["waits"]["cases"][0]["name"] == 'process.listen("news")'


def test_a_task_that_waits_for_a_child_or_for_the_end_of_a_canceled_call_says_so() -> None:
    source = """return function()
  coroutine.spawn(function()
    local f = funcs.new():with_options({wait_for_cancellation = true}):async("app:slow")
    f:cancel()
  end)
  process.exec("app:child", "app:worker")
end"""
    flow = Flow(source)
    flow.start()
    assert [task["waits"] for task in look(flow)["tasks"]] == [{"kind": "op", "op": 1}, {"kind": "cancel", "op": 2}]
    flow.ok(1, {"pid": "{c@w|child}", "run": 7, "queue": "orders", "id": "child"})
    assert look(flow)["tasks"][0]["waits"] == {"kind": "child", "op": 1}


def test_a_wait_that_is_over_is_not_shown_any_more() -> None:
    """What a task waited for is forgotten when it is woken, or a call made later would look like that receive."""
    source = "return function() local c = process.listen('go') c:receive() funcs.call('a:b') c:receive() end"
    flow = Flow(source)
    flow.start()
    kinds = [look(flow)["tasks"][0]["waits"]["kind"]]
    flow.signal("go")
    kinds.append(look(flow)["tasks"][0]["waits"]["kind"])
    flow.ok(1)
    kinds.append(look(flow)["tasks"][0]["waits"]["kind"])
    assert kinds == ["receive", "op", "receive"]


def test_coroutines_of_the_user_are_part_of_the_task_that_waits_inside_them() -> None:
    source = """return function()
  local outer = coroutine.wrap(function()
    local deep = 1
    local inner = coroutine.create(function()
      local deeper = 2
      funcs.call("a:b")
    end)
    coroutine.resume(inner)
  end)
  outer()
end"""
    seen = looked_at(source)
    frames = seen["tasks"][0]["frames"]
    assert [(frame["line"], variables(frame).get("deep"), variables(frame).get("deeper")) for frame in frames] == [
        (6, None, "2"),
        (8, "1", None),
        (10, None, None),
    ]
    assert seen["coroutines"] == [], "they wait with their task"


def test_what_was_received_is_shown_with_where_it_came_from() -> None:
    flow = Flow(
        "return function() local m = process.inbox():receive() local n = process.inbox():receive() funcs.call('a:b') end"
    )
    flow.start()
    flow.signal("greet", {"x": 1}, sender="{c@w|x}")
    flow.signal("bare")
    shown = variables(look(flow)["tasks"][0]["frames"][0])
    assert shown == {"m": 'message "greet" ({x = 1}) from "{c@w|x}"', "n": 'message "bare" (nil)'}


def test_suspended_coroutines_of_the_user_are_shown_with_where_they_stand() -> None:
    source = """return function()
  local list = {}
  list.gen = coroutine.wrap(function(a)
    local own = coroutine.create(function() local leaf = "x" coroutine.yield() end)
    coroutine.resume(own)
    coroutine.yield(a)
  end)
  list.gen("arg")
  local fresh, over = coroutine.create(function() end), coroutine.create(function() end)
  coroutine.resume(over)
  local task = coroutine.spawn(function() process.inbox():receive() end)
  funcs.call("a:b")
end"""
    seen = looked_at(source)
    shown = variables(seen["tasks"][0]["frames"][0])
    assert shown["list"] == "{gen = generator: coroutine, suspended at flow.lua:6}"
    assert [shown[name] for name in ("fresh", "over", "task")] == ["coroutine, not begun", "coroutine, ended", "task 2"]
    lines = [[(frame["line"], variables(frame)) for frame in co["frames"]] for co in seen["coroutines"]]
    assert lines == [
        [(6, {"a": '"arg"', "own": "coroutine, suspended at flow.lua:4"})],
        [],
        [(4, {"leaf": '"x"'})],
    ]


@pytest.mark.parametrize(
    ("expression", "shown"),
    [
        ("nil", "nil"),
        ("0/0", "nan"),
        ("1e300 * 1e10", "inf"),
        ("3.0", "3.0"),
        ("math.mininteger", "-9223372036854775808"),
        (r"'a\n\"b\"\\\0\27é'", r'"a\n\"b\"\\\x00\x1bé"'),
        (r"'\xff\xfe'", r'"\xff\xfe"'),
        ("{}", "{}"),
        ("{1, 'two', {3}, nil, 5}", '{1, "two", {3}, [5] = 5}'),
        ("{b = 1, a = 2, [10] = 3, ['a b'] = 4, [true] = 5, [{}] = 6}", '{[10] = 3, a = 2, ["a b"] = 4, b = 1, [true] = 5, [{}] = 6}'),
        ("{{{{{{}}}}}, {{{{{1}}}}}}", "{{{{{{}}}}}, {{{{{...}}}}}}"),
        ("print", "function of the library"),
        ("function() end", "function (flow.lua:1)"),
        ("time", "module time"),
        ("{string, _G}", "{module string, _G}"),
        ("errors.new({kind = 'Conflict', message = 'no', details = {a = 1}})", 'error Conflict "no" {a = 1}'),
        ("payload.new({a = 1})", "payload {a = 1}"),
        ("errors.new({message = 'no'})", 'error "no"'),
        ("channel.new()", "channel, unbuffered"),
        ("process.inbox()", "channel, 0 in its buffer"),
        ("funcs.async('x:y')", "future of op 1, open"),
        ("time.timer('1s')", "timer, op 1"),
        ("time.parse_duration('90s')", "Duration 1m30s"),
        ("process.with_options({})", "Spawner spawner"),
    ],
)  # fmt: skip
def test_values_are_shown_as_one_would_write_them(expression: str, shown: str) -> None:
    assert held(expression) == shown


def test_a_table_that_contains_itself_ends() -> None:
    assert held("t", "local t = {1} t.t = t t[2] = {t}") == "{1, {{the table it is in}}, t = {the table it is in}}"


def test_what_is_large_is_cut_and_says_by_how_much() -> None:
    assert held("t", "local t = {} for i = 1, 100000 do t[i] = i end").endswith(", 24, 25, ... 99975 more}")
    assert held("t", "local t = {} for i = 1, 40 do t['k' .. i] = i end").endswith(", ... 15 more}")
    assert held("t", "local t = {} for i = 1, 50000 do t['k' .. i] = i end").endswith(", ... many more}")
    assert held("string.rep('é', 1000)") == '"' + "é" * 150 + '"... (2000 bytes)'
    wide = held(
        "t",
        "local function f(n) local t = {} for i = 1, 20 do t[i] = n > 0 and f(n - 1) or i end return t end local t = f(3)",
    )
    assert len(wide) < 10_000
    seen = looked_at(
        "return function() local function f(n) local a, b = n, string.rep('x', 300) if n == 0 then funcs.call('a:b') else f(n - 1) end return a, b end "
        "for i = 1, 150 do coroutine.spawn(function() local x = i process.inbox():receive() end) end f(60) end"
    )  # fmt: skip
    assert (len(seen["tasks"]), seen["tasks_total"]) == (100, 151)
    frames = seen["tasks"][0]["frames"]
    assert len(frames) == 31
    assert frames[-1]["function"] == "..."
    nested = looked_at(
        "return function() local function f(n, last) if n > 0 then f(n - 1, last) else last() end return n end "
        "local gen = coroutine.wrap(function() f(40, function() funcs.call('a:b') end) end) f(40, gen) end"
    )
    assert len(nested["tasks"][0]["frames"]) == 31


def test_no_metamethod_of_the_users_runs_and_nothing_changes() -> None:
    """Whatever a look would do to a unit, a run that was looked at would not replay as one that was not."""
    source = """local log = {}
local function trap(name) return function() log[#log + 1] = name error(name) end end
return function()
  local names = {"__index", "__newindex", "__tostring", "__len", "__pairs", "__eq", "__lt", "__le", "__concat", "__call", "__close", "__unm"}
  local mt = {__name = "Trap", __metatable = false}
  for _, name in ipairs(names) do mt[name] = trap(name) end
  local a, b = setmetatable({x = 1}, mt), setmetatable({}, mt)
  local plain, keyed = {}, {[a] = b, [b] = a}
  local hidden = setmetatable({}, {__name = string.rep("n", 100)})
  funcs.call("a:b")
  local first = tostring({})
  funcs.call("a:c")
  return {first, tostring(plain), log, tostring({})}
end"""
    results = []
    for looks in (0, 3):
        flow = Flow(source)
        flow.start()
        for _ in range(looks):
            shown = variables(look(flow)["tasks"][0]["frames"][0])
            assert (shown["a"], shown["b"], shown["plain"], shown["hidden"]) == ("Trap{x = 1}", "Trap{}", "{}", "{}")
            assert shown["keyed"] == "{[Trap{...}] = Trap{}, [Trap{}] = Trap{x = 1}}"
        flow.ok(1)
        for _ in range(looks):
            look(flow)
        flow.ok(2)
        results.append(flow.result)
    assert results[0] == results[1]
    assert results[0][2] == []


def test_a_look_is_not_charged_to_the_unit() -> None:
    """Looking costs memory and instructions; a unit that was looked at a hundred times has all of its own left."""
    vm = LuaVM(step_memory_bytes_max=8 * 1024 * 1024, instructions_max=300_000)
    source = """return function()
  local t = {} for i = 1, 2000 do t[i] = {name = "n" .. i} end
  for round = 1, 5 do
    funcs.call("a:b")
    for i = 1, 40000 do local x = i end
  end
  return "done"
end"""
    flow = Flow(source, vm=vm)
    flow.start()
    for n in range(1, 6):
        for _ in range(40):
            look(flow)
        flow.ok(n)
    assert flow.result == "done"


def test_globals_of_the_unit_are_shown_without_the_library() -> None:
    source = "count = 1 name = 'x' helper = function() end return function() table.concat({}) json.encode({}) count = count + 1 funcs.call('a:b') end"
    assert looked_at(source)["globals"] == [["count", "2"], ["name", '"x"']]


def test_a_vm_without_room_says_so_and_goes_on() -> None:
    """Memory for the look is not there: the look fails, the unit does not."""
    vm = LuaVM(memory_bytes_max=16 * 1024 * 1024, step_memory_bytes_max=64 * 1024 * 1024)
    source = """return function()
  local keep = {}
  funcs.call("a:b")
  for i = 1, 100000 do keep[i] = {i} end
  return "done"
end"""
    filler = """return function(n) local keep = {} for i = 1, n do keep[i] = string.rep("x", 1024) .. i end funcs.call("a:b") end"""
    flow = Flow(source, vm=vm)
    flow.start()
    look(flow)
    fillers = []
    for n in range(200):
        another = Flow(filler, args=[100], vm=vm, workflow_id=f"f-{n}", run=200 + n)
        try:
            another.start()
        except NoRoom:
            break
        fillers.append(another)
    machine = flow.run.machine
    assert machine is not None
    seen = machine.inspect()
    assert "memory" in seen["problem"]
    assert seen["tasks"] == []
    for another in fillers:
        another.run.close()
    assert machine.inspect()["tasks"][0]["frames"][0]["line"] == 3


def test_what_a_failed_unit_stood_at_can_be_looked_at_before_it_is_forgotten() -> None:
    vm = LuaVM()
    assert vm.compile("f", "return function(x)\n local y = x + 1\n error('no') end", "f.lua") is None
    machine = vm.open(UnitSpec(kind="workflow", entry_id="a:f", code="f"), UnitIdentity(seed=b"s"))
    assert [op.kind for op in machine.feed("start", 1, b"\x91\x01")] == ["end"]
    (task,) = machine.inspect()["tasks"]
    assert task["waits"] == {"kind": "nothing"}
    assert (task["frames"][0]["line"], variables(task["frames"][0])) == (3, {"x": "1", "y": "2"})


@pytest.mark.parametrize(
    "leaf", ["{}", "'x'", "errors.new{message = 'm', kind = ('K'):rep(200)}", "channel.new()", "{{}}"]
)  # fmt: skip
def test_a_value_is_cut_however_its_bytes_are_made_up(leaf: str) -> None:
    """What is not a text or a number counts, too: keys, braces, objects. A look has to fit into a message."""
    tree = """local function tree(depth)
      if depth == 0 then return LEAF end
      local t = {}
      for i = 1, 20 do t[('k'):rep(290) .. i] = tree(depth - 1) end
      return t
    end""".replace("LEAF", leaf)
    assert len(held("tree(3)", tree)) < 4000


def test_a_set_of_objects_is_shown_as_far_as_there_is_room() -> None:
    shown = held("t", "local t = {} for i = 1, 200 do t[channel.new(i)] = i end")
    assert shown.count("channel") > 10


def mailbox(flow: Flow) -> dict[str, Any]:
    assert flow.run.machine is not None, flow.run.finished
    return flow.run.machine.mailbox()


def test_a_mailbox_shows_what_is_listened_to_and_what_was_not_read() -> None:
    source = """return function()
  local approve, go = process.listen("approve"), process.listen("go")
  local gone = process.listen("gone")
  process.unlisten(gone)
  local closed = process.listen("closed")
  closed:close()
  go:receive()
  local inbox = process.inbox()
  funcs.call("a:b")
  go:receive()
  return inbox:receive():topic()
end"""
    flow = Flow(source)
    flow.start()
    assert mailbox(flow) == {"listens": ["approve", "go"], "inbox": False, "unread": [], "cut": False}
    for topic in ("aprove", "approve", "closed", "aprove"):
        flow.signal(topic, 1)
    assert mailbox(flow)["unread"] == [
        {"topic": "aprove", "messages": 2, "held": "nobody"},
        {"topic": "closed", "messages": 1, "held": "nobody"},
        {"topic": "approve", "messages": 1, "held": "listener"},
    ]
    flow.signal("go", 1)
    seen = mailbox(flow)
    assert seen["inbox"]
    assert [(item["topic"], item["held"]) for item in seen["unread"]] == [
        ("aprove", "inbox"), ("closed", "inbox"), ("approve", "listener"),
    ]  # fmt: skip
    # A look has changed nothing.
    assert mailbox(flow) == seen
    flow.ok(1, None)
    flow.signal("go", 2)
    assert flow.result == "aprove"
    assert flow.replay().result == "aprove"


def test_a_look_at_a_mailbox_is_bounded() -> None:
    source = """return function()
  for i = 1, 150 do process.listen("l" .. i) end
  local first = process.listen("go")
  first:receive()
end"""
    flow = Flow(source)
    flow.start()
    assert len(mailbox(flow)["listens"]) == 100
    assert mailbox(flow)["cut"]
    flow = Flow("return function() process.listen('go'):receive() end")
    flow.start()
    for i in range(101):
        flow.signal(f"t{i}", i)
    seen = mailbox(flow)
    assert (len(seen["unread"]), seen["cut"], seen["listens"]) == (100, True, ["go"])
