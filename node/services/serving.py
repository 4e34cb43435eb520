"""When a node's services run: from its start until it is told to stop them."""

from __future__ import annotations

import anyio
import anyio.abc

from node.services.services import Services


class Serving:
    """Runs services from `run` to `stop`."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._stop = anyio.Event()
        self._stopped = anyio.Event()

    async def run(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Run the services until they are told to stop. Raises BootFailed when a required one does not start."""
        try:
            async with self._services:
                await self._services.boot()
                task_status.started()
                await self._stop.wait()
        finally:
            self._stopped.set()

    async def stop(self) -> None:
        """Stop them in order, and wait for it."""
        self._stop.set()
        await self._stopped.wait()
