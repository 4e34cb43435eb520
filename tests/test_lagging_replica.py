"""Histories read from a replica that lags behind the leader of its stream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mesh.buckets import Bucket
from mesh.connection import connect
from mesh.errors import NotReady
from mesh.events import EndRecord, StartSpec
from mesh.history import History, OpenRun, RunOutcome
from mesh.jetstream import SURE_TTL_S, JetStream
from mesh.stored_messages import StoredMessage
from mesh.stream_reads import StreamInfo
from mesh.subjects import WorkflowKey, sure_subject
from mesh.wire import parse_headers
from store.streams import ensure_queue
from tests.apps import a_mesh, write_app
from tests.conftest import ServerFactory


class LaggingJetStream(JetStream):
    """Answers as a replica does that has not got the newest message yet, for the first few times."""

    lacking = 0

    async def multi_last(self, *args: object, **options: object) -> list[StoredMessage]:
        messages = await super().multi_last(*args, **options)  # type: ignore[arg-type]  # handed on as they are
        if self.lacking:
            self.lacking -= 1
            return messages[:-1]
        return messages


async def test_an_event_that_a_replica_lacks_is_asked_for_again(nats_server: ServerFactory) -> None:
    """The follower of the stream has delivered it already, so nobody else would bring it (goal 1: no event is lost)."""
    key = WorkflowKey("orders", "o-1")
    async with connect(nats_server().url, name="test") as conn:
        js = LaggingJetStream(conn)
        await ensure_queue(js, "orders", partitions=1)
        run = (await js.publish(key.start(), b"{}")).seq
        history = History(js, "orders")
        history.know_partition(key, 0)

        js.lacking = 2
        found = await history.only_run(key)
        assert found is not None, "the start is there"
        assert (found[0].run, [event.kind for event in found[1]]) == (run, ["start"])

        await js.publish(key.tick(run, 1), b"")
        js.lacking = 2
        found = await history.only_run(key)
        assert found is not None
        assert [event.kind for event in found[1]] == ["start", "tick"]

        js.lacking = 2
        assert [event.kind for event in await history.events(key, run)] == ["start", "tick"]
        assert js.lacking == 0


async def test_a_chain_of_runs_goes_on_though_the_replica_asked_does_not_know_the_end_yet(
    nats_server: ServerFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk or a cut line keeps a replica seconds behind. To it the run that has just ended is still open."""
    again = "return function(n) if n == 0 then return 'done' end process.upgrade(nil, n - 1) end"
    app = write_app(tmp_path, workflows={"again": again})
    async with a_mesh(nats_server().url, app) as mesh:
        js = mesh.node.client.js
        multi_last, get_next = js.multi_last, js.get_next

        async def without_ends(stream: str, subjects: Sequence[str]) -> list[StoredMessage]:
            return [message for message in await multi_last(stream, subjects) if ".end." not in message.subject]

        async def no_end(stream: str, seq: int, subject: str, *, from_leader: bool = False) -> StoredMessage | None:
            if ".end." in subject and not from_leader:
                return None
            return await get_next(stream, seq, subject, from_leader=from_leader)

        monkeypatch.setattr(js, "multi_last", without_ends)
        monkeypatch.setattr(js, "get_next", no_end)
        assert await mesh.run("again", 2) == "done"


class Behind(JetStream):
    """Asked for direct reads of a replicated stream, of which the copies that answer first have come as far as `as_of`.

    answers: how many of them are behind. asked: how many direct reads there were.
    """

    as_of = 0
    answers = 0
    asked = 0

    @property
    def has_copies(self) -> bool:
        return True

    def is_behind(self) -> bool:
        self.asked += 1
        self.answers -= 1
        return self.answers >= 0

    async def _get_direct(self, subject: str, body: bytes, *, as_stored: bool = False) -> StoredMessage | None:
        found = await super()._get_direct(subject, body, as_stored=as_stored)
        return None if self.is_behind() and found is not None and found.seq > self.as_of else found

    async def _read_batch(
        self, stream: str, request: Any, timeout_s: float | None
    ) -> tuple[list[StoredMessage], int, int]:
        if not self.is_behind():
            return await super()._read_batch(stream, request, timeout_s)
        if "multi_last" in request:
            return await super()._read_batch(stream, {**request, "up_to_seq": self.as_of}, timeout_s)
        page, _, up_to = await super()._read_batch(stream, request, timeout_s)
        return [message for message in page if message.seq <= self.as_of], 0, up_to


