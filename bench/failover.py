"""Nodes killed and dismissed under load: how soon another node does the next step of their workflows.

Each round is the same: workflows under way for a moment, spread over all nodes; one node gets the signal; what happened
is read from the log afterwards, so that looking does not disturb; the workflows are ended and a new node takes the
place of the lost one.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count, cycle
from statistics import median
from typing import Final

import anyio

from bench.load import Mark, ends, mark, start_many, stored_since
from bench.processes import QUEUE, BenchFailed, Mesh, running_mesh
from bench.results import Results, Setup
from bench.takeover import Claimed, Step, Takeover, lost_calls_ns, takeovers
from mesh import codec
from mesh.follower import Delivered, Follower
from mesh.outbox import Outbox
from mesh.roster import BUCKET
from mesh.subjects import WorkflowKey, bucket_key
from store.streams import PARTITIONS_DEFAULT

# More than any of them gets to do before it is ended.
STEPS_MAX: Final = 100_000
SETTLE_S: Final = 0.5
OBSERVE_MAX_S: Final = 20.0
TIMEOUT_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class FailoverPlan:
    """How much is measured; kills are made with each signal."""

    kills: int = 10
    open: int = 100
    pace_ms: int = 50
    under_way_s: float = 2.0
    observe_s: float = 3.0


class Owners:
    """Who owns which partition, and since when, as the roster says."""

    def __init__(self) -> None:
        self.now: dict[int, str] = {}
        self.claims: list[Claimed] = []
        self.changed_s = time.monotonic()

    def see(self, message: Delivered) -> None:
        """Take note of a claim; a renewed one changes nothing."""
        partition = int(message.subject.rpartition(".")[2])
        node_id = json.loads(message.data or b"{}").get("node") or ""
        if self.now.get(partition, "") != node_id:
            self.now[partition] = node_id
            self.changed_s = time.monotonic()
            self.claims.append(Claimed(partition, node_id, message.timestamp_ns))

    def of(self, node_id: str) -> frozenset[int]:
        """The partitions of a node."""
        return frozenset(partition for partition, owner in self.now.items() if owner == node_id)

    def settled(self, nodes: set[str]) -> bool:
        """Whether these nodes own everything, each a part, and nothing has moved for a while."""
        is_spread = len(self.now) == PARTITIONS_DEFAULT and set(self.now.values()) == nodes
        return is_spread and time.monotonic() - self.changed_s > SETTLE_S


async def measure(setup: Setup, plan: FailoverPlan, results: Results, progress: Callable[[str], None]) -> None:
    """Measure rounds with SIGKILL and with SIGTERM in turn."""
    owners = Owners()
    names = (f"n{i}" for i in count(1))
    async with running_mesh(setup) as mesh, anyio.create_task_group() as tasks:
        for _ in range(setup.nodes):
            await mesh.start_node(next(names))
        claims = Follower(
            mesh.client.conn,
            mesh.client.js,
            f"KV_{BUCKET}",
            [f"$KV.{BUCKET}.claim.{bucket_key(QUEUE)}.>"],
            1,
            owners.see,
        )
        await tasks.start(claims.run)
        rounds: dict[str, list[list[Takeover]]] = {"kill": [], "term": []}
        lost_calls_ms: list[float] = []
        kinds = cycle((("kill", signal.SIGKILL), ("term", signal.SIGTERM)))
        for number in range(2 * plan.kills):
            kind, number_of_signal = next(kinds)
            progress(f"{setup}: {number_of_signal.name}, {number // 2 + 1} of {plan.kills}")
            one = _Round(mesh, owners, plan, number)
            seen = await one.run(number_of_signal)
            rounds[kind].append(seen)
            if kind == "kill":
                lost_calls_ms += one.lost_calls_ms
            done = results.details.setdefault("failover_rounds", [])
            done.append({"setup": str(setup), "signal": number_of_signal.name, **_summary(seen)})
            await mesh.start_node(next(names))
        tasks.cancel_scope.cancel()
    for kind, all_seen in rounds.items():
        _add_figures(results, setup, kind, all_seen)
    results.add("kill_lost_calls", [len(lost_calls_ms) / plan.kills], setup)
    if lost_calls_ms:
        results.add_percentiles("kill_lost_call", lost_calls_ms, setup, 1)


class _Round:
    """One node lost."""

    def __init__(self, mesh: Mesh, owners: Owners, plan: FailoverPlan, number: int) -> None:
        self._mesh = mesh
        self._owners = owners
        self._plan = plan
        self._ids = [f"r{number}-{i}" for i in range(plan.open)]
        self._number = number
        # Of workflows of the other nodes, whose call the lost one ran.
        self.lost_calls_ms: list[float] = []

    async def run(self, how: signal.Signals) -> list[Takeover]:
        """Let the workflows step, lose a node, and see how its workflows go on."""
        mesh, owners = self._mesh, self._owners
        await self._wait_settled()
        begun = await mark(mesh.client)
        await start_many(mesh.client, "bench:paced", [STEPS_MAX, f"{self._plan.pace_ms}ms"], self._ids)
        await anyio.sleep(self._plan.under_way_s)
        await self._wait_all_step(begun)
        victim = list(mesh.nodes.values())[self._number % len(mesh.nodes)]
        partitions = owners.of(victim.id)
        before = await self._steps(begun)
        expected = {step.workflow for step in before if step.partition in partitions}
        # The server's clock is this machine's, too.
        lost_ns = time.time_ns()
        victim.send(how)
        seen = await self._observe(begun, partitions, victim.id, lost_ns, len(expected))
        await victim.wait()
        del mesh.nodes[victim.id]
        pace_ns = self._plan.pace_ms * 1_000_000
        stood_still = lost_calls_ns(await self._steps(begun), partitions, lost_ns, pace_ns)
        self.lost_calls_ms = [waited_ns / 1e6 for waited_ns in stood_still.values()]
        await self._end_workflows()
        if {takeover.workflow for takeover in seen} != expected or not expected:
            raise BenchFailed(
                f"{len(seen)} of the {len(expected)} workflows of {victim.id} have gone on "
                f"within {OBSERVE_MAX_S:g} s of {how.name}"
            )
        return seen

    async def _wait_settled(self) -> None:
        nodes = set(self._mesh.nodes)
        with anyio.move_on_after(TIMEOUT_S):
            while True:
                if self._owners.settled(nodes):
                    return
                await anyio.sleep(0.02)
        raise BenchFailed(f"the partitions are not spread over {sorted(nodes)}: {self._owners.now}")

    async def _observe(
        self, begun: Mark, partitions: frozenset[int], node_id: str, lost_ns: int, expected: int
    ) -> list[Takeover]:
        await anyio.sleep(self._plan.observe_s)
        deadline = anyio.current_time() + OBSERVE_MAX_S
        while True:
            seen = takeovers(await self._steps(begun), self._owners.claims, partitions, node_id, lost_ns)
            if len(seen) >= expected or anyio.current_time() > deadline:
                return seen
            await anyio.sleep(1)

    async def _steps(self, begun: Mark) -> list[Step]:
        steps = []
        for message in await stored_since(self._mesh.client, begun, "ret.>"):
            # mesh.log.<queue>.<p>.<id>.ret.<run>.<n>.<attempt>.<fp>
            parts = message.subject.split(".")
            succeeded = message.data.startswith(codec.SUCCESS_PREFIX)
            steps.append(Step(parts[4], int(parts[3]), int(parts[7]), int(parts[8]), succeeded, message.timestamp_ns))
        return steps

    async def _wait_all_step(self, begun: Mark) -> None:
        """Only of a workflow that steps can be said how soon it goes on."""
        deadline = anyio.current_time() + TIMEOUT_S
        while lazy := set(self._ids) - {step.workflow for step in await self._steps(begun)}:
            if anyio.current_time() > deadline:
                raise BenchFailed(
                    f"{len(lazy)} of {len(self._ids)} workflows have not done a step within {TIMEOUT_S:g} s"
                )
            await anyio.sleep(0.2)

    async def _end_workflows(self) -> None:
        async with ends(self._mesh.client) as heard, Outbox(self._mesh.client.conn) as outbox:
            for workflow_id in self._ids:
                outbox.write(WorkflowKey(QUEUE, workflow_id).subject("kill"))
            await outbox.flush(TIMEOUT_S)
            await heard.wait(self._ids, TIMEOUT_S)


def _summary(seen: list[Takeover]) -> dict[str, float]:
    next_ms = [takeover.next_step_ns / 1e6 for takeover in seen]
    return {
        "workflows": len(seen),
        "claimed_last_ms": round(max(takeover.claimed_ns for takeover in seen) / 1e6, 1),
        "next_step_first_ms": round(min(next_ms), 1),
        "next_step_median_ms": round(median(next_ms), 1),
        "next_step_last_ms": round(max(next_ms), 1),
        "pause_max_ms": round(max(takeover.pause_ns for takeover in seen) / 1e6, 1),
    }


def _add_figures(results: Results, setup: Setup, kind: str, rounds: list[list[Takeover]]) -> None:
    """Percentiles over the workflows of all rounds, and the medians over the rounds of their first and last one."""
    next_ms = [[takeover.next_step_ns / 1e6 for takeover in seen] for seen in rounds]
    results.add(f"{kind}_next_step_first_ms", [min(values) for values in next_ms], setup)
    results.add(f"{kind}_next_step_last_ms", [max(values) for values in next_ms], setup)
    results.add_percentiles(f"{kind}_next_step", [value for values in next_ms for value in values], setup, 1)
    pauses_ms = [takeover.pause_ns / 1e6 for seen in rounds for takeover in seen]
    results.add_percentiles(f"{kind}_pause", pauses_ms, setup, 1)
