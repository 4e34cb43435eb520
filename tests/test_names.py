"""Registered names of the whole mesh: one holder, for as long as its node lives."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from mesh.buckets import Bucket
from mesh.connection import Connection, connect
from mesh.jetstream import JetStream
from mesh.pids import ProcessPid, WorkflowPid, node_id_fault, parse_pid
from node.units.names import BUCKET, LocalNames, MeshNames, NameTaken, Scope
from tests.conftest import ServerFactory
from tests.waiting import wait_until

A, B = "{a@app:h|0x0000000a00001}", "{b@app:h|0x0000000b00001}"


@asynccontextmanager
async def some_names(
    conn: Connection, node_id: str, alive: set[str], changed: list[str] | None = None
) -> AsyncIterator[MeshNames]:
    def on_change(name: str) -> None:
        if changed is not None:
            changed.append(name)

    names = MeshNames(
        conn, JetStream(conn), node_id, is_alive=lambda pid: pid.node in alive, on_change=on_change
    )  # fmt: skip
    async with anyio.create_task_group() as tasks:
        await tasks.start(names.run)
        yield names
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("scope", [Scope.EVENTUAL, Scope.CONSISTENT, Scope.STRONG])
async def test_a_name_has_one_holder_on_the_mesh(nats_server: ServerFactory, scope: Scope) -> None:
    alive = {"a", "b"}
    async with (
        connect(nats_server().url, name="t") as conn,
        some_names(conn, "a", alive) as on_a,
        some_names(conn, "b", alive) as on_b,
    ):
        await on_a.register("n", A, scope)
        await on_a.register("n", A, scope)
        with pytest.raises(NameTaken, match="name already registered: n"):
            await on_b.register("n", B, scope)
        assert await on_b.get_fresh("n") == A
        assert not await on_b.unregister("n", B, scope)
        assert await on_a.unregister("n", A, scope)
        assert not await on_a.unregister("n", A, scope)
        await on_b.register("n", B, scope)
        await wait_until(lambda: on_a.get("n") == B)


async def test_consistent_names_come_before_eventual_ones(nats_server: ServerFactory) -> None:
    async with connect(nats_server().url, name="t") as conn, some_names(conn, "a", {"a", "b"}) as names:
        await names.register("n", A, Scope.EVENTUAL)
        assert names.get("n") == A
        await names.register("n", B, Scope.STRONG)
        assert names.get("n") == B
        assert (names.holder("n", Scope.EVENTUAL), names.holder("n", Scope.CONSISTENT)) == (A, B)


async def test_a_name_goes_with_its_node_and_is_purged(nats_server: ServerFactory) -> None:
    """The node is really gone: one that is only taken for gone takes its names back."""
    alive = {"a", "b"}
    async with connect(nats_server().url, name="t") as conn, some_names(conn, "b", alive) as on_b:
        async with some_names(conn, "a", alive) as on_a:
            await on_a.register("n", A, Scope.CONSISTENT)
            await on_a.register("m", A, Scope.CONSISTENT)
            await wait_until(lambda: on_b.get("m") == A)
        alive.discard("a")
        assert on_b.get("n") is None
        await on_b.register("n", B, Scope.CONSISTENT)
        await on_b.purge()
        left = await Bucket(JetStream(conn), BUCKET).entries()
        assert [entry.key for entry in left] == ["s.n"]


async def test_all_names_of_a_process_are_free_when_release_returns(nats_server: ServerFactory) -> None:
    async with (
        connect(nats_server().url, name="t") as conn,
        some_names(conn, "a", {"a", "b"}) as on_a,
        some_names(conn, "b", {"a", "b"}) as on_b,
    ):
        for name in ("x", "y.z", "with blank", "ü"):
            await on_a.register(name, A, Scope.STRONG)
        assert on_a.has_names(A)
        await on_a.release(A)
        assert not on_a.has_names(A)
        for name in ("x", "y.z", "with blank", "ü"):
            assert on_a.get(name) is None
            await on_b.register(name, B, Scope.STRONG)


async def test_the_end_of_a_process_is_known_before_the_deletion_of_its_name_is_seen(
    nats_server: ServerFactory,
) -> None:
    """Whoever sees EXIT must not find the name any more, though the bucket's news may come later."""
    changed: list[str] = []
    async with (
        connect(nats_server().url, name="t") as conn,
        some_names(conn, "a", {"a"}) as on_a,
        some_names(conn, "b", {"a"}, changed) as on_b,
    ):
        await on_a.register("n", A, Scope.STRONG)
        await wait_until(lambda: on_b.get("n") == A)
        changed.clear()
        on_b.forget(A)
        assert (on_b.get("n"), changed) == (None, ["n"])


async def test_a_name_that_others_took_away_is_registered_again(nats_server: ServerFactory) -> None:
    """A node that was taken for gone comes back: what nobody has taken meanwhile is its own again."""
    alive = {"a", "b"}
    async with (
        connect(nats_server().url, name="t") as conn,
        some_names(conn, "a", {"a", "b"}) as on_a,
        some_names(conn, "b", alive) as on_b,
    ):
        await on_a.register("kept", A, Scope.STRONG)
        await on_a.register("lost", A, Scope.STRONG)
        await wait_until(lambda: on_b.get("kept") == on_b.get("lost") == A)
        alive.discard("a")
        await on_b.register("lost", B, Scope.STRONG)
        await on_b.purge()
        alive.add("a")
        await wait_until(lambda: on_b.get("kept") == A)
        await wait_until(lambda: on_a.get("lost") == B)


def test_local_names() -> None:
    names = LocalNames()
    names.register("n", A)
    names.register("n", A)
    names.register("m", A)
    with pytest.raises(NameTaken):
        names.register("n", B)
    assert names.unregister("m")
    assert not names.unregister("m")
    names.register("m", A)
    assert (names.release(A), names.release(A), names.get("n")) == (("n", "m"), (), None)


@pytest.mark.parametrize(
    ("text", "pid"),
    [
        ("{a@app:h|0x0123456700001}", ProcessPid("a", "app:h", "0x0123456700001")),
        ("{app:h|0x00001}", ProcessPid("", "app:h", "0x00001")),
        ("{app:c@app:w|order|7}", WorkflowPid("app:c", "app:w", "order|7")),
        ("{|topology}", ProcessPid("", "", "topology")),
        ("{a@|x}", None),
        ("{@app:h|x}", None),
        ("{a@app:h|}", None),
        ("{a@app:h}", None),
        ("name", None),
        ("", None),
    ],
)
def test_pids(text: str, pid: ProcessPid | WorkflowPid | None) -> None:
    parsed = parse_pid(text)
    assert parsed == pid
    if pid is not None:
        assert str(pid) == text


def test_a_nodes_name_may_not_break_its_pids() -> None:
    assert node_id_fault("node-1") is None
    assert "may not contain : |" in str(node_id_fault("a:b|c"))
