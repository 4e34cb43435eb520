"""What the bench makes of a log, and that every part of it gives a figure."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from bench import actors, growth, recovery, suite
from bench.__main__ import main as command
from bench.documents import UnknownBlock, filled, lacking, rewrite, saved_results, stale
from bench.engine import Sizes
from bench.failover import FailoverPlan
from bench.figures import FIGURES, TARGETS, Target, target_of
from bench.machine import Quiet, facts
from bench.peers import measuring
from bench.peers.comparing import COLUMNS, ratio
from bench.peers.environments import CACHE_VARIABLE, Environment
from bench.peers.failover import Effect, busiest, read_effects, standstills_s
from bench.peers.setups import VARIANTS
from bench.plots import draw
from bench.projection import measure as measure_projection
from bench.report import print_results
from bench.results import PERCENTILES, Measured, Results, Setup, load, percentiles, save
from bench.servers import BenchFailed
from bench.sleepers import Looks
from bench.suite import Plan
from bench.takeover import Claimed, Step, Takeover, lost_calls_ns, takeovers

FACTS: dict[str, Any] = facts()
MS = 1_000_000


def _success(n: int, at_ms: int, attempt: int = 1, workflow: str = "w", partition: int = 3) -> Step:
    return Step(workflow, partition, n, attempt, True, at_ms * MS)


def _failure(n: int, at_ms: int, attempt: int = 1) -> Step:
    return Step("w", 3, n, attempt, False, at_ms * MS)


def _next_steps_ms(steps: list[Step], claims: list[Claimed], lost_ms: int = 100) -> list[tuple[str, int, int, int]]:
    found = takeovers(steps, claims, {3}, "old", lost_ms * MS)
    return [(t.workflow, t.claimed_ns // MS, t.next_step_ns // MS, t.pause_ns // MS) for t in found]


class TestLostCalls:
    """A workflow whose owner lives may stand still all the same: the lost node ran its call."""

    def test_gap_around_the_loss_counts_from_the_loss(self) -> None:
        steps = [_success(1, 40), _success(2, 95), _success(3, 1150)]
        assert lost_calls_ns(steps, {9}, 100 * MS, 50 * MS) == {"w": 1050 * MS}

    def test_workflow_that_just_goes_on_has_lost_nothing(self) -> None:
        steps = [_success(1, 40), _success(2, 95), _success(3, 195), _success(4, 1300)]
        assert lost_calls_ns(steps, {9}, 100 * MS, 50 * MS) == {}

    def test_workflows_of_the_lost_node_are_not_meant(self) -> None:
        assert lost_calls_ns([_success(2, 95), _success(3, 1150)], {3}, 100 * MS, 50 * MS) == {}


def printed(results: Results) -> str:
    console = Console(file=io.StringIO(), width=200)
    print_results(console, results)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


class TestTakeovers:
    """A step counts for the new owner only when the old one cannot have asked for it."""

    def test_outcome_of_what_the_old_owner_asked_for_does_not_count(self) -> None:
        """Op 6 was under way when the node was lost: its outcome proves nothing, that of op 7 does."""
        steps = [_success(5, 90), _success(6, 160), _success(7, 220), _success(8, 280)]
        assert _next_steps_ms(steps, [Claimed(3, "new", 130 * MS)]) == [("w", 30, 120, 70)]

    def test_second_attempt_of_what_was_under_way_counts(self) -> None:
        """The new owner has found the host lost and asked again: that is its work."""
        steps = [_success(5, 90), _failure(6, 160), _success(6, 220, attempt=2)]
        assert _next_steps_ms(steps, [Claimed(3, "new", 130 * MS)]) == [("w", 30, 120, 130)]

    def test_second_attempt_that_the_old_owner_asked_for_does_not_count(self) -> None:
        """A failure that is older than the claim was answered with attempt 2 by the old owner."""
        steps = [_success(5, 80), _failure(6, 95), _success(6, 160, attempt=2), _success(7, 220)]
        assert _next_steps_ms(steps, [Claimed(3, "new", 130 * MS)]) == [("w", 30, 120, 80)]

    def test_steps_of_the_old_owner_before_the_claim_do_not_count(self) -> None:
        """A node that leaves politely goes on until it hands over; the claim is the border."""
        steps = [_success(5, 90), _success(6, 110), _success(7, 125), _success(8, 150), _success(9, 200)]
        assert _next_steps_ms(steps, [Claimed(3, "", 128 * MS), Claimed(3, "new", 130 * MS)]) == [("w", 30, 100, 50)]

    def test_failures_are_no_steps(self) -> None:
        """A failed attempt of the next op does not mean that the workflow goes on."""
        steps = [_success(5, 90), _success(6, 160), _failure(7, 220)]
        assert _next_steps_ms(steps, [Claimed(3, "new", 130 * MS)]) == []

    @pytest.mark.parametrize(
        "claim",
        [
            Claimed(3, "", 130 * MS),
            Claimed(3, "old", 130 * MS),
            Claimed(3, "new", 99 * MS),
            Claimed(4, "new", 130 * MS),
        ],
        ids=["given back", "by the lost node itself", "before the loss", "another partition"],
    )
    def test_without_a_claim_of_another_node_nothing_counts(self, claim: Claimed) -> None:
        """However many steps there are, they are somebody else's."""
        assert _next_steps_ms([_success(n, 100 + 10 * n) for n in range(20)], [claim]) == []

    def test_workflows_of_other_partitions_are_left_out(self) -> None:
        """Only those of the lost node count, each by its own steps, whatever the order they come in."""
        mine = [_success(3, 300), _success(2, 200), _success(1, 50)]
        others = [_success(n, 100 + n, workflow="v", partition=4) for n in range(9)]
        claims = [Claimed(3, "new", 150 * MS), Claimed(4, "new", 101 * MS)]
        assert takeovers(others + mine, claims, {3}, "old", 100 * MS) == [Takeover("w", 50 * MS, 200 * MS, 150 * MS)]


