"""When a node gives memory back that its workflows have left."""

from __future__ import annotations

from node.workflows.slack import EVERY_S, EVICTIONS_MIN, Slack


async def test_memory_is_given_back_after_many_evictions_and_not_all_the_time() -> None:
    slack = Slack()
    assert not await slack.give_back(EVICTIONS_MIN - 1, 0.0)
    assert await slack.give_back(EVICTIONS_MIN, 0.0)
    assert not await slack.give_back(2 * EVICTIONS_MIN - 1, EVERY_S)
    assert not await slack.give_back(2 * EVICTIONS_MIN, EVERY_S - 0.1)
    assert await slack.give_back(2 * EVICTIONS_MIN, EVERY_S)
