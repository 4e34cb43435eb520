"""The ops of one run that have no outcome yet, and how the calls among them are to be made.

Pure. Not here: what follows from an outcome (`node.workflows.run`).

Invariants:
  * an op is in `by_n` exactly while it has no outcome; `calls` is how many of them are calls;
  * ops are numbered as the code asks for them: all below `next_n` have been asked for;
  * options that are not the default are kept exactly while their call is open.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from mesh import codec
from node.machine.vm import Op
from node.workflows.call_options import DEFAULT_CALL_OPTIONS, CallOptions, decode_call_options
from node.workflows.ops import Dispatch, Effect, OpState, Perform, RetryLater, SetTimer, Stop, fingerprint
from node.workflows.seen import difference

# What is done to another workflow, and recorded as the outcome of an op.
PERFORMED: Final = frozenset({"spawn", "send", "cancel", "terminate"})


class DoesNotFit(Exception):
    """The history has something that the code has not asked for: it is not the code that wrote this history."""


class OpenOps:
    """What a run waits for. call_defaults: the options that a function's registry entry sets.

    asked: where each op is noted when it comes up; None = nobody wants to know.
    """

    def __init__(self, call_defaults: Callable[[str], Mapping[str, Any]]) -> None:
        self.by_n: dict[int, OpState] = {}
        self.calls = 0
        self.next_n = 1
        self.asked: list[OpState] | None = None
        self._call_defaults = call_defaults
        self._options: dict[int, CallOptions] = {}

    def add(self, op: Op, *, now_ns: int, seq: int, seen: str = "") -> OpState:
        """The code asks for an op, at this time and in the step of this event. seen: see `node.workflows.seen`."""
        n, kind, target = op.n, op.kind, str(op.target)
        if kind == "timer":
            state = OpState(n, kind, "", "", due_ns=now_ns + int(op.target), issued_ns=now_ns, issued_seq=seq)
        else:
            options = codec.unpack(op.options) if op.options and kind in PERFORMED else {}
            print_ = fingerprint(kind, target)
            payload = op.payload or b""
            state = OpState(
                n, kind, target, print_, payload, seen, options, issued_ns=now_ns, issued_seq=seq, due_seq=seq
            )
        self.by_n[n] = state
        self.next_n = n + 1
        if kind == "call":
            self.calls += 1
        if self.asked is not None:
            self.asked.append(state)
        return state

    def with_outcome(self, n: int, fp: str, seen: str = "") -> OpState | None:
        """The op that an outcome in the history is for; None if it has had one before. Raises DoesNotFit.

        seen: what the code had seen when it asked for the op, "" when the outcome does not say.
        """
        op = self.by_n.get(n)
        if op is None:
            if n < self.next_n:
                return None
            raise DoesNotFit(
                f"the history has an outcome for op {n} (fingerprint {fp}), "
                f"the code has asked for {self.next_n - 1} ops so far"
            )
        if op.fp != fp:
            raise DoesNotFit(
                f"op {n}: the history has the outcome of another op (fingerprint {fp}), "
                f"the code asked for {f'{op.kind} {op.target} (fingerprint {op.fp})' if op.target else op.kind}"
            )
        if seen and seen != op.seen:
            raise DoesNotFit(
                f"op {n}, {op.kind} {op.target}: {difference(seen, op.seen)}; the history before it has lost events or "
                "was changed, or the code is not the code that wrote it"
            )
        return op

    def with_timer(self, n: int) -> OpState | None:
        """The op that a timer in the history is for; None if it has fired before. Raises DoesNotFit."""
        op = self.by_n.get(n)
        if op is None:
            if n < self.next_n:
                return None
            raise DoesNotFit(f"the history has a timer for op {n}, the code has asked for {self.next_n - 1} ops so far")
        if op.kind != "timer":
            raise DoesNotFit(f"op {n}: the history has a timer, the code asked for {op.kind} {op.target}")
        return op

    def drop(self, op: OpState) -> None:
        """An op has its outcome, or nobody waits for it any more."""
        if self.by_n.pop(op.n, None) is not None and op.kind == "call":
            self.calls -= 1
            self._options.pop(op.n, None)

    def read_call_options(self, call: OpState, packed: bytes | None) -> None:
        """Read how a call is to be made. Raises ValueError that says what is wrong with its options."""
        defaults = self._call_defaults(call.target)
        if not packed and not defaults:
            return
        given = codec.unpack(packed) if packed else {}
        call.options = {**defaults, **given}
        self._options[call.n] = decode_call_options(call.options)

    def call_options(self, n: int) -> CallOptions:
        """How call n is to be made."""
        return self._options.get(n, DEFAULT_CALL_OPTIONS)

    def outstanding(self) -> list[Effect]:
        """What each op waits for, as if the op had just come up."""
        return [_outstanding(op) for op in self.by_n.values()]


def _outstanding(op: OpState) -> Effect:
    if op.kind == "timer":
        return SetTimer(str(op.n), op.due_ns)
    if op.kind != "call":
        return Perform(op)
    if op.stopping and op.due_ns:
        return Stop(op)
    if op.failed_seq and op.due_ns:
        return RetryLater(op, op.due_ns)
    return Dispatch(op)
