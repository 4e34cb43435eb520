"""The module `events`: node-wide delivery, patterns, slow subscribers, events across the mesh.

Not here: how a node finds a unit by its pid (`Deliver`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from mesh.connection import Connection, connect
from mesh.subjects import event_subject, event_system
from node.modules.events import EventsModule, Pattern
from node.refusals import LINES_MAX
from tests.conftest import ServerFactory
from tests.units import Units, failure_of
from tests.waiting import wait_until, wait_until_async

READ_UNTIL_LAST = (
    "return function(system, kind) local s = events.subscribe(system, kind) local l = {} "
    "while true do local e = s:channel():receive() if e.path == 'last' then return l end l[#l + 1] = e.system .. '/' .. e.kind .. '/' .. e.path end end"
)
SEND = "return function(system, kind, path, data, options) local ok, err = events.send(system, kind, path, data, options) if err then return nil, err end return ok end"


def bus(conn: Connection | None = None, **limits: int) -> tuple[Units, EventsModule]:
    """A node's units with an event bus."""
    units = Units()
    module = EventsModule(units.deliver, conn, **limits)
    units.use("events", module)
    return units, module


async def test_an_event_has_plain_fields_and_goes_to_all_live_subscribers() -> None:
    units, _ = bus()
    source = "return function() return (events.subscribe('orders'):channel():receive()) end"
    first, second = await units.start(source), await units.start(source)
    assert await units.run(SEND, "orders", "created", "o/1", {"total": 5}) is True
    for unit in (first, second):
        await unit.settle()
        assert unit.result == {"system": "orders", "kind": "created", "path": "o/1", "data": {"total": 5}}


async def test_nothing_is_stored_for_those_who_subscribe_later() -> None:
    units, _ = bus()
    await units.run(SEND, "orders", "created", "before")
    unit = await units.start(READ_UNTIL_LAST, "orders")
    await units.run(SEND, "orders", "created", "after")
    await units.run(SEND, "orders", "end", "last")
    await unit.settle()
    assert unit.result == ["orders/created/after"]


@pytest.mark.parametrize(
    ("system", "kind", "got"),
    [
        (None, None, ["orders/created/1", "orders/deleted/2", "order/created/3", "stock/created/4"]),
        ("*", "*", ["orders/created/1", "orders/deleted/2", "order/created/3", "stock/created/4"]),
        ("orders", None, ["orders/created/1", "orders/deleted/2"]),
        ("order*", None, ["orders/created/1", "orders/deleted/2", "order/created/3"]),
        (None, "created", ["orders/created/1", "order/created/3", "stock/created/4"]),
        ("orders", "cr*", ["orders/created/1"]),
        ("orders", "create", []),
        ("o*s", None, []),
    ],
)
async def test_patterns_are_all_a_prefix_or_exact(system: str | None, kind: str | None, got: list[str]) -> None:
    units, _ = bus()
    unit = await units.start(READ_UNTIL_LAST, system, kind)
    for event in ("orders/created/1", "orders/deleted/2", "order/created/3", "stock/created/4"):
        await units.run(SEND, *event.split("/"))
    # The last one comes by hand: not every pattern lets it pass.
    units.deliver(unit.pid, "@events:1", {"system": "s", "kind": "k", "path": "last"})
    await unit.settle()
    assert unit.result == got


def test_a_star_inside_a_pattern_is_an_ordinary_character() -> None:
    assert Pattern.read("a*b").fits("a*b")
    assert not Pattern.read("a*b").fits("axb")


async def test_events_of_one_sender_arrive_in_order() -> None:
    units, _ = bus()
    unit = await units.start(READ_UNTIL_LAST, "s")
    await units.run(
        "return function() for i = 1, 50 do events.send('s', 'k', tostring(i)) end events.send('s', 'k', 'last') end"
    )
    await unit.settle()
    assert unit.result == [f"s/k/{i}" for i in range(1, 51)]


SLOW = (
    "return function(n) local s, go = events.subscribe('s'), events.subscribe('go') go:channel():receive() local l = {} "
    "for i = 1, n do l[i] = s:channel():receive().path end return l end"
)


@pytest.mark.parametrize(("sent", "lost"), [(64, 0), (65, 1), (70, 6)])
async def test_a_channel_holds_64_events_and_further_ones_are_dropped_with_one_log_line(sent: int, lost: int) -> None:
    units, _ = bus()
    unit = await units.start(SLOW, sent - lost)
    await units.run(
        "return function(n) for i = 1, n do events.send('s', 'k', tostring(i)) end events.send('go', 'k', 'p') end",
        sent,
    )
    await unit.settle()
    assert unit.result == [str(i) for i in range(1, sent - lost + 1)]
    assert [level for level, _ in unit.logs] == ["warn"] * (lost > 0)
    if lost:
        assert (
            unit.logs[0][1]
            == 'events.subscribe("s", "*"): the channel holds 64 events that nobody has read; further ones are dropped until it is read'
        )


