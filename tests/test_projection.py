"""Lists of workflows: what events do to them, how they are kept from the streams, and that they are right afterwards."""

from __future__ import annotations

import json
import os
import resource
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest

import mesh.client
import store.projecting
from mesh import codec
from mesh.client import Client
from mesh.errors import Disconnected
from mesh.events import EndRecord, Event, StartSpec
from mesh.imported import HEADER_IMPORTED
from mesh.listing import BadQuery, Count, ListQuery
from mesh.lists import NoProjection
from mesh.subjects import WorkflowKey, stream_name
from mesh.wire import encode_headers, parse_headers
from store.projecting import Projecting
from store.projection import VALUES_CHARACTERS_MAX, Projection, open_projection
from store.projection_file import ProjectionBlocked, ProjectionDamaged, ProjectionInUse
from store.runs import SEARCHED_CHARACTERS_MAX, searched
from store.streams import ensure_queue
from tests.apps import QUEUE, TIMEOUT_S, Mesh, a_mesh, key, write_app
from tests.conftest import ServerFactory
from tests.waiting import wait_until, wait_until_async

NOW_NS = 1_800_000_000_000_000_000
SECOND_NS = 1_000_000_000
HOUR_NS = 3600 * SECOND_NS


@dataclass
class Told:
    """Events in the order of a stream, made up."""

    events: list[Event] = field(default_factory=list)
    seq: int = 0
    now_ns: int = NOW_NS - HOUR_NS

    def _add(self, kind: str, id: str, args: list[str], data: bytes, step_s: float = 1.0) -> int:
        self.seq += 1
        self.now_ns += int(step_s * SECOND_NS)
        self.events.append(Event(kind, id, self.seq, self.now_ns, args, data, None))
        return self.seq

    def start(self, id: str, type: str = "app:order", *, after_s: float = 1.0, **spec: Any) -> int:
        return self._add("start", id, [], StartSpec(workflow=type, **spec).encode(), after_s)

    def end(self, id: str, run: int, status: str = "completed", *, after_s: float = 1.0) -> int:
        return self._add("end", id, [str(run)], EndRecord(status).encode(), after_s)

    def attrs(self, id: str, run: int, search: Mapping[str, Any], memo: Mapping[str, Any] | None = None) -> int:
        return self._add("attrs", id, [str(run)], codec.encode({"search": search, "memo": memo or {}}))

    def into(self, projection: Projection, queue: str = QUEUE, *, at_once: int = 1000) -> None:
        projection.begin(queue, "created")
        for first in range(0, len(self.events), at_once):
            batch = self.events[first : first + at_once]
            projection.take_in(queue, batch, batch[-1].seq, batch[-1].at_ns)


def _listed(projection: Projection, **query: Any) -> list[Mapping[str, Any]]:
    return list(projection.page(ListQuery(**query), NOW_NS).workflows)


def _ids(projection: Projection, where: str = "", **query: Any) -> list[str]:
    return [str(record["id"]) for record in _listed(projection, where=where, **query)]


def _told(told: Told, *, at_once: int = 1000) -> Projection:
    projection = open_projection(None)
    told.into(projection, at_once=at_once)
    return projection


