"""The connection against a real server: speed traps of nats-py 2.16 and what happens when the server goes away.

The numbers in brackets are the rows of the list of sharp edges that the test guards.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import stat
import time
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import nats.aio.client
import nkeys
import pytest
import uvloop

import mesh.connection
from mesh.connection import (
    WRITE_BUFFER_BYTES_MAX,
    WRITE_NOW_BYTES,
    Connection,
    ConnectOptions,
    Handler,
    Reply,
    connect,
    encode_headers,
    parse_headers,
)
from mesh.errors import (
    Disconnected,
    InvalidName,
    NoResponders,
    NotFound,
    PayloadTooLarge,
    RequestTimeout,
    ServerRefused,
    Unreachable,
)
from tests.conftest import ServerFactory
from tests.ports import free_ports
from tests.servers import clustered
from tests.waiting import wait_until

QUICK = ConnectOptions(ping_interval_s=0.2)
Message = tuple[str, str, bytes, bytes | None]


def publish_for_ever(conn: Connection, size: int = 400_000) -> None:
    for _ in range(500_000):
        conn.publish_nowait("a", b"x" * size)


async def test_messages_arrive_in_order_with_reply_and_headers(nats_server: ServerFactory) -> None:
    got: list[Message] = []
    async with connect(nats_server().url, name="test") as conn:
        conn.subscribe_direct("a.>", lambda *message: got.append(message))
        headers = {"X-Name": "ü"}
        conn.publish_nowait("a.1", b"one")
        conn.publish_nowait("a.2", b"two", "answer.here")
        conn.publish_nowait("a.3", b"", headers=headers)
        conn.publish_nowait("b", b"not for us")
        await conn.flush()
        assert got == [
            ("a.1", "", b"one", None),
            ("a.2", "answer.here", b"two", None),
            ("a.3", "", b"", encode_headers(headers)),
        ]
        assert parse_headers(got[2][3]) == headers == {"X-Name": "ü"}  # [8] ours are not changed


async def test_an_unsubscribed_handler_is_not_called_again(nats_server: ServerFactory) -> None:
    got: list[bytes] = []
    async with connect(nats_server().url, name="test") as conn:
        subscription = conn.subscribe_direct("a", lambda _s, _r, data, _h: got.append(data))
        conn.publish_nowait("a", b"1")
        await conn.flush()
        subscription.unsubscribe()
        subscription.unsubscribe()
        conn.publish_nowait("a", b"2")
        await conn.flush()
        assert got == [b"1"]
        assert conn.statistics().subscriptions == 1  # the inbox for requests


async def test_a_queue_group_shares_the_messages(nats_server: ServerFactory) -> None:
    got: list[bytes] = []
    async with connect(nats_server().url, name="test") as conn:
        for _ in range(3):
            conn.subscribe_direct("work", lambda _s, _r, data, _h: got.append(data), queue="q")
        for n in range(50):
            conn.publish_nowait("work", b"%d" % n)
        await conn.flush()
        assert sorted(map(int, got)) == list(range(50))


async def test_a_large_message_arrives_whole(nats_server: ServerFactory) -> None:
    got: list[bytes] = []
    payload = os.urandom(900_000)
    async with connect(nats_server().url, name="test") as conn:
        conn.subscribe_direct("a", lambda _s, _r, data, _h: got.append(data))
        conn.publish_nowait("a", payload)
        conn.publish_nowait("a", payload[::-1])
        await conn.flush()
        assert got == [payload, payload[::-1]]


async def test_what_cannot_be_sent_is_refused_and_the_connection_lives(nats_server: ServerFactory) -> None:
    server = nats_server(config="max_payload: 1000")
    got: list[bytes] = []
    async with connect(server.url, name="test") as conn:
        conn.subscribe_direct("a", lambda _s, _r, data, _h: got.append(data))
        assert conn.max_payload == 1000
        with pytest.raises(PayloadTooLarge) as refused:
            conn.publish_nowait("a", b"x" * 1001)
        assert (refused.value.payload_bytes, refused.value.payload_bytes_max) == (1001, 1000)
        with pytest.raises(PayloadTooLarge):
            conn.publish_nowait("a", b"x" * 990, headers={"A": "b"})
        for subject, reply in [("", ""), ("a b", ""), ("a\r\nPUB b 0\r\n", ""), ("a", "b c"), ("a", "b\n")]:
            with pytest.raises(InvalidName):
                conn.publish_nowait(subject, b"", reply)
        with pytest.raises(InvalidName):
            conn.subscribe_direct("a b", lambda *_: None)
        conn.publish_nowait("a", b"x" * 1000)
        await conn.flush()
        assert got == [b"x" * 1000]
        assert conn.epoch == 1


async def test_request_gets_the_reply(nats_server: ServerFactory) -> None:
    async with connect(nats_server().url, name="test") as conn:
        conn.subscribe_direct("double", lambda _s, reply, data, _h: conn.publish_nowait(reply, data * 2))
        assert await conn.request("double", b"ab", timeout_s=10) == Reply(b"abab", None)
        assert conn.statistics().requests_in_flight == 0


async def test_request_nobody_listens_to_fails_at_once(nats_server: ServerFactory) -> None:
    async with connect(nats_server().url, name="test") as conn:
        with anyio.fail_after(10), pytest.raises(NoResponders):
            await conn.request("nobody", timeout_s=30)
        assert await conn.request_many("nobody", timeout_s=30) == []
        with pytest.raises(NoResponders):
            await conn.request_many("nobody", timeout_s=30, no_responders_ok=False)


async def test_request_without_an_answer_times_out_and_a_late_one_harms_nobody(nats_server: ServerFactory) -> None:
    replies: list[str] = []
    async with connect(nats_server().url, name="test") as conn:
        conn.subscribe_direct("slow", lambda _s, reply, _d, _h: replies.append(reply))
        with pytest.raises(RequestTimeout):
            await conn.request("slow", timeout_s=0.05)
        conn.publish_nowait(replies[0], b"late")
        await conn.flush()
        assert conn.statistics().requests_in_flight == 0


async def test_request_many_collects_until_the_time_is_over_or_stop_accepts(nats_server: ServerFactory) -> None:
    async with connect(nats_server().url, name="test") as conn:

        def say(name: bytes) -> Handler:
            return lambda _subject, reply, _data, _headers: conn.publish_nowait(reply, name)

        for name in (b"1", b"2", b"3"):
            conn.subscribe_direct("who", say(name))
        replies = await conn.request_many("who", timeout_s=1)
        assert sorted(reply.data for reply in replies) == [b"1", b"2", b"3"]
        with anyio.fail_after(5):
            replies = await conn.request_many("who", timeout_s=30, stop=lambda reply: reply.data == b"2")
        assert replies[-1].data == b"2"


async def test_request_each_gives_the_answers_in_the_order_of_the_requests(nats_server: ServerFactory) -> None:
    """However they come in. One that has none fails all of them, as nobody could do anything with a part."""
    async with connect(nats_server().url, name="test") as conn:
        asked: list[tuple[str, bytes]] = []

        def on_request(_subject: str, reply: str, data: bytes, _raw_headers: bytes | None) -> None:
            asked.append((reply, data))
            for reply_to, body in reversed(asked) if len(asked) == 3 else ():
                conn.publish_nowait(reply_to, body.upper())
                conn.publish_nowait(reply_to, b"once more")

        conn.subscribe_direct("echo", on_request)

        replies = await conn.request_each("echo", [b"a", b"b", b"c"], timeout_s=5)

        assert [reply.data for reply in replies] == [b"A", b"B", b"C"]
        assert await conn.request_each("echo", [], timeout_s=5) == []
        with pytest.raises(NoResponders):
            await conn.request_each("nobody", [b"a", b"b"], timeout_s=5)
        with pytest.raises(RequestTimeout):
            await conn.request_each("echo", [b"d"], timeout_s=0.05)


async def test_slow_answers_do_not_hold_up_each_other(nats_server: ServerFactory) -> None:
    """[14] nats-py serves one message of a subscription at a time; our handlers hand over and return."""
    async with connect(nats_server().url, name="test") as conn, anyio.create_task_group() as tasks:
        asked: list[str] = []

        async def answer(reply: str) -> None:
            asked.append(reply)
            await wait_until(lambda: len(asked) == 10)
            conn.publish_nowait(reply, b"done")

        def hand_over(_subject: str, reply: str, _data: bytes, _headers: bytes | None) -> None:
            tasks.start_soon(answer, reply)

        conn.subscribe_direct("slow", hand_over)
        async with anyio.create_task_group() as callers:
            for _ in range(10):
                callers.start_soon(lambda: conn.request("slow", timeout_s=20))


async def test_a_handler_or_listener_that_raises_harms_nobody(
    nats_server: ServerFactory, caplog: pytest.LogCaptureFixture
) -> None:
    """[2] In nats-py a callback that raises ends the reader, or reconnecting, for good."""
    server = nats_server()
    states: list[bool] = []

    def fail(*_facts: object) -> None:
        raise RuntimeError("listener boom")

    async with connect(server.url, name="test") as conn:
        conn.subscribe_direct("bad", fail)
        conn.subscribe_direct("good", lambda _s, reply, data, _h: conn.publish_nowait(reply, data))
        conn.on_state(fail)
        conn.on_state(states.append)
        conn.publish_nowait("bad", b"")
        assert (await conn.request("good", b"1", timeout_s=10)).data == b"1"
        server.restart()
        await wait_until(lambda: states == [False, True])
        conn.publish_nowait("bad", b"")
        assert (await conn.request("good", b"2", timeout_s=10)).data == b"2"
    assert states == [False, True, False]
    assert caplog.text.count("a message handler failed") == 2
    assert caplog.text.count("a connection listener failed") == 3


async def test_a_flush_that_gave_up_does_not_end_the_reading(nats_server: ServerFactory) -> None:
    """[1] The late PONG finds a future that is done: nats-py stops reading and still says it is connected."""
    server = nats_server()
    async with connect(server.url, name="test") as conn:
        server.sigstop()
        with pytest.raises(RequestTimeout):
            await conn.flush(0.1)
        with anyio.move_on_after(0.1) as scope:
            await conn.flush(30)
        assert scope.cancelled_caught
        server.sigcont()
        await conn.flush()
        with pytest.raises(NoResponders):
            await conn.request("nobody", timeout_s=10)
        assert conn.epoch == 1


async def test_nats_py_still_has_the_flaw_we_go_round(nats_server: ServerFactory) -> None:
    """[1] When this fails, a new nats-py has mended it: the reasons in mesh.connection want another look."""
    server = nats_server()
    client = nats.aio.client.Client()
    await client.connect(server.url)
    try:
        server.sigstop()
        with pytest.raises(nats.errors.Error):
            await client.flush(timeout=0.1)  # type: ignore[arg-type]
        server.sigcont()
        reading = client._reading_task
        assert reading is not None
        await wait_until(reading.done)
        assert client.is_connected
    finally:
        await client.close()


async def test_cancellation_is_never_swallowed(nats_server: ServerFactory) -> None:
    """[3] Every wait of ours ends when its scope is cancelled, also with a server that has stopped."""
    server = nats_server()
    async with connect(server.url, name="test") as conn:
        server.sigstop()
        try:
            for _ in range(200):
                conn.publish_nowait("a", b"x" * 100_000)
            for wait in (
                conn.drain_writes,
                conn.flush,
                lambda: conn.request("a", timeout_s=30),
                lambda: conn.request_many("a", timeout_s=30),
            ):
                began = time.monotonic()
                with anyio.move_on_after(0.05) as scope:
                    await wait()
                assert scope.cancelled_caught
                assert time.monotonic() - began < 5  # by themselves they end later
        finally:
            server.sigcont()


async def test_a_server_that_takes_nothing_makes_publish_raise_before_memory_is_full(
    nats_server: ServerFactory,
) -> None:
    server = nats_server()
    async with connect(server.url, name="test") as conn:
        server.sigstop()
        try:
            with pytest.raises(Disconnected, match="drain_writes"):
                publish_for_ever(conn)
            assert 0 < conn.statistics().pending_bytes - WRITE_BUFFER_BYTES_MAX < 500_000
        finally:
            server.sigcont()
        await conn.drain_writes()
        conn.publish_nowait("a", b"again")
        await conn.flush()


@pytest.mark.parametrize("size", [100, 100_000, 1_000_000])
async def test_what_waits_passes_its_bound_by_a_message_at_most_whatever_waited_before(
    nats_server: ServerFactory, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """A message that is large enough to be written at once is also looked at then, be it the first of its turn."""
    monkeypatch.setattr(mesh.connection, "WRITE_BUFFER_BYTES_MAX", 8_000_000)
    server = nats_server()
    async with AsyncExitStack() as stack:
        conns = [await stack.enter_async_context(connect(server.url, name="test")) for _ in range(8)]
        server.sigstop()
        try:
            for number, conn in enumerate(conns):
                conn.publish_nowait("a", b"x" * (number * 120_000))
                with pytest.raises(Disconnected):
                    publish_for_ever(conn, size)
                past = conn.statistics().pending_bytes - 8_000_000
                assert 0 < past <= size + WRITE_NOW_BYTES + 200
        finally:
            server.sigcont()


async def test_what_is_published_while_disconnected_is_never_sent(nats_server: ServerFactory) -> None:
    """[4] nats-py keeps it and sends it after the reconnect, when its caller has long been told that it failed."""
    server = nats_server()
    got: list[bytes] = []
    async with connect(server.url, name="test") as conn:
        conn.subscribe_direct("a", lambda _s, _r, data, _h: got.append(data))
        await conn.flush()
        server.kill()
        conn.publish_nowait("a", b"before anybody knew")
        await wait_until(lambda: not conn.is_connected)
        with pytest.raises(Disconnected):
            conn.publish_nowait("a", b"while down")
        with pytest.raises(Disconnected):
            await conn.request("a", timeout_s=10)
        with pytest.raises(Disconnected):
            await conn.flush()
        with pytest.raises(Disconnected):
            await conn.drain_writes()
        server.start()
        await conn.wait_connected()
        conn.publish_nowait("a", b"after")
        await conn.flush()
        assert got == [b"after"]


def test_writing_to_a_connection_that_has_just_broken_is_no_error_of_the_loop(nats_server: ServerFactory) -> None:
    """The loop has closed it, and nobody has read that yet; nodes run on uvloop, which raises then."""
    errors: list[dict[str, object]] = []
    server = nats_server()

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: errors.append(context))
        async with connect(server.url, name="test") as conn:
            epoch = conn.epoch
            assert conn._writer is not None
            conn._writer.transport.abort()
            conn.publish_nowait("somewhere", b"lost")
            await wait_until(lambda: conn.epoch > epoch and conn.is_connected)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
    assert errors == []


async def test_requests_in_flight_fail_at_once_when_the_connection_breaks(nats_server: ServerFactory) -> None:
    """[5] nats-py lets them wait for their whole timeout."""
    server = nats_server()
    failures: list[str] = []
    async with connect(server.url, name="test") as conn:
        conn.subscribe_direct("silent", lambda *_: None)

        async def ask(many: bool) -> None:
            try:
                if many:
                    await conn.request_many("silent", timeout_s=30)
                else:
                    await conn.request("silent", timeout_s=30)
            except Disconnected:
                failures.append("failed")

        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask, False)
                tasks.start_soon(ask, True)
                await wait_until(lambda: conn.statistics().requests_in_flight == 2)
                server.kill()
        assert failures == ["failed", "failed"]
        assert conn.statistics().requests_in_flight == 0


async def test_after_a_restart_subscriptions_are_there_again_and_the_epoch_has_grown(
    nats_server: ServerFactory,
) -> None:
    server = nats_server()
    async with connect(server.url, name="test") as conn:
        conn.subscribe_direct("echo", lambda _s, reply, data, _h: conn.publish_nowait(reply, data))
        gone = conn.subscribe_direct("gone", lambda _s, reply, data, _h: conn.publish_nowait(reply, data))
        took: list[float] = []
        for epoch in (2, 3):
            server.kill()
            await wait_until(lambda: not conn.is_connected)
            gone.unsubscribe()
            late = conn.subscribe_direct(f"late.{epoch}", lambda _s, reply, _d, _h: conn.publish_nowait(reply, b"late"))
            server.start()
            began = time.monotonic()
            await conn.wait_connected()
            took.append(time.monotonic() - began)
            assert conn.epoch == epoch
            assert (await conn.request("echo", b"x", timeout_s=10)).data == b"x"
            assert (await conn.request(late.subject, timeout_s=10)).data == b"late"
            with pytest.raises(NoResponders):
                await conn.request("gone", timeout_s=10)
        assert min(took) < 1.0  # the better one: the machine may have other things to do


async def test_a_server_that_stopped_without_closing_is_noticed(nats_server: ServerFactory) -> None:
    """[1] With nats-py's default of 120 s between two pings this takes four minutes."""
    server = nats_server()
    async with connect(server.url, name="test", options=QUICK) as conn:
        await conn.flush()  # nothing is unanswered
        began = time.monotonic()
        server.sigstop()
        await wait_until(lambda: not conn.is_connected)
        assert 0.3 < time.monotonic() - began < 5
        server.sigcont()
        with anyio.fail_after(10):
            await conn.wait_connected()
        await conn.flush()


