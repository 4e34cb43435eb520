"""Functions of Lua whose `ask` ops are answered by the node's real modules: no function host, no mesh.

    units = Units(Modules({"sql": sql}))
    value = await units.run("return function(x) return sql.get(x) end", "app:db", listed=("sql",))

A unit's ops are carried out at once and side by side, as the live driver does: `ask` by the modules, `timer` by sleeping,
`call` by whatever the test gives. A unit that has ended is told to the modules. Not here: workflows, retries, hosts.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import anyio

from mesh import codec
from mesh.failure import Failure, Kind
from node.machine.vm import LuaMachine, LuaVM, Op, UnitSpec
from node.modules import Caller, Modules

Call = Callable[[str, list[Any], Mapping[str, Any]], Awaitable[bytes]]
LISTED = ("time", "json", "ctx", "funcs", "queue", "sql", "http_client", "store", "env", "events", "registry", "logger")


class Units:
    """Runs units in one VM. call: answers `funcs.call`. ended: the pids of units that have ended, in order."""

    def __init__(self, modules: Modules, *, call: Call | None = None, vm: LuaVM | None = None) -> None:
        self._modules = modules
        self._call = call
        self._vm = vm or LuaVM()
        self._numbers = itertools.count(1)
        self.ended: list[str] = []

    async def run(
        self,
        source: str,
        *args: Any,
        entry_id: str = "app:unit",
        listed: Sequence[str] = LISTED,
        context: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run a function to its end: its value, or the Failure it ended with."""
        ok, value = codec.decode_outcome(
            await self.outcome(source, *args, entry_id=entry_id, listed=listed, context=context)
        )
        assert ok or isinstance(value, Failure)
        return value

    async def outcome(
        self,
        source: str,
        *args: Any,
        entry_id: str = "app:unit",
        listed: Sequence[str] = LISTED,
        context: Mapping[str, Any] | None = None,
    ) -> bytes:
        """Run a function to its end; its outcome as bytes. Cancelling ends the unit, as a host that stops it does."""
        problem = self._vm.compile(source, source, "unit.lua")
        assert problem is None, problem
        machine = self._vm.open(UnitSpec(kind="function", entry_id=entry_id, code=source, modules=tuple(listed)))
        pid = f"{{node@{entry_id}|0x{next(self._numbers):05x}}}"
        request = codec.encode([list(args), dict(context) if context else None])
        try:
            return await self._drive(machine, Caller(pid, entry_id), request)
        finally:
            machine.close()
            self.ended.append(pid)
            self._modules.unit_ended(pid)

    async def _drive(self, machine: LuaMachine, caller: Caller, request: bytes) -> bytes:
        send, receive = anyio.create_memory_object_stream[tuple[int, bytes]](math.inf)
        scopes: dict[int, anyio.CancelScope] = {}

        async def perform(op: Op) -> None:
            with anyio.CancelScope() as scope:
                scopes[op.n] = scope
                outcome = await self._perform(op, caller)
                send.send_nowait((op.n, outcome))

        result: bytes | None = None
        with send, receive:
            async with anyio.create_task_group() as tasks:
                ops = machine.feed("request", time.time_ns(), request, caller.pid.encode())
                while True:
                    for op in ops:
                        if op.kind == "end":
                            result = op.payload or codec.NIL_OUTCOME
                            tasks.cancel_scope.cancel()
                        elif op.kind == "cancel_op" and int(op.target) in scopes:
                            scopes[int(op.target)].cancel()
                        elif op.n:
                            tasks.start_soon(perform, op)
                    if result is not None:
                        break
                    n, outcome = await receive.receive()
                    ops = machine.feed("resolve", time.time_ns(), n, outcome)
        assert result is not None
        return result

    async def _perform(self, op: Op, caller: Caller) -> bytes:
        if op.kind == "ask":
            return await self._modules.ask(str(op.target), op.payload or b"", caller)
        if op.kind == "timer":
            await anyio.sleep(int(op.target) / 1e9)
            return codec.NIL_OUTCOME
        if op.kind == "call" and self._call is not None:
            args, context = codec.decode(op.payload or b"")
            return await self._call(str(op.target), args, context or {})
        return codec.encode_failure(Failure(f"{op.kind} is not answered in this test", Kind.INTERNAL, False))
