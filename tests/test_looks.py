"""Whoever waits for an end takes the server's word for it, or looks into the log, and not too often."""

from __future__ import annotations

import anyio
import pytest

from mesh import codec
from mesh.client import Client, WorkflowHandle, connect
from mesh.errors import NotReady
from mesh.events import EndRecord, StartSpec
from mesh.history import History, RunOutcome
from mesh.looks import LONG_S, LOOKS_AT_ONCE, PAUSE_FIRST_S, PAUSE_MAX_S, STORED_SOON_S, Looks
from mesh.results import _News
from mesh.starting import new_entropy
from mesh.subjects import WorkflowKey
from store.streams import ensure_queue, stream_config
from tests.conftest import ServerFactory
from tests.waiting import wait_until

KEY = WorkflowKey("orders", "o-1")


def pauses(looks: Looks, count: int) -> list[float]:
    """What is waited before each of the next looks, of which all find nothing."""
    found = []
    for _ in range(count):
        found.append(looks.pause_s)
        looks.heard_nothing()
        looks.found_nothing()
    return found


def test_the_first_look_is_at_once_and_the_next_ones_further_and_further_apart() -> None:
    looks = Looks()
    assert pauses(looks, 8) == [0, *(PAUSE_FIRST_S * 4**i for i in range(5)), PAUSE_MAX_S, PAUSE_MAX_S]


def test_an_end_that_was_heard_and_is_not_stored_yet_is_looked_for_again_at_once() -> None:
    """Heard is not stored: on a server that flushes each message, or in a cluster, that takes longer than a look."""
    looks = Looks()
    pauses(looks, 3)
    looks.heard()
    assert pauses(looks, LOOKS_AT_ONCE + 3) == [*[0.0] * LOOKS_AT_ONCE, *(STORED_SOON_S * 2**i for i in range(3))]


def test_an_end_that_was_heard_and_never_comes_is_looked_for_as_rarely_as_one_that_was_not() -> None:
    """Anybody may say that a workflow has ended."""
    looks = Looks()
    looks.heard()
    waited = pauses(looks, 20)
    assert waited[-1] == PAUSE_MAX_S
    assert sum(waited) > 10


def test_the_owner_is_asked_after_a_silence_and_not_after_news() -> None:
    looks = Looks()
    silent = 0.0
    while silent < LONG_S:
        assert not looks.long_silent
        silent += looks.pause_s
        pauses(looks, 1)
    assert looks.long_silent
    looks.heard()
    assert not looks.long_silent


async def started(client: Client) -> int:
    """Store a start that nobody runs; its run."""
    spec = StartSpec(workflow="w", args=codec.pack([]), host="h", client="c", entropy=new_entropy())
    return (await client.js.publish(KEY.start(), spec.encode())).seq


def ended(value: str) -> bytes:
    return EndRecord("completed", codec.encode_success(value)).encode()


async def test_the_end_of_a_run_is_its_first_one_also_when_its_start_is_gone(nats_server: ServerFactory) -> None:
    """Where the partition is not known it is learnt with the start, which may be damaged or deleted."""
    async with connect(nats_server().url) as client:
        await ensure_queue(client.js, "orders")
        run = await started(client)
        assert await History(client.js, "orders").end_of(KEY, run) is None
        ends = [await client.js.publish(KEY.end(run), ended(value)) for value in ("first", "second")]
        whole = await History(client.js, "orders").end_of(KEY, run)
        assert whole is not None
        assert whole.seq == ends[0].seq
        await client.js.delete_message("WF_orders", run)
        assert await History(client.js, "orders").end_of(KEY, run) == whole


class Waiting:
    """A client that waits for the result of a run, and hears of it."""

    def __init__(self, client: Client, run: int) -> None:
        self.client = client
        self.result: object = None
        self._handle = WorkflowHandle(client, KEY, run)

    async def run(self) -> None:
        self.result = await self._handle.result()

    async def until_it_listens(self) -> None:
        """Wait until it has subscribed to both: what ends, and what is suspended."""
        subscriptions = self.client.conn.statistics().subscriptions
        await wait_until(lambda: self.client.conn.statistics().subscriptions == subscriptions + 2)
        await self.client.conn.flush()


class Behind(History):
    """What a copy has that has not heard of any end, until it has."""

    is_behind = True

    async def end_of(self, key: WorkflowKey, run: int) -> RunOutcome | None:
        return None if self.is_behind else await super().end_of(key, run)


async def test_the_servers_word_that_an_end_is_stored_is_the_result(nats_server: ServerFactory) -> None:
    """Nothing is read for it."""
    async with connect(nats_server().url) as client, anyio.create_task_group() as tasks:
        await ensure_queue(client.js, "orders")
        run = await started(client)
        client._histories["orders"] = Behind(client.js, "orders")
        waiting = Waiting(client, run)
        tasks.start_soon(waiting.run)
        await waiting.until_it_listens()
        await client.js.publish(KEY.end(run), ended("first"))
        await wait_until(lambda: waiting.result == "first")


