"""`python -m bench`: measure, and print a table or JSON.

    python -m bench                    the engine, as a table
    python -m bench engine --json      one JSON object
    python -m bench processes          processes: 10,000 of them, and how quickly they talk
    python -m bench sleepers           100,000 workflows asleep
    python -m bench failover           nodes killed under load
    python -m bench projection         a million workflows in a list

Progress goes to standard error, figures to standard output.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import anyio
import click
from rich.console import Console

from bench import actors as actors_bench
from bench import failover as failover_bench
from bench import projection as projection_bench
from bench import sleepers as sleepers_bench
from bench.engine import PARTS, EngineBench, EngineFigures, Part, Sizes
from bench.machine import facts, one_line
from bench.processes import BenchFailed
from bench.report import print_table, targets_of
from mesh.groups import unwrapped
from mesh.server import Sync

T = TypeVar("T")

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")


def progress(text: str) -> None:
    """Say what is going on."""
    sys.stderr.write(f"  {text} ...\n")
    sys.stderr.flush()


@click.group(invoke_without_command=True)
@click.pass_context
def main(context: click.Context) -> None:
    """Measure the mesh on this machine."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    if context.invoked_subcommand is None:
        context.invoke(engine)


@main.command()
@as_json_option
@click.option("--sync", type=click.Choice(["relaxed", "always"]), default="relaxed", show_default=True)
@click.option("--only", type=click.Choice(PARTS), multiple=True, help="Measure this part only; may be repeated.")
@click.option("--repetitions", type=click.IntRange(1), default=3, show_default=True, help="The median of so many.")
def engine(as_json: bool, sync: str, only: tuple[str, ...], repetitions: int) -> None:
    """One node with the server beside it: steps, latency, replay."""
    parts = cast("frozenset[Part]", frozenset(only or PARTS))
    bench = EngineBench(Sizes(repetitions=repetitions), progress)
    found = facts()
    _run(bench.measure, cast("Sync", sync), parts)
    figures: EngineFigures = bench.figures
    conditions = {
        "sync": sync, "median_of": repetitions, "nodes": 1, "app": "bench/app",
        "processes": "client, node (engine and function host) and server on this machine",
    }  # fmt: skip
    details = {"conditions": conditions, "repetitions": figures.repetitions, "cpu": figures.cpu}
    notes = [
        f"sync {sync}; median of {repetitions}; client, node and server share this machine.",
        "CPU: " + "; ".join(f"{name} {value:g}" for name, value in figures.cpu.items()),
    ]
    _print(as_json, "Engine", figures.values, details, found, notes)


@main.command()
@as_json_option
@click.option(
    "--only", type=click.Choice(actors_bench.PARTS), multiple=True, help="Measure this part only; repeatable."
)
@click.option("--repetitions", type=click.IntRange(1), default=3, show_default=True, help="The median of so many.")
def processes(as_json: bool, only: tuple[str, ...], repetitions: int) -> None:
    """Processes: ten thousand of them, round trips on one node and between two."""
    parts = cast("frozenset[actors_bench.Part]", frozenset(only or actors_bench.PARTS))
    sizes = actors_bench.Sizes(repetitions=repetitions)
    bench = actors_bench.ActorBench(sizes, progress)
    found = facts()
    _run(bench.measure, "relaxed", parts)
    figures = bench.figures
    conditions = {
        "median_of": repetitions, "app": "bench/app", "crowd": sizes.crowd, "round_trips": sizes.round_trips,
        "processes": "client, nodes and server on this machine",
    }  # fmt: skip
    details = {"conditions": conditions, "repetitions": figures.repetitions, "cpu": figures.cpu}
    notes = [
        f"Median of {repetitions}; client, nodes and server share this machine.",
        "CPU: " + "; ".join(f"{name} {value:g}" for name, value in figures.cpu.items()),
    ]
    _print(as_json, "Processes", figures.values, details, found, notes)


