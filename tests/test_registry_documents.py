"""YAML and JSON texts become plain values with lines; YAML 1.2's core rules, bounded in depth and size."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from node.registry.documents import NESTING_MAX, VALUES_MAX, Document, Unreadable, Value, parse_json, parse_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"),
        ("yes", "yes"),
        ("No", "No"),
        ("True", True),
        ("false", False),
        ("", None),
        ("~", None),
        ("null", None),
        ("12", 12),
        ("-3", -3),
        ("017", 17),
        ("0o17", 15),
        ("0x1F", 31),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("1:30", "1:30"),
        ("2020-01-01", "2020-01-01"),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("-.inf", -math.inf),
        ("'12'", "12"),
        ('"true"', "true"),
        ("!!str 12", "12"),
        ("!!float 12", 12.0),
        ("!!int 12", 12),
        ("|\n  a\n  b\n", "a\nb\n"),
    ],
)
def test_scalars_follow_the_core_schema(text: str, value: Value) -> None:
    document = parse_yaml(f"a: {text}\n").value
    assert isinstance(document, dict)
    assert document["a"] == value
    assert type(document["a"]) is type(value)


def test_keys_are_always_texts() -> None:
    assert parse_yaml("1: a\ntrue: b\n~: c\non: d\n").value == {"1": "a", "true": "b", "~": "c", "on": "d"}


def test_every_field_and_item_has_its_line() -> None:
    yaml = parse_yaml("a: 1\nb:\n  - x\n  - c: 2\n    d: {e: 3}\n")
    json = parse_json('{"a": 1,\n"b": [\n"x",\n{"c": 2,\n"d": {"e": 3}}]}')
    paths = [("a",), ("b",), ("b", 0), ("b", 1), ("b", 1, "c"), ("b", 1, "d"), ("b", 1, "d", "e")]
    assert yaml.value == json.value == {"a": 1, "b": ["x", {"c": 2, "d": {"e": 3}}]}
    assert [yaml.lines[p] for p in paths] == [1, 2, 3, 4, 4, 5, 5]
    assert [json.lines[p] for p in paths] == [1, 2, 3, 4, 4, 5, 5]
    assert len(yaml.lines) == len(json.lines) == len(paths)


def test_json_texts_with_braces_and_escapes_do_not_confuse_the_lines() -> None:
    document = parse_json('{\n"a": "}{][,:\\"\\n",\n"b\\n": [[],\n{}, "x"]}')
    assert document.value == {"a": '}{][,:"\n', "b\n": [[], {}, "x"]}
    assert document.lines == {("a",): 2, ("b\n",): 3, ("b\n", 0): 3, ("b\n", 1): 4, ("b\n", 2): 4}


def test_the_line_of_an_unknown_path_is_that_of_what_encloses_it() -> None:
    assert parse_yaml("a:\n  b: 1\n").line_of(("a", "b", "c", 0)) == 2
    assert Document(None, {}).line_of(("a",)) == 1


def test_aliases_and_merge_keys_work_and_own_keys_win() -> None:
    text = "base: &b {x: 1, y: 2}\nmore: &m {y: 3, z: 4}\nuse: {<<: [*b, *m], x: 9}\nlist: [*b]\n'<<': &t text\nt: *t\n"
    assert parse_yaml(text).value == {
        "base": {"x": 1, "y": 2},
        "more": {"y": 3, "z": 4},
        "use": {"x": 9, "y": 2, "z": 4},
        "list": [{"x": 1, "y": 2}],
        "<<": "text",
        "t": "text",
    }


@pytest.mark.parametrize(
    ("parse", "text", "line", "reason"),
    [
        (parse_yaml, "a: 1\nb: [1\nc: 2\n", 3, "not valid YAML"),
        (parse_yaml, "a: 1\nb: \x01\n", 1, "not valid YAML"),
        (parse_yaml, "a: 1\na: 2\n", 2, "key 'a' stands twice"),
        (parse_yaml, "a: 1\n---\nb: 1\n", 2, "a second one starts"),
        (parse_yaml, "? [a]\n: 1\n", 1, "a mapping key must be a plain text"),
        (parse_yaml, "a: 1\nb: !!python/object:os.system x\n", 2, "is not supported"),
        (parse_yaml, "a: !mine {b: 1}\n", 1, "is not supported"),
        (parse_yaml, "a: !!int x\n", 1, "is not of the type !!int"),
        (parse_yaml, "a: *nowhere\n", 1, "alias *nowhere"),
        (parse_yaml, "a: &a [*a]\n", 1, "alias *a"),
        (parse_yaml, "a: {<<: 1}\n", 1, "<< takes a mapping"),
        (parse_json, '{"a": 1,\n"b" 2}', 2, "not valid JSON"),
        (parse_json, '{"a": 1, "a": 2}', 1, "key 'a' stands twice"),
        (parse_json, '{"a": NaN}', 1, "NaN is not a JSON value"),
    ],
)
def test_bad_texts_name_line_and_reason(parse: Callable[[str], Document], text: str, line: int, reason: str) -> None:
    with pytest.raises(Unreadable) as caught:
        parse(text)
    assert reason in caught.value.reason
    assert caught.value.line == line


@pytest.mark.parametrize("parse", [parse_yaml, parse_json])
def test_nesting_is_bounded(parse: Callable[[str], Document]) -> None:
    parse("[" * NESTING_MAX + "]" * NESTING_MAX)
    with pytest.raises(Unreadable, match="nested deeper"):
        parse("[" * (NESTING_MAX + 1) + "]" * (NESTING_MAX + 1))


def test_nesting_through_aliases_is_bounded() -> None:
    def chain(length: int) -> str:
        return "a0: &a0 [1]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, length))

    parse_yaml(chain(NESTING_MAX - 1))
    with pytest.raises(Unreadable, match="nested deeper"):
        parse_yaml(chain(NESTING_MAX))


def test_a_small_text_cannot_become_a_large_value() -> None:
    bomb = "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
        f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
    )
    with pytest.raises(Unreadable, match=f"more than {VALUES_MAX} values"):
        parse_yaml(bomb)
