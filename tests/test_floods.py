"""A stranger who may write signals writes as many as he can: what he means stays alive, and the others go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mesh.connection import Connection
from mesh.history import History
from tests.apps import QUEUE, a_mesh, write_app
from tests.conftest import ServerFactory
from tests.waiting import wait_until

SIGNALS = 4000
WORKFLOWS = {
    "order": "return function() for i = 1, 3 do funcs.call('app:pay') end return 'paid' end",
    "deaf": "return function() process.listen('never'):receive() end",
}
FUNCTIONS = {"pay": "return function() return 1 end"}


async def flood(conn: Connection, workflow_id: str) -> None:
    for n in range(SIGNALS):
        conn.publish_nowait(f"mesh.wf.{QUEUE}.{workflow_id}.signal.t", b"%d" % n)
        if n % 500 == 0:
            await conn.flush()
    await conn.flush()


async def test_signals_to_a_workflow_that_is_not_there_are_looked_at_together(
    nats_server: ServerFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them alone would have the history read, and be a reason to take in all the others anew."""
    looks = 0
    only_run = History.only_run

    async def counted(self: History, key: Any, at_least: int) -> Any:
        nonlocal looks
        looks += key.id in ("nobody", "later")
        return await only_run(self, key, at_least)

    monkeypatch.setattr(History, "only_run", counted)
    app = write_app(tmp_path, workflows=WORKFLOWS, functions=FUNCTIONS)
    async with a_mesh(nats_server().url, app) as mesh:
        engine = mesh.node.engines[QUEUE]
        await flood(mesh.client.conn, "nobody")
        assert await mesh.run("order") == "paid"

        def is_idle() -> bool:
            return "nobody" not in {instance.key.id for instance in engine._by_token.values()}

        await wait_until(is_idle)
        assert 0 < looks < SIGNALS // 20
        # One that starts after them runs, and is sent only what comes after its start.
        deaf = await mesh.start("deaf", id="nobody")
        await deaf.signal("t", 1)
        assert await mesh.kinds("nobody") == ["start", "signal"]


async def test_a_flood_of_signals_ends_nobody_and_others_go_on(nats_server: ServerFactory, tmp_path: Path) -> None:
    app = write_app(tmp_path, workflows=WORKFLOWS, functions=FUNCTIONS)
    async with a_mesh(nats_server().url, app) as mesh:
        deaf = await mesh.start("deaf", id="deaf")
        await flood(mesh.client.conn, "deaf")
        assert await mesh.run("order") == "paid"
        assert (await deaf.describe()).status == "running"
        await deaf.cancel()
        await deaf.terminate()
        assert (await mesh.kinds("deaf")).count("signal") == SIGNALS
