"""What acknowledged writes survive: by settings, by what real servers say of theirs, and what a node says at its start."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from mesh.connection import ConnectOptions, connect
from mesh.server import embedded_server
from mesh.server_settings import sync_interval
from mesh.stores import STORE_VARIABLE
from node.registry import load_registry
from store.durability import Durability, Settings, promise, settings_of
from store.streams import stream_config
from tests.apps import QUEUE, a_mesh, write_app
from tests.conftest import ServerFactory
from tests.waiting import wait_until


@pytest.mark.parametrize(
    ("settings", "durability", "text"),
    [
        (Settings(), "process-crash", "a power failure perhaps the last minutes"),
        (Settings(sync="2m0s"), "process-crash", "a power failure perhaps what was written in the last 2m0s"),
        (Settings(sync="always"), "power-loss", "flushed to the server's disk before it is acknowledged"),
        (Settings(copies=3), "power-loss", "a power failure of one of them loses nothing, of all at once perhaps the last"),
        (Settings(copies=3, sync="always"), "power-loss", "the disks of most of 3 servers"),
        (Settings(in_memory=True, sync="always"), "nothing", "in the server's memory"),
        (Settings(copies=3, in_memory=True), "process-crash", "3 copies in memory"),
        (Settings(copies=3, is_async=True), "nothing", "acknowledges before it has written"),
        (Settings(copies=3, sync="always", removes=("max_age",)), "nothing", "removes events by itself (max_age)"),
    ],
)  # fmt: skip
def test_settings_promise_so_much_and_no_more(settings: Settings, durability: str, text: str) -> None:
    given = promise(settings)
    assert given.durability == durability
    assert text in given.text
    assert given.more or settings.sync == "always"


def test_each_level_covers_those_below_it() -> None:
    assert [[one.covers(other) for other in Durability] for one in Durability] == [
        [True, False, False], [True, True, False], [True, True, True],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "settings"),
    [
        ({}, Settings(copies=3)), ({"storage": "memory"}, Settings(copies=3, in_memory=True)),
        ({"persist_mode": "async"}, Settings(copies=3, is_async=True)), ({"max_age": 5, "max_msgs": 9}, Settings(copies=3, removes=("max_age", "max_msgs"))),
    ],
)  # fmt: skip
def test_the_settings_of_a_stream_are_read(change: dict[str, Any], settings: Settings) -> None:
    assert settings_of({**stream_config(QUEUE, 4, 3), **change}, None) == settings


SYSTEM = """
accounts {
  SYS { users: [{user: admin, password: p}], exports: [{service: "$SYS.REQ.SERVER.PING.JSZ", response_type: stream, accounts: [MESH]}] }
  MESH {
    jetstream: enabled, users: [{user: node, password: p}],
    imports: [{service: {account: SYS, subject: "$SYS.REQ.SERVER.PING.JSZ"}, to: "mesh.server.jetstream"}]
  }
}
system_account: SYS
"""


@pytest.mark.parametrize(("given", "said"), [("always", "always"), ("10s", "10s")])
async def test_a_server_tells_how_often_it_flushes_to_whoever_may_ask(
    nats_server: ServerFactory, given: str, said: str
) -> None:
    url = nats_server(config=SYSTEM, sync_interval=given).url
    async with connect(url, name="test", options=ConnectOptions(user="node", password="p")) as conn:
        assert await sync_interval(conn) == said


async def test_a_server_that_says_nothing_is_not_taken_for_a_safe_one(nats_server: ServerFactory) -> None:
    async with connect(nats_server(sync_interval="always").url, name="test") as conn:
        assert await sync_interval(conn) is None


WORKFLOW = "return function() return 1 end"


async def test_a_node_says_what_is_promised_and_complains_when_a_worker_wants_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = write_app(tmp_path / "app", workflows={"order": WORKFLOW}, worker_options={"durability": "power-loss"})
    caplog.set_level(logging.INFO, "node.node")
    monkeypatch.setenv(STORE_VARIABLE, str(tmp_path / "store"))
    async with embedded_server(tmp_path / "store", port=0, sync="relaxed") as server:
        async with a_mesh(server.url, app) as mesh:
            assert mesh.node.status()["workers"][0]["durability"] == "power-loss"
            await wait_until(lambda: any(message.startswith("worker ") for message in caplog.messages))
        assert (
            "worker app:worker wants durability power-loss and queue orders gives it process-crash: written to files before it "
            "is acknowledged: the crash of a process loses nothing, a power failure perhaps what was written in the last 2m; to "
            "have more: jetstream { sync_interval: always }, or three servers and --replicas 3"
        ) in caplog.messages
    caplog.clear()
    async with embedded_server(tmp_path / "store", port=0, sync="always") as server, a_mesh(server.url, app):
        await wait_until(lambda: any(message.startswith("queue orders: ") for message in caplog.messages))
        assert (
            "queue orders: flushed to the server's disk before it is acknowledged: a power failure loses nothing"
            in caplog.messages
        )
        assert not [
            record for record in caplog.records if record.levelno >= logging.WARNING and record.name == "node.node"
        ]


def test_a_durability_that_there_is_not_is_refused(tmp_path: Path) -> None:
    app = write_app(tmp_path, workflows={"order": WORKFLOW}, worker_options={"durability": "for ever"})
    [problem] = load_registry(app, environ={}).problems
    assert "durability" in problem.reason
    assert "power-loss" in problem.reason
