"""The Lua machine: the only importer of lupa.

A `LuaVM` is one Lua state with the kernel in it; it hosts many `Machine`s (units of user code). A machine is sans-IO:
an event goes in by `feed`, the ops that came up come out. It sees no clock, no randomness and no I/O.

Not responsible for: what an op means (`node.workflows.run` for workflows, `node.units.live` for functions).

A VM may be used by one thread at a time. Lua code runs without Python's global lock.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from typing import Any, Final, NamedTuple, Protocol

import msgpack
from lupa import lua54

from mesh import codec
from mesh.errors import MeshError
from node.machine.host_functions import host_functions
from node.machine.lua_tokens import TypedSyntaxError
from node.machine.source_edits import JOIN
from node.machine.typed_lua import erase_for_machine

KERNEL_FILES: Final = (
    "objects", "errors", "patterns", "views", "blame", "values", "sorting", "order", "globals", "arguments", "text",
    "table", "math", "random", "calendar", "date", "coroutine", "environment", "msgpack", "copies", "duration", "zones",
    "layout", "time", "uuid", "encoding", "channel", "payload", "funcs", "mailbox", "process", "names", "spawner",
    "workflow", "hash", "crypto", "logger", "io", "env", "events", "registry", "store", "queue", "sql", "http_client",
    "weight", "budget", "failing", "loading", "activation", "turns", "showing", "inspection", "kernel",
)  # fmt: skip

INSTRUCTIONS_PER_STEP_MAX: Final = 10_000_000  # about 0.2 s; a node must go on answering pings
# The processor's time of a step, first by the clock of the process and then as much again by that of the thread; only
# the latter where there are long texts. Ten times what as many instructions take: it is for instructions on long texts,
# and must not end on a slow machine what a fast one has done.
STEP_CPU_S: Final = 0.2
STEP_MEMORY_BYTES_MAX: Final = 64 * 1024 * 1024
# Messages that a process has not read. Past it who sends is told so, long before they fill the VM that it shares.
UNREAD_MAX: Final = 10_000
VM_MEMORY_BYTES_MAX: Final = 512 * 1024 * 1024
# Kept free for what is handed over into a VM. That happens outside of Lua's protection: where a text does not fit,
# Lua ends the whole operating system process (lupa 2.8).
HANDOVER_BYTES: Final = 1024 * 1024
# A VM of processes that holds this much lets none of them run before the driver has looked for the one to end.
VM_CROWDED_KB: Final = 192 * 1024
# The same for what a function of the host returns: lupa does not give Python's lock back where that fails.
RETURN_BYTES: Final = 64 * 1024
_OUT_OF_MEMORY: Final = "not enough memory"
_NO_ROOM: Final = b"\0no room for what the host returns\0"
_CHECKED: Final = b"""
function(f, no_room)
  local error = error
  local function check(first, ...)
    if first == no_room then
      error("not enough memory", 0)
    end
    return first, ...
  end
  return function(...) return check(f(...)) end
end
"""


class Op(NamedTuple):
    """What a machine asks for. n is its number in the run, 0 for orders without an outcome.

    target: text, or nanoseconds for a timer. payload and options: encoded bytes, None when there are none.
    """

    n: int
    kind: str
    target: str | int
    payload: bytes | None
    options: bytes | None


class MachineFailed(MeshError):
    """Raised when the kernel itself failed: our fault, never an outcome of the user's code."""

    code = "machine-failed"


class OutOfMemory(MachineFailed):
    """Raised when a whole VM has used up its memory; all its machines are lost and must be replayed elsewhere."""

    code = "vm-out-of-memory"


class NoRoom(OutOfMemory):
    """Raised when a VM has no memory for what is handed over into it; nothing has happened in it."""

    code = "vm-has-no-room"


class Machine(Protocol):
    """A unit of user code, as the drivers see it."""

    def feed(
        self, verb: str, now_ns: int, a: Any = None, b: Any = None, c: Any = None, *, replaying: bool = False,
        length: int = 0, size: int = 0,
    ) -> Sequence[Op]:  # fmt: skip
        """One activation: feed one event, get the ops that came up."""
        ...

    def stacks(self) -> list[str]:
        """Where every task waits, one text per task."""
        ...

    def place(self, n: int) -> str:
        """Where the code asked for op n, "" when that is not remembered."""
        ...

    def inspect(self, *, values: bool = True) -> dict[str, Any]:
        """What every task waits for and where it stands, with what its variables hold."""
        ...

    def mailbox(self) -> dict[str, Any]:
        """What the unit listens to, and what it has been sent and has not read."""
        ...

    def close(self) -> None:
        """Forget the unit."""
        ...


