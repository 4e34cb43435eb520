"""`python -m bench`: measure, and print tables.

    python -m bench                    all that a target is named for, in all setups (about eight minutes)
    python -m bench --quick            less of it, in about a minute
    python -m bench engine             one node, relaxed and always, the workflows alone
    python -m bench growth             how it goes on: long histories, a million open workflows, eight nodes
    python -m bench peers              other engines on the same machine, with the same work
    python -m bench processes          processes: 10,000 of them, and how quickly they talk
    python -m bench sleepers           100,000 workflows asleep
    python -m bench failover           nodes killed under load
    python -m bench recovery           a node lost with 24,000 workflows open, most of them waiting for something
    python -m bench projection         a million workflows in a list
    python -m bench report             tables and plots for the documents, from the results that were saved

--json FILE writes the results to a file as well, --save to where `report` reads them; --limit MINUTES ends a run early,
and what has been measured by then is printed and kept. Progress goes to standard error, tables to standard output.
"""

from __future__ import annotations

import functools
import importlib
import logging
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import anyio
import click
from rich.console import Console

from bench import actors as actors_bench
from bench import documents, suite
from bench import failover as failover_bench
from bench import growth as growth_bench
from bench import projection as projection_bench
from bench import recovery as recovery_bench
from bench import sleepers as sleepers_bench
from bench.machine import Watch
from bench.peers import measuring
from bench.peers.setups import ENGINES, VARIANTS
from bench.processes import ROOT
from bench.report import print_results
from bench.results import DIRECTORY, Results, Setup, save
from bench.servers import BenchFailed
from mesh.groups import unwrapped
from mesh.sync import SYNCS, Sync

# A pipe has no width; a table folded to 80 columns cannot be read.
WIDTH_OF_PIPES = 200


@dataclass(frozen=True, slots=True)
class Output:
    """Where results go, and how long measuring may take."""

    json_file: Path | None
    is_saved: bool
    limit_min: float


def _output(limit_min: float) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The options that say where results go, given to the command as one argument, `output`."""
    where = click.Path(dir_okay=False, path_type=Path)
    options = (
        click.option("--json", "json_file", type=where, help="Write the results to this file, too."),
        click.option("--save", "is_saved", is_flag=True, help="Write them to bench/results/, for `report`."),
        click.option(
            "--limit", "limit_min", type=click.FloatRange(0, min_open=True), default=limit_min, show_default=True,
            help="Minutes; what has not been measured by then is not.",
        ),
    )  # fmt: skip

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def command(*args: Any, json_file: Path | None, is_saved: bool, limit_min: float, **kwargs: Any) -> None:
            function(*args, output=Output(json_file, is_saved, limit_min), **kwargs)

        for option in options:
            command = option(command)
        return command

    return decorate


_runs = click.option("--runs", type=click.IntRange(1), help="The median of so many; 3, or 1 with --quick.")
_sync = click.option("--sync", type=click.Choice(SYNCS), default="relaxed", show_default=True)
_replicas = click.option("--replicas", type=click.Choice(["1", "3"]), default="1", show_default=True)


def progress(text: str) -> None:
    """Say what is going on."""
    sys.stderr.write(f"  {time.strftime('%H:%M:%S')} {text} ...\n")
    sys.stderr.flush()


@click.group(invoke_without_command=True)
@click.option("--quick", is_flag=True, help="Less of everything, in about a minute.")
@click.option("--only", type=click.Choice(suite.SECTIONS), multiple=True, help="This section only; repeatable.")
@_runs
@_output(10)
@click.pass_context
def main(context: click.Context, quick: bool, only: tuple[str, ...], runs: int | None, output: Output) -> None:
    """Measure the mesh on this machine."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    if context.invoked_subcommand is not None:
        return
    plan = suite.quick(runs or 1) if quick else suite.full(runs or 3)
    sections = cast("frozenset[suite.Section]", frozenset(only or suite.SECTIONS))
    results = suite.new_results("suite", quick=quick, only=list(only), runs=plan.sizes.repetitions)
    _bench(results, output, suite.measure, plan, sections, results, progress)


