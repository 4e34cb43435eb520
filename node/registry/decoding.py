"""Decodes each kind of entry into its typed view: which fields it has, their types, defaults and references.

An entry with a fault gives no view; all its faults are reported. Kinds without a view are still checked for what they
refer to. Imports between code entries are checked further in `node.registry.units`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, TypeVar

from mesh.duration import MILLISECOND
from node.registry import kinds
from node.registry import meta as meta_keys
from node.registry.documents import FieldPath, Value
from node.registry.entries import Entry, EntryId, Problem
from node.registry.environment import Environment
from node.registry.fields import EntryReader, Fields
from node.registry.host_kinds import read_lifecycle, read_process_host, read_service, read_terminal_host
from node.registry.kinds import (
    AuthSpec,
    AuthType,
    ClientEntry,
    Encoding,
    Encryption,
    KvStoreEntry,
    LibraryEntry,
    LuaFunctionEntry,
    MemoryStoreEntry,
    NatsFunctionEntry,
    PoolSpec,
    PoolType,
    ProcessEntry,
    PythonFunctionEntry,
    TlsSpec,
    View,
    WorkerEntry,
    WorkerOptions,
    WorkflowEntry,
    canonical_kind,
)
from node.registry.modules import module_fault
from node.registry.resources import decode_resource
from node.workflows.call_options import CALL_KEYS, CALL_SPELLINGS, RUNTIME_KEYS, decode_call_options
from node.workflows.retry import POLICY_KEYS
from store.durability import Durability

POOL_SIZE_MAX_UNSAID = 100  # no `pool` at all
POOL_SIZE_MAX = 16
POOL_WORKERS = 8
POOL_BUFFER_PER_WORKER = 64

STORE_SIZE_MAX = 10_000
STORE_CLEANUP_S = 300.0
RETENTION_S = 7 * 24 * 3600.0
RETENTION_LEAST_S = 1.0  # ends are told, results asked for: below this nobody would see any
HISTORY_EVENTS_WARN = 10_000
HISTORY_BYTES_WARN = 10 * 1024 * 1024
REPLICAS_MAX = 5  # the server's own limit

# All that default options of a call may be named; what is spelled like one of them is a slip.
_OPTION_KEYS = ("retry", *(f"{spelling}{key}" for spelling in CALL_SPELLINGS for key in CALL_KEYS))
# Those that have, or are, numbers and durations.
_NUMBER_OPTIONS = (
    "retry",
    *(f"{spelling}{key}" for spelling in CALL_SPELLINGS for key in (*RUNTIME_KEYS, "retry_policy")),
)
_PYTHON_SOURCE = re.compile(r"(?P<module>[^\W\d]\w*(?:\.[^\W\d]\w*)*):(?P<attribute>[^\W\d]\w*(?:\.[^\W\d]\w*)*)")
_SUBJECT = re.compile(r"[^\s.*>]+(\.[^\s.*>]+)*")
_BUCKET = re.compile(r"[A-Za-z0-9_-]{1,200}")
_BUCKETS_OF_THE_MESH = "mesh_"
_METHOD_DEFAULT = "main"

# Fields that belong to a kind and are read elsewhere or have no effect here.
_CLIENT_FIELDS_IGNORED = ("data_converter",)
_WORKER_OPTIONS_IGNORED = (
    "identity",
    "deployment_name",
    "build_id",
    "use_versioning",
    "default_versioning_behavior",
    "max_concurrent_local_activity_execution_size",
    "worker_local_activities_per_second",
    "max_concurrent_session_execution_size",
    "enable_session_worker",
    "local_activity_worker_only",
    "disable_eager_activities",
    "max_concurrent_eager_activity_execution_size",
    "disable_registration_aliasing",
)

ViewType = TypeVar("ViewType")


@dataclass(frozen=True, slots=True)
class Decoded:
    """What decoding one entry gave: a view, or None with the reasons (or because its kind has none)."""

    view: View | None
    problems: tuple[Problem, ...]
    references: tuple[tuple[FieldPath, EntryId], ...]


def decode_entry(
    entry: Entry, entries: Mapping[EntryId, Entry], environment: Environment, clients: Mapping[EntryId, ClientEntry]
) -> Decoded:
    """Decode one entry.

    clients: those decoded so far; a worker needs the queue prefix of its client, so clients go first.
    """
    reader = EntryReader(entry, entries, environment)
    view: View | None = None
    match canonical_kind(entry.kind):
        case kinds.FUNCTION_LUA:
            view = _lua_function(reader)
        case kinds.FUNCTION_PYTHON:
            view = _python_function(reader)
        case kinds.FUNCTION_NATS:
            view = _nats_function(reader)
        case kinds.LIBRARY:
            view = _library(reader)
        case kinds.PROCESS:
            view = _process(reader)
        case kinds.WORKFLOW:
            view = _workflow(reader)
        case kinds.CLIENT:
            view = _client(reader)
        case kinds.WORKER:
            view = _worker(reader, clients)
        case kinds.PROCESS_HOST:
            view = read_process_host(reader)
        case kinds.TERMINAL_HOST:
            view = read_terminal_host(reader)
        case kinds.SERVICE:
            view = read_service(reader, entries)
        case kinds.STORE_MEMORY:
            view = _memory_store(reader)
        case kinds.STORE_KV:
            view = _kv_store(reader)
        case kind if kind in kinds.RESOURCE_KINDS:
            view = _resource(reader, kind)
        case _:
            pass  # data without a view
    problems = tuple(reader.problems)
    return Decoded(None if problems else view, problems, tuple(reader.references))


def _lua_function(reader: EntryReader) -> LuaFunctionEntry:
    fields = reader.fields()
    view = LuaFunctionEntry(
        **_code(reader, fields),
        method=fields.required_text("method"),
        pool=_pool(fields),
        activity_worker=_meta_worker(reader, meta_keys.ACTIVITY_WORKER),
        options=_options(reader),
    )
    return _closed(reader, fields, view)


def _python_function(reader: EntryReader) -> PythonFunctionEntry:
    fields = reader.fields()
    source = fields.required_text("source")
    target = _PYTHON_SOURCE.fullmatch(source)
    if source and target is None:
        fields.fault("source", f'must be "package.module:callable", not {source!r}')
    view = PythonFunctionEntry(
        id=reader.entry.id,
        module=target["module"] if target else "",
        attribute=target["attribute"] if target else "",
        pool=_pool(fields),
        activity_worker=_meta_worker(reader, meta_keys.ACTIVITY_WORKER),
        options=_options(reader, fields.raw("options")),
    )
    return _closed(reader, fields, view)


def _nats_function(reader: EntryReader) -> NatsFunctionEntry:
    fields = reader.fields()
    subject = fields.required_text("subject")
    if subject and not _SUBJECT.fullmatch(subject):
        fields.fault("subject", f"must be a NATS subject without wildcards, not {subject!r}")
    view = NatsFunctionEntry(
        id=reader.entry.id,
        subject=subject,
        encoding=fields.choice("encoding", Encoding, Encoding.JSON),
        pool=_pool(fields),
        activity_worker=_meta_worker(reader, meta_keys.ACTIVITY_WORKER),
        options=_options(reader, fields.raw("options")),
    )
    return _closed(reader, fields, view)


def _library(reader: EntryReader) -> LibraryEntry:
    fields = reader.fields()
    return _closed(reader, fields, LibraryEntry(**_code(reader, fields)), "method")


def _process(reader: EntryReader) -> ProcessEntry:
    fields = reader.fields()
    view = ProcessEntry(
        **_code(reader, fields),
        method=fields.text("method") or _METHOD_DEFAULT,
        default_host=_default_host(reader),
        activity_worker=_meta_worker(reader, meta_keys.ACTIVITY_WORKER),
        options=_options(reader),
    )
    return _closed(reader, fields, view)


def _workflow(reader: EntryReader) -> WorkflowEntry:
    fields = reader.fields()
    name = _meta_value(reader, meta_keys.WORKFLOW_NAME)
    if name is not None and not (isinstance(name[1], str) and name[1]):
        reader.report(name[0], f"{_dotted(name[0])} must be a text")
    view = WorkflowEntry(
        **_code(reader, fields),
        method=fields.text("method") or _METHOD_DEFAULT,
        worker=_meta_worker(reader, meta_keys.WORKFLOW_WORKER),
        type_name=str(name[1]) if name is not None else reader.entry.id,
    )
    return _closed(reader, fields, view)


def _client(reader: EntryReader) -> ClientEntry:
    fields = reader.fields()
    health = fields.section("health_check")
    health_interval_s = health.duration_s("interval", 30.0)
    view = ClientEntry(
        id=reader.entry.id,
        address=fields.required_text("address"),
        namespace=fields.text("namespace") or "default",
        tq_prefix=fields.text("tq_prefix"),
        connection_timeout_s=fields.duration_s("connection_timeout", 10.0),
        keep_alive_time_s=fields.duration_s("keep_alive_time", 30.0),
        keep_alive_timeout_s=fields.duration_s("keep_alive_timeout", 10.0),
        auth=_auth(fields.section("auth")),
        tls=_tls(fields.section("tls")) if "tls" in fields else None,
        health_check_interval_s=health_interval_s if health.flag("enabled") else None,
        lifecycle=read_lifecycle(fields),
    )
    health.close()
    return _closed(reader, fields, view, *_CLIENT_FIELDS_IGNORED)


def _auth(fields: Fields) -> AuthSpec:
    auth = AuthSpec(
        type=fields.choice("type", AuthType, AuthType.NONE),
        api_key=fields.optional_text("api_key"),
        api_key_env=fields.optional_text("api_key_env"),
        api_key_file=fields.optional_text("api_key_file"),
        cert_file=fields.optional_text("cert_file"),
        cert_pem=fields.optional_text("cert_pem"),
        key_file=fields.optional_text("key_file"),
        key_pem=fields.optional_text("key_pem"),
        key_pem_env=fields.optional_text("key_pem_env"),
    )
    fields.close()
    match auth.type:
        case AuthType.API_KEY:
            _exactly_one(fields, "api_key", "api_key_env", "api_key_file")
        case AuthType.MTLS:
            _exactly_one(fields, "cert_file", "cert_pem")
            _exactly_one(fields, "key_file", "key_pem", "key_pem_env")
        case AuthType.NONE:
            pass
    return auth


def _exactly_one(fields: Fields, *names: str) -> None:
    given = [name for name in names if name in fields]
    if len(given) != 1:
        fields.fault("type", f"needs exactly one of {', '.join(names)}; given: {', '.join(given) or 'none'}")


def _tls(fields: Fields) -> TlsSpec:
    tls = TlsSpec(
        enabled=fields.flag("enabled"),
        ca_file=fields.optional_text("ca_file"),
        server_name=fields.optional_text("server_name"),
        insecure_skip_verify=fields.flag("insecure_skip_verify"),
    )
    fields.close("cert_file", "key_file")
    return tls


def _worker(reader: EntryReader, clients: Mapping[EntryId, ClientEntry]) -> WorkerEntry:
    fields = reader.fields()
    client_id = fields.reference("client", (kinds.CLIENT,), required=True)
    client = clients.get(client_id) if client_id else None
    if client_id and client is None:
        fields.fault("client", f"refers to {client_id}, which has a problem of its own")
    view = WorkerEntry(
        id=reader.entry.id,
        client=client_id or EntryId(""),
        task_queue=(client.tq_prefix if client else "") + fields.required_text("task_queue"),
        options=_worker_options(fields.section("worker_options"), reader.entry.file.parent),
        lifecycle=read_lifecycle(fields),
    )
    return _closed(reader, fields, view)


def _resource(reader: EntryReader, kind: str) -> View:
    fields = reader.fields()
    return _closed(reader, fields, decode_resource(reader.entry.id, kind, fields, read_lifecycle(fields)))


def _worker_options(fields: Fields, beside: Path) -> WorkerOptions:
    keys = fields.text("keys")
    options = WorkerOptions(
        activities_max=fields.count("max_concurrent_activity_execution_size", 1000),
        workflow_steps_max=fields.count("max_concurrent_workflow_task_execution_size", 1000),
        activity_pollers=fields.count("max_concurrent_activity_task_pollers", 20),
        workflow_pollers=_workflow_pollers(fields),
        worker_activities_per_second=_rate(fields, "worker_activities_per_second"),
        queue_activities_per_second=_rate(fields, "task_queue_activities_per_second"),
        sticky_timeout_s=fields.duration_s("sticky_schedule_to_start_timeout", 5.0),
        deadlock_timeout_s=fields.optional_duration_s("deadlock_detection_timeout"),
        heartbeat_throttle_max_s=fields.optional_duration_s("max_heartbeat_throttle_interval"),
        heartbeat_throttle_default_s=fields.optional_duration_s("default_heartbeat_throttle_interval"),
        disable_workflow_worker=fields.flag("disable_workflow_worker"),
        log_in_replay=fields.flag("enable_logging_in_replay"),
        stop_timeout_s=fields.duration_s("worker_stop_timeout", 0.0),
        retention_s=_retention_s(fields),
        history_events_warn=fields.count("history_events_warn", HISTORY_EVENTS_WARN),
        history_bytes_warn=fields.size_bytes("history_bytes_warn", HISTORY_BYTES_WARN),
        durability=fields.choice("durability", Durability, Durability.PROCESS_CRASH),
        encryption=fields.choice("encryption", Encryption, Encryption.PREFERRED),
        keys=str(beside / keys) if keys else "",
    )
    fields.close(*_WORKER_OPTIONS_IGNORED)
    return options


def _retention_s(fields: Fields) -> float:
    """How long ended workflows are kept; 0 = for ever."""
    seconds = fields.duration_s("retention", RETENTION_S)
    if 0 < seconds < RETENTION_LEAST_S:
        fields.fault("retention", f"must be at least {RETENTION_LEAST_S:g}s, or 0 to keep ended workflows for ever")
    return seconds


def _memory_store(reader: EntryReader) -> MemoryStoreEntry:
    fields = reader.fields()
    view = MemoryStoreEntry(
        id=reader.entry.id,
        size_max=fields.count("max_size", STORE_SIZE_MAX),
        cleanup_interval_s=fields.duration_s("cleanup_interval", STORE_CLEANUP_S) or STORE_CLEANUP_S,
        lifecycle=read_lifecycle(fields),
    )
    return _closed(reader, fields, view)


def _kv_store(reader: EntryReader) -> KvStoreEntry:
    fields = reader.fields()
    bucket = fields.text("bucket") or bucket_of(reader.entry.id)
    if not _BUCKET.fullmatch(bucket):
        fields.fault("bucket", f"must be 1 to 200 letters, digits, _ and -, not {bucket!r}")
    elif bucket.startswith(_BUCKETS_OF_THE_MESH):
        fields.fault("bucket", f"must not begin with {_BUCKETS_OF_THE_MESH}, such buckets are the mesh's own")
    replicas = fields.integer("replicas", 1, least=1)
    if replicas > REPLICAS_MAX:
        fields.fault("replicas", f"must be at most {REPLICAS_MAX}, not {replicas}")
    view = KvStoreEntry(id=reader.entry.id, bucket=bucket, replicas=replicas, lifecycle=read_lifecycle(fields))
    return _closed(reader, fields, view)


def bucket_of(entry_id: EntryId) -> str:
    """Return the bucket of a store that names none. Two ids never give the same one."""
    return "store-" + re.sub(r"[^A-Za-z0-9-]", lambda found: f"_{ord(found[0]):02X}", entry_id)


def _workflow_pollers(fields: Fields) -> int:
    name = "max_concurrent_workflow_task_pollers"
    pollers = fields.count(name, 20)
    if pollers == 1:
        fields.fault(name, "must be at least 2, one poller cannot serve a queue and its sticky runs")
    return pollers


def _rate(fields: Fields, name: str) -> float | None:
    """Return a rate per second; absent and 0 both mean no limit."""
    return fields.number(name, 0.0) or None


def _pool(fields: Fields) -> PoolSpec:
    pool = fields.section("pool")
    said = "type" in pool
    workers = pool.count("workers", 0) or pool.count("size", 0)
    kind = pool.choice("type", PoolType, PoolType.STATIC if workers else PoolType.LAZY)
    size_max = pool.count("max_size", POOL_SIZE_MAX if said else POOL_SIZE_MAX_UNSAID)
    match kind:
        case PoolType.STATIC:
            size_max = workers = workers or POOL_WORKERS
        case PoolType.LAZY | PoolType.ADAPTIVE:
            workers = 0
        case PoolType.INLINE:
            workers = size_max = 0
    buffer = pool.count("buffer", size_max * POOL_BUFFER_PER_WORKER)
    pool.close()
    return PoolSpec(type=kind, workers=workers, size_max=size_max, buffer=buffer)


class _Code(TypedDict):
    """The fields of `kinds.LuaCode`."""

    id: EntryId
    source_text: str
    source_name: str
    modules: tuple[str, ...]
    imports: tuple[tuple[str, EntryId], ...]


def _code(reader: EntryReader, fields: Fields) -> _Code:
    return _Code(
        id=reader.entry.id,
        source_text=_source(reader, fields),
        source_name=reader.entry.source_name,
        modules=_modules(reader, fields),
        imports=_imports(reader, fields),
    )


def _source(reader: EntryReader, fields: Fields) -> str:
    """Return a Lua source. It is code: placeholders in it are not ours."""
    source = fields.raw("source")
    if source is None or source == "":
        empty_file = reader.entry.included.get(("source",))
        fields.fault("source", f"is empty ({empty_file})" if empty_file else "is required")
    elif not isinstance(source, str):
        fields.fault("source", "must be Lua code or file://path")
    else:
        return source
    return ""


def _modules(reader: EntryReader, fields: Fields) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(fields.texts("modules")))
    for name in names:
        if fault := module_fault(name):
            reader.report(fields.path("modules"), fault)
    return names


def _imports(reader: EntryReader, fields: Fields) -> tuple[tuple[str, EntryId], ...]:
    found = []
    for alias, reference in fields.mapping("imports").items():
        path = (*fields.path("imports"), alias)
        if not alias:
            reader.report(path, "imports: an alias is empty")
            continue
        target = reader.reference(reference, path, sorted(kinds.LUA_KINDS))
        if target is not None:
            found.append((alias, target))
    return tuple(found)


def _default_host(reader: EntryReader) -> EntryId | None:
    for key in ("default_host", "options.default_host"):
        if found := _meta_value(reader, key):
            return reader.reference(found[1], found[0], (kinds.PROCESS_HOST,))
    return None


def _meta_worker(reader: EntryReader, key: str) -> EntryId | None:
    found = _meta_value(reader, key)
    return reader.reference(found[1], found[0], (kinds.WORKER,)) if found else None


def _meta_value(reader: EntryReader, key: str) -> tuple[FieldPath, Value] | None:
    """Return the value of a meta key and its path in the entry, whichever way it is spelled."""
    hits = meta_keys.find_key(reader.entry.meta, key)
    if not hits:
        return None
    path, value = ("meta", *hits[0][0]), hits[0][1]
    for other_path, other in hits[1:]:
        if other != value:
            reader.report(("meta", *other_path), f"meta.{key} is given twice with different values")
    return path, reader.resolved(value, path)


def _options(reader: EntryReader, own: Value = None) -> Mapping[str, Value]:
    """Return an entry's default call options: `meta.options`, over them its own field `options`."""
    meta = reader.entry.meta
    resolved: dict[str, Value] = {}
    for path, given, values in (
        (("meta", "options"), meta.get("options"), meta_keys.collect_options(meta)),
        (("options",), own, own if isinstance(own, dict) else {}),
    ):
        if given is not None and not isinstance(given, dict):
            reader.report(path, f"{_dotted(path)} must be a mapping")
        options = Fields(reader, values, path)
        options.close(*_OPTION_KEYS)
        plain = options.all(numbers=_NUMBER_OPTIONS)
        resolved |= plain
        _check_retry(options.section("retry"))
        _check_call_options(reader, options, plain, path)
    return resolved