@dataclass(frozen=True, slots=True)
class UnitSpec:
    """What machines of one entry are made of. `code` and the libraries' code are keys given to `LuaVM.compile`."""

    kind: str  # workflow, function, process
    entry_id: str
    code: str
    method: str = "main"
    modules: tuple[str, ...] = ()
    imports: Mapping[str, str] = field(default_factory=dict)
    libraries: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class UnitIdentity:
    """What tells one machine of an entry from another. logs_in_replay: what it logs is not left out in a replay."""

    pid: str = ""
    seed: bytes = b""
    info: Mapping[str, Any] = field(default_factory=dict)
    context: Mapping[str, Any] = field(default_factory=dict)
    marks: Mapping[str, Any] = field(default_factory=dict)
    logs_in_replay: bool = False


_VERBS: Final = {
    verb: verb.encode() for verb in ("start", "request", "resolve", "message", "exit", "cancel", "ended", "link_down")
}
_PROCESS_VERBS: Final = {verb: verb.encode() for verb in ("go", "resolve", "message", "cancel", "ended", "link_down")}
_KINDS: Final = {
    kind.encode(): kind
    for kind in (
        "call", "timer", "cancel_op", "spawn", "send", "cancel", "terminate", "mark", "attrs", "end", "log", "ask",
        "monitor", "unmonitor", "link", "unlink", "name.register", "name.lookup", "name.unregister",
    )
}  # fmt: skip


