"""Old histories are removed, and nothing that anybody still needs: decided from facts, then on real streams."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mesh.client
from mesh import codec
from mesh.client import Client
from mesh.errors import NotFound
from mesh.events import EndRecord, StartSpec
from mesh.membership import Claim
from mesh.subjects import untoken
from node.registry import EntryId, load_registry
from node.workflows.partition import Partition
from node.workflows.retention import PAGE_MESSAGES, Retention
from store.retention import EndFact, LookCloser, StartFact, Visited, next_look_s, removable_up_to, verdict
from store.streams import ensure_queue
from tests.apps import QUEUE, TIMEOUT_S, Mesh, a_mesh, key, write_app
from tests.cluster import a_node
from tests.conftest import ServerFactory
from tests.waiting import wait_until, wait_until_async

CUTOFF = 1000  # what happened at 999 is old, what happened at 1000 is not


# -- decisions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("visited", "start", "end", "expected"),
    [
        # ended long ago: all of it goes, up to its end and no further
        (Visited(5, 9), StartFact(5, 1), EndFact(5, 20, 999), 20),
        # and what is as old and came after it
        (Visited(5, 25), StartFact(5, 1), EndFact(5, 20, 999), 25),
        # the boundary: ended just now
        (Visited(5, 9), StartFact(5, 1), EndFact(5, 20, 1000), 0),
        # open
        (Visited(5, 9), StartFact(5, 1), None, 0),
        # no start any more, or never
        (Visited(5, 9), None, None, 9),
        # goes on as a run whose start is not there yet
        (Visited(5, 9), StartFact(5, 1), EndFact(5, 20, 999, goes_on=True), 0),
        # an end that stands before its run is not its end
        (Visited(5, 9), StartFact(5, 1), EndFact(5, 3, 999), 0),
        # something older than the newest run, which stays
        (Visited(4, 9), StartFact(5, 1), None, LookCloser()),
        (Visited(4, 9), StartFact(5, 1), EndFact(5, 20, 1000), LookCloser()),
        (Visited(4, 9), StartFact(5, 1), EndFact(5, 20, 999), 20),
    ],
)
def test_two_facts_tell_what_may_go_of_a_workflow(
    visited: Visited, start: StartFact | None, end: EndFact | None, expected: int | LookCloser
) -> None:
    """What most workflows are needs two look-ups; anything doubtful keeps everything."""
    assert verdict(visited, start, end, CUTOFF) == expected


@pytest.mark.parametrize(
    ("starts", "ends", "expected"),
    [
        # used again: the first run is over and old
        ([StartFact(5, 1), StartFact(30, 1)], [EndFact(5, 20, 999)], 20),
        ([StartFact(5, 1), StartFact(30, 1)], [EndFact(5, 20, 1000)], 4),
        # the second one has ended, too, but not long ago
        ([StartFact(5, 1), StartFact(30, 1)], [EndFact(5, 20, 1), EndFact(30, 40, 1000)], 20),
        ([StartFact(5, 1), StartFact(30, 1)], [EndFact(5, 20, 1), EndFact(30, 40, 999)], 40),
        # a second start while the first run is open began nothing
        ([StartFact(5, 1), StartFact(30, 1)], [], 4),
        ([StartFact(5, 1), StartFact(30, 1)], [EndFact(30, 40, 1)], 4),
        # continued: what came after 12 the second run has taken over
        ([StartFact(5, 1), StartFact(30, 1, since=12)], [EndFact(5, 20, 1, goes_on=True)], 12),
        ([StartFact(5, 1), StartFact(30, 1, since=12)], [EndFact(5, 20, 1, goes_on=True), EndFact(30, 40, 5)], 40),
        # reset: the second run rests on the first one
        ([StartFact(5, 1), StartFact(30, 1, base=5)], [EndFact(5, 20, 1)], 4),
        # and the third on the second, and so on the first; the one between has nothing to do with it
        (
            [StartFact(5, 1, since=2), StartFact(30, 1, base=5), StartFact(50, 1, base=30)],
            [EndFact(5, 20, 1), EndFact(30, 40, 1)],
            2,
        ),
        ([StartFact(5, 1), StartFact(30, 1), StartFact(50, 1, base=30)], [EndFact(5, 20, 1), EndFact(30, 40, 1)], 29),
        # two that name each other: somebody made that up
        ([StartFact(5, 1, base=30), StartFact(30, 1, base=5)], [EndFact(5, 20, 1)], 4),
        # an end that was written twice, by two owners
        ([StartFact(5, 1)], [EndFact(5, 20, 999), EndFact(5, 21, 999)], 21),
        ([StartFact(30, 1)], [EndFact(5, 20, 1)], 29),
        ([], [EndFact(5, 20, 999), EndFact(5, 21, 1000)], 20),
        # the end says that another run follows, and there is none yet
        ([StartFact(5, 1)], [EndFact(5, 20, 1, goes_on=True)], 4),
    ],
)  # fmt: skip
def test_runs_that_are_kept_keep_what_they_rest_on(starts: list[StartFact], ends: list[EndFact], expected: int) -> None:
    """An open run, and one that people may still look at, is replayed from all that it was given."""
    assert removable_up_to(starts, ends, lambda _start, end: end.at_ns < CUTOFF) == expected


@given(st.lists(st.tuples(st.sampled_from("se"), st.integers(0, 30), st.integers(0, 30), st.booleans()), max_size=12),
       st.integers(0, 30))  # fmt: skip
def test_nothing_young_and_nothing_open_ever_goes(told: list[tuple[str, int, int, bool]], cutoff_seq: int) -> None:
    """Whatever nonsense starts and ends may be, the rule of which run is open decides."""
    starts, ends = [], []
    for seq, (kind, a, b, flag) in enumerate(told, 1):
        at_ns = seq * 10
        if kind == "s":
            starts.append(StartFact(seq, at_ns, since=a if a < seq else 0, base=b if b < seq else 0))
        else:
            ends.append(EndFact(a, seq, at_ns, goes_on=flag))
    cutoff_ns = cutoff_seq * 10
    up_to = removable_up_to(starts, ends, lambda _start, end: end.at_ns < cutoff_ns)

    open_run: StartFact | None = None
    kept: list[StartFact] = []
    facts: list[StartFact | EndFact] = sorted([*starts, *ends], key=lambda fact: fact.seq)
    for fact in facts:
        if isinstance(fact, StartFact):
            open_run = open_run or fact
        elif open_run is not None and fact.run == open_run.seq:
            if fact.at_ns >= cutoff_ns:
                kept.append(open_run)
            open_run = None
    kept += [open_run] if open_run is not None else []
    assert up_to >= 0
    assert all(run.seq > up_to for run in kept)
    assert all(run.since >= up_to for run in kept if run.since)
    assert all(run.base > up_to for run in kept if run.base)
    if not kept:
        assert all(end.seq > up_to for end in ends if end.at_ns >= cutoff_ns)


def test_the_next_look_is_when_something_becomes_due() -> None:
    """Between two sweeps nothing is asked."""
    second = 1_000_000_000
    assert next_look_s(40 * second, 100 * second, 70, shortest_s=1, longest_s=60) == 10
    assert next_look_s(30 * second, 100 * second, 70, shortest_s=1, longest_s=60) == 1
    assert next_look_s(None, 100 * second, 3600, shortest_s=1, longest_s=60) == 60
    assert next_look_s(None, 100 * second, 2, shortest_s=1, longest_s=60) == 2


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (604_800, 10_000, 10_485_760)),
        ({"retention": "0"}, (0, 10_000, 10_485_760)),
        ({"retention": 0}, (0, 10_000, 10_485_760)),
        ({"retention": "36h", "history_events_warn": 50, "history_bytes_warn": "1.5MiB"}, (129_600, 50, 1_572_864)),
        ({"history_bytes_warn": 2048}, (604_800, 10_000, 2048)),
        ({"retention": "999ms"}, "retention must be at least 1s, or 0 to keep ended workflows for ever"),
        ({"retention": "7 days"}, "retention must be a duration"),
        ({"history_bytes_warn": "much"}, "must be a number of bytes or a size such as 10MiB, not 'much'"),
        ({"history_bytes_warn": -1}, "must not be negative, not -1"),
    ],
)
def test_a_worker_says_how_long_its_workflows_are_kept(
    tmp_path: Path, options: dict[str, Any], expected: tuple[float, int, int] | str
) -> None:
    """What cannot be meant is told when the app is checked, not after the histories have gone."""
    registry = load_registry(write_app(tmp_path, worker_options=options), environ={})
    if isinstance(expected, str):
        assert [problem.reason for problem in registry.problems if expected in problem.reason]
    else:
        read = registry.workers()[EntryId("app:worker")].options
        assert (read.retention_s, read.history_events_warn, read.history_bytes_warn) == expected
        assert not registry.problems


# -- streams ---------------------------------------------------------------------------------------------------------


class Histories:
    """A queue without a node, in whose stream the tests write, and a sweep of it that takes all for old."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.js = client.js
        self.partitions: dict[int, Partition] = {}
        for number in range(4):
            self.partitions[number] = Partition(Claim(QUEUE, number, None, "i", 1, 0), (), handed_over=True)
            self.partitions[number].catchup = None
        self.retention = self.a_retention(0.000_001)

    def a_retention(self, retention_s: float) -> Retention:
        return Retention(
            conn=self.client.conn, js=self.js, may_act=lambda: True, queue=QUEUE, partitions=self.partitions,
            retention_s=retention_s,
        )  # fmt: skip

    async def write(self, workflow_id: str, *kind: str, data: bytes = b"x") -> int:
        return (await self.js.publish(key(workflow_id).subject(*kind), data)).seq

    async def start(self, workflow_id: str, **fields: Any) -> int:
        wire = codec.decode(StartSpec("app:wf").encode()) | fields
        return await self.write(workflow_id, "start", data=codec.encode(wire))

    async def end(self, workflow_id: str, run: int, next_start: bytes = b"") -> int:
        record = EndRecord("continued" if next_start else "completed", next_start=next_start)
        return await self.write(workflow_id, "end", str(run), data=record.encode())

    async def stored(self) -> list[tuple[int, str, str]]:
        """Everything in the stream: sequence, id, kind."""
        messages = await self.js.batch_get(self.client.history(QUEUE).stream)
        parts = [(message.seq, message.subject.split(".")) for message in messages]
        return [(seq, untoken(p[4]), ".".join(p[5:] if p[1] == "log" else p[1:2] + p[5:])) for seq, p in parts]