def _check_retry(retry: Fields) -> None:
    """Check the retry options; they stay as written, because a call's own options are merged over them key by key."""
    retry.integer("max_attempts", 0)
    retry.duration_s("initial_delay", 0.1, number_unit_ns=MILLISECOND)
    retry.duration_s("max_delay", 10.0, number_unit_ns=MILLISECOND)
    retry.number("backoff_factor", 2.0)
    retry.number("jitter", 0.1)
    retry.texts("retry_kinds")
    retry.texts("skip_kinds")
    retry.close()


def _check_call_options(reader: EntryReader, options: Fields, plain: Mapping[str, Value], path: FieldPath) -> None:
    """Check how workflows call it: a misspelt `maximum_attempts` would be no limit, a wrong value fail every call."""
    try:
        decode_call_options(plain)
    except ValueError as error:
        reader.report(path, f"{_dotted(path)}: {error}")
    for spelling in CALL_SPELLINGS:
        if isinstance(options.raw(f"{spelling}retry_policy"), dict):
            options.section(f"{spelling}retry_policy").close(*POLICY_KEYS)


def _closed(reader: EntryReader, fields: Fields, view: ViewType, *accepted: str) -> ViewType:
    """Finish an entry: look for misspelt fields in its data and its meta."""
    fields.close("lifecycle", *accepted)
    for path, reason in meta_keys.misspelt_keys(reader.entry.meta):
        reader.report(("meta", *path), reason)
    return view


def _dotted(path: FieldPath) -> str:
    return ".".join(str(part) for part in path)
