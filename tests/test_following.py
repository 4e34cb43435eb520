"""How a node follows its partitions, and what an owner hands over with one that it took over a moment ago."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from mesh import codec
from mesh.follower import Delivered, Follower, StreamRegressed
from mesh.membership import Claim
from mesh.subjects import stream_name
from node.workflows import following
from node.workflows.engine import Engine
from node.workflows.partition import TOGETHER_MESSAGES_MAX, Partition, Together, to_gather
from store.catchup import is_worth_saving, rest_s
from tests.apps import PARTITIONS, QUEUE, Mesh, a_mesh, write_app
from tests.conftest import ServerFactory
from tests.waiting import wait_until, wait_until_async

# Takes numbers until it is told that there are no more.
COLLECT = """
return function()
  local numbers, got = process.listen("number"), {}
  while true do
    local number = numbers:receive()
    if number == "last" then return got end
    got[#got + 1] = number
  end
end
"""
COLLECTORS = 8


async def consumers(mesh: Mesh) -> list[str]:
    """The consumers by which this node follows its queue."""
    found = await mesh.client.js.api(f"CONSUMER.NAMES.{stream_name(QUEUE)}", {})
    return list(found.get("consumers") or ())


async def all_gathered(mesh: Mesh) -> None:
    """Wait until one consumer follows all partitions, and the others are gone."""

    async def one() -> bool:
        names = await consumers(mesh)
        return len(names) == 1 and f"-and-{PARTITIONS - 1}-" in names[0]

    await wait_until_async(one)


def a_partition(number: int, seq: int, *, caught_up: bool = True) -> Partition:
    partition = Partition(Claim(QUEUE, number, None, "", 0, checkpoint=seq), (), handed_over=False)
    if caught_up:
        partition.catchup = None
    return partition


def members(together: Together | None) -> list[int]:
    assert together is not None
    return [partition.number for partition, _ in together.members.values()]


async def test_what_is_near_is_followed_together_from_the_oldest_message_on() -> None:
    partitions = [a_partition(0, 70), a_partition(1, 50), a_partition(2, 60)]

    together = to_gather(partitions)

    assert members(together) == [0, 1, 2]
    assert together is not None
    assert together.seq == 50
    assert together.followed == [], "until it has all that was there each is followed as before"
    together.adopt()
    assert together.followed == partitions
    assert to_gather(partitions) is None, "nothing is left to be done"


async def test_what_has_not_caught_up_or_is_far_behind_is_followed_by_itself() -> None:
    newest = 10 * TOGETHER_MESSAGES_MAX
    quiet = a_partition(0, newest - TOGETHER_MESSAGES_MAX - 1)
    others = [a_partition(1, newest), a_partition(2, newest - TOGETHER_MESSAGES_MAX)]
    behind = a_partition(3, newest, caught_up=False)

    assert members(to_gather([quiet, *others, behind])) == [1, 2]
    assert to_gather([quiet, others[0]]) is None
    assert to_gather([]) is None


async def test_a_partition_that_is_read_anew_meanwhile_is_not_taken_from_who_reads_it() -> None:
    partitions = [a_partition(0, 5), a_partition(1, 5)]
    together = to_gather(partitions)
    assert together is not None

    partitions[0].epoch += 1
    together.adopt()

    assert together.followed == partitions[1:]
    assert partitions[0].together.followed == partitions[:1]


async def test_who_is_followed_no_more_is_left_out_of_the_next_consumer() -> None:
    partitions = [a_partition(number, 5) for number in range(3)]
    together = to_gather(partitions)
    assert together is not None
    together.adopt()

    together.leave(partitions[2])
    following_now = to_gather(partitions[:2])

    assert members(following_now) == [0, 1]
    assert not together.scope.cancel_called
    assert following_now is not None
    following_now.adopt()
    assert together.scope.cancel_called, "nobody is left whom it follows"


async def test_nothing_is_lost_or_taken_twice_however_often_partitions_change_their_consumer(
    nats_server: ServerFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While messages come in: partitions are gathered, dropped, taken again, and the server loses their consumers."""
    monkeypatch.setattr(following, "GATHER_AFTER_S", 0.0)
    taken: dict[int, list[int]] = defaultdict(list)
    handle_as_ever = Engine._handle

    def note_and_handle(self: Engine, partition: Partition, message: Delivered) -> None:
        taken[partition.number].append(message.seq)
        handle_as_ever(self, partition, message)

    monkeypatch.setattr(Engine, "_handle", note_and_handle)
    app = write_app(tmp_path, workflows={"collect": COLLECT})
    async with a_mesh(nats_server().url, app) as mesh:
        engine = mesh.node.engines[QUEUE]
        handles = [await mesh.start("collect", id=f"c-{i}") for i in range(COLLECTORS)]
        sent = 0

        async def send_some(rounds: int) -> None:
            nonlocal sent
            for _ in range(rounds):
                for handle in handles:
                    await handle.signal("number", sent)
                sent += 1
                engine._following.gather()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send_some, 60)
            for number in (0, 2, 0):
                await all_gathered(mesh)
                dropped = engine.drop(number)
                assert dropped is not None
                claim, (seq, at_ns), busy = dropped
                await anyio.sleep(0.02)  # what comes now is for whoever takes it
                engine.take(replace(claim, checkpoint=seq, checkpoint_ns=at_ns), busy, handed_over=True)
            await all_gathered(mesh)
            for name in await consumers(mesh):
                await mesh.client.js.api(f"CONSUMER.DELETE.{stream_name(QUEUE)}.{name}")
        for handle in handles:
            await handle.signal("number", "last")

        for handle in handles:
            assert await handle.result(timeout_s=15) == list(range(sent))
        assert len(taken) == PARTITIONS
        for seqs in taken.values():
            assert seqs == sorted(set(seqs))


