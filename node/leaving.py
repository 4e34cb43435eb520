"""How a node leaves the mesh: politely, in the reverse order of its start.

It says that it leaves, hands its partitions over with their checkpoints, stops its services, ends its processes,
finishes its calls, and goes. What does not end in time is left to the others to find out.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import anyio

from mesh.errors import TEMPORARY, PayloadTooLarge, RequestTimeout
from mesh.failure import Failure, Kind
from mesh.pids import TOPOLOGY

if TYPE_CHECKING:
    from mesh.presence import Presence
    from node.node import Node

ANNOUNCE_S: Final = 5.0  # longer than a server takes that is there
DRAIN_TIMEOUT_S: Final = 10.0
CANCEL_GRACE_S: Final = 1.0  # for processes that nobody supervises, when their node leaves
LAST_WORDS_S: Final = 1.0  # for output that nobody takes

_log = logging.getLogger(__name__)


async def leave(node: Node) -> None:
    """Hand everything over and finish what is under way. The node is of no use afterwards."""
    _log.info("node %s leaves", node.id)
    if node.presence is not None:
        await _leave_functions(node, node.presence)
        return
    node.ownership.leave()
    try:
        await _announce(node)
        await node.ownership.give_back_all()  # first: the workflows stand still until others have them
        await node.intake.drain()
        if node.api is not None:
            await node.api.drain()
        await _end_processes(node)
        if node.functions is not None:
            await node.functions.drain(DRAIN_TIMEOUT_S)
        with anyio.move_on_after(LAST_WORDS_S):
            await node.modules.io.flush()
        await node.outbox.flush(DRAIN_TIMEOUT_S)
        await node.roster.leave()
    except* (*TEMPORARY, PayloadTooLarge) as group:
        _log.warning("node %s leaves without handing over, the others find out: %s", node.id, group.exceptions[0])


async def _announce(node: Node) -> None:
    """Say that it leaves. Raises RequestTimeout.

    One whose lease is over would join again before, and that waits for a server for as long as there is none.
    """
    with anyio.move_on_after(ANNOUNCE_S):
        await node.roster.announce_leaving()
        return
    raise RequestTimeout(f"the word that node {node.id} leaves", ANNOUNCE_S)


async def _leave_functions(node: Node, presence: Presence) -> None:
    """A node that serves functions only finishes them; nobody is told before, for calls go to others at once."""
    try:
        if node.functions is not None:
            await node.functions.drain(DRAIN_TIMEOUT_S)
        with anyio.move_on_after(LAST_WORDS_S):
            await node.modules.io.flush()
        await node.outbox.flush(DRAIN_TIMEOUT_S)
        await presence.leave()
    except* (*TEMPORARY, PayloadTooLarge) as group:
        _log.warning("node %s leaves without finishing, the callers find out: %s", node.id, group.exceptions[0])


async def _end_processes(node: Node) -> None:
    """Stop the services in order, then ask all other processes to stop, then end what is left."""
    await node.modules.queues.drain(DRAIN_TIMEOUT_S)
    await node.serving.stop()
    with anyio.move_on_after(DRAIN_TIMEOUT_S):
        await node.placing.give_up()
    for unit in node.processes.units:
        unit.post("cancel", None, b"node leaving", TOPOLOGY.encode())
    with anyio.move_on_after(CANCEL_GRACE_S):
        while node.processes.running:  # noqa: ASYNC110 - a last look around, not worth an event for each end
            await anyio.sleep(0.02)
    for unit in node.processes.units:
        unit.kill(Failure("process terminated: its node has left", Kind.UNAVAILABLE))
