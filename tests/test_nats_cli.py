"""The mesh with the NATS command line alone: signal, watch, start and stop workflows, and look at function hosts.

The real `nats` command is used: from the path, else from our cache, else it is built from its Go module once where Go is
there. Without any of them these tests are skipped.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.streams.text import TextReceiveStream

from tests.apps import TIMEOUT_S, a_mesh, write_app
from tests.cluster import Finished, plain_environment
from tests.conftest import ServerFactory
from tests.waiting import wait_until, wait_until_async

# The version these tests were written with; its output is read here.
NATS_CLI_VERSION = "v0.5.1"
BUILD_TIMEOUT_S = 600
pytestmark = pytest.mark.timeout(BUILD_TIMEOUT_S + 60)  # the first test may have to build the command

COLLECTOR = """
return function(input)
  local got, events = {}, process.events()
  while true do
    local r = channel.select{events:case_receive(), process.inbox():case_receive()}
    if r.channel == events then return nil, errors.new{message = "asked to stop", kind = errors.CANCELED} end
    local m = r.value
    got[#got + 1] = {m:topic(), m:payload():data()}
    if m:topic() == "stop" then return {input = input, got = got} end
  end
end
"""
APPROVAL = """
return function(order)
  local charged = funcs.call("app:charge", order)
  local msg = process.inbox():receive()
  return {charged = charged, approved = msg.approved, topic = msg:topic()}
end
"""


@functools.cache
def nats_command() -> str:
    """Find or build the command; skips the test when that is not possible."""
    beside = shutil.which("nats")
    if beside is not None:
        return beside
    cache = (
        Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "moonmesh" / f"natscli-{NATS_CLI_VERSION}"
    )
    command = cache / "nats"
    if command.exists():
        return str(command)
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        pytest.skip("there is neither a `nats` command on the path nor Go to build it with")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as directory:
        try:
            built = subprocess.run(
                [go, "install", f"github.com/nats-io/natscli/nats@{NATS_CLI_VERSION}"],
                env={**os.environ, "GOBIN": directory}, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S,
                check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            pytest.skip(f"the `nats` command could not be built within {BUILD_TIMEOUT_S} s")
        if built.returncode != 0:
            pytest.skip(f"the `nats` command could not be built from its Go module: {built.stderr.strip()[-300:]}")
        (Path(directory) / "nats").replace(command)  # whole or not at all: another run may be building it too
    return str(command)


class NatsCli:
    """The `nats` command against one server."""

    def __init__(self, url: str) -> None:
        self._prefix = [nats_command(), "--no-context", "--server", url]

    async def run(self, *arguments: str, stdin: str = "") -> Finished:
        """Run it to its end."""
        done = await anyio.run_process(
            [*self._prefix, *arguments], input=stdin.encode(), check=False, env=plain_environment()
        )
        return Finished(done.returncode, done.stdout.decode(), done.stderr.decode())

    async def __call__(self, *arguments: str) -> str:
        """Run it, and it must succeed; its output."""
        done = await self.run(*arguments)
        assert done.status == 0, done
        return done.out

    @asynccontextmanager
    async def watching(self, *arguments: str) -> AsyncIterator[Watched]:
        """Collect what `nats sub` prints while the block runs; it is about to listen when the block starts."""
        watched = Watched()
        process = await anyio.open_process(
            [*self._prefix, "sub", *arguments],
            env=plain_environment(),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
        )
        try:
            async with anyio.create_task_group() as tasks:
                assert process.stdout is not None
                tasks.start_soon(watched.read, TextReceiveStream(process.stdout))
                await wait_until(lambda: "Subscribing on" in watched.text)
                yield watched
                tasks.cancel_scope.cancel()
        finally:
            process.kill()
            with anyio.CancelScope(shield=True):
                await process.aclose()


class Watched:
    """What a command has printed so far."""

    def __init__(self) -> None:
        self.text = ""

    async def read(self, stream: TextReceiveStream) -> None:
        async for text in stream:
            self.text += text


async def test_a_signal_by_nats_pub_is_durable_also_while_no_node_is_up(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    app = write_app(
        tmp_path, workflows={"order": APPROVAL}, functions={"charge": "return function(order) return order.total end"}
    )
    url = nats_server().url
    nats = NatsCli(url)
    async with a_mesh(url, app) as mesh:
        for workflow_id in ("order-1", "order-2"):
            await mesh.start("order", {"total": 3}, id=workflow_id)

        async def both_wait() -> bool:
            return all([await mesh.kinds(i) == ["start", "ret"] for i in ("order-1", "order-2")])

        await wait_until_async(both_wait)
        await nats("pub", "mesh.wf.orders.order-1.signal.approve", '{"approved":true}')
        expected = {"charged": 3, "approved": True, "topic": "approve"}
        assert await mesh.get("order-1").result(timeout_s=TIMEOUT_S) == expected
    await nats("pub", "mesh.wf.orders.order-2.signal.approve", '{"approved":true}')
    async with a_mesh(url, app, node_id="b") as mesh:
        assert await mesh.get("order-2").result(timeout_s=TIMEOUT_S) == expected
        assert await mesh.kinds("order-2") == ["start", "ret", "signal", "end"]


async def test_nats_sub_shows_the_life_of_a_workflow(nats_server: ServerFactory, tmp_path: Path) -> None:
    source = "return function(n) local x = funcs.call('app:double', n) time.sleep('20ms') return x end"
    app = write_app(tmp_path, workflows={"wf": source}, functions={"double": "return function(n) return 2 * n end"})
    url = nats_server().url
    async with a_mesh(url, app) as mesh, NatsCli(url).watching("mesh.wf.>", "--subjects-only") as watched:

        async def it_listens() -> bool:  # it says so before it does
            mesh.client.conn.publish_nowait("mesh.wf.probe", b"")
            await mesh.client.conn.flush()
            return "mesh.wf.probe" in watched.text

        await wait_until_async(it_listens)
        handle = await mesh.start("wf", 21, id="order-1")
        assert await handle.result(timeout_s=TIMEOUT_S) == 42
        run = handle.run

        def told() -> list[str]:
            return re.findall(r'"mesh\.wf\.orders\.order-1\.(\S+)"', watched.text)

        await wait_until(lambda: any(line.startswith("end") for line in told()))
        start, ret, *rest = told()
        assert start == "start"
        assert ret.startswith(f"ret.{run}.1.1.")
        # The server publishes the tick by itself; whether a subscriber sees that is its own affair.
        assert rest in ([f"end.{run}"], [f"tick.{run}.2", f"end.{run}"])


async def test_a_workflow_is_started_by_nats_pub_and_a_second_start_is_ignored_while_it_runs(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    app = write_app(tmp_path, workflows={"collector": COLLECTOR})
    url = nats_server().url
    nats = NatsCli(url)
    async with a_mesh(url, app) as mesh:
        start = ("-H", "Mesh-Workflow:app:collector", "mesh.wf.orders.order-1.start")
        await nats("pub", *start, '{"n": 1}')
        stored = await nats.run("pub", "--jetstream", *start, '{"n": 2}')
        assert stored.status == 0
        assert "WF_orders" in stored.err
        await nats("pub", "mesh.wf.orders.order-1.signal.stop", "now")
        one = await mesh.client.find("order-1")
        assert await one.result(timeout_s=TIMEOUT_S) == {"input": {"n": 1}, "got": [["stop", "now"]]}
        assert (await one.describe()).run == 1, "the second start opened no run"
        await nats("pub", "--jetstream", *start, "plain text")
        await nats("pub", "mesh.wf.orders.order-1.signal.stop", "")
        state = await one.describe()
        assert state.run > 1
        assert await one.result(timeout_s=TIMEOUT_S) == {"input": "plain text", "got": [["stop"]]}


async def test_a_start_by_nats_pub_that_is_wrong_says_what_is_wrong(nats_server: ServerFactory, tmp_path: Path) -> None:
    app = write_app(tmp_path, workflows={"collector": COLLECTOR})
    url = nats_server().url
    nats = NatsCli(url)
    async with a_mesh(url, app) as mesh:
        await nats("pub", "mesh.wf.orders.nameless.start", "{}")
        error = await mesh.failed(mesh.get("nameless"))
        assert "a start needs the workflow's name in the header Mesh-Workflow" in error.failure.message
        await nats("pub", "-H", "Mesh-Workflow:app:colector", "mesh.wf.orders.misspelt.start", "{}")

        async def is_now(status: str) -> bool:
            return (await mesh.get("misspelt").describe()).status == status

        await wait_until_async(lambda: is_now("suspended"))
        reason = (await mesh.get("misspelt").describe()).detail["reason"]
        assert reason == "this node's registry has no workflow 'app:colector'; did you mean app:collector?"
        await nats("pub", "mesh.wf.orders.misspelt.kill", "")
        await wait_until_async(lambda: is_now("terminated"))


async def test_a_workflow_is_cancelled_and_killed_by_nats_pub(nats_server: ServerFactory, tmp_path: Path) -> None:
    app = write_app(tmp_path, workflows={"collector": COLLECTOR})
    url = nats_server().url
    nats = NatsCli(url)
    async with a_mesh(url, app) as mesh:
        canceled, killed = await mesh.start("collector", id="c"), await mesh.start("collector", id="k")
        await nats("pub", "mesh.wf.orders.c.cancel", "")
        await nats("pub", "mesh.wf.orders.k.kill", "why not")
        error = await mesh.failed(canceled)
        assert (error.status, error.failure.message) == ("canceled", "asked to stop")
        assert (await mesh.failed(killed)).status == "terminated"


async def answers(nats: NatsCli, verb: str, number: int) -> list[dict[str, Any]]:
    """What that many instances of the service say (ADR-32)."""
    out = await nats("req", f"$SRV.{verb}.moonmesh", "", "--raw", "--replies", str(number))
    return [json.loads(line) for line in out.splitlines() if line]


async def test_nats_micro_shows_the_function_hosts(nats_server: ServerFactory, tmp_path: Path) -> None:
    source = """
    return function(n)
      return funcs.new():with_options{retry_policy = {maximum_attempts = 2, initial_interval = 1}}:call("app:half", n)
    end
    """
    half = "return function(n) if n % 2 == 1 then error('odd') end return n // 2 end"
    app = write_app(tmp_path, workflows={"wf": source}, functions={"half": half, "other.one": "return function() end"})
    url = nats_server().url
    nats = NatsCli(url)
    async with a_mesh(url, app) as mesh, a_mesh(url, app, node_id="b", settled=False):
        assert await mesh.run("wf", 42) == 21
        assert "odd" in (await mesh.failure("wf", 1)).message

        listed = await nats("micro", "ls")
        for expected in ("moonmesh", "Functions of node a", "Functions of node b"):
            assert expected in listed
        services = {service["metadata"]["node"]: service for service in await answers(nats, "INFO", 2)}
        assert sorted(services) == ["a", "b"]
        for service in services.values():
            assert {(e["name"], e["subject"]) for e in service["endpoints"]} == {
                ("app_half", "mesh.fn.app.half"), ("app_other_one", "mesh.fn.app.other%2Eone"),
            }  # fmt: skip
        shown = await nats("micro", "info", "moonmesh", services["a"]["id"])
        assert "mesh.fn.app.half" in shown
        stats = await nats("micro", "stats", "moonmesh")
        assert "app_half" in stats
        endpoints = [e for service in await answers(nats, "STATS", 2) for e in service["endpoints"]]
        halves = [e for e in endpoints if e["subject"] == "mesh.fn.app.half"]
        assert (sum(e["num_requests"] for e in halves), sum(e["num_errors"] for e in halves)) == (3, 2)
        assert any("odd" in e["last_error"] for e in halves)


@pytest.mark.parametrize("verb", ["ping", "info", "stats"])
async def test_what_function_hosts_say_of_themselves_fits_the_official_schemas(
    nats_server: ServerFactory, tmp_path: Path, verb: str
) -> None:
    app = write_app(tmp_path, functions={"half": "return function(n) return n // 2 end"})
    url = nats_server().url
    nats = NatsCli(url)
    async with a_mesh(url, app) as mesh:
        assert await mesh.client.call("app:half", 4) == 2
        (answer,) = await answers(nats, verb.upper(), 1)
        schema = f"io.nats.micro.v1.{verb}_response"
        assert answer["type"] == schema
        (tmp_path / "answer.json").write_text(json.dumps(answer))
        checked = await nats("schema", "validate", schema, str(tmp_path / "answer.json"))
        assert "is valid" in checked or "validates" in checked, (answer, checked)
        # The command succeeds either way; its words tell.
        (tmp_path / "answer.json").write_text(json.dumps({**answer, "version": 1}))
        assert "Validation errors" in await nats("schema", "validate", schema, str(tmp_path / "answer.json"))
