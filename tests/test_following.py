"""How a node follows its partitions, and what an owner hands over with one that it took over a moment ago."""

from __future__ import annotations

import itertools
from collections import defaultdict
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from mesh import codec, follower
from mesh.client import WorkflowHandle
from mesh.errors import NotFound, ServerRefused
from mesh.follower import Delivered, Follower, StreamRegressed
from mesh.jetstream import JetStream
from mesh.membership import Claim
from mesh.subjects import partition_filter, stream_name
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


async def lose_consumers(mesh: Mesh) -> None:
    """Have the server forget them."""
    for name in await consumers(mesh):
        with suppress(NotFound):  # another one has just taken its place
            await mesh.client.js.api(f"CONSUMER.DELETE.{stream_name(QUEUE)}.{name}")


def losing_the_tail(monkeypatch: pytest.MonkeyPatch, kept_seq: int) -> None:
    """Have the next follower that looks find that its stream ends there."""

    async def find_loss(self: Follower, seq: int, _known: tuple[int, int]) -> None:
        monkeypatch.undo()
        raise StreamRegressed(self._stream, seq, kept_seq)

    monkeypatch.setattr(Follower, "_check_tail", find_loss)


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


def pass_all(together: Together) -> None:
    """Have the newest message of each member come by this consumer, too."""
    for partition, _ in together.members.values():
        together.passed[partition.token] = (partition.came_seq, partition.came_ns)


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
    assert not together.adopt()
    assert together.followed == [partitions[1]], "of the others it has not passed yet what has come"
    pass_all(together)
    assert together.adopt()
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
            await lose_consumers(mesh)
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

        partition.together.pending = 8
        engine._inbox.extend([(partition, partition.epoch, message)] * 4)

        assert engine.lags() == {0: 2, 1: 6, 2: 2, 3: 2}

        # What comes after it is known of the consumer that brought it, which may be one that is gone by now.
        engine._inbox.clear()
        engine._handle(partition, message._replace(pending=400))
        assert engine.lags() == dict.fromkeys(range(PARTITIONS), 2)


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

        losing_the_tail(monkeypatch, kept_seq)
        await lose_consumers(mesh)

        # Those that had seen what is lost go no further. The one that had not is found by its start, and goes on.
        await wait_until(lambda: {run["id"] for run in engine.suspended()} == {handle.id for handle in handles[1:]})
        assert all("the server has lost events" in run["reason"] for run in engine.suspended())
        await wait_until(lambda: "c-0" in engine._by_token)
        assert engine._by_token["c-0"].run is not runs["c-0"]
        await handles[0].signal("number", "last")
        assert await handles[0].result(timeout_s=15) == []
        await all_gathered(mesh)


async def of_each_partition(mesh: Mesh, called: str = "c") -> list[WorkflowHandle]:
    """A workflow that collects for each partition, by number."""
    found: dict[int, WorkflowHandle] = {}
    by_token, tried = mesh.node.engines[QUEUE]._by_token, itertools.count()
    while len(found) < PARTITIONS:
        handle = await mesh.start("collect", id=f"{called}-{next(tried)}")
        await wait_until(lambda: handle.id in by_token and by_token[handle.id].run is not None)  # noqa: B023
        found.setdefault(by_token[handle.id].partition.number, handle)
    return [found[number] for number in range(PARTITIONS)]


