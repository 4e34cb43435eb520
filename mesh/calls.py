"""A call of a function: one request, one outcome, and the question who has the call when none comes.

A host that dies with a call cannot say so, and the server does not know. So when a call is not answered for
LOOK_EVERY_S it is asked for (`function_who`): each host of the function answers whether it has it. When none does, the
host that had it is gone, and the call with it; when nobody listens at all, that is clear at once. The call is not made
again here, as it may have been carried out. What is too large for a message goes and comes through an object store
(`mesh.objects`), where it is kept for as long as the call lasts.

Invariant: a call ends in one outcome, or raises; what arrives later is dropped.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final

import anyio

from mesh import codec
from mesh.connection import Connection
from mesh.envelopes import outcome_context, request_context
from mesh.errors import Disconnected, MeshError, NotPermitted, PayloadTooLarge
from mesh.failure import HOST_LOST, Failure, Kind
from mesh.jetstream import JetStream
from mesh.references import is_reference
from mesh.subjects import function_request, function_stop, function_who
from mesh.tracecontext import TraceContext, current_context
from mesh.wire import is_no_responders

LOOK_EVERY_S: Final = 1.0
# What a call is asked after by. Its reply subject would do, but a host in another account sees another one.
HEADER_CALL: Final = "Mesh-Call"
# On the call of a function by a function: where the outcome of the workflow's call goes that all this is done for.
HEADER_FOR: Final = "Mesh-For"
WORKFLOW_SUBJECTS: Final = "mesh.wf."
TAKE_BACK_S: Final = 1.0
# How long answers are waited for, time after time: a host may be swamped. Together as long as owners of workflows wait.
ANSWERS_S: Final = (0.3, 0.7, 1.0)


async def call_function(
    conn: Connection,
    function_id: str,
    request: bytes,
    *,
    stop_on_cancel: Callable[[], bool] = lambda: False,
    trace: TraceContext | None = None,
    serves: str = "",
) -> bytes:
    """Call a function once and return its outcome, which is also that nobody offers it, or that its host is lost.

    request: a payload [arguments, context]. Waits for as long as somebody has the call. stop_on_cancel: asked when the
    wait is cancelled, whether the host is to be told to stop; else it goes on and nobody hears of it.
    trace: the span it is made in; by default the one that the caller is in, if any.
    serves: where the outcome of the call goes that this one is made for, "" when it is made for none; for logs only.
    Raises InvalidName, PayloadTooLarge, Disconnected and ServerRefused.
    """
    answers: list[bytes | MeshError] = []
    arrived = anyio.Event()

    def answer(found: bytes | MeshError) -> None:
        answers.append(found)
        arrived.set()

    def on_reply(data: bytes, raw_headers: bytes | None) -> None:
        if is_no_responders(data, raw_headers):
            failure = Failure(f"no handler registered for target {function_id}", Kind.NOT_FOUND, False)
            data = codec.encode_failure(failure)
        answer(conn.opened(outcome_context(identity), data))

    identity = f"call.{secrets.token_hex(11)}"
    headers = {HEADER_CALL: identity}
    context = trace or current_context()
    if context is not None:
        headers |= context.headers
    if serves.startswith(WORKFLOW_SUBJECTS):
        headers[HEADER_FOR] = serves
    subject = function_request(function_id)
    sealed_for = request_context(subject, identity)

    def ask(payload: bytes) -> str:
        return conn.request_nowait(subject, payload, on_reply, headers, on_error=answer, context=sealed_for)

    reference = b""
    try:
        token = ask(request)
    except PayloadTooLarge as refused:
        reference = await JetStream(conn).objects.instead_of_arguments(identity, sealed_for, request, refused)
        token = ask(reference)
    try:
        while not answers:
            with anyio.move_on_after(LOOK_EVERY_S):
                await arrived.wait()
            if not answers and not await _somebody_has(conn, function_id, identity, arrived):
                return codec.encode_failure(Failure(f"the host that ran {function_id} is gone", HOST_LOST, True))
    except anyio.get_cancelled_exc_class():
        if stop_on_cancel():
            _ask_to_stop(conn, function_id, identity)
        raise
    finally:
        conn.forget(token)
        if reference:
            await _take_back(conn, identity, reference)
    found = answers[0]
    if isinstance(found, MeshError):
        raise found
    return await _fetched(conn, identity, found) if is_reference(found) else found


async def _fetched(conn: Connection, identity: str, outcome: bytes) -> bytes:
    """The outcome that was too large for a message. Nobody else needs it."""
    try:
        return await JetStream(conn).objects.fetched_in_call(identity, outcome_context(identity), outcome)
    except NotPermitted as error:
        text = f"the result is too large for a message, and this user may not read it ({error})"
        return codec.encode_failure(Failure(text, Kind.INVALID, False))
    finally:
        await _take_back(conn, identity, outcome)


async def _take_back(conn: Connection, identity: str, reference: bytes) -> None:
    """Remove an object of a call that is over; one that is left goes when its time is over."""
    with anyio.CancelScope(shield=True), anyio.move_on_after(TAKE_BACK_S):
        await JetStream(conn).objects.take_back(identity, reference)


async def _somebody_has(conn: Connection, function_id: str, identity: str, answered: anyio.Event) -> bool:
    """Whether some host has the call, or has answered it meanwhile."""
    for timeout_s in ANSWERS_S:
        replies = await conn.request_many(
            function_who(function_id),
            codec.encode([identity]),
            timeout_s=timeout_s,
            stop=lambda reply: bool(codec.decode(reply.data)),
        )
        if answered.is_set() or any(codec.decode(reply.data) for reply in replies):
            return True
    return False


def _ask_to_stop(conn: Connection, function_id: str, identity: str) -> None:
    try:
        conn.publish_nowait(function_stop(function_id), codec.encode([identity]))
    except Disconnected:
        return  # it goes on to its end, and nobody hears of it