@main.command()
@_runs
@_output(5)
def engine(runs: int | None, output: Output) -> None:
    """One node with the server beside it: steps, latency, replay, timers."""
    whole = suite.full(runs or 3)
    plan = suite.only_one_node(whole)
    results = suite.new_results("engine", runs=plan.sizes.repetitions)
    _bench(results, output, suite.measure, plan, frozenset({"setups", "replay", "timers"}), results, progress)


@main.command()
@click.option(
    "--only", type=click.Choice(actors_bench.PARTS), multiple=True, help="Measure this part only; repeatable."
)
@_runs
@_output(10)
def processes(only: tuple[str, ...], runs: int | None, output: Output) -> None:
    """Processes: ten thousand of them, round trips on one node and between two."""
    parts = cast("frozenset[actors_bench.Part]", frozenset(only or actors_bench.PARTS))
    sizes = actors_bench.Sizes(repetitions=runs or 3)
    results = suite.new_results("processes", only=list(only), runs=sizes.repetitions)
    bench = actors_bench.ActorBench(sizes, results, progress)
    _bench(results, output, bench.measure, parts)


@main.command()
@_sync
@click.option("--count", type=click.IntRange(1), multiple=True, default=[100_000], help="How many; repeatable, rising.")
@click.option("--wakes", type=click.IntRange(1), default=50, show_default=True, help="How many are woken.")
@click.option(
    "--rest", "rest_s", type=click.FloatRange(0), default=0, help="Seconds they sleep; then the server again."
)
@_output(15)
def sleepers(sync: str, count: tuple[int, ...], wakes: int, rest_s: float, output: Output) -> None:
    """Many workflows asleep: memory, how long it takes to wake one, and to take all of them over."""
    results = suite.new_results("sleepers", counts=sorted(count), wakes=wakes)
    setup = Setup(sync=cast("Sync", sync))
    looks = sleepers_bench.Looks(wakes, rest_s=rest_s)
    _bench(results, output, sleepers_bench.measure, setup, sorted(count), looks, results, progress)


@main.command()
@_sync
@_replicas
@click.option("--kills", type=click.IntRange(1), default=10, show_default=True, help="How often, with each signal.")
@click.option("--nodes", type=click.IntRange(2), default=3, show_default=True)
@click.option(
    "--open", "open_count", type=click.IntRange(1), default=100, show_default=True, help="Workflows under way."
)
@click.option("--pace-ms", type=click.IntRange(1), default=50, show_default=True, help="How long each step takes.")
@_output(15)
def failover(
    sync: str, replicas: str, kills: int, nodes: int, open_count: int, pace_ms: int, output: Output
) -> None:  # fmt: skip
    """Nodes killed under load: how soon another one goes on.

    The next step is the first that only the new owner can have asked for; a pause is the time between two steps.
    """
    plan = failover_bench.FailoverPlan(kills, open_count, pace_ms)
    setup = Setup(nodes, int(replicas), cast("Sync", sync))
    results = suite.new_results("failover", kills=kills, open=open_count, pace_ms=pace_ms)
    _bench(results, output, failover_bench.measure, setup, plan, results, progress)


@main.command()
@_sync
@_replicas
@click.option(
    "--open", "open_count", type=click.IntRange(3), default=24_000, show_default=True, help="Workflows that are open."
)
@click.option(
    "--how", type=click.Choice(recovery_bench.HOWS), multiple=True,
    help="Lost in this way only: killed when nothing happens any more (settled), killed while most have only just been "
    "started (burst), stopped for longer than its lease and let go on (paused). Repeatable; all three by default.",
)  # fmt: skip
@_output(15)
def recovery(sync: str, replicas: str, open_count: int, how: tuple[recovery_bench.How, ...], output: Output) -> None:
    """A node lost with very many workflows open: how soon another one has attended to all, and starts new ones."""
    plan = recovery_bench.RecoveryPlan(open_count, how or recovery_bench.HOWS)
    setup = Setup(1, int(replicas), cast("Sync", sync))
    results = suite.new_results("recovery", open=open_count, how=list(plan.hows))
    _bench(results, output, recovery_bench.measure, setup, plan, results, progress)


