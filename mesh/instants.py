"""Instants as text: ISO 8601, to and from integer nanoseconds since 1970 (UTC)."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from mesh.duration import SECOND

# SQLite, msgpack and Go keep a time as a signed 64-bit integer.
_NS_MAX: Final = 2**63 - 1
_TIME: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d(?::\d\d)?)(?:[.,](\d{1,9})\d*)?\s*([Zz]|[+-]\d\d:?\d\d)?)?"
)


def iso(ns: int) -> str:
    """A Unix time in nanoseconds as ISO 8601 in UTC, to the nanosecond."""
    seconds, rest = divmod(ns, SECOND)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def parse_iso_ns(text: str) -> int:
    """Read a date (its beginning) or a time; without an offset it is UTC. Raises ValueError."""
    found = _TIME.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no time as in 2026-11-25 or 2026-11-25T10:00:00Z")
    day, clock, fraction, offset = found.groups()
    offset = "+00:00" if offset in (None, "Z", "z") else offset
    moment = datetime.fromisoformat(f"{day}T{clock or '00:00'}{offset}")
    ns = int(moment.timestamp()) * SECOND + int((fraction or "0").ljust(9, "0"))
    if not 0 <= ns <= _NS_MAX:
        raise ValueError(f"{text!r} is before 1970 or after 2262")
    return ns


def timestamp_ns_of(text: str) -> int:
    """Return the Unix time in nanoseconds of an RFC 3339 time such as 2026-11-22T14:03:43.469061764Z, exactly.

    For what servers write, which is one with each message that is read; what people write is for `parse_iso_ns`.
    """
    if len(text) < 20 or not text.endswith("Z"):
        moment = datetime.fromisoformat(text).astimezone(UTC)
        return int(moment.timestamp()) * SECOND + moment.microsecond * 1000
    return _second(text[:19]) * SECOND + int(text[20:-1].ljust(9, "0"))


@lru_cache(maxsize=256)
def _second(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())
