"""Events whose payload is kept in an object store: fetched before the run sees them.

Such an event holds up the later ones of its own workflow and nobody else's: they wait in `instance.fetching` until it
is there. What cannot be had any more is fed as it is, closed with the reason, and suspends the run
(`node.workflows.run`); a server that does not answer is asked until it does.

Invariants: a run is fed in stream order; while `instance.fetching` is a list, one task feeds what is in it, and nothing
else feeds the run. What stands in it behind the end of the run is news of a run that follows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import anyio

from mesh.events import Event
from mesh.jetstream import JetStream
from mesh.references import is_reference, run_of
from node.workflows.background import Background, insist
from node.workflows.instances import Instance, Instances
from node.workflows.partition import Partition
from node.workflows.run import Run

LEASE_LOOK_S: Final = 0.05


async def fetched(js: JetStream, instance: Instance, event: Event) -> Event:
    """The event with its payload, if that is in an object store; asked for until there is an answer."""
    if not is_reference(event.data):
        return event
    args = event.args
    if event.seq < event.run:
        # Taken over from the run that this one was reset to, under whose subject it was sealed.
        args = [str(run_of(event.data) or event.run), *args[1:]]
    subject = instance.key.stored(instance.partition.number, event.kind, *args)
    what = f"event {event.kind} at sequence {event.seq} of workflow {instance.key.id!r}"
    return event._replace(data=await insist(lambda: js.objects.fetched(subject, event.data), what, instance.about()))


class Fetching:
    """Fetches for one engine.

    feed: applies an event to a loaded run. take: hands in an event as if it had just come. may_act: whether the node's
    lease is good.
    """

    def __init__(
        self,
        js: JetStream,
        *,
        instances: Instances,
        background: Background,
        may_act: Callable[[], bool],
        feed: Callable[[Instance, Run, Event], None],
        take: Callable[[Partition, Event], None],
    ) -> None:
        self._js = js
        self._instances = instances
        self._background = background
        self._may_act = may_act
        self._feed = feed
        self._take = take

    def hold(self, instance: Instance, run: Run, event: Event) -> None:
        """Feed an event once its payload is there, or once what came before it has been fed."""
        if instance.fetching is not None:
            instance.fetching.append(event)
            return
        instance.fetching = waiting = [event]
        self._background.start_soon(self._feed_all, instance, run, waiting)

    async def _feed_all(self, instance: Instance, run: Run, waiting: list[Event]) -> None:
        while waiting:
            event = await fetched(self._js, instance, waiting[0])
            while not self._may_act():  # noqa: ASYNC110 - as the loop does: others may own what we think we own
                await anyio.sleep(LEASE_LOOK_S)
            if instance.fetching is not waiting or instance.run is not run or not self._instances.holds(instance):
                return  # it was given up, or is read again
            del waiting[0]
            if not waiting:
                instance.fetching = None
            if event.seq > run.last_seq:
                self._feed(instance, run, event)
            if run.closed and not instance.partition.stopped:
                # It was the end of the run. What comes after it may be the start of the next one.
                for later in waiting:
                    self._take(instance.partition, later)
                break
        self._instances.evict_surplus()
