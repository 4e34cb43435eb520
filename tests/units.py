"""Units of any kind driven by hand: Lua source in, ops out. No driver, no server.

unit = Unit("return function(x) return crypto.pbkdf2(x, 'salt', 1, 8) end", kind="function", args=["pw"])
unit.ops[0].target        # "crypto.pbkdf2"
unit.resolve(1, b"...")
unit.result
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from mesh import codec
from node.machine.vm import LuaVM, Op, UnitIdentity, UnitSpec

T0_NS: Final = 1_700_000_000_000_000_000
MODULES: Final = (
    "base64", "crypto", "ctx", "errors", "funcs", "hash", "json", "logger", "payload", "time", "uuid", "workflow",
)  # fmt: skip
KINDS: Final = ("workflow", "function", "process")


class Unit:
    """One started unit in a VM of its own (or the given one)."""

    def __init__(
        self, source: str, *, kind: str = "workflow", args: Sequence[Any] = (), seed: bytes = b"seed",
        vm: LuaVM | None = None, replaying: bool = False, now_ns: int = T0_NS, name: str = "unit.lua",
    ) -> None:  # fmt: skip
        vm = vm or LuaVM()
        key = f"{name} {hash(source)}"
        problem = vm.compile(key, source, name)
        if problem is not None:
            raise SyntaxError(problem)
        # As the hosts do it: only a workflow has a recorded seed.
        identity = UnitIdentity(pid="{a:host|0x00001}", seed=seed if kind == "workflow" else b"")
        self.machine = vm.open(UnitSpec(kind=kind, entry_id="a:unit", code=key, modules=MODULES), identity)
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