async def test_a_quiet_connection_stays_up(nats_server: ServerFactory) -> None:
    # Three silent intervals, and it would be taken for broken: a server that stands still for a moment is not.
    async with connect(nats_server().url, name="test", options=ConnectOptions(ping_interval_s=0.3)) as conn:
        await anyio.sleep(1.8)
        assert conn.is_connected
        assert conn.epoch == 1


async def test_first_connect_fails_quickly_when_nobody_is_there() -> None:
    """[16] nats-py goes on trying for minutes, whatever it is told."""
    url = f"nats://user:secret@127.0.0.1:{free_ports(1)[0]}"
    began = time.monotonic()
    with pytest.raises(Unreachable) as failure:
        async with connect(url, name="test"):
            pytest.fail("connected to nobody")
    assert time.monotonic() - began < 10
    assert "secret" not in str(failure.value)


async def test_first_connect_can_be_patient(nats_server: ServerFactory) -> None:
    server = nats_server()
    server.kill()
    async with anyio.create_task_group() as tasks:

        async def start_later() -> None:
            await anyio.sleep(0.2)
            await anyio.to_thread.run_sync(server.start)

        tasks.start_soon(start_later)
        async with connect(server.url, name="test", options=ConnectOptions(patience_s=math.inf)) as conn:
            await conn.flush()


