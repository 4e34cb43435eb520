"""Subjects: built and parsed in one place, any name as one token, no two names alike."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh import subjects
from mesh.errors import InvalidName
from mesh.subjects import (
    TOKEN_BYTES_MAX,
    WorkflowKey,
    message_queue,
    message_queue_stream,
    parse_delivery,
    parse_stored,
    parse_workflow,
    token,
    untoken,
)

NAMES = st.text(min_size=1, max_size=40, alphabet=st.characters(exclude_categories=["Cs"]))
KEY = WorkflowKey("orders", "o-1")


@given(NAMES)
def test_any_name_is_one_token_and_comes_back(name: str) -> None:
    encoded = token(name)
    assert untoken(encoded) == name
    assert re.fullmatch(r"[!-~]+", encoded)
    assert not set(encoded) & set(".*>")


@given(NAMES, NAMES)
def test_two_names_have_two_tokens(one: str, other: str) -> None:
    assert (token(one) == token(other)) is (one == other)


@pytest.mark.parametrize(
    ("name", "encoded"),
    [
        ("order-1", "order-1"), ("a.b", "a%2Eb"), ("*", "%2A"), (">", "%3E"), ("a b", "a%20b"), ("100%", "100%25"), ("%2E", "%252E"),
        ("\u00fc", "%C3%BC"), ("\0", "%00"), ("app:flow", "app:flow"), ("$JS", "%24JS"), ("\udcff", "%FF"),
    ],
)  # fmt: skip
def test_only_what_means_something_is_encoded(name: str, encoded: str) -> None:
    assert token(name) == encoded
    assert untoken(encoded) == name


@pytest.mark.parametrize("name", ["", "\ud800", "x" * (TOKEN_BYTES_MAX + 1), "\u00fc" * (TOKEN_BYTES_MAX // 6 + 1)])
def test_names_that_cannot_stand_in_a_subject_are_refused(name: str) -> None:
    with pytest.raises(InvalidName):
        token(name)


def test_the_longest_name_fits() -> None:
    assert token("x" * TOKEN_BYTES_MAX) == "x" * TOKEN_BYTES_MAX


def test_the_subjects_of_a_workflow() -> None:
    assert KEY.start() == "mesh.wf.orders.o-1.start"
    assert KEY.signal("a b") == "mesh.wf.orders.o-1.signal.a%20b"
    assert KEY.ret(5, 1, 2, "fp") == "mesh.wf.orders.o-1.ret.5.1.2.fp"
    assert KEY.claim(5, 1, 2) == subjects.claim_of_ret(KEY.ret(5, 1, 2, "fp")) == "mesh.wf.orders.o-1.claim.5.1.2"
    assert KEY.tick(5, 1) == "mesh.wf.orders.o-1.tick.5.1"
    assert KEY.exit(5, 1) == "mesh.wf.orders.o-1.exit.5.1"
    assert KEY.mark(5, "version:x.y") == "mesh.wf.orders.o-1.mark.5.version:x%2Ey"
    assert KEY.end(5) == "mesh.wf.orders.o-1.end.5"
    assert KEY.stored("*", ">") == "mesh.log.orders.*.o-1.>"
    assert KEY.schedule(3, 5, "timeout") == "mesh.at.orders.3.o-1.5.timeout"
    assert KEY.ended() == "mesh.ended.orders.o-1.*"
    assert KEY.note("suspended") == "mesh.note.orders.o-1.suspended"
    assert subjects.partition_filter("a.b", 3) == "mesh.log.a%2Eb.3.>"


def test_a_claim_of_a_workflow_called_ret_is_still_found() -> None:
    key = WorkflowKey("ret", "ret")
    assert subjects.claim_of_ret(key.ret(5, 1, 2, "fp")) == key.claim(5, 1, 2)


@given(NAMES, NAMES, st.integers(0, 63))
def test_stored_and_live_subjects_come_back(queue: str, workflow_id: str, partition: int) -> None:
    key = WorkflowKey(queue, workflow_id)
    stored = parse_stored(key.stored(partition, "ret", "1", "2", "3", "fp"))
    assert stored is not None
    assert (stored.queue, stored.partition, stored.id, stored.kind) == (queue, partition, workflow_id, "ret")
    assert stored.args == ("1", "2", "3", "fp")
    assert parse_workflow(key.signal("x")) == (key, "signal", ("x",))


@pytest.mark.parametrize(
    "subject",
    ["", "mesh", "mesh.log.q.x.id.start", "mesh.log.q.1.id", "other.log.q.1.id.start", "mesh.wf.q.1.id.start"],
)
def test_other_subjects_are_no_stored_events(subject: str) -> None:
    assert parse_stored(subject) is None


@pytest.mark.parametrize("subject", ["", "mesh.wf.q.id", "mesh.log.q.1.id.start", "x.wf.q.id.start"])
def test_other_subjects_are_no_workflow_events(subject: str) -> None:
    assert parse_workflow(subject) is None


@pytest.mark.parametrize(
    ("function_id", "tokens"),
    [("app.api:charge", "app.api.charge"), ("a:b.c", "a.b%2Ec"), ("a:b:c", "a.b:c"), ("a b:*", "a%20b.%2A")],
)
def test_functions_have_a_token_for_each_part_of_their_namespace(function_id: str, tokens: str) -> None:
    assert subjects.function_request(function_id) == f"mesh.fn.{tokens}"
    assert subjects.function_who(function_id) == f"mesh.who.{tokens}"
    assert subjects.function_stop(function_id) == f"mesh.stop.{tokens}"


@pytest.mark.parametrize("function_id", ["", "plain", ":name", "ns:", "a..b:c", ".a:b", "a.:b"])
def test_ids_that_are_none_are_refused(function_id: str) -> None:
    with pytest.raises(InvalidName):
        subjects.function_request(function_id)


@given(NAMES)
def test_streams_and_keys_hold_any_name(name: str) -> None:
    assert re.fullmatch(r"WF_[A-Za-z0-9_=-]+", subjects.stream_name(name))
    assert subjects.bucket_key_name(subjects.bucket_key(name)) == name
    assert re.fullmatch(r"[A-Za-z0-9_=-]+", subjects.bucket_key(name))


def test_message_queues_have_a_subject_and_a_stream_of_their_own() -> None:
    assert message_queue("app:tasks") == "mesh.mq.app:tasks"
    assert message_queue("a.b c") == "mesh.mq.a%2Eb%20c"
    assert message_queue_stream("app:tasks") == "MQ_app=3Atasks"
    assert message_queue_stream("x" * 252) == "MQ_" + "x" * 252
    for name in ("", "x" * 253):
        with pytest.raises(InvalidName):
            message_queue_stream(name)


def test_both_forms_of_an_ack_subject_are_read() -> None:
    assert parse_delivery("$JS.ACK.S.work.3.17.4.1700000000000000000.0") == (3, 17)
    assert parse_delivery("$JS.ACK.hub.abcdef.S.work.3.17.4.1700000000000000000.0.token") == (3, 17)
    for wrong in ("", "_INBOX.x", "$JS.ACK.S.work.x.17.4.1.0", "$JS.NACK.S.work.3.17.4.1.0", "$JS.ACK.S.work.3.17.4.1"):
        assert parse_delivery(wrong) is None
