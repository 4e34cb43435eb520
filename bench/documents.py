"""The tables of the documents, made from saved results: a block between two comments is rewritten, prose is left alone.

    <!-- bench: targets -->
    ...
    <!-- /bench -->

Pure but for `rewrite`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from bench.figures import figure_of, judged, place, text
from bench.machine import conditions, one_line
from bench.peers import comparing
from bench.processes import ROOT
from bench.report import CPU_TITLE, RATES, SPREADS, complaints, family_of_setups, rows, setup_row
from bench.results import DIRECTORY, PERCENTILES, Results, load

DOCS: Final = (ROOT / "docs" / "performance.md", ROOT / "docs" / "peers.md")
_BLOCK: Final = re.compile(r"(<!-- bench: (?P<name>[a-z-]+) -->\n).*?(<!-- /bench -->)", re.DOTALL)
_IMAGE: Final = re.compile(r"!\[[^\]]*\]\((?P<path>[^)\s]+)\)")
COMMANDS: Final[Mapping[str, str]] = {
    "suite": "python -m bench --save", "growth": "python -m bench growth --save",
    "peers": "python -m bench peers --save", "processes": "python -m bench processes --save",
}  # fmt: skip


class UnknownBlock(ValueError):
    """Raised when a document asks for a table that there is none of."""


def _conditions(results: Results) -> list[str]:
    command = f"`{COMMANDS[results.kind]}`, {results.took_s:.0f} s"
    lines = [f"{command}: {one_line(results.facts)}; {conditions(results.quiet)}."]
    if complaints(results):
        lines += ["", "**These figures are not to be relied on:**", ""]
        lines += [f"- {complaint}" for complaint in complaints(results)]
    return lines


def _targets(results: Results) -> list[str]:
    found = []
    for _, figure, measured, target in judged(results):
        what = f"{figure.what}{', ' + place(measured) if measured.at else ''}"
        value = f"{text(measured.value)} {figure.unit}"
        said = "met" if target.met_by(measured.value) else "**missed**"
        found.append([what, str(measured.setup), value, str(target), said])
    return _table(["figure", "setup", "measured", "target", ""], found)


def _setups(results: Results) -> list[str]:
    setups = [setup for setup in results.setups() if results.find("steps_per_s", setup)]
    heads = [
        "setup",
        *(title for _, title in RATES),
        *(f"{title}, {' / '.join(PERCENTILES)}, ms" for _, title in SPREADS),
    ]
    return _table([*heads, CPU_TITLE], [setup_row(results, s) for s in setups])


def _rest(results: Results) -> list[str]:
    kept = [m for m in results.measured if not family_of_setups(m.name)]
    return _table(["figure", "setup", "measured", "unit"], [row[:4] for row in rows(kept)])


def _growth(results: Results, axis: str, columns: Sequence[str], heading: str) -> list[str]:
    points = sorted({m.at[axis] for m in results.measured if axis in m.at})
    curves = [dict(results.curve(name, axis)) for name in columns]
    heads = [heading, *(f"{figure_of(name).what}, {figure_of(name).unit}" for name in columns)]
    return _table(heads, [[f"{x:,.10g}", *(text(c[x]) if x in c else "-" for c in curves)] for x in points])


def _history(results: Results) -> list[str]:
    columns = ["step_at_length_p50_ms", "step_at_length_p99_ms", "replay_ms", "crash_load_ms"]
    return _growth(results, "events", columns, "events")


def _open(results: Results) -> list[str]:
    columns = [
        "node_rss_mb", "server_rss_mb", "store_mb", "step_beside_p50_ms", "step_beside_p99_ms", "sleeper_wake_p50_ms",
        "fresh_node_s", "takeover_ms",
    ]  # fmt: skip
    return _growth(results, "open", columns, "open workflows")


def _nodes(results: Results) -> list[str]:
    names = ["steps_per_s", "step_p50_ms", "start_to_result_p50_ms", "kill_next_step_p50_ms", "kill_next_step_max_ms"]
    setups = sorted({m.setup for m in results.measured if m.name == "steps_per_s"})
    heads = ["nodes", *(f"{figure_of(name).what}, {figure_of(name).unit}" for name in names)]
    cells = []
    for setup in setups:
        found = [results.find(name, setup) for name in names]
        cells.append([str(setup.nodes), *(text(one.value) if one else "-" for one in found)])
    return _table(heads, cells)


def _peers(results: Results) -> list[str]:
    return _table(comparing.headings(), comparing.rows(results))


def _peer_setups(results: Results) -> list[str]:
    found = []
    for said in comparing.variants(results).values():
        versions = ", ".join(filter(None, (said["versions"], said.get("notes"))))
        found.append([said["title"], versions, said["settings"], said["durability"]])
    return _table(["variant", "versions", "settings", "what is acknowledged"], found)


BLOCKS: Final[Mapping[str, tuple[str, Callable[[Results], list[str]]]]] = {
    "suite-conditions": ("suite", _conditions),
    "targets": ("suite", _targets),
    "setups": ("suite", _setups),
    "rest": ("suite", _rest),
    "growth-conditions": ("growth", _conditions),
    "growth-targets": ("growth", _targets),
    "history": ("growth", _history),
    "open": ("growth", _open),
    "nodes": ("growth", _nodes),
    "processes-conditions": ("processes", _conditions),
    "processes": ("processes", _rest),
    "processes-targets": ("processes", _targets),
    "peers-conditions": ("peers", _conditions),
    "peers": ("peers", _peers),
    "peer-setups": ("peers", _peer_setups),
}


def filled(document: str, results: Mapping[str, Results]) -> str:
    """A document with its blocks made anew from these results, by kind. Raises UnknownBlock."""

    def block(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in BLOCKS:
            raise UnknownBlock(f"there is no table {name}; there are {', '.join(BLOCKS)}")
        kind, make = BLOCKS[name]
        lines = make(results[kind]) if kind in results else [f"Not measured yet: `{COMMANDS[kind]}`."]
        return f"{match[1]}{chr(10).join(lines)}\n{match[3]}"

    return _BLOCK.sub(block, document)


def saved_results(directory: Path = DIRECTORY) -> dict[str, Results]:
    """The results that are kept in the repository, by kind."""
    return {path.stem: load(path) for path in sorted(directory.glob("*.json"))}


def stale(results: Mapping[str, Results], documents: Iterable[Path] = DOCS) -> list[Path]:
    """Documents whose tables are not those of the results."""
    return [path for path in documents if filled(path.read_text("utf-8"), results) != path.read_text("utf-8")]


def lacking(results: Mapping[str, Results], documents: Iterable[Path] = DOCS) -> list[str]:
    """What the documents show and there is not: results that their tables are made of, and images."""
    found: dict[str, None] = {}
    for path in documents:
        document = path.read_text("utf-8")
        kinds = [BLOCKS[match["name"]][0] for match in _BLOCK.finditer(document) if match["name"] in BLOCKS]
        for kind in kinds:
            if kind not in results or not results[kind].measured:
                found[f"{path.name} has tables of which nothing was measured; run `{COMMANDS[kind]}`"] = None
        for match in _IMAGE.finditer(document):
            image = match["path"]
            if "://" not in image and not (path.parent / image).is_file():
                found[f"{path.name} shows {image}, which is not there; run `python -m bench report`"] = None
    return list(found)


def rewrite(results: Mapping[str, Results], documents: Iterable[Path] = DOCS) -> list[Path]:
    """Make the tables of the documents anew; return those that have changed."""
    changed = stale(results, documents)
    for path in changed:
        path.write_text(filled(path.read_text("utf-8"), results), "utf-8")
    return changed


def _table(heads: Sequence[str], rows_: Iterable[Sequence[str]]) -> list[str]:
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows_]
    if not cells:
        return ["Not measured."]
    return [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}", *(f"| {' | '.join(row)} |" for row in cells)]
