"""`mesh show`: the state and the history for people, and the record for programs.

Not here: what a look at Lua code sees (tests/test_inspect.py), and that a replay tells what was (tests/test_time_travel.py).
"""

from __future__ import annotations

import json
import re
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from anyio.to_thread import run_sync

from mesh import codec
from mesh.asking import ApiError
from mesh.encryption import Keyring
from mesh.events import HEADER_FROM, EndRecord, Event, StartSpec, decode_end, parse
from mesh.failure import Failure
from mesh.history import NoSuchRun
from mesh.subjects import WorkflowKey, token
from mesh.wire import encode_headers
from node.api.event_records import NOTHING_KNOWN, Known, event_records
from node.api.topics import unread_records, why_unheard
from node.cli.feed import Happening, ended_by, started_by
from node.cli.state_view import outcome_lines, state_lines, waits_text
from node.cli.timeline import COLUMNS, fitted, lasting, ns_of, row_of, rows_of, words
from node.cli.watching import _Told
from node.workflows.op_table import OpRow
from node.workflows.ops import fingerprint
from tests.apps import a_mesh, write_app
from tests.cluster import mesh_command
from tests.commands import typed
from tests.conftest import ServerFactory
from tests.terminals import on_terminal
from tests.waiting import wait_until_async

pytestmark = pytest.mark.timeout(180)  # many commands and nodes, each a process to start

T0_NS = 1_700_000_000_000_000_000
KEY = WorkflowKey("orders", "w-1")


def an_event(
    seq: int, *kind: str, data: bytes = b"", headers: dict[str, str] | None = None, after_ms: int = 0
) -> Event:
    raw = encode_headers(headers) if headers else None
    event = parse(KEY.stored(3, *kind), seq, T0_NS + after_ms * 1_000_000, data, raw)
    assert event is not None
    return event


# -- the timeline ----------------------------------------------------------------------------------------------------

CALL = OpRow(1, "call", "app:charge", 10, T0_NS, ended=13, answered=True)
TIMER = OpRow(2, "timer", "", 10, T0_NS, due_ns=T0_NS + 86_400_000_000_000)
SPAWN = OpRow(3, "spawn", "app:ship", 10, T0_NS)
OPS = {row.n: row for row in (CALL, TIMER, SPAWN)}
KNOWN = Known({fingerprint(row.kind, row.target): f"{row.kind} {row.target}" for row in OPS.values()}, OPS)
OK, NO = codec.encode_success({"a": 1}), codec.encode_failure(Failure("declined", "Conflict"))
CHARGE, SHIP = fingerprint("call", "app:charge"), fingerprint("spawn", "app:ship")


