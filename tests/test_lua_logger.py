"""`logger` and `print`: the ops they make, and the records that `node.unit_logs` makes of those."""

from __future__ import annotations

import json
import logging
from io import StringIO
from typing import Any

import pytest

from mesh import codec
from node import logs
from node.unit_logs import log_line
from tests.lua_chunks import STDLIB, Chunks
from tests.units import KINDS, Unit

Line = tuple[str, str, Any, str | None, str | None]


def lines(body: str, *, kind: str = "workflow", replaying: bool = False) -> list[Line]:
    """What was logged: level, text, fields, name, source."""
    unit = Unit(f"return function()\n{body}\nend", kind=kind, replaying=replaying, name="app/main.lua")
    assert unit.ops[-1].target == "ok", unit.ops
    told: list[Line] = []
    for op in unit.ops[:-1]:
        assert (op.n, op.kind) == (0, "log")
        options = codec.unpack(op.options or b"\x80")
        text = (op.payload or b"").decode()
        told.append((str(op.target), text, options.get("fields"), options.get("name"), options.get("source")))
    return told


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("level", ["debug", "info", "warn", "error"])
def test_a_line_says_its_level_text_and_place(kind: str, level: str) -> None:
    assert lines(f"logger:{level}('hello')", kind=kind) == [(level, "hello", None, None, "app/main.lua:2")]


def test_the_place_is_that_of_the_users_innermost_frame() -> None:
    assert [line[4] for line in lines(
        "local function note(t)\n logger:info(t)\nend\nnote('a') coroutine.wrap(function()\n logger:info('b') end)() pcall(note, 'c')\n"
        "table.sort({2, 1}, function(a, b) logger:info('d')\n return a < b end)"
    )][:4] == ["app/main.lua:3", "app/main.lua:6", "app/main.lua:3", "app/main.lua:7"]  # fmt: skip


FIELDS: dict[str, tuple[str, Any]] = {
    "plain": ("{a = 1, b = 'x', c = true, d = 1.5}", {"a": 1, "b": "x", "c": True, "d": 1.5}),
    "errors and objects": (
        "{e = errors.new('bad'), t = time.unix(0, 0), d = time.parse_duration('90s'), c = channel.new()}",
        {"e": "bad", "t": "1970-01-01 00:00:00 +0000 UTC", "d": "1m30s", "c": "channel"},
    ),
    "nested": ("{a = {b = {errors.new('bad'), 2}}, l = {}}", {"a": {"b": ["bad", 2]}, "l": []}),
    "functions": ("{f = print}", {"f": "function: 0x00000001"}),
    "own text": ("{m = setmetatable({}, {__tostring = function() return 'mine' end})}", {"m": "mine"}),
    "keys": ("{[1] = 'one', [true] = 2}", {"1": "one", "true": 2}),
    "bytes": ("{b = '\\xff'}", {"b": b"\xff"}),
    "an Error": ("errors.new{message = 'no', kind = errors.CONFLICT}", {"error": "no"}),
    "none": ("{}", []),
}  # fmt: skip


@pytest.mark.parametrize("name", FIELDS)
def test_fields(name: str) -> None:
    given, expected = FIELDS[name]
    assert lines(f"logger:info('x', {given})")[0][2] == expected


def test_cyclic_fields_are_shown_as_far_as_is_sensible() -> None:
    fields = lines("local t = {} t.t = t logger:info('x', {t = t})")[0][2]
    depth = 0
    while isinstance(fields, dict):
        fields, depth = fields["t"], depth + 1
    assert (fields, depth) == ("table: 0x00000001", 17)


def test_texts_of_any_kind_are_shown() -> None:
    told = lines("logger:info(errors.new('bad')) logger:info(5) logger:info(nil) logger:info({}) logger:info('')")
    assert [line[1] for line in told] == ["bad", "5", "nil", "table: 0x00000001", ""]


def test_loggers_made_of_loggers_keep_fields_and_names() -> None:
    told = lines(
        "local db = logger:named('db') local q = db:named('pool'):with({a = 1, b = 1}):with({b = 2}) q:info('x', {c = 3, a = 9}) q:info('y') db:warn('z') logger:info('w')"
    )
    assert [line[:4] for line in told] == [
        ("info", "x", {"a": 9, "b": 2, "c": 3}, "db.pool"),
        ("info", "y", {"a": 1, "b": 2}, "db.pool"),
        ("warn", "z", None, "db"),
        ("info", "w", None, None),
    ]


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ("logger:named('')", "bad argument #1 to 'named' (a non-empty name expected, got an empty one)"),
        ("logger:named()", "bad argument #1 to 'named' (a non-empty name expected, got nil)"),
        ("logger:with()", "bad argument #1 to 'with' (a table of fields expected, got nil)"),
        ("logger:with('x')", "bad argument #1 to 'with' (a table of fields expected, got string)"),
        ("logger:info('x', 'y')", "bad argument #2 to 'info' (a table of fields expected, got string)"),
        ("logger.info('x')", "bad argument #1 to 'info' (Logger expected, got string); call it as object:info()"),
        ("logger.level = 'debug'", "cannot set field 'level' of a Logger"),
    ],
)
def test_wrong_arguments_are_raised_at_the_caller(call: str, text: str) -> None:
    unit = Unit(f"return function() return select(2, pcall(function() {call} end)) end", name="app/main.lua")
    assert unit.result == f"app/main.lua:1: {text}"


