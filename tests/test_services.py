"""The supervised processes of a node, with a spawner that only remembers what it was asked for."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import anyio
import pytest

from mesh.errors import Disconnected, MeshError, NotFound
from mesh.failure import Failure, Kind
from node.registry import EntryId, Registry, Value, load_registry
from node.services.services import BootFailed, Services, ServiceStatistics, SpawnFailed, Watcher
from node.services.supervision import State
from tests.waiting import wait_until

BROKEN = Failure("broken", "Internal")
FAST = {"restart": "restart: {initial_delay: 1ms, max_delay: 1ms}", "stop_timeout": "stop_timeout: 20ms"}


def app(root: Path, services: str) -> Registry:
    """Make an app of services: `name: lifecycle` lines, all of process `name-p` on one host."""
    entries = ["  - {name: host, kind: process.host}"]
    for line in services.strip().splitlines():
        name, _, lifecycle = line.strip().partition(": ")
        timing = ", ".join(given for key, given in FAST.items() if key not in lifecycle)
        placement = "one" if name.startswith("one") else "each"
        entries += [
            f"  - {{name: {name}-p, kind: process.lua, source: return 1}}",
            f"  - {{name: {name}, kind: process.service, process: {name}-p, host: host, placement: {placement},"
            f" input: [{name}, 1], lifecycle: {{{timing}, {lifecycle}}}}}",
        ]
    (root / "i.yaml").write_text("namespace: a\nentries:\n" + "\n".join(entries) + "\n", encoding="utf-8")
    registry = load_registry(root, environ={})
    assert registry.problems == ()
    return registry


class MemorySpawner:
    """Spawns nothing: remembers what was asked, in order, and lets the test say how each process ends."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.running: dict[str, Watcher] = {}
        self.refuse: dict[str, list[MeshError | None]] = {}  # process -> what its next starts come to
        self.deaf: set[str] = set()  # processes that do not read their events
        self.immortal: set[str] = set()
        self.hang: set[str] = set()
        self.broken_at_once: set[str] = set()
        self.cancel_error: MeshError | None = None
        self._numbers = itertools.count(1)

    async def spawn(self, process_id: EntryId, host_id: EntryId, args: Sequence[Value], watcher: Watcher) -> str:
        name = process_id.removeprefix("a:").removesuffix("-p")
        assert (host_id, args) == ("a:host", (name, 1))
        self.asked.append(f"spawn {name}")
        await anyio.lowlevel.checkpoint()
        if name in self.hang:
            await anyio.sleep_forever()
        errors = self.refuse.get(name, [])
        if errors and (error := errors.pop(0)) is not None:
            raise error
        pid = f"{name}#{next(self._numbers)}"
        if name in self.broken_at_once:
            watcher.ended(BROKEN)
        else:
            self.running[pid] = watcher
        return pid

    async def cancel(self, pid: str, reason: str) -> None:
        name = pid.partition("#")[0]
        self.asked.append(f"cancel {name}: {reason}")
        if self.cancel_error is not None:
            raise self.cancel_error
        if name not in self.deaf:
            self.end(name, Failure("canceled", Kind.CANCELED))

    async def kill(self, pid: str) -> None:
        name = pid.partition("#")[0]
        self.asked.append(f"kill {name}")
        if name not in self.immortal:
            self.end(name, Failure("process terminated", "Internal"))

    def end(self, name: str, failure: Failure | None = None) -> None:
        (pid,) = (pid for pid in self.running if pid.startswith(f"{name}#"))
        self.running.pop(pid).ended(failure)

    def taken(self) -> list[str]:
        taken, self.asked = self.asked, []
        return taken


class HerePlacing:
    """This node runs everything but `one`, which it runs when the test says so."""

    def __init__(self) -> None:
        self.here: set[str] = set()
        self._changed: Callable[[], None] = lambda: None

    def may_run(self, service_id: EntryId) -> bool:
        return service_id != "a:one" or service_id in self.here

    def on_change(self, changed: Callable[[], None]) -> None:
        self._changed = changed

    def move(self, *here: str) -> None:
        self.here = {f"a:{name}" for name in here}
        self._changed()


def states(services: Services) -> dict[str, str]:
    return {s.id.removeprefix("a:"): str(s.state) for s in services.statistics()}


def of(services: Services, name: str) -> ServiceStatistics:
    (found,) = (s for s in services.statistics() if s.id == f"a:{name}")
    return found


def cancelled(*names: str) -> list[str]:
    return [f"cancel {name}: service stopping" for name in names]


async def test_services_start_after_what_they_need_and_stop_before_it(tmp_path: Path) -> None:
    """`m` has no auto_start: it runs because `a` needs it. `x` runs for nobody."""
    registry = app(
        tmp_path, "a: auto_start: true, requires: [m]\nm: requires: [z]\nx: auto_start: false\nz: auto_start: true"
    )
    spawner = MemorySpawner()
    async with Services(registry, spawner, HerePlacing()) as services:
        assert spawner.taken() == []
        await services.boot()
        assert states(services) == {"a": "Running", "m": "Running", "x": "Unknown", "z": "Running"}
        assert spawner.taken() == ["spawn z", "spawn m", "spawn a"]
    assert spawner.taken() == cancelled("a", "m", "z")
    assert states(services) == {"a": "Stopped", "m": "Stopped", "x": "Unknown", "z": "Stopped"}


