"""What the stream of a queue looks like. Nothing outside `store` knows a stream's configuration.

One stream holds everything of a queue: the events of its workflows (stored under `mesh.log`, mapped there by a subject
transform so that no client has to know partitions) and its scheduled messages (`mesh.at`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from mesh.errors import NotFound
from mesh.jetstream import JetStream
from mesh.stream_reads import StreamInfo
from mesh.subjects import EVERY_QUEUE, queue_of_stream, republished_ends, stream_name, token

# Enough for eight nodes to share a queue evenly, few enough that every partition may have a consumer of its own.
PARTITIONS_DEFAULT: Final = 32
DUPLICATE_WINDOW_S: Final = 120
METADATA_PARTITIONS: Final = "moonmesh.partitions"
METADATA_QUEUE: Final = "moonmesh.queue"


@dataclass(frozen=True, slots=True)
class QueueStream:
    """The stream of a queue as it is on the server. The number of partitions is fixed when it is made."""

    queue: str
    name: str
    partitions: int


def stream_config(queue: str, partitions: int, replicas: int) -> dict[str, Any]:
    """The configuration of a queue's stream; every setting that we rely on is said (ADR-31, 43, 50, 51)."""
    q = token(queue)
    return {
        "name": stream_name(queue),
        "description": f"Histories and timers of the workflows of queue {queue}",
        "subjects": [f"mesh.wf.{q}.>", f"mesh.at.{q}.>"],
        "subject_transform": {
            "src": f"mesh.wf.{q}.*.>",
            "dest": f"mesh.log.{q}.{{{{partition({partitions},1)}}}}.{{{{wildcard(1)}}}}.>",
        },
        # Whoever waits for a result hears of its end from the server itself, and need not read it back.
        "republish": republished_ends(queue),
        "storage": "file",
        "retention": "limits",
        "discard": "old",
        "max_msgs": -1,
        "max_bytes": -1,
        "max_age": 0,
        "max_msgs_per_subject": -1,
        "num_replicas": replicas,
        "duplicate_window": DUPLICATE_WINDOW_S * 1_000_000_000,
        "allow_direct": True,
        "allow_rollup_hdrs": True,
        "allow_msg_ttl": True,
        "allow_atomic": True,
        "allow_msg_schedules": True,
        "deny_delete": False,
        "deny_purge": False,
        "metadata": {METADATA_PARTITIONS: str(partitions), METADATA_QUEUE: queue},
    }


async def ensure_queue(
    js: JetStream, queue: str, *, partitions: int = PARTITIONS_DEFAULT, replicas: int = 1
) -> QueueStream:
    """Make the stream of a queue, or take the one that is there with the number of partitions it was made with."""
    existing = await queue_stream(js, queue)
    if existing is not None:
        return existing
    return _read(queue, await js.ensure_stream(stream_config(queue, partitions, replicas)))


async def queue_stream(js: JetStream, queue: str) -> QueueStream | None:
    """Look a queue's stream up; None when there is none."""
    try:
        return _read(queue, await js.stream_info(stream_name(queue)))
    except NotFound:
        return None


async def queue_names(js: JetStream) -> list[str]:
    """All queues that have a stream."""
    names: list[str] = []
    while True:
        answer = await js.api("STREAM.NAMES", {"subject": EVERY_QUEUE, "offset": len(names)})
        page = answer.get("streams") or []
        names += page
        if not page or len(names) >= int(answer.get("total", 0)):
            return sorted(queue_of_stream(name) for name in names if name.startswith("WF_"))


def _read(queue: str, info: StreamInfo) -> QueueStream:
    metadata = info.config.get("metadata") or {}
    return QueueStream(queue, info.name, int(metadata.get(METADATA_PARTITIONS, PARTITIONS_DEFAULT)))