async def test_one_of_several_addresses_is_enough(nats_server: ServerFactory) -> None:
    server = nats_server()
    async with connect(f"127.0.0.1:{free_ports(1)[0]}, {server.url}", name="test") as conn:
        assert conn.address == server.url
        await conn.flush()


async def test_other_servers_of_a_cluster_are_learnt_and_used(nats_server: ServerFactory) -> None:
    first, second = (nats_server(config=config) for config in clustered(2))
    async with connect(first.url, name="test") as conn:
        await wait_until(lambda: len(conn._dialler.candidates()) > 1)
        first.kill()
        await wait_until(lambda: conn.epoch == 2)
        assert conn.address == second.url
        await conn.flush()


async def test_wrong_credentials_are_told_as_such(nats_server: ServerFactory) -> None:
    server = nats_server(config='authorization { user: "u", password: "p" }')
    with pytest.raises(Unreachable, match="Authorization"):
        async with connect(server.url, name="test"):
            pytest.fail("got in without a password")
    async with connect(server.url, name="test", options=ConnectOptions(user="u", password="p")) as conn:
        await conn.flush()
    async with connect(server.url.replace("//", "//u:p@"), name="test") as conn:
        await conn.flush()
        assert conn.address == server.url


async def test_nkeys_and_their_missing_file(nats_server: ServerFactory, tmp_path: Path) -> None:
    """[24] The extra of nats-py for nkeys and creds is one of our dependencies."""
    pair = nkeys.from_seed(nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER))
    seed_file = tmp_path / "user.nk"
    seed_file.write_bytes(bytes(pair.seed))
    seed_file.chmod(stat.S_IRUSR)
    server = nats_server(config=f"authorization {{ users: [ {{ nkey: {pair.public_key.decode()} }} ] }}")
    async with connect(server.url, name="test", options=ConnectOptions(nkey=str(seed_file))) as conn:
        await conn.flush()
    with pytest.raises(NotFound, match="nothing-here"):
        async with connect(server.url, name="test", options=ConnectOptions(creds=str(tmp_path / "nothing-here"))):
            pytest.fail("connected")


