"""The run that follows another one: it is started once, by whoever comes to it first, and by nobody who comes too late."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

import mesh.client
from mesh import codec
from mesh.events import EndRecord, StartSpec
from mesh.history import History
from mesh.jetstream import JetStream
from mesh.objects import Objects
from mesh.subjects import WorkflowKey
from mesh.wire import parse_headers
from node.workflows.ending import Ending
from store.streams import ensure_queue
from tests.apps import QUEUE, Mesh, a_mesh, key, owns_everything, write_app
from tests.conftest import ServerFactory
from tests.waiting import wait_until, wait_until_async

KEY = WorkflowKey("q", "w-1")
UNUSED: Any = None


def a_start(number: int) -> bytes:
    return StartSpec(workflow="app:w", args=codec.pack([number]), entropy=b"e").encode()


class Chain:
    """The runs of one workflow, as their owners write them."""

    def __init__(self, js: JetStream) -> None:
        self.js = js
        self.history = History(js, KEY.queue)
        self.ending = Ending(
            js=js, history=self.history, outbox=UNUSED, host=UNUSED, instances=UNUSED, others=UNUSED, timers=UNUSED,
            background=UNUSED, in_trouble=UNUSED,
        )  # fmt: skip

    async def start(self, number: int, *, after: int = 0) -> int:
        return (await self.js.publish(KEY.start(), a_start(number), expect_last_subject_seq=after)).seq

    async def end(self, run: int, *, following: int = 0) -> EndRecord:
        """Write the end of a run, after which another one follows, or none."""
        record = EndRecord("completed")
        if following:
            record = EndRecord("continued", codec.NIL_OUTCOME, a_start(following))
        await self.js.publish(KEY.end(run), record.encode())
        return record

    async def runs(self) -> list[int]:
        """All starts that are stored."""
        starts = await self.js.batch_get("WF_q", subject_filter=KEY.stored("*", "start"))
        return [start.seq for start in starts]


@asynccontextmanager
async def a_chain(nats_server: ServerFactory) -> AsyncIterator[Chain]:
    async with mesh.client.connect(nats_server().url) as client:
        await ensure_queue(client.js, KEY.queue)
        yield Chain(client.js)


async def test_two_owners_start_the_run_that_follows_one_time(nats_server: ServerFactory) -> None:
    async with a_chain(nats_server) as chain:
        first = await chain.start(1)
        record = await chain.end(first, following=2)
        for _ in range(2):
            await chain.ending.start_next(KEY, first, record)
        found = await chain.history.last_run(KEY)
        assert found is not None
        assert await chain.runs() == [first, found[0].run]
        assert codec.unpack(found[0].spec().args) == [2]


async def test_owner_that_was_held_up_starts_nothing_when_the_next_run_has_ended_as_well(
    nats_server: ServerFactory,
) -> None:
    """It was cut off, or stood still, between the end and the next start; others went on and came to the end of it all."""
    async with a_chain(nats_server) as chain:
        first = await chain.start(1)
        record = await chain.end(first, following=2)
        second = await chain.start(2, after=first)
        await chain.end(second)

        await chain.ending.start_next(KEY, first, record)

        assert await chain.runs() == [first, second]


async def test_workflow_whose_partition_is_lost_while_it_is_read_goes_on_when_that_is_back(
    nats_server: ServerFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """News of it come while it is looked for a run to go on with; then the partition is lost, and claimed again.

    What began to be read for the partition as it was must not stand in the way of what is read for it as it is.
    """
    app = write_app(tmp_path, workflows={"w": "return function() return 'done' end"})
    async with a_mesh(nats_server().url, app) as m:
        handle = await m.start("w", id="w-1")
        assert await handle.result(timeout_s=30) == "done"
        engine = m.node.engines[QUEUE]
        history, instances = engine._loading._history, engine._instances
        last_run, looked, go_on = history.last_run, Counter[str](), anyio.Event()

        async def held_up(key: WorkflowKey) -> Any:
            looked[key.id] += 1
            if looked[key.id] == 2:  # first for an open run, then for one to be followed
                await go_on.wait()
            return await last_run(key)

        monkeypatch.setattr(history, "last_run", held_up)
        for n in (1, 2):
            await handle.signal("news", n)
        await wait_until(lambda: looked["w-1"] == 2 and len(instances.by_token["w-1"].loading or ()) == 2)
        number = await m.client.history(QUEUE).partition_of(handle.key)
        assert number is not None
        given = engine.drop(number)
        assert given is not None
        engine.take(given[0], given[2])
        await wait_until(lambda: owns_everything(m.node))
        go_on.set()

        assert await (await m.start("w", id="w-1")).result(timeout_s=30) == "done"


COUNTS_DOWN = """
return function(n)
    if n == 0 then return 'done' end
    process.inbox():receive()
