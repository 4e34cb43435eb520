"""What was measured, as a file: the same for the table, the documents and the plots, so none of them measures again.

Pure but for `save` and `load`. A results file holds the conditions of the whole run and a list of what was measured,
each with the setup it holds for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final

from mesh.sync import Sync

DIRECTORY: Final = Path(__file__).resolve().parent / "results"
PERCENTILES: Final = ("p50", "p90", "p99", "max")


@dataclass(frozen=True, slots=True, order=True)
class Setup:
    """What runs while something is measured: node processes, and one server or a cluster of three that keep copies."""

    nodes: int = 1
    replicas: int = 1
    sync: Sync = "relaxed"

    def __str__(self) -> str:
        return f"{self.nodes} node{'s' * (self.nodes != 1)}, {self.sync}, R{self.replicas}"

    @property
    def server(self) -> str:
        """The part of it that concerns the server."""
        return f"{self.sync}, R{self.replicas}"


@dataclass(frozen=True, slots=True)
class Measured:
    """One figure. value: the median of the samples, or one value over all of them. cpu: seconds used by whom.

    at: where on a curve, such as {"events": 1000}. of: whose figure it is, when it is not this project's alone.
    """

    name: str
    value: float
    setup: Setup = Setup()
    samples: Sequence[float] = ()
    cpu: Mapping[str, float] = field(default_factory=dict)
    at: Mapping[str, float] = field(default_factory=dict)
    of: str = ""


@dataclass(slots=True)
class Results:
    """One run of the bench: what it was asked for, where it ran, what it found, and what went wrong."""

    kind: str
    arguments: dict[str, Any]
    facts: dict[str, Any]
    measured: list[Measured] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    quiet: dict[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    took_s: float = 0.0

    def add(self, name: str, samples: Sequence[float], setup: Setup, digits: int = 1, **more: Any) -> None:
        """Keep the median of a figure's samples."""
        kept = [round(value, digits) for value in samples]
        self.measured.append(Measured(name, round(median(samples), digits), setup, kept, **more))

    def add_percentiles(self, name: str, values: Sequence[float], setup: Setup, digits: int = 3, **more: Any) -> None:
        """Keep p50, p90, p99 and the largest of many values, as `<name>_p50_ms` and so on."""
        for which, value in zip(PERCENTILES, percentiles(values), strict=True):
            self.measured.append(Measured(f"{name}_{which}_ms", round(value, digits), setup, **more))

    def find(self, name: str, setup: Setup | None = None, of: str = "") -> Measured | None:
        """The figure of this name and setup, if it was measured; of any setup without one."""
        fitting = (m for m in self.measured if m.name == name and m.of == of and setup in (None, m.setup))
        return next(fitting, None)

    def curve(self, name: str, axis: str) -> list[tuple[float, float]]:
        """A figure along an axis, in order."""
        return sorted((m.at[axis], m.value) for m in self.measured if m.name == name and axis in m.at)

    def setups(self) -> list[Setup]:
        """All setups, in an order that puts together what is to be compared."""
        return sorted({m.setup for m in self.measured}, key=lambda s: (s.replicas, s.sync != "relaxed", s.nodes))

    def to_json(self) -> dict[str, Any]:
        """As JSON values; what is empty is left out."""
        values = asdict(self)
        values["measured"] = [{k: v for k, v in asdict(m).items() if v not in ((), {}, [], "")} for m in self.measured]
        return values


def percentiles(values: Sequence[float]) -> tuple[float, float, float, float]:
    """p50, p90, p99 and the largest. Raises ValueError when there is none."""
    if not values:
        raise ValueError("there are no percentiles of nothing")
    cuts = quantiles(values, n=100, method="inclusive") if len(values) > 1 else [values[0]] * 99
    return cuts[49], cuts[89], cuts[98], max(values)


def gaps_ms(times_ns: Sequence[int]) -> list[float]:
    """How long from each of these times to the next, in ms."""
    return [(b - a) / 1e6 for a, b in pairwise(sorted(times_ns))]


def save(results: Results, path: Path) -> None:
    """Write a results file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results.to_json(), indent=1) + "\n", "utf-8")


def load(path: Path) -> Results:
    """Read a results file. Raises ValueError when it is none."""
    try:
        values = json.loads(path.read_text("utf-8"))
        measured = [Measured(**{**entry, "setup": Setup(**entry["setup"])}) for entry in values.pop("measured")]
        return Results(**values, measured=measured)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} holds no results of this bench: {error!r}") from error
