"""Resetting workflows: a new run that goes on from an event of an old one, on real nodes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest

from mesh.client import WorkflowFailed, WorkflowHandle, WorkflowSuspended
from mesh.events import Event, decode_end
from mesh.hosts import HostRecord
from mesh.imported import HEADER_IMPORTED, HEADER_ORIGIN
from mesh.resetting import CannotReset, ChildrenRun, NoSuchEvent, reset_workflow
from mesh.subjects import WorkflowKey
from node.machine.code import Code
from node.registry import load_registry
from node.workflows.opening import Opening
from node.workflows.replaying import replayed
from tests.apps import QUEUE, TIMEOUT_S, WORKER, a_mesh, key, write_app
from tests.commands import typed
from tests.conftest import ServerFactory
from tests.waiting import wait_until_async

calls: dict[str, int] = {}  # how often each key was called; keys are the tests' own


def step(name: str) -> str:
    calls[name] = calls.get(name, 0) + 1
    return name


FUNCTIONS = {"step": {"kind": "function.python", "source": "tests.test_reset:step"}}

FLOW = """
return function(prefix)
  local said = process.listen("say")
  local id, began = uuid.v4(), time.now():unix_nano()
  funcs.call("app:step", prefix .. "a")
  time.sleep("10ms")
  local one = said:receive()
  funcs.call("app:step", prefix .. "b")
  local two = said:receive()
  %s
  funcs.call("app:step", prefix .. "c")
  return {id, one, two, began == time.now():unix_nano()}
end
"""
BROKEN = FLOW % 'error("a bug")'
FIXED = FLOW % ""


def app(directory: Path, name: str, **workflows: str) -> Path:
    return write_app(directory / name, workflows=workflows, functions=FUNCTIONS)


async def result(handle: WorkflowHandle) -> Any:
    return await handle.result(timeout_s=TIMEOUT_S)


def labels(events: list[Event]) -> list[str]:
    return [f"{e.kind} {e.args[1]}" if e.kind in ("ret", "tick", "exit") else e.kind for e in events]


def replay(directory: Path, handle: WorkflowHandle, run: int, events: list[Event]) -> Any:
    """How a fresh machine ends that is given this history."""
    registry = load_registry(directory, environ={})
    host = HostRecord(WORKER, "app:client", QUEUE)
    opening = Opening(Code(registry), host, lambda _function: {})
    again, _ = replayed(opening, handle.key, run, [event for event in events if event.kind != "end"])
    assert again.finished is not None, again.suspended
    return again.finished.record


async def test_a_workflow_that_failed_by_a_bug_completes_when_it_is_reset_with_fixed_code(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    """From every event there is, and each time from the run before: the history up to there is as it was."""
    calls.clear()
    url = nats_server().url
    async with a_mesh(url, app(tmp_path, "broken", flow=BROKEN)) as mesh:
        handle = await mesh.start("flow", "x-", id="f")
        await handle.signal("say", "one")
        await handle.signal("say", "two")
        with pytest.raises(WorkflowFailed, match="a bug"):
            await result(handle)
        before = await handle.history()
        last = len(before) - 1
        with pytest.raises(
            NoSuchEvent, match=rf"choose one from 1 to {last}; event {last + 1} has ended the run \(end"
        ):
            await handle.reset(last + 1)
        with pytest.raises(NoSuchEvent, match="event 0: choose one from 1"):
            await handle.reset(0)
    fixed = app(tmp_path, "fixed", flow=FIXED)
    ids = set()
    async with a_mesh(url, fixed) as mesh:
        handle = mesh.get("f")
        for number in range(last, 0, -1):
            old = (await handle.history())[:number]
            counted = dict(calls)
            done = await handle.reset(number, reason=f"to {number}")
            assert (done.number, done.seq) == (number, old[-1].seq)
            uuid, one, two, same_time = await result(handle)
            ids.add(uuid)
            assert (one, two, same_time) == ("one", "two", False)
            events = await handle.history()
            assert [e.seq for e in events[1:number]] == [e.seq for e in old[1:]]
            assert [e.at_ns for e in events[1:number]] == [e.at_ns for e in old[1:]]
            spec = (await mesh.client.history(QUEUE).last_run(key("f")))[0].spec()  # type: ignore[index]
            assert spec.base is not None
            assert (spec.base.run, spec.reason, spec.parent) == (done.base, f"to {number}", None)
            # What had its outcome by then is not done again, everything else is.
            answered = {label for label in labels(old) if label.startswith("ret")}
            assert {name: calls.get(name, 0) - counted.get(name, 0) for name in ("x-a", "x-b", "x-c")} == {
                "x-a": int("ret 1" not in answered), "x-b": int("ret 3" not in answered), "x-c": 1,
            }  # fmt: skip
            end = await mesh.client.history(QUEUE).end_of(key("f"), done.run)
            assert end is not None
            assert replay(fixed, handle, done.run, events) == decode_end(end.data)
    assert len(ids) == 1, "the randomness is that of the first run"


WAITS = "return function() local m = process.listen('go'):receive() return m end"
PARENT = """
return function()
  local pid, err = process.spawn_monitored("app:child", "app:worker", "x")
  if err then error(err) end
  funcs.call("app:step", "p")
  local e = process.events():receive()
  local more = process.listen("more"):receive()
  return {e.result.value, more}
