"""The Python client: start workflows, signal them, wait for their results, call functions.

    async with mesh.client.connect("nats://localhost:4222") as m:
        h = await m.start("app.workflows:order_processor", order, host="app:temporal_worker", id="order-1")
        await h.signal("approve", {"approved": True})
        print(await h.result())

Everything goes to the streams and function hosts directly; no node need be up to start or to signal. Only what users in
an account of their own start and signal is passed on by a node (docs/security.md).

Not here: how an end is waited for (`mesh.results`), what a workflow is doing (`mesh.states`), schedules
(`mesh.scheduling`), lists (`mesh.lists`).
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, Final

import anyio

from mesh import codec
from mesh.asking import TIMEOUT_S as ASK_TIMEOUT_S
from mesh.asking import ask_api
from mesh.calls import call_function
from mesh.connection import Connection, ConnectOptions
from mesh.connection import connect as connect_nats
from mesh.envelopes import PayloadCodec
from mesh.errors import MeshError, NotFound, NotPermitted, RequestTimeout
from mesh.events import HEADER_FORCE, Event, StartSpec
from mesh.failure import Failure
from mesh.history import History
from mesh.hosts import HostRecord, Hosts, UnknownHost, only_one_offering
from mesh.jetstream import JetStream
from mesh.listing import LIMIT_MAX, ORDER_DEFAULT, ListPage, ListQuery
from mesh.lists import ask_counts, ask_page, every_workflow
from mesh.resetting import WasReset, reset_workflow
from mesh.results import WorkflowFailed, WorkflowSuspended, wait_for_result
from mesh.schedules import remove_schedule
from mesh.scheduling import Schedules
from mesh.spelling import proposal
from mesh.starting import (
    ConflictPolicy,
    ReusePolicy,
    new_entropy,
    publish_until_acked,
    signal_workflow,
    start_workflow,
)
from mesh.states import WorkflowState, describe, look_back
from mesh.subjects import WorkflowKey, function_request

# All that users of the client need, wherever it is.
__all__ = [
    "Client",
    "FunctionFailed",
    "NeedsKeys",
    "UnknownWorkflow",
    "WorkflowFailed",
    "WorkflowHandle",
    "WorkflowState",
    "WorkflowSuspended",
    "connect",
]

DEFAULT_URL: Final = "nats://localhost:4222"


class FunctionFailed(MeshError):
    """Raised when a called function failed."""

    code = "function-failed"

    def __init__(self, function_id: str, failure: Failure) -> None:
        self.function_id = function_id
        self.failure = failure
        super().__init__(f"{function_id}: {failure}")


class NeedsKeys(MeshError):
    """Raised when somebody without keys starts or signals a workflow whose worker takes only what is encrypted."""

    code = "needs-keys"

    def __init__(self, worker: str) -> None:
        super().__init__(f"the worker {worker} takes only what is encrypted; connect with its keys (--keys FILE)")


class UnknownWorkflow(NotFound):
    """Raised when no node offers a workflow under this name on the host."""

    code = "unknown-workflow"

    def __init__(self, workflow: str, host: HostRecord) -> None:
        hint = proposal(workflow, host.workflows, f"it offers {', '.join(host.workflows) or 'none'}")
        super().__init__(f"the host {host.worker} offers no workflow {workflow!r}; {hint}")


class WorkflowHandle:
    """One workflow. `run` is the run that was started through this handle, 0 for whichever is newest."""

    def __init__(self, client: Client, key: WorkflowKey, run: int = 0, *, existing: bool = False) -> None:
        self._client = client
        self.key = key
        self.run = run
        self.existing = existing
        self.was_seen = False  # whether it is known that there is such a workflow
        self.last_run = run  # the one that its end was waited for last: that of the result

    @property
    def id(self) -> str:
        """The workflow's id."""
        return self.key.id

    async def signal(self, topic: str, value: Any = None, *, once: str = "") -> int:
        """Send a signal; returns its stream sequence, once the server has stored it.

        once: an identity, `<sender>/<number>`, under which the workflow takes it one time, however often it is sent:
        for whoever sends it again when it is not known whether it was stored. Raises OutcomeUnknown then.
        """
        await self._client.check_may_write(self.key.queue)
        return await signal_workflow(self._client.js, self.key, topic, codec.encode(value), once=once)

    async def cancel(self) -> None:
        """Ask the workflow to stop. It decides itself what comes of that."""
        await self._tell("cancel")

    async def terminate(self, *, force: bool = False) -> None:
        """End the workflow now, without asking it; a cron schedule of this id ends too.

        force: also when not even its start can be read, as its key is lost. Its parent hears of it; children of its own
        go on, as nobody knows them.
        """
        await remove_schedule(self._client.js, self.key)
        await self._tell("kill", {HEADER_FORCE: "1"} if force else {})

    async def _tell(self, verb: str, headers: dict[str, str] | None = None) -> None:
        subject = self.key.subject(verb)
        await publish_until_acked(self._client.js, subject, b"", headers or {}, msg_id=secrets.token_hex(12))

    async def result(self, *, timeout_s: float | None = None) -> Any:
        """Wait for the end and return the result, through retries and continued runs.

        Raises WorkflowFailed, WorkflowSuspended, NotFound when there is no such workflow, RequestTimeout.
        """
        with anyio.move_on_after(timeout_s):
            return await wait_for_result(self._client, self)
        raise RequestTimeout(f"the result of workflow {self.id!r}", timeout_s or 0.0)

    async def reset(
        self, event: int, *, reason: str = "", signals: bool = True, without: Sequence[int] = ()
    ) -> WasReset:
        """Run the workflow anew from one of its events (`mesh.resetting`); this handle is the new run's from then on.

        event: its number in the history, from 1. signals: whether it is given those that came after the event, too.
        without: numbers of those of them that it is not given. Raises NotFound, CannotReset, Conflict.
        """
        history = self._client.history(self.key.queue)
        done = await reset_workflow(
            self._client.js, history, self.key, event, reason=reason, signals=signals, without=without
        )
        self.run = done.run
        return done

    async def describe(self, *, at: int | None = None, run: int = 0) -> WorkflowState:
        """What the workflow is doing, or how it ended. Raises NotFound, NoSuchRun.

        run: an older run of it. at: the number of an event of that run, else of the newest one, from 1, or the event's
        stream sequence. Then it is as it was when that event had happened, with where its Lua code stood and what
        variables held: `detail` has `tasks`, `coroutines`, `globals`, `waiting`, `ops` (docs/debugging.md). Raises
        UnknownEvent, CannotLookBack.
        """
        if at is not None:
            return await look_back(self._client, self.key, at, run)
        return await describe(self._client, self.key, run)

    async def history(self, *, run: int = 0) -> list[Event]:
        """All events of the newest run, or those of an older one. Raises NotFound, NoSuchRun."""
        _, events = await self._client.history(self.key.queue).recorded(self.key, run)
        return events


