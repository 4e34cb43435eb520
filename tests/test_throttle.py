"""The limits of a worker's activities, decided."""

from __future__ import annotations

import pytest

from node.functions.throttle import Throttle


def test_as_many_as_the_limit_run_at_once_and_not_one_more() -> None:
    throttle = Throttle(at_once=2)
    for _ in range(2):
        assert throttle.wait_s(0.0) == 0.0
        throttle.begin()
    assert throttle.wait_s(9.0) is None
    throttle.leave()
    assert throttle.wait_s(9.0) == 0.0


@pytest.mark.parametrize("per_second", [0.5, 1.0, 10.0, 250.0])
def test_no_more_begin_in_ten_seconds_than_the_rate_allows(per_second: float) -> None:
    throttle = Throttle(at_once=10_000, per_second=per_second)
    begun, now = 0, 0.0
    while now < 10.0:
        wait = throttle.wait_s(now)
        assert wait is not None
        if wait == 0.0:
            throttle.begin()
            begun += 1
        now += wait
    burst = max(1.0, per_second / 10)
    assert 10 * per_second - 1 <= begun <= 10 * per_second + burst + 1


def test_a_pause_is_not_saved_up_for_ever() -> None:
    throttle = Throttle(at_once=10_000, per_second=10.0)
    throttle.wait_s(0.0)
    begun = 0
    while throttle.wait_s(3600.0) == 0.0:
        throttle.begin()
        begun += 1
    assert begun == 1
    assert throttle.wait_s(3600.0) == pytest.approx(0.1)


def test_a_clock_that_goes_back_changes_nothing() -> None:
    throttle = Throttle(at_once=10_000, per_second=1.0)
    assert throttle.wait_s(10.0) == 0.0
    throttle.begin()
    assert throttle.wait_s(5.0) == pytest.approx(1.0)
