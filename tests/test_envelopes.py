"""Envelopes and keyrings: what is made opens again, what was changed does not, and nothing raises but as it says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh import codec
from mesh.encryption import MESSAGES_PER_SALT, BadKeys, Keyring
from mesh.envelopes import (
    ENCRYPTED,
    ENVELOPE,
    ENVELOPE_BYTES,
    KEY_ID_BYTES_MAX,
    REFERENCE,
    Closed,
    Unopened,
    context_of,
    outcome_context,
    queue_token_of,
    read_encrypted,
    why_closed,
    why_unread,
)
from mesh.errors import Undecodable

OLD, NEW = b"o" * 32, b"n" * 32
CONTEXT = "mesh.wf.orders.order-1.start"


def test_no_payload_of_ours_begins_like_an_envelope() -> None:
    """0xC1 is no msgpack, so C1 and a msgpack value never begin with C1 C1."""
    values: list[object] = [None, 1, -1, "a", b"\xc1", [], {}, [b"\xc1\xc1"], 2**60, 1.5]
    for value in values:
        assert codec.encode(value)[:2] != ENVELOPE


@given(st.binary(max_size=2000), st.text(max_size=100))
def test_what_was_sealed_opens_to_what_it_was(payload: bytes, context: str) -> None:
    ring = Keyring({"2026-11": NEW}, "2026-11")
    sealed = ring.seal(context, payload)
    assert sealed.startswith(ENCRYPTED)
    assert ring.open(context, sealed) == payload
    assert read_encrypted(sealed).key_id == "2026-11"


def test_an_envelope_takes_no_more_than_it_is_said_to() -> None:
    ring = Keyring({"k" * KEY_ID_BYTES_MAX: NEW}, "k" * KEY_ID_BYTES_MAX)
    assert len(ring.seal(CONTEXT, b"x" * 100)) == 100 + ENVELOPE_BYTES


def test_the_same_payload_never_looks_the_same() -> None:
    ring = Keyring({"k": NEW}, "k")
    assert len({ring.seal(CONTEXT, b"secret") for _ in range(100)}) == 100


@given(st.data())
def test_a_flipped_bit_anywhere_keeps_it_closed(data: st.DataObject) -> None:
    """Head, key id, salt, nonce, ciphertext and tag are all authenticated."""
    ring = Keyring({"k": NEW, "j": OLD}, "k")
    sealed = ring.seal(CONTEXT, b"a payload")
    at = data.draw(st.integers(3, len(sealed) - 1))
    changed = bytearray(sealed)
    changed[at] ^= 1 << data.draw(st.integers(0, 7))
    opened = ring.open(CONTEXT, bytes(changed))
    assert isinstance(opened, Closed)
    assert opened == bytes(changed)
    assert opened.reason


def test_an_envelope_opens_nowhere_but_where_it_belongs() -> None:
    ring = Keyring({"k": NEW}, "k")
    sealed = ring.seal(CONTEXT, b"a payload")
    opened = ring.open("mesh.wf.orders.order-2.start", sealed)
    assert isinstance(opened, Closed)
    assert "moved here from elsewhere" in opened.reason


def test_a_key_that_is_missing_is_named() -> None:
    sealed = Keyring({"2026-10": OLD}, "2026-10").seal(CONTEXT, b"x")
    opened = Keyring({"2026-11": NEW}, "2026-11").open(CONTEXT, sealed)
    assert isinstance(opened, Closed)
    with pytest.raises(Unopened, match="key 2026-10 is not in the keyring"):
        codec.decode(opened)


def test_every_reader_of_payloads_says_that_it_is_encrypted() -> None:
    sealed = Keyring({"2026-10": OLD}, "2026-10").seal(CONTEXT, b"x")
    for read in (codec.decode, codec.as_marked, codec.decode_outcome):
        with pytest.raises(Unopened, match="encrypted with key 2026-10"):
            read(sealed)


def test_keys_are_replaced_while_the_ring_is_used() -> None:
    """What was sealed before a rotation opens after it; a key that was taken away does not open any more."""
    heard: list[str | None] = []
    ring = Keyring({"old": OLD}, "old")
    ring.on_change(lambda: heard.append(ring.primary))
    before = ring.seal(CONTEXT, b"before")
    ring.replace({"old": OLD, "new": NEW}, "new")
    after = ring.seal(CONTEXT, b"after")
    assert read_encrypted(after).key_id == "new"
    assert (ring.open(CONTEXT, before), ring.open(CONTEXT, after)) == (b"before", b"after")
    ring.replace({"new": NEW}, "new")
    assert isinstance(ring.open(CONTEXT, before), Closed)
    ring.replace({"new": NEW}, "new")
    assert heard == ["new", "new"]


def test_a_salt_is_drawn_anew_before_nonces_could_meet() -> None:
    ring = Keyring({"k": NEW}, "k")
    first = read_encrypted(ring.seal(CONTEXT, b"x")).salt
    assert read_encrypted(ring.seal(CONTEXT, b"x")).salt == first
    ring._left = 0
    assert read_encrypted(ring.seal(CONTEXT, b"x")).salt != first
    assert ring._left == MESSAGES_PER_SALT - 1


@pytest.mark.parametrize(
    ("keys", "primary", "says"),
    [
        ({"k": b"short"}, "k", "key k has 5 bytes"),
        ({"": NEW}, "", "is no key id"),
        ({"k" * (KEY_ID_BYTES_MAX + 1): NEW}, None, "is no key id"),
        ({"schlüssel": NEW}, None, "is no key id"),
        ({"k": NEW}, "l", "primary names key 'l', which is not there; the keys are: k"),
    ],
)
def test_keys_that_cannot_be_used_are_refused(keys: dict[str, bytes], primary: str | None, says: str) -> None:
    with pytest.raises(BadKeys, match=says) as refused:
        Keyring(keys, primary)
    assert "short" not in str(refused.value)


def test_a_keyring_shows_no_key() -> None:
    assert repr(Keyring({"k": NEW}, "k")) == "Keyring(k; primary k)"


@given(st.binary(max_size=200))
def test_bytes_that_only_look_like_an_envelope_are_refused_in_words(junk: bytes) -> None:
    """Whatever follows C1 C1: closed with a reason, Undecodable, and no other error."""
    ring = Keyring({"k": NEW}, "k")
    for data in (ENVELOPE + junk, ENCRYPTED + junk, REFERENCE + junk):
        assert why_closed(data)
        with pytest.raises(Undecodable):
            codec.decode(data)
        if data.startswith(ENCRYPTED):
            opened = ring.open(CONTEXT, data)
            assert isinstance(opened, Closed)
            assert opened.reason


def test_who_has_no_keys_says_so_and_how_to_give_them() -> None:
    """To who only looks at a history it is no fault; who has to open it lacks something."""
    sealed = Keyring({"k": NEW}, "k").seal(CONTEXT, b"x")
    assert why_closed(sealed) == "encrypted with key k"
    assert why_unread(sealed) == "encrypted with key k, and there are no keys here; give the node --keys FILE"
    tried = Keyring({"o": OLD}, "o").open(CONTEXT, sealed)
    assert why_unread(tried) == "encrypted with key k, and key k is not in the keyring"
    assert why_unread(b"plain") is None


@pytest.mark.parametrize(
    ("subject", "context"),
    [
        ("mesh.wf.q.o-1.start", "mesh.wf.q.o-1.start"),
        ("mesh.log.q.7.o-1.start", "mesh.wf.q.o-1.start"),
        ("mesh.at.q.cron.o-1", "mesh.wf.q.o-1.start"),
        ("mesh.at.q.paused.o-1", "mesh.wf.q.o-1.start"),
        ("mesh.at.q.7.o-1.17.3", ""),
        ("mesh.wf.q.o-1.signal.a%2Eb", "mesh.wf.q.o-1.signal.a%2Eb"),
        ("mesh.log.q.7.o-1.ret.17.3.1.ab", "mesh.wf.q.o-1.ret.17.3.1.ab"),
        ("mesh.wf.q.o-1.claim.17.3.1", ""),
        ("mesh.log.q.7.o-1.tick.17.3", ""),
        ("mesh.wf.q.o-1.mark.17.version%3Ax", "mesh.wf.q.o-1.mark.17.version%3Ax"),
        ("mesh.log.q.7.o-1.mark.17.resume", ""),
        ("mesh.wf.q.o-1.cancel", ""),
        ("mesh.node.n1.unit", "mesh.node.n1.unit"),
        ("mesh.node.n1.ping", ""),
        ("mesh.mq.mails", "mesh.mq.mails"),
        ("mesh.note.q.o-1.suspended", "mesh.note.q.o-1.suspended"),
        ("mesh.note.q.o-1.purged", ""),
        ("$KV.mesh_roster.member.n1", ""),
        ("_INBOX.abc.1", ""),
        ("mesh", ""),
        ("mesh.wf", ""),
        ("mesh.log.q", ""),
    ],
)
def test_what_a_payload_is_bound_to_follows_from_its_subject(subject: str, context: str) -> None:
    assert context_of(subject) == context


def test_a_call_is_bound_to_its_function_and_to_whom_it_answers() -> None:
    ret = "mesh.wf.q.o-1.ret.17.3.1.ab"
    assert context_of("mesh.fn.app.f", ret) == f"mesh.fn.app.f {ret}"
    assert outcome_context(ret) == ret == context_of(ret)
    assert outcome_context("call.ab") == "outcome call.ab"
    assert queue_token_of(f"mesh.fn.app.f {ret}") == "q"
    assert queue_token_of("answer mesh.queue.q.3.describe") == "q"
    assert queue_token_of("mesh.events.system") == ""