@pytest.mark.parametrize(
    ("event", "shown", "details"),
    [
        (an_event(10, "start", data=StartSpec("app:order", args=codec.pack([7])).encode()), "started", "7"),
        (an_event(11, "ret", "10", "1", "1", CHARGE, data=OK), "app:charge answered", 'op 1 -> {"a": 1}'),
        (an_event(11, "ret", "10", "1", "2", CHARGE, data=OK), "app:charge answered, attempt 2", 'op 1 -> {"a": 1}'),
        (an_event(11, "ret", "10", "1", "2", CHARGE, data=NO), "app:charge failed, attempt 2", "op 1 -> error Conflict: declined"),
        (an_event(11, "ret", "10", "3", "1", SHIP, data=OK), "app:ship started as a child", 'op 3 -> {"a": 1}'),
        (an_event(11, "ret", "10", "9", "1", "0123456789", data=OK), "op 9 answered", 'op 9 -> {"a": 1}'),
        (an_event(11, "ret", "10", "1", "1", "0123456789", data=OK), "op 1 answered", 'op 1 -> {"a": 1}'),
        (an_event(11, "exit", "10", "3", data=OK, headers={HEADER_FROM: "{c@w|s-1}"}), "child app:ship ended", '-> {"a": 1}, from {c@w|s-1}'),
        (an_event(11, "exit", "10", "3", data=NO), "child app:ship failed", "-> error Conflict: declined"),
        (an_event(11, "tick", "10", "2"), "timer 24h fired", ""),
        (an_event(11, "tick", "10", "7"), "timer of op 7 fired", ""),
        (an_event(11, "tick", "10", "delay"), "delay over", ""),
        (an_event(11, "tick", "10", "timeout"), "time is up", ""),
        (an_event(11, "tick", "10", "retry-1-2"), "pause over, attempt 2 of op 1", ""),
        (an_event(11, "claim", "10", "1", "1"), "app:charge begun, at most once", ""),
        (an_event(11, "signal", token("approve"), data=codec.encode({"by": "Ada"}), headers={HEADER_FROM: "bob"}), "signal approve", '{"by": "Ada"}, from bob'),
        (an_event(11, "mark", "10", token("version:fees"), data=codec.encode(2)), "decided fees", "2"),
        (an_event(11, "attrs", "10", data=codec.encode({"search": {"customer": "c-1"}, "memo": []})), "attributes changed", 'attrs {"customer": "c-1"}'),
        (an_event(11, "cancel"), "asked to stop", ""),
        (an_event(11, "kill"), "terminated by request", ""),
        (an_event(11, "monitor"), "watched from outside", ""),
        (an_event(11, "end", "10", data=EndRecord("completed", OK).encode()), "completed", '-> {"a": 1}'),
        (an_event(11, "end", "10", data=EndRecord("timed-out", NO).encode()), "timed out", "-> error Conflict: declined"),
        (an_event(11, "end", "10", data=EndRecord("continued", OK, StartSpec("app:order").encode()).encode()), "goes on in a new run", "next run app:order"),
    ],
)  # fmt: skip
def test_each_event_is_told_in_words(event: Event, shown: str, details: str) -> None:
    (record,) = event_records([event], KNOWN)
    ops = {n: {"n": n, "kind": row.kind, "target": row.target} for n, row in OPS.items()}
    ops[2] |= {"since": "2023-11-14T22:13:20.000000000Z", "due": "2023-11-15T22:13:20.000000000Z"}
    assert words(record, ops) == shown
    assert dict(zip(COLUMNS, row_of(record, ops), strict=True))["detail"] == details


def test_the_timeline_tells_when_how_long_and_where() -> None:
    start = an_event(10, "start", data=StartSpec("app:order").encode())
    ours = an_event(
        13, "ret", "10", "1", "1", CHARGE, data=OK, headers={"Mesh-Node": "a-1", "Mesh-Took": "12.500"}, after_ms=250
    )
    foreign = an_event(14, "ret", "10", "9", "1", "0123456789", data=OK, headers={"Mesh-Took": "soon"}, after_ms=300)
    records = event_records([start, ours, foreign], KNOWN)
    assert [record["n"] for record in records] == [1, 2, 3]
    assert [record["since_s"] for record in records] == [0, 0.25, 0.3]
    assert (records[1]["duration_s"], records[1]["took_s"], records[1]["node"]) == (0.25, 0.0125, "a-1")
    assert not {"duration_s", "took_s", "node"} & set(records[2]), "nobody has said"
    row = dict(zip(COLUMNS, row_of(records[1], {}), strict=True))
    assert [row[name] for name in ("n", "after", "step", "ran", "node")] == ["2", "+250ms", "250ms", "12.5ms", "a-1"]


def test_details_stand_behind_the_words_where_they_would_be_a_ribbon() -> None:
    records = event_records([an_event(10, "start", data=StartSpec("app:order", args=codec.pack(["x" * 60])).encode())])
    rows = rows_of(records, [], day="2023-11-14")
    assert fitted(COLUMNS, rows, 150) == (COLUMNS, rows)
    columns, [row] = fitted(COLUMNS, rows, 80)
    assert columns == ("n", "after", "step", "ran", "node", "event")
    assert row[-1].startswith('started  "xxx')


def test_what_is_watched_says_when_another_node_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    told = _Told(as_json=False, hint="")
    for node in ("a", "a", None, "b"):
        told.tell(a_record(node=node, events=[], events_total=0, ops=[]))
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "now on" in line] == ["    ... now on node b"]


def test_what_nobody_can_read_is_an_event_all_the_same() -> None:
    events = [an_event(10, "start", data=b"\xc1\xff\xff"), an_event(11, "signal", "x", data=b"\xc1\xff\xff")]
    for record in event_records(events, NOTHING_KNOWN):
        assert "undecodable" in record["problem"]
        assert words(record, {})