async def test_a_publish_that_is_not_permitted_fails_its_request_at_once(nats_server: ServerFactory) -> None:
    server = nats_server(
        config='authorization { users: [{ user: u, password: p, permissions: { publish: { deny: "secret.>" } } }] }'
    )
    denied: list[str] = []
    async with connect(server.url, name="test", options=ConnectOptions(user="u", password="p")) as conn:
        conn.on_denied(denied.append)
        with anyio.fail_after(10), pytest.raises(ServerRefused, match="permission"):
            await conn.request("secret.Plan", timeout_s=30)
        await conn.flush()
        assert denied == ["secret.Plan"]
        assert conn.epoch == 1


async def test_the_error_of_the_block_leaves_as_itself_and_everything_is_closed(nats_server: ServerFactory) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with connect(nats_server().url, name="test") as conn:
            raise KeyError("mine")
    assert not conn.is_connected
    with pytest.raises(Disconnected):
        conn.publish_nowait("a", b"")
    with anyio.fail_after(10), pytest.raises(Disconnected):
        await conn.wait_connected()


async def test_what_was_published_before_the_end_arrives(nats_server: ServerFactory) -> None:
    server = nats_server()
    got: list[bytes] = []
    async with connect(server.url, name="listener") as listener:
        listener.subscribe_direct("a", lambda _s, _r, data, _h: got.append(data))
        await listener.flush()
        async with connect(server.url, name="publisher") as publisher:
            for n in range(10_000):
                publisher.publish_nowait("a", b"%d" % n)
        await listener.flush()
    assert got == [b"%d" % n for n in range(10_000)]


async def test_closing_does_not_wait_for_a_server_that_stopped(nats_server: ServerFactory) -> None:
    server = nats_server()
    async with connect(server.url, name="test"):
        server.sigstop()
        began = time.monotonic()
    assert time.monotonic() - began < 5


async def test_closing_while_disconnected_is_quick_and_quiet(
    nats_server: ServerFactory, caplog: pytest.LogCaptureFixture
) -> None:
    server = nats_server()
    with caplog.at_level(logging.ERROR):
        async with connect(server.url, name="test") as conn:
            server.kill()
            await wait_until(lambda: not conn.is_connected)
            began = time.monotonic()
    assert time.monotonic() - began < 5
    assert caplog.records == []
