"""Runs the supervised processes of a node: starts them in order, starts them again, stops them the other way round.

When is decided in `node.services.supervision`, what comes before what in `node.registry.dependencies`; this carries it
out. How a process is spawned and ended (`Spawner`) and on which node a service with `placement: one` runs
(`Placement`) is somebody else's, behind the two protocols below.

A service is started when it is wanted, may run here, and all it needs is ready: a service that runs, or has done its
work and exited without an error, or runs elsewhere; anything that is not a service and was not reported unavailable.
This is looked at after every change, so what a failure held back starts as soon as what it needs has come up.

A failure of what a service needs does not end the service: processes that must fall together are linked in Lua.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Protocol, Self, assert_never

import anyio

from mesh.errors import MeshError, NotFound
from mesh.failure import Failure, Kind
from node.registry import EntryId, Needs, Registry, ServiceEntry, Startup, Value
from node.registry import dependencies as order
from node.registry.kinds import SERVICE
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
    step,
)

# A killed process ends at its next step; one that does not is a thread that never comes back, and is left behind.
KILL_WAIT_S: Final = 5.0

_log = logging.getLogger(__name__)


class Watcher(Protocol):
    """Is told how a spawned process ended."""

    def ended(self, failure: Failure | None) -> None:
        """Note the end; called once, on the event loop, maybe before `spawn` has returned."""


class Spawner(Protocol):
    """Spawns processes and ends them."""

    async def spawn(self, process_id: EntryId, host_id: EntryId, args: Sequence[Value], watcher: Watcher) -> str:
        """Spawn a process and return its pid. Raises SpawnFailed, or another MeshError.

        Cancelled (the start took too long), it must leave nothing running behind; the watcher is ignored from then on.
        """

    async def cancel(self, pid: str, reason: str) -> None:
        """Deliver a cancel event. A process that is over already is no error."""

    async def kill(self, pid: str) -> None:
        """End a process without asking; its watcher is told. A process that is over already is no error."""


class Placing(Protocol):
    """Knows which services are this node's: it runs their host, and with `placement: one` nobody else has them."""

    def may_run(self, service_id: EntryId) -> bool:
        """Whether this node runs the service now."""

    def on_change(self, changed: Callable[[], None]) -> None:
        """Have `changed` called, on the event loop, whenever an answer of `may_run` may be another one."""


class SpawnFailed(MeshError):
    """Raised when a process did not come up. `failure` says why; one that is not retryable is not tried again."""

    code = "spawn-failed"

    def __init__(self, process_id: str, failure: Failure) -> None:
        self.process_id = process_id
        self.failure = failure
        super().__init__(f"{process_id}: {failure}")


class BootFailed(MeshError):
    """Raised when services that are required did not start. `reasons`: service id -> why."""

    code = "boot-failed"

    def __init__(self, reasons: Mapping[EntryId, str]) -> None:
        self.reasons = dict(reasons)
        told = "; ".join(f"{service_id}: {reason}" for service_id, reason in self.reasons.items())
        super().__init__(f"required services did not start ({told}); repair them, or set lifecycle.startup to optional")


@dataclass(frozen=True, slots=True)
class ServiceStatistics:
    """How a service is. since_unix_s: when it came to this state. waits_for: what keeps it from starting."""

    id: EntryId
    state: State
    starts: int
    since_unix_s: float
    last_error: str | None
    pid: str | None
    restart_in_s: float | None
    waits_for: EntryId | None


