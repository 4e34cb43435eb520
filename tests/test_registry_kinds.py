"""Each kind of entry: defaults, types, references, aliases, misspelt fields."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from node.registry import (
    AVAILABLE,
    MODULES,
    AuthType,
    Encoding,
    EntryId,
    LuaFunctionEntry,
    NatsFunctionEntry,
    Placement,
    PoolSpec,
    PoolType,
    ProcessHostEntry,
    PythonFunctionEntry,
    Registry,
    RestartSpec,
    Startup,
    load_registry,
)

WORKER = """
  - {name: client, kind: temporal.client, address: "nats://localhost:4222", tq_prefix: eu-}
  - {name: worker, kind: temporal.worker, client: client, task_queue: orders}
"""


def load(root: Path, entries: str, environ: Mapping[str, str] | None = None) -> Registry:
    (root / "i.yaml").write_text(f"namespace: a\nentries:\n{entries.strip(chr(10))}\n", encoding="utf-8")
    return load_registry(root, environ=environ or {})


def told(registry: Registry) -> list[str]:
    return [str(p).partition("i.yaml:")[2] for p in registry.problems]


def function(registry: Registry, name: str = "a:f") -> LuaFunctionEntry:
    found = registry.functions()[EntryId(name)]
    assert isinstance(found, LuaFunctionEntry)
    return found


def test_a_lua_function_has_its_fields_and_defaults(tmp_path: Path) -> None:
    registry = load(
        tmp_path,
        WORKER
        + """
  - {name: lib, kind: library.lua, source: return 1}
  - name: f
    kind: function.lua
    source: "return '${env:NOT_MINE}'"
    method: run
    modules: [time, json, time]
    imports: {money: lib, other: "a:lib"}
    meta: {temporal.activity.worker: worker, options: {retry: {max_attempts: 3, initial_delay: 50}, timeout: 5s}}
""",
    )
    assert registry.problems == ()
    f = function(registry)
    assert f == LuaFunctionEntry(
        id=EntryId("a:f"),
        source_text="return '${env:NOT_MINE}'",
        source_name="i.yaml#f",
        method="run",
        modules=("time", "json"),
        imports=(("money", EntryId("a:lib")), ("other", EntryId("a:lib"))),
        pool=PoolSpec(PoolType.LAZY, workers=0, size_max=100, buffer=6400),
        activity_worker=EntryId("a:worker"),
        options={"retry": {"max_attempts": 3, "initial_delay": 50}, "timeout": "5s"},
    )


@pytest.mark.parametrize(
    ("pool", "expected"),
    [
        ("{}", PoolSpec(PoolType.LAZY, 0, 100, 6400)),
        ("{size: 3}", PoolSpec(PoolType.STATIC, 3, 3, 192)),
        ("{workers: 4, size: 3, buffer: 7}", PoolSpec(PoolType.STATIC, 4, 4, 7)),
        ("{workers: 0, size: 0}", PoolSpec(PoolType.LAZY, 0, 100, 6400)),
        ("{max_size: 5}", PoolSpec(PoolType.LAZY, 0, 5, 320)),
        ("{type: static}", PoolSpec(PoolType.STATIC, 8, 8, 512)),
        ("{type: lazy}", PoolSpec(PoolType.LAZY, 0, 16, 1024)),
        ("{type: lazy, size: 2, max_size: 4}", PoolSpec(PoolType.LAZY, 0, 4, 256)),
        ("{type: adaptive}", PoolSpec(PoolType.ADAPTIVE, 0, 16, 1024)),
        ("{type: inline}", PoolSpec(PoolType.INLINE, 0, 0, 0)),
        ("{size: '${env:SIZE}'}", PoolSpec(PoolType.STATIC, 6, 6, 384)),
    ],
)
def test_pools(tmp_path: Path, pool: str, expected: PoolSpec) -> None:
    entry = f"  - {{name: f, kind: function.lua, source: return 1, method: f, pool: {pool}}}"
    registry = load(tmp_path, entry, {"SIZE": "6"})
    assert registry.problems == ()
    assert function(registry).pool == expected


def test_placeholders_in_options_of_calls_stand_for_numbers(tmp_path: Path) -> None:
    registry = load(
        tmp_path,
        """
  - name: p
    kind: function.nats
    subject: svc.price
    options:
      id: "${env:NO_SUCH|7}"
      start_to_close_timeout: "${env:NO_SUCH|5s}"
      activity.heartbeat_timeout: "${env:NO_SUCH|250}"
      retry: {max_attempts: "${env:NO_SUCH|2}", jitter: "${env:NO_SUCH|0.5}"}
      retry_policy: {maximum_attempts: "${env:NO_SUCH|3}", non_retryable_error_types: ["${env:NO_SUCH|Conflict}"]}
