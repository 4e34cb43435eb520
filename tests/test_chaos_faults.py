"""The chaos suite, tested itself: faults planted into real nodes are found, by the rule that should, and without them all is well.

`make test` plants some of them, several at once; with MESH_CHAOS=1 every one is planted by itself, and every run is
made without it, too.
"""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from tests.chaos.faults import FAULTS
from tests.chaos.plan import Shape, script
from tests.chaos.scenarios import CALM, READ_AGAIN, SCENARIOS, SEED, Outcome, Scenario, carry_out
from tests.chaos.trial import Trial
from tests.cluster import PROJECT, plain_environment
from tests.conftest import ServerFactory
from tests.recovery import CHAOS

KILLS = 3
ROUNDS = 10 if CHAOS else 1
# Of each the first is found in the load of its scenario, whichever others are planted beside it.
IN_PEACE = ("no-claim", "message-twice", "timers-left", "early-ticks", "end-before-telling", "outcome-dropped")
READING_AGAIN = ("last-outcome-wins", "true-randomness")
AFTER_A_KILL = ("no-question", "recovered-is-done")


def assert_found(outcome: Outcome, *faults: str) -> None:
    for fault in faults:
        assert outcome.rules & FAULTS[fault].rules, f"{fault} was not found, but {[str(f) for f in outcome.findings]}"


def assert_sound(outcome: Outcome) -> None:
    assert outcome.drained
    assert [str(finding) for finding in outcome.findings] == []


@pytest.mark.slow
@pytest.mark.timeout(180 * ROUNDS)
async def test_run_with_kills_is_sound(nats_server: ServerFactory, tmp_path: Path) -> None:
    """All five sorts of workflows, three nodes, and SIGKILL to one of them again and again: the checker has nothing to say."""
    for number in range(ROUNDS):
        dice = random.Random(SEED + number)

        async def worst(trial: Trial, dice: random.Random = dice) -> None:
            for _ in range(KILLS):
                await anyio.sleep(dice.uniform(0.5, 1.5))
                trial.kill(dice.choice(sorted(trial.nodes)))
                await trial.add()

        scenario = Scenario(lambda: Shape(rate=10), seconds=5.0, nodes=3, worst=worst, drain_s=60.0)
        outcome = await carry_out(nats_server().url, tmp_path / str(number), scenario, seed=SEED + number)

        assert_sound(outcome)


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_faults_that_show_in_peace_are_found(nats_server: ServerFactory, tmp_path: Path) -> None:
    outcome = await carry_out(nats_server().url, tmp_path, CALM, fault="+".join(IN_PEACE), replays=False)
    assert_found(outcome, *IN_PEACE)


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_faults_that_show_when_a_history_is_read_again_are_found(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    """Also by the replays: another process does not come to the recorded ends."""
    outcomes: dict[str, Outcome] = {}

    async def plant(name: str, scenario: Scenario, replays: bool) -> None:
        url = nats_server().url
        outcomes[name] = await carry_out(url, tmp_path / name, scenario, fault=name, replays=replays)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(plant, "+".join(READING_AGAIN), READ_AGAIN, True)
        for fault in AFTER_A_KILL:
            tasks.start_soon(plant, fault, SCENARIOS[fault], False)

    assert_found(outcomes["+".join(READING_AGAIN)], *READING_AGAIN)
    assert "replay" in outcomes["+".join(READING_AGAIN)].rules
    for fault in AFTER_A_KILL:
        assert_found(outcomes[fault], fault)


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.parametrize("fault", IN_PEACE if CHAOS else ("no-claim",))
def test_the_command_plants_a_fault_and_fails_for_what_it_finds(fault: str, tmp_path: Path) -> None:
    """As docs/chaos.md shows it: the same command as without one, which ends with 1 then."""
    command = [
        *(sys.executable, "-m", "tests.chaos", "--seed", str(SEED), "--minutes", "0.1" if CHAOS else "0.02"),
        *("--nodes", "1", "--nemesis", "", "--no-namespaces", "--fault", fault, "--keep", str(tmp_path)),
    ]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=180, cwd=PROJECT, env=plain_environment()
    )
    assert (done.returncode, done.stderr) == (1, ""), done.stdout
    found = {finding.partition(":")[0] for finding in json.loads((tmp_path / "run.json").read_text())["findings"]}
    assert found & FAULTS[fault].rules, done.stdout


@pytest.mark.skipif(not CHAOS, reason="part of make chaos")
@pytest.mark.timeout(180)
@pytest.mark.parametrize("fault", FAULTS)
async def test_planted_fault_is_found(fault: str, nats_server: ServerFactory, tmp_path: Path) -> None:
    """And the same run without it is sound."""
    assert_sound(await carry_out(nats_server().url, tmp_path / "without", SCENARIOS[fault]))
    assert_found(await carry_out(nats_server().url, tmp_path / "with", SCENARIOS[fault], fault=fault), fault)


def test_seed_repeats_the_load() -> None:
    """The same seed, the same scripts; another one, others. Every sort comes up."""
    scripts = [script(3, number, Shape()) for number in range(200)]
    assert scripts == [script(3, number, Shape()) for number in range(200)]
    assert scripts != [script(4, number, Shape()) for number in range(200)]
    assert {one.sort for one in scripts} == set(Shape().sorts)
    assert {one.closing for one in scripts} == {"", "last", "cancel", "kill"}
    assert {sender.how for one in scripts for sender in one.senders} == {"client", "once", "bare"}


def test_page_names_every_fault_and_every_rule() -> None:
    page = (Path(__file__).parent.parent / "docs" / "chaos.md").read_text()
    named = set(re.findall(r"`([a-z-]+)`", page))
    assert named >= set(FAULTS), set(FAULTS) - named
    assert named >= {rule for fault in FAULTS.values() for rule in fault.rules if not rule.startswith("left-")}
