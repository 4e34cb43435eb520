"""Units of Lua code without a node: driven by hand, or answered by the node's real modules.

By hand: Lua source in, ops out. No driver, no server.

    unit = Unit("return function(x) return crypto.pbkdf2(x, 'salt', 1, 8) end", kind="function", args=["pw"])
    unit.ops[0].target        # "crypto.pbkdf2"
    unit.resolve(1, b"...")
    unit.result

With modules: functions whose ops are carried out at once and side by side, as the live driver does.

    units = Units({"store": store_module})
    assert await units.run("return function(k) return store.get('app:s'):get(k) end", "key") == "value"

One that waits for something from outside (an event, say) is held: `unit = await units.start(source)`, then
`await unit.settle()` whenever something may have happened to it. Not here: workflows with a history (tests.flows),
retries, hosts, spawning.
"""

from __future__ import annotations

import itertools
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import anyio

from mesh import codec
from mesh.failure import Failure, Kind
from node.machine.vm import LuaMachine, LuaVM, Op, UnitIdentity, UnitSpec
from node.modules import Caller, LuaModule, Modules

T0_NS: Final = 1_700_000_000_000_000_000
KINDS: Final = ("workflow", "function", "process")
PURE: Final = (
    "base64", "crypto", "ctx", "errors", "funcs", "hash", "json", "logger", "payload", "time", "uuid", "workflow",
)  # fmt: skip
LISTED: Final = (
    "ctx", "env", "events", "funcs", "http_client", "json", "logger", "queue", "registry", "sql", "store", "time",
)  # fmt: skip

Call = Callable[[str, list[Any], Mapping[str, Any]], Awaitable[bytes]]


def machine_of(
    source: str, vm: LuaVM, name: str = "unit.lua", *, kind: str = "function", entry_id: str = "app:unit",
    modules: Sequence[str] = LISTED, identity: UnitIdentity | None = None,
) -> LuaMachine:  # fmt: skip
    """A machine for a source. Raises SyntaxError."""
    key = f"{name} {hash(source)}"
    problem = vm.compile(key, source, name)
    if problem is not None:
        raise SyntaxError(problem)
    return vm.open(UnitSpec(kind=kind, entry_id=entry_id, code=key, modules=tuple(modules)), identity)


# -- by hand ---------------------------------------------------------------------------------------------------------


class Unit:
    """One started unit in a VM of its own (or the given one)."""

    def __init__(
        self, source: str, *, kind: str = "workflow", args: Sequence[Any] = (), seed: bytes = b"seed",
        vm: LuaVM | None = None, replaying: bool = False, now_ns: int = T0_NS, name: str = "unit.lua",
    ) -> None:  # fmt: skip
        # As the hosts do it: only a workflow has a recorded seed.
        identity = UnitIdentity(pid="{a:host|0x00001}", seed=seed if kind == "workflow" else b"")
        self.machine = machine_of(
            source, vm or LuaVM(), name, kind=kind, entry_id="a:unit", modules=PURE, identity=identity
        )
        self.now_ns = now_ns
        self.ops: list[Op] = list(self.machine.feed("start", now_ns, codec.pack(list(args)), replaying=replaying))

    def resolve(self, n: int, value: Any = None, *, outcome: bytes | None = None) -> list[Op]:
        """Give op n its outcome: a value, or the bytes of one."""
        data = codec.encode_success(value) if outcome is None else outcome
        ops = list(self.machine.feed("resolve", self.now_ns, n, data))
        self.ops += ops
        return ops

    @property
    def result(self) -> Any:
        """What the unit ended with: a value or a Failure."""
        end = self.ops[-1]
        assert end.kind == "end", f"the unit waits: {self.ops}"
        return codec.decode_outcome(end.payload or codec.NIL_OUTCOME)[1]


def run_unit(body: str, *args: Any, kind: str = "workflow", **options: Any) -> Any:
    """The result of a unit whose main function has this body (its arguments are `...`) and does not wait."""
    return Unit(f"return function(...) {body} end", kind=kind, args=args, **options).result


# -- answered by modules ---------------------------------------------------------------------------------------------


