"""The follower against a real server: every message once and in order, whatever breaks. Numbers in brackets: rows."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import anyio
import pytest
from anyio.abc import TaskGroup

from mesh.connection import Connection, ConnectOptions, connect
from mesh.errors import NotFound, Undecodable
from mesh.follower import Delivered, Follower, StreamRegressed, position_of
from mesh.jetstream import JetStream
from mesh.jetstream_api import error_of
from mesh.outbox import Outbox
from mesh.stream_reads import StreamInfo
from tests.conftest import ServerFactory
from tests.servers import ServerProcess, written_while_killed
from tests.waiting import wait_until, wait_until_async

HELD_BYTES = 2 * 1024 * 1024
STREAM = {"name": "S", "subjects": ["s.>"], "storage": "file", "allow_direct": True}


class Bench:
    """A connection, a stream, a task group, and what the followers delivered."""

    def __init__(self, conn: Connection, tasks: TaskGroup) -> None:
        self.conn = conn
        self.js = JetStream(conn)
        self.tasks = tasks
        self.got: list[Delivered] = []

    async def publish_and_lose(self, follower: Follower, payload: bytes) -> None:
        """Publish a message that does not reach the follower, as if it had been dropped on the way."""
        assert follower._subscription is not None
        sid = follower._subscription.sid
        take = self.conn._handlers[sid]
        lost: list[bytes] = []

        def lose_one(subject: str, reply: str, data: bytes, headers: bytes | None) -> None:
            if lost:
                take(subject, reply, data, headers)
            elif reply.startswith("$JS.ACK."):
                lost.append(data)

        self.conn._handlers[sid] = lose_one
        await self.publish("s.a", payload)
        await wait_until(lambda: lost == [payload])

    @property
    def data(self) -> list[bytes]:
        return [message.data for message in self.got]

    @property
    def seqs(self) -> list[int]:
        return [message.seq for message in self.got]

    async def publish(self, subject: str, *payloads: bytes) -> None:
        async with Outbox(self.conn) as outbox:
            for payload in payloads:
                outbox.write(subject, payload)
            await outbox.flush(40)

    async def follow(
        self,
        *filters: str,
        start_seq: int = 1,
        deliver: Callable[[Delivered], None] | None = None,
        headers_only: bool = False,
        idle_heartbeat_s: float = 0.5,
        on_renewed: Callable[[], None] = lambda: None,
        held_bytes_max: int | None = None,
    ) -> Follower:
        follower = Follower(
            self.conn,
            self.js,
            "S",
            filters,
            start_seq,
            deliver or self.got.append,
            headers_only=headers_only,
            idle_heartbeat_s=idle_heartbeat_s,
            on_renewed=on_renewed,
            held_bytes_max=held_bytes_max,
        )
        await self.tasks.start(follower.run)
        return follower

    async def consumers(self) -> list[str]:
        answer = await self.js.api("CONSUMER.NAMES.S")
        return [str(name) for name in answer["consumers"] or []]


@asynccontextmanager
async def bench(server: ServerProcess) -> AsyncIterator[Bench]:
    options = ConnectOptions(ping_interval_s=0.5)
    async with connect(server.url, name="test", options=options) as conn, anyio.create_task_group() as tasks:
        made = Bench(conn, tasks)
        await made.js.ensure_stream(STREAM)
        yield made
        tasks.cancel_scope.cancel()


async def test_a_consumer_that_counts_anew_is_not_followed_when_it_comes_to_the_number_that_was_missing(
    nats_server: ServerFactory,
) -> None:
    """A server that was restarted makes it anew under its name; what was deleted meanwhile is not counted."""

    def take(seq: int, number: int) -> None:
        follower._on_message("s.a", f"$JS.ACK.S.c.1.{seq}.{number}.{time.time_ns()}.0", b"%d" % seq, None)

    async with bench(nats_server()) as b:
        await b.publish("s.a", b"1", b"2", b"3")
        follower = await b.follow()
        await wait_until(lambda: b.seqs == [1, 2, 3])
        # In one turn of the loop: the first of these says that something is missing, the last is the fourth.
        for seq, number in ((1, 1), (2, 2), (4, 3), (5, 4)):
            take(seq, number)
        await b.publish("s.a", b"4", b"5", b"6")
        await wait_until(lambda: b.seqs[-1:] == [6])
        assert b.data == [b"1", b"2", b"3", b"4", b"5", b"6"]


async def test_what_is_there_and_what_comes_is_delivered_in_order(nats_server: ServerFactory) -> None:
    async with bench(nats_server()) as b:
        before = time.time_ns()
        await b.publish("s.a", b"1", b"2")
        await b.publish("s.b", b"3")
        follower = await b.follow()
        with anyio.fail_after(15):
            await follower.caught_up.wait()
        assert b.data == [b"1", b"2", b"3"]
        await b.publish("s.a", b"4")
        await wait_until(lambda: len(b.got) == 4)
        assert [(m.subject, m.seq, m.raw_headers) for m in b.got] == [
            ("s.a", 1, None),
            ("s.a", 2, None),
            ("s.b", 3, None),
            ("s.a", 4, None),
        ]
        assert [m.pending for m in b.got] == [2, 1, 0, 0]
        assert before < b.got[0].timestamp_ns < b.got[-1].timestamp_ns < time.time_ns() + 1_000_000_000
        assert follower.last_seq == 4
        same = await b.js.get_seq("S", 3)
        assert same is not None
        assert same.timestamp_ns == b.got[2].timestamp_ns


async def test_filters_start_and_headers_only(nats_server: ServerFactory) -> None:
    async with bench(nats_server()) as b:
        for n in range(4):
            for subject in ("s.a", "s.b", "s.c.d"):
                await b.js.publish(subject, b"%d" % n, headers={"N": str(n)})
        follower = await b.follow("s.a", "s.c.>", start_seq=5, headers_only=True)
        with anyio.fail_after(15):
            await follower.caught_up.wait()
        assert [(m.seq, m.subject) for m in b.got] == [
            (6, "s.c.d"),
            (7, "s.a"),
            (9, "s.c.d"),
            (10, "s.a"),
            (12, "s.c.d"),
        ]
        assert all(m.data == b"" and m.raw_headers is not None and b"N: " in m.raw_headers for m in b.got)


async def test_an_empty_stream_is_caught_up_at_once(nats_server: ServerFactory) -> None:
    async with bench(nats_server()) as b:
        follower = await b.follow("s.nothing")
        assert follower.caught_up.is_set()
        assert b.got == []


async def test_caught_up_waits_for_everything_that_was_there(nats_server: ServerFactory) -> None:
    async with bench(nats_server()) as b:
        await b.publish("s.a", *(b"%d" % n for n in range(20_000)))
        at_that_moment: list[int] = []
        follower = await b.follow()
        assert not follower.caught_up.is_set() or len(b.got) == 20_000
        with anyio.fail_after(30):
            await follower.caught_up.wait()
            at_that_moment.append(len(b.got))
        assert at_that_moment[0] >= 20_000
        assert b.seqs == list(range(1, 20_001))
        assert follower.statistics().consumers == 1


async def test_a_paused_follower_loses_nothing_and_delivers_nothing(nats_server: ServerFactory) -> None:
    """[12] nats-py drops messages when the reader is slow and tells only its error callback."""
    async with bench(nats_server()) as b:
        follower = await b.follow()
        follower.pause()
        payload = b"x" * 2000
        await b.publish("s.a", *([payload] * 40_000))
        await wait_until(lambda: follower.statistics().held > 0)
        await anyio.sleep(0.5)
        assert b.got == []
        # 80 MB are there; the server has sent its window and waits.
        held = follower.statistics().held
        assert 0 < held < 30_000
        follower.resume()
        await wait_until(lambda: len(b.got) == 40_000, 40)
        assert b.seqs == list(range(1, 40_001))
        assert follower.statistics().consumers == 1


@pytest.mark.parametrize("restart", [False, True])
async def test_a_paused_follower_does_not_hold_what_it_can_read_again(
    nats_server: ServerFactory, restart: bool
) -> None:
    """A node has one for each partition: 32 times the server's window would be a gigabyte.

    That there is another connection meanwhile is no reason to begin again.
    """
    server = nats_server()
    async with bench(server) as b:
        await b.publish("s.a", b"first")
        renewed: list[str] = []
        follower = await b.follow(held_bytes_max=HELD_BYTES, on_renewed=lambda: renewed.append("the server was away"))
        await wait_until(lambda: b.data == [b"first"])
        follower.pause()
        most = 0

        async def has_let_go() -> bool:
            nonlocal most
            most = max(most, follower.statistics().held)
            return not await b.consumers()

        await b.publish("s.a", *([b"x" * 20_000] * 1000))
        await wait_until_async(has_let_go)
        assert follower.statistics()[1:] == (1, 0)
        assert most <= HELD_BYTES // 20_000
        if restart:
            epoch = b.conn.epoch
            server.kill()
            server.start()
            await wait_until(lambda: b.conn.epoch > epoch and b.conn.is_connected)
        await b.publish("s.a", b"last")
        assert await b.consumers() == []
        assert b.data == [b"first"]

        follower.resume()
        await wait_until(lambda: len(b.got) == 1002)

        assert b.seqs == list(range(1, 1003))
        assert follower.statistics()[1:] == (2, 0)
        assert len(renewed) == restart


async def test_one_that_is_paused_again_and_again_comes_to_the_end(nats_server: ServerFactory) -> None:
    """It lets go of much each time, and delivers at least what it needs to be paused again."""
    async with bench(nats_server()) as b:
        await b.publish("s.a", *([b"x" * 50_000] * 200))
        followers: list[Follower] = []

        def three_at_a_time(message: Delivered) -> None:
            b.got.append(message)
            if len(b.got) % 3 == 0:
                followers[0].pause()
                asyncio.get_running_loop().call_later(0.02, followers[0].resume)

        follower = Follower(b.conn, b.js, "S", [], 1, three_at_a_time, held_bytes_max=HELD_BYTES)
        followers.append(follower)
        await b.tasks.start(follower.run)
        await wait_until(lambda: len(b.got) == 200, 40)
        assert b.seqs == list(range(1, 201))
        assert follower.statistics().consumers > 1


async def test_a_follower_that_has_ended_holds_nothing(nats_server: ServerFactory) -> None:
    """Who delivers and who is delivered to know each other, so it would be there for long."""
    async with bench(nats_server()) as b:
        async with anyio.create_task_group() as tasks:
            follower = Follower(b.conn, b.js, "S", [], 1, b.got.append)
            await tasks.start(follower.run)
            follower.pause()
            await b.publish("s.a", *([b"x"] * 100))
            await wait_until(lambda: follower.statistics().held >= 100)
            tasks.cancel_scope.cancel()
        assert follower.statistics().held == 0
        assert b.got == []


async def test_pausing_from_within_deliver_takes_effect_at_once(nats_server: ServerFactory) -> None:
    async with bench(nats_server()) as b:
        await b.publish("s.a", *(b"%d" % n for n in range(10)))
        followers: list[Follower] = []

        def one_by_one(message: Delivered) -> None:
            b.got.append(message)
            followers[0].pause()

        follower = Follower(b.conn, b.js, "S", [], 1, one_by_one)
        followers.append(follower)
        await b.tasks.start(follower.run)
        for count in range(1, 11):
            await wait_until(lambda count=count: len(b.got) == count)  # type: ignore[misc]
            await b.conn.flush()
            assert len(b.got) == count
            follower.resume()
        assert b.seqs == list(range(1, 11))


async def test_after_a_restart_of_the_server_it_goes_on_within_a_second(nats_server: ServerFactory) -> None:
    """[11] nats-py's ordered consumer needs 17 to 19 s."""
    server = nats_server()
    async with bench(server) as b:
        await b.publish("s.a", b"1", b"2")
        follower = await b.follow(idle_heartbeat_s=5)  # so long that it is the reconnect that does it
        await wait_until(lambda: len(b.got) == 2)
        took: list[float] = []
        for n in (3, 4, 5):
            server.kill()
            await wait_until(lambda: not b.conn.is_connected)
            server.start()
            back = time.monotonic()
            await b.conn.wait_connected()
            await b.publish("s.a", b"%d" % n)
            await wait_until(lambda n=n: len(b.got) == n)  # type: ignore[misc]
            took.append(time.monotonic() - back)
        assert min(took) < 1.0  # the best one: the machine may have other things to do
        assert b.data == [b"1", b"2", b"3", b"4", b"5"]
        assert follower.statistics().consumers == 4


