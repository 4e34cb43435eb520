"""What a call has failed with when not its function says so, but whoever looks after it.

Pure. Finding it out is done in `node.workflows.calls`, and in virtual time in `node.testing`.
"""

from __future__ import annotations

from mesh.failure import Failure, Kind
from node.workflows.call_options import CallOptions
from node.workflows.ops import OpState
from node.workflows.retry import LOST, UNKNOWN_OUTCOME


def timed_out(target: str, attempt: int, which: str) -> Failure:
    """A limit of a call is over. which: start_to_close, schedule_to_close, schedule_to_start or heartbeat."""
    return Failure(f"{target} timed out ({which}, attempt {attempt})", Kind.TIMEOUT, False, {"timeout_type": which})


def outcome_unknown(target: str) -> Failure:
    """The host of a call that may run only once has begun, and is gone."""
    return Failure(
        f"{target} may run only once, its host began and is gone: whether it took effect is unknown",
        UNKNOWN_OUTCOME, False,
    )  # fmt: skip


def nobody_offers(target: str) -> Failure:
    """No node has the function."""
    return Failure(f"no handler registered for target {target}: no node offers it", Kind.NOT_FOUND, True)


def host_lost(op: OpState, attempt: int, options: CallOptions) -> Failure | None:
    """What follows when no host has a call any more; None: it may run once, none has begun, so it is made again."""
    if options.policy.at_most_once:
        return outcome_unknown(op.target) if op.claimed else None
    if options.heartbeat_ns:
        return timed_out(op.target, attempt, "heartbeat")
    return Failure(f"the host that ran {op.target} is gone", LOST, True)