@asynccontextmanager
async def histories(url: str) -> AsyncIterator[Histories]:
    async with mesh.client.connect(url) as client:
        await ensure_queue(client.js, QUEUE, partitions=4)
        yield Histories(client)


async def test_what_nobody_needs_goes_and_all_else_stays_exactly(nats_server: ServerFactory) -> None:
    """Whatever is in a stream: the contents after a sweep are known to the message."""
    async with histories(nats_server().url) as h:
        notes: list[tuple[str, bytes]] = []
        h.client.conn.subscribe_direct("mesh.note.>", lambda subject, _r, data, _h: notes.append((subject, data)))
        kept: list[tuple[int, str, str]] = []

        # Over, with a timer that was left, and what came after its end.
        run = await h.start("over")
        await h.write("over", "ret", str(run), "1", "1", "ab")
        partition = await h.client.history(QUEUE).partition_of(key("over"))
        assert partition is not None
        timer = key("over").schedule(partition, run, "timeout")
        target = {
            "Nats-Schedule": "@at 2199-01-01T00:00:00Z",
            "Nats-Schedule-Target": f"{key('over').subject('tick')}.1",
        }
        await h.js.publish(timer, b"", headers=target)
        await h.end("over", run)
        await h.write("over", "ret", str(run), "2", "1", "ab")
        await h.write("over", "attrs", str(run))
        over = run
        # Open, with a timer.
        run = await h.start("open")
        kept += [(run, "open", "start"), (await h.write("open", "signal", "go"), "open", "signal.go")]
        timer = key("open").schedule(await h.client.history(QUEUE).partition_of(key("open")) or 0, run, "3")
        kept.append(((await h.js.publish(timer, b"", headers=target)).seq, "open", f"at.{run}.3"))
        # Used again.
        run = await h.start("again")
        await h.end("again", run)
        kept.append((await h.start("again"), "again", "start"))
        # Continued: a message that the first run did not take is the second one's.
        run = await h.start("chain")
        since = await h.write("chain", "signal", "read")
        kept.append((await h.write("chain", "signal", "unread"), "chain", "signal.unread"))
        kept.append((await h.end("chain", run, b"next"), "chain", f"end.{run}"))
        kept.append((await h.start("chain", since=since), "chain", "start"))
        # Continued, and the next run was never started.
        run = await h.start("half")
        kept += [(run, "half", "start"), (await h.end("half", run, b"next"), "half", f"end.{run}")]
        # Reset.
        first = await h.start("reset")
        await h.end("reset", first)
        base = await h.start("reset")
        kept += [(base, "reset", "start"), (await h.write("reset", "signal", "go"), "reset", "signal.go")]
        kept.append((await h.end("reset", base), "reset", f"end.{base}"))
        kept.append((await h.start("reset", base=[base, base + 1, 0]), "reset", "start"))
        # Never started; and an id that is not written our way, which is not that of the open workflow.
        await h.write("never", "signal", "go")
        await h.js.publish(f"mesh.wf.{QUEUE}.o%70en.signal.go", b"x")

        assert await h.retention.sweep() <= 60
        assert await h.stored() == sorted(kept)
        assert h.retention.purged == 4  # over, again, chain, reset
        await h.client.conn.flush()
        await wait_until(lambda: len(notes) == 4)
        assert (key("over").note("purged"), str(over).encode()) in notes

        # And once more, from the beginning: nothing changes.
        await h.a_retention(0.000_001).sweep()
        assert await h.stored() == sorted(kept)
        # When the runs that needed it have ended, it goes with them.
        for workflow_id in ("open", "again", "chain", "reset"):
            found = await h.client.history(QUEUE).open_run(key(workflow_id))
            assert found is not None
            await h.end(workflow_id, found.run)
        await h.retention.sweep()
        assert {workflow_id for _, workflow_id, _ in await h.stored()} == {"half"}


