"""How long a worker's workflows stand still after it was killed, from what the steps logged on their own side. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Effect(NamedTuple):
    """A step of a workflow began in a process at a time (Unix, s)."""

    pid: int
    workflow: str
    number: int
    at_s: float


def read_effects(pid: int, text: str) -> list[Effect]:
    """What the process with this id has logged; a last line that is not whole is left out."""
    lines = text.split("\n")[:-1]
    return [Effect(pid, *json.loads(line)) for line in lines]


def busiest(effects: Sequence[Effect]) -> int:
    """The process in which most of the workflows began their latest step."""
    latest = {effect.workflow: effect.pid for effect in sorted(effects, key=lambda e: e.at_s)}
    pids = list(latest.values())
    return max(set(pids), key=pids.count)


def standstills_s(
    effects: Iterable[Effect], killed_pid: int, killed_s: float, pace_s: float
) -> dict[str, float | None]:
    """From the kill to the next step of each workflow that it has struck; None of one that has not gone on yet.

    Struck is a workflow whose latest step began in the killed process, and one that stood still for longer than two
    steps take: somewhere else in the engine something of it has died, too.
    """
    before: dict[str, Effect] = {}
    after: dict[str, float] = {}
    for effect in sorted(effects, key=lambda e: e.at_s):
        if effect.at_s <= killed_s:
            before[effect.workflow] = effect
        elif effect.pid != killed_pid:
            after.setdefault(effect.workflow, effect.at_s)
    found: dict[str, float | None] = {}
    for workflow, latest in before.items():
        next_s = after.get(workflow)
        if next_s is None:
            found[workflow] = None
        elif latest.pid == killed_pid or next_s - latest.at_s > 2 * pace_s:
            found[workflow] = next_s - killed_s
    return found
