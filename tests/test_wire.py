"""The wire parser gives the same calls however its bytes are cut."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import InvalidName, Undecodable
from mesh.wire import (
    Handler,
    Parser,
    check_subject,
    denied_subject,
    encode_headers,
    is_no_responders,
    parse_headers,
    status_of,
)

HEADERS = b"NATS/1.0\r\nA: b\r\n\r\n"
STREAM = (
    b'INFO {"max_payload":1}\r\n'
    b"MSG a.b 1 5\r\nhello\r\n"
    b"PING\r\n"
    b"MSG a.b 1 re.ply 0\r\n\r\n"
    b"MSG other 9 2\r\nxx\r\n"
    b"HMSG a.c 2 %d %d\r\n%s\r\n\r\nM\r\n"
    b"HMSG a.c 2 r %d %d\r\n%s\r\n"
    b"-ERR 'Some Thing'\r\n"
    b"PONG\r\n"
) % (len(HEADERS), len(HEADERS) + 5, HEADERS, len(HEADERS), len(HEADERS), HEADERS)
# The payload of the first message with headers is CRLF CRLF M: what looks like protocol inside is not taken for it.
EXPECTED = [
    ("line", b'INFO {"max_payload":1}'),
    ("one", "a.b", "", b"hello", None),
    ("line", b"PING"),
    ("one", "a.b", "re.ply", b"", None),
    ("two", "a.c", "", b"\r\n\r\nM", HEADERS),
    ("two", "a.c", "r", b"", HEADERS),
    ("line", b"-ERR 'Some Thing'"),
    ("line", b"PONG"),
]


class Recorder:
    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.handlers: dict[bytes, Handler] = {
            b"1": lambda *message: self.calls.append(("one", *message)),
            b"2": lambda *message: self.calls.append(("two", *message)),
        }
        self.parser = Parser(self.handlers, lambda line: self.calls.append(("line", line)))


def test_one_buffer_gives_every_message_in_order() -> None:
    recorder = Recorder()
    recorder.parser.feed(STREAM)
    assert recorder.calls == EXPECTED


def test_two_buffers_cut_at_any_byte_give_the_same() -> None:
    for cut in range(len(STREAM) + 1):
        recorder = Recorder()
        recorder.parser.feed(STREAM[:cut])
        recorder.parser.feed(STREAM[cut:])
        assert recorder.calls == EXPECTED, f"cut at {cut}"


def test_single_bytes_give_the_same() -> None:
    recorder = Recorder()
    for index in range(len(STREAM)):
        recorder.parser.feed(STREAM[index : index + 1])
    assert recorder.calls == EXPECTED


@given(st.lists(st.integers(0, 2 * len(STREAM))))
def test_any_cuts_of_a_repeated_stream_give_the_same(cuts: list[int]) -> None:
    recorder = Recorder()
    whole = STREAM * 2
    edges = [0, *sorted(cuts), len(whole)]
    for start, end in itertools.pairwise(edges):
        recorder.parser.feed(whole[start:end])
    assert recorder.calls == EXPECTED * 2


def test_a_handler_that_raises_is_logged_and_harms_no_other_message(caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder()

    def fail(*_message: object) -> None:
        raise RuntimeError("boom")

    recorder.handlers[b"1"] = fail
    recorder.parser.feed(STREAM)
    assert recorder.calls == [call for call in EXPECTED if call[0] != "one"]
    assert caplog.text.count("a message handler failed") == 2


def test_messages_on_subjects_that_are_no_text_reach_who_listens(caplog: pytest.LogCaptureFixture) -> None:
    """Anybody can publish such a subject. A follower that misses one message of its stream takes it for lost."""
    recorder = Recorder()
    recorder.parser.feed(b"MSG a.\xff\xfe 1 $JS.ACK.x 1\r\nx\r\nMSG ok 1 1\r\ny\r\n")
    assert recorder.calls == [("one", "a.\udcff\udcfe", "$JS.ACK.x", b"x", None), ("one", "ok", "", b"y", None)]
    assert caplog.text == ""


@pytest.mark.parametrize("reply", [b"\xffre", b"re\x01ply", b"\xe2\x80\xaere"])
def test_a_reply_subject_that_nobody_may_write_is_none(reply: bytes) -> None:
    """Whoever answers would raise in the middle of the read loop."""
    recorder = Recorder()
    recorder.parser.feed(b"MSG ok 1 " + reply + b" 1\r\ny\r\n")
    assert recorder.calls == [("one", "ok", "", b"y", None)]


def test_a_handler_may_end_its_subscription_in_the_middle_of_a_buffer() -> None:
    recorder = Recorder()
    seen: list[bytes] = []

    def once(_subject: str, _reply: str, data: bytes, _raw: bytes | None) -> None:
        seen.append(data)
        del recorder.handlers[b"1"]

    recorder.handlers[b"1"] = once
    recorder.parser.feed(b"MSG a 1 1\r\nx\r\nMSG a 1 1\r\ny\r\n")
    assert seen == [b"x"]


@pytest.mark.parametrize("junk", [b"MSG a b\r\n", b"MSG a 1 x\r\n", b"HMSG a 1 5\r\n", b"MSG\r\n"])
def test_what_is_no_protocol_is_refused(junk: bytes) -> None:
    with pytest.raises(Undecodable):
        Recorder().parser.feed(junk)


def test_an_endless_line_is_refused() -> None:
    with pytest.raises(Undecodable):
        Recorder().parser.feed(b"I" * (1024 * 1024 + 1))


def test_headers_survive_a_round_trip() -> None:
    headers = {"Nats-Msg-Id": "a:b", "Empty": "", "Text": "grün"}
    assert parse_headers(encode_headers(headers)) == headers


@pytest.mark.parametrize("bad", [{"a b": "c"}, {"": "c"}, {"a": "b\r\nc"}, {"a": "b\nPUB x 0"}, {"a:": "b"}])
def test_headers_that_could_break_the_protocol_are_refused(bad: dict[str, str]) -> None:
    with pytest.raises(InvalidName):
        encode_headers(bad)


@pytest.mark.parametrize("bad", ["", "a b", "a\r\nPUB b 0", "a\tb", "a\x00b", " a"])
def test_subjects_that_could_break_the_protocol_are_refused(bad: str) -> None:
    with pytest.raises(InvalidName):
        check_subject(bad)


def test_ordinary_subjects_pass() -> None:
    check_subject("mesh.wf.q.order-1%20.signal.ü")


def test_status_lines() -> None:
    heartbeat = b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 7\r\n\r\n"
    assert status_of(heartbeat) == (100, "Idle Heartbeat")
    assert parse_headers(heartbeat) == {"Nats-Last-Consumer": "7"}
    assert status_of(b"NATS/1.0 503\r\n\r\n") == (503, "")
    assert status_of(HEADERS) == (None, "")
    assert status_of(None) == (None, "")
    assert is_no_responders(b"", b"NATS/1.0 503\r\nNats-Subject: a\r\n\r\n")
    assert not is_no_responders(b"", HEADERS)


def test_a_refusal_of_permission_names_its_subject() -> None:
    assert denied_subject("'Permissions Violation for Publish to \"A.b\"'") == ("publish", "A.b")
    assert denied_subject("'Permissions Violation for Subscription to \"x.>\"'") == ("subscription", "x.>")
    assert denied_subject("'Stale Connection'") is None
