"""The Lua modules `crypto` and `hash`: known answers, agreement with other implementations, bad values."""

from __future__ import annotations

import hashlib
import hmac
import json
import subprocess
import sys
import time
from collections import Counter
from functools import cache
from typing import Any

import anyio
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh import codec
from mesh.failure import Failure
from node.machine.crypto import random_text
from node.machine.vm import LuaVM
from node.modules import Caller, Modules
from node.modules.crypto import CryptoModule
from tests.units import KINDS, T0_NS, Unit, run_unit

VM = LuaVM()
CALLER = Caller("{a:host|0x00001}", "a:unit")


def value(expression: str, *args: Any, kind: str = "workflow") -> Any:
    """The value, or (kind, message, retryable) of the error."""
    body = f"local v, e = {expression} if e then return {{e:kind(), e:message(), e:retryable()}} end return {{v}}"
    got = run_unit(body, *args, kind=kind, vm=VM)
    assert not isinstance(got, Failure), got
    return tuple(got) if len(got) > 1 else got[0]


def message(expression: str, *args: Any) -> str:
    """The text of the Invalid that an expression gives."""
    kind, text, retryable = value(expression, *args)
    assert (kind, retryable) == ("Invalid", False)
    return str(text)


def as_bytes(got: str | bytes) -> bytes:
    return got if isinstance(got, bytes) else got.encode()


# -- hash ----------------------------------------------------------------------------------------------------------

BLOBS = st.binary(max_size=300)


@given(BLOBS, BLOBS, st.sampled_from(["md5", "sha1", "sha256", "sha512"]))
@settings(max_examples=60)
def test_digests_agree_with_python(data: bytes, secret: bytes, name: str) -> None:
    assert value(f"hash.{name}(...)", data) == hashlib.new(name, data).hexdigest()
    assert as_bytes(value(f"hash.{name}((...), true)", data)) == hashlib.new(name, data).digest()
    assert value(f"hash.hmac_{name}(...)", data, secret) == hmac.new(secret, data, name).hexdigest()
    raw = value(f"(function(d, s) return hash.hmac_{name}(d, s, true) end)(...)", data, secret)
    assert as_bytes(raw) == hmac.new(secret, data, name).digest()


@pytest.mark.parametrize(
    ("text", "fnv32", "fnv64"),
    [
        (b"", 0x811C9DC5, 0xCBF29CE484222325),
        (b"a", 0x050C5D7E, 0xAF63BD4C8601B7BE),
        (b"foobar", 0x31F0B262, 0x340D8765A4DDA9C2),
        (b"\0\xff", None, None),
    ],
)
def test_fnv_is_version_1(text: bytes, fnv32: int | None, fnv64: int | None) -> None:
    def fnv(bits: int, start: int, prime: int) -> int:
        state = start
        for byte in text:
            state = (state * prime) % 2**bits ^ byte
        return state

    expected32, expected64 = fnv(32, 0x811C9DC5, 0x01000193), fnv(64, 0xCBF29CE484222325, 0x100000001B3)
    assert (fnv32 or expected32, fnv64 or expected64) == (expected32, expected64)
    assert value("hash.fnv32(...)", text) == expected32
    assert value("hash.fnv64(...)", text) % 2**64 == expected64


@pytest.mark.parametrize(
    "call",
    [*(f"{name}({bad})" for name in ("md5", "sha1", "sha256", "sha512", "fnv32", "fnv64") for bad in ("nil", "5", "{}")),
     "hmac_md5('x')", "hmac_sha1(nil, 's')", "hmac_sha256({}, 's')", "hmac_sha512('x', 5)"],
)  # fmt: skip
def test_only_strings_are_hashed(call: str) -> None:
    assert "must be a string, got" in message(f"hash.{call}")


# -- random --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_random_values_have_the_length_and_form_asked_for(kind: str) -> None:
    assert len(as_bytes(value("crypto.random.bytes(1)", kind=kind))) == 1
    assert value("#crypto.random.bytes(1048576)", kind=kind) == 1048576
    text = value("crypto.random.string(1000)", kind=kind)
    assert len(text) == 1000
    assert text.isascii()
    assert text.isalnum()
    assert set(value("crypto.random.string(200, 'ab')", kind=kind)) == {"a", "b"}
    assert value("crypto.random.string(3, 'x')", kind=kind) == "xxx"
    umlauts = value("crypto.random.string(100, 'äöü')", kind=kind)
    assert (len(umlauts), set(umlauts)) == (100, set("äöü"))
    assert value("#crypto.random.string(1048576, 'abc')", kind=kind) == 1048576
    assert value("{uuid.version(crypto.random.uuid())}", kind=kind) == [4]


