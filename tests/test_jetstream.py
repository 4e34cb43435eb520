"""JetStream over raw requests against a real server. Numbers in brackets: rows of the list of sharp edges."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from mesh.connection import connect, parse_headers
from mesh.errors import (
    Conflict,
    Disconnected,
    NotFound,
    NotReady,
    OutcomeUnknown,
    PayloadTooLarge,
    ServerRefused,
)
from mesh.jetstream import BatchMessage, JetStream, write_headers
from mesh.jetstream_api import error_of
from tests.conftest import ServerFactory
from tests.servers import ServerProcess
from tests.waiting import wait_until, wait_until_async

STREAM = {
    "name": "S",
    "subjects": ["s.>"],
    "storage": "file",
    "num_replicas": 1,
    "allow_direct": True,
    "allow_msg_ttl": True,
    "allow_atomic": True,
}


@asynccontextmanager
async def jetstream(server: ServerProcess, *, timeout_s: float = 20.0) -> AsyncIterator[JetStream]:
    async with connect(server.url, name="test") as conn:
        yield JetStream(conn, timeout_s=timeout_s)


async def filled(js: JetStream, count: int) -> None:
    """Fill stream S with `count` messages on s.0, s.1, s.2, s.0, ..."""
    await js.ensure_stream(STREAM)
    for n in range(count):
        js.conn.publish_nowait(f"s.{n % 3}", b"%d" % n, headers={"N": str(n)} if n % 2 else None)
    await js.conn.flush()

    async def is_stored() -> bool:
        return (await js.stream_info("S")).last_seq == count

    await wait_until_async(is_stored)


async def test_a_stream_is_created_once_and_updated_only_where_it_differs(nats_server: ServerFactory) -> None:
    """[9] Fields that the update does not name, or that we do not know, are not dropped."""
    async with jetstream(nats_server()) as js:
        with pytest.raises(NotFound):
            await js.stream_info("S")
        created = await js.ensure_stream(STREAM | {"metadata": {"mesh.a": "1"}, "max_age": 3_600_000_000_000})
        assert (created.name, created.messages, created.first_seq, created.last_seq) == ("S", 0, 0, 0)
        subjects: list[str] = []
        js.conn.subscribe_direct("$JS.API.STREAM.>", lambda subject, *_: subjects.append(subject))
        assert await js.ensure_stream(STREAM | {"description": ""}) == created
        assert subjects == ["$JS.API.STREAM.INFO.S"]
        updated = await js.ensure_stream({"name": "S", "max_msgs": 100, "metadata": {"mesh.b": "2"}})
        assert subjects[-1] == "$JS.API.STREAM.UPDATE.S"
        assert updated.config["max_msgs"] == 100
        assert updated.config["max_age"] == 3_600_000_000_000
        assert updated.config["allow_atomic"] is True
        assert updated.config["metadata"].items() >= {"mesh.a": "1", "mesh.b": "2"}.items()
        with pytest.raises(ServerRefused):
            await js.ensure_stream({"name": "S", "storage": "memory"})
        await js.delete_stream("S")
        with pytest.raises(NotFound):
            await js.stream_info("S")


async def test_several_at_once_may_ensure_the_same_stream(nats_server: ServerFactory) -> None:
    async with jetstream(nats_server()) as js, anyio.create_task_group() as tasks:
        for n in range(8):
            tasks.start_soon(js.ensure_stream, STREAM | {"max_msgs_per_subject": 7, "description": f"{n % 2}"})


async def test_publish_returns_the_sequence_and_recognises_a_repetition(nats_server: ServerFactory) -> None:
    async with jetstream(nats_server()) as js:
        await js.ensure_stream(STREAM)
        headers = {"A": "b"}
        assert await js.publish("s.a", b"1", headers=headers, msg_id="one") == (1, False)
        assert await js.publish("s.a", b"1", headers=headers, msg_id="one") == (1, True)
        assert headers == {"A": "b"}  # [8]
        stored = await js.get_last("S", "s.a")
        assert stored is not None
        assert (stored.subject, stored.seq, stored.data) == ("s.a", 1, b"1")
        assert parse_headers(stored.raw_headers).items() >= {"A": "b", "Nats-Msg-Id": "one"}.items()
        assert abs(stored.timestamp_ns - time.time_ns()) < 5_000_000_000


async def test_a_write_that_expects_another_last_sequence_conflicts(nats_server: ServerFactory) -> None:
    async with jetstream(nats_server()) as js:
        await js.ensure_stream(STREAM)
        assert (await js.publish("s.a.1", expect_last_subject_seq=0)).seq == 1
        with pytest.raises(Conflict) as conflict:
            await js.publish("s.a.1", expect_last_subject_seq=0)
        assert (conflict.value.subject, conflict.value.expected) == ("s.a.1", 0)
        assert (await js.publish("s.a.1", expect_last_subject_seq=1)).seq == 2
        with pytest.raises(Conflict):
            await js.publish("s.b", expect_last_subject_seq=1, expect_subject="s.a.>")
        assert (await js.publish("s.b", expect_last_subject_seq=2, expect_subject="s.a.>")).seq == 3


async def test_what_the_server_does_not_take_has_its_own_error(nats_server: ServerFactory) -> None:
    server = nats_server(config="max_payload: 5000")
    async with jetstream(server) as js:
        await js.ensure_stream(STREAM | {"max_msg_size": 100})
        with pytest.raises(NotFound, match="no stream takes"):
            await js.publish("elsewhere")
        with pytest.raises(PayloadTooLarge):
            await js.publish("s.a", b"x" * 6000)
        with pytest.raises(PayloadTooLarge):
            await js.publish("s.a", b"x" * 200)
        with pytest.raises(ServerRefused) as refused:
            await js.publish("s.a", headers={"Nats-TTL": "nonsense"})
        assert refused.value.err_code == 10165
        assert (await js.stream_info("S")).last_seq == 0


@pytest.mark.parametrize("ttl_s", [0, -1, 0.5, 1.5])
def test_a_time_to_live_below_a_second_is_refused(ttl_s: float) -> None:
    """[7] nats-py makes 0 of 0.5."""
    with pytest.raises(ValueError, match="whole seconds"):
        write_headers(None, ttl_s=ttl_s)  # type: ignore[arg-type]


async def test_a_write_without_an_ack_has_an_unknown_outcome(nats_server: ServerFactory) -> None:
    """[4] It may be stored all the same: the caller reads back, or repeats with the same Nats-Msg-Id."""
    server = nats_server()
    async with jetstream(server) as js:
        await js.ensure_stream(STREAM)
        server.sigstop()
        with pytest.raises(OutcomeUnknown):
            await js.publish("s.a", b"1", msg_id="one", timeout_s=0.1)
        server.sigcont()
        assert await js.publish("s.a", b"1", msg_id="one") == (1, True)
        async with anyio.create_task_group() as tasks:

            async def write() -> None:
                with pytest.raises(OutcomeUnknown):
                    await js.publish("s.a", b"2")

            server.sigstop()
            tasks.start_soon(write)
            await wait_until(lambda: js.conn.statistics().requests_in_flight == 1)
            server.kill()
        with pytest.raises(Disconnected):
            await js.publish("s.a", b"3")


async def test_an_atomic_batch_is_written_whole_or_not_at_all(nats_server: ServerFactory) -> None:
    """[17] nats-py has no batch, and its publish cannot read the empty ack of a member."""
    async with jetstream(nats_server()) as js:
        await js.ensure_stream(STREAM)
        messages = [BatchMessage(f"s.{n}", b"%d" % n, {"N": str(n)}) for n in range(5)]
        assert await js.publish_batch(messages) == (5, False)
        assert await js.publish_batch([BatchMessage("s.9")]) == (6, False)
        stored = await js.batch_get("S")
        assert [(m.subject, m.seq, m.data) for m in stored[:5]] == [(f"s.{n}", n + 1, b"%d" % n) for n in range(5)]
        assert parse_headers(stored[3].raw_headers)["N"] == "3"
        assert messages[0].headers == {"N": "0"}
        with pytest.raises(Conflict):
            await js.publish_batch(
                [BatchMessage("s.new"), BatchMessage("s.0", expect_last_subject_seq=0), BatchMessage("s.new2")]
            )
        with pytest.raises(Conflict):
            await js.publish_batch([BatchMessage("s.new"), BatchMessage("s.0", expect_last_subject_seq=0)])
        assert (await js.stream_info("S")).last_seq == 6
        assert js.conn.statistics().requests_in_flight == 0


async def test_an_atomic_batch_has_limits_and_says_why_it_is_refused(nats_server: ServerFactory) -> None:
    async with jetstream(nats_server()) as js:
        await js.ensure_stream(STREAM)
        assert (await js.publish_batch([BatchMessage("s.a")] * 1000)).seq == 1000
        for count in (0, 1001):
            with pytest.raises(ValueError, match="1 to 1000"):
                await js.publish_batch([BatchMessage("s.a")] * count)
        await js.ensure_stream(STREAM | {"name": "PLAIN", "subjects": ["p.>"], "allow_atomic": False})
        with pytest.raises(ServerRefused, match="publish"):
            await js.publish_batch([BatchMessage("p.a"), BatchMessage("p.b")])
        assert (await js.stream_info("PLAIN")).last_seq == 0


async def test_single_messages_are_read_from_any_replica_or_from_the_leader(nats_server: ServerFactory) -> None:
    """[10] A direct read may lag behind on a replica: whoever must see every acknowledged write asks the leader."""
    async with jetstream(nats_server()) as js:
        await filled(js, 6)
        for from_leader in (False, True):
            last = await js.get_last("S", "s.1", from_leader=from_leader)
            second = await js.get_seq("S", 2, from_leader=from_leader)
            following = await js.get_next("S", 3, "s.1", from_leader=from_leader)
            assert last is not None
            assert second is not None
            assert following == last
            assert (last.subject, last.seq, last.data) == ("s.1", 5, b"4")
            assert (second.subject, second.seq, second.data) == ("s.1", 2, b"1")
            assert parse_headers(second.raw_headers)["N"] == "1"
            assert await js.get_last("S", "s.none", from_leader=from_leader) is None
            assert await js.get_seq("S", 99, from_leader=from_leader) is None
            assert await js.get_next("S", 6, "s.1", from_leader=from_leader) is None
            with pytest.raises(NotFound):
                await js.get_seq("NONE", 1, from_leader=from_leader)
        assert second.timestamp_ns == (await js.get_seq("S", 2)).timestamp_ns  # type: ignore[union-attr]


async def test_batch_get_pages_through_everything_that_fits(nats_server: ServerFactory) -> None:
    """[18] nats-py has no batched direct get."""
    async with jetstream(nats_server()) as js:
        await filled(js, 30)
        for batch in (1, 4, 10, 11, 1000):
            stored = await js.batch_get("S", from_seq=5, subject_filter="s.1", batch=batch)
            assert [(m.subject, m.seq, m.data) for m in stored] == [("s.1", n + 1, b"%d" % n) for n in range(4, 30, 3)]
        assert [m.seq for m in await js.batch_get("S", max_bytes=200)] == list(range(1, 31))
        assert [m.seq for m in await js.batch_get("S", batch=4, messages_max=10)] == list(range(1, 11))
        assert await js.batch_get("S", from_seq=31) == []
        assert await js.batch_get("S", subject_filter="s.none") == []
        stamps = [m.timestamp_ns for m in await js.batch_get("S")]
        assert stamps == sorted(stamps)
        assert js.conn.statistics().requests_in_flight == 0
        with pytest.raises(NotFound):
            await js.batch_get("NONE")


async def test_batch_get_is_not_fooled_by_headers_of_users(nats_server: ServerFactory) -> None:
    async with jetstream(nats_server()) as js:
        await js.ensure_stream(STREAM)
        headers = {
            "Nats-Subject": "forged",
            "Nats-Sequence": "77",
            "Nats-Time-Stamp": "2020-01-01T00:00:00Z",
            "Nats-Num-Pending": "5",
            "Nats-Last-Sequence": "1",
        }
        await js.publish("s.true", b"", headers=headers)
        await js.publish("s.next", b"")
        assert [(m.subject, m.seq) for m in await js.batch_get("S")] == [("s.true", 1), ("s.next", 2)]


async def test_multi_last_gives_the_last_of_each_subject(nats_server: ServerFactory) -> None:
    async with jetstream(nats_server()) as js:
        await filled(js, 8)
        found = await js.multi_last("S", ["s.0", "s.2", "s.none"])
        assert [(m.subject, m.seq) for m in found] == [("s.2", 6), ("s.0", 7)]
        assert [m.seq for m in await js.multi_last("S", ["s.>"])] == [6, 7, 8]
        assert await js.multi_last("S", ["s.none"]) == []


async def test_multi_last_of_more_than_one_page_and_of_too_many(nats_server: ServerFactory) -> None:
    async with jetstream(nats_server()) as js:
        await js.ensure_stream(STREAM)
        for n in range(1024):
            js.conn.publish_nowait(f"s.{n}")
        await js.publish("s.0")
        assert [m.seq for m in await js.multi_last("S", ["s.>"])] == list(range(2, 1026))
        await js.publish("s.more")
        with pytest.raises(ServerRefused) as refused:
            await js.multi_last("S", ["s.>"])
        assert refused.value.err_code == 413


async def test_purge_and_delete(nats_server: ServerFactory) -> None:
    async with jetstream(nats_server()) as js:
        await filled(js, 9)
        assert await js.purge("S", subject="s.1") == 3
        assert await js.delete_message("S", 1) is True
        assert await js.delete_message("S", 1) is False
        assert [m.seq for m in await js.batch_get("S")] == [3, 4, 6, 7, 9]
        assert await js.purge("S", up_to_seq=6) == 2
        assert await js.purge("S") == 3
        with pytest.raises(NotFound):
            await js.delete_message("NONE", 1)


async def test_many_large_reads_at_a_time_do_not_cost_the_connection(nats_server: ServerFactory) -> None:
    """The server hangs up on a client for which it holds more than 64 MB; each of these reads is of 45 MB."""
    async with jetstream(nats_server()) as js:
        await js.ensure_stream(STREAM)
        for n in range(50):
            await js.publish(f"s.{n}", bytes(900_000))
        read: list[int] = []

        async def read_all() -> None:
            read.append(sum(len(message.data) for message in await js.multi_last("S", ["s.>"])))
            read.append(sum(len(message.data) for message in await js.batch_get("S", subject_filter="s.>")))

        async with anyio.create_task_group() as tasks:
            for _ in range(8):
                tasks.start_soon(read_all)
        assert read == [50 * 900_000] * 16
        assert js.conn.epoch == 1


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("no suitable peers for placement, peer offline", NotReady),
        ("no suitable peers for placement, insufficient storage", ServerRefused),
    ],
)
def test_a_cluster_that_lacks_a_server_for_a_stream_is_not_ready_and_one_without_room_refuses(
    reason: str, kind: type[ServerRefused]
) -> None:
    """A node that starts while a server is being started again waits for it, as for a leader."""
    error = error_of("$JS.API.STREAM.CREATE.S", {"code": 400, "err_code": 10005, "description": reason})
    assert type(error) is kind