end
"""


async def test_an_open_workflow_is_reset_without_its_parent_or_anybody_else_hearing_of_an_end(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    """The parent waits for the child, which is suspended after a change of its code; then it gets the result."""
    url = nats_server().url
    before = "return function() funcs.call('app:step', 'q') local m = process.listen('go'):receive() return m end"
    other = "return function() time.sleep('1ms') local m = process.listen('go'):receive() return m .. '!' end"
    async with a_mesh(url, app(tmp_path, "before", parent=PARENT, child=before)) as mesh:
        await mesh.start("parent", id="p")

        async def has_called() -> bool:
            return labels(await mesh.events("p")).count("ret 2") == 1

        await wait_until_async(has_called)
        child_id = f"p_{mesh.get('p').run or (await mesh.get('p').describe()).run}_1"

        async def child_has_called() -> bool:
            return "ret 1" in labels(await mesh.events(child_id))

        await wait_until_async(child_has_called)
        # To where the child runs, the parent cannot be reset.
        with pytest.raises(
            ChildrenRun, match=rf"event 3: there it has children that run, {child_id} \(op 1\).*up to 1\)$"
        ):
            await mesh.get("p").reset(3)
    async with a_mesh(url, app(tmp_path, "other", parent=PARENT, child=other)) as mesh:
        child = mesh.get(child_id)
        with pytest.raises(WorkflowSuspended):
            await result(child)
        parent, got = mesh.get("p"), []
        async with anyio.create_task_group() as tasks:

            async def wait() -> None:
                got.append(await result(parent))

            tasks.start_soon(wait)
            waiting = mesh.get(child_id)
            waiting.run = (await child.describe()).run  # of the run that is reset
            done = await child.reset(1)
            assert done.base == waiting.run
            await child.signal("go", "now")
            assert await result(waiting) == await result(child) == "now!"
            await parent.signal("more", 1)
        assert got == [["now!", 1]]
        # To where the child has ended it can be: from then on it is not waited for.
        kinds = labels(await parent.history())
        last = kinds.index("exit 1") + 1
        with pytest.raises(ChildrenRun, match=rf"or one from event {last} on, when they have ended"):
            await parent.reset(last - 1)
        await parent.reset(last)
        assert await result(parent) == ["now!", 1]
        # A child whose parent has heard of its end is nobody's any more.
        await child.reset(1)
        assert await result(child) == "now!"
        assert labels(await parent.history()).count("exit 1") == 1


async def test_signals_that_came_after_the_event_are_given_to_the_new_run_unless_it_is_told_otherwise(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    """What was asked of the old run, a cancellation, is not."""
    collect = """
    return function()
      local said, events, got = process.listen("say"), process.events(), {}
      while #got < 3 do
        local r = channel.select{ said:case_receive(), events:case_receive() }
        got[#got + 1] = r.channel == events and r.value.kind or r.value
      end
      return got
    end
    """
    async with a_mesh(nats_server().url, app(tmp_path, "app", collect=collect)) as mesh:
        handle = await mesh.start("collect", id="c")
        await handle.signal("say", "one")
        await handle.cancel()
        await handle.signal("say", "two")
        assert await result(handle) == ["one", "pid.cancel", "two"]
        assert labels(await handle.history()) == ["start", "signal", "cancel", "signal", "end"]
        await handle.reset(3)
        assert await result(handle) == ["one", "pid.cancel", "two"]
        await handle.reset(2)
        await handle.signal("say", "three")
        assert await result(handle) == ["one", "two", "three"]
        assert labels(await handle.history()) == ["start", "signal", "signal", "signal", "end"]
        await handle.reset(2, signals=False)
        for text in ("four", "five"):
            await handle.signal("say", text)
        assert await result(handle) == ["one", "four", "five"]


async def test_a_reset_run_that_continues_as_new_hands_on_what_it_was_not_given(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    """Every message goes to one run of the chain: also one that was sent to the run the reset rests on."""
    fails = """
    return function()
      local said, got = process.listen("say"), {}
      for i = 1, 3 do got[i] = said:receive() end
      error("a bug")
    end
    """
    goes_on = """
    return function(carried)
      local said, got = process.listen("say"), {carried}
      while #got < 3 do
        got[#got + 1] = said:receive()
        if #got == 1 then process.upgrade(nil, got[1]) end
      end
      return got
    end
    """
    url = nats_server().url
    async with a_mesh(url, app(tmp_path, "fails", flow=fails)) as mesh:
        handle = await mesh.start("flow", id="f")
        for text in ("one", "two", "three"):
            await handle.signal("say", text)
        assert (await mesh.failed(handle)).failure.message.endswith("a bug")
    async with a_mesh(url, app(tmp_path, "goes-on", flow=goes_on)) as mesh:
        handle = mesh.get("f")
        await handle.reset(3)
        assert await result(handle) == ["one", "two", "three"]


async def test_a_reset_run_outlives_its_node_and_keeps_the_time_of_what_it_was_waiting_for(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    """The new owner comes to the same: what was open at the event is made or set again, once."""
    calls.clear()
    flow = """
    return function(text)
      local began = time.now():unix_nano()
      local timer = time.after("1h")
      local a = funcs.call("app:step", text .. "a")
      local go = process.listen("go"):receive()
      local b = funcs.call("app:step", text .. "b")
      return {a, go, b, workflow.info().run_id ~= nil}
    end
    """
    url, code = nats_server().url, app(tmp_path, "app", flow=flow)
    async with a_mesh(url, code) as mesh:
        handle = await mesh.start("flow", "n-", id="n")
        await handle.signal("go", 1)
        assert (await result(handle))[:3] == ["n-a", 1, "n-b"]
        began_ns = (await handle.history())[0].at_ns
        done = await handle.reset(1, signals=False)

        async def has_called() -> bool:
            return calls.get("n-a") == 2

        await wait_until_async(has_called)
        subject = f"mesh.at.{QUEUE}.*.n.{done.run}.1"

        async def is_set() -> bool:
            timers = await mesh.client.js.multi_last("WF_orders", [subject])
            return [t.raw_headers is not None and b"Nats-Schedule" in t.raw_headers for t in timers] == [True]

        await wait_until_async(is_set)
        waiting = (await handle.describe()).detail["waiting"]
        assert [item["due_ns"] for item in waiting if item["kind"] == "timer"] == [began_ns + 3600 * 10**9]
    async with a_mesh(url, code) as mesh:
        handle = mesh.get("n")
        await handle.signal("go", 2)
        assert (await result(handle))[:3] == ["n-a", 2, "n-b"]
        assert calls == {"n-a": 2, "n-b": 2}


async def test_resets_at_the_same_time_come_one_after_the_other_and_the_same_one_twice_is_one(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    async with a_mesh(nats_server().url, app(tmp_path, "app", waits=WAITS)) as mesh:
        handle = await mesh.start("waits", id="w")
        history, runs = mesh.client.history(QUEUE), []

        async def reset(reason: str) -> None:
            done = await reset_workflow(mesh.client.js, history, key("w"), 1, reason=reason)
            runs.append((done.base, done.run))

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(reset, "same")
        assert len(set(runs)) == 1
        assert runs[0][0] == handle.run
        runs.clear()
        async with anyio.create_task_group() as tasks:
            for reason in ("one", "two", "three"):
                tasks.start_soon(reset, reason)
        runs.sort()
        assert [base for base, _ in runs][1:] == [run for _, run in runs][:-1]
        await handle.signal("go", 1)
        assert await result(handle) == 1
        with pytest.raises(CannotReset, match="event 9"):
            await handle.reset(9)
        with pytest.raises(LookupError, match="no workflow 'nobody'"):
            await reset_workflow(mesh.client.js, history, WorkflowKey(QUEUE, "nobody"), 1)


async def test_the_command_says_what_it_did_and_what_may_be_asked_next(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    url = nats_server().url
    async with a_mesh(url, app(tmp_path, "app", waits=WAITS)) as mesh:
        handle = await mesh.start("waits", id="w")
        done = await typed("reset", "w", "--event", "1", "--reason", "to see", "--json", url=url)
        record = json.loads(done.out)
        assert (done.status, record) == (
            0, {"id": "w", "queue": QUEUE, "run": record["run"], "base": handle.run, "event": 1, "seq": handle.run},
        )  # fmt: skip
        assert done.err == (
            f"w goes on from event 1 of run {handle.run} as run {record['run']} on queue orders\n"
            "next: mesh show w   or   mesh result w\n"
        )
        shown = await typed("show", "w", url=url)
        assert f"goes on from run {handle.run}, sequence {handle.run}, reason: to see" in shown.out
        wrong = await typed("reset", "w", "--event", "3000", url=url)
        assert (wrong.status, wrong.err) == (
            1, "mesh: workflow 'w' cannot be reset to event 3000: choose one from 1 to 1\n",
        )  # fmt: skip
        assert (await typed("reset", "w", url=url)).status == 2
        # Only one that was recorded here can be reset.
        await mesh.client.js.publish(
            key("i").start(), b"1",
            headers={"Mesh-Workflow": "app:waits", HEADER_IMPORTED: "x 1", HEADER_ORIGIN: "orders i 7 7"},
        )  # fmt: skip
        with pytest.raises(CannotReset, match="was recorded in another mesh and imported"):
            await mesh.get("i").reset(1)


async def test_a_workflow_whose_time_was_up_has_its_time_anew(nats_server: ServerFactory, tmp_path: Path) -> None:
    async with a_mesh(nats_server().url, app(tmp_path, "app", waits=WAITS)) as mesh:
        handle = await mesh.start("waits", id="w", run_timeout_s=1.5)
        assert (await mesh.failed(handle)).status == "timed-out"
        with pytest.raises(NoSuchEvent, match=r"choose one from 1 to 1; event 2 has ended the run \(timeout\)"):
            await handle.reset(2)
        await handle.reset(1)
        await handle.signal("go", "in time")
        assert await result(handle) == "in time"
