"""Stored messages as events, and the bodies of `start` and `end`, whoever wrote them."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh import codec
from mesh.errors import Undecodable
from mesh.events import (
    HEADER_CHILD_OF,
    HEADER_INTAKE,
    Base,
    EndRecord,
    Event,
    Parent,
    StartSpec,
    decode_end,
    decode_start,
    next_attempt,
    parent_headers,
    parent_in_headers,
    parse,
)
from mesh.failure import Failure, Kind
from mesh.imported import HEADER_ORIGIN, Origin
from mesh.subjects import WorkflowKey
from mesh.wire import encode_headers, parse_headers

KEY = WorkflowKey("orders", "o-1")


def parsed(subject: str) -> Event | None:
    return parse(subject, 7, 99, b"data", None)


@pytest.mark.parametrize(
    ("kind", "run"),
    [
        (("start",), 0), (("signal", "a"), 0), (("signal", "a", "b", "c"), 0), (("ret", "5", "1", "2", "fp"), 5), (("claim", "5", "1", "2"), 5),
        (("tick", "5", "1"), 5), (("tick", "5", "retry-1-2"), 5), (("exit", "5", "1"), 5), (("mark", "5", "name"), 5), (("cancel",), 0),
        (("kill",), 0), (("monitor",), 0), (("end", "5"), 5),
    ],
)  # fmt: skip
def test_each_kind_is_read_with_its_tokens_and_the_run_it_names(kind: tuple[str, ...], run: int) -> None:
    event = parsed(KEY.stored(3, *kind))
    assert event == Event(kind[0], "o-1", 7, 99, list(kind[1:]), b"data", None)
    assert event.run == run


@pytest.mark.parametrize(
    "kind",
    [
        ("start", "x"), ("signal",), ("ret", "5", "1", "2"), ("ret", "5", "1", "2", "fp", "seen", "more"), ("ret", "x", "1", "2", "fp"),
        ("ret", "5", "x", "2", "fp"), ("ret", "5", "1", "", "fp"), ("ret", "-5", "1", "2", "fp"), ("ret", "\u00b2", "1", "2", "fp"),
        ("claim", "5", "1", "x"), ("tick", "5"), ("tick", "x", "1"), ("exit", "5", "x"), ("mark", "5"), ("end",), ("end", "x"), ("end", ""),
        ("cancel", "x"), ("unknown",), ("",),
    ],
)  # fmt: skip
def test_what_does_not_look_like_an_event_is_none(kind: tuple[str, ...]) -> None:
    assert parsed(KEY.stored(3, *kind)) is None


@given(st.text(alphabet="ab.%1-\u00fc \0", max_size=40), st.binary(max_size=20))
def test_no_subject_raises(tail: str, data: bytes) -> None:
    for subject in (tail, f"mesh.log.q.1.{tail}", f"mesh.log.q.1.id.signal.{tail}", f"mesh.log.q.1.id.ret.{tail}"):
        event = parse(subject, 1, 1, data, data)
        if event is not None:
            assert isinstance(event.run, int)
            assert isinstance(event.topic, str)


@pytest.mark.parametrize(
    ("id_token", "ours"),
    [
        ("o-1", True),
        ("a%2Eb", True),
        ("a%2eb", False),
        ("%41", False),
        ("gr\u00f6sse", False),
        ("a&b", False),
        ("%zz", False),
        ("%", False),
    ],
)
def test_an_id_counts_only_as_we_write_it(id_token: str, ours: bool) -> None:
    """The owner's own events go to the id as it is encoded; a run under another spelling could never end."""
    assert (parsed(f"mesh.log.orders.3.{id_token}.start") is not None) is ours


def test_the_topic_of_a_signal_is_decoded_token_by_token() -> None:
    event = parsed(KEY.stored(3, "signal", "a%20b", "c%2Ed", "%C3%BC", "%FF"))
    assert event is not None
    assert event.topic == "a b.c.d.\u00fc.\udcff"