""",
    )
    assert registry.problems == ()
    (function,) = registry.functions().values()
    assert function.options == {
        "id": "7",
        "start_to_close_timeout": "5s",
        "activity.heartbeat_timeout": 250,
        "retry": {"max_attempts": 2, "jitter": 0.5},
        "retry_policy": {"maximum_attempts": 3, "non_retryable_error_types": ["Conflict"]},
    }


def test_python_and_nats_functions(tmp_path: Path) -> None:
    registry = load(
        tmp_path,
        """
  - name: p
    kind: function.python
    source: "shop.charges:Service.charge"
    pool: {size: 2}
    options: {timeout: 3s}
    meta: {options: {timeout: 9s, options.x: 1, deep: ['${env:X|1}']}}
  - {name: n, kind: function.nats, subject: svc.price}
  - {name: m, kind: function.nats, subject: svc.price, encoding: msgpack, meta: {options.retry.max_attempts: 2}}
""",
    )
    assert registry.problems == ()
    lazy = PoolSpec(PoolType.LAZY, 0, 100, 6400)
    static = PoolSpec(PoolType.STATIC, 2, 2, 128)
    assert list(registry.functions().values()) == [
        NatsFunctionEntry(EntryId("a:m"), "svc.price", Encoding.MSGPACK, lazy, None, {"retry": {"max_attempts": 2}}),
        NatsFunctionEntry(EntryId("a:n"), "svc.price", Encoding.JSON, lazy, None, {}),
        PythonFunctionEntry(
            EntryId("a:p"),
            "shop.charges",
            "Service.charge",
            static,
            None,
            {"timeout": "3s", "options.x": 1, "deep": ["1"]},
        ),
    ]
    deep = registry.functions()[EntryId("a:p")].options["deep"]
    assert isinstance(deep, list)
    assert type(deep[0]) is str


@pytest.mark.parametrize(
    "meta",
    [
        "{temporal.workflow.worker: worker, temporal.workflow.name: order}",
        "{mesh.workflow.worker: worker, mesh.workflow.name: order}",
        "{temporal: {workflow: {worker: worker, name: order}}}",
        "{mesh: {workflow.worker: 'a:worker'}, mesh.workflow: {name: '${env:TYPE}'}}",
        "{temporal.workflow.worker: worker, mesh.workflow.worker: worker, mesh.workflow.name: order}",
    ],
)
def test_the_meta_keys_of_a_workflow_can_be_spelled_in_several_ways(tmp_path: Path, meta: str) -> None:
    registry = load(
        tmp_path, WORKER + f"  - {{name: w, kind: workflow.lua, source: return 1, meta: {meta}}}", {"TYPE": "order"}
    )
    assert registry.problems == ()
    workflow = registry.workflows()[EntryId("a:w")]
    assert (workflow.worker, workflow.type_name, workflow.method) == ("a:worker", "order", "main")


def test_a_text_from_a_file_is_no_place_for_placeholders(tmp_path: Path) -> None:
    """Code and templates have their own use for ${...}."""
    (tmp_path / "t.txt").write_text("${env:NONE} and $${")
    registry = load(
        tmp_path,
        """
  - name: f
    kind: function.python
    source: "m:f"
    meta: {options: {template: "file://t.txt", list: [1, "file://t.txt"]}}
    options: {mine: "file://t.txt", user: "${env:USER_NAME}"}
