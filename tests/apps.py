"""Small apps for tests: a registry with its code from Python values, and a node in this process that runs it.

    app = write_app(tmp_path, workflows={"greet": "return function(name) return funcs.call('app:hello', name) end"},
                    functions={"hello": "return function(name) return 'hello ' .. name end"})
    async with a_mesh(nats_server().url, app) as mesh:
        assert await mesh.run("greet", "Ada") == "hello Ada"

Every app has one namespace `app`, a client, and the worker `app:worker` for the queue `orders`; all modules a workflow
may use are globals. Not here: nodes as processes of their own (`tests.cluster`).
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mesh.client
from mesh.buckets import Bucket
from mesh.client import Client, WorkflowFailed, WorkflowHandle
from mesh.events import Event
from mesh.failure import Failure
from mesh.roster import BUCKET
from mesh.subjects import WorkflowKey
from node.node import Node, NodeConfig, running_node
from node.registry import load_registry
from tests.waiting import wait_until

QUEUE = "orders"
WORKER = "app:worker"
TIMEOUT_S = 30.0
# Fewer than by default: a test has a handful of workflows, and each partition costs a claim and a consumer at the start.
PARTITIONS = 4
WORKFLOW_MODULES = ("funcs", "time", "uuid", "workflow", "json", "ctx", "errors", "payload", "base64")
FUNCTION_MODULES = ("funcs", "time", "uuid", "json", "ctx", "errors")


def write_files(directory: Path, files: Mapping[str, str]) -> Path:
    """Write text files below a directory and return it."""
    for name, text in files.items():
        file = directory / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return directory


def write_app(
    directory: Path,
    *,
    workflows: Mapping[str, str] | None = None,
    functions: Mapping[str, str | Mapping[str, Any]] | None = None,
    processes: Mapping[str, str | Mapping[str, Any]] | None = None,
    entries: Sequence[Mapping[str, Any]] = (),
    worker_options: Mapping[str, Any] | None = None,
    workers: Mapping[str, str] | None = None,
) -> Path:
    """Write an app and return its directory.

    workflows: Lua sources by name. functions, processes: by name a Lua source, or the entry's fields for any other
    kind; in both, `source` is the code itself, kept in a file so that errors name it. entries: any others. workers: of
    the workflows that are another worker's, by name.
    """
    files: dict[str, str] = {}
    written: list[Mapping[str, Any]] = [
        {"name": "client", "kind": "mesh.client", "address": "nats://127.0.0.1:4222", "lifecycle": {"auto_start": True}},
        {
            "name": "worker", "kind": "mesh.worker", "client": "app:client", "task_queue": QUEUE,
            "lifecycle": {"auto_start": True}, "worker_options": dict(worker_options or {}),
        },
        {"name": "processes", "kind": "process.host", "lifecycle": {"auto_start": True}},
        *entries,
    ]  # fmt: skip
    for name, source in (workflows or {}).items():
        files[f"{name}.lua"] = source
        meta = {"mesh.workflow.worker": (workers or {}).get(name, WORKER)}
        written.append({
            "name": name, "kind": "workflow.lua", "source": f"file://{name}.lua", "modules": list(WORKFLOW_MODULES), "meta": meta,
        })  # fmt: skip
    for name, given in (functions or {}).items():
        entry = {"source": given} if isinstance(given, str) else dict(given)
        entry = {"name": name, "kind": "function.lua", **entry}
        if entry["kind"] == "function.lua":
            files[f"{name}.lua"] = entry["source"]
            entry = {"method": "main", "modules": list(FUNCTION_MODULES), **entry, "source": f"file://{name}.lua"}
        written.append(entry)
    for name, given in (processes or {}).items():
        fields = {"source": given} if isinstance(given, str) else dict(given)
        files[f"{name}.lua"] = fields["source"]
        written.append({
            "name": name, "kind": "process.lua", "modules": list(FUNCTION_MODULES), **fields, "source": f"file://{name}.lua",
        })  # fmt: skip
    files["_index.json"] = json.dumps({"version": "1.0", "namespace": "app", "entries": written})
    return write_files(directory, files)


@dataclass(frozen=True, slots=True)
class Mesh:
    """A node of this process, and a client."""

    client: Client
    node: Node

    async def start(self, name: str, *args: Any, id: str | None = None, **options: Any) -> WorkflowHandle:
        return await self.client.start(f"app:{name}", *args, host=WORKER, id=id, **options)

    async def run(self, name: str, *args: Any, timeout_s: float = TIMEOUT_S, **options: Any) -> Any:
        """Start a workflow and wait for its result."""
        return await (await self.start(name, *args, **options)).result(timeout_s=timeout_s)

    async def failure(self, name: str, *args: Any, **options: Any) -> Failure:
        """Start a workflow that must fail, and say why it did."""
        return (await self.failed(await self.start(name, *args, **options))).failure

    async def failed(self, handle: WorkflowHandle) -> WorkflowFailed:
        """Wait for a workflow that must not complete."""
        try:
            value = await handle.result(timeout_s=TIMEOUT_S)
        except WorkflowFailed as error:
            return error
        raise AssertionError(f"workflow {handle.id!r} completed with {value!r}")

    def get(self, workflow_id: str) -> WorkflowHandle:
        return self.client.get(workflow_id, queue=QUEUE)

    async def kinds(self, workflow_id: str) -> list[str]:
        """The kinds of the events of a workflow's newest run, in order."""
        return [event.kind for event in await self.get(workflow_id).history()]

    async def events(self, workflow_id: str) -> list[Event]:
        return await self.get(workflow_id).history()

    def statistics(self) -> dict[str, int]:
        """What the node's engine is doing."""
        found: dict[str, int] = self.node.status()["queues"][QUEUE]
        return found


def owns_everything(node: Node) -> bool:
    """Whether a node runs every partition and has caught up with each."""
    engine = node.engines[QUEUE]
    caught_up = [partition.catchup is None for partition in engine.partitions.values()]
    return len(caught_up) == engine.stream.partitions and all(caught_up)


async def is_handled(client: Client, handle: WorkflowHandle, *, events: int) -> bool:
    """Whether a history has so many events, and its owner says in its checkpoint that it has handled them all."""
    history = await handle.history()
    partition = await client.history(QUEUE).partition_of(handle.key)
    claims = {entry.key: json.loads(entry.value) for entry in await Bucket(client.js, BUCKET).entries("claim.>")}
    found = [int(claim["checkpoint"]) for name, claim in claims.items() if name.endswith(f".{partition}")]
    return len(history) == events and found != [] and found[0] >= history[-1].seq


def key(workflow_id: str) -> WorkflowKey:
    """The key of a workflow of the apps here."""
    return WorkflowKey(QUEUE, workflow_id)


@asynccontextmanager
async def a_mesh(
    url: str, app: Path, *, node_id: str = "a", partitions: int = PARTITIONS, settled: bool = True, **config: Any
) -> AsyncIterator[Mesh]:
    """Run an app on a node in this process, and connect a client to it.

    settled: begin when the node owns all partitions and has read what is in them; not so when it shares them.
    Leaving the block takes the node down at once, without handing over; call `mesh.node.leave()` before for that.
    """
    registry = load_registry(app, environ={})
    assert not registry.problems, registry.problems
    configured = NodeConfig(url, node_id=node_id, partitions=partitions, **config)
    async with (
        running_node(configured, registry) as node,
        mesh.client.connect(url, options=configured.options) as client,
    ):
        if settled:
            await wait_until(lambda: owns_everything(node))
        yield Mesh(client, node)