class Services:
    """The services of a node. Nothing runs before `boot`; leaving the context stops everything, in order."""

    def __init__(
        self, registry: Registry, spawner: Spawner, placing: Placing, *, unavailable: Collection[EntryId] = ()
    ) -> None:
        """Take what there is to run.

        unavailable: hosts, workers and other things that are not services and did not start on this node; services
        that need them do not start.
        """
        self._needs: Needs = registry.needs
        self._at_boot = registry.started_at_boot()
        self._placing = placing
        faulty = {problem.entry for problem in registry.problems} | set(registry.of_kind(SERVICE))
        self._unavailable = (faulty - set(registry.services())) | set(unavailable)
        self._services = {
            service_id: _Service(view, spawner, self._react) for service_id, view in registry.services().items()
        }
        self._wanted: set[EntryId] = set()
        self._changed = anyio.Event()
        self._exits = AsyncExitStack()

    async def __aenter__(self) -> Self:
        group = await self._exits.enter_async_context(anyio.create_task_group())
        for service in self._services.values():
            group.start_soon(service.run)
        self._placing.on_change(self._react)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        try:
            with anyio.CancelScope(shield=True):
                await self._stop_all(self._services)
        finally:
            for service in self._services.values():
                service.close()
            # An ordinary error of the body, such as BootFailed, goes on as it is and not in the group's wrapping.
            told = (None, None, None) if isinstance(error, Exception) else (kind, error, trace)
            swallowed = await self._exits.__aexit__(*told)
        return swallowed

    async def boot(self) -> None:
        """Start what has `auto_start` and what it needs, and wait until each service has come up or has not.

        Raises BootFailed if one that is required did not start; whoever called leaves the context then. The others'
        failures are only logged, and they are started again as their restart rules say.
        """
        await self._want(self._at_boot)
        reasons = {}
        for service_id in self._at_boot:
            service = self._services.get(service_id)
            reason = self._why_not_started(service) if service is not None else None
            if service is None or reason is None:
                continue
            if service.view.lifecycle.startup is Startup.REQUIRED:
                reasons[service_id] = reason
            else:
                _log.warning("optional service did not start", extra={"service": service_id, "error": reason})
        if reasons:
            raise BootFailed(reasons)

    async def start(self, service_id: str) -> None:
        """Start one service and what it needs, also after it had exited or given up; return when it is up or is not.

        Raises NotFound for an id that is not a service's.
        """
        service = self._service(service_id)
        wanted = order.start_order(self._needs, [service.view.id])
        for other in self._among(wanted):
            other.is_asked = other is service or not other.is_ready
        await self._want(wanted)

    async def stop(self, service_id: str) -> None:
        """Stop one service and all that need it, and keep them stopped. Raises NotFound as `start` does."""
        await self._stop_all(order.dependents(self._needs, self._service(service_id).view.id))

    def statistics(self) -> list[ServiceStatistics]:
        """Return how each service is, in the order of ids."""
        return [
            service.statistics(self._waits_for(service) if service.view.id in self._wanted else None)
            for service in self._services.values()
        ]

    # -- inside ------------------------------------------------------------------------------------------------

    def _service(self, service_id: str) -> _Service:
        try:
            return self._services[EntryId(service_id)]
        except KeyError:
            known = ", ".join(self._services) or "none"
            raise NotFound(f"no service {service_id}; this app has: {known}") from None

    def _among(self, entry_ids: Iterable[EntryId]) -> list[_Service]:
        return [self._services[entry_id] for entry_id in entry_ids if entry_id in self._services]

    async def _want(self, wanted: Sequence[EntryId]) -> None:
        self._wanted.update(wanted)
        self._react()
        services = self._among(wanted)
        await self._wait_until(lambda: not any(service.thing.state is State.STARTING for service in services))

    async def _wait_until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            await self._changed.wait()

    def _react(self) -> None:
        """Start and stop what should be, after anything has changed; does not wait."""
        for service in self._services.values():
            if not self._may_run(service):
                service.tell(StopAsked())
            elif service.view.id in self._wanted and service.is_startable and self._waits_for(service) is None:
                service.tell(StartAsked())
        self._changed.set()
        self._changed = anyio.Event()

    def _may_run(self, service: _Service) -> bool:
        return self._placing.may_run(service.view.id)

    def _waits_for(self, service: _Service) -> EntryId | None:
        """Return the first thing a service needs that is not ready, None if there is none or it runs already."""
        if not service.thing.is_over:
            return None
        return next((i for i in self._needs.get(service.view.id, ()) if not self._is_ready(i)), None)

    def _is_ready(self, entry_id: EntryId) -> bool:
        service = self._services.get(entry_id)
        if service is None:
            return entry_id not in self._unavailable
        return service.is_ready or not self._may_run(service)

    def _why_not_started(self, service: _Service) -> str | None:
        if not self._may_run(service) or service.came_up:
            return None
        if (needed := self._waits_for(service)) is not None:
            return f"needs {needed}, which does not run"
        return str(service.thing.failure) if service.thing.failure else f"is {service.thing.state}"

    async def _stop_all(self, stopped: Collection[EntryId]) -> None:
        """Stop services, each when all that need it are over; what has nothing to do with each other at once."""
        self._wanted.difference_update(stopped)
        async with anyio.create_task_group() as stops:
            for service in self._among(order.stop_order(self._needs, stopped)):
                service.is_asked = False
                above = order.dependents(self._needs, service.view.id) & set(stopped) - {service.view.id}
                stops.start_soon(self._stop_one, service, self._among(above))

    async def _stop_one(self, service: _Service, above: Sequence[_Service]) -> None:
        await self._wait_until(lambda: all(other.is_done for other in above))
        service.tell(StopAsked())
        await self._wait_until(lambda: service.is_done)


