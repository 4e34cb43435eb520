"""The histories of many workflows, read together: as an owner does after a takeover."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from mesh import codec
from mesh.connection import Connection, connect
from mesh.events import EndRecord, Event, StartSpec
from mesh.history import History, OpenRun
from mesh.jetstream import JetStream
from mesh.stored_messages import StoredMessage
from mesh.stream_reads import READ_BYTES
from mesh.subjects import WorkflowKey, stream_name
from node.workflows.effects import Effects
from node.workflows.loading import FEW
from store.streams import ensure_queue
from tests.apps import QUEUE, Mesh, a_mesh, write_app
from tests.conftest import ServerFactory
from tests.waiting import wait_until

ENDED = EndRecord("completed", codec.encode_success(None)).encode()


class WatchedJetStream(JetStream):
    """Counts walks through a stream. lacking: so many newest messages are not in the next answers, as of a copy behind."""

    walks = 0
    lacking = 0

    async def batch_get(self, *args: object, **options: object) -> list[StoredMessage]:
        self.walks += 1
        return await super().batch_get(*args, **options)  # type: ignore[arg-type]  # handed on as they are

    async def multi_last_at_once(self, *args: object, **options: object) -> list[StoredMessage] | None:
        messages = await super().multi_last_at_once(*args, **options)  # type: ignore[arg-type]  # as above
        return messages[: len(messages) - self.lacking] if messages is not None else None


@asynccontextmanager
async def a_queue(url: str) -> AsyncIterator[tuple[WatchedJetStream, History]]:
    """A queue with one partition that nobody runs."""
    async with connect(url, name="test") as conn:
        js = WatchedJetStream(conn)
        await ensure_queue(js, QUEUE, partitions=1)
        yield js, History(js, QUEUE)


async def started(js: JetStream, workflow_id: str) -> tuple[WorkflowKey, int]:
    key = WorkflowKey(QUEUE, workflow_id)
    return key, (await js.publish(key.start(), StartSpec(workflow="app:flow", entropy=b"e").encode())).seq


def told(found: tuple[OpenRun, list[Event]]) -> tuple[int, list[tuple[int, str, bytes]]]:
    """What a history says, without what the server says about its answers."""
    opened, events = found
    return opened.run, [(event.seq, event.kind, event.data) for event in events]


async def test_an_outcome_that_was_written_twice_is_read_without_a_walk(nats_server: ServerFactory) -> None:
    """Where very much is going on, a write that is repeated comes thousands of messages later.

    To find the second one by a walk, the server looks at all of these; 100 histories a second was all that it gave.
    """
    async with a_queue(nats_server().url) as (js, history):
        key, run = await started(js, "w-1")
        twice = key.ret(run, 1, 1, "fp")
        seqs = [run]
        for subject in (key.ret(run, 2, 1, "fp"), twice, key.signal("a"), key.ret(run, 3, 1, "fp"), twice):
            seqs.append((await js.publish(subject, codec.encode_success(len(seqs)))).seq)

        found = await history.only_run(key)

        assert found is not None
        assert [event.seq for event in found[1]] == seqs
        assert await history.events(key, run) == found[1]
        assert js.walks == 0

        # Of three or more the ones between are not in the index.
        seqs.append((await js.publish(twice, codec.encode_success(9))).seq)
        assert [event.seq for event in await history.events(key, run)] == seqs
        assert js.walks == 1


async def test_signal_before_the_run_is_none_of_its_events(nats_server: ServerFactory) -> None:
    """Two are counted on the subject, and one of them was for the run before."""
    async with a_queue(nats_server().url) as (js, history):
        key, first = await started(js, "w-1")
        await js.publish(key.signal("a"), codec.encode_success(1))
        await js.publish(key.end(first), ENDED)
        _, run = await started(js, "w-1")
        own = await js.publish(key.signal("a"), codec.encode_success(2))

        assert [event.seq for event in await history.events(key, run)] == [run, own.seq]


async def test_many_histories_are_the_same_together_as_one_by_one(nats_server: ServerFactory) -> None:
    """Whatever there is among them: what cannot be told from the one look is left to a look at the one workflow."""
    async with a_queue(nats_server().url) as (js, history):
        keys = [WorkflowKey(QUEUE, "never started")]
        for i in range(12):
            key, run = await started(js, f"w-{i}")
            keys.append(key)
            for n in range(i % 4):
                await js.publish(key.ret(run, n, 1, "fp"), codec.encode_success(n))
            for n in range(i % 5):
                await js.publish(key.signal("same"), codec.encode_success(n))
        over, run = await started(js, "over")
        await js.publish(over.end(run), ENDED)
        again, run = await started(js, "again")
        await js.publish(again.end(run), ENDED)
        await started(js, "again")
        long, run = await started(js, "long")  # more subjects than the server puts into one answer
        async with anyio.create_task_group() as tasks:
            for n in range(1100):
                tasks.start_soon(js.publish, long.ret(run, n, 1, "fp"), codec.encode_success(n))
        keys += [over, again, long]

        one_by_one = {}
        for key in keys:
            history.know_partition(key, 0)
            if (found := await history.only_run(key)) is not None:
                one_by_one[key] = told(found)
        together = {key: told(found) for key, found in (await history.only_runs(keys, 0)).items()}

        assert together == one_by_one
        assert set(keys) - set(together) == {keys[0], over, again, long}


async def test_histories_are_read_together_only_as_far_as_they_are_little(nats_server: ServerFactory) -> None:
    """A node that reads dozens of histories at a time must not hold dozens of large ones."""
    async with a_queue(nats_server().url) as (js, history):
        keys = []
        for i in range(6):
            key, run = await started(js, f"w-{i}")
            keys.append(key)
            for n in range(2):
                await js.publish(key.ret(run, n, 1, "fp"), codec.encode_success("x" * (READ_BYTES // 8)))

        everything = [key.stored(0, ">") for key in keys]
        assert await js.multi_last_at_once(stream_name(QUEUE), everything) is None
        found = await history.only_runs(keys, 0)

        assert [(key, len(events)) for key, (_, events) in found.items()] == [(key, 3) for key in keys]


async def test_what_is_beyond_a_bound_is_left_to_a_look_by_itself(
    nats_server: ServerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a subject with many messages a page has only the last one, and of many pages each has its bound."""
    monkeypatch.setattr("mesh.history.TOGETHER_BYTES_MAX", READ_BYTES)
    async with a_queue(nats_server().url) as (js, history):
        keys, long = [], []
        for i in range(6):
            key, run = await started(js, f"repeats-{i}")
            keys.append(key)
            for _ in range(8):
                await js.publish(key.signal("same"), codec.encode_success("x" * (READ_BYTES // 16)))
            key, run = await started(js, f"long-{i}")
            long.append(key)
            for n in range(6):
                await js.publish(key.ret(run, n, 1, "fp"), codec.encode_success("x" * (READ_BYTES // 12)))

        repeating = await history.only_runs(keys, 0)
        paged = await history.only_runs(long, 0)

        # Each is a little more than half of it.
        assert list(repeating) == keys[:2]
        assert list(paged) == long[:3]


async def test_history_of_which_a_replica_lacks_something_is_left_to_a_look_by_itself(
    nats_server: ServerFactory,
) -> None:
    """That look asks again until all is there. The others of the batch do not wait for it."""
    async with a_queue(nats_server().url) as (js, history):
        whole, _ = await started(js, "whole")
        lacking, run = await started(js, "lacking")
        await js.publish(lacking.tick(run, 1), b"")

        js.lacking = 1

        assert set(await history.only_runs([whole, lacking], 0)) == {whole}


def held_app(directory: Path) -> Path:
    """`held` waits for a call for ever, and for a signal; `waiter` for a signal only."""
    receives = "return process.inbox():receive():payload():data()"
    return write_app(
        directory,
        workflows={
            "held": f"return function() local call = funcs.async('app:lasting') {receives} end",
            "waiter": f"return function() {receives} end",
        },
        processes={"lasting": {"source": "return {main = function() process.inbox():receive() end}", "method": "main",
                            "meta": {"default_host": "app:processes"}}},
        worker_options={"sticky_schedule_to_start_timeout": "1ms"},
    )  # fmt: skip


@asynccontextmanager
async def reads_of(conn: Connection) -> AsyncIterator[list[str]]:
    """The requests that anybody reads the queue's stream with while the block runs."""
    seen: list[str] = []
    subscription = conn.subscribe_direct(
        f"$JS.API.DIRECT.GET.{stream_name(QUEUE)}.>", lambda subject, *_: seen.append(subject)
    )
    plain = conn.subscribe_direct(f"$JS.API.DIRECT.GET.{stream_name(QUEUE)}", lambda subject, *_: seen.append(subject))
    await conn.flush()
    try:
        yield seen
    finally:
        subscription.unsubscribe()
        plain.unsubscribe()


def take_over_anew(mesh: Mesh) -> None:
    """Have the node lose its only partition, and own it again: with what its checkpoint knows as busy."""
    engine = mesh.node.engines[QUEUE]
    given = engine.drop(0)
    assert given is not None
    claim, (seq, at_ns), busy = given
    engine.take(replace(claim, checkpoint=seq, checkpoint_ns=at_ns), busy)


def attended(mesh: Mesh) -> bool:
    now = mesh.statistics()
    return now["catching_up"] == 0 and now["attention"] == 0


async def test_takeover_reads_many_histories_with_few_requests(nats_server: ServerFactory, tmp_path: Path) -> None:
    """With one request or more for each it was the reading that a takeover of thousands waited for."""
    ids = [f"w-{i}" for i in range(150)]
    async with a_mesh(nats_server().url, held_app(tmp_path), partitions=1) as mesh:
        async with anyio.create_task_group() as tasks:
            for workflow_id in ids:
                tasks.start_soon(functools.partial(mesh.start, "held", id=workflow_id))
        await wait_until(lambda: mesh.statistics()["calls_in_flight"] == len(ids))
        before = mesh.statistics()["replays"]

        async with reads_of(mesh.client.conn) as reads:
            take_over_anew(mesh)
            await wait_until(lambda: attended(mesh))
            await mesh.client.conn.flush()

        assert mesh.statistics()["replays"] - before == len(ids)
        assert mesh.statistics()["calls_in_flight"] == len(ids)
        assert 0 < len(reads) <= len(ids) // 10
        for workflow_id in ids[::50]:
            await mesh.get(workflow_id).signal("go", workflow_id)
            assert await mesh.get(workflow_id).result(timeout_s=20) == workflow_id


async def test_what_has_news_does_not_wait_behind_what_needs_attention(
    nats_server: ServerFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many runs are still to be loaded after a takeover, and however slowly: they have places of their own."""
    ids = [f"held-{i}" for i in range(40)]
    may_read = anyio.Event()
    only_run = History.only_run

    async def held_back(self: History, key: WorkflowKey, at_least: int | None = None) -> object:
        if key.id in ids:
            await may_read.wait()
        return await only_run(self, key, at_least)

    async def none_together(*_args: object) -> dict[WorkflowKey, tuple[OpenRun, list[Event]]]:
        return {}

    async with a_mesh(nats_server().url, held_app(tmp_path), partitions=1) as mesh:
        sleeper = await mesh.start("waiter", id="waiter")
        for workflow_id in ids:
            await mesh.start("held", id=workflow_id)
        await wait_until(lambda: mesh.statistics()["calls_in_flight"] == len(ids))
        await wait_until(lambda: mesh.statistics()["resident"] == len(ids))  # the waiter has left memory
        monkeypatch.setattr(History, "only_run", held_back)
        monkeypatch.setattr(History, "only_runs", none_together)

        take_over_anew(mesh)
        await wait_until(lambda: mesh.statistics()["catching_up"] == 0)
        await sleeper.signal("go", "good morning")

        assert await sleeper.result(timeout_s=20) == "good morning"
        assert mesh.statistics()["attention"] == len(ids)
        may_read.set()
        await wait_until(lambda: attended(mesh))
        assert mesh.statistics()["calls_in_flight"] == len(ids)


async def test_many_that_need_attention_let_new_work_pass_and_few_wait_for_nothing(
    nats_server: ServerFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What thousands of runs do once they are loaded comes in before what is new; what a handful does is no matter."""
    monkeypatch.setattr("node.workflows.loading.ATTENTION_WAITS_S", 3600.0)
    async with a_mesh(nats_server().url, held_app(tmp_path), partitions=1) as mesh:
        for i in range(FEW):
            await mesh.start("held", id=f"held-{i}")
        await wait_until(lambda: mesh.statistics()["calls_in_flight"] == FEW)
        monkeypatch.setattr("node.workflows.engine.BEHIND_EVENTS", -1)  # there is always something new

        take_over_anew(mesh)
        await wait_until(lambda: attended(mesh))
        assert mesh.statistics()["calls_in_flight"] == FEW

        await mesh.start("held", id="one-more")
        await wait_until(lambda: mesh.statistics()["calls_in_flight"] == FEW + 1)
        take_over_anew(mesh)
        await wait_until(lambda: mesh.statistics()["catching_up"] == 0)
        waiter = await mesh.start("waiter", id="new")
        await waiter.signal("go", "on")
        assert await waiter.result(timeout_s=20) == "on"
        assert mesh.statistics()["attention"] == FEW + 1

        monkeypatch.setattr("node.workflows.engine.BEHIND_EVENTS", 1_000_000)
        await wait_until(lambda: attended(mesh))
        assert mesh.statistics()["calls_in_flight"] == FEW + 1


async def test_runs_that_have_to_be_read_by_themselves_are_not_all_begun_at_once(
    nats_server: ServerFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There may be a million, and each that is begun takes memory, as do the events that come for it."""
    monkeypatch.setattr("node.workflows.loading.LOADING_MAX", 4)
    monkeypatch.setattr("node.workflows.loading.ATTENTION_AT_ONCE", 4)
    ids = [f"held-{i}" for i in range(20)]
    may_read, only_run = anyio.Event(), History.only_run
    begun: list[int] = []

    async def held_back(self: History, key: WorkflowKey, at_least: int | None = None) -> object:
        begun.append(engine.loading)
        await may_read.wait()
        return await only_run(self, key, at_least)

    async def none_together(*_args: object) -> dict[WorkflowKey, tuple[OpenRun, list[Event]]]:
        return {}

    async with a_mesh(nats_server().url, held_app(tmp_path), partitions=1) as mesh:
        engine = mesh.node.engines[QUEUE]
        for workflow_id in ids:
            await mesh.start("held", id=workflow_id)
        await wait_until(lambda: mesh.statistics()["calls_in_flight"] == len(ids))
        monkeypatch.setattr(History, "only_run", held_back)
        monkeypatch.setattr(History, "only_runs", none_together)

        take_over_anew(mesh)
        await wait_until(lambda: len(begun) == 4)
        may_read.set()
        await wait_until(lambda: attended(mesh))

        assert mesh.statistics()["calls_in_flight"] == len(ids)
        assert max(begun) <= 7, "fewer than LOADING_MAX, and a batch"


async def test_a_run_that_fails_as_it_goes_live_misses_nothing_that_comes_while_it_is_read_again(
    nats_server: ServerFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """We are wrong then. Were it fed as a live one meanwhile, the run that is read would not have what it was fed."""
    failed, may_go_on, only_run = anyio.Event(), anyio.Event(), History.only_run
    carry_out = Effects.carry_out

    def fails_once(self: Effects, *args: Any, **options: Any) -> None:
        if failed.is_set() or not options.get("recovering"):
            return carry_out(self, *args, **options)
        failed.set()
        raise RuntimeError("we are wrong")

    async def read_and_held(self: History, key: WorkflowKey, at_least: int | None = None) -> object:
        found = await only_run(self, key, at_least)
        await may_go_on.wait()
        return found

    async with a_mesh(nats_server().url, held_app(tmp_path), partitions=1) as mesh:
        handle = await mesh.start("held", id="held")
        await wait_until(lambda: mesh.statistics()["calls_in_flight"] == 1)
        engine = mesh.node.engines[QUEUE]
        monkeypatch.setattr(Effects, "carry_out", fails_once)
        monkeypatch.setattr(History, "only_run", read_and_held)

        take_over_anew(mesh)
        await failed.wait()
        await wait_until(lambda: engine._by_token["held"].loading is not None)
        await handle.signal("go", "came meanwhile")
        await wait_until(lambda: engine._by_token["held"].loading)
        may_go_on.set()

        assert await handle.result(timeout_s=20) == "came meanwhile"


async def test_names_in_a_checkpoint_that_nobody_can_have_written_harm_nobody(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    """Whoever may write the roster may write anything there. What ends one owner would end the next one, too."""
    async with a_mesh(nats_server().url, held_app(tmp_path), partitions=1) as mesh:
        await mesh.start("held", id="held")
        await wait_until(lambda: mesh.statistics()["calls_in_flight"] == 1)
        engine = mesh.node.engines[QUEUE]
        given = engine.drop(0)
        assert given is not None
        claim, (seq, at_ns), busy = given
        nonsense = ("", "%", "%FF", "a.b", ">", "*", " ", "\n", "\ud800", "x" * 2000)

        engine.take(replace(claim, checkpoint=seq, checkpoint_ns=at_ns), (*nonsense, *busy), handed_over=True)

        await wait_until(lambda: attended(mesh))
        await wait_until(lambda: mesh.statistics()["calls_in_flight"] == 1)
        await mesh.get("held").signal("go", "on")
        assert await mesh.get("held").result(timeout_s=20) == "on"
        assert mesh.statistics()["resident"] == 0
