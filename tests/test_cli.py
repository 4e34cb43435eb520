"""The command line, as processes against a real server: what a person types, sees, and gets as an exit status."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import shlex
import signal
import struct
import subprocess
import sys
import termios
import time
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest

import mesh.client
from mesh.client import FunctionFailed
from mesh.subjects import WorkflowKey
from node.cli.workflows import short_id
from node.leaving import DRAIN_TIMEOUT_S
from tests.cluster import PROJECT, Finished, a_node, mesh_command, plain_environment
from tests.conftest import ServerFactory
from tests.mesh_up import Up
from tests.scraping import free_addresses, http_get
from tests.servers import tied_to_us
from tests.waiting import wait_until_async

pytestmark = pytest.mark.timeout(180)  # many commands and nodes, each a process to start

REGISTRY = """\
version: "1.0"
namespace: shop
entries:
  - name: client
    kind: mesh.client
    address: nats://127.0.0.1:4222
    lifecycle: {auto_start: true}
  - name: worker
    kind: mesh.worker
    client: shop:client
    task_queue: orders
    lifecycle: {auto_start: true}
  - name: double
    kind: function.python
    source: "arithmetic:double"
  - name: broken
    kind: function.lua
    source: "return {run=function() error('the till is stuck') end}"
    method: run
  - name: order
    kind: workflow.lua
    source: file://order.lua
    method: order
    modules: [funcs, process]
    meta: {mesh.workflow.worker: shop:worker}
  - name: fails
    kind: workflow.lua
    source: file://order.lua
    method: fails
    modules: [funcs, process]
    meta: {mesh.workflow.worker: shop:worker}
  - name: obeys
    kind: workflow.lua
    source: file://order.lua
    method: obeys
    modules: [funcs, process]
    meta: {mesh.workflow.worker: shop:worker}
  - name: stuck
    kind: workflow.lua
    source: file://order.lua
    method: stuck
    modules: [funcs, process]
    meta: {mesh.workflow.worker: shop:worker}
"""
CODE = """\
local funcs = require("funcs")
local process = require("process")
return {
  order = function(n)
    local doubled, err = funcs.call("shop:double", n)
    if err then return nil, err end
    local message = process.inbox():receive()
    return {doubled = doubled, approved = message.approved}
  end,
  fails = function() error("no such article") end,
  obeys = function() return {kind = process.events():receive().kind} end,
  stuck = function() return funcs.call("shop:broken") end,
}
"""
PYTHON = "def double(n):\n    return n * 2\n"


@pytest.fixture
def app(tmp_path: Path) -> Path:
    directory = tmp_path / "shop"
    directory.mkdir()
    (directory / "shop.yaml").write_text(REGISTRY)
    (directory / "order.lua").write_text(CODE)
    (directory / "arithmetic.py").write_text(PYTHON)
    return directory


def one_sentence(done: Finished) -> str:
    """The only line on standard error, and nothing on standard output."""
    assert done.out == ""
    assert "Traceback" not in done.err
    lines = done.err.strip().splitlines()
    assert len(lines) == 1, done.err
    assert lines[0].startswith("mesh: ")
    return lines[0]


def usage_error(done: Finished) -> str:
    assert done.status == 2, done
    return done.err.strip().splitlines()[-1]


def got_value(done: Finished) -> Any:
    """The result that a command printed."""
    assert done.status == 0, done.err
    return json.loads(done.out)


def in_background(*arguments: str, stderr: int = subprocess.PIPE) -> subprocess.Popen[str]:
    """Start `mesh` with these arguments and go on; whoever calls this ends it."""
    return subprocess.Popen(
        tied_to_us(sys.executable, "-m", "node", *arguments),
        stdout=subprocess.PIPE,
        stderr=stderr,
        env=plain_environment(),
        text=True,
    )


def on_a_terminal(*arguments: str, environ: dict[str, str]) -> str:
    """What `mesh` writes to a terminal of 120 columns."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "node", *arguments],
        stdin=its,
        stdout=its,
        stderr=subprocess.DEVNULL,
        env=plain_environment({"TERM": "xterm-256color"} | environ),
    )
    os.close(its)
    written = b""
    try:
        while chunk := os.read(ours, 65536):
            written += chunk
    except OSError:  # how Linux says that the other side is closed
        pass
    finally:
        os.close(ours)
        process.wait(20)
    return written.decode()


async def shown_with(url: str, workflow_id: str, line: str) -> str:
    """What `mesh show` prints once this line is in it: its owner hears of an event after it was stored."""
    printed = []

    async def is_shown() -> bool:
        done = await mesh_command("show", workflow_id, url=url)
        assert done.status == 0, done.err
        printed.append(done.out)
        return line in done.out.splitlines()

    await wait_until_async(is_shown)
    return printed[-1]