class _Service:
    """One service: its state, and the task that carries out what the state machine says.

    The state changes at once, whoever tells an event; what is to be done waits for the task, in order.
    """

    def __init__(self, view: ServiceEntry, spawner: Spawner, react: Callable[[], None]) -> None:
        self.view = view
        self.thing = Supervised()
        self.came_up = False
        self.is_asked = False  # to start it although it has exited or given up
        self._spawner = spawner
        self._react = react
        self._pid: str | None = None
        self._since_unix_s = time.time()
        self._is_left_behind = False
        self._is_closed = False
        self._due: deque[Action] = deque()
        self._wake = anyio.Event()
        # A service is stopped by asking it, also when whoever owns the group is cancelled.
        self._scope = anyio.CancelScope(shield=True)

    @property
    def is_startable(self) -> bool:
        """Whether it starts as soon as it may; one that exited or gave up does so only when it is asked for anew."""
        return self.thing.is_over and (self.is_asked or self.thing.state in (State.UNKNOWN, State.STOPPED))

    @property
    def is_ready(self) -> bool:
        """Whether what needs it can run."""
        return self.thing.state is State.RUNNING or (self.thing.state is State.EXITED and self.thing.failure is None)

    @property
    def is_done(self) -> bool:
        """Whether there is nothing more to wait for when stopping."""
        return self.thing.is_over or self._is_left_behind or self._is_closed

    def tell(self, event: Event) -> None:
        """Change the state by an event and have done what follows from it."""
        chance = random.random()  # noqa: S311 - jitter
        before = self.thing
        lifecycle = self.view.lifecycle
        self.thing, actions = step(lifecycle, before, event, now_s=anyio.current_time(), chance=chance)
        if self.thing is before:
            return
        self._due.extend(actions)
        self._wake.set()
        self._is_left_behind = False
        if isinstance(event, StartAsked):
            self.is_asked = False
        if isinstance(event, Ended):
            self._pid = None
        if self.thing.state is not before.state:
            self._since_unix_s = time.time()
            self.came_up |= self.thing.state is State.RUNNING
            self._report()
            self._react()

    def statistics(self, waits_for: EntryId | None) -> ServiceStatistics:
        """Return how it is."""
        thing = self.thing
        pause_s = thing.due_s - anyio.current_time() if thing.state is State.FAILED and thing.due_s else None
        return ServiceStatistics(
            id=self.view.id,
            state=thing.state,
            starts=thing.starts,
            since_unix_s=self._since_unix_s,
            last_error=str(thing.failure) if thing.failure else None,
            pid=self._pid,
            restart_in_s=max(pause_s, 0.0) if pause_s is not None else None,
            waits_for=waits_for,
        )

    async def run(self) -> None:
        """Carry out what is due until `close`."""
        with self._scope:
            try:
                await self._loop()
            finally:
                self._is_closed = True  # nobody acts for it any more, so nobody must wait for it
                self._react()

    def close(self) -> None:
        """End `run`, whatever state the service is in."""
        self._scope.cancel()

    async def _loop(self) -> None:
        while True:
            while self._due:
                await self._act(self._due.popleft())
            self._wake = anyio.Event()
            # Only a pause and a stop have a limit in the state; that of a start is where it is awaited.
            until_s = self.thing.due_s if self.thing.due_s is not None else math.inf
            with anyio.CancelScope(deadline=until_s) as waiting:
                await self._wake.wait()
            if waiting.cancelled_caught:
                self.tell(RestartDue() if self.thing.state is State.FAILED else StopTimedOut())

    async def _act(self, action: Action) -> None:
        match action:
            case Start():
                await self._start()
            case Cancel(reason, until_s):
                with anyio.CancelScope(deadline=until_s):
                    await self._end(lambda pid: self._spawner.cancel(pid, reason), "cancelled")
            case Kill():
                _log.warning("service did not stop in time, killing it", extra={"service": self.view.id})
                with anyio.move_on_after(KILL_WAIT_S):
                    await self._end(self._spawner.kill, "killed")
                    await self._wait_for_end()
                self._leave_behind()
            case RestartAt():
                pass  # the task wakes up at the time that stands in the state
            case _:
                assert_never(action)

    async def _start(self) -> None:
        view = self.view
        watcher = _RunWatcher(self.tell)
        try:
            with anyio.fail_after(view.lifecycle.start_timeout_s):
                self._pid = await self._spawner.spawn(view.process, view.host, view.input, watcher)
        except MeshError as error:
            self.tell(StartFailed(_failure_of(error)))
        except TimeoutError:
            limit_s = view.lifecycle.start_timeout_s
            self.tell(StartFailed(Failure(f"did not start within {limit_s:g} s", Kind.TIMEOUT)))
        else:
            self.tell(Started())
            watcher.open()

    async def _end(self, how: Callable[[str], Awaitable[None]], verb: str) -> None:
        if self._pid is None:
            return
        try:
            await how(self._pid)
        except MeshError as error:
            _log.warning(f"service could not be {verb}", extra={"service": self.view.id, "error": str(error)})

    async def _wait_for_end(self) -> None:
        while self.thing.state is State.STOPPING:
            self._wake = anyio.Event()
            await self._wake.wait()

    def _leave_behind(self) -> None:
        if self.thing.state is State.STOPPING:
            _log.error("killed service does not end, it is left behind", extra={"service": self.view.id})
            self._is_left_behind = True
            self._react()

    def _report(self) -> None:
        thing, about = self.thing, {"service": self.view.id}
        match thing.state:
            case State.RUNNING:
                _log.info("service runs", extra={**about, "pid": self._pid, "starts": thing.starts})
            case State.EXITED if thing.failure is not None:
                _log.error("service ended for good", extra={**about, "error": str(thing.failure)})
            case State.EXITED:
                _log.info("service is done", extra=about)
            case State.FAILED if thing.due_s is not None:
                pause_s = round(thing.due_s - thing.since_s, 3)
                _log.warning("service failed", extra={**about, "error": str(thing.failure), "restart_in_s": pause_s})
            case State.FAILED:
                starts = thing.starts
                _log.error("service failed, gave up", extra={**about, "error": str(thing.failure), "starts": starts})
            case State.STOPPED:
                _log.info("service stopped", extra=about)
            case State.UNKNOWN | State.STARTING | State.STOPPING:
                pass


class _RunWatcher:
    """Passes the end of one run on, but not before its start has been told; that of a start given up never."""

    def __init__(self, tell: Callable[[Event], None]) -> None:
        self._tell = tell
        self._is_open = False
        self._end: Ended | None = None

    def ended(self, failure: Failure | None) -> None:
        """Note the end of the run."""
        self._end = Ended(failure)
        if self._is_open:
            self._tell(self._end)

    def open(self) -> None:
        """Pass on from now on what ends, and what has ended already."""
        self._is_open = True
        if self._end is not None:
            self._tell(self._end)


def _failure_of(error: MeshError) -> Failure:
    """Return what a start failed with. Only the spawner knows that trying again is no use, and says so itself."""
    return error.failure if isinstance(error, SpawnFailed) else Failure(str(error), Kind.UNAVAILABLE)
