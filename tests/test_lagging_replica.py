"""Histories read from a replica that lags behind the leader of its stream."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from mesh.connection import connect
from mesh.history import History
from mesh.jetstream import JetStream, StoredMessage
from mesh.subjects import WorkflowKey
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
