"""The Python client: start workflows, signal them, wait for their results, call functions.

    async with mesh.client.connect("nats://localhost:4222") as m:
        h = await m.start("app.workflows:order_processor", order, host="app:temporal_worker", id="order-1")
        await h.signal("approve", {"approved": True})
        print(await h.result())

Everything goes to the streams and function hosts directly; no node need be up to start or to signal. Only what users in
an account of their own start and signal is passed on by a node (docs/security.md).
"""

from __future__ import annotations

import difflib
import os
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, Final

import anyio

from mesh import codec
from mesh.asking import TIMEOUT_S as ASK_TIMEOUT_S
from mesh.asking import ask_api
from mesh.calls import call_function
from mesh.connection import Connection, ConnectOptions
from mesh.connection import connect as connect_nats
from mesh.envelopes import PayloadCodec, Unopened, why_closed
from mesh.errors import (
    CannotLookBack,
    Disconnected,
    MeshError,
    NoResponders,
    NotFound,
    NotPermitted,
    RequestTimeout,
    Undecodable,
)
from mesh.event_numbers import event_number
from mesh.events import EndRecord, Event, StartSpec, decode_end, decode_start
from mesh.failure import Failure
from mesh.history import History, OpenRun, RunOutcome
from mesh.hosts import HostRecord, Hosts, UnknownHost, only_one_offering
from mesh.jetstream import JetStream
from mesh.listing import LIMIT_MAX, ORDER_DEFAULT, ListPage, ListQuery
from mesh.lists import ask_counts, ask_page, every_workflow
from mesh.resetting import WasReset, reset_workflow
from mesh.schedules import remove_schedule
from mesh.scheduling import Schedules
from mesh.starting import (
    ConflictPolicy,
    ReusePolicy,
    new_entropy,
    publish_until_acked,
    signal_workflow,
    start_workflow,
)
from mesh.subjects import WorkflowKey, function_request, owner_request
from mesh.wire import parse_headers

DEFAULT_URL: Final = "nats://localhost:4222"
# What is missed while a connection is down shows at the next look into the log.
LOOK_EVERY_S: Final = 2.0
# An end that was published just before we subscribed may be stored just after we have looked.
FIRST_LOOK_S: Final = 0.005
ASK_OWNER_AFTER_S: Final = 0.08
STREAM_PATIENCE_S: Final = 15.0  # an election of nats-server takes 4 to 9 s
STREAM_AGAIN_S: Final = 0.1
DESCRIBE_TIMEOUT_S: Final = 1.0
DESCRIBE_FULL_TIMEOUT_S: Final = 6.0
DESCRIBE_TRIES: Final = 5
LOOK_BACK_TIMEOUT_S: Final = 30.0  # a long history is replayed for it


class WorkflowFailed(MeshError):
    """Raised when a workflow ended without a result. `failure` says why, `status` how."""

    code = "workflow-failed"

    def __init__(self, workflow_id: str, status: str, failure: Failure) -> None:
        self.workflow_id = workflow_id
        self.status = status
        self.failure = failure
        super().__init__(f"workflow {workflow_id!r} {status}: {failure}")


class WorkflowSuspended(MeshError):
    """Raised when a workflow cannot go on until code fits its history, or a key opens it. Look again later."""

    code = "workflow-suspended"

    def __init__(self, workflow_id: str, reason: str) -> None:
        self.workflow_id = workflow_id
        self.reason = reason
        super().__init__(
            f"workflow {workflow_id!r} is suspended: {reason}. Nothing is lost; "
            "it goes on by itself once a node with fitting code, and the keys, owns it"
        )


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
        near = difflib.get_close_matches(workflow, host.workflows, n=1)
        hint = f"did you mean {near[0]}?" if near else f"it offers {', '.join(host.workflows) or 'none'}"
        super().__init__(f"the host {host.worker} offers no workflow {workflow!r}; {hint}")


@dataclass(frozen=True, slots=True)
class WorkflowState:
    """What is known of a workflow. status: running, suspended, completed, failed, canceled, terminated, timed-out.

    detail: what its owner says it is waiting for, when it runs and an owner answered.
    """

    key: WorkflowKey
    run: int
    workflow: str
    status: str
    value: Any
    detail: Mapping[str, Any]