@pytest.mark.parametrize(
    ("kind", "shown", "details"),
    [
        (("ret", "10", "1", "1", CHARGE), "app:charge answered", "op 1, encrypted with key one"),
        (("ret", "10", "3", "1", SHIP), "app:ship answered", "op 3, encrypted with key one"),
        (("ret", "10", "9", "1", "0123456789"), "op 9 answered", "op 9, encrypted with key one"),
        (("exit", "10", "3"), "child app:ship ended", "encrypted with key one"),
        (("end", "10"), "ended", "encrypted with key one"),
    ],
)
def test_an_outcome_whose_key_is_missing_is_called_neither_done_nor_failed(
    kind: tuple[str, ...], shown: str, details: str
) -> None:
    ring = Keyring({"one": b"1" * 32}, "one")
    ops = {n: {"n": n, "kind": row.kind, "target": row.target} for n, row in OPS.items()}
    for outcome in (OK, NO):
        data = EndRecord("completed", outcome).encode() if kind[0] == "end" else outcome
        (record,) = event_records([an_event(11, *kind, data=ring.seal("here", data))], KNOWN)
        assert (record["value"], record["error"], record["problem"]) == (None, None, "encrypted with key one")
        assert words(record, ops) == shown
        assert dict(zip(COLUMNS, row_of(record, ops), strict=True))["detail"] == details


def test_a_start_and_an_end_whose_key_is_missing_are_no_failures() -> None:
    ring = Keyring({"one": b"1" * 32}, "one")
    start, end = (
        an_event(n, *kind, data=ring.seal("here", data))
        for n, kind, data in (
            (10, ("start",), StartSpec("app:order").encode()), (11, ("end", "10"), EndRecord("completed", OK).encode()),
        )
    )  # fmt: skip
    assert started_by(KEY, start) == Happening(T0_NS, "started", KEY, 10, None, "running")
    assert ended_by(KEY, end, None) == Happening(T0_NS, "ended", KEY, 10, None, "ended")
    assert started_by(KEY, an_event(10, "start", data=b"\xc1\xff")).what == "refused"
    value = decode_end(end.data).value()
    assert isinstance(value, Failure)
    shown = outcome_lines(a_record(status="ended", error=value.to_wire()))
    assert ["".join(part for part, _ in parts) for parts in shown] == ["the result is encrypted with key one"]


@pytest.mark.parametrize("took", ["nan", "inf", "1e999", "soon", ""])
def test_a_duration_that_is_none_is_left_out(took: str) -> None:
    event = an_event(10, "signal", "x", data=b"1", headers={"Mesh-Took": took})
    (record,) = event_records([event], NOTHING_KNOWN)
    assert "took_s" not in record
    assert row_of(record, {})[3] == "signal x"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0ms"), (0.0008, "0.8ms"), (0.25, "250ms"), (1, "1s"), (4.214, "4.21s"), (59.999, "60s"), (60, "1m"),
        (200, "3m20s"), (3600, "1h"), (86_399, "23h59m"), (86_400, "24h"), (172_800, "2d"), (1_047_600, "12d3h"), (-1.5, "-1.5s"),
    ],
)  # fmt: skip
def test_lengths_of_time_are_short(seconds: float, text: str) -> None:
    assert lasting(seconds) == text


def test_times_keep_their_nanoseconds() -> None:
    assert ns_of("2023-11-14T22:13:20.123456789Z") == T0_NS + 123_456_789


# -- the state -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("waits", "text"),
    [
        ({"kind": "op", "op": 3, "what": "call app:charge"}, "waits for call app:charge (op 3)"),
        ({"kind": "child", "op": 3, "what": "child {c@w|s-1}"}, "waits for the end of child {c@w|s-1} (op 3)"),
        ({"kind": "cancel", "op": 3, "what": "call app:slow"}, "waits until call app:slow has stopped (op 3)"),
        ({"kind": "receive", "cases": [{"verb": "receive", "name": "late", "op": 2, "what": "timer"}]}, "receives from late (op 2: timer)"),
        ({"kind": "receive", "cases": [{"verb": "receive"}]}, "receives from a channel"),
        ({"kind": "send", "cases": [{"verb": "send", "name": "out", "value": "{1}", "held": 2, "size": 2}]}, "sends {1} to out (2 of 2 in its buffer)"),
        ({"kind": "select", "cases": [{"verb": "receive", "name": "a"}, {"verb": "send", "name": "b", "value": "1", "closed": True}]}, "selects: receives from a; sends 1 to b (closed)"),
        ({"kind": "nothing"}, "stopped here"),
    ],
)  # fmt: skip
def test_what_a_task_waits_for_is_told_in_words(waits: dict[str, Any], text: str) -> None:
    assert waits_text(waits) == text


