"""Results for people, on a terminal: what was promised, every setup, all else, and under what conditions.

When the machine was not left to the bench, or something failed, this is said first and in red: nobody should quote such
figures without noticing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from rich.console import Console
from rich.table import Table

from bench.figures import family_of, figure_of, judged, place, text
from bench.machine import conditions, one_line
from bench.peers import comparing
from bench.results import PERCENTILES, Measured, Results, Setup

# The columns of the table of setups: a figure, or the percentiles of one.
RATES: Final = (("steps_per_s", "steps/s"), ("workflows_per_s", "workflows/s"), ("step_ms", "step, mean, ms"))
SPREADS: Final = (("step", "step"), ("start_to_result", "start to result"), ("signal_to_wake", "signal to wake"))
WHO: Final = ("node", "server", "client")
CPU_TITLE: Final = f"CPU us for a step: {' / '.join(WHO)}"
_OF_SETUPS: Final = frozenset(
    [name for name, _ in RATES]
    + [f"{name}_{which}_ms" for name, _ in SPREADS for which in PERCENTILES]
    + [f"{who}_us_per_step" for who in WHO]
)


def print_results(console: Console, results: Results) -> None:
    """Print everything that is in some results, as tables."""
    _warn(console, results)
    promised = list(judged(results))
    if promised:
        table = _table("Targets", "figure", "setup", ">measured", "unit", "target", "")
        for _, figure, measured, target in promised:
            met = target.met_by(measured.value)
            what = f"{figure.what}{', ' + place(measured) if measured.at else ''}"
            said = "[green]met[/]" if met else "[bold red]missed[/]"
            table.add_row(what, str(measured.setup), text(measured.value), figure.unit, str(target), said)
        console.print(table)
    setups = [setup for setup in results.setups() if results.find("steps_per_s", setup)]
    if setups:
        spreads = [f">{title} {' / '.join(PERCENTILES)}, ms" for _, title in SPREADS]
        table = _table("Setups", "setup", *(f">{title}" for _, title in RATES), *spreads, f">{CPU_TITLE}")
        for setup in setups:
            table.add_row(*setup_row(results, setup))
        console.print(table)
    if comparing.variants(results):
        first, second, *figures = comparing.headings()
        table = _table("Peers (how many times better ours is)", first, second, *(f">{title}" for title in figures))
        for row in comparing.rows(results):
            table.add_row(*row)
        console.print(table)
    rest = [m for m in results.measured if not m.of and (m.name not in _OF_SETUPS or m.setup not in setups)]
    if rest:
        table = _table("Everything else", "figure", "setup", ">measured", "unit", "CPU s: node / server / client")
        for row in rows(rest):
            table.add_row(*row)
        console.print(table)
    console.print(f"{results.kind} {_said(results)}; took {results.took_s:g} s", style="dim", highlight=False)
    console.print(one_line(results.facts), style="dim", highlight=False)
    spent = {who: sum(m.cpu.get(who, 0.0) for m in results.measured) for who in WHO}
    console.print(f"CPU s while measuring: {cpu_text(spent)} ({' / '.join(WHO)})", style="dim", highlight=False)
    if results.quiet:
        console.print(conditions(results.quiet), style="dim", highlight=False)
    _warn(console, results)


def setup_row(results: Results, setup: Setup) -> list[str]:
    """The cells of one setup: its name, rates, percentiles, and the CPU time of the steps."""
    cells = [str(setup)]
    for name, _ in RATES:
        found = results.find(name, setup)
        cells.append(text(found.value) if found else "-")
    for name, _ in SPREADS:
        found_all = [results.find(f"{name}_{which}_ms", setup) for which in PERCENTILES]
        cells.append(" / ".join(text(found.value) if found else "-" for found in found_all))
    spent = [results.find(f"{who}_us_per_step", setup) for who in WHO]
    cells.append(" / ".join(text(found.value) if found else "-" for found in spent))
    return cells


def rows(measured: Sequence[Measured]) -> Iterator[list[str]]:
    """A row for each figure, with the percentiles of one in one row: what, setup, value, unit, CPU time."""
    for one in measured:
        figure, family = figure_of(one.name), family_of(one.name)
        what, value, unit = figure.what, text(one.value), figure.unit
        if family:
            if not one.name.endswith(f"_{PERCENTILES[0]}_ms"):
                continue
            names = [f"{family}_{which}_ms" for which in PERCENTILES]
            same = {m.name: text(m.value) for m in measured if m.setup == one.setup and m.at == one.at}
            what, unit = figure.what.rpartition(":")[0] or figure.what, f"ms, {' / '.join(PERCENTILES)}"
            value = " / ".join(same[name] for name in names if name in same)
        where = f", {place(one)}" if one.at else ""
        yield [f"{what}{where}", str(one.setup), value, unit, cpu_text(one.cpu)]


def family_of_setups(name: str) -> bool:
    """Whether a figure is in the table of setups."""
    return name in _OF_SETUPS


def cpu_text(cpu: object) -> str:
    """CPU seconds of nodes, servers and client, in a cell."""
    values = dict(cpu) if isinstance(cpu, dict) else {}
    return " / ".join(f"{values[who]:.1f}" for who in WHO if who in values)


def complaints(results: Results) -> Sequence[str]:
    """What makes these results less than they should be."""
    return [*results.quiet.get("complaints", ()), *results.failures]


def _warn(console: Console, results: Results) -> None:
    noise = results.quiet.get("complaints", ())
    if noise:
        console.print("THE MACHINE WAS NOT QUIET: these figures are not to be relied on", style="bold white on red")
        for complaint in noise:
            console.print(f"  {complaint}", style="bold red", highlight=False)
    if results.failures:
        console.print("NOT EVERYTHING COULD BE MEASURED", style="bold white on red")
        for failure in results.failures:
            console.print(f"  {failure}", style="bold red", highlight=False, markup=False)


def _said(results: Results) -> str:
    return ", ".join(f"{name} {value}" for name, value in results.arguments.items() if value not in (None, False, []))


def _table(title: str, *columns: str) -> Table:
    """A table; columns that begin with > are right-aligned."""
    table = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
    for column in columns:
        table.add_column(column.removeprefix(">"), justify="right" if column.startswith(">") else "left")
    return table
