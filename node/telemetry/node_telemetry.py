"""What a node shows of itself, put together: its figures, whether it is ready, where they are served."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread

from node.telemetry.live_logs import LiveLogs
from node.telemetry.loop_lag import LoopLag
from node.telemetry.readings import Reading, read

if TYPE_CHECKING:
    from node.node import Node
    from node.telemetry.tracing import Tracing

LAST_SPANS_S: Final = 5.0


class NodeTelemetry:
    """The telemetry of one node, which is there before the node is."""

    def __init__(self, node_id: str) -> None:
        self.live_logs = LiveLogs(node_id)
        self.loop_lag = LoopLag()
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
        # Imported when needed: a server of HTTP and the client of Prometheus are a part of a node's start that is felt.
        from node.telemetry.serving import Status, serving

        async with serving(address, Status(self._read, self._why_not_ready)) as url:
            yield url

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
