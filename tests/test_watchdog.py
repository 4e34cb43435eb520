"""Code that nothing can interrupt: its node ends itself, the workflow is suspended everywhere, the others go on."""

from __future__ import annotations

from pathlib import Path

import pytest

from mesh.client import WorkflowSuspended, connect
from mesh.events import MARK_STUCK
from node.watchdog import EXIT_STATUS, is_stuck
from tests.apps import QUEUE, WORKER, write_app
from tests.cluster import a_node
from tests.conftest import ServerFactory
from tests.waiting import wait_until

# One instruction of Lua 5.4, which goes round for ever.
ENDLESS = """
return function()
  process.listen("go"):receive()
  local meta = {}
  local t = setmetatable({}, meta)
  meta.__call = t
  return t()
end
"""
OTHER = "return function() local m = process.listen('go'):receive() return m end"


@pytest.mark.parametrize(
    ("stands_still_s", "busy_s", "stuck"),
    [(9.9, 9.9, False), (10.0, 9.0, True), (100.0, 4.9, False), (100.0, 0.0, False), (0.4, 0.4, False)],
)
def test_a_loop_is_stuck_when_it_stands_still_and_works(*, stands_still_s: float, busy_s: float, stuck: bool) -> None:
    """A process that was stopped, or that got no processor, works little."""
    assert is_stuck(stands_still_s, busy_s, 10.0) is stuck


@pytest.mark.timeout(90)
async def test_a_workflow_that_cannot_be_interrupted_costs_one_node_and_no_second(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    url = nats_server().url
    app = write_app(tmp_path, workflows={"endless": ENDLESS, "other": OTHER})
    arguments = ("--stuck-after", "1s")
    async with (
        connect(url) as client,
        a_node(app, url, node_id="a", arguments=arguments) as first,
        a_node(app, url, node_id="b", arguments=arguments) as second,
    ):
        endless = await client.start("app:endless", host=WORKER, id="endless")
        others = [await client.start("app:other", host=WORKER, id=f"other-{n}") for n in range(8)]
        await endless.signal("go", 1)
        with pytest.raises(WorkflowSuspended, match="in one instruction that nothing can interrupt"):
            await endless.result(timeout_s=60)
        await wait_until(lambda: (first.returncode, second.returncode) != (None, None))
        ended, alive = (first, second) if first.returncode is not None else (second, first)
        assert ended.returncode == EXIT_STATUS
        assert "has stood still for 1 s in workflow 'endless'" in ended.log()
        for other in others:
            await other.signal("go", other.id)
            assert await other.result(timeout_s=20) == other.id
        assert alive.returncode is None
        history = await client.get("endless", queue=QUEUE).history()
        assert [event.args[1] for event in history if event.kind == "mark"] == [MARK_STUCK]