class TestRunsAndEvents:
    """The same rules as the owner's, whatever the batches are."""

    @pytest.mark.parametrize("at_once", [1, 2, 1000])
    def test_first_in_the_order_of_the_stream_wins(self, at_once: int) -> None:
        """A second start, an end of an older run and a second end change nothing."""
        told = Told()
        first = told.start("a", attrs={"n": 1})
        ignored = told.start("a", "app:other")
        told.end("a", ignored)
        told.end("a", first, "failed")
        told.end("a", first, "completed")
        told.end("never-started", 1)
        (only,) = _listed(_told(told, at_once=at_once))
        assert (only["id"], only["run"], only["type"], only["status"]) == ("a", first, "app:order", "failed")
        assert only["duration_s"] == 3.0

    @pytest.mark.parametrize("at_once", [1, 1000])
    def test_an_import_that_was_begun_anew_is_listed_as_it_ended(self, at_once: int) -> None:
        """The start of the one that broke off has been removed; whoever follows the stream may have seen it before."""
        told = Told()
        runs = [told.start("copy"), told.start("copy")]
        imported = encode_headers({HEADER_IMPORTED: "a 7"})
        told.events = [event._replace(raw_headers=imported) for event in told.events]
        told.end("copy", runs[1])
        projection = _told(told, at_once=at_once)
        (only,) = _listed(projection)
        assert (only["run"], only["status"]) == (runs[1], "completed")
        projection.remove(QUEUE, "copy", runs[1])
        assert len(_listed(projection, all_runs=True)) == 1

    @pytest.mark.parametrize("at_once", [1, 1000])
    def test_a_start_that_says_it_is_an_import_does_not_close_a_run_that_began_here(self, at_once: int) -> None:
        """Its owner ignores it like any other; who may start workflows may write that header."""
        told = Told()
        run = told.start("a")
        told.start("a")
        told.events[-1] = told.events[-1]._replace(raw_headers=encode_headers({HEADER_IMPORTED: "a 7"}))
        (only,) = _listed(_told(told, at_once=at_once), all_runs=True)
        assert (only["run"], only["status"]) == (run, "running")

    @pytest.mark.parametrize("at_once", [1, 3, 1000])
    def test_runs_that_go_on_are_listed_as_their_newest_one(self, at_once: int) -> None:
        """Continued and retried runs are history; an id that is used again is one workflow."""
        told = Told()
        runs: list[int] = []
        for status in ("continued", "retried", "completed"):
            runs.append(told.start("a", attempt=len(runs) + 1))
            told.end("a", runs[-1], status)
        runs.append(told.start("a", "app:again"))
        projection = _told(told, at_once=at_once)
        (newest,) = _listed(projection)
        assert (newest["run"], newest["status"], newest["ended"], newest["duration_s"]) == (
            runs[-1],
            "running",
            None,
            None,
        )
        every = _listed(projection, all_runs=True, order="started")
        assert [(r["run"], r["status"], r["attempt"]) for r in every] == [
            (runs[0], "continued", 1), (runs[1], "retried", 2), (runs[2], "completed", 3), (runs[3], "running", 1),
        ]  # fmt: skip
        assert projection.counts() == (Count("running", "app:again", QUEUE, 1),)
        assert sum(count.workflows for count in projection.counts(all_runs=True)) == 4

    def test_newest_record_of_attributes_replaces_those_of_the_start(self) -> None:
        """Also when it comes after the end; what belongs to an older run is ignored."""
        told = Told()
        old = told.start("a", attrs={"customer": "c-0"})
        told.end("a", old, "continued")
        run = told.start("a", attrs={"customer": "c-1", "gone": True}, memo={"note": "x"})
        told.attrs("a", run, {"customer": "c-2", "tags": ["eu", "gold", "eu"]})
        told.end("a", run)
        told.attrs("a", run, {"customer": "c-3", "tags": ["eu", "gold"]}, {"note": "y"})
        told.attrs("a", run + 1, {"customer": "c-5"})
        projection = _told(told, at_once=2)
        (record,) = _listed(projection)
        assert record["attrs"] == {"customer": "c-3", "tags": ["eu", "gold"]}
        assert record["memo"] == {"note": "y"}
        assert _ids(projection, "attrs.customer = c-3 and attrs.tags = gold and memo.note = y") == ["a"]
        assert _ids(projection, "attrs.customer in (c-1, c-2, c-4, c-5) or attrs.gone = true or memo.note = x") == []

    @pytest.mark.parametrize("at_once", [1, 2, 1000])
    def test_attributes_of_a_run_are_its_own_when_the_next_has_begun_already(self, at_once: int) -> None:
        """The owner writes what the code said last after the end, and a run that goes on begins with that."""
        told = Told()
        first = told.start("a", attrs={"step": 0})
        told.attrs("a", first, {"step": 1})
        told.end("a", first, "continued")
        second = told.start("a", attrs={"step": 2})
        told.attrs("a", first, {"step": 3})
        told.attrs("a", second + 100, {"step": 4})
        told.attrs("a", first - 1, {"step": 5})
        told.end("a", second)
        projection = _told(told, at_once=at_once)
        listed = _listed(projection, all_runs=True, order="started")
        assert [(r["run"], r["status"], r["attrs"]) for r in listed] == [
            (first, "continued", {"step": 3}), (second, "completed", {"step": 2}),
        ]  # fmt: skip
        assert [r["run"] for r in _listed(projection, where="attrs.step = 3", all_runs=True)] == [first]
        assert _ids(projection, "attrs.step in (0, 1, 3, 4, 5)") == []
        assert _ids(projection) == ["a"]

    def test_start_that_cannot_be_read_is_listed(self) -> None:
        """Its owner ends it; somebody will look for it."""
        told = Told()
        told.events.append(Event("start", "a%20b", 7, NOW_NS, [], b"\xc1\xff", None))
        (record,) = _listed(_told(told))
        assert (record["id"], record["type"]) == ("a b", "?")

    def test_values_that_sqlite_or_json_cannot_hold_are_listed_all_the_same(self) -> None:
        """Numbers beyond 64 bits, no numbers, bytes that are no text: somebody may send them."""
        told = Told()
        attrs = {"big": 2**64 - 1, "nan": float("nan"), "inf": [float("-inf")], "b\udcff": "x\udcff", "raw": b"\xff"}
        told.start("a%FF", "t\udcfe", attrs=attrs, memo={"long": "x" * VALUES_CHARACTERS_MAX}, attempt=2**63 - 1)
        projection = _told(told)
        (record,) = _listed(projection)
        assert (record["id"], record["type"], record["attempt"]) == ("a\\udcff", "t\\udcfe", 2**63 - 1)
        # Looked for as they were written, too: whoever has such an id has it from there.
        assert _ids(projection, "id = 'a\udcff' and attrs.b\udcff = x\udcff", type="t\udcfe") == ["a\\udcff"]
        assert _ids(projection, "id like a\udcff*", id="a\udcff") == ["a\\udcff"]
        assert record["memo"] is None
        assert record["attrs"]["big"] == 2**64 - 1
        assert (record["attrs"]["nan"], record["attrs"]["inf"]) == ("NaN", ["-Infinity"])
        json.dumps(record, allow_nan=False).encode()
        assert _ids(projection, "attrs.big > 1e19 and attrs.big = 18446744073709551615") == ["a\\udcff"]

    def test_values_that_nobody_can_look_for_are_left_out(self) -> None:
        """Tables, texts without end, what is no number; a list counts by its elements, each once."""
        long = "x" * (SEARCHED_CHARACTERS_MAX + 1)
        values = {"t": {"a": 1}, "long": long, "nan": float("nan"), "l": [1, 1.0, True, "1", [2]], "big": 2**64 - 1}
        assert list(searched(values)) == [("l", 1), ("l", 1.0), ("l", True), ("l", "1"), ("big", float(2**64 - 1))]

    def test_attributes_that_python_holds_equal_replace_each_other(self) -> None:
        """1 is not true, and what is too long for a row is not nothing."""
        told = Told()
        run = told.start("a", attrs={"paid": 1, "x": float("nan")}, memo={"long": "x" * VALUES_CHARACTERS_MAX})
        told.attrs("a", run, {"paid": True, "x": "NaN"})
        projection = _told(told, at_once=1)
        (record,) = _listed(projection)
        assert (record["attrs"]["paid"] is True, record["memo"]) == (True, {})
        assert _ids(projection, "attrs.paid = true and attrs.x = NaN") == ["a"]
        assert _ids(projection, "attrs.paid = 1") == []

    def test_end_that_says_running_is_an_end(self) -> None:
        """Nobody who may publish one keeps a run open in the lists that is closed for its owner."""
        told = Told()
        told.end("a", told.start("a"), "running")
        assert [(r["status"], r["ended"] is None) for r in _listed(_told(told))] == [("failed", False)]

    def test_page_stays_below_the_limit_of_a_message_whatever_the_names_are(self) -> None:
        """It would be refused otherwise, and with it every page that has these workflows."""
        told = Told()
        for number in range(40):
            told.start(f"w{number}", "app:" + "x" * 100_000, memo={"note": "\u4e16" * 16_000})
        projection = _told(told)
        page = projection.page(ListQuery(), NOW_NS)
        assert len(json.dumps(page.to_wire(), ensure_ascii=False).encode()) < 500_000
        assert len(page.workflows) > 1
        assert page.next

    def test_file_that_is_made_is_for_its_owner_alone(self, tmp_path: Path) -> None:
        """What is encrypted everywhere else stands in it as it is."""
        projection = open_projection(tmp_path / "list.db")
        modes = {file.name: file.stat().st_mode & 0o077 for file in tmp_path.glob("list.db*")}
        projection.close()
        assert {name for name, mode in modes.items() if mode and not name.endswith(".lock")} == set()
        assert {"list.db", "list.db-wal"} <= set(modes)

    def test_what_a_full_disk_refused_is_written_later_with_its_types_and_names(self, tmp_path: Path) -> None:
        """The disk is full when a transaction is committed; what was new in it is not known from then on."""
        file = tmp_path / "p.sqlite3"
        projection = open_projection(file)
        told = Told()
        for number in range(100):
            told.start(f"w{number}", f"app:type{number}", attrs={f"name{number}": number})
        projection.begin(QUEUE, "created")
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(f"{file}-wal") + 4096, before[1]))
        try:
            with pytest.raises(ProjectionBlocked):
                told.into(projection)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        told.into(projection)
        assert len(_ids(projection, limit=1000)) == 100
        assert len(projection.counts()) == 100
        assert _ids(projection, "attrs.name7 = 7 and type = app:type7") == ["w7"]
        projection.close()


