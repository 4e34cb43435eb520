"""node/lua/msgpack.lua: the wire form of values that leave a unit (contract 3.4), against the msgpack library."""

from __future__ import annotations

import math
from typing import Any  # what lupa hands out is untyped

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lupa.lua54 import LuaError

from tests.lua_chunks import STDLIB, Chunks


@pytest.fixture(scope="module")
def lua() -> Chunks:
    return Chunks(*STDLIB, "msgpack")


def encoded(lua: Chunks, expression: str) -> Any:
    return lua.run(f"return K.encode({expression})")


def plain(data: bytes) -> Any:
    return msgpack.unpackb(data, raw=False, strict_map_key=False)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("nil", None),
        ("true", True),
        ("false", False),
        *[(str(n), n) for n in (0, 127, 128, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**63 - 1)],
        *[(str(n), n) for n in (-1, -32, -33, -128, -129, -32768, -32769, -(2**31), -(2**31) - 1)],
        ("math.mininteger", -(2**63)),
        ("1.5", 1.5),
        ("'text'", "text"),
        ("'gr\u00fc\u00df'", "gr\u00fc\u00df"),
        ("'\\255\\254'", b"\xff\xfe"),
        ("('x'):rep(31)", "x" * 31),
        ("('x'):rep(32)", "x" * 32),
        ("('x'):rep(255)", "x" * 255),
        ("('x'):rep(256)", "x" * 256),
        ("('x'):rep(65536)", "x" * 65536),
        ("('\\255'):rep(256)", b"\xff" * 256),
        ("('\\255'):rep(65536)", b"\xff" * 65536),
        ("{}", []),
        ("{1, 'a', {2}}", [1, "a", [2]]),
        ("{b = 1, a = {c = 2}}", {"a": {"c": 2}, "b": 1}),
        ("{[2] = 'b', [1] = 'a'}", ["a", "b"]),
        ("{[1] = 'a', [3] = 'c'}", {1: "a", 3: "c"}),
        ("{[true] = 1, [false] = 0, [1.5] = 2, x = 3}", {1.5: 2, "x": 3, False: 0, True: 1}),
    ],
)
def test_a_value_is_written_as_the_msgpack_library_writes_it(lua: Chunks, expression: str, value: object) -> None:
    """Any msgpack reader must understand us, and the form is the shortest: the same bytes as the library's."""
    assert encoded(lua, expression) == msgpack.packb(value, use_bin_type=True)


@pytest.mark.parametrize("n", [15, 16, 65535, 65536])
def test_array_and_map_heads_change_at_their_limits(lua: Chunks, n: int) -> None:
    array = lua.run("local n = ... local t = {} for i = 1, n do t[i] = 7 end return K.encode(t)", n)
    table = lua.run("local n = ... local t = {} for i = 1, n do t[i * 2] = 7 end return K.encode(t)", n)
    assert array == msgpack.packb([7] * n)
    assert table == msgpack.packb({i * 2: 7 for i in range(1, n + 1)})


def test_whole_floats_stay_floats_and_integers_stay_integers(lua: Chunks) -> None:
    assert encoded(lua, "1.0") == b"\xcb" + b"\x3f\xf0" + b"\0" * 6
    kinds = lua.run(
        "local t = K.decode(K.encode{1, 1.0, 2^53, math.maxinteger, -0.0}) local k = {} "
        "for i = 1, #t do k[i] = math.type(t[i]) end return table.concat(k, ' '), 1 / t[5]"
    )
    assert kinds == (b"integer float float integer float", -math.inf)


def test_every_nan_has_the_same_bytes(lua: Chunks) -> None:
    """The sign of 0/0 depends on the processor; fingerprints may not."""
    assert encoded(lua, "0/0") == encoded(lua, "-(0/0)") == b"\xcb\x7f\xf8" + b"\0" * 6


