"""How often the server flushes its files: asked of it where it tells.

JetStream does not say it to those who use it. Two ways to know: the store of an embedded server of ours lies on this
machine; or the account of the mesh imports the question from the system account as `mesh.server.jetstream`
(deploy/nats).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from mesh.connection import Connection
from mesh.errors import MeshError
from mesh.server_store import sync_of
from mesh.sync import ALWAYS

ASKED: Final = "mesh.server.jetstream"
# Each server of a cluster answers for itself, and nobody says how many there are.
ANSWERS_S: Final = 0.5


async def sync_interval(conn: Connection, stores: Sequence[Path] = ()) -> str | None:
    """How often the servers flush: "always", the longest of their intervals such as "120s", None when unknown.

    stores: where embedded servers of ours may keep their data on this machine.
    """
    ours = await sync_of(str(conn.server_info.get("server_id")), stores)
    if ours is not None:
        return ours
    try:
        replies = await conn.request_many(ASKED, b"", timeout_s=ANSWERS_S, no_responders_ok=False)
    except MeshError:
        return None
    found = [interval for reply in replies if (interval := _interval_s(reply.data)) is not None]
    if not found:
        return None
    return ALWAYS if max(found) == 0 else f"{max(found):g}s"


def _interval_s(data: bytes) -> float | None:
    """The interval in the answer of one server, 0 = always; None when it has no JetStream or says nothing."""
    try:
        config = json.loads(data)["data"]["config"]
        return 0.0 if config.get("sync_always") else float(config["sync_interval"]) / 1e9
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
