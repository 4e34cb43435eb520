"""Histories go from one mesh to another: they look and replay the same there, and run only if somebody says so."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from mesh import codec
from mesh.client import WorkflowFailed
from mesh.events import Event, StartSpec
from mesh.history_files import (
    HistoryHeader,
    RecordedHistory,
    dump_history,
    fetch_history,
    load_histories,
    new_history_file,
)
from mesh.imported import HEADER_IMPORTED, import_of
from mesh.importing import AlreadyImported, CannotImport, Importer
from mesh.instants import iso
from mesh.jetstream import BatchMessage, JetStream, PubAck
from mesh.subjects import WorkflowKey
from node.api.describing import describe
from node.checking import AppChecker
from tests.apps import QUEUE, TIMEOUT_S, Mesh, a_mesh, key, write_app
from tests.commands import typed
from tests.conftest import ServerFactory
from tests.waiting import wait_until_async

# What must be the same in a replay elsewhere: the clock, random values, who one is, outcomes, messages.
ORDER = """
return function(order)
  local id, at, run = uuid.v4(), time.now():unix_nano(), workflow.info().run_id
  local receipt = funcs.call("app:charge", order)
  local later = time.now():unix_nano()
  local decided = process.inbox():receive():payload():data()
  return {id, at, run, receipt, later, decided, workflow.info().workflow_id, process.pid(), workflow.history_length()}
end
"""
FUNCTIONS: dict[str, Any] = {"charge": {"kind": "function.python", "source": "tests.test_export_import:charge"}}
ROUNDS = (
    "return function(n) local m = process.inbox():receive() if n > 0 then process.upgrade(nil, n - 1) end return 1 end"
)
SUMS = """
return function()
  local sum = 0
  while true do
    local m = process.inbox():receive()
    if m:topic() == "stop" then return {sum, funcs.call("app:charge", sum)} end
    sum = sum + m:payload():data()
  end
