"""What the Lua kernel calls in Python while it runs: functions over bytes and numbers, `K.host.<name>` in Lua.

Only what gives the same answer for the same arguments on every node may stand here, as workflows use it too. What
reaches outside is an op (`K.ask`), carried out by `node.modules`. A call holds Python's lock: keep it short.

Three functions are not pure. `thread_ns`, the processor's time of the thread, is for the limit of a step alone.
`now_ns` and `entropy` serve live units; the kernel reaches them through `K.now` and `K.entropy` alone
(node/lua/objects.lua), which never do so for a workflow.

Libraries that are slow to import are imported by the first call.
"""

from __future__ import annotations

import hashlib
import hmac
import importlib
import os
import time
from collections.abc import Callable
from functools import cache
from typing import Any

from node.machine.zones import zone_at


def host_functions(
    now_ns: Callable[[], int] = time.time_ns, entropy: Callable[[int], bytes] = os.urandom
) -> dict[str, Callable[..., Any]]:
    """The functions by name. Texts come and go as bytes; an exception becomes a Lua error.

    now_ns, entropy: the clock and the randomness of live units.
    """
    return {
        "zone": zone_at,
        "md5": _md5,
        "sha1": _sha1,
        "digest": _digest,
        "hmac": _hmac,
        "same": hmac.compare_digest,
        "now_ns": now_ns,
        "entropy": entropy,
        "thread_ns": time.thread_time_ns,
        "json_validate": _later("node.machine.json_schema", "fault"),
        "yaml_of_json": _later("node.machine.yaml_text", "yaml_of_json"),
        "json_of_yaml": _later("node.machine.yaml_text", "json_of_yaml"),
        **{
            name: _later("node.machine.crypto", name)
            for name in (
                "random_bytes", "random_text", "encrypt", "decrypt", "pbkdf2", "jwt_encode", "jwt_verify",
            )
        },
    }  # fmt: skip


def _later(module: str, name: str) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        return _imported(module, name)(*args)

    return call


@cache
def _imported(module: str, name: str) -> Callable[..., Any]:
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function


def _md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()


def _sha1(data: bytes) -> bytes:
    return hashlib.sha1(data, usedforsecurity=False).digest()


def _digest(name: bytes, data: bytes) -> bytes:
    return hashlib.new(name.decode(), data, usedforsecurity=False).digest()


def _hmac(name: bytes, key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, name.decode())
