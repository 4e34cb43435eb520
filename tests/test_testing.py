"""`node.testing`: workflows in one process and in virtual time do what they do in a mesh.

Each test says what a test of a user would see. That the rules are those of a mesh is shown by running what has run in
one: the workflows of the conformance suite, those that nodes are killed under, and some side by side with a real node.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from mesh.history_files import fetch_history, load_histories
from mesh.starting import AlreadyStarted
from node.machine import host_functions
from node.machine.vm import LuaVM
from node.registry import Registry, load_registry
from node.testing import (
    FunctionFailed,
    NeverEnds,
    NotReplaced,
    ReplayDiffers,
    ReplayMismatch,
    Simulation,
    SimulationError,
    StillWaiting,
    UnknownName,
    WorkflowFailed,
    WorkflowSuspended,
    answer,
    fail,
    hang,
    lost,
    replay,
)
from node.workflows.checking import event_label
from tests.apps import a_mesh, write_app
from tests.conftest import ServerFactory
from tests.test_replay_properties import program

CALL = "return function(...) return funcs.call('app:work', ...) end"
WORK = {"work": {"kind": "function.nats", "subject": "elsewhere.work"}}


def simulated(
    directory: Path,
    workflow: str | Mapping[str, str] = CALL,
    *,
    functions: Mapping[str, Any] | None = None,
    **options: Any,
) -> Simulation:
    """A simulation of an app with the workflow `app:flow`, or those given, and the function `app:work`."""
    workflows = {"flow": workflow} if isinstance(workflow, str) else workflow
    return Simulation(write_app(directory, workflows=workflows, functions={**WORK, **(functions or {})}), **options)


def times(sim: Simulation, function: str = "app:work") -> list[float]:
    return [call.at_s for call in sim.calls(function)]


def labels(events: list[Any]) -> list[str]:
    return [event_label(event) for event in events]


# -- calls -------------------------------------------------------------------------------------------------------


def test_callable_in_place_of_a_function_gets_the_arguments_and_its_value_is_the_answer(tmp_path: Path) -> None:
    sim = simulated(tmp_path)
    sim.function("app:work", lambda a, b: {"sum": a + b})
    assert sim.start("app:flow", 1, 2).result() == {"sum": 3}
    (call,) = sim.calls("app:work")
    assert (call.args, call.at_s, call.attempt, call.caller) == ([1, 2], 0.0, 1, "flow-1")


async def test_callable_may_be_async_also_where_the_test_is(tmp_path: Path) -> None:
    async def work(x: int) -> int:
        return x + 1

    sim = simulated(tmp_path)
    sim.function("app:work", work)
    assert sim.start("app:flow", 1).result() == 2


def test_failed_call_is_made_again_after_pauses_that_double_up_to_the_longest(tmp_path: Path) -> None:
    """1 s, 2 s, 4 s ... at most 100 s; from 5 s on the pause is a timer of the history."""
    sim = simulated(tmp_path)
    sim.function("app:work", [*[fail("not now")] * 9, "return function() return 'done' end"])
    flow = sim.start("app:flow")
    assert flow.result() == "done"
    assert times(sim) == [0, 1, 3, 7, 15, 31, 63, 127, 227, 327]
    ticks = [event.args[1] for event in flow.history().events if event.kind == "tick"]
    assert ticks == [f"retry-1-{attempt}" for attempt in range(5, 11)]
    # Of the failed attempts a history keeps the latest.
    assert [event.args[2] for event in flow.history().events if event.kind == "ret"] == ["9", "10"]


def test_failure_that_is_not_retryable_ends_the_call_with_its_kind_and_details(tmp_path: Path) -> None:
    flow = "return function() local _, err = funcs.call('app:work') return {err:kind(), err:message(), err:details().sku} end"
    sim = simulated(tmp_path, flow)
    sim.function("app:work", fail("sold out", kind="Conflict", retryable=False, details={"sku": "lamp"}))
    assert sim.start("app:flow").result() == ["Conflict", "sold out", "lamp"]


def test_exception_of_a_replacement_is_a_failure_and_a_wrong_assertion_is_the_tests(tmp_path: Path) -> None:
    sim = simulated(
        tmp_path,
        "return function() local _, err = funcs.new():with_options{retry_policy = {maximum_attempts = 2}}:call('app:work') return err:message() end",
    )
    sim.function("app:work", [KeyError("x"), ValueError("y")])
    assert sim.start("app:flow").result() == "ValueError: y"

    def work() -> None:
        raise AssertionError("the test is wrong")

    sim.function("app:work", work)
    with pytest.raises(AssertionError, match="the test is wrong"):
        sim.start("app:flow")


def test_value_that_cannot_be_sent_is_a_failure_as_in_a_mesh(tmp_path: Path) -> None:
    sim = simulated(tmp_path)
    sim.function("app:work", answer(object()))
    assert "cannot be sent" in sim.start("app:flow").failure().message


def test_call_that_takes_too_long_times_out_and_its_late_answer_is_nothing(tmp_path: Path) -> None:
    options = "{start_to_close_timeout = '10s', retry_policy = {maximum_attempts = 3}}"
    sim = simulated(tmp_path, f"return function() return funcs.new():with_options{options}:call('app:work') end")
    sim.function("app:work", [answer("late", after="11s"), hang(), answer("in time", after="9s")])
    flow = sim.start("app:flow")
    assert flow.result() == "in time"
    assert times(sim) == [0, 11, 23]
    assert flow.elapsed_s == 32


def test_call_has_a_limit_for_all_its_attempts(tmp_path: Path) -> None:
    options = "{schedule_to_close_timeout = '6s'}"
    sim = simulated(tmp_path, f"return function() return funcs.new():with_options{options}:call('app:work') end")
    sim.function("app:work", [fail("no"), hang()])
    failure = sim.start("app:flow").failure()
    assert (failure.kind, failure.details["timeout_type"]) == ("Timeout", "schedule_to_close")
    assert sim.elapsed_s == 6


def test_call_whose_host_dies_is_made_again_and_one_that_may_run_once_is_not(tmp_path: Path) -> None:
    sim = simulated(tmp_path)
    sim.function("app:work", [lost(after="2s"), "return function() return 5 end"])
    assert sim.start("app:flow").result() == 5
    assert times(sim) == [0, 3]

    once = "{retry_policy = {maximum_attempts = 1}}"
    sim = simulated(tmp_path / "once", f"return function() return funcs.new():with_options{once}:call('app:work') end")
    sim.function("app:work", lost())
    flow = sim.start("app:flow")
    assert flow.failure().kind == "UnknownOutcome"
    assert labels(flow.history().events) == ["start", "claim 1", "ret 1", "end"]


def test_lost_call_with_a_heartbeat_has_timed_out(tmp_path: Path) -> None:
    options = "{heartbeat_timeout = '5s', retry_policy = {maximum_attempts = 1 + 1}}"
    sim = simulated(tmp_path, f"return function() return funcs.new():with_options{options}:call('app:work') end")
    sim.function("app:work", lost())
    assert sim.start("app:flow").failure().details["timeout_type"] == "heartbeat"


def test_call_that_is_canceled_is_asked_to_stop(tmp_path: Path) -> None:
    flow = """return function()
      local future = funcs.async('app:work')
      time.sleep('1m')
      future:cancel()
      return future:is_canceled()
    end"""
    sim = simulated(tmp_path, flow)
    sim.function(
        "app:work", "return function() local e = process.events():receive() print('told', e.kind) return 1 end"
    )
    assert sim.start("app:flow").result() is True
    sim.run()
    assert [(line.text, line.at_s, line.source) for line in sim.logs] == [("told pid.cancel", 60.0, "app:work")]


# -- functions of the app ----------------------------------------------------------------------------------------


def test_lua_function_of_the_app_runs_for_real_in_virtual_time(tmp_path: Path) -> None:
    """It sleeps, calls others with the retry option, reads its clock and logs."""
    work = """return { main = function(x)
      local before = time.now()
      time.sleep("1h")
      print("slept")
      local answer = funcs.new():with_options{retry = {max_attempts = 3, initial_delay = "1s", jitter = 0, retry_kinds = {"Unavailable"}}}:call("app:other", x)
      return { answer = answer, passed = time.now():sub(before):seconds() }
    end }"""
    sim = simulated(tmp_path, functions={"work": work, "other": {"kind": "function.nats", "subject": "x"}})
    sim.function("app:other", [fail("away", kind="Unavailable"), answer(7, after="2s")])
    flow = sim.start("app:flow", 1)
    assert flow.result() == {"answer": 7, "passed": 3603}
    assert [(call.at_s, call.attempt, call.caller) for call in sim.calls("app:other")] == [
        (3600, 1, "app:work"), (3601, 2, "app:work"),
    ]  # fmt: skip
    assert [(line.text, line.at_s) for line in sim.logs] == [("slept", 3600)]


def test_function_can_be_called_by_the_test_itself(tmp_path: Path) -> None:
    work = "return { main = function(n) if n > 1 then return nil, errors.new{message = 'too many', kind = 'Invalid'} end return json.encode({n = n}) end }"
    sim = simulated(tmp_path, functions={"work": work})
    assert sim.call("app:work", 1) == '{"n":1}'
    with pytest.raises(FunctionFailed, match="too many"):
        sim.call("app:work", 2)


def test_functions_share_stores_and_start_signal_and_wait_for_workflows(tmp_path: Path) -> None:
    """What they leave in a store is there for the next call; a key's time to live is virtual."""
    keep = "return { main = function(k, v) local s = store.get('app:cache') if v then s:set(k, v, 60) end return s:get(k) end }"
    starts = """return { main = function()
      local pid = assert(process.spawn("app:flow", "app:worker", "x"))
      assert(process.send(pid, "go", 5))
      return { process.exec("app:flow", "app:worker", "y"), tostring(pid):match("flow") }
    end }"""
    flow = "return function(x) if x == 'y' then time.sleep('1h') return 'executed' end return process.inbox():receive():payload():data() end"
    app = write_app(
        tmp_path,
        workflows={"flow": flow},
        functions={
            "keep": {"source": keep, "modules": ["store"]},
            "starts": {"source": starts, "modules": ["process"]},
        },
        entries=[{"name": "cache", "kind": "store.memory", "lifecycle": {"auto_start": True}}],
    )
    sim = Simulation(app)
    assert sim.call("app:keep", "k", "v") == "v"
    sim.advance("59s")
    assert sim.call("app:keep", "k") == "v"
    sim.advance("1s")
    with pytest.raises(FunctionFailed, match="has no key 'k'"):
        sim.call("app:keep", "k")
    assert sim.call("app:starts") == ["executed", "flow"]
    assert [(w.status, w.result()) for w in sim.workflows()] == [("completed", 5), ("completed", "executed")]
    assert sim.elapsed_s == 3660


