"""Calls of services outside of the mesh: what is left of one that could not be sent."""

from __future__ import annotations

import anyio
import pytest

from mesh import codec
from mesh.connection import connect
from mesh.errors import Disconnected
from mesh.failure import Failure
from mesh.jetstream import JetStream
from node.workflows.call_watch import Watch
from node.workflows.foreign_calls import ForeignCalls
from tests.conftest import ServerFactory
from tests.flows import Flow
from tests.waiting import wait_until

CALL = "return function() return funcs.call('app:rates', 'EUR') end"


def unexpected(_watch: Watch, failure: Failure | None = None) -> None:
    pytest.fail(f"the call is neither published nor failed here: {failure}")


async def test_a_call_that_cannot_be_sent_leaves_nobody_listening_for_its_answer(nats_server: ServerFactory) -> None:
    """It is tried again every second while there is no connection: each try would be made up for at the next connect."""
    flow = Flow(CALL)
    flow.start()
    watch, functions = (
        Watch(flow.key, flow.run, flow.run.open[1], 1, False, 0.0, 0.0),
        {"app:rates": ("ext.rates", "json")},
    )
    server = nats_server()
    async with connect(server.url, name="test") as conn, anyio.create_task_group() as tasks:
        calls = ForeignCalls(
            conn, JetStream(conn), functions, is_due=lambda _watch: True, publish=unexpected, fail=unexpected,
            tasks=lambda: tasks,
        )  # fmt: skip
        server.kill()
        await wait_until(lambda: not conn.is_connected)
        before = conn.statistics().subscriptions
        for _ in range(3):
            with pytest.raises(Disconnected):
                calls.request(watch)
        assert (conn.statistics().subscriptions, watch.published) == (before, False)

        server.start()
        await conn.wait_connected()
        bodies: list[bytes] = []
        conn.subscribe_direct("ext.rates", lambda _subject, _reply, data, _headers: bodies.append(data))
        calls.request(watch)
        await wait_until(lambda: bool(bodies))
        assert (bodies, watch.published) == ([codec.to_json("EUR").encode()], True)
        assert conn.statistics().subscriptions == before + 2
