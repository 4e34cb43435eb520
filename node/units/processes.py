"""The process host: runs the processes of a node.

Thousands of processes live in one Lua VM on the event loop and take turns there; messages between them never leave
Lua. A step of a process is short by its limits (`node.machine.vm`), so none can hold the others up for long; long
computing belongs into a function, which has a thread.

A VM's memory is shared. When one is nearly full, the process that holds most of it is ended if it holds much more than
its share; if all are modest, new processes go to another VM. When it is crowded all the same, the heaviest is ended,
modest or not: with the VM all would be lost.

Invariants: a process is in exactly one VM for as long as it lives; whatever ends it, `Farewells` hears of it once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

from mesh import codec
from mesh.failure import Failure, Kind
from node.machine.code import Code, CodeMissing
from node.machine.vm import VM_CROWDED_KB, MachineFailed, NoRoom, Op, OutOfMemory, ProcessVM, UnitIdentity
from node.units.farewells import Farewells
from node.units.live import LiveDriver, now_ns
from node.units.table import UnitTable
from node.units.unit import LiveUnit

SLICE_S: Final = 0.002  # processes run this long before the loop looks at the network again
DRAIN_EVENTS: Final = 256
OPS_AT_ONCE: Final = 64  # of one process, before the clock is looked at
OPS_SLICE_S: Final = 0.01  # what processes ask for is carried out for this long before the loop looks at the network
PROCESSES_MAX: Final = 100_000  # of a node, whatever their size
VMS_MAX: Final = 20  # of a node, for processes: with VM_FULL_KB, its memory
# Collecting 100 MB of small tables stops the loop for 30 to 50 ms, counting them for 400: so VMs are small, and a node
# may have many.
VM_LOOK_KB: Final = 96 * 1024  # a VM that holds this much is looked into, and again each time it has grown by a third
VM_FULL_KB: Final = 128 * 1024  # above it, no new processes
PROCESS_KB_MAX: Final = 64 * 1024
HEAVY_LOOKS: Final = 8
HEAVY_LOOK_S: Final = 0.5  # calls are given up, and nodes taken for gone, that are silent for longer than a second

_log = logging.getLogger(__name__)


class ProcessUnit(LiveUnit):
    """A process of this node."""

    __slots__ = ("_room", "cell", "handle", "host_id", "posted")

    def __init__(self, pid: str, entry_id: str, host_id: str, cell: Cell, handle: int) -> None:
        super().__init__(pid, entry_id)
        self.host_id = host_id
        self.handle = handle
        self.cell = cell
        self.posted = 0  # events that have not reached the VM
        self._room = cell.vm.unread_max

    @property
    def unread_max(self) -> int:
        """How many messages it takes that it does not read."""
        return self.cell.vm.unread_max

    def is_full(self) -> bool:
        """Whether it has so many unread messages that it takes no more; to be asked before each.

        They are counted only when it may be so: what has come since is at least what there is more.
        """
        self._room -= 1
        if self._room < 0:
            self._room = max(self.unread_max - self.unread - self.posted - 1, -1)
        return self._room < 0

    @property
    def unread(self) -> int:
        """How many messages it has that it has not read."""
        return self.cell.vm.unread(self.handle)

    def post(self, verb: str, a: Any = None, b: Any = None, c: Any = None) -> None:
        """Have it handle an event after those that it has already."""
        self.posted += 1
        self.cell.post(self.handle, verb, a, b, c)

    def kill(self, failure: Failure) -> None:
        """End it now."""
        self.cell.end(self, codec.encode_failure(failure))


class Cell:
    """A VM and the processes in it. `on_ops` is called with what a process asks for."""

    def __init__(
        self, on_ops: Callable[[ProcessUnit, Sequence[Op]], None], on_end: Callable[[ProcessUnit, bytes], None]
    ) -> None:
        self.vm = ProcessVM()
        self.units: dict[int, ProcessUnit] = {}
        self._on_ops = on_ops
        self._on_end = on_end
        self._posted: deque[tuple[int, str, Any, Any, Any]] = deque()
        self._due: deque[tuple[ProcessUnit, Sequence[Op]]] = deque()  # asked for and not carried out yet
        self._draining = False
        self._scheduled = False
        self._more = False
        self._look_at_kb = VM_LOOK_KB
        self._weighed_kb = 0  # what was in use when processes were weighed
        self._loop = asyncio.get_running_loop()

    @property
    def is_full(self) -> bool:
        """Whether new processes had better go elsewhere."""
        return self.vm.memory_kb > VM_FULL_KB

    def post(self, handle: int, verb: str, a: Any, b: Any, c: Any) -> None:
        """Hand an event to a process; it runs at once, unless processes are running already."""
        self._posted.append((handle, verb, a, b, c))
        if not self._draining and not self._scheduled:
            self._drain()

    def end(self, unit: ProcessUnit, outcome: bytes) -> None:
        """End a process and forget it."""
        if self.units.pop(unit.handle, None) is not None:
            self.vm.close(unit.handle)
            self._on_end(unit, outcome)

    def _drain(self) -> None:
        self._scheduled = False
        self._draining = True
        ends_s = time.monotonic() + OPS_SLICE_S
        try:
            for _ in range(DRAIN_EVENTS):
                if not self._carry_out_until(ends_s):
                    break
                if not self._posted and not self._more:
                    break
                self._turn()
                if self._more:
                    self._carry_out_until(ends_s)
                    break  # the slice is used up
        except MachineFailed as error:
            self.lost(error)
        finally:
            self._draining = False
        if (self._posted or self._more or self._due) and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._drain)

    def _turn(self) -> None:
        """Post the next event and let processes take their turns."""
        handle, verb, a, b, c = self._posted.popleft() if self._posted else (0, "", None, None, None)
        if verb:
            receiver = self.units.get(handle)
            if receiver is None:
                return
            receiver.posted -= 1
        while True:
            try:
                self._more, found = self.vm.turn(now_ns(), SLICE_S, handle, verb, a, b, c)
                break
            except NoRoom:
                self._look_for_hog()
                if not self._end_heaviest(0, VM_FULL_KB):
                    raise
                if handle not in self.units:
                    return
        for owner, ops in found:
            unit = self.units.get(owner)
            if unit is not None:
                self._due.extend((unit, ops[i : i + OPS_AT_ONCE]) for i in range(0, len(ops), OPS_AT_ONCE))
        if self.vm.memory_kb > self._look_at_kb:
            self._look_for_hog()

    def _carry_out_until(self, ends_s: float) -> bool:
        """Carry out what processes have asked for; whether all of it is."""
        while self._due:
            unit, ops = self._due.popleft()
            if unit.ended:
                continue
            try:
                self._on_ops(unit, ops)
            except Exception as error:  # whatever it is, it must not take what others have asked for with it
                _log.exception("what %s asked for failed in the node", unit.pid, extra=unit.about())
                self.end(
                    unit, codec.encode_failure(Failure(f"the node failed at this process: {error}", Kind.INTERNAL))
                )
            if self._due and time.monotonic() > ends_s:
                return False
        return True

    def _look_for_hog(self) -> None:
        """Something has taken much memory: end it, if it is one process; when little is left, end the heaviest."""
        # Garbage alone brings us here, too: collecting it is enough, unless more is in use than when they were weighed.
        from_kb = min(max(VM_LOOK_KB, self._weighed_kb * 9 // 8), VM_CROWDED_KB)
        while self._end_heaviest(PROCESS_KB_MAX, VM_CROWDED_KB, from_kb):
            pass
        in_use_kb = self.vm.memory_kb
        self._weighed_kb = in_use_kb if in_use_kb >= from_kb else min(self._weighed_kb, in_use_kb)
        self._look_at_kb = max(VM_LOOK_KB, min(self.vm.memory_kb * 4 // 3, VM_CROWDED_KB))

    def _end_heaviest(self, kb_max: int, crowded_kb: int, from_kb: int = 0) -> bool:
        """End the heaviest process if it holds over kb_max, or the VM over crowded_kb; whether it was ended.

        Nobody is looked at while less than from_kb is in use.
        """
        handle, kb = self.vm.heaviest(HEAVY_LOOKS, HEAVY_LOOK_S, PROCESS_KB_MAX, from_kb)
        unit = self.units.get(handle)
        if unit is None or (kb < kb_max and self.vm.memory_kb < crowded_kb):
            return False
        text = (
            f"the process holds about {kb // 1024} MB, at most {PROCESS_KB_MAX // 1024} MB are possible, less when "
            "many hold much; keep large data in a store or in files"
        )
        # Whether it would grow again nobody can say: what supervises it may start it again.
        self.end(unit, codec.encode_failure(Failure(text, Kind.INTERNAL)))
        return True

    def lost(self, error: MachineFailed) -> None:
        """The VM cannot go on: all its processes have ended."""
        _log.error("a VM with %d processes is lost: %s", len(self.units), error)
        self._posted.clear()
        self._due.clear()
        self._more = False
        units, self.units = list(self.units.values()), {}
        self.vm = ProcessVM()
        self._look_at_kb, self._weighed_kb = VM_LOOK_KB, 0
        reason = "ran out of memory" if isinstance(error, OutOfMemory) else "failed"
        outcome = codec.encode_failure(Failure(f"the Lua VM of this process {reason}", Kind.INTERNAL))
        for unit in units:
            self._on_end(unit, outcome)


class ProcessHost:
    """All process hosts of a node. host_ids: the entries it runs. processes_max: of all of them together."""

    processes_max = PROCESSES_MAX

    def __init__(
        self, *, code: Code, units: UnitTable, farewells: Farewells, driver: LiveDriver, host_ids: Collection[str]
    ) -> None:
        self.host_ids = set(host_ids)
        self._code = code
        self._units = units
        self._farewells = farewells
        self._driver = driver
        self._entries = {str(entry_id) for entry_id in code.registry.processes()}
        self._cells: list[Cell] = []
        self._names: dict[str, str] = {}

    def runs(self, host_id: str) -> bool:
        """Whether this node runs a host."""
        return host_id in self.host_ids

    @property
    def units(self) -> list[ProcessUnit]:
        """The processes there are."""
        return [unit for cell in self._cells for unit in cell.units.values()]

    def longest_mailboxes(self, most: int) -> list[tuple[ProcessUnit, int]]:
        """The processes with most to read, at most so many, and how many messages that is."""
        found = [
            (unit, count)
            for cell in self._cells
            for handle, count in cell.vm.longest_mailboxes(most).items()
            if (unit := cell.units.get(handle)) is not None
        ]
        return sorted(found, key=lambda item: -item[1])[:most]

    @property
    def running(self) -> int:
        """How many processes there are."""
        return sum(len(cell.units) for cell in self._cells)

    def create(self, entry_id: str, host_id: str, request: bytes) -> ProcessUnit | Failure:
        """Make a process and run its chunks; its main function runs after `begin`."""
        if entry_id not in self._entries:
            return Failure(f"factory not found: this node has no process {entry_id}", Kind.NOT_FOUND, False)
        if self.running >= self.processes_max:
            text = f"this node runs {self.running} processes already, which is the most that it takes"
            return Failure(text, Kind.RATE_LIMITED, False)
        cell = self._cell()
        if cell is None:
            text = f"the {VMS_MAX} Lua VMs of this node are full; let processes end, or run more nodes"
            return Failure(text, Kind.UNAVAILABLE, False)
        pid = self._units.new_pid(host_id)
        try:
            spec = self._code.prepare(cell.vm, "process", entry_id)
            handle, failure = cell.vm.spawn(spec, UnitIdentity(pid=pid), request, now_ns())
        except CodeMissing as error:
            return Failure(str(error), Kind.INVALID, False)
        except NoRoom as error:
            return Failure(str(error), Kind.UNAVAILABLE, False)
        except MachineFailed as error:
            cell.lost(error)
            return Failure(str(error), Kind.INTERNAL, False)
        if failure is not None:
            _, why = codec.decode_outcome(failure)
            return why if isinstance(why, Failure) else Failure(str(why), Kind.INTERNAL)
        unit = ProcessUnit(pid, entry_id, host_id, cell, handle)
        cell.units[handle] = unit
        return unit

    def begin(self, unit: LiveUnit) -> None:
        """Let its main function run."""
        unit.post("go")

    def name_changed(self, name: str, pid: str | None) -> None:
        """Tell the VMs whom a name stands for, so that messages need not leave them."""
        if pid is None:
            self._names.pop(name, None)
        else:
            self._names[name] = pid
        for cell in self._cells:
            try:
                cell.vm.name(name, pid)
            except MachineFailed as error:
                cell.lost(error)

    def _cell(self) -> Cell | None:
        """A VM for another process; None when all that there may be are full."""
        for cell in self._cells:
            if not cell.is_full:
                return cell
        if len(self._cells) >= VMS_MAX:
            return None
        cell = Cell(self._carry_out, self._ended)
        for name, pid in self._names.items():
            cell.vm.name(name, pid)
        self._cells.append(cell)
        return cell

    def _carry_out(self, unit: ProcessUnit, ops: Sequence[Op]) -> None:
        for op in ops:
            if op.kind != "end":
                self._driver.carry_out(unit, op)
            elif op.target == "continue":
                self._upgrade(unit, op)
            else:
                if op.target in ("raised", "doomed", "broken"):
                    self._driver.log_failure(unit, op.payload or codec.NIL_OUTCOME)
                unit.cell.end(unit, op.payload or codec.NIL_OUTCOME)
            if unit.ended:
                break

    def _upgrade(self, unit: ProcessUnit, op: Op) -> None:
        entry_id = str(codec.unpack(op.options or b"\x80").get("entry") or unit.entry_id)
        unit.drop_pending()
        self._driver.code_replaced(unit.pid)
        cell = unit.cell
        if entry_id not in self._entries:
            text = f"factory not found: cannot upgrade {unit.entry_id} to {entry_id}, this node has no such process"
            cell.end(unit, codec.encode_failure(Failure(text, Kind.NOT_FOUND, False)))
            return
        try:
            spec = self._code.prepare(cell.vm, "process", entry_id)
            failure = cell.vm.upgrade(unit.handle, spec, op.payload or b"", now_ns())
        except CodeMissing as error:
            failure = codec.encode_failure(Failure(str(error), Kind.INVALID, False))
        except MachineFailed as error:
            cell.lost(error)
            return
        if failure is not None:
            cell.end(unit, failure)
            return
        unit.entry_id = entry_id
        unit.post("go")

    def _ended(self, unit: ProcessUnit, outcome: bytes) -> None:
        self._farewells.ended(unit, outcome)