def test_process_that_can_be_called_is_called(tmp_path: Path) -> None:
    work = {
        "source": "return { main = function(x) time.sleep('1s') return x * 2 end }",
        "meta": {"default_host": "app:processes"},
    }
    sim = Simulation(write_app(tmp_path, workflows={"flow": CALL}, processes={"work": work}))
    assert sim.start("app:flow", 21).result() == 42
    assert sim.elapsed_s == 1


def test_function_that_reaches_outside_has_to_be_replaced(tmp_path: Path) -> None:
    fetch = {
        "source": "return { main = function() return http_client.get('http://x') end }",
        "modules": ["http_client"],
    }
    sim = simulated(tmp_path, functions={"fetch": fetch})
    with pytest.raises(
        NotReplaced, match=r"app:work is served by whoever listens on elsewhere\.work.*sim\.function\('app:work'"
    ):
        sim.start("app:flow")
    with pytest.raises(NotReplaced, match=r"app:fetch uses http_client\.request, which reaches outside"):
        sim.call("app:fetch")


def test_unknown_names_are_answered_with_the_nearest_one(tmp_path: Path) -> None:
    sim = simulated(tmp_path, {"flow": CALL, "wrong": "return function() funcs.call('app:wrok') end"})
    with pytest.raises(UnknownName, match="no workflow 'app:flwo'; did you mean 'app:flow'"):
        sim.start("app:flwo")
    with pytest.raises(UnknownName, match=r"no function 'app:wrk'; did you mean 'app:work'.*elsewhere=True"):
        sim.function("app:wrk", 1)
    with pytest.raises(UnknownName, match=r"no function 'app:wrok'; did you mean 'app:work'.*called by wrong-1"):
        sim.start("app:wrong")
    with pytest.raises(UnknownName, match="did you mean 'app:work'"):
        sim.calls("app:worc")
    with pytest.raises(UnknownName, match="no workflow with the id 'x'"):
        sim.workflow("x")


