"""What a host answers who asks which of some calls it has (`mesh.who.…`), as it is written and as it is read. Pure.

The question is the list of the calls, by the subjects of their outcomes. An outcome that a host may not write into a
history goes with the answer, for the owner to record. What cannot be read is nothing said: others may know better.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from mesh import codec
from mesh.errors import Undecodable


class HeldCall(NamedTuple):
    """A call that a host has. elapsed_s: how long it has run, 0 when it has not begun. outcome: with its headers."""

    ret: str
    elapsed_s: float
    outcome: tuple[bytes, bytes] | None = None


def encode_held(calls: Iterable[HeldCall]) -> bytes:
    """The answer of a host."""
    return codec.encode([[call.ret, call.elapsed_s, *(call.outcome or ())] for call in calls])


def decode_held(data: bytes) -> list[HeldCall]:
    """The calls that an answer names."""
    try:
        wire = codec.decode(data)
    except Undecodable:
        return []
    if not isinstance(wire, list):
        return []
    calls: list[HeldCall] = []
    for item in wire:
        match item:
            case [str(ret), int() | float() as elapsed_s]:
                calls.append(HeldCall(ret, float(elapsed_s)))
            case [str(ret), int() | float() as elapsed_s, bytes(outcome), bytes(headers)]:
                calls.append(HeldCall(ret, float(elapsed_s), (outcome, headers)))
    return calls
