"""Figures for people: tables with what was wanted beside what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure should be at least, or at most."""

    what: str
    unit: str
    at_least: float | None = None
    at_most: float | None = None

    def met_by(self, value: float) -> bool:
        """Whether a figure is good enough."""
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)

    def __str__(self) -> str:
        if self.at_least is not None:
            return f"at least {self.at_least:,g}"
        return f"at most {self.at_most:,g}" if self.at_most is not None else ""


# As the project promises them for two cores.
TARGETS: Final[Mapping[str, Target]] = {
    "messages_per_s": Target("the server alone: messages stored, none read", "messages/s"),
    "messages_per_s_always": Target("the same, every write flushed", "messages/s"),
    "steps_per_s": Target("2,000 workflows of 5 steps", "steps/s", at_least=12_000),
    "workflows_per_s": Target("the same", "workflows/s"),
    "sequential_step_ms": Target("one workflow, one step after the other", "ms/step", at_most=0.6),
    "start_to_result_p50_ms": Target("start to result of a 1-step workflow, half of them", "ms", at_most=1.5),
    "start_to_result_p99_ms": Target("99 of 100 of them", "ms"),
    "replay_events_per_s": Target("load and replay 10,000 events in a fresh node", "events/s", at_least=10_000),
    "steps_per_s_always": Target("2,000 workflows of 5 steps, every write flushed", "steps/s", at_least=2_000),
    "workflows_per_s_always": Target("the same", "workflows/s"),
    "crowd_s": Target("10,000 processes on one node: each started, asked and heard", "s", at_most=15),
    "crowd_rss_mb": Target("... memory of the node, all of them there", "MB", at_most=500),
    "crowd_rss_before_mb": Target("... before", "MB"),
    "crowd_of_function_s": Target("the same, started by a function call", "s", at_most=15),
    "crowd_of_function_rss_mb": Target("... memory", "MB", at_most=500),
    "crowd_of_function_rss_before_mb": Target("... before", "MB"),
    "round_trips_per_s": Target("two processes of one node", "round trips/s", at_least=20_000),
    "named_round_trips_per_s": Target("... by a registered name", "round trips/s"),
    "table_round_trips_per_s": Target("... with a table of 1 KB", "round trips/s"),
    "lives_per_s": Target("started, and ended at once", "processes/s"),
    "watched_lives_per_s": Target("... each watched to its end before the next", "processes/s"),
    "process_calls_per_s": Target("a process calls a function", "calls/s"),
    "round_trips_between_per_s": Target("two processes of two nodes", "round trips/s", at_least=2_000),
    "table_round_trips_between_per_s": Target("... with a table of 1 KB", "round trips/s"),
    "watched_lives_between_per_s": Target("started on another node, watched to its end", "processes/s"),
    "resident": Target("workflows in memory, all asleep", "", at_most=0),
    "replays": Target("read again, though nothing was to be recovered", "workflows"),
    "node_rss_mb": Target("memory of the node", "MB", at_most=300),
    "wake_p50_ms": Target("signal to end of one that sleeps, half of them", "ms", at_most=50),
    "wake_max_ms": Target("the slowest of them", "ms"),
    "asleep_per_s": Target("started and asleep", "workflows/s"),
    "server_rss_mb": Target("memory of the server", "MB"),
    "store_mb": Target("the server's store on disk", "MB"),
    "fresh_node_s": Target("a fresh node: up and owner of all of them", "s"),
    "fresh_node_resident": Target("... workflows in memory", ""),
    "fresh_node_rss_mb": Target("... memory", "MB", at_most=300),
    "fresh_node_wake_p50_ms": Target("... signal to end, half of them", "ms", at_most=50),
    "kill_next_step_median_ms": Target("SIGKILL to the next step, half of its workflows", "ms", at_most=1000),
    "kill_next_step_max_ms": Target("SIGKILL, the last workflow of all kills", "ms"),
    "kill_pause_median_ms": Target("SIGKILL, longest pause of a workflow, half of them", "ms"),
    "kill_next_step_first_ms": Target("... the first of its workflows", "ms"),
    "kill_next_step_last_ms": Target("... the last of its workflows", "ms"),
    "kill_pause_max_ms": Target("... of all workflows of all kills", "ms"),
    "term_next_step_first_ms": Target("... the first of its workflows", "ms"),
    "term_next_step_last_ms": Target("... the last of its workflows", "ms"),
    "term_pause_max_ms": Target("... of all workflows of all", "ms"),
    "evictions": Target("taken out of memory", "workflows"),
    "term_next_step_median_ms": Target("SIGTERM to the next step by another node", "ms", at_most=100),
    "term_next_step_max_ms": Target("SIGTERM, the last workflow of all", "ms"),
    "ingested_per_s": Target("taken in: workflows with 7 attributes, start and end", "workflows/s"),
    "projection_mb": Target("the file", "MB"),
    "page_worst_ms": Target("a page of any query of the set, in any order: the slowest", "ms", at_most=100),
    "page_median_ms": Target("... half of them", "ms"),
    "hard_page_worst_ms": Target("ranges of several attributes, each very wide: the slowest", "ms"),
    "hard_page_median_ms": Target("... half of them", "ms"),
    "counts_ms": Target("counts by status, type and queue", "ms", at_most=100),
    "term_pause_median_ms": Target("SIGTERM, longest pause of a workflow, half of them", "ms"),
}


def print_table(console: Console, title: str, figures: Mapping[str, float], notes: Sequence[str]) -> None:
    """Print figures with their targets, and under what conditions they hold."""
    table = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
    table.add_column("measured")
    table.add_column("", justify="right")
    table.add_column("unit")
    table.add_column("target")
    for name, value in figures.items():
        target = TARGETS.get(name, Target(name, ""))
        wanted = target.at_least is not None or target.at_most is not None
        style = ("green" if target.met_by(value) else "red") if wanted else ""
        table.add_row(target.what, f"[{style}]{_text(value)}[/]" if style else _text(value), target.unit, str(target))
    console.print(table)
    for note in notes:
        console.print(note, style="dim")


def targets_of(figures: Mapping[str, float]) -> dict[str, Any]:
    """The targets of these figures and whether they were met, as JSON values."""
    return {
        name: {"target": str(TARGETS[name]), "met": TARGETS[name].met_by(value)}
        for name, value in figures.items()
        if name in TARGETS and str(TARGETS[name])
    }


def _text(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:,.2f}"
