"""Which part of an app a node runs, and which workers are in it."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from mesh.hosts import HostRecord
from node.registry import Encryption, Registry


@dataclass(frozen=True, slots=True)
class Offers:
    """Which of an app's functions, hosts, workers and services a node runs: glob patterns over entry ids.

    only: those that one of these fits; empty = all. without: but none that one of these fits.
    """

    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    def __call__(self, entry_id: str) -> bool:
        """Whether an entry is run."""
        wanted = not self.only or any(fnmatchcase(entry_id, pattern) for pattern in self.only)
        return wanted and not any(fnmatchcase(entry_id, pattern) for pattern in self.without)


def host_records(registry: Registry, offers: Offers) -> list[HostRecord]:
    """The workers of an app that a node may run, as the mesh knows them."""
    records = []
    for worker_id, worker in registry.workers().items():
        if not offers(str(worker_id)) or worker.options.disable_workflow_worker:
            continue
        names = sorted(
            {str(entry_id) for entry_id, entry in registry.workflows().items() if entry.worker == worker_id}
            | {
                entry.type_name
                for entry in registry.workflows().values()
                if entry.worker == worker_id and entry.type_name
            }
        )
        encrypted = worker.options.encryption is Encryption.REQUIRED
        records.append(HostRecord(str(worker_id), str(worker.client), worker.task_queue, tuple(names), encrypted))
    return records
