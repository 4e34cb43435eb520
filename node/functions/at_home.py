"""Which calls of its own workflows a node runs itself instead of sending them round, and those that wait for that.

Pure. A request that goes through the server costs the node and the server about as much as running a short function, so
giving such a call away would unload nobody; whatever takes longer goes to the queue group, where idle hosts are. Not
here: whether the function has a place (`node.functions.host`).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from node.functions.job import Job

# What a request through the server costs the two of them in processor time: a function that is not longer stays.
SHORT_S: Final = 0.000_05
# And how long it is on its way when nobody is busy: what is done before that stays, too.
TRIP_S: Final = 0.000_2
# So much at most is taken on for one turn of the loop, however short each is: the socket wants its turn, too.
TURN_S: Final = 0.005
# Larger ones go through the server, whose limit they may exceed: what is possible must not depend on where it runs.
REQUEST_BYTES_MAX: Final = 64 * 1024


class AtHome:
    """The calls that were taken on and not begun. waiting_s: about how long they will take together."""

    __slots__ = ("jobs", "waiting_s")

    def __init__(self) -> None:
        self.jobs: deque[Job] = deque()
        self.waiting_s = 0.0

    def may_stay(self, takes_s: float, request_bytes: int) -> bool:
        """Whether a call is better run here than anywhere. takes_s: as calls of its function did of late."""
        if request_bytes > REQUEST_BYTES_MAX:
            return False
        behind_s = self.waiting_s + takes_s
        return behind_s <= TRIP_S or (takes_s <= SHORT_S and behind_s <= TURN_S)

    def add(self, job: Job, takes_s: float) -> None:
        """Take a call on."""
        self.jobs.append(job)
        self.waiting_s += takes_s

    def take_all(self) -> deque[Job]:
        """All of them, in order; none is left."""
        jobs, self.jobs = self.jobs, deque()
        self.waiting_s = 0.0
        return jobs
