"""What each figure is, and what the project promises of it: what is measured is nothing without both. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from bench.results import PERCENTILES, Measured, Results, Setup


class Figure(NamedTuple):
    """What is measured, and in what."""

    what: str
    unit: str


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure should be at least, or at most; in one setup, or at one place of a curve, if these are given."""

    at_least: float | None = None
    at_most: float | None = None
    setup: Setup | None = None
    at: Mapping[str, float] | None = None

    def met_by(self, value: float) -> bool:
        """Whether a figure is good enough."""
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)

    def concerns(self, measured: Measured) -> bool:
        """Whether it is about this figure, given that the name is right."""
        return self.setup in (None, measured.setup) and (self.at is None or self.at == measured.at)

    def __str__(self) -> str:
        if self.at_least is not None:
            return f"at least {self.at_least:,.10g}"
        return f"at most {self.at_most:,.10g}" if self.at_most is not None else ""


class Judged(NamedTuple):
    """A figure, what it should be, and whether it is. measured: None when there is no figure."""

    name: str
    figure: Figure
    measured: Measured
    target: Target

    @property
    def met(self) -> bool:
        """Whether the target is met."""
        return self.target.met_by(self.measured.value)


def _percentiles(name: str, what: str) -> dict[str, Figure]:
    says = {"p50": "half of them", "p90": "9 of 10", "p99": "99 of 100", "max": "the slowest"}
    return {f"{name}_{which}_ms": Figure(f"{what}: {says[which]}", "ms") for which in PERCENTILES}


def _recovery(how: str, what: str) -> dict[str, Figure]:
    return {
        f"{how}_owned_s": Figure(f"{what}: another one has all partitions", "s"),
        f"{how}_first_new_s": Figure("... the first new workflow has ended", "s"),
        f"{how}_attended_s": Figure("... all that need attention have it", "s"),
        f"{how}_loaded": Figure("... so many they are", "workflows"),
        f"{how}_loaded_per_s": Figure("... of them", "workflows/s"),
        f"{how}_node_us": Figure("... CPU time of the node for one", "us"),
        f"{how}_server_us": Figure("... of the server", "us"),
        f"{how}_rss_mb": Figure("... memory of the node, at most", "MB"),
        **_percentiles(f"{how}_new", "... start to result of new ones meanwhile"),
    }


FIGURES: Final[Mapping[str, Figure]] = {
    "messages_per_s": Figure("the server alone: messages stored, none read", "messages/s"),
    "steps_per_s": Figure("steps, of workflows of 5", "steps/s"),
    "workflows_per_s": Figure("workflows of 5 steps", "workflows/s"),
    "node_us_per_step": Figure("CPU time of the nodes for a step", "us"),
    "server_us_per_step": Figure("CPU time of the servers for a step", "us"),
    "client_us_per_step": Figure("CPU time of the client for a step", "us"),
    "step_ms": Figure("one workflow, one step after the other: the mean", "ms"),
    **_percentiles("step", "a step after another"),
    **_percentiles("start_to_result", "start to result of a 1-step workflow"),
    **_percentiles("signal_to_wake", "signal to the result of the workflow it wakes"),
    "replay_events_per_s": Figure("load and replay a long history in a fresh node", "events/s"),
    "replay_ms": Figure("load and replay a history in a fresh node", "ms"),
    **_percentiles("step_at_length", "the last steps of a history of that length"),
    "crash_load_ms": Figure("after a crash: a new owner answers for a history", "ms"),
    "timers_per_s": Figure("timers due at one moment, to the end of their workflows", "timers/s"),
    **_percentiles("timer_late", "a timer of them, late by"),
    **_percentiles("kill_next_step", "SIGKILL to the next step"),
    "kill_next_step_first_ms": Figure("SIGKILL, the first workflow of a kill", "ms"),
    "kill_next_step_last_ms": Figure("SIGKILL, the last workflow of a kill", "ms"),
    **_percentiles("kill_pause", "SIGKILL, longest pause of a workflow"),
    "kill_lost_calls": Figure("SIGKILL, calls of other nodes' workflows that are lost with it", "calls"),
    **_percentiles("kill_lost_call", "SIGKILL to the next step of a workflow whose call was lost, not its owner"),
    **_percentiles("term_next_step", "SIGTERM to the next step by another node"),
    "term_next_step_first_ms": Figure("SIGTERM, the first workflow of a node", "ms"),
    "term_next_step_last_ms": Figure("SIGTERM, the last workflow of a node", "ms"),
    **_percentiles("term_pause", "SIGTERM, longest pause of a workflow"),
    "resident_kb": Figure("memory of the node for a workflow in memory", "KB"),
    "sleeping_node_bytes": Figure("memory of the node for a sleeping workflow", "bytes"),
    "sleeping_server_bytes": Figure("memory of the server for a sleeping workflow", "bytes"),
    "asleep_per_s": Figure("started and asleep", "workflows/s"),
    "resident": Figure("sleepers that are in memory", "workflows"),
    "replays": Figure("read again, though nothing was to be recovered", "workflows"),
    "node_rss_mb": Figure("memory of the node, all asleep", "MB"),
    "server_rss_mb": Figure("memory of the server, all asleep", "MB"),
    "server_rested_rss_mb": Figure("... some minutes later", "MB"),
    "store_mb": Figure("the server's store on disk", "MB"),
    **_percentiles("sleeper_wake", "signal to the end of one that sleeps"),
    **_percentiles("step_beside", "a step of a workflow beside them"),
    "fresh_node_s": Figure("a fresh node: up and owner of all of them", "s"),
    "fresh_node_resident": Figure("... workflows in its memory", "workflows"),
    "fresh_node_rss_mb": Figure("... its memory", "MB"),
    **_percentiles("fresh_node_wake", "a fresh node: signal to end"),
    "takeover_ms": Figure("SIGKILL of one of two nodes, to the last of 64 sleepers woken just then", "ms"),
    **_recovery("settled", "SIGKILL of the only node, all waiting"),
    **_recovery("burst", "SIGKILL of the only node, most just started"),
    **_recovery("paused", "SIGSTOP of the only node, all waiting"),
    "paused_back_s": Figure("... it goes on, and both have what is theirs", "s"),
    **_percentiles("standstill", "a workflow of a killed worker stands still"),
    "crowd_s": Figure("10,000 processes on one node: each started, asked and heard", "s"),
    "crowd_rss_mb": Figure("... memory of the node, all of them there", "MB"),
    "crowd_rss_before_mb": Figure("... before", "MB"),
    "crowd_of_function_s": Figure("the same, started by a function call", "s"),
    "crowd_of_function_rss_mb": Figure("... memory", "MB"),
    "crowd_of_function_rss_before_mb": Figure("... before", "MB"),
    "round_trips_per_s": Figure("two processes of one node", "round trips/s"),
    "named_round_trips_per_s": Figure("... by a registered name", "round trips/s"),
    "table_round_trips_per_s": Figure("... with a table of 1 KB", "round trips/s"),
    "lives_per_s": Figure("started, and ended at once", "processes/s"),
    "watched_lives_per_s": Figure("... each watched to its end before the next", "processes/s"),
    "process_calls_per_s": Figure("a process calls a function", "calls/s"),
    "round_trips_between_per_s": Figure("two processes of two nodes", "round trips/s"),
    "table_round_trips_between_per_s": Figure("... with a table of 1 KB", "round trips/s"),
    "watched_lives_between_per_s": Figure("started on another node, watched to its end", "processes/s"),
    "ingested_per_s": Figure("taken in: workflows with 7 attributes, start and end", "workflows/s"),
    "projection_mb": Figure("the file", "MB"),
    "page_worst_ms": Figure("a page of any query of the set, in any order: the slowest", "ms"),
    "page_median_ms": Figure("... half of them", "ms"),
    "hard_page_worst_ms": Figure("ranges of several attributes, each very wide: the slowest", "ms"),
    "hard_page_median_ms": Figure("... half of them", "ms"),
    "counts_ms": Figure("counts by status, type and queue", "ms"),
}