def a_record(**fields: Any) -> dict[str, Any]:
    record: dict[str, Any] = dict.fromkeys(
        ("at", "started", "ended", "parent", "value", "error", "node", "reason", "suspended_at", "expected", "got", "delayed_until",
         "deadline", "history_warning")
    )  # fmt: skip
    record |= {
        "id": "w-1", "queue": "orders", "run": 7, "type": "app:order", "status": "running", "attempt": 1, "memo": {},
        "attrs": {}, "waiting": [], "children": [], "cancel_requested": False, "stacks": [], "tasks": [], "tasks_total": 0, "coroutines": [],
        "globals": [], "runs": [7], "runs_total": 1, "listens": [], "inbox": False,
        "unread": [],
    }  # fmt: skip
    return record | fields


def texts(record: dict[str, Any]) -> list[str]:
    return ["".join(text for text, _ in line) for line in state_lines(record, with_locals=True)]


def test_a_suspended_workflow_says_both_sides() -> None:
    lines = texts(
        a_record(status="suspended", suspended_at=4, reason="op 2: another", expected="call app:a", got="call app:b")
    )
    assert lines[2:5] == [
        "suspended at event 4: op 2: another",
        "  the history has: call app:a",
        "  the code asks for: call app:b",
    ]


def test_a_suspended_workflow_says_what_lets_it_go_on_whatever_the_reason() -> None:
    """Also one that lacks a key: fitting code would not help it, and what is lost is not promised to be safe."""
    lines = texts(
        a_record(status="suspended", reason="its start is encrypted with key k1, and key k1 is not in the keyring")
    )
    assert (
        lines[3] == "it goes on by itself once a node owns it that has fitting code, the keys, and all of its history"
    )


def test_a_workflow_that_nobody_can_read_says_how_it_is_given_up_on_the_same_mesh() -> None:
    reason = "its start is encrypted with key k1, and key k1 is not in the keyring"
    end = "when that key is lost, only this ends it: mesh terminate w-1 --force"
    assert texts(a_record(status="suspended", reason=reason, unreadable=True))[5] == end
    lines = state_lines(a_record(status="suspended", reason=reason, unreadable=True), with_locals=False, hint=" -s a:1")
    assert lines[5] == ((f"{end} -s a:1", ""),)
    assert not any("--force" in text for text in texts(a_record(status="suspended", reason="op 2: another")))


def test_facts_that_are_not_always_there_are_shown_when_they_are() -> None:
    lines = texts(
        a_record(
            parent="p-1", attempt=2, memo={"a": 1}, attrs={"customer": "c-1"}, cancel_requested=True,
            history_warning="the history is long", globals=[["count", "1"]],
        )
    )  # fmt: skip
    assert lines == [
        "w-1  app:order  running",
        "queue orders, run 7",
        'parent p-1, run attempt 2, cancellation requested, memo {"a": 1}, attrs {"customer": "c-1"}',
        "warning: the history is long",
        "waiting for: a signal or message",
        "globals:",
        "  count = 1",
    ]


def test_the_other_runs_of_a_workflow_are_named_and_of_very_many_the_newest() -> None:
    assert "other runs: 3, 12; mesh show w-1 --run RUN" in texts(a_record(runs=[3, 7, 12], runs_total=3))
    many = a_record(run=1200, runs=list(range(1101, 1201)), runs_total=1200)
    assert "other runs: 1195, 1196, 1197, 1198, 1199 and 1194 earlier; mesh show w-1 --run RUN" in texts(many)
    assert not any("other runs" in line for line in texts(a_record()))


def test_what_was_not_read_stands_beside_what_is_listened_to() -> None:
    unread = unread_records({
        "listens": ["approve", "stop"],
        "unread": [
            {"topic": "aprove", "messages": 2, "held": "nobody"},
            {"topic": "\x1b[1mx", "messages": 1, "held": "inbox"},
            {"topic": "stop", "messages": 3, "held": "listener"},
        ],
    })  # fmt: skip
    lines = texts(a_record(unread=unread, listens=["approve", "stop"], inbox=True))
    at = lines.index("unread messages:")
    assert lines[at + 1 : at + 5] == [
        "  aprove  2, it does not listen to that; did you mean approve?",
        "  \\x1b[1mx  1, in its inbox",
        "  stop  3, not received yet",
        "  it listens to: approve, stop, all others in its inbox",
    ]
    many = [{"topic": f"t{i}", "messages": 1, "held": "nobody", "near": None} for i in range(30)]
    lines = texts(a_record(unread=many, listens=[f"l{i}" for i in range(30)]))
    assert "  and 10 more topics, see --json" in lines
    assert lines[lines.index("  and 10 more topics, see --json") + 1].endswith("l19, 10 more")
    assert "unread messages:" not in texts(a_record(status="completed", unread=many, value=None))


