"""The modules that every node has, put together, and what of them runs in the background."""

from __future__ import annotations

import anyio
import anyio.abc

from mesh.client import Client
from node.modules import Deliver, Modules, env, events, registry, store
from node.modules.crypto import CryptoModule
from node.modules.http_client import HttpClientModule
from node.modules.io import StandardStreams
from node.modules.queue import QueueModule
from node.modules.sql import SqlModule
from node.queues.consuming import Call
from node.registry import Registry


class StandardModules(Modules):
    """The modules of a node.

    deliver: hands a message to one of its units. call: calls a function, for consumers of queues. is_member: else it
    hears no other node: no events, nothing about messages of queues that were given to units elsewhere.
    """

    def __init__(
        self,
        app: Registry,
        client: Client,
        *,
        node_id: str,
        deliver: Deliver,
        call: Call,
        replicas: int,
        is_member: bool = True,
    ) -> None:
        self._is_member = is_member
        self._events = events.build(deliver, client.conn)
        self._stores = store.build(app, client.js)
        self._sql = SqlModule(app.databases())
        self._http = HttpClientModule()
        self.queues = QueueModule(app, client.js, node_id=node_id, call=call, replicas=replicas)
        self.io = StandardStreams()
        super().__init__(
            {
                "crypto": CryptoModule(),
                "env": env.build(app),
                "events": self._events,
                "http_client": self._http,
                "io": self.io,
                "queue": self.queues,
                "registry": registry.build(app),
                "sql": self._sql,
                "store": self._stores,
            }
        )

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Hear other nodes and clean up until cancelled."""
        async with anyio.create_task_group() as tasks:
            for part in (self._stores, self._sql, self._http):
                await tasks.start(part.run)
            if self._is_member:
                await tasks.start(self._events.run)
                await tasks.start(self.queues.run)
            task_status.started()
