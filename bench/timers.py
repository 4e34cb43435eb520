"""Very many timers that are due at the same moment: how many of them a second are carried to the end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import anyio

from bench.load import ends, mark, start_many, stored_ends
from bench.processes import running_mesh
from bench.results import Results, Setup

# Starting them must be over by then: what is measured is waking.
AHEAD_S: Final = 3.0
PER_START_S: Final = 0.001
TIMEOUT_S: Final = 120.0


async def measure(setup: Setup, number: int, results: Results, progress: Callable[[str], None]) -> None:
    """Workflows that sleep until one moment and then end; the server has their timers."""
    async with running_mesh(setup) as mesh:
        await mesh.start_nodes(setup.nodes)
        ids = [f"t-{i}" for i in range(number)]
        begun = await mark(mesh.client)
        due_ns = time.time_ns() + round((AHEAD_S + number * PER_START_S) * 1e9)
        progress(f"{setup}: {number} timers that are due at once")
        async with ends(mesh.client) as heard:
            await start_many(mesh.client, "bench:alarm", [due_ns], ids)
            spare_s = (due_ns - time.time_ns()) / 1e9
            if spare_s < 0:
                results.failures.append(f"{setup}: starting {number} timers took {-spare_s:.1f} s too long")
            await anyio.sleep(max(spare_s, 0))
            before = mesh.cpu()
            await heard.wait(ids, TIMEOUT_S)
        ended = await stored_ends(mesh.client, begun, ids)
        late_ms = [(at_ns - due_ns) / 1e6 for at_ns in ended.values()]
        after = mesh.cpu()
        cpu = {who: round(after[who] - before[who], 3) for who in after}
        results.add("timers_per_s", [number / max(late_ms) * 1e3], setup, 0, cpu=cpu)
        results.add_percentiles("timer_late", late_ms, setup, 1)
