"""Opening a run: from a start, an app's code and a worker to a `Run` that makes its Lua machine when it needs one.

Whoever runs, replays or tests workflows opens them here, so that the same start means the same run everywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from mesh.events import StartSpec
from mesh.hosts import HostRecord
from mesh.imported import Origin
from mesh.subjects import WorkflowKey, token
from node.machine.code import Code
from node.machine.vm import LuaVM, Machine, UnitIdentity
from node.workflows.run import VERSION_MARK, Run


class Opening:
    """Opens the runs of one worker.

    call_defaults: the call options of a function, by its id. log_in_replay: the code logs in replays, too.
    """

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

    def new_run(
        self, key: WorkflowKey, run_id: int, spec: StartSpec, marks: Mapping[str, Any], *, vm: Callable[[], LuaVM]
    ) -> Run:
        """A run before its first event. vm: says in which VM its machine is made; asked once, when it needs one."""

        def open_machine(run: Run) -> Machine:
            # The code is looked up first: a VM that is asked for has a machine made in it.
            entry_id = self._code.workflow_id(run.spec.workflow)
            return self._open_machine(run, entry_id, vm())

        return Run(
            key, run_id, spec, open_machine=open_machine, call_defaults=self._call_defaults, marks=marks,
            id_token=token(key.id), type_name=self._code.type_name(spec.workflow),
        )  # fmt: skip

    def _open_machine(self, run: Run, entry_id: str, vm: LuaVM) -> Machine:
        key, spec = run.key, run.spec
        # A reset run comes to the random values that are in the history it rests on, an imported one is to its code
        # what it was where it was recorded.
        seed_run = spec.base.origin if spec.base is not None else run.run
        who = spec.origin or Origin(key.queue, key.id, run.run, seed_run)
        seed = hashlib.blake2b(
            spec.entropy + f"/{who.queue}/{who.id}/{who.seed}/{run.started_ns}".encode("utf-8", "surrogateescape"),
            digest_size=32,
        ).digest()
        info = {
            "workflow_id": who.id, "run_id": str(who.run), "workflow_type": run.type_name, "task_queue": who.queue,
            "namespace": "default", "attempt": spec.attempt, "worker": self._host.worker,
        }  # fmt: skip
        versions = {
            name.removeprefix(VERSION_MARK): value for name, value in run.marks.items() if name.startswith(VERSION_MARK)
        }
        unit = self._code.prepare(vm, "workflow", entry_id)
        return vm.open(
            unit,
            UnitIdentity(
                pid=self._host.pid(who.id), seed=seed, info=info, context=spec.context, marks=versions,
                logs_in_replay=self._log_in_replay,
            ),
        )  # fmt: skip