class LuaVM:
    """One Lua state with the kernel. Raises MachineFailed when the kernel cannot be loaded.

    now_ns, entropy: the clock and the randomness of functions and processes; a workflow has none of either.
    step_cpu_s: the processor's time of a step, None = no limit, for a VM that nobody waits for.
    """

    def __init__(
        self,
        *,
        memory_bytes_max: int = VM_MEMORY_BYTES_MAX,
        step_memory_bytes_max: int = STEP_MEMORY_BYTES_MAX,
        instructions_max: int = INSTRUCTIONS_PER_STEP_MAX,
        step_cpu_s: float | None = STEP_CPU_S,
        now_ns: Callable[[], int] = time.time_ns,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._host_functions = host_functions(now_ns, entropy)
        self._lua = lua54.LuaRuntime(
            encoding=None, register_eval=False, register_builtins=False, unpack_returned_tuples=True,
            attribute_filter=_no_attributes, max_memory=memory_bytes_max,
        )  # fmt: skip
        self._memory_used: Callable[[], int] = self._lua.get_memory_used
        self._room_bytes = memory_bytes_max - HANDOVER_BYTES
        self._return_room_bytes = memory_bytes_max - RETURN_BYTES
        self._compiled: set[str] = set()
        self._defined: dict[int, int] = {}
        self._specs: list[UnitSpec] = []
        self._next_handle = 1
        self.machines = 0
        self.prepared: dict[str, UnitSpec] = {}  # by entry; kept here because it is good for this VM only
        api = self._api = self._load_kernel(memory_bytes_max, step_memory_bytes_max, instructions_max, step_cpu_s)
        self._compile: Callable[..., bytes | None] = api[b"compile"]
        self._open: Callable[..., None] = api[b"open"]
        self._define_raw: Callable[..., None] = api[b"define"]
        self._feed: Callable[..., Any] = api[b"feed"]
        self._close: Callable[..., None] = api[b"close"]
        self._stacks: Callable[..., bytes] = api[b"stacks"]
        self._inspect: Callable[..., Any] = api[b"inspect"]

    def _load_kernel(
        self, memory_bytes_max: int, step_memory_bytes_max: int, instructions_max: int, step_cpu_s: float | None
    ) -> Any:
        kernel = self._lua.table()
        kernel[b"modules"] = self._lua.table()
        limits = self._lua.table()
        limits[b"instructions"] = instructions_max
        limits[b"memory_kb"] = step_memory_bytes_max // 1024
        limits[b"vm_memory_kb"] = memory_bytes_max // 1024
        limits[b"string_bytes_max"] = step_memory_bytes_max
        limits[b"crowded_kb"] = VM_CROWDED_KB
        limits[b"cpu_s"] = step_cpu_s
        limits[b"unread"] = self.unread_max = UNREAD_MAX
        limits[b"join_name"] = JOIN.encode()
        kernel[b"limits"] = limits
        host = self._lua.table()
        checked = self._lua.eval(_CHECKED)
        for name, function in self._host_functions.items():
            host[name.encode()] = checked(_within_memory(weakref.ref(self), function), _NO_ROOM)
        kernel[b"host"] = host
        load = self._lua.eval(b"function(code, K) return assert(load(code, nil, 'b'))(K) end")
        api = None
        for code in _kernel_code(KERNEL_FILES):
            api = load(code, kernel)
        # The state's own globals are gone from user code's reach; lupa's `python` table goes from the kernel's too.
        self._lua.execute(b"python = nil")
        return api

    def compile(self, key: str, source: str, name: str) -> str | None:
        """Compile a source under a key, once. Returns None, or the error text (`name:line: reason`)."""
        if key in self._compiled:
            return None
        try:
            plain = erase_for_machine(source, name)
        except TypedSyntaxError as error:
            return str(error)
        problem: bytes | None = self._guard(
            self._compile, key.encode(), plain.encode("utf-8", "surrogateescape"), name.encode()
        )
        if problem is not None:
            return problem.decode("utf-8", "replace")
        self._compiled.add(key)
        return None

    def open(self, spec: UnitSpec, identity: UnitIdentity | None = None) -> LuaMachine:
        """Make a machine. Its code must have been compiled."""
        number = self._defined.get(id(spec))
        if number is None:
            number = self._define(spec)
        handle = self._next_handle
        self._next_handle += 1
        who = identity or UnitIdentity()
        self._guard(
            self._open,
            handle,
            number,
            who.pid.encode("utf-8", "surrogateescape"),
            who.seed,
            _packed(who.info),
            _packed(who.context),
            _packed(who.marks),
            who.logs_in_replay,
        )
        self.machines += 1
        return LuaMachine(self, handle)

    def remember_places(self) -> None:
        """Remember from now on where the code of a machine asked for each op (`LuaMachine.place`). It costs time."""
        self._guard(self._api[b"remember_places"])

    def _define(self, spec: UnitSpec) -> int:
        number = len(self._defined) + 1
        wire = {name: getattr(spec, name) for name in spec.__slots__}
        self._guard(self._define_raw, number, _packed(wire))
        self._defined[id(spec)] = number
        self._specs.append(spec)  # so that its id is not used again
        return number

    def _has_room(self, size: int, bytes_max: int) -> bool:
        if self._memory_used() + size <= bytes_max:
            return True
        self._lua.gccollect()
        return self._memory_used() + size <= bytes_max

    def make_room(self, size: int) -> None:
        """See to it that `size` bytes can be handed over. Raises NoRoom."""
        if not self._has_room(size, self._room_bytes):
            raise NoRoom(f"a Lua VM has used up its memory: no room for {size} bytes")

    def _guard(self, call: Callable[..., Any], *args: object) -> Any:
        self.make_room(sum(len(arg) for arg in args if isinstance(arg, bytes)))
        try:
            return call(*args)
        except lua54.LuaError as error:
            raise _classify(error) from error


class LuaMachine:
    """A unit inside a VM."""

    __slots__ = ("_feed_raw", "_handle", "_vm")

    def __init__(self, vm: LuaVM, handle: int) -> None:
        self._vm = vm
        self._handle = handle
        self._feed_raw = vm._feed

    def feed(
        self, verb: str, now_ns: int, a: Any = None, b: Any = None, c: Any = None, *, replaying: bool = False,
        length: int = 0, size: int = 0,
    ) -> Sequence[Op]:  # fmt: skip
        """One activation. Raises OutOfMemory when the whole VM is lost, MachineFailed when the kernel is at fault."""
        vm = self._vm
        handed_over = _size(a) + _size(b) + _size(c)
        if vm._memory_used() + handed_over > vm._room_bytes:  # hardly ever; the question is on the way of every step
            vm.make_room(handed_over)
        try:
            flat = self._feed_raw(self._handle, _VERBS[verb], now_ns, replaying, length, size, a, b, c)
        except lua54.LuaError as error:
            raise _classify(error) from error
        return () if flat is None else _read_ops(flat, 0, len(flat))

    def place(self, n: int) -> str:
        """The user's frames that asked for op n, innermost first, one a line; "" when the VM does not remember it."""
        found: bytes | None = self._vm._guard(self._vm._api[b"place"], self._handle, n)
        return (found or b"").decode("utf-8", "replace")

    def stacks(self) -> list[str]:
        """Where every task waits: the user's frames, innermost first, one text per task."""
        packed = self._vm._guard(self._vm._stacks, self._handle)
        return [str(text) for text in msgpack.unpackb(packed, raw=False, unicode_errors="replace")]

    def inspect(self, *, values: bool = True) -> dict[str, Any]:
        """Look at the unit; that changes nothing in it, and what comes back is bounded, whatever it holds.

        {tasks: [{id, main, runtimes, waits: {kind, op, cases: [{verb, name, op, held, size, closed, value}]}, frames}],
        tasks_total, coroutines: [{frames}], globals: [[name, text]]}, frames innermost first: {file, line, function,
        locals: [[name, text]], upvalues: [[name, text]]}. kind: op, child, cancel, receive, send, select, nothing.
        values: else without what variables hold. With `problem` when the VM has no memory left to look in.
        """
        try:
            found = self._vm._guard(self._vm._inspect, self._handle, values)
        except OutOfMemory as error:
            return _nothing_seen(str(error))
        if isinstance(found, tuple):
            return _nothing_seen(found[1].decode("utf-8", "replace"))
        seen: dict[str, Any] = msgpack.unpackb(found, raw=False, unicode_errors="replace")
        return seen

    def mailbox(self) -> dict[str, Any]:
        """What the unit listens to and has not read; a look like `inspect`.

        {listens: [topic], inbox: whether it takes what nobody listens to, unread: [{topic, messages, held}], cut:
        whether there is more}. held: by the `listener` of the topic, by the `inbox`, or by `nobody` so far. Empty when
        the VM has no memory left to look in.
        """
        try:
            found = self._vm._guard(self._vm._api[b"mailbox"], self._handle)
        except OutOfMemory:
            found = None
        if found is None:
            return {}
        seen: dict[str, Any] = msgpack.unpackb(found, raw=False, unicode_errors="replace")
        return seen

    def close(self) -> None:
        """Forget the unit; its memory is collected by and by."""
        self._vm.machines -= 1
        self._vm._close(self._handle)


class ProcessVM(LuaVM):
    """A VM whose units are processes. They take turns in it, and messages between them do not leave Lua.

    What is posted to a process is taken in order. A PID belongs to one process of one VM.
    """

    def __init__(
        self, *, memory_bytes_max: int = VM_MEMORY_BYTES_MAX, instructions_max: int = INSTRUCTIONS_PER_STEP_MAX
    ) -> None:
        super().__init__(memory_bytes_max=memory_bytes_max, instructions_max=instructions_max)
        api = self._api
        self._load: Callable[..., bytes | None] = api[b"load"]
        self._turn: Callable[..., Any] = api[b"turn"]
        self._upgrade: Callable[..., bytes | None] = api[b"upgrade"]
        self._name: Callable[..., None] = api[b"name"]
        self._heaviest: Callable[..., tuple[int, int]] = api[b"heaviest"]
        self._memory: Callable[..., float] = api[b"memory"]
        self._unread: Callable[..., int] = api[b"unread"]
        self._longest_mailboxes: Callable[..., Any] = api[b"longest_mailboxes"]
        self.memory_kb = 0

    def spawn(self, spec: UnitSpec, identity: UnitIdentity, request: bytes, now_ns: int) -> tuple[int, bytes | None]:
        """Make a process and run its chunks. Returns its handle, or 0 and the failure of a chunk as an outcome.

        request: a payload [arguments, context]. Its main function runs when "go" is posted.
        """
        number = self._defined.get(id(spec)) or self._define(spec)
        handle = self._next_handle
        self._next_handle += 1
        pid = identity.pid.encode("utf-8", "surrogateescape")
        self._guard(self._open, handle, number, pid, b"", None, None, None)
        failure = self._guard(self._load, handle, request, now_ns)
        if failure is not None:
            return 0, failure
        self.machines += 1
        return handle, None

    def upgrade(self, handle: int, spec: UnitSpec, request: bytes, now_ns: int) -> bytes | None:
        """Put new code under a process; None, or the failure of a chunk: then the process is no more."""
        number = self._defined.get(id(spec)) or self._define(spec)
        failure: bytes | None = self._guard(self._upgrade, handle, number, request, now_ns)
        return failure

    def turn(
        self, now_ns: int, slice_s: float, handle: int = 0, verb: str = "", a: Any = None, b: Any = None, c: Any = None
    ) -> tuple[bool, list[tuple[int, list[Op]]]]:
        """Post an event to a process (or to none) and let processes take turns for about slice_s.

        Returns whether some have still something to do, and the ops that came up, by process, in order.
        Raises OutOfMemory when the whole VM is lost.
        """
        self.make_room(_size(a) + _size(b) + _size(c))
        try:
            flat = self._turn(now_ns, slice_s, handle, _PROCESS_VERBS.get(verb), a, b, c)
        except lua54.LuaError as error:
            raise _classify(error) from error
        self.memory_kb = flat[1]
        found = []
        at, end = 2, len(flat)
        while at < end:
            last = at + 2 + flat[at + 1]
            found.append((flat[at], _read_ops(flat, at + 2, last)))
            at = last
        return flat[0], found

    def name(self, name: str, pid: str | None) -> None:
        """Say which PID a registered name stands for, so that messages to it need not leave Lua either."""
        text = pid.encode("utf-8", "surrogateescape") if pid is not None else None
        self._guard(self._name, name.encode("utf-8", "surrogateescape"), text)

    def heaviest(self, looks: int, seconds: float, kb_max: int, from_kb: int = 0) -> tuple[int, int]:
        """The process that holds the most memory: its handle (0: none) and about how many kilobytes; collects first.

        Looks at those that allocated the most, for about so many seconds at most, and no further than to one that holds
        kb_max or more; at none when less than from_kb is in use after collecting.
        """
        handle, kb = self._guard(self._heaviest, looks, seconds, kb_max, from_kb)
        self.memory_kb = int(self._guard(self._memory))
        return int(handle), int(kb)

    def unread(self, handle: int) -> int:
        """How many messages a process has that it has not read."""
        return int(self._guard(self._unread, handle))

    def longest_mailboxes(self, most: int) -> dict[int, int]:
        """The processes with most to read, at most so many: how many messages, by handle, the longest first."""
        flat = self._guard(self._longest_mailboxes, most)
        # lupa gives None for nothing at all.
        return dict(zip(flat[::2], flat[1::2], strict=True)) if flat else {}

    def close(self, handle: int) -> None:
        """Forget a process."""
        self.machines -= 1
        self._close(handle)


def _within_memory(vm: weakref.ref[LuaVM], function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, but what does not fit into this VM is not handed over to it.

    Lua keeps it, so it must not keep the VM in its turn: such a VM, with all that Lua has allocated in it, would go
    only when Python looks for cycles, which a node hardly ever does.
    """

    def call(*args: Any) -> Any:
        here = vm()
        if here is None or not here._has_room(0, here._return_room_bytes):
            return _NO_ROOM
        result = function(*args)
        size = sum(map(_size, result)) if type(result) is tuple else _size(result)
        return result if size == 0 or here._has_room(size, here._return_room_bytes) else _NO_ROOM

    return call


def _nothing_seen(problem: str) -> dict[str, Any]:
    return {"tasks": [], "tasks_total": 0, "coroutines": [], "globals": [], "problem": problem}


@lru_cache
def _kernel_code(files: tuple[str, ...]) -> tuple[bytes, ...]:
    """The kernel's files, compiled: parsing them is most of the making of a VM, so a process does it once.

    With their names and lines, as in the text. Raises MachineFailed.
    """
    dump = lua54.LuaRuntime(encoding=None).eval(b"function(t, name) return string.dump(assert(load(t, name, 't'))) end")
    compiled: list[bytes] = []
    for name in files:
        try:
            text = (resources.files("node") / "lua" / f"{name}.lua").read_bytes()
        except OSError as error:
            reason = f"node/lua/{name}.lua cannot be read ({error})"
            raise MachineFailed(f"{reason}: the installation is broken; reinstall moonmesh") from error
        try:
            compiled.append(dump(text, f"=[{name}]".encode()))
        except lua54.LuaError as error:
            raise MachineFailed(f"node/lua/{name}.lua does not compile: {error}") from error
    return tuple(compiled)


def _size(value: object) -> int:
    return len(value) if type(value) is bytes else 0


def _read_ops(flat: Sequence[Any], at: int, end: int) -> list[Op]:
    ops = []
    for i in range(at, end, 5):
        target = flat[i + 2]
        ops.append(
            Op(
                flat[i],
                _KINDS.get(flat[i + 1]) or flat[i + 1].decode(),
                target if type(target) is int else target.decode("utf-8", "surrogateescape"),
                flat[i + 3] or None,
                flat[i + 4] or None,
            )
        )
    return ops


def _packed(value: Any) -> bytes | None:
    return codec.pack(value) if value else None


def _classify(error: lua54.LuaError) -> MachineFailed:
    text = str(error)
    if isinstance(error, lua54.LuaMemoryError) or _OUT_OF_MEMORY in text:
        return OutOfMemory("a Lua VM has used up its memory")
    return MachineFailed(f"the Lua kernel failed: {text}")


def compile_error(source: str, name: str) -> str | None:
    """Whether a source compiles: None, or `name:line: reason`. For checks, in a throw-away state."""
    return LuaVM().compile(name, source, name)


def _no_attributes(_object: object, _name: object, _setting: bool) -> Any:
    raise AttributeError("Python objects have no attributes here")
