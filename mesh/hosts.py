"""Which queue a host stands for: the directory that lets a client name a worker and know no registry.

Nodes write what their registry says into the KV bucket `mesh_hosts` when they start: one key for each worker and one
for each task queue, both good as the `host` of a start.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Final

from mesh.buckets import Bucket
from mesh.errors import MeshError, NotFound, NotReady, Undecodable
from mesh.jetstream import JetStream
from mesh.spelling import proposal
from mesh.subjects import bucket_key, bucket_key_name

BUCKET: Final = "mesh_hosts"
CACHE_S: Final = 5.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HostRecord:
    """A worker as the mesh knows it. workflows: the names that can be started on it, as its newest node says.

    encrypted: it takes only what is encrypted.
    """

    worker: str
    client: str
    queue: str
    workflows: tuple[str, ...] = ()
    encrypted: bool = False

    def pid(self, workflow_id: str) -> str:
        """The PID of a workflow of this worker."""
        return f"{{{self.client}@{self.worker}|{workflow_id}}}"


class UnknownHost(NotFound):
    """Raised when no node has ever offered a host."""

    code = "unknown-host"

    def __init__(self, host: str, known: Iterable[str]) -> None:
        self.host = host
        hosts = sorted(known)
        hint = proposal(host, hosts, f"known hosts: {', '.join(hosts) or 'none; is a node running?'}")
        super().__init__(f"no node offers the host {host!r}; {hint}")


class SeveralHosts(MeshError):
    """Raised when a workflow is offered by more than one host and none was named."""

    code = "several-hosts"

    def __init__(self, workflow: str, hosts: list[str]) -> None:
        super().__init__(f"{workflow} is offered by several hosts; say which as its host (--host): {', '.join(hosts)}")


class NobodyOffers(NotFound):
    """Raised when no host offers a workflow."""

    code = "unknown-workflow"

    def __init__(self, workflow: str, known: list[str]) -> None:
        super().__init__(f"no node offers a workflow {workflow!r}; {proposal(workflow, known)}")


def only_one_offering(records: Iterable[HostRecord], workflow: str) -> HostRecord:
    """The host for a workflow whose host was not named. Raises NobodyOffers, SeveralHosts."""
    records = list(records)
    offering = [record for record in records if workflow in record.workflows]
    if not offering:
        raise NobodyOffers(workflow, sorted({name for record in records for name in record.workflows}))
    if len(offering) > 1:
        raise SeveralHosts(workflow, [record.worker for record in offering])
    return offering[0]


class Hosts:
    """The directory, cached for a few seconds."""

    def __init__(self, js: JetStream) -> None:
        self._bucket = Bucket(js, BUCKET)
        self._cache: dict[str, tuple[float, HostRecord]] = {}

    async def announce(self, records: Iterable[HostRecord], *, replicas: int = 1) -> None:
        """Write this node's hosts, each under its worker id and its queue. Raises NotReady, OutcomeUnknown."""
        await self._bucket.ensure(description="Which queue a host stands for", replicas=replicas)
        for record in records:
            value = json.dumps(asdict(record)).encode()
            for name in (record.worker, record.queue):
                try:
                    await self._bucket.put(bucket_key(name), value)
                except NotFound as error:  # the bucket is there, so it has no leader
                    raise NotReady(f"host {name}", 0, str(error)) from None
                self._cache[name] = (time.monotonic(), record)

    async def resolve(self, host: str) -> HostRecord:
        """Look a host up by worker id or task queue.

        Raises UnknownHost, which knows what was meant; Undecodable when somebody else has written its record.
        """
        cached = self._cache.get(host)
        if cached is not None and time.monotonic() - cached[0] < CACHE_S:
            return cached[1]
        entry = await self._bucket.get(bucket_key(host))
        if entry is None:
            raise UnknownHost(host, await self.names())
        record = _decode(entry.value)
        self._cache[host] = (time.monotonic(), record)
        return record

    async def names(self) -> list[str]:
        """All hosts there are."""
        return sorted(bucket_key_name(entry.key) for entry in await self._bucket.entries())

    async def workers(self) -> list[HostRecord]:
        """All workers there are, each once; without those whose record nobody can read."""
        records: dict[str, HostRecord] = {}
        for name in await self.names():
            try:
                record = await self.resolve(name)
            except Undecodable as error:
                _log.warning("host %r is left out: %s", name, error)
            else:
                records[record.worker] = record
        return list(records.values())


def _decode(data: bytes) -> HostRecord:
    try:
        wire = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Undecodable(f"the record of a host is no JSON: {error}") from error
    match wire:
        case {"worker": str(worker), "client": str(client), "queue": str(queue)}:
            workflows = wire.get("workflows") or []
            if isinstance(workflows, list) and all(isinstance(name, str) for name in workflows):
                return HostRecord(worker, client, queue, tuple(workflows), wire.get("encrypted") is True)
    raise Undecodable(f"the record of a host is none of ours: {data[:80]!r}; its node writes it when it starts")