def test_keys_are_written_in_the_defined_order(lua: Chunks) -> None:
    """Numbers, strings bytewise, false, true; whatever order they were put in, also beyond the short sort."""
    mixed = encoded(lua, "{zz = 1, [true] = 2, a = 3, [2.5] = 4, [-1] = 5, [false] = 6, B = 7}")
    assert list(plain(mixed)) == [-1, 2.5, "B", "a", "zz", False, True]
    many = lua.run("local t = {} for i = 40, 1, -1 do t['k' .. i] = i end return K.encode(t)")
    assert list(plain(many)) == sorted(f"k{i}" for i in range(1, 41))


def test_functions_threads_and_objects_leave_no_trace(lua: Chunks) -> None:
    """Contract 3.4: they become nil; a field that holds one disappears; a list keeps its places."""
    lua.run("Thing = K.class('Thing', {})({})")
    assert plain(encoded(lua, "{f = print, co = coroutine.create(print), o = Thing, x = 1}")) == {"x": 1}
    assert plain(encoded(lua, "{print, 2, Thing}")) == [None, 2, None]
    assert encoded(lua, "Thing") == b"\xc0"
    assert encoded(lua, "{f = print}") == b"\x80"


def test_an_error_travels_with_all_it_knows(lua: Chunks) -> None:
    data = encoded(lua, "{e = K.new_error('Invalid', 'bad id', false, {id = 7, list = {1, 2}})}")
    ext = msgpack.unpackb(data, raw=False)["e"]
    assert ext.code == 1
    assert plain(ext.data) == {
        "message": "bad id",
        "kind": "Invalid",
        "retryable": False,
        "details": {"id": 7, "list": [1, 2]},
        "stack": "bad id\n\ttest.lua:1: in main function",
    }
    back = lua.run(
        "local e = K.decode((...)).e return K.is_error(e), e:kind(), e:message(), e:retryable(), e:details().list[2]",
        data,
    )
    assert back == (True, b"Invalid", b"bad id", False, 2)


@pytest.mark.parametrize("length", [1, 300, 70_000])
def test_errors_of_every_size_come_back(lua: Chunks, length: int) -> None:
    back = lua.run("return K.decode(K.encode(K.new_error('', ('m'):rep(...), nil, {n = 1}))):message()", length)
    assert back == b"m" * length


def test_cycles_are_named_and_depth_is_limited_at_128(lua: Chunks) -> None:
    nested = "local t = 1 for _ = 1, ... do t = {t} end "
    assert lua.run("local t = {} t.x = {t} return K.encode(t)") == (None, b"cyclic table")
    assert lua.run("local t = {} t[t] = 1 return K.encode(t)") == (None, b"a table key of type table cannot be sent")
    through = "local d = {} local e = K.new_error('', 'm', nil, {d = d}) d.e = e return K.encode(e)"
    assert lua.run(through) == (None, b"cyclic table")
    assert plain(lua.run(nested + "return K.encode(t)", 128))
    assert lua.run(nested + "return select('#', K.decode(K.encode(t)))", 128) == 2
    assert lua.run(nested + "return K.encode(t)", 129) == (None, b"tables nested deeper than 128 levels cannot be sent")


def test_a_table_may_appear_twice_but_not_grow_without_bound(lua: Chunks) -> None:
    assert plain(lua.run("local a = {1} return K.encode{a, a}")) == [[1], [1]]
    lua.run("K.limits.encode_pieces_max = 10000")
    try:
        bomb = lua.run("local t = {1} for _ = 1, 60 do t = {t, t} end return K.encode(t)")
    finally:
        lua.run("K.limits.encode_pieces_max = 4000000")
    assert bomb == (None, b"value too large")


def test_a_failed_encoding_leaves_nothing_for_the_next(lua: Chunks) -> None:
    assert lua.run("K.encode{1, 2, {[print] = 1}} return K.encode{3}") == b"\x91\x03"


def test_metatables_are_not_asked(lua: Chunks) -> None:
    """User code must not run inside the encoder: it could block or change the table."""
    trap = "setmetatable({a = 1}, {__index = error, __pairs = error, __len = error, __eq = error})"
    assert plain(encoded(lua, trap)) == {"a": 1}


