"""What a workflow is doing, or was doing at one of its events: what its history says, and what the owner of it says.

Of a run that is open only its owner knows what it waits for; it is asked, and need not answer: then there is a note in
place of what it would have said.

Not here: waiting for the end (`mesh.results`), the whole record that `mesh show --json` prints (`node.api.describing`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from mesh import codec
from mesh.connection import Connection
from mesh.envelopes import Unopened, why_closed
from mesh.errors import CannotLookBack, MeshError, NoResponders, RequestTimeout
from mesh.event_numbers import event_number
from mesh.events import EndRecord, decode_end, decode_start
from mesh.history import History, OpenRun
from mesh.subjects import WorkflowKey, owner_request
from mesh.wire import parse_headers

DESCRIBE_TIMEOUT_S: Final = 1.0
DESCRIBE_FULL_TIMEOUT_S: Final = 6.0
DESCRIBE_TRIES: Final = 5
LOOK_BACK_TIMEOUT_S: Final = 30.0  # a long history is replayed for it


class Reach(Protocol):
    """What there has to be for asking about workflows. opens: whether payloads are read as they were in the clear."""

    conn: Connection
    opens: bool

    def history(self, queue: str) -> History:
        """The histories of a queue."""
        ...


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


async def describe(reach: Reach, key: WorkflowKey, run_id: int = 0) -> WorkflowState:
    """What a workflow is doing, or how it ended; an older run of it, if one is named. Raises NotFound, NoSuchRun."""
    run, ended = await reach.history(key.queue).run_named(key, run_id)
    name = workflow_name(run)
    if ended is not None:
        record = decode_end(ended.data)
        return WorkflowState(key, run.run, name, record.status, record.value(), {})
    detail = await ask_owner(reach, key, run)
    return WorkflowState(key, run.run, name, str(detail.get("status", "running")), None, detail)


async def look_back(reach: Reach, key: WorkflowKey, at: int, run_id: int = 0) -> WorkflowState:
    """How a run of a workflow, by default the newest, was at one of its events (`WorkflowHandle.describe`).

    Raises NotFound, NoSuchRun, UnknownEvent, CannotLookBack.
    """
    run, events = await reach.history(key.queue).recorded(key, run_id)
    number = event_number(key.id, events, at, run_id)
    detail = await ask_owner_back(reach, key, run, events[number - 1].seq)
    return WorkflowState(key, run.run, workflow_name(run), str(detail["status"]), past_value(detail), detail)


async def ask_owner(reach: Reach, key: WorkflowKey, run: OpenRun, *, full: bool = False) -> Mapping[str, Any]:
    """What the owner of an open run says it is waiting for; a note instead when nobody owns it.

    full: also where its code stands, with what variables hold, and its ops.
    """
    timeout_s = DESCRIBE_FULL_TIMEOUT_S if full else DESCRIBE_TIMEOUT_S
    reply = await _ask_owner(reach, key, run, {"id": key.id, "full": full}, timeout_s=timeout_s)
    if reply is None:
        return {"status": "running", "note": _no_owner(key, run)}
    if closed := why_closed(reply):
        return {"status": "running", "note": _sealed(closed)}
    value = codec.decode(reply)
    return value if isinstance(value, Mapping) else {"status": "running", "note": "its owner is taking it over"}


async def ask_owner_back(reach: Reach, key: WorkflowKey, run: OpenRun, seq: int = 0) -> Mapping[str, Any]:
    """How a run was when the event at a stream sequence had happened; 0: the newest. It may have ended.

    Raises CannotLookBack: nobody owns it, or its history cannot be replayed.
    """
    reply = await _ask_owner(reach, key, run, {"id": key.id, "run": run.run, "at": seq}, timeout_s=LOOK_BACK_TIMEOUT_S)
    if reply is not None and (closed := why_closed(reply)):
        raise CannotLookBack(_sealed(closed)) from Unopened(closed)
    value = codec.decode(reply) if reply is not None else None
    if not isinstance(value, Mapping):
        raise CannotLookBack(_no_owner(key, run))
    if "status" not in value:
        raise CannotLookBack(str(value.get("problem")))
    return value


async def _ask_owner(
    reach: Reach, key: WorkflowKey, run: OpenRun, wish: Mapping[str, Any], *, timeout_s: float
) -> bytes | None:
    subject = owner_request(key.queue, _partition_of(run), "describe")
    for _ in range(DESCRIBE_TRIES):
        # Only the owner answers; while a partition changes hands nobody does for a moment.
        try:
            payload = codec.encode(wish)
            return (await reach.conn.request(subject, payload, timeout_s=timeout_s, opens=reach.opens)).data
        except NoResponders:
            break
        except RequestTimeout:
            continue
    return None


def past_value(detail: Mapping[str, Any]) -> Any:
    """What a run that was looked back at had ended with; None while it had not, and for what was too large to send."""
    ended = detail.get("ended")
    if not isinstance(ended, Mapping) or not isinstance(ended.get("outcome"), bytes):
        return None
    return EndRecord(str(ended.get("status")), ended["outcome"]).value()


def _partition_of(run: OpenRun) -> int:
    return int(run.start.subject.split(".")[3])


def _sealed(closed: str) -> str:
    return f"what its owner says of it is {closed}; who has the keys can read it (--keys FILE or MESH_KEYS)"


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