class WorkflowHandle:
    """One workflow. `run` is the run that was started through this handle, 0 for whichever is newest."""

    def __init__(self, client: Client, key: WorkflowKey, run: int = 0, *, existing: bool = False) -> None:
        self._client = client
        self.key = key
        self.run = run
        self.existing = existing
        self.was_seen = False  # whether it is known that there is such a workflow

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

    async def terminate(self) -> None:
        """End the workflow now, without asking it; a cron schedule of this id ends too."""
        await remove_schedule(self._client.js, self.key)
        await self._tell("kill")

    async def _tell(self, verb: str) -> None:
        await publish_until_acked(self._client.js, self.key.subject(verb), b"", {}, msg_id=secrets.token_hex(12))

    async def result(self, *, timeout_s: float | None = None) -> Any:
        """Wait for the end and return the result, through retries and continued runs.

        Raises WorkflowFailed, WorkflowSuspended, NotFound when there is no such workflow, RequestTimeout.
        """
        with anyio.move_on_after(timeout_s):
            return await self._client.wait(self)
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

    async def describe(self, *, at: int | None = None) -> WorkflowState:
        """What the workflow is doing, or how it ended. Raises NotFound.

        at: the number of an event of its newest run, from 1, or the event's stream sequence. Then it is as it was when
        that event had happened, with where its Lua code stood and what variables held: `detail` has `tasks`,
        `coroutines`, `globals`, `waiting`, `ops` (docs/debugging.md). Raises UnknownEvent, CannotLookBack.
        """
        if at is not None:
            return await self._client.look_back(self.key, at)
        return await self._client.describe(self.key)

    async def history(self) -> list[Event]:
        """All events of the newest run. Raises NotFound."""
        found = await self._client.history(self.key.queue).last_run(self.key)
        if found is None:
            raise NotFound(f"no workflow {self.id!r} on queue {self.key.queue!r}")
        return await self._client.history(self.key.queue).events(self.key, found[0].run)


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

    async def describe(self, key: WorkflowKey) -> WorkflowState:
        """What a workflow is doing, or how it ended. Raises NotFound."""
        found = await self.history(key.queue).last_run(key)
        if found is None:
            raise NotFound(f"no workflow {key.id!r} on queue {key.queue!r}")
        run, ended = found
        name = workflow_name(run)
        if ended is not None:
            record = decode_end(ended.data)
            return WorkflowState(key, run.run, name, record.status, record.value(), {})
        detail = await self.ask_owner(key, run)
        return WorkflowState(key, run.run, name, str(detail.get("status", "running")), None, detail)

    async def look_back(self, key: WorkflowKey, at: int) -> WorkflowState:
        """How the newest run of a workflow was at one of its events; see `WorkflowHandle.describe`."""
        found = await self.history(key.queue).last_run(key)
        if found is None:
            raise NotFound(f"no workflow {key.id!r} on queue {key.queue!r}")
        run = found[0]
        events = await self.history(key.queue).events(key, run.run)
        number = event_number(key.id, events, at)
        detail = await self.ask_owner_back(key, run, events[number - 1].seq)
        return WorkflowState(key, run.run, workflow_name(run), str(detail["status"]), past_value(detail), detail)

    async def ask_owner(self, key: WorkflowKey, run: OpenRun, *, full: bool = False) -> Mapping[str, Any]:
        """What the owner of an open run says it is waiting for; a note instead when nobody owns it.

        full: also where its code stands, with what variables hold, and its ops.
        """
        timeout_s = DESCRIBE_FULL_TIMEOUT_S if full else DESCRIBE_TIMEOUT_S
        reply = await self._ask_owner(key, run, {"id": key.id, "full": full}, timeout_s=timeout_s)
        if reply is None:
            return {"status": "running", "note": _no_owner(key, run)}
        if closed := why_closed(reply):
            return {"status": "running", "note": f"what its owner says of it is {closed}"}
        value = codec.decode(reply)
        return value if isinstance(value, Mapping) else {"status": "running", "note": "its owner is taking it over"}

    async def ask_owner_back(self, key: WorkflowKey, run: OpenRun, seq: int = 0) -> Mapping[str, Any]:
        """How a run was when the event at a stream sequence had happened; 0: the newest. It may have ended.

        Raises CannotLookBack: nobody owns it, or its history cannot be replayed.
        """
        reply = await self._ask_owner(
            key, run, {"id": key.id, "run": run.run, "at": seq}, timeout_s=LOOK_BACK_TIMEOUT_S
        )
        if reply is not None and (closed := why_closed(reply)):
            raise CannotLookBack(f"what its owner says of it is {closed}")
        value = codec.decode(reply) if reply is not None else None
        if not isinstance(value, Mapping):
            raise CannotLookBack(_no_owner(key, run))
        if "status" not in value:
            raise CannotLookBack(str(value.get("problem")))
        return value

    async def _ask_owner(
        self, key: WorkflowKey, run: OpenRun, wish: Mapping[str, Any], *, timeout_s: float
    ) -> bytes | None:
        subject = owner_request(key.queue, _partition_of(run), "describe")
        for _ in range(DESCRIBE_TRIES):
            # Only the owner answers; while a partition changes hands nobody does for a moment.
            try:
                payload = codec.encode(wish)
                return (await self.conn.request(subject, payload, timeout_s=timeout_s, opens=self.opens)).data
            except NoResponders:
                break
            except RequestTimeout:
                continue
        return None

    async def wait(self, handle: WorkflowHandle) -> Any:
        """Wait for a workflow's end; see `WorkflowHandle.result`. A server that goes away is waited for, too."""
        doubted_since_s: float | None = None
        while True:
            epoch = self.conn.epoch
            try:
                return await self._wait(handle)
            except (Disconnected, RequestTimeout):
                await self.conn.wait_connected()
            except NotFound:
                # While a cluster elects a leader, a stream looks as if it was not there. That of a run that we have
                # seen is there.
                now_s = anyio.current_time()
                doubted_since_s = now_s if doubted_since_s is None or epoch != self.conn.epoch else doubted_since_s
                if not handle.was_seen or now_s - doubted_since_s > STREAM_PATIENCE_S:
                    raise
                await anyio.sleep(STREAM_AGAIN_S)

    async def _wait(self, handle: WorkflowHandle) -> Any:
        key = handle.key
        news = _News(self.conn)
        # Whoever ends the run publishes that, and so we hear of it; the log decides.
        ends = self.conn.subscribe_direct(key.subject("end", "*"), news.on_end)
        notes = self.conn.subscribe_direct(key.note("suspended"), news.on_suspended)
        try:
            run = handle.run or await self._newest_run(key)
            handle.was_seen = True
            asked = False
            look_s = FIRST_LOOK_S
            while True:
                ended = await self.history(key.queue).end_of(key, run)
                if ended is not None:
                    record = decode_end(ended.data)
                    if record.closed:
                        raise Unopened(f"{record.closed}: the result of workflow {key.id!r}, which has ended")
                    if not record.next_start:
                        return _result(key, record.status, record.value())
                    run = await self._run_after(key, ended, news)
                    continue
                await self.history(key.queue).partition_of(key)  # looked up while there is time
                if news.suspended is not None:
                    raise WorkflowSuspended(key.id, news.suspended)
                if await news.wait(look_s):
                    continue
                if look_s >= ASK_OWNER_AFTER_S and not asked:
                    asked = True
                    state = await self.describe(key)
                    if state.status == "suspended":
                        raise WorkflowSuspended(key.id, str(state.detail.get("reason", "")))
                look_s = min(look_s * 4, LOOK_EVERY_S)
        finally:
            ends.unsubscribe()
            notes.unsubscribe()

    async def _newest_run(self, key: WorkflowKey) -> int:
        found = await self.history(key.queue).last_run(key)
        if found is None:
            raise NotFound(f"no workflow {key.id!r} on queue {key.queue!r}")
        return found[0].run

    async def _run_after(self, key: WorkflowKey, ended: RunOutcome, news: _News) -> int:
        history = self.history(key.queue)
        while True:
            following = await history.start_after(key, ended.seq)
            if following is not None:
                return following.run
            await news.wait(0.02)


