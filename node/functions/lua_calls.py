"""Lua functions: short calls run on the event loop, all others in lanes.

On the loop a call saves the two changes of thread that cost more than the call itself; those that compute for long or
wait run in lanes (`node.functions.lanes`). What a function asks of the world is carried out by the live driver.
Not here: who may call when (`node.functions.host`).
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from typing import Any, ClassVar, Final

from mesh import codec
from mesh.errors import Undecodable
from mesh.failure import Failure, Kind
from mesh.pids import TOPOLOGY
from node.functions.call_bodies import checked_request
from node.functions.job import Answer, Job
from node.functions.lanes import Lane, Lanes
from node.machine.code import Code, CodeMissing
from node.machine.vm import LuaMachine, LuaVM, MachineFailed, Op, OutOfMemory
from node.units.live import LiveDriver, now_ns
from node.units.table import UnitTable
from node.units.unit import LiveUnit

# A call that runs on the event loop may take this much, about 2 ms, before it is moved to a lane.
INLINE_INSTRUCTIONS_MAX: Final = 100_000
INLINE_MEMORY_BYTES_MAX: Final = 8 * 1024 * 1024
INLINE_CPU_S: Final = 0.02  # for what counts few instructions but takes long: work on long texts
INLINE_PAUSE_S: Final = 60.0
# How far one call moves what is known of how long those of its function take.
RISES_TO: Final = 1.1
FALLS_TO: Final = 0.5

_log = logging.getLogger(__name__)


class CallUnit(LiveUnit):
    """A call of a Lua function that runs on a lane, as a unit with a PID and a mailbox."""

    __slots__ = ("_calls", "job", "lane", "machine")

    def __init__(self, pid: str, job: Job, calls: LuaCalls, lane: Lane, machine: LuaMachine) -> None:
        super().__init__(pid, job.function.id)
        self.trace, self.serves = job.trace, job.serves or job.reply
        self.job = job
        self.lane = lane
        self.machine = machine
        self._calls = calls

    def post(self, verb: str, a: Any = None, b: Any = None, c: Any = None) -> None:
        """Have it handle an event on its lane."""
        self._calls.feed(self, verb, a, b, c)

    def kill(self, failure: Failure) -> None:
        """Answer the caller with this failure; what is still computing on the lane is heard no more."""
        self._calls.kill(self, failure)


class LuaCalls:
    """Runs the calls of the Lua functions of a node."""

    kind: ClassVar = "lua"

    def __init__(self, *, code: Code, live: LiveDriver, units: UnitTable, answer: Answer) -> None:
        self._code = code
        self._live = live
        self._units = units
        self._answer = answer
        self._lanes = Lanes()
        self._inline_vm = _inline_vm()
        self._inline: dict[str, LuaMachine] = {}  # in that VM, by function
        self._inline_after_s: dict[str, float] = {}  # monotonic; a function is not tried inline before

    def start(self, job: Job) -> None:
        """Run a call."""
        if not self._run_inline(job):
            self._run_on_lane(job)

    def close(self) -> None:
        """End the lanes once they have nothing to do."""
        self._lanes.close()

    def _run_inline(self, job: Job) -> bool:
        """Try to run a Lua call right here. False when it has to go to a lane; then nothing has happened.

        What a function does to the world leaves the kernel as ops at the end of an activation. So a call that takes
        too long, or that waits for something, can be dropped before anything of it is visible, and be run again from
        its beginning on a lane. Functions that turn out so go to lanes directly for a while.
        """
        function, function_id = job.function, job.function.id
        now = time.monotonic()
        if now < self._inline_after_s.get(function_id, 0.0):
            return False
        pid = self._units.new_pid(f"{function_id}#lua.0").encode()
        try:
            request = checked_request(job.request)
            machine = self._inline.get(function_id)
            known = machine is not None  # else it is begun first, which takes longer
            if machine is None:
                machine = self._inline_vm.open(self._code.prepare(self._inline_vm, "function", function_id))
                self._inline[function_id] = machine
            ops = machine.feed("request", now_ns(), request, pid)
        except (Undecodable, CodeMissing) as error:
            self._failed(job, error)
            return True
        except MachineFailed:
            self._inline_vm = _inline_vm()
            self._inline.clear()
            self._inline_after_s[function_id] = now + INLINE_PAUSE_S
            function.inline_s = math.inf
            return False
        end = ops[-1] if ops else None
        alone = len(ops) == 1
        if end is None or end.kind != "end" or end.target == "doomed" or not (alone or all(op.n == 0 for op in ops)):
            self._inline.pop(function_id).close()
            self._inline_after_s[function_id] = now + INLINE_PAUSE_S
            function.inline_s = math.inf
            return False
        took_s = time.monotonic() - now
        if known:
            # Towards what this one took, but one that the system has interrupted says nothing.
            last_s = function.inline_s if function.inline_s < math.inf else took_s
            function.inline_s = min(max(took_s, last_s * FALLS_TO), last_s * RISES_TO)
        if end.target != "ok":
            self._inline.pop(function_id).close()
        if alone and end.target != "raised":
            self._answer(job, end.payload or codec.NIL_OUTCOME)
            return True
        unit = LiveUnit(pid.decode(), function_id)
        unit.trace, unit.serves = job.trace, job.serves or job.reply
        try:
            for op in ops[:-1]:
                self._live.carry_out(unit, op)
        except Exception as error:  # whatever it is, whoever called must not wait for ever
            self._answer(job, codec.encode_failure(_node_failed(unit.pid, error)))
            return True
        if end.target == "raised":
            self._live.log_failure(unit, end.payload or codec.NIL_OUTCOME)
        self._answer(job, end.payload or codec.NIL_OUTCOME)
        return True

    def _run_on_lane(self, job: Job) -> None:
        code, function_id, request = self._code, job.function.id, job.request

        def begin(lane: Lane) -> tuple[Lane, LuaMachine, str, Sequence[Op]]:
            marked = checked_request(request)
            idle = lane.idle.get(function_id)
            machine = idle.pop() if idle else lane.vm.open(code.prepare(lane.vm, "function", function_id))
            return lane, machine, pid, _feed(lane, machine, "request", marked, pid.encode())

        def begun(result: tuple[Lane, LuaMachine, str, Sequence[Op]] | None, error: BaseException | None) -> None:
            if error is not None or result is None:
                self._failed(job, error)
                return
            lane, machine, pid, ops = result
            unit = job.unit = CallUnit(pid, job, self, lane, machine)
            self._units.add(unit)
            job.stop = lambda: unit.post("cancel", None, None, TOPOLOGY.encode())
            self._perform(unit, ops)
            if job.unwanted and not unit.ended:
                job.stop()  # they asked before there was anybody to be told

        pid = self._units.new_pid(f"{function_id}#lua.1")
        self._lanes.submit(begin, begun)

    def _perform(self, unit: CallUnit, ops: Sequence[Op]) -> None:
        for op in ops:
            if op.kind == "end":
                self._end(unit, op)
                return
            try:
                self._live.carry_out(unit, op)
            except Exception as error:  # whatever it is, whoever called must not wait for ever
                self.kill(unit, _node_failed(unit.pid, error))
                return
            if unit.ended:
                return

    def feed(self, unit: CallUnit, verb: str, a: Any, b: Any, c: Any) -> None:
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
                self._failed(unit.job, error)
            else:
                self._perform(unit, ops)

        unit.lane.submit(work, done)

    def _end(self, unit: CallUnit, op: Op) -> None:
        machine, function_id = unit.machine, unit.entry_id
        if op.target in ("raised", "doomed"):
            self._live.log_failure(unit, op.payload or codec.NIL_OUTCOME)
        if op.target == "ok":
            unit.lane.submit(lambda lane: lane.idle.setdefault(function_id, []).append(machine), lambda _r, _e: None)
        else:
            unit.lane.submit(lambda _lane: machine.close(), lambda _r, _e: None)
        self._answer(unit.job, op.payload or codec.NIL_OUTCOME)

    def kill(self, unit: CallUnit, failure: Failure) -> None:
        """End a call without asking it."""
        machine = unit.machine
        unit.lane.submit(lambda _lane: machine.close(), lambda _r, _e: None)
        self._answer(unit.job, codec.encode_failure(failure))

    def _failed(self, job: Job, error: BaseException | None) -> None:
        if isinstance(error, OutOfMemory):
            failure = Failure(f"{job.function.id} took more memory than a function may have", Kind.INTERNAL)
        elif isinstance(error, CodeMissing | Undecodable):
            failure = Failure(str(error), Kind.INVALID, False)
        else:
            _log.error("call of %s failed in the host: %r", job.function.id, error, extra=job.about())
            failure = Failure(f"{job.function.id}: the host failed: {error}", Kind.INTERNAL)
        self._answer(job, codec.encode_failure(failure))


def _node_failed(pid: str, error: Exception) -> Failure:
    _log.exception("what %s asked for failed in the node", pid)
    return Failure(f"the node failed at this call: {error}", Kind.INTERNAL)


def _inline_vm() -> LuaVM:
    return LuaVM(
        instructions_max=INLINE_INSTRUCTIONS_MAX, step_memory_bytes_max=INLINE_MEMORY_BYTES_MAX, step_cpu_s=INLINE_CPU_S
    )


def _feed(lane: Lane, machine: LuaMachine, verb: str, a: Any = None, b: Any = None, c: Any = None) -> Any:
    try:
        return machine.feed(verb, now_ns(), a, b, c)
    except MachineFailed:
        # The VM cannot be trusted any more, nor what waits in it.
        lane.renew()
        raise
