"""Starting a workflow: exactly one run per id, by compare-and-set on its start subject.

Used by everybody who starts one: the Python client, the command line, a parent workflow, a function. Repeating a start
that got no answer is harmless: the same start is recognised by its entropy, which the runs that follow it have, too.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Literal

import anyio

from mesh import codec
from mesh.errors import Conflict, MeshError, OutcomeUnknown, Undecodable
from mesh.events import HEADER_FROM, StartSpec, decode_end, decode_start, parent_headers
from mesh.history import History, OpenRun, RunOutcome
from mesh.jetstream import JetStream
from mesh.schedules import put_schedule
from mesh.stored_messages import StoredMessage
from mesh.subjects import WorkflowKey, stream_name
from mesh.tracecontext import TraceContext, current_context
from mesh.wire import parse_headers

ConflictPolicy = Literal["use_existing", "fail", "terminate_existing"]
ReusePolicy = Literal["allow_duplicate", "allow_duplicate_failed_only", "reject_duplicate"]

ENTROPY_BYTES = 16
TRIES = 10
TERMINATE_WAIT_S = 10.0


class AlreadyStarted(MeshError):
    """Raised when a workflow with this id runs, or has run, and the policy forbids another."""

    code = "already-started"

    def __init__(self, key: WorkflowKey, reason: str) -> None:
        self.key = key
        super().__init__(f"workflow {key.id!r} on queue {key.queue!r} {reason}; choose another id or another policy")


@dataclass(frozen=True, slots=True)
class Started:
    """What a start came to. run is 0 for a cron schedule, whose runs come later."""

    run: int
    existing: bool


def new_entropy() -> bytes:
    """Randomness for one run, recorded in its start."""
    return secrets.token_bytes(ENTROPY_BYTES)


def on_existing(
    key: WorkflowKey, ended: str | None, conflict: ConflictPolicy, reuse: ReusePolicy
) -> Literal["use", "terminate", "start"]:
    """What a start comes to when there is a workflow with its id. Raises AlreadyStarted. Pure.

    ended: how the workflow has ended, None while it runs.
    """
    if ended is None:
        if conflict == "fail":
            raise AlreadyStarted(key, "is running") from None
        return "use" if conflict == "use_existing" else "terminate"
    if reuse == "reject_duplicate":
        raise AlreadyStarted(key, "has run before") from None
    if reuse == "allow_duplicate_failed_only" and ended == "completed":
        raise AlreadyStarted(key, "has completed before") from None
    return "start"


async def start_workflow(
    js: JetStream,
    key: WorkflowKey,
    spec: StartSpec,
    *,
    conflict: ConflictPolicy = "use_existing",
    reuse: ReusePolicy = "allow_duplicate",
    sender: str = "",
    trace: TraceContext | None = None,
) -> Started:
    """Start a workflow, or find the one that runs, as the policies say. `spec.entropy` must be set.

    trace: the span it is started in; by default the one that the caller is in, if any. Its run's spans come below it.
    Returns once the start is acknowledged. Raises AlreadyStarted, PayloadTooLarge, NotFound (no such queue),
    OutcomeUnknown when the server stays silent.
    """
    if spec.cron:
        await put_schedule(js, key, spec)
        return Started(0, existing=False)
    history = History(js, key.queue)
    payload = spec.encode()
    context = trace or current_context()
    headers = (context.headers if context is not None else {}) | parent_headers(spec.parent)
    expected = 0
    for _ in range(TRIES):
        try:
            ack = await js.publish(key.start(), payload, headers=headers or None, expect_last_subject_seq=expected)
        except OutcomeUnknown:
            continue  # repeated with the same expectation: if it is there, the conflict shows it
        except Conflict:
            found = await history.last_run(key)
            if found is None:
                expected = 0
                continue
            open_run, ended = found
            if _is_ours(open_run.start, spec):
                # Also when it has ended: whoever starts it here may have stood still since another one did.
                return Started(open_run.run, existing=False)
            if ended is None or ended.goes_on:
                if on_existing(key, None, conflict, reuse) == "use":
                    await _deliver(js, key, spec, sender)
                    return Started(open_run.run, existing=True)
                await _terminate_chain(js, history, key, open_run.run)
            else:
                on_existing(key, decode_end(ended.data).status, conflict, reuse)
            last = await js.get_last(stream_name(key.queue), key.stored("*", "start"))
            expected = last.seq if last is not None else 0
        else:
            return Started(ack.seq, existing=False)
    raise OutcomeUnknown(key.start())


async def signal_workflow(
    js: JetStream, key: WorkflowKey, topic: str, body: bytes, *, sender: str = "", once: str = ""
) -> int:
    """Send a signal and return its stream sequence once it is acknowledged; repeated until the server answers.

    once: an identity under which the receiver takes it one time only, however often it is stored.
    """
    headers = {HEADER_FROM: sender} if sender else {}
    if once:
        headers["Mesh-Once"] = once
    return await publish_until_acked(js, key.signal(topic), body, headers, msg_id=once or secrets.token_hex(12))


async def publish_until_acked(
    js: JetStream, subject: str, payload: bytes, headers: dict[str, str], *, msg_id: str
) -> int:
    """Publish under a message id, again after silence, until the server says that it is stored."""
    for _ in range(TRIES):
        try:
            ack = await js.publish(subject, payload, headers=headers, msg_id=msg_id)
        except OutcomeUnknown:
            continue
        return ack.seq
    raise OutcomeUnknown(subject)


async def _deliver(js: JetStream, key: WorkflowKey, spec: StartSpec, sender: str) -> None:
    for i, message in enumerate(spec.messages):
        once = f"{spec.entropy.hex()}/{i}"
        await signal_workflow(
            js, key, str(message.get("topic")), message.get("body") or codec.NIL_OUTCOME, sender=sender, once=once
        )


async def _terminate_chain(js: JetStream, history: History, key: WorkflowKey, run: int) -> None:
    """Terminate a workflow: this run, or the one it goes on as meanwhile.

    Until its last run has ended, the start of another one would be ignored.
    """
    while True:
        await _terminate(js, history, key, run)
        ended = await history.end_of(key, run)
        if ended is None or not ended.goes_on:
            return
        run = (await _following(history, key, ended)).run


async def _terminate(js: JetStream, history: History, key: WorkflowKey, run: int) -> None:
    await publish_until_acked(js, key.subject("kill"), b"", {}, msg_id=f"{key.queue}/{key.id}/{run}/kill")
    with anyio.move_on_after(TERMINATE_WAIT_S):
        delay_s = 0.005
        while await history.end_of(key, run) is None:
            await anyio.sleep(delay_s)
            delay_s = min(delay_s * 2, 0.5)
        return
    raise AlreadyStarted(
        key, f"is running and did not end within {TERMINATE_WAIT_S:g} s of being terminated (no node up?)"
    )


async def _following(history: History, key: WorkflowKey, ended: RunOutcome) -> OpenRun:
    with anyio.move_on_after(TERMINATE_WAIT_S):
        while True:
            following = await history.start_after(key, ended.seq)
            if following is not None:
                return following
            await anyio.sleep(0.005)
    raise AlreadyStarted(key, f"goes on as a new run, which did not begin within {TERMINATE_WAIT_S:g} s (no node up?)")


def _is_ours(start: StoredMessage, spec: StartSpec) -> bool:
    try:
        stored = decode_start(start.data, parse_headers(start.raw_headers) if start.raw_headers else {})
    except Undecodable:
        return False
    return bool(spec.entropy) and stored.entropy == spec.entropy
