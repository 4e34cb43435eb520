"""Generated workflow programs replay the same in other processes, whatever is in them and wherever their owner dies."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import Phase, assume, given, seed, settings

from tests.fuzz import faults
from tests.fuzz.__main__ import main
from tests.fuzz.profiles import PROGRAMS, fuzz_settings
from tests.fuzz.replays import Replayers, differences, replayers
from tests.fuzz.reports import keep, load, report
from tests.fuzz.scenarios import Happening, Outcome, Recording, Scenario, recording_from_wire, run_scenario
from tests.fuzz.strategies import scenarios

SEARCH_MAX = 600  # programs until a planted fault must have been found; most take ten


@pytest.fixture(scope="module")
def others() -> Iterator[Replayers]:
    with replayers() as started:
        yield started


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_generated_programs_replay_the_same_in_other_processes_with_a_crash_after_every_event(
    others: Replayers,
) -> None:
    seen: Counter[str] = Counter()

    @fuzz_settings(PROGRAMS)
    @given(scenarios())
    def check(scenario: Scenario) -> None:
        recording = run_scenario(scenario)
        assume(not recording.ran_away)
        seen.update(_features(recording))
        different = others.differences(recording)
        if different:
            file = keep(recording)
            raise AssertionError(f"{report(recording, different)}\nlook at it again: python -m tests.fuzz {file}")

    check()
    # Programs that do nothing would prove nothing.
    missing = {"call", "timer", "spawn", "end completed", "end failed", "signal", "exit"} - set(seen)
    assert not missing, f"no program had {missing}: {seen}"
    assert seen["events"] > 5 * PROGRAMS


def _features(recording: Recording) -> Iterator[str]:
    for run in recording.runs:
        for event in run.events:
            yield from ("events", event.kind)
        for asked in run.asked:
            yield from (op[1] for op in asked)
        if run.end is not None:
            yield f"end {run.end[0]}"


def test_a_file_that_is_no_recording_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "list.json").write_text("[1]")
    for name in ("elsewhere.json", "list.json"):
        assert main([str(tmp_path / name)]) == 2
        assert f"{name} is no recording" in capsys.readouterr().err


def test_the_replaying_processes_differ_in_what_must_not_matter(others: Replayers) -> None:
    """Were the order of their tables and their addresses equal, the comparison would prove nothing."""
    orders, addresses = zip(*others.surroundings(), strict=True)
    assert len(set(orders)) == len(orders)
    assert len(set(addresses)) == len(addresses)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("fault", faults.FAULTS)
def test_a_planted_fault_is_found(fault: str) -> None:
    found: list[list[str]] = []

    @seed(1)
    @settings(fuzz_settings(SEARCH_MAX), phases=[Phase.generate], database=None)
    @given(scenarios())
    def search(scenario: Scenario) -> None:
        if not found and (different := broken.differences(run_scenario(scenario))):
            found.append(different)
        # Hypothesis tries again what has failed, and a fault that shows now and then does not show at once again.
        if found:
            raise _FoundError

    with replayers(fault=fault) as broken, faults.planted(fault), pytest.raises(_FoundError):
        search()
    assert "was:" in found[-1][0]


class _FoundError(Exception):
    """A planted fault was found."""


# -- what a failure looks like ------------------------------------------------------------------------------------------

PAIRS = Scenario(
    workflows={
        "main": "return function() local log = {} for i = 1, 40 do log['k' .. i] = i end local keys = {}"
        " for k in pairs(log) do keys[#keys + 1] = k end funcs.call('app:f1', keys) return keys end"
    },
    functions={"f1": [Outcome("answer", {"x": b"\xff"}, 3)]},
    happenings=[Happening(1, "s1", {"1": [None]})],
)


def test_a_failure_tells_the_program_its_history_and_what_differs_and_can_be_looked_at_again(tmp_path: Path) -> None:
    fault = "pairs in the order of the table"
    with replayers(fault=fault) as broken, faults.planted(fault):
        recording = run_scenario(PAIRS)
        text = report(recording, broken.differences(recording))
    assert "for k in pairs(log)" in text
    assert "1 (seq 1) start" in text
    assert "asks for call 1 app:f1" in text
    assert "run main/1, event 1: it asks for something else" in text
    file = keep(recording, tmp_path)
    again = load(file)
    assert again.runs == recording.runs
    assert again.scenario.workflows == PAIRS.workflows
    done = subprocess.run([sys.executable, "-m", "tests.fuzz", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "-- run anew: 0 differences" in done.stdout
    assert "-- as recorded: 0" not in done.stdout


def test_a_recording_that_was_changed_is_told_apart() -> None:
    """Each thing that is compared is compared."""
    recording = run_scenario(PAIRS)
    assert list(differences(recording)) == []

    def changed() -> Recording:
        return recording_from_wire(recording.to_wire())

    one = changed()
    one.runs[0].asked[0][0][4] += b"x"
    assert "asks for something else" in str(next(differences(one)))
    two = changed()
    two.runs[0].stood[1] = ["nowhere"]
    assert "stands somewhere else" in str(next(differences(two)))
    three = changed()
    assert three.runs[0].end is not None
    three.runs[0].end[1] = b"something else"
    assert "ends otherwise" in str(next(differences(three)))
    four = changed()
    del four.runs[0].asked[0][0]
    assert "asks for something else" in str(next(differences(four)))
