"""What can be asked of workflows and functions: one implementation for the control API and for the command line.

A verb takes values and gives the record that `--json` prints and that the API answers (docs/api.md). Starting,
signalling, results and stopping need no node: they go to the streams.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import anyio

from mesh.errors import MeshError, NotFound, RequestTimeout
from mesh.failure import Failure, Kind
from node.api.directory import UnknownFunction, offered
from node.api.locating import find, host_of, is_scheduled
from node.api.problems import CONFLICT, NOT_YET, StateError
from node.api.requests import BadRequest

if TYPE_CHECKING:
    from mesh.client import Client, WorkflowHandle
    from mesh.history import OpenRun, RunOutcome
    from mesh.starting import ConflictPolicy, ReusePolicy
    from mesh.subjects import WorkflowKey

# `nats req` waits 5 s for an answer: with this it hears that there is no result yet.
RESULT_TIMEOUT_S: Final = 4.0
CALL_TIMEOUT_S: Final = 4.0
UNHEARD_TIMEOUT_S: Final = 0.5
HISTORY_EVENTS_DEFAULT: Final = 200

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks: a client, the address it has gone to, and the flags with which a command reaches the same mesh."""

    client: Client
    url: str = ""
    hint: str = ""

    async def find(self, workflow_id: str, queue: str | None) -> WorkflowHandle:
        """The workflow with this id. Raises NotFound."""
        return await find(self.client, self.url, workflow_id, queue, flags=self.hint)


class HasEnded(StateError):
    """Raised when something is asked of a workflow that has ended."""

    code = "has-ended"
    status = CONFLICT

    def __init__(self, state: Record, what: str, hint: str) -> None:
        super().__init__(
            f"workflow {state['id']!r} has ended ({state['status']}); {what}, see `mesh show {state['id']}{hint}`",
            state,
        )


class StillRunning(StateError, TimeoutError):
    """Raised when the time to wait for a result is over. The workflow knows nothing of it."""

    code = "still-running"
    status = NOT_YET

    def __init__(self, state: Record, timeout_s: float, hint: str) -> None:
        super().__init__(
            f"workflow {state['id']!r} has not ended within {timeout_s:g} s and goes on; "
            f"`mesh show {state['id']}{hint}` says what it waits for",
            state,
        )


class CallTimeout(StateError, TimeoutError):
    """Raised when a function has not answered in time. It may still be running."""

    code = "call-timeout"
    status = NOT_YET