@pytest.mark.timeout(120)
async def test_kills_under_load_make_no_gap_and_no_repetition(nats_server: ServerFactory) -> None:
    server = nats_server(sync_interval="always")
    async with bench(server) as b, Outbox(b.conn) as outbox:
        await b.follow()
        count = 3000
        await written_while_killed(server, lambda n: outbox.write("s.a", b"%d" % n, {"Nats-Msg-Id": str(n)}), count)
        await outbox.flush(40)
        await wait_until(lambda: len(b.got) >= count)
        assert b.seqs == list(range(1, count + 1))
        assert sorted(map(int, b.data)) == list(range(count))


async def test_a_server_that_stops_for_a_while_makes_no_gap(nats_server: ServerFactory) -> None:
    server = nats_server()
    async with bench(server) as b:
        await b.publish("s.a", b"1")
        await b.follow()
        server.sigstop()
        await wait_until(lambda: not b.conn.is_connected)
        server.sigcont()
        await b.conn.wait_connected()
        await b.publish("s.a", b"2")
        await wait_until(lambda: len(b.got) == 2)
        assert b.data == [b"1", b"2"]


async def test_a_consumer_that_is_deleted_is_noticed_and_replaced(nats_server: ServerFactory) -> None:
    """[12, 13] No heartbeat twice: nats-py reports it to a callback at best."""
    async with bench(nats_server()) as b:
        await b.publish("s.a", b"1")
        follower = await b.follow()
        for name in await b.consumers():
            await b.js.api(f"CONSUMER.DELETE.S.{name}")
        await b.publish("s.a", b"2")
        await wait_until(lambda: len(b.got) == 2)
        assert b.data == [b"1", b"2"]
        assert follower.statistics().consumers == 2


