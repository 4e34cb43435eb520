"""Write `grafana/moonmesh.json`: the dashboard, from the table below.

    python -m deploy.make_dashboard

The dashboard is a page for whoever runs a mesh: from the top, what goes wrong, what workflows do, what takes long, how
the nodes are. Queries sum over the nodes unless the panel is about nodes. A test checks that the file is what this
makes and that every metric in it is exported.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

FILE: Final = Path(__file__).parent / "grafana" / "moonmesh.json"
WIDTH: Final = 24
DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
QUEUE: Final = 'queue=~"$queue"'
NODE: Final = 'instance=~"$instance"'
FAILED: Final = 'outcome=~"failed|timed-out|terminated"'
STEP_FAILED: Final = 'outcome="failed"'


@dataclass(frozen=True)
class Panel:
    """A panel. queries: legend and query. width: of 24. red_from: a figure from which on it is a problem."""

    title: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    red_from: float | None = None
    text: str = ""


def rate(metric: str, labels: str = "", by: str = "") -> str:
    """How much a counter grows a second."""
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} (rate({metric}{{{labels}}}[$__rate_interval]))"


def top(query: str) -> str:
    """The ten largest."""
    return f"topk(10, {query})"


def quantile(of: float, metric: str, labels: str = "", by: str = "") -> str:
    """What so many of a histogram are below."""
    grouped = f"le, {by}" if by else "le"
    return f"histogram_quantile({of}, sum by ({grouped}) (rate({metric}_bucket{{{labels}}}[$__rate_interval])))"


def quantiles(metric: str, labels: str = "") -> tuple[tuple[str, str], ...]:
    """Median and the slowest."""
    return tuple((name, quantile(of, metric, labels)) for name, of in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)))


ROWS: Final[tuple[tuple[str, tuple[Panel, ...]], ...]] = (
    (
        "At a glance",
        (
            Panel("Nodes", (("", "count(mesh_build_info)"),), kind="stat", width=3),
            Panel("Open workflows", (("", "sum(max by (queue) (mesh_workflows_open))"),), kind="stat", width=3,
                  text="As the nodes that keep a projection know."),
            Panel("Started a second", (("", rate("mesh_workflow_started_total", QUEUE)),), kind="stat", width=3),
            Panel("Failed in the last hour", (("", f'sum(increase(mesh_workflow_ended_total{{outcome=~"failed|timed-out",{QUEUE}}}[1h]))'),),
                  kind="stat", width=3, red_from=1),
            Panel("Suspended", (("", f'sum(mesh_instances{{state="suspended",{QUEUE}}})'),), kind="stat", width=3, red_from=1,
                  text="Runs whose code does not fit their history, or is not there: `mesh ls --status suspended`."),
            Panel("Partitions without owner",
                  (("", f"sum(max by (queue) (mesh_partitions{{{QUEUE}}})) - sum(mesh_partitions_owned{{{QUEUE}}})"),),
                  kind="stat", width=3, red_from=1),
            Panel("Failed services", (("", 'sum(mesh_services{state="Failed"}) or vector(0)'),), kind="stat", width=3, red_from=1),
            Panel("Nodes cut off", (("", "count(mesh_connected == 0) or vector(0)"),), kind="stat", width=3, red_from=1),
        ),
    ),
    (
        "Workflows",
        (
            Panel("Started and ended",
                  (("started", rate("mesh_workflow_started_total", QUEUE)), ("{{outcome}}", rate("mesh_workflow_ended_total", QUEUE, "outcome"))),
                  "ops"),
            Panel("Duration of a run", quantiles("mesh_workflow_duration_seconds", QUEUE), "s"),
            Panel("Runs in memory", (("{{state}}", f"sum by (state) (mesh_instances{{{QUEUE}}})"),)),
            Panel("Started, by workflow", (("{{workflow}}", top(rate('mesh_workflow_started_total', QUEUE, 'workflow'))),), "ops"),
            Panel("Failed, by workflow",
                  (("{{workflow}}", top(rate('mesh_workflow_ended_total', f"{FAILED},{QUEUE}", 'workflow'))),),
                  "ops"),
            Panel("Duration, by workflow (p95)", (("{{workflow}}", top(quantile(0.95, 'mesh_workflow_duration_seconds', QUEUE, 'workflow'))),), "s"),
        ),
    ),
    (
        "Steps",
        (
            Panel("From call to outcome", quantiles("mesh_step_seconds", QUEUE), "s", text="As the workflow sees it, with retries."),
            Panel("By function (p95)", (("{{function}}", top(quantile(0.95, 'mesh_step_seconds', QUEUE, 'function'))),), "s"),
            Panel("Calls in flight", (("{{queue}}", f"sum by (queue) (mesh_calls_in_flight{{{QUEUE}}})"),)),
            Panel("Steps that failed", (("{{function}}", top(rate('mesh_step_seconds_count', f"{STEP_FAILED},{QUEUE}", 'function'))),), "ops"),
            Panel("Retries", (("{{function}}", top(rate('mesh_call_retries_total', QUEUE, 'function'))),), "ops"),
            Panel("One step of Lua code (activation)", quantiles("mesh_activation_seconds", QUEUE), "s"),
        ),
    ),
    (
        "Functions, at their hosts",
        (
            Panel("Calls a second", (("{{function}}", top(rate('mesh_call_seconds_count', NODE, 'function'))),), "ops"),
            Panel("Takes (p95)", (("{{function}}", top(quantile(0.95, 'mesh_call_seconds', NODE, 'function'))),), "s"),
            Panel("Waits before (p95)", (("{{function}}", top(quantile(0.95, 'mesh_call_wait_seconds', NODE, 'function'))),), "s"),
            Panel("Running and waiting", (("{{state}}", f"sum by (state) (mesh_host_calls{{{NODE}}})"),)),
            Panel("Failed", (("{{function}}", top(rate('mesh_call_seconds_count', f"{STEP_FAILED},{NODE}", 'function'))),), "ops"),
            Panel("Passed on for want of room", (("{{function}}", top(rate('mesh_calls_passed_on_total', NODE, 'function'))),), "ops"),
        ),
    ),
    (
        "Nodes",
        (
            Panel("Partitions owned", (("{{instance}} {{queue}}", f"sum by (instance, queue) (mesh_partitions_owned{{{QUEUE},{NODE}}})"),)),
            Panel("Events not handled yet", (("{{instance}} {{queue}}", f"sum by (instance, queue) (mesh_partition_lag_messages{{{QUEUE},{NODE}}})"),)),
            Panel("Event loop lag (p99)", (("{{instance}}", quantile(0.99, "mesh_event_loop_lag_seconds", NODE, "instance")),), "s"),
            Panel("Takeovers", (("{{how}}", f"sum by (how) (increase(mesh_takeover_seconds_count{{{QUEUE},{NODE}}}[$__rate_interval]))"),),
                  text="free: nobody had it, or it was handed over. lost: its owner is gone."),
            Panel("Replays", (("runs", rate("mesh_replay_seconds_count", f"{QUEUE},{NODE}")), ("events", rate("mesh_replayed_events_total", f"{QUEUE},{NODE}"))), "ops"),
            Panel("A replay takes", quantiles("mesh_replay_seconds", f"{QUEUE},{NODE}"), "s"),
            Panel("Evictions", (("{{instance}}", rate("mesh_evictions_total", f"{QUEUE},{NODE}", "instance")),), "ops"),
            Panel("Reconnects", (("{{instance}}", f"sum by (instance) (increase(mesh_reconnects_total{{{NODE}}}[$__rate_interval]))"),)),
            Panel("Writes without acknowledgement",
                  (("{{instance}}", f"mesh_writes_unanswered{{{NODE}}}"), ("{{instance}} repeated", rate("mesh_writes_repeated_total", NODE, "instance")))),
            Panel("CPU", (("{{instance}}", f"rate(process_cpu_seconds_total{{{NODE}}}[$__rate_interval])"),), "percentunit"),
            Panel("Memory", (("{{instance}}", f"process_resident_memory_bytes{{{NODE}}}"),), "bytes"),
            Panel("Processes", (("{{instance}}", f"mesh_processes{{{NODE}}}"),)),
            Panel("Services", (("{{state}}", f"sum by (state) (mesh_services{{{NODE}}})"),)),
            Panel("Projection behind", (("{{instance}}", f"mesh_projection_lag_seconds{{{NODE}}}"), ("{{instance}} events", f"mesh_projection_lag_messages{{{NODE}}}")), "s"),
            Panel("Warnings",
                  (("non-determinism", f"sum(increase(mesh_nondeterminism_total{{{QUEUE}}}[$__rate_interval]))"),
                   ("long histories", f"sum(increase(mesh_history_warnings_total{{{QUEUE}}}[$__rate_interval]))"),
                   ("log lines not published", f"sum(increase(mesh_log_records_dropped_total{{{NODE}}}[$__rate_interval]))"))),
        ),
    ),
)  # fmt: skip


_OPTIONS: Final = {
    "timeseries": {
        "legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "stat": {"colorMode": "value", "reduceOptions": {"calcs": ["lastNotNull"]}},
}  # fmt: skip


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana reads it."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS:
        panels.append({
            "type": "row", "title": title, "collapsed": False, "panels": [], "id": len(panels) + 1,
            "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1},
        })  # fmt: skip
        y += 1
        x = height = 0
        for panel in row:
            if x + panel.width > WIDTH:
                x, y = 0, y + height
            height = 4 if panel.kind == "stat" else 8
            position = {"x": x, "y": y, "w": panel.width, "h": height}
            panels.append({**_panel(panel), "id": len(panels) + 1, "gridPos": position})
            x += panel.width
        y += height
    return {
        "uid": "moonmesh", "title": "moonmesh", "tags": ["moonmesh"], "schemaVersion": 39, "version": 1,
        "editable": True, "graphTooltip": 1, "refresh": "10s", "timezone": "browser",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [
            {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
            _variable("queue", "mesh_partitions_owned"),
            _variable("instance", "mesh_build_info"),
        ]},
        "panels": panels,
    }  # fmt: skip


def _panel(panel: Panel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.red_from is not None:
        steps.append({"color": "red", "value": panel.red_from})
    custom = {"fillOpacity": 8, "showPoints": "never"} if panel.kind == "timeseries" else {}
    made: dict[str, Any] = {
        "type": panel.kind, "title": panel.title, "datasource": DATASOURCE,
        "targets": [
            {"refId": chr(ord("A") + i), "datasource": DATASOURCE, "expr": query, "legendFormat": legend or "__auto"}
            for i, (legend, query) in enumerate(panel.queries)
        ],
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit, "min": 0, "custom": custom, "thresholds": {"mode": "absolute", "steps": steps},
            },
            "overrides": [],
        },
        "options": _OPTIONS[panel.kind],
    }  # fmt: skip
    if panel.text:
        made["description"] = panel.text
    return made


def _variable(label: str, metric: str) -> dict[str, Any]:
    query = f"label_values({metric}, {label})"
    return {
        "name": label, "label": label, "type": "query", "datasource": DATASOURCE, "definition": query,
        "query": {"query": query, "refId": "variable"}, "refresh": 2, "sort": 1, "includeAll": True, "multi": True,
        "allValue": ".*", "current": {"text": "All", "value": "$__all"},
    }  # fmt: skip


def main() -> None:
    """Write the file."""
    FILE.write_text(text(), encoding="utf-8")


def text() -> str:
    """The file's text."""
    return json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    main()
