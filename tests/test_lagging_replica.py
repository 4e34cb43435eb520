"""Histories read from a replica that lags behind the leader of its stream."""

from __future__ import annotations

from mesh.connection import connect
from mesh.history import History
from mesh.jetstream import JetStream, StoredMessage
from mesh.subjects import WorkflowKey
from store.streams import ensure_queue
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