async def start(
    asker: Asker,
    *,
    workflow: str,
    args: Sequence[Any] = (),
    host: str | None = None,
    id: str | None = None,
    conflict: ConflictPolicy | None = None,
    reuse: ReusePolicy = "allow_duplicate",
    run_timeout_s: float = 0.0,
    execution_timeout_s: float = 0.0,
    start_delay_s: float = 0.0,
    retry_policy: Mapping[str, Any] | None = None,
    messages: Sequence[Mapping[str, Any]] = (),
    cron: str = "",
    memo: Mapping[str, Any] | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> Record:
    """Start a workflow: {id, queue, run, existing}; run is null for a schedule."""
    handle = await asker.client.start(
        workflow,
        *args,
        host=await host_of(asker.client, asker.url, workflow, host),
        id=id,
        conflict=conflict,
        reuse=reuse,
        messages=[_message(message) for message in messages],
        run_timeout_s=run_timeout_s,
        execution_timeout_s=execution_timeout_s,
        start_delay_s=start_delay_s,
        retry_policy=retry_policy,
        cron=cron,
        memo=memo,
        search_attributes=attrs,
    )
    return {"id": handle.id, "queue": handle.key.queue, "run": handle.run or None, "existing": handle.existing}


async def signal(asker: Asker, *, id: str, topic: str, value: Any = None, queue: str | None = None) -> Record:
    """Send a signal to a running workflow: {id, queue, topic, seq}. Raises NotFound, HasEnded."""
    handle = await asker.find(id, queue)
    await _running(asker, handle, "nobody would read the signal")
    seq = await handle.signal(topic, value)
    return {"id": id, "queue": handle.key.queue, "topic": topic, "seq": seq}


async def why_unheard(client: Client, key: WorkflowKey, topic: str) -> str | None:
    """What to tell somebody whose signal the workflow does not listen to, as far as its owner says so soon; else None.

    For people, after the signal is stored: what they have mistyped waits in its mailbox for ever.
    """
    from mesh.states import describe as state_of
    from node.api.topics import why_unheard as unheard

    with anyio.move_on_after(UNHEARD_TIMEOUT_S), suppress(MeshError):
        return unheard(key.id, topic, (await state_of(client, key)).detail.get("mailbox") or {})
    return None


async def result(
    asker: Asker,
    *,
    id: str,
    queue: str | None = None,
    run: int = 0,
    timeout_s: float | None = RESULT_TIMEOUT_S,
) -> Record:
    """Wait for the end of a workflow: {id, queue, run, status, value, error}. Raises NotFound, NoSuchRun, StillRunning.

    run: the one whose chain is waited for, 0 for the newest. timeout_s: None = for ever.
    """
    handle = await asker.find(id, queue)
    if run:
        await asker.client.history(handle.key.queue).run_named(handle.key, run)
    return await result_of(asker, handle, run=run, timeout_s=timeout_s)


async def result_of(asker: Asker, handle: WorkflowHandle, *, run: int = 0, timeout_s: float | None) -> Record:
    """The same for a workflow that was found."""
    from mesh.results import WorkflowFailed, WorkflowSuspended

    handle.run = run or handle.run
    status, value, failure = "completed", None, None
    try:
        value = await handle.result(timeout_s=timeout_s)
    except RequestTimeout:
        raise StillRunning(await _state(handle), timeout_s or 0.0, asker.hint) from None
    except WorkflowFailed as failed:
        status, failure = failed.status, failed.failure
    except WorkflowSuspended as suspended:
        status, failure = "suspended", Failure(suspended.reason)
    return {
        "id": handle.id,
        "queue": handle.key.queue,
        "run": handle.last_run,
        "status": status,
        "value": value,
        "error": failure.to_wire() if failure is not None else None,
    }


async def cancel(asker: Asker, *, id: str, queue: str | None = None) -> Record:
    """Ask a workflow to stop: {id, queue, run}. Raises NotFound, HasEnded."""
    handle = await asker.find(id, queue)
    run = await _running(asker, handle, "there is nothing to cancel")
    await handle.cancel()
    return {"id": id, "queue": handle.key.queue, "run": run}


async def terminate(asker: Asker, *, id: str, queue: str | None = None, force: bool = False) -> Record:
    """End a workflow and a schedule of that id without asking: {id, queue, run}. Raises NotFound, HasEnded.

    force: also one of which not even the start can be read.
    """
    handle = await asker.find(id, queue)
    run = None
    if not await is_scheduled(asker.client, handle):
        run = await _running(asker, handle, "there is nothing to terminate")
    await handle.terminate(force=force)
    return {"id": id, "queue": handle.key.queue, "run": run}


async def reset(
    asker: Asker,
    *,
    id: str,
    event: int,
    queue: str | None = None,
    reason: str = "",
    signals: bool = True,
    without: Sequence[Any] = (),
) -> Record:
    """Run a workflow anew from one of its events: {id, queue, run, base, event, seq}. Raises NotFound, CannotReset."""
    if not all(type(number) is int and number > 0 for number in without):
        raise BadRequest("without is a list of numbers of events, from 1, or of their stream sequences")
    handle = await asker.find(id, queue)
    done = await handle.reset(event, reason=reason, signals=signals, without=without)
    return {
        "id": id, "queue": handle.key.queue, "run": done.run, "base": done.base, "event": done.number, "seq": done.seq,
    }  # fmt: skip


async def call(asker: Asker, *, function: str, args: Sequence[Any] = (), timeout_s: float = CALL_TIMEOUT_S) -> Record:
    """Call a function: {function, value, error}. Raises NotFound when nobody offers it, CallTimeout."""
    from mesh.client import FunctionFailed

    try:
        value = await asker.client.call(function, *args, timeout_s=timeout_s)
    except RequestTimeout:
        raise CallTimeout(
            f"{function} has not answered within {timeout_s:g} s; it may still be running", {"function": function}
        ) from None
    except FunctionFailed as failed:
        failure = failed.failure
        if failure.kind == Kind.NOT_FOUND and failure.message.startswith("no handler registered"):
            raise UnknownFunction(function, await offered(asker.client), asker.hint) from None
        return {"function": function, "value": None, "error": failure.to_wire()}
    return {"function": function, "value": value, "error": None}


async def describe(
    asker: Asker,
    *,
    id: str,
    queue: str | None = None,
    run: int = 0,
    at: int | None = None,
    last: int = HISTORY_EVENTS_DEFAULT,
) -> Record:
    """What a workflow is doing, or how it ended, with its newest events (0 = all), now or at one of its events.

    run: an older run of it. Raises NotFound, NoSuchRun, UnknownEvent, CannotLookBack.
    """
    from node.api.describing import describe as described
    from node.api.describing import fitted

    handle = await asker.find(id, queue)
    record = await described(asker.client, handle.key, run=run, at=at)
    record = {**record, "events": record["events"][-last:]} if last else record
    return fitted(record, asker.client.conn.message_bytes_max)


async def history(
    asker: Asker,
    *,
    id: str,
    queue: str | None = None,
    run: int = 0,
    after: int = 0,
    limit: int = HISTORY_EVENTS_DEFAULT,
) -> Record:
    """The events of a workflow's newest run: {id, queue, run, events_total, events, next}. Raises NotFound, NoSuchRun.

    run: an older one instead. after: number of the event after which to begin. next: what to give as `after` for more,
    null at the end.
    """
    from node.api.event_records import event_records

    handle = await asker.find(id, queue)
    history = asker.client.history(handle.key.queue)
    if await history.partition_of(handle.key) is None:
        raise NotFound(f"workflow {id!r} has not started yet")
    opened, events = await history.recorded(handle.key, run)
    return {
        "id": id,
        "queue": handle.key.queue,
        "run": opened.run,
        "events_total": len(events),
        "events": event_records(events)[after : after + limit],
        "next": after + limit if after + limit < len(events) else None,
    }


def _message(message: Mapping[str, Any]) -> tuple[str, Any]:
    topic = message.get("topic") if isinstance(message, Mapping) else None
    if not isinstance(topic, str) or not set(message) <= {"topic", "value"}:
        raise BadRequest("each of messages must be an object of topic (a text) and value")
    return topic, message.get("value")


async def _running(asker: Asker, handle: WorkflowHandle, what: str) -> int:
    """The run of a workflow that is open or about to be followed. Raises HasEnded, NotFound."""
    found = await asker.client.history(handle.key.queue).last_run(handle.key)
    if found is None:
        raise NotFound(f"workflow {handle.id!r} has not started yet; {what}")
    if found[1] is not None and not found[1].goes_on:
        raise HasEnded(_ended_state(handle, found[0], found[1]), what, asker.hint)
    return found[0].run


def _ended_state(handle: WorkflowHandle, opened: OpenRun, ended: RunOutcome) -> Record:
    from mesh.events import decode_end

    status = decode_end(ended.data).status
    return {"id": handle.id, "queue": handle.key.queue, "run": opened.run, "status": status}


async def _state(handle: WorkflowHandle) -> Record:
    """What a workflow is doing, in short."""
    from node.api.describing import waiting_record

    state = await handle.describe()
    detail = state.detail
    return {
        "id": handle.id,
        "queue": handle.key.queue,
        "run": state.run,
        "status": state.status,
        "waiting": [waiting_record(item) for item in detail.get("waiting") or ()],
    }