async def owns(url: str, partitions: dict[str, int]) -> bool:
    """Whether so many partitions of the queue are each node's, as `mesh nodes` has it."""
    records = (await mesh_command("nodes", "--json", url=url)).records()
    return {record["node"]: record.get("queues", {}).get("orders", 0) for record in records} == partitions


async def events_of(url: str, workflow_id: str) -> list[str]:
    async with mesh.client.connect(url) as client:
        return [event.kind for event in await client.get(workflow_id, queue="orders").history()]


# -- the way of a workflow -------------------------------------------------------------------------------------------


async def test_start_signal_result_and_show(nats_server: ServerFactory, app: Path) -> None:
    url = nats_server().url
    async with a_node(app, url, node_id="a"):
        started = await mesh_command("start", "shop:order", "--id", "o-1", "--input", "21", url=url)
        assert (started.status, started.out) == (0, "o-1\n")
        assert "shop:order is started as o-1 on queue orders, run 1" in started.err
        assert "mesh show o-1" in started.err
        assert "mesh result o-1" in started.err

        lines = (await shown_with(url, "o-1", "waiting for: a signal or message")).splitlines()
        assert lines[0] == "o-1  shop:order  running"
        assert lines[1].startswith("queue orders, run 1, started ")
        assert lines[1].endswith(", on node a")
        assert any("order.lua:7" in line for line in lines), "the stack names the line that receives"
        assert re.search(r"^1  .*  started  +21, host shop:worker$", lines[-2])
        assert re.search(r"^2  .*  shop:double answered  +\S+ms  +\S+ms  +a  +op 1 -> 42$", lines[-1])

        signalled = await mesh_command("signal", "o-1", "approve", '{"approved": true}', url=url)
        assert signalled.status == 0, signalled.err
        got = await mesh_command("result", "o-1", url=url)
        assert (got.status, json.loads(got.out), got.err) == (0, {"doubled": 42, "approved": True}, "")

        shown = await mesh_command("show", "o-1", "--json", url=url)
        record = json.loads(shown.out)
        assert [event["kind"] for event in record["events"]] == ["start", "ret", "signal", "end"]
        assert record["events"][1] | {"seq": 0, "time": "", "fingerprint": "", "since_s": 0, "duration_s": 0, "took_s": 0} == {
            "n": 2, "seq": 0, "time": "", "since_s": 0, "kind": "ret", "op": 1, "attempt": 1, "fingerprint": "",
            "target": "call shop:double", "value": 42, "error": None, "duration_s": 0, "took_s": 0, "node": "a",
        }  # fmt: skip
        assert record["events"][2]["topic"] == "approve"
        assert record["events"][2]["value"] == {"approved": True}
        assert (record["status"], record["value"], record["args"]) == ("completed", got_value(got), [21])


async def test_start_can_wait_and_read_its_input_from_a_file_or_a_pipe(
    nats_server: ServerFactory, app: Path, tmp_path: Path
) -> None:
    url = nats_server().url
    (tmp_path / "n.json").write_text("4")
    async with a_node(app, url, node_id="a"):
        first = await mesh_command("start", "shop:order", "--id", "f", "--input", f"@{tmp_path}/n.json", url=url)
        second = await mesh_command("start", "shop:order", "--id", "p", "--input", "-", "--json", url=url, stdin="5")
        assert first.status == 0, first.err
        record = json.loads(second.out)
        assert record == {"id": "p", "queue": "orders", "run": record["run"], "existing": False}
        again = await mesh_command("start", "shop:order", "--id", "p", "--input", "6", "--json", url=url)
        assert json.loads(again.out) == record | {"existing": True}
        refused = await mesh_command("start", "shop:order", "--id", "p", "--conflict", "fail", url=url)
        assert refused.status == 1
        assert "workflow 'p' on queue 'orders' is running" in one_sentence(refused)
        for workflow_id in ("f", "p"):
            assert (await mesh_command("signal", workflow_id, "x", '{"approved": 1}', url=url)).status == 0
        assert got_value(await mesh_command("result", "f", url=url)) == {"doubled": 8, "approved": 1}
        assert got_value(await mesh_command("result", "p", url=url)) == {"doubled": 10, "approved": 1}
        spent = await mesh_command("start", "shop:order", "--id", "p", "--reuse", "reject_duplicate", url=url)
        assert spent.status == 1
        assert "has run before" in one_sentence(spent)


