"""Lanes: threads for Lua functions, each with a VM. Not here: what runs in them (tests/test_calls.py)."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import anyio
import pytest

from node.functions.lanes import Lane, Lanes
from node.machine.vm import LuaVM, UnitSpec


async def done_on(lanes: Lanes, run: Any) -> BaseException | None:
    """Have a lane run something and forget what it gives, but for its error."""
    over = anyio.Event()
    errors: list[BaseException | None] = []

    def done(_result: Any, error: BaseException | None) -> None:
        errors.append(error)
        over.set()

    lanes.submit(run, done)
    with anyio.fail_after(5):
        await over.wait()
    return errors[0]


async def test_a_vm_that_a_lane_throws_away_is_gone_at_once() -> None:
    """A lane is given new work only when others are slow: until then it must not keep a quarter of a gigabyte."""
    thrown_away: list[weakref.ref[LuaVM]] = []

    def begin(lane: Lane) -> Any:
        assert lane.vm.compile("k", "return function() process.inbox():receive() end", "t.lua") is None
        return lane.vm.open(UnitSpec("function", "app:k", "k"))

    def fail(lane: Lane) -> None:
        thrown_away.append(weakref.ref(lane.vm))
        lane.renew()
        raise RuntimeError("the VM is full")

    lanes = Lanes()
    gc.disable()
    try:
        assert await done_on(lanes, begin) is None
        assert isinstance(await done_on(lanes, fail), RuntimeError)
        assert thrown_away[0]() is None
    finally:
        gc.enable()
        lanes.close()


async def test_a_lane_makes_its_vm_on_its_own_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes milliseconds, in which nothing else would happen on the event loop."""
    makers: list[threading.Thread] = []
    runners: list[threading.Thread] = []

    def run(lane: Lane) -> None:
        assert lane.vm.machines == 0
        runners.append(threading.current_thread())

    def make(**limits: Any) -> LuaVM:
        makers.append(threading.current_thread())
        return LuaVM(**limits)

    monkeypatch.setattr("node.functions.lanes.LuaVM", make)
    lanes = Lanes()
    try:
        for _ in range(2):
            assert await done_on(lanes, run) is None
    finally:
        lanes.close()
    assert makers == list(dict.fromkeys(runners))  # on a busy machine there may be two lanes
    assert threading.current_thread() not in makers


async def test_a_lane_that_gets_no_vm_says_so_and_tries_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever called would wait for ever."""

    def fail(**_limits: Any) -> LuaVM:
        raise MemoryError("no room for a VM")

    lanes = Lanes()
    try:
        with monkeypatch.context() as patched:
            patched.setattr("node.functions.lanes.LuaVM", fail)
            assert str(await done_on(lanes, lambda _lane: None)) == "no room for a VM"
        assert await done_on(lanes, lambda _lane: None) is None
    finally:
        lanes.close()
