"""Units of Lua code and the modules of a node, without a node: what a unit asks for is answered by `Modules` at once.

    units = Units({"store": store_module})
    assert await units.run("return function(k) return store.get('app:s'):get(k) end", "key") == "value"

A unit that waits (for an event, say) is held: `unit = await units.start(source)`, then `await unit.settle()` whenever
something may have happened to it. Not here: calls, timers, spawning.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

from mesh import codec
from mesh.failure import Failure
from node.machine.vm import LuaMachine, LuaVM, Op, UnitSpec
from node.modules import Caller, LuaModule, Modules

MODULES: Final = ("events", "registry", "env", "store", "errors", "channel")


class Units:
    """A VM, the units in it, and the modules that answer them."""

    def __init__(self, modules: Mapping[str, LuaModule] | None = None, *, entry_id: str = "app:code") -> None:
        self.vm = LuaVM()
        self._modules = dict(modules or {})
        self.modules = Modules(self._modules)
        self.entry_id = entry_id
        self.by_pid: dict[str, Unit] = {}

    def use(self, name: str, module: LuaModule) -> None:
        """Add a module that needs these units itself."""
        self._modules[name] = module
        self.modules = Modules(self._modules)

    def deliver(self, pid: str, topic: str, value: Any) -> None:
        """The node's `Deliver`: what comes for a unit waits until that is looked after."""
        if pid in self.by_pid:
            self.by_pid[pid].arrived.append((topic, value))

    async def start(self, source: str, *args: Any) -> Unit:
        """Start a unit and go on until it waits for something from outside or has ended."""
        key = f"code {len(self.by_pid)}"
        problem = self.vm.compile(key, source, "code.lua")
        if problem is not None:
            raise SyntaxError(problem)
        spec = UnitSpec(kind="function", entry_id=self.entry_id, code=key, modules=MODULES)
        unit = Unit(self, f"{{test|{len(self.by_pid)}}}", self.vm.open(spec))
        self.by_pid[unit.pid] = unit
        unit.feed("request", codec.encode([list(args), None]), unit.pid.encode())
        await unit.settle()
        return unit

    async def run(self, source: str, *args: Any) -> Any:
        """Run a unit that ends by itself; its result, or the Failure it ended with."""
        return (await self.start(source, *args)).result


class Unit:
    """One unit. logs: what it wrote, as (level, text)."""

    def __init__(self, units: Units, pid: str, machine: LuaMachine) -> None:
        self.pid = pid
        self.arrived: deque[tuple[str, Any]] = deque()
        self.logs: list[tuple[str, str]] = []
        self.ended = False
        self._units = units
        self._machine = machine
        self._asks: deque[Op] = deque()
        self._outcome = b""

    @property
    def result(self) -> Any:
        """What the unit returned, or the Failure it ended with."""
        assert self.ended, self._machine.stacks()
        return codec.decode_outcome(self._outcome)[1]

    async def settle(self) -> None:
        """Answer what it asks and hand over what has arrived for it until nothing is left of both."""
        while not self.ended and (self._asks or self.arrived):
            if self._asks:
                op = self._asks.popleft()
                caller = Caller(self.pid, self._units.entry_id)
                answer = await self._units.modules.ask(str(op.target), op.payload or b"", caller)
                if not self.ended:
                    self.feed("resolve", op.n, answer)
            else:
                self.hand_over()

    def hand_over(self) -> None:
        """Hand over the oldest message that has arrived."""
        topic, value = self.arrived.popleft()
        self.feed("message", topic.encode(), codec.encode(value), b"")

    def feed(self, verb: str, a: Any = None, b: Any = None, c: Any = None) -> None:
        """Feed the machine and note what it asks for."""
        self._take(self._machine.feed(verb, time.time_ns(), a, b, c))

    def _take(self, ops: Sequence[Op]) -> None:
        for op in ops:
            match op.kind:
                case "ask":
                    self._asks.append(op)
                case "log":
                    self.logs.append((str(op.target), (op.payload or b"").decode()))
                case "end":
                    self.ended = True
                    self._outcome = op.payload or codec.NIL_OUTCOME
                    self._units.modules.unit_ended(self.pid)
                case _:
                    raise AssertionError(f"unexpected op {op}")


def failure_of(result: Any) -> tuple[str, str]:
    """Kind and message of the Failure that something ended with."""
    assert isinstance(result, Failure), result
    return result.kind, result.message