class Client:
    """A connection's view of the mesh. Made by `connect`.

    opens: payloads are read as they were before they were encrypted, as far as the connection's codec can; else as
    whoever has no keys sees them, for answering such people.
    """

    def __init__(self, conn: Connection, *, opens: bool = True) -> None:
        self.conn = conn
        self.opens = opens
        self.js = JetStream(conn, opens=opens)
        self.hosts = Hosts(self.js)
        self._histories: dict[str, History] = {}

    @property
    def schedules(self) -> Schedules:
        """The schedules of the mesh."""
        return Schedules(self)

    def history(self, queue: str) -> History:
        """The histories of a queue."""
        if queue not in self._histories:
            self._histories[queue] = History(self.js, queue)
        return self._histories[queue]

    async def start(
        self,
        workflow: str,
        *args: Any,
        host: str | None = None,
        id: str | None = None,
        conflict: ConflictPolicy | None = None,
        reuse: ReusePolicy = "allow_duplicate",
        messages: Sequence[tuple[str, Any]] = (),
        context: Mapping[str, Any] | None = None,
        run_timeout_s: float = 0.0,
        execution_timeout_s: float = 0.0,
        start_delay_s: float = 0.0,
        cron: str = "",
        retry_policy: Mapping[str, Any] | None = None,
        memo: Mapping[str, Any] | None = None,
        search_attributes: Mapping[str, Any] | None = None,
    ) -> WorkflowHandle:
        """Start a workflow; returns once the start is stored.

        host: the worker or task queue; without it all are looked through for the only one that offers the workflow.
        conflict: while one with this id runs; use_existing by default when an id is given, else fail.
        Raises UnknownHost, UnknownWorkflow, NobodyOffers, SeveralHosts, NeedsKeys, AlreadyStarted, PayloadTooLarge.
        """
        record = await self.host_offering(host, workflow)
        # An empty id is refused: somebody meant to give one, and would start the same thing again and again.
        named = id if id is not None else f"{workflow.rpartition(':')[2]}-{secrets.token_hex(8)}"
        key = WorkflowKey(record.queue, named)
        spec = StartSpec(
            workflow=workflow,
            args=codec.pack(list(args)),
            host=record.worker,
            client=record.client,
            context=context or {},
            entropy=new_entropy(),
            messages=tuple({"topic": topic, "body": codec.encode(value)} for topic, value in messages),
            run_timeout_ns=round(run_timeout_s * 1e9),
            execution_timeout_ns=round(execution_timeout_s * 1e9),
            start_delay_ns=round(start_delay_s * 1e9),
            retry_policy=retry_policy,
            cron=cron,
            memo=memo or {},
            attrs=search_attributes or {},
            encrypted=record.encrypted,
        )
        started = await start_workflow(
            self.js, key, spec, conflict=conflict or ("fail" if id is None else "use_existing"), reuse=reuse
        )
        return WorkflowHandle(self, key, started.run, existing=started.existing)

    async def host_offering(self, host: str | None, workflow: str) -> HostRecord:
        """The host of that name, else the only one that offers the workflow.

        Raises UnknownHost, and UnknownWorkflow when the host does not offer the workflow; NobodyOffers, SeveralHosts.
        """
        if host is None:
            return self._with_keys(only_one_offering(await self.hosts.workers(), workflow))
        record = await self.hosts.resolve(host)
        if record.workflows and workflow not in record.workflows:
            raise UnknownWorkflow(workflow, record)
        return self._with_keys(record)

    def _with_keys(self, record: HostRecord) -> HostRecord:
        if record.encrypted and (self.conn.codec is None or not self.opens):
            raise NeedsKeys(record.worker)
        return record

    async def check_may_write(self, queue: str) -> None:
        """Refuse to encrypt, on behalf of somebody without keys, what has to come encrypted. Raises NeedsKeys."""
        if self.conn.codec is not None and not self.opens:
            with suppress(UnknownHost):
                self._with_keys(await self.hosts.resolve(queue))

    async def queues(self) -> list[str]:
        """The queues of all workers there are."""
        return sorted({record.queue for record in await self.hosts.workers()})

    def get(self, id: str, *, queue: str) -> WorkflowHandle:
        """A handle for a workflow that somebody else started."""
        return WorkflowHandle(self, WorkflowKey(queue, id))

    async def find(self, id: str) -> WorkflowHandle:
        """A handle for a workflow on whichever queue has it. Raises NotFound; ambiguous ids need `get`."""
        queues = await self.queues()
        found = []
        for queue in queues:
            try:
                if await self.history(queue).partition_of(WorkflowKey(queue, id)) is not None:
                    found.append(queue)
            except NotPermitted:
                continue  # what this user may not read is not there for it
        if not found:
            raise NotFound(f"no workflow {id!r} on any queue ({', '.join(queues) or 'there are none'})")
        if len(found) > 1:
            raise NotFound(f"workflow {id!r} is on several queues ({', '.join(found)}); say which with --queue")
        return self.get(id, queue=found[0])

    def list(
        self,
        where: str = "",
        *,
        status: str | Sequence[str] = (),
        type: str = "",
        queue: str = "",
        id: str = "",
        order: str = ORDER_DEFAULT,
        most: int = 0,
        all_runs: bool = False,
    ) -> AsyncIterator[Mapping[str, Any]]:
        """All workflows that fit, as the records that `mesh ls --json` prints; at most so many, 0 = all.

            async for workflow in m.list('attrs.customer = "c-1" and started > -2h', status="running"):
                print(workflow["id"], workflow["started"])

        where: the language of docs/search.md. id: how it begins. order: started, ended, duration or id, with `-` for
        the largest first. all_runs: every run, not only the newest of each id. Raises BadQuery, NoProjection when no
        node keeps a list, RequestTimeout.
        """
        statuses = (status,) if isinstance(status, str) else tuple(status)
        query = ListQuery(
            status=tuple(one for one in statuses if one), type=type, queue=queue, id=id, where=where, order=order,
            limit=LIMIT_MAX, all_runs=all_runs,
        ).checked()  # fmt: skip
        return every_workflow(self.conn, query, most=most)

    async def page(self, query: ListQuery) -> ListPage:
        """One page of workflows; `next` is the cursor of the one behind it. Raises as `list`."""
        return await ask_page(self.conn, query.checked())

    async def count(self, *by: str, all_runs: bool = False) -> Sequence[Mapping[str, Any]]:
        """How many workflows there are of each status and type, or of what is named. Raises as `list`."""
        return await ask_counts(self.conn, by or ("status", "type"), all_runs=all_runs)

    async def ask(self, verb: str, *, timeout_s: float = ASK_TIMEOUT_S, **fields: Any) -> Any:
        """Ask the control API (docs/api.md) for a verb, such as `await m.ask("nodes")`; its record.

        Raises ApiError, NoApi when no node serves it, RequestTimeout.
        """
        return await ask_api(self.conn, verb, fields, timeout_s=timeout_s)

    async def call(self, function_id: str, *args: Any, timeout_s: float = 60.0) -> Any:
        """Call a function and return its result. Raises RequestTimeout, and FunctionFailed.

        The failure has kind `HostLost` when the node that ran the call is gone; whether it was carried out is unknown.
        """
        with anyio.move_on_after(timeout_s):
            outcome = await call_function(self.conn, function_id, codec.encode([list(args), None]))
            ok, value = codec.decode_outcome(outcome)
            if not ok:
                raise FunctionFailed(function_id, value)
            return value
        raise RequestTimeout(function_request(function_id), timeout_s)


@asynccontextmanager
async def connect(
    url: str | Sequence[str] | None = None,
    *,
    name: str = "moonmesh-client",
    options: ConnectOptions | None = None,
    codec: PayloadCodec | None = None,
) -> AsyncIterator[Client]:
    """Connect to the mesh. url: NATS address(es), default the environment's NATS_URL, else nats://localhost:4222.

    codec: what encrypts payloads end to end, such as `mesh.key_files.KeyFile("mesh-keys.yaml")`, by default that of the
    options, else the file that the environment's MESH_KEYS names, if any.
    Raises Unreachable, BadKeys.
    """
    options = options or ConnectOptions()
    if codec is not None:
        options = replace(options, codec=codec)
    elif options.codec is None and os.environ.get("MESH_KEYS"):
        from mesh.key_files import KeyFile

        options = replace(options, codec=KeyFile(os.environ["MESH_KEYS"]))
    address = url or os.environ.get("NATS_URL") or DEFAULT_URL
    async with connect_nats(address, name=name, options=options) as conn:
        yield Client(conn)