""",
        {"USER_NAME": "ada"},
    )
    text = "${env:NONE} and $${"
    assert registry.problems == ()
    options = registry.functions()[EntryId("a:f")].options
    assert options == {"template": text, "list": [1, text], "mine": text, "user": "ada"}


def test_a_workflow_without_meta_is_named_by_its_id_and_has_no_worker(tmp_path: Path) -> None:
    workflow = load(tmp_path, "  - {name: w, kind: workflow.lua, source: return 1}").workflows()[EntryId("a:w")]
    assert (workflow.worker, workflow.type_name) == (None, "a:w")


def test_a_process_has_a_default_host_from_either_place(tmp_path: Path) -> None:
    registry = load(
        tmp_path,
        """
  - {name: host, kind: process.host, host: {workers: 4}}
  - {name: p, kind: process.lua, source: return 1, meta: {default_host: host}}
  - {name: q, kind: process.lua, source: return 1, method: go, meta: {options: {default_host: "a:host"}}}
  - {name: r, kind: process.lua, source: return 1}
""",
    )
    assert registry.problems == ()
    shown = [(p.id, p.method, p.default_host) for p in registry.processes().values()]
    assert shown == [("a:p", "main", "a:host"), ("a:q", "go", "a:host"), ("a:r", "main", None)]


def test_hosts_and_services_have_their_defaults(tmp_path: Path) -> None:
    registry = load(
        tmp_path,
        """
  - {name: p, kind: process.lua, source: return 1}
  - {name: host, kind: process.host}
  - {name: terminal, kind: terminal.host}
  - {name: s, kind: process.service, process: p, host: host}
""",
    )
    assert registry.problems == ()
    (host,) = registry.process_hosts().values()
    (terminal,) = registry.terminal_hosts().values()
    (service,) = registry.services().values()
    assert host == ProcessHostEntry(EntryId("a:host"), 0, 1024, 256, host.lifecycle)
    assert (terminal.id, terminal.hide_logs) == ("a:terminal", False)
    assert (service.id, service.process, service.host) == ("a:s", "a:p", "a:host")
    assert (service.input, service.placement) == ((), Placement.EACH)
    assert host.lifecycle == terminal.lifecycle == service.lifecycle
    lifecycle = service.lifecycle
    assert (lifecycle.auto_start, lifecycle.requires, lifecycle.startup) == (False, (), Startup.REQUIRED)
    assert (lifecycle.start_timeout_s, lifecycle.stop_timeout_s, lifecycle.stable_threshold_s) == (10.0, 10.0, 5.0)
    assert lifecycle.restart == RestartSpec(1.0, 90.0, 2.0, 0.1, 0)


def test_hosts_and_services_take_every_option(tmp_path: Path) -> None:
    registry = load(
        tmp_path,
        WORKER
        + """
  - {name: w, kind: workflow.lua, source: return 1}
  - {name: host, kind: process.host, host: {workers: "${MANY|4}", queue_size: 10, local_queue_size: 3}}
  - {name: terminal, kind: terminal.host, hide_logs: true, lifecycle: {auto_start: true}}
  - name: s
    kind: process.service
    process: w
    host: "a:worker"
    placement: one
    input: [1, "${WORD|two}", {three: ["${N|3}"]}, null]
    lifecycle:
      auto_start: true
      depends_on: [host]
      stop_timeout: 3s
      security: {actor: {id: me}}
      restart: {max_attempts: 2, jitter: 0, max_delay: 5s}
""",
    )
    assert registry.problems == ()
    (host,) = registry.process_hosts().values()
    (terminal,) = registry.terminal_hosts().values()
    (service,) = registry.services().values()
    assert (host.workers, host.queue_size, host.local_queue_size) == (4, 10, 3)
    assert (terminal.hide_logs, terminal.lifecycle.auto_start) == (True, True)
    assert (service.process, service.host, service.placement) == ("a:w", "a:worker", Placement.ONE)
    assert service.input == (1, "two", {"three": ["3"]}, None)
    assert type(service.input[1]) is str
    assert (service.lifecycle.requires, service.lifecycle.stop_timeout_s) == (("a:host",), 3.0)
    assert service.lifecycle.restart == RestartSpec(1.0, 5.0, 2.0, 0.0, 2)


def test_a_service_needs_a_host_that_can_run_its_process(tmp_path: Path) -> None:
    registry = load(
        tmp_path,
        WORKER.strip("\n")
        + """
  - {name: p, kind: process.lua, source: return 1}
  - {name: w, kind: workflow.lua, source: return 1}
  - {name: host, kind: process.host}
  - {name: terminal, kind: terminal.host}
  - {name: x, kind: process.service, process: p, host: worker}
  - {name: y, kind: process.service, process: w, host: host}
  - {name: z, kind: process.service, process: p, host: terminal}
