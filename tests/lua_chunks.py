"""A bare Lua VM with chosen kernel chunks, for tests of one chunk at a time.

Not here: units, drivers, the standard library of units.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final  # what lupa hands out is untyped

from lupa.lua54 import LuaRuntime

import node
from node.machine.vm import KERNEL_FILES

_CHUNKS = Path(node.__file__).parent / "lua"

# What the standard library of a unit is made of, up to its environment; objects and errors are always loaded.
STDLIB: Final = KERNEL_FILES[KERNEL_FILES.index("patterns") : KERNEL_FILES.index("environment") + 1]
TIME: Final = ("arguments", "calendar", "duration", "zones", "layout", "time")


class Chunks:
    """The kernel table `K` of a VM in which objects, errors and the named chunks are loaded, in that order."""

    def __init__(self, *names: str, now_ns: int = 0) -> None:
        self.lua = LuaRuntime(encoding=None, unpack_returned_tuples=True)
        self.kernel: Any = self.lua.table()
        self.unit: Any = self.lua.table_from({b"now": now_ns, b"next_seq": 1, b"deterministic": True})
        self.host: Any = self.lua.table()
        self.kernel[b"host"] = self.host
        for name in ("objects", "errors", *names):
            self._compiled((_CHUNKS / f"{name}.lua").read_bytes(), f"=[{name}]")(self.kernel)
        self.kernel[b"current"] = self.unit
        self.lua.globals()[b"K"] = self.kernel
        for name, module in self.kernel[b"modules"].items():
            self.lua.globals()[name] = module

    def run(self, source: str, *args: object) -> Any:
        """Run user code with the modules as globals; several results come as a tuple. `...` are the arguments."""
        return self._compiled(source.encode(), "@test.lua")(*args)

    def _compiled(self, source: bytes, name: str) -> Any:
        loaded = self.lua.globals()[b"load"](source, name.encode())
        if isinstance(loaded, tuple):  # nil and what is wrong
            raise SyntaxError(loaded[1].decode())
        return loaded
