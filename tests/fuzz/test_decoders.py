"""No reader of bytes does anything but read or refuse, whatever it is fed; and what was once found stays mended."""

from __future__ import annotations

import time
from random import Random
from typing import Any

import pytest

from mesh import codec
from mesh.events import StartSpec
from mesh.wire import encode_headers
from tests.fuzz.decoders import DIRECT, SECONDS_MAX, Decoder, HostileInput, attack, decoders, feed
from tests.fuzz.profiles import SEED, number

TIMES = number("MESH_FUZZ_INPUTS", 400, 40000)
DECODERS = {decoder.name: decoder for decoder in decoders()}
DEEP = b"\x91" * 1000 + b"\xc0"  # deeper than repr, shallower than the library's limit
DIGITS = b"9" * 400


def deep_json(depth: int = 990) -> bytes:
    return b"[" * depth + b"]" * depth


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", DECODERS)
def test_hostile_input_is_read_or_refused(name: str) -> None:
    decoder = DECODERS[name]
    attack(decoder, Random(f"{SEED}/{name}"), max(5, int(TIMES * decoder.pace)))


# What the fuzz has found, each with what it broke.
FOUND: dict[str, tuple[str, Any]] = {
    "an integer larger than any float": ("payload", b'{"a": ' + DIGITS + b"}"),
    "a failure that is a list, nested deep": ("outcome", codec.FAILURE_PREFIX + DEEP),
    "a failure whose message is nested deep": ("outcome", codec.FAILURE_PREFIX + b"\x81\xa7message" + DEEP),
    "an end that is nested deep": ("stored message", ("mesh.log.orders.0.w.end.100", codec.MARKER + DEEP, None)),
    "a decision that is nested deep": ("event of a run", ("mesh.log.orders.0.w-1.mark.100.version%3Achange", codec.MARKER + DEEP, None)),
    "a status line with thousands of digits": ("header block", b"NATS/1.0 " + b"9" * 5000 + b"\r\n\r\n"),
    "a time of the server that is none": ("direct read", DIRECT.replace(b"2026-11-25T10:00:00.5Z", b"\xc7Z")),
    "a sequence with thousands of digits": ("direct read", DIRECT.replace(b"Nats-Sequence: 5", b"Nats-Sequence: " + b"5" * 5000)),
    "a host record that is no JSON": ("host record", b'{"worker": '),
    "a host record that is a text": ("host record", b'"worker"'),
    "a host record without a queue": ("host record", b'{"worker": "a:w", "client": "a:c"}'),
    "a member with queues that are lists": ("roster", ("$KV.mesh_roster.member.b", b'{"queues": [["orders"]]}', None)),
    "a member with functions that are a number": ("roster", ("$KV.mesh_roster.member.b", b'{"functions": 5}', None)),
    "a member that is nested deep": ("roster", ("$KV.mesh_roster.member.b", b'{"incarnation": ' + deep_json() + b"}", None)),
    "a roster key that is no UTF-8": ("roster", ("$KV.mesh_roster.member.\udcff=41", b"{}", None)),
    "a percent-encoded half of a character": ("small texts", "%41\ud800"),
    "an interval of a schedule that is none": ("stored schedule", ("mesh.at.orders.cron.w", StartSpec("a:b", cron="@every 5").encode(), None)),
    "an interval of a schedule that is nothing": ("stored schedule", ("mesh.at.orders.cron.w", StartSpec("a:b", cron="@every 0s").encode(), None)),
    "a next start of a schedule that is no time": (
        "stored schedule",
        ("mesh.at.orders.cron.w", StartSpec("a:b", cron="@every 5m").encode(), encode_headers({"Nats-Schedule-Next": "9" * 30})),
    ),
    "a schedule with thousands of digits": ("schedule", "*/" + "5" * 5000 + " * * * *"),
    "a time zone of a thousand parts": ("time zone of a schedule", "Europe/Paris" * 400),
    "a retry option that is nested deep": ("retry option", [codec.unpack(DEEP)]),
    "a retry policy that is nested deep": ("call options", {"retry_policy": {"backoff_coefficient": codec.unpack(DEEP)}}),
    "a list request that is nested deep": ("list request", {"limit": codec.unpack(DEEP)}),
    "a list's answer that is none": ("page of a list", {"workflows": 5}),
    "a list's answer that is nested deep": ("page of a list", {"next": codec.unpack(DEEP)}),
    "a spawn with a message that is a text": (
        "unit request", codec.encode(["spawn", "{a@b|c}", "app:p", "app:h", codec.encode([[], None]), "", ["tb"], False, False])
    ),
    "a spawn whose arguments are a text": ("unit request", codec.encode(["spawn", "{a@b|c}", "app:p", "app:h", "text", "", [], False, False])),
    "a port with thousands of digits": ("metrics address", ":" + "9" * 5000),
    "an event of a history whose time is a list": (
        "history file",
        b'{"moonmesh":1,"queue":"q","id":"w","run":1,"type":"t","host":"h","status":"s","exported":"e","events":1}\n'
        b'{"n":1,"seq":1,"time":[1,2],"kind":"start","args":[]}\n',
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", FOUND)
def test_what_was_found_is_read_or_refused(what: str) -> None:
    name, given = FOUND[what]
    feed(DECODERS[name], given)


# -- the attack itself -----------------------------------------------------------------------------------------------


def _picky(value: bytes) -> object:
    if b"\xff" in value:
        raise KeyError("it did not think of that")
    return value


def _greedy(value: bytes) -> object:
    return bytearray(b"x" * 150 * 1024 * 1024) if len(value) > 4 else None


def _slow(value: bytes) -> object:
    began = time.thread_time()
    while len(value) > 4 and time.thread_time() < began + SECONDS_MAX + 0.1:
        pass
    return value


@pytest.mark.parametrize(("read", "told"), [(_picky, "raises KeyError"), (_greedy, "MB"), (_slow, "takes")])
def test_a_decoder_that_does_not_think_of_everything_is_found(read: Any, told: str) -> None:
    decoder = Decoder("a bad one", [b"abcd"], lambda mutator, sample, _others: mutator.octets(sample), read)
    assert len(b"x" * 400 * 1024 * 1024) > 0, "that this process was large once makes nothing of what a decoder takes"
    with pytest.raises(HostileInput, match=told):
        attack(decoder, Random(1), 2000)
