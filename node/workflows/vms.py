"""The Lua VMs that the workflows of an engine run in.

One VM is shared by all; a workflow that was running when it ran out of memory gets one of its own, until it is clear
that it is at fault.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from mesh.events import StartSpec
from node.machine.vm import LuaVM
from node.workflows.instances import Instance
from node.workflows.opening import Opening
from node.workflows.run import Run

VM_UNITS_MAX: Final = 20_000  # a VM that has hosted that many is retired, so that its heap cannot fragment for ever


class VMs:
    """Opens the runs of an engine."""

    def __init__(self, opening: Opening) -> None:
        self._opening = opening
        self._shared = LuaVM()
        self._opened = 0

    def new_run(self, instance: Instance, run_id: int, spec: StartSpec, marks: Mapping[str, Any]) -> Run:
        """A run before its first event; it opens its machine when it needs one."""
        return self._opening.new_run(instance.key, run_id, spec, marks, vm=lambda: self._vm_for(instance))

    def replace_shared(self) -> None:
        """Open machines in a new VM from now on; the old one goes with its last machine."""
        self._shared, self._opened = LuaVM(), 0

    def _vm_for(self, instance: Instance) -> LuaVM:
        if instance.quarantined:
            return LuaVM()
        if self._opened >= VM_UNITS_MAX:
            self.replace_shared()
        self._opened += 1
        return self._shared
