"""The timers of an engine's runs: messages that the server publishes when they are due (`mesh.timers` is their form).

Invariant: an instance counts a timer as unacknowledged until the server has it, so it is busy as long.
"""

from __future__ import annotations

import logging

from mesh.errors import MeshError
from mesh.jetstream import JetStream
from mesh.outbox import Ack, Outbox
from mesh.subjects import stream_name
from mesh.timers import timer_headers
from node.background import Background, insist
from node.instances import Instance, InTrouble
from node.run import Run

_log = logging.getLogger(__name__)


class Timers:
    """Sets the timers of one queue, and takes them back."""

    def __init__(
        self, js: JetStream, outbox: Outbox, queue: str, *, background: Background, in_trouble: InTrouble
    ) -> None:
        self._js = js
        self._outbox = outbox
        self._stream = stream_name(queue)
        self._background = background
        self._in_trouble = in_trouble

    def set(self, instance: Instance, run: Run, name: str, due_ns: int, *, recovering: bool) -> None:
        """Have the server publish the tick `name` at due_ns. recovering: it may have the timer, or have fired it."""
        instance.unacked += 1
        if recovering:
            self._background.start_soon(self._restore, instance, run, name, due_ns)
            return

        def on_ack(ack: Ack) -> None:
            instance.unacked -= 1
            if ack.error is not None:
                self._in_trouble(instance, run, ack.error)

        subject = instance.key.schedule(instance.partition.number, run.run, name)
        self._outbox.write(subject, b"", timer_headers(instance.key, run.run, name, due_ns), on_ack)

    def abandon(self, instance: Instance, run: Run, name: str) -> None:
        """Take a timer back, some time or never: its tick would be ignored."""
        self._background.start_soon(self.take_back, instance, run, name)

    async def take_back(self, instance: Instance, run: Run, name: str) -> None:
        """Take a timer back, or with the name "*" all of the run."""
        subject = instance.key.schedule(instance.partition.number, run.run, name)
        try:
            await self._js.purge(self._stream, subject=subject)
        except MeshError as error:
            _log.warning("%s: not taken back, its tick will be ignored: %s", subject, error)

    async def _restore(self, instance: Instance, run: Run, name: str, due_ns: int) -> None:
        """Set a timer again unless the server still has it, or has fired it already."""
        subject = instance.key.schedule(instance.partition.number, run.run, name)
        tick = instance.key.stored(instance.partition.number, "tick", str(run.run), name)
        headers = timer_headers(instance.key, run.run, name, due_ns)

        async def restore() -> None:
            if (
                await self._js.get_last(self._stream, subject) is None
                and await self._js.get_last(self._stream, tick) is None
            ):
                await self._outbox.write_acked(subject, b"", headers)

        try:
            await insist(restore, f"timer {name} of workflow {instance.key.id!r}")
        finally:
            instance.unacked -= 1
