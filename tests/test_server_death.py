"""kill -9 of the nats-server under load, and its restart on the same port and store: what was acknowledged is there.

Nobody tells the nodes; they find the server again themselves. Acknowledged means: `start` or `signal` has returned.
"""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import anyio
import pytest

from mesh.client import WorkflowHandle
from mesh.connection import ConnectOptions
from mesh.errors import MeshError, NotReady, OutcomeUnknown
from mesh.subjects import stream_name
from node.cli import nodes
from node.node import NodeConfig, NodeIdInUse
from tests.apps import a_mesh, write_app
from tests.cluster import plain_environment
from tests.conftest import ServerFactory
from tests.recovery import QUEUE, Fleet, a_fleet, checked_history
from tests.servers import clustered
from tests.waiting import wait_until, wait_until_async

COLLECTORS: Final = 10
STEPPERS: Final = 20
STEPS: Final = 60
PACE_MS: Final = 50
SLEEPERS: Final = 10
# Short: everybody reconnects and is still a member. Long: every member key has expired (3 s), nobody owns anything.
DOWN_S: Final = (0.3, 4.0)
RETRY_S: Final = 0.05


class Load:
    """Somebody who starts orders and sends signals, one after the other, and keeps what was acknowledged."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.orders: list[WorkflowHandle] = []
        self.sent: dict[str, list[int]] = {}
        self.failures = 0
        self.stopping = False

    async def start_orders(self) -> None:
        """One order after the other. What is not acknowledged is asked for again under the same id."""
        for number in itertools.count():
            if self.stopping:
                return
            order_id = f"order-{number}"
            while True:
                try:
                    handle = await self.fleet.start("order", {"id": order_id, "settle": "100ms"}, id=order_id)
                    break
                except MeshError:
                    self.failures += 1
                    await anyio.sleep(RETRY_S)
            self.orders.append(handle)
            await anyio.sleep(0.1)

    async def send_signals(self, handle: WorkflowHandle) -> None:
        """Number after number; the last one says that it is the last."""
        acknowledged = self.sent.setdefault(handle.id, [])
        for number in itertools.count():
            value = {"last": True} if self.stopping else {"value": number}
            while True:
                try:
                    await handle.signal("number", value)
                    break
                except MeshError:
                    self.failures += 1
                    await anyio.sleep(RETRY_S)
            if "last" in value:
                return
            acknowledged.append(number)
            await anyio.sleep(0.02)


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_nothing_acknowledged_is_lost_when_the_server_dies(nats_server: ServerFactory, tmp_path: Path) -> None:
    """Starts, signals, timers, calls under way: after a crash of the server all of it goes on where it was."""
    server = nats_server(sync_interval="always")
    async with a_fleet(server.url, tmp_path, nodes=2) as fleet:
        load = Load(fleet)
        collectors = [await fleet.start("collector", id=f"collector-{n}") for n in range(COLLECTORS)]
        steppers = [await fleet.start("stepper", STEPS, PACE_MS, id=f"stepper-{n}") for n in range(STEPPERS)]
        sleepers: list[WorkflowHandle] = []
        async with anyio.create_task_group() as loading:
            loading.start_soon(load.start_orders)
            for collector in collectors:
                loading.start_soon(load.send_signals, collector)
            for round_number, down_s in enumerate(DOWN_S):
                sleepers += [
                    await fleet.start("sleeper", f"{1000 + round(down_s * 500)}ms", id=f"sleeper-{round_number}-{n}")
                    for n in range(SLEEPERS)
                ]
                await anyio.sleep(1.0)
                server.kill()
                await anyio.sleep(down_s)
                server.start()
                await anyio.sleep(1.0)
            load.stopping = True

        for collector in collectors:
            result = await collector.result(timeout_s=60)
            values = result["values"]
            # A signal whose acknowledgement was lost may be there twice, never out of order and never not at all.
            assert list(dict.fromkeys(values)) == load.sent[collector.id]
        for stepper in steppers:
            assert await stepper.result(timeout_s=60) == {"steps": STEPS, "sum": STEPS * (STEPS + 1) // 2}
        for sleeper in sleepers:
            await sleeper.result(timeout_s=60)
        charges = []
        for order in load.orders:
            await order.signal("approve", {"by": "somebody"})
        for order in load.orders:
            result = await order.result(timeout_s=60)
            charges.append(result["charge"])
            happened = fleet.effects.of(order.id)
            assert (result["status"], result["refund"], result["approved_by"]) == ("failed", "refunded", "somebody")
            assert happened["charge"] <= 1
            assert happened["charge"] == 1 or result["charge"] == "unknown"
        for handle in [*collectors, *steppers, *sleepers, *load.orders]:
            assert (await checked_history(fleet.client, handle.key, handle.run)).status == "completed"
        assert len(fleet.nodes) == 2, "a node has died with the server"
        counts = {verdict: charges.count(verdict) for verdict in sorted(set(charges))}
        signals = sum(len(values) for values in load.sent.values())
        print(
            f"{len(load.orders)} orders, charges {counts}, {signals} signals, {load.failures} failures the clients saw"
        )


@pytest.mark.slow
@pytest.mark.timeout(90)
async def test_timers_that_fell_due_while_the_server_was_down_fire(nats_server: ServerFactory, tmp_path: Path) -> None:
    """They fire as soon as the server is back, and the workflows' clock says when that was."""
    server = nats_server(sync_interval="always")
    async with a_fleet(server.url, tmp_path, nodes=2) as fleet:
        sleepers = [await fleet.start("sleeper", "2s", id=f"sleeper-{n}") for n in range(SLEEPERS)]
        results = []

        async def wait(sleeper: WorkflowHandle) -> None:
            results.append(await sleeper.result(timeout_s=40))

        async def are_set() -> bool:
            timers = await fleet.client.js.subject_counts(stream_name(QUEUE), f"mesh.at.{QUEUE}.*.>")
            return len(timers) == SLEEPERS

        begun = 0.0
        async with anyio.create_task_group() as waiting:
            # Whoever waits for a result goes on waiting.
            for sleeper in sleepers:
                waiting.start_soon(wait, sleeper)
            await wait_until_async(are_set)
            server.kill()
            await anyio.sleep(2.5)
            server.start()
            begun = anyio.current_time()

        print(f"all woke {anyio.current_time() - begun:.2f} s after the server was back")
        slept_s = [(result["after_ns"] - result["before_ns"]) / 1e9 for result in results]
        assert all(s >= 2.4 for s in slept_s), "they did not fall due while it was down"
        for sleeper in sleepers:
            await checked_history(fleet.client, sleeper.key, sleeper.run)


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_node_that_is_started_while_a_cluster_has_no_leader_waits_for_one(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    """As for a server that is not up yet (`--wait`): a node that goes instead has to be started by somebody again."""
    app = write_app(tmp_path, workflows={"answer": "return function() return 42 end"})
    first, second = (nats_server(config=config) for config in clustered(2))
    second.kill()
    command = [sys.executable, "-m", "node", "node", str(app), "--nats", first.url, "--id", "a", "--with-parent"]
    log_file = tmp_path / "node.log"
    with log_file.open("wb") as log:
        process = await anyio.open_process(
            command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=plain_environment()
        )
    async with process:
        try:
            await wait_until(lambda: "not up yet" in log_file.read_text() or process.returncode is not None, 45)
            assert process.returncode is None, log_file.read_text()
            second.start()
            await wait_until(lambda: "node a is ready" in log_file.read_text(), 45)
        finally:
            process.kill()


async def test_a_node_leaves_though_its_server_has_been_gone_for_longer_than_its_lease(
    nats_server: ServerFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It would join anew before it leaves, and that waits for a server: whoever stops it would have to kill it."""
    monkeypatch.setattr("node.leaving.ANNOUNCE_S", 0.5)
    server = nats_server()
    async with a_mesh(server.url, write_app(tmp_path, workflows={"answer": "return function() return 42 end"})) as mesh:
        server.kill()
        await wait_until(lambda: not mesh.node.roster.may_act())
        with anyio.fail_after(20):
            await mesh.node.leave()
    assert "leaves without handing over" in caplog.text


async def test_a_start_of_a_node_that_the_server_does_not_answer_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is written first may be stored without a word, when a cluster loses its leader just then."""
    passing: list[Exception] = [OutcomeUnknown("$KV.mesh_hosts.a"), NotReady("$KV.mesh_hosts.a", 0, "no leader")]

    @asynccontextmanager
    async def running_node(_config: NodeConfig, _registry: Any) -> AsyncIterator[None]:
        raise passing.pop(0) if passing else NodeIdInUse("a")
        yield

    monkeypatch.setattr("node.node.running_node", running_node)
    monkeypatch.setattr(nodes, "START_AGAIN_S", 0.0)
    config = NodeConfig("nats://127.0.0.1:1", node_id="a", options=ConnectOptions(patience_s=math.inf))
    registry: Any = None
    with pytest.raises(NodeIdInUse):
        await nodes._serve(config, registry, with_parent=False)
    assert passing == []