""",
    )
    assert told(registry) == [
        "9: a:x: host a:worker is a temporal.worker, but a:p is a process.lua: that needs a process.host",
        "10: a:y: host a:host is a process.host, but a:w is a workflow.lua: that needs a temporal.worker",
        "11: a:z: host: a:terminal is a terminal.host, not a process.host or temporal.worker",
    ]
    assert registry.services() == {}


def test_clients_and_workers_have_their_defaults(tmp_path: Path) -> None:
    registry = load(tmp_path, WORKER)
    assert registry.problems == ()
    client, worker = registry.clients()[EntryId("a:client")], registry.workers()[EntryId("a:worker")]
    assert (client.address, client.namespace, client.tq_prefix) == ("nats://localhost:4222", "default", "eu-")
    assert (client.connection_timeout_s, client.keep_alive_time_s, client.keep_alive_timeout_s) == (10.0, 30.0, 10.0)
    assert (client.auth.type, client.tls, client.health_check_interval_s) == (AuthType.NONE, None, None)
    assert (worker.client, worker.task_queue, worker.auto_start) == ("a:client", "eu-orders", False)
    o = worker.options
    assert (o.activities_max, o.workflow_steps_max, o.activity_pollers, o.workflow_pollers) == (1000, 1000, 20, 20)
    assert (o.worker_activities_per_second, o.queue_activities_per_second, o.deadlock_timeout_s) == (None, None, None)
    assert (o.sticky_timeout_s, o.stop_timeout_s, o.disable_workflow_worker, o.log_in_replay) == (
        5.0,
        0.0,
        False,
        False,
    )
    lifecycle = worker.lifecycle
    assert (lifecycle.start_timeout_s, lifecycle.stop_timeout_s, lifecycle.stable_threshold_s) == (10.0, 10.0, 5.0)
    assert (lifecycle.requires, lifecycle.startup) == ((), Startup.REQUIRED)
    assert lifecycle.restart == RestartSpec(1.0, 90.0, 2.0, 0.1, 0)


def test_clients_and_workers_take_every_option_and_placeholders_are_coerced(tmp_path: Path) -> None:
    registry = load(
        tmp_path,
        """
  - name: c
    kind: mesh.client
    address: "nats://${HOST|localhost}:${env:PORT}"
    namespace: prod
    connection_timeout: "${env:WAIT}"
    keep_alive_time: 2000000000
    auth: {type: api_key, api_key_env: TOKEN}
    tls: {enabled: "${env:TLS}", ca_file: ca.pem}
    health_check: {enabled: true, interval: 1m}
  - name: w
    kind: mesh.worker
    client: c
    task_queue: q
    worker_options:
      max_concurrent_activity_execution_size: "${env:MANY|7}"
      worker_activities_per_second: 2.5
      deadlock_detection_timeout: 500ms
      identity: me
    lifecycle:
      auto_start: "${AUTO|true}"
      requires: [c]
      depends_on: ["a:c"]
      startup: optional
      restart: {initial_delay: 2s, max_attempts: 5, backoff_factor: 3}
