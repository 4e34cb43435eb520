"""The children of one run: workflows that its code has started and whose end it has not been told of.

Pure. A child goes by the number of the op that started it. Starting and stopping is done in `node.workflows.others`.

Invariants:
  * a child is in `by_n` from when its start is recorded until its end is;
  * an answer that waits for the end of a child is handed out right after that end, and never without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mesh import codec
from node.workflows.ops import ChildAtEnd, OpState


class Children:
    """The children of a run that have not ended."""

    def __init__(self) -> None:
        self.by_n: dict[int, OpState] = {}
        # Requests to stop that were delivered and whose answer waits for the child's end, by the op that started it.
        self._asked: dict[int, list[tuple[OpState, bytes]]] = {}

    def started(self, op: OpState, outcome: bytes) -> None:
        """A spawn op has succeeded."""
        _, child = codec.decode_outcome(outcome)
        op.options = {**op.options, "child": child}
        self.by_n[op.n] = op

    def ended(self, n: int) -> OpState | None:
        """The child that op n started has ended; it is returned, if there is one."""
        return self.by_n.pop(n, None)

    def keep_answer(self, op: OpState, outcome: bytes) -> bool:
        """Whether the answer to a request to stop waits for the child's end, as its start options say; kept if so."""
        if op.kind not in ("cancel", "terminate"):
            return False
        for n, child in self.by_n.items():
            if child_pid(child) == op.target and _options(child).get("wait_for_cancellation"):
                self._asked.setdefault(n, []).append((op, outcome))
                return True
        return False

    def kept_answers(self, n: int) -> list[tuple[OpState, bytes]]:
        """Take out the requests whose answer waited for the end of child n, in the order they were answered."""
        return self._asked.pop(n, [])

    def at_end(self, open_ops: Iterable[OpState]) -> tuple[ChildAtEnd, ...]:
        """Whom to tell that their parent has ended, and what; also children whose start is not recorded yet."""
        children = []
        for op in [*self.by_n.values(), *(op for op in open_ops if op.kind == "spawn")]:
            policy = _options(op).get("parent_close_policy", "terminate")
            if policy != "abandon":
                children.append(ChildAtEnd(op, "kill" if policy == "terminate" else "cancel"))
        return tuple(children)


def child_pid(op: OpState) -> str:
    """The PID of the child that a spawn op started."""
    child = op.options.get("child")
    return str(child.get("pid", "")) if isinstance(child, Mapping) else str(child or "")


def _options(op: OpState) -> Mapping[str, Any]:
    return op.options.get("options") or {}
