"""What the options of a worker do on real nodes (contract 2.2), and pools without a limit of their own."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from node import leaving
from node.functions.limits import WorkerLimit
from node.functions.throttle import Throttle
from node.node import Node
from tests.apps import WORKER, a_mesh, write_app
from tests.conftest import ServerFactory
from tests.waiting import wait_until

META = {"mesh.activity.worker": WORKER}
FAN_OUT = """
return function(n, name, other)
  local futures, sum = {}, 0
  for i = 1, n do futures[i] = funcs.async(i % 2 == 0 and other or name, i) end
  for i = 1, n do
    local p, err = futures[i]:channel():receive()
    sum = sum + p:data()
  end
  return sum
end
"""


class Seen:
    """What the functions below have seen; this process has one node or two."""

    def __init__(self) -> None:
        self.inside = 0
        self.most = 0
        self.begun_s: list[float] = []
        self.ended = Counter[int]()
        self.go_on = anyio.Event()


seen = Seen()


@pytest.fixture(autouse=True)
def _seen() -> Iterator[None]:
    seen.__init__()  # type: ignore[misc]  # the functions below know this one
    yield
    seen.go_on.set()


async def hold(i: int) -> int:
    """Stay until all may go on."""
    seen.begun_s.append(time.monotonic())
    seen.inside += 1
    seen.most = max(seen.most, seen.inside)
    try:
        await seen.go_on.wait()
    finally:
        seen.inside -= 1
    seen.ended[i] += 1
    return i


async def note(i: int) -> int:
    """Come and go."""
    seen.begun_s.append(time.monotonic())
    return i


async def nap(i: int) -> int:
    """Take a while."""
    await anyio.sleep(0.5)
    return i


def python(name: str, **fields: Any) -> dict[str, Any]:
    return {
        "kind": "function.python",
        "source": f"tests.test_worker_options:{name}",
        "meta": META,
        "pool": {"size": 1000},
        **fields,
    }


def waits(node: Node, name: str) -> int:
    """How many calls of a function have been taken and not begun."""
    assert node.functions is not None
    function = node.functions._functions[f"app:{name}"]
    return len(function.waiting) + len(function.limited)


def idle(node: Node) -> bool:
    """Whether neither functions nor limits count a call as under way."""
    assert node.functions is not None
    limits = node.functions._limits.values()
    return all(f.running == 0 for f in node.functions._functions.values()) and all(
        limit.throttle.running == limit.waiting == 0 for limit in limits
    )


# -- how many at once ----------------------------------------------------------------------------------------------


async def test_a_worker_runs_no_more_activities_at_once_than_it_may_over_all_its_functions(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    functions = {"a": python("hold"), "b": python("hold"), "free": python("hold", meta={})}
    app = write_app(
        tmp_path, workflows={"wf": FAN_OUT}, functions=functions,
        worker_options={"max_concurrent_activity_execution_size": 3},
    )  # fmt: skip
    async with a_mesh(nats_server().url, app) as mesh:
        handle = await mesh.start("wf", 20, "app:a", "app:b")
        await wait_until(lambda: waits(mesh.node, "a") + waits(mesh.node, "b") == 17)
        assert seen.inside == 3
        async with anyio.create_task_group() as tasks:
            # Functions of no worker, and calls that are no workflow's, do not wait for it.
            tasks.start_soon(mesh.client.call, "app:free", 0)
            tasks.start_soon(mesh.client.call, "app:a", 0)
            await wait_until(lambda: seen.inside == 5)
            seen.go_on.set()
        assert await handle.result(timeout_s=20) == 210
        assert seen.ended == Counter({0: 2, **dict.fromkeys(range(1, 21), 1)})
        await wait_until(lambda: idle(mesh.node))


async def test_processes_that_are_called_count_as_activities(nats_server: ServerFactory, tmp_path: Path) -> None:
    waiting = """
    local process = require("process")
    return { main = function(i) process.inbox():receive() return i end }"""
    meta = {"default_host": "app:processes", **META}
    app = write_app(
        tmp_path, workflows={"wf": FAN_OUT}, functions={"a": python("hold")},
        processes={"p": {"source": waiting, "method": "main", "modules": ["process"], "meta": meta}},
        worker_options={"max_concurrent_activity_execution_size": 2},
    )  # fmt: skip
    async with a_mesh(nats_server().url, app) as mesh:
        handle = await mesh.start("wf", 6, "app:p", "app:p")
        await wait_until(lambda: waits(mesh.node, "p") == 4)
        await wait_until(lambda: mesh.node.processes.running == 2)
        await handle.terminate()


async def test_a_call_that_is_cancelled_while_it_waits_for_its_worker_takes_no_place(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    source = """
    return function()
      local inbox = process.inbox()
      local first, second = funcs.async("app:a", 1), funcs.async("app:a", 2)
      inbox:receive()
      second:cancel()
      inbox:receive()
      return first:channel():receive():data(), funcs.call("app:a", 3)
    end"""
    app = write_app(
        tmp_path, workflows={"wf": source}, functions={"a": python("hold")},
        worker_options={"max_concurrent_activity_execution_size": 1},
    )  # fmt: skip
    async with a_mesh(nats_server().url, app) as mesh:
        handle = await mesh.start("wf")
        await wait_until(lambda: waits(mesh.node, "a") == 1)
        await handle.signal("cancel")
        await wait_until(lambda: waits(mesh.node, "a") == 0)
        assert seen.inside == 1
        seen.go_on.set()
        await handle.signal("on")
        await handle.result(timeout_s=20)
        assert seen.ended == Counter({1: 1, 3: 1})
        await wait_until(lambda: idle(mesh.node))


async def test_the_time_an_attempt_may_take_begins_when_its_worker_lets_it(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    source = """
    return function()
      local sum, futures = 0, {}
      local limited = funcs.new():with_options{ start_to_close_timeout = "2s", retry_policy = { maximum_attempts = 1 } }
      for i = 1, 5 do futures[i] = limited:async("app:a", i) end
      for i = 1, 5 do
        futures[i]:channel():receive()
        local p, err = futures[i]:result()
        if err then return tostring(err) end
        sum = sum + p:data()
      end
      return sum
    end"""
    app = write_app(
        tmp_path, workflows={"wf": source}, functions={"a": python("nap")},
        worker_options={"max_concurrent_activity_execution_size": 1},
    )  # fmt: skip
    async with a_mesh(nats_server().url, app) as mesh:
        # All five take longer than one may, and each a quarter of that.
        assert await mesh.run("wf") == 15


# -- how many a second ---------------------------------------------------------------------------------------------


async def test_a_worker_begins_no_more_activities_in_a_second_than_it_may(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    app = write_app(
        tmp_path, workflows={"wf": FAN_OUT}, functions={"a": python("note"), "b": python("note")},
        worker_options={"worker_activities_per_second": 20},
    )  # fmt: skip
    async with a_mesh(nats_server().url, app) as mesh:
        assert await mesh.run("wf", 14, "app:a", "app:b") == 105
        # 2 begin together, as after every pause, the others 50 ms apart.
        assert seen.begun_s[-1] - seen.begun_s[0] >= 11 / 20
        # Calls that are no workflow's do not wait: a hundred would take nearly five seconds. A machine that does other
        # things makes them slower, never quicker.
        took_s = []
        for _ in range(3):
            begun = time.monotonic()
            for i in range(100):
                assert await mesh.client.call("app:a", i) == i
            took_s.append(time.monotonic() - begun)
            if took_s[-1] < 2:
                break
        assert min(took_s) < 2


async def test_the_rate_of_a_queue_is_shared_between_the_nodes_and_falls_to_those_that_are_left(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    app = write_app(
        tmp_path, workflows={"wf": FAN_OUT}, functions={"a": python("note")},
        worker_options={"task_queue_activities_per_second": 40},
    )  # fmt: skip
    url = nats_server().url

    def rate(node: Node) -> float | None:
        assert node.functions is not None
        (limit,) = node.functions._limits.values()
        return limit.throttle.per_second

    async with a_mesh(url, app) as first:
        assert rate(first.node) == 40
        async with a_mesh(url, app, node_id="b", settled=False) as second:
            await wait_until(lambda: rate(first.node) == rate(second.node) == 20)
            assert await first.run("wf", 24, "app:a", "app:a") == 300
            # Each begins 2 at once; what is left is begun at the rate of the queue, or slower.
            assert seen.begun_s[-1] - seen.begun_s[0] >= (24 - 4 - 2) / 40
            await second.node.leave()
            await wait_until(lambda: rate(first.node) == 40)


@pytest.mark.parametrize(
    ("worker", "queue", "nodes", "per_second"),
    [
        (None, None, 3, None), (5.0, None, 3, 5.0), (None, 9.0, 3, 3.0), (None, 9.0, 0, 9.0), (2.0, 9.0, 3, 2.0),
        (4.0, 9.0, 3, 3.0),
    ],
)  # fmt: skip
def test_the_lower_of_both_rates_holds(
    worker: float | None, queue: float | None, nodes: int, per_second: float | None
) -> None:
    limit = WorkerLimit(Throttle(1), worker, queue)
    limit.share(nodes)
    assert limit.throttle.per_second == per_second


# -- workflows -----------------------------------------------------------------------------------------------------


async def test_a_node_whose_worker_runs_no_workflows_runs_its_activities(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    workflows = {"wf": "return function() return funcs.call('app:a', 7) end"}
    functions = {"a": python("note")}
    one = write_app(
        tmp_path / "one", workflows=workflows, functions=functions, worker_options={"disable_workflow_worker": True}
    )
    other = write_app(tmp_path / "other", workflows=workflows, functions=functions)
    url = nats_server().url
    async with a_mesh(url, one, settled=False) as activities:
        assert activities.node.engines == {}
        async with a_mesh(url, other, node_id="b", functions=False) as workflows_only:
            assert await workflows_only.run("wf") == 7
            assert activities.node.status()["functions"] == ["app:a"]


@pytest.mark.parametrize(("wanted", "lines"), [(True, 2), (False, 1)])
async def test_a_quiet_run_leaves_the_memory_when_its_worker_says_and_its_replay_logs_if_wanted(
    nats_server: ServerFactory, tmp_path: Path, caplog: pytest.LogCaptureFixture, wanted: bool, lines: int
) -> None:
    source = """
    return function()
      print("well begun")
      local word = process.inbox():receive():payload():data()
      print("half done")
      return word
    end"""
    caplog.set_level(logging.INFO)
    app = write_app(
        tmp_path, workflows={"wf": source},
        worker_options={"sticky_schedule_to_start_timeout": "1ms", "enable_logging_in_replay": wanted},
    )  # fmt: skip
    async with a_mesh(nats_server().url, app) as mesh:
        handle = await mesh.start("wf")
        await wait_until(lambda: caplog.text.count("well begun") == 1)
        # By default it would stay for 5 s.
        await wait_until(lambda: mesh.statistics()["resident"] == 0, timeout_s=4.5)
        await handle.signal("go", "on")
        assert await handle.result(timeout_s=20) == "on"
        assert caplog.text.count("well begun") == lines
        assert caplog.text.count("half done") == 1


# -- leaving -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stop_timeout", "left"), [("0s", 1), ("20s", 0)])
async def test_a_leaving_node_waits_for_its_calls_as_long_as_a_worker_says(
    nats_server: ServerFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_timeout: str, left: int
) -> None:
    monkeypatch.setattr(leaving, "DRAIN_TIMEOUT_S", 0.2)
    app = write_app(
        tmp_path, workflows={"wf": "return function() return funcs.call('app:a', 7) end"},
        functions={"a": python("hold")}, worker_options={"worker_stop_timeout": stop_timeout},
    )  # fmt: skip
    async with a_mesh(nats_server().url, app) as mesh:
        await mesh.start("wf", id="one")
        await wait_until(lambda: seen.inside == 1)

        async def go_on() -> None:
            await anyio.sleep(0.6)  # longer than a node waits by itself
            seen.go_on.set()

        async with anyio.create_task_group() as tasks:
            if not left:
                tasks.start_soon(go_on)
            await mesh.node.leave()
        assert mesh.node.status()["calls"] == left
        assert ("ret" in await mesh.kinds("one")) == (left == 0)


# -- pools ---------------------------------------------------------------------------------------------------------


async def test_a_function_with_an_inline_pool_has_no_limit_of_its_own(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    app = write_app(
        tmp_path, workflows={"wf": FAN_OUT},
        functions={"a": python("hold", pool={"type": "inline"}), "b": python("hold", pool={"type": "static", "size": 1})},
    )  # fmt: skip
    async with a_mesh(nats_server().url, app) as mesh:
        handle = await mesh.start("wf", 100, "app:a", "app:b")
        await wait_until(lambda: seen.inside == 51)
        seen.go_on.set()
        assert await handle.result(timeout_s=20) == 5050
        assert seen.most == 51