class Leaderless(History):
    """A stream whose cluster elects a leader: as often as is said here it cannot be read."""

    elections = 3
    seen = 0

    async def end_of(self, key: WorkflowKey, run: int) -> RunOutcome | None:
        if self.seen < self.elections:
            self.seen += 1
            raise NotReady("STREAM.MSG.GET.WF_orders", 10008, "JetStream system temporarily unavailable")
        return await super().end_of(key, run)


async def test_a_result_is_waited_for_while_a_cluster_elects_a_leader(
    nats_server: ServerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connect(nats_server().url) as client:
        await ensure_queue(client.js, "orders")
        run = await started(client)
        await client.js.publish(KEY.end(run), ended("first"))
        history = client._histories["orders"] = Leaderless(client.js, "orders")
        assert await WorkflowHandle(client, KEY, run).result(timeout_s=10) == "first"
        assert history.seen == history.elections
        # Not for ever: a server that stays so is unwell, and whoever waits is told.
        monkeypatch.setattr("mesh.results.STREAM_PATIENCE_S", 1.0)
        history.elections = 1_000_000
        with pytest.raises(NotReady):
            await WorkflowHandle(client, KEY, run).result(timeout_s=30)
        # Nor for somebody who has not seen it.
        seen = history.seen
        with pytest.raises(NotReady):
            await WorkflowHandle(client, KEY).result(timeout_s=10)
        assert history.seen == seen + 1


async def test_only_the_servers_word_counts_and_only_for_the_first_end(nats_server: ServerFactory) -> None:
    """Anybody without permissions may say anything, and an owner that was taken for lost may write an end, too."""
    async with connect(nats_server().url) as client, anyio.create_task_group() as tasks:
        await ensure_queue(client.js, "orders")
        run = await started(client)
        history = client._histories["orders"] = Behind(client.js, "orders")
        await client.js.publish(KEY.end(run), ended("first"))
        waiting = Waiting(client, run)
        tasks.start_soon(waiting.run)
        await waiting.until_it_listens()
        said = {
            "Nats-Stream": "WF_orders", "Nats-Subject": "mesh.log.orders.0.o-1.end.1", "Nats-Sequence": "9",
            "Nats-Time-Stamp": "2026-11-26T00:00:00Z", "Nats-Last-Sequence": "0",
        }  # fmt: skip
        client.conn.publish_nowait(KEY.ended().replace("*", str(run)), ended("said"))
        await client.js.publish(KEY.end(run), ended("second"), headers=said)
        await client.conn.flush()
        assert waiting.result is None
        history.is_behind = False
        await wait_until(lambda: waiting.result == "first")


async def test_the_end_of_another_run_is_none_of_this_one(nats_server: ServerFactory) -> None:
    async with connect(nats_server().url) as client, anyio.create_task_group() as tasks:
        await ensure_queue(client.js, "orders")
        run = await started(client)
        waiting = Waiting(client, run)
        tasks.start_soon(waiting.run)
        await waiting.until_it_listens()
        await client.js.publish(KEY.end(run + 100), ended("of another"))
        await client.conn.flush()
        assert waiting.result is None
        await client.js.publish(KEY.end(run), ended("its own"))
        await wait_until(lambda: waiting.result == "its own")


async def test_the_ends_of_runs_that_are_over_are_not_kept(nats_server: ServerFactory) -> None:
    """Somebody may wait for a workflow that goes on as one run after the other, for weeks."""
    async with connect(nats_server().url) as client:
        news = _News(client.conn, History(client.js, "orders"))

        def tell(run: int) -> None:
            raw = (
                f"NATS/1.0\r\nNats-Stream: WF_orders\r\nNats-Subject: {KEY.stored(0, 'end', str(run))}\r\n"
                f"Nats-Sequence: {run + 1}\r\nNats-Time-Stamp: 2026-11-26T00:00:00Z\r\nNats-Last-Sequence: 0\r\n\r\n"
            ).encode()
            news.on_stored_end(KEY.ended().replace("*", str(run)), "", ended("on"), raw)

        for run in range(2, 2000, 2):
            tell(run)
            assert news.end_of(run) == RunOutcome(run, run + 1, ended("on"))
            tell(run - 2)  # late
            tell(run + 2)  # the next one has ended already
        assert len(news._stored) == 2


async def test_a_stream_of_an_earlier_release_is_read_when_an_end_is_heard(
    nats_server: ServerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says nothing when it has stored one."""
    monkeypatch.setattr("mesh.looks.PAUSE_FIRST_S", 60.0)  # it looks by itself, too, but not within this test
    async with connect(nats_server().url) as client, anyio.create_task_group() as tasks:
        config = stream_config("orders", 4, 1)
        del config["republish"]
        await client.js.ensure_stream(config)
        assert not (await client.js.stream_info("WF_orders")).config.get("republish")
        run = await started(client)
        waiting = Waiting(client, run)
        tasks.start_soon(waiting.run)
        await waiting.until_it_listens()
        await client.js.publish(KEY.end(run), ended("first"))
        await wait_until(lambda: waiting.result == "first")