class TestTargets:
    """A target is met at its border and not beyond, and holds for its setup alone."""

    def test_at_least(self) -> None:
        target = Target(at_least=12_000)
        assert (target.met_by(12_000), target.met_by(11_999)) == (True, False)

    def test_at_most(self) -> None:
        target = Target(at_most=0.6)
        assert (target.met_by(0.6), target.met_by(0.601)) == (True, False)

    def test_target_of_one_setup_is_not_that_of_another(self) -> None:
        """What a cluster of three has to do is less than what one server has to."""
        relaxed, replicated = Measured("steps_per_s", 1.0), Measured("steps_per_s", 1.0, Setup(1, 3, "always"))
        assert str(target_of(relaxed)) == "at least 20,000"
        assert str(target_of(replicated)) == "at least 15,000"
        assert target_of(Measured("steps_per_s", 1.0, Setup(2))) is None

    def test_every_target_is_for_a_known_figure(self) -> None:
        assert set(TARGETS) <= set(FIGURES)

    def test_missed_target_is_reported_as_missed(self) -> None:
        """One row for each figure that something is promised of, and nothing is called met that is not."""
        results = Results("suite", {}, FACTS)
        results.add("step_ms", [0.51], Setup(), 3)
        results.add("workflows_per_s", [4000.0], Setup(), 0)
        said = printed(results)
        assert re.search(r"one step after the other.*0\.51.*at most 0\.5.*missed", said)
        assert re.search(r"workflows of 5 steps.*4,000.*at least 4,000.*met", said)
        assert said.count("missed") == 1