def test_every_character_of_a_charset_is_equally_likely() -> None:
    # 200 characters: without rejection the first 56 would come twice as often as the others.
    charset = bytes(range(1, 201))
    counts = Counter(random_text(b"seed", 1, 200_000, charset))
    assert set(counts) == set(charset)
    assert all(800 < count < 1200 for count in counts.values())


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ("bytes(0)", "the length must be an integer from 1 to 1048576"),
        ("bytes(-1)", "the length must be"),
        ("bytes(1048577)", "the length must be"),
        ("bytes(1.5)", "the length must be"),
        ("bytes('8')", "the length must be"),
        ("bytes()", "the length must be"),
        ("string(0)", "the length must be"),
        ("string(1048577)", "the length must be"),
        ("string(5, '')", "the charset must be a non-empty string"),
        ("string(5, 5)", "the charset must be a non-empty string"),
        ("string(5, ('x'):rep(257))", "the charset has more than 256 characters"),
    ],
)
def test_bad_lengths_and_charsets_are_invalid(call: str, text: str) -> None:
    assert text in message(f"crypto.random.{call}")


# -- keyed digests, comparison -------------------------------------------------------------------------------------


def test_hmac_gives_the_answers_of_rfc_4231() -> None:
    assert value("crypto.hmac.sha256('Jefe', 'what do ya want for nothing?')") == (
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    )
    assert value("crypto.hmac.sha512('Jefe', 'what do ya want for nothing?')") == (
        "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737"
    )
    assert value("crypto.hmac.sha256('k', '')") == hmac.new(b"k", b"", "sha256").hexdigest()


@pytest.mark.parametrize("name", ["sha256", "sha512"])
def test_hmac_wants_a_key(name: str) -> None:
    assert message(f"crypto.hmac.{name}('', 'x')") == f"crypto.hmac.{name}: the key is empty"
    assert "the key must be a string, got nil" in message(f"crypto.hmac.{name}(nil, 'x')")
    assert "the data must be a string, got table" in message(f"crypto.hmac.{name}('k', {{}})")


def test_constant_time_compare() -> None:
    assert value("crypto.constant_time_compare('a\\0b', 'a\\0b')") is True
    assert value("crypto.constant_time_compare('', '')") is True
    assert value("crypto.constant_time_compare('a', 'b')") is False
    assert value("crypto.constant_time_compare('a', 'ab')") is False
    assert "must be a string, got nil" in message("crypto.constant_time_compare('a', nil)")


# -- ciphers -------------------------------------------------------------------------------------------------------

CIPHERS = [("aes", 16, AESGCM), ("aes", 24, AESGCM), ("aes", 32, AESGCM), ("chacha20", 32, ChaCha20Poly1305)]


@pytest.mark.parametrize(("cipher", "size", "theirs"), CIPHERS)
@pytest.mark.parametrize("kind", KINDS)
def test_ciphers_agree_with_another_implementation_both_ways(kind: str, cipher: str, size: int, theirs: Any) -> None:
    key = bytes(range(size))
    for data, aad in ((b"", None), (b"text", None), (bytes(1000), b"header"), (b"\xff", b"")):
        given = [data, key] + ([aad] if aad is not None else [])
        sealed = as_bytes(value(f"crypto.encrypt.{cipher}(...)", *given, kind=kind))
        assert len(sealed) == 12 + len(data) + 16
        assert theirs(key).decrypt(sealed[:12], sealed[12:], aad or None) == data
        sealed = bytes(12) + theirs(key).encrypt(bytes(12), data, aad or None)
        given[0] = sealed
        assert as_bytes(value(f"crypto.decrypt.{cipher}(...)", *given, kind=kind)) == data