async def test_a_lost_message_is_noticed_by_its_number(nats_server: ServerFactory) -> None:
    async with bench(nats_server()) as b:
        follower = await b.follow()
        await b.publish("s.a", b"1")
        await wait_until(lambda: len(b.got) == 1)
        await b.publish_and_lose(follower, b"2")
        await b.publish("s.a", b"3", b"4")
        await wait_until(lambda: len(b.got) == 4)
        assert b.data == [b"1", b"2", b"3", b"4"]
        assert follower.statistics().consumers == 2


async def test_a_lost_last_message_is_noticed_by_the_heartbeat(nats_server: ServerFactory) -> None:
    async with bench(nats_server()) as b:
        follower = await b.follow()
        await b.publish_and_lose(follower, b"1")
        await wait_until(lambda: len(b.got) == 1)
        assert b.data == [b"1"]


async def test_a_loop_that_was_blocked_is_not_taken_for_a_silent_server(nats_server: ServerFactory) -> None:
    async with bench(nats_server()) as b:
        follower = await b.follow()
        for _ in range(2):
            time.sleep(1.5)  # noqa: ASYNC251 - that is the point
            await anyio.sleep(0.3)
        await b.publish("s.a", b"1")
        await wait_until(lambda: len(b.got) == 1)
        assert follower.statistics().consumers == 1


