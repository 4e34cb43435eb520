"""`mesh ls` and `mesh count` as a person and a script use them."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

import mesh.client
import node.cli.listing
from mesh.events import EndRecord, Parent, StartSpec
from mesh.subjects import WorkflowKey, api_request
from store.streams import ensure_queue
from tests.apps import QUEUE, a_mesh, write_app
from tests.cluster import Finished
from tests.commands import typed
from tests.conftest import ServerFactory
from tests.terminals import CTRL_C, on_terminal
from tests.waiting import wait_until_async


async def _fill(url: str) -> None:
    """Seven workflows: three that go on, two that are done, a failed one, a child."""
    async with mesh.client.connect(url) as client:
        for queue in (QUEUE, "other"):
            await ensure_queue(client.js, queue, partitions=2)

        async def begin(id: str, queue: str = QUEUE, **spec: Any) -> int:
            start = StartSpec(workflow=spec.pop("type", "shop:order"), **spec)
            return (await client.js.publish(WorkflowKey(queue, id).start(), start.encode())).seq

        async def end(id: str, run: int, status: str) -> None:
            await client.js.publish(WorkflowKey(QUEUE, id).end(run), EndRecord(status).encode())

        for i in range(3):
            await begin(f"open-{i}", attrs={"customer": f"c-{i}", "total": 10 * i})
        for i in range(2):
            await end(f"done-{i}", await begin(f"done-{i}", attrs={"customer": "c 1"}), "completed")
        await end("bad", await begin("bad", type="shop:refund", attempt=3), "failed")
        await begin("child", "other", parent=Parent(QUEUE, "open-0", 1, 1))


def _ids(done: Finished) -> list[str]:
    """The first column of a table without its heading."""
    assert done.status == 0, done.err
    return [line.split()[0] for line in done.out.splitlines()[1:]]


async def test_without_any_node_the_streams_are_read(nats_server: ServerFactory) -> None:
    """The table, JSON, pages and counts, all by the same code that a node uses."""
    url = nats_server().url
    empty = await typed("ls", url=url)
    assert (empty.status, empty.out, empty.err) == (0, "", "there are no workflows\n")
    await _fill(url)
    listed = await typed("ls", url=url)
    assert listed.out.splitlines()[0].split() == [
        "ID", "TYPE", "STATUS", "STARTED", "DURATION", "ATTEMPT", "PARENT", "QUEUE",
    ]  # fmt: skip
    bad_run = json.loads((await typed("ls", "--id", "bad", "--json", url=url)).out)["run"]
    bad = next(line.split() for line in listed.out.splitlines() if line.startswith("bad "))
    assert bad[:3] == ["bad", "shop:refund", "failed"]
    assert bad[-2:] == ["3", QUEUE]
    assert len(_ids(listed)) == 7
    # With all runs each has its number, which leads to it.
    all_runs = await typed("ls", "--all-runs", "--id", "bad", url=url)
    assert [line.split()[-2:] for line in all_runs.out.splitlines()] == [["RUN", "ATTEMPT"], [str(bad_run), "3"]]

    where = "attrs.customer = 'c 1' or (status = running and attrs.total >= 10)"
    found = await typed("ls", "--where", where, "--order", "id", "--json", url=url)
    records = [json.loads(line) for line in found.out.splitlines()]
    assert [record["id"] for record in records] == ["done-0", "done-1", "open-1", "open-2"]
    assert set(records[0]) == {
        "id", "queue", "run", "type", "status", "started", "ended", "duration_s", "parent", "attempt", "memo", "attrs",
    }  # fmt: skip
    assert found.err == ""

    page = await typed("ls", "--limit", "4", "--order", "id", url=url)
    assert _ids(page) == ["bad", "child", "done-0", "done-1"]
    (following,) = re.findall(r"^there are more: mesh (.*)$", page.err, re.MULTILINE)
    rest = await typed(*shlex.split(following), url=url)
    assert (_ids(rest), rest.err) == (["open-0", "open-1", "open-2"], "")

    counted = await typed("count", "--json", url=url)
    assert [json.loads(line) for line in counted.out.splitlines()] == [
        {"type": "shop:order", "status": "running", "workflows": 4},
        {"type": "shop:order", "status": "completed", "workflows": 2},
        {"type": "shop:refund", "status": "failed", "workflows": 1},
    ]
    table = await typed("count", "--by", "queue", url=url)
    assert [line.split() for line in table.out.splitlines()] == [["QUEUE", "WORKFLOWS"], [QUEUE, "6"], ["other", "1"]]


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["ls", "--where", "attrs.customer c-1"], "  attrs.customer c-1\n                 ^"),
        (["ls", "--order", "size"], "write one of started, ended, duration, id"),
        (["ls", "--status", "done"], "'done' is not one of"),
        (["count", "--by", "size"], "'size' is not one of"),
    ],
)
async def test_wrong_usage_is_exit_status_2_before_anything_is_asked(arguments: list[str], answer: str) -> None:
    """There is no server at all."""
    done = await typed(*arguments, "--nats", "nats://127.0.0.1:1")
    assert (done.status, done.out) == (2, "")
    assert answer in done.err


async def test_a_node_that_keeps_a_list_answers_and_a_terminal_is_kept_up_to_date(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    """What is new appears in the live view; a cursor that belongs to nothing is refused."""
    url = nats_server().url
    app = write_app(tmp_path / "app", workflows={"waits": "return function() process.inbox():receive() end"})
    async with a_mesh(url, app, projection=tmp_path / "projection.sqlite3") as one:
        await one.start("waits", id="first")
        await wait_until_async(lambda: _listed(one.client, ["first"]))
        (node,) = (json.loads(line) for line in (await typed("nodes", "--json", url=url)).out.splitlines())
        assert node["projection"] == {"messages": 0, "seconds": 0.0}
        with on_terminal("ls", "--watch", "--every", "0.1s", environ={"NATS_URL": url}) as terminal:
            await _expect(terminal, "first")
            await one.start("waits", id="second")
            await _expect(terminal, "second")
            terminal.type(CTRL_C)
            await _ended(terminal)
        done = await typed("ls", "--cursor", "nonsense", url=url)
        assert done.status == 2
        assert "the cursor is none of ours" in done.err


async def test_a_node_that_hangs_with_its_list_is_done_without(
    nats_server: ServerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server believes in its connection for minutes; the streams are there."""
    monkeypatch.setattr(node.cli.listing, "PAGE_TIMEOUT_S", 0.1)
    monkeypatch.setattr(node.cli.listing, "COUNT_TIMEOUT_S", 0.1)
    url = nats_server().url
    await _fill(url)
    async with mesh.client.connect(url) as client:
        for verb in ("list", "count"):
            client.conn.subscribe_direct(api_request(verb), lambda *_: None)
        await client.conn.flush()
        listed = await typed("ls", "--json", url=url)
        assert (listed.status, len(listed.out.splitlines())) == (0, 7)
        assert "the node that keeps the list does not answer" in listed.err
        counted = await typed("count", "--by", "status", url=url)
        assert counted.out.split() == ["STATUS", "WORKFLOWS", "running", "4", "completed", "2", "failed", "1"]


async def _listed(client: mesh.client.Client, ids: list[str]) -> bool:
    return [str(record["id"]) async for record in client.list()] == ids


async def _expect(terminal: Any, text: str) -> None:
    import anyio.to_thread

    await anyio.to_thread.run_sync(terminal.expect, text)


async def _ended(terminal: Any) -> None:
    import anyio.to_thread

    await anyio.to_thread.run_sync(terminal.wait)


async def test_who_may_not_read_the_streams_is_told_so(nats_server: ServerFactory) -> None:
    """No node keeps a list, and what would be read instead is not allowed: nobody waits for ever."""
    permissions = 'permissions: {publish: {deny: ["$JS.API.STREAM.NAMES"]}}'
    server = nats_server(config=f"authorization {{ users: [{{user: u, password: p, {permissions}}}] }}")
    done = await typed("ls", "--user", "u", "--password", "p", "--timeout", "10s", url=server.url)
    assert (done.status, done.out, done.err.count("\n")) == (1, "", 1)
    assert "no node keeps a list of workflows, and this user may not read the streams instead" in done.err
