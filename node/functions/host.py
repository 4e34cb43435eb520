"""The function host: runs calls that arrive on `mesh.fn` and answers on their reply subject.

A call of a workflow has the outcome's subject as its reply, so the answer is a stored event: it is repeated until the
server acknowledges it. A call that may run only once is claimed in the history first; who does not get the claim
stays silent. A host that is full passes the call on to another one of the queue group.

Short Lua functions run on the event loop, which saves the two changes of thread that cost more than the call; those
that compute for long or wait run in lanes (`node.functions.lanes`). Python functions run in worker threads or, when
async, on the loop. What a Lua function asks of the world is carried out by the live driver.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import anyio
import anyio.abc
import anyio.to_thread

from mesh import codec
from mesh.connection import Connection, DirectSubscription
from mesh.errors import Disconnected, MeshError, PayloadTooLarge, Undecodable
from mesh.failure import Failure, Kind
from mesh.outbox import Ack, Outbox
from mesh.pids import TOPOLOGY
from mesh.subjects import claim_of_ret, function_request, function_stop, function_who
from node.functions.lanes import Lane, Lanes
from node.functions.micro import Endpoint, MicroService
from node.machine.code import Code, CodeMissing
from node.machine.vm import LuaMachine, LuaVM, MachineFailed, Op, OutOfMemory
from node.registry import LuaFunctionEntry, ProcessEntry, PythonFunctionEntry
from node.units.live import LiveDriver, now_ns
from node.units.switchboard import SpawnRequest, Switchboard
from node.units.unit import LiveUnit
from node.workflows.calls import HEADER_ONCE

HOPS_MAX: Final = 5  # how often a call is passed on before it waits where it is
HEADER_HOPS: Final = b"Mesh-Hops: "
PYTHON_THREADS_MAX: Final = 64
PROCESS_CALLS_MAX: Final = 10_000  # calls that run as processes: a process is light
QUEUE_GROUP: Final = "q"  # ADR-32
# A call that runs on the event loop may take this much, about 2 ms, before it is moved to a lane.
INLINE_INSTRUCTIONS_MAX: Final = 100_000
INLINE_MEMORY_BYTES_MAX: Final = 8 * 1024 * 1024
INLINE_PAUSE_S: Final = 60.0
_REQUEST_PREFIX: Final = codec.MARKER + b"\x92"

_log = logging.getLogger(__name__)


class PythonFunctionMissing(MeshError):
    """Raised when a `function.python` entry names something that cannot be imported or called."""

    code = "python-function-missing"


@dataclass(slots=True)
class Job:
    """A call that was taken. reply: where the outcome goes; its identity too."""

    function: Function
    reply: str
    request: bytes
    once: bool
    begun_s: float = 0.0
    unit: CallUnit | None = None
    stop: Callable[[], None] | None = None
    unwanted: bool = False
    ended: bool = False


class CallUnit(LiveUnit):
    """A call of a Lua function that runs on a lane, as a unit with a PID and a mailbox."""

    __slots__ = ("_host", "job", "lane", "machine")

    def __init__(self, pid: str, job: Job, host: FunctionHost, lane: Lane, machine: LuaMachine) -> None:
        super().__init__(pid, job.function.id)
        self.job = job
        self.lane = lane
        self.machine = machine
        self._host = host

    def post(self, verb: str, a: Any = None, b: Any = None, c: Any = None) -> None:
        """Have it handle an event on its lane."""
        self._host.feed_lua(self, verb, a, b, c)

    def kill(self, failure: Failure) -> None:
        """Answer the caller with this failure; what is still computing on the lane is heard no more."""
        self._host.kill_lua(self, failure)


@dataclass(slots=True)
class Function:
    """A function this node offers. running: calls under way; waiting: taken, not begun."""

    id: str
    entry: LuaFunctionEntry | PythonFunctionEntry | ProcessEntry
    size_max: int
    buffer: int
    python: Callable[..., Any] | None = None
    is_async: bool = False
    running: int = 0
    waiting: deque[Job] = field(default_factory=deque)
    endpoint: Endpoint | None = None
    inline: LuaMachine | None = None
    inline_after_s: float = 0.0  # monotonic; not tried inline before


class FunctionHost:
    """Offers the functions of a registry on the mesh, as one NATS micro service per node."""

    def __init__(
        self,
        *,
        conn: Connection,
        outbox: Outbox,
        code: Code,
        live: LiveDriver,
        switchboard: Switchboard,
        node_id: str,
        version: str,
        offers: Callable[[str], bool],
    ) -> None:
        self._conn = conn
        self._outbox = outbox
        self._code = code
        self._live = live
        self._switchboard = switchboard
        self._node_id = node_id
        self._functions: dict[str, Function] = {}
        self._jobs: dict[str, Job] = {}
        self._subscriptions: list[DirectSubscription] = []
        self._requests: list[DirectSubscription] = []
        self._draining = False
        self._closing = False
        self._idle = anyio.Event()
        self._lanes = Lanes()
        self._inline_vm = _inline_vm()
        self._threads = anyio.CapacityLimiter(PYTHON_THREADS_MAX)
        self._tasks: anyio.abc.TaskGroup | None = None
        self.service = MicroService(
            conn,
            name="moonmesh",
            version=version,
            description=f"Functions of node {node_id}",
            metadata={"node": node_id},
        )
        for entry_id, entry in code.registry.functions().items():
            if isinstance(entry, LuaFunctionEntry | PythonFunctionEntry) and offers(str(entry_id)):
                try:
                    self._functions[str(entry_id)] = _function(str(entry_id), entry)
                except PythonFunctionMissing as error:
                    _log.error("not offered: %s", error)
        for entry_id, process in code.registry.processes().items():
            # A process that says on which host it runs can be called (contract 10.5), by whoever has that host.
            if process.default_host is not None and offers(str(process.default_host)):
                size = PROCESS_CALLS_MAX
                self._functions[str(entry_id)] = Function(str(entry_id), process, size, size)

    @property
    def offered(self) -> list[str]:
        """The ids of the functions on offer."""
        return sorted(self._functions)

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
                task_status.started()
                await anyio.sleep_forever()
        finally:
            self._closing = True
            self.service.stop()
            for subscription in [*self._requests, *self._subscriptions]:
                subscription.unsubscribe()
            self._lanes.close()

    async def drain(self, timeout_s: float) -> None:
        """Take no more calls and wait for those under way; what is left then is found lost by its owner."""
        self._draining = True
        for subscription in self._requests:
            subscription.unsubscribe()
        for function in self._functions.values():
            while function.waiting:
                job = function.waiting.popleft()
                self._jobs.pop(job.reply, None)
                self._pass_on(job, 0)
        with anyio.move_on_after(timeout_s):
            while self._jobs:
                self._idle = anyio.Event()
                await self._idle.wait()
            await self._outbox.flush(timeout_s)
        if self._jobs:
            _log.warning("%d calls were still running after %g s and are left behind", len(self._jobs), timeout_s)

    def _offer(self, function: Function) -> None:
        request = function_request(function.id)
        function.endpoint = self.service.add(function.id, request, QUEUE_GROUP)

        def on_request(_subject: str, reply: str, data: bytes, raw_headers: bytes | None) -> None:
            self._on_request(function, reply, data, raw_headers)

        def on_who(_subject: str, reply: str, data: bytes, _raw_headers: bytes | None) -> None:
            self._on_who(reply, data)

        def on_stop(_subject: str, _reply: str, data: bytes, _raw_headers: bytes | None) -> None:
            self._on_stop(data)

        self._requests.append(self._conn.subscribe_direct(request, on_request, queue=QUEUE_GROUP))
        self._subscriptions.append(self._conn.subscribe_direct(function_who(function.id), on_who))
        self._subscriptions.append(self._conn.subscribe_direct(function_stop(function.id), on_stop))

    # -- requests ----------------------------------------------------------------------------------------------

    def _on_request(self, function: Function, reply: str, data: bytes, raw_headers: bytes | None) -> None:
        if not reply:
            _log.warning("a call of %s without a reply subject is ignored", function.id)
            return
        if reply in self._jobs:
            return  # asked again for what is under way here
        hops, once = 0, False
        if raw_headers is not None:
            once = HEADER_ONCE.encode() in raw_headers
            at = raw_headers.find(HEADER_HOPS)
            if at >= 0:
                digits = raw_headers[at + len(HEADER_HOPS) :].split(b"\r\n", 1)[0]
                hops = int(digits) if digits.isdigit() else HOPS_MAX
        job = Job(function, reply, data, once)
        if self._draining or (
            function.running >= function.size_max and len(function.waiting) >= function.buffer and hops < HOPS_MAX
        ):
            self._pass_on(job, hops)
            return
        self._jobs[reply] = job
        if function.running >= function.size_max:
            function.waiting.append(job)
        else:
            self._begin(job)

    def _pass_on(self, job: Job, hops: int) -> None:
        headers = {"Mesh-Hops": str(hops + 1)}
        if job.once:
            headers[HEADER_ONCE] = "1"
        try:
            self._conn.publish_nowait(function_request(job.function.id), job.request, job.reply, headers)
        except Disconnected:
            return  # its owner asks after it

    def _on_who(self, reply: str, data: bytes) -> None:
        try:
            wanted = codec.decode(data)
        except Undecodable:
            wanted = None
        if not reply or not isinstance(wanted, list):
            return
        now = time.monotonic()
        mine = []
        for ret in wanted:
            job = self._jobs.get(ret) if isinstance(ret, str) else None
            if job is not None:
                mine.append([ret, now - job.begun_s if job.begun_s else 0.0])
        try:
            self._conn.publish_nowait(reply, codec.encode(mine))
        except Disconnected:
            return

    def _on_stop(self, data: bytes) -> None:
        try:
            unwanted = codec.decode(data)
        except Undecodable:
            return
        for ret in unwanted if isinstance(unwanted, list) else ():
            job = self._jobs.get(ret) if isinstance(ret, str) else None
            if job is not None:
                self._ask_to_stop(job)

    def _ask_to_stop(self, job: Job) -> None:
        job.unwanted = True
        if job.stop is not None:
            job.stop()
        elif job in job.function.waiting:
            job.function.waiting.remove(job)
            job.function.running += 1  # `_leave` takes it back
            job.begun_s = time.monotonic()
            self._answer(job, codec.encode_failure(Failure("canceled", Kind.CANCELED, False)))

    # -- running -----------------------------------------------------------------------------------------------

    def _begin(self, job: Job) -> None:
        job.function.running += 1
        job.begun_s = time.monotonic()
        if not job.once or not job.reply.startswith("mesh.wf."):
            self._start(job)
            return

        def on_ack(ack: Ack) -> None:
            if ack.error is None:
                self._start(job)
            else:
                _log.info("call %s is another host's: %s", job.reply, ack.error)
                self._leave(job)

        self._outbox.write(
            claim_of_ret(job.reply), self._node_id.encode(), {"Nats-Expected-Last-Subject-Sequence": "0"}, on_ack
        )

    def _start(self, job: Job) -> None:
        function = job.function
        if isinstance(function.entry, ProcessEntry):
            self._spawn_process(job, function.entry)
        elif function.python is None:
            if not self._run_inline(job):
                self._start_lua(job)
        else:
            self._group.start_soon(self._run_python, job)

    def _answer(self, job: Job, outcome: bytes) -> None:
        if job.ended:
            return
        job.ended = True
        if job.unit is not None:
            self._switchboard.ended(job.unit, outcome)
        if function_endpoint := job.function.endpoint:
            function_endpoint.note(
                time.monotonic() - job.begun_s, failed=outcome[:3] == codec.FAILURE_PREFIX, outcome=outcome
            )
        if job.reply.startswith("mesh.wf."):

            def on_ack(ack: Ack) -> None:
                if isinstance(ack.error, PayloadTooLarge):
                    self._outbox.write(job.reply, _too_large(ack.error), None, lambda _ack: self._leave(job))
                    return
                if ack.error is not None:
                    _log.error("the outcome of %s is not recorded: %s", job.reply, ack.error)
                self._leave(job)

            self._outbox.write(job.reply, outcome, None, on_ack)
            return
        try:
            try:
                self._conn.publish_nowait(job.reply, outcome)
            except PayloadTooLarge as error:
                self._conn.publish_nowait(job.reply, _too_large(error))
        except Disconnected:
            _log.info("the caller of %s is not reached: the connection is down", job.function.id)
        self._leave(job)

    def _leave(self, job: Job) -> None:
        self._jobs.pop(job.reply, None)
        function = job.function
        function.running -= 1
        while function.waiting and function.running < function.size_max:
            self._begin(function.waiting.popleft())
        if not self._jobs:
            self._idle.set()

    # -- Python ------------------------------------------------------------------------------------------------

    async def _run_python(self, job: Job) -> None:
        outcome = codec.encode_failure(Failure("operation canceled", Kind.CANCELED, False))
        with anyio.CancelScope() as scope:
            job.stop = scope.cancel
            try:
                outcome = await self._python_outcome(job)
            except (Exception, SystemExit) as error:  # the function's own failure is an outcome
                outcome = _encode_failure_of(error)
            except asyncio.CancelledError:
                if scope.cancel_called or self._closing:
                    raise
                # Nobody cancelled this call: the function has let somebody else's cancellation out.
                outcome = codec.encode_failure(Failure("the function was cancelled from inside", Kind.INTERNAL))
        self._answer(job, outcome)

    async def _python_outcome(self, job: Job) -> bytes:
        call = job.function.python
        try:
            args = decode_request(job.request)
        except Undecodable as error:
            return codec.encode_failure(codec.undecodable_failure("request", error))
        if call is None:
            raise PythonFunctionMissing(job.function.id)
        if job.function.is_async:
            value = await call(*args)
        else:
            value = await anyio.to_thread.run_sync(lambda: call(*args), limiter=self._threads)
        try:
            return codec.encode_success(value)
        except (TypeError, ValueError, OverflowError) as error:
            return codec.encode_failure(Failure(f"the result cannot be sent: {error}", Kind.INVALID, False))

    # -- Lua ---------------------------------------------------------------------------------------------------

    def _spawn_process(self, job: Job, entry: ProcessEntry) -> None:
        try:
            request = _checked_request(job.request)
        except Undecodable as error:
            self._answer(job, codec.encode_failure(codec.undecodable_failure("request", error)))
            return
        watcher = self._switchboard.new_watcher(lambda outcome: self._answer(job, outcome))
        wish = SpawnRequest(str(entry.id), str(entry.default_host), request, monitor=True)
        outcome = self._switchboard.spawn_here(watcher.pid, wish)
        ok, pid = codec.decode_outcome(outcome)
        if not ok:
            watcher.post("ended", None, outcome)
            return

        def stop() -> None:
            unit = self._switchboard.get(pid)
            if unit is not None:
                unit.post("cancel", None, None, TOPOLOGY.encode())

        job.stop = stop

    def _run_inline(self, job: Job) -> bool:
        """Try to run a Lua call right here. False when it has to go to a lane; then nothing has happened.

        What a function does to the world leaves the kernel as ops at the end of an activation. So a call that takes
        too long, or that waits for something, can be dropped before anything of it is visible, and be run again from
        its beginning on a lane. Functions that turn out so go to lanes directly for a while.
        """
        function = job.function
        now = time.monotonic()
        if now < function.inline_after_s:
            return False
        pid = self._switchboard.new_pid(f"{function.id}#lua.0").encode()
        try:
            request = _checked_request(job.request)
            if function.inline is None:
                function.inline = self._inline_vm.open(self._code.prepare(self._inline_vm, "function", function.id))
            ops = function.inline.feed("request", now_ns(), request, pid)
        except (Undecodable, CodeMissing) as error:
            self._lua_failed(job, error)
            return True
        except MachineFailed:
            self._inline_vm = _inline_vm()
            for other in self._functions.values():
                other.inline = None
            function.inline_after_s = now + INLINE_PAUSE_S
            return False
        end = ops[-1] if ops else None
        if end is None or end.kind != "end" or end.target == "doomed" or any(op.n for op in ops):
            function.inline.close()
            function.inline = None
            function.inline_after_s = now + INLINE_PAUSE_S
            return False
        if end.target != "ok":
            function.inline.close()
            function.inline = None
        unit = LiveUnit(pid.decode(), function.id)
        for op in ops[:-1]:
            self._live.carry_out(unit, op)
        if end.target == "raised":
            self._live.log_failure(unit, end.payload or codec.NIL_OUTCOME)
        self._answer(job, end.payload or codec.NIL_OUTCOME)
        return True

    def _start_lua(self, job: Job) -> None:
        code, function_id, request = self._code, job.function.id, job.request

        def begin(lane: Lane) -> tuple[Lane, LuaMachine, str, Sequence[Op]]:
            marked = _checked_request(request)
            idle = lane.idle.get(function_id)
            machine = idle.pop() if idle else lane.vm.open(code.prepare(lane.vm, "function", function_id))
            return lane, machine, pid, _feed(lane, machine, "request", marked, pid.encode())

        def begun(result: tuple[Lane, LuaMachine, str, Sequence[Op]] | None, error: BaseException | None) -> None:
            if error is not None or result is None:
                self._lua_failed(job, error)
                return
            lane, machine, pid, ops = result
            unit = job.unit = CallUnit(pid, job, self, lane, machine)
            self._switchboard.add(unit)
            job.stop = lambda: unit.post("cancel", None, None, TOPOLOGY.encode())
            self._perform(unit, ops)
            if job.unwanted and not unit.ended:
                job.stop()  # they asked before there was anybody to be told

        pid = self._switchboard.new_pid(f"{function_id}#lua.1")
        self._lanes.submit(begin, begun)

    def _perform(self, unit: CallUnit, ops: Sequence[Op]) -> None:
        for op in ops:
            if op.kind == "end":
                self._end_lua(unit, op)
                return
            self._live.carry_out(unit, op)
            if unit.ended:
                return

    def feed_lua(self, unit: CallUnit, verb: str, a: Any, b: Any, c: Any) -> None:
        """Feed an event to a call on its lane and carry out what comes of it."""
        if unit.ended:
            return
        machine = unit.machine

        def work(lane: Lane) -> Any:
            return _feed(lane, machine, verb, a, b, c)

        def done(ops: Sequence[Op] | None, error: BaseException | None) -> None:
            if unit.ended:
                return
            if error is not None or ops is None:
                self._lua_failed(unit.job, error)
            else:
                self._perform(unit, ops)

        unit.lane.submit(work, done)

    def _end_lua(self, unit: CallUnit, op: Op) -> None:
        machine, function_id = unit.machine, unit.entry_id
        if op.target in ("raised", "doomed"):
            self._live.log_failure(unit, op.payload or codec.NIL_OUTCOME)
        if op.target == "ok":
            unit.lane.submit(lambda lane: lane.idle.setdefault(function_id, []).append(machine), lambda _r, _e: None)
        else:
            unit.lane.submit(lambda _lane: machine.close(), lambda _r, _e: None)
        self._answer(unit.job, op.payload or codec.NIL_OUTCOME)

    def kill_lua(self, unit: CallUnit, failure: Failure) -> None:
        """End a call without asking it."""
        machine = unit.machine
        unit.lane.submit(lambda _lane: machine.close(), lambda _r, _e: None)
        self._answer(unit.job, codec.encode_failure(failure))

    def _lua_failed(self, job: Job, error: BaseException | None) -> None:
        if isinstance(error, OutOfMemory):
            failure = Failure(f"{job.function.id} took more memory than a function may have", Kind.INTERNAL)
        elif isinstance(error, CodeMissing | Undecodable):
            failure = Failure(str(error), Kind.INVALID, False)
        else:
            _log.error("call of %s failed in the host: %r", job.function.id, error)
            failure = Failure(f"{job.function.id}: the host failed: {error}", Kind.INTERNAL)
        self._answer(job, codec.encode_failure(failure))

    @property
    def _group(self) -> anyio.abc.TaskGroup:
        if self._tasks is None:
            raise RuntimeError("the function host is not running")
        return self._tasks


def failure_of(error: BaseException) -> Failure:
    """What a Python exception says as a failure: attributes kind, retryable, details when it has them."""
    kind = getattr(error, "kind", None)
    retryable = getattr(error, "retryable", None)
    details = getattr(error, "details", None)
    if kind is None:
        kind = Kind.TIMEOUT if isinstance(error, TimeoutError) else Kind.INTERNAL
    return Failure(
        f"{type(error).__name__}: {error}" if not hasattr(error, "kind") else str(error),
        str(kind),
        retryable if isinstance(retryable, bool) else None,
        details if isinstance(details, Mapping) else {},
    )


def _encode_failure_of(error: BaseException) -> bytes:
    failure = failure_of(error)
    try:
        return codec.encode_failure(failure)
    except (TypeError, ValueError, OverflowError) as problem:
        note = {"note": f"details could not be sent: {problem}"}
        return codec.encode_failure(Failure(failure.message, failure.kind, failure.retryable, note))


def load_python(entry: PythonFunctionEntry) -> Callable[..., Any]:
    """Import the callable of an entry. Raises PythonFunctionMissing."""
    source = f"{entry.module}:{entry.attribute}"
    try:
        target: Any = importlib.import_module(entry.module)
        for part in entry.attribute.split("."):
            target = getattr(target, part)
    except Exception as error:  # whatever importing somebody's module raises
        raise PythonFunctionMissing(
            f"{entry.id}: {source} cannot be imported ({error}); is its directory on PYTHONPATH?"
        ) from error
    if not callable(target):
        raise PythonFunctionMissing(f"{entry.id}: {source} is no callable")
    return target  # type: ignore[no-any-return]  # an imported object is untyped


def _inline_vm() -> LuaVM:
    return LuaVM(instructions_max=INLINE_INSTRUCTIONS_MAX, step_memory_bytes_max=INLINE_MEMORY_BYTES_MAX)


def _function(function_id: str, entry: LuaFunctionEntry | PythonFunctionEntry) -> Function:
    size = entry.pool.size_max or 1
    function = Function(function_id, entry, size, entry.pool.buffer or size * 64)
    if isinstance(entry, PythonFunctionEntry):
        function.python = load_python(entry)
        function.is_async = inspect.iscoroutinefunction(function.python)
    return function


def _feed(lane: Lane, machine: LuaMachine, verb: str, a: Any = None, b: Any = None, c: Any = None) -> Any:
    try:
        return machine.feed(verb, now_ns(), a, b, c)
    except MachineFailed:
        # The VM cannot be trusted any more, nor what waits in it.
        lane.renew()
        raise


def _checked_request(data: bytes) -> bytes:
    """A request as the kernel reads it, [arguments, context]. Somebody else's JSON is the only argument."""
    if data[:2] == _REQUEST_PREFIX:
        codec.unpack(data[1:])
        return data
    value = codec.decode(data)
    return codec.encode([[] if value is None else [value], None])


def decode_request(data: bytes) -> list[Any]:
    """The arguments of a request. Raises Undecodable."""
    value = codec.decode(data)
    if data[:2] == _REQUEST_PREFIX and isinstance(value[0], list):
        return list(value[0])
    return [] if value is None else [value]


def _too_large(error: PayloadTooLarge) -> bytes:
    return codec.encode_failure(
        Failure(
            f"the result takes {error.payload_bytes} bytes, the server takes at most {error.payload_bytes_max}; "
            "return a reference",
            Kind.INVALID,
            False,
        )
    )
