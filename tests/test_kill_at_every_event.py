"""SIGKILL at every event of an order: whatever dies when, the order comes to the same end.

The order is run once in peace to learn its events, those of its child too. Then once for each of them: the moment the
event is stored, the node that owns the workflow is killed. Another one goes on. What the functions did is counted on
their own side. MESH_CHAOS=1 does all of it ten times.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from mesh.subjects import WorkflowKey
from tests.conftest import ServerFactory
from tests.recovery import CHAOS, QUEUE, Fleet, Seen, a_fleet, checked_history
from tests.waiting import wait_until

RESULT_TIMEOUT_S = 30.0
ROUNDS = 10 if CHAOS else 1
# What happens at least: start, a call that is claimed, its outcome, a tick, three more outcomes, the child's end, the
# signal, the end; and the child's start, outcome, tick and end.
EVENTS_MIN = 14
AT_LEAST_ONCE = ("status", "weigh", "refund")


class Order:
    """One order that is followed through to its end: the signal goes out as soon as the child has ended."""

    def __init__(self, fleet: Fleet, order_id: str) -> None:
        self.fleet = fleet
        self.id = order_id
        self.labels: list[str] = []
        self.kill_at = ""
        self.kill_host = False
        self.killed = ""
        self._struck = False
        self._child_ended = anyio.Event()

    async def run(self) -> dict[str, Any]:
        """Run it, kill as told, and return the result."""
        self.fleet.watch.hooks.append(self._see)
        try:
            handle = await self.fleet.start("order", {"id": self.id, "settle": "200ms"}, id=self.id)
            with anyio.fail_after(RESULT_TIMEOUT_S):
                await self._child_ended.wait()
            await handle.signal("approve", {"by": "somebody"})
            result = await handle.result(timeout_s=RESULT_TIMEOUT_S)
            # A child tells its parent before it records its end: its owner may have died in between.
            await wait_until(lambda: {"end", "child end"} <= set(self.labels), RESULT_TIMEOUT_S)
        finally:
            self.fleet.watch.hooks.remove(self._see)
        assert isinstance(result, dict)
        await self._check(handle.run, result)
        return result

    def _see(self, seen: Seen) -> None:
        if seen.id == self.id:
            label = seen.label
        elif seen.id.startswith(f"{self.id}_"):
            label = f"child {seen.label}"
        else:
            return
        if label not in self.labels:
            self.labels.append(label)
        if label.startswith("exit"):
            self._child_ended.set()
        if label == self.kill_at and not self._struck:
            self._struck = True
            self.killed = seen.event.data.decode() if self.kill_host else self.fleet.watch.owners[seen.partition]
            if self.killed in self.fleet.nodes:
                self.fleet.kill(self.killed)
            else:  # a partition between two owners, whose event came from outside: whoever takes it over
                self.fleet.tasks.start_soon(self._kill_next_owner, seen.partition)

    async def _kill_next_owner(self, partition: int) -> None:
        owners = self.fleet.watch.owners
        await wait_until(lambda: owners[partition] in self.fleet.nodes)
        self.killed = owners[partition]
        self.fleet.kill(self.killed)

    async def _check(self, run: int, result: dict[str, Any]) -> None:
        """The history is sound, and the functions did what the result says, with the key it says."""
        client, effects = self.fleet.client, self.fleet.effects
        await checked_history(client, WorkflowKey(QUEUE, self.id), run)
        children = {seen.id for seen in self.fleet.watch.events if seen.id.startswith(f"{self.id}_")}
        assert len(children) == 1
        child = WorkflowKey(QUEUE, children.pop())
        child_run = await client.history(QUEUE).last_run(child)
        assert child_run is not None
        await checked_history(client, child, child_run[0].run)
        happened = effects.of(self.id)
        assert happened["charge"] <= 1, f"{self.id}: at most once was {happened}"
        assert happened["charge"] == 1 or result["charge"] == "unknown", f"{self.id}: {result} but {happened}"
        assert all(happened[effect] >= 1 for effect in AT_LEAST_ONCE), f"{self.id}: {happened}"
        assert effects.keys(self.id) == {result["key"]}


def comparable(result: dict[str, Any]) -> dict[str, Any]:
    """A result without what is each order's own."""
    return {name: value for name, value in result.items() if name not in ("key", "order_id")}


@pytest.mark.slow
@pytest.mark.timeout(240 * ROUNDS)
async def test_order_whose_owner_is_killed_at_any_event_comes_to_the_same_end(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    """No event of a history is a moment at which the loss of its owner shows in the result."""
    async with a_fleet(nats_server().url, tmp_path, nodes=3) as fleet:
        peace = Order(fleet, "peace")
        expected = comparable(await peace.run())
        assert expected == {
            "charge": "charged", "slept": True, "status": "failed", "exit_of_child": True, "parcel": {"grams": 250},
            "approved_by": "somebody", "refund": "refunded",
        }  # fmt: skip
        assert fleet.effects.of("peace") == {"charge": 1, "status": 1, "weigh": 1, "refund": 1}
        assert len(peace.labels) >= EVENTS_MIN, peace.labels

        kills = [(label, False) for label in peace.labels]
        # And the host of the call that may run once only, in the middle of it: that owner's kill may spare it.
        kills += [(label, True) for label in peace.labels if label.startswith("claim")] * 2
        for number, (label, kill_host) in enumerate(kills * ROUNDS):
            await wait_until(lambda: len(fleet.nodes) >= 2, 30)
            order = Order(fleet, f"order-{number}")
            order.kill_at, order.kill_host = label, kill_host
            began = anyio.current_time()

            result = comparable(await order.run())

            happened = dict(fleet.effects.of(order.id))
            whom = "host" if kill_host else "owner"
            print(
                f"{whom} {order.killed} killed at {label}: {anyio.current_time() - began:.2f} s, charge {result['charge']}, {happened}"
            )
            assert order.killed, f"nobody was killed: {label} did not come, but {order.labels}"
            assert result in (expected, expected | {"charge": "unknown"})
            # Only a kill between the claim and its outcome can leave anybody in doubt.
            assert result["charge"] == "charged" or label in ("start", "claim 1", "ret 1"), f"{label}: {result}"
            fleet.tasks.start_soon(fleet.add)
