"""The Lua VMs that the workflows of an engine run in.

One VM is shared by all, as long as it lasts: what workflows leave behind in it is where the next ones go. (A new VM
every 20,000 workflows left each of the old ones with its 28 MB until the last of its runs was gone.) A workflow that
was running when the VM ran out of memory gets one of its own, until it is clear that it is at fault.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mesh.events import StartSpec
from node.machine.vm import LuaVM
from node.workflows.instances import Instance
from node.workflows.opening import Opening
from node.workflows.run import Run


class VMs:
    """Opens the runs of an engine."""

    def __init__(self, opening: Opening) -> None:
        self._opening = opening
        self._shared = LuaVM()

    def new_run(self, instance: Instance, run_id: int, spec: StartSpec, marks: Mapping[str, Any]) -> Run:
        """A run before its first event; it opens its machine when it needs one."""
        return self._opening.new_run(instance.key, run_id, spec, marks, vm=lambda: self._vm_for(instance))

    def replace_shared(self) -> None:
        """Open machines in a new VM from now on; the old one goes with its last machine."""
        self._shared = LuaVM()

    def _vm_for(self, instance: Instance) -> LuaVM:
        return LuaVM() if instance.quarantined else self._shared