def test_a_message_that_came_before_anything_was_listened_to_is_not_called_a_mistake() -> None:
    early = [{"topic": "approve", "messages": 1, "held": "nobody", "near": None}]
    lines = texts(a_record(unread=early))
    at = lines.index("unread messages:")
    assert lines[at + 1 : at + 3] == [
        "  approve  1, kept until it listens to that, or reads its inbox",
        "  it listens to: nothing yet",
    ]
    assert not any(style == "yellow" for _, style in chain(*state_lines(a_record(unread=early), with_locals=False)))


@pytest.mark.parametrize(
    ("topic", "mailbox", "note"),
    [
        ("approve", {"listens": ["approve"]}, None),
        ("aprove", {"listens": ["approve"]}, "w-1 listens to approve and not to aprove: did you mean approve? It was sent all the same"),
        ("APPROVE", {"listens": ["approve"], "inbox": True}, "w-1 listens to approve and not to APPROVE: did you mean approve? It was sent all the same"),
        ("pay", {"listens": ["approve", "stop"]}, "w-1 does not listen to pay now, but to approve, stop; the signal waits until it listens to its topic, or reads its inbox"),
        ("pay", {"listens": ["approve"], "inbox": True}, None),
        ("pay", {"listens": ["approve"], "cut": True}, None),
        ("pay", {"listens": []}, None),
        ("pay", {}, None),
    ],
)  # fmt: skip
def test_who_has_mistyped_a_topic_is_told_and_who_comes_early_is_not(
    topic: str, mailbox: dict[str, Any], note: str | None
) -> None:
    assert why_unheard("w-1", topic, mailbox) == note


def test_of_very_many_tasks_some_are_shown() -> None:
    task = {"main": False, "runtimes": False, "frames": [], "waits": {"kind": "nothing"}}
    record = a_record(tasks=[task | {"id": n} for n in range(100)], tasks_total=130)
    lines = ["".join(text for text, _ in line) for line in state_lines(record, with_locals=False)]
    assert lines[-3:-1] == ["task 19: stopped here", "110 more tasks"]
    assert texts(record)[-1] == "30 more tasks"


def test_control_characters_do_not_reach_the_terminal() -> None:
    wild = "a\x1b[2Jb\n"
    frame = {"file": wild, "line": 3, "function": wild, "locals": [[wild, wild]], "upvalues": []}
    task = {
        "id": 1,
        "main": True,
        "runtimes": False,
        "frames": [frame],
        "waits": {"kind": "op", "op": 1, "what": "call x"},
    }
    waiting = [{"n": 1, "kind": "call", "target": wild, "attempt": 2, "last_error": wild}]
    facts = {"id": wild, "type": wild, "parent": wild, "queue": wild, "node": wild, "history_warning": wild}
    for line in texts(
        a_record(tasks=[task], waiting=waiting, children=[wild], status="suspended", reason=wild, **facts)
    ):
        assert line.isprintable(), line


def test_of_very_much_that_is_waited_for_some_is_shown() -> None:
    waiting = [{"n": n, "kind": "call", "target": "a:b"} for n in range(3000)]
    shown = texts(a_record(waiting=waiting, children=["c1", "c2"]))
    assert len(shown) < 120
    assert "  and 2900 more, see --json" in shown


# -- the command -----------------------------------------------------------------------------------------------------

FLOW = """return function(order)
  local receipt = funcs.call("app:inc", order.price)
  local go = process.listen("go")
  go:receive()
  return receipt
end"""