@main.command()
@as_json_option
@click.option("--sync", type=click.Choice(["relaxed", "always"]), default="relaxed", show_default=True)
@click.option("--count", type=click.IntRange(1), default=100_000, show_default=True)
@click.option("--wakes", type=click.IntRange(1), default=50, show_default=True, help="How many are woken.")
def sleepers(as_json: bool, sync: str, count: int, wakes: int) -> None:
    """Many workflows asleep: memory, and how long it takes to wake one."""
    found = facts()
    figures = _run(sleepers_bench.measure, cast("Sync", sync), count, wakes, progress)
    conditions = {
        "sync": sync,
        "count": count,
        "wakes": wakes,
        "nodes": 1,
        "asleep in": "select over inbox and time.after('24h')",
    }
    notes = [f"{count} workflows, each with a timer of 24 h on the server; {wakes} woken, one at a time; sync {sync}."]
    _print(as_json, f"{count} workflows asleep", figures, {"conditions": conditions}, found, notes)


@main.command()
@as_json_option
@click.option("--sync", type=click.Choice(["relaxed", "always"]), default="relaxed", show_default=True)
@click.option("--kills", type=click.IntRange(1), default=10, show_default=True, help="How often, with each signal.")
@click.option("--nodes", type=click.IntRange(2), default=3, show_default=True)
@click.option(
    "--open", "open_count", type=click.IntRange(1), default=100, show_default=True, help="Workflows under way."
)
@click.option("--pace-ms", type=click.IntRange(1), default=50, show_default=True, help="How long each step takes.")
def failover(as_json: bool, sync: str, kills: int, nodes: int, open_count: int, pace_ms: int) -> None:
    """Nodes killed under load: how soon another one goes on."""
    plan = failover_bench.FailoverPlan(kills, nodes, open_count, pace_ms)
    found = facts()
    outcome = _run(failover_bench.measure, cast("Sync", sync), plan, progress)
    conditions = {"sync": sync, "kills": kills, "nodes": nodes, "open": open_count, "pace_ms": pace_ms}
    details = {"conditions": conditions, "rounds": outcome.rounds}
    notes = [
        f"{kills} rounds with each signal, {nodes} nodes, {open_count} workflows under way, "
        f"each step takes {pace_ms} ms; sync {sync}.",
        "The next step is the first that only the new owner can have asked for; a pause is the time between two steps.",
    ]
    _print(as_json, "Failover", outcome.figures, details, found, notes)


@main.command()
@as_json_option
@click.option("--workflows", type=click.IntRange(100), default=1_000_000, show_default=True)
@click.option("--repetitions", type=click.IntRange(1), default=5, show_default=True, help="The median of so many.")
@click.option(
    "--file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Keep the projection there; one that is there is asked and not filled again.",
)
def projection(as_json: bool, workflows: int, repetitions: int, file: Path | None) -> None:
    """Lists and search: a million finished workflows, and how quickly any page of them is found."""
    found = facts()
    figures = projection_bench.measure(workflows, repetitions, progress, file)
    conditions = {"workflows": workflows, "median_of": repetitions}
    details = {"conditions": conditions, "pages": figures.pages}
    slow = figures.slow(100)
    notes = [
        f"{workflows:,} finished workflows, {len(figures.pages)} queries; median of {repetitions} for each.",
        *(["Longer than 100 ms:", *slow] if slow else ["No page takes longer than 100 ms."]),
    ]
    _print(as_json, "Lists and search", figures.values, details, found, notes)


def _run(function: Callable[..., Awaitable[T]], *args: object) -> T:
    """Run to the end, or until SIGTERM; whatever happens, no process that was started is left."""

    async def until_told() -> T:
        with unwrapped():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_end_on_signal, tasks.cancel_scope)
                try:
                    return await function(*args)
                finally:
                    tasks.cancel_scope.cancel()
        raise click.Abort

    try:
        return anyio.run(until_told)
    except BenchFailed as error:
        raise click.ClickException(str(error)) from error


async def _end_on_signal(scope: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            scope.cancel()


def _print(
    as_json: bool,
    title: str,
    figures: Mapping[str, float],
    details: Mapping[str, Any],
    found: dict[str, Any],
    notes: Sequence[str],
) -> None:
    if as_json:
        sys.stdout.write(json.dumps({**figures, **details, "targets": targets_of(figures), **found}, indent=2) + "\n")
    else:
        print_table(Console(), title, figures, [*notes, one_line(found)])


if __name__ == "__main__":
    main()
