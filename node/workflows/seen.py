"""What the code of a run has seen so far, in a few characters: how many events, and a checksum over which, in order.

It stands in the subject of every outcome, as it was when the code asked for the op. So each outcome bears witness of
the events before it: a replay that comes to the op with others has lost some, or has other code. It costs no write,
and whoever answers a call passes it on with the subject, without knowing of it.

Only what the code is given counts (`Run.length`): the rest of a history may be deleted. The run's number is left out,
as a reset run has the same events under another one, and so are the bodies: the server has a checksum for each of them.

Pure.
"""

from __future__ import annotations

from zlib import crc32

from mesh.events import Event


def folded(checksum: int, event: Event) -> int:
    """The checksum after one more event."""
    args = event.args
    # Behind the run stands the number of the op, or the name of the timer. An outcome says which attempt it is of: with
    # another retry policy a failure is the last word that was none, and what was recorded after it is nothing.
    if event.kind == "signal":
        which = ".".join(args)
    elif event.kind == "ret":
        which = f"{args[1]}.{args[2]}"
    else:
        which = args[1] if len(args) > 1 else ""
    return crc32(f"{event.kind} {which}\n".encode("ascii", "replace"), checksum)


def as_token(events: int, checksum: int) -> str:
    """As it stands in a subject."""
    return f"{events}-{checksum:08x}"


def difference(then: str, now: str) -> str:
    """How what was seen when an op was asked for differs from what the code has seen now."""
    before, after = then.partition("-")[0], now.partition("-")[0]
    if not before.isdecimal():
        return f"somebody else wrote {then!r} where the number of events before it should stand"
    now_after = "as many, but others or in another order" if before == after else _events(after)
    return f"it was asked for after {_events(before)}, the code asks for it after {now_after}"


def _events(number: str) -> str:
    return f"{number} event" if number == "1" else f"{number} events"
