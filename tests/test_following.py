"""What an owner hands over with a partition that it took over a moment ago."""

from __future__ import annotations

from pathlib import Path

from tests.apps import QUEUE, a_mesh, write_app
from tests.conftest import ServerFactory


async def test_runs_that_still_wait_to_be_loaded_are_handed_on(nats_server: ServerFactory, tmp_path: Path) -> None:
    """Nothing wakes them but an owner that loads them: one that is not told of them would leave them lying for ever."""
    app = write_app(tmp_path, workflows={"nothing": "return function() end"})
    async with a_mesh(nats_server().url, app) as mesh:
        engine = mesh.node.engines[QUEUE]
        waiting = ("one", "two")
        engine.partitions[0].attention.extend(waiting)

        handed_on = engine.drop(0)

        assert handed_on is not None
        assert handed_on[2] == waiting
