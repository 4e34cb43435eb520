"""The state machine of one supervised thing, under a virtual clock: no process, no waiting."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.failure import Failure, Kind
from node.registry import LifecycleSpec, RestartSpec, Startup
from node.services.supervision import (
    Action,
    Cancel,
    Ended,
    Event,
    Kill,
    RestartAt,
    RestartDue,
    Start,
    StartAsked,
    Started,
    StartFailed,
    State,
    StopAsked,
    StopTimedOut,
    Supervised,
    restart_delay_s,
    step,
)

BROKEN = Failure("broken", "Internal")
RESTART = RestartSpec(initial_delay_s=1.0, max_delay_s=90.0, backoff_factor=2.0, jitter=0.0, attempts_max=0)
SPEC = LifecycleSpec(
    auto_start=True,
    start_timeout_s=10.0,
    stop_timeout_s=10.0,
    stable_threshold_s=5.0,
    requires=(),
    startup=Startup.REQUIRED,
    restart=RESTART,
)
CANCEL_AT_110 = Cancel("service stopping", until_s=110.0)


def limited(attempts_max: int) -> LifecycleSpec:
    return replace(SPEC, restart=replace(RESTART, attempts_max=attempts_max))


class Clock:
    """One thing and its clock: `tell` an event, `fail` and `restart` as a thing that keeps failing would."""

    def __init__(self, spec: LifecycleSpec = SPEC) -> None:
        self.spec = spec
        self.now_s = 100.0
        self.thing = Supervised()

    def tell(self, event: Event, *, after_s: float = 0.0, chance: float = 0.5) -> tuple[Action, ...]:
        self.now_s += after_s
        self.thing, actions = step(self.spec, self.thing, event, now_s=self.now_s, chance=chance)
        return actions

    def running(self) -> Clock:
        assert self.tell(StartAsked()) == (Start(),)
        assert self.tell(Started()) == ()
        return self

    def delay_of_failure(self, *, ran_s: float) -> float | None:
        """Let the running thing fail after a while; return the pause that follows, None if it is not started again."""
        actions = self.tell(Ended(BROKEN), after_s=ran_s)
        assert self.thing.state is State.FAILED
        if not actions:
            return None
        (restart,) = actions
        assert isinstance(restart, RestartAt)
        pause_s = restart.at_s - self.now_s
        assert self.tell(RestartDue(), after_s=pause_s) == (Start(),)
        assert self.tell(Started()) == ()
        return pause_s


def test_the_pauses_double_from_one_second_up_to_ninety() -> None:
    clock = Clock().running()
    pauses = [clock.delay_of_failure(ran_s=0.0) for _ in range(10)]
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 90.0, 90.0, 90.0]
    assert (clock.thing.state, clock.thing.starts) == (State.RUNNING, 11)


def test_a_pause_never_overflows() -> None:
    assert restart_delay_s(RESTART, 100_000, 0.5) == 90.0
    assert restart_delay_s(replace(RESTART, initial_delay_s=0.0), 5, 0.5) == 0.0


@pytest.mark.parametrize(("chance", "share"), [(0.0, 0.9), (0.25, 0.95), (0.5, 1.0), (1.0, 1.1)])
def test_jitter_is_a_share_of_the_pause_to_either_side(chance: float, share: float) -> None:
    spec = replace(RESTART, jitter=0.1)
    assert restart_delay_s(spec, 3, chance) == pytest.approx(4.0 * share)
    assert restart_delay_s(spec, 50, chance) == pytest.approx(90.0 * share)


def test_full_jitter_never_gives_a_negative_pause() -> None:
    assert restart_delay_s(replace(RESTART, jitter=1.0), 1, 0.0) == 0.0


def test_a_run_of_exactly_the_stable_threshold_starts_a_new_series() -> None:
    clock = Clock().running()
    assert [clock.delay_of_failure(ran_s=s) for s in (0.0, 4.999, 5.0, 0.0)] == [1.0, 2.0, 1.0, 2.0]


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_the_limit_counts_starts_and_not_restarts(limit: int) -> None:
    clock = Clock(limited(limit)).running()
    for _ in range(limit - 1):
        assert clock.delay_of_failure(ran_s=0.0) is not None
    assert clock.delay_of_failure(ran_s=0.0) is None
    assert (clock.thing.state, clock.thing.starts, clock.thing.failure) == (State.FAILED, limit, BROKEN)
    assert clock.thing.is_over
    assert clock.tell(RestartDue(), after_s=1000.0) == ()


def test_a_start_that_fails_counts_like_a_run_that_fails() -> None:
    clock = Clock(limited(2))
    clock.tell(StartAsked())
    assert clock.tell(StartFailed(BROKEN)) == (RestartAt(101.0),)
    assert clock.tell(RestartDue(), after_s=1.0) == (Start(),)
    assert clock.tell(StartFailed(BROKEN)) == ()
    assert (clock.thing.state, clock.thing.due_s, clock.thing.starts) == (State.FAILED, None, 2)


def test_a_stable_run_is_the_first_start_of_a_new_series() -> None:
    """With a limit of one, stable or not, there is no second start; with two, a stable run may fail and come back."""
    assert Clock(limited(1)).running().delay_of_failure(ran_s=60.0) is None
    clock = Clock(limited(2)).running()
    assert [clock.delay_of_failure(ran_s=s) for s in (60.0, 60.0, 1.0)] == [1.0, 1.0, None]


def test_asking_for_what_gave_up_begins_a_new_series() -> None:
    clock = Clock(limited(1)).running()
    clock.delay_of_failure(ran_s=0.0)
    assert clock.tell(StartAsked()) == (Start(),)
    assert (clock.thing.attempts, clock.thing.starts, clock.thing.due_s) == (1, 2, None)


@pytest.mark.parametrize(
    "failure",
    [None, Failure("no", "Invalid", retryable=False), Failure("stopped", Kind.CANCELED)],
    ids=["no error", "not retryable", "cancelled"],
)
def test_an_end_that_needs_no_repair_is_an_exit_without_a_restart(failure: Failure | None) -> None:
    clock = Clock().running()
    assert clock.tell(Ended(failure), after_s=1.0) == ()
    assert clock.thing == Supervised(State.EXITED, since_s=101.0, attempts=1, starts=1, failure=failure)
    assert clock.tell(RestartDue(), after_s=1000.0) == ()


@pytest.mark.parametrize("retryable", [None, True])
def test_an_error_about_which_nobody_said_anything_is_repaired(retryable: bool | None) -> None:
    clock = Clock().running()
    assert clock.tell(Ended(Failure("process terminated", "Internal", retryable=retryable))) == (RestartAt(101.0),)


def test_a_start_that_can_never_succeed_is_not_tried_again() -> None:
    clock = Clock()
    clock.tell(StartAsked())
    assert clock.tell(StartFailed(Failure('method "x" not found in module', "NotFound", retryable=False))) == ()
    assert (clock.thing.state, clock.thing.is_over) == (State.FAILED, True)


def test_stopping_asks_first_and_kills_when_the_time_is_over() -> None:
    clock = Clock().running()
    assert clock.tell(StopAsked()) == (CANCEL_AT_110,)
    assert clock.thing.state is State.STOPPING
    assert clock.tell(StopTimedOut(), after_s=9.999) == ()  # a timer of something earlier
    assert clock.tell(StopTimedOut(), after_s=0.001) == (Kill(),)
    assert clock.tell(StopTimedOut(), after_s=100.0) == ()
    assert clock.tell(Ended(BROKEN)) == ()
    assert (clock.thing.state, clock.thing.due_s) == (State.STOPPED, None)


@pytest.mark.parametrize("failure", [None, BROKEN, Failure("canceled", Kind.CANCELED)])
def test_however_a_thing_ends_that_was_asked_to_stop_it_is_stopped(failure: Failure | None) -> None:
    clock = Clock().running()
    clock.tell(StopAsked())
    assert clock.tell(Ended(failure)) == ()
    assert clock.thing.state is State.STOPPED
    assert clock.tell(StartAsked()) == (Start(),)


def test_a_stop_during_the_start_waits_for_something_to_cancel() -> None:
    clock = Clock()
    clock.tell(StartAsked())
    assert clock.tell(StopAsked()) == ()
    assert clock.tell(StopTimedOut(), after_s=1000.0) == ()
    assert clock.tell(Ended(None)) == ()
    assert clock.thing == Supervised(State.STOPPING, since_s=100.0, attempts=1, starts=1)
    assert clock.tell(Started()) == (Cancel("service stopping", until_s=1110.0),)
    assert clock.tell(Ended(None)) == ()
    assert clock.thing.state is State.STOPPED


def test_a_start_that_fails_after_a_stop_was_asked_is_stopped() -> None:
    clock = Clock()
    clock.tell(StartAsked())
    clock.tell(StopAsked())
    assert clock.tell(StartFailed(BROKEN)) == ()
    assert clock.thing.state is State.STOPPED


def test_a_stop_during_the_pause_before_a_restart_drops_the_restart() -> None:
    clock = Clock().running()
    clock.tell(Ended(BROKEN))
    assert clock.tell(StopAsked()) == ()
    assert clock.tell(RestartDue(), after_s=1000.0) == ()
    assert clock.thing.state is State.STOPPED


def test_a_restart_does_not_come_before_its_time() -> None:
    clock = Clock().running()
    clock.tell(Ended(BROKEN))
    assert clock.tell(RestartDue(), after_s=0.999) == ()
    assert clock.tell(StartAsked()) == ()
    assert clock.tell(RestartDue(), after_s=0.001) == (Start(),)


EVERY_EVENT: list[Event] = [
    StartAsked(),
    Started(),
    StartFailed(BROKEN),
    Ended(None),
    StopAsked(),
    StopTimedOut(),
    RestartDue(),
]
EVERY_THING: dict[str, tuple[Supervised, set[type[Event]]]] = {
    "unknown": (Supervised(), {StartAsked}),
    "starting": (Supervised(State.STARTING), {Started, StartFailed, StopAsked}),
    "running": (Supervised(State.RUNNING), {Ended, StopAsked}),
    "stopping, not up yet": (Supervised(State.STOPPING), {Started, StartFailed}),
    "stopping": (Supervised(State.STOPPING, due_s=100.0), {Ended, StopTimedOut}),
    "killed": (Supervised(State.STOPPING, due_s=math.inf), {Ended}),
    "stopped": (Supervised(State.STOPPED), {StartAsked}),
    "exited": (Supervised(State.EXITED), {StartAsked}),
    "failed": (Supervised(State.FAILED, due_s=100.0), {RestartDue, StopAsked}),
    "gave up": (Supervised(State.FAILED), {StartAsked}),
}


@pytest.mark.parametrize(("name", "event"), list(itertools.product(EVERY_THING, EVERY_EVENT)))
def test_an_event_that_does_not_fit_changes_nothing(name: str, event: Event) -> None:
    thing, fitting = EVERY_THING[name]
    after, actions = step(SPEC, thing, event, now_s=100.0, chance=0.5)
    if type(event) in fitting:
        assert after.state is not thing.state or actions
    else:
        assert after is thing
        assert actions == ()


@given(
    st.lists(st.tuples(st.sampled_from([*EVERY_EVENT, Ended(BROKEN)]), st.floats(0.0, 100.0), st.floats(0.0, 1.0))),
    st.integers(0, 3),
)
def test_whatever_happens_there_is_at_most_one_run_and_the_limit_holds(
    events: list[tuple[Event, float, float]], limit: int
) -> None:
    """Only what really runs ends, is cancelled once and killed at most once, in this order; then the next may start."""
    clock = Clock(replace(limited(limit), stable_threshold_s=math.inf))
    state, in_series = "none", 0
    for event, after_s, chance in events:
        match event:
            case Started() | StartFailed() if state != "starting":
                continue  # the world does not say so of what does not start
            case Ended() if state in ("none", "starting"):
                continue
            case Started():
                state = "up"
            case Ended() | StartFailed():
                state = "none"
            case StartAsked() if clock.thing.is_over:
                in_series = 0
        for action in clock.tell(event, after_s=after_s, chance=chance):
            match action:
                case Start():
                    assert state == "none"
                    state, in_series = "starting", in_series + 1
                case Cancel(_, until_s):
                    assert state == "up"
                    assert until_s == clock.now_s + 10.0
                    state = "cancelled"
                case Kill():
                    assert state == "cancelled"
                    state = "killed"
                case RestartAt(at_s):
                    assert state == "none"
                    assert clock.now_s <= at_s <= clock.now_s + 90.0
        assert in_series == clock.thing.attempts
        assert not limit or in_series <= limit