async def test_a_service_that_fails_is_started_again_and_one_that_returns_is_not(tmp_path: Path) -> None:
    registry = app(tmp_path, "a: auto_start: true\nb: auto_start: true")
    spawner = MemorySpawner()
    async with Services(registry, spawner, HerePlacing()) as services:
        await services.boot()
        first = of(services, "a")
        spawner.end("a", BROKEN)
        assert (of(services, "a").state, of(services, "a").pid) == (State.FAILED, None)
        spawner.end("b")
        await wait_until(lambda: of(services, "a").state is State.RUNNING)
        again = of(services, "a")
        assert (again.starts, again.last_error, again.waits_for) == (2, "Internal: broken", None)
        assert again.pid != first.pid
        assert again.since_unix_s >= first.since_unix_s
        assert (of(services, "b").state, of(services, "b").starts) == (State.EXITED, 1)
        assert spawner.taken() == ["spawn a", "spawn b", "spawn a"]


async def test_a_process_that_ends_before_its_spawn_has_returned_is_not_missed(tmp_path: Path) -> None:
    """It counts as started, so the boot goes on, and as failed, up to its limit of starts."""
    registry = app(tmp_path, "a: auto_start: true, restart: {initial_delay: 1ms, max_attempts: 3}")
    spawner = MemorySpawner()
    spawner.broken_at_once = {"a"}
    async with Services(registry, spawner, HerePlacing()) as services:
        await services.boot()

        def has_given_up() -> bool:
            # The third start counts from its beginning, and it takes a moment until it has failed.
            a = of(services, "a")
            return a.starts == 3 and a.state is State.FAILED and a.restart_in_s is None

        await wait_until(has_given_up)
        assert of(services, "a").last_error == "Internal: broken"
        assert spawner.taken() == ["spawn a"] * 3
        await services.start("a:a")
        assert of(services, "a").starts == 4


async def test_a_deaf_service_is_killed_after_its_stop_timeout(tmp_path: Path) -> None:
    spawner = MemorySpawner()
    spawner.deaf = {"a"}
    async with Services(app(tmp_path, "a: auto_start: true"), spawner, HerePlacing()) as services:
        await services.boot()
    assert spawner.taken() == ["spawn a", *cancelled("a"), "kill a"]
    assert states(services) == {"a": "Stopped"}


async def test_a_cancel_that_cannot_be_delivered_ends_in_a_kill(tmp_path: Path) -> None:
    spawner = MemorySpawner()
    spawner.cancel_error = Disconnected("no connection")
    async with Services(app(tmp_path, "a: auto_start: true"), spawner, HerePlacing()) as services:
        await services.boot()
    assert spawner.taken() == ["spawn a", *cancelled("a"), "kill a"]


async def test_a_process_that_cannot_be_killed_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The node goes down all the same."""
    monkeypatch.setattr("node.services.services.KILL_WAIT_S", 0.01)
    spawner = MemorySpawner()
    spawner.deaf = spawner.immortal = {"b"}
    async with Services(
        app(tmp_path, "a: auto_start: true\nb: requires: [a], auto_start: true"), spawner, HerePlacing()
    ) as services:
        await services.boot()
    assert spawner.taken() == ["spawn a", "spawn b", *cancelled("b"), "kill b", *cancelled("a")]
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR] == [
        "killed service does not end, it is left behind"
    ]


async def test_a_required_service_that_does_not_start_fails_the_boot(tmp_path: Path) -> None:
    """What had started is stopped; what needs the failed one never starts."""
    registry = app(tmp_path, "a: auto_start: true\nb: auto_start: true\nc: requires: [b], auto_start: true")
    spawner = MemorySpawner()
    spawner.refuse["b"] = [SpawnFailed("a:b-p", Failure("no such method", "NotFound", retryable=False))]
    with pytest.raises(BootFailed) as caught:
        async with Services(registry, spawner, HerePlacing()) as services:
            await services.boot()
    assert caught.value.reasons == {"a:b": "NotFound: no such method", "a:c": "needs a:b, which does not run"}
    assert spawner.taken() == ["spawn a", "spawn b", *cancelled("a")]


async def test_an_optional_service_that_does_not_start_is_only_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody needs it who is required; it gave up after its first start."""
    registry = app(tmp_path, "a: auto_start: true\nb: auto_start: true, startup: optional, restart: {max_attempts: 1}")
    spawner = MemorySpawner()
    spawner.refuse["b"] = [Disconnected("no connection")]
    async with Services(registry, spawner, HerePlacing()) as services:
        await services.boot()
        assert states(services) == {"a": "Running", "b": "Failed"}
    assert "optional service did not start" in caplog.messages


