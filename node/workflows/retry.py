"""When a failed attempt is tried again (contract 11.6). Pure: attempt and failure in, delay out.

What a policy has decided about a call of a workflow is recorded (`node.workflows.attempts`), as policies change.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from reprlib import repr as short  # what somebody sends may be nested deeper than repr goes
from typing import Any, Final

from mesh.duration import parse_duration_ns
from mesh.failure import HOST_LOST, Failure, Kind

# As they may be written: in snake_case and in camelCase.
POLICY_KEYS: Final = (
    "initial_interval", "initialInterval", "backoff_coefficient", "backoffCoefficient", "maximum_interval",
    "maximumInterval", "maximum_attempts", "maximumAttempts", "non_retryable_error_types", "nonRetryableErrorTypes",
)  # fmt: skip
MS_NS: Final = 1_000_000
DEFAULT_INITIAL_NS: Final = 1_000 * MS_NS
LOST: Final = HOST_LOST
UNKNOWN_OUTCOME: Final = "UnknownOutcome"
# Timeouts of one attempt: the next one may do better. The others end the call.
_RETRYABLE_TIMEOUTS: Final = ("start_to_close", "heartbeat")  # compared with whatever somebody else said


class RetryState(StrEnum):
    """Why something is not tried again: `details()._retry_state` of its error (contract 11.7)."""

    IN_PROGRESS = "InProgress"
    NON_RETRYABLE = "NonRetryableFailure"
    MAXIMUM_ATTEMPTS = "MaximumAttemptsReached"
    TIMEOUT = "Timeout"
    CANCEL_REQUESTED = "CancelRequested"
    NOT_SET = "RetryPolicyNotSet"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """initial_ns x coefficient^(attempt - 1), at most maximum_ns; maximum_attempts 0 = no limit."""

    initial_ns: int = DEFAULT_INITIAL_NS
    coefficient: float = 2.0
    maximum_ns: int = 100 * DEFAULT_INITIAL_NS
    maximum_attempts: int = 0
    non_retryable: frozenset[str] = frozenset()

    @property
    def at_most_once(self) -> bool:
        """Whether a call under this policy may never run twice."""
        return self.maximum_attempts == 1

    def delay_ns(self, attempt: int) -> int:
        """The pause after failed attempt number `attempt` (from 1)."""
        if self.coefficient <= 1:
            return min(self.initial_ns, self.maximum_ns)
        try:
            grown = self.initial_ns * math.pow(self.coefficient, attempt - 1)
        except OverflowError:
            return self.maximum_ns
        return int(min(grown, self.maximum_ns))

    def next_delay_ns(self, attempt: int, failure: Failure) -> int | None:
        """How long to wait before the next attempt, None when this failure is final."""
        if self.retry_state(attempt, failure) is not RetryState.IN_PROGRESS:
            return None
        if failure.kind == LOST:
            # Losing a host says nothing about the function: the first new attempt follows at once.
            return 0 if attempt == 1 else self.delay_ns(attempt - 1)
        return self.delay_ns(attempt)

    def retry_state(self, attempt: int, failure: Failure) -> RetryState:
        """Why a failure is final, or that it is not."""
        anyhow = final_anyhow(failure)
        if anyhow is not None:
            return anyhow
        if failure.kind in self.non_retryable:
            return RetryState.NON_RETRYABLE
        if self.maximum_attempts and attempt >= self.maximum_attempts:
            return RetryState.MAXIMUM_ATTEMPTS
        return RetryState.IN_PROGRESS


def final_anyhow(failure: Failure) -> RetryState | None:
    """Why a failure is final under every policy; None when the policy decides."""
    if failure.kind == Kind.CANCELED:
        return RetryState.CANCEL_REQUESTED
    if failure.kind == UNKNOWN_OUTCOME:
        return RetryState.NON_RETRYABLE
    if failure.kind == Kind.TIMEOUT and "timeout_type" in failure.details:
        return None if failure.details["timeout_type"] in _RETRYABLE_TIMEOUTS else RetryState.TIMEOUT
    return RetryState.NON_RETRYABLE if failure.retryable is False else None


def decode_policy(table: Mapping[str, Any] | None) -> RetryPolicy:
    """Read a retry policy table, camelCase accepted. Raises ValueError that names the key."""
    if not table:
        return RetryPolicy()
    if not isinstance(table, Mapping):
        raise ValueError(f"retry_policy must be a table, got {short(table)}")
    values = {_snake(key): value for key, value in table.items() if isinstance(key, str)}
    initial_ns = _duration(values, "initial_interval", DEFAULT_INITIAL_NS)
    coefficient = values.get("backoff_coefficient", 2.0)
    attempts = values.get("maximum_attempts", 0)
    kinds = values.get("non_retryable_error_types") or []
    if isinstance(coefficient, bool) or not isinstance(coefficient, int | float) or not coefficient >= 1:
        raise ValueError(f"retry_policy.backoff_coefficient must be a number of at least 1, got {short(coefficient)}")
    if isinstance(attempts, bool) or not isinstance(attempts, int) or attempts < 0:
        raise ValueError(f"retry_policy.maximum_attempts must be a whole number of at least 0, got {short(attempts)}")
    if not isinstance(kinds, list) or not all(isinstance(kind, str) for kind in kinds):
        raise ValueError("retry_policy.non_retryable_error_types must be a list of error kinds")
    return RetryPolicy(
        initial_ns=initial_ns,
        coefficient=float(coefficient),
        maximum_ns=_duration(values, "maximum_interval", 100 * initial_ns),
        maximum_attempts=attempts,
        non_retryable=frozenset(kinds),
    )


def duration_option(key: str, value: object) -> int:
    """Read a duration of the options: Go text or milliseconds, not negative. Raises ValueError that names the key."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{key} must be a duration (Go text or milliseconds), got {short(value)}")
    try:
        ns = parse_duration_ns(value, number_unit_ns=MS_NS)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error
    if ns < 0:
        raise ValueError(f"{key} must not be negative, got {short(value)}")
    return ns


def _duration(values: Mapping[str, Any], key: str, default_ns: int) -> int:
    value = values.get(key)
    if value is None:
        return default_ns
    ns = duration_option(f"retry_policy.{key}", value)
    if ns == 0:
        raise ValueError(f"retry_policy.{key} must be more than 0")
    return ns


def _snake(key: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in key).lstrip("_")