async def test_a_workflow_is_kept_for_the_time_that_was_set(nats_server: ServerFactory) -> None:
    """The walk ends at what is young, remembers where, and says when to come back."""
    async with histories(nats_server().url) as h:
        for i in range(3):
            await h.end(f"w-{i}", await h.start(f"w-{i}"))
        before = await h.stored()
        retention = h.a_retention(3600)
        assert await retention.sweep() == 60
        assert await h.stored() == before
        short = h.a_retention(0.3)
        assert await short.sweep() <= 0.3
        await wait_until_async(lambda: swept(short, h, []))
        assert short.purged == 3


async def swept(retention: Retention, h: Histories, expected: list[tuple[int, str, str]]) -> bool:
    await retention.sweep()
    return await h.stored() == expected


async def test_many_pages_and_ids_with_thousands_of_runs_are_walked(nats_server: ServerFactory) -> None:
    """A page ends in the middle of a workflow; a chain has more ends than one look-up of the server may answer with."""
    async with histories(nats_server().url) as h:
        async with mesh.client.connect(h.client.conn.address) as other:
            for _ in range(3):
                for i in range(2 * PAGE_MESSAGES):
                    other.conn.publish_nowait(key(f"w-{i}").subject("signal", "go"), b"x")
            await other.conn.flush()
        for i in range(2 * PAGE_MESSAGES):
            if i % 2:
                await h.end(f"w-{i}", await h.start(f"w-{i}"))
        for _ in range(1100):
            await h.end("chain", await h.start("chain"))
        last = await h.start("chain")
        await h.retention.sweep()
        assert await h.stored() == [(last, "chain", "start")]


