"""Failures for people: the program as Lua, the history it wrote, what was different, and a file to look at it again."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz.programs import PRELUDE
from tests.fuzz.scenarios import Recording, RunRecording, recording_from_json

SHOWN_BYTES = 120


def report(recording: Recording, differences: Sequence[str]) -> str:
    """All there is to say about a recording that replays otherwise."""
    parts = [told(recording), *differences[:10]]
    if len(differences) > 10:
        parts.append(f"... and {len(differences) - 10} differences more")
    return "\n".join(parts)


def told(recording: Recording) -> str:
    """The programs, what happens around them, and the histories of all runs."""
    scenario = recording.scenario
    parts = [
        f"-- {name}.lua\n{source.replace(PRELUDE, '-- (prelude)' + chr(10))}"
        for name, source in scenario.workflows.items()
    ]
    parts += [f"function {name}: {', '.join(map(str, outcomes))}" for name, outcomes in scenario.functions.items()]
    parts += [f"at {each.at_ms} ms: {each.kind} {each.value!r}" for each in scenario.happenings]
    parts.append(
        f"seed {scenario.seed}, start delay {scenario.start_delay_ms} ms, run timeout {scenario.run_timeout_ms} ms, "
        f"attempts {scenario.attempts}"
    )
    return "\n".join([*parts, *(_history(run) for run in recording.runs)])


def _history(run: RunRecording) -> str:
    lines = [f"run {run.id}/{run.run}:"]
    for number, (event, asked) in enumerate(zip(run.events, run.asked, strict=True), 1):
        data = event.data[:SHOWN_BYTES]
        lines.append(f"  {number} (seq {event.seq}) {event.kind} {'.'.join(event.args)} {data!r}")
        lines += [
            f"      asks for {kind} {n} {target} {payload[:SHOWN_BYTES]!r}" for n, kind, target, _, payload, *_ in asked
        ]
    return "\n".join([*lines, f"  end: {run.end!r}"])


def keep(recording: Recording, directory: Path | None = None) -> Path:
    """Write a recording to a file for `python -m tests.fuzz FILE`."""
    where = directory or Path(tempfile.gettempdir()) / "mesh-fuzz"
    where.mkdir(parents=True, exist_ok=True)
    file = where / "failure.json"
    file.write_text(json.dumps(recording.to_json(), indent=1), encoding="utf-8", errors="surrogatepass")
    return file


def load(file: Path) -> Recording:
    """Read what `keep` has written."""
    return recording_from_json(json.loads(file.read_text(encoding="utf-8", errors="surrogatepass")))
