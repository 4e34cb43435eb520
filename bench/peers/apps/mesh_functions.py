"""The step of moonmesh that logs on its own side."""

from __future__ import annotations

import asyncio

from bench.peers.workload import log_step


async def paced_step(workflow_id: str, number: int, pace_ms: int) -> int:
    """Say that it began, and take a while."""
    log_step(workflow_id, number)
    await asyncio.sleep(pace_ms / 1e3)
    return number
