"""What is measured of every engine, in the same way: written once, and run beside the client of each.

Only the standard library, for this is imported into the environment of each engine.

Three workflows: `steps` (n trivial durable steps, one after the other; returns n), `waiter` (waits for one signal and
returns its value) and `paced` (n steps that take a while each and log on their own side when they began). An engine
offers a `Driver`. The clock is that of the client, from asking for a start to having the result, for that is what a
user of any of them sees.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from itertools import count
from pathlib import Path
from typing import Any, Protocol

EFFECTS = "BENCH_EFFECTS"


class Driver(Protocol):
    """What the client of an engine can do. A kind is the name of one of the three workflows."""

    async def run(self, workflow_id: str, kind: str, *args: int) -> Any:
        """Start a workflow, wait for its end, return its result."""

    async def begin(self, workflow_id: str, kind: str, *args: int) -> None:
        """Start a workflow; return when the start is durable."""

    async def signal(self, workflow_id: str, value: str) -> None:
        """Send a signal to a waiter."""

    async def result(self, workflow_id: str) -> Any:
        """Wait for the end of one that was begun."""


class Wrong(Exception):
    """Raised when a workflow returned something else than it should: then there is no figure."""


def log_step(workflow_id: str, number: int) -> None:
    """What a paced step does on its own side: say when it began, and in which process."""
    path = Path(os.environ[EFFECTS]) / f"{os.getpid()}.jsonl"
    with path.open("a") as log:
        log.write(json.dumps([workflow_id, number, time.time()]) + "\n")


async def measure(driver: Driver, sizes: dict[str, float], say: Callable[[str, object], None]) -> None:
    """Measure everything but failover. say: is told each figure as soon as it is known.

    Each part ends by its own time limit, so that a slow engine gives fewer samples and not none.
    """
    names = (f"w{i}" for i in count(1))
    steps = int(sizes["steps"])
    concurrency = int(sizes["concurrency"])
    _progress(f"{concurrency} workflows of {steps} steps at any time")
    rate = await _closed_loop(driver, names, steps, concurrency, sizes["warm_up_s"], sizes["duration_s"])
    say("workflows_per_s", rate)
    say("steps_per_s", rate * steps)
    _progress("sequential steps")
    await _run(driver, next(names), 20)
    ones_s = []
    for _ in range(5):
        begun = time.perf_counter()
        await _run(driver, next(names), 1)
        ones_s.append(time.perf_counter() - begun)
    begun = time.perf_counter()
    number = max(2, min(int(sizes["sequential_steps"]), 1000))
    await _run(driver, next(names), number)
    # Without what a start and a result cost.
    say("step_ms", max(time.perf_counter() - begun - min(ones_s), 0) / (number - 1) * 1e3)
    _progress("start to result")
    say("start_to_result_ms", await _start_to_result_ms(driver, names, int(sizes["starts"]), sizes["duration_s"]))
    _progress("signal to wake")
    say("signal_to_wake_ms", await _signal_to_wake_ms(driver, names, int(sizes["signals"]), sizes["duration_s"]))


async def _closed_loop(
    driver: Driver, names: Any, steps: int, concurrency: int, warm_up_s: float, duration_s: float
) -> float:
    """How many workflows end a second while so many are under way all the time: those that end after the warm-up."""
    counted_from = time.perf_counter() + warm_up_s
    until = counted_from + duration_s
    done = 0

    async def client() -> None:
        nonlocal done
        while time.perf_counter() < until:
            await _run(driver, next(names), steps)
            done += counted_from <= time.perf_counter() < until

    await asyncio.gather(*(client() for _ in range(concurrency)))
    return done / duration_s


async def _start_to_result_ms(driver: Driver, names: Any, number: int, limit_s: float) -> list[float]:
    taken_ms: list[float] = []
    until = time.perf_counter() + limit_s
    while len(taken_ms) < number and (time.perf_counter() < until or not taken_ms):
        begun = time.perf_counter()
        await _run(driver, next(names), 1)
        taken_ms.append((time.perf_counter() - begun) * 1e3)
    return taken_ms


async def _signal_to_wake_ms(driver: Driver, names: Any, number: int, limit_s: float) -> list[float]:
    """From sending a signal to having the result of the workflow that waited for it."""
    ids = [next(names) for _ in range(number)]
    await asyncio.gather(*(driver.begin(workflow_id, "waiter") for workflow_id in ids))
    await asyncio.sleep(2)
    taken_ms = []
    until = time.perf_counter() + limit_s
    left = list(ids)
    while left and (time.perf_counter() < until or not taken_ms):
        workflow_id = left.pop()
        begun = time.perf_counter()
        await driver.signal(workflow_id, "good morning")
        result = await driver.result(workflow_id)
        taken_ms.append((time.perf_counter() - begun) * 1e3)
        if result != "good morning":
            raise Wrong(f"waiter {workflow_id} returned {result!r}")
    for workflow_id in left:
        await driver.signal(workflow_id, "good morning")
    return taken_ms


async def keep_stepping(driver: Driver, number: int, steps: int, pace_ms: int) -> None:
    """Run paced workflows to their ends; somebody kills a worker meanwhile."""
    ids = [f"paced-{i}" for i in range(number)]
    await asyncio.gather(*(driver.begin(workflow_id, "paced", steps, pace_ms) for workflow_id in ids))
    results = await asyncio.gather(*(driver.result(workflow_id) for workflow_id in ids))
    wrong = [result for result in results if result != steps]
    if wrong:
        raise Wrong(f"{len(wrong)} paced workflows returned something else than {steps}, such as {wrong[0]!r}")


async def _run(driver: Driver, workflow_id: str, steps: int) -> None:
    result = await driver.run(workflow_id, "steps", steps)
    if result != steps:
        raise Wrong(f"workflow {workflow_id} returned {result!r} instead of {steps}")


def _progress(text: str) -> None:
    sys.stderr.write(f"progress {text}\n")
    sys.stderr.flush()


def _say(name: str, value: object) -> None:
    sys.stdout.write(json.dumps([name, value]) + "\n")
    sys.stdout.flush()


def main(
    serve: Callable[[str], Awaitable[None]], connect: Callable[[str], AbstractAsyncContextManager[Driver]]
) -> None:
    """Run as a worker or as the client, as the command line says: worker|drive ADDRESS [SIZES as JSON]."""
    role, address, *rest = sys.argv[1:]

    async def drive() -> None:
        sizes = json.loads(rest[0])
        async with connect(address) as driver:
            if "paced" in sizes:
                await keep_stepping(driver, sizes["paced"], sizes["steps"], sizes["pace_ms"])
            else:
                await measure(driver, sizes, _say)

    try:
        asyncio.run(serve(address) if role == "worker" else drive())  # type: ignore[arg-type]
    except KeyboardInterrupt:
        sys.exit(130)