async def test_whatever_a_copy_that_is_behind_lacks_is_read_all_the_same(nats_server: ServerFactory) -> None:
    async with connect(nats_server().url, name="test") as conn:
        js = Behind(conn)
        await js.ensure_stream({"name": "S", "subjects": ["s.>"], "allow_direct": True})
        await Bucket(js, "b").ensure()
        old = await Bucket(js, "b").put("k", b"old")
        await js.publish("s.a", b"1")
        for subject in ("s.a", "s.b", "s.a"):
            await js.publish(subject, b"new")
        js.as_of = 1

        def seqs(messages: list[StoredMessage]) -> list[int]:
            return [message.seq for message in messages]

        for behind in (0, 1, 5):
            js.answers = behind
            assert seqs(await js.multi_last("S", ["s.*"])) == [3, 4]
            js.answers = behind
            assert seqs(await js.multi_last("S", ["s.b"])) == [3], (
                "of what is not there at all nobody says how far it has come"
            )
            js.answers = behind
            assert seqs(await js.batch_get("S", subject_filter="s.a")) == [1, 2, 4]
            js.answers = behind
            assert seqs(await js.batch_get("S", subject_filter="s.b")) == [3]
            js.answers = behind
            found = [await js.get_next("S", 2, "s.b"), await js.get_seq("S", 4), await js.get_last("S", "s.a")]
            assert [message and message.seq for message in found] == [3, 4, 4]
            assert [
                await js.get_next("S", 5, "s.>"),
                await js.multi_last("S", ["s.c"]),
                await js.batch_get("S", from_seq=5),
            ] == [None, [], []]
        await Bucket(js, "b").put("k", b"new")
        js.as_of, js.answers = old, 1
        assert [entry.value for entry in await Bucket(js, "b").entries()] == [b"new"]


class BehindInTheMiddle(Behind):
    """The first page is of a copy that is up to date, the next one of another."""

    def is_behind(self) -> bool:
        self.asked += 1
        return self.asked == 2


