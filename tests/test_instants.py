"""Times as servers write them, in nanoseconds."""

from __future__ import annotations

import pytest

from mesh.instants import timestamp_ns_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:00:01Z", 1_000_000_000),
        ("1970-01-01T00:00:01.5Z", 1_500_000_000),
        ("2026-11-22T14:03:43.469061764Z", 1795356223_469061764),
        ("2026-11-22T14:03:43.000000001Z", 1795356223_000000001),
        ("2026-11-22T16:03:43.25+02:00", 1795356223_250000000),
    ],
)
def test_timestamps_are_exact(text: str, expected: int) -> None:
    """They are the clock of workflows: the same event must give the same nanosecond however it was read."""
    assert timestamp_ns_of(text) == expected
