"""What a workflow says to others is said once and succeeds once, also when its owner dies before that is recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mesh import codec
from mesh.connection import Connection
from mesh.errors import MeshError, NotFound, NotReady
from mesh.failure import Kind
from mesh.jetstream import JetStream, PubAck
from mesh.jetstream_api import error_of
from mesh.subjects import stream_name
from node.workflows.ops import OpState
from node.workflows.others import Others
from tests.apps import QUEUE, WORKER, a_mesh, key, write_app
from tests.conftest import ServerFactory
from tests.waiting import wait_until

ENDS_ON_ANYTHING = """
return function()
  local r = channel.select{ process.events():case_receive(), process.inbox():case_receive() }
  return r.channel == process.events() and r.value.kind or r.value:payload():data()
end
"""


@pytest.mark.parametrize(("kind", "result"), [("cancel", "pid.cancel"), ("send", "hello")])
async def test_a_new_owner_that_says_it_again_to_who_has_ended_on_it_hears_that_it_was_said(
    tmp_path: Path, nats_server: ServerFactory, kind: str, result: str
) -> None:
    app = write_app(tmp_path, workflows={"target": ENDS_ON_ANYTHING})
    async with a_mesh(nats_server().url, app) as mesh:
        handle = await mesh.start("target", id="t")
        host = mesh.node.engines[QUEUE].host
        others = Others(mesh.client.js, mesh.client.hosts, mesh.node.code, mesh.node.switchboard, mesh.node.naming)
        op = OpState(
            1, kind, host.pid("t"), "", codec.encode("hello"), options={"topic": "x"} if kind == "send" else {}
        )
        assert await others.perform(host, key("sender"), 7, op) == codec.encode_success(True)
        assert await handle.result(timeout_s=30) == result
        assert await others.perform(host, key("sender"), 7, op) == codec.encode_success(True)
        ok, failure = codec.decode_outcome(await others.perform(host, key("sender"), 8, op))
        assert (ok, failure.kind) == (False, Kind.NOT_FOUND)


async def test_whoever_repeats_a_message_to_a_process_that_has_ended_on_it_hears_that_it_was_taken(
    tmp_path: Path, nats_server: ServerFactory
) -> None:
    one = "return { main = function() return process.inbox():receive():payload():data() end }"
    spawn = "return { main = function() return process.spawn('app:one', 'app:processes') end }"
    app = write_app(tmp_path, processes={"one": one}, functions={"spawn": spawn})
    async with a_mesh(nats_server().url, app) as mesh:
        pid = await mesh.client.call("app:spawn")
        host = mesh.node.engines[QUEUE].host
        others = Others(mesh.client.js, mesh.client.hosts, mesh.node.code, mesh.node.switchboard, mesh.node.naming)
        op = OpState(1, "send", pid, "", codec.encode("hello"), options={"topic": "x"})
        assert await others.perform(host, key("sender"), 7, op) == codec.encode_success(True)
        await wait_until(lambda: mesh.node.processes.running == 0)
        assert await others.perform(host, key("sender"), 7, op) == codec.encode_success(True)
        ok, failure = codec.decode_outcome(await others.perform(host, key("sender"), 8, op))
        assert (ok, failure.kind) == (False, Kind.NOT_FOUND)


class LeaderlessJetStream(JetStream):
    """Answers writes as a server does whose cluster has lost its leader, for the first few times."""

    def __init__(self, conn: Connection, subject: str, errors: list[MeshError]) -> None:
        super().__init__(conn)
        self.subject = subject
        self.errors = errors

    async def publish(self, subject: str, *args: Any, **options: Any) -> PubAck:
        if subject == self.subject and self.errors:
            raise self.errors.pop(0)
        return await super().publish(subject, *args, **options)


@pytest.mark.parametrize("kind", ["spawn", "send"])
async def test_a_stream_without_a_leader_is_no_outcome_of_what_a_workflow_says_to_others(
    tmp_path: Path, nats_server: ServerFactory, kind: str
) -> None:
    """An election takes seconds. A workflow that hears of it as of a failure of its own goes on wrongly, for ever."""
    app = write_app(tmp_path, workflows={"target": ENDS_ON_ANYTHING})
    async with a_mesh(nats_server().url, app) as mesh:
        target = key("t") if kind == "send" else key("sender_7_1")
        if kind == "send":
            await mesh.start("target", id="t")
        subject = target.signal("x") if kind == "send" else target.start()
        # Written again after silence, before the cluster has agreed on the first copy, which may come to nothing.
        twice = {"code": 400, "err_code": 10158, "description": "duplicate message id is in process"}
        errors: list[MeshError] = [
            NotFound(f"no stream takes {subject}"),
            NotReady(subject, 10008, "no leader"),
            error_of(subject, twice),
        ]
        host = mesh.node.engines[QUEUE].host
        js = LeaderlessJetStream(mesh.client.conn, subject, errors)
        others = Others(js, mesh.client.hosts, mesh.node.code, mesh.node.switchboard, mesh.node.naming)
        said = OpState(1, "send", host.pid("t"), "", codec.encode("hello"), options={"topic": "x"})
        spawned = OpState(1, "spawn", "app:target", "", codec.encode([[], {}]), options={"host": WORKER})
        ok, value = codec.decode_outcome(
            await others.perform(host, key("sender"), 7, said if kind == "send" else spawned)
        )
        assert ok, value
        assert errors == []
        assert (await mesh.get(target.id).describe()).key == target


async def test_a_child_that_has_ended_is_not_started_again_by_an_owner_that_stood_still(
    tmp_path: Path, nats_server: ServerFactory
) -> None:
    """It says what it was about to say when it was stopped; another owner has said it meanwhile, and the child is over."""
    app = write_app(tmp_path, workflows={"target": "return function() return 'done' end"})
    async with a_mesh(nats_server().url, app) as mesh:
        host = mesh.node.engines[QUEUE].host
        others = Others(mesh.client.js, mesh.client.hosts, mesh.node.code, mesh.node.switchboard, mesh.node.naming)
        op = OpState(1, "spawn", "app:target", "", codec.encode([[], {}]), options={"host": WORKER})
        said = await others.perform(host, key("sender"), 7, op)
        child = key("sender_7_1")
        assert await mesh.get(child.id).result() == "done"

        assert await others.perform(host, key("sender"), 7, op) == said
        starts = await mesh.client.js.batch_get(stream_name(QUEUE), subject_filter=child.stored("*", "start"))
        assert len(starts) == 1
