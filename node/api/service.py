"""The control API on the mesh: the NATS micro service `mesh` (ADR-32), which every node serves in one queue group.

    nats req mesh.api.start '{"workflow": "app.workflows:order", "id": "order-1", "args": [{"total": 3}]}'

Not here: what the verbs do (`node.api.verbs`), what a request may say (`node.api.endpoints`).

Invariants:
  * every request is answered once, with a record or an error; a node that leaves answers those it has taken;
  * no more than REQUESTS_MAX are under way on a node: more are refused, not queued.
"""

from __future__ import annotations

import functools
import json
import logging
import time
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.abc

from mesh import codec
from mesh.client import Client
from mesh.connection import Connection, DirectSubscription
from mesh.envelopes import ENVELOPE, answer_context, why_closed
from mesh.errors import Disconnected, MeshError, PayloadTooLarge
from mesh.tracecontext import carrying, read_context
from node.api.endpoints import ENDPOINTS, EndpointSpec, Verb
from node.api.problems import OURS, REFUSED, UNAVAILABLE, Problem, problem_of
from node.api.requests import read_request, schema_of
from node.api.verbs import Asker
from node.micro import QUEUE_GROUP, Endpoint, MicroService, error_headers

if TYPE_CHECKING:
    from store.projecting import Projecting

SERVICE: Final = "mesh"
REQUESTS_MAX: Final = 256
NO_ANSWER_TO: Final = ("mesh.", "$")
DRAIN_S: Final = 0.5  # for requests under way when the node leaves; who waits longer is told to ask another node

_log = logging.getLogger(__name__)