async def _until_kept(projecting: Projecting, behind: int = 0) -> None:
    await wait_until(lambda: projecting.is_caught_up() and projecting.lag().messages == behind)


@asynccontextmanager
async def _kept(client: Client, path: Path | None) -> AsyncIterator[Projecting]:
    """A projection of a server's streams that has caught up."""
    projecting = Projecting(client.conn, client.js, path)
    async with anyio.create_task_group() as tasks:
        await tasks.start(projecting.run)
        await _until_kept(projecting)
        yield projecting
        tasks.cancel_scope.cancel()


async def _all(projecting: Projecting, **query: Any) -> dict[str, str]:
    page = await projecting.list(ListQuery(**query))
    return {str(record["id"]): str(record["status"]) for record in page.workflows}


class TestKeeping:
    """From the streams of a real server, and again from there."""

    @pytest.fixture(autouse=True)
    def _quick(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is done every few seconds is done often."""
        monkeypatch.setattr(store.projecting, "QUEUES_EVERY_S", 0.05)
        monkeypatch.setattr(store.projecting, "SWEEP_EVERY_S", 0.05)

    async def test_is_made_from_the_streams_and_again_when_it_is_lost_or_damaged(
        self, nats_server: ServerFactory, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """What a node does when its file is gone, is nonsense, or is of a stream that is no longer that one."""
        file = tmp_path / "deep" / "projection.sqlite3"
        async with mesh.client.connect(nats_server().url) as client:
            await ensure_queue(client.js, "one", partitions=2)

            async def begin(queue: str, id: str) -> int:
                spec = StartSpec(workflow="app:w", attrs={"of": queue}).encode()
                return (await client.js.publish(WorkflowKey(queue, id).start(), spec)).seq

            async def end(queue: str, id: str, run: int) -> None:
                await client.js.publish(WorkflowKey(queue, id).end(run), EndRecord("completed").encode())

            runs = {id: await begin("one", id) for id in ("a", "b")}
            await end("one", "a", runs["a"])
            async with _kept(client, file) as kept:
                assert await _all(kept) == {"a": "completed", "b": "running"}
                await ensure_queue(client.js, "two", partitions=1)
                await begin("two", "c")
                await wait_until_async(lambda: _has(kept, {"a", "b", "c"}))
                with pytest.raises(ProjectionInUse, match="another process"):
                    open_projection(file)
            # It goes on from where it was: what is in the file already is not read again.
            await end("one", "b", runs["b"])
            async with _kept(client, file) as kept:
                assert await _all(kept) == {"a": "completed", "b": "completed", "c": "running"}
                assert kept.progress().taken_in == 1
                # A stream made anew, and one that is gone.
                await client.js.delete_stream(stream_name("two"))
                await client.js.delete_stream(stream_name("one"))
                await ensure_queue(client.js, "one", partitions=2)
                await begin("one", "d")
                await wait_until_async(lambda: _has(kept, {"d"}))
            for damage in (b"no database", b"SQLite format 3\0" + b"\xff" * 5000):
                file.write_bytes(damage)
                async with _kept(client, file) as kept:
                    assert await _all(kept) == {"d": "running"}
            # The server has lost what was taken in: a run that the stream does not have, at a place it has not come to.
            with closing(sqlite3.connect(file)) as database, database:
                database.execute("UPDATE queues SET seq = seq + 1000")
                database.execute("UPDATE runs SET id = 'lost', run = 900")
            async with _kept(client, file) as kept:
                await wait_until_async(lambda: _has(kept, {"d"}))
                assert sum(count.workflows for count in await kept.counts()) == 1
            assert "its workflows are listed anew" in caplog.text
            assert len(list(file.parent.glob("*.damaged-*"))) >= 2
            assert "a new one is made from the streams" in caplog.text
            file.unlink()
            async with _kept(client, file) as kept:
                assert await _all(kept, where="attrs.of = one") == {"d": "running"}
                assert (await kept.list(ListQuery())).lag.messages == 0

    async def test_a_list_that_cannot_be_made_anew_is_tried_again(
        self,
        nats_server: ServerFactory,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Damage, and then a disk that takes no new file: the node that keeps the list has workflows to run."""
        monkeypatch.setattr(store.projecting, "BLOCKED_AGAIN_S", 0.05)
        file, lock = tmp_path / "p.sqlite3", tmp_path / "p.sqlite3.lock"
        async with mesh.client.connect(nats_server().url) as client:
            await ensure_queue(client.js, QUEUE, partitions=2)
            await client.js.publish(key("a").start(), StartSpec(workflow="app:w").encode())
            async with _kept(client, file) as kept:
                with sqlite3.connect(file) as other:
                    other.execute("DROP TABLE sums")
                lock.unlink()
                lock.mkdir()
                with pytest.raises(ProjectionDamaged, match="no such table"):
                    await kept.counts()
                await wait_until(lambda: "it is tried again in" in caplog.text)
                with pytest.raises(Disconnected, match="ask again"):
                    await kept.counts()
                lock.rmdir()
                await _until_kept(kept)
                assert await _all(kept) == {"a": "running"}

    async def test_workflows_that_were_purged_are_forgotten(self, nats_server: ServerFactory) -> None:
        """At once when it is said; by and by when nobody said so; never while the stream has them."""
        async with mesh.client.connect(nats_server().url) as client:
            await ensure_queue(client.js, QUEUE, partitions=2)
            runs = {}
            for id in "abcd":
                spec = StartSpec(workflow="app:w").encode()
                runs[id] = (await client.js.publish(key(id).start(), spec)).seq
                await client.js.publish(key(id).end(runs[id]), EndRecord("completed").encode())
            again = (await client.js.publish(key("d").start(), spec)).seq
            async with _kept(client, None) as kept:
                await client.js.purge(stream_name(QUEUE), subject=key("b").stored("*", ">"))
                client.conn.publish_nowait(key("b").note("purged"))
                client.conn.publish_nowait(key("c").note("purged"))  # not true
                await wait_until_async(lambda: _has(kept, {"a", "c", "d"}))
                # Nobody says anything: the stream begins later, and one in its middle is missing.
                await client.js.purge(stream_name(QUEUE), subject=key("a").stored("*", ">"))
                await client.js.purge(stream_name(QUEUE), subject=key("c").stored("*", ">"))
                await wait_until_async(lambda: _has(kept, {"d"}))
                assert sum(count.workflows for count in await kept.counts()) == 1
                assert [r["run"] for r in (await kept.list(ListQuery(id="d"))).workflows] == [again]


async def _has(projecting: Projecting, ids: set[str]) -> bool:
    return set(await _all(projecting)) == ids


SAYS: str = """
return function(customer)
  workflow.attrs({search = {customer = customer, tags = {"new"}}})
  local order = funcs.call("app:price")
  workflow.attrs({search = {total = order}, memo = {note = "priced"}})
  process.inbox():receive()
  workflow.attrs({search = {total = order}})
  return "done"
end
"""
ASKS_OTHERWISE: str = """
return function()
  funcs.call("app:weigh")
  process.inbox():receive()
end
"""
FUNCTIONS: dict[str, str | Mapping[str, Any]] = {
    "price": "return function() return 12.5 end", "weigh": "return function() return 1 end",
}  # fmt: skip


class TestOnNodes:
    """What nodes make of it: attributes that code says, suspended runs, answers to requests."""

    @pytest.fixture(autouse=True)
    def _quick(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(store.projecting, "QUEUES_EVERY_S", 0.05)

    async def test_what_code_says_of_itself_is_recorded_once_and_listed(
        self, nats_server: ServerFactory, tmp_path: Path
    ) -> None:
        """The record is replaced, counts for nothing in the run, and is written again when it is missing."""
        app = write_app(tmp_path / "app", workflows={"says": SAYS}, functions=FUNCTIONS)
        url = nats_server().url
        file = tmp_path / "projection.sqlite3"
        async with a_mesh(url, app, projection=file) as one:
            for id in ("a", "b"):
                await one.start("says", f"c-{id}", id=id, memo={"note": "new", "by": id})

            async def priced(mesh: Mesh) -> list[str]:
                found = mesh.client.list("attrs.total > 12 and attrs.tags = new", status="running", order="id")
                return [str(record["id"]) async for record in found]

            await wait_until_async(lambda: _equal(priced(one), ["a", "b"]))
            (page,) = [await one.client.page(ListQuery(id="a"))]
            (record,) = page.workflows
            assert record["attrs"] == {"customer": "c-a", "tags": ["new"], "total": 12.5}
            assert record["memo"] == {"note": "priced", "by": "a"}
            assert sorted(await one.kinds("a")) == ["attrs", "ret", "start"]
            before = await one.get("a").describe()
            # As if the owner had died before it could write it.
            stored = key("b").stored("*", "attrs", "*")
            await one.client.js.purge(stream_name(QUEUE), subject=stored)
        async with a_mesh(url, app, node_id="b", projection=file) as two:
            await two.get("b").signal("go", 1)
            assert await two.get("b").result(timeout_s=TIMEOUT_S) == "done"
            after = await two.get("a").describe()
            assert after.detail.get("length") == before.detail.get("length")
            kinds = await two.kinds("b")
            assert sorted(kinds) == ["attrs", "end", "ret", "signal", "start"]
            await wait_until_async(lambda: _equal(priced(two), ["a"]))
            assert await two.client.count("status") == [
                {"status": "completed", "workflows": 1}, {"status": "running", "workflows": 1},
            ]  # fmt: skip
            # What the code said last may be written after the end.
            await wait_until(lambda: two.node.status()["projection"] == {"messages": 0, "seconds": 0.0})
            projecting = two.node.projecting
            assert projecting is not None
            await wait_until(lambda: projecting.open_by_queue() == {QUEUE: 1})

    async def test_suspended_runs_are_listed_as_such_until_they_go_on(
        self, nats_server: ServerFactory, tmp_path: Path
    ) -> None:
        """Nothing of it is in the stream: the nodes are asked."""
        url = nats_server().url
        fitting = write_app(tmp_path / "fitting", workflows={"says": SAYS}, functions=FUNCTIONS)
        other = write_app(tmp_path / "other", workflows={"says": ASKS_OTHERWISE}, functions=FUNCTIONS)
        async with a_mesh(url, fitting) as one:
            await one.start("says", "c-1", id="a")
            await wait_until_async(lambda: _has_kind(one, "a", "ret"))
        file = tmp_path / "projection.sqlite3"
        async with a_mesh(url, other, node_id="b", projection=file) as two:
            await two.get("a").signal("go", 1)
            await wait_until_async(lambda: _equal(_statuses(two), {"a": "suspended"}))
            assert [r["id"] async for r in two.client.list("status = suspended and attrs.customer = c-1")] == ["a"]
            assert [r["id"] async for r in two.client.list(status="running")] == []
            assert await two.client.count("status") == [{"status": "suspended", "workflows": 1}]
        async with a_mesh(url, fitting, node_id="c", projection=file) as three:
            await wait_until_async(lambda: _equal(_statuses(three), {"a": "completed"}))

    async def test_requests_are_answered_in_json_and_errors_as_errors(
        self, nats_server: ServerFactory, tmp_path: Path
    ) -> None:
        """What `nats req mesh.api.list` shows; without a node that keeps a list nobody answers."""
        app = write_app(tmp_path / "app", workflows={"says": SAYS}, functions=FUNCTIONS)
        url = nats_server().url
        async with a_mesh(url, app, projection=tmp_path / "projection.sqlite3") as one:
            await one.start("says", "c-1", id="a")

            async def ask(verb: str, body: bytes) -> tuple[dict[str, Any], dict[str, str]]:
                reply = await one.client.conn.request(f"mesh.api.{verb}", body, timeout_s=15)
                return json.loads(reply.data), parse_headers(reply.raw_headers) if reply.raw_headers else {}

            running = b'{"status": "running", "where": "attrs.customer = c-1", "limit": 1}'

            async def is_listed() -> bool:
                return bool((await ask("list", running))[0]["workflows"])

            await wait_until_async(is_listed)  # its attributes are written after its start
            answer, headers = await ask("list", running)
            assert (answer["workflows"][0]["id"], answer["next"], headers) == ("a", None, {})
            counted = {"status": "running", "type": "app:says", "workflows": 1}
            assert (await ask("count", b""))[0]["counts"] == [counted]
            for verb, body, problem in (
                ("list", b'{"where": "id ="}', "where: expected a value after id =, at character 5"),
                ("list", b'{"stauts": "running"}', 'no field "stauts"; did you mean status?'),
                ("list", b"{", "the request is no"),
                ("count", b'{"by": "size"}', "by is one or several of status, type, queue"),
            ):
                answer, headers = await ask(verb, body)
                assert headers["Nats-Service-Error-Code"] == "400"
                assert headers["Nats-Service-Error"].startswith(problem)
                assert answer["error"]["message"].startswith(problem)
            with pytest.raises(BadQuery, match="no field 'x'"):
                await one.client.page(ListQuery(where="x = 1"))
        async with mesh.client.connect(url) as client:
            with pytest.raises(NoProjection, match="--projection FILE"):
                await client.page(ListQuery())


async def _equal(asked: Awaitable[Any], wanted: Any) -> bool:
    return bool(await asked == wanted)


async def _has_kind(mesh: Mesh, id: str, kind: str) -> bool:
    return kind in await mesh.kinds(id)


async def _statuses(mesh: Mesh) -> dict[str, str]:
    return {str(record["id"]): str(record["status"]) async for record in mesh.client.list()}
