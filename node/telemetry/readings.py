"""The figures of a node at one moment, by the names that they are published under.

Responsible for: which metrics there are (`METRICS`), and reading each from the part of the node that knows it. Read on
the event loop, so that the figures belong together; a histogram is copied, a number is a number. Not responsible for
how they are written (`node.telemetry.metrics`).
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from node.telemetry.counts import Histogram

if TYPE_CHECKING:
    from node.node import Node
    from node.workflows.engine import Engine


class Metric(NamedTuple):
    """What a metric is. The name of a counter is without `_total`, as Prometheus has it in its clients."""

    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    meaning: str


class Reading(NamedTuple):
    """One figure. labels: in the order of the metric."""

    name: str
    labels: tuple[str, ...]
    value: float | Histogram


METRICS: Final[dict[str, Metric]] = {
    "mesh_build_info": Metric("gauge", ("node", "version", "python"), "Always 1; what runs here."),
    "mesh_nodes": Metric("gauge", (), "Nodes of the mesh as this one sees them, itself among them."),
    "mesh_connected": Metric("gauge", (), "1 while a NATS server is connected."),
    "mesh_reconnects": Metric("counter", (), "How often the connection to NATS broke and came back."),
    "mesh_writes_unanswered": Metric("gauge", (), "Writes that the server has not acknowledged yet."),
    "mesh_writes_repeated": Metric("counter", (), "Writes that were sent again for want of an acknowledgement."),
    "mesh_event_loop_lag_seconds": Metric("histogram", (), "How late the event loop came to what was due."),
    "mesh_log_records_dropped": Metric("counter", (), "Log lines that were not published live for want of room."),
    "mesh_partitions": Metric("gauge", ("queue",), "Partitions that a queue has; each should have an owner."),
    "mesh_partitions_owned": Metric("gauge", ("queue",), "Partitions that this node runs."),
    "mesh_partition_lag_messages": Metric(
        "gauge", ("queue", "partition"),
        "Events of an owned partition that are stored and not handled yet. What the server has not sent yet of "
        "partitions that are followed together is divided among them.",
    ),
    "mesh_takeover_seconds": Metric(
        "histogram", ("queue", "how"),
        "Taking a partition over until its runs are loaded; how: free (nobody had it: new, or handed over) or lost "
        "(its owner is gone).",
    ),
    "mesh_instances": Metric(
        "gauge", ("queue", "state"), "Workflow runs in memory; state: running, suspended or loading."
    ),
    "mesh_workflows_open": Metric(
        "gauge", ("queue",), "Workflows that have not ended, in memory or not, of the whole mesh; only from a node "
        "that keeps a projection.",
    ),
    "mesh_evictions": Metric("counter", ("queue",), "Quiet runs that were let go from memory."),
    "mesh_replay_seconds": Metric("histogram", ("queue",), "Replaying the history of one run, reading not included."),
    "mesh_replayed_events": Metric("counter", ("queue",), "Events that were applied in replays."),
    "mesh_activation_seconds": Metric(
        "histogram", ("queue",), "Handling one event: the Lua code of one step, between two waits."
    ),
    "mesh_workflow_started": Metric("counter", ("queue", "workflow"), "Runs that began."),
    "mesh_workflow_ended": Metric(
        "counter", ("queue", "workflow", "outcome"),
        "Runs that ended; outcome: completed, failed, canceled, terminated, timed-out, continued or retried.",
    ),
    "mesh_workflow_duration_seconds": Metric(
        "histogram", ("queue", "workflow"), "From the start of a run to its end, by the server's clock."
    ),
    "mesh_nondeterminism": Metric(
        "counter", ("queue", "workflow"), "Runs that were suspended because their code does not fit their history."
    ),
    "mesh_history_warnings": Metric(
        "counter", ("queue", "workflow"), "Runs whose history grew past the length at which their worker warns."
    ),
    "mesh_step_seconds": Metric(
        "histogram", ("queue", "function", "outcome"),
        "Calls as their workflow sees them: from asking for one to its outcome, with all attempts and pauses.",
    ),
    "mesh_call_retries": Metric("counter", ("queue", "function"), "Attempts of calls that failed and are repeated."),
    "mesh_calls_in_flight": Metric("gauge", ("queue",), "Calls of the runs in memory that have no outcome yet."),
    "mesh_call_seconds": Metric(
        "histogram", ("function", "outcome"), "Calls as their host sees them: an attempt, from its begin to its answer."
    ),
    "mesh_call_wait_seconds": Metric(
        "histogram", ("function",), "How long a call waited at its host for a place and for the limits of its worker."
    ),
    "mesh_host_calls": Metric("gauge", ("function", "state"), "Calls that this host has; state: running or waiting."),
    "mesh_calls_passed_on": Metric(
        "counter", ("function",), "Calls that this host had no room for and passed on to another one."
    ),
    "mesh_processes": Metric("gauge", (), "Processes that run on this node."),
    "mesh_services": Metric("gauge", ("state",), "Services of this node by state, such as Running and Failed."),
    "mesh_projection_lag_messages": Metric(
        "gauge", (), "Events that are stored and not in this node's projection yet; only from a node that keeps one."
    ),
    "mesh_projection_lag_seconds": Metric("gauge", (), "How long the oldest of these has been stored."),
}  # fmt: skip


def read(node: Node) -> list[Reading]:
    """The figures of a node as they are now. To be called on its event loop."""
    return list(_read(node))


def _read(node: Node) -> Iterator[Reading]:
    yield from _read_node(node)
    for engine in node.engines.values():
        yield from _read_engine(engine)
    yield from _read_functions(node)
    yield Reading("mesh_processes", (), node.processes.running)
    states = Counter(str(service.state) for service in node.services.statistics())
    for state, services in states.items():
        yield Reading("mesh_services", (state,), services)
    if node.projecting is not None:
        lag = node.projecting.lag()
        yield Reading("mesh_projection_lag_messages", (), lag.messages)
        yield Reading("mesh_projection_lag_seconds", (), lag.seconds)
        for queue, workflows in node.projecting.open_by_queue().items():
            yield Reading("mesh_workflows_open", (queue,), workflows)


def _read_node(node: Node) -> Iterator[Reading]:
    python = ".".join(map(str, sys.version_info[:3]))
    connection, writes = node.conn.statistics(), node.outbox.statistics()
    yield Reading("mesh_build_info", (node.id, node.version, python), 1)
    if not node.config.functions_only:  # such a node is no member, and does not know the others
        yield Reading("mesh_nodes", (), len(node.roster.members()))
    yield Reading("mesh_connected", (), int(connection.connected))
    yield Reading("mesh_reconnects", (), max(0, connection.epoch - 1))
    yield Reading("mesh_writes_unanswered", (), writes.unanswered)
    yield Reading("mesh_writes_repeated", (), writes.repeated)
    yield Reading("mesh_event_loop_lag_seconds", (), node.telemetry.loop_lag.lags.copy())
    yield Reading("mesh_log_records_dropped", (), node.telemetry.live_logs.dropped)


def _read_engine(engine: Engine) -> Iterator[Reading]:
    queue, counts, statistics = engine.queue, engine.witness.counts, engine.statistics()
    yield Reading("mesh_partitions", (queue,), engine.stream.partitions)
    yield Reading("mesh_partitions_owned", (queue,), statistics.partitions)
    for number, lag in engine.lags().items():
        yield Reading("mesh_partition_lag_messages", (queue, str(number)), lag)
    for how, histogram in counts.takeovers.items():
        yield Reading("mesh_takeover_seconds", (queue, how), histogram.copy())
    loading = engine.loading
    running = statistics.resident - statistics.suspended - loading
    for state, runs in (("running", running), ("suspended", statistics.suspended), ("loading", loading)):
        yield Reading("mesh_instances", (queue, state), runs)
    yield Reading("mesh_evictions", (queue,), statistics.evictions)
    yield Reading("mesh_replay_seconds", (queue,), counts.replays.copy())
    yield Reading("mesh_replayed_events", (queue,), counts.replayed_events)
    yield Reading("mesh_activation_seconds", (queue,), counts.activations.copy())
    yield Reading("mesh_calls_in_flight", (queue,), statistics.calls_in_flight)
    for workflow, counter in counts.started.items():
        yield Reading("mesh_workflow_started", (queue, workflow), counter.value)
    for (workflow, outcome), counter in counts.ended.items():
        yield Reading("mesh_workflow_ended", (queue, workflow, outcome), counter.value)
    for workflow, histogram in counts.durations.items():
        yield Reading("mesh_workflow_duration_seconds", (queue, workflow), histogram.copy())
    for workflow, counter in counts.nondeterminism.items():
        yield Reading("mesh_nondeterminism", (queue, workflow), counter.value)
    for workflow, counter in counts.history_warnings.items():
        yield Reading("mesh_history_warnings", (queue, workflow), counter.value)
    for (function, outcome), histogram in counts.steps.items():
        yield Reading("mesh_step_seconds", (queue, function, outcome), histogram.copy())
    for function, counter in counts.retries.items():
        yield Reading("mesh_call_retries", (queue, function), counter.value)


def _read_functions(node: Node) -> Iterator[Reading]:
    if node.functions is None:
        return
    for function_id, function in node.functions.functions.items():
        counts = function.counts
        yield Reading("mesh_call_seconds", (function_id, "completed"), counts.completed.copy())
        yield Reading("mesh_call_seconds", (function_id, "failed"), counts.failed.copy())
        yield Reading("mesh_call_wait_seconds", (function_id,), counts.waits.copy())
        yield Reading("mesh_host_calls", (function_id, "running"), function.running)
        yield Reading("mesh_host_calls", (function_id, "waiting"), len(function.waiting) + len(function.limited))
        yield Reading("mesh_calls_passed_on", (function_id,), counts.passed_on)