class Units:
    """Functions in one VM, and the given modules that answer them. call: answers `funcs.call`."""

    def __init__(
        self,
        modules: Mapping[str, LuaModule] | None = None,
        *,
        entry_id: str = "app:unit",
        call: Call | None = None,
        vm: LuaVM | None = None,
    ) -> None:
        self.entry_id = entry_id
        self.vm = vm or LuaVM()
        self.given = dict(modules or {})
        self.modules = Modules(self.given)
        self.call = call
        self._numbers = itertools.count(1)
        self._units: dict[str, AnsweredUnit] = {}

    def use(self, name: str, module: LuaModule) -> None:
        """Add a module that needs these units itself."""
        self.given[name] = module
        self.modules = Modules(self.given)

    def deliver(self, pid: str, topic: str, value: Any) -> None:
        """The node's `Deliver`: what comes for a unit waits until that is looked after."""
        if pid in self._units:
            self._units[pid].arrived.append((topic, value))

    async def run(self, source: str, *args: Any, **options: Any) -> Any:
        """Run a function to its end: its value, or the Failure it ended with. Options as `outcome`."""
        return codec.decode_outcome(await self.outcome(source, *args, **options))[1]

    async def outcome(
        self, source: str, *args: Any, entry_id: str = "", context: Mapping[str, Any] | None = None
    ) -> bytes:
        """Run a function to its end; its outcome as bytes. Cancelling ends the unit, as a host that stops it does."""
        unit = self._open(source, entry_id or self.entry_id)
        try:
            unit.feed("request", codec.encode([list(args), dict(context) if context else None]), unit.pid.encode())
            await unit.settle()
            return unit.outcome
        finally:
            unit.close()

    async def start(self, source: str, *args: Any) -> AnsweredUnit:
        """Start a function and go on until it waits for something from outside or has ended."""
        unit = self._open(source, self.entry_id)
        unit.feed("request", codec.encode([list(args), None]), unit.pid.encode())
        await unit.settle()
        return unit

    def _open(self, source: str, entry_id: str) -> AnsweredUnit:
        pid = f"{{node@{entry_id}|0x{next(self._numbers):05x}}}"
        unit = AnsweredUnit(self, Caller(pid, entry_id), machine_of(source, self.vm, entry_id=entry_id))
        self._units[pid] = unit
        return unit


class AnsweredUnit:
    """One function. arrived: what was delivered and not yet handed over; logs: what it wrote, as (level, text)."""

    def __init__(self, units: Units, caller: Caller, machine: LuaMachine) -> None:
        self.pid = caller.pid
        self.arrived: deque[tuple[str, Any]] = deque()
        self.logs: list[tuple[str, str]] = []
        self.closed = False
        self._units = units
        self._caller = caller
        self._machine = machine
        self._due: deque[Op] = deque()
        self._under_way: dict[int, anyio.CancelScope] = {}
        self._end: Op | None = None

    @property
    def outcome(self) -> bytes:
        """What the unit ended with, as bytes."""
        assert self._end is not None, self._machine.stacks()
        return self._end.payload or codec.NIL_OUTCOME

    @property
    def result(self) -> Any:
        """What the unit returned, or the Failure it ended with."""
        return codec.decode_outcome(self.outcome)[1]

    async def settle(self) -> None:
        """Carry out what it asks for, then hand over what has arrived for it, until nothing is left of both."""
        send, receive = anyio.create_memory_object_stream[tuple[int, bytes]](math.inf)

        async def perform(op: Op, scope: anyio.CancelScope) -> None:
            with scope:
                send.send_nowait((op.n, await self._perform(op)))

        with send, receive:
            async with anyio.create_task_group() as tasks:
                while self._end is None and (self._due or self._under_way or self.arrived):
                    while self._due:
                        op = self._due.popleft()
                        scope = self._under_way[op.n] = anyio.CancelScope()
                        tasks.start_soon(perform, op, scope)
                    if self._under_way:
                        n, outcome = await receive.receive()
                        if self._under_way.pop(n, None) is not None:
                            self.feed("resolve", n, outcome)
                    elif self.arrived:
                        topic, value = self.arrived.popleft()
                        self.feed("message", topic.encode(), codec.encode(value), b"")
                tasks.cancel_scope.cancel()
        if self._end is not None:
            self.close()

    def feed(self, verb: str, a: Any = None, b: Any = None, c: Any = None) -> None:
        """Feed the machine and note what it asks for."""
        for op in self._machine.feed(verb, time.time_ns(), a, b, c):
            match op.kind:
                case "log":
                    self.logs.append((str(op.target), (op.payload or b"").decode()))
                case "end":
                    self._end = op
                case "cancel_op":
                    scope = self._under_way.pop(int(op.target), None)
                    if scope is not None:
                        scope.cancel()
                case _ if op.n:
                    self._due.append(op)
                case _:
                    raise AssertionError(f"unexpected op {op}")

    def close(self) -> None:
        """End it, and tell the modules; twice is fine."""
        if not self.closed:
            self.closed = True
            self._machine.close()
            self._units.modules.unit_ended(self.pid)

    async def _perform(self, op: Op) -> bytes:
        if op.kind == "ask":
            return await self._units.modules.ask(str(op.target), op.payload or b"", self._caller)
        if op.kind == "timer":
            await anyio.sleep(int(op.target) / 1e9)
            return codec.NIL_OUTCOME
        if op.kind == "call" and self._units.call is not None:
            args, context = codec.decode(op.payload or b"")
            return await self._units.call(str(op.target), args, context or {})
        return codec.encode_failure(Failure(f"{op.kind} is not answered in this test", Kind.INTERNAL, False))


def failure_of(result: Any) -> tuple[str, str]:
    """Kind and message of the Failure that something ended with."""
    assert isinstance(result, Failure), result
    return result.kind, result.message
