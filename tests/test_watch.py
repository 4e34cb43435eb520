"""`mesh watch` and `mesh show --watch`, on a real terminal and as lines for a program."""

from __future__ import annotations

import json
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream
from anyio.to_thread import run_sync

from mesh import codec
from tests.apps import Mesh, a_mesh, write_app
from tests.cluster import a_node, mesh_command, plain_environment
from tests.conftest import ServerFactory
from tests.terminals import Terminal, on_terminal

pytestmark = pytest.mark.timeout(180)  # many commands and nodes, each a process to start

WORKFLOWS = {
    "gate": "return function(x) local go = process.listen('go') local got = funcs.call('app:inc', x) go:receive() return got end",
    "chain": "return function(n) process.listen('go'):receive() if n > 0 then process.upgrade(nil, n - 1) end return 'done' end",
    "bad": "return function() error('oh no') end",
}
FUNCTIONS = {"inc": "return {main = function(x) return x + 1 end}"}
LATER = [
    {"name": "later", "kind": "mesh.worker", "client": "app:client", "task_queue": "later",
     "lifecycle": {"auto_start": True}},
    {"name": "short", "kind": "workflow.lua", "source": "return {main = function() return 1 end}", "method": "main",
     "meta": {"mesh.workflow.worker": "app:later"}},
]  # fmt: skip


@pytest.fixture
def app(tmp_path: Path) -> Path:
    return write_app(tmp_path / "app", workflows=WORKFLOWS, functions=FUNCTIONS)


async def shown(terminal: Terminal, text: str) -> None:
    """Wait for a text without holding the loop that the node runs on."""
    await run_sync(terminal.expect, text)


async def test_a_workflow_is_followed_on_a_terminal_until_it_ends(nats_server: ServerFactory, app: Path) -> None:
    url = nats_server().url
    environ = {"NATS_URL": url, "COLUMNS": "120", "NO_COLOR": "1"}
    async with a_mesh(url, app) as mesh:
        handle = await mesh.start("gate", 1, id="g-1")
        with (
            on_terminal("watch", "g-1", environ=environ) as lines,
            on_terminal("show", "g-1", "--watch", environ=environ) as view,
        ):
            await shown(lines, "  app:gate  running")
            await shown(lines, "started")
            await shown(lines, "app:inc answered")
            await shown(lines, '... receives from process.listen("go")')
            await shown(view, "  app:gate  running")
            await shown(view, 'receives from process.listen("go")')
            await shown(view, "gate.lua:1 in main function")
            await handle.signal("go")
            await shown(lines, "signal go")
            await shown(lines, "completed")
            await shown(lines, "result: 2")
            await shown(view, "  app:gate  completed")
            await shown(view, "signal go")
            assert await run_sync(lines.wait) == 0
            assert await run_sync(view.wait) == 0
        assert not re.search("\x1b\\[3\\d", lines.seen + view.seen), "nobody wants colours"

        chain = await mesh.start("chain", 1, id="c-1")
        with on_terminal("watch", "c-1", environ=environ) as lines:
            await shown(lines, "started")
            await chain.signal("go")
            await shown(lines, "goes on in a new run")
            await shown(lines, f"run {await run_after(mesh, 'c-1', chain.run)}")
            await chain.signal("go")
            await shown(lines, 'result: "done"')
            assert await run_sync(lines.wait) == 0

        await mesh.failed(await mesh.start("bad", id="b-1"))
        failed = await mesh_command("watch", "b-1", "--json", url=url)
        assert failed.status == 1
        *events, end = map(json.loads, failed.out.splitlines())
        assert [(event["n"], event["kind"]) for event in events] == [(1, "start"), (2, "end")]
        assert (end["id"], end["status"], end["value"]) == ("b-1", "failed", None)
        assert "oh no" in end["error"]["message"]


async def run_after(mesh: Mesh, workflow_id: str, run: int) -> int:
    while True:
        newest = (await mesh.get(workflow_id).describe()).run
        if newest > run:
            return newest
        await anyio.sleep(0.01)


class Lines:
    """The lines of JSON that a command prints."""

    def __init__(self, process: anyio.abc.Process) -> None:
        assert process.stdout is not None
        self.process = process
        self._stream = BufferedByteReceiveStream(process.stdout)

    async def next(self) -> dict[str, Any]:
        with anyio.fail_after(30):
            line = await self._stream.receive_until(b"\n", 1 << 20)
        record: dict[str, Any] = json.loads(line)
        return record