async def test_the_state_now_and_at_an_event(nats_server: ServerFactory, tmp_path: Path) -> None:
    url = nats_server().url
    functions = {"inc": "return {main = function(x) return x + 1 end}"}
    app = write_app(tmp_path / "app", workflows={"flow": FLOW}, functions=functions)
    async with a_mesh(url, app) as mesh:
        handle = await mesh.start("flow", {"price": 6}, id="f-1", memo={"note": "hi"})

        def see() -> str:
            # 70 columns are too few for all: the time goes, and details stand behind the words.
            with on_terminal("show", "f-1", environ={"NATS_URL": url, "COLUMNS": "70", "NO_COLOR": "1"}) as terminal:
                assert terminal.wait() == 0
                return re.sub(r"\x1b\[[0-9;]*m", "", terminal.seen)

        while "receives from" not in (screen := await run_sync(see)):
            pass
        assert 'main task: receives from process.listen("go")\n  flow.lua:4 in main function' in screen
        assert re.search(r"^2 .* app:inc answered", screen, re.MULTILINE)
        head = next(line for line in screen.splitlines() if line.startswith("N  ")).split()
        assert head == ["N", "AFTER", "STEP", "RAN", "NODE", "EVENT"]
        plain = await mesh_command("show", "f-1", "--locals", "--no-events", url=url)
        assert plain.out.splitlines()[2:] == [
            'memo {"note": "hi"}',
            "waiting for: a signal or message",
            'main task: receives from process.listen("go")',
            "  flow.lua:4 in main function",
            "      order   = {price = 6}",
            "      receipt = 7",
            "      go      = channel, 0 in its buffer",
        ]
        past = await mesh_command("show", "f-1", "--at", "1", url=url)
        lines = past.out.splitlines()
        assert lines[0] == "f-1  app:flow  running"
        assert lines[1].startswith("as it was at event 1, ")
        assert lines[2].endswith(", replayed on node a")
        assert "  1  call app:inc, attempt 1, asked just now" in lines
        assert "main task: waits for call app:inc (op 1)" in lines
        assert lines[-2].startswith("N  TIME")
        assert re.search(r'  started  +{"price": 6}, host app:worker, memo {"note": "hi"}$', lines[-1])
        refused = await mesh_command("show", "f-1", "--at", "99", url=url)
        assert (refused.status, refused.out) == (1, "")
        assert "workflow 'f-1' has no event 99; its newest run has events 1 to 2" in refused.err
        both = await mesh_command("show", "f-1", "--at", "1", "--watch", url=url)
        assert both.status == 2
        await handle.signal("go")
        assert await handle.result(timeout_s=10) == 7

    nobody = await mesh_command("show", "f-1", "--at", "2", url=url)
    assert nobody.status == 1
    assert re.search(
        r"no node owns partition \d+ of queue orders at the moment; `mesh show f-1 --at 2 --app APP`", nobody.err
    )
    alone = await mesh_command("show", "f-1", "--at", "2", "--app", str(app), "--json", url=url)
    record = json.loads(alone.out)
    assert (record["status"], record["at"]["n"], record["node"]) == ("running", 2, None)
    assert record["tasks"][0]["frames"][0]["locals"][1] == ["receipt", "7"]
    assert [op["kind"] for op in record["ops"]] == ["call"]


async def test_a_signal_with_a_mistyped_topic_is_pointed_out(nats_server: ServerFactory, tmp_path: Path) -> None:
    url = nats_server().url
    source = "return function() return (process.listen('approve'):receive()) end"
    async with a_mesh(url, write_app(tmp_path / "app", workflows={"waits": source})) as mesh:
        handle = await mesh.start("waits", id="w-1")

        async def sees() -> dict[str, Any]:
            return dict((await handle.describe()).detail.get("mailbox") or {})

        async def listens() -> bool:
            return (await sees()).get("listens") == ["approve"]

        sent = 0

        async def is_pointed_out() -> bool:
            # An owner that has much else to do does not answer in time, and nothing is said.
            nonlocal sent
            sent += 1
            done = await typed("signal", "w-1", "aprove", "1", url=url)
            assert (done.status, "signal aprove for w-1 is stored" in done.err) == (0, True), done
            return "note: w-1 listens to approve and not to aprove: did you mean approve?" in done.err

        await wait_until_async(listens)
        await wait_until_async(is_pointed_out, 30)

        async def are_there() -> bool:
            return [item["messages"] for item in (await sees()).get("unread") or ()] == [sent]

        await wait_until_async(are_there)
        record = await mesh.client.ask("describe", id="w-1")
        assert record["unread"] == [{"topic": "aprove", "messages": sent, "held": "nobody", "near": "approve"}]
        assert (record["listens"], record["inbox"]) == (["approve"], False)
        shown = (await typed("show", "w-1", url=url)).out
        assert f"  aprove  {sent}, it does not listen to that; did you mean approve?" in shown
        assert "  it listens to: approve\n" in shown
        heard = await typed("signal", "w-1", "approve", '"yes"', url=url)
        assert (heard.status, "note:" in heard.err) == (0, False), heard
        assert await handle.result(timeout_s=10) == "yes"
        late = await typed("signal", "w-1", "approve", url=url)
        assert "has ended (completed); nobody would read the signal" in late.err


