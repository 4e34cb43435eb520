"""The kinds of entries this version knows, and the typed view of each that it runs.

A view is an entry decoded once: placeholders resolved, references full ids, defaults filled in, durations in seconds.
How it is decoded is in `node.registry.decoding`. Views never change and hold no handle to anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from node.registry.documents import Value
from node.registry.entries import EntryId
from store.durability import Durability

CLIENT = "temporal.client"
WORKER = "temporal.worker"
FUNCTION_LUA = "function.lua"
FUNCTION_PYTHON = "function.python"
FUNCTION_NATS = "function.nats"
LIBRARY = "library.lua"
PROCESS = "process.lua"
WORKFLOW = "workflow.lua"
PROCESS_HOST = "process.host"
TERMINAL_HOST = "terminal.host"
SERVICE = "process.service"
STORE_MEMORY = "store.memory"
STORE_KV = "store.kv"
QUEUE_DRIVER_MEMORY = "queue.driver.memory"
QUEUE_DRIVER_JETSTREAM = "queue.driver.jetstream"
QUEUE = "queue.queue"
CONSUMER = "queue.consumer"
SQLITE = "db.sql.sqlite"

KIND_ALIASES = {"mesh.client": CLIENT, "mesh.worker": WORKER}
LUA_KINDS = frozenset({FUNCTION_LUA, LIBRARY, PROCESS, WORKFLOW})
FUNCTION_KINDS = frozenset({FUNCTION_LUA, FUNCTION_PYTHON, FUNCTION_NATS})
RESOURCE_KINDS = frozenset({QUEUE_DRIVER_MEMORY, QUEUE_DRIVER_JETSTREAM, QUEUE, CONSUMER, SQLITE})
KNOWN_KINDS = (
    LUA_KINDS
    | FUNCTION_KINDS
    | {CLIENT, WORKER, *KIND_ALIASES}
    | {"registry.entry", PROCESS_HOST, TERMINAL_HOST, SERVICE}
    | {"env.variable", "env.storage.memory", "env.storage.os", "env.storage.static", "env.storage.file"}
    | {"env.storage.router", STORE_MEMORY, STORE_KV}
    | RESOURCE_KINDS
)


def canonical_kind(kind: str) -> str:
    """Return the name a kind goes by inside: `mesh.worker` and `temporal.worker` are one."""
    return KIND_ALIASES.get(kind, kind)


class PoolType(StrEnum):
    """How a function's VMs (or Python workers) come and go."""

    INLINE = "inline"
    LAZY = "lazy"
    STATIC = "static"
    ADAPTIVE = "adaptive"


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """How many calls of one function run at once on a host and how many may wait there.

    workers: kept from the start (static), else 0. size_max: most at once; 0 (inline) = no limit of its own.
    """

    type: PoolType
    workers: int
    size_max: int
    buffer: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LuaCode:
    """What all Lua has. imports: what a library is called here, and which one it is."""

    id: EntryId
    source_text: str = field(repr=False)
    source_name: str
    modules: tuple[str, ...]
    imports: tuple[tuple[str, EntryId], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LuaFunctionEntry(LuaCode):
    """A `function.lua`: called by id, runs in a pooled VM."""

    method: str
    pool: PoolSpec
    activity_worker: EntryId | None
    options: Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class PythonFunctionEntry:
    """A `function.python`: the callable `attribute` (may be dotted) of the module `module`."""

    id: EntryId
    module: str
    attribute: str
    pool: PoolSpec
    activity_worker: EntryId | None
    options: Mapping[str, Value]


class Encoding(StrEnum):
    """How a foreign service wants its requests and writes its replies."""

    JSON = "json"
    MSGPACK = "msgpack"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class NatsFunctionEntry:
    """A `function.nats`: whatever answers requests on `subject`."""

    id: EntryId
    subject: str
    encoding: Encoding
    pool: PoolSpec
    activity_worker: EntryId | None
    options: Mapping[str, Value]


FunctionEntry: TypeAlias = LuaFunctionEntry | PythonFunctionEntry | NatsFunctionEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryEntry(LuaCode):
    """A `library.lua`: shared code, run once per VM."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessEntry(LuaCode):
    """A `process.lua`: an actor. With a default host it can also be called like a function."""

    method: str
    default_host: EntryId | None
    activity_worker: EntryId | None
    options: Mapping[str, Value]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowEntry(LuaCode):
    """A `workflow.lua`. Without a worker it cannot be started by itself."""

    method: str
    worker: EntryId | None
    type_name: str


class Startup(StrEnum):
    """What a failure at boot means."""

    REQUIRED = "required"
    OPTIONAL = "optional"


@dataclass(frozen=True, slots=True)
class RestartSpec:
    """When a failed service is started again. attempts_max counts starts, 0 = no limit."""

    initial_delay_s: float
    max_delay_s: float
    backoff_factor: float
    jitter: float
    attempts_max: int


@dataclass(frozen=True, slots=True)
class LifecycleSpec:
    """How a service is started, stopped and restarted."""

    auto_start: bool
    start_timeout_s: float
    stop_timeout_s: float
    stable_threshold_s: float
    requires: tuple[EntryId, ...]
    startup: Startup
    restart: RestartSpec


class AuthType(StrEnum):
    """How a client proves who it is."""

    NONE = "none"
    API_KEY = "api_key"
    MTLS = "mtls"


@dataclass(frozen=True, slots=True)
class AuthSpec:
    """Credentials, or where to read them: a value, an environment variable or a file; None = not given."""

    type: AuthType
    api_key: str | None = field(repr=False)
    api_key_env: str | None
    api_key_file: str | None
    cert_file: str | None
    cert_pem: str | None = field(repr=False)
    key_file: str | None
    key_pem: str | None = field(repr=False)
    key_pem_env: str | None


@dataclass(frozen=True, slots=True)
class TlsSpec:
    """TLS to the server."""

    enabled: bool
    ca_file: str | None
    server_name: str | None
    insecure_skip_verify: bool


@dataclass(frozen=True, slots=True)
class ClientEntry:
    """A `temporal.client`: the connection. `address` may list several server URLs, split by commas."""

    id: EntryId
    address: str
    namespace: str
    tq_prefix: str
    connection_timeout_s: float
    keep_alive_time_s: float
    keep_alive_timeout_s: float
    auth: AuthSpec
    tls: TlsSpec | None
    health_check_interval_s: float | None
    lifecycle: LifecycleSpec


class Encryption(StrEnum):
    """Whether the payloads of a worker's workflows are encrypted, when there are keys."""

    REQUIRED = "required"
    PREFERRED = "preferred"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """The `worker_options` that are read; None = no limit or not set.

    Without an effect here: what `node.registry.without_effect` names.
    retention_s: how long ended workflows are kept, 0 = for ever. history_events_warn, history_bytes_warn: when a
    history counts as long. durability: what acknowledged events have to survive; less is complained about.
    keys: file of the worker's own keys, "" = it has those of the node.
    """

    activities_max: int
    workflow_steps_max: int
    activity_pollers: int
    workflow_pollers: int
    worker_activities_per_second: float | None
    queue_activities_per_second: float | None
    sticky_timeout_s: float
    deadlock_timeout_s: float | None
    heartbeat_throttle_max_s: float | None
    heartbeat_throttle_default_s: float | None
    disable_workflow_worker: bool
    log_in_replay: bool
    stop_timeout_s: float
    retention_s: float
    history_events_warn: int
    history_bytes_warn: int
    durability: Durability
    encryption: Encryption
    keys: str


@dataclass(frozen=True, slots=True)
class WorkerEntry:
    """A `temporal.worker`: its id is the host name workflows are spawned on.

    task_queue: with the client's prefix.
    """

    id: EntryId
    client: EntryId
    task_queue: str
    options: WorkerOptions
    lifecycle: LifecycleSpec

    @property
    def auto_start(self) -> bool:
        """Whether a node starts it at boot."""
        return self.lifecycle.auto_start


@dataclass(frozen=True, slots=True)
class ProcessHostEntry:
    """A `process.host`: its id is the host name processes are spawned on.

    workers: 0 = one per processor of the machine it runs on.
    """

    id: EntryId
    workers: int
    queue_size: int
    local_queue_size: int
    lifecycle: LifecycleSpec


@dataclass(frozen=True, slots=True)
class TerminalHostEntry:
    """A `terminal.host`: runs the process of a command line, with the terminal as its input and output."""

    id: EntryId
    hide_logs: bool
    lifecycle: LifecycleSpec


class Placement(StrEnum):
    """How many nodes of the mesh run a service."""

    EACH = "each"
    ONE = "one"


@dataclass(frozen=True, slots=True)
class ServiceEntry:
    """A `process.service`: a process that is started, watched, started again and stopped for its owner.

    process: a process on a process host, or a workflow on a worker. input: the arguments of its main.
    """

    id: EntryId
    process: EntryId
    host: EntryId
    input: tuple[Value, ...]
    placement: Placement
    lifecycle: LifecycleSpec


@dataclass(frozen=True, slots=True)
class MemoryStoreEntry:
    """A `store.memory`: keys in the memory of each node, gone when it stops."""

    id: EntryId
    size_max: int
    cleanup_interval_s: float
    lifecycle: LifecycleSpec


@dataclass(frozen=True, slots=True)
class KvStoreEntry:
    """A `store.kv`: keys in a JetStream bucket, the same ones for every node and after every restart."""

    id: EntryId
    bucket: str
    replicas: int
    lifecycle: LifecycleSpec


class QueueCodec(StrEnum):
    """How the bodies of a message queue are written."""

    JSON = "json/plain"
    MSGPACK = "application/msgpack"


class QueueDriver(StrEnum):
    """What keeps the messages of a queue."""

    MEMORY = QUEUE_DRIVER_MEMORY
    JETSTREAM = QUEUE_DRIVER_JETSTREAM


@dataclass(frozen=True, slots=True)
class QueueDriverEntry:
    """A `queue.driver.*`. replicas: of each queue's stream, 0 = as many as the node makes of its own."""

    id: EntryId
    type: QueueDriver
    replicas: int
    lifecycle: LifecycleSpec


@dataclass(frozen=True, slots=True)
class RedeliverySpec:
    """What becomes of a message whose handler failed.

    deliveries_max: how often it is given to a handler in all, 0 = for ever. dead_letter: the queue it goes to then;
    None = it is logged and dropped.
    """

    deliveries_max: int
    delay_s: float
    delay_max_s: float
    dead_letter: EntryId | None


@dataclass(frozen=True, slots=True)
class QueueEntry:
    """A `queue.queue`. name: what the driver knows it by, which several apps may share.

    length_max: messages it takes, 0 = no limit. ack_wait_s: when a message whose node is gone comes again.
    """

    id: EntryId
    driver: EntryId
    codec: QueueCodec
    name: str
    memory_length_max: int
    jetstream_length_max: int
    ack_wait_s: float
    redelivery: RedeliverySpec
    lifecycle: LifecycleSpec


@dataclass(frozen=True, slots=True)
class ConsumerEntry:
    """A `queue.consumer`: hands the messages of a queue to a function.

    concurrency: handlers at once. prefetch: messages held, those with a handler included. auto_ack: settled before the
    handler sees them.
    """

    id: EntryId
    queue: EntryId
    func: EntryId
    concurrency: int
    prefetch: int
    auto_ack: bool
    lifecycle: LifecycleSpec


@dataclass(frozen=True, slots=True)
class SqliteEntry:
    """A `db.sql.sqlite`: a file of the node, relative to its working directory, or `:memory:`."""

    id: EntryId
    file: str
    busy_timeout_s: float
    lifecycle: LifecycleSpec


HostEntry: TypeAlias = ProcessHostEntry | TerminalHostEntry
StoreEntry: TypeAlias = MemoryStoreEntry | KvStoreEntry
ResourceEntry: TypeAlias = QueueDriverEntry | QueueEntry | ConsumerEntry | SqliteEntry
StartedEntry: TypeAlias = ClientEntry | WorkerEntry | HostEntry | ServiceEntry | StoreEntry | ResourceEntry
CodeEntry: TypeAlias = LuaFunctionEntry | LibraryEntry | ProcessEntry | WorkflowEntry
View: TypeAlias = CodeEntry | PythonFunctionEntry | NatsFunctionEntry | StartedEntry
