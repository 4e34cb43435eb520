"""News of a workflow: its events as the stream has them, for whoever watches it.

Not here: what the events mean (`node.api.event_records`), how they look (`node.cli.timeline`).
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.abc

from mesh.errors import TEMPORARY, NotPermitted
from mesh.follower import Delivered, Follower

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mesh.client import Client, WorkflowHandle
    from mesh.subjects import WorkflowKey

# A look takes the mesh as long as its history is long: between two of them it rests at least that long.
REST_S_MIN: Final = 0.1
# A direct read may be answered by a replica that does not have the newest event yet.
LOOK_AGAIN_S: Final = 0.05
LOOKS_MAX: Final = 20
READ_EVERY_S: Final = 0.5


class News:
    """What happens to one workflow. `run` in a task of its own."""

    def __init__(self, client: Client, key: WorkflowKey, partition: int, start_seq: int) -> None:
        self.last_seq = 0  # of the newest event
        self.looks = 0
        self._event = anyio.Event()
        self._rest_until = 0.0
        history = client.history(key.queue)
        self._follower = Follower(
            client.conn, client.js, history.stream, [key.stored(partition, ">")], start_seq, self._take,
            consumer_prefix="watch",
        )  # fmt: skip
        everything = key.stored(partition, ">")

        async def next_seq(seq: int) -> int | None:
            message = await client.js.get_next(history.stream, max(seq, start_seq), everything)
            return message.seq if message is not None else None

        self._next = next_seq
        # That it cannot go on for now is told by nobody else, and not stored.
        self._note = client.conn.subscribe_direct(key.note("suspended"), lambda *_: self._event.set())

    @classmethod
    async def of(cls, client: Client, handle: WorkflowHandle) -> News:
        """The news of a workflow from its newest run on. Raises NotFound."""
        run, _ = await client.history(handle.key.queue).newest_run(handle.key)
        return cls(client, handle.key, int(run.start.subject.split(".")[3]), run.run)

    def _take(self, message: Delivered) -> None:
        self.last_seq = message.seq
        self._event.set()

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Follow until cancelled; a user who may not follow the stream reads it now and then."""
        try:
            await self._follower.run(task_status=task_status)
        except NotPermitted:
            task_status.started()
            await self._read_for_ever()
        finally:
            self._note.unsubscribe()

    async def _read_for_ever(self) -> None:
        while True:
            with suppress(*TEMPORARY):
                while (found := await self._next(self.last_seq + 1)) is not None:
                    self.last_seq = found
                    self._event.set()
            await anyio.sleep(READ_EVERY_S)

    async def wait(self, timeout_s: float) -> bool:
        """Wait for something new, and for the end of the rest after the last look; False when nothing came in time."""
        with anyio.move_on_after(timeout_s) as scope:
            await self._event.wait()
        await anyio.sleep(max(0.0, self._rest_until - time.monotonic()))
        self._event = anyio.Event()
        return not scope.cancelled_caught

    async def look(self, look: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
        """Have the workflow described until the description has the newest event that has come."""
        self.looks += 1
        begun_s = time.monotonic()
        for _ in range(LOOKS_MAX):
            record = await look()
            events = record["events"]
            if events and events[-1]["seq"] >= self.last_seq:
                break
            await anyio.sleep(LOOK_AGAIN_S)
        now_s = time.monotonic()
        self._rest_until = now_s + max(REST_S_MIN, now_s - begun_s)
        return record