def test_function_of_another_app_can_be_put_in_place(tmp_path: Path) -> None:
    sim = simulated(tmp_path, "return function() return funcs.call('billing:charge') end")
    sim.function("billing:charge", answer("charged"), elsewhere=True)
    assert sim.start("app:flow").result() == "charged"


# -- time, signals, others ---------------------------------------------------------------------------------------


def test_time_passes_when_the_test_says_so(tmp_path: Path) -> None:
    sim = simulated(
        tmp_path,
        "return function() time.sleep('24h') return time.now():utc():format_rfc3339() end",
        now="2030-05-01T12:00:00Z",
    )
    flow = sim.start("app:flow")
    sim.advance("23h59m")
    assert (flow.status, flow.elapsed_s) == ("running", 86_340)
    sim.advance(60)
    assert (flow.status, flow.elapsed_s) == ("completed", 86_400)
    assert flow.result() == "2030-05-02T12:00:00Z"
    assert sim.now.isoformat() == "2030-05-02T12:00:00+00:00"


def test_signals_come_at_their_times_and_in_their_order(tmp_path: Path) -> None:
    flow = """return function()
      local got = {}
      local inbox, ends = process.inbox(), time.after("3h")
      while true do
        local r = channel.select{ inbox:case_receive(), ends:case_receive() }
        if r.channel == ends then return got end
        got[#got + 1] = r.value:topic() .. " " .. tostring(r.value:payload():data()) .. " " .. time.now():utc():hour()
      end
    end"""
    sim = simulated(tmp_path, flow)
    run = sim.start("app:flow", messages=[("zero", 0)])
    run.signal("two", 2, at="2h")
    run.signal("one", 1, after="1h")
    run.signal("late", 4, at="4h")
    assert run.result() == ["zero 0 0", "one 1 1", "two 2 2"]
    with pytest.raises(SimulationError, match="is over: it is 10800 s after the beginning"):
        run.signal("x", at="1h")
    with pytest.raises(ValueError, match="time only goes forward"):
        sim.advance("-1h")


def test_workflows_signal_each_other_and_processes_that_the_test_knows(tmp_path: Path) -> None:
    asks = """return function(to)
      local ok, err = process.send(to, "question", process.pid())
      assert(process.send("auditor", "asked", {n = 1}))
      return process.inbox():receive():payload():data()
    end"""
    answers = """return function()
      local message = process.inbox():receive()
      process.send(message:from(), "answer", 42)
    end"""
    sim = simulated(tmp_path, {"asks": asks, "answers": answers})
    auditor = sim.process("auditor")
    other = sim.start("app:answers")
    assert sim.start("app:asks", other.pid).result() == 42
    assert [(m.topic, m.value, m.sender) for m in auditor.messages] == [("asked", {"n": 1}, sim.workflows()[1].pid)]