async def test_a_quiet_stream_keeps_its_consumer(nats_server: ServerFactory) -> None:
    async with bench(nats_server()) as b:
        follower = await b.follow()
        await anyio.sleep(2.5)
        assert follower.statistics().consumers == 1


async def test_the_consumer_is_gone_when_the_follower_ends(nats_server: ServerFactory) -> None:
    async with bench(nats_server()) as b:
        async with anyio.create_task_group() as tasks:
            b.tasks, outer = tasks, b.tasks
            await b.follow()
            b.tasks = outer
            assert len(await b.consumers()) == 1
            tasks.cancel_scope.cancel()
        await b.conn.flush()

        async def none_is_left() -> bool:
            return await b.consumers() == []

        await wait_until_async(none_is_left, 4)  # by itself it would go after five seconds
        assert b.conn.statistics().requests_in_flight == 0
        await b.publish("s.a", b"1")
        assert b.got == []


class LeaderlessJetStream(JetStream):
    """Answers as a server does whose cluster has no leader; it takes one a quarter of a minute to come to that."""

    until_s = 0.0

    async def stream_info(self, stream: str) -> StreamInfo:
        if anyio.current_time() < self.until_s:
            answer = {"code": 503, "err_code": 10008, "description": "JetStream system temporarily unavailable"}
            raise error_of(stream, answer)
        return await super().stream_info(stream)


