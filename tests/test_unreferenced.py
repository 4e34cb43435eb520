"""Which objects may go: decided from names, ages and the messages of a workflow."""

from __future__ import annotations

import pytest

from mesh.references import ARGUMENTS, ObjectName, Reference
from mesh.stored_messages import StoredMessage
from store.unreferenced import InUse, in_use, referred_by, unreferenced

HOUR_NS = 3600 * 10**9
NOW_NS = 10 * HOUR_NS
REFERENCE = Reference("a.7.ret.x", 5, 1, bytes(32))


def message(seq: int, *kind: str, data: bytes = b"") -> StoredMessage:
    return StoredMessage(".".join(("mesh.log.q.0.a", *kind)), seq, 0, data, None)


@pytest.mark.parametrize(
    ("name", "age_ns", "goes"),
    [
        (ObjectName("a", "7", "ret", "left"), HOUR_NS + 1, True),
        # the boundary: somebody may still be about to write the message
        (ObjectName("a", "7", "ret", "left"), HOUR_NS, False),
        (ObjectName("a", "7", "ret", "x"), 9 * HOUR_NS, False),
        # arguments are in no message, and needed while the run is open
        (ObjectName("a", "7", ARGUMENTS, "y"), 9 * HOUR_NS, False),
        (ObjectName("a", "5", ARGUMENTS, "y"), HOUR_NS + 1, True),
        (ObjectName("a", "5", ARGUMENTS, "y"), HOUR_NS, False),
        # an outcome of an open run that nothing refers to is no argument
        (ObjectName("a", "7", "signal", "y"), HOUR_NS + 1, True),
    ],
)
def test_an_object_goes_when_it_is_old_and_nothing_needs_it(name: ObjectName, age_ns: int, goes: bool) -> None:
    used = InUse(frozenset({REFERENCE.name}), frozenset({"7"}))
    assert unreferenced({name: NOW_NS - age_ns}, used, NOW_NS, 3600.0) == ([str(name)] if goes else [])


def test_messages_say_what_is_referred_to_and_which_runs_are_open() -> None:
    messages = [
        message(5, "start", data=b"small"),
        message(6, "end", "5"),
        message(7, "start", data=REFERENCE.encode()),
        message(8, "signal", "end", data=REFERENCE._replace(name="a.0.signal.y").encode()),
        message(9, "ret", "7", "1", "1", "ab", data=REFERENCE.encode()[:-1]),
        message(10, "signal", "theirs", data=REFERENCE._replace(name="b.0.start.z").encode()),
    ]
    assert in_use(messages) == InUse(frozenset({"a.7.ret.x", "a.0.signal.y"}), frozenset({"7"}))
    assert in_use([]) == InUse(frozenset(), frozenset())
    sealed = message(11, "signal", "go", data=b"\xc1\xc1\x01abc")
    assert [referred_by(each) for each in (*messages[-2:], sealed)] == ["", "", ""]
