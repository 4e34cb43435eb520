"""What a workflow does to other workflows: spawn, send, cancel, terminate. I/O; each call gives the op's outcome.

Everything is done at least once and taken once: a start is recognised by its entropy, a message by its sender and op.
Of one run, one thing is done after the other, so messages of one sender stay in order.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping
from typing import Final

import anyio

from mesh import codec
from mesh.errors import (
    Disconnected,
    InvalidName,
    MeshError,
    NoResponders,
    NotFound,
    NotReady,
    OutcomeUnknown,
    PayloadTooLarge,
    RequestTimeout,
)
from mesh.events import HEADER_ONCE
from mesh.failure import Failure, Kind
from mesh.history import History
from mesh.hosts import HostRecord, Hosts, UnknownHost
from mesh.jetstream import JetStream
from mesh.pids import ProcessPid, WorkflowPid
from mesh.starting import AlreadyStarted, publish_until_acked, signal_workflow, start_workflow
from mesh.subjects import WorkflowKey
from mesh.tracecontext import TraceContext
from node.machine.code import Code, CodeMissing
from node.units.naming import Naming, unresolved
from node.units.switchboard import Switchboard
from node.workflows.ops import OpState
from node.workflows.starts import child_host, child_id, child_start, policies

RETRY_EVERY_S: Final = 0.2

_log = logging.getLogger(__name__)


class Others:
    """Carries out what one node's workflows do to others."""

    def __init__(self, js: JetStream, hosts: Hosts, code: Code, switchboard: Switchboard, naming: Naming) -> None:
        self._js = js
        self._switchboard = switchboard
        self._naming = naming
        self._hosts = hosts
        self._code = code
        self._locks: defaultdict[tuple[str, int], anyio.Lock] = defaultdict(anyio.Lock)

    async def perform(
        self, host: HostRecord, key: WorkflowKey, run: int, op: OpState, trace: TraceContext | None = None
    ) -> bytes:
        """Do it, however often the server has to be asked, and return the outcome. trace: the span of the op."""
        lock = self._locks[key.id, run]
        async with lock:
            try:
                return await self._persist(host, key, run, op, trace)
            finally:
                if lock.statistics().tasks_waiting == 0:
                    self._locks.pop((key.id, run), None)

    async def _persist(
        self, host: HostRecord, key: WorkflowKey, run: int, op: OpState, trace: TraceContext | None
    ) -> bytes:
        while True:
            try:
                return await self._once(host, key, run, op, trace)
            except UnknownHost as error:
                return _failed(f"host not found: {error}", Kind.NOT_FOUND)
            except (Disconnected, OutcomeUnknown, RequestTimeout, NoResponders, NotReady, NotFound) as error:
                # What the platform cannot do now is no outcome. A stream whose cluster has no leader looks as if it
                # was not there; that of a host that is known is.
                _log.info(
                    "workflow %r op %d (%s): %s; trying again",
                    key.id,
                    op.n,
                    op.kind,
                    error,
                    extra=_about(host, key, run),
                )
                await anyio.sleep(RETRY_EVERY_S)
            except AlreadyStarted as error:
                return _failed(str(error), Kind.ALREADY_EXISTS)
            except (InvalidName, PayloadTooLarge) as error:
                return _failed(str(error), Kind.INVALID)
            except MeshError as error:
                return _failed(str(error), Kind.INTERNAL)

    async def _once(
        self, host: HostRecord, key: WorkflowKey, run: int, op: OpState, trace: TraceContext | None
    ) -> bytes:
        if op.kind == "spawn":
            return await self._spawn(host, key, run, op, trace)
        pid = await self._resolve(op.target)
        if pid is None:
            return unresolved(op.target)
        once = f"{key.queue}/{key.id}/{run}/{op.n}"
        if isinstance(pid, ProcessPid):
            return await self._tell_process(host.pid(key.id), pid, op, once)
        try:
            target = WorkflowKey((await self._hosts.resolve(pid.worker)).queue, pid.workflow_id)
        except UnknownHost:
            return unresolved(op.target)
        history = History(self._js, target.queue)
        if not await history.is_running(target):
            # An owner that was lost may have said it, and the target may have ended on hearing it.
            said = f"{HEADER_ONCE}: {once}" if op.kind == "send" else f"Nats-Msg-Id: {once}/cancel"
            if await _was_told(history, target, said):
                return codec.encode_success(True)
            return _failed(f"{op.target}: process not found (no such workflow is running)", Kind.NOT_FOUND)
        if op.kind == "send":
            await signal_workflow(
                self._js, target, str(op.options.get("topic", "")), op.payload, sender=host.pid(key.id), once=once
            )
        else:
            # Inside a workflow, terminate is a request like cancel (contract 11.4).
            await publish_until_acked(self._js, target.subject("cancel"), b"", {}, msg_id=f"{once}/cancel")
        return codec.encode_success(True)

    async def _tell_process(self, sender: str, to: ProcessPid, op: OpState, once: str) -> bytes:
        """Say something to a process: once, as its node remembers what it has heard."""
        answered = anyio.Event()
        outcomes: list[bytes] = []

        def done(outcome: bytes) -> None:
            outcomes.append(outcome)
            answered.set()

        if op.kind == "send":
            self._switchboard.send(sender, to, str(op.options.get("topic", "")), op.payload, done, once=once)
        else:
            self._switchboard.cancel(sender, to, op.options.get("reason"), done)
        await answered.wait()
        ok, failure = codec.decode_outcome(outcomes[0])
        if not ok and failure.kind == Kind.UNAVAILABLE:
            raise Disconnected(failure.message)  # asked again
        return outcomes[0]

    async def _spawn(
        self, host: HostRecord, key: WorkflowKey, run: int, op: OpState, trace: TraceContext | None
    ) -> bytes:
        target = await self._target_host(host, op)
        entry = op.target
        if target.queue == host.queue:
            try:
                self._code.workflow_id(entry)
            except CodeMissing as error:
                return _failed(f"factory not found: {error}", Kind.NOT_FOUND)
        elif target.workflows and entry not in target.workflows:
            return _failed(f"factory not found: {target.worker} offers no workflow {entry}", Kind.NOT_FOUND)
        child = WorkflowKey(target.queue, child_id(key, run, op))
        conflict, reuse = policies(op.options.get("options") or {})
        start = child_start(key, host, run, op, target)
        await start_workflow(
            self._js, child, start, conflict=conflict, reuse=reuse, sender=host.pid(key.id), trace=trace
        )
        return codec.encode_success({"pid": target.pid(child.id), "queue": child.queue, "id": child.id})

    async def child_key(self, host: HostRecord, key: WorkflowKey, run: int, op: OpState) -> WorkflowKey | None:
        """Which workflow a spawn op has started or would have; None when its host is unknown."""
        child = op.options.get("child")
        if isinstance(child, Mapping) and child.get("queue") and child.get("id"):
            return WorkflowKey(str(child["queue"]), str(child["id"]))
        try:
            target = await self._target_host(host, op)
        except UnknownHost:
            return None
        return WorkflowKey(target.queue, child_id(key, run, op))

    async def _target_host(self, host: HostRecord, op: OpState) -> HostRecord:
        name = child_host(host, op)
        return host if name is None else await self._hosts.resolve(name)

    async def _resolve(self, dest: str) -> ProcessPid | WorkflowPid | None:
        answered = anyio.Event()
        found: list[ProcessPid | WorkflowPid] = []

        def go(pid: ProcessPid | WorkflowPid) -> None:
            found.append(pid)
            answered.set()

        self._naming.with_target(dest, go, lambda _outcome: answered.set())
        await answered.wait()
        return found[0] if found else None


async def _was_told(history: History, target: WorkflowKey, header: str) -> bool:
    """Whether the history of a target's last run holds a message with this header, which no other one has."""
    found = await history.last_run(target)
    if found is None:
        return False
    line = f"\r\n{header}\r\n".encode("utf-8", "surrogateescape")
    # All that came before its end: what was said to it, if it was.
    events = await history.events(target, found[0].run, found[1].seq if found[1] is not None else None)
    return any(event.raw_headers is not None and line in event.raw_headers for event in events)


def _about(host: HostRecord, key: WorkflowKey, run: int) -> dict[str, object]:
    return {"queue": key.queue, "workflow": key.id, "run": run, "pid": host.pid(key.id)}


def _failed(message: str, kind: str) -> bytes:
    return codec.encode_failure(Failure(message, kind, False))
