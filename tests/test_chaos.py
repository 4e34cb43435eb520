"""The short forms of the chaos suite (docs/chaos.md): its command, as anybody runs it, and the plan that it follows.

`make chaos` is the long form. That the checker finds what is wrong is proved by tests/test_chaos_faults.py.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from mesh import follower, jetstream_api
from tests.chaos import clock
from tests.chaos.fleet import Process
from tests.chaos.hosts import Hosts, may_be_private
from tests.chaos.nemesis import (
    ALL,
    ALL_NODES,
    CLUSTER_KINDS,
    FIRST_AFTER_S,
    KINDS,
    LAST_S,
    Action,
    impossible,
    nodes_of,
    plan,
    servers_of,
)
from tests.chaos.runner import main, troubles
from tests.cluster import PROJECT, plain_environment
from tests.waiting import wait_until

NODES = ("n1", "n2", "n3")
ONE, THREE = ("s1",), ("s1", "s2", "s3")
SEEDS = range(40)
RUN_TIMEOUT_S = 170


async def chaos(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run `python -m tests.chaos`; it ends by itself, whatever happens."""
    with anyio.fail_after(RUN_TIMEOUT_S):
        return await anyio.run_process(
            [sys.executable, "-m", "tests.chaos", *arguments],
            check=False, stderr=subprocess.STDOUT, cwd=PROJECT, env=plain_environment(),
        )  # fmt: skip


def record_of(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "run.json").read_text())
    return found


def done_in(directory: Path) -> list[str]:
    """The kinds that were carried out, each as often as it was."""
    lines = [json.loads(line) for line in (directory / "nemesis.jsonl").read_text().splitlines()]
    return [line["kind"] for line in lines if line["what"] == "end"]


@pytest.mark.slow
@pytest.mark.timeout(RUN_TIMEOUT_S + 10)
@pytest.mark.parametrize(
    ("servers", "kinds"), [("1", "kill,pause,cut"), ("3", "kill,pause,server-kill")], ids=["one server", "R3"]
)
async def test_nothing_is_lost_or_done_twice_under_attack(tmp_path: Path, servers: str, kinds: str) -> None:
    """Kills, pauses, lost packets and a dying stream leader, under load; every promise is checked from the outside."""
    directory = tmp_path / "record"
    # A seed of which five seconds have all kinds, the stream's leader is the server that dies, and no order needs many
    # attempts with pauses of seconds: those would have the end waited for.
    done = await chaos(
        *("--seed", "22", "--minutes", "0.09", "--servers", servers), "--nemesis", kinds, "--keep", str(directory)
    )
    out = done.stdout.decode()
    print(out)
    assert done.returncode == 0, "the run has findings; its output is above"
    record = record_of(directory)
    assert (record["findings"], record["problems"]) == ([], [])
    skipped = set() if may_be_private() else {"cut"} & set(kinds.split(","))
    assert set(record["skipped"]) == skipped
    assert all(f"skipped: {kind}, " in out for kind in skipped), "what is skipped is said"
    planned = [action["kind"] for action in record["plan"]]
    assert sorted(done_in(directory)) == sorted(planned)
    assert set(planned) == set(kinds.split(",")) - skipped
    assert record["table"]["start acknowledged"] > 10
    assert record["table"]["effects"] > 10


def test_the_plan_follows_from_the_seed_alone() -> None:
    for servers in (ONE, THREE):
        assert plan(7, 60, NODES, servers, KINDS) == plan(7, 60, NODES, servers, KINDS)
    assert plan(7, 60, NODES, THREE, KINDS) != plan(8, 60, NODES, THREE, KINDS)


def test_a_plan_has_every_kind_and_is_over_in_time() -> None:
    for seed in SEEDS:
        actions = plan(seed, 60, NODES, THREE, KINDS)
        assert {action.kind for action in actions} == set(KINDS)
        assert all(FIRST_AFTER_S <= action.at_s <= action.at_s + action.for_s <= 60 - LAST_S for action in actions)


def test_some_pauses_last_longer_than_what_nodes_and_servers_wait_for_each_other() -> None:
    longest_wait_s = max(follower.PATIENCE_S, jetstream_api.TIMEOUT_S)
    lasts = [action.for_s for seed in SEEDS for action in plan(seed, 60, NODES, ONE, KINDS) if action.kind == "pause"]
    assert 0.15 < sum(1 for for_s in lasts if for_s > longest_wait_s) / len(lasts) < 0.5
    short = [action.for_s for seed in SEEDS for action in plan(seed, 40, NODES, ONE, ("pause",))]
    assert max(short) < longest_wait_s


def test_no_plan_takes_a_cluster_its_majority_but_by_taking_all_servers() -> None:
    """Two different actions on servers at a time could: a cluster that has no leader proves nothing of what is asked."""
    taken_all: list[Action] = []
    for seed in SEEDS:
        actions = [action for action in plan(seed, 120, NODES, THREE, KINDS) if servers_of(action, THREE)]
        assert actions
        assert [later for now, later in _pairs(actions) if later.at_s < now.at_s + now.for_s] == []
        taken_all += [action for action in actions if action.target == ALL]
    assert taken_all


