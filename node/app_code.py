"""The code of an app on disk, for looking back at histories without a node."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mesh.events import StartSpec
from mesh.hosts import HostRecord
from mesh.subjects import WorkflowKey
from node.machine.code import Code
from node.offers import Offers, host_records
from node.registry import load_registry
from node.workflows.looking_back import LookingBack
from node.workflows.opening import Opening


def looking_back_with(app: Path, environ: Mapping[str, str]) -> LookingBack:
    """What replays histories with the code in a directory. environ: for placeholders in the registry."""
    registry = load_registry(app, environ=environ)
    code = Code(registry)
    workers = host_records(registry, Offers())
    defaults = {str(entry_id): dict(entry.options) for entry_id, entry in registry.functions().items()}

    def opening_for(key: WorkflowKey, spec: StartSpec) -> Opening:
        return Opening(code, _worker(workers, key, spec), lambda function: defaults.get(function, {}))

    return LookingBack(opening_for)


def _worker(workers: list[HostRecord], key: WorkflowKey, spec: StartSpec) -> HostRecord:
    """Who ran it, which its PID tells: the worker that it was started on, else one of its queue."""
    for record in workers:
        if spec.host in (record.worker, record.queue) and record.queue == key.queue:
            return record
    of_queue = [record for record in workers if record.queue == key.queue]
    return of_queue[0] if of_queue else HostRecord(spec.host, spec.client, key.queue)
