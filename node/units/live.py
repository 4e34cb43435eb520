"""The live driver: carries out the ops of functions and processes at once (a workflow's go through its history).

"Same code, different behaviour": the code of a function asks for the same things as that of a workflow; here a sleep
is a sleep and a call a request. What concerns other units goes to switchboard, naming and spawning, in the order it was
asked for.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import anyio
import anyio.abc

from mesh import codec
from mesh.client import Client
from mesh.errors import InvalidName, MeshError, PayloadTooLarge
from mesh.failure import Failure, Kind
from mesh.hosts import UnknownHost
from mesh.pids import ProcessPid, WorkflowPid, parse_pid
from mesh.starting import (
    AlreadyStarted,
    new_entropy,
    publish_until_acked,
    signal_workflow,
    start_workflow,
)
from mesh.subjects import WorkflowKey
from mesh.timers import cron_subject
from node.machine.vm import Op
from node.modules import Caller, Modules
from node.unit_logs import log_line
from node.units.calls import Foreign, LiveCalls, Stop
from node.units.names import Scope
from node.units.naming import Naming
from node.units.outcomes import TRUE, failed
from node.units.peers import Done
from node.units.spawn_request import SpawnRequest
from node.units.spawning import Spawning
from node.units.switchboard import Switchboard
from node.units.table import UnitTable
from node.units.unit import LiveUnit
from node.units.workflow_watches import WorkflowWatches
from node.workflows.starts import policies, start_spec

PENDING_MAX: Final = 50_000  # ops of one unit that have no outcome yet: calls, timers, ...

_log = logging.getLogger(__name__)


class LiveDriver:
    """Performs ops for all live units of a node. calls: makes the calls among them."""

    def __init__(
        self,
        *,
        client: Client,
        units: UnitTable,
        switchboard: Switchboard,
        naming: Naming,
        spawning: Spawning,
        modules: Modules,
        tasks: Callable[[], anyio.abc.TaskGroup],
        foreign: Foreign,
        call_defaults: Callable[[str], Mapping[str, Any]],
    ) -> None:
        self._client = client
        self._units = units
        self._switchboard = switchboard
        self._naming = naming
        self._spawning = spawning
        self._modules = modules
        self._tasks = tasks
        self.calls = LiveCalls(client, foreign=foreign, call_defaults=call_defaults)
        self._watches = WorkflowWatches(client, tasks)
        self._loop = asyncio.get_running_loop()

    def carry_out(self, unit: LiveUnit, op: Op) -> None:
        """Carry an op out; its outcome, if it has one, is posted to the unit."""
        n, kind = op.n, op.kind
        if len(unit.pending) >= PENDING_MAX and n:
            text = f"waits for {len(unit.pending)} things at once, which is the most that a process or a call may"
            unit.kill(Failure(text, Kind.RATE_LIMITED))
        elif kind == "timer":
            self._set_timer(unit, n, time.monotonic_ns() + int(op.target))
        elif kind == "cancel_op":
            unit.give_up(int(op.target))
        elif kind == "log":
            log_line(str(op.target), op.payload or b"", op.options, **unit.about())
        elif kind == "call":
            stop = Stop()
            self._start(unit, op, lambda: self.calls.call_with_retries(op, stop, unit.trace, unit.serves), stop)
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
            extra = unit.about() | {"stack": failure.stack.partition("\n")[2]}
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

    def _start(self, unit: LiveUnit, op: Op, work: Callable[[], Awaitable[bytes]], stop: Stop | None = None) -> None:
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

    # -- other units -------------------------------------------------------------------------------------------

    def _talk(self, unit: LiveUnit, op: Op, done: Done) -> None:
        """What concerns other units; done gets the outcome, now or later."""
        kind, target = op.kind, str(op.target)
        options = codec.unpack(op.options) if op.options else {}
        try:
            match kind:
                case "spawn":
                    self._spawn(unit, op, options, done)
                case "name.register":
                    self._naming.register(target, str(options["pid"]), Scope(options["scope"]), done)
                case "name.lookup":
                    self._naming.lookup(target, done)
                case "name.unregister":
                    self._naming.unregister(target, unit.pid, Scope(options["scope"]), done)
                case "send" | "cancel" | "terminate" | "monitor" | "unmonitor" | "link" | "unlink":

                    def go(pid: ProcessPid | WorkflowPid) -> None:
                        if isinstance(pid, ProcessPid):
                            self._tell_process(unit, op, options, pid, done)
                        else:
                            self._tell_workflow(unit, op, options, pid, done)

                    self._naming.with_target(target, go, done)
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
                done(TRUE)
            case "unmonitor" | "unlink":
                self._watches.remove(unit, pid, op.kind.removeprefix("un"))
                done(TRUE)
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
                return TRUE
            kind = Kind.NOT_FOUND if op.kind == "send" else Kind.INTERNAL
            return failed(f"process not found: no workflow {pid} is running", kind)
        if op.kind == "send":
            topic = str(options.get("topic", ""))
            await signal_workflow(self._client.js, key, topic, op.payload or codec.encode(None), sender=sender)
        else:
            verb = "cancel" if op.kind == "cancel" else "kill"
            await publish_until_acked(self._client.js, key.subject(verb), b"", {}, msg_id=new_entropy().hex())
        return TRUE

    def _spawn(self, unit: LiveUnit, op: Op, spec: Mapping[str, Any], done: Done) -> None:
        options = spec.get("options") or {}
        variant = str(spec.get("variant") or "")
        host = str(options.get("task_queue") or spec.get("host"))
        if not self._spawning.offers(host):
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
            trace=unit.trace,
        )  # fmt: skip
        if not spec.get("exec"):
            self._spawning.spawn(spawner, wish, done)
            return
        watcher = self._units.new_watcher(done)

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

        self._spawning.spawn(watcher.pid, replace(wish, monitor=True), spawned)

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
        conflict, reuse = policies(options)
        started = await start_workflow(
            self._client.js, key, start, conflict=conflict, reuse=reuse, sender=unit.pid, trace=unit.trace
        )
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


def _nothing_to_cancel(_asked: bool) -> None:
    return


def now_ns() -> int:
    """The clock of functions."""
    return time.time_ns()
