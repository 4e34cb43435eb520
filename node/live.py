"""The live driver: carries out the ops of a function call at once (a workflow's go through its history).

"Same code, different behaviour": the code of a function asks for the same things as that of a workflow; here a sleep
is a sleep and a call a request.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import anyio

from mesh import codec
from mesh.client import Client, WorkflowFailed
from mesh.connection import parse_headers
from mesh.duration import parse_duration_ns
from mesh.errors import Disconnected, InvalidName, MeshError, NoResponders, PayloadTooLarge, RequestTimeout, Undecodable
from mesh.failure import Failure, Kind
from mesh.hosts import UnknownHost, split_pid
from mesh.starting import new_entropy, publish_until_acked, signal_workflow, start_workflow
from mesh.subjects import WorkflowKey, function_request, function_who
from node.calls import encode_foreign
from node.machine import Op
from node.others import start_spec
from node.retry import MS_NS
from node.run import service_error_kind

CALL_LOOK_EVERY_S: Final = 1.0
ANSWER_S: Final = 0.3
_NEVER_RETRIED: Final = frozenset({Kind.INVALID, Kind.PERMISSION_DENIED, Kind.INTERNAL})

_log = logging.getLogger(__name__)

Foreign = Callable[[str], tuple[str, str] | None]


class LiveDriver:
    """Performs ops for all calls of a node. Every method gives the outcome bytes of the op."""

    def __init__(self, client: Client, foreign: Foreign, call_defaults: Callable[[str], Mapping[str, Any]]) -> None:
        self._client = client
        self._foreign = foreign
        self._call_defaults = call_defaults

    async def perform(self, op: Op, pid: str) -> bytes:
        """Carry an op out and return its outcome; never raises but for cancellation."""
        try:
            match op.kind:
                case "timer":
                    await anyio.sleep(int(op.target) / 1e9)
                    return codec.NIL_OUTCOME
                case "call":
                    return await self._call_with_retries(op)
                case "spawn":
                    return await self._spawn(op, pid)
                case "send" | "cancel" | "terminate":
                    return await self._tell(op, pid)
                case _:
                    return _failed(f"{op.kind} is not possible in a function call", Kind.INTERNAL)
        except UnknownHost as error:
            return _failed(f"host not found: {error}", Kind.NOT_FOUND)
        except MeshError as error:
            return _failed(str(error), Kind.INTERNAL)

    # -- calls -------------------------------------------------------------------------------------------------

    async def _call_with_retries(self, op: Op) -> bytes:
        given = codec.unpack(op.options) if op.options else {}
        options = {**self._call_defaults(str(op.target)), **given}
        try:
            retry = decode_retry(options.get("retry"))
        except ValueError as error:
            return _failed(str(error), Kind.INVALID)
        attempt = 1
        while True:
            outcome = await self.call(str(op.target), op.payload or b"")
            ok, failure = codec.decode_outcome(outcome)
            if ok or retry is None or not retry.again(attempt, failure):
                return outcome
            await anyio.sleep(retry.delay_s(attempt, random.random()))  # noqa: S311 - jitter
            attempt += 1

    async def call(self, function_id: str, request: bytes) -> bytes:
        """One attempt of a call by request and reply; a host that is lost is found out by asking."""
        try:
            foreign = self._foreign(function_id)
            if foreign is not None:
                return await self._call_foreign(foreign, request)
            answers: list[bytes] = []
            arrived = anyio.Event()

            def on_reply(data: bytes, raw_headers: bytes | None) -> None:
                if not data and raw_headers is not None and raw_headers.startswith(b"NATS/1.0 503"):
                    data = _failed(f"no handler registered for target {function_id}", Kind.NOT_FOUND)
                answers.append(data)
                arrived.set()

            def on_error(error: MeshError) -> None:
                answers.append(_failed(str(error), Kind.UNAVAILABLE, retryable=True))
                arrived.set()

            token = self._client.conn.request_nowait(
                function_request(function_id), request, on_reply, on_error=on_error
            )
            try:
                while not answers:
                    with anyio.move_on_after(CALL_LOOK_EVERY_S):
                        await arrived.wait()
                    if not answers and not await self._somebody_has(
                        function_id, self._client.conn.reply_subject(token)
                    ):
                        return _failed(f"the host that ran {function_id} is gone", "HostLost", retryable=True)
            finally:
                self._client.conn.forget(token)
            codec.decode_outcome(answers[0])
            return answers[0]
        except InvalidName as error:
            return _failed(str(error), Kind.INVALID)
        except PayloadTooLarge as error:
            return _failed(f"the arguments are too large: {error}", Kind.INVALID)
        except Undecodable as error:
            return codec.encode_failure(codec.undecodable_failure("outcome", error))
        except Disconnected as error:
            return _failed(str(error), Kind.UNAVAILABLE, retryable=True)

    async def _somebody_has(self, function_id: str, reply: str) -> bool:
        replies = await self._client.conn.request_many(
            function_who(function_id),
            codec.encode([reply]),
            timeout_s=ANSWER_S,
            stop=lambda r: bool(codec.decode(r.data)),
        )
        return any(codec.decode(reply.data) for reply in replies)

    async def _call_foreign(self, foreign: tuple[str, str], request: bytes) -> bytes:
        subject, encoding = foreign
        args, _context = codec.decode(request)
        value = args[0] if len(args) == 1 else (args or None)
        try:
            reply = await self._client.conn.request(subject, encode_foreign(value, encoding), timeout_s=600.0)
        except NoResponders:
            return _failed(f"nobody serves {subject}", Kind.UNAVAILABLE, retryable=True)
        except RequestTimeout as error:
            return _failed(str(error), Kind.TIMEOUT)
        headers = parse_headers(reply.raw_headers) if reply.raw_headers else {}
        code = headers.get("Nats-Service-Error-Code")
        if code is not None:
            return _failed(
                headers.get("Nats-Service-Error") or f"service error {code}", service_error_kind(code), retryable=True
            )
        ok, value = codec.decode_outcome(reply.data)
        return codec.encode_success(value) if ok else codec.encode_failure(value)

    # -- workflows ---------------------------------------------------------------------------------------------

    async def _spawn(self, op: Op, pid: str) -> bytes:
        spec = codec.unpack(op.options or b"\x80")
        options = spec.get("options") or {}
        host = await self._client.hosts.resolve(str(options.get("task_queue") or spec.get("host")))
        workflow = str(op.target)
        if host.workflows and workflow not in host.workflows:
            return _failed(f"factory not found: {host.worker} offers no workflow {workflow}", Kind.NOT_FOUND)
        entropy = new_entropy()
        key = WorkflowKey(host.queue, str(options.get("id") or f"{workflow.rpartition(':')[2]}-{entropy.hex()}"))
        messages = tuple({**message, "from": pid} for message in spec.get("messages") or ())
        start = start_spec(workflow, host, op.payload or b"", options, messages, entropy=entropy)
        started = await start_workflow(
            self._client.js, key, start,
            conflict=options.get("id_conflict_policy") or ("use_existing" if options.get("id") else "fail"),
            reuse=options.get("id_reuse_policy") or "allow_duplicate", sender=pid,
        )  # fmt: skip
        if not spec.get("exec"):
            return codec.encode_success(host.pid(key.id))
        handle = self._client.get(key.id, queue=key.queue)
        handle.run = started.run
        try:
            return codec.encode_success(await handle.result())
        except WorkflowFailed as error:
            return codec.encode_failure(error.failure)

    async def _tell(self, op: Op, pid: str) -> bytes:
        split = split_pid(str(op.target))
        if split is None:
            return _failed(f"could not resolve '{op.target}' as PID or registered name", Kind.NOT_FOUND)
        key = WorkflowKey((await self._client.hosts.resolve(split[0])).queue, split[1])
        if await self._client.history(key.queue).open_run(key) is None:
            return _failed(f"{op.target}: process not found (no such workflow is running)", Kind.NOT_FOUND)
        if op.kind == "send":
            topic = codec.unpack(op.options or b"\x80").get("topic", "")
            await signal_workflow(self._client.js, key, str(topic), op.payload or codec.encode(None), sender=pid)
        else:
            verb = "cancel" if op.kind == "cancel" else "kill"
            await publish_until_acked(self._client.js, key.subject(verb), b"", {}, msg_id=new_entropy().hex())
        return codec.encode_success(True)


@dataclass(frozen=True, slots=True)
class RetryOption:
    """The `retry` option of funcs (contract 10.3). Seconds."""

    max_attempts: int
    initial_s: float
    max_s: float
    factor: float
    jitter: float
    retry_kinds: frozenset[str] | None
    skip_kinds: frozenset[str]

    def again(self, attempt: int, failure: Failure) -> bool:
        """Whether a call that failed in this attempt is made again."""
        if attempt >= self.max_attempts or failure.retryable is False or failure.kind == Kind.CANCELED:
            return False
        if failure.kind in self.skip_kinds:
            return False
        return failure.kind in self.retry_kinds if self.retry_kinds is not None else failure.kind not in _NEVER_RETRIED

    def delay_s(self, attempt: int, chance: float) -> float:
        """The pause after an attempt; chance: 0 to 1."""
        delay = min(self.initial_s * self.factor ** (attempt - 1), self.max_s)
        return delay * (1 + self.jitter * (2 * chance - 1))


def decode_retry(table: object) -> RetryOption | None:
    """Read the `retry` option; None when it is not active. Raises ValueError that names the key."""
    if table is None:
        return None
    if not isinstance(table, Mapping):
        raise ValueError("retry must be a table")
    attempts = table.get("max_attempts", 1)
    if not isinstance(attempts, int) or attempts <= 1:
        return None

    def seconds(key: str, default_ms: int) -> float:
        return parse_duration_ns(table.get(key, default_ms), number_unit_ns=MS_NS) / 1e9

    kinds = table.get("retry_kinds")
    return RetryOption(
        attempts, seconds("initial_delay", 100), seconds("max_delay", 10_000), float(table.get("backoff_factor", 2.0)),
        float(table.get("jitter", 0.1)), frozenset(kinds) if kinds else None, frozenset(table.get("skip_kinds") or ()),
    )  # fmt: skip


def now_ns() -> int:
    """The clock of functions."""
    return time.time_ns()


def _failed(message: str, kind: str, *, retryable: bool = False) -> bytes:
    return codec.encode_failure(Failure(message, kind, retryable))
