"""Which node a key or a partition belongs to, computed alike by everybody who sees the same nodes.

Highest random weight: every node gets a weight for every key from a hash, the heaviest one has it. Nothing is
stored and nobody is asked. When a node goes, only its own keys find a new place.

For the partitions of a queue that alone is too uneven (64 partitions over 3 nodes come out as 15, 22 and 27), so
`assign` gives every node an equal quota: all pairs of partition and node are visited from the heaviest down, and a
pair counts if the partition is still free and the node still has room. Visiting by weight instead of by partition
number gives no partition an advantage, and so a change of nodes upsets fewer places. The price of the quota is
that a join or a leave moves a few partitions more than the least possible number; the test says how many.

Not here: who is alive, and who has claimed what (`mesh.membership`). Weights must never change between releases:
two nodes with different weights would hand partitions to and fro for ever.

Invariants: the order in which nodes are given does not matter; loads differ by at most one partition.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import NewType

NodeId = NewType("NodeId", str)

# 64 bits: two nodes with equal weight for a key do not happen in practice, and if so their ids decide.
WEIGHT_BYTES = 8


def owner(key: str, nodes: Collection[NodeId]) -> NodeId:
    """Return the node with the highest weight for this key. Raises ValueError when there are no nodes."""
    if not nodes:
        raise ValueError(f"nobody can own {key!r}: there are no nodes")
    return max(nodes, key=lambda node: (_weight(key, node), node))


def assign(partitions: int, queue: str, nodes: Collection[NodeId]) -> dict[int, NodeId]:
    """Spread partitions 0 to `partitions` - 1 of a queue over the nodes, evenly.

    Every node gets `partitions` // N, and `partitions` % N of them get one more. Empty when there are no nodes.
    """
    ids = sorted(set(nodes))
    if not ids:
        return {}
    quota, with_one_more = divmod(partitions, len(ids))
    load = dict.fromkeys(ids, 0)
    assigned: dict[int, NodeId] = {}
    for _, partition, node in _heaviest_first(partitions, queue, ids):
        if partition in assigned:
            continue
        if load[node] == quota and with_one_more > 0:
            with_one_more -= 1
        elif load[node] >= quota:
            continue
        load[node] += 1
        assigned[partition] = node
    return dict(sorted(assigned.items()))


def _heaviest_first(partitions: int, queue: str, nodes: Collection[NodeId]) -> list[tuple[int, int, NodeId]]:
    pairs = [
        (_weight(f"{queue}/{partition}", node), partition, node) for partition in range(partitions) for node in nodes
    ]
    pairs.sort(reverse=True)
    return pairs


def _weight(key: str, node: NodeId) -> int:
    digest = hashlib.blake2b(digest_size=WEIGHT_BYTES)
    for text in (key, node):
        # The length goes first, so that ("a", "bc") and ("ab", "c") are different.
        raw = text.encode("utf-8", "surrogateescape")
        digest.update(len(raw).to_bytes(4, "big"))
        digest.update(raw)
    return int.from_bytes(digest.digest(), "big")