class ControlApi:
    """Serves the control API on one node. projecting: the projection that it keeps, if it does."""

    def __init__(self, client: Client, *, node_id: str, version: str, projecting: Projecting | None = None) -> None:
        self._client = client
        self._conn: Connection = client.conn
        self._subscriptions: list[DirectSubscription] = []
        self._under_way: set[anyio.CancelScope] = set()
        self._idle = anyio.Event()
        self._tasks: anyio.abc.TaskGroup | None = None
        self.service = MicroService(
            client.conn,
            name=SERVICE,
            version=version,
            description="Control API of the mesh",
            metadata={"node": node_id},
        )
        # Whoever asks without encrypting must not be answered with what only those who have the keys may read.
        self._as_stored = Client(client.conn, opens=False)
        self._projecting = projecting
        self._endpoints = [
            (spec, spec.load(), self.service.add(spec.name, spec.subject, metadata=_metadata(spec)))
            for spec in ENDPOINTS
            if spec.of != "projection" or projecting is not None
        ]

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled. Ready once the server knows the subscriptions."""
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                for spec, verb, endpoint in self._endpoints:
                    handler = functools.partial(self._on_request, spec, verb, endpoint)
                    self._subscriptions.append(self._conn.subscribe_direct(spec.subject, handler, queue=QUEUE_GROUP))
                self.service.start()
                await self._conn.flush()
                task_status.started()
                await anyio.sleep_forever()
        finally:
            self._stop()

    async def drain(self) -> None:
        """Take no more requests and answer those under way; what would take long is refused."""
        self._stop()
        with anyio.move_on_after(DRAIN_S):
            await self._wait_until_idle()
        for scope in self._under_way:
            scope.cancel()
        await self._wait_until_idle()

    async def _wait_until_idle(self) -> None:
        while self._under_way:
            self._idle = anyio.Event()
            await self._idle.wait()

    def _stop(self) -> None:
        self.service.stop()
        for subscription in self._subscriptions:
            subscription.unsubscribe()
        self._subscriptions.clear()

    def _on_request(
        self,
        spec: EndpointSpec,
        verb: Verb,
        endpoint: Endpoint,
        subject: str,
        reply: str,
        data: bytes,
        raw_headers: bytes | None,
    ) -> None:
        # Without a reply nobody would hear the answer. And a node may write what its callers may not, so it does not
        # answer into a history or a bucket.
        if not reply or reply.startswith(NO_ANSWER_TO):
            return
        if self._tasks is None or len(self._under_way) >= REQUESTS_MAX:
            busy = _ours(UNAVAILABLE, "busy", f"this node has {len(self._under_way)} requests under way; try again")
            self._refuse(endpoint, reply, busy, 0.0)
            return
        scope = anyio.CancelScope()
        self._under_way.add(scope)
        with carrying(read_context(raw_headers)):  # what it starts belongs to the trace of who asks
            self._tasks.start_soon(
                self._serve, scope, spec, verb, endpoint, reply, self._conn.opened(subject, data), data[:2] == ENVELOPE
            )

    async def _serve(
        self,
        scope: anyio.CancelScope,
        spec: EndpointSpec,
        verb: Verb,
        endpoint: Endpoint,
        reply: str,
        data: bytes,
        encrypted: bool,
    ) -> None:
        begun = time.monotonic()
        problem: Problem | None = _ours(UNAVAILABLE, "leaving", "this node leaves the mesh; ask again")
        try:
            with scope:
                problem = await self._answer(spec, verb, reply, data, encrypted=encrypted)
        finally:
            self._under_way.discard(scope)
            if not self._under_way:
                self._idle.set()
        if problem is None:
            endpoint.count(time.monotonic() - begun)
        else:
            context = answer_context(spec.subject) if encrypted else ""
            self._refuse(endpoint, reply, problem, time.monotonic() - begun, context)

    async def _answer(
        self, spec: EndpointSpec, verb: Verb, reply: str, data: bytes, *, encrypted: bool
    ) -> Problem | None:
        """Carry a request out and answer it; what is to be answered instead when that was not possible."""
        try:
            if closed := why_closed(data):
                return _ours(REFUSED, "unopened", f"this node cannot read the request: it is {closed}")
            may_read = encrypted or self._conn.codec is None
            if spec.name == "call" and not may_read:
                return _ours(
                    REFUSED, "encrypted", "the answer would be encrypted; ask with keys (`mesh ... --keys FILE`)"
                )
            fields = read_request(spec.fields, data)
            answer = await verb(self._called_with(spec, may_read=may_read), **fields)
            if spec.name == "list" and not may_read:
                answer = without_values(answer)
            self._conn.publish_nowait(
                reply,
                answer_bytes({spec.key: answer} if spec.key else answer),
                context=answer_context(spec.subject) if encrypted else "",
            )
        except PayloadTooLarge as error:
            if error.subject != reply:
                return problem_of(error)
            sizes = f"{error.payload_bytes} bytes, the server takes {error.payload_bytes_max}"
            text = f"the answer takes {sizes}; ask for less"
            return _ours(OURS, error.code, text)
        except Exception as error:
            if not isinstance(error, MeshError):
                _log.exception("mesh.api.%s", spec.name)
            return problem_of(error)
        return None

    def _called_with(self, spec: EndpointSpec, *, may_read: bool) -> Any:
        if spec.of == "projection":
            return self._projecting
        client = self._client if may_read else self._as_stored
        return client if spec.of == "client" else Asker(client, self._conn.address)

    def _refuse(self, endpoint: Endpoint, reply: str, problem: Problem, took_s: float, context: str = "") -> None:
        endpoint.count(took_s, problem.message)
        try:
            self._conn.publish_nowait(
                reply,
                answer_bytes(problem.record),
                headers=error_headers(problem.code, "encrypted" if context else problem.message),
                context=context,
            )
        except (Disconnected, PayloadTooLarge) as error:
            _log.info("an error was not answered: %s", error)


def _ours(code: int, kind: str, text: str) -> Problem:
    return Problem(code, text, {"error": {"code": code, "kind": kind, "message": text}})


def without_values(page: dict[str, Any]) -> dict[str, Any]:
    """A page of workflows without what their code and their starters have noted, for who has no keys."""
    return {**page, "workflows": [{**each, "memo": {}, "attrs": {}} for each in page["workflows"]]}


def answer_bytes(record: Any) -> bytes:
    """A record as JSON, the same text that `--json` prints."""
    return codec.to_json(record).encode("utf-8", "replace")


def _metadata(spec: EndpointSpec) -> dict[str, str]:
    return {
        "description": spec.about,
        "fields": ", ".join(f"{field.name} (required)" if field.required else field.name for field in spec.fields),
        "request": json.dumps(schema_of(spec.fields), separators=(",", ":")),
        "answer": f"{{{spec.key}: [...]}}" if spec.key else spec.answer,
    }
