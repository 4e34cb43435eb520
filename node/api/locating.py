"""Finding what a person names: the workflow with an id, the host of a workflow; near misses get a proposal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mesh.errors import MeshError, NotFound
from mesh.hosts import only_one_offering
from mesh.spelling import proposal

if TYPE_CHECKING:
    from mesh.client import Client, WorkflowHandle
    from mesh.hosts import HostRecord

# Names that are looked through for a proposal; above this the question is refused by the server, and no harm done.
_PROPOSALS_TIMEOUT_S: Final = 1.0


class EmptyMesh(MeshError):
    """Raised when no node has ever joined this server: there is nothing to start or to ask."""

    code = "empty-mesh"

    def __init__(self, url: str) -> None:
        super().__init__(f"no node has ever joined the mesh at {url}; start one with `mesh node APP --nats {url}`")


async def workers(client: Client, url: str) -> list[HostRecord]:
    """All workers of the mesh. Raises EmptyMesh, NoResponders when the server has no JetStream."""
    try:
        return await client.hosts.workers()
    except NotFound:
        await ensure_mesh(client, url)
        raise


async def ensure_mesh(client: Client, url: str) -> None:
    """Say why a bucket of the mesh is not there. Raises EmptyMesh, NoResponders when the server has no JetStream."""
    await client.js.api("INFO")
    raise EmptyMesh(url) from None


async def host_of(client: Client, url: str, workflow: str, host: str | None) -> str:
    """The host to start a workflow on: the one that is named, else the only one that offers it."""
    records = await workers(client, url)
    if host is not None:
        return host
    return only_one_offering(records, workflow).worker


async def find(client: Client, url: str, workflow_id: str, queue: str | None, *, flags: str = "") -> WorkflowHandle:
    """The workflow with this id. Raises NotFound, which proposes an id that looks alike.

    flags: with which a command reaches the same mesh.
    """
    queues = sorted({record.queue for record in await workers(client, url)})
    if queue is not None and queue not in queues:
        raise NotFound(f"no queue {queue!r}; {proposal(queue, queues)}")
    searched = [queue] if queue is not None else queues
    if queue is None:
        try:
            return await client.find(workflow_id)
        except NotFound as error:
            if "several" in str(error):
                raise
    else:
        handle = client.get(workflow_id, queue=queue)
        if await client.history(queue).partition_of(handle.key) is not None:
            return handle
    for name in searched:
        if await is_scheduled(client, client.get(workflow_id, queue=name)):
            return client.get(workflow_id, queue=name)
    ids = await _some_ids(client, searched)
    where = f"queue {queue}" if queue is not None else f"any queue ({', '.join(queues) or 'there are none'})"
    hint = proposal(workflow_id, ids, f"see what there is with: mesh ls{flags}", alike=0.75)
    raise NotFound(f"no workflow {workflow_id!r} on {where}; {hint}")


async def is_scheduled(client: Client, handle: WorkflowHandle) -> bool:
    """Whether there is a schedule for this workflow, paused or not."""
    from mesh.schedules import find_schedule

    return await find_schedule(client.js, handle.key) is not None


async def _some_ids(client: Client, queues: list[str]) -> list[str]:
    """Ids there are, for a proposal; none when there are more than can be asked for at once."""
    from mesh.subjects import parse_stored, token

    ids: list[str] = []
    for queue in queues:
        try:
            starts = await client.js.multi_last(
                client.history(queue).stream, [f"mesh.log.{token(queue)}.*.*.start"], timeout_s=_PROPOSALS_TIMEOUT_S
            )
        except MeshError:
            continue
        ids += [parsed.id for start in starts if (parsed := parse_stored(start.subject)) is not None]
    return ids
