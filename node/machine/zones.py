"""Time zone rules for Lua code: which UTC offset and abbreviation a zone has at an instant.

Responsible for: answering `zone_at` from the `tzdata` package. Not responsible for: calendars, turning wall clock
readings into instants, caching per machine (all in `node/lua/time.lua`).

Invariants:
- The answer depends on the arguments and the installed `tzdata` alone. The operating system's own zone files are never
  read: they differ between machines, and a workflow replayed on another node must see the same wall clock.
- Only names listed by the package reach the file system, so a name is never a path.
- The caches hold immutable values that are the same for every node in the process.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.resources import files
from zoneinfo import ZoneInfo

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The first day a datetime can hold is left out, so that no offset leads below year 1.
_EARLIEST_S = -62_135_596_800 + 86_400
# The calendar, weekdays included, repeats every 400 years; from 2400 on every zone follows a yearly rule.
_CYCLE_S = 146_097 * 86_400
_CYCLE_FROM_S = int((datetime(2400, 1, 1, tzinfo=UTC) - _EPOCH).total_seconds())


def zone_at(name: bytes, unix_s: int) -> tuple[int, bytes] | None:
    """Return the seconds east of UTC and the abbreviation in force in a zone at a Unix time, None for unknown names.

    Any integer is a valid time: far ones follow the zone's yearly rule, early ones its first known offset.
    """
    if name not in _names():
        return None
    if unix_s >= _CYCLE_FROM_S:
        unix_s = _CYCLE_FROM_S + (unix_s - _CYCLE_FROM_S) % _CYCLE_S
    wall = (_EPOCH + timedelta(seconds=max(unix_s, _EARLIEST_S))).astimezone(_zone(name))
    offset = wall.utcoffset() or timedelta()
    return int(offset.total_seconds()), (wall.tzname() or "").encode()


@cache
def _names() -> frozenset[bytes]:
    return frozenset((files("tzdata") / "zones").read_bytes().split())


@cache
def _zone(name: bytes) -> ZoneInfo:
    """Load a zone whose name is known to be in `_names`."""
    key = name.decode("ascii")
    with files("tzdata").joinpath("zoneinfo", *key.split("/")).open("rb") as rules:
        return ZoneInfo.from_file(rules, key)