@pytest.mark.parametrize(("cipher", "size", "_theirs"), CIPHERS)
def test_what_was_changed_fails_the_check(cipher: str, size: int, _theirs: Any) -> None:
    sealed = as_bytes(value(f"crypto.encrypt.{cipher}(...)", b"data", bytes(size), b"aad"))
    wrong = [
        (sealed, bytes(size), b"other"),
        (sealed, bytes(size)),
        (sealed, b"\1" * size, b"aad"),
        (sealed[:-1] + bytes([sealed[-1] ^ 1]), bytes(size), b"aad"),
        (bytes([sealed[0] ^ 1]) + sealed[1:], bytes(size), b"aad"),
    ]
    for changed in wrong:
        kind, text, retryable = value(f"crypto.decrypt.{cipher}(...)", *changed)
        assert (kind, retryable) == ("Internal", False)
        assert "the check failed" in text


@pytest.mark.parametrize("size", [0, 15, 17, 31, 33, 64])
def test_keys_of_other_sizes_are_invalid(size: int) -> None:
    assert message("crypto.encrypt.aes('x', ('k'):rep(...))", size) == (
        f"crypto.encrypt.aes: the key must have 16, 24 or 32 bytes, it has {size}"
    )
    assert "must have 32 bytes" in message("crypto.encrypt.chacha20('x', ('k'):rep(...))", size)
    assert "must have 16, 24" in message("crypto.decrypt.aes(('x'):rep(40), ('k'):rep(...))", size)
    assert "must have 32 bytes" in message("crypto.decrypt.chacha20(('x'):rep(40), ('k'):rep(...))", size)


def test_what_is_too_short_or_no_string_is_invalid() -> None:
    for cipher in ("aes", "chacha20"):
        assert "too short" in message(f"crypto.decrypt.{cipher}(('x'):rep(27), ('k'):rep(32))")
        assert value(f"crypto.decrypt.{cipher}(('x'):rep(28), ('k'):rep(32))")[0] == "Internal"
        assert "the data must be a string, got table" in message(f"crypto.encrypt.{cipher}({{}}, ('k'):rep(32))")
        assert "the key must be a string, got nil" in message(f"crypto.encrypt.{cipher}('x')")
        assert "the aad must be a string, got number" in message(f"crypto.encrypt.{cipher}('x', ('k'):rep(32), 5)")


# -- tokens --------------------------------------------------------------------------------------------------------

NOW_S = T0_NS // 10**9
SECRET = "a secret that is long enough to be quiet about it, even for SHA-512........."


@cache
def rsa_keys() -> tuple[str, str]:
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode(), public.decode()


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512", "RS256"])
@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_read_by_others_and_those_of_others_here(kind: str, algorithm: str) -> None:
    sign, check = rsa_keys() if algorithm == "RS256" else (SECRET, SECRET)
    token = value(
        "(function(k, a) return crypto.jwt.encode({sub = 7, list = {1, 'x'}, exp = 99999999999, _header = {kid = 'k1', alg = 'none'}}, k, a) end)(...)",
        sign, algorithm, kind=kind,
    )  # fmt: skip
    assert jwt.get_unverified_header(token) == {"alg": algorithm, "typ": "JWT", "kid": "k1"}
    claims = {"sub": 7, "list": [1, "x"], "exp": 99999999999}
    assert jwt.decode(token, check, algorithms=[algorithm], options={"verify_sub": False}) == claims
    theirs = jwt.encode({"iss": "me", "aud": ["a", "b"], "exp": 99999999999}, sign, algorithm)
    assert value("crypto.jwt.verify(...)", theirs, check, algorithm, kind=kind) == {
        "iss": "me", "aud": ["a", "b"], "exp": 99999999999,
    }  # fmt: skip


def test_hs256_is_the_default_and_a_private_key_checks_too() -> None:
    token = value("crypto.jwt.encode({}, 'k')")
    assert jwt.get_unverified_header(token)["alg"] == "HS256"
    assert value("crypto.jwt.verify((...), 'k', nil, false)", token) == []
    private, _ = rsa_keys()
    signed = value("(function(k) return crypto.jwt.encode({a = 1}, k, 'RS256') end)(...)", private)
    assert value("(function(t, k) return crypto.jwt.verify(t, k, 'RS256', false) end)(...)", signed, private) == {
        "a": 1
    }


