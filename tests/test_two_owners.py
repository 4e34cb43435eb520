"""Two nodes made to believe that both own every partition: what they write makes one history, whoever is first.

Two engines follow the same partitions and act on the same events. Their plans are replaced, so that neither hears of
the other; everything else is as always. DESIGN rule: the first outcome in stream order wins, live and in replay.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

import mesh.client
from mesh.client import Client, WorkflowHandle
from mesh.membership import Claim, Plan
from mesh.subjects import WorkflowKey
from node.node import Node, NodeConfig, running_node
from tests.conftest import ServerFactory
from tests.recovery import APP, PARTITIONS, QUEUE, WORKER, Effects, checked_history, registry
from tests.waiting import wait_until

WORKFLOWS = 10
TIMEOUT_S = 30.0


def believe_to_own_everything(node: Node) -> None:
    """From now on this node plans to keep every partition, whatever the claims say."""
    me = node.roster.me

    def plan(queue: str, partitions: int) -> Plan:
        standing = {claim.partition: claim for claim in node.roster.claims() if claim.queue == queue}
        claims = (standing.get(p) or Claim(queue, p, None, "", 0) for p in range(partitions))
        return Plan(keep=tuple(replace(claim, node_id=me.node_id, incarnation=me.incarnation) for claim in claims))

    node.roster.plan = plan  # type: ignore[method-assign]  # this is what is forced
    node._on_change()


@asynccontextmanager
async def two_owners(
    nats_server: ServerFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Node, Node, Client, Effects]]:
    """Two nodes that both run every partition, a client, and the effects."""
    effects = Effects(tmp_path / "effects.jsonl")
    monkeypatch.setenv("RECOVERY_EFFECTS", str(effects.file))
    monkeypatch.setattr(sys, "path", [str(APP), *sys.path])
    url = nats_server().url
    async with (
        running_node(NodeConfig(url, node_id="one"), registry()) as one,
        running_node(NodeConfig(url, node_id="other"), registry()) as other,
        mesh.client.connect(url) as client,
    ):
        for node in (one, other):
            believe_to_own_everything(node)
        engines = [node.engines[QUEUE] for node in (one, other)]
        await wait_until(lambda: all(len(engine.partitions) == PARTITIONS for engine in engines))
        await wait_until(lambda: all(p.catchup is None for engine in engines for p in engine.partitions.values()))
        yield one, other, client, effects


@pytest.mark.timeout(90)
async def test_orders_with_two_owners_come_to_one_end(
    nats_server: ServerFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with two_owners(nats_server, tmp_path, monkeypatch) as (one, other, client, effects):
        handles = [
            await client.start("shop:order", {"id": f"order-{n}", "settle": "200ms"}, host=WORKER, id=f"order-{n}")
            for n in range(WORKFLOWS)
        ]
        for handle in handles:
            await handle.signal("approve", {"by": "somebody"})

        results = [await handle.result(timeout_s=TIMEOUT_S) for handle in handles]

        both = [node.engines[QUEUE] for node in (one, other)]
        assert all(len(engine.partitions) == PARTITIONS for engine in both), "one of them has found out"
        for handle, result in zip(handles, results, strict=True):
            assert {name: result[name] for name in ("charge", "status", "refund", "parcel", "approved_by", "slept")} == {
                "charge": "charged", "status": "failed", "refund": "refunded", "parcel": {"grams": 250},
                "approved_by": "somebody", "slept": True,
            }  # fmt: skip
            happened = effects.of(handle.id)
            assert happened["charge"] == 1, "at most once is at most once with two owners, too"
            assert effects.keys(handle.id) == {result["key"]}, "the two machines do not agree"
        # Until the second owner has written its end of each, too, nothing can be said about the number of ends.
        await wait_until(lambda: not any(engine.statistics().resident for engine in both))
        for node in (one, other):
            await node.outbox.flush(5)
        ends: Counter[int] = Counter()
        for handle in handles:
            ends[await stored_ends(client, handle)] += 1
            assert (await checked_history(client, handle.key, handle.run)).status == "completed"
            child = WorkflowKey(QUEUE, f"{handle.id}_{handle.run}_4")
            child_run = await client.history(QUEUE).last_run(child)
            assert child_run is not None
            await checked_history(client, child, child_run[0].run)
        total = Counter(entry["effect"] for entry in effects.all())
        print(f"effects of {WORKFLOWS} orders: {dict(total)}; records of the end of a run: {dict(ends)}")


@pytest.mark.timeout(90)
async def test_steps_with_two_owners_are_taken_once(
    nats_server: ServerFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both owners call every function, and the sum of the answers is still that of one."""
    steps = 50
    async with two_owners(nats_server, tmp_path, monkeypatch) as (_one, _other, client, _effects):
        handles: list[WorkflowHandle] = []
        for n in range(WORKFLOWS):
            handles.append(await client.start("shop:stepper", steps, 1, host=WORKER, id=f"stepper-{n}"))

        results = [await handle.result(timeout_s=TIMEOUT_S) for handle in handles]

        assert results == [{"steps": steps, "sum": steps * (steps + 1) // 2}] * WORKFLOWS
        for handle in handles:
            await checked_history(client, handle.key, handle.run)


@pytest.mark.timeout(90)
async def test_two_owners_do_not_write_over_each_others_checkpoints(
    nats_server: ServerFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The claims stay with one of them, so the third who comes finds a checkpoint that holds."""
    async with two_owners(nats_server, tmp_path, monkeypatch) as (one, other, client, _effects):
        handle = await client.start("shop:sleeper", "2500ms", host=WORKER, id="asleep")
        # Two checkpoints of either are due by then.
        await anyio.sleep(2.2)

        held = Counter(claim.node_id for claim in one.roster.claims())

        assert set(held) == {"one", "other"} or len(held) == 1
        assert sum(held.values()) == PARTITIONS
        assert other.roster.may_act()
        result = await handle.result(timeout_s=TIMEOUT_S)
        assert result["after_ns"] - result["before_ns"] >= 2_500_000_000
        await checked_history(client, handle.key, handle.run)


async def stored_ends(client: Client, handle: WorkflowHandle) -> int:
    """How many records of the end of a run are stored; the first one counts."""
    history = client.history(handle.key.queue)
    partition = await history.partition_of(handle.key)
    assert partition is not None
    counts = await client.js.subject_counts(history.stream, handle.key.stored(partition, "end", str(handle.run)))
    return sum(counts.values())