""",
        {"PORT": "4222", "WAIT": "1500ms", "TLS": "1"},
    )
    assert registry.problems == ()
    client, worker = registry.clients()[EntryId("a:c")], registry.workers()[EntryId("a:w")]
    assert (client.address, client.connection_timeout_s, client.keep_alive_time_s) == (
        "nats://localhost:4222",
        1.5,
        2.0,
    )
    assert client.tls is not None
    assert (client.tls.enabled, client.auth.api_key_env, client.health_check_interval_s) == (True, "TOKEN", 60.0)
    assert (worker.task_queue, worker.auto_start) == ("q", True)
    assert (worker.options.activities_max, worker.options.worker_activities_per_second) == (7, 2.5)
    assert worker.options.deadlock_timeout_s == 0.5
    assert (worker.lifecycle.requires, worker.lifecycle.startup) == (("a:c",), Startup.OPTIONAL)
    assert worker.lifecycle.restart == RestartSpec(2.0, 90.0, 3.0, 0.1, 5)


LUA = "source: return 1"
PROBLEMS = [
    ("kind: function.lua, method: f", "source is required"),
    ("kind: function.lua, method: f, source: [1]", "source must be Lua code or file://path"),
    (f"kind: function.lua, {LUA}", "method is required"),
    (f"kind: function.lua, {LUA}, method: 5", "method must be a text, not 5"),
    (f"kind: function.lua, {LUA}, metod: f", "method is required|unknown field metod; did you mean 'method'?"),
    (f"kind: library.lua, {LUA}, modules: json", "modules must be a list of texts"),
    (f"kind: library.lua, {LUA}, modules: [jsn]", "unknown module 'jsn'; did you mean 'json'?"),
    (f"kind: library.lua, {LUA}, modules: ['b:c']", "module 'b:c' has a namespace: modules are built in"),
    (f"kind: library.lua, {LUA}, modules: [fs]", "module 'fs' exists, but not in this version; available are"),
    (f"kind: library.lua, {LUA}, imports: [x]", "imports must be a mapping, not a list"),
    (f"kind: library.lua, {LUA}, imports: {{m: none}}", "imports.m: no entry a:none"),
    (f"kind: library.lua, {LUA}, imports: {{m: 'a:cleint'}}", "imports.m: no entry a:cleint; did you mean 'a:client'?"),
    (
        f"kind: library.lua, {LUA}, imports: {{m: client}}",
        "imports.m: a:client is a temporal.client, not a function.lua",
    ),
    (f"kind: library.lua, {LUA}, imports: {{m: ''}}", "imports.m must be the id of an entry"),
    (f"kind: library.lua, {LUA}, imports: {{'': client}}", "imports: an alias is empty"),
    (
        f"kind: workflow.lua, {LUA}, meta: {{temporal.workflow.worker: no}}",
        "meta.temporal.workflow.worker: no entry a:no",
    ),
    (
        f"kind: workflow.lua, {LUA}, meta: {{mesh: {{workflow: {{worker: client}}}}}}",
        "meta.mesh.workflow.worker: a:client is a temporal.client, not a temporal.worker",
    ),
    (
        f"kind: workflow.lua, {LUA}, meta: {{temporal.workflow.wroker: worker}}",
        "unknown field meta.temporal.workflow.wroker; did you mean 'temporal.workflow.worker'?",
    ),
    (
        f"kind: workflow.lua, {LUA}, meta: {{mesh.workflow.name: x, temporal.workflow.name: y}}",
        "meta.temporal.workflow.name is given twice with different values",
    ),
    (f"kind: workflow.lua, {LUA}, meta: {{mesh.workflow.name: 5}}", "meta.mesh.workflow.name must be a text"),
    (f"kind: process.lua, {LUA}, meta: {{default_host: none}}", "meta.default_host: no entry a:none"),
    (f"kind: process.lua, {LUA}, meta: {{options: 5}}", "meta.options must be a mapping"),
    (
        f"kind: process.lua, {LUA}, meta: {{options: {{retry: {{max_attempts: many}}}}}}",
        "meta.options.retry.max_attempts must be a whole number, not 'many'",
    ),
    (
        f"kind: process.lua, {LUA}, meta: {{options: {{retry: {{max_atempts: 2}}}}}}",
        "unknown field meta.options.retry.max_atempts; did you mean 'max_attempts'?",
    ),
    (
        f"kind: process.lua, {LUA}, meta: {{options: {{retry: {{max_delay: 5 days}}}}}}",
        "meta.options.retry.max_delay must be a duration such as 10s: time: unknown unit",
    ),
    (
        "kind: function.python, source: m:f, options: {retry_policy: {maximum_atempts: 1}}",
        "unknown field options.retry_policy.maximum_atempts; did you mean 'maximum_attempts'?",
    ),
    (
        "kind: function.python, source: m:f, options: {retry_polcy: {maximum_attempts: 1}}",
        "unknown field options.retry_polcy; did you mean 'retry_policy'?",
    ),
    (
        "kind: function.nats, subject: s, meta: {options: {activity.retry_policy: {maximumAtempts: 1}}}",
        "unknown field meta.options.activity.retry_policy.maximumAtempts; did you mean 'maximumAttempts'?",
    ),
    (
        "kind: function.python, source: m:f, options: {retry_policy: {maximum_attempts: one}}",
        "options: retry_policy.maximum_attempts must be a whole number of at least 0, got 'one'",
    ),
    (
        f"kind: process.lua, {LUA}, meta: {{options: {{start_to_close_timeout: 3 parsecs}}}}",
        "meta.options: start_to_close_timeout: time: unknown unit",
    ),
    ("kind: function.python", "source is required"),
    ("kind: function.python, source: no_colon", "source must be \"package.module:callable\", not 'no_colon'"),
    ("kind: function.python, source: 'm:f', options: 5", "options must be a mapping"),
    ("kind: function.nats", "subject is required"),
    ("kind: function.nats, subject: 'a.*'", "subject must be a NATS subject without wildcards, not 'a.*'"),
    ("kind: function.nats, subject: s, encoding: jsn", "encoding must be one of json, msgpack, text, not 'jsn'"),
    ("kind: function.nats, subject: s, pool: 5", "pool must be a mapping, not 5"),
    ("kind: function.nats, subject: s, pool: {size: '5'}", "pool.size must be a whole number, not '5'"),
    ("kind: function.nats, subject: s, pool: {size: -1}", "pool.size must be at least 0, not -1"),
    ("kind: function.nats, subject: s, pool: {szie: 1}", None),
    ("kind: function.nats, subject: s, pool: {max_sise: 1}", "unknown field pool.max_sise; did you mean 'max_size'?"),
    ("kind: temporal.client", "address is required"),
    ("kind: temporal.client, address: '${env:NONE}'", "address: variable 'NONE' has no value; set it, or write"),
    (
        "kind: temporal.client, address: h, connection_timeout: soon",
        "connection_timeout must be a duration such as 10s",
    ),
    ("kind: temporal.client, address: h, connection_timeout: -1s", "connection_timeout must not be negative"),
    ("kind: temporal.client, address: h, auth: {type: api_key}", "auth.type needs exactly one of api_key, api_key_env"),
    (
        "kind: temporal.client, address: h, auth: {type: mtls, cert_file: c, cert_pem: d, key_file: k}",
        "auth.type needs exactly one of cert_file, cert_pem; given: cert_file, cert_pem",
    ),
    ("kind: temporal.client, address: h, tls: {enabled: yes}", "tls.enabled must be true or false, not 'yes'"),
    ("kind: temporal.worker, task_queue: q", "client is required"),
    ("kind: temporal.worker, client: client", "task_queue is required"),
    (
        "kind: temporal.worker, client: worker, task_queue: q",
        "client: a:worker is a temporal.worker, not a temporal.cl",
    ),
    (
        "kind: temporal.worker, client: client, task_queue: q, worker_options: "
        "{max_concurrent_workflow_task_pollers: 1}",
        "worker_options.max_concurrent_workflow_task_pollers must be at least 2",
    ),
    (
        "kind: temporal.worker, client: client, task_queue: q, lifecycle: {requires: [none]}",
        "lifecycle.requires.0: no entry a:none",
    ),
    (
        "kind: temporal.worker, client: client, task_queue: q, lifecycle: {startup: never}",
        "lifecycle.startup must be one of required, optional, not 'never'",
    ),
    ("kind: process.service, process: client, host: none", "process: a:client is a |host: no entry a:none"),
    ("kind: process.service", "process is required|host is required"),
    ("kind: queue.consumer, queue: none, func: none", "queue: no entry a:none|func: no entry a:none"),
    ("kind: process.host, host: {workers: x}", "host.workers must be a whole number, not 'x'"),
    ("kind: process.host, host: {worker: 1}", "unknown field host.worker; did you mean 'workers'?"),
    ("kind: process.host, host: 5", "host must be a mapping, not 5"),
    ("kind: terminal.host, hide_logs: 1", "hide_logs must be true or false, not 1"),
    ("kind: terminal.host, lifecycle: {requires: [none]}", "lifecycle.requires.0: no entry a:none"),
    (
        "kind: process.host, lifecycle: {restart: {jitter: 1.5, backoff_factor: 0.5}}",
        "lifecycle.restart.jitter must be at most 1, not 1.5|"
        "lifecycle.restart.backoff_factor must be at least 1, not 0.5",
    ),
    (
        "kind: process.service, process: worker, host: worker, input: 5, placement: two",
        "process: a:worker is a temporal.worker, not a process.lua or workflow.lua|"
        "input must be a list, not 5|placement must be one of each, one, not 'two'",
    ),
    (f"kind: process.lua, {LUA}, meta: {{default_host: client}}", "meta.default_host: a:client is a temporal.client"),
    ("kind: library.lua, data: [1]", "data of a library.lua must be a mapping|source is required"),
]


@pytest.mark.parametrize(("fields", "expected"), PROBLEMS)
def test_a_fault_is_a_problem_of_its_entry_and_leaves_it_out(tmp_path: Path, fields: str, expected: str | None) -> None:
    """All faults of an entry are told at once; None: an unknown field like no other is left alone."""
    registry = load(tmp_path, WORKER.strip("\n") + f"\n  - {{name: bad, {fields}}}")
    starts = [f"5: a:bad: {reason}" for reason in expected.split("|")] if expected else []
    lines = told(registry)
    assert len(lines) == len(starts)
    for start in starts:
        assert [line for line in lines if line.startswith(start)], lines
    code = [registry.functions(), registry.libraries(), registry.processes(), registry.workflows()]
    runs = [registry.clients(), registry.workers(), registry.process_hosts(), registry.terminal_hosts()]
    views = {entry_id for found in (*code, *runs) for entry_id in found}
    assert ("a:bad" in views) is (expected is None)
    assert {"a:client", "a:worker"} <= views
    assert "a:bad" in registry.entries


def test_a_problem_has_the_line_of_its_field(tmp_path: Path) -> None:
    registry = load(
        tmp_path,
        """
  - name: f
    kind: function.lua
    source: return 1
    method: f
    pool:
      size: many
    data_like: 1
    meta:
      temporal:
        activity:
          worker: none
