"""A million finished workflows in a projection: how quickly they get in, and how quickly any page of them is found."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final

from mesh.events import EndRecord, Event, Parent, StartSpec
from mesh.listing import ORDER_DEFAULT, ListPage, ListQuery
from store.projecting import BATCH_EVENTS
from store.projection import Projection, open_projection
from store.projection_file import QueryTooSlow
from store.search import read_cursor, write_cursor

NOW_NS: Final = 1_800_000_000_000_000_000
TYPES: Final = [f"shop.{area}:{name}" for area in ("orders", "stock") for name in "abcde"]
QUEUES: Final = ("orders", "stock")


@dataclass(slots=True)
class ProjectionFigures:
    """values: as the report has them. pages: milliseconds of each query, by what it is. plans: SQLite's words."""

    values: dict[str, float] = field(default_factory=dict)
    pages: dict[str, float] = field(default_factory=dict)
    plans: dict[str, list[str]] = field(default_factory=dict)

    def slow(self, ms: float) -> list[str]:
        """What took longer than this, the slowest first, with how it was done."""
        found = sorted(((took, name) for name, took in self.pages.items() if took > ms), reverse=True)
        return [f"{took:,.0f} ms: {name} ({'; '.join(self.plans.get(name, ()))})" for took, name in found]


def events(count: int, queue: int, seed: int = 1) -> Iterator[Event]:
    """The starts and ends of so many workflows of a queue, as their stream has them: each ends some time later."""
    draw = random.Random(seed + queue)
    seq = 0
    step_ns = 30 * 86_400 * 1_000_000_000 // max(count, 1)
    for i in range(count):
        at_ns = NOW_NS - 30 * 86_400 * 1_000_000_000 + i * step_ns
        # Two that share no run, though half of all have the one and half the other.
        region = "eu" if i < count // 2 else "us"
        tier = "gold" if i >= count // 2 else "free"
        total = draw.randrange(100_000)
        attrs: dict[str, Any] = {
            "customer": f"c-{draw.randrange(max(count // 20, 1))}", "region": region, "tier": tier,
            "total": total, "weight": 100_000 - total, "paid": draw.random() < 0.999,
        }  # fmt: skip
        if draw.random() < 0.001:
            attrs["tags"] = ["urgent", f"tag-{draw.randrange(5)}"]
        parent = Parent(QUEUES[queue], f"order-{i // 2:07d}", 1, 1) if draw.random() < 0.05 else None
        spec = StartSpec(
            workflow=draw.choice(TYPES), attrs=attrs, memo={"comment": f"order number {i}"}, parent=parent,
            attempt=1 + (draw.random() < 0.01),
        )  # fmt: skip
        seq += 1
        run = seq
        token = f"order-{draw.randrange(10**9):09d}-{i}"
        yield Event("start", token, run, at_ns, [], spec.encode(), None)
        seq += 1
        status = draw.choices(("completed", "failed", "canceled", "terminated", "timed-out"), (950, 40, 8, 1, 1))[0]
        took_ns = int(draw.expovariate(1 / 60) * 1e9) + 1_000_000
        yield Event("end", token, seq, at_ns + took_ns, [str(run)], EndRecord(status).encode(), None)