async def test_a_failed_workflow_is_exit_status_1_and_says_why(nats_server: ServerFactory, app: Path) -> None:
    url = nats_server().url
    async with a_node(app, url, node_id="a"):
        done = await mesh_command("start", "shop:fails", "--id", "bad", "--wait", url=url)
        assert (done.status, done.out) == (1, "")
        said = done.err.splitlines()
        assert said[0].startswith("shop:fails is started as bad ")
        assert re.match("mesh: workflow 'bad' failed: .*no such article", said[2])
        as_json = await mesh_command("result", "bad", "--json", url=url)
        assert as_json.status == 1
        record = json.loads(as_json.out)
        assert (record["status"], record["value"]) == ("failed", None)
        assert "no such article" in record["error"]["message"]
        shown = await mesh_command("show", "bad", url=url)
        assert shown.out.splitlines()[0] == "bad  shop:fails  failed"
        assert "no such article" in shown.out.splitlines()[2]


async def test_show_says_what_a_call_that_fails_is_waiting_for(nats_server: ServerFactory, app: Path) -> None:
    """Attempt, last error and when the next attempt is due."""
    url = nats_server().url
    async with a_node(app, url, node_id="a"):
        await mesh_command("start", "shop:stuck", "--id", "s", url=url)

        async def shown() -> dict[str, Any]:
            record: dict[str, Any] = json.loads((await mesh_command("show", "s", "--json", url=url)).out)
            return record

        async def has_failed_once() -> bool:
            return any(item.get("last_error") for item in (await shown())["waiting"])

        await wait_until_async(has_failed_once)
        [call] = (await shown())["waiting"]
        assert (call["kind"], call["target"]) == ("call", "shop:broken")
        assert "the till is stuck" in call["last_error"]
        text = (await mesh_command("show", "s", url=url)).out
        assert re.search(r"^  1  call shop:broken, attempt \d+, .*last error: .*the till is stuck", text, re.MULTILINE)

        timed_out = await mesh_command("result", "s", "--timeout", "200ms", url=url)
        assert timed_out.status == 1
        assert "has not ended within 0.2 s and goes on; `mesh show s`" in one_sentence(timed_out)
        assert (await mesh_command("terminate", "s", url=url)).status == 0
        ended = await mesh_command("result", "s", url=url)
        assert ended.status == 1
        assert "workflow 's' terminated" in ended.err


async def test_a_suspended_workflow_says_why_and_nobody_waits_for_ever(nats_server: ServerFactory, app: Path) -> None:
    url = nats_server().url
    async with a_node(app, url, node_id="a") as node:
        await mesh_command("start", "shop:order", "--id", "o", "--input", "1", url=url)

        async def has_called() -> bool:
            return len(await events_of(url, "o")) == 2

        await wait_until_async(has_called)
        assert await node.terminate() == 0
    (app / "order.lua").write_text(CODE.replace("shop:double", "shop:broken"))
    async with a_node(app, url, node_id="b"):
        shown = await shown_with(url, "o", "o  shop:order  suspended")
        assert re.search(r"^suspended at event 2: op 1: .*shop:broken", shown, re.MULTILINE)
        done = await mesh_command("result", "o", "--timeout", "20s", url=url)
        assert done.status == 1
        assert "is suspended: op 1" in one_sentence(done)


async def test_cancel_ends_a_workflow_and_then_there_is_nothing_left_to_do(
    nats_server: ServerFactory, app: Path
) -> None:
    url = nats_server().url
    async with a_node(app, url, node_id="a"):
        await mesh_command("start", "shop:obeys", "--id", "o", url=url)
        canceled = await mesh_command("cancel", "o", url=url)
        assert (canceled.status, canceled.out) == (0, "")
        assert "mesh result o" in canceled.err
        assert got_value(await mesh_command("result", "o", url=url)) == {"kind": "pid.cancel"}
        for verb in (("cancel", "o"), ("terminate", "o"), ("signal", "o", "x")):
            again = await mesh_command(*verb, url=url)
            assert again.status == 1
            assert "workflow 'o' has ended (" in one_sentence(again)


async def test_what_nobody_can_read_is_shown_and_breaks_nothing(nats_server: ServerFactory, app: Path) -> None:
    url = nats_server().url
    async with a_node(app, url, node_id="a"):
        await mesh_command("start", "shop:stuck", "--id", "o", url=url)
        async with mesh.client.connect(url) as client:
            key = WorkflowKey("orders", "o")
            await client.js.publish(key.signal("odd"), b"\xc1\xff\xff")
            await client.js.publish(key.signal("escape"), b"\x1b[2Jgone\nnew line")
        shown = await mesh_command("show", "o", url=url)
        assert shown.status == 0, shown.err
        assert "undecodable" in shown.out
        assert "\x1b" not in shown.out
        assert all(re.match(r"\d+ ", line) for line in shown.out.splitlines()[-2:]), "one event is one line"
        assert (await mesh_command("show", "o", "--json", url=url)).status == 0


