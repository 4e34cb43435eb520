"""Entries of message queues, consumers and databases: defaults, limits, references, and what workflows may not use."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.registry import (
    ConsumerEntry,
    EntryId,
    LifecycleSpec,
    QueueCodec,
    QueueDriver,
    QueueDriverEntry,
    QueueEntry,
    RedeliverySpec,
    RestartSpec,
    SqliteEntry,
    Startup,
)
from tests.test_registry_kinds import load, told

LIFECYCLE = LifecycleSpec(
    auto_start=False, start_timeout_s=10.0, stop_timeout_s=10.0, stable_threshold_s=5.0, requires=(),
    startup=Startup.REQUIRED, restart=RestartSpec(1.0, 90.0, 2.0, 0.1, 0),
)  # fmt: skip
SOUND = """
  - {name: d, kind: queue.driver.memory}
  - {name: q, kind: queue.queue, driver: d}
  - {name: f, kind: function.lua, source: "return 1", method: main}
"""


def test_the_resources_have_their_defaults(tmp_path: Path) -> None:
    registry = load(
        tmp_path,
        SOUND
        + """
  - {name: js, kind: queue.driver.jetstream, replicas: 3}
  - {name: c, kind: queue.consumer, queue: q, func: f}
  - {name: db, kind: db.sql.sqlite, file: data/app.db}
""",
    )
    assert registry.problems == ()
    assert registry.notes == ()
    assert registry.queue_drivers() == {
        "a:d": QueueDriverEntry(EntryId("a:d"), QueueDriver.MEMORY, 0, LIFECYCLE),
        "a:js": QueueDriverEntry(EntryId("a:js"), QueueDriver.JETSTREAM, 3, LIFECYCLE),
    }
    assert registry.queues() == {
        "a:q": QueueEntry(
            id=EntryId("a:q"), driver=EntryId("a:d"), codec=QueueCodec.JSON, name="a:q", memory_length_max=1000,
            jetstream_length_max=0, ack_wait_s=30.0, redelivery=RedeliverySpec(10, 1.0, 60.0, None), lifecycle=LIFECYCLE,
        )
    }  # fmt: skip
    assert registry.consumers() == {
        "a:c": ConsumerEntry(EntryId("a:c"), EntryId("a:q"), EntryId("a:f"), 1, 10, False, LIFECYCLE)
    }
    assert registry.databases() == {"a:db": SqliteEntry(EntryId("a:db"), "data/app.db", 5.0, LIFECYCLE)}


def test_everything_that_can_be_said_of_a_queue_is_taken(tmp_path: Path) -> None:
    registry = load(
        tmp_path,
        SOUND
        + """
  - name: full
    kind: queue.queue
    driver: d
    codec: application/msgpack
    queue_name: jobs
    driver_options: {memory: {max_length: 5}, jetstream: {max_length: 7, ack_wait: 2s}}
    redelivery: {max_deliveries: 0, initial_delay: 50ms, max_delay: 1m, dead_letter: q}
    lifecycle: {auto_start: true}
""",
    )
    assert registry.problems == ()
    queue = registry.queues()[EntryId("a:full")]
    assert (queue.codec, queue.name, queue.memory_length_max, queue.jetstream_length_max) == (
        "application/msgpack",
        "jobs",
        5,
        7,
    )
    assert (queue.ack_wait_s, queue.lifecycle.auto_start) == (2.0, True)
    assert queue.redelivery == RedeliverySpec(0, 0.05, 60.0, EntryId("a:q"))


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("kind: queue.queue, driver: none", "driver: no entry a:none"),
        ("kind: queue.queue, driver: f", "driver: a:f is a function.lua, not a queue.driver.memory or queue.driver.jetstream"),
        ("kind: queue.queue", "driver is required"),
        ("kind: queue.queue, driver: d, codec: xml", "codec must be one of json/plain, application/msgpack, not 'xml'"),
        ("kind: queue.queue, driver: d, driver_options: {memory: {max_length: -1}}", "driver_options.memory.max_length must be at least 0, not -1"),
        ("kind: queue.queue, driver: d, driver_options: {memory: {max_lenght: 1}}", "unknown field driver_options.memory.max_lenght; did you mean 'max_length'?"),
        ("kind: queue.queue, driver: d, driver_options: {jetstream: {ack_wait: 10ms}}", "driver_options.jetstream.ack_wait must be at least 0.1s, not 0.01s"),
        ("kind: queue.queue, driver: d, redelivery: {dead_letter: f}", "redelivery.dead_letter: a:f is a function.lua, not a queue.queue"),
        ("kind: queue.queue, driver: d, redelivery: {dead_letter: x}", "redelivery.dead_letter is this queue itself; a message that fails would go round for ever"),
        ("kind: queue.driver.jetstream, replicas: 6", "replicas must be at most 5, not 6"),
        ("kind: queue.consumer, queue: d, func: f", "queue: a:d is a queue.driver.memory, not a queue.queue"),
        ("kind: queue.consumer, queue: q, func: f, concurrency: 1001", "concurrency must be at most 1000, not 1001"),
        ("kind: queue.consumer, queue: q, func: f, prefetch: 10001", "prefetch must be at most 10000, not 10001"),
        ("kind: queue.consumer, queue: q, func: f, prefech: 1", "unknown field prefech; did you mean 'prefetch'?"),
        ("kind: db.sql.sqlite", "file is required"),
        ("kind: db.sql.sqlite, file: 5", "file must be a text, not 5"),
        ("kind: db.sql.sqlite, file: x, busy_timeout: soon", "busy_timeout must be a duration such as 10s: time: invalid duration \"soon\""),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_resource_is_told(tmp_path: Path, entry: str, reason: str) -> None:
    registry = load(tmp_path, SOUND + f"  - {{name: x, {entry}}}\n")
    assert [line.partition(" a:x: ")[2] for line in told(registry)] == [reason]
    assert EntryId("a:x") not in {**registry.queues(), **registry.consumers(), **registry.databases()}


@pytest.mark.parametrize("module", ["queue", "sql", "http_client"])
def test_a_workflow_may_not_list_what_reaches_outside_and_is_told_the_way_out(tmp_path: Path, module: str) -> None:
    registry = load(tmp_path, f'  - {{name: w, kind: workflow.lua, source: "return 1", modules: [{module}]}}\n')
    assert [line.partition(" a:w: ")[2] for line in told(registry)] == [
        f"module {module!r} is not allowed in workflows, its results are not recorded and a replay would differ; "
        "put the code that needs it in a function and call that with funcs.call"
    ]