async def test_a_cluster_that_has_no_leader_is_waited_for(
    nats_server: ServerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so for as long as most of its servers are away; that is no reason to give up, and for a node to end."""
    monkeypatch.setattr("mesh.follower.PATIENCE_S", 0.1)
    server = nats_server()
    async with bench(server) as made:
        js = made.js = LeaderlessJetStream(made.conn)
        follower = await made.follow()
        await made.publish("s.a", b"1")
        js.until_s = anyio.current_time() + 1.0
        server.restart()
        await wait_until(lambda: made.conn.epoch > 1)
        await made.publish("s.a", b"2")
        await wait_until(lambda: made.data == [b"1", b"2"])
        assert anyio.current_time() >= js.until_s
        assert follower.statistics().consumers == 2


async def test_no_such_stream_is_told_at_once(nats_server: ServerFactory) -> None:
    async with bench(nats_server()) as b:
        with anyio.fail_after(15), pytest.raises(NotFound):
            await Follower(b.conn, b.js, "NONE", [], 1, b.got.append).run()


async def test_a_stream_that_lost_what_was_delivered_ends_the_follower(nats_server: ServerFactory) -> None:
    """Otherwise it would wait in silence until the new messages are past the old number, and skip all before it."""
    server = nats_server()
    async with bench(server) as b:
        await b.publish("s.a", b"1", b"2", b"3")
        await b.js.delete_stream("S")
        await b.js.ensure_stream(STREAM)
        await b.publish("s.a", b"new")
        with anyio.fail_after(15), pytest.raises(StreamRegressed) as regressed:
            await Follower(b.conn, b.js, "S", [], 4, b.got.append).run()
        assert (regressed.value.delivered_seq, regressed.value.last_seq) == (3, 1)
        assert b.got == []


class SlowToTell(JetStream):
    """Says how the stream is only when it is let."""

    def __init__(self, conn: Connection) -> None:
        super().__init__(conn)
        self.let = anyio.Event()

    async def stream_info(self, stream: str) -> StreamInfo:
        await self.let.wait()
        return await super().stream_info(stream)


@pytest.mark.parametrize("is_whole", [True, False])
async def test_nothing_is_delivered_before_the_tail_was_looked_at(nats_server: ServerFactory, is_whole: bool) -> None:
    """The consumer is made at the same time, and what it sends may follow messages that are not those we know."""
    async with bench(nats_server()) as b:
        await b.publish("s.a", b"1", b"2", b"3")
        known = await b.js.get_seq("S", 2)
        assert known is not None
        js = SlowToTell(b.conn)
        before_ns = known.timestamp_ns if is_whole else known.timestamp_ns - 1
        follower = Follower(b.conn, js, "S", [], 3, b.got.append, before_ns=before_ns)
        failed: list[StreamRegressed] = []

        async def follow() -> None:
            try:
                await follower.run()
            except StreamRegressed as error:
                failed.append(error)

        b.tasks.start_soon(follow)
        await wait_until(lambda: follower.statistics().held == 1)
        await b.publish("s.a", b"4")
        await wait_until(lambda: follower.statistics().held == 2)
        assert b.got == []
        assert not follower.caught_up.is_set()
        js.let.set()
        if is_whole:
            await wait_until(lambda: b.data == [b"3", b"4"])
            await wait_until(follower.caught_up.is_set)
        else:
            await wait_until(lambda: bool(failed))
            assert b.got == []
            assert (follower.last_seq, follower.statistics().held) == (2, 0)
        b.tasks.cancel_scope.cancel()


class CutOff(JetStream):
    """Asked of a cluster in which a server that was cut off says for so many times how the stream was before."""

    answers = 0

    @property
    def has_copies(self) -> bool:
        return True

    async def stream_info(self, stream: str) -> StreamInfo:
        self.answers -= 1
        info = await super().stream_info(stream)
        return replace(info, last_seq=1) if self.answers >= 0 else info


async def test_stream_that_ends_too_early_for_a_moment_has_lost_nothing(
    nats_server: ServerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or all owners would suspend what they run, and all nodes end, as one server answers from the past."""
    async with bench(nats_server()) as b:
        await b.publish("s.a", b"1", b"2", b"3")
        js = CutOff(b.conn)
        js.answers = 3
        b.tasks.start_soon(Follower(b.conn, js, "S", [], 3, b.got.append).run)
        await wait_until(lambda: b.data == [b"3"])

        monkeypatch.setattr("mesh.follower.PATIENCE_S", 0.2)
        js.answers = 1000
        with anyio.fail_after(15), pytest.raises(StreamRegressed):
            await Follower(b.conn, js, "S", [], 3, b.got.append).run()
        b.tasks.cancel_scope.cancel()


@pytest.mark.parametrize("others", [2, 3])
async def test_a_tail_that_was_replaced_ends_the_follower(nats_server: ServerFactory, others: int) -> None:
    """The server has lost the newest messages, and others have come by their numbers before anybody looks."""
    server, elsewhere = nats_server(), nats_server()
    store, kept = server.directory / "store", server.directory / "kept"
    async with bench(server) as b:
        await b.publish("s.a", b"1")
        await b.publish("s.b", b"2")
        server.stop()
        shutil.copytree(store, kept)
        server.start()
        await b.conn.wait_connected()
        failed: list[StreamRegressed] = []

        async def follow() -> None:
            try:
                await Follower(b.conn, b.js, "S", ["s.a"], 1, b.got.append, idle_heartbeat_s=0.2).run()
            except StreamRegressed as error:
                failed.append(error)

        b.tasks.start_soon(follow)
        await b.publish("s.a", b"3", b"4", b"5")
        await wait_until(lambda: b.data == [b"1", b"3", b"4", b"5"])
        server.stop()
        elsewhere.stop()
        shutil.rmtree(elsewhere.directory / "store")
        shutil.copytree(kept, elsewhere.directory / "store")
        elsewhere.start()
        async with connect(elsewhere.url, name="meanwhile") as conn:
            for _ in range(others):
                await JetStream(conn).publish("s.b", b"other")
        elsewhere.stop()
        shutil.rmtree(store)
        shutil.copytree(elsewhere.directory / "store", store)
        server.start()
        await wait_until(lambda: bool(failed))
        assert (failed[0].delivered_seq, failed[0].last_seq) == (5, 2)
        assert "has others than before behind 2, but 5 was delivered" in str(failed[0])
        assert len(b.got) == 4


async def test_a_last_message_that_was_deleted_is_no_lost_tail(nats_server: ServerFactory) -> None:
    server = nats_server()
    async with bench(server) as b:
        await b.follow()
        await b.publish("s.a", b"1", b"2")
        await wait_until(lambda: len(b.got) == 2)
        await b.js.delete_message("S", 2)
        server.restart()
        await b.conn.wait_connected()
        await b.publish("s.a", b"3")
        await wait_until(lambda: len(b.got) == 3)
        assert b.data == [b"1", b"2", b"3"]


async def test_what_deliver_raises_ends_the_follower_and_nothing_more_is_delivered(nats_server: ServerFactory) -> None:
    async with bench(nats_server()) as b:
        await b.publish("s.a", b"1", b"2", b"3")

        def fail_at_2(message: Delivered) -> None:
            b.got.append(message)
            if message.data == b"2":
                raise RuntimeError("cannot apply")

        with anyio.fail_after(15), pytest.raises(RuntimeError, match="cannot apply"):
            await Follower(b.conn, b.js, "S", [], 1, fail_at_2).run()
        assert b.data == [b"1", b"2"]


def test_positions_with_and_without_a_domain() -> None:
    """[12] nats-py cannot read the form with a domain in an ordered consumer."""
    plain = "$JS.ACK.S.follow-1.1.77.5.1795356223469061764.9"
    domain = "$JS.ACK.hub.ACCHASH.S.follow-1.1.77.5.1795356223469061764.9"
    expected = (77, 5, 1795356223469061764, 9)
    assert position_of(plain) == expected
    assert position_of(domain) == expected
    assert position_of(f"{domain}.random") == expected
    for bad in ("$JS.ACK.S.c.1.x.5.1.9", "$JS.ACK.S", ""):
        with pytest.raises(Undecodable):
            position_of(bad)
