"""Which partitions this node runs: brings its engines in line with its plan, after every change of members or claims.

The plan is the roster's (`mesh.membership`), running a partition the engine's. Here is the order of things: a partition
is run after it was claimed, and released after it was stopped, with how far it was handled.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

import anyio

from mesh.errors import TEMPORARY, PayloadTooLarge
from mesh.roster import Roster
from node.workflows.engine import Engine

PLAN_RETRY_S: Final = 0.5

_log = logging.getLogger(__name__)


class Ownership:
    """The partitions of a node's engines, which are known by their queues."""

    def __init__(self, roster: Roster, engines: Mapping[str, Engine]) -> None:
        self._roster = roster
        self._engines = engines
        self._changed = anyio.Event()
        self._settling = anyio.Lock()
        self._leaving = False

    def look(self) -> None:
        """Members or claims have changed."""
        self._changed.set()

    def leave(self) -> None:
        """Take no partition any more."""
        self._leaving = True

    async def give_back_all(self) -> None:
        """Hand over every partition. To be called after `leave`."""
        async with self._settling, anyio.create_task_group() as tasks:
            for engine in self._engines.values():
                for number in list(engine.partitions):
                    tasks.start_soon(self._give_back, engine, number)

    async def run(self) -> None:
        """Settle who runs what until the node leaves."""
        while True:
            with anyio.move_on_after(PLAN_RETRY_S):
                await self._changed.wait()
            self._changed = anyio.Event()
            for engine in self._engines.values():
                if self._leaving:
                    return
                try:
                    await self._settle(engine)
                except* (*TEMPORARY, PayloadTooLarge) as group:
                    _log.warning(
                        "queue %s: ownership not settled yet: %s", engine.queue, group.exceptions[0],
                        extra={"queue": engine.queue},
                    )  # fmt: skip

    async def _settle(self, engine: Engine) -> None:
        async with self._settling:
            await self._carry_out_plan(engine)

    async def _carry_out_plan(self, engine: Engine) -> None:
        plan = self._roster.plan(engine.queue, engine.stream.partitions)
        kept = {claim.partition for claim in (*plan.keep, *plan.release)}
        for number in [number for number in engine.partitions if number not in kept]:
            about = {"queue": engine.queue, "partition": number}
            _log.warning("queue %s partition %d is lost to this node", engine.queue, number, extra=about)
            engine.drop(number)
        async with anyio.create_task_group() as tasks:
            for claim in plan.release:
                if claim.partition in engine.partitions:
                    tasks.start_soon(self._give_back, engine, claim.partition)
                else:
                    tasks.start_soon(
                        self._roster.release, claim, claim.checkpoint, self._roster.busy(claim), claim.checkpoint_ns
                    )
            for claim in plan.claim:
                tasks.start_soon(self._take, engine, claim.partition)
            for claim in plan.keep:
                if claim.partition not in engine.partitions:
                    engine.take(claim, self._roster.busy(claim))

    async def _take(self, engine: Engine, number: int) -> None:
        for claim in self._roster.plan(engine.queue, engine.stream.partitions).claim:
            if claim.partition == number:
                busy = self._roster.busy(claim)
                mine = await self._roster.claim(claim)
                if mine is not None and number not in engine.partitions:
                    engine.take(mine, busy, handed_over=claim.node_id is None)

    async def _give_back(self, engine: Engine, number: int) -> None:
        given = engine.drop(number)
        if given is not None:
            claim, (checkpoint, checkpoint_ns), busy = given
            try:
                await self._roster.release(claim, checkpoint, busy, checkpoint_ns)
            except PayloadTooLarge:
                # More busy runs than the server takes in a message: the older checkpoint stays good.
                before = self._roster.busy(claim)
                await self._roster.release(claim, claim.checkpoint, before, claim.checkpoint_ns)