FULL = StartSpec(
    workflow="a:b", args=codec.pack([1, {"x": 2}]), host="a:w", client="a:c", context={"k": [1]}, entropy=b"\xff",
    parent=Parent("q", "id", 5, 6), messages=({"topic": "t", "body": codec.encode(1), "from": "{c@w|x}"},), run_timeout_ns=1,
    execution_timeout_ns=2, start_delay_ns=3, retry_policy={"maximum_attempts": 2}, cron="* * * * *", memo={"m": 1}, attrs={"a": "b"},
    attempt=4, chain_started_ns=5, since=6, base=Base(1, 2, 3, 4, 5, signals=False), reason="r",
    encrypted=True, heard=("sender/1",), without=(7, 8),
)  # fmt: skip


def test_a_start_comes_back_as_it_was() -> None:
    assert all(getattr(FULL, f.name) != getattr(StartSpec(""), f.name) for f in fields(StartSpec) if f.name != "origin")
    assert decode_start(FULL.encode(), {}) == FULL
    assert decode_start(StartSpec("a:b").encode(), {}) == StartSpec("a:b")
    assert codec.decode(StartSpec("a:b").encode()) == {"workflow": "a:b"}


@pytest.mark.parametrize(
    ("data", "args"),
    [
        (b"", []),
        (b"null", []),
        (b'{"a":1}', [{"a": 1}]),
        (b"[1,2]", [[1, 2]]),
        (b"text", ["text"]),
        (b"\xff\xfe", [b"\xff\xfe"]),
        (b"[" * 300, ["[" * 300]),
        (b"9" * 30, [float(b"9" * 30)]),
    ],
)
def test_a_person_starts_with_a_header_and_any_input(data: bytes, args: list[Any]) -> None:
    spec = decode_start(data, {"Mesh-Workflow": "a:b", "Mesh-Host": "a:w"})
    assert (spec.workflow, spec.host, codec.unpack(spec.args)) == ("a:b", "a:w", args)


def wire(**changes: Any) -> bytes:
    return codec.encode({"workflow": "a:b", **changes})


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"{}", "needs the workflow's name in the header Mesh-Workflow"),
        (b"\xc1", "malformed"),
        (codec.encode(5), "a map with the workflow's name"),
        (codec.encode({}), "a map with the workflow's name"),
        (codec.encode({"workflow": 5}), "a map with the workflow's name"),
        (wire(args=[1]), "field args is a list"),
        (wire(args=b"\xc1"), "arguments: malformed"),
        (wire(args=b"\x05"), "arguments are no list"),
        (wire(run_timeout_ns="1s"), "field run_timeout_ns is a str"),
        (wire(attempt=True), "field attempt is a bool"),
        (wire(context=5), "field context is a int"),
        (wire(retry_policy="x"), "field retry_policy is a str"),
        (wire(entropy="x"), "field entropy is a str"),
        (wire(parent=["q", "id", 1]), "field parent is not"),
        (wire(parent=["q", "id", True, 1]), "field parent is not"),
        (wire(parent={}), "field parent is not"),
        (wire(messages={}), "field messages is a dict"),
        (wire(messages=[5]), "a startup message is a map"),
        (wire(messages=[{"body": codec.encode(1)}]), "a startup message has a topic"),
        (wire(messages=[{"topic": "t", "from": 5}]), "a startup message has a topic"),
        (wire(messages=[{"topic": "t", "body": b"\xc1"}]), "malformed"),
    ],
)
def test_a_start_nobody_can_read_says_what_is_wrong(data: bytes, text: str) -> None:
    with pytest.raises(Undecodable, match=text):
        decode_start(data, {})


@given(
    st.dictionaries(
        st.sampled_from([f.name for f in fields(StartSpec)]),
        st.none()
        | st.integers()
        | st.text(max_size=3)
        | st.binary(max_size=3)
        | st.lists(st.integers(0, 9), max_size=3)
        | st.just({}),
    )
)
def test_no_start_raises_anything_but_undecodable(changes: dict[str, Any]) -> None:
    try:
        spec = decode_start(wire(**{k: v for k, v in changes.items() if not isinstance(v, int) or abs(v) < 2**63}), {})
    except Undecodable:
        return
    assert decode_start(spec.encode(), {}) == spec


def test_empty_lua_tables_are_empty_fields() -> None:
    """Lua has one kind of table; an empty one is written as a list."""
    spec = decode_start(wire(memo=[], attrs=[], context=[], retry_policy=[], messages=[]), {})
    assert spec == StartSpec("a:b")


