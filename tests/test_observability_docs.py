"""What is written about metrics, and what is made of them, is what there is: documentation, dashboard, alert rules."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from deploy import make_dashboard
from node.telemetry.readings import METRICS

PROJECT = Path(__file__).parent.parent
PROMETHEUS = PROJECT / "deploy" / "prometheus"
# What Prometheus itself has, and its client library.
OTHERS = {"up", "process_cpu_seconds_total", "process_resident_memory_bytes"}
SAMPLES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
EXPORTED = {f"{name}{suffix}" for name, metric in METRICS.items() for suffix in SAMPLES[metric.kind]} | OTHERS


def exported_as(name: str) -> str:
    return f"{name}_total" if METRICS[name].kind == "counter" else name


def queries_of(panels: list[dict[str, Any]]) -> Iterator[str]:
    for panel in panels:
        for target in panel.get("targets", ()):
            yield target["expr"]


def names_in(query: str) -> set[str]:
    """The metrics that a query is about: words before a selector, a range or an operator."""
    without_texts = re.sub(r'"[^"]*"', '""', query)
    without_labels = re.sub(r"\{[^}]*\}", "", re.sub(r"\b(by|group_left) \([^)]*\)", "", without_texts))
    return set(re.findall(r"\b(?:mesh|process|python)_[a-z_]+\b|\bup\b", without_labels))


def labels_in(query: str) -> Iterator[tuple[str, str]]:
    """Each metric of a query with each label that is asked of it."""
    for name, selector in re.findall(r"\b(mesh_[a-z_]+)\{([^}]*)\}", query):
        for label in re.findall(r"(\w+)\s*=", re.sub(r'"[^"]*"', '""', selector)):
            yield name, label


def test_the_table_of_metrics_is_what_is_exported() -> None:
    text = (PROJECT / "docs" / "observability.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(mesh_\w+)` \| (\w+) \| (.*?) \| (.*) \|$", text, flags=re.MULTILINE)
    assert rows == [
        (exported_as(name), metric.kind, ", ".join(f"`{label}`" for label in metric.labels) or "-", metric.meaning)
        for name, metric in METRICS.items()
    ]


def test_the_dashboard_is_what_its_maker_makes() -> None:
    assert make_dashboard.FILE.read_text(encoding="utf-8") == make_dashboard.text(), "python -m deploy.make_dashboard"
    made = json.loads(make_dashboard.text())
    ids = [panel["id"] for panel in made["panels"]]
    assert len(set(ids)) == len(ids)
    places = [panel["gridPos"] for panel in made["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    cells = [(x, y) for p in places for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])]
    assert len(set(cells)) == len(cells), "no panel lies on another"


def test_every_metric_of_the_dashboard_is_exported_and_every_metric_is_on_it() -> None:
    queries = list(queries_of(make_dashboard.dashboard()["panels"]))
    assert len(queries) > 40
    used = set().union(*map(names_in, queries))
    assert used - EXPORTED == set()
    shown = {name for name in METRICS if any(used_name.startswith(name) for used_name in used)}
    assert set(METRICS) - shown == {"mesh_nodes"}, (
        "each is somewhere; the number of nodes is counted by mesh_build_info"
    )
    for query in queries:
        for name, label in labels_in(query):
            base = re.sub(r"_(total|bucket|sum|count)$", "", name) if name not in METRICS else name
            assert label in (*METRICS[base].labels, "instance", "le"), query


def test_alert_rules_are_about_metrics_that_there_are() -> None:
    rules = [rule for group in YAML(typ="safe").load(PROMETHEUS / "alerts.yml")["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules) > 10
    for rule in rules:
        names = names_in(rule["expr"])
        assert names, rule["alert"]
        assert names <= EXPORTED, rule["alert"]
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert set(rule["annotations"]) == {"summary", "description"}
        assert re.fullmatch(r"\d+[smh]", rule.get("for", "0s"))
        for name, label in labels_in(rule["expr"]):
            base = name if name in METRICS else re.sub(r"_(total|bucket|sum|count)$", "", name)
            assert label in (*METRICS[base].labels, "job", "le"), rule["alert"]
        assert rule["expr"].count("(") == rule["expr"].count(")")


def test_the_scrape_configuration_finds_the_rules_and_the_nodes_of_mesh_up() -> None:
    config = YAML(typ="safe").load(PROMETHEUS / "prometheus.yml")
    assert all((PROMETHEUS / name).is_file() for name in config["rule_files"])
    (job,) = config["scrape_configs"]
    assert job["job_name"] == "mesh", "as the rules have it"
    assert job["static_configs"][0]["targets"] == [f"127.0.0.1:{port}" for port in (9464, 9465, 9466)]


@pytest.mark.parametrize("query", ["sum by (queue) (mesh_no_such_thing)", "rate(mesh_workflow_started[5m])"])
def test_a_metric_that_is_not_there_is_found(query: str) -> None:
    """The tests above would pass on anything if names were not found."""
    assert names_in(query) - EXPORTED != set()
