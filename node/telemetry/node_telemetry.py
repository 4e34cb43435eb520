"""What a node shows of itself, put together: its figures, whether it is ready, where they are served."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread

from node.telemetry.live_logs import LiveLogs
from node.telemetry.loop_lag import LoopLag
from node.telemetry.readings import Reading, read
from node.telemetry.serving import Status, serving

if TYPE_CHECKING:
    from node.node import Node
    from node.telemetry.tracing import Tracing
    from store.projecting import Projecting

LAST_SPANS_S: Final = 5.0
COUNT_OPEN_EVERY_S: Final = 10.0
CAUGHT_UP_LOOK_S: Final = 0.2
OPEN: Final = frozenset({"running", "suspended"})


class NodeTelemetry:
    """The telemetry of one node, which is there before the node is.

    workflows_open: by queue, how many workflows have not ended, where a projection tells.
    """

    def __init__(self, node_id: str) -> None:
        self.live_logs = LiveLogs(node_id)
        self.loop_lag = LoopLag()
        self.workflows_open: Mapping[str, int] = {}
        self._node: Node | None = None

    def attach(self, node: Node) -> None:
        """The node that all this is about."""
        self._node = node
        self.live_logs.attach(node.conn)

    @asynccontextmanager
    async def logging_live(self) -> AsyncIterator[None]:
        """Take what this process logs while the block runs."""
        root = logging.getLogger()
        root.addHandler(self.live_logs)
        try:
            yield
        finally:
            root.removeHandler(self.live_logs)

    @asynccontextmanager
    async def served(self, address: str | None) -> AsyncIterator[str]:
        """Serve metrics and health while the block runs; None = nowhere. Gives the address. Raises AddressTaken."""
        if address is None:
            yield ""
            return
        async with serving(address, Status(self._read, self._why_not_ready)) as url:
            yield url

    async def measure(self) -> None:
        """Measure what nobody counts, until cancelled. To be run while metrics are served."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.loop_lag.run)
            if self._node is not None and self._node.projecting is not None:
                tasks.start_soon(self._count_open, self._node.projecting)

    async def _count_open(self, projecting: Projecting) -> None:
        """Ask the projection now and then: counting them takes too long for a scrape to wait."""
        while not projecting.is_caught_up():  # noqa: ASYNC110 - it happens once, a little after the start
            await anyio.sleep(CAUGHT_UP_LOOK_S)
        while True:
            found: Counter[str] = Counter()
            for count in await projecting.counts():
                if count.status in OPEN:
                    found[count.queue] += count.workflows
            self.workflows_open = found
            await anyio.sleep(COUNT_OPEN_EVERY_S)

    @asynccontextmanager
    async def traced(self, tracing: Tracing | None) -> AsyncIterator[None]:
        """Send the last spans after the block."""
        try:
            yield
        finally:
            if tracing is not None:
                with anyio.move_on_after(LAST_SPANS_S, shield=True):
                    await anyio.to_thread.run_sync(tracing.shut_down, abandon_on_cancel=True)

    def _read(self) -> list[Reading]:
        return read(self._node) if self._node is not None else []

    def _why_not_ready(self) -> list[str]:
        node = self._node
        if node is None:
            return ["not connected to NATS yet"]
        reasons = [] if node.state == "up" else [f"the node is {node.state}"]
        if not node.conn.is_connected:
            reasons.append(f"not connected to {node.conn.address}")
        if not node.config.functions_only and not node.roster.may_act():
            reasons.append("it is no member of the mesh at the moment")
        return reasons