end
"""

charged: list[Any] = []


def charge(order: Any) -> str:
    """Remember that it was called: nothing that was imported may call it by itself."""
    charged.append(order)
    return f"paid {order}"


@pytest.fixture(autouse=True)
def _nothing_charged() -> None:
    charged.clear()


def an_app(directory: Path) -> Path:
    return write_app(directory, workflows={"order": ORDER, "rounds": ROUNDS, "sums": SUMS}, functions=FUNCTIONS)


async def recorded(mesh: Mesh, workflow_id: str, run: int = 0) -> RecordedHistory:
    return await fetch_history(mesh.client.history(QUEUE), key(workflow_id), run)


async def imported(mesh: Mesh, history: RecordedHistory, as_id: str = "", **options: Any) -> int:
    target = WorkflowKey(QUEUE, as_id or history.header.id)
    return await Importer(mesh.client.js).add(history.header, iter(history.events), target, **options)


def told(history: RecordedHistory) -> list[tuple[str, list[str], int, bytes]]:
    """What must survive of each event: all but the numbers of this stream."""
    return [(e.kind, ["run", *e.args[1:]] if e.run == history.run else e.args, e.at_ns, e.data) for e in history.events]


async def messages(mesh: Mesh) -> int:
    return (await mesh.client.js.stream_info("WF_orders")).messages


@asynccontextmanager
async def two_meshes(nats_server: ServerFactory, app: Path) -> AsyncIterator[tuple[Mesh, Mesh]]:
    """Both with a node that owns everything: what it is not kept from it would run."""
    async with a_mesh(nats_server().url, app) as here, a_mesh(nats_server().url, app, node_id="b") as there:
        # So that sequences differ.
        await there.client.js.publish(key("other").subject("signal", "x"), b"")
        yield here, there


async def test_an_ended_history_looks_and_replays_the_same_elsewhere(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    """An import is for looking at: time, identity and random values are those of the original, and nothing runs."""
    app = an_app(tmp_path)
    async with two_meshes(nats_server, app) as (here, there):
        handle = await here.start("order", "first", id="order-1")
        await handle.signal("decision", "yes")
        result = await handle.result(timeout_s=TIMEOUT_S)
        original = await recorded(here, "order-1")
        assert charged == ["first"]

        run = await imported(there, original)
        copy = await recorded(there, "order-1")
        assert run == copy.run != original.run
        assert told(copy) == told(original)
        assert (copy.header.status, copy.header.type) == ("completed", "app:order")
        assert await there.get("order-1").result(timeout_s=TIMEOUT_S) == result
        # Its code comes to the same values, under another id, too, and from an export of the import.
        await imported(there, original, as_id="copy")
        await imported(there, await recorded(there, "copy"), as_id="copy of the copy")
        for workflow_id in ("order-1", "copy", "copy of the copy"):
            history = await recorded(there, workflow_id)
            assert told(history) == told(original)
            verdict = AppChecker(app, environ={}).check(history)
            assert (verdict.mismatch, verdict.notes) == (None, ())
        # It has ended for everybody, and can be started again.
        with pytest.raises(AlreadyImported, match=rf"it is there already, as run {run} of workflow 'order-1'"):
            await imported(there, original)
        other = replace(original, header=replace(original.header, id="order-2"))
        with pytest.raises(CannotImport, match="a workflow 'copy' is there already on queue 'orders'"):
            await imported(there, other, as_id="copy")
        again = await there.start("order", "second", id="order-1")
        await again.signal("decision", "no")
        assert (await again.result(timeout_s=TIMEOUT_S))[5] == "no"
        assert charged == ["first", "second"]
        assert told(await recorded(there, "order-1", run)) == told(original)


async def test_attributes_that_were_recorded_after_the_end_are_part_of_a_history(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    """What the last step sets is written beside the end, before or after it."""
    app = write_app(
        tmp_path, workflows={"notes": "return function() workflow.attrs{search = {n = 7}, memo = {m = 'x'}} end"}
    )
    async with two_meshes(nats_server, app) as (here, there):
        handle = await here.start("notes", id="notes-1")
        await handle.result(timeout_s=TIMEOUT_S)

        async def noted() -> bool:
            return "attrs" in await here.kinds("notes-1")

        await wait_until_async(noted)
        original = await recorded(here, "notes-1")
        assert sorted(event.kind for event in original.events) == ["attrs", "end", "start"]
        state = await describe(here.client, handle.key)
        (end,) = (event for event in original.events if event.kind == "end")
        assert (state["attrs"], state["memo"], state["ended"]) == ({"n": 7}, {"m": "x"}, iso(end.at_ns))
        for end_at in (1, 2):
            start, attrs = (event for event in original.events if event.kind != "end")
            events = [start, end, attrs] if end_at == 1 else [start, attrs, end]
            await imported(there, replace(original, events=events), as_id=f"copy-{end_at}")
            copy = await describe(there.client, key(f"copy-{end_at}"))
            assert [copy[name] for name in ("status", "attrs", "memo", "ended")] == [
                "completed", {"n": 7}, {"m": "x"}, state["ended"]
            ]  # fmt: skip
            assert told(await recorded(there, f"copy-{end_at}")) == told(replace(original, events=events))


async def test_an_open_history_goes_on_only_when_told_to(nats_server: ServerFactory, tmp_path: Path) -> None:
    """One workflow must not run in two meshes by surprise."""
    app = an_app(tmp_path)
    async with two_meshes(nats_server, app) as (here, there):
        handle = await here.start("order", "first", id="order-1")

        async def is_charged() -> bool:
            return "ret" in await here.kinds("order-1")

        await wait_until_async(is_charged)
        original = await recorded(here, "order-1")
        before = await messages(there)
        with pytest.raises(CannotImport, match="it has not ended; with --resume it goes on in this mesh"):
            await imported(there, original)
        assert await messages(there) == before

        await imported(there, original, resume=True)
        copy = there.get("order-1")
        for one in (handle, copy):
            await one.signal("decision", "yes")
        results = [await one.result(timeout_s=TIMEOUT_S) for one in (handle, copy)]
        assert results[0] == results[1]
        assert charged == ["first"]
        assert await there.kinds("order-1") == ["start", "ret", "mark", "signal", "end"]


async def test_what_followed_an_imported_run_is_not_started(nats_server: ServerFactory, tmp_path: Path) -> None:
    """The end of a continued run carries the start of the next one: its owner would begin it."""
    app = an_app(tmp_path)
    async with two_meshes(nats_server, app) as (here, there):
        handle = await here.start("rounds", 1, id="rounds")
        await handle.signal("go")

        async def goes_on() -> bool:
            found = await here.client.history(QUEUE).open_run(handle.key)
            return found is not None and found.run > handle.run

        await wait_until_async(goes_on)
        await handle.signal("go")
        await handle.result(timeout_s=TIMEOUT_S)
        first, second = await recorded(here, "rounds", handle.run), await recorded(here, "rounds")
        assert [first.header.status, second.header.status] == ["continued", "completed"]

        importer = Importer(there.client.js)
        await importer.add(first.header, iter(first.events), key("rounds"))
        assert not await there.client.history(QUEUE).is_running(key("rounds"))
        assert AppChecker(app, environ={}).check(await recorded(there, "rounds")).fits
        # The importer that brought the first run in may bring in the next.
        await importer.add(second.header, iter(second.events), key("rounds"))
        assert told(await recorded(there, "rounds")) == told(second)
        stored = await messages(there)
    async with a_mesh(there.client.conn.address, app, node_id="c") as later:
        # An owner that takes over reads all of it, and has nothing to do.
        assert await messages(later) == stored


async def test_a_long_import_that_breaks_off_runs_nowhere_and_is_taken_up_again(
    nats_server: ServerFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More events than the server takes at once: what is there of them meanwhile must not be run."""
    monkeypatch.setattr("mesh.importing.WATCHED_S", 0.01)
    app = an_app(tmp_path)
    async with two_meshes(nats_server, app) as (here, there):
        handle = await here.start("sums", id="long")
        for i in range(1200):
            here.client.conn.publish_nowait(handle.key.subject("signal", "add"), codec.encode(i))
        await here.client.conn.flush()
        await handle.signal("stop")
        result = await handle.result(timeout_s=TIMEOUT_S)
        assert result == [719_400, "paid 719400"]
        original = await recorded(here, "long")

        def breaks_off() -> Iterator[Event]:
            yield from original.events[:800]
            raise ConnectionError("gone")

        for resume in (False, True):
            with pytest.raises(ConnectionError):
                await Importer(there.client.js).add(original.header, breaks_off(), key("long"), resume=resume)
            # Half of it is there. Nobody runs it, also when something happens to it.
            assert 1 < await messages(there) < 800
            await there.get("long").signal("add", 1)
            assert (await there.get("long").describe()).status == "running"
            assert await there.kinds("long") == ["start", *["signal"] * (await messages(there) - 2)]
        await imported(there, original)
        assert told(await recorded(there, "long")) == told(original)
        assert await there.get("long").result(timeout_s=TIMEOUT_S) == result
        assert charged == [719_400]

        # One of which only the start has come is no different: it has not been told that it goes on.
        waits = await here.start("sums", id="waits")
        begun = await recorded(here, "waits")
        assert [event.kind for event in begun.events] == ["start"]

        def breaks_off_at_once() -> Iterator[Event]:
            yield begun.events[0]
            raise ConnectionError("gone")

        with pytest.raises(ConnectionError):
            await Importer(there.client.js).add(begun.header, breaks_off_at_once(), waits.key, resume=True)
        await imported(there, begun, resume=True)
        with pytest.raises(AlreadyImported):
            await imported(there, begun, resume=True)
        await there.get("waits").signal("stop")
        assert await there.get("waits").result(timeout_s=TIMEOUT_S) == [0, "paid 0"]

        # One that broke off can be ended, too.
        with pytest.raises(ConnectionError):
            await Importer(there.client.js).add(original.header, breaks_off(), key("half"))
        await there.get("half").terminate()
        assert (await there.failed(there.get("half"))).status == "terminated"
        assert charged == [719_400, 0]


