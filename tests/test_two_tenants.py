"""Two accounts on one server, each with a mesh of its own where all has the same names: neither has to do with the other."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import mesh.client
from mesh.connection import ConnectOptions
from mesh.errors import MeshError
from mesh.jetstream import JetStream
from node.node import NodeConfig, running_node
from node.registry import load_registry
from tests.apps import QUEUE, WORKER, owns_everything, write_app
from tests.commands import typed
from tests.conftest import ServerFactory
from tests.waiting import wait_until, wait_until_async

ACCOUNTS = """accounts {
  ACME { jetstream: enabled, users: [ {user: acme, password: a} ] }
  BOBS { jetstream: enabled, users: [ {user: bobs, password: b} ] }
}"""
WORKFLOWS = {
    "order": "return function() local who = funcs.call('app:who') return who .. process.listen('go'):receive() end",
    "quick": "return function() return funcs.call('app:who') end",
}


async def test_two_accounts_with_the_same_names_do_not_meet(nats_server: ServerFactory, tmp_path: Path) -> None:
    server = nats_server(config=ACCOUNTS)
    acme, bobs = ConnectOptions(user="acme", password="a"), ConnectOptions(user="bobs", password="b")

    def a_node(name: str, options: ConnectOptions) -> Any:
        functions = {"who": f"return function() return '{name} ' end"}
        if name == "acme":
            functions["secret"] = "return function() return 'of acme' end"
        app = write_app(tmp_path / name, workflows=WORKFLOWS, functions=functions)
        projection = tmp_path / f"{name}.sqlite3"
        config = NodeConfig(server.url, node_id="n", partitions=4, options=options, projection=projection)
        return running_node(config, load_registry(app, environ={}))

    async with (
        a_node("acme", acme) as acmes_node,
        a_node("bobs", bobs) as bobs_node,
        mesh.client.connect(server.url, options=acme) as acmes,
        mesh.client.connect(server.url, options=bobs) as bobs_client,
    ):
        await wait_until(lambda: owns_everything(acmes_node) and owns_everything(bobs_node))
        orders = {
            name: await client.start("app:order", host=WORKER, id="o-1")
            for name, client in (("acme", acmes), ("bobs", bobs_client))
        }
        # What one does to the id that both have does nothing to the other's.
        await orders["acme"].signal("go", "goes")
        assert await orders["acme"].result(timeout_s=30) == "acme goes"
        alone = await acmes.start("app:order", host=WORKER, id="only-acmes")
        with pytest.raises(MeshError):
            await bobs_client.find("only-acmes")
        with pytest.raises(MeshError):
            await bobs_client.get("only-acmes", queue=QUEUE).result(timeout_s=5)
        for verb, fields in (
            ("describe", {"id": "only-acmes"}), ("history", {"id": "only-acmes"}), ("cancel", {"id": "only-acmes"}),
            ("signal", {"id": "only-acmes", "topic": "go", "value": "stolen"}), ("terminate", {"id": "only-acmes"}),
            ("reset", {"id": "only-acmes", "event": 1}), ("call", {"function": "app:secret"}),
        ):  # fmt: skip
            with pytest.raises(MeshError):
                await bobs_client.ask(verb, **fields)
        # Nor does knowing the names of subjects, streams, keys and objects help: they are others in each account.
        bobs_client.conn.publish_nowait("mesh.wf.orders.only-acmes.signal.go", b"stolen")
        await JetStream(bobs_client.conn).purge("WF_orders")
        assert (await alone.describe()).status == "running"
        await alone.signal("go", "on")
        assert await alone.result(timeout_s=30) == "acme on"
        assert await (await acmes.start("app:quick", host=WORKER)).result(timeout_s=30) == "acme "

        async def counted(client: mesh.client.Client) -> bool:
            answer = await client.ask("list")
            return {item["id"] for item in answer["workflows"]} >= {"o-1", "only-acmes"}

        await wait_until_async(partial(counted, acmes))
        assert len((await acmes.ask("nodes"))["nodes"]) == 1
        listed = await typed("functions", "--json", "--user", "bobs", "--password", "b", url=server.url)
        assert [json.loads(line)["function"] for line in listed.out.splitlines()] == ["app:who"]