async def test_show_prints_the_newest_events_and_says_how_many_are_left_out(
    nats_server: ServerFactory, app: Path
) -> None:
    url = nats_server().url
    async with a_node(app, url, node_id="a"):
        await mesh_command("start", "shop:stuck", "--id", "o", url=url)
        async with mesh.client.connect(url) as client:
            handle = client.get("o", queue="orders")
            for i in range(5):
                await handle.signal("n", i)
        record = json.loads((await mesh_command("show", "o", "--json", "-n", "2", url=url)).out)
        text = (await mesh_command("show", "o", "-n", "2", url=url)).out
        assert len(record["events"]) == 2
        assert record["events_total"] >= 6
        assert re.search(r"^\d+ earlier events are not shown; --last 0 shows all$", text, re.MULTILINE)
        everything = json.loads((await mesh_command("show", "o", "--json", "-n", "0", url=url)).out)
        assert len(everything["events"]) == everything["events_total"]


async def test_a_cron_schedule_can_be_seen_and_ended(nats_server: ServerFactory, app: Path) -> None:
    url = nats_server().url
    async with a_node(app, url, node_id="a"):
        started = await mesh_command("start", "shop:order", "--id", "nightly", "--cron", "0 3 * * *", url=url)
        assert (started.status, started.out) == (0, "nightly\n")
        assert "is scheduled as nightly on queue orders: 0 3 * * *" in started.err
        shown = await mesh_command("show", "nightly", url=url)
        assert "nightly is scheduled by cron on queue orders and has not run yet" in shown.err
        assert (await mesh_command("terminate", "nightly", url=url)).status == 0
        assert (await mesh_command("start", "shop:order", "--cron", "soon", url=url)).status == 1


async def test_colours_are_for_terminals_whose_owner_wants_them(nats_server: ServerFactory, app: Path) -> None:
    url = nats_server().url
    async with a_node(app, url, node_id="a"):
        await mesh_command("start", "shop:fails", "--id", "bad", url=url)
        assert (await mesh_command("result", "bad", url=url)).status == 1
        await wait_until_async(partial(owns, url, {"a": 32}))
        for arguments in (("nodes",), ("show", "bad")):
            colored, plain = [
                await anyio.to_thread.run_sync(partial(on_a_terminal, *arguments, environ={"NATS_URL": url} | extra))
                for extra in ({}, {"NO_COLOR": "1"})
            ]
            assert re.search(r"\x1b\[[\d;]*3\dm", colored), "a colour"
            assert not re.search(r"\x1b\[[\d;]*3\dm", plain)
            assert "shop:fails" in plain or "orders:32" in plain


# -- what is mistyped ------------------------------------------------------------------------------------------------


async def test_what_is_mistyped_is_answered_with_what_was_meant(nats_server: ServerFactory, app: Path) -> None:
    url = nats_server().url
    async with a_node(app, url, node_id="a"):
        await mesh_command("start", "shop:order", "--id", "order-17", "--input", "1", url=url)
        for arguments, answer in (
            (("start", "shop:ordr"), "did you mean shop:order?"),
            (("start", "shop:ordr", "--host", "shop:worker"), "did you mean shop:order?"),
            (("start", "shop:order", "--host", "shop:wrker"), "did you mean shop:worker?"),
            (("show", "order-71"), "did you mean order-17?"),
            (("result", "order17"), "did you mean order-17?"),
            (("signal", "zzz", "x"), "no workflow 'zzz' on any queue (orders); see what there is with: mesh ls"),
            (("cancel", "order-17", "--queue", "order"), "no queue 'order'; did you mean orders?"),
        ):
            done = await mesh_command(*arguments, url=url)
            assert done.status == 1, arguments
            assert answer in one_sentence(done), arguments


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (("strat",), "no command 'strat'; did you mean start?"),
        (("start", "a:b", "--input", "{a: 1}"), "not JSON at column 2"),
        (("start", "a:b", "--input", "hello"), "for a text, write '\"hello\"'"),
        (("start", "a:b", "--input", "{'a': 1}"), 'JSON quotes with "'),
        (("start", "a:b", "--input", "NaN"), "NaN is not JSON"),
        (("start", "a:b", "--input", "99999999999999999999999"), "cannot be sent"),
        (("start", "a:b", "--input", "@/nonexistent.json"), "/nonexistent.json: cannot be read: No such file"),
        (("signal", "x", "t", "{"), "not JSON"),
        (("start", "a:b", "--run-timeout", "3 weeks"), "'3 weeks' is no duration; write for example 500ms"),
        (("start", "a:b", "--run-timeout", "-3s"), "is no duration"),
        (("start", "a:b", "--memo", "x"), "'x' is not KEY=VALUE"),
        (("check", "/nonexistent"), "does not exist"),
        (("nodes", "--context", "a", "--no-context"), "exclude each other"),
    ],
)
async def test_wrong_usage_is_exit_status_2_and_says_what_would_do(arguments: tuple[str, ...], answer: str) -> None:
    assert answer in usage_error(await mesh_command(*arguments))