async def test_two_imports_of_the_same_do_not_write_into_one_history(
    nats_server: ServerFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the other one has written so far looks like an import that broke off: it is watched before it is removed."""
    begun, watched, done = anyio.Event(), anyio.Event(), anyio.Event()

    class Stalled(JetStream):
        async def publish_batch(self, messages: Sequence[BatchMessage], **options: Any) -> PubAck:
            begun.set()
            await watched.wait()
            return await super().publish_batch(messages, **options)

    async def sleep(_seconds: float) -> None:
        watched.set()
        await done.wait()

    app = an_app(tmp_path)
    async with two_meshes(nats_server, app) as (here, there):
        handle = await here.start("order", 1, id="order-1")
        await handle.signal("decision", "yes")
        await handle.result(timeout_s=TIMEOUT_S)
        original = await recorded(here, "order-1")
        monkeypatch.setattr("mesh.importing.anyio", SimpleNamespace(sleep=sleep))

        async def first() -> None:
            await Importer(Stalled(there.client.conn)).add(original.header, iter(original.events), handle.key)
            done.set()

        with anyio.fail_after(TIMEOUT_S):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(first)
                await begun.wait()
                with pytest.raises(AlreadyImported):
                    await imported(there, original)
        assert told(await recorded(there, "order-1")) == told(original)


def a_header(**fields: Any) -> HistoryHeader:
    given: dict[str, Any] = {"queue": QUEUE, "id": "x", "run": 5, "type": "app:order", "host": "", "status": "completed",
             "exported": "", "events": 2}  # fmt: skip
    return HistoryHeader(**(given | fields))


START = Event("start", "x", 5, 1, [], StartSpec("app:order").encode(), None)
END = Event("end", "x", 6, 2, ["5"], b"", None)


@pytest.mark.parametrize(
    ("header", "events", "message"),
    [
        (a_header(), [], "its first event is not the start of the run"),
        (a_header(run=4), [START, END], "its first event is not the start of the run"),
        (a_header(), [START, END._replace(args=["4"])], r"it says that it has ended \(completed\), but its last event"),
        (a_header(status="running"), [START, END], "it says that it has not ended, but its last event is the end"),
    ],
)
async def test_what_is_no_history_leaves_nothing_behind(
    nats_server: ServerFactory, tmp_path: Path, header: HistoryHeader, events: list[Event], message: str
) -> None:
    """A file may have been edited."""
    async with a_mesh(nats_server().url, an_app(tmp_path)) as mesh:
        with pytest.raises(CannotImport, match=message):
            await Importer(mesh.client.js).add(header, iter(events), key("x"), resume=True)
        assert await messages(mesh) == 0
        assert charged == []


async def test_a_header_of_an_import_does_not_move_the_clock_of_a_workflow(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    """Who may send signals may set headers: times are taken from events of the import alone that the start is of."""
    source = "return function() process.inbox():receive() return time.now():unix_nano() end"
    app = write_app(tmp_path, workflows={"clock": source})
    async with a_mesh(nats_server().url, app) as mesh:
        handle = await mesh.start("clock", id="w")
        forged = {HEADER_IMPORTED: f"0123456789abcdef {2_000_000_000 * 10**9}"}
        ack = await mesh.client.js.publish(handle.key.subject("signal", "go"), b"1", headers=forged)
        stored = await mesh.client.js.get_seq("WF_orders", ack.seq)
        assert stored is not None
        assert import_of(stored.raw_headers) is not None
        assert (await recorded(mesh, "w")).events[-1].at_ns != 2_000_000_000 * 10**9
        now_ns = await handle.result(timeout_s=TIMEOUT_S)
        assert abs(now_ns - stored.timestamp_ns) < 1_000_000


async def test_the_commands_carry_histories_through_files(nats_server: ServerFactory, tmp_path: Path) -> None:
    """As they are typed: out of one mesh, into another one, and looked at there."""
    app = an_app(tmp_path / "app")
    async with two_meshes(nats_server, app) as (here, there):
        for workflow_id in ("order-1", "order-2"):
            handle = await here.start("order", workflow_id, id=workflow_id)
            await handle.signal("decision", "yes")
            await handle.result(timeout_s=TIMEOUT_S)
        await here.start("order", 3, id="open")
        url, other = here.client.conn.address, there.client.conn.address
        file = tmp_path / "all.jsonl.gz"

        done = await typed("export", "--all", "--status", "completed", "-o", str(file), url=url)
        assert (done.status, done.out, done.err) == (0, "", f"wrote 2 histories of 8 events to {file}\n")
        assert [history.header.id for history in load_histories(file)] == ["order-1", "order-2"]
        done = await typed("import", str(file), "--json", url=other)
        assert done.status == 0, done.err
        assert done.err == "imported 2 histories of 8 events\n"
        first = json.loads(done.out.splitlines()[0])
        original = await recorded(here, "order-1")
        assert first == {
            "id": "order-1", "queue": "orders", "run": (await recorded(there, "order-1")).run, "type": "app:order",
            "status": "completed", "events": 4,
            "origin": {"id": "order-1", "queue": "orders", "run": original.run},
        }  # fmt: skip
        # To standard output and from standard input, under another id.
        done = await typed("export", "order-1", url=url)
        done = await typed("import", "-", "--as", "copy", url=other, stdin=done.out)
        assert done.err == "imported 1 history of 4 events\n"
        assert told(await recorded(there, "copy")) == told(original)

        for arguments, status, message in (
            (["import", str(file)], 0, "imported 0 histories of 0 events, 2 were there already"),
            (["import", str(file), "--queue", "lost"], 1, "no queue 'lost'"),
            (["import", str(file), "--as", "third"], 2, "--as is for a file of one history; this one has more"),
            (["import", str(file), "--as", "third"], 2, "--as is for a file of one history; this one has more"),
            (
                ["import", str(tmp_path / "none")],
                2,
                f"there is no file {tmp_path / 'none'}; `mesh export --all -o FILE`",
            ),
            (["export", "order-9"], 1, "no workflow 'order-9' on any queue (orders); did you mean order-"),
        ):
            done = await typed(*arguments, url=other if arguments[0] == "import" else url)
            assert done.status == status, done.err
            assert message in done.err
        with new_history_file(file) as opened:
            open_one = await recorded(here, "open")
            dump_history(opened, open_one.header, open_one.events)
        done = await typed("import", str(file), url=other)
        assert "it has not ended; with --resume it goes on in this mesh" in done.err


LIMITED = """
accounts { MESH { jetstream: enabled, users: [
  {user: node, password: p}
  {user: starter, password: p, permissions: {
    publish: {deny: ["mesh.wf.*.*.end.>", "$JS.API.STREAM.MSG.DELETE.>", "$JS.API.STREAM.PURGE.>"]}}}
] } }
"""


async def test_who_may_start_and_not_end_imports_nothing_and_is_told_so(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    app = write_app(
        tmp_path / "app", workflows={"order": "return function() return process.inbox():receive():topic() end"}
    )
    url = nats_server(config=LIMITED).url
    node, starter = (url.replace("nats://", f"nats://{name}:p@") for name in ("node", "starter"))
    async with a_mesh(node, app) as mesh:
        handle = await mesh.start("order", 1, id="order-1")
        await handle.signal("decision", "yes")
        await handle.result(timeout_s=TIMEOUT_S)
        file = str(tmp_path / "order-1.jsonl")
        assert (await typed("export", "order-1", "-o", file, url=node)).status == 0
        refused = await typed("import", file, "--as", "copy", url=starter)
        assert (refused.status, "import it as one who may" in refused.err) == (1, True), refused.err
        # What was begun is no history: ended by hand, it is not taken for the whole one.
        assert (await typed("terminate", "copy", url=node)).status == 0
        with pytest.raises(WorkflowFailed):
            await mesh.client.get("copy", queue="orders").result(timeout_s=TIMEOUT_S)
        again = await typed("import", file, "--as", "copy", url=node)
        assert (again.status, "broke off and was then ended (terminated)" in again.err) == (1, True), again.err
        assert (await typed("import", file, "--as", "other", url=node)).status == 0