async def test_a_partition_that_has_seen_nothing_of_what_was_lost_goes_on_as_it_is(
    nats_server: ServerFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To read a stream anew for dozens of partitions takes long, and loads all that ever happened in them."""
    app = write_app(tmp_path, workflows={"collect": COLLECT})
    async with a_mesh(nats_server().url, app) as mesh:
        engine = mesh.node.engines[QUEUE]
        one, other = (await of_each_partition(mesh))[:2]
        await all_gathered(mesh)
        kept_seq = (await mesh.client.js.stream_info(stream_name(QUEUE))).last_seq
        run = engine._by_token[other.id].run
        await one.signal("number", 1)
        await wait_until(lambda: engine.partitions[0].handled_seq > kept_seq)

        losing_the_tail(monkeypatch, kept_seq)
        await lose_consumers(mesh)

        await wait_until(lambda: [run["id"] for run in engine.suspended()] == [one.id])
        await other.signal("number", 2)
        await other.signal("number", "last")
        assert engine._by_token[other.id].run is run
        assert await other.result(timeout_s=15) == [2]


async def test_a_consumer_for_many_does_not_hide_from_the_one_before_what_the_server_has_lost(
    nats_server: ServerFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a cluster a loss is believed after ten seconds. Whoever goes on from an older message would never notice it."""
    monkeypatch.setattr(following, "GATHER_AFTER_S", 3600.0)
    monkeypatch.setattr(following, "LEVEL_S", 0.2)
    app = write_app(tmp_path, workflows={"collect": COLLECT})
    async with a_mesh(nats_server().url, app) as mesh:
        engine, js = mesh.node.engines[QUEUE], mesh.client.js
        handles = await of_each_partition(mesh)
        robbed = engine.partitions[2]
        await handles[2].signal("number", "is lost")
        lost_seq = (await js.stream_info(stream_name(QUEUE))).last_seq
        await wait_until(lambda: robbed.handled_seq == lost_seq)
        doubts, is_sure = anyio.Event(), anyio.Event()
        check_as_ever = Follower._check_tail

        async def doubt(self: Follower, seq: int, known: tuple[int, int]) -> None:
            if self._filters != [partition_filter(QUEUE, 2)] or seq < lost_seq:
                return await check_as_ever(self, seq, known)
            doubts.set()
            await is_sure.wait()
            raise StreamRegressed(self._stream, seq, lost_seq - 1, replaced=True)

        monkeypatch.setattr(Follower, "_check_tail", doubt)
        (name,) = [name for name in await consumers(mesh) if name.startswith("p2-")]
        await js.api(f"CONSUMER.DELETE.{stream_name(QUEUE)}.{name}")
        await js.delete_message(stream_name(QUEUE), lost_seq)
        await handles[2].signal("number", "came after the loss")
        await doubts.wait()
        engine._following._gather_after_s = 0.0
        engine._following.gather()
        together = engine._following._gathering
        assert together is not None
        await wait_until(lambda: engine._following._gathering is None)

        assert together.followed == [engine.partitions[number] for number in (0, 1, 3)]
        assert robbed.handled_seq == lost_seq, "nothing comes that may rest on what is lost"
        engine._following.gather()
        now = engine._following._gathering
        assert now is None or robbed not in now.followed, "it is not tried again before there is news"
        is_sure.set()
        await wait_until(lambda: [run["id"] for run in engine.suspended()] == [handles[2].id])
        await handles[0].signal("number", "last")
        assert await handles[0].result(timeout_s=15) == []


async def test_whoever_goes_on_from_another_consumer_asks_what_the_server_has_lost(
    nats_server: ServerFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The consumer before may have been about to ask: the server was away, and the one that gathers was made first."""
    monkeypatch.setattr(following, "GATHER_AFTER_S", 3600.0)
    app = write_app(tmp_path, workflows={"collect": COLLECT})
    async with a_mesh(nats_server().url, app) as mesh:
        engine, js = mesh.node.engines[QUEUE], mesh.client.js
        robbed = (await of_each_partition(mesh))[0]
        partition = engine.partitions[0]
        last_seq = partition.handled_seq
        await robbed.signal("number", 1)
        await wait_until(lambda: partition.handled_seq > last_seq)
        await js.delete_message(stream_name(QUEUE), partition.handled_seq)
        await of_each_partition(mesh, "other")  # something else is the newest of its partition
        asked: list[str] = []

        async def lost_bytes(_self: JetStream, stream: str) -> int:
            asked.append(stream)
            return 100

        monkeypatch.setattr(JetStream, "lost_bytes", lost_bytes)
        engine._following._gather_after_s = 0.0
        engine._following.gather()

        await wait_until(lambda: [run["id"] for run in engine.suspended()] == [robbed.id])
        assert asked == [stream_name(QUEUE)], "once for all partitions"


async def test_what_came_and_was_not_handled_comes_again_when_a_consumer_fails_while_others_are_gathered(
    nats_server: ServerFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that failed is at the newest message that came; whoever goes on from there misses what was not handled."""
    app = write_app(tmp_path, workflows={"collect": COLLECT})
    async with a_mesh(nats_server().url, app) as mesh:
        engine = mesh.node.engines[QUEUE]
        handles = await of_each_partition(mesh)
        await all_gathered(mesh)
        partition = engine.partitions[1]
        assert engine.drop(0) is not None  # so there is something to gather anew
        with monkeypatch.context() as patch:
            # What comes in stays there, and the consumer cannot be made again.
            patch.setattr(type(engine._roster), "may_act", lambda _self: False)
            patch.setattr(following, "FOLLOW_AGAIN_S", 0.5)
            patch.setattr(follower, "PATIENCE_S", 0.0)
            await handles[1].signal("number", 1)
            await wait_until(lambda: any(found is partition for found, _, _ in engine._inbox))

            async def refused(self: Follower) -> None:
                raise ServerRefused(self._stream, 10_000, "not now")

            with monkeypatch.context() as inner:
                inner.setattr(Follower, "_make_consumer", refused)
                epoch = partition.epoch
                await lose_consumers(mesh)
                await wait_until(lambda: partition.epoch > epoch)
            engine._following._changed_s = engine._following._gather_after_s = 0.0
            engine._following.gather()
            assert engine._following._gathering is not None
            await wait_until(lambda: engine._following._gathering is None)

        await handles[1].signal("number", "last")
        assert await handles[1].result(timeout_s=15) == [1]


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
        (("x" * 512,) * 1024, True, 10.24),
        (("x" * 512,) * 1025, False, 10.25),
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

        # Nor does it keep a node from handing over, which goes on to finish what else it does.
        mesh.node.ownership.leave()
        await mesh.node.ownership.give_back_all()
        (claim,) = mesh.node.roster.claims()
        assert (claim.node_id, claim.checkpoint) == (None, saved)


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
