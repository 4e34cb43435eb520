"""The timers of an engine's runs: messages that the server publishes when they are due (`mesh.timers` is their form).

The server looks at what is due every 250 ms at the soonest (measured, 2.15.1), and a scheduled message is a write of
its own. So the owner publishes the tick of a short timer itself. Its wait is counted from the event being handled, so
that it does not depend on how this machine's clock is set. Should the owner die, the next one finds no schedule and no
tick, and has the server publish one.

Invariant: an instance counts a timer as unacknowledged until the server has the schedule, or the tick of a short one:
it is busy as long, so a new owner loads it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from mesh.errors import MeshError
from mesh.jetstream import JetStream
from mesh.outbox import Ack, Outbox
from mesh.subjects import stream_name
from mesh.timers import timer_headers
from node.workflows.background import Background, insist
from node.workflows.instances import Instance, InTrouble
from node.workflows.run import Run

SHORT_NS: Final = 500_000_000

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
        self._loop = asyncio.get_running_loop()

    def set(self, instance: Instance, run: Run, name: str, due_ns: int, *, recovering: bool) -> None:
        """Have the server publish the tick `name` at due_ns. recovering: it may have the timer, or have fired it."""
        instance.unacked += 1
        if recovering:
            self._background.start_soon(self._restore, instance, run, name, due_ns)
        elif due_ns - run.now_ns < SHORT_NS:
            wait_s = max(0, due_ns - run.now_ns) / 1e9
            instance.short_timers[name] = self._loop.call_later(wait_s, self._tick, instance, run, name)
        else:
            subject = instance.key.schedule(instance.partition.number, run.run, name)
            self._write(instance, run, subject, timer_headers(instance.key, run.run, name, due_ns))

    def _tick(self, instance: Instance, run: Run, name: str) -> None:
        """A short timer is due: say so in the history, if this node still owns it."""
        del instance.short_timers[name]
        if instance.partition.stopped:
            instance.unacked -= 1
        else:
            self._write(instance, run, f"{instance.key.subject('tick')}.{run.run}.{name}", {})

    def _write(self, instance: Instance, run: Run, subject: str, headers: dict[str, str]) -> None:
        def on_ack(ack: Ack) -> None:
            instance.unacked -= 1
            if ack.error is not None:
                self._in_trouble(instance, run, ack.error)

        self._outbox.write(subject, b"", headers, on_ack)

    def abandon(self, instance: Instance, run: Run, name: str) -> None:
        """Take a timer back, some time or never: its tick would be ignored."""
        if not self._cancel_short(instance, name):
            self._background.start_soon(self.take_back, instance, run, name)

    @staticmethod
    def _cancel_short(instance: Instance, name: str) -> bool:
        timer = instance.short_timers.pop(name, None)
        if timer is None:
            return False
        timer.cancel()
        instance.unacked -= 1
        return True

    async def take_back(self, instance: Instance, run: Run, name: str) -> None:
        """Take a timer back, or with the name "*" all of the run."""
        for short in list(instance.short_timers) if name == "*" else ():
            self._cancel_short(instance, short)
        subject = instance.key.schedule(instance.partition.number, run.run, name)
        try:
            await self._js.purge(self._stream, subject=subject)
        except MeshError as error:
            _log.warning("%s: not taken back, its tick will be ignored: %s", subject, error, extra=instance.about())

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
            await insist(restore, f"timer {name} of workflow {instance.key.id!r}", instance.about())
        finally:
            instance.unacked -= 1