class TestReport:
    """What makes figures worthless is said so that nobody overlooks it."""

    def test_noisy_machine_is_said_before_and_after_the_tables(self) -> None:
        results = Results("suite", {}, FACTS, quiet=Quiet(3.5, 2, 0.031, 0.2, 60.0).to_json())
        results.add("step_ms", [0.4], Setup(), 3)
        said = printed(results)
        assert said.count("THE MACHINE WAS NOT QUIET") == 2
        assert "load 3.50 on 2 cores" in said
        assert "3.1% of the CPU time was stolen" in said
        assert "20.0% of the CPU time went to other processes" in said

    def test_quiet_machine_is_not_complained_of(self) -> None:
        """Each limit is still quiet."""
        assert Quiet(0.5, 2, 0.02, 0.05, 60.0).complaints() == []

    def test_what_could_not_be_measured_is_said(self) -> None:
        results = Results("suite", {}, FACTS, failures=["4 nodes, always, R1: BenchFailed: no [node] came up"])
        assert "4 nodes, always, R1: BenchFailed: no [node] came up" in printed(results)

    def test_percentiles_share_a_row(self) -> None:
        results = Results("suite", {}, FACTS)
        results.add_percentiles("timer_late", [float(i) for i in range(101)], Setup())
        assert re.search(r"late by.*50 / 90 / 99 / 100", printed(results))


