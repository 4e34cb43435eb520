"""A small chaos run on one server, for the tests of the suite itself: a few nodes, a little load, kills that a test asks for.

    record = Record(directory)
    async with a_trial(server.url, record, nodes=2, fault="no-claim") as trial:
        await trial.load(seed=1, shape=Shape(at_most=5), seconds=3, meanwhile=kill_the_host)
    findings = check(record.directory)

The long runs, with networks, servers and clocks that fail, are those of `python -m tests.chaos`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count

import anyio
import anyio.abc

import mesh.client
from mesh.buckets import Bucket
from mesh.client import Client
from mesh.groups import unwrapped
from mesh.roster import BUCKET
from tests.chaos import collecting, load
from tests.chaos.plan import Shape
from tests.chaos.record import APP, EFFECTS_ENVIRONMENT, Record, append
from tests.cluster import NodeProcess, _end, _read_stdout, plain_environment
from tests.waiting import wait_until_async

READY_S = 60.0  # several nodes at once, on a machine that has other things to do
DRAIN_S = 30.0
QUIET_S = 5.0  # with a planted fault something may be left for good


class Trial:
    """Nodes on one server. Made by `a_trial`."""

    def __init__(self, url: str, record: Record, fault: str, tasks: anyio.abc.TaskGroup) -> None:
        self.url = url
        self.record = record
        self.fault = fault
        self.nodes: dict[str, NodeProcess] = {}
        self._tasks = tasks
        self._numbers = count(1)

    async def add(self) -> NodeProcess:
        """Start one more node; it is ready when this returns."""
        node = await self._tasks.start(self._run, f"n{next(self._numbers)}")
        assert isinstance(node, NodeProcess)
        return node

    async def _run(self, node_id: str, *, task_status: anyio.abc.TaskStatus[NodeProcess]) -> None:
        log_file = self.record.directory / "logs" / f"{node_id}.log"
        command = [
            sys.executable, "-m", "tests.chaos.faulty_node", self.fault, "node", str(APP), "--nats", self.url,
            "--id", node_id, "--with-parent", "--log-format", "text",
        ]  # fmt: skip
        environ = plain_environment({EFFECTS_ENVIRONMENT: str(self.record.effects_file(node_id))})
        with log_file.open("wb") as log:
            process = await anyio.open_process(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environ
            )
        node = NodeProcess(node_id, process, log_file)
        try:
            async with anyio.create_task_group() as tasks:
                with anyio.move_on_after(READY_S) as waiting:
                    await tasks.start(_read_stdout, process)
                if waiting.cancelled_caught:
                    raise AssertionError(f"node {node_id} is not ready after {READY_S:g} s; it wrote:\n{node.log()}")
                self.nodes[node_id] = node
                task_status.started(node)
                await process.wait()
                tasks.cancel_scope.cancel()
                if node_id in self.nodes:  # nobody has killed it
                    raise AssertionError(
                        f"node {node_id} ended by itself, with status {process.returncode}; it wrote:\n{node.log()}"
                    )
        finally:
            self.nodes.pop(node_id, None)
            with anyio.CancelScope(shield=True):
                await _end(node)
                await process.aclose()

    def kill(self, node_id: str) -> None:
        """SIGKILL, and a line about it for the checker."""
        node = self.nodes.pop(node_id)
        append(self.record.nemesis_file, {"what": "kill", "node": node_id, "pid": node.pid})
        node.kill()

    async def load(
        self,
        *,
        seed: int,
        shape: Shape,
        seconds: float,
        meanwhile: Callable[[Trial], Awaitable[None]] | None = None,
        drain_s: float = DRAIN_S,
    ) -> bool:
        """Run the load for so long while `meanwhile` does its worst, then drain; whether all came to an end.

        The load goes on until the worst is done, however long that takes here: a kill that is left out finds nothing.
        """
        with unwrapped():
            async with anyio.create_task_group() as tasks:
                stop = anyio.Event()

                async def run_load() -> None:
                    await load.run([self.url], self.record, seed, stop, shape=shape)

                tasks.start_soon(run_load)
                ends = anyio.current_time() + seconds
                if meanwhile is not None:
                    await meanwhile(self)
                await anyio.sleep_until(ends)
                stop.set()
        quiet_s = collecting.QUIET_S if self.fault == "none" else QUIET_S
        return await load.drain([self.url], self.record, drain_s, quiet_s=quiet_s)


@asynccontextmanager
async def a_trial(url: str, record: Record, *, nodes: int = 2, fault: str = "none") -> AsyncIterator[Trial]:
    """So many nodes while the block runs, all with the same planted fault; each owns its part when it starts."""
    with unwrapped():
        async with anyio.create_task_group() as tasks:
            trial = Trial(url, record, fault, tasks)
            async with anyio.create_task_group() as starting:
                for _ in range(nodes):
                    starting.start_soon(trial.add)
            async with mesh.client.connect(url) as client:
                await wait_until_async(lambda: _is_shared(client, nodes), READY_S)
            yield trial
            tasks.cancel_scope.cancel()


async def _is_shared(client: Client, nodes: int) -> bool:
    """Whether so many nodes own the partitions, none of them far less than the others.

    Otherwise the one that was ready first has almost all of them still: to kill another one is to kill nothing.
    """
    claims = await Bucket(client.js, BUCKET).entries("claim.>")
    owned = Counter(json.loads(claim.value).get("node") for claim in claims)
    return len(owned) == nodes and min(owned.values()) > len(claims) / (2 * nodes)
