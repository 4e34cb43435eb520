"""What the clients do: a script for each workflow, made purely from the seed, so that a seed repeats a run.

A script says what a workflow is started with, who sends it which messages how, and how it is brought to its end. The
checker does not read this file: it goes by what the ledger says was attempted.
"""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

SORTS: Final = ("order", "saga", "approval", "parent", "counter")
How = Literal["client", "once", "bare"]
Closing = Literal["", "last", "cancel", "kill"]


@dataclass(frozen=True, slots=True)
class Sender:
    """Somebody who sends numbered messages, one after the other.

    how: client = through `mesh.Client`, repeated under one identity until acknowledged; once = published raw under an
    identity and, to be sure, twice; bare = published raw without one, and never repeated.
    """

    name: str
    how: How
    topic: str
    count: int
    gap_ms: int


@dataclass(frozen=True, slots=True)
class Script:
    """Everything about one workflow. startup: messages that go with the start. asked_after_ms: a cancel, 0 = none.

    closing: what brings it to its end once all messages are out; "" = it ends by itself.
    raw_start: published as a person would, without the client.
    """

    workflow: str
    sort: str
    type: str
    input: dict[str, Any]
    startup: int = 0
    senders: tuple[Sender, ...] = ()
    closing: Closing = ""
    asked_after_ms: int = 0
    raw_start: bool = False

    def to_json(self) -> dict[str, Any]:
        """The script as the ledger has it."""
        return asdict(self)

    @staticmethod
    def from_json(record: dict[str, Any]) -> Script:
        """The script in a line of the ledger."""
        values = {name: record[name] for name in Script.__slots__}
        return Script(**values | {"senders": tuple(Sender(**sender) for sender in values["senders"])})


@dataclass(slots=True)
class Shape:
    """How hard the load is. slow: how long functions take, as a factor; hold_ms: how long workflows are kept open."""

    rate: float = 6.0
    at_most: int = 0
    open_max: int = 60
    sorts: tuple[str, ...] = SORTS
    slow: float = 1.0
    hold_ms: int = 800
    messages: int = 12
    gap_ms: int = 60
    overrides: dict[str, Any] = field(default_factory=dict)


def script(seed: int, number: int, shape: Shape) -> Script:
    """The script of the workflow with this number."""
    dice = random.Random(f"{seed}/{number}")
    sort = shape.sorts[number % len(shape.sorts)] if number < 2 * len(shape.sorts) else dice.choice(shape.sorts)
    return _MAKERS[sort](dice, f"{sort}-{number:05d}", seed, shape)


def _ms(dice: random.Random, shape: Shape, low: int, high: int) -> int:
    return round(dice.randint(low, high) * shape.slow)


def _order(dice: random.Random, workflow: str, seed: int, shape: Shape) -> Script:
    items = [
        {
            "name": f"item{i}", "ms": _ms(dice, shape, 0, 120), "flaky": dice.choice((0, 0, 40)),
            "value": dice.randint(1, 99), "light": dice.random() < 0.3,
        }
        for i in range(dice.randint(1, 5))
    ]  # fmt: skip
    order = {
        "id": workflow, "seed": seed, "price": dice.randint(1, 1000), "price_flaky": dice.choice((0, 50, 80)),
        "charge_ms": _ms(dice, shape, 10, 200), "decline": dice.random() < 0.15,
        "settle_ms": dice.choice((20, 200, 700)), "items": items, "stamp": dice.random() < 0.6,
        "letter": dice.random() < 0.4, "retry_late": dice.random() < 0.1,
        "hold_ms": dice.randint(0, shape.hold_ms),
    }  # fmt: skip
    if order["retry_late"]:
        order["price_flaky"] = 25  # with pauses of seconds, few of them
    order |= shape.overrides.get("order", {})
    # An order does not listen: to be asked to stop changes nothing.
    asked_after_ms = dice.randint(1, 800) if dice.random() < 0.15 else 0
    raw_start = dice.random() < 0.25
    # Servers of a run take 32 KB in a message.
    order.setdefault("bulk_kb", dice.randint(20, 200) if dice.random() < 0.3 else 0)
    return Script(workflow, "order", "chaos:order", order, asked_after_ms=asked_after_ms, raw_start=raw_start)


