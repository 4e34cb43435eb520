"""Waiting for a condition instead of sleeping."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio


async def wait_until(predicate: Callable[[], object], timeout_s: float = 15.0) -> None:
    """Return as soon as the predicate holds; fail the test when it does not in time."""
    deadline = anyio.current_time() + timeout_s
    while not predicate():
        if anyio.current_time() > deadline:
            raise AssertionError(f"not so within {timeout_s:g} s")
        await anyio.sleep(0.005)


async def wait_until_async(predicate: Callable[[], Awaitable[object]], timeout_s: float = 15.0) -> None:
    """The same for a condition that has to be asked for."""
    deadline = anyio.current_time() + timeout_s
    while not await predicate():
        if anyio.current_time() > deadline:
            raise AssertionError(f"not so within {timeout_s:g} s")
        await anyio.sleep(0.01)
