"""What nodes log, seen from elsewhere: `mesh logs`, and the messages that it is made of."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

import mesh.client
from mesh.events import StartSpec
from mesh.starting import start_workflow
from mesh.subjects import log_subject, node_request
from node.telemetry.live_logs import KEPT_BYTES_MAX, KEPT_LINES_MAX, WAITING_LINES_MAX
from node.telemetry.log_lines import LINE_BYTES_MAX, Wanted, decode_lines, encode_line, line_of
from tests.apps import WORKER, a_mesh, key, write_app
from tests.cluster import a_node
from tests.commands import typed
from tests.conftest import ServerFactory
from tests.terminals import CTRL_C, on_terminal
from tests.waiting import wait_until, wait_until_async

PYTHON = {"kind": "function.python"}
WORKFLOWS = {
    "order": """return function(name)
        print('order taken', name)
        funcs.call('app:pay', name)
        funcs.call('app:post', name)
        return 1
    end""",
    "broken": "return function() error('no such customer') end",
    "trips": """return function()
        local _, err = funcs.new():with_options{retry_policy = {maximum_attempts = 1}}:call('app:trip', {})
        return tostring(err)
    end""",
}
FUNCTIONS: dict[str, Any] = {
    "charge": {
        "source": "local logger = require('logger')\nlocal time = require('time')\nreturn function(name) time.sleep('1ms') logger:warn('card is slow', {card = 7}) end",
        "modules": ["logger", "time"],
    },
    "pay": {"source": "return function(name) return funcs.call('app:charge', name) end", "modules": ["funcs"]},
    "post": PYTHON | {"source": "tests.test_live_logs:post"},
    "trip": PYTHON | {"source": "tests.test_live_logs:trip"},
}
log = logging.getLogger("tests.shop")


def post(name: str) -> None:
    log.warning("posting to %s", name)


def trip(order: Any) -> Any:
    return order["card"]


@pytest.fixture(autouse=True)
def levels() -> Iterator[None]:
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.INFO)
    yield
    root.setLevel(before)


def app_of(directory: Path) -> Path:
    return write_app(directory, workflows=WORKFLOWS, functions=FUNCTIONS)


def told(lines: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(line["node"], line["level"], line["event"], line.get("workflow")) for line in lines]


def ours(lines: list[dict[str, Any]]) -> list[str]:
    """What we have logged ourselves: a node may have something to say at any time."""
    return [line["event"] for line in lines if line.get("logger") == log.name]


async def test_lines_of_all_nodes_come_in_one_stream_and_are_found_by_workflow(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    app, url = app_of(tmp_path), nats_server().url
    async with (
        mesh.client.connect(url) as client,
        a_node(app, url, node_id="owner", arguments=("--only", "app:worker")),
        a_node(app, url, node_id="functions", arguments=("--without", "app:worker")),
    ):
        for name in ("Ada", "Bob"):
            await (await client.start("app:order", name, host=WORKER, id=f"o-{name}")).result(timeout_s=20)
        done = await typed("logs", "o-Ada", "--json", url=url)
        lines = [json.loads(text) for text in done.out.splitlines()]
        assert told(lines) == [
            ("owner", "info", "order taken Ada", "o-Ada"),
            ("functions", "warning", "card is slow", "o-Ada"),
            ("functions", "warning", "posting to Ada", "o-Ada"),
        ]
        taken, slow, posting = lines
        assert (
            taken.items()
            >= {
                "queue": "orders",
                "run": posting["run"],
                "pid": "{app:client@app:worker|o-Ada}",
            }.items()
        )
        assert slow["card"] == 7
        assert slow["pid"].startswith("{functions|") or "app:charge#lua" in slow["pid"]
        assert posting.items() >= {"function": "app:post", "logger": "tests.shop"}.items()

        by_pid = await typed("logs", slow["pid"], "--json", url=url)
        assert told([json.loads(text) for text in by_pid.out.splitlines()]) == [told(lines)[1]]
        warnings = await typed("logs", "--level", "warning", "--grep", "ADA", "--node", "functions", url=url)
        assert [text.split()[0] for text in warnings.out.splitlines()] == ["functions"] * 2
        assert "WARNING posting to Ada" in warnings.out
        assert "workflow=o-Ada" in warnings.out
        wrong = await typed("logs", "--node", "function", url=url)
        assert (wrong.status, wrong.err) == (1, "mesh: no node 'function' is up; did you mean functions?\n")
        with on_terminal("logs", "--follow", "-n", "1", "--nats", url) as terminal:
            await anyio.to_thread.run_sync(terminal.expect, "posting to Bob")
            name = "Cy"
            await (await client.start("app:order", name, host=WORKER, id="o-Cy")).result(timeout_s=20)
            # Lines of two nodes, each of which sends its own.
            await anyio.to_thread.run_sync(terminal.expect_all, "order taken", "card is slow", "posting to Cy")
            assert "\x1b[" in terminal.seen, "a terminal has colours"
            assert "Ada" not in terminal.seen
            terminal.type(CTRL_C)
            assert await anyio.to_thread.run_sync(terminal.wait) == 0


async def test_the_error_of_a_workflow_has_its_stack_and_its_names(nats_server: ServerFactory, tmp_path: Path) -> None:
    url = nats_server().url
    async with a_mesh(url, app_of(tmp_path), node_id="a") as m:
        await (await m.start("trips", id="t-1")).result(timeout_s=20)
        shown = await typed("logs", "t-1", "--json", url=url)
        [line] = [json.loads(text) for text in shown.out.splitlines()]
        assert line["event"].startswith("app:trip failed: Internal: TypeError: ")
        where = trip.__code__.co_firstlineno + 1
        assert (line["level"], line["stack"]) == ("error", f"test_live_logs.py:{where}: in trip")
        await m.failure("broken", id="b-1")
        found: list[dict[str, Any]] = []

        async def is_said() -> bool:
            reply = await m.client.conn.request(node_request("a", "logs"), b"", timeout_s=15)
            found[:] = filter(Wanted(workflow="b-1"), decode_lines(reply.data))
            return found != []

        await wait_until_async(is_said)  # the end may be heard of before its owner has said anything
        (line,) = found
        assert line["event"].startswith("workflow failed: ")
        assert "broken.lua:1" in line["stack"]
        assert line["pid"] == "{app:client@app:worker|b-1}"


async def test_what_a_node_says_of_a_workflow_names_it_in_fields(nats_server: ServerFactory, tmp_path: Path) -> None:
    url = nats_server().url
    async with a_mesh(url, app_of(tmp_path), node_id="a") as m:
        started = await start_workflow(m.client.js, key("s-1"), StartSpec(workflow="app:gone", entropy=b"e"))
        found: list[dict[str, Any]] = []

        async def is_said() -> bool:
            reply = await m.client.conn.request(node_request("a", "logs"), b"", timeout_s=15)
            found[:] = filter(Wanted(workflow="s-1"), decode_lines(reply.data))
            return found != []

        await wait_until_async(is_said)
        (line,) = found
        assert "'s-1' is suspended: " in line["event"]
        fields = {name: line[name] for name in ("level", "queue", "workflow", "run", "pid")}
        assert fields == {
            "level": "error", "queue": "orders", "workflow": "s-1", "run": started.run,
            "pid": "{app:client@app:worker|s-1}",
        }  # fmt: skip


async def test_logging_never_waits_and_says_what_it_left_out(nats_server: ServerFactory, tmp_path: Path) -> None:
    """From any thread, and while there is no connection: what is kept and what waits is bounded."""
    server = nats_server()
    async with a_mesh(server.url, app_of(tmp_path), node_id="a") as m, mesh.client.connect(server.url) as listener:
        heard: list[dict[str, Any]] = []
        listener.conn.subscribe_direct(log_subject("a"), lambda _s, _r, data, _h: heard.extend(decode_lines(data)))
        await listener.conn.flush()
        thread = threading.Thread(target=lambda: log.warning("from a thread"))
        thread.start()
        thread.join()
        await wait_until(lambda: "from a thread" in [line["event"] for line in heard])

        server.kill()
        await wait_until(lambda: not m.node.conn.is_connected)
        for i in range(WAITING_LINES_MAX + 500):
            log.info("line %d", i)
        live = m.node.telemetry.live_logs
        assert live.dropped >= 500
        server.start()
        await wait_until(lambda: m.node.conn.is_connected and listener.conn.is_connected, timeout_s=20)
        await listener.conn.flush()
        log.warning("again")
        await wait_until(lambda: any(line["event"] == "again" for line in heard), timeout_s=20)
        # Said as soon as the node has its connection back: who came back later finds it among the last lines.
        reply = await listener.conn.request(node_request("a", "logs"), b"", timeout_s=15)
        kept = decode_lines(reply.data)
        assert [line["event"] for line in kept if "log lines were not published" in line["event"]]
        assert [line["event"] for line in kept if line["event"].startswith("line ")][
            -1
        ] == f"line {WAITING_LINES_MAX + 499}"
        for i in range(KEPT_LINES_MAX + 100):
            log.info("%d %s", i, "x" * 500)
        reply = await listener.conn.request(node_request("a", "logs"), b"", timeout_s=15)
        assert len(reply.data) <= KEPT_BYTES_MAX
        assert any(line["event"].startswith(f"{KEPT_LINES_MAX + 99} ") for line in decode_lines(reply.data)[-20:])


async def test_a_line_that_the_server_does_not_take_holds_up_no_other(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    server = nats_server(config="max_payload: 20000")
    async with a_mesh(server.url, app_of(tmp_path), node_id="a") as m:
        heard: list[dict[str, Any]] = []
        m.client.conn.subscribe_direct(log_subject("a"), lambda _s, _r, data, _h: heard.extend(decode_lines(data)))
        await m.client.conn.flush()
        log.warning("short")
        log.warning("long", extra={"parts": ["x" * 1000] * 25})
        log.warning("short again")
        await wait_until(lambda: ours(heard) == ["short", "short again"])
        assert m.node.telemetry.live_logs.dropped == 1
        reply = await m.client.conn.request(node_request("a", "logs"), b"", timeout_s=15)
        assert ours(decode_lines(reply.data)) == ["short", "short again"]


async def test_a_server_that_forbids_log_lines_is_not_asked_again(nats_server: ServerFactory, tmp_path: Path) -> None:
    """What the connection logs about that is a line, too: without an end of it, each would cause the next."""
    config = 'authorization { users = [{user: u, password: p, permissions: {publish: {deny: ["mesh.logs.>"]}}}] }'
    server = nats_server(config=config)
    url = server.url.replace("nats://", "nats://u:p@")
    async with a_mesh(url, app_of(tmp_path), node_id="a") as m:
        log.warning("one")
        await wait_until(lambda: m.node.telemetry.live_logs._forbidden)
        log.warning("two")
        await m.node.conn.flush()
        reply = await m.client.conn.request(node_request("a", "logs"), b"", timeout_s=15)
        events = [line["event"] for line in decode_lines(reply.data)]
        assert [event for event in events if event in ("one", "two")] == ["one", "two"]
        assert sum("does not permit a publish: mesh.logs.a" in event for event in events) <= 2


def test_what_is_long_is_cut_so_that_a_line_fits_into_a_message() -> None:
    record = logging.makeLogRecord({"msg": "x" * 100_000, "levelno": logging.INFO, "levelname": "INFO", "name": "n"})
    assert "(100000 characters)" in line_of(record, {}, "a", 1)["event"]
    line = line_of(record, {"fields": ["y" * 1000] * 100, "workflow": "w"}, "a", 1)
    encoded = encode_line(line)
    assert len(encoded) <= LINE_BYTES_MAX
    assert json.loads(encoded)["workflow"] == "w"
    assert "the line took" in json.loads(encoded)["cut"]
    assert decode_lines(b'{"time": "t"}\nnonsense\n[1]\n{"no": "time"}\n') == [{"time": "t"}]


def test_lines_are_wanted_by_level_workflow_pid_text_and_age() -> None:
    line = {
        "time": "2026-11-25T12:00:00.000000Z", "level": "warning", "event": "Card is slow", "node": "a", "workflow": "w",
        "pid": "{a:c@a:w|w}", "card": 7,
    }  # fmt: skip
    fits = [
        Wanted(), Wanted(workflow="w"), Wanted(pid="{a:c@a:w|w}"), Wanted(level="warning"), Wanted(text="card IS"),
        Wanted(text="7"), Wanted(since="2026-11-25T12:00:00.000000000Z"),
    ]  # fmt: skip
    does_not = [
        Wanted(workflow="x"), Wanted(pid="{a|x}"), Wanted(level="error"), Wanted(text="fast"),
        Wanted(since="2026-11-25T12:00:01.000000000Z"), Wanted(workflow="w", level="error"),
    ]  # fmt: skip
    assert [wanted(line) for wanted in fits] == [True] * len(fits)
    assert [wanted(line) for wanted in does_not] == [False] * len(does_not)
    assert Wanted(workflow="w")({**line, "workflow": None}), "a PID names its workflow"