def test_lists_and_payloads(lua: Chunks) -> None:
    assert lua.run("return K.encode_list(3, nil, 1, nil)") == b"\x93\xc0\x01\xc0"
    assert lua.run("return K.encode_list(0)") == b"\x90"
    assert lua.run("local n, t, past = K.decode_list('\\x93\\xc0\\x01\\xc0') return n, t[1], t[2], past") == (
        3,
        None,
        1,
        5,
    )
    assert lua.run("return (K.decode_list(K.encode_list(20, nil)))") == 20
    assert lua.run("return K.encode_payload{1}") == b"\xc1\x91\x01"
    assert lua.run("return K.decode_payload(K.encode_payload('x'))") == b"x"
    assert lua.run("return K.decode('\\xff\\x05', 2)") == (5, 3)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\xc1", b"\xa3ab", b"\xd9\x05abc", b"\xd9", b"\xcb\0\0", b"\xcd\0", b"\xcf\0", b"\x92\x01",
        b"\x82\xa1a\x01",
        b"\x81\xc0\x01", b"\x81\xa5a", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff\x01", b"\xc7\x01\x01",
        b"\xd4\x07\x00", b"\xd4\x01\x05", b"\xc7\x02\x01\x80\x80", b"\x81\xcb\x7f\xf8\0\0\0\0\0\0\x01", b"\x91" * 200,
    ],
)  # fmt: skip
def test_malformed_bytes_raise(lua: Chunks, data: bytes) -> None:
    with pytest.raises(LuaError, match="malformed msgpack"):
        lua.run("return K.decode(...)", data)


def test_payloads_that_are_not_ours_or_go_on_behind_the_value_raise(lua: Chunks) -> None:
    for data in (b"{}", b"\x01", b"\xc1", b"\xc1\x01\x01"):
        with pytest.raises(LuaError, match="malformed msgpack"):
            lua.run("return K.decode_payload(...)", data)


def test_foreign_forms_are_read(lua: Chunks) -> None:
    """What the library may write and we never do: 32-bit floats, integers above the range of Lua, bin text."""
    assert lua.run("return (K.decode(...))", msgpack.packb(1.5, use_single_float=True)) == 1.5
    assert lua.run("return (K.decode(...))", msgpack.packb(2**64 - 1)) == float(2**64)
    assert lua.run("return (K.decode(...))", msgpack.packb(b"ab")) == b"ab"


_SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text()
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, min_size=1) | st.dictionaries(st.text(), inner.filter(lambda v: v is not None), min_size=1)
    ),
    max_leaves=20,
)


@settings(deadline=None, max_examples=200)
@given(value=_VALUES)
def test_what_the_library_wrote_is_written_again_the_same(lua: Chunks, value: object) -> None:
    """Decoding and encoding again gives the same value, except that Lua cannot keep a nil at the end of a list."""

    def settled(v: object) -> object:
        if isinstance(v, list):
            items = [settled(item) for item in v]
            while items and items[-1] is None:
                items.pop()
            if any(item is None for item in items):
                return {i: item for i, item in enumerate(items, 1) if item is not None}
            return items
        if isinstance(v, dict):
            return {key: settled(item) for key, item in sorted(v.items(), key=lambda pair: pair[0].encode())}
        return v

    again = lua.run("return K.encode((K.decode(...)))", msgpack.packb(value))
    assert again == msgpack.packb(settled(value))


def test_of_keys_that_cannot_be_sent_always_the_same_one_is_named(lua: Chunks) -> None:
    """They come in the order of their addresses, and what is said of them is an outcome that code may look at."""
    said = {
        lua.run("return select(2, K.encode({ [{}] = 1, [K.new_error('', 'e')] = 2, [print] = 3, [{ 1 }] = 4 }))")
        for _ in range(50)
    }
    assert said == {b"a table key of type Error cannot be sent"}
