"""The outbox against a real server: a write ends with exactly one ack, whatever happens to the connection."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import anyio
import pytest

from mesh.connection import Connection, ConnectOptions, connect
from mesh.errors import (
    Conflict,
    Disconnected,
    InvalidName,
    NotFound,
    OutcomeUnknown,
    PayloadTooLarge,
    RequestTimeout,
    ServerRefused,
)
from mesh.jetstream import JetStream
from mesh.outbox import WINDOW, Ack, Outbox
from mesh.pace import BATCH_MIN, Pace
from mesh.wire import SUBJECT_BYTES_MAX
from tests.conftest import ServerFactory
from tests.servers import written_while_killed
from tests.waiting import wait_until

STREAM = {"name": "S", "subjects": ["s.>"], "storage": "file", "allow_direct": True}


# A queue's stream, but without partitions.
QUEUE_STREAM = STREAM | {"subjects": ["mesh.wf.q.>"], "allow_atomic": True, "allow_rollup_hdrs": True}


class Flushes(Pace):
    """What a server that flushes each write turns out to be, from the beginning."""

    def __init__(self) -> None:
        super().__init__()
        self.restart()

    def restart(self) -> None:
        super().restart()
        self.in_batches, self.single_s = True, 10.0


async def stored(conn: Connection) -> list[tuple[str, bytes]]:
    return [(message.subject, message.data) for message in await JetStream(conn, timeout_s=20).batch_get("S")]


async def test_each_write_is_acknowledged_once_and_stored_in_order(nats_server: ServerFactory) -> None:
    acks: list[Ack] = []
    async with connect(nats_server().url, name="test") as conn, Outbox(conn) as outbox:
        await JetStream(conn).ensure_stream(STREAM)
        count = 2 * WINDOW + 10
        for n in range(count):
            outbox.write("s.a", b"%d" % n, on_ack=acks.append)
        assert outbox.pending_count == count
        assert outbox.statistics().unanswered == WINDOW
        assert acks == []
        await outbox.flush(45)
        assert acks == [Ack(n + 1) for n in range(count)]
        assert outbox.statistics() == (0, 0, 0, 0)
        assert [data for _, data in await stored(conn)] == [b"%d" % n for n in range(count)]


async def test_write_acked_returns_the_sequence_and_knows_a_duplicate(nats_server: ServerFactory) -> None:
    headers = {"Nats-Msg-Id": "one"}
    async with connect(nats_server().url, name="test") as conn, Outbox(conn) as outbox:
        await JetStream(conn).ensure_stream(STREAM)
        assert await outbox.write_acked("s.a", b"1", headers) == Ack(1)
        assert await outbox.write_acked("s.a", b"1", headers) == Ack(1, duplicate=True)
        assert headers == {"Nats-Msg-Id": "one"}


async def test_permanent_refusals_end_a_write_with_their_error(nats_server: ServerFactory) -> None:
    server = nats_server(
        config="max_payload: 2000\n"
        'authorization { users: [{ user: u, password: p, permissions: { publish: { deny: "no" } } }] }'
    )
    options = ConnectOptions(user="u", password="p")
    async with connect(server.url, name="test", options=options) as conn, Outbox(conn, patience_s=0.3) as outbox:
        await JetStream(conn).ensure_stream(STREAM | {"max_msg_size": 1000})
        with pytest.raises(PayloadTooLarge):
            await outbox.write_acked("s.a", b"x" * 2001)
        with pytest.raises(PayloadTooLarge):
            await outbox.write_acked("s.a", b"x" * 1500)
        await outbox.write_acked("s.a")
        with pytest.raises(Conflict) as conflict:
            await outbox.write_acked("s.a", b"", {"Nats-Expected-Last-Subject-Sequence": "0"})
        assert conflict.value.expected == 0
        with pytest.raises(NotFound):
            await outbox.write_acked("nowhere")
        with pytest.raises(ServerRefused, match="permission"):
            await outbox.write_acked("no")
        with pytest.raises(InvalidName):
            outbox.write("a b")
        assert outbox.pending_count == 0
        assert await stored(conn) == [("s.a", b"")]


async def test_no_stream_is_believed_only_after_a_while(nats_server: ServerFactory) -> None:
    """A cluster that elects a leader says the same for a moment."""
    async with connect(nats_server().url, name="test") as conn, Outbox(conn) as outbox:
        acks: list[Ack] = []
        outbox.write("s.a", b"early", on_ack=acks.append)
        await anyio.sleep(0.1)
        await JetStream(conn).ensure_stream(STREAM)
        await outbox.flush(15)
        assert acks == [Ack(1)]


async def test_no_stream_is_not_believed_while_the_server_knows_that_there_is_one(nats_server: ServerFactory) -> None:
    """A cluster may have no leader for any time. What was given up then would be lost: an outcome, an exit, an end."""
    url = nats_server().url
    options = ConnectOptions(js_api_prefix="asked")
    async with (
        connect(url, name="other") as other,
        connect(url, name="test", options=options) as conn,
        Outbox(conn, patience_s=0.1) as outbox,
    ):
        asked: list[bytes] = []

        def there_is_one(_subject: str, reply: str, data: bytes, _headers: bytes | None) -> None:
            asked.append(data)
            other.publish_nowait(reply, b'{"streams": ["S"]}')

        other.subscribe_direct("asked.STREAM.NAMES", there_is_one)
        await other.flush()
        acks: list[Ack] = []
        outbox.write("s.a", b"late", on_ack=acks.append)
        await wait_until(lambda: len(asked) >= 2)
        assert (acks, set(asked)) == ([], {b'{"subject": "s.a"}'})
        await JetStream(other).ensure_stream(STREAM)
        await outbox.flush(15)
        assert acks == [Ack(1)]


async def test_what_a_stream_cannot_store_now_is_written_once_it_can(nats_server: ServerFactory) -> None:
    """A disk that is full says the same as a limit that is reached, and for as long."""
    async with connect(nats_server().url, name="test") as conn, Outbox(conn, patience_s=0.1) as outbox:
        js = JetStream(conn, timeout_s=20)
        await js.ensure_stream(STREAM | {"max_msgs": 1, "discard": "new"})
        acks: list[Ack] = []
        outbox.write("s.a", b"1", on_ack=acks.append)
        outbox.write("s.a", b"2", on_ack=acks.append)
        await wait_until(lambda: acks)
        with pytest.raises(RequestTimeout):
            await outbox.flush(0.5)
        assert acks == [Ack(1)]
        await js.purge("S")
        await outbox.flush(15)
        assert acks == [Ack(1), Ack(2)]


async def test_writes_made_while_disconnected_are_stored_after_it(nats_server: ServerFactory) -> None:
    server = nats_server()
    async with connect(server.url, name="test") as conn, Outbox(conn) as outbox:
        await JetStream(conn).ensure_stream(STREAM)
        server.kill()
        await wait_until(lambda: not conn.is_connected)
        for n in range(3):
            outbox.write("s.a", b"%d" % n)
        with pytest.raises(RequestTimeout):
            await outbox.flush(0.1)
        assert outbox.pending_count == 3
        server.start()
        await outbox.flush(15)
        assert await stored(conn) == [("s.a", b"0"), ("s.a", b"1"), ("s.a", b"2")]


@pytest.mark.timeout(120)
async def test_nothing_is_lost_when_the_server_is_killed_again_and_again(nats_server: ServerFactory) -> None:
    """Each write is acknowledged once, with the sequence where it is; what is stored twice has a known second copy."""
    server = nats_server(sync_interval="always")
    acks: dict[int, list[Ack]] = {}
    count = 3000
    async with connect(server.url, name="test") as conn, Outbox(conn) as outbox:
        js = JetStream(conn, timeout_s=20)
        await js.ensure_stream(STREAM)

        def write(n: int) -> None:
            acks[n] = []
            outbox.write("s.a", b"%d" % n, {"Nats-Msg-Id": str(n)}, acks[n].append)

        await written_while_killed(server, write, count)
        await outbox.flush(45)
        assert all(len(given) == 1 and given[0].error is None for given in acks.values())
        messages = {message.seq: message.data for message in await js.batch_get("S")}
        assert sorted(map(int, messages.values())) == list(range(count))
        assert all(messages[given[0].seq] == b"%d" % n for n, given in acks.items())


async def test_an_ack_that_was_lost_is_asked_for_again(nats_server: ServerFactory) -> None:
    """The stream is there but its answer does not come: the write is repeated after a while."""
    async with connect(nats_server().url, name="test") as conn, Outbox(conn, resend_s=0.2) as outbox:
        copies: list[str] = []
        conn.subscribe_direct("deaf", lambda _s, reply, _d, _h: copies.append(reply))
        acks: list[Ack] = []
        outbox.write("deaf", b"", on_ack=acks.append)
        await wait_until(lambda: len(copies) >= 3)
        assert len(set(copies)) == 1
        conn.publish_nowait(copies[0], b'{"stream":"X","seq":7}')
        conn.publish_nowait(copies[0], b'{"stream":"X","seq":8}')
        await outbox.flush(15)
        await conn.flush()
        assert acks == [Ack(7)]
        assert outbox.statistics().repeated >= 2


async def test_too_many_requests_is_not_an_error_but_repeated(nats_server: ServerFactory) -> None:
    async with connect(nats_server().url, name="test") as conn, Outbox(conn) as outbox:
        copies: list[str] = []

        def answer(_subject: str, reply: str, _data: bytes, _headers: bytes | None) -> None:
            copies.append(reply)
            busy = b'{"error":{"code":429,"err_code":10167,"description":"too many requests"},"stream":"X","seq":0}'
            conn.publish_nowait(reply, busy if len(copies) < 3 else b'{"stream":"X","seq":1}')

        conn.subscribe_direct("busy", answer)
        with anyio.fail_after(15):
            assert await outbox.write_acked("busy") == Ack(1)
        assert len(copies) == 3


async def test_an_answer_that_is_no_ack_is_an_error(nats_server: ServerFactory) -> None:
    async with connect(nats_server().url, name="test") as conn, Outbox(conn) as outbox:
        for n, junk in enumerate((b"hello", b"[1]", b"{}", b"")):
            conn.subscribe_direct(f"j.{n}", lambda _s, reply, _d, _h, junk=junk: conn.publish_nowait(reply, junk))  # type: ignore[misc]
            acks: list[Ack] = []
            outbox.write(f"j.{n}", on_ack=acks.append)
            await outbox.flush(15)
            assert acks[0].error is not None


async def test_a_callback_that_raises_harms_nobody(
    nats_server: ServerFactory, caplog: pytest.LogCaptureFixture
) -> None:
    async with connect(nats_server().url, name="test") as conn, Outbox(conn) as outbox:
        await JetStream(conn).ensure_stream(STREAM)

        def fail(_ack: Ack) -> None:
            raise RuntimeError("boom")

        outbox.write("s.a", b"", None, fail)
        assert await outbox.write_acked("s.a") == Ack(2)
        assert "on_ack callback failed" in caplog.text


async def test_room_holds_up_whoever_writes_too_much(nats_server: ServerFactory) -> None:
    async with connect(nats_server().url, name="test") as conn, Outbox(conn) as outbox:
        await JetStream(conn).ensure_stream(STREAM)
        most = 0
        for n in range(40_000):
            outbox.write("s.a", b"x")
            most = max(most, outbox.pending_count)
            if n % 100 == 0:
                await outbox.room()
        assert most <= 2 * WINDOW + 100
        await outbox.flush(45)
        assert (await JetStream(conn).stream_info("S")).messages == 40_000


async def test_leaving_the_block_ends_what_is_unanswered(nats_server: ServerFactory) -> None:
    server = nats_server()
    acks: list[Ack] = []
    async with connect(server.url, name="test") as conn:
        async with Outbox(conn) as outbox:
            conn.subscribe_direct("deaf", lambda *_: None)
            outbox.write("deaf", on_ack=acks.append)
            await conn.flush()
        server.kill()
        await wait_until(lambda: not conn.is_connected)
        async with Outbox(conn) as outbox:
            outbox.write("deaf", on_ack=acks.append)
        with pytest.raises(Disconnected):
            outbox.write("deaf")
    assert [type(ack.error) for ack in acks] == [OutcomeUnknown, Disconnected]


# -- batches ----------------------------------------------------------------------------------------------------------


async def test_what_is_written_together_is_stored_in_batches_in_its_order(nats_server: ServerFactory) -> None:
    acks: list[Ack] = []
    async with connect(nats_server().url, name="test") as conn, Outbox(conn, pace=Flushes()) as outbox:
        await JetStream(conn).ensure_stream(QUEUE_STREAM)
        count = 1700
        for n in range(count):
            # Now and then one that may not share the fate of others.
            headers = {"Nats-Msg-Id": str(n)} if n % 300 == 299 else {"Mesh-Node": "a"} if n % 2 else None
            outbox.write("mesh.wf.q.w.signal.s", b"%d" % n, headers, acks.append)
        await outbox.flush(45)
        assert [ack.seq for ack in acks] == list(range(1, count + 1))
        assert [data for _, data in await stored(conn)] == [b"%d" % n for n in range(count)]
        assert 4 <= outbox.statistics().batches <= 20
        first, second = (await JetStream(conn).batch_get("S"))[:2]
        assert b"Mesh-Node" not in (first.raw_headers or b"")
        assert b"Mesh-Node: a\r\n" in (second.raw_headers or b"")

        before = outbox.statistics().batches
        for n in range(BATCH_MIN - 1):
            outbox.write("mesh.wf.q.w.signal.s", b"%d" % n)
        await outbox.flush(15)
        assert outbox.statistics().batches == before, "too few for one"


async def test_writes_to_two_streams_are_two_batches(nats_server: ServerFactory) -> None:
    acks: list[Ack] = []
    async with connect(nats_server().url, name="test") as conn, Outbox(conn, pace=Flushes()) as outbox:
        await JetStream(conn).ensure_stream(QUEUE_STREAM)
        await JetStream(conn).ensure_stream(QUEUE_STREAM | {"name": "T", "subjects": ["mesh.wf.t.>", "t"]})
        for n in range(60):
            outbox.write("mesh.wf.q.w.start", b"%d" % n, None, acks.append)
            outbox.write("mesh.wf.t.w.start", b"%d" % n, None, acks.append)
        outbox.write("t", b"", None, acks.append)
        await outbox.flush(15)
        assert outbox.statistics().batches == 2
        assert sorted(ack.seq for ack in acks) == sorted([*range(1, 61), *range(1, 62)])


async def test_a_batch_that_is_refused_is_written_one_by_one(nats_server: ServerFactory) -> None:
    """Whoever is at fault hears of it, and nobody else."""
    acks: dict[int, Ack] = {}
    first = {"Nats-Expected-Last-Subject-Sequence": "0", "Mesh-Node": "a"}
    async with connect(nats_server().url, name="test") as conn, Outbox(conn, pace=Flushes()) as outbox:
        await JetStream(conn).ensure_stream(QUEUE_STREAM)
        await outbox.write_acked("mesh.wf.q.w7.start")
        for n in range(50):
            outbox.write(f"mesh.wf.q.w{n}.start", b"", first, lambda ack, n=n: acks.update({n: ack}))  # type: ignore[misc]
        await outbox.flush(15)
        assert {n for n, ack in acks.items() if isinstance(ack.error, Conflict)} == {7}
        assert len(acks) == 50
        subjects = [subject for subject, _ in await stored(conn)]
        assert sorted(subjects) == sorted(f"mesh.wf.q.w{n}.start" for n in range(50))
        assert outbox.statistics() == (0, 0, 50, 0)


async def test_a_stream_that_takes_no_batches_gets_none(nats_server: ServerFactory) -> None:
    async with connect(nats_server().url, name="test") as conn, Outbox(conn, pace=Flushes()) as outbox:
        await JetStream(conn).ensure_stream(QUEUE_STREAM | {"allow_atomic": False})
        for n in range(100):
            outbox.write("mesh.wf.q.w.start", b"%d" % n)
        await outbox.flush(15)
        assert [data for _, data in await stored(conn)] == [b"%d" % n for n in range(100)]


async def test_a_write_that_nobody_answers_holds_nobody_up(nats_server: ServerFactory) -> None:
    async with connect(nats_server().url, name="test") as conn, Outbox(conn, pace=Flushes(), resend_s=0.2) as outbox:
        await JetStream(conn).ensure_stream(QUEUE_STREAM)
        conn.subscribe_direct("deaf", lambda *_: None)
        outbox.write("deaf")
        for _ in range(5):
            with anyio.fail_after(15):
                await outbox.write_acked("mesh.wf.q.w.start")
        assert outbox.pending_count == 1


async def test_a_subject_that_leaves_no_room_for_an_answer_ends_its_own_write_only(nats_server: ServerFactory) -> None:
    acks: list[Ack] = []
    async with connect(nats_server().url, name="test") as conn, Outbox(conn, pace=Flushes()) as outbox:
        await JetStream(conn).ensure_stream(QUEUE_STREAM)
        for _ in range(BATCH_MIN):
            outbox.write("mesh.wf.q.w.start", on_ack=acks.append)
        prefix = "mesh.wf.q.w.signal."
        outbox.write(prefix + "s" * (SUBJECT_BYTES_MAX - len(prefix)), on_ack=acks.append)
        await outbox.flush(15)
        refused = [ack for ack in acks if ack.error is not None]
        assert [type(ack.error) for ack in refused] == [InvalidName]
        assert len(acks) == BATCH_MIN + 1


async def test_a_server_that_answers_nothing_is_sent_no_more_than_it_queues(
    nats_server: ServerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mesh.outbox.TICK_S", 0.01)
    async with connect(nats_server().url, name="test") as conn, Outbox(conn, pace=Flushes(), resend_s=0.01) as outbox:
        conn.subscribe_direct("mesh.wf.q.>", lambda *_: None)
        for _ in range(3 * WINDOW):
            outbox.write("mesh.wf.q.w.start", on_ack=lambda _ack: None)
        await wait_until(lambda: outbox.statistics().repeated > 2 * WINDOW)
        assert outbox.statistics().unanswered <= WINDOW
        assert outbox.pending_count == 3 * WINDOW


async def test_what_is_too_large_for_a_message_holds_nobody_up(nats_server: ServerFactory) -> None:
    server = nats_server()
    async with connect(server.url, name="test") as conn, Outbox(conn, pace=Flushes()) as outbox:
        # This stream takes less than the server does: that is found out when the write is in flight already.
        await JetStream(conn).ensure_stream(QUEUE_STREAM | {"max_msg_size": 100_000})
        acks: dict[int, Ack] = {}
        for size in (90_000, 200_000, 2 * conn.max_payload):
            payload = b"x" * size
            outbox.write("mesh.wf.q.w.signal.s", payload, None, lambda ack, size=size: acks.update({size: ack}))  # type: ignore[misc]
        with anyio.fail_after(15):
            for n in range(BATCH_MIN):
                outbox.write("mesh.wf.q.w.signal.s", b"%d" % n)
            await outbox.write_acked("mesh.wf.q.w.signal.s", b"last")
            await outbox.flush(15)
        refused = [size for size, ack in sorted(acks.items()) if isinstance(ack.error, PayloadTooLarge)]
        assert len(acks) == 3
        assert refused == [200_000, 2 * conn.max_payload]
        assert len(await stored(conn)) == BATCH_MIN + 2


@pytest.mark.timeout(120)
async def test_no_write_of_a_batch_is_lost_or_torn_when_the_server_is_killed_again_and_again(
    nats_server: ServerFactory,
) -> None:
    """Each is acknowledged once, with a sequence where it is; and all that is stored is what was written."""
    server = nats_server(sync_interval="always")
    acks: dict[int, list[Ack]] = {}
    count = 6000
    async with connect(server.url, name="test") as conn, Outbox(conn, pace=Flushes()) as outbox:
        js = JetStream(conn, timeout_s=20)
        await js.ensure_stream(QUEUE_STREAM)

        is_over = False

        async def write_all() -> None:
            # Until the last kill: a batch has to be under way for each.
            for n in itertools.takewhile(lambda n: n < count or not is_over, itertools.count()):
                acks[n] = []
                outbox.write("mesh.wf.q.w.start", b"%d" % n, None, acks[n].append)
                if n % 60 == 0:
                    await anyio.sleep(0.01)

        def stored_since(batches: int) -> Callable[[], bool]:
            return lambda: outbox.statistics().batches > batches

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write_all)
            for _ in range(3):
                await wait_until(stored_since(outbox.statistics().batches), 20)
                server.kill()
                await wait_until(lambda: not conn.is_connected)
                server.start()
            is_over = True
        await outbox.flush(45)
        assert all(len(given) == 1 and given[0].error is None for given in acks.values())
        messages = {message.seq: message.data for message in await js.batch_get("S")}
        assert set(map(int, messages.values())) == set(acks)
        assert all(messages[given[0].seq] == b"%d" % n for n, given in acks.items())
