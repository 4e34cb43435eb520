"""`python -m bench`: measure, and print tables.

    python -m bench                    all that a target is named for, in all setups (about eight minutes)
    python -m bench --quick            less of it, in about a minute
    python -m bench engine             one node, relaxed and always, the workflows alone
    python -m bench growth             how it goes on: long histories, a million open workflows, eight nodes
    python -m bench peers              other engines on the same machine, with the same work
    python -m bench processes          processes: 10,000 of them, and how quickly they talk
    python -m bench sleepers           100,000 workflows asleep
    python -m bench failover           nodes killed under load
    python -m bench projection         a million workflows in a list
    python -m bench report             tables and plots for the documents, from the results that were saved

--json FILE writes the results to a file as well, --save to where `report` reads them. Progress goes to standard error,
tables to standard output.
"""

from __future__ import annotations

import importlib
import logging
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import anyio
import click
from rich.console import Console

from bench import actors as actors_bench
from bench import documents, suite
from bench import failover as failover_bench
from bench import growth as growth_bench
from bench import projection as projection_bench
from bench import sleepers as sleepers_bench
from bench.machine import Watch
from bench.peers import measuring
from bench.peers.setups import ENGINES, VARIANTS
from bench.processes import ROOT
from bench.report import print_results
from bench.results import DIRECTORY, Results, Setup, save
from bench.servers import BenchFailed
from mesh.groups import unwrapped
from mesh.server import Sync

T = TypeVar("T")

# A pipe has no width; a table folded to 80 columns cannot be read.
WIDTH_OF_PIPES = 200