FAMILY = {
    "parent": """return function(how, policy)
      local options = { parent_close_policy = policy }
      local pid = assert(process.with_options(options):spawn("app:child", "app:worker", how))
      if how == "waits" then return nil end
      local event = process.events():receive()
      return { event.kind, event.from == pid, event.result.value or event.result.error:message() }
    end""",
    "child": """return function(how)
      if how == "fails" then error("oh no") end
      if how == "waits" then process.events():receive() return "told" end
      time.sleep("1h")
      return "grown"
    end""",
}


def test_parent_is_told_how_its_child_ends(tmp_path: Path) -> None:
    sim = simulated(tmp_path, FAMILY)
    assert sim.start("app:parent", "grows").result() == ["pid.exit", True, "grown"]
    assert sim.elapsed_s == 3600
    kind, is_child, text = sim.start("app:parent", "fails").result()
    assert (kind, is_child) == ("pid.exit", True)
    assert text.endswith("oh no")


@pytest.mark.parametrize(
    ("policy", "status"), [("terminate", "terminated"), ("request_cancel", "completed"), ("abandon", "running")]
)
def test_child_of_a_parent_that_has_ended_goes_by_its_policy(tmp_path: Path, policy: str, status: str) -> None:
    sim = simulated(tmp_path, FAMILY)
    parent = sim.start("app:parent", "waits", policy, id="p")
    assert parent.result() is None
    sim.run()
    (child,) = [w for w in sim.workflows() if w.id != "p"]
    assert child.status == status


def test_workflow_can_be_canceled_and_terminated(tmp_path: Path) -> None:
    flow = "return function() local e = process.events():receive() return nil, errors.new{message = e.kind, kind = 'Canceled'} end"
    sim = simulated(tmp_path, flow)
    canceled, terminated = sim.start("app:flow"), sim.start("app:flow")
    canceled.cancel(after="1m")
    terminated.terminate(after="2m")
    assert canceled.failure().message == "pid.cancel"
    with pytest.raises(WorkflowFailed, match="terminated"):
        terminated.result()
    assert [w.status for w in (canceled, terminated)] == ["canceled", "terminated"]
    assert [w.elapsed_s for w in (canceled, terminated)] == [60, 120]


def test_run_that_goes_on_as_a_new_one_takes_what_it_was_not_given_along(tmp_path: Path) -> None:
    flow = """return function(n)
      local message = process.inbox():receive()
      if message:payload():data() == "end" then return n end
      process.upgrade(nil, n + 1)
    end"""
    sim = simulated(tmp_path, flow)
    run = sim.start("app:flow", 0, messages=[("t", "a"), ("t", "b"), ("t", "c")])
    run.signal("t", "end", at="1h")
    assert run.result() == 3
    assert run.runs == 4
    assert run.elapsed_s == 3600


def test_run_that_goes_on_is_given_what_came_before_it_began(tmp_path: Path) -> None:
    """Two messages of one step: the first one makes it go on, the second is there before the new run is."""
    flow = """return function(n)
      if n == 0 then process.inbox():receive() process.upgrade(nil, 1) end
      print("goes on")
      local x = funcs.call("app:work")
      return { x, process.inbox():receive():payload():data() }
    end"""
    sends = """return function(to)
      for i = 1, 2 do coroutine.spawn(function() assert(process.send(to, "t", i)) end) end
      time.sleep("1s")
    end"""
    for crash in (False, True):
        sim = simulated(tmp_path / str(crash), {"flow": flow, "sends": sends}, replay_after_every_event=crash)
        sim.function("app:work", 5)
        run = sim.start("app:flow", 0)
        sim.start("app:sends", run.pid)
        assert run.result() == [5, 2]
        assert labels(run.history().events)[:2] == ["start", "signal t"]
        assert [line.text for line in sim.logs] == ["goes on"]


def test_run_that_fails_is_tried_again_by_its_policy(tmp_path: Path) -> None:
    sim = simulated(
        tmp_path,
        "return function() if workflow.info().attempt < 3 then error('not yet') end return workflow.info().attempt end",
    )
    run = sim.start("app:flow", retry_policy={"initial_interval": "10s", "maximum_attempts": 5})
    assert run.result() == 3
    assert (run.runs, run.elapsed_s) == (3, 30)


def test_run_has_a_time_limit_and_a_delay(tmp_path: Path) -> None:
    sim = simulated(tmp_path, "return function() return process.inbox():receive():payload():data() end")
    assert sim.start("app:flow", run_timeout_s=60).failure().details["timeout_type"] == "run"
    assert sim.elapsed_s == 60
    delayed = sim.start("app:flow", start_delay_s=3600)
    delayed.signal("early", "bird")
    sim.advance("59m")
    assert delayed.status == "running"
    assert delayed.result() == "bird"
    assert delayed.elapsed_s == 3600


def test_ids_are_taken_as_the_policies_say(tmp_path: Path) -> None:
    sim = simulated(tmp_path, "return function() return process.inbox():receive():payload():data() end")
    first = sim.start("app:flow", id="w")
    assert sim.start("app:flow", id="w").existing
    with pytest.raises(AlreadyStarted, match="is running"):
        sim.start("app:flow", id="w", conflict="fail")
    second = sim.start("app:flow", id="w", conflict="terminate_existing")
    assert (first.status, second.status, second.existing) == ("terminated", "running", False)
    second.signal("t", 1)
    assert second.result() == 1
    with pytest.raises(AlreadyStarted, match="has completed before"):
        sim.start("app:flow", id="w", reuse="allow_duplicate_failed_only")


