"""The modules that every node has, put together, and what of them runs in the background."""

from __future__ import annotations

import anyio
import anyio.abc

from mesh.client import Client
from node.modules import Deliver, Modules, env, events, registry, store
from node.modules.crypto import CryptoModule
from node.registry import Registry


class StandardModules(Modules):
    """The modules of a node. deliver: hands a message to one of its units."""

    def __init__(self, app: Registry, client: Client, deliver: Deliver) -> None:
        self._events = events.build(deliver, client.conn)
        self._stores = store.build(app, client.js)
        super().__init__(
            {
                "crypto": CryptoModule(),
                "env": env.build(app),
                "events": self._events,
                "registry": registry.build(app),
                "store": self._stores,
            }
        )

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Hear other nodes and clean up until cancelled."""
        async with anyio.create_task_group() as tasks:
            await tasks.start(self._events.run)
            await tasks.start(self._stores.run)
            task_status.started()
