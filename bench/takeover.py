"""When did another node go on? Read from what was stored: the outcomes of steps, and who took which partition.

Pure. The steps of a workflow follow one another: op n + 1 is asked for when n has been answered, attempt a + 1 when a
has failed. So when a partition changes hands, there is one attempt at most that the old owner may have asked for. Its
outcome may come long after; the first success beyond it is the proof that the new owner is at work.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple


class Step(NamedTuple):
    """The outcome of one attempt of op n of a workflow, stored at a time (Unix, ns)."""

    workflow: str
    partition: int
    n: int
    attempt: int
    succeeded: bool
    at_ns: int


class Claimed(NamedTuple):
    """A node took a partition, or gave it back (node_id "")."""

    partition: int
    node_id: str
    at_ns: int


class Takeover(NamedTuple):
    """One workflow of a lost node.

    claimed_ns: from the loss until its partition was claimed; next_step_ns: from the loss; pause_ns: the longest time
    between two steps around it.
    """

    workflow: str
    claimed_ns: int
    next_step_ns: int
    pause_ns: int


def takeovers(
    steps: Iterable[Step], claims: Sequence[Claimed], partitions: Collection[int], node_id: str, lost_ns: int
) -> list[Takeover]:
    """How each workflow went on whose partition the lost node had; those that have not gone on yet are missing."""
    taken = _taken(claims, partitions, node_id, lost_ns)
    by_workflow: dict[str, list[Step]] = {}
    for step in steps:
        if step.partition in taken:
            by_workflow.setdefault(step.workflow, []).append(step)
    found = (_takeover(sorted(mine, key=_at), taken[mine[0].partition], lost_ns) for mine in by_workflow.values())
    return [takeover for takeover in found if takeover is not None]


def lost_calls_ns(steps: Iterable[Step], partitions: Collection[int], lost_ns: int, pace_ns: int) -> dict[str, int]:
    """How long workflows of other nodes stood still because the lost node ran a call of theirs.

    From the loss to their next step, of those whose steps around the loss lie further apart than two steps take.
    """
    before: dict[str, int] = {}
    after: dict[str, int] = {}
    for step in sorted(steps, key=_at):
        if step.succeeded and step.partition not in partitions:
            if step.at_ns <= lost_ns:
                before[step.workflow] = step.at_ns
            else:
                after.setdefault(step.workflow, step.at_ns)
    return {
        workflow: after[workflow] - lost_ns
        for workflow, at_ns in before.items()
        if workflow in after and after[workflow] - at_ns > 2 * pace_ns
    }


def _taken(claims: Sequence[Claimed], partitions: Collection[int], node_id: str, lost_ns: int) -> Mapping[int, int]:
    """When each partition of the lost node was first claimed by another one."""
    taken: dict[int, int] = {}
    for claim in claims:
        if claim.partition in partitions and claim.node_id not in ("", node_id) and claim.at_ns >= lost_ns:
            taken[claim.partition] = min(claim.at_ns, taken.get(claim.partition, claim.at_ns))
    return taken


def _takeover(steps: Sequence[Step], taken_ns: int, lost_ns: int) -> Takeover | None:
    former = [step for step in steps if step.at_ns < taken_ns]
    under_way = 1 + max((step.n for step in former if step.succeeded), default=0)
    failed = sum(1 for step in former if step.n == under_way)
    asked_by_former = (under_way, failed + 1)
    later = (step for step in steps if step.at_ns >= taken_ns and step.succeeded)
    proof = next((step for step in later if (step.n, step.attempt) > asked_by_former), None)
    if proof is None:
        return None
    times = [step.at_ns for step in steps if step.succeeded and step.at_ns <= proof.at_ns]
    around = [(a, b) for a, b in pairwise(times) if b >= lost_ns]
    pause_ns = max((b - a for a, b in around), default=0)
    return Takeover(proof.workflow, taken_ns - lost_ns, proof.at_ns - lost_ns, pause_ns)


def _at(step: Step) -> int:
    return step.at_ns