def test_no_node_is_the_target_of_two_actions_at_a_time() -> None:
    for seed in SEEDS:
        for node in NODES:
            actions = [action for action in plan(seed, 120, NODES, ONE, KINDS) if node in nodes_of(action, NODES)]
            assert len({action.kind for action in actions}) > 3
            assert [later for now, later in _pairs(actions) if later.at_s < now.at_s + now.for_s] == []


def test_a_handover_is_between_two_nodes_and_a_roll_of_all_nodes_or_all_servers() -> None:
    actions = [action for seed in SEEDS for action in plan(seed, 120, NODES, THREE, KINDS)]
    handovers = {tuple(nodes_of(action, NODES)) for action in actions if action.kind == "handover"}
    assert handovers == set(itertools.permutations(NODES, 2))
    assert {action.target for action in actions if action.kind == "roll"} == {ALL, ALL_NODES}


async def test_a_process_that_fails_as_it_leaves_is_told(tmp_path: Path) -> None:
    """One that leaves as it should is not, and one that ends by itself is."""
    deaths = {}
    for name, says in {"leaves": "exit 0", "fails": "exit 3"}.items():
        command = ["sh", "-c", f"trap '{says}' TERM; echo up; while :; do sleep 0.01; done"]
        process = Process(name, Hosts((name,)), command, tmp_path / name, plain_environment())
        await process.start()
        await wait_until(lambda process=process: "up" in process.said())  # type: ignore[misc]
        await process.terminate()
        assert not process.alive
        deaths[name] = [(death.how, death.status) for death in process.deaths]
    by_itself = Process("ends", Hosts(("ends",)), ["sh", "-c", "exit 4"], tmp_path / "ends", plain_environment())
    await by_itself.start()
    await wait_until(lambda: not by_itself.alive)
    deaths["ends"] = [(death.how, death.status) for death in by_itself.deaths]
    assert deaths == {"leaves": [], "fails": [("failed as it left", 3)], "ends": [("ended by itself", 4)]}


def test_a_trace_in_the_log_of_a_node_is_told(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "n1.log").write_text("node n1 is ready\n")
    (logs / "n2.log").write_text("node n2 is ready\nTraceback (most recent call last):\n")
    (logs / "s1.log").write_text("Traceback (most recent call last):\n")
    assert troubles(tmp_path) == [
        "n2 met an error of ours, 1 times; the first at logs/n2.log:2: Traceback (most recent call last):"
    ]


def test_what_cannot_be_done_on_one_machine_is_named_with_the_reason() -> None:
    hosts = Hosts(("n1", "s1"), why_not="ip missing")
    why = impossible(KINDS, hosts, nodes=3, servers=3, disks=False)
    assert set(why) == {"cut", "slow", "disk"}
    assert all("ip missing" in reason for reason in why.values())
    fewer = impossible(KINDS, hosts, nodes=1, servers=1, disks=False)
    assert set(fewer) == {"cut", "slow", "disk", "handover", *CLUSTER_KINDS}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--nemesis", "kill,flood"], "no kind of action is called 'flood'"),
        (["--minutes", "0"], "--minutes is above 0"),
        (["--fault", "no-claim+typo"], "no fault is called 'typo'; there are ack-before-write, "),
    ],
)
def test_a_wrong_argument_is_told(capsys: pytest.CaptureFixture[str], arguments: Sequence[str], told: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def test_a_record_is_not_written_over_another(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "ledger.jsonl").write_text("{}\n")
    assert main(["--keep", str(tmp_path), "--no-namespaces", "--seed", "1"]) == 2
    assert f"{tmp_path} is not empty" in capsys.readouterr().err


def test_the_clock_of_a_process_jumps_while_it_runs_and_its_timeouts_do_not(tmp_path: Path) -> None:
    file, script = tmp_path / "clock", tmp_path / "says_time.py"
    clock.set_ahead(file, 3600.0)
    script.write_text(
        "import sys, time, datetime\n"
        "for _ in sys.stdin:\n"
        "    now = datetime.datetime.now(datetime.timezone.utc)\n"
        "    print(time.time(), time.time_ns() / 1e9, now.timestamp(), time.monotonic(), flush=True)\n"
    )
    environ = plain_environment({clock.FILE: str(file)})
    environ["PYTHONPATH"] = f"{tmp_path}:{environ['PYTHONPATH']}"
    command = [sys.executable, "-m", "tests.chaos.clock", "says_time"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        said: list[list[float]] = []
        for ahead_s in (3600.0, -60.0, 0.0):
            clock.set_ahead(file, ahead_s)
            process.stdin.write("\n")
            process.stdin.flush()
            said.append([float(text) for text in process.stdout.readline().split()])
        process.stdin.close()
    (first, _, _, begun), (second, *_), (third, *_, ended) = said
    # A machine that stands still in between makes these differ by seconds, a clock that does not jump by a minute.
    assert all(max(words[:3]) - min(words[:3]) < 25 for words in said), "all clocks say the same"
    assert -3660.5 < second - first < -3635
    assert 60 <= third - second < 85
    assert 0 <= ended - begun < 25


def _pairs(actions: Sequence[Action]) -> list[tuple[Action, Action]]:
    return list(itertools.pairwise(actions))
