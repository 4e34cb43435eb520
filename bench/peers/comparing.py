"""The figures of all engines side by side, and ours as a multiple of theirs. Pure.

A ratio above 1 means that this project is better at it. It is taken against the variant of ours whose acknowledgement
promises the same: flushed against flushed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from bench.figures import text
from bench.results import Results

OURS: Final = "moonmesh"


class Compared(NamedTuple):
    """One figure in the comparison. more_is_better: whether a larger value is the better one."""

    name: str
    title: str
    more_is_better: bool


COLUMNS: Final = (
    Compared("workflows_per_s", "workflows/s of 5 steps", True),
    Compared("steps_per_s", "steps/s", True),
    Compared("step_ms", "sequential step, ms", False),
    Compared("start_to_result_p50_ms", "start to result p50, ms", False),
    Compared("start_to_result_p99_ms", "p99", False),
    Compared("signal_to_wake_p50_ms", "signal to wake p50, ms", False),
    Compared("standstill_p50_ms", "kill -9: standstill p50, ms", False),
    Compared("standstill_max_ms", "max", False),
)


def variants(results: Results) -> dict[str, dict[str, Any]]:
    """What was measured, by name, with what is said of it."""
    found: dict[str, dict[str, Any]] = results.details.get("peers", {})
    return found


def value(results: Results, variant: str, column: Compared) -> float | None:
    """One figure of a variant, None if it was not measured."""
    found = results.find(column.name, of=variant)
    return found.value if found else None


def ratio(results: Results, variant: str, column: Compared) -> float | None:
    """How many times better ours is that promises the same; None where one of the two is missing, or is ours."""
    said = variants(results)[variant]
    same = [
        name for name, other in variants(results).items()
        if other["engine"] == OURS and other["flushed"] == said["flushed"]
    ]  # fmt: skip
    theirs = value(results, variant, column)
    ours = value(results, same[0], column) if same else None
    if said["engine"] == OURS or not theirs or not ours:
        return None
    return ours / theirs if column.more_is_better else theirs / ours


def rows(results: Results) -> Iterator[list[str]]:
    """A row for each variant: what it is, and every figure with the ratio behind it."""
    for name, said in variants(results).items():
        cells = [said["title"], "yes" if said["flushed"] else "no"]
        for column in COLUMNS:
            found, times = value(results, name, column), ratio(results, name, column)
            shown = "-" if found is None else text(found)
            cells.append(shown if times is None else f"{shown} ({times_text(times)})")
        yield cells


def times_text(times: float) -> str:
    """A ratio for people."""
    return f"{times:.0f}x" if times >= 10 else f"{times:.1f}x" if times >= 1 else f"{times:.2f}x"


def headings() -> list[str]:
    """The columns of `rows`."""
    return ["engine", "flushed", *(column.title for column in COLUMNS)]
