"""The virtual clock: what happens when. Time passes only by taking what is due."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

from mesh.duration import SECOND


class Appointment:
    """Something that is going to happen, unless it is called off."""

    __slots__ = ("action", "due_ns", "off")

    def __init__(self, due_ns: int, action: Callable[[], object]) -> None:
        self.due_ns = due_ns
        self.action = action
        self.off = False

    def call_off(self) -> None:
        """Let it not happen."""
        self.off = True


class Agenda:
    """Appointments in the order of their time; those of one time in the order in which they were made.

    began_ns, now_ns: Unix time.
    """

    def __init__(self, began_ns: int) -> None:
        self.began_ns = began_ns
        self.now_ns = began_ns
        self._order = itertools.count()
        self._heap: list[tuple[int, int, Appointment]] = []

    @property
    def elapsed_s(self) -> float:
        """Seconds since the beginning."""
        return (self.now_ns - self.began_ns) / SECOND

    def at(self, due_ns: int, action: Callable[[], object]) -> Appointment:
        """Have something happen at a time; what is in the past happens next."""
        appointment = Appointment(max(due_ns, self.now_ns), action)
        heapq.heappush(self._heap, (appointment.due_ns, next(self._order), appointment))
        return appointment

    def next_due_ns(self) -> int | None:
        """When the next thing happens, None if nothing will."""
        while self._heap and self._heap[0][2].off:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def __len__(self) -> int:
        """How many things are going to happen."""
        return sum(not appointment.off for _, _, appointment in self._heap)

    def take(self) -> Callable[[], object]:
        """Take out the next appointment and put the clock to its time. There must be one (`next_due_ns`)."""
        due_ns, _, appointment = heapq.heappop(self._heap)
        self.now_ns = max(self.now_ns, due_ns)
        return appointment.action
