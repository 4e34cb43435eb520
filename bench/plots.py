"""Pictures of saved results: what grows with what, the setups, and the peers. Nothing is measured here.

Needs matplotlib, which is in the dependency group `bench` and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from bench.figures import TARGETS, text
from bench.machine import one_line
from bench.peers import comparing
from bench.results import PERCENTILES, Results, Setup

mpl.use("agg")

WIDTH_IN: Final = 11.0
DPI: Final = 110
# Told apart by people who see colours differently, too (Okabe and Ito).
BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8c8c8c"
_CAPTION_CHARACTERS: Final = 175

Curve = tuple[str, Sequence[tuple[float, float]], str]


def draw(results: Results, directory: Path) -> list[Path]:
    """Draw what can be drawn of some results; return the files written."""
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for name, plot in PLOTS.get(results.kind, {}).items():
        figure = plot(results)
        if figure is not None:
            path = directory / f"{name}.png"
            # No date and no version of the library in the file: the same results give the same bytes.
            figure.savefig(path, dpi=DPI, metadata={"Software": None})
            written.append(path)
    return written


def _history(results: Results) -> Figure | None:
    steps: list[Curve] = [
        ("half of the steps", results.curve("step_at_length_p50_ms", "events"), BLUE),
        ("99 of 100", results.curve("step_at_length_p99_ms", "events"), ORANGE),
    ]
    loads: list[Curve] = [
        ("after a handover", results.curve("replay_ms", "events"), BLUE),
        ("after a crash", results.curve("crash_load_ms", "events"), ORANGE),
    ]
    if not any(points for _, points, _ in [*steps, *loads]):
        return None
    figure, (left, right) = _panels(results, "The length of a history", 2)
    _curves(left, steps, "A step, at that length", "events in the history", "ms for a step")
    _curves(right, loads, "A fresh node loads and replays it", "events in the history", "ms", log_y=True)
    return figure


def _open(results: Results) -> Figure | None:
    if not results.curve("node_rss_mb", "open"):
        return None
    figure, (memory, latency, takeover) = _panels(results, "The number of open workflows, all asleep", 3, width_in=13)
    axis = "open workflows"
    _curves(
        memory,
        [
            ("server", results.curve("server_rss_mb", "open"), ORANGE),
            ("node", results.curve("node_rss_mb", "open"), BLUE),
            ("fresh node", results.curve("fresh_node_rss_mb", "open"), GREEN),
        ],
        "Memory", axis, "MB (10\N{SUPERSCRIPT SIX} bytes)", log_y=True,
    )  # fmt: skip
    _curves(
        latency,
        [
            ("a step, half", results.curve("step_beside_p50_ms", "open"), BLUE),
            ("a step, 99 of 100", results.curve("step_beside_p99_ms", "open"), ORANGE),
            ("waking one, half", results.curve("sleeper_wake_p50_ms", "open"), GREEN),
            ("waking one, the slowest", results.curve("sleeper_wake_max_ms", "open"), PURPLE),
        ],
        "Beside them", axis, "ms", log_y=True,
    )  # fmt: skip
    fresh = [(x, y * 1e3) for x, y in results.curve("fresh_node_s", "open")]
    _curves(
        takeover,
        [
            ("SIGKILL: the last of 64 wakes", results.curve("takeover_ms", "open"), ORANGE),
            ("a fresh node is up and owner", fresh, BLUE),
        ],
        "Takeover", axis, "ms", log_y=True,
    )  # fmt: skip
    return figure


def _nodes(results: Results) -> Figure | None:
    rates = _by_nodes(results, "steps_per_s")
    if len(rates) < 2:
        return None
    figure, (left, right) = _panels(results, "The number of node processes, all on this machine", 2)
    _curves(left, [("steps", rates, BLUE)], "Throughput", "nodes", "steps/s", log_x=False)
    _curves(
        right,
        [
            ("half of the workflows", _by_nodes(results, "kill_next_step_p50_ms"), BLUE),
            ("the slowest", _by_nodes(results, "kill_next_step_max_ms"), ORANGE),
        ],
        "SIGKILL of one, to the next step", "nodes", "ms", log_x=False,
    )  # fmt: skip
    for axes in (left, right):
        axes.set_xticks([int(x) for x, _ in rates])
    return figure


def _setups(results: Results) -> Figure | None:
    setups = [setup for setup in results.setups() if results.find("steps_per_s", setup)]
    if not setups:
        return None
    figure, (left, right) = _panels(results, "The setups", 2, height_in=5.2)
    names = [str(setup) for setup in setups]
    places = range(len(setups))
    rates = [_value(results, "steps_per_s", setup) for setup in setups]
    left.barh(places, rates, color=[_colour_of(setup) for setup in setups])
    for y, (setup, rate) in enumerate(zip(setups, rates, strict=True)):
        left.text(rate, y, f" {rate:,.0f}", va="center", fontsize=8)
        for target in TARGETS["steps_per_s"]:
            if target.setup == setup and target.at_least is not None:
                label = None if left.get_legend_handles_labels()[0] else "target"
                left.plot([target.at_least] * 2, [y - 0.45, y + 0.45], color="black", linewidth=2, label=label)
    left.set_yticks(places, names, fontsize=8)
    left.set_ylim(len(setups) - 0.5, -0.5)
    left.set_xlim(0, max([*rates, 20_000]) * 1.15)
    left.xaxis.set_major_formatter(FuncFormatter(_plain))
    if left.get_legend_handles_labels()[0]:
        left.legend(loc="lower right", fontsize=8)
    _label(left, "Throughput: workflows of 5 steps", "steps/s", "")
    for which, marker, colour in (("p50", "o", BLUE), ("p90", "D", GREEN), ("p99", "s", ORANGE), ("max", "x", GREY)):
        values = [_value(results, f"start_to_result_{which}_ms", setup) for setup in setups]
        right.plot(values, places, marker, color=colour, label=which)
    right.set_yticks(places, [""] * len(names))
    right.set_ylim(len(setups) - 0.5, -0.5)
    if any(results.find(f"start_to_result_{which}_ms") for which in PERCENTILES):
        right.set_xscale("log")
        _log_ticks(right, "x")
    right.legend(loc="best", fontsize=8)
    right.grid(visible=True, which="major", alpha=0.3)
    _label(right, "Start to result of a 1-step workflow", "ms", "")
    return figure


def _peers(results: Results) -> Figure | None:
    said = comparing.variants(results)
    left_out = ("steps_per_s", "start_to_result_p99_ms", "standstill_max_ms")
    columns = [c for c in comparing.COLUMNS if c.name not in left_out]
    columns = [c for c in columns if any(comparing.value(results, name, c) for name in said)]
    if not said or not columns:
        return None
    height = 1.6 + 0.34 * len(said)
    figure, panels = _panels(results, "The same work on the same machine", len(columns), height_in=height, width_in=15)
    places = range(len(said))
    for i, (column, axes) in enumerate(zip(columns, panels, strict=True)):
        values = [comparing.value(results, name, column) or 0.0 for name in said]
        smallest = min((value for value in values if value), default=1.0)
        colours = [
            (BLUE if s["flushed"] else "#7fb8d8") if s["engine"] == comparing.OURS else ORANGE for s in said.values()
        ]
        axes.barh(places, values, color=colours)
        for y, value in enumerate(values):
            axes.text(
                value or smallest / 2, y, f" {text(value)}" if value else " not measured", va="center", fontsize=8
            )
        axes.set_xscale("log")
        axes.set_xlim(smallest / 2, max([*values, 1e-9]) * 8)
        axes.set_yticks(places, list(_titles(said)) if i == 0 else [""] * len(said), fontsize=9)
        axes.set_ylim(len(said) - 0.5, -0.5)
        _log_ticks(axes, "x")
        better = "more is better" if column.more_is_better else "less is better"
        _label(axes, column.title.replace(", ms", ""), "1/s" if column.more_is_better else "ms", "")
        axes.set_title(f"{column.title.replace(', ms', '')}\n({better})", fontsize=9)
    return figure


PLOTS: Final[Mapping[str, Mapping[str, Callable[[Results], Figure | None]]]] = {
    "suite": {"setups": _setups},
    "growth": {"history": _history, "open": _open, "nodes": _nodes},
    "peers": {"peers": _peers},
}


def _panels(
    results: Results, title: str, number: int, *, height_in: float = 4.4, width_in: float = WIDTH_IN
) -> tuple[Figure, list[Axes]]:
    """Panels side by side, under a title and above the conditions they hold for."""
    figure = Figure(figsize=(width_in, height_in + 0.5), layout="constrained")
    axes = [figure.add_subplot(1, number, i + 1) for i in range(number)]
    figure.suptitle(title, fontsize=13, fontweight="bold")
    caption = _wrapped(one_line(results.facts))
    complaints = results.quiet.get("complaints", ())
    if complaints:
        caption += "\n" + _wrapped("NOT A QUIET MACHINE: " + "; ".join(complaints))
    figure.supxlabel(caption, fontsize=7, color=ORANGE if complaints else "#555555")
    return figure, axes


def _curves(
    axes: Axes, curves: Sequence[Curve], title: str, x: str, y: str, *, log_x: bool = True, log_y: bool = False
) -> None:
    for name, points, colour in curves:
        if points:
            axes.plot([a for a, _ in points], [b for _, b in points], "o-", color=colour, label=name, markersize=4)
    if log_x and any(points for _, points, _ in curves):
        axes.set_xscale("log")
        _log_ticks(axes, "x")
    if log_y and any(points for _, points, _ in curves):
        axes.set_yscale("log")
        _log_ticks(axes, "y")
    else:
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(FuncFormatter(_plain))
    axes.grid(visible=True, which="major", alpha=0.3)
    if sum(bool(points) for _, points, _ in curves) > 1:
        axes.legend(fontsize=8)
    _label(axes, title, x, y)


def _label(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.tick_params(labelsize=8)


def _log_ticks(axes: Axes, which: str) -> None:
    """Plain numbers instead of powers of ten; more of them where the range is short."""
    axis: Any = axes.xaxis if which == "x" else axes.yaxis
    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    subs = (1.0, 2.0, 5.0) if high / max(low, 1e-9) < 100 else (1.0,)
    axis.set_major_locator(LogLocator(base=10, subs=subs))
    axis.set_major_formatter(FuncFormatter(_short if which == "x" else _plain))
    axis.set_minor_formatter(NullFormatter())


def _plain(value: float, _at: object) -> str:
    return f"{value:,.10g}"


def _short(value: float, _at: object) -> str:
    """As there is little room along the bottom."""
    if value >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if value >= 1e4 else f"{value:,.10g}"


def _by_nodes(results: Results, name: str) -> list[tuple[float, float]]:
    return sorted((m.setup.nodes, m.value) for m in results.measured if m.name == name and not m.at)


def _value(results: Results, name: str, setup: Setup) -> float:
    found = results.find(name, setup)
    return found.value if found else float("nan")


def _colour_of(setup: Setup) -> str:
    return {"relaxed, R1": BLUE, "always, R1": ORANGE, "relaxed, R3": GREEN, "always, R3": PURPLE}[setup.server]


def _titles(said: Mapping[str, Mapping[str, Any]]) -> Sequence[str]:
    return [f"{one['title']}{'' if one['flushed'] else ' (not flushed)'}" for one in said.values()]


def _wrapped(line: str) -> str:
    words, lines = line.split(" "), [""]
    for word in words:
        if len(lines[-1]) + len(word) > _CAPTION_CHARACTERS:
            lines.append("")
        lines[-1] += f"{' ' if lines[-1] else ''}{word}"
    return "\n".join(lines)