# -- the server ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["nats:/127.0.0.1", "nats://127.0.0.1:abc", "nats://127.0.0.1:99999"])
async def test_what_is_no_address_is_told_how_one_is_written(address: str) -> None:
    done = await mesh_command("ls", "-s", address)
    assert done.status == 3
    assert "the address cannot be read: write nats://HOST:PORT;" in done.err


async def test_no_server_is_exit_status_3_and_says_what_to_do() -> None:
    took_s = []
    for _ in range(3):  # a machine that does other things makes it slower, never quicker
        begun = time.monotonic()
        done = await mesh_command("nodes", url="nats://127.0.0.1:1")
        took_s.append(time.monotonic() - begun)
        assert done.status == 3
        assert "no NATS server at nats://127.0.0.1:1" in one_sentence(done)
        assert "mesh up APP" in done.err
        if took_s[-1] < 5:
            break
    assert min(took_s) < 5


async def test_a_trace_is_shown_only_with_debug() -> None:
    done = await mesh_command("nodes", "--debug", url="nats://127.0.0.1:1")
    assert "Traceback" in done.err
    assert "Unreachable" in done.err


async def test_a_server_without_nodes_says_so(nats_server: ServerFactory) -> None:
    server = nats_server()
    for arguments in (("nodes",), ("show", "x"), ("start", "a:b")):
        done = await mesh_command(*arguments, url=server.url)
        assert done.status == 1
        assert f"no node has ever joined the mesh at {server.url}" in one_sentence(done)


async def test_a_server_that_stands_still_is_given_up_after_the_timeout(nats_server: ServerFactory, app: Path) -> None:
    server = nats_server()
    server.sigstop()
    try:
        done = await mesh_command("nodes", "--timeout", "300ms", url=server.url)
    finally:
        server.sigcont()
    assert done.status == 3
    one_sentence(done)


async def test_the_server_is_found_by_flag_variable_and_context(nats_server: ServerFactory, tmp_path: Path) -> None:
    """Flag over variable over named context over selected one."""
    url, wrong = nats_server(config='authorization { user: "me", password: "pw" }').url, "nats://127.0.0.1:1"
    directory = tmp_path / "nats" / "context"
    directory.mkdir(parents=True)
    good = {"url": url, "user": "me", "password": "pw"}
    (directory / "good.json").write_text(json.dumps(good))
    (directory / "wrong.json").write_text(json.dumps(good | {"url": wrong}))
    (tmp_path / "nats" / "context.txt").write_text("wrong")
    contexts = {"XDG_CONFIG_HOME": str(tmp_path)}

    async def status(*arguments: str, **environ: str) -> int:
        done = await mesh_command("nodes", *arguments, environ=contexts | environ)
        assert done.status == 3 or "no node has ever joined" in done.err
        return done.status

    assert await status() == 3
    assert await status("--context", "good") == 1
    assert await status(NATS_CONTEXT="good") == 1
    assert await status("--context", "good", NATS_URL=wrong) == 3
    assert await status("-s", url, NATS_URL=wrong) == 1
    assert await status("--nats", url, "--no-context") == 3
    assert await status("--server", url, "--no-context", "--user", "me", "--password", "pw") == 1
    assert await status("-s", url, "--user", "me", "--password", "wrong") == 3
    unknown = await mesh_command("nodes", "--context", "god", environ=contexts)
    assert unknown.status == 1
    assert "did you mean good?" in one_sentence(unknown)


async def test_a_proposed_command_goes_to_the_same_server(nats_server: ServerFactory, app: Path) -> None:
    url = nats_server().url
    async with a_node(app, url, node_id="a"):
        started = await mesh_command("start", "shop:order", "--id", "o", "--input", "1", "-s", url)
        assert f"mesh show o -s {url}" in started.err


# -- nodes -----------------------------------------------------------------------------------------------------------


async def test_nodes_are_listed_with_what_they_own(nats_server: ServerFactory, app: Path) -> None:
    url = nats_server().url
    async with a_node(app, url, node_id="a") as a, a_node(app, url, node_id="b") as b:

        async def listed() -> dict[str, dict[str, Any]]:
            done = await mesh_command("nodes", "--json", url=url)
            return {record["node"]: record for record in done.records()}

        await wait_until_async(partial(owns, url, {"a": 16, "b": 16}), 30)
        found = await listed()
        assert {name: (n["state"], n["pid"], n["functions"]) for name, n in found.items()} == {
            "a": ("up", a.pid, 2),
            "b": ("up", b.pid, 2),
        }
        table = (await mesh_command("nodes", url=url)).out.splitlines()
        assert table[0].split()[:3] == ["NODE", "STATE", "PID"]
        assert table[1].split()[:3] == ["a", "up", str(a.pid)]
        assert table[1].endswith("  orders:16")
        assert len(table) == 3
        b.stop()
        try:
            assert (await listed()).get("b", {"state": "silent"})["state"] == "silent"
        finally:
            b.cont()
        assert await a.terminate() == 0
        assert await b.terminate() == 0
    done = await mesh_command("nodes", url=url)
    assert (done.status, done.out) == (0, "")
    assert "no node is up" in done.err


