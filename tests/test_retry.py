"""When a failed attempt is tried again, and after how long: the policy alone, no run."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.failure import Failure, Kind
from node.workflows.retry import LOST, UNKNOWN_OUTCOME, RetryPolicy, decode_policy, duration_option

MS_NS = 1_000_000
SECOND_NS = 1_000 * MS_NS


def test_defaults_are_those_of_the_contract() -> None:
    policy = decode_policy(None)
    assert policy == decode_policy({}) == RetryPolicy()
    assert (policy.initial_ns, policy.coefficient, policy.maximum_ns) == (SECOND_NS, 2.0, 100 * SECOND_NS)
    assert (policy.maximum_attempts, policy.non_retryable, policy.at_most_once) == (0, frozenset(), False)


def test_pauses_grow_by_the_coefficient_up_to_the_maximum() -> None:
    policy = decode_policy({"initial_interval": 100, "maximum_interval": "1s", "backoff_coefficient": 3})
    assert [policy.delay_ns(n) // MS_NS for n in range(1, 6)] == [100, 300, 900, 1000, 1000]


def test_the_maximum_is_a_hundred_times_the_initial_pause_unless_said() -> None:
    assert decode_policy({"initial_interval": "2s"}).maximum_ns == 200 * SECOND_NS
    assert decode_policy({"initial_interval": "2s", "maximum_interval": "1s"}).delay_ns(1) == SECOND_NS


@pytest.mark.parametrize("coefficient", [1, 2.0, 35.0, 1e10, 1e300, float("inf")])
@pytest.mark.parametrize("attempt", [1, 2, 3, 201, 10_000, 10**9])
def test_no_coefficient_and_no_attempt_overflows(coefficient: float, attempt: int) -> None:
    policy = decode_policy({"backoff_coefficient": coefficient})
    delay_ns = policy.delay_ns(attempt)
    assert SECOND_NS <= delay_ns <= policy.maximum_ns
    assert isinstance(delay_ns, int)
    if coefficient == 1:
        assert delay_ns == SECOND_NS
    elif attempt > 200:
        assert delay_ns == policy.maximum_ns


@pytest.mark.parametrize(
    ("maximum", "attempt", "again"), [(0, 10**6, True), (1, 1, False), (3, 2, True), (3, 3, False), (3, 4, False)]
)
def test_attempts_are_counted_from_one(maximum: int, attempt: int, again: bool) -> None:
    policy = decode_policy({"maximum_attempts": maximum})
    assert (policy.next_delay_ns(attempt, Failure("x")) is not None) is again


@pytest.mark.parametrize(
    ("failure", "again"),
    [
        (Failure("x"), True),
        (Failure("x", Kind.INTERNAL), True),
        (Failure("x", Kind.INVALID, retryable=True), True),
        (Failure("x", retryable=False), False),
        (Failure("x", Kind.CANCELED, retryable=True), False),
        (Failure("x", UNKNOWN_OUTCOME, retryable=True), False),
        (Failure("x", "Custom"), False),
        (Failure("x", Kind.TIMEOUT), True),
        (Failure("x", Kind.TIMEOUT, retryable=False), False),
        (Failure("x", Kind.TIMEOUT, False, {"timeout_type": "start_to_close"}), True),
        (Failure("x", Kind.TIMEOUT, False, {"timeout_type": "heartbeat"}), True),
        (Failure("x", Kind.TIMEOUT, None, {"timeout_type": "schedule_to_close"}), False),
        (Failure("x", Kind.TIMEOUT, None, {"timeout_type": "schedule_to_start"}), False),
        (Failure("x", Kind.TIMEOUT, None, {"timeout_type": ["a list"]}), False),
        (Failure("x", Kind.TIMEOUT, None, {"timeout_type": None}), False),
        (Failure("x", LOST, retryable=True), True),
    ],
)
def test_which_failures_are_tried_again(failure: Failure, again: bool) -> None:
    policy = decode_policy({"non_retryable_error_types": ["Custom"]})
    assert (policy.next_delay_ns(1, failure) is not None) is again


def test_a_lost_host_says_nothing_about_the_function() -> None:
    policy = decode_policy({"initial_interval": "1s"})
    lost = Failure("gone", LOST)
    assert [policy.next_delay_ns(n, lost) for n in (1, 2, 3)] == [0, SECOND_NS, 2 * SECOND_NS]
    assert decode_policy({"maximum_attempts": 1}).next_delay_ns(1, lost) is None


def test_keys_may_be_written_in_camel_case() -> None:
    camel = {
        "initialInterval": 5, "backoffCoefficient": 1.5, "maximumInterval": 50, "maximumAttempts": 4,
        "nonRetryableErrorTypes": ["A"],
    }  # fmt: skip
    assert decode_policy(camel) == RetryPolicy(5 * MS_NS, 1.5, 50 * MS_NS, 4, frozenset({"A"}))
    assert decode_policy({1: 2, b"x": 3, "unknown": 4}) == RetryPolicy()  # type: ignore[dict-item]  # what the wire may hold


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ({"initial_interval": 0}, "initial_interval"),
        ({"initial_interval": -1}, "initial_interval"),
        ({"initial_interval": "soon"}, "initial_interval"),
        ({"initial_interval": True}, "initial_interval"),
        ({"initial_interval": []}, "initial_interval"),
        ({"initial_interval": b"1s"}, "initial_interval"),
        ({"initial_interval": float("nan")}, "initial_interval"),
        ({"maximum_interval": {}}, "maximum_interval"),
        ({"maximum_interval": 1e300}, "maximum_interval"),
        ({"backoff_coefficient": 0.99}, "backoff_coefficient"),
        ({"backoff_coefficient": float("nan")}, "backoff_coefficient"),
        ({"backoff_coefficient": "2"}, "backoff_coefficient"),
        ({"backoff_coefficient": True}, "backoff_coefficient"),
        ({"maximum_attempts": -1}, "maximum_attempts"),
        ({"maximum_attempts": 1.5}, "maximum_attempts"),
        ({"maximum_attempts": True}, "maximum_attempts"),
        ({"non_retryable_error_types": "Internal"}, "non_retryable_error_types"),
        ({"non_retryable_error_types": [1]}, "non_retryable_error_types"),
        ({"non_retryable_error_types": {"a": 1}}, "non_retryable_error_types"),
    ],
)
def test_a_wrong_policy_names_its_key(table: dict[str, Any], key: str) -> None:
    with pytest.raises(ValueError, match=f"retry_policy.{key}"):
        decode_policy(table)


def test_durations_are_texts_or_milliseconds_and_may_be_zero() -> None:
    assert [duration_option("x", v) for v in ("1s", 1500, 0.5, 0, "0")] == [SECOND_NS, 1500 * MS_NS, MS_NS // 2, 0, 0]
    wrong_ones: tuple[object, ...] = (-1, "-1s", None, [], {}, b"1s", False, "x")
    for wrong in wrong_ones:
        with pytest.raises(ValueError, match=r"^limit"):
            duration_option("limit", wrong)
