"""The attempts of a call: what follows when one of them has failed, and the pause before the next.

Pure. A decision rests on the recorded failure, the time it was recorded at and the call's options, so replay takes it
again as it was taken live.

Invariants:
  * the failure of an older attempt never changes what becomes of the one under way;
  * of the failed attempts in the history all but the latest may be deleted, unless an older one came in after it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from mesh import codec
from mesh.events import Event
from mesh.failure import Failure, Kind
from node.workflows.call_options import CallOptions
from node.workflows.ops import OpState, RetryLater
from node.workflows.retry import RetryState

# The pause before an attempt of call n is the tick `retry-<n>-<attempt>`. Not that of a timer n: the failure that began
# the pause may have been deleted from the history since, and its tick must not look like that of a timer the code never
# asked for. Each attempt has a name of its own, as of several ticks with one name only the first is read back.
RETRY_TICK: Final = "retry-"
# A pause between two attempts that is at least this long is a timer of the server; the run may be evicted meanwhile.
DURABLE_PAUSE_NS: Final = 5_000_000_000


def retry_tick(op: OpState) -> str:
    """The name of the timer that ends the pause before an op's next attempt."""
    return f"{RETRY_TICK}{op.n}-{op.attempt}"


def attempt_failed(
    op: OpState, options: CallOptions, attempt: int, failure: Failure, event: Event
) -> RetryLater | bytes | None:
    """What follows from the failure that an event records: another attempt, the call's outcome, or nothing."""
    if attempt < op.attempt:
        # An older attempt that failed late says nothing about the one under way. What shows that it is older must
        # stay in the history: without it, a replay would take this for the latest news.
        op.overtaken = True
        return None
    delay_ns = options.policy.next_delay_ns(attempt, failure) if not op.stopping else None
    limit_ns = options.schedule_to_close_ns
    if delay_ns is not None and limit_ns and event.at_ns + delay_ns >= op.issued_ns + limit_ns:
        # The next attempt would begin after the limit for all of them.
        text = f"{op.target} timed out (schedule_to_close, attempt {attempt}); this attempt failed: {failure}"
        failure = Failure(text, Kind.TIMEOUT, False, {"timeout_type": "schedule_to_close"})
        delay_ns = None
    if delay_ns is None:
        state = RetryState.CANCEL_REQUESTED if op.stopping else options.policy.retry_state(attempt, failure)
        return _final_failure(failure, op, options.id, state)
    drop_seq = 0 if op.overtaken else op.failed_seq
    op.failed_seq, op.overtaken = event.seq, False
    op.attempt = attempt + 1
    op.due_seq = event.seq
    op.last_failure = str(failure)
    op.claimed = False
    op.due_ns = event.at_ns + delay_ns
    op.durable = delay_ns >= DURABLE_PAUSE_NS
    begun_ns, op.begun_ns = op.begun_ns, op.due_ns
    return RetryLater(op, op.due_ns, drop_seq, begun_ns)


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