def test_startup_messages_may_have_topics_of_any_bytes_and_bodies_of_any_kind() -> None:
    spec = decode_start(
        wire(
            messages=[{"topic": b"\xff"}, {"topic": "j", "body": b'{"a":1}'}, {"topic": "v", "body": [1], "from": None}]
        ),
        {},
    )
    assert [(m["topic"], codec.decode(m["body"]), m["from"]) for m in spec.messages] == [
        ("\udcff", None, ""),
        ("j", {"a": 1}, ""),
        ("v", [1], ""),
    ]


def test_unknown_fields_of_a_newer_version_are_ignored() -> None:
    assert decode_start(wire(colour="blue"), {}) == StartSpec("a:b")


def test_an_end_comes_back_as_it_was() -> None:
    for record in (
        EndRecord("completed", codec.encode_success([1])),
        EndRecord("retried", codec.encode_failure(Failure("x")), b"next"),
    ):
        assert decode_end(record.encode()) == record
    assert EndRecord("completed", codec.encode_success([1])).value() == [1]


@pytest.mark.parametrize(
    "data", [b"", b"\xc1", b"ended", b"{}", codec.encode({"status": 5, "outcome": b""}), codec.encode({"status": "x"})]
)
def test_an_end_nobody_can_read_is_a_failure(data: bytes) -> None:
    record = decode_end(data)
    assert record.status == "failed"
    assert record.next_start == b""
    value = record.value()
    assert isinstance(value, Failure)
    assert value.message.startswith("the end of this run was written by somebody else")


def test_an_end_with_odd_fields_is_read_as_far_as_it_goes() -> None:
    record = decode_end(codec.encode({"status": "completed", "outcome": b"\xc1", "next": 5}))
    assert record.next_start == b""
    assert isinstance(record.value(), Failure)
    assert record.value().kind == Kind.INTERNAL


def test_the_next_attempt_keeps_the_input_and_the_startup_messages() -> None:
    spec = next_attempt(FULL, delay_ns=77, chain_started_ns=88, since=99)
    assert (spec.attempt, spec.start_delay_ns, spec.chain_started_ns, spec.since) == (5, 77, 88, 99)
    assert spec.messages == FULL.messages
    assert (spec.args, spec.parent, spec.context) == (FULL.args, FULL.parent, FULL.context)


def test_an_imported_start_says_where_it_comes_from_in_a_header() -> None:
    """Its body stays as it was; what would be read from runs before it is under its own start."""
    origin = Origin("orders", "order 1", 17, 9)
    spec = decode_start(FULL.encode(), {HEADER_ORIGIN: origin.header()})
    assert spec == replace(FULL, since=0, base=None, origin=origin)
    assert spec.encode() == replace(FULL, since=0, base=None).encode()
    for unreadable in ("", "orders order 17", "orders order x 9"):
        assert decode_start(FULL.encode(), {HEADER_ORIGIN: unreadable}).origin is None


@pytest.mark.parametrize("parent", [Parent("orders", "p-1", 7, 3), Parent("a.b c", "täglich *>/ %", 2**62, 1)])
def test_the_start_of_a_child_names_its_parent_in_its_headers_too(parent: Parent) -> None:
    headers = parse_headers(encode_headers(parent_headers(parent)))
    assert parent_in_headers(headers) == parent
    # Nobody outside has a child here, and who waits for the end of an imported one waits elsewhere.
    assert parent_in_headers({**headers, HEADER_INTAKE: "1"}) is None
    assert parent_in_headers({**headers, HEADER_ORIGIN: "orders o-1 3 3"}) is None
    assert parent_headers(None) == {}
    assert parent_in_headers({}) is None


@pytest.mark.parametrize(
    "value", ["", "orders p-1 7", "orders p-1 7 3 4", "orders  7 3", "orders p-1 7 x", "orders p-1 -7 3", "orders p-1 7 ٣",
              "orders p.1 7 3", "orders %7a 7 3", f"orders {'x' * 600} 7 3", "orders p-1 7 99999999999999999999"],
)  # fmt: skip
def test_a_header_that_names_no_parent_names_none(value: str) -> None:
    assert parent_in_headers({HEADER_CHILD_OF: value}) is None