class _News:
    """What is heard about a workflow while its result is waited for."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn
        self.suspended: str | None = None
        self._event = anyio.Event()

    def on_end(self, _subject: str, _reply: str, _data: bytes, _raw_headers: bytes | None) -> None:
        self._event.set()

    def on_suspended(self, subject: str, _reply: str, data: bytes, _raw_headers: bytes | None) -> None:
        try:
            self.suspended = str(codec.decode(self._conn.opened(subject, data)))
        except Unopened as error:
            self.suspended = f"the reason is {error.reason}"
        except Undecodable:
            self.suspended = "for a reason that cannot be read"
        self._event.set()

    async def wait(self, timeout_s: float) -> bool:
        """Wait for news; False when none came in time."""
        with anyio.move_on_after(timeout_s):
            await self._event.wait()
            self._event = anyio.Event()
            return True
        return False


def past_value(detail: Mapping[str, Any]) -> Any:
    """What a run that was looked back at had ended with; None while it had not, and for what was too large to send."""
    ended = detail.get("ended")
    if not isinstance(ended, Mapping) or not isinstance(ended.get("outcome"), bytes):
        return None
    return EndRecord(str(ended.get("status")), ended["outcome"]).value()


def _partition_of(run: OpenRun) -> int:
    return int(run.start.subject.split(".")[3])


def _no_owner(key: WorkflowKey, run: OpenRun) -> str:
    return f"no node owns partition {_partition_of(run)} of queue {key.queue} at the moment"


def workflow_name(run: OpenRun) -> str:
    """The name of the workflow that a start names."""
    try:
        return decode_start(
            run.start.data, parse_headers(run.start.raw_headers) if run.start.raw_headers else {}
        ).workflow
    except MeshError:
        return "?"


def _result(key: WorkflowKey, status: str, value: Any) -> Any:
    if isinstance(value, Failure):
        raise WorkflowFailed(key.id, status, value)
    return value


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