@pytest.mark.parametrize(
    ("claims", "require", "problem"),
    [
        ({}, "true", "it has no exp, which is required"),
        ({}, "nil", "it has no exp, which is required"),
        ({}, "false", None),
        ({"exp": NOW_S + 1}, "true", None),
        ({"exp": NOW_S}, "true", "it has expired"),
        ({"exp": NOW_S - 1}, "false", "it has expired"),
        ({"exp": NOW_S + 0.5}, "true", None),
        ({"exp": str(NOW_S + 9)}, "true", "exp must be a number of seconds"),
        ({"exp": True}, "true", "exp must be a number of seconds"),
        ({"nbf": NOW_S}, "false", None),
        ({"nbf": NOW_S + 1}, "false", "it is not valid yet (nbf)"),
        ({"nbf": "soon"}, "false", "nbf must be a number of seconds"),
        ({"iat": NOW_S + 999, "jti": 5, "sub": 5, "aud": "x"}, "false", None),
    ],
)
def test_times_of_tokens_are_held_against_the_units_clock(
    claims: dict[str, Any], require: str, problem: str | None
) -> None:
    token = jwt.PyJWS().encode(json.dumps(claims).encode(), SECRET, "HS256")
    got = value(f"crypto.jwt.verify((...), select(2, ...), nil, {require})", token, SECRET)
    if problem is None:
        assert got == (claims or [])
    else:
        assert got == ("Internal", f"crypto.jwt.verify: the token is not valid: {problem}", False)


def test_tokens_of_other_keys_algorithms_and_forms_are_not_valid() -> None:
    claims = {"exp": 99999999999}
    _, public = rsa_keys()
    bad = [
        (jwt.encode(claims, SECRET + "x", "HS256"), SECRET, "HS256"),
        (jwt.encode(claims, SECRET, "HS384"), SECRET, "HS256"),
        (jwt.encode(claims, "", "none"), SECRET, "HS256"),
        (jwt.encode(claims, SECRET, "HS256"), public, "RS256"),
        ("a.b.c", SECRET, "HS256"),
        ("nothing", SECRET, "HS256"),
        (jwt.PyJWS().encode(b"[1]", SECRET, "HS256"), SECRET, "HS256"),
        (jwt.PyJWS().encode(b"\xff", SECRET, "HS256"), SECRET, "HS256"),
    ]
    for token, key, algorithm in bad:
        kind, text, retryable = value("crypto.jwt.verify(...)", token, key, algorithm)
        assert (kind, retryable) == ("Internal", False)
        assert text.startswith("crypto.jwt.verify: the token is not valid: ")


def test_a_public_key_does_not_serve_as_a_shared_secret() -> None:
    """Else whoever knows the public key could sign tokens that say HS256."""
    _, public = rsa_keys()
    assert "cannot be used with HS256" in message("crypto.jwt.verify('a.b.c', ...)", public)
    assert "cannot be used with HS256" in message("crypto.jwt.encode({}, ...)", public)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ("encode(nil, 'k')", "the claims must be a table, got nil"),
        ("encode({1, 2}, 'k')", "the claims must be a table with named fields, got a list"),
        ("encode({1, a = 2}, 'k')", "the claims: json.encode: a table mixes list items and named fields"),
        ("encode({}, '')", "the key must be a non-empty string"),
        ("encode({})", "the key must be a non-empty string"),
        ("encode({}, 'k', 'none')", "the algorithm must be HS256, HS384, HS512 or RS256, got none"),
        ("encode({}, 'k', 'ES256')", "the algorithm must be"),
        ("encode({}, 'k', {})", "the algorithm must be"),
        ("encode({}, 'k', 'RS256')", "the key or header cannot be used with RS256"),
        ("encode({_header = 5}, 'k')", "_header must be a table, got number"),
        ("encode({_header = {kid = 5}}, 'k')", "the key or header cannot be used with HS256"),
        ("verify('', 'k')", "the token must be a non-empty string"),
        ("verify(nil, 'k')", "the token must be a non-empty string"),
        ("verify('a.b.c', '')", "the key must be a non-empty string"),
        ("verify('a.b.c', 'k', 'none')", "the algorithm must be"),
        ("verify('a.b.c', 'k', 'RS256')", "the key or header cannot be used with RS256"),
    ],
)
def test_bad_arguments_of_tokens_are_invalid(call: str, text: str) -> None:
    assert text in message(f"crypto.jwt.{call}")


# -- derived keys --------------------------------------------------------------------------------------------------