# -- meshes ----------------------------------------------------------------------------------------------------------

WAITS = "return function() return process.inbox():receive():payload():data() end"


async def test_a_mesh_removes_what_ended_and_goes_on_with_all_else(nats_server: ServerFactory, tmp_path: Path) -> None:
    """With a worker's own setting, by its owners, while they work."""
    app = write_app(
        tmp_path / "app",
        workflows={"quick": "return function(x) return funcs.call('app:one', x) end", "waits": WAITS,
                   "rounds": "return function(n) local m = process.inbox():receive() "
                             "if n > 0 then process.upgrade(nil, n - 1) end return m:payload():data() end"},
        functions={"one": "return {main = function(x) return x end}"},
        worker_options={"retention": "1s"},
    )  # fmt: skip
    async with a_mesh(nats_server().url, app) as mesh_:
        for i in range(20):
            assert await mesh_.run("quick", i, id=f"quick-{i}") == i
        await mesh_.start("waits", id="open")
        rounds = await mesh_.start("rounds", 3, id="rounds")
        history = mesh_.client.history(QUEUE)

        async def goes_on_after(run: int) -> bool:
            found = await history.open_run(rounds.key)
            return found is not None and found.run > run

        for i in range(3):
            now = await history.open_run(rounds.key)
            await rounds.signal("go", i)
            await wait_until_async(functools.partial(goes_on_after, now.run if now is not None else 0))
        await mesh_.client.js.publish(key("lost").start(), StartSpec("app:nothing", entropy=b"x").encode())
        await wait_until(lambda: mesh_.statistics()["suspended"] == 1)
        await mesh_.run("quick", 1, id="used")
        await mesh_.start("waits", id="used")

        async def only_open() -> bool:
            starts = await mesh_.client.js.batch_get("WF_orders", subject_filter="mesh.log.orders.*.*.start")
            return sorted(untoken(start.subject.split(".")[4]) for start in starts) == [
                "lost", "open", "rounds", "used",
            ]  # fmt: skip

        await wait_until_async(only_open)
        # The rounds one by one, or several at a time.
        await wait_until(lambda: mesh_.statistics()["purged"] >= 22)
        with pytest.raises(NotFound):
            await mesh_.get("quick-1").describe()
        for workflow_id in ("open", "used", "rounds"):
            await mesh_.get(workflow_id).signal("go", workflow_id)
            assert await mesh_.get(workflow_id).result(timeout_s=TIMEOUT_S) == workflow_id
        # An id that was forgotten is new.
        assert await mesh_.run("quick", 7, id="quick-1", reuse="reject_duplicate") == 7