async def test_a_node_runs_only_what_it_is_told_to(nats_server: ServerFactory, app: Path) -> None:
    """`--only` and `--without` choose by entry ID, several times each; workers are chosen like functions."""
    url = nats_server().url
    only = ("--only", "shop:d*", "--only", "*:broken", "--without", "shop:broken")
    async with (
        a_node(app, url, node_id="a", arguments=only) as a,
        a_node(app, url, node_id="b", arguments=("--without", "shop:double")) as b,
        mesh.client.connect(url) as client,
    ):
        await wait_until_async(partial(owns, url, {"a": 0, "b": 32}))
        done = await mesh_command("nodes", "--json", url=url)
        found = {record["node"]: record for record in done.records()}
        assert {name: (n["functions"], set(n["queues"])) for name, n in found.items()} == {
            a.id: (1, set()),
            b.id: (1, {"orders"}),
        }
        assert await client.call("shop:double", 4) == 8
        with pytest.raises(FunctionFailed, match="the till is stuck"):
            await client.call("shop:broken")


async def test_a_node_told_to_leave_exits_with_0_whatever_the_signal(nats_server: ServerFactory, app: Path) -> None:
    url = nats_server().url
    async with a_node(app, url, node_id="a") as node:
        os.kill(node.pid, signal.SIGINT)
        assert await node.wait() == 0
        records = [json.loads(line) for line in node.log().splitlines()]
        assert {record["node"] for record in records} == {"a"}
        assert records[-1]["event"] == "node a is down"


async def test_a_node_told_twice_goes_at_once(nats_server: ServerFactory, app: Path) -> None:
    """Also while a function keeps a thread busy that cannot be interrupted."""
    url = nats_server().url
    (app / "arithmetic.py").write_text("import time\n\ndef double(n):\n    time.sleep(60)\n")
    async with a_node(app, url, node_id="a") as node, mesh.client.connect(url) as client:
        await client.start("shop:order", 1, host="shop:worker", id="o")

        async def is_busy() -> bool:
            return any(s["calls"] for s in (await mesh_command("nodes", "--json", url=url)).records())

        await wait_until_async(is_busy)
        os.kill(node.pid, signal.SIGTERM)

        async def is_leaving() -> bool:
            return "SIGTERM: leaving" in node.log()

        await wait_until_async(is_leaving)
        begun = time.monotonic()
        assert await node.terminate() == 128 + signal.SIGTERM
        assert time.monotonic() - begun < DRAIN_TIMEOUT_S / 2, "it has waited for the function"


async def test_a_node_waits_for_its_server(nats_server: ServerFactory, app: Path) -> None:
    server = nats_server()
    url = server.url
    server.kill()
    log = app / "node.log"
    with log.open("wb") as stderr:
        process = in_background("node", str(app), "--nats", url, "--id", "early", stderr=stderr.fileno())
        try:

            async def is_waiting() -> bool:
                return "cannot be reached" in log.read_text()

            await wait_until_async(is_waiting, timeout_s=20)
            server.start()
            assert process.stdout is not None
            line = await anyio.to_thread.run_sync(process.stdout.readline)
            assert line == f"node early is ready, pid {process.pid}, queues orders\n"
            process.terminate()
            assert await anyio.to_thread.run_sync(process.wait) == 0
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


async def test_a_node_without_patience_says_that_there_is_no_server(app: Path) -> None:
    done = await mesh_command("node", str(app), "--no-wait", url="nats://127.0.0.1:1")
    assert done.status == 3
    assert "no NATS server at nats://127.0.0.1:1" in one_sentence(done)


async def test_a_node_goes_on_without_what_is_broken_unless_strict(nats_server: ServerFactory, app: Path) -> None:
    url = nats_server().url
    (app / "broken.yaml").write_text('version: "1.0"\nnamespace: other\nentries:\n  - kind: function.lua\n')
    async with a_node(app, url, node_id="a") as node:
        [warning] = [json.loads(line) for line in node.log().splitlines() if "broken.yaml" in line]
        assert warning["level"] == "warning"
        assert "broken.yaml:4: " in warning["event"]
    done = await mesh_command("node", str(app), "--strict", url=url)
    assert done.status == 1
    assert "one problem in the registry" in done.err
    assert "broken.yaml:4: " in done.err
    assert "Traceback" not in done.err