PBKDF2 = [
    (("password", "salt", 1, 32), "120fb6cffcf8b32c43e7225256c4f837a86548c92ccc35480805987cb70be17b"),
    (("password", "salt", 2, 32), "ae4d0c95af6b46d32d0adff928f06dd02a303f8ef3c251dfd6e2d85a95474c43"),
    (("password", "salt", 4096, 32), "c5e478d59288c841aa530db6845c4c8d962893a001ce4e11a4963873aa98134a"),
    (("password", "salt", 1, 8, "sha512"), "867f70cf1ade02cf"),
    (("p\0w", b"\xff", 3, 1, "sha256"), hashlib.pbkdf2_hmac("sha256", b"p\0w", b"\xff", 3, 1).hex()),
]


@pytest.mark.parametrize(("given", "expected"), PBKDF2)
def test_a_workflow_derives_keys_in_its_step(given: tuple[Any, ...], expected: str) -> None:
    assert as_bytes(value("crypto.pbkdf2(...)", *given)).hex() == expected


@pytest.mark.parametrize(("given", "expected"), PBKDF2)
@pytest.mark.parametrize("kind", ["function", "process"])
async def test_live_units_ask_the_node_to_derive_keys(kind: str, given: tuple[Any, ...], expected: str) -> None:
    unit = Unit("return function(...) return crypto.pbkdf2(...) end", kind=kind, args=given)
    (op,) = unit.ops
    assert (op.kind, op.target) == ("ask", "crypto.pbkdf2")
    outcome = await Modules({"crypto": CryptoModule()}).ask(str(op.target), op.payload or b"", CALLER)
    unit.resolve(op.n, outcome=outcome)
    assert as_bytes(unit.result).hex() == expected


async def test_deriving_a_key_leaves_the_event_loop_free() -> None:
    asked = codec.encode(["password", "salt", 1_000_000, 32, "sha256"])
    before = time.monotonic()
    hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 1_000_000, 32)
    alone_s = time.monotonic() - before
    ticks = 0
    modules = Modules({"crypto": CryptoModule()})

    async with anyio.create_task_group() as group:

        async def tick() -> None:
            nonlocal ticks
            while True:
                await anyio.sleep(alone_s / 100)
                ticks += 1

        group.start_soon(tick)
        ok, _ = codec.decode_outcome(await modules.ask("crypto.pbkdf2", asked, CALLER))
        group.cancel_scope.cancel()
    assert ok
    assert ticks > 5


async def test_the_node_knows_no_other_call_of_crypto() -> None:
    ok, failure = codec.decode_outcome(
        await Modules({"crypto": CryptoModule()}).ask("crypto.break", codec.encode([]), CALLER)
    )
    assert not ok
    assert "crypto.break: there is no such call" in failure.message


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("'', 'salt', 1, 32", "must not be empty"),
        ("'p', '', 1, 32", "must not be empty"),
        ("nil, 'salt', 1, 32", "the password must be a string, got nil"),
        ("'p', 5, 1, 32", "the salt must be a string, got number"),
        ("'p', 's', 0, 32", "iterations must be an integer from 1 to 10000000"),
        ("'p', 's', 10000001, 32", "iterations must be"),
        ("'p', 's', 1.5, 32", "iterations must be"),
        ("'p', 's', nil, 32", "iterations must be"),
        ("'p', 's', 1, 0", "the length must be an integer from 1 to 1024"),
        ("'p', 's', 1, 1025", "the length must be"),
        ("'p', 's', 1, 32, 'md5'", "the digest must be sha256 or sha512, got md5"),
        ("'p', 's', 1, 32, {}", "the digest must be"),
        ("'p', 's', 5000001, 33", "derive the key in a function"),
    ],
)
def test_bad_values_of_pbkdf2_are_invalid(arguments: str, text: str) -> None:
    assert text in message(f"crypto.pbkdf2({arguments})")


# -- importing -----------------------------------------------------------------------------------------------------


def test_starting_a_node_or_asking_for_help_imports_no_cipher() -> None:
    script = (
        "import sys, node.cli, node.machine.vm, node.modules.crypto; node.machine.vm.LuaVM(); "
        "print(sorted(sys.modules.keys() & {'jwt', 'jsonschema', 'node.machine.crypto', 'node.machine.json_schema'}))"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=50)
    assert said.stdout.strip() == "[]"