""",
    )
    assert told(registry) == [
        "8: a:f: pool.size must be a whole number, not 'many'",
        "13: a:f: meta.temporal.activity.worker: no entry a:none",
    ]


def test_a_worker_of_a_faulty_client_says_so(tmp_path: Path) -> None:
    registry = load(
        tmp_path,
        "  - {name: c, kind: temporal.client}\n  - {name: w, kind: temporal.worker, client: c, task_queue: q}",
    )
    assert told(registry) == [
        "3: a:c: address is required",
        "4: a:w: client refers to a:c, which has a problem of its own",
    ]
    assert (dict(registry.clients()), dict(registry.workers())) == ({}, {})


def test_two_workflows_cannot_have_one_name_on_one_worker(tmp_path: Path) -> None:
    registry = load(
        tmp_path,
        WORKER.strip("\n")
        + """
  - {name: w2, kind: temporal.worker, client: client, task_queue: q2}
  - {name: x, kind: workflow.lua, source: return 1, meta: {mesh.workflow.name: n, mesh.workflow.worker: worker}}
  - {name: y, kind: workflow.lua, source: return 1, meta: {mesh.workflow.name: n, mesh.workflow.worker: worker}}
  - {name: z, kind: workflow.lua, source: return 1, meta: {mesh.workflow.name: n, mesh.workflow.worker: w2}}
""",
    )
    assert told(registry) == ["7: a:y: workflow name 'n' on a:worker is already that of a:x"]
    assert list(registry.workflows()) == ["a:x", "a:z"]


def test_every_available_module_is_in_the_table() -> None:
    assert set(MODULES) >= AVAILABLE