def _saga(dice: random.Random, workflow: str, seed: int, shape: Shape) -> Script:
    count = dice.randint(2, 6)
    declined = dice.randrange(count) if dice.random() < 0.5 else -1
    steps = [
        {
            "name": f"step{i}", "ms": _ms(dice, shape, 0, 100), "flaky": dice.choice((0, 30)), "decline": i == declined,
            "once": dice.random() < 0.25,
        }
        for i in range(count)
    ]  # fmt: skip
    for step in steps:
        if step["once"]:
            step["flaky"] = 0  # there is no second try
    saga = {
        "id": workflow, "seed": seed, "steps": steps, "pace_ms": dice.choice((10, 60, 250)), "undo_ms": _ms(dice, shape, 0, 60),
        "raise": dice.random() < 0.4,
    }  # fmt: skip
    saga |= shape.overrides.get("saga", {})
    asked_after_ms = dice.randint(50, 1500) if dice.random() < 0.25 else 0
    return Script(workflow, "saga", "chaos:saga", saga, asked_after_ms=asked_after_ms)


def _senders(dice: random.Random, shape: Shape, topics: bool) -> tuple[Sender, ...]:
    hows: tuple[How, ...] = ("client", "once", "bare", "client")
    return tuple(
        Sender(
            f"sender{i}", hows[i], "vote" if topics and i % 2 == 0 else "note", dice.randint(1, shape.messages),
            dice.randint(0, 2 * shape.gap_ms),
        )
        for i in range(dice.randint(1, len(hows)))
    )  # fmt: skip


def _approval(dice: random.Random, workflow: str, seed: int, shape: Shape) -> Script:
    closing: Closing = dice.choice(("last", "last", "last", "cancel", "kill", ""))
    topics = dice.random() < 0.4
    approval = {
        "id": workflow, "limit_ms": 3_600_000 if closing else dice.choice((300, 900, 2500)), "topics": topics,
    }  # fmt: skip
    approval |= shape.overrides.get("approval", {})
    return Script(
        workflow, "approval", "chaos:approval", approval, startup=dice.choice((0, 0, 3)),
        senders=_senders(dice, shape, topics), closing=closing,
    )  # fmt: skip


def _parent(dice: random.Random, workflow: str, seed: int, shape: Shape) -> Script:
    children = []
    for _ in range(dice.randint(1, 5)):
        kind = dice.choice(("leaf", "leaf", "echo", "echo", "linger", "left"))
        children.append(
            {
                "kind": kind, "ms": _ms(dice, shape, 0, 300), "value": dice.randint(1, 99),
                "decline": kind == "leaf" and dice.random() < 0.2, "messages": dice.randint(1, 12),
            }
        )  # fmt: skip
    parent = {"id": workflow, "seed": seed, "children": children, "exec": dice.choice((None, dice.randint(1, 99)))}
    parent |= shape.overrides.get("parent", {})
    return Script(workflow, "parent", "chaos:parent", parent)


def _counter(dice: random.Random, workflow: str, seed: int, shape: Shape) -> Script:
    counter = {"id": workflow, "seed": seed, "each": dice.choice((6, 11, 30)), "sleep_ms": dice.choice((5, 60, 700))}
    counter |= shape.overrides.get("counter", {})
    return Script(
        workflow, "counter", "chaos:counter", counter, startup=dice.choice((0, 2)),
        senders=_senders(dice, shape, topics=False), closing="last",
    )  # fmt: skip


_MAKERS: Final = {"order": _order, "saga": _saga, "approval": _approval, "parent": _parent, "counter": _counter}
