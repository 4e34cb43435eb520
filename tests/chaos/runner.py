"""One chaos run from beginning to end: `python -m tests.chaos --seed 7 --minutes 1 --servers 3`.

A fleet is started, the load begins, the nemesis carries out its plan; then everything is mended, the load stops starting
new things, all that was acknowledged is waited for, histories and what is left are taken down, and the checker judges.
The exit status is 1 when there is a finding.

Nothing here waits for ever. What has not ended when its time is over is a finding that says what it waits for.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread

import mesh.client
from mesh.client import Client
from mesh.groups import unwrapped
from tests.chaos import checker, hosts, load
from tests.chaos.faults import unknown_fault
from tests.chaos.fleet import Fleet, a_fleet
from tests.chaos.nemesis import KINDS, Action, Nemesis, impossible, plan, record_of
from tests.chaos.record import Record, append
from tests.chaos.unfinished import unfinished
from tests.chaos.watching import Progress, Takeovers
from tests.trouble import TROUBLE
from tests.waiting import wait_until, wait_until_async

APP: Final = Path(__file__).parent / "app"
SAY_EVERY_S: Final = 5.0
# Once everything is mended: a cluster elects within 9 s, a node is back within 3, retries of functions pause for seconds.
MEND_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 60.0
DRAIN_TIMEOUT_S: Final = 90.0
# To write down thousands of histories, on a machine that has other things to do.
COLLECT_TIMEOUT_S: Final = 300.0
HANGING_TIMEOUT_S: Final = 60.0
CHECK_TIMEOUT_S: Final = 600.0
TABLE_LINE: Final = "{:<28} {}"


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is to be. kinds: of the nemesis's actions. fault: what to plant into the nodes, "" for nothing."""

    seed: int
    minutes: float
    nodes: int
    servers: int
    kinds: tuple[str, ...] = KINDS
    fault: str = ""
    keep: str = ""

    @property
    def seconds(self) -> float:
        return self.minutes * 60.0


