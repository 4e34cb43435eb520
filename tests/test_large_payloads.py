"""Payloads above the server's limit, at every place where a workflow's bytes enter and leave, on a real server.

Most tests give the server a small limit, so that what is large is cheap to make.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mesh.jetstream import JetStream
from mesh.objects import Objects
from mesh.references import is_reference
from mesh.subjects import stream_name
from tests.apps import QUEUE, TIMEOUT_S, Mesh, a_mesh, write_app
from tests.conftest import ServerFactory
from tests.waiting import wait_until_async

SMALL = "max_payload: 65536"
BIG = 200_000  # several chunks under that limit

WORKFLOWS = {
    "everything": """
        return function(text)
            local data = process.listen("data")
            local called, err = funcs.call("app:echo", text .. "c")
            if err then return nil, err end
            local sent = data:receive()
            local ended, why = workflow.exec("app:echo_workflow", text .. "child")
            if why then return nil, why end
            process.listen("go"):receive()
            return { #text, #called, #sent, #ended, text .. "r" }
        end
    """,
    "echo_workflow": "return function(text) return text end",
}
FUNCTIONS = {
    "echo": "return function(text) return text end",
    "size": "return function(text) return #text end",
}


def an_app(directory: Path, **options: Any) -> Path:
    return write_app(directory, workflows=WORKFLOWS, functions=FUNCTIONS, **options)


async def stored(mesh: Mesh) -> list[str]:
    """What the queue's objects are for, by kind."""
    names = await Objects(mesh.client.js).names(QUEUE)
    return sorted(f"{name.id_token} {name.what}" for name in names)


async def kept_outside(mesh: Mesh) -> list[str]:
    """The kinds of the events that are references as they stand in the queue's stream."""
    as_stored = JetStream(mesh.client.conn, opens=False)
    messages = await as_stored.batch_get(stream_name(QUEUE), subject_filter=f"mesh.log.{QUEUE}.>")
    return [message.subject.split(".")[5] for message in messages if is_reference(message.data)]


async def test_payloads_of_every_kind_go_through_the_object_store_and_come_back(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    """Argument, call, outcome, signal, child, the child's end, result: live, and again when another node replays it."""
    server, app, text = nats_server(config=SMALL), an_app(tmp_path), "x" * BIG
    async with a_mesh(server.url, app) as mesh:
        handle = await mesh.start("everything", text, id="one")
        await handle.signal("data", text + "ss")

        async def waits_to_go_on() -> bool:
            return (await mesh.kinds("one")).count("exit") == 1

        await wait_until_async(waits_to_go_on, TIMEOUT_S)
        assert sorted(await kept_outside(mesh)) == ["end", "exit", "ret", "signal", "start", "start"]

        async def arguments_are_gone() -> bool:
            parts = [part for part in await stored(mesh) if part.startswith("one ")]
            return parts == ["one exit", "one ret", "one signal", "one start"]

        await wait_until_async(arguments_are_gone)
        await mesh.node.leave()
    async with a_mesh(server.url, app, node_id="b") as mesh:
        handle = mesh.get("one")
        await handle.signal("go")
        result = await handle.result(timeout_s=TIMEOUT_S)
        assert result == [BIG, BIG + 1, BIG + 2, BIG + 5, text + "r"]
        assert mesh.statistics()["replayed_events"] > 0
