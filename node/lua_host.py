"""What the Lua kernel calls in Python while it runs: pure functions over bytes and numbers, `K.host.<name>` in Lua.

Only what gives the same answer for the same arguments on every node may stand here, as workflows use it too. What
reaches outside is an op (`K.ask`), carried out by `node.modules`. A call holds Python's lock: keep it short.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from node.zones import zone_at


def host_functions() -> dict[str, Callable[..., Any]]:
    """The functions by name. Texts come and go as bytes; an exception becomes a Lua error."""
    return {"zone": zone_at, "md5": _md5, "sha1": _sha1}


def _md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()


def _sha1(data: bytes) -> bytes:
    return hashlib.sha1(data, usedforsecurity=False).digest()
