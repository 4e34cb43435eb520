"""The lines that a node logs."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator

import pytest

from node.logs import set_up


@pytest.fixture(autouse=True)
def untouched_root() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level


def logged(*, log_format: str, level: str = "info") -> tuple[logging.Logger, io.StringIO]:
    out = io.StringIO()
    set_up(log_format, level, fields={"node": "a"}, stream=out)  # type: ignore[arg-type]  # parametrized text
    return logging.getLogger("tests.logs"), out


def test_json_lines_carry_node_queue_workflow_and_run_first() -> None:
    log, out = logged(log_format="json")
    log.info("paid %d", 3, extra={"workflow": "order-1", "run": 7, "queue": "orders", "other": "x"})
    record = json.loads(out.getvalue())
    assert record.pop("timestamp").endswith("Z")
    assert list(record.items()) == [
        ("level", "info"),
        ("event", "paid 3"),
        ("node", "a"),
        ("queue", "orders"),
        ("workflow", "order-1"),
        ("run", 7),
        ("other", "x"),
    ]


def test_auto_is_json_where_there_is_no_terminal() -> None:
    log, out = logged(log_format="auto")
    log.warning("x")
    assert json.loads(out.getvalue())["level"] == "warning"


def test_text_is_time_level_what_happened_and_pairs() -> None:
    log, out = logged(log_format="text")
    log.error("it broke", extra={"workflow": "order 1", "run": 7})
    time, _, rest = out.getvalue().partition(" ")
    assert len(time) == len("12:00:00.000")
    assert rest == 'ERROR   it broke  node=a  workflow="order 1"  run=7\n'


def test_a_line_break_in_a_message_does_not_make_a_second_line() -> None:
    """Lua code prints what it likes; it must not be able to forge a line, nor to move the cursor."""
    for form in ("text", "json"):
        log, out = logged(log_format=form)
        log.info("one\nERROR two\x1b[2J", extra={"workflow": "a\nb"})
        assert out.getvalue().count("\n") == 1
        assert "\x1b" not in out.getvalue()


def test_a_trace_is_kept() -> None:
    for form in ("text", "json"):
        log, out = logged(log_format=form)
        try:
            sys.exit("gone")
        except SystemExit:
            log.exception("it broke")
        assert "SystemExit: gone" in out.getvalue()


def test_what_is_below_the_level_is_not_logged() -> None:
    log, out = logged(log_format="text", level="warning")
    log.info("no")
    log.warning("yes")
    assert "yes" in out.getvalue()
    assert "no" not in out.getvalue().replace("node", "")


def test_setting_up_again_replaces_what_was_set_up() -> None:
    _, first = logged(log_format="text")
    log, second = logged(log_format="text")
    log.info("once")
    assert first.getvalue() == ""
    assert second.getvalue().count("once") == 1