end
"""


async def another_owner_goes_on(m: Mesh, run: int) -> int:
    """Write, as an owner does that was held up, the end of a run and the start of the one that is the last."""
    start = StartSpec(workflow="app:w", args=codec.pack([0]), entropy=b"e").encode()
    await m.client.js.publish(key("w-1").end(run), EndRecord("continued", codec.NIL_OUTCOME, start).encode())
    return (await m.client.js.publish(key("w-1").start(), start)).seq


async def is_over(m: Mesh) -> bool:
    """Whether the last run has ended; its owner is not asked, as that would have it look."""
    history = m.client.history(QUEUE)
    last, start = await history.last_run(key("w-1")), await history.last_start(key("w-1"))
    return last is not None and last[1] is not None and start is not None and last[0].run == start.run


@pytest.mark.parametrize("reading", ["open_run", "events"])
async def test_run_that_is_followed_while_it_is_read_is_followed(
    nats_server: ServerFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reading: str
) -> None:
    """Its end is read with its history, or comes after that; either way the start behind it begins a run."""
    app = write_app(tmp_path, workflows={"w": COUNTS_DOWN})
    async with a_mesh(nats_server().url, app) as m:
        assert await m.run("w", 0, id="w-1") == "done"
        engine = m.node.engines[QUEUE]
        read, followed = getattr(engine._loading._history, reading), anyio.Event()

        async def read_slowly(*arguments: Any) -> Any:
            found = await read(*arguments)
            if not followed.is_set() and found:
                following = await another_owner_goes_on(m, found.run if reading == "open_run" else found[0].seq)
                loading = engine._instances.by_token["w-1"].loading
                await wait_until(lambda: loading is not None and loading[-1].seq == following)
                followed.set()
            return found

        monkeypatch.setattr(engine._loading._history, reading, read_slowly)
        await m.start("w", 1, id="w-1")
        await followed.wait()
        await wait_until_async(lambda: is_over(m))


async def test_run_that_is_followed_while_a_large_payload_is_fetched_is_followed(
    nats_server: ServerFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched, may_go_on, asked = Objects.fetched, anyio.Event(), anyio.Event()

    async def held_up(self: Objects, subject: str, reference: bytes) -> bytes:
        asked.set()
        await may_go_on.wait()
        return await fetched(self, subject, reference)

    app = write_app(tmp_path, workflows={"w": COUNTS_DOWN})
    async with a_mesh(nats_server(config="max_payload: 65536").url, app) as m:
        monkeypatch.setattr(Objects, "fetched", held_up)
        handle = await m.start("w", 1, id="w-1")
        await handle.signal("unheard", "x" * 100_000)
        await asked.wait()
        following = await another_owner_goes_on(m, handle.run)
        instance = m.node.engines[QUEUE]._instances.by_token["w-1"]
        await wait_until(lambda: instance.fetching is not None and instance.fetching[-1].seq == following)
        may_go_on.set()
        await wait_until_async(lambda: is_over(m))


async def test_start_of_which_one_look_knows_and_another_does_not_is_begun(
    nats_server: ServerFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A leader that was replaced while it stood still answers for a moment as if nothing had happened since."""
    app = write_app(tmp_path, workflows={"w": "return function() return 'done' end"})
    async with a_mesh(nats_server().url, app) as m:
        assert await m.run("w", id="w-1") == "done"
        history, hidden = m.node.engines[QUEUE]._loading._history, Counter[str]()
        start_after = history.start_after

        async def behind(key: WorkflowKey, seq: int) -> Any:
            found = await start_after(key, seq)
            if found is None or hidden[key.id] == 2 or await history.end_of(key, found.run) is not None:
                return found
            hidden[key.id] += 1
            return None

        monkeypatch.setattr(history, "start_after", behind)
        await m.start("w", id="w-1")
        await wait_until_async(lambda: is_over(m))
        assert hidden["w-1"] == 2


async def test_every_run_of_a_child_names_the_parent_in_its_headers(nats_server: ServerFactory, tmp_path: Path) -> None:
    """The first one, one that goes on, and one that was reset, whoever starts it."""
    parent = """return function()
      local pid = assert(process.spawn_monitored("app:child", "app:worker", 1))
      return process.events():receive().result.value
    end"""
    child = """return function(n)
      if n > 0 then process.upgrade(nil, n - 1) end
      return (process.listen("go"):receive())
    end"""
    app = write_app(tmp_path, workflows={"parent": parent, "child": child})
    async with a_mesh(nats_server().url, app) as mesh:
        run = (await mesh.start("parent", id="p-1")).run
        handle = mesh.get(f"p-1_{run}_1")

        async def starts() -> list[dict[str, str]]:
            found = await mesh.client.js.batch_get("WF_orders", subject_filter=handle.key.stored("*", "start"))
            return [parse_headers(start.raw_headers) for start in found]

        async def has_gone_on() -> bool:
            return len(await starts()) == 2

        await wait_until_async(has_gone_on)
        await handle.reset(1)
        told = await starts()
        assert [headers["Mesh-Child-Of"] for headers in told] == [f"orders p-1 {run} 1"] * 3
        await handle.signal("go", "told")
        assert await mesh.get("p-1").result(timeout_s=20) == "told"
        # Its parent has been told, so nobody is to be told of what comes of another reset.
        await handle.reset(1)
        assert "Mesh-Child-Of" not in (await starts())[-1]
