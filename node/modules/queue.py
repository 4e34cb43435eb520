"""The module `queue`: message queues by the id of their entry, and the consumers of this node.

A handler may run on another node than the one that consumes: what it says of its message (`ack`, `nack`) goes to the
consuming node, which alone knows whether the message is settled already.

Not here: what keeps messages and what hands them out (`node.queues`).
"""

from __future__ import annotations

import json
import logging
import math
import secrets
from collections.abc import Mapping
from typing import Any, Final

import anyio
import anyio.abc

from mesh import codec
from mesh.connection import encode_headers
from mesh.errors import Disconnected, InvalidName, MeshError, NoResponders, NotFound, Undecodable
from mesh.failure import Failure, Kind
from mesh.jetstream import JetStream
from mesh.subjects import node_request
from node.modules import Caller, Refused
from node.queues.consuming import Call, Consumer, Held
from node.queues.driver import Driver, QueueMessage
from node.queues.jetstream import JetStreamQueue
from node.queues.memory import MemoryQueue
from node.registry import EntryId, QueueCodec, QueueDriver, QueueEntry, Registry, resolve_reference

SETTLE_TIMEOUT_S: Final = 5.0

_log = logging.getLogger(__name__)


class QueueModule:
    """The Python half of `queue`. `run` must be running; each consumer is run by `consume`.

    call: how a function is called (function id, arguments, context values -> outcome bytes). replicas: of the streams
    whose driver does not say.
    """

    def __init__(self, registry: Registry, js: JetStream, *, node_id: str, call: Call, replicas: int = 1) -> None:
        self._registry = registry
        self._js = js
        self._node_id = node_id
        self._call = call
        self._replicas = replicas
        self._drivers: dict[str, Driver] = {}
        self._consumers: dict[str, Consumer] = {}
        self._held: dict[str, Held] = {}

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Take what handlers on other nodes say of their messages, until cancelled."""
        subscription = self._js.conn.subscribe_direct(node_request(self._node_id, "settle"), self._on_settle)
        try:
            await self._js.conn.flush()
            task_status.started()
            await anyio.sleep_forever()
        finally:
            subscription.unsubscribe()

    async def consume(
        self, consumer_id: str, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Run a consumer until cancelled. Raises NotFound if it is none, MeshError if its queue cannot be used."""
        entry = self._registry.consumers().get(EntryId(consumer_id))
        if entry is None:
            raise NotFound(f"there is no queue.consumer {consumer_id}, or `mesh check` tells what is wrong with it")
        try:
            queue, driver = self._queue(entry.queue)
        except Refused as refused:
            raise NotFound(f"{consumer_id}: {refused}") from None
        consumer = Consumer(
            entry, queue.id, driver, queue.redelivery,
            node_id=self._node_id, call=self._call, publish=self._publish_raw, held=self._held,
        )  # fmt: skip
        self._consumers[consumer_id] = consumer
        try:
            await consumer.run(task_status=task_status)
        finally:
            if self._consumers.get(consumer_id) is consumer:
                del self._consumers[consumer_id]

    async def drain(self, timeout_s: float) -> None:
        """Have all consumers take no more messages, and wait for the handlers that run."""
        async with anyio.create_task_group() as tasks:
            for consumer in self._consumers.values():
                tasks.start_soon(consumer.drain, timeout_s)

    async def ask(self, verb: str, args: list[Any], caller: Caller) -> Any:
        """Answer `publish` (queue, data, headers), `info` (queue) and `settle` (node, delivery, ack or nack)."""
        match verb, args:
            case "publish", [str(name), data, headers]:
                queue_id = resolve_reference(name, caller.namespace)
                queue, _ = self._queue(queue_id)
                message = QueueMessage(secrets.token_hex(12), _headers(headers), _encode(queue.codec, data))
                await self._publish_raw(queue_id, message)
                return True
            case "info", [str(name)]:
                return await self._info(resolve_reference(name, caller.namespace))
            case "settle", [str(node), str(delivery), ("ack" | "nack") as how]:
                return await self._settle(node, delivery, how)
            case _:
                raise Refused(f"queue.{verb} is not called this way", Kind.INVALID)

    def unit_ended(self, pid: str) -> None:
        """Nothing is kept for a unit: a handler's message is settled by the outcome of its call."""

    def _queue(self, queue_id: str) -> tuple[QueueEntry, Driver]:
        entry = self._registry.queues().get(EntryId(queue_id))
        if entry is None:
            raise Refused(f"there is no queue {queue_id}: no sound entry of kind queue.queue", Kind.INTERNAL)
        driver = self._drivers.get(queue_id)
        if driver is None:
            driver = self._drivers[queue_id] = self._make(entry)
        return entry, driver

    def _make(self, entry: QueueEntry) -> Driver:
        kept_by = self._registry.queue_drivers().get(entry.driver)
        if kept_by is None:
            raise Refused(f"queue {entry.id}: its driver {entry.driver} has a problem of its own", Kind.INTERNAL)
        match kept_by.type:
            case QueueDriver.MEMORY:
                return MemoryQueue(entry.name, entry.memory_length_max)
            case QueueDriver.JETSTREAM:
                return JetStreamQueue(
                    self._js, entry.name, length_max=entry.jetstream_length_max, ack_wait_s=entry.ack_wait_s,
                    replicas=kept_by.replicas or self._replicas,
                )  # fmt: skip

    async def _publish_raw(self, queue_id: str, message: QueueMessage) -> None:
        _, driver = self._queue(queue_id)
        await driver.publish(message)

    async def _info(self, queue_id: str) -> dict[str, Any]:
        entry, driver = self._queue(queue_id)
        counts = await driver.counts()
        consumers = self._registry.consumers()
        return {
            "name": entry.name, "driver": str(entry.driver), "message_count": counts.messages, "ready": counts.ready,
            "in_flight": counts.messages - counts.ready,
            "consumer_count": sum(consumers[EntryId(each)].queue == queue_id for each in self._consumers),
        }  # fmt: skip

    # -- settling ----------------------------------------------------------------------------------------------

    async def _settle(self, node: str, delivery: str, how: str) -> bool:
        if node == self._node_id:
            self._settle_here(delivery, how)
            return True
        subject = node_request(node, "settle")
        try:
            reply = await self._js.conn.request(subject, codec.encode([delivery, how]), timeout_s=SETTLE_TIMEOUT_S)
            ok, value = codec.decode_outcome(reply.data)
        except NoResponders:
            raise Refused(
                f"node {node}, which consumes the message, is gone; the message will come again", Kind.UNAVAILABLE
            ) from None
        except MeshError as error:
            raise Refused(f"node {node} does not answer: {error}", Kind.UNAVAILABLE, retryable=True) from None
        if not ok:
            raise Refused(value.message, value.kind, retryable=value.retryable)
        return True

    def _settle_here(self, delivery: str, how: str) -> None:
        held = self._held.get(delivery)
        consumer = next((each for each in self._consumers.values() if each.holds(delivery)), None)
        if held is None or consumer is None:
            raise Refused("the message is settled already, its handler has ended", Kind.INVALID)
        consumer.settle(held, how)

    def _on_settle(self, _subject: str, reply: str, data: bytes, _raw_headers: bytes | None) -> None:
        try:
            match codec.decode(data):
                case [str(delivery), ("ack" | "nack") as how]:
                    self._settle_here(delivery, how)
                    outcome = codec.encode_success(True)
                case _:
                    outcome = codec.encode_failure(
                        Failure("settle takes a delivery and ack or nack", Kind.INVALID, False)
                    )
        except Undecodable as error:
            outcome = codec.encode_failure(codec.undecodable_failure("request", error))
        except Refused as refused:
            outcome = codec.encode_failure(refused.failure)
        if reply:
            try:
                self._js.conn.publish_nowait(reply, outcome)
            except Disconnected:
                _log.info("whoever settled a message is not told: the connection is down")