_ALWAYS: Final = Setup(1, 1, "always")
_MILLION: Final = {"open": 1_000_000}
# As the project promises them for two cores, client, node and server side by side.
TARGETS: Final[Mapping[str, Sequence[Target]]] = {
    "steps_per_s": (
        Target(at_least=20_000, setup=Setup()),
        Target(at_least=5000, setup=_ALWAYS),
        Target(at_least=15_000, setup=Setup(1, 3, "relaxed")),
        Target(at_least=15_000, setup=Setup(1, 3, "always")),
    ),
    "workflows_per_s": (Target(at_least=4000, setup=Setup()),),
    "step_ms": (Target(at_most=0.5, setup=Setup()),),
    "start_to_result_p50_ms": (Target(at_most=1, setup=Setup()),),
    "start_to_result_p99_ms": (Target(at_most=4, setup=Setup()),),
    "replay_events_per_s": (Target(at_least=30_000, at={}),),
    "kill_next_step_p50_ms": (Target(at_most=500),),
    "kill_next_step_p99_ms": (Target(at_most=1000),),
    "term_next_step_p50_ms": (Target(at_most=100),),
    "resident": (Target(at_most=0),),
    "sleeper_wake_p50_ms": (Target(at_most=50),),
    "fresh_node_wake_p50_ms": (Target(at_most=50),),
    "node_rss_mb": (Target(at_most=400, at=_MILLION),),
    "server_rss_mb": (Target(at_most=1300, at=_MILLION),),
    "crowd_s": (Target(at_most=15),),
    "crowd_rss_mb": (Target(at_most=500),),
    "crowd_of_function_s": (Target(at_most=15),),
    "crowd_of_function_rss_mb": (Target(at_most=500),),
    "round_trips_per_s": (Target(at_least=20_000),),
    "round_trips_between_per_s": (Target(at_least=2000),),
    "page_worst_ms": (Target(at_most=100),),
    "counts_ms": (Target(at_most=100),),
}


def target_of(measured: Measured) -> Target | None:
    """What this figure should be, if anything is promised of it in this setup."""
    if measured.of:
        return None
    return next((target for target in TARGETS.get(measured.name, ()) if target.concerns(measured)), None)


def judged(results: Results) -> Iterator[Judged]:
    """Every figure that something is promised of, in the order in which it was measured."""
    for measured in results.measured:
        target = target_of(measured)
        if target is not None:
            yield Judged(measured.name, figure_of(measured.name), measured, target)


def figure_of(name: str) -> Figure:
    """What a figure is; one that nobody has described stands for itself."""
    return FIGURES.get(name, Figure(name, ""))


def family_of(name: str) -> str:
    """The name that the percentiles of a figure share; empty when it is no percentile."""
    return next((name.removesuffix(f"_{which}_ms") for which in PERCENTILES if name.endswith(f"_{which}_ms")), "")


def place(measured: Measured) -> str:
    """Where on a curve, in words."""
    return ", ".join(f"{value:,.10g} {axis}" for axis, value in measured.at.items())


def text(value: float) -> str:
    """A figure for people: three digits or more that mean something."""
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:,.1f}" if abs(value) >= 10 else f"{value:,.2f}"
