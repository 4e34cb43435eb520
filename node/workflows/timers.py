"""The timers of an engine's runs: messages that the server publishes when they are due (`mesh.timers` is their form).

The server looks at what is due every 250 ms at the soonest (measured, 2.15.1), and a scheduled message is a write of
its own. So the owner publishes the tick of a short timer itself. Its wait is counted from the event being handled, so
that it does not depend on how this machine's clock is set. Should the owner die, the next one finds no schedule and no
tick, and has the server publish one.

Invariants:
- An instance counts a timer as unacknowledged until the server has the schedule, or the tick of a short one: it is busy
  as long, so a new owner loads it.
- No schedule outlives its run: one that was still on its way when it was taken back, or when this node lost the
  partition, is looked after once it has arrived. An owner that stands still may write one long after the end.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from mesh.errors import MeshError, NotPermitted
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
            instance.writing[run.run, name] += 1
            self._background.start_soon(self._restore, instance, run, name, due_ns)
        elif due_ns - run.now_ns < SHORT_NS:
            wait_s = max(0, due_ns - run.now_ns) / 1e9
            instance.short_timers[name] = self._loop.call_later(wait_s, self._tick, instance, run, name)
        else:
            subject = instance.key.schedule(instance.partition.number, run.run, name)
            instance.writing[run.run, name] += 1
            headers = timer_headers(instance.key, run.run, name, due_ns)
            self._write(instance, run, subject, headers, name)

    def _tick(self, instance: Instance, run: Run, name: str) -> None:
        """A short timer is due: say so in the history, if this node still owns it."""
        del instance.short_timers[name]
        if instance.partition.stopped:
            instance.unacked -= 1
        else:
            self._write(instance, run, f"{instance.key.subject('tick')}.{run.run}.{name}", {})

    def _write(
        self,
        instance: Instance,
        run: Run,
        subject: str,
        headers: dict[str, str],
        scheduled: str | None = None,
    ) -> None:
        """scheduled: the name of the timer, when it is a schedule that is written."""

        def on_ack(ack: Ack) -> None:
            instance.unacked -= 1
            if scheduled is not None:
                self._arrived(instance, run, scheduled, stored=ack.error is None)
            if ack.error is not None:
                self._in_trouble(instance, run, ack.error)

        self._outbox.write(subject, b"", headers, on_ack)

    def abandon(self, instance: Instance, run: Run, name: str) -> None:
        """Take a timer back, some time; never, if this node dies before: its tick would be ignored."""
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
        instance.unwanted |= {key for key in instance.writing if key[0] == run.run and name in ("*", key[1])}
        subject = instance.key.schedule(instance.partition.number, run.run, name)

        async def purge() -> None:
            try:
                await self._js.purge(self._stream, subject=subject)
            except NotPermitted as error:
                _log.warning("%s: not taken back, its tick will be ignored: %s", subject, error, extra=instance.about())

        await insist(purge, f"taking back {subject}", instance.about())

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

        stored = False
        try:
            await insist(restore, f"timer {name} of workflow {instance.key.id!r}", instance.about())
            stored = True
        finally:
            instance.unacked -= 1
            self._arrived(instance, run, name, stored=stored)

    def _arrived(self, instance: Instance, run: Run, name: str, *, stored: bool) -> None:
        """The server has a schedule, or has refused it. Is it still wanted?"""
        key = run.run, name
        is_wanted = key not in instance.unwanted
        instance.writing[key] -= 1
        if not instance.writing[key]:
            del instance.writing[key]
            instance.unwanted.discard(key)
        if not stored:
            return
        if not is_wanted:
            self._background.start_soon(self.take_back, instance, run, name)
        elif instance.partition.stopped:
            self._background.start_soon(self._take_back_if_ended, instance, run, name)

    async def _take_back_if_ended(self, instance: Instance, run: Run, name: str) -> None:
        """Whoever owns the run now has taken back what there was when it ended, perhaps before this arrived."""
        ends = instance.key.stored(instance.partition.number, "end", str(run.run))
        try:
            ended = await self._js.get_last(self._stream, ends, from_leader=True) is not None
        except MeshError as error:
            _log.warning("timer %s not looked after: %s", name, error, extra=instance.about())
            return
        if ended:
            await self.take_back(instance, run, name)