def test_versions_attributes_and_random_values_are_there(tmp_path: Path) -> None:
    flow = """return function()
      workflow.attrs{ search = { customer = "c-1" }, memo = { note = "n" } }
      return { workflow.version("change", 1, 3), uuid.v4(), math.random(1000000) }
    end"""
    app = write_app(tmp_path, workflows={"flow": flow})
    runs = [Simulation(app, seed=seed, replay_after_every_event=True).start("app:flow") for seed in (1, 1, 2)]
    one, same, other = (run.result() for run in runs)
    assert one == same
    assert one[0] == other[0] == 3
    assert one[1:] != other[1:]
    assert (dict(runs[0].attrs), dict(runs[0].memo)) == ({"customer": "c-1"}, {"note": "n"})
    assert "mark version:change" in labels(runs[0].history().events) or "mark version%3Achange" in labels(
        runs[0].history().events
    )


def test_result_that_nothing_will_bring_about_says_what_is_waited_for(tmp_path: Path) -> None:
    sim = simulated(tmp_path)
    sim.function("app:work", hang())
    options = "return function() local x = funcs.new():with_options{start_to_close_timeout = 0}:call('app:work', 'x') return x end"
    sim = simulated(tmp_path / "waits", options)
    sim.function("app:work", hang())
    with pytest.raises(StillWaiting, match=r"waits for call 1 of app:work.*\n.*flow\.lua:1"):
        sim.start("app:flow").result()


def test_code_that_goes_round_in_circles_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.testing.engine.STEPS_MAX", 50)
    sim = simulated(tmp_path)
    sim.function("app:work", fail("never"))
    with pytest.raises(NeverEnds, match="the last one failed: Internal: never"):
        sim.start("app:flow").result()


def test_call_that_is_tried_for_ever_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.testing.engine.ATTEMPTS_MAX", 30)
    monkeypatch.setattr("node.testing.engine.IN_VAIN_S", 600.0)
    sim = simulated(tmp_path)
    sim.function("app:work", fail("never"))
    flow = sim.start("app:flow")
    sim.advance("2h")
    assert flow.status == "running"
    with pytest.raises(NeverEnds, match=r"(?s)fails again and again.*app:work.*Internal: never.*retryable = false"):
        flow.result()


def test_call_is_tried_on_while_something_else_is_going_to_happen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.testing.engine.ATTEMPTS_MAX", 10)
    monkeypatch.setattr("node.testing.engine.IN_VAIN_S", 60.0)
    sim = simulated(
        tmp_path,
        """return function()
      local work = funcs.async('app:work', 'x')
      local got = channel.select{ work:channel():case_receive(), time.after('24h'):case_receive() }
      return got.channel == work:channel() and 'done' or 'too late'
    end""",
    )
    sim.function("app:work", fail("never"))
    assert sim.start("app:flow").result() == "too late"


def test_workflow_that_fills_its_memory_fails_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A VM's memory is what limits a run; here it is small, so that the test is."""
    monkeypatch.setattr("node.testing.engine.LuaVM", lambda: LuaVM(memory_bytes_max=32 * 1024 * 1024))
    greedy = """return function()
      local kept = {}
      while true do
        time.sleep("1s")
        for i = 1, 4 do kept[#kept + 1] = string.rep(tostring(#kept), 1024 * 1024 // #tostring(#kept)) end
      end
    end"""
    sim = simulated(tmp_path, {"greedy": greedy, "flow": "return function() time.sleep('1h') return 'well' end"})
    other = sim.start("app:flow")
    assert "memory" in sim.start("app:greedy").failure().message
    assert other.result() == "well"


# -- replay ------------------------------------------------------------------------------------------------------


