"""Events by number: event n of a run is the n-th of its history as `History.events` lists it, from 1, its start.

Pure. People count events; machines name them by stream sequence, which is larger: both find the same event.
"""

from __future__ import annotations

from collections.abc import Sequence

from mesh.errors import NotFound
from mesh.events import Event


class UnknownEvent(NotFound):
    """Raised when a run has no event of that number or sequence."""

    code = "no-such-event"

    def __init__(self, workflow_id: str, wanted: int, events: int, run: int = 0) -> None:
        self.wanted = wanted
        self.events = events
        super().__init__(
            f"workflow {workflow_id!r} has no event {wanted}; its {f'run {run}' if run else 'newest run'} "
            f"has events 1 to {events}, "
            "which may also be named by their stream sequences"
        )


def event_index(events: Sequence[Event], number: int) -> int | None:
    """The place in a history that a person means: the number of an event, from 1, or else its stream sequence."""
    if 1 <= number <= len(events):
        return number - 1
    return next((i for i, event in enumerate(events) if event.seq == number), None)


def event_number(workflow_id: str, events: Sequence[Event], wanted: int, run: int = 0) -> int:
    """The number of the event that a number or a stream sequence names. Raises UnknownEvent.

    run: the one whose events these are, 0 for the newest.
    """
    index = event_index(events, wanted)
    if index is None:
        raise UnknownEvent(workflow_id, wanted, len(events), run)
    return index + 1