def test_a_replay_is_silent_and_numbers_what_it_shows_all_the_same() -> None:
    """Else tables shown later would have other numbers in the replay than they had before."""
    body = "logger:info('x', {f = print}) print({}) logger:with({g = pairs}):info({}) return tostring({})"
    assert len(lines(body)) == 3
    assert lines(body, replaying=True) == []
    source = f"return function() {body} end"
    assert Unit(source).result == Unit(source, replaying=True).result == "table: 0x00000005"


def test_print_says_where_it_was_called() -> None:
    told = []
    vm = Chunks(*STDLIB, "msgpack", "logger")
    vm.kernel[b"tell"] = lambda *op: told.append(op)
    vm.run("K.current.listed = {} K.make_env(K.current)")
    vm.run("\n\nK.globals.print('a', 1, nil, {})")
    ((kind, level, text, options),) = told
    assert (kind, level, text) == (b"log", b"info", b"a 1 nil table: 0x00000001")
    assert codec.unpack(options) == {"source": "test.lua:3"}


# -- records -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "number"), [("debug", 10), ("info", 20), ("warn", 30), ("error", 40), ("whatever", 20)]
)
def test_a_line_becomes_a_record_of_its_level(caplog: pytest.LogCaptureFixture, level: str, number: int) -> None:
    caplog.set_level(logging.DEBUG, "lua")
    options = codec.pack({"fields": {"order": 7}, "name": "db", "source": "a.lua:3"})
    log_line(level, b"100 % done", options, pid="{a|1}", function="a:f", run=None)
    (record,) = caplog.records
    assert (record.name, record.levelno, record.getMessage()) == ("lua", number, "100 % done")
    said = {name: getattr(record, name, None) for name in ("pid", "function", "run", "source", "logger", "order")}
    assert said == {
        "pid": "{a|1}", "function": "a:f", "run": None, "source": "a.lua:3", "logger": "db", "order": 7,
    }  # fmt: skip


def test_a_line_below_the_level_is_not_even_read(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "lua")
    log_line("debug", b"x", b"\xc1")
    assert caplog.records == []


def test_fields_that_a_record_has_anyhow_get_another_name() -> None:
    taken = [*logging.makeLogRecord({}).__dict__, "message", "asctime", "event", "level", "timestamp", "exception",
             "node", "pid", "source", "logger", "stack"]  # fmt: skip
    out = StringIO()
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    try:
        logs.set_up("json", fields={"node": "n1"}, stream=out)
        options = codec.pack({"fields": dict.fromkeys(taken, "mine") | {"name_": "both"}, "source": "a.lua:1"})
        log_line("info", b"hello", options, pid="{a|1}")
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    line = json.loads(out.getvalue())
    assert (line["event"], line["node"], line["pid"], line["source"]) == ("hello", "n1", "{a|1}", "a.lua:1")
    assert {name: line.get(f"{name}_") for name in taken if name != "name"} == {
        name: "mine" for name in taken if name != "name"
    }
    assert {line["name_"], line["name__"]} == {"mine", "both"}


@pytest.mark.parametrize(
    ("text", "options", "shown", "fields"),
    [
        (b"", None, "", {}),
        (b"\xff", None, "\ufffd", {}),
        (b"x", b"\xc1", "x", {"unreadable_fields": "undecodable"}),
        (b"x", codec.pack({"fields": []}), "x", {}),
        (b"x", codec.pack({"fields": {"b": b"\xff", "l": [b"y", {"k": b"z"}]}}), "x", {"b": "\ufffd", "l": ["y", {"k": "z"}]}),
    ],
)  # fmt: skip
def test_whatever_a_line_holds_it_can_be_written(
    caplog: pytest.LogCaptureFixture, text: bytes, options: bytes | None, shown: str, fields: dict[str, Any]
) -> None:
    caplog.set_level(logging.INFO, "lua")
    log_line("info", text, options)
    (record,) = caplog.records
    assert record.getMessage() == shown
    assert {name: getattr(record, name) for name in fields} == fields