AGAIN = """return function(n)
  if n == 0 then
    return (process.listen("go"):receive())
  end
  process.upgrade(nil, n - 1)
end"""


async def test_an_older_run_is_shown_and_waited_for_by_its_number(nats_server: ServerFactory, tmp_path: Path) -> None:
    """A chain of two runs ends, and the workflow is started once more: three runs of one id."""
    url = nats_server().url
    app = write_app(tmp_path / "app", workflows={"again": AGAIN})
    async with a_mesh(url, app) as mesh:
        first = (await mesh.start("again", 1, id="f-1")).run
        handle = mesh.get("f-1")

        async def has_gone_on() -> bool:
            return (await handle.describe()).run > first

        await wait_until_async(has_gone_on)
        second = (await handle.describe()).run
        await handle.signal("go", "the first")
        assert await handle.result(timeout_s=10) == "the first"
        third = (await mesh.start("again", 0, id="f-1")).run
        assert first < second < third

        shown = await typed("show", "f-1", url=url)
        assert f"other runs: {first}, {second}; mesh show f-1 --run RUN" in shown.out
        older = json.loads((await typed("show", "f-1", "--run", str(second), "--json", url=url)).out)
        assert (older["run"], older["runs"], older["runs_total"]) == (second, [first, second, third], 3)
        assert (older["status"], older["value"]) == ("completed", "the first")
        # The start and whatever else is of the third run is no part of it.
        assert [event["kind"] for event in older["events"]] == ["start", "signal", "end"]
        done = await typed("result", "f-1", "--run", str(first), "--json", url=url)
        told = json.loads(done.out)
        assert (done.status, told["value"], told["run"]) == (0, "the first", second)
        both = await typed("show", "f-1", "--run", str(first), "--watch", url=url)
        assert both.status == 2

        assert len(await handle.history(run=first)) == 2
        assert (await handle.describe(run=second, at=1)).status == "running"
        assert (await handle.describe(run=second)).value == "the first"
        ask = mesh.client.ask
        assert (await ask("result", id="f-1", run=first))["run"] == second
        began = await ask("describe", id="f-1", run=first)
        assert (began["status"], [event["kind"] for event in began["events"]]) == ("continued", ["start", "end"])
        assert (await ask("describe", id="f-1", run=third))["status"] == "running"
        page = await ask("history", id="f-1", run=second)
        assert (page["run"], page["events_total"]) == (second, 3)
        with pytest.raises(ApiError, match=f"has no event 9; its run {first} has events 1 to 2"):
            await ask("describe", id="f-1", run=first, at=9)

        # A start that came while a run was open has begun none.
        ignored = (await mesh.client.js.publish(handle.key.start(), b"", headers={"Mesh-Workflow": "app:again"})).seq
        named = f"its runs are {first}, {second}, {third}, the newest last"
        for unknown in (99_999, ignored, second + 1):
            text = f"workflow 'f-1' on queue 'orders' has no run {unknown}; {named}"
            for verb in ("describe", "history", "result"):
                with pytest.raises(ApiError, match=text) as error:
                    await ask(verb, id="f-1", run=unknown)
                assert (error.value.status, error.value.error["kind"]) == (404, "no-such-run")
            with pytest.raises(NoSuchRun) as none:
                await handle.history(run=unknown)
            assert none.value.runs == [first, second, third]
        for verb in ("show", "result", "export"):
            refused = await typed(verb, "f-1", "--run", str(ignored), url=url)
            assert (refused.status, refused.out) == (1, ""), (verb, refused)
            assert named in refused.err, (verb, refused)


def test_a_workflow_of_very_many_runs_names_the_newest_of_them() -> None:
    error = NoSuchRun(KEY, 5000, list(range(1, 101)))
    assert (
        "has no run 5000; its runs are 91, 92, 93, 94, 95, 96, 97, 98, 99, 100, the newest last, and 90 earlier ones"
        in str(error)
    )
    assert str(NoSuchRun(KEY, 3, [7])).endswith("has no run 3; its run is 7")
