"""Whoever waits for an end looks into the log when an end was heard, and not too often otherwise."""

from __future__ import annotations

from mesh import codec
from mesh.client import connect
from mesh.events import EndRecord, StartSpec
from mesh.history import History
from mesh.looks import LONG_S, LOOKS_AT_ONCE, PAUSE_FIRST_S, PAUSE_MAX_S, STORED_SOON_S, Looks
from mesh.starting import new_entropy
from mesh.subjects import WorkflowKey
from store.streams import ensure_queue
from tests.conftest import ServerFactory

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


async def test_the_end_of_a_run_is_its_first_one_also_when_its_start_is_gone(nats_server: ServerFactory) -> None:
    """Where the partition is not known it is learnt with the start, which may be damaged or deleted."""
    async with connect(nats_server().url) as client:
        await ensure_queue(client.js, "orders")
        spec = StartSpec(workflow="w", args=codec.pack([]), host="h", client="c", entropy=new_entropy())
        run = (await client.js.publish(KEY.start(), spec.encode())).seq
        assert await History(client.js, "orders").end_of(KEY, run) is None
        ends = [await client.js.publish(KEY.end(run), EndRecord("completed", data).encode()) for data in (b"1", b"2")]
        whole = await History(client.js, "orders").end_of(KEY, run)
        assert whole is not None
        assert whole.seq == ends[0].seq
        await client.js.delete_message("WF_orders", run)
        assert await History(client.js, "orders").end_of(KEY, run) == whole
