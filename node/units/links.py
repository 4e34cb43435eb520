"""Who monitors whom and who is linked to whom, as far as one node is concerned.

Pure. A node keeps every pair of which at least one end is its own: the end that watches needs it when the other's node
is lost, the end that is watched needs it to know whom to tell. PIDs are texts; which node they belong to is the
caller's business.

Invariants: a link stands at both of its ends; what is told once (`ended`, `lost`, `told`) is forgotten, so nobody is
told twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Farewell:
    """Whom the end of a unit concerns, in the order in which they came to watch.

    monitors: units that monitor it. linked: units linked to it. watched: what it monitored itself.
    """

    monitors: tuple[str, ...]
    linked: tuple[str, ...]
    watched: tuple[str, ...]


class Links:
    """The monitors and links that a node knows of."""

    def __init__(self) -> None:
        # Dicts as ordered sets.
        self._monitors: dict[str, dict[str, None]] = {}  # target -> those that monitor it
        self._watched: dict[str, dict[str, None]] = {}  # watcher -> what it monitors
        self._links: dict[str, dict[str, None]] = {}  # both ways

    def monitor(self, watcher: str, target: str) -> bool:
        """Note a monitor; False when there is one already."""
        if target in self._watched.get(watcher, ()):
            return False
        self._watched.setdefault(watcher, {})[target] = None
        self._monitors.setdefault(target, {})[watcher] = None
        return True

    def unmonitor(self, watcher: str, target: str) -> bool:
        """Forget a monitor; whether there was one."""
        found = _discard(self._watched, watcher, target)
        _discard(self._monitors, target, watcher)
        return found

    def is_monitored(self, watcher: str, target: str) -> bool:
        """Whether one monitors the other."""
        return target in self._watched.get(watcher, ())

    def is_watching(self, watcher: str) -> bool:
        """Whether one monitors anybody."""
        return watcher in self._watched

    def link(self, one: str, other: str) -> None:
        """Note a link; twice is as good as once."""
        self._links.setdefault(one, {})[other] = None
        self._links.setdefault(other, {})[one] = None

    def unlink(self, one: str, other: str) -> bool:
        """Forget a link; whether there was one."""
        found = _discard(self._links, one, other)
        _discard(self._links, other, one)
        return found

    def is_linked(self, one: str, other: str) -> bool:
        """Whether two units are linked."""
        return other in self._links.get(one, ())

    def counts(self, pid: str) -> tuple[int, int, int]:
        """How many monitor a unit, how many it monitors, and how many it is linked to."""
        return len(self._monitors.get(pid, ())), len(self._watched.get(pid, ())), len(self._links.get(pid, ()))

    def ended(self, pid: str) -> Farewell:
        """A unit has ended: whom that concerns. It is forgotten."""
        monitors = tuple(self._monitors.pop(pid, ()))
        for watcher in monitors:
            _discard(self._watched, watcher, pid)
        watched = tuple(self._watched.pop(pid, ()))
        for target in watched:
            _discard(self._monitors, target, pid)
        linked = tuple(self._links.pop(pid, ()))
        for other in linked:
            _discard(self._links, other, pid)
        return Farewell(monitors, linked, watched)

    def lost(self, is_lost: Callable[[str], bool]) -> dict[str, Farewell]:
        """Units that nobody will hear of again, and whom their end concerns."""
        gone = [pid for pid in {**self._monitors, **self._watched, **self._links} if is_lost(pid)]
        return {pid: self.ended(pid) for pid in gone}


def _discard(pairs: dict[str, dict[str, None]], key: str, value: str) -> bool:
    found = pairs.get(key)
    if found is None or value not in found:
        return False
    del found[value]
    if not found:
        del pairs[key]
    return True
