"""Processes that are called like functions (contract 10.5): a call is a process, its end the answer."""

from __future__ import annotations

from typing import ClassVar

from mesh import codec
from mesh.errors import Undecodable
from mesh.pids import TOPOLOGY
from node.functions.call_bodies import checked_request
from node.functions.job import Answer, Job
from node.registry import EntryId, ProcessEntry
from node.units.spawn_request import SpawnRequest
from node.units.spawning import Spawning
from node.units.table import UnitTable


class ProcessCalls:
    """Runs the calls of the processes that say on which host they run."""

    kind: ClassVar = "process"

    def __init__(self, *, units: UnitTable, spawning: Spawning, answer: Answer) -> None:
        self._units = units
        self._spawning = spawning
        self._answer = answer
        self._hosts: dict[str, str] = {}  # by process

    def add(self, entry: ProcessEntry, host: EntryId) -> None:
        """Get a process ready to be called."""
        self._hosts[str(entry.id)] = str(host)

    def start(self, job: Job) -> None:
        """Run a call."""
        try:
            request = checked_request(job.request)
        except Undecodable as error:
            self._answer(job, codec.encode_failure(codec.undecodable_failure("request", error)))
            return
        watcher = self._units.new_watcher(lambda outcome: self._answer(job, outcome))
        wish = SpawnRequest(job.function.id, self._hosts[job.function.id], request, monitor=True, trace=job.trace)
        outcome = self._spawning.spawn_here(watcher.pid, wish)
        ok, pid = codec.decode_outcome(outcome)
        if not ok:
            watcher.post("ended", None, outcome)
            return

        job.pid = str(pid)

        def stop() -> None:
            unit = self._units.get(pid)
            if unit is not None:
                unit.post("cancel", None, None, TOPOLOGY.encode())

        job.stop = stop
