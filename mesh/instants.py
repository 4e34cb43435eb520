"""Instants as texts for machines. Inside they are Unix times in nanoseconds."""

from __future__ import annotations

from datetime import UTC, datetime


def iso(ns: int) -> str:
    """A Unix time in nanoseconds as ISO 8601 in UTC, to the nanosecond."""
    seconds, rest = divmod(ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"