async def test_what_a_failure_held_back_starts_when_that_has_come_up(tmp_path: Path) -> None:
    registry = app(
        tmp_path,
        "a: auto_start: true, startup: optional, restart: {initial_delay: 1ms, max_delay: 1ms}\n"
        "b: requires: [a], auto_start: true, startup: optional",
    )
    spawner = MemorySpawner()
    spawner.refuse["a"] = [Disconnected("no connection"), Disconnected("no connection")]
    async with Services(registry, spawner, HerePlacing()) as services:
        await services.boot()
        assert of(services, "b").waits_for == "a:a"
        await wait_until(lambda: states(services) == {"a": "Running", "b": "Running"})
        assert spawner.taken() == ["spawn a"] * 3 + ["spawn b"]
        assert of(services, "b").waits_for is None


async def test_a_start_that_takes_too_long_has_failed(tmp_path: Path) -> None:
    spawner = MemorySpawner()
    spawner.hang = {"a"}
    registry = app(tmp_path, "a: auto_start: true, start_timeout: 10ms, restart: {max_attempts: 1}")
    with pytest.raises(BootFailed, match=r"a:a: Timeout: did not start within 0\.01 s"):
        async with Services(registry, spawner, HerePlacing()) as services:
            await services.boot()


async def test_something_unavailable_holds_back_what_needs_it(tmp_path: Path) -> None:
    spawner = MemorySpawner()
    registry = app(tmp_path, "a: auto_start: true")
    with pytest.raises(BootFailed, match="a:a: needs a:host, which does not run"):
        async with Services(registry, spawner, HerePlacing(), unavailable=[EntryId("a:host")]) as services:
            await services.boot()
    assert spawner.taken() == []


async def test_a_service_that_has_done_its_work_is_enough_for_those_that_need_it(tmp_path: Path) -> None:
    registry = app(tmp_path, "migrate: auto_start: true\nuser: requires: [migrate]")
    spawner = MemorySpawner()
    async with Services(registry, spawner, HerePlacing()) as services:
        await services.boot()
        spawner.end("migrate")
        await services.start("a:user")
        assert states(services) == {"migrate": "Exited", "user": "Running"}
        assert spawner.taken() == ["spawn migrate", "spawn user"]


async def test_stopping_one_service_stops_those_that_need_it_first_and_keeps_them_stopped(tmp_path: Path) -> None:
    registry = app(tmp_path, "a: auto_start: true\nb: requires: [a], auto_start: true\nc: auto_start: true")
    spawner = MemorySpawner()
    async with Services(registry, spawner, HerePlacing()) as services:
        await services.boot()
        spawner.taken()
        await services.stop("a:a")
        assert spawner.taken() == cancelled("b", "a")
        assert states(services) == {"a": "Stopped", "b": "Stopped", "c": "Running"}
        await services.start("a:b")
        assert spawner.taken() == ["spawn a", "spawn b"]
        with pytest.raises(NotFound, match="no service a:none; this app has: a:a, a:b, a:c"):
            await services.stop("a:none")


async def test_a_service_placed_once_runs_where_it_belongs_and_follows_a_change(tmp_path: Path) -> None:
    registry = app(tmp_path, "one: auto_start: true\nuser: requires: [one], auto_start: true")
    spawner, placing = MemorySpawner(), HerePlacing()
    async with Services(registry, spawner, placing) as services:
        await services.boot()
        assert states(services) == {"one": "Unknown", "user": "Running"}
        placing.move("one")
        await wait_until(lambda: of(services, "one").state is State.RUNNING)
        placing.move()
        placing.move("one")  # back before it has stopped
        await wait_until(lambda: of(services, "one").starts == 2 and of(services, "one").state is State.RUNNING)
        placing.move()
        await wait_until(lambda: of(services, "one").state is State.STOPPED)
        assert spawner.taken() == ["spawn user", "spawn one", *cancelled("one"), "spawn one", *cancelled("one")]


async def test_when_the_owner_is_cancelled_services_are_still_asked_to_stop(tmp_path: Path) -> None:
    registry = app(tmp_path, "a: auto_start: true\nb: requires: [a], auto_start: true")
    spawner = MemorySpawner()
    with anyio.CancelScope() as scope:
        async with Services(registry, spawner, HerePlacing()) as services:
            await services.boot()
            scope.cancel()
            await anyio.sleep_forever()
    assert spawner.taken() == ["spawn a", "spawn b", *cancelled("b", "a")]


async def test_a_fault_of_ours_ends_the_services_and_reaches_the_owner(tmp_path: Path) -> None:
    """The others are stopped properly; nobody waits for the one whose task is gone."""
    registry = app(tmp_path, "a: auto_start: true\nb: requires: [a]")

    class FaultySpawner(MemorySpawner):
        async def spawn(self, process_id: EntryId, host_id: EntryId, args: Sequence[Value], watcher: Watcher) -> str:
            if process_id == "a:b-p":
                raise ZeroDivisionError
            return await super().spawn(process_id, host_id, args, watcher)

    spawner = FaultySpawner()

    async def run() -> None:
        async with Services(registry, spawner, HerePlacing()) as services:
            await services.boot()
            await services.start("a:b")

    with pytest.raises(ExceptionGroup) as caught:
        await run()
    assert caught.group_contains(ZeroDivisionError)
    assert spawner.taken() == ["spawn a", *cancelled("a")]