async def test_what_waits_of_partitions_that_are_followed_together_is_counted_once(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    """What the server has not sent is of all of them; what came is of the one it is for."""
    app = write_app(tmp_path, workflows={"collect": COLLECT})
    async with a_mesh(nats_server().url, app) as mesh:
        engine = mesh.node.engines[QUEUE]
        await all_gathered(mesh)
        assert engine.lags() == dict.fromkeys(range(PARTITIONS), 0)
        partition = engine.partitions[1]
        message = Delivered("mesh.log.orders.1.x.cancel", 1, 1, b"", None, 0)

        partition.together.pending = 12
        engine._inbox.extend([(partition, partition.epoch, message)] * 4)

        assert engine.lags() == {0: 2, 1: 6, 2: 2, 3: 2}
        engine._inbox.clear()


async def test_when_a_stream_has_lost_messages_all_that_were_followed_together_are_read_anew(
    nats_server: ServerFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = write_app(tmp_path, workflows={"collect": COLLECT})
    async with a_mesh(nats_server().url, app) as mesh:
        engine = mesh.node.engines[QUEUE]
        handles = [await mesh.start("collect", id=f"c-{i}") for i in range(COLLECTORS)]
        kept_seq = (await mesh.client.js.stream_info(stream_name(QUEUE))).last_seq
        await all_gathered(mesh)
        for handle in handles[1:]:
            await handle.signal("number", 1)
        runs = {name: instance.run for name, instance in engine._by_token.items() if instance.run is not None}
        await wait_until(lambda: all(run.length == 2 for name, run in runs.items() if name != "c-0"))

        async def find_loss(self: Follower, seq: int, _known: tuple[int, int]) -> None:
            monkeypatch.undo()
            raise StreamRegressed(self._stream, seq, kept_seq)

        monkeypatch.setattr(Follower, "_check_tail", find_loss)
        for name in await consumers(mesh):
            await mesh.client.js.api(f"CONSUMER.DELETE.{stream_name(QUEUE)}.{name}")

        # Those that had seen what is lost go no further. The one that had not is found by its start, and goes on.
        await wait_until(lambda: {run["id"] for run in engine.suspended()} == {handle.id for handle in handles[1:]})
        assert all("the server has lost events" in run["reason"] for run in engine.suspended())
        await wait_until(lambda: "c-0" in engine._by_token)
        assert engine._by_token["c-0"].run is not runs["c-0"]
        await handles[0].signal("number", "last")
        assert await handles[0].result(timeout_s=15) == []
        await all_gathered(mesh)


async def test_runs_that_still_wait_to_be_loaded_are_handed_on(nats_server: ServerFactory, tmp_path: Path) -> None:
    """Nothing wakes them but an owner that loads them: one that is not told of them would leave them lying for ever."""
    app = write_app(tmp_path, workflows={"nothing": "return function() end"})
    async with a_mesh(nats_server().url, app) as mesh:
        engine = mesh.node.engines[QUEUE]
        waiting = ("one", "two")
        engine.partitions[0].attention.extend(waiting)

        handed_on = engine.drop(0)

        assert handed_on is not None
        assert handed_on[2] == waiting


@pytest.mark.parametrize(
    ("busy", "worth", "rest"),
    [
        ((), True, 0.0),
        (("x" * 20,) * 1000, True, 1.0),
        (("x" * 20,) * 10_000, True, 10.0),
        (("x" * 20,) * 10_001, False, 10.001),
        (("x" * 1024,) * 512, True, 0.512),
        (("x" * 1024,) * 513, False, 0.513),
    ],
)
def test_checkpoint_with_many_busy_runs_is_saved_the_more_seldom(
    busy: tuple[str, ...], worth: bool, rest: float
) -> None:
    """Every node hears of it, and a server takes no more than a megabyte."""
    assert is_worth_saving(busy) == worth
    assert rest_s(busy) == pytest.approx(rest)


async def test_checkpoint_moves_though_thousands_of_runs_are_busy(nats_server: ServerFactory, tmp_path: Path) -> None:
    """One that stays where it was has the next owner read hours of events, and load all that they have touched."""
    app = write_app(tmp_path, workflows={"nothing": "return function() end"})
    async with a_mesh(nats_server().url, app, partitions=1) as mesh:
        engine = mesh.node.engines[QUEUE]
        partition = engine.partitions[0]
        busy = tuple(f"busy-{i}" for i in range(5000))
        partition.attention.extend(busy)

        last = (await (await mesh.start("nothing")).history())[0].seq

        await wait_until(lambda: partition.claim.checkpoint >= last)
        assert engine._roster.busy(partition.claim) == busy
        # The next one is not due for seconds.
        assert partition.save_after_s > anyio.current_time()


async def test_checkpoint_that_the_server_does_not_take_harms_nobody(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    """The older one stays good, and the workflows of this node go on."""
    app = write_app(tmp_path, workflows={"echo": "return function(text) return text end"})
    async with a_mesh(nats_server(config="max_payload: 20000").url, app, partitions=1) as mesh:
        partition = mesh.node.engines[QUEUE].partitions[0]
        await mesh.run("echo", "before")
        await wait_until(lambda: partition.saved_seq == partition.handled_seq)
        saved = partition.saved_seq
        partition.attention.extend(f"busy-{i}" for i in range(5000))

        assert await mesh.run("echo", "while") == "while"
        await mesh.node.engines[QUEUE]._following.save_checkpoints()

        assert await mesh.run("echo", "after") == "after"
        assert partition.claim.checkpoint == saved


async def test_few_events_with_much_in_them_fill_the_inbox(
    nats_server: ServerFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of them may wait there: if each is as large as a message may be, that is gigabytes."""
    monkeypatch.setattr("node.workflows.following.INBOX_BYTES_MAX", 100_000)
    source = "return function(n) for i = 1, n do process.inbox():receive() end return n end"
    async with a_mesh(nats_server().url, write_app(tmp_path, workflows={"hears": source}), partitions=1) as mesh:
        handle = await mesh.start("hears", 200)
        await wait_until(lambda: mesh.statistics()["resident"] == 1)
        engine = mesh.node.engines[QUEUE]
        following, payload = engine._following, codec.encode("x" * 10_000)
        # As while the lease is over: what comes in stays there.
        monkeypatch.setattr(type(engine._roster), "may_act", lambda _self: False)
        for _ in range(200):
            mesh.client.conn.publish_nowait(handle.key.signal("go"), payload)
        await wait_until(lambda: following.paused)
        await mesh.client.conn.flush()

        assert 100_000 < following.inbox_bytes < 100_000 + 2 * len(payload)
        assert following.inbox_bytes == sum(len(message.data) for _, _, message in following.inbox if message)

        monkeypatch.undo()
        assert await handle.result(timeout_s=20) == 200
        await wait_until(lambda: following.inbox_bytes == 0)
