"""The chain of runs of one workflow: how long it may take, how a run of it ends, and which run follows.

Pure. A run is followed by another one because its code says so (continue-as-new) or because it failed and its retry
policy asks for another attempt; what a schedule begins is not part of the chain. The next run's start travels in the
record of this one's end, so there is never an end without its successor.

Invariants:
  * every message is given to exactly one run of the chain: `since` is up to where those before were given them, and
    `heard` tells those that come again;
  * the limit for the chain counts from its first run, however many follow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from mesh import codec
from mesh.events import EndRecord, StartSpec, next_attempt
from mesh.failure import Failure, Kind
from node.workflows.retry import RetryPolicy, RetryState, decode_policy


class AtEnd(NamedTuple):
    """What of a run is handed on at its end. undelivered: messages it had been sent and its code was not given.

    given_up_to: up to which sequence it has been given its messages; the later ones are the next run's.
    heard: the identities of the messages that are not to be taken again.
    """

    spec: StartSpec
    started_ns: int
    now_ns: int
    given_up_to: int
    undelivered: tuple[Mapping[str, Any], ...]
    heard: tuple[str, ...]
    memo: Mapping[str, Any]
    attrs: Mapping[str, Any]


def deadline_ns(spec: StartSpec, started_ns: int) -> int:
    """When a run times out, 0 for never. A delayed run has its own time from when it begins."""
    limits = []
    if spec.run_timeout_ns:
        limits.append(started_ns + spec.start_delay_ns + spec.run_timeout_ns)
    if spec.execution_timeout_ns:
        limits.append(_chain_started_ns(spec, started_ns) + spec.execution_timeout_ns)
    return min(limits, default=0)


def end_record(run: AtEnd, verb: str, payload: bytes, options: bytes | None) -> EndRecord:
    """How a run ends whose code has come to its end, and the start of the next one if there is one.

    verb: ok, fail, raised, doomed or, for continue-as-new, any other. payload: the outcome, or the next run's request.
    """
    if verb == "ok":
        return EndRecord("completed", payload)
    if verb not in ("fail", "raised", "doomed"):
        return EndRecord("continued", codec.NIL_OUTCOME, _continued(run, payload, options).encode())
    _, failure = codec.decode_outcome(payload)
    spec = _retried(run, failure)
    if spec is not None:
        return EndRecord("retried", payload, spec.encode())
    return EndRecord("canceled" if failure.kind == Kind.CANCELED else "failed", payload)


def retry_state(spec: StartSpec, failure: Failure) -> RetryState:
    """Why a run that ended with that failure is not followed by another attempt (contract 11.7)."""
    policy = _policy(spec)
    if policy is None:
        return RetryState.NOT_SET
    state = policy.retry_state(spec.attempt, failure)
    # The policy would go on: what stands against it is the time for the whole chain.
    return RetryState.TIMEOUT if state is RetryState.IN_PROGRESS else state


def _continued(run: AtEnd, request: bytes, options: bytes | None) -> StartSpec:
    wish = codec.unpack(options or b"\x80")
    return replace(
        run.spec,
        workflow=wish["entry"],
        args=codec.pack(codec.decode(request)[0]),
        # What the code was given and has not read, and what it was not given: neither comes again from the history.
        messages=(*(wish.get("unread") or ()), *run.undelivered),
        attempt=1,
        start_delay_ns=0,
        chain_started_ns=_chain_started_ns(run.spec, run.started_ns),
        since=run.given_up_to,
        heard=run.heard,
        base=None,
        reason="",
        memo=run.memo,
        attrs=run.attrs,
    )


def _retried(run: AtEnd, failure: Failure) -> StartSpec | None:
    policy = _policy(run.spec)
    delay_ns = policy.next_delay_ns(run.spec.attempt, failure) if policy is not None else None
    if delay_ns is None:
        return None
    chain_started_ns = _chain_started_ns(run.spec, run.started_ns)
    limit_ns = run.spec.execution_timeout_ns
    if limit_ns and run.now_ns + delay_ns >= chain_started_ns + limit_ns:
        return None
    return next_attempt(
        run.spec, delay_ns=delay_ns, chain_started_ns=chain_started_ns, since=run.given_up_to, heard=run.heard
    )


def _policy(spec: StartSpec) -> RetryPolicy | None:
    """The retry policy of a run; one that cannot be read is none."""
    if spec.retry_policy is None:
        return None
    try:
        return decode_policy(spec.retry_policy)
    except ValueError:
        return None


def _chain_started_ns(spec: StartSpec, started_ns: int) -> int:
    return spec.chain_started_ns or started_ns