async def test_an_app_with_nothing_to_run_is_refused(tmp_path: Path) -> None:
    done = await mesh_command("node", str(tmp_path), url="nats://127.0.0.1:1")
    assert done.status == 1
    assert f"mesh check {tmp_path}" in one_sentence(done)


# -- mesh check ------------------------------------------------------------------------------------------------------


async def test_check_finds_nothing_in_a_sound_app(app: Path) -> None:
    done = await mesh_command("check", str(app), "--strict")
    assert (done.status, done.out) == (0, "")
    assert "no problems" in done.err


async def test_check_names_file_and_line_of_every_problem(app: Path) -> None:
    (app / "shop.yaml").write_text(REGISTRY.replace("arithmetic:double", "arithmetik:double"))
    (app / "order.lua").write_text(CODE.replace("local message =", "local message = ="))
    (app / "more.yaml").write_text('version: "1.0"\nnamespace: other\nentries:\n  - name: x\n    kind: strange.kind\n')
    done = await mesh_command("check", "shop", directory=app.parent)
    assert done.status == 1
    lines = done.out.splitlines()
    assert lines[0].startswith("shop/order.lua:7: shop:")
    assert re.match(r"shop/shop\.yaml:1[35-8]: shop:double: arithmetik:double cannot be imported", lines[1])
    assert lines[1].endswith(
        "(ModuleNotFoundError: No module named 'arithmetik'); is it installed, or its directory on PYTHONPATH?"
    )
    assert len(lines) == 2
    assert "note: shop/more.yaml:5: other:x: kind 'strange.kind' has no handler" in done.err
    assert "2 problems" in done.err
    as_json = json.loads((await mesh_command("check", "shop", "--json", directory=app.parent)).out)
    assert [problem["line"] for problem in as_json["problems"]] == [7, int(lines[1].split(":")[1])]
    assert [note["entry"] for note in as_json["notes"]] == ["other:x"]


