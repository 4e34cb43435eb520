"""When somebody who waits for a workflow's end looks into the log for it.

Pure. Whoever ends a run publishes that, and those who wait hear of it at the same time as the stream: what they have
heard may not be stored yet, may never be, and says nothing of an end that was published before they listened. So the
log decides. It is looked into at once when an end was heard, soon again while that is not there, and now and then when
nothing was heard.

Not here: the looking (`mesh.history`), the listening (`mesh.results`).
"""

from __future__ import annotations

from typing import Final

# An end that was published just before we listened may be stored just after we have looked.
PAUSE_FIRST_S: Final = 0.005
GROWS: Final = 4
# What is missed while a connection is down shows at the next look into the log.
PAUSE_MAX_S: Final = 2.0
# One server has stored within a fraction of a round trip what we have heard, a cluster within a few.
LOOKS_AT_ONCE: Final = 3
STORED_SOON_S: Final = 0.001
STORED_LATER_GROWS: Final = 2
# A silence of that length has a reason, which the owner may know.
LONG_S: Final = 0.08


class Looks:
    """When the log is looked into next for the end of one run.

    pause_s: how long to wait for news before the next look; 0 = look now. silent_s: how long nothing was heard.
    """

    __slots__ = ("_at_once", "_grows", "_next_s", "pause_s", "silent_s")

    def __init__(self) -> None:
        self.pause_s = self.silent_s = 0.0
        self._next_s, self._grows, self._at_once = PAUSE_FIRST_S, GROWS, 1

    def heard(self) -> None:
        """An end was published: it is in the log already, or any moment."""
        self.pause_s = self.silent_s = 0.0
        self._next_s, self._grows, self._at_once = STORED_SOON_S, STORED_LATER_GROWS, LOOKS_AT_ONCE

    def found_nothing(self) -> None:
        """A look has found no end."""
        self._at_once -= 1
        if self._at_once > 0:
            self.pause_s = 0.0
            return
        self.pause_s = self._next_s
        self._next_s = min(self._next_s * self._grows, PAUSE_MAX_S)

    def heard_nothing(self) -> None:
        """The pause is over."""
        self.silent_s += self.pause_s

    @property
    def long_silent(self) -> bool:
        """Whether it is time to ask the owner what it is waiting for."""
        return self.silent_s >= LONG_S
