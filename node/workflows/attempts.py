"""The attempts of a call: what follows when one of them has failed, and the pause before the next.

Pure. What a failure comes to depends on the call's options, and these stand in a registry that changes while runs are
open. So what was decided is recorded before anything that follows from it becomes visible (`workflow.version` has its
decisions recorded the same way), and a replay takes it from there: an attempt that was made again stays one, with the
pause that it had, and a call that was given up stays given up. Other options decide about failures to come.
Not recorded is what does not depend on options: a failure that is final under every policy, and a call that its code
has asked to stop.

Invariants:
  * the failure of an older attempt never changes what becomes of the one under way;
  * of the failed attempts in the history all but the latest may be deleted, unless an older one came in after it, each
    before what was decided about it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from mesh import codec
from mesh.events import Event
from mesh.failure import Failure, Kind
from node.workflows.call_options import CallOptions
from node.workflows.open_ops import DoesNotFit
from node.workflows.ops import OpState, RetryLater, WriteMark
from node.workflows.retry import RetryState, final_anyhow

# The pause before an attempt of call n is the tick `retry-<n>-<attempt>`. Not that of a timer n: the failure that began
# the pause may have been deleted from the history since, and its tick must not look like that of a timer the code never
# asked for. Each attempt has a name of its own, as of several ticks with one name only the first is read back.
RETRY_TICK: Final = "retry-"
# What was decided about failed attempt k of call n is the mark `failed-<n>-<k>`.
VERDICT_MARK: Final = "failed-"
# A pause between two attempts that is at least this long is a timer of the server; the run may be evicted meanwhile.
DURABLE_PAUSE_NS: Final = 5_000_000_000
# What the options of a call can give it up for.
_GIVEN_UP_FOR: Final = (RetryState.MAXIMUM_ATTEMPTS, RetryState.NON_RETRYABLE, RetryState.TIMEOUT)


def retry_tick(op: OpState) -> str:
    """The name of the timer that ends the pause before an op's next attempt."""
    return f"{RETRY_TICK}{op.n}-{op.attempt}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was decided about a failed attempt. pause_ns: before the next one; None: there is none, and why."""

    pause_ns: int | None
    state: RetryState = RetryState.IN_PROGRESS

    def recorded(self) -> int | str:
        """As it stands in its mark: how many nanoseconds the pause takes, or why there is none."""
        return self.pause_ns if self.pause_ns is not None else str(self.state)


class Failed(NamedTuple):
    """What follows from a failed attempt: another one, the call's outcome, or nothing. mark: recorded before that."""

    follows: RetryLater | bytes | None
    mark: WriteMark | None = None


def attempt_failed(
    op: OpState, options: CallOptions, attempt: int, failure: Failure, event: Event, recorded: Any
) -> Failed:
    """What follows from the failure that an event records.

    recorded: what the history has for this attempt's verdict, None when nothing. Raises DoesNotFit when that is none.
    """
    if attempt < op.attempt:
        # An older attempt that failed late says nothing about the one under way. What shows that it is older must
        # stay in the history: without it, a replay would take this for the latest news.
        op.overtaken = True
        return Failed(None)
    mark = None
    if op.stopping:
        verdict = Verdict(None, RetryState.CANCEL_REQUESTED)
    elif (anyhow := final_anyhow(failure)) is not None:
        verdict = Verdict(None, anyhow)
    elif recorded is not None:
        verdict = _read_verdict(op, attempt, recorded)
    else:
        verdict = _verdict(op, options, attempt, failure, event.at_ns)
        mark = WriteMark(verdict_mark(op.n, attempt), codec.encode(verdict.recorded()))
    if verdict.pause_ns is None:
        if verdict.state is RetryState.TIMEOUT and final_anyhow(failure) is None:
            # The next attempt would begin after the limit for all of them.
            text = f"{op.target} timed out (schedule_to_close, attempt {attempt}); this attempt failed: {failure}"
            failure = Failure(text, Kind.TIMEOUT, False, {"timeout_type": "schedule_to_close"})
        return Failed(_final_failure(failure, op, options.id, verdict.state), mark)
    drop = () if op.overtaken else tuple(seq for seq in (op.failed_seq, op.decided_seq) if seq)
    op.failed_seq, op.decided_seq, op.overtaken = event.seq, 0, False
    op.attempt = attempt + 1
    op.due_seq = event.seq
    op.last_failure = str(failure)
    op.claimed = False
    op.due_ns = event.at_ns + verdict.pause_ns
    op.durable = verdict.pause_ns >= DURABLE_PAUSE_NS
    begun_ns, op.begun_ns = op.begun_ns, op.due_ns
    return Failed(RetryLater(op, op.due_ns, drop, begun_ns), mark)


def verdict_mark(n: int, attempt: int) -> str:
    """The name of the mark for what was decided about a failed attempt of call n."""
    return f"{VERDICT_MARK}{n}-{attempt}"


def verdict_recorded(op: OpState, attempt: str, seq: int) -> None:
    """Take notice of the event that records what was decided about an attempt of an op."""
    if op.failed_seq and attempt == str(op.attempt - 1):
        op.decided_seq = seq


def _verdict(op: OpState, options: CallOptions, attempt: int, failure: Failure, at_ns: int) -> Verdict:
    pause_ns = options.policy.next_delay_ns(attempt, failure)
    if pause_ns is None:
        return Verdict(None, options.policy.retry_state(attempt, failure))
    limit_ns = options.schedule_to_close_ns
    if limit_ns and at_ns + pause_ns >= op.issued_ns + limit_ns:
        return Verdict(None, RetryState.TIMEOUT)
    return Verdict(pause_ns)


def _read_verdict(op: OpState, attempt: int, recorded: Any) -> Verdict:
    if isinstance(recorded, int) and not isinstance(recorded, bool) and recorded >= 0:
        return Verdict(recorded)
    if recorded in _GIVEN_UP_FOR:
        return Verdict(None, RetryState(recorded))
    raise DoesNotFit(
        f"op {op.n}: the history says {recorded!r:.100} where it should say "
        f"what was decided about failed attempt {attempt}"
    )


def pause_over(op: OpState, attempt: str, seq: int) -> bool:
    """Take notice of the tick that ends the pause before an attempt, event `seq`; whether that attempt is due now."""
    if not op.durable or attempt != str(op.attempt) or op.stopping:
        return False
    op.due_ns = 0
    op.due_seq = seq
    op.durable = False
    return True


def _final_failure(failure: Failure, op: OpState, name: str, state: RetryState) -> bytes:
    details = {
        **failure.details,
        "_wrapper": "activity",
        "_activity_id": name or str(op.n),
        "_activity_type": op.target,
        "_attempt": op.attempt,
        "_retry_state": str(state),
    }
    return codec.encode_failure(replace(failure, details=details))
