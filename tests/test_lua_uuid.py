"""The Lua module `uuid` makes and reads RFC 9562 identifiers from the unit's clock and entropy alone."""

from __future__ import annotations

import hashlib
import random
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.lua_chunks import Chunks

NOW_NS = 1_712_345_678_123_456_789
UUIDS = st.uuids()


def chunks(seed: int = 1) -> Chunks:
    loaded = Chunks("uuid", now_ns=NOW_NS)
    entropy = random.Random(seed)
    loaded.kernel[b"random_u64"] = lambda _unit: entropy.getrandbits(64) - 2**63
    loaded.host[b"md5"] = lambda data: hashlib.md5(data).digest()
    loaded.host[b"sha1"] = lambda data: hashlib.sha1(data).digest()
    return loaded


VM = chunks()


def made(version: int, vm: Chunks | None = None) -> uuid.UUID:
    text, error = (vm or chunks()).run(f"return uuid.v{version}()")
    assert error is None
    assert text.decode() == str(uuid.UUID(text.decode())), "the text is in standard form"
    return uuid.UUID(text.decode())


@pytest.mark.parametrize("version", [1, 4, 7])
def test_made_ids_carry_their_version_and_variant(version: int) -> None:
    got = made(version)
    assert (got.version, got.variant) == (version, uuid.RFC_4122)


def test_v1_carries_the_clock_of_the_unit_and_a_node_that_is_no_hardware_address() -> None:
    got = made(1)
    assert got.time == NOW_NS // 100 + 0x01B21DD213814000
    assert got.node >> 40 & 1 == 1


def test_v7_carries_milliseconds_and_their_fraction() -> None:
    got = made(7)
    assert got.int >> 80 == NOW_NS // 10**6
    assert got.int >> 64 & 0xFFF == NOW_NS % 10**6 * 4096 // 10**6


def test_v7_of_one_unit_increases_while_the_clock_stands_still() -> None:
    vm = chunks()
    ids = [made(7, vm) for _ in range(5000)]  # more than the fractions of one millisecond
    assert ids == sorted(ids)
    assert {i.version for i in ids} == {7}


def test_v7_of_another_unit_does_not_see_the_first_ones_ids() -> None:
    vm = chunks()
    first = made(7, vm).int >> 64
    vm.kernel[b"current"] = vm.lua.table_from({b"now": NOW_NS, b"next_seq": 1, b"deterministic": True})
    assert made(7, vm).int >> 64 == first


@pytest.mark.parametrize("version", [1, 4, 7])
def test_ids_are_a_function_of_the_entropy_of_the_unit(version: int) -> None:
    assert made(version, chunks(5)) == made(version, chunks(5))
    assert made(version, chunks(5)) != made(version, chunks(6))


def test_v4_uses_all_bits_that_are_not_fixed() -> None:
    """Over many ids each of the 122 free bits is seen both ways."""
    vm = chunks()
    seen_one = seen_zero = 0
    for _ in range(200):
        value = made(4, vm).int
        seen_one |= value
        seen_zero |= ~value
    assert (seen_one & seen_zero).bit_count() == 122


@given(UUIDS, st.binary(max_size=50))
def test_named_ids_agree_with_python(namespace: uuid.UUID, name: bytes) -> None:
    for version, digest in ((3, hashlib.md5), (5, hashlib.sha1)):
        expected = uuid.UUID(bytes=digest(namespace.bytes + name).digest()[:16], version=version)
        assert VM.run(f"return uuid.v{version}(...)", str(namespace).encode(), name) == (str(expected).encode(), None)


def test_a_known_named_id() -> None:
    """The example of RFC 9562, appendix A.4."""
    got = VM.run("return uuid.v5('6ba7b810-9dad-11d1-80b4-00c04fd430c8', 'www.example.com')")
    assert got == (b"2ed6657d-e927-568b-95e1-2665a8aea6a2", None)


