"""A partition that this node owns: how far it was read, and what is still to be done after its takeover.

Values only; who follows it is in `node.workflows.following`, who loads its runs in `node.workflows.loading`.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import anyio

from mesh.membership import Claim
from store.catchup import CatchUp


class Lost(NamedTuple):
    """What the server has lost of a stream: something after `last_seq`, up to what had been seen."""

    last_seq: int
    seen_seq: int


class Partition:
    """A partition that this node owns."""

    __slots__ = (
        "attended", "attention", "catchup", "claim", "epoch", "handed_over", "handled_ns", "handled_seq", "heard_seq",
        "live_seq", "loading", "lost", "number", "pending", "saved_busy", "saved_seq", "scope", "stopped", "taken_s",
    )  # fmt: skip

    def __init__(self, claim: Claim, busy: tuple[str, ...], *, handed_over: bool) -> None:
        self.number = claim.partition
        self.claim = claim
        self.handled_seq, self.handled_ns = claim.checkpoint, claim.checkpoint_ns
        self.saved_seq, self.saved_busy = claim.checkpoint, busy  # as the claim has it
        self.catchup: CatchUp | None = CatchUp(busy)
        self.scope = anyio.CancelScope()
        self.stopped = False
        # What came after this was first seen by this owner. One that handed over says where it had come to; after a
        # crash its checkpoint is older than that.
        self.live_seq = claim.checkpoint if handed_over else None
        self.attention: deque[str] = deque()  # id tokens of the runs still to be loaded after the takeover
        self.attended = False  # whether somebody is loading them
        # Up to here the owner before has handled everything: what came after it is counted by this one.
        self.heard_seq = claim.checkpoint
        self.handed_over = handed_over
        self.taken_s = 0.0  # when this node began to take it over, by the loop's clock; 0 once that is done
        self.pending = 0  # messages behind the one handled last, as the server knew when it sent that
        self.loading = 0
        # Workflows that had seen events which the server has lost since, until they are loaded.
        self.lost: dict[str, Lost] = {}
        self.epoch = 0  # grows when everything is read anew; what was read before is dropped
