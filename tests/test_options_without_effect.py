"""Options that change nothing are told, each with what to use instead: silence would be a trap."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from node.registry import Registry, decoding, load_registry, without_effect
from tests.apps import write_app, write_files
from tests.commands import typed

SET: dict[str, Any] = {
    "namespace": "billing", "keep_alive_timeout": "5s", "health_check": {"enabled": True, "interval": "5s"}, "data_converter": "x",
    "tls": {"enabled": True, "cert_file": "a.pem", "key_file": "a.key"},
    "worker_options": {
        "max_concurrent_workflow_task_execution_size": 5, "max_concurrent_activity_task_pollers": 5,
        "max_concurrent_workflow_task_pollers": 5, "deadlock_detection_timeout": "5s",
        "max_heartbeat_throttle_interval": "5s", "default_heartbeat_throttle_interval": "5s",
        **dict.fromkeys(decoding._WORKER_OPTIONS_IGNORED, 1),
    },
    "host": {"workers": 4, "queue_size": 10, "local_queue_size": 10},
}  # fmt: skip
KINDS = {"temporal.client": "mesh.client", "temporal.worker": "mesh.worker", "process.host": "process.host"}


def loaded(directory: Path, *entries: dict[str, Any], code: str = "return function() end") -> Registry:
    written = json.dumps({"version": "1.0", "namespace": "app", "entries": list(entries)}, indent=1)
    return load_registry(write_files(directory, {"_index.json": written, "w.lua": code}), environ={})


def reasons(registry: Registry) -> list[str]:
    assert registry.problems == ()
    return [note.reason for note in registry.without_effect]


@pytest.mark.parametrize("kind", KINDS)
def test_every_such_option_is_accepted_and_told_with_its_line(tmp_path: Path, kind: str) -> None:
    paths = without_effect._FIELDS[kind]
    entry: dict[str, Any] = {
        "name": "it",
        "kind": KINDS[kind],
        "address": "nats://h",
        "task_queue": "q",
        "client": "app:c",
    }
    client = {"name": "c", "kind": "mesh.client", "address": "nats://h", "namespace": "default"}
    wanted = {"mesh.client": ("address",), "mesh.worker": ("task_queue", "client"), "process.host": ()}[KINDS[kind]]
    entry = {name: value for name, value in entry.items() if name in ("name", "kind", *wanted)}
    for path in paths:
        entry[str(path[0])] = SET[str(path[0])]
    registry = loaded(tmp_path, client, entry)
    told = reasons(registry)
    assert [reason.partition(" has no effect: ")[0] for reason in told] == [".".join(map(str, path)) for path in paths]
    assert all(reason.partition(" has no effect: ")[2] for reason in told)
    lines = (tmp_path / "_index.json").read_text().splitlines()
    for note, path in zip(registry.without_effect, paths, strict=True):
        assert f'"{path[-1]}"' in lines[note.line - 1]
    assert set(registry.without_effect) <= set(registry.notes)


def test_no_field_is_ignored_in_silence() -> None:
    workers = {path[-1] for path in without_effect._FIELDS["temporal.worker"]}
    clients = {path[-1] for path in without_effect._FIELDS["temporal.client"]}
    assert set(decoding._WORKER_OPTIONS_IGNORED) <= workers
    assert set(decoding._CLIENT_FIELDS_IGNORED) <= clients


def test_what_has_an_effect_is_not_told(tmp_path: Path) -> None:
    app = write_app(
        tmp_path,
        workflows={
            "w": "-- task_timeout = 1, 'activity.task_queue'\nreturn function() local namespace = 1 return namespace end"
        },
        worker_options={"max_concurrent_activity_execution_size": 5, "worker_stop_timeout": "1s", "retention": "1h"},
    )
    assert reasons(load_registry(app, environ={})) == []


def test_what_is_switched_off_or_left_to_its_default_is_not_told(tmp_path: Path) -> None:
    """It asks for what there is."""
    off = {
        "enable_session_worker": False,
        "use_versioning": False,
        "build_id": "",
        "worker_local_activities_per_second": 0,
    }
    app = write_app(
        tmp_path, worker_options={**off, "disable_eager_activities": False, "max_concurrent_activity_task_pollers": 0}
    )
    assert reasons(load_registry(app, environ={})) == []


def test_options_in_lua_are_told_where_they_stand(tmp_path: Path) -> None:
    code = """return function()
  funcs.new():with_options{ ["activity.task_queue"] = "other" }:call("app:f")
  process.with_options{ task_timeout = "10s", ["temporal.workflow.namespace"] = "x" }:spawn("app:w", "app:worker")
end"""
    entries: list[dict[str, Any]] = [
        {"name": "worker", "kind": "mesh.worker", "client": "app:client", "task_queue": "q"},
        {"name": "client", "kind": "mesh.client", "address": "nats://h"},
        {
            "name": "w", "kind": "workflow.lua", "source": "file://w.lua", "modules": ["funcs"],
            "meta": {"mesh.workflow.worker": "app:worker", "mesh.activity.local": True},
        },
    ]  # fmt: skip
    registry = loaded(tmp_path, *entries, code=code)
    found = [
        (note.file.name, note.line, note.reason.partition(" has no effect")[0]) for note in registry.without_effect
    ]
    assert [item for item in found if item[0] == "w.lua"] == [
        ("w.lua", 2, "the option activity.task_queue"),
        ("w.lua", 3, "the option namespace"),
        ("w.lua", 3, "the option task_timeout"),
    ]
    assert [item[2] for item in found if item[0] != "w.lua"] == ["meta.mesh.activity.local"]


async def test_mesh_check_tells_them_and_strict_counts_them(tmp_path: Path) -> None:
    loaded(tmp_path, {"name": "hosts", "kind": "process.host", "host": {"workers": 4}})
    lenient, strict = await typed("check", str(tmp_path)), await typed("check", str(tmp_path), "--strict")
    assert (lenient.status, strict.status) == (0, 1)
    assert re.search(r"_index.json:\d+: app:hosts: host.workers has no effect: the processes of a node", lenient.err)
