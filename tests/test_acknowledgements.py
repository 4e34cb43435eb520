"""What a server answers a publish with is stored wherever the reply subject of the publish says, and is no event.

A function host of `deploy/` may publish claims, calls and its key; by their reply subjects it could stop, end, wake or
signal any workflow of the mesh.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import mesh.client
import mesh.connection
from mesh import events
from mesh.connection import connect
from mesh.jetstream import JetStream
from node.node import NodeConfig, running_node
from node.registry import load_registry
from tests.apps import QUEUE, WORKER, write_app
from tests.conftest import ServerFactory
from tests.waiting import wait_until_async

WORKFLOWS = {
    "waits": "return function() local m = process.listen('go'):receive() return funcs.call('app:double', m) end",
}
FUNCTIONS = {"double": "return function(n) return 2 * n end"}


async def test_an_acknowledgement_stored_in_a_history_moves_nothing(nats_server: ServerFactory, tmp_path: Path) -> None:
    """Neither the node that runs the workflow, nor one that takes it over, nor whoever waits for it may believe it."""
    url = nats_server().url
    registry = load_registry(write_app(tmp_path, workflows=WORKFLOWS, functions=FUNCTIONS), environ={})
    async with (
        mesh.client.connect(url) as client,
        connect(url, name="evil") as evil,
    ):
        async with running_node(NodeConfig(url, node_id="a", partitions=2), registry) as node:
            victim = await client.start("app:waits", host=WORKER, id="victim")
            await wait_until_async(lambda: _waits(victim))
            run = (await victim.history())[0].seq
            before = (await JetStream(evil).stream_info("WF_orders")).last_seq
            targets = ["signal.go", "cancel", "kill", f"end.{run}", f"ret.{run}.2.1.ab", f"tick.{run}.1", "start"]
            for number, target in enumerate(targets, 1):
                evil.publish_nowait(f"mesh.wf.{QUEUE}.mine.claim.{number}.1.1", b"", f"mesh.wf.{QUEUE}.victim.{target}")
            await wait_until_async(lambda: _has(evil, before + 2 * len(targets)))
            assert [event.kind for event in await victim.history()] == ["start"]
            assert (await victim.describe()).status == "running"
            await node.leave()
        async with running_node(NodeConfig(url, node_id="b", partitions=2), registry) as node:
            await wait_until_async(lambda: _waits(victim))
            await victim.signal("go", 21)
            assert await victim.result(timeout_s=10) == 42
            await node.leave()


async def _waits(handle: mesh.client.WorkflowHandle) -> bool:
    return (await handle.describe()).status == "running"


async def _has(conn: mesh.connection.Connection, seq: int) -> bool:
    return (await JetStream(conn).stream_info("WF_orders")).last_seq >= seq


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"stream":"WF_orders","seq":7}', True),
        (b'{"stream":"WF_orders", "domain":"hub", "seq":7, "duplicate": true}', True),
        (b'{"error":{"code":400,"err_code":10071,"description":"x"},"stream":"WF_orders","seq":0}', True),
        (b'{"stream":"KV_mesh_roster","seq":7}', True),
        (b'{"stream":"water","seq":7}', False),
        (b'{"stream":"WF_orders"}', False),
        (b'{"order":{"stream":"WF_orders","seq":7}}', False),
        (b'["stream","WF_"]', False),
        (b'{"stream":"WF_orders","seq":7', False),
        (b"", False),
    ],
)
def test_an_acknowledgement_is_told_by_what_the_server_writes(data: bytes, expected: bool) -> None:
    assert events.is_acknowledgement(data) is expected
    event = events.parse("mesh.log.orders.0.w.signal.t", 1, 0, data, None)
    assert (event is None) is expected