async def test_each_time_the_channel_fills_up_there_is_one_line() -> None:
    units, _ = bus()
    unit = await units.start(
        "return function() local s, go = events.subscribe('s'), events.subscribe('go') "
        "for round = 1, 2 do go:channel():receive() for i = 1, 64 do s:channel():receive() end end return true end"
    )
    for _ in range(2):
        await units.run(
            "return function() for i = 1, 70 do events.send('s', 'k', 'p') end events.send('go', 'k', 'p') end"
        )
        await unit.settle()
    assert unit.result is True
    assert len(unit.logs) == 2


async def test_a_closed_subscription_gets_nothing_more_and_its_channel_gives_what_it_had() -> None:
    units, module = bus()
    unit = await units.start(
        "return function() local s, go = events.subscribe('s'), events.subscribe('go') go:channel():receive() local open = tostring(s) "
        "local closed = {s:close(), s:close()} local l = {} for e in function() return (s:channel():receive()) end do l[#l + 1] = e.path end "
        "go:channel():receive() return {open, closed, l, tostring(s), s:channel() == s:channel(), type(s)} end"
    )
    await units.run("return function() events.send('s', 'k', '1') events.send('go', 'k', 'p') end")
    await unit.settle()
    assert module.statistics() == {"subscriptions": 1, "units": 1}
    units.deliver(unit.pid, "@events:1", {"system": "s", "kind": "k", "path": "late"})
    await units.run("return function() events.send('s', 'k', '2') events.send('go', 'k', 'p') end")
    await unit.settle()
    assert unit.result == [
        "events.Subscription{}",
        [True, True],
        ["1"],
        "events.Subscription{closed}",
        True,
        "userdata",
    ]


async def test_the_subscriptions_of_a_unit_end_with_it() -> None:
    units, module = bus()
    assert await units.run("return function() events.subscribe() events.subscribe('x') return 1 end") == 1
    assert module.statistics() == {"subscriptions": 0, "units": 0}


async def test_internal_topics_never_reach_the_inbox_nor_unlisten() -> None:
    units, _ = bus()
    unit = await units.start(
        "return function() local inbox, s = process.inbox(), events.subscribe('s') process.unlisten(s:channel()) "
        "local r = channel.select{inbox:case_receive(), s:channel():case_receive()} return r.channel == s:channel() end"
    )
    await units.run(SEND, "s", "k", "p")
    await unit.settle()
    assert unit.result is True


@pytest.mark.parametrize(
    "call", ["subscribe('')", "subscribe('s', '')", "send('', 'k', 'p')", "send('s', '', 'p')", "send('s', 'k', '')"]
)
async def test_empty_texts_are_invalid(call: str) -> None:
    units, _ = bus()
    kind, text = failure_of(await units.run(f"return function() return events.{call} end"))
    assert (kind, "must not be empty" in text) == ("Invalid", True)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ("subscribe(5)", "bad argument #1 to 'subscribe' (string expected, got number)"),
        ("subscribe('s', {})", "bad argument #2 to 'subscribe' (string expected, got table)"),
        ("send()", "bad argument #1 to 'send' (string expected, got nil)"),
        ("send('s', 'k')", "bad argument #3 to 'send' (string expected, got nil)"),
        ("send('s', 'k', 'p', 1, true)", "bad argument #5 to 'send' (table expected, got boolean)"),
    ],
)  # fmt: skip
async def test_wrong_types_are_raised_at_the_caller(call: str, text: str) -> None:
    units, _ = bus()
    assert failure_of(await units.run(f"return function() events.{call} end")) == ("Internal", f"unit.lua:1: {text}")


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ("'s', 'k', 'p', 1, {mash = true}", "option mash is not known; there is mesh"),
        ("'s', 'k', 'p', 1, {mesh = 1}", "mesh must be true or false"),
        ("'s\\xff', 'k', 'p'", "system must be UTF-8 text"),
    ],
)  # fmt: skip
async def test_what_cannot_be_sent_says_why(args: str, text: str) -> None:
    units, _ = bus()
    kind, message = failure_of(await units.run(f"return function() return events.send({args}) end"))
    assert (kind, text in message) == ("Invalid", True), message


async def test_a_unit_may_have_so_many_subscriptions_and_not_one_more() -> None:
    units, _ = bus(per_unit_max=3)
    source = "return function(n) for i = 1, n do local s, err = events.subscribe('s') if err then return nil, err end end return n end"
    assert await units.run(source, 3) == 3
    kind, text = failure_of(await units.run(source, 4))
    assert (kind, text) == (
        "RateLimited",
        "events.subscribe: a unit may have 3 subscriptions; close what is not needed",
    )


