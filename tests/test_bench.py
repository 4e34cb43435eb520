"""What the bench makes of a log, and that every part of it gives a figure."""

from __future__ import annotations

import pytest

from bench import actors
from bench.engine import PARTS, EngineBench, Sizes
from bench.failover import FailoverPlan
from bench.failover import measure as measure_failover
from bench.projection import measure as measure_projection
from bench.report import TARGETS, Target
from bench.sleepers import measure as measure_sleepers
from bench.takeover import Claimed, Step, Takeover, takeovers

MS = 1_000_000


def _success(n: int, at_ms: int, attempt: int = 1, workflow: str = "w", partition: int = 3) -> Step:
    return Step(workflow, partition, n, attempt, True, at_ms * MS)


def _failure(n: int, at_ms: int, attempt: int = 1) -> Step:
    return Step("w", 3, n, attempt, False, at_ms * MS)


def _next_steps_ms(steps: list[Step], claims: list[Claimed], lost_ms: int = 100) -> list[tuple[str, int, int, int]]:
    found = takeovers(steps, claims, {3}, "old", lost_ms * MS)
    return [(t.workflow, t.claimed_ns // MS, t.next_step_ns // MS, t.pause_ns // MS) for t in found]


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
    """A target is met at its border and not beyond."""

    def test_at_least(self) -> None:
        target = Target("", "", at_least=12_000)
        assert (target.met_by(12_000), target.met_by(11_999)) == (True, False)

    def test_at_most(self) -> None:
        target = Target("", "", at_most=0.6)
        assert (target.met_by(0.6), target.met_by(0.601)) == (True, False)


class TestMeasuring:
    """Each bench runs, small, against a real server and real node processes; how quick that is, is not asserted."""

    @pytest.mark.slow
    async def test_engine_gives_every_figure(self) -> None:
        """The names are what others read from the JSON."""
        sizes = Sizes(
            workflows=20, raw_messages=50, sequential_steps=20, starts=5, history_events=50, repetitions=1, warm_up=2
        )
        bench = EngineBench(sizes, lambda _text: None)
        await bench.measure("relaxed", frozenset(PARTS))
        assert set(bench.figures.values) == {
            "steps_per_s", "workflows_per_s", "sequential_step_ms", "start_to_result_p50_ms", "start_to_result_p99_ms",
            "replay_events_per_s", "steps_per_s_always", "workflows_per_s_always", "messages_per_s",
            "messages_per_s_always",
        }  # fmt: skip
        assert all(value > 0 for value in bench.figures.values.values())
        assert set(bench.figures.values) <= set(TARGETS)

    @pytest.mark.slow
    async def test_processes_give_every_figure(self) -> None:
        """The pingers check each answer, so a figure stands for work that was done; each name is known to the report."""
        sizes = actors.Sizes(
            crowd=30, round_trips=20, round_trips_between=10, lives=10, calls=5, repetitions=1, warm_up=2
        )
        bench = actors.ActorBench(sizes, lambda _text: None)
        await bench.measure("relaxed", frozenset(actors.PARTS))
        assert set(bench.figures.values) == {
            "crowd_s", "crowd_rss_mb", "crowd_rss_before_mb", "crowd_of_function_s", "crowd_of_function_rss_mb",
            "crowd_of_function_rss_before_mb", "round_trips_per_s", "named_round_trips_per_s", "table_round_trips_per_s",
            "lives_per_s", "watched_lives_per_s", "process_calls_per_s", "round_trips_between_per_s",
            "table_round_trips_between_per_s", "watched_lives_between_per_s",
        }  # fmt: skip
        assert all(value > 0 for value in bench.figures.values.values())
        assert set(bench.figures.values) <= set(TARGETS)

    @pytest.mark.slow
    async def test_sleepers_sleep_and_wake(self) -> None:
        """It raises unless each that is woken says that it was woken, before and after the takeover."""
        figures = await measure_sleepers("relaxed", 30, 3, lambda _text: None)
        assert figures["wake_p50_ms"] > 0
        assert figures["fresh_node_wake_p50_ms"] > 0
        assert figures["fresh_node_resident"] == 0

    def test_projection_gives_every_figure(self) -> None:
        """Every query is answered; that a page has what it should is asserted elsewhere."""
        figures = measure_projection(400, 1, lambda _text: None)
        assert set(figures.values) == {
            "ingested_per_s", "projection_mb", "page_median_ms", "page_worst_ms", "hard_page_median_ms",
            "hard_page_worst_ms", "counts_ms",
        }  # fmt: skip
        assert set(figures.values) <= set(TARGETS)
        assert figures.pages.keys() == figures.plans.keys()
        assert figures.slow(0)

    @pytest.mark.slow
    async def test_failover_sees_every_workflow_of_the_lost_node_go_on(self) -> None:
        """It raises unless all of them do; a kill is not noticed before it happened."""
        outcome = await measure_failover("relaxed", FailoverPlan(kills=1, nodes=2, open=12), lambda _text: None)
        assert [r["signal"] for r in outcome.rounds] == ["SIGKILL", "SIGTERM"]
        for seen in outcome.rounds:
            assert 0 < seen["claimed_last_ms"] < seen["next_step_last_ms"]
