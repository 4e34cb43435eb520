"""The app under test: its registry, and what the rest of a simulation asks of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mesh.client import UnknownWorkflow
from mesh.hosts import HostRecord, UnknownHost
from mesh.subjects import WorkflowKey
from node.machine.code import Code
from node.offers import Offers, host_records
from node.registry import EntryId, Registry, load_registry
from node.testing.errors import SimulationError, UnknownName
from node.workflows.opening import Opening


class App:
    """An app's registry, its code and its workers. directory: where Python functions are imported from."""

    def __init__(self, registry: Registry, directory: Path | None = None) -> None:
        self.registry = registry
        self.directory = directory
        self.code = Code(registry)
        self._workers = {record.worker: record for record in host_records(registry, Offers())}
        self._by_queue = {record.queue: record for record in self._workers.values()}
        self._defaults = {str(name): dict(entry.options) for name, entry in registry.functions().items()}

    @classmethod
    def load(cls, app: str | Path | Registry) -> App:
        """The app in a directory, or of a registry. Raises RegistryError when anything is wrong with it."""
        if isinstance(app, Registry):
            return cls(app)
        directory = Path(app)
        if not directory.is_dir():
            raise SimulationError(f"there is no directory {str(app)!r} as seen from {Path.cwd()}; name that of an app")
        return cls(load_registry(directory, strict=True, environ=os.environ), directory)

    def host(self, name: str) -> HostRecord:
        """A worker, by its id or its task queue. Raises UnknownHost."""
        record = self._workers.get(name) or self._by_queue.get(name)
        if record is None:
            raise UnknownHost(name, {*self._workers, *self._by_queue})
        return record

    def host_of(self, key: WorkflowKey) -> HostRecord:
        """The worker whose workflows are on a queue. Raises UnknownHost."""
        return self.host(key.queue)

    def host_for(self, workflow: str, host: str | None) -> HostRecord:
        """The worker to start a workflow on: the one that is named, or its own.

        Raises UnknownName, UnknownWorkflow, UnknownHost.
        """
        if host is not None:
            record = self.host(host)
            if workflow not in record.workflows:
                raise UnknownWorkflow(workflow, record)
            return record
        for record in self._workers.values():
            if workflow in record.workflows:
                return record
        if EntryId(workflow) in self.registry.workflows():
            raise UnknownName("worker of the workflow", workflow, self._workers, "Name one with host=.")
        raise UnknownName("workflow", workflow, {name for r in self._workers.values() for name in r.workflows})

    def opening(self, host: HostRecord) -> Opening:
        """What opens the runs of a worker."""
        return Opening(self.code, host, self.call_defaults)

    def call_defaults(self, function_id: str) -> Mapping[str, Any]:
        """The call options that a function's entry sets."""
        return self._defaults.get(function_id, {})

    def function_ids(self) -> set[str]:
        """Everything that can be called."""
        callable_processes = {str(name) for name, view in self.registry.processes().items() if view.default_host}
        return {str(name) for name in self.registry.functions()} | callable_processes