def test_code_that_depends_on_more_than_its_events_is_found_by_replaying(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every VM gives another answer: the replayed run asks for another call than the live one."""
    monkeypatch.setattr(host_functions, "_digest", lambda _name, _data: os.urandom(16))
    flow = "return function() time.sleep('1h') return funcs.call('app:work', hash.md5('x')) end"
    app = write_app(
        tmp_path,
        functions=WORK,
        entries=[
            {
                "name": "flow",
                "kind": "workflow.lua",
                "source": flow,
                "modules": ["hash", "time", "funcs"],
                "meta": {"mesh.workflow.worker": "app:worker"},
            }
        ],
    )
    sim = Simulation(app, replay_after_every_event=True)
    sim.function("app:work", 1)
    with pytest.raises(ReplayDiffers, match=r"replayed after event 2 \(tick 1\)") as caught:
        sim.start("app:flow").result()
    assert caught.value.live != caught.value.replayed
    assert caught.value.live[0].startswith("call 2 of app:work")
    calm = Simulation(app)
    calm.function("app:work", 1)
    assert calm.start("app:flow").result() == 1


def test_changed_code_is_deployed_to_runs_that_are_under_way(tmp_path: Path) -> None:
    """What does not fit is suspended, and goes on when fitting code comes."""
    before = "return function() time.sleep('1h') time.sleep('1h') return funcs.call('app:work', 'old') end"
    fits = "return function() time.sleep('1h') time.sleep('1h') return funcs.call('app:work', 'new') end"
    misfits = "return function() funcs.call('app:work', 'first') time.sleep('1h') end"
    sim = simulated(tmp_path / "before", before)
    sim.function("app:work", lambda which: which)
    flow, other = sim.start("app:flow"), sim.start("app:flow")
    sim.advance("90m")
    sim.deploy(write_app(tmp_path / "misfits", workflows={"flow": misfits}, functions=WORK))
    with pytest.raises(WorkflowSuspended, match="op 1: the history has a timer, the code asked for call app:work"):
        flow.result()
    assert flow.status == "suspended"
    sim.deploy(write_app(tmp_path / "fits", workflows={"flow": fits}, functions=WORK))
    assert [flow.result(), other.result()] == ["new", "new"]
    assert flow.elapsed_s == 7200
    assert [call.args for call in sim.calls("app:work")] == [["new"], ["new"]]


def test_workflow_can_be_reset_to_one_of_its_events(tmp_path: Path) -> None:
    sim = simulated(
        tmp_path,
        "return function() time.sleep('1h') local x, err = funcs.call('app:work') return x, err end",
        replay_after_every_event=True,
    )
    sim.function("app:work", fail("broken", retryable=False))
    flow = sim.start("app:flow")
    assert flow.failure().message == "broken"
    sim.function("app:work", "return function() return 'mended' end")
    again = flow.reset(2)
    assert again.result() == "mended"
    assert labels(again.history().events) == ["start", "tick 1", "ret 2", "end"]
    assert sim.elapsed_s == 3600
    assert replay(again.history(), tmp_path).value == "mended"


def test_reset_run_makes_anew_all_that_was_under_way_at_its_event(tmp_path: Path) -> None:
    flow = """return function()
      local a, b = funcs.async("app:work", "a"), funcs.async("app:work", "b")
      local timer = time.after("1m")
      process.inbox():receive()
      timer:receive()
      return { (a:channel():receive()):data(), (b:channel():receive()):data() }
    end"""
    sim = simulated(tmp_path, flow)
    sim.function("app:work", lambda x: x, after="10s")
    run = sim.start("app:flow")
    run.signal("go", after="5s")
    sim.advance("30s")
    again = run.reset(2)
    assert again.result() == ["a", "b"]
    assert [call.at_s for call in sim.calls("app:work")] == [0, 0, 30, 30]
    assert (run.status, again.runs) == ("completed", 1)


def exported(directory: Path) -> Path:
    """A file with the history of a run that has slept, called and ended, and one that still sleeps."""
    sim = simulated(
        directory, "return function(x) time.sleep('1h') local y = funcs.call('app:work', x) return {x, y} end"
    )
    sim.function("app:work", 5)
    sim.start("app:flow", 1, id="done").result()
    sim.start("app:flow", 2, id="sleeps")
    sim.export(directory / "histories.jsonl")
    return directory / "histories.jsonl"


def test_recorded_histories_are_replayed_against_code_that_fits(tmp_path: Path) -> None:
    file = exported(tmp_path)
    done, sleeps = replay(file, tmp_path)
    assert (done.id, done.status, done.value) == ("done", "completed", [1, 5])
    assert (sleeps.id, sleeps.status, sleeps.waiting) == ("sleeps", "running", ["timer 1 in 1h0m0s"])
    assert [replay(history, tmp_path) for history in load_histories(file)] == [done, sleeps]


@pytest.mark.parametrize(
    ("code", "number", "line", "expected", "got"),
    [
        ("return function(x)\n  time.sleep('1h')\n  local y = funcs.call('app:other', x)\n  return {x, y}\nend", 3, "flow.lua:3", "the outcome of op 2, call app:work", "call app:other (op 2)"),
        ("return function(x)\n  funcs.call('app:work', x)\n  time.sleep('1h')\nend", 2, "flow.lua:2", "the timer 1", "call app:work (op 1)"),
        ("return function(x) time.sleep('1h') return x end", 3, "", "the outcome of op 2, call app:work", "completed 1"),
        ("return function(x) time.sleep('1h') local y = funcs.call('app:work', x) return {x} end", 4, "", "completed [1, 5]", "completed [1]"),
        ("return function(x)\n  time.sleep('1h')\n  funcs.call('app:work', x)\n  time.sleep('1h')\nend", 4, "flow.lua:4", "completed [1, 5]", "waits for timer (op 3)"),
        ("return function(x)\n  process.inbox():receive()\nend", 2, "flow.lua:2", "the timer 1", "has asked for 0 ops so far"),
    ],
    ids=["another call", "another order", "too short", "another result", "too long", "nothing asked"],
)  # fmt: skip
def test_history_that_the_code_does_not_fit_is_named_with_its_event_and_line(
    tmp_path: Path, code: str, number: int, line: str, expected: str, got: str
) -> None:
    file = exported(tmp_path / "before")
    app = write_app(tmp_path / "after", workflows={"flow": code}, functions={**WORK, "other": WORK["work"]})
    with pytest.raises(ReplayMismatch) as caught:
        replay(file, app, strict=True)
    found = caught.value
    assert (found.history.header.id, found.number, found.line, found.expected, found.got) == (
        "done",
        number,
        line,
        expected,
        got,
    )
    assert expected in str(found)


def test_another_result_of_a_run_that_has_ended_is_a_note_unless_the_check_is_strict(tmp_path: Path) -> None:
    file = exported(tmp_path / "before")
    other = "return function(x) time.sleep('1h') local y = funcs.call('app:work', x) return {x, y, 'new'} end"
    app = write_app(tmp_path / "after", workflows={"flow": other}, functions=WORK)
    done, sleeps = replay(file, app)
    assert done.value == [1, 5]
    assert done.notes == ['the run ended with completed [1, 5], the code ends with completed [1, 5, "new"]']
    assert sleeps.notes == []
    with pytest.raises(ReplayMismatch):
        replay(file, app, strict=True)


def test_code_that_is_missing_or_broken_does_not_fit(tmp_path: Path) -> None:
    file = exported(tmp_path / "before")
    with pytest.raises(ReplayMismatch, match="no workflow 'app:flow'"):
        replay(file, write_app(tmp_path / "missing", workflows={"other": CALL}))


# -- the same as in a mesh ---------------------------------------------------------------------------------------

SIDE_BY_SIDE = {
    "calls": "return function() local a, b = funcs.async('app:echo', 1), funcs.async('app:echo', 2) return { (b:channel():receive()):data(), (a:channel():receive()):data() } end",
    "fails": "return function() return funcs.new():with_options{retry_policy = {initial_interval = '10ms', maximum_attempts = 3}}:call('app:refuses') end",
    "sleeps": "return function() local t = time.timer('1h') time.sleep('30ms') return t:stop() end",
    "family": "return function() local out = {} for i = 1, 3 do process.spawn('app:child', 'app:worker', i) end for i = 1, 3 do out[i] = process.events():receive().result.value end table.sort(out) return out end",
    "child": "return function(n) return funcs.call('app:echo', n * 10) end",
    "versions": "return function() local v = workflow.version('x', 1, 2) return { v, funcs.call('app:echo', v) } end",
    "goes_on": "return function(n) if n < 3 then process.upgrade(nil, n + 1) end return n end",
    "executes": "return function() return process.exec('app:child', 'app:worker', 4) end",
    "raises": "return function() error('broken') end",
    "once": "return function() return funcs.new():with_options{retry_policy = {maximum_attempts = 1}}:call('app:echo', 'x') end",
    "told_of_failure": "return function() local _, err = process.exec('app:raises', 'app:worker') return { err:kind(), err:details()._workflow_type, err:details()._retry_state } end",
    "says": "return function() workflow.attrs{search = {k = 'v'}, memo = {m = {1}}} time.sleep('5ms') return workflow.info().workflow_type end",
    "listens": "return function() local m = process.listen('greeting'):receive() return m end",
}
SIDE_FUNCTIONS = {
    "echo": "return { main = function(x) return x end }",
    "refuses": "return { main = function() return nil, errors.new{message = 'refused', kind = 'Unavailable'} end }",
}
ARGUMENTS: dict[str, tuple[Any, ...]] = {"goes_on": (1,), "child": (1,)}


async def test_simulation_writes_the_history_that_a_node_writes(tmp_path: Path, nats_server: ServerFactory) -> None:
    """Same app, same starts: the same results, the same events in the same order; and its histories can be replayed."""
    app = write_app(tmp_path, workflows=SIDE_BY_SIDE, functions=SIDE_FUNCTIONS)
    sim = Simulation(app)

    def in_simulation(name: str) -> tuple[Any, list[str]]:
        flow = sim.start(f"app:{name}", *ARGUMENTS.get(name, ()), id=name)
        if name == "listens":
            flow.signal("greeting", "hello")
        try:
            value: Any = flow.result()
        except WorkflowFailed as error:
            value = (error.status, error.failure.kind, error.failure.message, dict(error.failure.details))
        return value, labels(flow.history().events)

    async with a_mesh(nats_server().url, app) as mesh:
        for name in SIDE_BY_SIDE:
            handle = await mesh.start(name, *ARGUMENTS.get(name, ()), id=name)
            if name == "listens":
                await handle.signal("greeting", "hello")
            try:
                value: Any = await handle.result(timeout_s=30)
            except WorkflowFailed as error:
                value = (error.status, error.failure.kind, error.failure.message, dict(error.failure.details))
            simulated_value, simulated_labels = in_simulation(name)
            assert simulated_value == value, name
            # Answers that come at the same moment come in any order, and an attempt that a later one has replaced may
            # be on its way out of the history.
            history = await fetch_history(mesh.client.history("orders"), handle.key)
            while len(history.events) > len(simulated_labels):
                history = await fetch_history(mesh.client.history("orders"), handle.key)
            assert sorted(simulated_labels) == sorted(labels(history.events)), name
            ended = replay(history, app)
            assert ended.value == value or ended.status == "failed", name


# What a simulation leaves out, and why.
NOT_SIMULATED = {
    "a_function_that_nobody_offers_is_retried": "in a test a function that nobody offers is a mistake",
    "an_activity_has_its_time_to_start": "hosts have room for any number of calls",
    "in_a_workflow_now_is_the_time_of_the_step": "a call takes no time unless a test says so",
}


@pytest.fixture(scope="module")
def conformance(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    from tests.lua.behaviour import behaviour_files, read_behaviour, write_suite_app

    behaviours = [read_behaviour(file) for file in behaviour_files()]
    directory = write_suite_app(tmp_path_factory.mktemp("conformance") / "app", behaviours)
    return load_registry(directory, strict=True, environ={"LUA_SUITE_WEB_SERVER": "http://127.0.0.1:9"})


@pytest.mark.timeout(180)
def test_workflows_of_the_conformance_suite_behave_in_a_simulation(conformance: Registry) -> None:
    """All of them; those whose histories are short also with a crash after every event."""
    from tests.lua.behaviour import behaviour_files, read_behaviour

    wrong: dict[str, str] = {}
    behaviours = [read_behaviour(file) for file in behaviour_files()]
    workflows = [behaviour for behaviour in behaviours if behaviour.form == "workflow"]
    assert len(workflows) > 80
    for behaviour in workflows:
        name = behaviour.file.stem
        if name in NOT_SIMULATED:
            continue
        try:
            flow = Simulation(conformance).start(behaviour.id, id=name)
            flow.result()
            if len(flow.history().events) <= 4:
                Simulation(conformance, replay_after_every_event=True).start(behaviour.id, id=name).result()
        except Exception as error:
            wrong[name] = f"{type(error).__name__}: {error}"
    assert wrong == {}


def test_order_of_the_recovery_tests_comes_to_the_same_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its Python functions as they are, and a crash after every event."""
    monkeypatch.setenv("RECOVERY_EFFECTS", str(tmp_path / "effects.jsonl"))
    sim = Simulation(Path(__file__).parent / "recovery_app", replay_after_every_event=True)
    order = sim.start("shop:order", {"id": "o-1", "settle": "24h"}, id="o-1")
    order.signal("approve", {"by": "somebody"}, at="25h")
    result = order.result()
    assert {name: value for name, value in result.items() if name not in ("key", "order_id")} == {
        "charge": "charged", "slept": True, "status": "failed", "exit_of_child": True, "parcel": {"grams": 250},
        "approved_by": "somebody", "refund": "refunded",
    }  # fmt: skip
    assert order.elapsed_s == 25 * 3600
    assert len((tmp_path / "effects.jsonl").read_text().splitlines()) == 4
    assert sim.start("shop:stepper", 5, 1).result() == {"steps": 5, "sum": 15}
    collector = sim.start("shop:collector")
    for value in range(4):
        collector.signal("value", {"value": value})
    collector.signal("value", {"last": True})
    assert collector.result() == {"values": [0, 1, 2, 3]}


CHILD = """return function(n)
  if n == 1 then error("no child") end
  if n == 2 then time.sleep("7s") end
  if n == 3 then return process.inbox():receive():payload():data() end
  return funcs.call("a:f" .. n, n)
end"""
FAILED = ("failed", "canceled", "terminated", "timed-out")
OTHER = "return function() local got = {} for i = 1, 5 do got[i] = process.inbox():receive():topic() end return got end"


def story_of(source: str, directory: Path) -> Path:
    """An app with a random program, whose children and whose friend are there."""
    source = re.sub(r"'a:(?:child|exec)\d', 'w'", "'app:child', 'app:worker'", source)
    source = source.replace("{c@w|other}", "{app:client@app:worker|other}").replace(
        "process.upgrade(nil, log)", "return log"
    )
    return write_app(directory, workflows={"flow": source, "child": CHILD, "other": OTHER})


def told(app: Path, random: Random, *, crash: bool) -> dict[str, tuple[str, str, list[str]]]:
    """A random story with a random program: how each workflow stands in the end, and its events."""
    sim = Simulation(app, replay_after_every_event=crash)
    for name in (f"{letter}{number}" for letter in "fqsog" for number in range(1, 5)):
        outcomes = [
            random.choice((1, "return function() return 'lua' end", fail("no"), fail("final", retryable=False), lost(), answer({"b": 1}, after=2)))
            for _ in range(3)
        ]  # fmt: skip
        sim.function(f"a:{name}", [*outcomes, {"last": name}], elsewhere=True)
    sim.start("app:other", id="other")
    flow = sim.start("app:flow", 1, {"k": "v"}, id="w", run_timeout_s=1e6)
    for _ in range(random.randint(0, 6)):
        flow.signal(
            random.choice(("t1", "t2", "s1")), {"x": random.randint(1, 9)}, after=random.choice((0, 0.5, 3, 600))
        )
    if random.random() < 0.2:
        flow.cancel(after="20s")
    sim.advance("100h")
    sim.run()
    return {
        w.id: (
            w.status,
            str(w.waiting() or (w.failure() if w.status in FAILED else w.result())),
            labels(w.history().events),
        )
        for w in sim.workflows()
    }


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)
@given(seed=st.integers(0, 2**32))
def test_run_that_crashes_after_every_event_comes_to_the_end_of_one_that_does_not(tmp_path: Path, seed: int) -> None:
    source = program(Random(seed))
    note(source)
    app = story_of(source, tmp_path)
    assert told(app, Random(seed), crash=True) == told(app, Random(seed), crash=False)