class TestCommand:
    """A run that takes too long, or that is stopped, has not been for nothing."""

    def _run(self, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Result:
        async def measure(_plan: object, _sections: object, results: Results, _progress: object) -> None:
            results.add("step_ms", [0.4], Setup(), 3)
            await anyio.sleep_forever()

        monkeypatch.setattr("bench.suite.measure", measure)
        return CliRunner().invoke(command, arguments)

    def test_what_was_measured_within_the_limit_is_printed_and_kept(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        done = self._run(monkeypatch, "--limit", "0.001", "--json", str(tmp_path / "r.json"))
        assert done.exit_code == 0, done.output
        assert "stopped after 0.001 minutes: the rest was not measured" in done.output
        kept = load(tmp_path / "r.json")
        assert [m.name for m in kept.measured] == ["step_ms"]
        assert kept.failures == ["stopped after 0.001 minutes: the rest was not measured"]
        assert kept.quiet["seconds"] >= 0

    def test_unknown_peer_is_refused(self) -> None:
        done = CliRunner().invoke(command, ["peers", "--only", "temporal,airflow"])
        assert done.exit_code == 2
        assert "airflow: there are moonmesh, temporal, restate, dbos, absurd" in done.output


class TestResults:
    """A file holds all that the tables and plots need."""

    def test_saved_and_loaded_is_the_same(self, tmp_path: Path) -> None:
        results = Results("suite", {"runs": 3}, FACTS, quiet=Quiet(0.1, 2).to_json())
        results.add("steps_per_s", [1.0, 3.0, 2.0], Setup(2, 3, "always"), 0, cpu={"node": 1.5}, at={"open": 10})
        save(results, tmp_path / "r.json")
        again = load(tmp_path / "r.json")
        assert again == results
        assert again.measured[0].value == 2

    def test_another_file_is_refused(self, tmp_path: Path) -> None:
        """It says which file, and what is missing in it."""
        (tmp_path / "r.json").write_text('{"steps_per_s": 1}')
        with pytest.raises(ValueError, match=r"r\.json holds no results.*measured"):
            load(tmp_path / "r.json")

    def test_percentiles_of_nothing_are_refused(self) -> None:
        with pytest.raises(ValueError, match="nothing"):
            percentiles([])


PID_A, PID_B = 100, 200


def _effects(pid: int, workflow: str, times_s: list[float]) -> list[Effect]:
    return [Effect(pid, workflow, number, at_s) for number, at_s in enumerate(times_s)]


class TestStandstills:
    """How long a killed worker's workflows stand still is read from what their steps logged."""

    def test_workflow_of_the_killed_worker_counts_from_the_kill_to_its_next_step_elsewhere(self) -> None:
        effects = _effects(PID_A, "w", [1.0, 1.1]) + _effects(PID_B, "w", [1.9, 2.0])
        assert standstills_s(effects, PID_A, 1.15, 0.1) == {"w": pytest.approx(0.75)}

    def test_workflow_of_another_worker_that_just_goes_on_was_not_struck(self) -> None:
        assert standstills_s(_effects(PID_B, "w", [1.0, 1.1, 1.2, 1.3]), PID_A, 1.15, 0.1) == {}

    def test_workflow_of_another_worker_that_stands_still_was_struck(self) -> None:
        """Its steps ran elsewhere, but something of it was in the killed process."""
        assert standstills_s(_effects(PID_B, "w", [1.0, 1.1, 1.5]), PID_A, 1.15, 0.1) == {"w": pytest.approx(0.35)}

    def test_workflow_that_has_not_gone_on_is_named(self) -> None:
        """Silence is no success, and no step of the killed process is one either."""
        assert standstills_s(_effects(PID_A, "w", [1.0, 1.16]), PID_A, 1.15, 0.1) == {"w": None}

    def test_line_that_a_killed_process_has_not_finished_is_left_out(self) -> None:
        assert read_effects(7, '["w", 1, 2.5]\n["w", 2') == [Effect(7, "w", 1, 2.5)]

    def test_victim_is_the_worker_of_most_workflows(self) -> None:
        """By their latest steps: where they were once does not matter."""
        effects = _effects(PID_A, "v", [1.0]) + _effects(PID_A, "w", [1.0]) + _effects(PID_A, "x", [1.0])
        effects += _effects(PID_B, "v", [2.0]) + _effects(PID_B, "w", [2.0])
        assert busiest(effects) == PID_B


class TestComparing:
    """Ours is compared with an engine only by the variant that promises the same."""

    def _results(self) -> Results:
        results = Results("peers", {}, FACTS)
        said = {"always": ("moonmesh", True), "relaxed": ("moonmesh", False), "other": ("other", True)}
        results.details["peers"] = {
            name: {"engine": engine, "title": name, "flushed": flushed} for name, (engine, flushed) in said.items()
        }
        for name, rate, step_ms in (("always", 100.0, 1.0), ("relaxed", 900.0, 0.2), ("other", 50.0, 4.0)):
            results.add("workflows_per_s", [rate], Setup(), of=name)
            results.add("step_ms", [step_ms], Setup(), of=name)
        return results

    def test_ratio_says_how_many_times_better_ours_is(self) -> None:
        """More of a rate is better, less of a time is."""
        results = self._results()
        found = {column.name: ratio(results, "other", column) for column in COLUMNS}
        assert (found["workflows_per_s"], found["step_ms"], found["steps_per_s"]) == (2.0, 4.0, None)

    def test_ours_has_no_ratio(self) -> None:
        assert {ratio(self._results(), "relaxed", column) for column in COLUMNS} == {None}

    def test_figures_of_peers_are_no_targets_of_ours(self) -> None:
        assert target_of(Measured("workflows_per_s", 1.0, of="other")) is None
        assert "missed" not in printed(self._results())


class TestDocuments:
    """Tables and plots come from the saved results alone."""

    DOCUMENT = "# Figures\n\nProse.\n\n<!-- bench: targets -->\nold\n<!-- /bench -->\n\nMore prose.\n"

    def test_block_is_made_anew_and_prose_is_left_alone(self) -> None:
        results = Results("suite", {}, FACTS)
        results.add("step_ms", [0.51], Setup(), 3)
        assert filled(self.DOCUMENT, {"suite": results}) == (
            "# Figures\n\nProse.\n\n<!-- bench: targets -->\n| figure | setup | measured | target |  |\n|---|---|---|---|---|\n"
            "| one workflow, one step after the other: the mean | 1 node, relaxed, R1 | 0.51 ms | at most 0.5 | **missed** |\n"
            "<!-- /bench -->\n\nMore prose.\n"
        )

    def test_block_without_results_says_what_to_run(self) -> None:
        assert "Not measured yet: `python -m bench --save`." in filled(self.DOCUMENT, {})

    def test_unknown_block_is_refused(self) -> None:
        with pytest.raises(UnknownBlock, match="no table tragets; there are suite-conditions"):
            filled(self.DOCUMENT.replace("targets", "tragets"), {})

    def test_noise_is_said_where_the_figures_are(self) -> None:
        quiet = Quiet(3.5, 2, 0.0, 0.0, 60.0).to_json()
        results = Results("suite", {}, FACTS, failures=["timers: BenchFailed: none came"], quiet=quiet)
        said = filled(self.DOCUMENT.replace("targets", "suite-conditions"), {"suite": results})
        assert "not to be relied on" in said
        assert "- load 3.50 on 2 cores" in said
        assert "- timers: BenchFailed: none came" in said

    def test_documents_are_what_the_saved_results_make_of_them(self) -> None:
        """Whoever changes a table by hand, or saves results and forgets the documents, hears of it: `bench report`."""
        assert stale(saved_results()) == []

    def test_check_fails_for_what_was_not_measured_and_for_images_that_are_not_there(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Documents that say "not measured yet" are what no results make of them, and are not finished."""
        page, saved = tmp_path / "performance.md", tmp_path / "results"
        saved.mkdir()
        text = self.DOCUMENT + "\n![setups](plots/setups.png)\n![badge](https://example.com/b.png)\n"
        page.write_text(filled(text, {}))
        monkeypatch.setattr("bench.documents.saved_results", lambda: saved_results(saved))
        monkeypatch.setattr("bench.documents.stale", lambda results, pages=(page,): stale(results, pages))
        monkeypatch.setattr("bench.documents.lacking", lambda results: lacking(results, [page]))

        def check() -> tuple[int, str]:
            done = CliRunner().invoke(command, ["report", "--check"])
            return done.exit_code, done.output

        unmeasured = "performance.md has tables of which nothing was measured; run `python -m bench --save`"
        unseen = "performance.md shows plots/setups.png, which is not there; run `python -m bench report`"
        other = "performance.md is not what the results make of it; run `python -m bench report`"
        assert check() == (1, f"Error: {unmeasured}\n{unseen}\n")
        results = Results("suite", {}, FACTS)
        save(results, saved / "suite.json")
        assert check() == (1, f"Error: {other}\n{unmeasured}\n{unseen}\n"), "an empty run measures nothing"
        results.add("step_ms", [0.4], Setup(), 3)
        save(results, saved / "suite.json")
        assert check() == (1, f"Error: {other}\n{unseen}\n")
        rewrite({"suite": results}, [page])
        (tmp_path / "plots").mkdir()
        (tmp_path / "plots" / "setups.png").touch()
        assert check() == (0, "")

    def test_every_kind_of_results_is_drawn(self, tmp_path: Path) -> None:
        """A picture of each plot is written, also from a run that was cut short and has only a few figures."""
        suite_ = Results("suite", {}, FACTS, quiet=Quiet(3.5, 2).to_json())
        suite_.add("steps_per_s", [1000.0], Setup(1, 3, "always"), 0)
        growth_ = Results("growth", {}, FACTS)
        for size, nodes in ((10, 1), (1000, 2)):
            growth_.add("replay_ms", [size / 10], Setup(), at={"events": size})
            growth_.add("node_rss_mb", [size / 10], Setup(), at={"open": size})
            growth_.add("steps_per_s", [1000.0], Setup(nodes), 0)
        peers_ = Results("peers", {}, FACTS)
        peers_.details["peers"] = {"a": {"engine": "a", "title": "A", "flushed": True}}
        peers_.add("step_ms", [4.0], Setup(), of="a")
        drawn = [path.name for results in (suite_, growth_, peers_) for path in draw(results, tmp_path)]
        assert drawn == ["setups.png", "history.png", "open.png", "nodes.png", "peers.png"]
        assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in drawn)

    def test_nothing_is_drawn_of_nothing(self, tmp_path: Path) -> None:
        assert draw(Results("growth", {}, FACTS), tmp_path) == []


class TestPeers:
    """The workload that all engines get runs here with the one engine that needs no installing: ours."""

    @pytest.mark.slow
    @pytest.mark.timeout(180)
    async def test_our_own_variant_gives_every_figure(self) -> None:
        """The driver checks each result; a killed node's workflows all go on."""
        (variant,) = (v for v in VARIANTS if v.name == "moonmesh-relaxed")
        results = Results("peers", {}, FACTS)
        sizes = measuring.Sizes(
            concurrency=3, warm_up_s=0.1, duration_s=1.5, sequential_steps=10, starts=3, signals=2
        )  # fmt: skip
        plan = measuring.Failover(paced=6, pace_ms=50, under_way_steps=3)
        await measuring.measure([variant], sizes, plan, results, lambda _text: None)
        assert results.failures == []
        names = {m.name for m in results.measured if m.of == variant.name}
        assert {column.name for column in COLUMNS} <= names <= set(FIGURES)
        rate = results.find("workflows_per_s", of=variant.name)
        assert rate is not None
        assert rate.value > 0

    async def test_engine_that_cannot_be_installed_is_said_with_the_error(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """The others are measured all the same; here there are none."""
        (tmp_path / "file").touch()
        monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file"))
        broken = Environment("broken", ("no-matter-what",))
        variant = replace(VARIANTS[0], title="Broken", environment=broken)
        results = Results("peers", {}, FACTS)
        await measuring.measure([variant], measuring.QUICK, measuring.Failover(), results, lambda _text: None)
        (failure,) = results.failures
        assert failure.startswith("Broken: NotInstalled:")
        assert "Not a directory" in failure


class TestMeasuring:
    """The suite runs, small, against real servers and real node processes; how quick that is, is not asserted."""

    @pytest.mark.slow
    @pytest.mark.timeout(180)
    async def test_suite_gives_every_figure(self) -> None:
        """Everything that a target is named for is there, for one server and for three; nothing has failed."""
        sizes = Sizes(
            workflows=20, raw_messages=50, sequential_steps=20, starts=5, signals=3, history_events=50, repetitions=1,
            warm_up=2,
        )  # fmt: skip
        plan = Plan(
            setups=[Setup(1, 1, "relaxed"), Setup(2, 3, "always")], sizes=sizes, timers=20,
            failovers=[(Setup(2), FailoverPlan(kills=1, open=12, pace_ms=20, under_way_s=0.5, observe_s=1.0))], asleep=30, residents=20,
            looks=Looks(woken=3, steps=5, struck=4, idle_s=60, settle_s=0.5, rest_s=0.1),
        )  # fmt: skip
        results = Results("suite", {}, FACTS)
        # Side by side, as most of the time goes by in waiting.
        sections: list[frozenset[suite.Section]] = [
            frozenset({"setups", "replay"}), frozenset({"timers", "failover"}), frozenset({"memory"}),
        ]  # fmt: skip
        points = growth.Plan(events=(3, 30), nodes=(), open=(), sizes=sizes)
        history: frozenset[growth.Curve] = frozenset({"history"})
        async with anyio.create_task_group() as tasks:
            for some in sections:
                tasks.start_soon(suite.measure, plan, some, results, lambda _text: None)
            tasks.start_soon(growth.measure, points, history, results, lambda _text: None)
        assert results.failures == []
        for name in ("step_at_length_p50_ms", "replay_ms", "crash_load_ms"):
            assert [events for events, _ in results.curve(name, "events")] == [3, 30]
        assert all(m.value > 0 for m in results.measured if m.name.startswith(("steps", "workflows", "step_", "start")))
        both = {"steps_per_s", "workflows_per_s", "step_p99_ms", "start_to_result_p50_ms", "signal_to_wake_max_ms"}
        for setup in plan.setups:
            assert both <= {m.name for m in results.measured if m.setup == setup}
        assert {
            "messages_per_s", "replay_events_per_s", "timers_per_s", "timer_late_p99_ms", "kill_next_step_p50_ms",
            "kill_next_step_p99_ms", "term_next_step_p50_ms", "resident_kb", "sleeping_node_bytes", "server_rss_mb",
            "server_rested_rss_mb", "sleeping_server_bytes", "sleeper_wake_p50_ms", "fresh_node_wake_p50_ms", "takeover_ms", "resident",
        } <= {m.name for m in results.measured}  # fmt: skip
        assert {m.name for m in results.measured} <= set(FIGURES)
        rounds = results.details["failover_rounds"]
        assert [r["signal"] for r in rounds] == ["SIGKILL", "SIGTERM"]
        for seen in rounds:
            assert 0 < seen["claimed_last_ms"] < seen["next_step_last_ms"]
        resident = results.find("resident")
        assert resident is not None
        assert resident.value == 0

    async def test_part_that_fails_is_reported_and_the_others_are_measured(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A bench that stops at the first trouble gives no figures; one that hides it gives wrong ones."""

        async def fail(*_arguments: object) -> None:
            raise BenchFailed("no timer came")

        monkeypatch.setattr("bench.timers.measure", fail)
        plan = replace(suite.quick(), sizes=Sizes(history_events=20, repetitions=1, warm_up=1))
        results = Results("suite", {}, FACTS)
        await suite.measure(plan, frozenset({"timers", "replay"}), results, lambda _text: None)
        assert results.failures == ["timers: BenchFailed: no timer came"]
        assert results.find("replay_events_per_s") is not None

    @pytest.mark.slow
    async def test_processes_give_every_figure(self) -> None:
        """The pingers check each answer, so a figure stands for work that was done; each name is known to the report."""
        sizes = actors.Sizes(
            crowd=30, round_trips=20, round_trips_between=10, lives=10, calls=5, repetitions=1, warm_up=2
        )
        results = Results("processes", {}, FACTS)
        await actors.ActorBench(sizes, results, lambda _text: None).measure(frozenset(actors.PARTS))
        assert {m.name for m in results.measured} == {
            "crowd_s", "crowd_rss_mb", "crowd_rss_before_mb", "crowd_of_function_s", "crowd_of_function_rss_mb",
            "crowd_of_function_rss_before_mb", "round_trips_per_s", "named_round_trips_per_s", "table_round_trips_per_s",
            "lives_per_s", "watched_lives_per_s", "process_calls_per_s", "round_trips_between_per_s",
            "table_round_trips_between_per_s", "watched_lives_between_per_s",
        }  # fmt: skip
        assert all(m.value > 0 for m in results.measured)
        assert {m.name for m in results.measured} <= set(FIGURES)

    # Calls that went to the node that is paused are made again after pauses that double.
    @pytest.mark.timeout(180)
    @pytest.mark.slow
    async def test_recovery_gives_every_figure(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is counted as attended to goes on: each workflow ends when it is told to, and each call is under way."""
        monkeypatch.setattr("bench.recovery.SETTLE_S", 1.5)
        results = Results("recovery", {}, FACTS)
        async with anyio.create_task_group() as tasks:
            for how in recovery.HOWS:
                plan = recovery.RecoveryPlan(open=12, hows=[how])
                tasks.start_soon(recovery.measure, Setup(), plan, results, lambda _text: None)
        expected = {
            f"{how}_{figure}"
            for how in recovery.HOWS
            for figure in (
                "owned_s", "first_new_s", "attended_s", "loaded", "loaded_per_s", "node_us", "server_us", "rss_mb",
                *(f"new_{which}_ms" for which in PERCENTILES),
            )
        }  # fmt: skip
        assert {m.name for m in results.measured} == expected | {"paused_back_s"} <= set(FIGURES)
        assert all(m.value > 0 for m in results.measured if m.name.endswith(("_loaded", "_rss_mb", "_ms")))
        # A third of them wait for a call; the first new one may come before the new owner.
        loaded = results.find("settled_loaded")
        assert loaded is not None
        assert 4 <= loaded.value <= 5

    def test_projection_gives_every_figure(self) -> None:
        """Every query is answered; that a page has what it should is asserted elsewhere."""
        figures = measure_projection(400, 1, lambda _text: None)
        assert set(figures.values) == {
            "ingested_per_s", "projection_mb", "page_median_ms", "page_worst_ms", "hard_page_median_ms",
            "hard_page_worst_ms", "counts_ms",
        }  # fmt: skip
        assert set(figures.values) <= set(FIGURES)
        assert figures.pages.keys() == figures.plans.keys()
        assert figures.slow(0)