async def test_a_node_that_is_killed_in_a_sweep_has_another_one_finish_it(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    """A sweep rests on nothing but what is in the stream."""
    app = write_app(
        tmp_path / "app", workflows={"quick": "return function() return 1 end", "waits": WAITS},
        worker_options={"retention": "1s"},
    )  # fmt: skip
    url = nats_server().url
    async with a_node(app, url, node_id="a") as a, a_mesh(url, app, node_id="b", settled=False) as mesh_:
        client, seen = mesh_.client, anyio.Event()
        waiting = [await mesh_.start("waits", id=f"open-{i}") for i in range(5)]
        client.conn.subscribe_direct("mesh.note.*.*.purged", lambda *_: seen.set())
        for i in range(150):
            await mesh_.start("quick", id=f"quick-{i}")
        with anyio.fail_after(TIMEOUT_S):
            await seen.wait()
        a.kill()
        assert len(await client.js.subject_counts("WF_orders", "mesh.log.orders.>")) > 5

        async def only_open() -> bool:
            counts = await client.js.subject_counts("WF_orders", "mesh.log.orders.>")
            return sorted(subject.split(".", 4)[4] for subject in counts) == [f"open-{i}.start" for i in range(5)]

        await wait_until_async(only_open, timeout_s=TIMEOUT_S)
        for handle in waiting:
            await handle.signal("go", handle.id)
            assert await handle.result(timeout_s=TIMEOUT_S) == handle.id


def became_long(mesh_: Mesh) -> int:
    """How many histories a node has seen grow long."""
    return sum(counter.value for counter in mesh_.node.engines[QUEUE].witness.counts.history_warnings.values())


async def test_a_history_that_grows_long_is_told_once(
    nats_server: ServerFactory, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In the log, in the numbers, and to whoever looks at the workflow; a replay does not tell it again."""
    app = write_app(
        tmp_path / "app",
        workflows={"sums": "return function() local s = 0 while true do local m = process.inbox():receive() "
                           "if m:topic() == 'stop' then return s end s = s + m:payload():data() end end"},
        worker_options={"history_events_warn": 5},
    )  # fmt: skip
    url = nats_server().url
    async with a_mesh(url, app) as mesh_:
        handle = await mesh_.start("sums", id="long")
        for i in range(4):
            await handle.signal("add", i)
        assert (await handle.describe()).detail["history_warning"] == ""
        for i in range(4):
            await handle.signal("add", i)
        await wait_until(lambda: became_long(mesh_) == 1)
        warning = (await handle.describe()).detail["history_warning"]
        assert warning.startswith("the history is long: ")
        assert "limits 5, 10485760" in warning
    async with a_mesh(url, app, node_id="b") as mesh_:
        assert (
            (await mesh_.get("long").describe()).detail["history_warning"].startswith("the history is long: 9 events")
        )
        await mesh_.get("long").signal("add", 1)
        await mesh_.get("long").signal("stop")
        assert await mesh_.get("long").result(timeout_s=TIMEOUT_S) == 13
        assert became_long(mesh_) == 0
    told = [record for record in caplog.records if "is long" in record.getMessage()]
    assert [(record.levelname, *(record.__dict__[name] for name in ("queue", "pid", "events"))) for record in told] == [
        ("WARNING", "orders", "{app:client@app:worker|long}", 6)
    ]
