"""The Error object and `errors`, row by row, and what a stack shows of where an error came from."""

from __future__ import annotations

from typing import Any

import pytest

from mesh import codec
from mesh.failure import Failure
from tests.flows import Flow
from tests.units import KINDS, Unit, run_unit

ROWS: dict[str, tuple[str, Any]] = {
    "new with text": ("local e = errors.new('t') return {e:kind(), e:message(), e:retryable() == nil, e:details() == nil, tostring(e), type(e)}", ["", "t", True, True, "t", "userdata"]),
    "new with a table": ("local e = errors.new{message = 't', kind = errors.CONFLICT, retryable = false, details = {a = {b = 1}}} return {e:kind(), e:message(), e:retryable(), e:details()}", ["Conflict", "t", False, {"a": {"b": 1}}]),
    "retryable has three values": ("return {errors.new{message = '', retryable = true}:retryable(), errors.new{message = '', retryable = false}:retryable(), errors.new{message = ''}:retryable() == nil}", [True, False, True]),
    "empty details read as nil": ("return errors.new{message = 't', details = {}}:details() == nil", True),
    "constants": ("local l = {} for _, n in ipairs{'UNKNOWN', 'INVALID', 'NOT_FOUND', 'ALREADY_EXISTS', 'PERMISSION_DENIED', 'UNAVAILABLE', 'INTERNAL', 'CANCELED', 'CONFLICT', 'TIMEOUT', 'RATE_LIMITED'} do l[#l + 1] = errors[n] end return l",
        ["", "Invalid", "NotFound", "AlreadyExists", "PermissionDenied", "Unavailable", "Internal", "Canceled", "Conflict", "Timeout", "RateLimited"]),
    "is": ("local e = errors.new{message = 't', kind = 'Conflict'} return {errors.is(e, errors.CONFLICT), errors.is(e, errors.INVALID), errors.is(nil, ''), errors.is('x', ''), errors.is({}, ''), errors.is(errors.new('x'), errors.UNKNOWN)}", [True, False, False, False, False, True]),
    "wrap keeps everything": ("local e = errors.wrap(errors.new{message = 'low', kind = 'Timeout', retryable = true, details = {a = 1}}, 'ctx') return {e:kind(), e:message(), e:retryable(), e:details(), tostring(e)}", ["Timeout", "low", True, {"a": 1}, "low"]),
    "wrap of a text": ("local e = errors.wrap('low', 'ctx') return {e:kind(), e:message(), e:retryable() == nil, e:details() == nil}", ["", "low", True, True]),
    "wrap with an Error": ("return errors.wrap(errors.new('low'), errors.new('high')):message()", "low"),
    "wrap does not change what it wraps": ("local low = errors.new('low') local s = low:stack() errors.wrap(low, 'ctx') return low:stack() == s", True),
    "concatenation": ("local e = errors.new('t') return {'x' .. e, e .. 'x', e .. e, 1 .. e, e .. 1.5}", ["xt", "tx", "tt", "1t", "t1.5"]),
    "error passes an Error through pcall": ("local e = errors.new('t') local ok, c = pcall(error, e) return {ok, c == e}", [False, True]),
    "a raised text has its place": ("local ok, c = pcall(function() error('t') end) return {ok, c}", [False, "unit.lua:1: t"]),
    "string functions take an Error": ("local e = errors.new('not found: x') return {string.find(e, 'found'), string.upper(e), getmetatable('').__index.match(e, 'x$'), string.format('%s', e)}", [5, "NOT FOUND: X", "x", "not found: x"]),
    "assert": ("local e = errors.new('t') local ok, c = pcall(function() assert(nil, e) end) return c == e", True),
    "require": ("return require('errors').INVALID", "Invalid"),
    "call_stack of others": ("return {errors.call_stack(nil) == nil, errors.call_stack('x') == nil, errors.call_stack({}) == nil}", [True, True, True]),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_errors(name: str) -> None:
    body, expected = ROWS[name]
    assert run_unit(body) == expected


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ("errors.new()", "bad argument #1 to 'errors.new' (text or a table with a message expected, got nil)"),
        ("errors.new(5)", "bad argument #1 to 'errors.new' (text or a table with a message expected, got number)"),
        ("errors.new({})", "bad argument #1 to 'errors.new' (text or a table with a message expected, got table)"),
        ("errors.new{message = 5}", "bad argument #1 to 'errors.new' (text or a table with a message expected, got table)"),
        ("errors.new(errors.new('x'))", "bad argument #1 to 'errors.new' (text or a table with a message expected, got userdata)"),
        ("errors.new{message = '', kind = 5}", "bad argument #1 to 'errors.new' (kind must be a string, got number)"),
        ("errors.new{message = '', retryable = 'no'}", "bad argument #1 to 'errors.new' (retryable must be a boolean, got string)"),
        ("errors.new{message = '', details = 'x'}", "bad argument #1 to 'errors.new' (details must be a table, got string)"),
        ("errors.wrap(nil, 'ctx')", "bad argument #1 to 'errors.wrap' (Error or text expected, got nil)"),
        ("errors.wrap('x')", "bad argument #2 to 'errors.wrap' (text or Error expected, got nil)"),
        ("local s = errors.new('x') .. nil", "attempt to concatenate a nil value"),
        ("local s = {} .. errors.new('x')", "attempt to concatenate a table value"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_raised_at_the_caller(call: str, text: str) -> None:
    assert run_unit(f"return select(2, pcall(function() {call} end))") == f"unit.lua:1: {text}"


# -- stacks --------------------------------------------------------------------------------------------------------

FRAMES = """local function inner(how)
  local e = how()
  return e
end
local function middle(how)
  local e = inner(how)
  return e
end
return function()
  local e = middle(function()
    HERE
    return e
  end)
  return e:stack()
end
"""

WAYS = {
    "made": ("local e = errors.new('bad')", "bad"),
    "raised and caught": ("local _, e = pcall(function() error(errors.new('bad')) end)", "bad"),
    "returned by the library": ("local _, e = json.decode('{')", "json.decode: expected a string as a key of an object, found the end of the text at position 2"),
    "refused by the library": ("local _, e = funcs.call('x')", "namespace required in function ID"),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_stack_shows_the_users_frames_innermost_first(kind: str, way: str) -> None:
    line, message = WAYS[way]
    stack = Unit(FRAMES.replace("HERE", line), kind=kind, name="app/main.lua").result.split("\n\t")
    caught = ["app/main.lua:11: in function <app/main.lua:11>"] if way == "raised and caught" else []
    assert stack == [
        message,
        *caught,
        "app/main.lua:11: in function 'how'",
        "app/main.lua:2: in function 'inner'",
        "app/main.lua:6: in function 'middle'",
        "app/main.lua:10: in main function",
    ]


def test_call_stack_gives_the_same_frames_as_values() -> None:
    stack = Unit(
        "local function make()\n local e = errors.new('x')\n return e\nend\nreturn function() local e = make() return errors.call_stack(e) end"
    ).result
    assert stack == {
        "thread": "main",
        "frames": [
            {"level": 0, "source": "unit.lua", "line": 2, "name": "make", "type": "Lua"},
            {"level": 1, "source": "unit.lua", "line": 5, "name": "?", "type": "Lua"},
        ],
    }


def test_a_wrapped_error_shows_context_and_both_places() -> None:
    source = "local function low()\n local e = errors.new('low')\n return e\nend\nreturn function()\n local e = errors.wrap(low(), 'loading')\n e = errors.wrap(e, errors.new('starting'))\n return e:stack()\nend"
    assert Unit(source).result == (
        "starting\n\tunit.lua:7: in main function\n"
        "loading\n\tunit.lua:6: in main function\n"
        "low\n\tunit.lua:2: in function 'low'\n\tunit.lua:6: in main function"
    )


def test_a_wrapped_text_shows_the_text_below_its_context() -> None:
    assert run_unit("return errors.wrap('low', 'ctx'):stack()") == "ctx\n\tunit.lua:1: in main function\nlow"


def test_a_deep_recursion_shows_its_innermost_frames_only() -> None:
    stack = run_unit(
        "local function f(n) if n == 0 then local e = errors.new('x') return e end local e = f(n - 1) return e end local e = f(150) return e:stack()"
    )
    lines = stack.split("\n\t")
    assert len(lines) == 32
    assert set(lines[1:-1]) == {"unit.lua:1: in function 'f'"}
    assert lines[-1] == "..."


ENDS = {
    "returned": ("return nil, errors.new{message = 'bad', kind = errors.CONFLICT, retryable = true, details = {a = 1}}", Failure("bad", "Conflict", True, {"a": 1})),
    "raised": ("error(errors.new{message = 'bad', kind = errors.CONFLICT, retryable = true, details = {a = 1}})", Failure("bad", "Conflict", True, {"a": 1})),
    "raised without a kind": ("error(errors.new('bad'))", Failure("bad", "Internal")),
    "raised text": ("error('bad')", Failure("unit.lua:2: bad", "Internal")),
    "returned by the library": ("return json.decode('')", Failure("json.decode: the text is empty", "Invalid", False)),
}  # fmt: skip


@pytest.mark.parametrize("end", ENDS)
def test_a_failure_tells_whoever_called_where_it_came_from(end: str) -> None:
    body, expected = ENDS[end]
    failure = Unit(f"local function work()\n {body}\nend\nreturn function() local v, e = work() return v, e end").result
    assert isinstance(failure, Failure)
    assert (failure.message, failure.kind, failure.retryable, failure.details) == (
        expected.message, expected.kind, expected.retryable, expected.details,
    )  # fmt: skip
    if end == "returned by the library":  # a tail call: nothing of `work` is left
        assert failure.stack.split("\n\t")[1:] == ["unit.lua:4: in main function"]
    else:
        assert failure.stack.split("\n\t") == [
            expected.message, "unit.lua:2: in function 'work'", "unit.lua:4: in main function",
        ]  # fmt: skip


def test_the_chain_of_a_wrapped_error_crosses_a_call() -> None:
    failure = run_unit("return nil, errors.wrap(errors.new{message = 'low', kind = 'Timeout'}, 'loading')")
    assert (failure.message, failure.kind) == ("low", "Timeout")
    assert failure.stack == "loading\n\tunit.lua:1: in main function\nlow\n\tunit.lua:1: in main function"
    raised = run_unit("error(errors.wrap('low', 'loading'))")
    assert (raised.message, raised.kind) == ("low", "Internal")
    assert raised.stack == "loading\n\tunit.lua:1: in main function\nlow"


@pytest.mark.parametrize("wait", ["funcs.call('a:f')", "funcs.async('a:f'):response():receive()"])
def test_a_failure_that_crossed_a_call_shows_the_frames_over_there(wait: str) -> None:
    far = run_unit("return nil, errors.new{message = 'far', kind = errors.CONFLICT, retryable = false}", name="far.lua")
    flow = Flow(
        f"return function() local v, e = {wait} if type(e) ~= 'userdata' then e = v end return {{e:kind(), e:stack(), errors.wrap(e, 'near'):stack()}} end"
    )
    flow.start()
    flow.ret(1, codec.encode_failure(far))
    assert flow.result == [
        "Conflict",
        "far\n\tfar.lua:1: in main function",
        "near\n\tflow.lua:1: in main function\nfar\n\tfar.lua:1: in main function",
    ]


def test_a_failure_without_a_stack_shows_its_message() -> None:
    flow = Flow("return function() local _, e = funcs.call('a:f') return {e:stack(), errors.call_stack(e) == nil} end")
    flow.start()
    flow.fails(1, Failure("far", "Timeout", False))
    assert flow.result == ["far", True]


def test_the_frames_of_a_coroutine_of_the_users_are_its_own() -> None:
    source = "return function()\n local co = coroutine.create(function()\n  local e = errors.new('x')\n  coroutine.yield(e:stack())\n end)\n local _, stack = coroutine.resume(co)\n return stack\nend"
    assert Unit(source).result == "x\n\tunit.lua:3: in main function"
