"""When one supervised thing is started, stopped and started again (contract 2.2). Pure: an event in, actions out.

Not here: the order among several things (`node.registry.dependencies`), carrying the actions out
(`node.services.services`).

    Unknown ──StartAsked──> Starting ──Started──> Running ──Ended: nothing to repair──> Exited
                               │                    │  └────StopAsked──> Stopping ──Ended──> Stopped
                               └──StartFailed───────┴─Ended: error──> Failed ──RestartDue──> Starting

Two counters that are easily mixed up: `starts` counts all starts there ever were, for people. `attempts` counts the
starts since somebody asked, or since the last run that was stable; that run is the first of the new series. The
limit and the delays go by `attempts`, so a limit of N lets an unstable thing start N times, not N + 1.

Invariants: an event that does not fit the state changes nothing, so late timers and repeated orders do no harm; after
Exited, Stopped, and Failed without a time to restart, only StartAsked starts the thing; there is never more than one
Start without its Started or StartFailed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, TypeAlias, assert_never

from mesh.failure import Failure, Kind
from node.registry.kinds import LifecycleSpec, RestartSpec

STOP_REASON: Final = "service stopping"


class State(StrEnum):
    """How a supervised thing is, in the words of the contract."""

    UNKNOWN = "Unknown"
    STARTING = "Starting"
    RUNNING = "Running"
    STOPPING = "Stopping"
    STOPPED = "Stopped"
    EXITED = "Exited"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True)
class StartAsked:
    """Somebody wants it to run: the boot, a person, or a thing that depends on it."""


@dataclass(frozen=True, slots=True)
class Started:
    """It runs now."""


@dataclass(frozen=True, slots=True)
class StartFailed:
    """It did not come up, or not in time."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Ended:
    """It came up and is over; None = without an error."""

    failure: Failure | None


@dataclass(frozen=True, slots=True)
class StopAsked:
    """Somebody wants it to end."""


@dataclass(frozen=True, slots=True)
class StopTimedOut:
    """The time to stop by itself is over."""


@dataclass(frozen=True, slots=True)
class RestartDue:
    """The pause before the next start is over."""


Event: TypeAlias = StartAsked | Started | StartFailed | Ended | StopAsked | StopTimedOut | RestartDue


@dataclass(frozen=True, slots=True)
class Start:
    """Bring it up within the spec's start timeout, then say Started or StartFailed."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """Ask it to end; if it has not by `until_s`, say StopTimedOut."""

    reason: str
    until_s: float


@dataclass(frozen=True, slots=True)
class Kill:
    """End it without asking."""


@dataclass(frozen=True, slots=True)
class RestartAt:
    """Say RestartDue at `at_s`."""

    at_s: float


Action: TypeAlias = Start | Cancel | Kill | RestartAt


@dataclass(frozen=True, slots=True)
class Supervised:
    """One supervised thing. Times are those of the caller's clock, in seconds.

    due_s: Failed: when it is started again, None = never. Stopping: when it is killed, None = it has not come up yet,
    infinity = it was killed. failure: why it last failed or ended with an error.
    """

    state: State = State.UNKNOWN
    since_s: float = 0.0
    attempts: int = 0
    starts: int = 0
    due_s: float | None = None
    failure: Failure | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing runs and nothing will, unless somebody asks for it."""
        match self.state:
            case State.UNKNOWN | State.STOPPED | State.EXITED:
                return True
            case State.FAILED:
                return self.due_s is None
            case State.STARTING | State.RUNNING | State.STOPPING:
                return False


