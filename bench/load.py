"""Workflows by the thousand: start them in a pipeline, hear of their ends, read from the log what happened.

The times are those of the log: the server stamps every event, so no clock of a client and no way back to it is in them.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

import anyio

import mesh.client
from bench.processes import HOST, QUEUE, BenchFailed
from mesh import codec
from mesh.errors import Conflict
from mesh.events import StartSpec, decode_end
from mesh.outbox import Ack, Outbox
from mesh.starting import new_entropy
from mesh.stored_messages import StoredMessage
from mesh.subjects import WorkflowKey

# What `Client.start` expects too: no start of this id before.
FIRST_START: Final = {"Nats-Expected-Last-Subject-Sequence": "0"}
# A queue that no node serves.
RAW_QUEUE: Final = "bench-raw"
SETTLE_S: Final = 5.0


class Span(NamedTuple):
    """What the log says of a number of workflows. events: everything stored from the first start to the last end."""

    first_start_ns: int
    last_end_ns: int
    events: int

    @property
    def seconds(self) -> float:
        """From the first start to the last end."""
        return (self.last_end_ns - self.first_start_ns) / 1e9


async def start_many(client: mesh.client.Client, workflow: str, args: Sequence[Any], ids: Sequence[str]) -> None:
    """Start workflows without waiting for one before the next; returns when all starts are acknowledged.

    The ids must be new. So a start that is there already is one of ours, which the outbox has repeated because a busy
    server took longer than two seconds.
    """
    host = await client.hosts.resolve(HOST)
    errors: list[Exception] = []

    def on_ack(ack: Ack) -> None:
        if ack.error is not None and not isinstance(ack.error, Conflict):
            errors.append(ack.error)

    async with Outbox(client.conn) as outbox:
        for i, workflow_id in enumerate(ids):
            spec = StartSpec(
                workflow=workflow,
                args=codec.pack(list(args)),
                host=host.worker,
                client=host.client,
                entropy=new_entropy(),
            )
            outbox.write(WorkflowKey(QUEUE, workflow_id).start(), spec.encode(), FIRST_START, on_ack)
            if i % 100 == 99:
                # The socket and its answers want their turn too.
                await client.conn.drain_writes()
                await outbox.room()
        await outbox.flush(60)
    if errors:
        raise BenchFailed(f"{len(errors)} of {len(ids)} starts failed, the first one: {errors[0]}")


async def publish_many(client: mesh.client.Client, count: int, payload_bytes: int) -> float:
    """Messages a second that the server stores for one client that pipelines: nothing can be quicker than this.

    They are signals for workflows that were never started, which nobody reads.
    """
    failed: list[Exception] = []

    def on_ack(ack: Ack) -> None:
        if ack.error is not None:
            failed.append(ack.error)

    payload = bytes(payload_bytes)
    async with Outbox(client.conn) as outbox:
        begun = time.perf_counter()
        for i in range(count):
            outbox.write(f"mesh.wf.{RAW_QUEUE}.w{i % 500}.signal.{i}", payload, None, on_ack)
            if i % 100 == 99:
                await client.conn.drain_writes()
                await outbox.room()
        await outbox.flush(120)
        taken_s = time.perf_counter() - begun
    if failed:
        raise BenchFailed(f"{len(failed)} of {count} messages were not stored: {failed[0]}")
    return count / taken_s


class Ends:
    """Hears of the ends of workflows, as they are published."""

    def __init__(self) -> None:
        self._ended: set[str] = set()
        self._changed = anyio.Event()

    def on_end(self, subject: str, _reply: str, _data: bytes, _raw_headers: bytes | None) -> None:
        """Take note of `mesh.wf.<queue>.<id>.end.<run>`."""
        self._ended.add(subject.split(".")[3])
        self._changed.set()

    async def wait(self, ids: Sequence[str], timeout_s: float) -> None:
        """Wait until all of these have ended. The ids must be such that stand in a subject as they are."""
        wanted = set(ids)
        with anyio.move_on_after(timeout_s):
            while not wanted <= self._ended:
                self._changed = anyio.Event()
                await self._changed.wait()
                # A look at the set for each of thousands of ends would cost more than the ends.
                await anyio.sleep(0.002)
            return
        left = sorted(wanted - self._ended)
        raise BenchFailed(
            f"{len(left)} of {len(ids)} workflows have not ended within {timeout_s:g} s, such as {left[0]}"
        )


@asynccontextmanager
async def ends(client: mesh.client.Client) -> AsyncIterator[Ends]:
    """Listen to the ends of all workflows while the block runs."""
    heard = Ends()
    subscription = client.conn.subscribe_direct(f"mesh.wf.{QUEUE}.*.end.*", heard.on_end)
    await client.conn.flush()
    try:
        yield heard
    finally:
        subscription.unsubscribe()


class Mark(NamedTuple):
    """Where the log of the queue ended at some time, by stream: it may be kept in several."""

    last_seqs: Mapping[str, int]


async def mark(client: mesh.client.Client) -> Mark:
    """Look where the log ends now."""
    answer = await client.js.api("STREAM.NAMES", {"subject": f"mesh.wf.{QUEUE}.>"})
    return Mark({name: (await client.js.stream_info(name)).last_seq for name in answer.get("streams") or ()})


async def stored_since(client: mesh.client.Client, begun: Mark, tail: str) -> list[StoredMessage]:
    """What has been stored since then under `mesh.log.<queue>.<partition>.<id>.<tail>`, in the order of time."""
    found: list[StoredMessage] = []
    for stream, last_seq in begun.last_seqs.items():
        found += await client.js.batch_get(stream, from_seq=last_seq + 1, subject_filter=f"mesh.log.{QUEUE}.*.*.{tail}")
    return sorted(found, key=lambda message: message.timestamp_ns)


async def messages_of(client: mesh.client.Client, begun: Mark) -> int:
    """How many messages have been stored since then."""
    now = await mark(client)
    return sum(now.last_seqs[name] - last_seq for name, last_seq in begun.last_seqs.items())


async def run_many(
    client: mesh.client.Client, workflow: str, args: Sequence[Any], ids: Sequence[str], timeout_s: float
) -> Span:
    """Start workflows, wait for their ends and read what it took. Raises BenchFailed unless each has completed."""
    before = await mark(client)
    async with ends(client) as heard:
        await start_many(client, workflow, args, ids)
        await heard.wait(ids, timeout_s)
    stored = await stored_ends(client, before, ids)
    events = await messages_of(client, before)
    starts = await stored_since(client, before, "start")
    if not starts:
        raise BenchFailed("no start is in the log")
    return Span(starts[0].timestamp_ns, max(stored.values()), events)


async def stored_ends(client: mesh.client.Client, before: Mark, ids: Sequence[str]) -> dict[str, int]:
    """When each of these workflows ended, as the log says. Raises BenchFailed unless all have, and have completed."""
    stored: list[StoredMessage] = []
    # Heard is not stored yet.
    with anyio.move_on_after(SETTLE_S):
        while len(stored) < len(ids):
            stored = await stored_since(client, before, "end.*")
            await anyio.sleep(0.02 if len(stored) < len(ids) else 0)
    bad = [end for end in (decode_end(message.data) for message in stored) if end.status != "completed"]
    # The first end of each: one that was repeated came later and ends nothing.
    first: dict[str, int] = {}
    for message in stored:
        first.setdefault(message.subject.split(".")[4], message.timestamp_ns)
    if bad or set(first) != set(ids):
        raise BenchFailed(f"{len(first)} of {len(ids)} workflows have ended, {len(bad)} not completed: {bad[:1]}")
    return first
