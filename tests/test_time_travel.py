"""How a workflow was at each of its events, told by a replay: the same as what was seen when the event came.

The test answers the calls itself, so that nothing happens but what it says, and nothing is missed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest

from mesh import codec
from mesh.client import WorkflowHandle, connect
from mesh.errors import CannotLookBack
from mesh.event_numbers import UnknownEvent
from mesh.events import Event, StartSpec
from mesh.failure import Failure
from mesh.states import ask_owner
from mesh.subjects import WorkflowKey, function_request
from node.api.describing import describe
from node.app_code import looking_back_with
from node.workflows.looking_back import OPS_MAX, VM_LOOKS_MAX
from node.workflows.ops import fingerprint
from tests.apps import QUEUE, Mesh, a_mesh, key, write_app
from tests.conftest import ServerFactory
from tests.flows import RUN, Flow
from tests.waiting import wait_until_async

ORDER = """local rate = 7
count = 0
local function charge(order)
  local total = order.price * rate
  return (funcs.call("app:charge", total))
end
return function(order)
  local receipt = charge(order)
  count = count + 1
  local late = time.after("24h")
  local approvals = process.listen("approve")
  local numbers = coroutine.wrap(function() for i = 1, 9 do coroutine.yield(i) end end)
  numbers()
  coroutine.spawn(function()
    while true do
      local chosen = channel.select{approvals:case_receive(), late:case_receive()}
      if chosen.channel == late then return end
      order.approved = chosen.value.by
    end
  end)
  time.sleep("1h")
  local child = process.spawn("app:child", "app:worker", order.id)
  process.events():receive()
  return {receipt = receipt, by = order.approved}
