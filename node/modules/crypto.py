"""The Python half of `crypto` in live units: what takes so long that it gets a thread."""

from __future__ import annotations

from typing import Any, Final

import anyio

from mesh.failure import Kind
from node.modules import Caller, Refused

# Deriving a key keeps one core busy; more at once would only make each slower, and leave none for the node.
THREADS_MAX: Final = 2


class CryptoModule:
    """Derives keys in threads of its own. Calls beyond THREADS_MAX wait in line; a caller that goes away is let go."""

    def __init__(self) -> None:
        self._threads = anyio.CapacityLimiter(THREADS_MAX)

    async def ask(self, verb: str, args: list[Any], caller: Caller) -> bytes:
        """Answer `crypto.pbkdf2`, whose arguments node/lua/crypto.lua has checked."""
        if verb != "pbkdf2":
            raise Refused(f"crypto.{verb}: there is no such call", Kind.INTERNAL)
        password, salt, iterations, length, digest = args
        from node.machine.crypto import pbkdf2  # slow to import, and few nodes need it

        return await anyio.to_thread.run_sync(
            pbkdf2, _bytes(digest), _bytes(password), _bytes(salt), iterations, length,
            limiter=self._threads, abandon_on_cancel=True,
        )  # fmt: skip

    def unit_ended(self, pid: str) -> None:
        """Nothing is held for units."""


def _bytes(value: str | bytes) -> bytes:
    """A Lua string that arrived as text because it happens to be UTF-8."""
    return value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")