async def test_pages_of_two_copies_are_not_taken_for_one_answer(
    nats_server: ServerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mesh.stream_reads.BATCH_READS", 2)
    async with connect(nats_server().url, name="test") as conn:
        js = BehindInTheMiddle(conn)
        await js.ensure_stream({"name": "S", "subjects": ["s.>"], "allow_direct": True})
        for subject in ("s.a", "s.b", "s.c", "s.d", "s.e"):
            await js.publish(subject)
        js.as_of, js.asked = 4, 0
        assert [message.seq for message in await js.multi_last("S", ["s.*"], at_least=2)] == [1, 2, 3, 4, 5]
        assert js.asked > 3


async def test_no_more_is_wanted_of_a_copy_than_the_reader_knows_of(nats_server: ServerFactory) -> None:
    """An owner is told the rest by its consumer."""
    async with connect(nats_server().url, name="test") as conn:
        js = Behind(conn)
        await js.ensure_stream({"name": "S", "subjects": ["s.>"], "allow_direct": True})
        for _ in range(3):
            await js.publish("s.a")
        js.as_of, js.answers, js.asked = 2, 10, 0
        assert [message.seq for message in await js.multi_last("S", ["s.a"], at_least=2)] == [2]
        assert js.asked == 1


async def test_a_cluster_in_which_all_copies_stay_behind_is_not_ready(
    nats_server: ServerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mesh.stream_reads.COPIES_TRIES", 5)
    async with connect(nats_server().url, name="test") as conn:
        js = Behind(conn)
        await js.ensure_stream({"name": "S", "subjects": ["s.>"], "allow_direct": True})
        for _ in range(3):
            await js.publish("s.a")
        js.as_of, js.answers = 1, 1000
        for read in (js.multi_last("S", ["s.a"]), js.batch_get("S")):
            with pytest.raises(NotReady, match="no copy of it that answers is up to date"):
                await read


async def test_a_server_that_stands_alone_is_asked_once(nats_server: ServerFactory) -> None:
    async with connect(nats_server().url, name="test") as conn:
        js = JetStream(conn)
        await js.ensure_stream({"name": "S", "subjects": ["s.>"], "allow_direct": True})
        asked: list[str] = []
        publish = conn.publish_nowait

        def noted(subject: str, *args: Any, **options: Any) -> None:
            asked.append(subject)
            publish(subject, *args, **options)

        conn.publish_nowait = noted  # type: ignore[method-assign]
        assert await js.multi_last("S", ["s.*"]) == []
        assert await js.batch_get("S") == []
        assert await js.get_next("S", 1, "s.a") is None
        assert await js.get_last("S", "s.a") is None
        assert len(asked) == 4, asked


class OutOfTouch(Behind):
    """Asked while a server answers that was the leader and has not heard yet that another one is.

    Nothing that it says goes further than `as_of`: as a copy, as the leader, and of how far the stream has come. What
    is written goes to the leader that there is. answers: how many reads it answers.
    """

    async def stream_info(self, name: str) -> StreamInfo:
        info = await super().stream_info(name)
        return replace(info, last_seq=min(info.last_seq, self.as_of)) if self.is_behind() else info

    async def subject_counts(self, stream: str, subjects: str) -> dict[str, int]:
        counts = await super().subject_counts(stream, subjects)
        return {} if self.is_behind() else counts

    async def _get_from_leader(self, stream: str, request: Any, *, as_stored: bool = False) -> StoredMessage | None:
        found = await super()._get_from_leader(stream, request, as_stored=as_stored)
        return None if self.is_behind() and found is not None and found.seq > self.as_of else found


async def test_a_server_that_has_lost_touch_is_not_believed_that_a_workflow_is_not_there(
    nats_server: ServerFactory,
) -> None:
    key, end = WorkflowKey("orders", "o-1"), EndRecord("completed").encode()
    async with connect(nats_server().url, name="test") as conn:
        js = OutOfTouch(conn)
        await ensure_queue(js, "orders", partitions=1)

        async def is_running(*, as_of: int) -> bool:
            js.as_of, js.answers = as_of, 20
            return await History(js, "orders").is_running(key)

        assert not await is_running(as_of=0)
        first = (await js.publish(key.start(), StartSpec("app:w", entropy=b"1").encode())).seq
        assert await is_running(as_of=first - 1)  # before its start
        ended = (await js.publish(key.end(first), end)).seq
        second = (await js.publish(key.start(), StartSpec("app:w", entropy=b"2").encode())).seq
        assert await is_running(as_of=ended)  # after the end of the run before
        await js.publish(key.end(second), end)
        assert not await is_running(as_of=10**9)
        # What was written to be sure is gone some day, and nobody's event.
        sure = await js.get_last("WF_orders", sure_subject("orders"), from_leader=True)
        assert sure is not None
        assert parse_headers(sure.raw_headers)["Nats-TTL"] == f"{SURE_TTL_S}s"


async def test_a_sender_does_not_hear_from_a_server_that_has_lost_touch_that_nobody_is_there(
    nats_server: ServerFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be recorded in its history, for ever."""
    workflows = {
        "sender": "return function(to) local ok, err = process.send(to, 'hi') return ok and 'sent' or err:message() end",
        "receiver": "return function() return process.inbox():receive():topic() end",
    }
    app = write_app(tmp_path, workflows=workflows)
    async with a_mesh(nats_server().url, app) as mesh:
        receiver = await mesh.start("receiver", id="there")
        last_run, asked = History.last_run, Counter[str]()

        async def of_the_past(self: History, key: WorkflowKey) -> tuple[OpenRun, RunOutcome | None] | None:
            asked[key.id] += 1
            return None if asked[key.id] <= 2 else await last_run(self, key)

        monkeypatch.setattr(JetStream, "has_copies", property(lambda _self: True))
        monkeypatch.setattr(History, "last_run", of_the_past)
        pid = "{app:client@app:worker|%s}"
        assert await mesh.run("sender", pid % "there", id="s-1") == "sent"
        assert asked["there"] == 3
        nowhere = f"{pid % 'nowhere'}: process not found (no such workflow is running)"
        assert await mesh.run("sender", pid % "nowhere", id="s-2") == nowhere
        monkeypatch.undo()
        assert await receiver.result(timeout_s=30) == "hi"