@asynccontextmanager
async def feed(url: str, *arguments: str) -> AsyncIterator[Lines]:
    """Run `mesh watch --json`; it watches when the block starts. Ctrl-C ends it, and that is no failure."""
    async with await anyio.open_process(
        [sys.executable, "-m", "node", "watch", "--json", *arguments], env=plain_environment({"NATS_URL": url})
    ) as process:
        assert process.stderr is not None
        said = b""
        with anyio.fail_after(30):
            while b"watching" not in said:
                said += await process.stderr.receive()
        try:
            yield Lines(process)
        except BaseException:
            process.kill()  # it would watch for ever
            raise
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 0


async def test_what_happens_on_the_mesh_is_told_as_it_happens(
    nats_server: ServerFactory, app: Path, tmp_path: Path
) -> None:
    url = nats_server().url
    async with a_mesh(url, app) as mesh, feed(url) as everything, feed(url, "--type", "app:bad") as bad:
        gate = await mesh.start("gate", 1, id="g-1")
        started = await everything.next()
        assert {**started, "time": ""} == {
            "time": "", "what": "started", "id": "g-1", "queue": "orders", "run": gate.run, "type": "app:gate",
            "status": "running", "error": None,
        }  # fmt: skip
        await gate.signal("go")
        ended = await everything.next()
        assert [ended[name] for name in ("what", "id", "run", "type", "status")] == [
            "completed", "g-1", gate.run, "app:gate", "completed",
        ]  # fmt: skip
        await mesh.failed(await mesh.start("bad", id="b-1"))
        for lines in (everything, bad):
            assert (await lines.next())["what"] == "started"
            failed = await lines.next()
            assert (failed["id"], failed["what"]) == ("b-1", "failed")
            assert "oh no" in failed["error"]
        stuck = await mesh.start("gate", 1, id="g-2")
        # What nobody has asked for: the code is not the code that wrote this history.
        await mesh.client.js.publish(stuck.key.ret(stuck.run, 9, 1, "0123456789"), codec.encode_success(1))
        # A suspension is told by the node and a start by the stream: either may be first.
        happened = sorted([await everything.next() for _ in range(2)], key=lambda one: str(one["what"]))
        assert [(one["what"], one["id"], one["type"]) for one in happened] == [
            ("started", "g-2", "app:gate"),
            ("suspended", "g-2", "app:gate"),
        ]
        assert "op 9" in happened[1]["error"]
        # On a queue that was not there when the watching began.
        other = write_app(tmp_path / "other", workflows=WORKFLOWS, functions=FUNCTIONS, entries=LATER)
        async with a_node(other, url, node_id="b", arguments=("--only", "app:later")):
            late = await mesh.client.start("app:short", host="app:later", id="s-1")
            happened = [await everything.next() for _ in range(2)]
            assert [(one["what"], one["id"], one["queue"]) for one in happened] == [
                ("started", "s-1", "later"), ("completed", "s-1", "later"),
            ]  # fmt: skip
            assert await late.result(timeout_s=15) == 1


LIMITED = """
accounts { MESH { jetstream: enabled, users: [
  {user: node, password: p}
  {user: reader, password: p, permissions: {
    publish: {deny: ["$JS.API.CONSUMER.>"]}, subscribe: {deny: ["mesh.wf.*.*.start"]}}}
] } }
"""


async def test_who_may_not_follow_streams_watches_all_the_same(nats_server: ServerFactory, app: Path) -> None:
    """An observer has no consumers: it is told of ends, and reads a workflow now and then."""
    url = nats_server(config=LIMITED).url
    async with a_mesh(url.replace("nats://", "nats://node:p@"), app) as mesh:
        reader = url.replace("nats://", "nats://reader:p@")
        handle = await mesh.start("gate", 1, id="g-1")
        async with feed(reader) as lines:
            with on_terminal("watch", "g-1", environ={"NATS_URL": reader, "NO_COLOR": "1"}) as terminal:
                await shown(terminal, "receives from")
                await handle.signal("go")
                await shown(terminal, "signal go")
                await shown(terminal, "result: 2")
                assert await run_sync(terminal.wait) == 0
            ended = await lines.next()
            assert (ended["id"], ended["what"], ended["type"]) == ("g-1", "completed", "app:gate")