async def test_check_of_a_file_with_a_misspelt_field_does_not_say_that_it_has_no_entries(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text('version: "1.0"\nnamespace: a\nentries:\n  - { nam: x, kind: mesh.client }\n')
    done = await mesh_command("check", ".", directory=tmp_path)
    assert (done.status, done.err) == (1, ".: no entry can be used, one problem\n")
    assert done.out == "a.yaml:4: name is missing; is 'nam' meant to be it?\n"


async def test_strict_lets_notes_count(app: Path) -> None:
    (app / "more.yaml").write_text('version: "1.0"\nnamespace: other\nentries:\n  - name: x\n    kind: strange.kind\n')
    assert (await mesh_command("check", str(app))).status == 0
    assert (await mesh_command("check", str(app), "--strict")).status == 1


# -- mesh up ---------------------------------------------------------------------------------------------------------


def pid_in(line: str) -> int:
    return int(re.findall(r"pid (\d+)", line)[0])


def is_gone(pid: int) -> bool:
    """Whether a process has ended; who has adopted it may not have asked for its status yet."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def test_up_runs_server_and_nodes_restarts_a_dead_one_and_ends_them_all(app: Path) -> None:
    first, second = free_addresses(2)
    with Up(app, "--nodes", "2", "--metrics", first) as up:
        lines = await up.lines_until("Ctrl-C")
        assert [(await http_get(f"http://{address}/readyz"))[0] for address in (first, second)] == [200, 200]
        url = re.findall(r"nats://\S+", lines[0])[0]
        assert lines[0].startswith(f"server   {url}  pid ")
        assert lines[0].endswith("store .mesh/shop  sync relaxed")
        assert sorted(line.split()[0] for line in lines[1:3]) == ["node-1", "node-2"]
        assert all(line.endswith("  queues orders") for line in lines[1:3])
        assert lines[3] == "next, in another terminal:"
        assert lines[4].split() == ["export", f"NATS_URL={url}", "which", "mesh"]
        assert lines[5].startswith("  mesh start shop:order --id try-1 --input '{}' ")
        started = await mesh_command("start", "shop:order", "--id", "o", "--input", "2", url=url)
        assert started.status == 0, started.err
        os.kill(pid_in(lines[1]), signal.SIGKILL)
        [again] = await up.lines_until("node-")
        assert again.split()[0] == lines[1].split()[0]
        assert "was ended by SIGKILL; starting it again" in up.log.read_text()
        for address, name in ((first, "node-1"), (second, "node-2")):
            assert f'mesh_build_info{{node="{name}"' in (await http_get(f"http://{address}/metrics"))[1]
        await mesh_command("signal", "o", "x", '{"approved": true}', url=url)
        got = await mesh_command("result", "o", "--timeout", "20s", url=url)
        assert got_value(got) == {"doubled": 4, "approved": True}
        up.process.send_signal(signal.SIGINT)
        assert await anyio.to_thread.run_sync(lambda: up.process.wait(30)) == 0
        pids = [pid_in(line) for line in (lines[0], lines[1], lines[2], again)]
        assert [is_gone(pid) for pid in pids] == [True] * 4
    # The store is there: what was done is still known.
    with Up(app) as up:
        lines = await up.lines_until("Ctrl-C")
        got = await mesh_command("result", "o", url=re.findall(r"nats://\S+", lines[0])[0])
        assert got_value(got) == {"doubled": 4, "approved": True}


async def test_nodes_and_server_end_when_up_is_killed(app: Path) -> None:
    with Up(app) as up:
        lines = await up.lines_until("Ctrl-C")
        url = re.findall(r"nats://\S+", lines[0])[0]

        await wait_until_async(partial(owns, url, {"node-1": 32}))
        up.process.kill()
        up.process.wait()

        async def all_gone() -> bool:
            return is_gone(pid_in(lines[0])) and is_gone(pid_in(lines[1]))

        await wait_until_async(all_gone, timeout_s=20)


async def test_up_says_when_its_store_is_in_use_and_who_starts_something_there_uses_its_keys(app: Path) -> None:
    assert (await mesh_command("keys", "new", "a key.yaml", directory=app.parent)).status == 0
    with Up(app, "--keys", "a key.yaml") as up:
        lines = await up.lines_until("Ctrl-C")
        assert lines[4].split("   ")[0] == "  export MESH_KEYS='a key.yaml'"
        done = await mesh_command("up", str(app), "--port", "0", directory=app.parent)
        assert done.status == 1
        assert "is in use by" in one_sentence(done)


async def test_up_ends_when_its_nodes_cannot_start(app: Path) -> None:
    (app / "arithmetic.py").write_text("import os\nos._exit(9)\n")
    begun = time.monotonic()
    done = await mesh_command("up", str(app), "--port", "0", directory=app.parent)
    assert done.status == 1
    assert "node-1 could not start" in done.err
    assert "Unknown child" not in done.err
    assert "Traceback" not in done.err
    assert time.monotonic() - begun < 20


# -- the tool itself -------------------------------------------------------------------------------------------------


async def test_ctrl_c_while_waiting_is_exit_status_130(nats_server: ServerFactory, app: Path) -> None:
    url = nats_server().url
    async with a_node(app, url, node_id="a"):
        waiting = in_background("start", "shop:order", "--input", "1", "--wait", "-s", url)
        try:
            assert waiting.stderr is not None
            said = await anyio.to_thread.run_sync(waiting.stderr.readline)
            assert said.startswith("shop:order is started")
            waiting.send_signal(signal.SIGINT)
            out, err = await anyio.to_thread.run_sync(waiting.communicate)
        finally:
            waiting.kill()
        assert (waiting.returncode, out) == (130, "")
        assert err.splitlines()[-1] == "interrupted"


async def test_help_needs_none_of_the_engine() -> None:
    """What makes `mesh --help` answer at once is that nothing heavy is imported; a time would depend on the machine."""
    code = "import sys\nimport node.cli\ntry:\n    node.cli.main(['--help'])\nexcept SystemExit:\n    pass\n"
    heavy = (
        "sorted({'nats', 'lupa', 'anyio', 'rich', 'structlog', 'msgpack', 'asyncio', 'ruamel'} & sys.modules.keys())"
    )
    done = await anyio.run_process(
        [sys.executable, "-c", f"{code}print(*{heavy}, file=sys.stderr)"], cwd=PROJECT, env=plain_environment()
    )
    assert done.stderr.decode().strip() == ""
    assert b"mesh can" in done.stdout
    assert b"terminate" in done.stdout


@pytest.mark.parametrize(
    "command", ["up", "node", "check", "start", "signal", "result", "show", "cancel", "terminate", "nodes"]
)
async def test_every_command_has_help(command: str) -> None:
    done = await mesh_command(command, "--help")
    assert done.status == 0, done.err
    assert done.out.startswith(f"Usage: mesh {command} ")


async def test_version_is_printed() -> None:
    done = await mesh_command("--version")
    assert done.status == 0
    assert re.fullmatch(r"mesh \S.*\n", done.out)


async def test_completion_knows_the_commands() -> None:
    done = await mesh_command(
        environ={"_MESH_COMPLETE": "bash_complete", "COMP_WORDS": "mesh te", "COMP_CWORD": "1"},
    )
    assert "terminate" in done.out


def test_an_id_in_a_proposed_command_is_the_same_in_a_shell() -> None:
    """Whatever it is made of."""
    for workflow_id in ("order-7", "a b", "it's", '"', "$HOME `x`", "a;b"):
        assert shlex.split(f"mesh show {short_id(workflow_id)}") == ["mesh", "show", workflow_id]
