"""The part of one node in the roster, on a real server. What follows from the roster is in `test_ownership`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import anyio
import pytest

from mesh.buckets import Bucket
from mesh.connection import connect
from mesh.follower import Follower
from mesh.jetstream import JetStream
from mesh.membership import Claim
from mesh.roster import BUCKET, Roster
from mesh.subjects import bucket_key
from tests.conftest import ServerFactory
from tests.waiting import wait_until

NODE = "node-a"


@asynccontextmanager
async def a_roster(
    nats_server: ServerFactory, on_change: Callable[[], None] = lambda: None
) -> AsyncIterator[tuple[Roster, JetStream]]:
    """A node's roster that runs, and what else can look into the bucket."""
    numbers = count(1)
    async with connect(nats_server().url, name="test") as conn:
        js = JetStream(conn)
        roster = Roster(
            conn,
            js,
            node_id=NODE,
            incarnation=lambda: f"life {next(numbers)}",
            queues=frozenset({"orders"}),
            on_change=on_change,
        )
        async with anyio.create_task_group() as tasks:
            await tasks.start(roster.run)
            yield roster, js
            tasks.cancel_scope.cancel()


async def test_a_node_that_has_joined_knows_itself(nats_server: ServerFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who runs a service is one of the members that offer it: it would have none to begin with, and say so."""
    take = Follower._on_message

    def take_late(follower: Follower, *message: Any) -> None:
        asyncio.get_running_loop().call_later(0.2, take, follower, *message)

    monkeypatch.setattr(Follower, "_on_message", take_late)
    async with a_roster(nats_server) as (roster, _):
        assert [member.node_id for member in roster.members()] == [NODE]


async def test_a_node_that_renews_twice_at_once_is_not_lost_to_itself(nats_server: ServerFactory) -> None:
    """A second renewal that expects the key as it was before the first would end this incarnation and all its claims."""
    async with a_roster(nats_server) as (roster, _):
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(roster.announce_leaving)
        assert roster.me.incarnation == "life 1"
        assert roster.may_act()


async def test_a_node_that_has_left_does_not_come_back_with_a_renewal_under_way(nats_server: ServerFactory) -> None:
    """Its member key would stand for its whole life time, and the others would give it work."""
    async with a_roster(nats_server) as (roster, js):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(roster.announce_leaving)
            tasks.start_soon(roster.leave)
        assert await Bucket(js, BUCKET).get(f"member.{bucket_key(NODE)}") is None
        assert roster.me.incarnation == "life 1"


async def test_a_checkpoint_is_seen_and_is_no_change(nats_server: ServerFactory) -> None:
    """Every node writes some dozens of them a second, and all would think over who owns what each time."""
    changes: list[int] = []
    async with a_roster(nats_server, lambda: changes.append(1)) as (roster, _):
        held = await roster.claim(Claim("orders", 3, None, "", 0))
        assert held is not None
        await wait_until(lambda: changes)
        before = len(changes)
        for checkpoint in range(1, 31):
            held = await roster.save_checkpoint(held, checkpoint, ("busy",), 1000 + checkpoint)
            assert held is not None
        await wait_until(lambda: roster._claims == {("orders", 3): held})
        assert roster.busy(held) == ("busy",)
        assert (held.checkpoint, held.checkpoint_ns) == (30, 1030)
        # Its own member key is renewed meanwhile.
        assert len(changes) - before < 10
        await roster.release(held, 30, ())
        await wait_until(lambda: roster.claims()[0].node_id is None)