def _output(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say where results go."""
    where = click.Path(dir_okay=False, path_type=Path)
    function = click.option("--json", "json_file", type=where, help="Write the results to this file, too.")(function)
    return click.option("--save", "is_saved", is_flag=True, help="Write them to bench/results/, for `report`.")(
        function
    )


_runs = click.option("--runs", type=click.IntRange(1), help="The median of so many; 3, or 1 with --quick.")
_sync = click.option("--sync", type=click.Choice(["relaxed", "always"]), default="relaxed", show_default=True)
_replicas = click.option("--replicas", type=click.Choice(["1", "3"]), default="1", show_default=True)


def progress(text: str) -> None:
    """Say what is going on."""
    sys.stderr.write(f"  {time.strftime('%H:%M:%S')} {text} ...\n")
    sys.stderr.flush()


@click.group(invoke_without_command=True)
@click.option("--quick", is_flag=True, help="Less of everything, in about a minute.")
@click.option("--only", type=click.Choice(suite.SECTIONS), multiple=True, help="This section only; repeatable.")
@_runs
@_output
@click.pass_context
def main(
    context: click.Context, quick: bool, only: tuple[str, ...], runs: int | None, json_file: Path | None, is_saved: bool
) -> None:
    """Measure the mesh on this machine."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    if context.invoked_subcommand is not None:
        return
    plan = suite.quick(runs or 1) if quick else suite.full(runs or 3)
    sections = cast("frozenset[suite.Section]", frozenset(only or suite.SECTIONS))
    results = suite.new_results("suite", quick=quick, only=list(only), runs=plan.sizes.repetitions)
    _run(suite.measure, plan, sections, results, progress)
    _finish(results, json_file, is_saved)


@main.command()
@_runs
@_output
def engine(runs: int | None, json_file: Path | None, is_saved: bool) -> None:
    """One node with the server beside it: steps, latency, replay, timers."""
    whole = suite.full(runs or 3)
    plan = suite.only_one_node(whole)
    results = suite.new_results("engine", runs=plan.sizes.repetitions)
    _run(suite.measure, plan, frozenset({"setups", "replay", "timers"}), results, progress)
    _finish(results, json_file, is_saved)


@main.command()
@click.option(
    "--only", type=click.Choice(actors_bench.PARTS), multiple=True, help="Measure this part only; repeatable."
)
@_runs
@_output
def processes(only: tuple[str, ...], runs: int | None, json_file: Path | None, is_saved: bool) -> None:
    """Processes: ten thousand of them, round trips on one node and between two."""
    parts = cast("frozenset[actors_bench.Part]", frozenset(only or actors_bench.PARTS))
    sizes = actors_bench.Sizes(repetitions=runs or 3)
    results = suite.new_results("processes", only=list(only), runs=sizes.repetitions)
    bench = actors_bench.ActorBench(sizes, results, progress)
    _measure(results, bench.measure, parts)
    _finish(results, json_file, is_saved)


@main.command()
@_sync
@click.option("--count", type=click.IntRange(1), multiple=True, default=[100_000], help="How many; repeatable, rising.")
@click.option("--wakes", type=click.IntRange(1), default=50, show_default=True, help="How many are woken.")
@_output
def sleepers(sync: str, count: tuple[int, ...], wakes: int, json_file: Path | None, is_saved: bool) -> None:
    """Many workflows asleep: memory, how long it takes to wake one, and to take all of them over."""
    results = suite.new_results("sleepers", counts=sorted(count), wakes=wakes)
    setup = Setup(sync=cast("Sync", sync))
    _measure(results, sleepers_bench.measure, setup, sorted(count), sleepers_bench.Looks(wakes), results, progress)
    _finish(results, json_file, is_saved)


@main.command()
@_sync
@_replicas
@click.option("--kills", type=click.IntRange(1), default=10, show_default=True, help="How often, with each signal.")
@click.option("--nodes", type=click.IntRange(2), default=3, show_default=True)
@click.option(
    "--open", "open_count", type=click.IntRange(1), default=100, show_default=True, help="Workflows under way."
)
@click.option("--pace-ms", type=click.IntRange(1), default=50, show_default=True, help="How long each step takes.")
@_output
def failover(
    sync: str, replicas: str, kills: int, nodes: int, open_count: int, pace_ms: int, json_file: Path | None,
    is_saved: bool,
) -> None:  # fmt: skip
    """Nodes killed under load: how soon another one goes on.

    The next step is the first that only the new owner can have asked for; a pause is the time between two steps.
    """
    plan = failover_bench.FailoverPlan(kills, open_count, pace_ms)
    setup = Setup(nodes, int(replicas), cast("Sync", sync))
    results = suite.new_results("failover", kills=kills, open=open_count, pace_ms=pace_ms)
    _measure(results, failover_bench.measure, setup, plan, results, progress)
    _finish(results, json_file, is_saved)


@main.command()
@click.option("--workflows", type=click.IntRange(100), default=1_000_000, show_default=True)
@_runs
@click.option(
    "--file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Keep the projection there; one that is there is asked and not filled again.",
)
@_output
def projection(workflows: int, runs: int | None, file: Path | None, json_file: Path | None, is_saved: bool) -> None:
    """Lists and search: a million finished workflows, and how quickly any page of them is found."""
    results = suite.new_results("projection", workflows=workflows, runs=runs or 5)
    watch = Watch()
    figures = projection_bench.measure(workflows, runs or 5, progress, file)
    for name, value in figures.values.items():
        results.add(name, [value], Setup(), 2)
    results.details["pages"] = figures.pages
    results.quiet = watch.look().to_json()
    _finish(results, json_file, is_saved)
    slow = figures.slow(100)
    sys.stdout.write(
        "\n".join(["Longer than 100 ms:", *slow] if slow else ["No page takes longer than 100 ms."]) + "\n"
    )


@main.command()
@click.option("--only", type=click.Choice(growth_bench.CURVES), multiple=True, help="This curve only; repeatable.")
@click.option(
    "--upto",
    type=click.IntRange(100),
    default=1_000_000,
    show_default=True,
    help="Open workflows at most; histories and nodes are limited in proportion.",
)
@_output
def growth(only: tuple[str, ...], upto: int, json_file: Path | None, is_saved: bool) -> None:
    """How figures change with the length of a history, the number of open workflows and the number of nodes."""
    curves = cast("frozenset[growth_bench.Curve]", frozenset(only or growth_bench.CURVES))
    results = suite.new_results("growth", only=list(only), upto=upto)
    _run(growth_bench.measure, growth_bench.plan(upto), curves, results, progress)
    _finish(results, json_file, is_saved)


@main.command()
@click.option("--only", help="These engines or variants, split by commas; all without it.")
@click.option("--quick", is_flag=True, help="Hardly anything of each, to see that it works.")
@_output
def peers(only: str | None, quick: bool, json_file: Path | None, is_saved: bool) -> None:
    """Other durable engines with the same work on this machine, each in an environment of its own."""
    names = [name.strip() for name in (only or "").split(",") if name.strip()]
    variants = [v for v in VARIANTS if not names or v.name in names or v.engine in names]
    unknown = set(names) - {v.name for v in VARIANTS} - set(ENGINES)
    if unknown:
        raise click.BadParameter(f"{', '.join(sorted(unknown))}: there are {', '.join(ENGINES)}", param_hint="--only")
    results = suite.new_results("peers", only=names, quick=quick)
    sizes = measuring.QUICK if quick else measuring.Sizes()
    _run(measuring.measure, variants, sizes, measuring.Failover(), results, progress)
    _finish(results, json_file, is_saved)


@main.command()
@click.option("--check", is_flag=True, help="Change nothing; fail when a document is not what the results make of it.")
def report(check: bool) -> None:
    """Make the tables of docs/ and the plots in docs/plots/ anew, from the results in bench/results/."""
    results = documents.saved_results()
    if check:
        stale = documents.stale(results)
        if stale:
            names = ", ".join(path.name for path in stale)
            raise click.ClickException(f"{names}: not what the results make of it; run `python -m bench report`")
        return
    for path in documents.rewrite(results):
        sys.stdout.write(f"{path}\n")
    try:
        plots = importlib.import_module("bench.plots")
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{error}; the plots need it: pip install --group bench") from error
    for one in results.values():
        for path in plots.draw(one, ROOT / "docs" / "plots"):
            sys.stdout.write(f"{path}\n")


def _measure(results: Results, function: Callable[..., Awaitable[None]], *args: object) -> None:
    """Measure one thing, with the conditions it was measured under."""
    watch, begun = Watch(), time.monotonic()
    _run(function, *args)
    results.took_s = round(time.monotonic() - begun, 1)
    results.quiet = watch.look().to_json()


def _finish(results: Results, json_file: Path | None, is_saved: bool) -> None:
    """Print results and keep them; the exit status says when something could not be measured."""
    console = Console()
    print_results(console if console.is_terminal else Console(width=WIDTH_OF_PIPES), results)
    for path in (json_file, DIRECTORY / f"{results.kind}.json" if is_saved else None):
        if path is not None:
            save(results, path)
            sys.stderr.write(f"  results are in {path}\n")
    if results.failures and not results.measured:
        raise click.ClickException("nothing could be measured")


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


if __name__ == "__main__":
    main()