def fill(projection: Projection, workflows: int, progress: Callable[[str], None]) -> float:
    """Write finished workflows through the projection's writing API; return how many a second."""
    begun = time.perf_counter()
    in_hand_s = 0.0
    for number, queue in enumerate(QUEUES):
        projection.begin(queue, "bench")
        batch: list[Event] = []
        done = 0
        made = time.perf_counter()
        for event in events(workflows // len(QUEUES), number):
            batch.append(event)
            if len(batch) == BATCH_EVENTS:
                in_hand_s += time.perf_counter() - made
                projection.take_in(queue, batch, batch[-1].seq, batch[-1].at_ns)
                made = time.perf_counter()
                done += len(batch) // 2
                batch = []
                if done % 100_000 == 0:
                    progress(f"{done:,} workflows of queue {queue}, {time.perf_counter() - begun:.0f} s")
        if batch:
            projection.take_in(queue, batch, batch[-1].seq, batch[-1].at_ns)
    # Without the time it took to make up the events.
    return workflows / (time.perf_counter() - begun - in_hand_s)


def queries() -> dict[str, ListQuery]:
    """What is asked, by what it is."""
    where = {
        "the newest": "",
        "an attribute that few have": 'attrs.customer = "c-7"',
        "an attribute that half have": "attrs.region = eu",
        "two attributes that half have each, and no run both": "attrs.region = eu and attrs.tier = gold",
        "two attributes that half have each, and nearly no other": "attrs.region = us and not attrs.tier = gold",
        "no attribute that nearly all have": "attrs.paid != true",
        "a number in a narrow range": "attrs.total > 99990",
        "a number in a wide range": "attrs.total > 1000",
        "two numbers' ranges that exclude each other": "attrs.total > 60000 and attrs.total < 40000",
        "an attribute that few have at all": "attrs.tags != null",
        "without an attribute that all have": "attrs.customer = null",
        "an element of a list": "attrs.tags = urgent",
        "an attribute's beginning": "attrs.customer like 'c-12*'",
        "an attribute's end": "attrs.customer like '*77'",
        "an attribute's middle, of none": "attrs.customer like '*-none-*'",
        "a note nobody has": "memo.comment = none",
        "failed, long, lately": "status = failed and duration > 5m and started > -2d",
        "nothing: excluded by type": "status = failed and type = 'shop.none:x'",
        "nothing: type and time": "type = 'shop.orders:a' and started > 2027-12-31 and ended < 2020-01-01",
        "either of two rare things": "attrs.customer = c-7 or attrs.customer = c-8",
        "either of two unlike things": "attrs.customer = c-7 or (status = timed-out and attempt > 1)",
        "an id's middle": "id like '*-123456*'",
        "children of one": "parent = 'order-0000007'",
        "all that have a parent": "parent != null",
        "type, status and attribute": "type = 'shop.stock:c' and status = failed and attrs.region = us",
        "no type but one": "type != 'shop.orders:a' and status != completed and attrs.region != us",
    }
    found = {name: ListQuery(where=text) for name, text in where.items()}
    found["running, of which there are none"] = ListQuery(status=("running",))
    found["beginning of an id"] = ListQuery(id="order-00012")
    found["beginning of all ids"] = ListQuery(id="order-")
    found["a thousand on a page"] = ListQuery(limit=1000)
    found["oldest first"] = ListQuery(order="started")
    return found


def hard_queries() -> dict[str, ListQuery]:
    """What no index helps with: ranges of several attributes, each with very many runs, and hardly any with all."""
    where = {
        "ranges of two attributes that exclude each other": "attrs.total > 60000 and attrs.weight > 60000",
        "ranges of two attributes that most runs are in": "attrs.total > 1000 and attrs.weight > 1000",
    }
    return {name: ListQuery(where=text) for name, text in where.items()}


def measure(
    workflows: int, repetitions: int, progress: Callable[[str], None], path: Path | None = None
) -> ProjectionFigures:
    """Fill a projection and ask it. path: keep the file there, and use the one that is there."""
    figures = ProjectionFigures()
    with tempfile.TemporaryDirectory(prefix="mesh-bench-") as directory:
        file = path or Path(directory) / "projection.sqlite3"
        there = file.exists()
        projection = open_projection(file)
        try:
            if not there:
                figures.values["ingested_per_s"] = fill(projection, workflows, progress)
            figures.values["projection_mb"] = (
                sum(part.stat().st_size for part in file.parent.glob(f"{file.name}*")) / 1e6
            )
            _ask(projection, repetitions, figures, progress)
        finally:
            projection.close()
    return figures


def _ask(projection: Projection, repetitions: int, figures: ProjectionFigures, progress: Callable[[str], None]) -> None:
    last = _page_at_the_end(projection)
    for title, queries_ in (("page", queries() | {"the last page": last}), ("hard_page", hard_queries())):
        asked = _in_orders(queries_)
        progress(f"{len(asked)} queries, each {repetitions} times")
        took: dict[str, float] = {}
        for name, query in asked.items():
            took[name] = _median_ms(partial(projection.page, query, NOW_NS), repetitions)
            figures.plans[name] = projection.plan(query, NOW_NS)[1]
        figures.pages |= took
        figures.values[f"{title}_median_ms"] = median(took.values())
        figures.values[f"{title}_worst_ms"] = max(took.values())
    figures.values["counts_ms"] = _median_ms(projection.counts, repetitions)


def _in_orders(queries_: dict[str, ListQuery]) -> dict[str, ListQuery]:
    """Each of them in every order, but those that are about one."""
    asked: dict[str, ListQuery] = {}
    for name, query in queries_.items():
        orders = (
            (query.order,) if query.order != ORDER_DEFAULT or query.cursor else ("-started", "-ended", "duration", "id")
        )
        asked |= {f"{name}, order {order}": replace(query, order=order) for order in orders}
    return asked


def _page_at_the_end(projection: Projection) -> ListQuery:
    """The query of the last page but the pages before: its cursor is taken from the other end."""
    forward = ListQuery(order="started", limit=20)
    page = projection.page(forward, NOW_NS)
    place = read_cursor(replace(forward, cursor=page.next))
    query = ListQuery(order=ORDER_DEFAULT)
    return replace(query, cursor=write_cursor(query, place)) if place is not None else query


def _median_ms(ask: Callable[[], ListPage | object], repetitions: int) -> float:
    took = []
    for _ in range(repetitions):
        begun = time.perf_counter()
        with suppress(QueryTooSlow):  # its limit is its figure
            ask()
        took.append((time.perf_counter() - begun) * 1e3)
    return median(took)
