"""Hostile code as a workflow, a function and a process of a real node, with others beside it that must go on.

What each attempt alone may take is in tests/test_sandbox_stalls.py.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import anyio
import pytest

import mesh.client
from mesh.client import FunctionFailed, WorkflowFailed
from node.node import NodeConfig, running_node
from node.registry import load_registry
from tests.apps import WORKER, write_app
from tests.conftest import ServerFactory

HOSTILE: Final = {
    "joins": "local s = ('x'):rep(30 << 20) while true do local t = s .. 'y' end",
    "compares": "local s = '\\0' for i = 1, 22 do s = s .. s end local a, b = s .. 'a', s .. 'b' while a < b do end",
    "matches": "local s = ('a'):rep(3000) local p = ('a?'):rep(150) .. ('a'):rep(150) .. 'b' while true do s:match(p) end",
    "moves": "local t = {} while true do table.move(t, 1, 999999, 2) end",
    "allocates": "local t = {} while true do t[#t + 1] = {} end",
    "raises": "error(setmetatable({}, {__tostring = function() while true do end end}))",
    "closes": "local m = {__close = function() while true do end end} local x <close> = setmetatable({}, m) while true do end",
    "spawns": "while true do coroutine.spawn(function() time.sleep('1h') end) end",
}  # fmt: skip

# The event loop's own processor time between two beats: what a busy machine does to the others does not count.
BURST_S_MAX: Final = 1.0
BEAT_S: Final = 0.01

WITNESS: Final = "return function() local n = 0 while true do local m = process.inbox():receive() if m:topic() == 'stop' then return n end n = n + 1 end end"


async def _longest_burst(longest: list[float]) -> None:
    at = time.thread_time()
    while True:
        await anyio.sleep(BEAT_S)
        now = time.thread_time()
        longest[0] = max(longest[0], now - at)
        at = now


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", ["workflow", "function", "process"])
async def test_hostile_code_ends_alone_while_others_go_on(
    kind: str, nats_server: ServerFactory, tmp_path: Path
) -> None:
    """A node that is silent for a second is taken for gone, and its workflows with it."""
    bodies = {f"bad_{name}": f"return function() {body} end" for name, body in HOSTILE.items()}
    app = write_app(
        tmp_path,
        workflows={"witness": WITNESS, **(bodies if kind == "workflow" else {})},
        functions={
            "double": "return function(n) return 2 * n end",
            "run": "return function(name) local pid, err = process.spawn_monitored('app:' .. name, 'app:processes') "
            "if err then return 'not spawned: ' .. tostring(err) end local e = process.events():receive() "
            "return e.result.error and e.result.error:message() or 'no error' end",
            **(bodies if kind == "function" else {}),
        },
        processes={"idle": WITNESS, **(bodies if kind == "process" else {})},
    )
    url = nats_server().url
    longest = [0.0]
    async with (
        mesh.client.connect(url) as client,
        running_node(NodeConfig(url, node_id="a", partitions=2), load_registry(app, environ={})) as node,
        anyio.create_task_group() as tasks,
    ):
        witness = await client.start("app:witness", host=WORKER, id="witness")
        tasks.start_soon(_longest_burst, longest)
        told = {}
        for count, name in enumerate(HOSTILE, 1):
            with anyio.fail_after(60):
                if kind == "workflow":
                    with pytest.raises(WorkflowFailed) as failed:
                        await (await client.start(f"app:bad_{name}", host=WORKER, id=name)).result()
                    told[name] = str(failed.value)
                elif kind == "process":
                    told[name] = await client.call("app:run", f"bad_{name}")
                elif name in ("raises", "allocates", "spawns"):
                    # The others take a lane, a thread of its own, for as long as a function may compute.
                    with pytest.raises(FunctionFailed) as refused:
                        await client.call(f"app:bad_{name}")
                    told[name] = str(refused.value)
            await witness.signal("tick", count)
            assert await client.call("app:double", count) == 2 * count
        await witness.signal("stop")
        assert await witness.result(timeout_s=30) == len(HOSTILE)
        tasks.cancel_scope.cancel()
        await node.leave()
    assert "no error" not in told.values()
    assert not any(text.startswith("not spawned") for text in told.values()), told
    assert longest[0] < BURST_S_MAX