def _headers(given: object) -> Mapping[str, str]:
    """Check the headers: what goes through one driver must go through the other."""
    headers = {str(name): _one_line(value) for name, value in given.items()} if isinstance(given, Mapping) else {}
    try:
        encode_headers(headers)
    except (InvalidName, UnicodeError) as error:
        raise Refused(f"the headers cannot be sent: {error}", Kind.INVALID) from None
    return headers


def _one_line(value: object) -> str:
    if isinstance(value, bytes):
        raise Refused("the headers cannot be sent: a value must be UTF-8 text", Kind.INVALID)
    return str(value).strip()  # blanks at the ends do not survive the way


def _encode(how: QueueCodec, data: Any) -> bytes:
    match how:
        case QueueCodec.MSGPACK:
            return codec.encode(data)
        case QueueCodec.JSON:
            try:
                return json.dumps(_as_json(data), ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
            except (TypeError, ValueError, RecursionError) as error:
                raise Refused(
                    f"the data cannot be written as JSON: {error}; use codec application/msgpack for bytes",
                    Kind.INVALID,
                ) from None


def _as_json(value: Any) -> Any:
    """What json.encode in Lua makes of a value: an Error is its text, a float without a number null."""
    match value:
        case Failure():
            return value.message
        case float() if not math.isfinite(value):
            return None
        case float() if value.is_integer() and abs(value) < 2**53:
            return int(value)
        case dict():
            return {_key(key): _as_json(item) for key, item in value.items()}
        case list():
            return [_as_json(item) for item in value]
        case _:
            return value


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise ValueError(f"a table with the key {key!r} is neither a list nor one with texts as keys")
    return key