end"""
CHILD = "return function(id) process.listen('finish'):receive() return id end"
# What of a state a replay must tell as it was.
COMPARED = ("status", "reason", "waiting", "children", "stacks", "tasks", "coroutines", "globals", "cancel_requested")


@pytest.fixture
def app(tmp_path: Path) -> Path:
    return write_app(tmp_path / "app", workflows={"order": ORDER, "child": CHILD})


async def asked(mesh: Mesh, handle: WorkflowHandle) -> Mapping[str, Any]:
    """What the owner of an open run says of it."""
    found = await mesh.client.history(QUEUE).last_run(handle.key)
    assert found is not None
    return await ask_owner(mesh.client, handle.key, found[0], full=True)


class Story:
    """A workflow to which things happen one by one; `seen` has what its owner said after each."""

    def __init__(self, mesh: Mesh, handle: WorkflowHandle) -> None:
        self.mesh = mesh
        self.handle = handle
        self.seen: list[Mapping[str, Any]] = []

    async def look(self, *, waits: str) -> None:
        """Wait until the main task waits for this, and keep what there is to see."""

        async def there() -> bool:
            self.now = await asked(self.mesh, self.handle)
            tasks = self.now.get("tasks") or ()
            return any(task["main"] and text_of(task) == waits for task in tasks)

        await wait_until_async(there)
        self.seen.append(self.now)

    async def ret(self, n: int, outcome: bytes, kind: str, target: str) -> None:
        subject = self.handle.key.ret(self.handle.run, n, 1, fingerprint(kind, target))
        await self.mesh.client.js.publish(subject, outcome)


def text_of(task: Mapping[str, Any]) -> str:
    """What a task waits for, in short."""
    waits = task["waits"]
    cases = ", ".join(f"{case['verb']} {case.get('name')}" for case in waits.get("cases", ()))
    what = cases or f"op {waits.get('what')}"
    return f"{what} line {task['frames'][0]['line']}"


async def test_at_every_event_a_workflow_is_shown_as_it_was(
    nats_server: ServerFactory, app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nobody has the call that is answered below: an owner that asks who has it would record that it is lost.
    monkeypatch.setattr("node.workflows.calls.ASK_AFTER_S", 60.0)
    url = nats_server().url
    async with a_mesh(url, app, functions=False) as mesh:
        requests = mesh.client.conn.subscribe_direct(function_request("app:charge"), lambda *_: None)
        handle = await mesh.start("order", {"id": "o-1", "price": 6}, id="o-1")
        story = Story(mesh, handle)
        await story.look(waits="op call app:charge line 5")
        await story.ret(1, codec.encode_success({"paid": 42}), "call", "app:charge")
        await story.look(waits="op timer line 21")
        await handle.signal("approve", {"by": "Ada"})

        async def approved() -> bool:
            return "Ada" in str((await asked(mesh, handle))["tasks"])

        await wait_until_async(approved)
        await story.look(waits="op timer line 21")
        await mesh.client.js.publish(handle.key.subject("tick", str(handle.run), "3"), b"")
        # The child's start is an event, and comes by itself.
        await story.look(waits="receive process.events() line 23")
        (child,) = story.seen[-1]["children"]
        child_id = child.rpartition("|")[2].rstrip("}")
        await mesh.get(child_id).signal("finish")
        result = await handle.result(timeout_s=30)
        assert result == {"receipt": {"paid": 42}, "by": "Ada"}
        requests.unsubscribe()

        kinds = await mesh.kinds("o-1")
        assert kinds == ["start", "ret", "signal", "tick", "ret", "exit", "end"]
        numbers = [1, 2, 3, 5]  # at 4 the child was being started: nobody has looked
        for number, live in zip(numbers, story.seen, strict=True):
            past = await handle.describe(at=number)
            assert {name: past.detail[name] for name in COMPARED} == {name: live[name] for name in COMPARED}, number
            assert past.status == "running"
        between = await handle.describe(at=4)
        (waiting,) = (item for item in between.detail["waiting"] if item["kind"] == "spawn")
        assert waiting["target"] == "app:child"

        first = (await handle.describe(at=1)).detail["tasks"][0]["frames"]
        assert [(frame["line"], frame["locals"], frame["upvalues"]) for frame in first] == [
            (5, [["order", '{id = "o-1", price = 6}'], ["total", "42"]], [["rate", "7"]]),
            (8, [["order", '{id = "o-1", price = 6}']], []),
        ]
        assert (await handle.describe(at=1)).detail["globals"] == [["count", "0"]]
        second = (await handle.describe(at=2)).detail
        assert second["globals"] == [["count", "1"]]
        assert [frame["line"] for frame in second["coroutines"][0]["frames"]] == [12]
        selects = second["tasks"][1]["waits"]
        assert [(case["verb"], case["name"], case.get("what")) for case in selects["cases"]] == [
            ("receive", 'process.listen("approve")', None),
            ("receive", "late", "timer"),
        ]
        for number in (6, 7):
            ended = await handle.describe(at=number)
            assert (ended.status, ended.value) == ("completed", result)
        seq = (await handle.history())[-1].seq
        assert (await handle.describe(at=seq)).detail["at_seq"] == seq, "a stream sequence names an event, too"
        with pytest.raises(UnknownEvent, match=r"no event 99; its newest run has events 1 to 7"):
            await handle.describe(at=99)
        record = await describe(mesh.client, handle.key, at=3)
        whole = await describe(mesh.client, handle.key)

    assert (record["at"]["n"], record["events_total"], record["status"], record["ended"]) == (3, 3, "running", None)
    assert [(op["kind"], op["target"], op["asked"], op["ended"], op["answered"]) for op in whole["ops"]] == [
        ("call", "app:charge", 1, 2, True),
        ("timer", "", 2, None, False),
        ("timer", "", 2, 4, True),
        ("spawn", "app:child", 4, 5, True),
    ]
    timeline = {
        event["n"]: (event["duration_s"], event.get("target")) for event in whole["events"] if "duration_s" in event
    }
    assert {n: target for n, (_, target) in timeline.items()} == {
        2: "call app:charge", 4: None, 5: "spawn app:child", 6: None,
    }  # fmt: skip
    assert all(0 <= duration < 60 for duration, _ in timeline.values())
    assert whole["events"][0]["since_s"] == 0

    async with connect(url) as client:
        with pytest.raises(CannotLookBack, match="no node owns partition"):
            await client.get("o-1", queue=QUEUE).describe(at=3)
        local = await describe(client, key("o-1"), at=3, code=looking_back_with(app, {}))
        alone = await describe(client, key("o-1"))
    assert {**local, "node": None} == {**record, "node": None}, "the code alone tells the same"
    assert [event["kind"] for event in alone["events"]] == kinds, "the events alone tell what they can"
    assert "no node owns partition" in alone["note"]
    assert alone["value"] == result


async def test_a_suspended_workflow_shows_where_it_stopped_fitting(nats_server: ServerFactory, tmp_path: Path) -> None:
    """Under the present code: the event, what the history has, what the code asked for, and its stack."""
    url = nats_server().url
    source = "return function(x)\n local first = funcs.call('app:one', x)\n local second = funcs.call('app:two', first)\n return second\nend"
    functions = dict.fromkeys(("one", "two"), "return {main = function(x) return x + 1 end}")
    functions["two"] = "local time = require('time') return {main = function(x) time.sleep('1h') end}"
    before = write_app(tmp_path / "before", workflows={"flow": source}, functions=functions)
    after = write_app(
        tmp_path / "after", workflows={"flow": source.replace("'app:one'", "'app:two'")}, functions=functions
    )
    async with a_mesh(url, before) as mesh:
        handle = await mesh.start("flow", 1, id="f")
        await wait_until_async(lambda: at_line(mesh, handle, 3))
    async with a_mesh(url, after, node_id="b") as mesh:
        handle = mesh.get("f")
        record = await describe(mesh.client, handle.key)
        assert (record["status"], record["suspended_at"]) == ("suspended", 2)
        assert (record["expected"], record["got"]) == ("call app:one", "call app:two")
        (task,) = record["tasks"]
        assert (task["frames"][0]["line"], task["frames"][0]["locals"]) == (2, [["x", "1"]])
        earlier = await handle.describe(at=1)
        assert (earlier.status, earlier.detail["waiting"][0]["target"]) == ("running", "app:two")


async def at_line(mesh: Mesh, handle: WorkflowHandle, line: int) -> bool:
    tasks = (await asked(mesh, handle)).get("tasks") or ()
    return any(task["frames"] and task["frames"][0]["line"] == line for task in tasks)


async def test_a_failed_workflow_shows_its_variables_where_it_failed(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    source = "return function(x)\n local y = {x}\n local z = funcs.call('app:inc', x)\n error('no ' .. z)\nend"
    app = write_app(
        tmp_path / "app", workflows={"flow": source}, functions={"inc": "return {main = function(x) return x + 1 end}"}
    )
    async with a_mesh(nats_server().url, app) as mesh:
        handle = await mesh.start("flow", 1, id="f")
        await mesh.failed(handle)
        past = await handle.describe(at=2)
        assert past.status == "failed"
        assert isinstance(past.value, Failure)
        frame = past.detail["tasks"][0]["frames"][0]
        assert (frame["line"], frame["locals"]) == (4, [["x", "1"], ["y", "{1}"], ["z", "2"]])
        ret = (await handle.history())[1]
        assert ret.headers["Mesh-Node"] == "a"
        assert 0 <= float(ret.headers["Mesh-Took"]) < 60_000
        record = (await describe(mesh.client, WorkflowKey(QUEUE, "f")))["events"][1]
        assert record["node"] == "a"
        assert record["took_s"] <= record["duration_s"]
        assert record["target"] == "call app:inc"

        # A reset run rests on the events of the one before: they are its own, in front.
        await handle.reset(2)
        await mesh.failed(handle)
        again = await handle.describe(at=1)
        assert (again.run, again.detail["tasks"][0]["frames"][0]["line"]) == (handle.run, 3)
        whole = await describe(mesh.client, handle.key)
        assert [event["kind"] for event in whole["events"]][:2] == ["start", "ret"]
        assert all(event["since_s"] >= 0 for event in whole["events"][1:])
        assert whole["ops"][0]["ended"] == 2


# -- without a mesh --------------------------------------------------------------------------------------------------

MANY = "return function() for i = 1, 5000 do funcs.call('app:inc', i) end end"


def told(answers: int) -> Flow:
    """A run that was given so many answers."""
    flow = Flow(MANY, spec=StartSpec("app:flow", entropy=b"e"))
    flow.start()
    for n in range(1, answers + 1):
        flow.ok(n, n)
    return flow


async def test_a_look_back_has_limits(tmp_path: Path) -> None:
    look = looking_back_with(write_app(tmp_path / "app", workflows={"flow": MANY}), {})
    flow = told(OPS_MAX + 10)
    whole = await look.at(flow.key, RUN, flow.events)
    assert (whole["at_seq"], whole["waiting"][0]["n"]) == (flow.events[-1].seq, OPS_MAX + 11)
    assert [whole["ops"][0][0], whole["ops"][-1][0], len(whole["ops"])] == [12, OPS_MAX + 11, OPS_MAX], "the newest"
    for event in (flow.events[0], flow.events[5]):
        past = await look.at(flow.key, RUN, flow.events, event.seq)
        assert past["waiting"][0]["n"] == event.seq - RUN + 1
    with pytest.raises(CannotLookBack, match=r"takes longer than 0 s: event \d+ was reached"):
        await look.at(flow.key, RUN, flow.events, seconds=0)
    with pytest.raises(CannotLookBack, match="no event with sequence 7"):
        await look.at(flow.key, RUN, flow.events, 7)
    with pytest.raises(CannotLookBack, match="no start of run"):
        await look.at(flow.key, RUN, flow.events[1:])


async def test_looks_at_the_same_time_take_turns_in_one_machine(tmp_path: Path) -> None:
    look = looking_back_with(write_app(tmp_path / "app", workflows={"flow": MANY}), {})
    flow = told(VM_LOOKS_MAX + 20)
    seen: dict[int, int] = {}

    async def look_at(event: Event) -> None:
        seen[event.seq] = (await look.at(flow.key, RUN, flow.events, event.seq))["waiting"][0]["n"]

    async with anyio.create_task_group() as tasks:
        for event in flow.events:
            tasks.start_soon(look_at, event)
    assert seen == {event.seq: event.seq - RUN + 1 for event in flow.events}


async def test_code_that_is_not_there_is_said_to_be_so(tmp_path: Path) -> None:
    look = looking_back_with(write_app(tmp_path / "app", workflows={"other": MANY}), {})
    flow = told(2)
    state = await look.at(flow.key, RUN, flow.events)
    assert (state["status"], state["suspended_seq"]) == ("suspended", RUN)
    assert "has no workflow 'app:flow'" in state["reason"]


async def test_what_does_not_fit_into_a_message_is_left_out_and_that_is_said(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    fan = "return function(n) for i = 1, n do funcs.async('app:none') end time.sleep('1h') end"
    app = write_app(tmp_path / "app", workflows={"fan": fan})
    async with a_mesh(nats_server(config="max_payload: 16384").url, app) as mesh:
        handle = await mesh.start("fan", 300, id="fan")

        async def runs() -> bool:
            return bool((await describe(mesh.client, handle.key))["waiting"])

        await wait_until_async(runs)
        record = await describe(mesh.client, handle.key)
        assert 30 < len(record["waiting"]) < 300
        assert record["note"].endswith("the steps, their stacks, its tasks, what it waits for; --app APP has it all")
        assert record["tasks"] == []
        past = await describe(mesh.client, handle.key, at=1)
        assert past["note"] == record["note"]
        # The control API's own answer, made of that, has to fit, too.
        reply = await mesh.client.conn.request("mesh.api.describe", b'{"id": "fan"}', timeout_s=5)
        answer = json.loads(reply.data)
        assert 20 < len(answer["waiting"]) < len(record["waiting"])
        assert answer["note"].endswith("so there is not all of: what it waits for; `mesh show` has it all")
        whole = await describe(mesh.client, handle.key, code=looking_back_with(app, {}))
        assert (len(whole["waiting"]), whole["note"]) == (301, None)