@given(UUIDS)
def test_every_form_is_read_and_written(value: uuid.UUID) -> None:
    for text in (str(value), str(value).upper(), value.hex, value.urn, "URN:UUID:" + str(value), f"{{{value}}}"):
        assert VM.run("return uuid.validate(...)", text.encode()) is True
        for form, expected in (("standard", str(value)), ("simple", value.hex), ("urn", value.urn)):
            got = VM.run("return uuid.format(...)", text.encode(), form.encode())
            assert got == (expected.encode(), None)
    assert VM.run("return uuid.format(...)", str(value).encode()) == (str(value).encode(), None)


GOOD = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"


@pytest.mark.parametrize(
    "bad",
    [
        "",
        GOOD[:-1],
        GOOD + "0",
        GOOD.replace("6", "g", 1),
        GOOD.replace("-", "_"),
        "6ba7b81-09dad-11d1-80b4-00c04fd430c8",
        "6ba7b810-9dad-11d1-80b400-c04fd430c8",
        "(" + GOOD + ")",
        "{" + GOOD + ")",
        "urn:uuie:" + GOOD,
        GOOD + "\n",
        "{" + GOOD.replace("-", "") + "}",
        "-" * 36,
    ],
)
def test_other_texts_are_no_uuid(bad: str) -> None:
    assert VM.run("return uuid.validate(...)", bad.encode()) is False
    calls = ("version(x)", "variant(x)", "parse(x)", "format(x, 'simple')", "v3(x, 'n')", "v5(x, 'n')")
    for call in calls:
        source = f"local x = ... local v, e = uuid.{call} return v, e:kind(), e:retryable()"
        assert VM.run(source, bad.encode()) == (None, b"Invalid", False), call


def test_values_that_are_no_text_are_invalid_and_not_raised() -> None:
    assert VM.run("return uuid.validate(nil), uuid.validate(5), uuid.validate({})") == (False, False, False)
    for call in ("version(5)", "variant(nil)", "parse({})", "format()", f"v5('{GOOD}', 5)", f"v3('{GOOD}')"):
        assert VM.run(f"local v, e = uuid.{call} return v, e:kind()") == (None, b"Invalid"), call


def test_an_unknown_form_is_invalid() -> None:
    assert VM.run("local v, e = uuid.format(..., 'hex') return v, e:kind()", GOOD.encode()) == (None, b"Invalid")


@pytest.mark.parametrize(
    ("digit", "name"),
    [("0", "Reserved"), ("7", "Reserved"), ("8", "RFC4122"), ("b", "RFC4122"), ("c", "Microsoft"), ("e", "Future")],
)
def test_variants_are_told_by_their_bits(digit: str, name: str) -> None:
    text = f"6ba7b810-9dad-41d1-{digit}0b4-00c04fd430c8".encode()
    assert VM.run("return uuid.variant(...)", text) == (name.encode(), None)
    assert VM.run("return uuid.version(...)", text) == (4, None)


def parsed(text: str) -> dict[bytes, object]:
    said, error = VM.run("return uuid.parse(...)", text.encode())
    assert error is None
    return dict(said.items())


def test_parse_says_what_each_version_holds() -> None:
    assert parsed(GOOD) == {
        b"version": 1,
        b"variant": b"RFC4122",
        b"timestamp": 886_630_433,
        b"node": b"00c04fd430c8",
    }
    # The example of RFC 9562, appendix A.6.
    assert parsed("017F22E2-79B0-7CC3-98C4-DC0C0C07398F") == {
        b"version": 7,
        b"variant": b"RFC4122",
        b"timestamp": 1_645_557_742,
    }
    assert parsed("919108f7-52d1-4320-9bac-f847db4148a8") == {b"version": 4, b"variant": b"RFC4122"}


@pytest.mark.parametrize("version", [1, 7])
def test_parse_reads_the_clock_back(version: int) -> None:
    assert parsed(str(made(version)))[b"timestamp"] == NOW_NS // 10**9
