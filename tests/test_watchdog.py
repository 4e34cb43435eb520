"""Code that nothing can interrupt: its node ends itself, the workflow is suspended everywhere, the others go on."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from mesh.client import WorkflowSuspended, connect
from mesh.events import MARK_STUCK
from mesh.roster import MEMBER_TTL_S, RENEW_EVERY_S
from node.watchdog import EXIT_STATUS, STUCK_S, is_stuck
from tests.apps import QUEUE, WORKER, write_app
from tests.cluster import a_node
from tests.conftest import ServerFactory
from tests.waiting import wait_until, wait_until_async

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


ROUNDS = 4  # of which one has to find the processor free


# Most of the instructions that a step may take, about 0.1 s.
TURNS = 4_000_000
HEAVY = f"""
return function()
  process.listen("go"):receive()
  local n = 0
  for i = 1, {TURNS} do n = n + i end
  return n
end
"""


@pytest.mark.parametrize(("worked_s", "stuck"), [(0.0, False), (1.9, False), (2.0, True), (60.0, True)])
def test_a_loop_is_stuck_when_one_turn_has_taken_so_much_of_the_processor(*, worked_s: float, stuck: bool) -> None:
    """However long it stands still: a process that was stopped, or that got no processor, works little."""
    assert is_stuck(worked_s, 2.0) is stuck


def test_a_node_ends_itself_before_others_can_take_over_what_it_is_stuck_in() -> None:
    """Whoever took it over would be stuck in its turn, and so on through the mesh."""
    assert STUCK_S + 0.2 <= MEMBER_TTL_S - RENEW_EVERY_S


@pytest.mark.timeout(90)
async def test_many_steps_that_each_keep_within_their_limit_do_not_make_a_node_stuck(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    """They come in together, and the loop turns between them: no node ends, and no workflow is marked."""
    url = nats_server().url
    app = write_app(tmp_path, workflows={"heavy": HEAVY})
    async with (
        connect(url) as client,
        a_node(app, url, node_id="a", arguments=("--stuck-after", "1s")) as node,
    ):
        handles = [await client.start("app:heavy", host=WORKER, id=f"heavy-{n}") for n in range(24)]
        async with anyio.create_task_group() as tasks:
            for handle in handles:
                tasks.start_soon(handle.signal, "go", 1)
        for handle in handles:
            assert await handle.result(timeout_s=60) == TURNS * (TURNS + 1) // 2
        assert node.returncode is None


@pytest.mark.timeout(240)
async def test_a_workflow_that_cannot_be_interrupted_costs_one_node_and_no_second(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    """Where the processor is free: where it is not, the lease may be over before. So the best of some rounds counts."""
    app = write_app(tmp_path, workflows={"endless": ENDLESS, "other": OTHER})
    costs = 2
    for _ in range(ROUNDS):
        if (costs := await _nodes_lost(nats_server().url, app)) == 1:
            break
    assert costs == 1


async def _nodes_lost(url: str, app: Path) -> int:
    """How many of two nodes the workflow costs; of one, all else is looked at, too."""
    arguments = ("--stuck-after", "400ms")
    async with (
        connect(url) as client,
        a_node(app, url, node_id="a", arguments=arguments) as first,
        a_node(app, url, node_id="b", arguments=arguments) as second,
    ):
        endless = await client.start("app:endless", host=WORKER, id="endless")
        others = [await client.start("app:other", host=WORKER, id=f"other-{n}") for n in range(8)]
        await endless.signal("go", 1)

        def both_ended() -> bool:
            return None not in (first.returncode, second.returncode)

        async def is_over() -> bool:
            return both_ended() or (await endless.describe()).status == "suspended"

        await wait_until_async(is_over, 60)
        if both_ended():
            return 2
        with pytest.raises(WorkflowSuspended, match="in one instruction that nothing can interrupt"):
            await endless.result(timeout_s=20)
        await wait_until(lambda: (first.returncode, second.returncode) != (None, None))
        ended, alive = (first, second) if first.returncode is not None else (second, first)
        assert ended.returncode == EXIT_STATUS
        assert "has computed for 0.4 s without a pause in workflow 'endless'" in ended.log()
        for other in others:
            await other.signal("go", other.id)
            assert await other.result(timeout_s=20) == other.id
        assert alive.returncode is None
        history = await client.get("endless", queue=QUEUE).history()
        assert [event.args[1] for event in history if event.kind == "mark"] == [MARK_STUCK]
        return 1
