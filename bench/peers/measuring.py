"""Measuring the variants one after the other: the client's figures, and a killed worker."""

from __future__ import annotations

import json
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread

from bench.peers.environments import Installed, NotInstalled, ensure
from bench.peers.failover import Effect, busiest, read_effects, standstills_s
from bench.peers.processes import cpu_s, running
from bench.peers.setups import READY_S, Launched, Variant
from bench.results import Results, Setup
from bench.servers import BenchFailed
from mesh.errors import MeshError
from mesh.groups import unwrapped

CLIENT_S: Final = 150.0
WORKERS: Final = 2
# Workers and clients connect, and take their share of the work.
CONNECT_S: Final = 3.0
SETUP: Final = Setup()


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured of each; the time limits are those of a part."""

    steps: int = 5
    concurrency: int = 100
    warm_up_s: float = 3
    duration_s: float = 8
    sequential_steps: int = 300
    starts: int = 200
    signals: int = 50


@dataclass(frozen=True, slots=True)
class Failover:
    """One worker of two is killed while workflows step."""

    paced: int = 20
    steps: int = 5000
    pace_ms: int = 100
    under_way_steps: int = 10
    start_s: float = 60
    observe_s: float = 45


QUICK: Final = Sizes(concurrency=10, warm_up_s=0.5, duration_s=1, sequential_steps=20, starts=10, signals=3)


async def measure(
    variants: Sequence[Variant], sizes: Sizes, failover: Failover, results: Results, progress: Callable[[str], None]
) -> None:
    """Measure these variants into the results; one that fails is said to have failed."""
    peers: dict[str, Any] = results.details.setdefault("peers", {})
    for variant in variants:
        peers[variant.name] = {
            "engine": variant.engine, "title": variant.title, "durability": variant.durability,
            "flushed": variant.flushed, "settings": variant.settings,
            "versions": variant.environment.versions() if variant.environment else "this project",
        }  # fmt: skip
        try:
            with unwrapped():
                wanted = variant.environment
                installed = await anyio.to_thread.run_sync(ensure, wanted, progress) if wanted else None
                await _figures(variant, installed, sizes, results, progress)
                if variant.failover:
                    await _failover(variant, installed, failover, results, progress)
        except (MeshError, NotInstalled, OSError, TimeoutError, ValueError) as error:
            results.failures.append(f"{variant.title}: {type(error).__name__}: {error}")
            progress(results.failures[-1])


async def _figures(
    variant: Variant, installed: Installed | None, sizes: Sizes, results: Results, progress: Callable[[str], None]
) -> None:
    """Run the client against one worker and keep what it says."""
    with tempfile.TemporaryDirectory(prefix="mesh-bench-") as name:
        directory = Path(name)
        async with variant.launch(directory, installed) as launched, AsyncExitStack() as stack:
            results.details["peers"][variant.name]["notes"] = launched.notes
            workers = await _workers(stack, launched, 1, directory, directory)
            client = launched.client.with_arguments(json.dumps(asdict(sizes)))
            log = directory / "client.log"
            process = await stack.enter_async_context(running(client, log, output=subprocess.PIPE, effects=directory))
            before = _cpu(launched, workers)
            heard: dict[str, Any] = {}
            cpu: dict[str, float] = {}
            with anyio.move_on_after(CLIENT_S) as limit:
                async for line in _lines(process):
                    figure, value = json.loads(line)
                    heard[figure] = value
                    progress(f"{variant.title}: {figure} {_brief(value)}")
                    if figure == "steps_per_s":
                        now = _cpu(launched, workers)
                        cpu = {who: round(now[who] - before[who], 2) for who in now}
            if limit.cancelled_caught or "signal_to_wake_ms" not in heard:
                results.failures.append(f"{variant.title}: the client came to {list(heard)}: {_end_of(log)}")
    for figure in ("workflows_per_s", "steps_per_s", "step_ms"):
        if figure in heard:
            digits = 3 if figure == "step_ms" else 1
            more = {"cpu": cpu} if figure == "steps_per_s" else {}
            results.add(figure, [heard[figure]], SETUP, digits, of=variant.name, **more)
    for figure in ("start_to_result_ms", "signal_to_wake_ms"):
        if figure in heard:
            results.add_percentiles(figure.removesuffix("_ms"), heard[figure], SETUP, of=variant.name)


async def _failover(
    variant: Variant, installed: Installed | None, plan: Failover, results: Results, progress: Callable[[str], None]
) -> None:
    """Kill the worker that does most, and see from the logs of the steps when its workflows went on."""
    with tempfile.TemporaryDirectory(prefix="mesh-bench-") as name:
        directory = Path(name)
        effects = directory / "effects"
        effects.mkdir()
        async with variant.launch(directory, installed) as launched, AsyncExitStack() as stack:
            sizes = {"paced": plan.paced, "steps": plan.steps, "pace_ms": plan.pace_ms}
            client = launched.client.with_arguments(json.dumps(sizes))
            log = directory / "client.log"
            workers = await _workers(stack, launched, WORKERS, directory, effects)
            process = await stack.enter_async_context(running(client, log, effects=effects))
            progress(f"{variant.title}: {plan.paced} workflows step; then a worker is killed")
            await _wait_under_way(effects, plan, log)
            victims = {worker.pid: worker for worker in workers} or {process.pid: process}
            victim = victims.get(busiest(_read(effects)))
            if victim is None:
                raise BenchFailed(f"the steps are not done by the workers {sorted(victims)}")
            killed_s = time.time()
            victim.send_signal(signal.SIGKILL)
            if launched.recover is not None:
                # At once, as a supervisor does that was told of the end.
                await anyio.to_thread.run_sync(victim.wait)
                recovery = running(launched.recover, directory / "recovery.log", effects=effects)
                await stack.enter_async_context(recovery)
            deadline = time.monotonic() + plan.observe_s
            while True:
                await anyio.sleep(0.5)
                struck = standstills_s(_read(effects), victim.pid, killed_s, plan.pace_ms / 1e3)
                open_ = [workflow for workflow, seconds in struck.items() if seconds is None]
                if (struck and not open_) or time.monotonic() > deadline:
                    break
    went_on_ms = [seconds * 1e3 for seconds in struck.values() if seconds is not None]
    progress(f"{variant.title}: {len(struck)} workflows were struck, {_brief(went_on_ms)} ms")
    if open_ or not struck:
        results.failures.append(
            f"{variant.title}: {len(open_)} of {len(struck)} workflows have not gone on "
            f"within {plan.observe_s:g} s of the kill"
        )
    if went_on_ms:
        results.add_percentiles("standstill", went_on_ms, SETUP, 0, of=variant.name)


async def _workers(
    stack: AsyncExitStack, launched: Launched, number: int, directory: Path, effects: Path
) -> list[subprocess.Popen[bytes]]:
    if launched.worker is None:
        return []
    started = [
        await stack.enter_async_context(running(launched.worker, directory / f"worker-{i}.log", effects=effects))
        for i in range(number)
    ]
    await anyio.sleep(CONNECT_S)
    for i, worker in enumerate(started):
        log = directory / f"worker-{i}.log"
        deadline = time.monotonic() + READY_S
        while launched.ready not in log.read_text("utf-8", "replace"):
            if worker.poll() is not None or time.monotonic() > deadline:
                raise BenchFailed(f"a worker is not ready: {_end_of(log)}")
            await anyio.sleep(0.1)
    return started


async def _wait_under_way(effects: Path, plan: Failover, log: Path) -> None:
    deadline = time.monotonic() + plan.start_s
    while True:
        await anyio.sleep(0.2)
        reached: dict[str, int] = {}
        for effect in _read(effects):
            reached[effect.workflow] = max(reached.get(effect.workflow, 0), effect.number)
        if len(reached) == plan.paced and min(reached.values()) >= plan.under_way_steps:
            return
        if time.monotonic() > deadline:
            raise BenchFailed(f"{len(reached)} of {plan.paced} workflows step after {plan.start_s:g} s: {_end_of(log)}")


def _read(directory: Path) -> list[Effect]:
    return [
        effect for path in directory.glob("*.jsonl") for effect in read_effects(int(path.stem), path.read_text("utf-8"))
    ]


def _cpu(launched: Launched, workers: Sequence[subprocess.Popen[bytes]]) -> dict[str, float]:
    return {
        "node": sum(cpu_s(worker.pid) for worker in workers),
        "server": sum(cpu_s(pid) for pid in launched.servers),
    }


async def _lines(process: subprocess.Popen[bytes]) -> Any:
    assert process.stdout is not None
    while True:
        line = await anyio.to_thread.run_sync(process.stdout.readline, abandon_on_cancel=True)
        if not line:
            return
        yield line


def _brief(value: Any) -> str:
    if isinstance(value, list):
        ordered = sorted(value)
        return f"p50 {ordered[len(ordered) // 2]:.3g}, max {ordered[-1]:.3g} of {len(ordered)}" if ordered else "none"
    return f"{value:.4g}"


def _end_of(log: Path) -> str:
    try:
        lines = [line for line in log.read_text("utf-8", "replace").splitlines() if not line.startswith("progress ")]
    except FileNotFoundError:
        return "it wrote nothing"
    return " / ".join(lines[-4:])[-600:] or "it wrote nothing"
