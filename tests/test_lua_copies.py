"""node/lua/copies.lua: what a message between two processes of one VM carries is what the wire would have left of it."""

from __future__ import annotations

import struct
from typing import Any  # what lupa hands out is untyped

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.lua_chunks import STDLIB, Chunks
from tests.test_process_vm import Host

# Whether two values are the same to every look that code can take, and share no table.
SAME = """
local function same(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then
    if type(a) == "number" and type(b) == "number" then
      return math.type(a) == math.type(b) and string.pack(">n", a) == string.pack(">n", b)
        and (math.type(a) == "float" or a == b)
    end
    return a == b
  end
  local n = 0
  for k, v in next, a do
    n = n + 1
    if not same(v, b[k]) then return false end
  end
  for _ in next, b do n = n - 1 end
  return n == 0 and a ~= b and getmetatable(a) == nil
end
"""


@pytest.fixture(scope="module")
def lua() -> Chunks:
    return Chunks(*STDLIB, "msgpack", "copies")


def text(data: bytes) -> str:
    return '"' + "".join(f"\\{byte:03}" for byte in data) + '"'


def number(value: float) -> str:
    return f'(string.unpack(">d", {text(struct.pack(">d", value))}))'


texts = (st.binary(max_size=40) | st.text(max_size=40).map(str.encode)).map(text)
integers = st.integers(-(2**63) + 1, 2**63 - 1).map(str)
floats = st.floats(allow_nan=True).map(number)
scalars = texts | integers | floats | st.sampled_from(["true", "false", "math.mininteger", "-(0/0)", "0/0", "-0.0"])
keys = (
    texts | integers | st.floats(allow_nan=False).map(number) | st.sampled_from(["true", "false", "1", "2", "3", "1.5"])
)
unsendable = st.sampled_from(
    [
        "print",
        "coroutine.create(print)",
        "errors.new('x')",
        "setmetatable({1}, {__index = {2}})",
        "{[{}] = 1}",
        "{[print] = 1}",
    ]
)


def tables(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    fields = st.lists(st.tuples(keys, values), max_size=8).map(
        lambda pairs: "{" + ", ".join(f"[{key}] = {value}" for key, value in pairs) + "}"
    )
    items = st.lists(values, max_size=20).map(lambda found: "{" + ", ".join(found) + "}")
    return fields | items


plain = st.recursive(scalars | st.just("nil"), tables, max_leaves=30)
anything = st.recursive(scalars | unsendable, tables, max_leaves=15)


@given(plain)
@settings(max_examples=500, deadline=None)
def test_a_copy_is_what_decoding_the_encoded_value_gives(lua: Chunks, expression: str) -> None:
    source = f"""{SAME}
      local v = {expression}
      local copied, copy = K.copy_plain(v)
      local bytes = K.encode(v)
      return copied, same(copy, (K.decode(bytes))), K.encode(copy) == bytes, type(v) ~= "table" or copy ~= v"""
    assert lua.run(source) == (True, True, True, True)


@given(anything)
@settings(max_examples=300, deadline=None)
def test_what_is_not_plain_is_left_to_the_codec(lua: Chunks, expression: str) -> None:
    """Either there is no copy, or it is the codec's: never a function, an object or a metatable that crosses."""
    source = f"""{SAME}
      local v = {expression}
      local copied, copy = K.copy_plain(v)
      if not copied then return true end
      local bytes = K.encode(v)
      return bytes ~= nil and same(copy, (K.decode(bytes)))"""
    assert lua.run(source) is True


def test_several_bodies_keep_their_count_and_their_nils(lua: Chunks) -> None:
    source = (
        """local b = K.copy_bodies(4, nil, {1}, 2, nil) return b.n, b[1], b[2][1], b[3], b[4], K.copy_bodies(0).n"""
    )
    assert lua.run(source) == (4, None, 1, 2, None, 0)
    assert lua.run("return K.copy_bodies(2, 1, print), K.copy_bodies(1, print)") == (None, None)


RECEIVER = """return { main = function()
  local m = process.inbox():receive()
  local v = m:payload():data()
  return type(v) == "table" and { v, m.name } or v
end }"""


def sent(expression: str) -> tuple[Any, Any]:
    """What a process gets that sends a value to its neighbour, and what that one gets; None while it has got nothing."""
    host = Host()
    receiver, pid = host.spawn(RECEIVER)
    sender, _ = host.spawn(
        f"""return {{ main = function(to)
          local v = {expression}
          local ok, err = process.send(to, "x", v)
          if type(v) == "table" then v.name = "changed after it was sent" end
          return ok or {{ err:kind(), err:message() }}
        end }}""",
        pid,
    )
    return host.ended(sender), host.ended(receiver)


def nested(levels: int) -> str:
    return f"(function() local t = {{}} for _ = 2, {levels} do t = {{ t }} end return t end)()"


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("(function() local t = {} t.t = t return t end)()", "cyclic table"),
        (nested(129), "tables nested deeper than 128 levels cannot be sent"),
        ("{ [{}] = 1 }", "a table key of type table cannot be sent"),
    ],
)
def test_a_message_that_cannot_be_sent_is_refused_between_neighbours_too(expression: str, problem: str) -> None:
    assert sent(expression) == (["Invalid", f"message cannot be sent: {problem}"], None)


def test_a_table_of_the_greatest_depth_reaches_a_neighbour() -> None:
    assert sent(f"{{ {nested(127)} }}")[0] is True


def test_what_a_sender_changes_afterwards_does_not_reach_its_neighbour() -> None:
    assert sent("{ name = 'as sent', list = { 1, 2.0, {} } }") == (
        True,
        [{"name": "as sent", "list": [1, 2.0, []]}, "as sent"],
    )


def test_what_is_not_plain_reaches_a_neighbour_as_it_reaches_others() -> None:
    ok, value = sent("{ f = print, name = 'n', err = errors.new('no stock'), t = setmetatable({ 1 }, {}) }")
    assert ok is True
    (fields, name) = value
    assert (name, fields["t"], "f" in fields, fields["err"].message) == ("n", [1], False, "no stock")
