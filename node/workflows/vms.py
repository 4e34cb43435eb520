"""The Lua VMs that the workflows of an engine run in, and the runs that are opened in them.

One VM is shared by all; a workflow that was running when it ran out of memory gets one of its own, until it is clear
that it is at fault.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Final

from mesh.events import StartSpec
from mesh.hosts import HostRecord
from node.machine.code import Code
from node.machine.vm import LuaVM, Machine, UnitIdentity
from node.workflows.instances import Instance
from node.workflows.run import Run

VM_UNITS_MAX: Final = 20_000  # a VM that has hosted that many is retired, so that its heap cannot fragment for ever


class VMs:
    """Opens runs. call_defaults: the call options of a function, by its id. log_in_replay: they log in replays too."""

    def __init__(
        self,
        code: Code,
        host: HostRecord,
        call_defaults: Callable[[str], Mapping[str, Any]],
        *,
        log_in_replay: bool = False,
    ) -> None:
        self._code = code
        self._host = host
        self._call_defaults = call_defaults
        self._log_in_replay = log_in_replay
        self._shared = LuaVM()
        self._opened = 0

    def new_run(self, instance: Instance, run_id: int, spec: StartSpec, marks: Mapping[str, Any]) -> Run:
        """A run before its first event; it opens its machine when it needs one."""

        def open_machine(run: Run) -> Machine:
            return self._open_machine(instance, run)

        return Run(
            instance.key, run_id, spec, open_machine=open_machine, call_defaults=self._call_defaults, marks=marks,
            id_token=instance.id_token, type_name=self._code.type_name(spec.workflow),
        )  # fmt: skip

    def replace_shared(self) -> None:
        """Open machines in a new VM from now on; the old one goes with its last machine."""
        self._shared, self._opened = LuaVM(), 0

    def _open_machine(self, instance: Instance, run: Run) -> Machine:
        entry_id = self._code.workflow_id(run.spec.workflow)
        if instance.quarantined:
            vm = LuaVM()
        else:
            if self._opened >= VM_UNITS_MAX:
                self.replace_shared()
            vm = self._shared
            self._opened += 1
        key, spec = instance.key, run.spec
        seed = hashlib.blake2b(
            spec.entropy + f"/{key.queue}/{key.id}/{run.run}/{run.started_ns}".encode("utf-8", "surrogateescape"),
            digest_size=32,
        ).digest()
        info = {
            "workflow_id": key.id, "run_id": str(run.run), "workflow_type": run.type_name, "task_queue": key.queue,
            "namespace": "default", "attempt": spec.attempt, "worker": self._host.worker,
        }  # fmt: skip
        marks = {name.removeprefix("version:"): value for name, value in run.marks.items()}
        unit = self._code.prepare(vm, "workflow", entry_id)
        return vm.open(
            unit,
            UnitIdentity(
                pid=self._host.pid(key.id), seed=seed, info=info, context=spec.context, marks=marks,
                logs_in_replay=self._log_in_replay,
            ),
        )  # fmt: skip
