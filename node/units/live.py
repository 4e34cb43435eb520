"""The live driver: carries out the ops of functions and processes at once (a workflow's go through its history).

"Same code, different behaviour": the code of a function asks for the same things as that of a workflow; here a sleep
is a sleep and a call a request. What concerns other units goes through the switchboard, in the order it was asked for.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import anyio
import anyio.abc

from mesh import codec
from mesh.client import Client
from mesh.connection import parse_headers
from mesh.errors import Disconnected, InvalidName, MeshError, NoResponders, PayloadTooLarge, RequestTimeout, Undecodable
from mesh.failure import Failure, Kind
from mesh.hosts import UnknownHost
from mesh.pids import ProcessPid, WorkflowPid, parse_pid
from mesh.starting import (
    AlreadyStarted,
    ConflictPolicy,
    new_entropy,
    publish_until_acked,
    signal_workflow,
    start_workflow,
)
from mesh.subjects import WorkflowKey, function_request, function_stop, function_who
from mesh.timers import cron_subject
from node.machine.vm import Op
from node.modules import Caller, Modules
from node.unit_logs import log_line
from node.units.names import Scope
from node.units.peers import Done
from node.units.switchboard import SpawnRequest, Switchboard, failed
from node.units.unit import LiveUnit
from node.units.workflow_watches import WorkflowWatches
from node.workflows.calls import encode_foreign
from node.workflows.others import start_spec
from node.workflows.outcomes import service_error_kind
from node.workflows.retry import duration_option

CALL_LOOK_EVERY_S: Final = 1.0
ANSWER_S: Final = 0.3
PENDING_MAX: Final = 50_000  # ops of one unit that have no outcome yet: calls, timers, ...
_NEVER_RETRIED: Final = frozenset({Kind.INVALID, Kind.PERMISSION_DENIED, Kind.INTERNAL})
_TRUE: Final = codec.encode_success(True)

_log = logging.getLogger(__name__)

Foreign = Callable[[str], tuple[str, str] | None]


class LiveDriver:
    """Performs ops for all live units of a node."""

    def __init__(
        self,
        *,
        client: Client,
        switchboard: Switchboard,
        modules: Modules,
        tasks: Callable[[], anyio.abc.TaskGroup],
        foreign: Foreign,
        call_defaults: Callable[[str], Mapping[str, Any]],
    ) -> None:
        self._client = client
        self._switchboard = switchboard
        self._modules = modules
        self._tasks = tasks
        self._foreign = foreign
        self._call_defaults = call_defaults
        self._watches = WorkflowWatches(client, tasks)
        self._loop = asyncio.get_running_loop()

    def carry_out(self, unit: LiveUnit, op: Op) -> None:
        """Carry an op out; its outcome, if it has one, is posted to the unit."""
        n, kind = op.n, op.kind
        if len(unit.pending) >= PENDING_MAX and n:
            text = f"waits for {len(unit.pending)} things at once, which is the most that a process or a call may"
            unit.kill(Failure(text, Kind.RATE_LIMITED, False))
        elif kind == "timer":
            self._set_timer(unit, n, time.monotonic_ns() + int(op.target))
        elif kind == "cancel_op":
            unit.give_up(int(op.target))
        elif kind == "log":
            log_line(str(op.target), op.payload or b"", op.options, pid=unit.pid)
        elif kind == "call":
            stop = _Stop()
            self._start(unit, op, lambda: self._call_with_retries(op, stop), stop)
        elif kind == "ask":
            caller = Caller(unit.pid, unit.entry_id)
            self._start(unit, op, lambda: self._modules.ask(str(op.target), op.payload or b"", caller))
        elif n:
            unit.pending[n] = _nothing_to_cancel
            self._talk(unit, op, lambda outcome: unit.resolve(n, outcome))

    def unit_ended(self, pid: str) -> None:
        """Forget what a unit watched and what it held in modules."""
        self._watches.unit_ended(pid)
        self._modules.unit_ended(pid)

    def code_replaced(self, pid: str) -> None:
        """The unit goes on with other code: what the old code held in modules is let go."""
        self._modules.unit_ended(pid)

    def log_failure(self, unit: LiveUnit, outcome: bytes) -> None:
        """Say in the log that a unit's code has failed, with the user's own frames."""
        _, failure = codec.decode_outcome(outcome)
        if isinstance(failure, Failure):
            # The first line of a stack is the message again.
            extra = {"pid": unit.pid, "stack": failure.stack.partition("\n")[2]}
            _log.error("%s failed: %s", unit.entry_id, failure, extra=extra)

    def _set_timer(self, unit: LiveUnit, n: int, due_ns: int) -> None:
        """Answer op n when it is due, never before: a loop counts in milliseconds and is up to one of them early."""
        timer = self._loop.call_later((due_ns - time.monotonic_ns()) / 1e9, self._timer_fired, unit, n, due_ns)
        unit.pending[n] = lambda _asked: timer.cancel()

    def _timer_fired(self, unit: LiveUnit, n: int, due_ns: int) -> None:
        if time.monotonic_ns() < due_ns:
            self._set_timer(unit, n, due_ns)
        else:
            unit.resolve(n, codec.NIL_OUTCOME)

    # -- ops that take time ------------------------------------------------------------------------------------

    def _start(self, unit: LiveUnit, op: Op, work: Callable[[], Awaitable[bytes]], stop: _Stop | None = None) -> None:
        scope = anyio.CancelScope()

        def cancel(asked: bool) -> None:
            if stop is not None:
                stop.asked = asked
            scope.cancel()

        unit.pending[op.n] = cancel
        self._tasks().start_soon(self._finish, unit, op, work, scope)

    async def _finish(
        self, unit: LiveUnit, op: Op, work: Callable[[], Awaitable[bytes]], scope: anyio.CancelScope
    ) -> None:
        with scope:
            unit.resolve(op.n, await self._outcome(work, f"{op.kind} of {unit.pid}"))

    async def _outcome(self, work: Callable[[], Awaitable[bytes]], what: str) -> bytes:
        try:
            return await work()
        except UnknownHost as error:
            return failed(f"host not found: {error}", Kind.NOT_FOUND)
        except AlreadyStarted as error:
            return failed(str(error), Kind.ALREADY_EXISTS)
        except (InvalidName, PayloadTooLarge) as error:
            return failed(str(error), Kind.INVALID)
        except MeshError as error:
            return failed(str(error), Kind.INTERNAL)
        except Exception as error:
            _log.exception("%s failed in the node", what)
            return failed(f"{what} failed in the node: {error}", Kind.INTERNAL)

    # -- calls -------------------------------------------------------------------------------------------------

    async def _call_with_retries(self, op: Op, stop: _Stop) -> bytes:
        given = codec.unpack(op.options) if op.options else {}
        try:
            retry = decode_retry(_merged_retry(self._call_defaults(str(op.target)).get("retry"), given.get("retry")))
        except ValueError as error:
            return failed(str(error), Kind.INVALID)
        attempt = 1
        while True:
            outcome = await self.call(str(op.target), op.payload or b"", stop)
            ok, failure = codec.decode_outcome(outcome)
            if ok or retry is None or not retry.again(attempt, failure):
                return outcome
            await anyio.sleep(retry.delay_s(attempt, random.random()))  # noqa: S311 - jitter
            attempt += 1

    async def call(self, function_id: str, request: bytes, stop: _Stop | None = None) -> bytes:
        """One attempt of a call by request and reply; a host that is lost is found out by asking."""
        try:
            foreign = self._foreign(function_id)
            if foreign is not None:
                return await self._call_foreign(foreign, request)
            answers: list[bytes] = []
            arrived = anyio.Event()

            def on_reply(data: bytes, raw_headers: bytes | None) -> None:
                if not data and raw_headers is not None and raw_headers.startswith(b"NATS/1.0 503"):
                    data = failed(f"no handler registered for target {function_id}", Kind.NOT_FOUND)
                answers.append(data)
                arrived.set()

            def on_error(error: MeshError) -> None:
                answers.append(failed(str(error), Kind.UNAVAILABLE, retryable=True))
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
                        return failed(f"the host that ran {function_id} is gone", "HostLost", retryable=True)
            except anyio.get_cancelled_exc_class():
                if stop is not None and stop.asked:
                    self._ask_to_stop(function_id, self._client.conn.reply_subject(token))
                raise
            finally:
                self._client.conn.forget(token)
            codec.decode_outcome(answers[0])
            return answers[0]
        except InvalidName as error:
            return failed(str(error), Kind.INVALID)
        except PayloadTooLarge as error:
            return failed(f"the arguments are too large: {error}", Kind.INVALID)
        except Undecodable as error:
            return codec.encode_failure(codec.undecodable_failure("outcome", error))
        except Disconnected as error:
            return failed(str(error), Kind.UNAVAILABLE, retryable=True)

    def _ask_to_stop(self, function_id: str, reply: str) -> None:
        try:
            self._client.conn.publish_nowait(function_stop(function_id), codec.encode([reply]))
        except Disconnected:
            return  # it goes on to its end, and nobody hears of it

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
            return failed(f"nobody serves {subject}", Kind.UNAVAILABLE, retryable=True)
        except RequestTimeout as error:
            return failed(str(error), Kind.TIMEOUT)
        headers = parse_headers(reply.raw_headers) if reply.raw_headers else {}
        code = headers.get("Nats-Service-Error-Code")
        if code is not None:
            return failed(
                headers.get("Nats-Service-Error") or f"service error {code}", service_error_kind(code), retryable=True
            )
        ok, value = codec.decode_outcome(reply.data)
        return codec.encode_success(value) if ok else codec.encode_failure(value)

    # -- other units -------------------------------------------------------------------------------------------

    def _talk(self, unit: LiveUnit, op: Op, done: Done) -> None:
        """What concerns other units; done gets the outcome, now or later."""
        kind, target = op.kind, str(op.target)
        options = codec.unpack(op.options) if op.options else {}
        board = self._switchboard
        try:
            match kind:
                case "spawn":
                    self._spawn(unit, op, options, done)
                case "name.register":
                    board.register(target, str(options["pid"]), Scope(options["scope"]), done)
                case "name.lookup":
                    board.lookup(target, done)
                case "name.unregister":
                    board.unregister(target, unit.pid, Scope(options["scope"]), done)
                case "send" | "cancel" | "terminate" | "monitor" | "unmonitor" | "link" | "unlink":

                    def go(pid: ProcessPid | WorkflowPid) -> None:
                        if isinstance(pid, ProcessPid):
                            self._tell_process(unit, op, options, pid, done)
                        else:
                            self._tell_workflow(unit, op, options, pid, done)

                    board.with_target(target, go, done)
                case _:
                    done(failed(f"{kind} is not possible outside of a workflow", Kind.INTERNAL))
        except MeshError as error:
            done(failed(str(error), Kind.INTERNAL))

    def _tell_process(self, unit: LiveUnit, op: Op, options: Mapping[str, Any], pid: ProcessPid, done: Done) -> None:
        board = self._switchboard
        match op.kind:
            case "send":
                board.send(unit.pid, pid, str(options["topic"]), op.payload or codec.encode(None), done)
            case "cancel":
                board.cancel(unit.pid, pid, options.get("reason"), done)
            case "terminate":
                board.terminate(pid, done)
            case "monitor":
                board.monitor(unit.pid, pid, done)
            case "unmonitor":
                board.unmonitor(unit.pid, pid, done)
            case "link":
                board.link(unit.pid, pid, done)
            case _:
                board.unlink(unit.pid, pid, done)

    def _tell_workflow(self, unit: LiveUnit, op: Op, options: Mapping[str, Any], pid: WorkflowPid, done: Done) -> None:
        match op.kind:
            case "monitor" | "link":
                self._watches.add(unit, pid, op.kind)
                done(_TRUE)
            case "unmonitor" | "unlink":
                self._watches.remove(unit, pid, op.kind.removeprefix("un"))
                done(_TRUE)
            case _:
                self._later(lambda: self._signal(op, options, pid, unit.pid), f"{op.kind} of {unit.pid}", done)

    def _later(self, work: Callable[[], Awaitable[bytes]], what: str, done: Done) -> None:
        async def finish() -> None:
            done(await self._outcome(work, what))

        self._tasks().start_soon(finish)

    async def _signal(self, op: Op, options: Mapping[str, Any], pid: WorkflowPid, sender: str) -> bytes:
        key = WorkflowKey((await self._client.hosts.resolve(pid.worker)).queue, pid.workflow_id)
        history = self._client.history(key.queue)
        # A cron workflow is there between its runs, too: as its schedule.
        unscheduled = op.kind == "terminate" and await self._client.js.purge(history.stream, subject=cron_subject(key))
        if not await history.is_running(key):
            if unscheduled:
                return _TRUE
            kind = Kind.NOT_FOUND if op.kind == "send" else Kind.INTERNAL
            return failed(f"process not found: no workflow {pid} is running", kind)
        if op.kind == "send":
            topic = str(options.get("topic", ""))
            await signal_workflow(self._client.js, key, topic, op.payload or codec.encode(None), sender=sender)
        else:
            verb = "cancel" if op.kind == "cancel" else "kill"
            await publish_until_acked(self._client.js, key.subject(verb), b"", {}, msg_id=new_entropy().hex())
        return _TRUE

    def _spawn(self, unit: LiveUnit, op: Op, spec: Mapping[str, Any], done: Done) -> None:
        options = spec.get("options") or {}
        variant = str(spec.get("variant") or "")
        host = str(options.get("task_queue") or spec.get("host"))
        if not self._switchboard.offers(host):
            self._later(lambda: self._spawn_workflow(unit, op, spec, host, variant), f"spawn of {unit.pid}", done)
            return
        spawner, wish = unit.pid, SpawnRequest(
            entry_id=str(op.target),
            host_id=host,
            request=op.payload or b"",
            name=str(options.get("id") or ""),
            messages=tuple((str(m["topic"]), m["body"]) for m in spec.get("messages") or ()),
            monitor="monitor" in variant,
            link="link" in variant,
        )  # fmt: skip
        if not spec.get("exec"):
            self._switchboard.spawn(spawner, wish, done)
            return
        watcher = self._switchboard.new_watcher(done)

        def spawned(outcome: bytes) -> None:
            if outcome[:3] == codec.FAILURE_PREFIX:
                watcher.post("ended", None, outcome)
                return
            # Under a name that was taken it is somebody else's process, which nobody monitors for us: wait for that.
            pid = parse_pid(str(codec.decode_outcome(outcome)[1]))
            if isinstance(pid, ProcessPid) and not watcher.ended:
                self._switchboard.monitor(watcher.pid, pid, monitored)

        def monitored(outcome: bytes) -> None:
            if outcome[:3] == codec.FAILURE_PREFIX and not self._switchboard.links.is_watching(watcher.pid):
                watcher.post("ended", None, outcome)

        self._switchboard.spawn(watcher.pid, replace(wish, monitor=True), spawned)

    # -- workflows ---------------------------------------------------------------------------------------------

    async def _spawn_workflow(
        self, unit: LiveUnit, op: Op, spec: Mapping[str, Any], host_id: str, variant: str
    ) -> bytes:
        options = spec.get("options") or {}
        host = await self._client.hosts.resolve(host_id)
        workflow = str(op.target)
        if host.workflows and workflow not in host.workflows:
            return failed(f"factory not found: {host.worker} offers no workflow {workflow}", Kind.NOT_FOUND)
        entropy = new_entropy()
        key = WorkflowKey(host.queue, str(options.get("id") or f"{workflow.rpartition(':')[2]}-{entropy.hex()}"))
        messages = tuple({**message, "from": unit.pid} for message in spec.get("messages") or ())
        start = start_spec(workflow, host, op.payload or b"", options, messages, entropy=entropy)
        conflict: ConflictPolicy = options.get("id_conflict_policy") or (
            "use_existing" if options.get("id") else "fail"
        )
        if options.get("execution_error_when_already_started"):
            conflict = "fail"
        started = await start_workflow(
            self._client.js, key, start, conflict=conflict, reuse=options.get("id_reuse_policy") or "allow_duplicate",
            sender=unit.pid,
        )  # fmt: skip
        pid = WorkflowPid(host.client, host.worker, key.id)
        for kind in ("monitor", "link"):
            if kind in variant:
                self._watches.add(unit, pid, kind, run=started.run)
        if not spec.get("exec"):
            return codec.encode_success(str(pid))
        if unit.ended:
            return codec.NIL_OUTCOME  # nobody waits for it any more
        with anyio.CancelScope() as scope:
            unit.pending[op.n] = lambda _asked: scope.cancel()
            return await self._watches.outcome(key, started.run)
        return codec.NIL_OUTCOME


class _Stop:
    """Whether somebody asks for the end of a call, rather than just not waiting for it any more."""

    asked = False


def _nothing_to_cancel(_asked: bool) -> None:
    return


def _merged_retry(default: object, given: object) -> object:
    """The retry options of a call: the entry's, those of the call over them key by key (contract 10.3)."""
    if isinstance(default, Mapping) and isinstance(given, Mapping):
        return {**default, **given}
    return default if given is None else given


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
        raise ValueError(f"retry must be a table, got {table!r}")
    attempts = table.get("max_attempts", 1)
    if isinstance(attempts, bool) or not isinstance(attempts, int):
        raise ValueError(f"retry.max_attempts must be a whole number, got {attempts!r}")

    def seconds(key: str, default_ms: int) -> float:
        return duration_option(f"retry.{key}", table.get(key, default_ms)) / 1e9

    def number(key: str, default: float) -> float:
        value = table.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
            raise ValueError(f"retry.{key} must be a number of at least 0, got {value!r}")
        return float(value)

    def kinds(key: str) -> frozenset[str]:
        value = table.get(key) or []
        if not isinstance(value, list) or not all(isinstance(kind, str) for kind in value):
            raise ValueError(f"retry.{key} must be a list of error kinds, got {value!r}")
        return frozenset(value)

    option = RetryOption(
        attempts, seconds("initial_delay", 100), seconds("max_delay", 10_000), number("backoff_factor", 2.0),
        number("jitter", 0.1), kinds("retry_kinds") if table.get("retry_kinds") else None, kinds("skip_kinds"),
    )  # fmt: skip
    return option if attempts > 1 else None


def now_ns() -> int:
    """The clock of functions."""
    return time.time_ns()
