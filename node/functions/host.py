"""The function host: takes the calls that arrive on `mesh.fn`, queues them and has them run.

A call begins when its function has a place and, if it is a workflow's, the limits of the function's worker allow it
(`node.functions.limits`). One that may run only once is claimed in the history first (`claims`); who does not get the
claim stays silent. A host that is full passes the call on to another one of the queue group.

How calls run: `lua_calls`, `python_calls`, `process_calls`. Whom it is told what they have come to: `answers`. What of
them is too large for a message: `large_calls`.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import anyio
import anyio.abc

from mesh import codec
from mesh.calls import HEADER_CALL, HEADER_FOR
from mesh.connection import Connection, DirectSubscription
from mesh.envelopes import ENCRYPTED, answer_context, request_context, why_closed
from mesh.errors import Disconnected, InvalidName, MeshError, PayloadTooLarge, Undecodable
from mesh.failure import Failure, Kind
from mesh.jetstream import JetStream
from mesh.outbox import Outbox
from mesh.references import is_reference
from mesh.subjects import (
    function_request,
    function_stop,
    function_who,
    may_be_answered,
    parse_workflow,
)
from mesh.tracecontext import read_context
from mesh.wire import is_from_another_account
from node.functions.answers import Answers
from node.functions.at_home import AtHome
from node.functions.call_headers import FOR_LINE, HEADER_RUN_ONCE, identity_in, value_of
from node.functions.claims import Claims
from node.functions.held_calls import HeldCall, encode_held
from node.functions.job import WORKFLOW_REPLY, Function, Job, Runner
from node.functions.large_calls import LargeCalls
from node.functions.limits import WorkerLimit, worker_limits
from node.functions.lua_calls import LuaCalls
from node.functions.process_calls import ProcessCalls
from node.functions.python_calls import PythonCalls, PythonFunctionMissing
from node.machine.code import Code
from node.micro import QUEUE_GROUP, MicroService
from node.refusals import Refusals
from node.registry import EntryId, LuaFunctionEntry, PoolSpec, PythonFunctionEntry, Registry
from node.units.farewells import Farewells
from node.units.live import LiveDriver
from node.units.spawning import Spawning
from node.units.table import UnitTable

if TYPE_CHECKING:
    from mesh.tracecontext import TraceContext
    from node.telemetry.tracing import Tracing

HOPS_MAX: Final = 5  # how often a call is passed on before it waits where it is
HEADER_HOPS: Final = "Mesh-Hops"
HOPS_LINE: Final = f"{HEADER_HOPS}: ".encode()
PROCESS_CALLS_MAX: Final = 10_000  # calls that run as processes: a process is light
BUFFER_OF_UNLIMITED: Final = 10_000  # calls that wait for the limit of a worker, of a function that has none itself
TIMER_S_MIN: Final = 0.001  # loops do not tell times apart that are closer
OTHER_ACCOUNT: Final = "_R_."  # how that of a caller in another account of the server does

_log = logging.getLogger(__name__)


class FunctionHost:
    """Offers the functions of a registry on the mesh, as one NATS micro service per node."""

    def __init__(
        self,
        *,
        conn: Connection,
        outbox: Outbox,
        code: Code,
        live: LiveDriver,
        units: UnitTable,
        farewells: Farewells,
        spawning: Spawning,
        node_id: str,
        version: str,
        offers: Callable[[str], bool],
        process_calls: bool = True,
        tracing: Tracing | None = None,
    ) -> None:
        self._tracing = tracing
        self._conn = conn
        self._outbox = outbox
        self._functions: dict[str, Function] = {}
        self._limits = worker_limits(code.registry)
        self._stop_timeouts_s = [worker.options.stop_timeout_s for worker in code.registry.workers().values()]
        self._jobs: dict[str, Job] = {}
        self._at_home = AtHome()
        self._subscriptions: list[DirectSubscription] = []
        self._requests: list[DirectSubscription] = []
        self._draining = False
        self._refusals = Refusals(_log)
        self._idle = anyio.Event()
        self._loop = asyncio.get_running_loop()
        self._tasks: anyio.abc.TaskGroup | None = None
        js = JetStream(conn)
        self._large = LargeCalls(js.objects)
        self._answers = Answers(
            conn=conn,
            outbox=outbox,
            large=self._large,
            farewells=farewells,
            node_id=node_id,
            tasks=lambda: self._group,
            leave=self._leave,
            forget=self._forget,
        )
        answer = self._answers.give
        self._lua = LuaCalls(code=code, live=live, units=units, answer=answer)
        self._python = PythonCalls(tasks=lambda: self._group, answer=answer)
        self._processes = ProcessCalls(units=units, spawning=spawning, answer=answer)
        self._claims = Claims(
            js=js,
            outbox=outbox,
            node_id=node_id,
            tasks=lambda: self._group,
            won=self._start,
            lost=self._leave_to_others,
        )
        self.service = MicroService(
            conn,
            name="moonmesh",
            version=version,
            description=f"Functions of node {node_id}",
            metadata={"node": node_id},
        )
        self._add_functions(code.registry, offers, process_calls=process_calls)

    @property
    def offered(self) -> list[str]:
        """The ids of the functions on offer."""
        return sorted(self._functions)

    @property
    def functions(self) -> Mapping[str, Function]:
        """The functions on offer by id, with what they have done."""
        return self._functions

    @property
    def jobs(self) -> list[Job]:
        """The calls this host has taken and not answered, the oldest first."""
        return list(self._jobs.values())

    @property
    def running(self) -> int:
        """How many calls this host has."""
        return len(self._jobs)

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled. Ready once the server knows the subscriptions."""
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                for function in self._functions.values():
                    self._offer(function)
                self.service.start()
                await self._conn.flush()
                self._conn.check_permitted(self._requests)
                task_status.started()
                await anyio.sleep_forever()
        finally:
            self.service.stop()
            for subscription in [*self._requests, *self._subscriptions]:
                subscription.unsubscribe()
            for limit in self._limits.values():
                if limit.timer is not None:
                    limit.timer.cancel()
            self._lua.close()

    def share_limits(self, nodes_with: Callable[[Collection[str]], int]) -> None:
        """Take this node's share of what limits a whole task queue. nodes_with: how many live nodes offer any of these.

        To be called when the nodes of the mesh have changed.
        """
        for limit in self._limits.values():
            if limit.queue_per_second is not None:
                limit.share(nodes_with([function.id for function in limit.functions]))
                self._begin_limited(limit)

    async def drain(self, timeout_s: float) -> None:
        """Take no more calls and wait for those under way; what is left then is found lost by its owner.

        timeout_s: how long it waits, or longer if a worker says so.
        """
        timeout_s = max([timeout_s, *self._stop_timeouts_s])
        self._draining = True
        for subscription in self._requests:
            subscription.unsubscribe()
        for job in self._at_home.take_all():
            self._jobs.pop(job.identity, None)
            self._pass_on(job, 0)
        for function in self._functions.values():
            for job in [*function.waiting, *function.limited]:
                if job.limit is not None:
                    job.limit.release(job)
                self._jobs.pop(job.identity, None)
                self._pass_on(job, 0)
            function.waiting.clear()
        with anyio.move_on_after(timeout_s):
            while self._jobs:
                self._idle = anyio.Event()
                await self._idle.wait()
            await self._outbox.flush(timeout_s)
        if self._jobs:
            _log.warning("%d calls were still running after %g s and are left behind", len(self._jobs), timeout_s)

    def _add_functions(self, registry: Registry, offers: Callable[[str], bool], *, process_calls: bool) -> None:
        for entry_id, entry in registry.functions().items():
            if not offers(str(entry_id)):
                continue
            if isinstance(entry, LuaFunctionEntry):
                self._add(entry_id, entry.activity_worker, self._lua, *_places(entry.pool))
            elif isinstance(entry, PythonFunctionEntry):
                try:
                    self._python.add(entry)
                except PythonFunctionMissing as error:
                    _log.error("not offered: %s", error)
                else:
                    self._add(entry_id, entry.activity_worker, self._python, *_places(entry.pool))
        for entry_id, process in registry.processes().items():
            # A process that says on which host it runs can be called (contract 10.5), by whoever has that host.
            if process_calls and process.default_host is not None and offers(str(process.default_host)):
                self._processes.add(process, process.default_host)
                self._add(entry_id, process.activity_worker, self._processes, PROCESS_CALLS_MAX, PROCESS_CALLS_MAX)

    def _add(self, entry_id: EntryId, worker: EntryId | None, runner: Runner, size_max: int, buffer: int) -> None:
        limit = self._limits.get(worker) if worker is not None else None
        function = self._functions[str(entry_id)] = Function(str(entry_id), runner, size_max, buffer, limit)
        if limit is not None:
            limit.functions.append(function)

    def _offer(self, function: Function) -> None:
        request = function_request(function.id)
        function.endpoint = self.service.add(function.id, request, QUEUE_GROUP)

        def on_request(_subject: str, reply: str, data: bytes, raw_headers: bytes | None) -> None:
            self._on_request(function, reply, data, raw_headers)

        def on_who(subject: str, reply: str, data: bytes, _raw_headers: bytes | None) -> None:
            self._on_who(subject, reply, data)

        def on_stop(_subject: str, _reply: str, data: bytes, raw_headers: bytes | None) -> None:
            self._on_stop(data, raw_headers)

        self._requests.append(self._conn.subscribe_direct(request, on_request, queue=QUEUE_GROUP))
        self._subscriptions.append(self._conn.subscribe_direct(function_who(function.id), on_who))
        self._subscriptions.append(self._conn.subscribe_direct(function_stop(function.id), on_stop))

    # -- requests ----------------------------------------------------------------------------------------------

    def _on_request(self, function: Function, reply: str, data: bytes, raw_headers: bytes | None) -> None:
        if not reply:
            self._refusals.note(
                "a call of %s without a reply subject is ignored", function.id, extra={"function": function.id}
            )
            return
        if not may_be_answered(reply):
            text = "a call of %s that is to be answered on %s is ignored: nobody's inbox"
            self._refusals.note(text, function.id, reply, extra={"function": function.id})
            return
        hops, once, identity = 0, False, reply
        if raw_headers is not None:
            once = HEADER_RUN_ONCE.encode() in raw_headers
            identity = identity_in(raw_headers) or reply
            at = raw_headers.find(HOPS_LINE)
            if at >= 0:
                digits = raw_headers[at + len(HOPS_LINE) :].split(b"\r\n", 1)[0]
                hops = int(digits) if digits.isdigit() else HOPS_MAX
        data = self._conn.opened(request_context(function_request(function.id), identity), data)
        if identity in self._jobs:
            return  # asked again for what is under way here
        limit = function.limit
        if limit is not None and not reply.startswith(WORKFLOW_REPLY):
            limit = None
        job = Job(function, reply, data, once, identity, limit)
        if raw_headers is not None:
            job.trace = read_context(raw_headers)
            job.serves = value_of(raw_headers, FOR_LINE)
        if data[:3] == ENCRYPTED:
            self._pass_on_unread(job, hops)
            return
        self._accept(job, hops)

    def take(self, function_id: str, ret: str, request: bytes, trace: TraceContext | None, *, once: bool) -> bool:
        """Take a call of a workflow of this node straight from its owner; False: it has to be sent to the queue group.

        It is begun in the loop's next turn, and from now on this host answers for it as for any other.
        """
        function = self._functions.get(function_id)
        if (
            function is None
            or self._draining
            or self._tasks is None
            or function.waiting
            or function.limited
            or function.is_full
            or not self._at_home.may_stay(function.inline_s, len(request))
        ):
            return False
        if ret in self._jobs:
            return True
        job = self._jobs[ret] = Job(function, ret, request, once, ret, function.limit, trace=trace)
        if not self._at_home.jobs:
            self._loop.call_soon(self._begin_at_home)
        self._at_home.add(job, function.inline_s)
        return True

    def _begin_at_home(self) -> None:
        for job in self._at_home.take_all():
            try:
                self._accept(job, 0)
            except Exception:
                # As with a request from outside: whatever it is, it must not take others with it.
                _log.exception("a call of %s could not be begun", job.function.id, extra=job.about())

    def _accept(self, job: Job, hops: int) -> None:
        """Begin a call, have it wait, or pass it on."""
        function, limit = job.function, job.limit
        begins = function.running < function.size_max and (limit is None or limit.admits(function, time.monotonic()))
        if self._draining or (
            not begins
            and len(function.waiting) + len(function.limited) >= function.buffer
            and hops < HOPS_MAX
            and not job.reply.startswith(OTHER_ACCOUNT)
        ):
            self._jobs.pop(job.identity, None)
            self._pass_on(job, hops)
            return
        self._jobs[job.identity] = job
        if begins:
            self._begin(job)
            return
        job.waits_since_s = time.monotonic()
        if limit is None:
            function.waiting.append(job)
        else:
            limit.hold(job)
            self._begin_limited(limit)

    def _pass_on_unread(self, job: Job, hops: int) -> None:
        """Somebody else may have the key; nobody: whoever calls finds out that no host has the call."""
        self._refusals.note("a call of %s is %s", job.function.id, why_closed(job.request), extra=job.about())
        if hops < HOPS_MAX:
            self._pass_on(job, hops)

    def _pass_on(self, job: Job, hops: int) -> None:
        job.function.counts.passed_on += 1
        if job.reply.startswith(OTHER_ACCOUNT):
            # The way back is the server's own, and a client may not name it as the reply of another request.
            failure = Failure(f"the node that was to run {job.function.id} leaves; call again", Kind.UNAVAILABLE, True)
            with suppress(Disconnected):
                self._answers.publish(job, codec.encode_failure(failure))
            return
        headers = {HEADER_HOPS: str(hops + 1)}
        if job.identity != job.reply:
            headers[HEADER_CALL] = job.identity
        if job.once:
            headers[HEADER_RUN_ONCE] = "1"
        if job.serves:
            headers[HEADER_FOR] = job.serves
        if job.trace is not None:
            headers |= job.trace.headers
        try:
            subject = function_request(job.function.id)
            context = request_context(subject, job.identity)
            self._conn.publish_nowait(subject, job.request, job.reply, headers, context=context)
        except (Disconnected, InvalidName, PayloadTooLarge):
            # A reply subject may leave no room for that of the request, and what was taken at home need not fit.
            return  # its owner asks after it

    def _on_who(self, subject: str, reply: str, data: bytes) -> None:
        try:
            wanted = codec.decode(data)
        except Undecodable:
            wanted = None
        if not reply or not isinstance(wanted, list) or not may_be_answered(reply, outcomes=False):
            self._refusals.note("a question after calls that cannot be read or answered is ignored (reply %r)", reply)
            return
        now, unrecorded = time.monotonic(), self._answers.unrecorded
        mine: list[HeldCall] = []
        for ret in wanted:
            if isinstance(ret, str) and ret in unrecorded:
                mine.append(HeldCall(ret, 0.0, unrecorded[ret]))
                continue
            job = self._jobs.get(ret) if isinstance(ret, str) else None
            if job is not None:
                mine.append(HeldCall(ret, now - job.begun_s if job.begun_s else 0.0))
        try:
            # Among them may be outcomes.
            self._conn.publish_nowait(reply, encode_held(mine), context=answer_context(subject))
        except Disconnected:
            return

    def _on_stop(self, data: bytes, raw_headers: bytes | None) -> None:
        try:
            unwanted = codec.decode(data)
        except Undecodable:
            unwanted = None
        if not isinstance(unwanted, list):
            self._refusals.note("a request to stop calls that cannot be read is ignored: %r", data[:80])
            return
        # Of a workflow's call everybody can know what it is asked after by, and only an owner says that it is over.
        others = is_from_another_account(raw_headers)
        for ret in unwanted:
            job = self._jobs.get(ret) if isinstance(ret, str) else None
            if job is not None and not (others and job.reply.startswith(WORKFLOW_REPLY)):
                self._ask_to_stop(job)

    def _ask_to_stop(self, job: Job) -> None:
        job.unwanted = True
        if job.stop is not None:
            job.stop()
        elif job.waits_since_s and not job.begun_s:
            function = job.function
            if job.limit is None:
                function.waiting.remove(job)
            else:
                job.limit.release(job)
                job.limit = None  # it was never counted there
            function.running += 1  # `_leave` takes it back
            job.begun_s = time.monotonic()
            self._answers.give(job, codec.encode_failure(Failure("canceled", Kind.CANCELED, False)))

    # -- running -----------------------------------------------------------------------------------------------

    def _begin(self, job: Job) -> None:
        job.function.running += 1
        if job.limit is not None:
            job.limit.throttle.begin()
        job.begun_s = now = time.monotonic()
        waits = job.function.counts.waits
        if job.waits_since_s:
            waits.observe(now - job.waits_since_s)
        else:
            waits.observe_none()
        if self._tracing is not None:
            self._begin_span(self._tracing, job)
        if job.once and job.reply.startswith(WORKFLOW_REPLY):
            self._claims.make(job)
        else:
            self._start(job)

    def _leave_to_others(self, job: Job, reason: MeshError | None) -> None:
        _log.info("call %s is another host's%s", job.reply, f": {reason}" if reason else "", extra=job.about())
        self._leave(job)
        self._forget(job)

    def _start(self, job: Job) -> None:
        if is_reference(job.request):
            self._group.start_soon(self._start_fetched, job)
        else:
            job.function.runner.start(job)

    async def _start_fetched(self, job: Job) -> None:
        """Run a call whose arguments are in an object store, once they are here."""
        failure = await self._large.fetch_arguments(job)
        if failure is not None:
            self._answers.give(job, codec.encode_failure(failure))
        elif not job.ended:
            job.function.runner.start(job)

    @staticmethod
    def _begin_span(tracing: Tracing, job: Job) -> None:
        function = job.function.id
        attributes = {"mesh.function": function, "messaging.system": "nats", "messaging.operation.type": "process"}
        key = parse_workflow(job.reply) if job.reply.startswith(WORKFLOW_REPLY) else None
        if key is not None:
            attributes["mesh.workflow_id"] = key[0].id
        job.span = tracing.function(function, job.trace, attributes)
        job.trace = job.span.context

    def _leave(self, job: Job) -> None:
        """A call runs no more: others may have its place."""
        function = job.function
        function.running -= 1
        if job.limit is not None:
            job.limit.throttle.leave()
        if function.waiting:
            self._begin_waiting(function)
        if function.limit is not None and function.limit.waiting:
            self._begin_limited(function.limit)

    def _forget(self, job: Job) -> None:
        """Nobody needs to ask after a call any more."""
        self._jobs.pop(job.identity, None)
        if not self._jobs:
            self._idle.set()

    def _begin_waiting(self, function: Function) -> None:
        """Begin what waits for a place of a function and for nothing else."""
        # A call that ends at once comes by here again while it is begun; going on from there would pile them up.
        if function.beginning:
            return
        function.beginning = True
        try:
            while function.waiting and not function.is_full:
                if function.limit is not None and function.limited_first:
                    waiting = len(function.limited)
                    self._begin_limited(function.limit)
                    if len(function.limited) < waiting:
                        continue
                self._begin(function.waiting.popleft())
        finally:
            function.beginning = False

    def _begin_limited(self, limit: WorkerLimit) -> None:
        """Begin what the limit of a worker allows by now; come back when it allows more."""
        if limit.beginning:
            return
        limit.beginning = True
        if limit.timer is not None:
            limit.timer.cancel()
            limit.timer = None
        try:
            while (job := limit.next()) is not None:
                wait_s = limit.throttle.wait_s(time.monotonic())
                if wait_s is None:
                    return  # whoever leaves comes by here
                if wait_s > 0.0:
                    limit.timer = self._loop.call_later(max(wait_s, TIMER_S_MIN), self._begin_limited, limit)
                    return
                limit.release(job)
                self._begin(job)
        finally:
            limit.beginning = False

    @property
    def _group(self) -> anyio.abc.TaskGroup:
        if self._tasks is None:
            raise RuntimeError("the function host is not running")
        return self._tasks


def _places(pool: PoolSpec) -> tuple[int, int]:
    """How many calls of a function run at once and how many wait."""
    if not pool.size_max:
        return sys.maxsize, pool.buffer or BUFFER_OF_UNLIMITED
    return pool.size_max, pool.buffer or pool.size_max * 64