@main.command()
@click.option("--workflows", type=click.IntRange(100), default=1_000_000, show_default=True)
@_runs
@click.option(
    "--file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Keep the projection there; one that is there is asked and not filled again.",
)
@_output(15)
def projection(workflows: int, runs: int | None, file: Path | None, output: Output) -> None:
    """Lists and search: a million finished workflows, and how quickly any page of them is found."""
    results = suite.new_results("projection", workflows=workflows, runs=runs or 5)

    async def measure() -> None:
        figures = projection_bench.measure(workflows, runs or 5, progress, file)
        for name, value in figures.values.items():
            results.add(name, [value], Setup(), 2)
        results.details["pages"] = figures.pages
        results.details["slow"] = figures.slow(100)

    _bench(results, output, measure)
    slow = results.details["slow"]
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
@_output(20)
def growth(only: tuple[str, ...], upto: int, output: Output) -> None:
    """How figures change with the length of a history, the number of open workflows and the number of nodes."""
    curves = cast("frozenset[growth_bench.Curve]", frozenset(only or growth_bench.CURVES))
    results = suite.new_results("growth", only=list(only), upto=upto)
    _bench(results, output, growth_bench.measure, growth_bench.plan(upto), curves, results, progress)


@main.command()
@click.option("--only", help="These engines or variants, split by commas; all without it.")
@click.option("--quick", is_flag=True, help="Hardly anything of each, to see that it works.")
@_output(10)
def peers(only: str | None, quick: bool, output: Output) -> None:
    """Other durable engines with the same work on this machine, each in an environment of its own."""
    names = [name.strip() for name in (only or "").split(",") if name.strip()]
    variants = [v for v in VARIANTS if not names or v.name in names or v.engine in names]
    unknown = set(names) - {v.name for v in VARIANTS} - set(ENGINES)
    if unknown:
        raise click.BadParameter(f"{', '.join(sorted(unknown))}: there are {', '.join(ENGINES)}", param_hint="--only")
    results = suite.new_results("peers", only=names, quick=quick)
    sizes = measuring.QUICK if quick else measuring.Sizes()
    _bench(results, output, measuring.measure, variants, sizes, measuring.Failover(), results, progress)


@main.command()
@click.option(
    "--check",
    is_flag=True,
    help="Change nothing; fail when a document is not what the results make of it, or shows what is not there.",
)
def report(check: bool) -> None:
    """Make the tables of docs/ and the plots in docs/plots/ anew, from the results in bench/results/."""
    results = documents.saved_results()
    if check:
        problems = [
            f"{path.name} is not what the results make of it; run `python -m bench report`"
            for path in documents.stale(results)
        ] + documents.lacking(results)
        if problems:
            raise click.ClickException("\n".join(problems))
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


def _bench(results: Results, output: Output, function: Callable[..., Awaitable[None]], *args: object) -> None:
    """Measure to the end, to the limit, or until SIGTERM; print and keep what there is, with its conditions.

    Whatever happens, no process that was started is left.
    """
    watch, begun = Watch(), time.monotonic()

    async def until_told() -> None:
        with unwrapped():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_end_on_signal, tasks.cancel_scope, results)
                with anyio.move_on_after(output.limit_min * 60) as limit:
                    await function(*args)
                if limit.cancelled_caught:
                    results.failures.append(f"stopped after {output.limit_min:g} minutes: the rest was not measured")
                tasks.cancel_scope.cancel()

    try:
        anyio.run(until_told)
    except BenchFailed as error:
        results.failures.append(str(error))
    results.took_s = round(time.monotonic() - begun, 1)
    results.quiet = watch.look().to_json()
    _finish(results, output)


async def _end_on_signal(scope: anyio.CancelScope, results: Results) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            results.failures.append(f"stopped by {number.name}: the rest was not measured")
            scope.cancel()


def _finish(results: Results, output: Output) -> None:
    """Print results and keep them; the exit status says when nothing could be measured."""
    console = Console()
    print_results(console if console.is_terminal else Console(width=WIDTH_OF_PIPES), results)
    for path in (output.json_file, DIRECTORY / f"{results.kind}.json" if output.is_saved else None):
        if path is not None:
            save(results, path)
            sys.stderr.write(f"  results are in {path}\n")
    if not results.measured:
        raise click.ClickException("nothing was measured")


if __name__ == "__main__":
    main()
