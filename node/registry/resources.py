"""Decodes the entries of what functions use beside code: message queues with their consumers, and databases.

Pure, one function per kind. Reading fields is in `node.registry.fields`, what all kinds share in
`node.registry.decoding`, the views in `node.registry.kinds`.
"""

from __future__ import annotations

from node.registry import kinds
from node.registry.entries import EntryId
from node.registry.fields import Fields
from node.registry.kinds import (
    ConsumerEntry,
    LifecycleSpec,
    QueueCodec,
    QueueDriver,
    QueueDriverEntry,
    QueueEntry,
    RedeliverySpec,
    ResourceEntry,
    SqliteEntry,
)

MEMORY_LENGTH_MAX = 1000
PREFETCH = 10
# Each is a task or a message in memory; more is a slip of the pen.
CONCURRENCY_MAX = 1000
PREFETCH_MAX = 10_000
REPLICAS_MAX = 5  # the server takes no more

# Ten tries with doubled pauses take about six minutes: long enough for something that is being restarted, short enough
# that a message nobody can handle does not go round for days.
DELIVERIES_MAX = 10
REDELIVERY_DELAY_S = 1.0
REDELIVERY_DELAY_MAX_S = 60.0
ACK_WAIT_S = 30.0
ACK_WAIT_LEAST_S = 0.1

BUSY_TIMEOUT_S = 5.0


def decode_resource(entry_id: EntryId, kind: str, fields: Fields, lifecycle: LifecycleSpec) -> ResourceEntry:
    """Decode one entry of a kind in RESOURCE_KINDS; what is wrong with it is reported through `fields`."""
    match kind:
        case kinds.QUEUE:
            return _queue(entry_id, fields, lifecycle)
        case kinds.CONSUMER:
            return _consumer(entry_id, fields, lifecycle)
        case kinds.SQLITE:
            return SqliteEntry(
                id=entry_id,
                file=fields.required_text("file"),
                busy_timeout_s=fields.duration_s("busy_timeout", BUSY_TIMEOUT_S),
                lifecycle=lifecycle,
            )
        case kinds.QUEUE_DRIVER_JETSTREAM:
            replicas = fields.integer("replicas", 0)
            if replicas > REPLICAS_MAX:
                fields.fault("replicas", f"must be at most {REPLICAS_MAX}, not {replicas}")
            return QueueDriverEntry(entry_id, QueueDriver.JETSTREAM, replicas, lifecycle)
        case _:
            return QueueDriverEntry(entry_id, QueueDriver.MEMORY, 0, lifecycle)


def _queue(entry_id: EntryId, fields: Fields, lifecycle: LifecycleSpec) -> QueueEntry:
    driver = fields.reference("driver", (kinds.QUEUE_DRIVER_MEMORY, kinds.QUEUE_DRIVER_JETSTREAM), required=True)
    options = fields.section("driver_options")
    memory, jetstream = options.section("memory"), options.section("jetstream")
    ack_wait_s = jetstream.duration_s("ack_wait", ACK_WAIT_S)
    if ack_wait_s < ACK_WAIT_LEAST_S:
        jetstream.fault("ack_wait", f"must be at least {ACK_WAIT_LEAST_S:g}s, not {ack_wait_s:g}s")
    again = fields.section("redelivery")
    redelivery = RedeliverySpec(
        deliveries_max=again.integer("max_deliveries", DELIVERIES_MAX),
        delay_s=again.duration_s("initial_delay", REDELIVERY_DELAY_S),
        delay_max_s=again.duration_s("max_delay", REDELIVERY_DELAY_MAX_S),
        dead_letter=again.reference("dead_letter", (kinds.QUEUE,)),
    )
    if redelivery.dead_letter == entry_id:
        again.fault("dead_letter", "is this queue itself; a message that fails would go round for ever")
    view = QueueEntry(
        id=entry_id,
        driver=driver or EntryId(""),
        codec=fields.choice("codec", QueueCodec, QueueCodec.JSON),
        name=fields.text("queue_name") or entry_id,
        memory_length_max=memory.count("max_length", MEMORY_LENGTH_MAX),
        jetstream_length_max=jetstream.integer("max_length", 0),
        ack_wait_s=ack_wait_s,
        redelivery=redelivery,
        lifecycle=lifecycle,
    )
    for section in (memory, jetstream, options, again):
        section.close()
    return view


def _consumer(entry_id: EntryId, fields: Fields, lifecycle: LifecycleSpec) -> ConsumerEntry:
    queue = fields.reference("queue", (kinds.QUEUE,), required=True)
    func = fields.reference("func", (*sorted(kinds.FUNCTION_KINDS), kinds.PROCESS), required=True)
    return ConsumerEntry(
        id=entry_id,
        queue=queue or EntryId(""),
        func=func or EntryId(""),
        concurrency=_at_most(fields, "concurrency", 1, CONCURRENCY_MAX),
        prefetch=_at_most(fields, "prefetch", PREFETCH, PREFETCH_MAX),
        auto_ack=fields.flag("auto_ack"),
        lifecycle=lifecycle,
    )


def _at_most(fields: Fields, name: str, default: int, most: int) -> int:
    number = fields.count(name, default)
    if number > most:
        fields.fault(name, f"must be at most {most}, not {number}")
    return number