async def test_without_a_mesh_nothing_can_be_sent_over_it() -> None:
    units, _ = bus()
    unit = await units.start(READ_UNTIL_LAST, "s")
    kind, _text = failure_of(await units.run(SEND, "s", "k", "p", None, {"mesh": True}))
    assert (kind, len(unit.arrived)) == ("Unavailable", 0)


# -- mesh --------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def nodes(url: str, count: int) -> AsyncIterator[list[Units]]:
    """Event buses of several nodes, each with a connection of its own, that hear each other."""
    async with anyio.create_task_group() as tasks:
        found = []
        for number in range(count):
            conn = await tasks.start(_connected, url, f"node {number}")
            units, module = bus(conn)
            await tasks.start(module.run)
            await conn.flush()
            found.append(units)
        yield found
        tasks.cancel_scope.cancel()


async def _connected(url: str, name: str, *, task_status: Any) -> None:
    async with connect(url, name=name) as conn:
        task_status.started(conn)
        await anyio.sleep_forever()


async def test_an_event_for_the_mesh_reaches_every_node_once(nats_server: ServerFactory) -> None:
    async with nodes(nats_server().url, 3) as [first, *others]:
        here = await first.start(READ_UNTIL_LAST, "a.b c")
        there = [await node.start(READ_UNTIL_LAST, "a.b c") for node in others]
        send = "return function() for i = 1, 20 do events.send('a.b c', 'k', tostring(i), {i}, {mesh = true}) end events.send('a.b c', 'k', 'last', nil, {mesh = true}) end"
        await first.run(send)
        for unit in there:
            await wait_until(lambda unit=unit: len(unit.arrived) == 21)  # type: ignore[misc]  # mypy cannot infer it
        # Behind all of the first node's own that could come back to it.
        await others[0].run(SEND, "a.b c", "k", "afterwards", None, {"mesh": True})
        await wait_until(lambda: here.arrived and here.arrived[-1][1]["path"] == "afterwards")
        assert len(here.arrived) == 22
        for unit in (here, *there):
            await unit.settle()
            assert unit.result == [f"a.b c/k/{i}" for i in range(1, 21)]


async def test_without_the_option_an_event_stays_on_its_node(nats_server: ServerFactory) -> None:
    async with nodes(nats_server().url, 2) as [first, second]:
        unit = await second.start(READ_UNTIL_LAST, "s")
        await first.run(SEND, "s", "k", "here")
        await first.run(SEND, "s", "k", "last", None, {"mesh": True})
        await wait_until(lambda: unit.arrived)
        await unit.settle()
        assert unit.result == []


async def test_others_may_publish_events_as_json_and_nonsense_does_no_harm(
    nats_server: ServerFactory, caplog: pytest.LogCaptureFixture
) -> None:
    url = nats_server().url
    async with nodes(url, 1) as [node], connect(url, name="other") as other:
        unit = await node.start("return function() return (events.subscribe('s'):channel():receive()) end")
        for nonsense in (
            b"",
            b"[1]",
            b'{"kind": "k"}',
            b'{"kind": 1, "path": "p"}',
            b"\xc1\xc1",
            b'{"kind": "", "path": "p"}',
        ):
            other.publish_nowait(event_subject("s"), nonsense)
        other.publish_nowait(event_subject("s"), b'{"kind": "k", "path": "p", "data": [1]}')
        await wait_until(lambda: unit.arrived)
        await unit.settle()
        assert unit.result == {"system": "s", "kind": "k", "path": "p", "data": [1]}
        # Six of them came: a few are told, the others are counted.
        assert caplog.text.count("is no event: it needs the texts kind and path") == LINES_MAX < 6


async def test_an_event_too_large_for_the_mesh_reaches_nobody(nats_server: ServerFactory) -> None:
    async with nodes(nats_server(config="max_payload: 2000").url, 1) as [node]:
        unit = await node.start(READ_UNTIL_LAST, "s")
        kind, _ = failure_of(await node.run(SEND, "s", "k", "p", "x" * 2000, {"mesh": True}))
        assert (kind, len(unit.arrived)) == ("Invalid", 0)
        kind, _ = failure_of(await node.run(SEND, "s" * 600, "k", "p", None, {"mesh": True}))
        assert kind == "Invalid"


async def test_without_a_connection_a_mesh_event_is_refused(nats_server: ServerFactory) -> None:
    server = nats_server()
    async with nodes(server.url, 1) as [node]:
        server.stop()
        send = "return function() local ok, err = events.send('s', 'k', 'p', nil, {mesh = true}) return err and {err:kind(), err:retryable()} end"

        async def is_refused() -> bool:
            return bool(
                await node.run(send) == ["Unavailable", True]
            )  # before the break is noticed it is sent into the void

        await wait_until_async(is_refused)


@pytest.mark.parametrize("system", ["orders", "a.b", "*", ">", "ä b", "x:y"])
def test_systems_survive_the_subject(system: str) -> None:
    assert event_system(event_subject(system)) == system
    assert len(event_subject(system).split(".")) == 3
