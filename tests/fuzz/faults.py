"""Faults that are planted into the kernel, to see that the fuzz finds them: what makes two processes differ.

Each is Lua that is run as the last but one of the kernel's files, with the kernel's table `K` as its argument.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from lupa import lua54

from node.machine import vm

FAULTS: Final = {
    "pairs in the order of the table": "local K = ... K.globals.pairs = K.raw.pairs",
    "next in the order of the table": "local K = ... K.globals.next = K.raw.next",
    "addresses in texts": "local K = ... K.globals.tostring = K.raw.tostring",
    "time from the clock": "local K = ... local old = K.libs.os.time K.libs.os.time = function(...) if ... then return old(...) end return K.host.now_ns() // 1000 end",
    "a random number that is not recorded": "local K = ... K.libs.math.random = K.raw.math.random",
    "ids that are not recorded": "local K = ... K.random_u64 = function() return (K.raw.string.unpack('<i8', K.host.entropy(8))) end",
    "an op too much, now and then": """
        local K = ... local wrapped = K.globals.print local address = K.raw.tostring({})
        K.globals.print = function(...) if K.raw.string.byte(address, -2) % 2 == 0 then K.globals.error('now and then') end return wrapped(...) end""",
}


@contextmanager
def planted(fault: str) -> Iterator[None]:
    """Plant a fault into every VM that this process makes; none for an empty text."""
    if not fault:
        yield
        return
    whole = vm._kernel_code
    text = FAULTS[fault].encode()
    code: bytes = lua54.LuaRuntime(encoding=None).eval(
        b"function(t) return string.dump(assert(load(t, '=[fault]', 't'))) end"
    )(text)

    def with_fault(files: tuple[str, ...]) -> tuple[bytes, ...]:
        at = files.index("environment")  # what is in the libraries and globals then is what units get
        plain = whole(files)
        return (*plain[:at], code, *plain[at:])

    vm._kernel_code = with_fault  # type: ignore[assignment]
    try:
        yield
    finally:
        vm._kernel_code = whole