@dataclass(slots=True)
class Outcome:
    """What a run came to. problems: what the runner saw itself; findings: what the checker found in the record."""

    directory: Path
    table: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        return not self.problems and not self.findings


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry a run out as the arguments tell; the exit status."""
    options, private = _parse(arguments)
    if private and not hosts.is_private() and hosts.may_be_private():
        hosts.become_private()
    directory = Path(options.keep or tempfile.mkdtemp(prefix="mesh-chaos-")).absolute()
    if directory.exists() and any(directory.iterdir()):
        print(f"{directory} is not empty; a record is kept in a directory of its own", file=sys.stderr)
        return 2
    try:
        outcome = anyio.run(run, options, directory, backend_options={"use_uvloop": False})
    except KeyboardInterrupt:
        print(f"interrupted; what there is of the record is in {directory}")
        return 130
    print_outcome(outcome)
    if outcome.is_sound and not options.keep:
        shutil.rmtree(directory)
    else:
        print(f"the record is in {directory}")
    return 0 if outcome.is_sound else 1


def _parse(arguments: Sequence[str] | None) -> tuple[Options, bool]:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description="Break a mesh under load, and check what came of it."
    )
    parser.add_argument(
        "--seed", type=int, default=None, help="repeats the plan and the load of a run; by default a new one"
    )
    parser.add_argument("--minutes", type=float, default=1.0, help="how long things are broken (1)")
    parser.add_argument("--nodes", type=int, default=3, help="how many nodes (3)")
    parser.add_argument(
        "--servers", type=int, default=1, choices=(1, 3), help="one server, or a cluster with three replicas (1)"
    )
    parser.add_argument(
        "--nemesis", default=",".join(KINDS), metavar="LIST", help="kinds of what is done, split by commas: %(default)s"
    )
    parser.add_argument(
        "--fault", default="", metavar="NAME", help="plant a fault into the nodes, for the checker to find"
    )
    parser.add_argument("--keep", default="", metavar="DIR", help="write the record there and keep it")
    parser.add_argument(
        "--no-namespaces", action="store_true", help="everything on the loopback, without cuts and small disks"
    )
    given = parser.parse_args(arguments)
    kinds = tuple(kind for kind in given.nemesis.split(",") if kind)
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        parser.error(f"no kind of action is called {unknown[0]!r}; there are {', '.join(KINDS)}")
    if given.fault and (fault := unknown_fault(given.fault)):
        parser.error(fault)
    if given.minutes <= 0 or not 1 <= given.nodes <= 20:
        parser.error("--minutes is above 0, and --nodes from 1 to 20")
    # The seed is chosen here once, and kept when the program starts anew in its namespaces.
    seed = given.seed
    if seed is None:
        seed = time.time_ns() % 1_000_000
        sys.orig_argv += ["--seed", str(seed)]
    options = Options(seed, given.minutes, given.nodes, given.servers, kinds, given.fault, given.keep)
    return options, not given.no_namespaces


async def run(options: Options, directory: Path) -> Outcome:
    """Carry one run out. Raises nothing that a mesh could be the cause of: that is a problem in the outcome."""
    outcome = Outcome(directory)
    record = Record(directory)
    # What our own connections have to say, beside what nodes and servers write.
    logging.basicConfig(filename=directory / "logs" / "clients.log", format="%(asctime)s %(name)s %(message)s")
    command = ("tests.chaos.faulty_node", options.fault) if options.fault else ("node",)
    say(f"seed {options.seed}: {options.nodes} nodes, {_servers(options)}, {options.minutes:g} min"
        f"{f', with the fault {options.fault}' if options.fault else ''}; record in {directory}")  # fmt: skip
    async with a_fleet(directory, APP, nodes=options.nodes, servers=options.servers, node_command=command) as fleet:
        skipped = impossible(
            options.kinds, fleet.hosts, nodes=options.nodes, servers=options.servers, disks=hosts.is_private()
        )
        kinds = [kind for kind in options.kinds if kind not in skipped]
        actions = plan(options.seed, options.seconds, list(fleet.nodes), list(fleet.servers), kinds)
        began = time.time()
        about = {"options": asdict(options), "skipped": skipped, "slowness": fleet.hosts.slowness, "began": began}
        _write_run(record, about | {"plan": [asdict(action) for action in actions]})
        for kind, why in skipped.items():
            say(f"skipped: {kind}, {why}")
        for action in actions:
            say(f"plan: {action}")
        async with mesh.client.connect(fleet.urls, name="chaos") as client:
            await _under_attack(options, fleet, client, record, actions, outcome)
            hanging = await _within(
                HANGING_TIMEOUT_S, outcome, "asking what has not ended", lambda: unfinished(client, record)
            )
            outcome.problems += hanging or ()
    outcome.problems += [
        f"{death.name} {death.how} {death.at - began:.1f} s after the begin, with status {death.status}"
        for death in fleet.deaths
    ]  # fmt: skip
    outcome.problems += troubles(directory)
    say("checking")
    found = await _within(
        CHECK_TIMEOUT_S, outcome, "the checker", lambda: anyio.to_thread.run_sync(checker.check, directory)
    )
    outcome.findings += [str(finding) for finding in found or ()]
    outcome.table |= _counted(record)
    _write_run(record, about | {
        "plan": [asdict(action) for action in actions], "ended": time.time(), "table": outcome.table,
        "problems": outcome.problems, "findings": outcome.findings,
    })  # fmt: skip
    return outcome


async def _under_attack(
    options: Options, fleet: Fleet, client: Client, record: Record, actions: Sequence[Action], outcome: Outcome
) -> None:
    """Load and nemesis, until everything that was acknowledged has ended or its time is over."""
    progress, takeovers = Progress(record), Takeovers()
    begun, stop = anyio.current_time(), anyio.Event()

    def took_place(what: str, action: Action, **facts: Any) -> None:
        append(record.nemesis_file, record_of(what, action, facts))
        details = ", ".join(f"{name} {value}" for name, value in facts.items() if name != "targets")
        whom = "+".join(facts["targets"])
        say(f"{anyio.current_time() - begun:6.1f} s  {what:<5} {action.kind} {whom} {action.how} {details}".rstrip())

    nemesis = Nemesis(fleet, client.js, took_place)

    async def attack() -> None:
        try:
            await nemesis.carry_out(actions)
        except Exception as error:  # the nemesis's own failure must not look like a mesh that is sound
            outcome.problems.append(f"the nemesis failed: {_trace(error)}")

    async def say_progress() -> None:
        while True:
            await anyio.sleep(SAY_EVERY_S)
            alive = [name for name, node in fleet.nodes.items() if node.alive]
            say(f"{anyio.current_time() - begun:6.1f} s  {progress.effects} effects, {progress.ledger_lines} lines in the"
                f" ledger, {takeovers.count} takeovers; nodes {'+'.join(alive) or 'none'}")  # fmt: skip

    async def load_it() -> None:
        try:
            await load.run(fleet.urls, record, options.seed, stop)
        except Exception as error:
            outcome.problems.append(f"the load failed: {_trace(error)}")

    with unwrapped():
        async with anyio.create_task_group() as watching:
            watching.start_soon(progress.watch)
            watching.start_soon(takeovers.watch, client)
            watching.start_soon(say_progress)
            async with anyio.create_task_group() as loading:
                loading.start_soon(load_it)
                async with anyio.create_task_group() as attacking:
                    attacking.start_soon(attack)
                    await anyio.sleep(options.seconds)
                await _mend(fleet, outcome)
                pause_s, at_s = progress.longest_pause_s, progress.longest_pause_at_s
                stop.set()
                loading.cancel_scope.deadline = anyio.current_time() + STOP_TIMEOUT_S
                say(f"{anyio.current_time() - begun:6.1f} s  all is mended; waiting for what was acknowledged")
            if loading.cancel_scope.cancelled_caught:
                outcome.problems.append(f"the load did not stop within {STOP_TIMEOUT_S:g} s of being told to")
            drained = anyio.current_time()
            # The load has its own limit; ours is there in case that does not hold, and for what it writes down then.
            await _within(
                DRAIN_TIMEOUT_S + COLLECT_TIMEOUT_S, outcome, "the drain",
                lambda: load.drain(fleet.urls, record, DRAIN_TIMEOUT_S),
            )  # fmt: skip
            progress.look()
            watching.cancel_scope.cancel()
    done = Counter(action.kind for action in nemesis.done)
    outcome.table |= {
        "actions": ", ".join(f"{kind} {count}" for kind, count in sorted(done.items())) or "none",
        "takeovers": takeovers.count,
        "longest pause of effects": f"{pause_s:.1f} s, from {at_s:.1f} s",
        "drain": f"{anyio.current_time() - drained:.1f} s",
    }


async def _mend(fleet: Fleet, outcome: Outcome) -> None:
    """Start whoever is down, and wait until all servers and nodes are well."""
    for process in [*fleet.servers.values(), *fleet.nodes.values()]:
        process.cont()
        await process.start()
    for server in fleet.servers.values():
        try:
            await wait_until_async(server.is_healthy, MEND_TIMEOUT_S)
        except AssertionError:
            outcome.problems.append(f"server {server.name} is not healthy {MEND_TIMEOUT_S:g} s after all was mended")
    for node in fleet.nodes.values():
        try:
            await wait_until(lambda node=node: node.is_ready, MEND_TIMEOUT_S)  # type: ignore[misc]
        except AssertionError:
            outcome.problems.append(f"node {node.name} is not ready {MEND_TIMEOUT_S:g} s after all was mended")


async def _within(seconds: float, outcome: Outcome, what: str, function: Callable[[], Awaitable[Any]]) -> Any:
    """Wait so long for something; what fails or takes longer is a problem, and None."""
    try:
        with anyio.move_on_after(seconds):
            return await function()
        outcome.problems.append(f"{what} was not done within {seconds:g} s")
    except Exception as error:
        outcome.problems.append(f"{what} failed: {_trace(error)}")
    return None


def troubles(directory: Path) -> list[str]:
    """What nodes have written that only an error of ours makes them write."""
    found = []
    for log in sorted((directory / "logs").glob("n*.log")):
        lines = log.read_text(errors="replace").splitlines()
        bad = [f"{number}: {line}" for number, line in enumerate(lines, 1) if any(word in line for word in TROUBLE)]
        if bad:
            found.append(f"{log.stem} met an error of ours, {len(bad)} times; the first at logs/{log.name}:{bad[0]}")
    return found


def _write_run(record: Record, about: Mapping[str, Any]) -> None:
    (record.directory / "run.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def _counted(record: Record) -> dict[str, Any]:
    """What the ledger and the effect logs hold, by kind."""
    counts = Counter(
        f"{line['op']} {line.get('state') or line.get('status') or ''}".strip() for line in record.ledger()
    )
    return dict(sorted(counts.items())) | {"effects": len(record.effects())}


def print_outcome(outcome: Outcome) -> None:
    """The table, and what was found."""
    print()
    for name, value in outcome.table.items():
        print(TABLE_LINE.format(name, value))
    print(TABLE_LINE.format("findings", len(outcome.findings) + len(outcome.problems)))
    for text in [*outcome.problems, *outcome.findings]:
        print(f"  - {text}")


def say(text: str) -> None:
    """A line of progress, at once."""
    print(text, flush=True)


def _trace(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)).strip()


def _servers(options: Options) -> str:
    return "one server" if options.servers == 1 else f"{options.servers} servers (R3)"
