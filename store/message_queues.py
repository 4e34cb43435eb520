"""What the stream of a message queue and its consumer look like. Nothing outside `store` knows their configuration.

One work-queue stream per message queue: a message is stored until it is acknowledged. One durable consumer that all
nodes pull from, so each message goes to one of them, and to another one when that one is gone.
"""

from __future__ import annotations

from typing import Any, Final

from mesh.errors import NotFound
from mesh.jetstream import JetStream
from mesh.subjects import message_queue, message_queue_stream

CONSUMER: Final = "work"
# A publisher that got no answer sends again under the same id; within this time the second copy is dropped.
DUPLICATE_WINDOW_S: Final = 120


def message_stream_config(name: str, *, length_max: int, replicas: int) -> dict[str, Any]:
    """The configuration of the stream; length_max 0 = no limit. A stream that is full refuses what is new."""
    return {
        "name": message_queue_stream(name),
        "description": f"Messages of queue {name}",
        "subjects": [message_queue(name)],
        "storage": "file",
        "retention": "workqueue",
        "discard": "new",
        "max_msgs": length_max or -1,
        "max_bytes": -1,
        "max_age": 0,
        "max_consumers": -1,
        "num_replicas": replicas,
        "duplicate_window": DUPLICATE_WINDOW_S * 1_000_000_000,
        "allow_direct": True,
    }


def message_consumer_config(ack_wait_s: float) -> dict[str, Any]:
    """The configuration of the consumer.

    max_deliver is without limit: who consumes decides when to give up, as it may have somewhere else to put a message.
    """
    return {
        "durable_name": CONSUMER,
        "deliver_policy": "all",
        "ack_policy": "explicit",
        "ack_wait": round(ack_wait_s * 1e9),
        "max_deliver": -1,
        "max_ack_pending": -1,  # each node holds no more than it asked for
        "replay_policy": "instant",
    }


async def ensure_message_queue(js: JetStream, name: str, *, length_max: int, replicas: int, ack_wait_s: float) -> str:
    """Make or update the stream and the consumer of a message queue; return the stream's name."""
    info = await js.ensure_stream(message_stream_config(name, length_max=length_max, replicas=replicas))
    request = {"stream_name": info.name, "config": message_consumer_config(ack_wait_s), "action": ""}
    await js.api(f"CONSUMER.CREATE.{info.name}.{CONSUMER}", request)
    return info.name


async def message_counts(js: JetStream, name: str) -> tuple[int, int]:
    """How many messages are stored, and how many of those are with a handler or wait to be delivered again."""
    stream = message_queue_stream(name)
    try:
        stored = (await js.stream_info(stream)).messages
        consumer = await js.api(f"CONSUMER.INFO.{stream}.{CONSUMER}")
    except NotFound:  # nobody has published or consumed yet
        return 0, 0
    return stored, int(consumer.get("num_ack_pending", 0))