def step(
    spec: LifecycleSpec, thing: Supervised, event: Event, *, now_s: float, chance: float
) -> tuple[Supervised, tuple[Action, ...]]:
    """Apply one event and return the new state with the actions now due.

    chance: a fresh random number from 0 to 1, for the jitter of a restart.
    """
    match event:
        case StartAsked() if thing.is_over:
            return _starting(replace(thing, attempts=0), now_s)
        case RestartDue() if thing.state is State.FAILED and _is_due(thing, now_s):
            return _starting(thing, now_s)
        case Started() if thing.state is State.STARTING:
            return replace(thing, state=State.RUNNING, since_s=now_s), ()
        case Started() if _is_stopping_unstarted(thing):
            return _cancelled(spec, thing, now_s)
        case StartFailed(failure) if thing.state is State.STARTING:
            return _failed(spec, thing, failure, now_s=now_s, chance=chance)
        case StartFailed(failure) if _is_stopping_unstarted(thing):
            return replace(thing, state=State.STOPPED, since_s=now_s, failure=failure), ()
        case Ended(failure) if thing.state is State.RUNNING:
            if failure is None or not is_restartable(failure):
                return replace(thing, state=State.EXITED, since_s=now_s, failure=failure), ()
            if now_s - thing.since_s >= spec.stable_threshold_s:
                thing = replace(thing, attempts=1)
            return _failed(spec, thing, failure, now_s=now_s, chance=chance)
        case Ended(failure) if thing.state is State.STOPPING and not _is_stopping_unstarted(thing):
            return replace(thing, state=State.STOPPED, since_s=now_s, due_s=None, failure=failure), ()
        case StopAsked():
            return _stop(spec, thing, now_s)
        case StopTimedOut() if thing.state is State.STOPPING and _is_due(thing, now_s):
            return replace(thing, due_s=math.inf), (Kill(),)
        case StartAsked() | RestartDue() | Started() | StartFailed() | Ended() | StopTimedOut():
            return thing, ()
        case _:
            assert_never(event)


def is_restartable(failure: Failure) -> bool:
    """Whether an end with this error is one to repair. Nobody said = yes."""
    return failure.retryable is not False and failure.kind != Kind.CANCELED


def restart_delay_s(spec: RestartSpec, restart: int, chance: float) -> float:
    """Return the pause before restart number `restart` (from 1). The jitter may reach beyond the longest delay."""
    try:
        grown_s = spec.initial_delay_s * math.pow(spec.backoff_factor, restart - 1)
    except OverflowError:
        grown_s = spec.max_delay_s
    return min(grown_s, spec.max_delay_s) * (1 + spec.jitter * (2 * chance - 1))


def _starting(thing: Supervised, now_s: float) -> tuple[Supervised, tuple[Action, ...]]:
    started = replace(
        thing, state=State.STARTING, since_s=now_s, due_s=None, attempts=thing.attempts + 1, starts=thing.starts + 1
    )
    return started, (Start(),)


def _failed(
    spec: LifecycleSpec, thing: Supervised, failure: Failure, *, now_s: float, chance: float
) -> tuple[Supervised, tuple[Action, ...]]:
    failed = replace(thing, state=State.FAILED, since_s=now_s, due_s=None, failure=failure)
    limit = spec.restart.attempts_max
    # A start that fails for good (no such method, say) would fail the same way for ever.
    if not is_restartable(failure) or (limit and thing.attempts >= limit):
        return failed, ()
    at_s = now_s + restart_delay_s(spec.restart, thing.attempts, chance)
    return replace(failed, due_s=at_s), (RestartAt(at_s),)


def _stop(spec: LifecycleSpec, thing: Supervised, now_s: float) -> tuple[Supervised, tuple[Action, ...]]:
    match thing.state:
        case State.RUNNING:
            return _cancelled(spec, thing, now_s)
        case State.STARTING:
            # There is nothing to cancel before it has come up, and the start has a limit of its own.
            return replace(thing, state=State.STOPPING, since_s=now_s, due_s=None), ()
        case State.FAILED if thing.due_s is not None:
            return replace(thing, state=State.STOPPED, since_s=now_s, due_s=None), ()
        case _:
            return thing, ()


def _cancelled(spec: LifecycleSpec, thing: Supervised, now_s: float) -> tuple[Supervised, tuple[Action, ...]]:
    until_s = now_s + spec.stop_timeout_s
    return replace(thing, state=State.STOPPING, since_s=now_s, due_s=until_s), (Cancel(STOP_REASON, until_s),)


def _is_stopping_unstarted(thing: Supervised) -> bool:
    return thing.state is State.STOPPING and thing.due_s is None


def _is_due(thing: Supervised, now_s: float) -> bool:
    return thing.due_s is not None and now_s >= thing.due_s
