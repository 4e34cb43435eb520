"""Files of histories: what is read is what was written, whatever the events carry, and what is damaged is said."""

from __future__ import annotations

import gzip
import io
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh import codec
from mesh.events import EndRecord, Event, StartSpec, parse
from mesh.failure import Failure
from mesh.history_files import (
    READABLE_BYTES_MAX,
    BadHistoryFile,
    HistoryHeader,
    RecordedHistory,
    dump_history,
    fetch_history,
    header_of,
    load_histories,
    new_history_file,
    read_histories,
    scan_histories,
)
from mesh.subjects import WorkflowKey
from mesh.wire import encode_headers
from tests.apps import a_mesh, write_app
from tests.conftest import ServerFactory

T_NS = 1_764_000_000_123_456_789
KEY = WorkflowKey("orders", "order/1 ü")


def an_event(seq: int, *kind: str, data: bytes = b"", headers: bytes | None = None, at_ns: int = T_NS) -> Event:
    event = parse(KEY.stored(0, *kind), seq, at_ns, data, headers)
    assert event is not None
    return event


def a_history(events: list[Event], key: WorkflowKey = KEY, run: int = 17) -> RecordedHistory:
    header = header_of(key, run, events, type="app:order", host="app:worker", status="completed", exported_ns=T_NS)
    return RecordedHistory(header, events)


def written(*histories: RecordedHistory) -> bytes:
    file = io.BytesIO()
    for history in histories:
        dump_history(file, history.header, history.events)
    return file.getvalue()


def read(data: bytes) -> list[RecordedHistory]:
    return [RecordedHistory(header, list(events)) for header, events in scan_histories(io.BytesIO(data), "h.jsonl")]


scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(max_size=40)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(-9, 9) | st.binary(), inner, max_size=3)
    ),
    max_leaves=8,
)
ours = values.map(codec.encode)
payloads = (
    ours
    | st.binary(max_size=60)
    | st.binary(max_size=60).map(lambda data: codec.MARKER + data)
    | st.text().map(lambda text: text.encode("utf-8", "surrogatepass"))
    | values.map(codec.encode_success)
    | st.builds(lambda text: codec.encode_failure(Failure(text, "Invalid", False, {"a": b"\xff"})), st.text())
    | st.builds(lambda data: EndRecord("completed", codec.encode_success(1), data).encode(), ours)
)
header_blocks = (
    st.none()
    | st.dictionaries(
        st.from_regex(r"\A[A-Za-z-]+\Z"), st.text(st.characters(exclude_characters="\r\n", codec="utf-8")), min_size=1
    ).map(encode_headers)
    | st.just(b"NATS/1.0\r\nA: 1\r\nA: 2\r\nB:no blank\r\nC: \xff\r\n\r\n")
)
kinds = st.sampled_from(
    [("start",), ("signal", "a%20b", "c"), ("ret", "17", "3", "1", "ab12"), ("tick", "17", "timeout"), ("kill",),
     ("end", "17")]
)  # fmt: skip
events = st.lists(
    st.builds(
        lambda seq, kind, data, headers, at_ns: an_event(seq, *kind, data=data, headers=headers, at_ns=at_ns),
        st.integers(1, 2**63), kinds, payloads, header_blocks, st.integers(0, 253_402_300_799_999_999_999),
    ),
    max_size=4,
)  # fmt: skip


@given(st.lists(events, max_size=3))
def test_every_event_comes_back_byte_for_byte(lists: list[list[Event]]) -> None:
    """What an export has lost, an import cannot give back; several histories in a file stay apart."""
    histories = [a_history(listed, run=17 + i) for i, listed in enumerate(lists)]
    assert read(written(*histories)) == histories


def records(history: RecordedHistory) -> list[dict[str, Any]]:
    return [json.loads(line) for line in written(history).splitlines()]


def test_values_are_readable_in_the_file() -> None:
    """A file is looked at with jq: values stand as JSON, also where only the bytes beside them are exact."""
    start = StartSpec("app:order", args=codec.pack([{"total": 3}]), entropy=b"\x01\x02", memo={"who": "ada"})
    end = EndRecord("continued", codec.NIL_OUTCOME, start.encode())
    header, *lines = records(
        a_history([
            an_event(17, "start", data=start.encode(), headers=encode_headers({"Mesh-From": "{app:x}"})),
            an_event(18, "signal", "go", data=codec.encode({"ok": True, "n": 1.5})),
            an_event(19, "signal", "go", data=b'{ "ok" : true }'),
            an_event(20, "ret", "17", "1", "1", "ab", data=codec.encode_success({"raw": b"\xff"})),
            an_event(21, "kill"),
            an_event(22, "end", "17", data=end.encode()),
        ])
    )  # fmt: skip

    assert header == {
        "moonmesh": 1, "queue": "orders", "id": "order/1 ü", "run": 17, "type": "app:order", "host": "app:worker",
        "status": "completed", "exported": "2025-11-24T16:00:00.123456789Z", "events": 6,
    }  # fmt: skip
    assert lines[0] == {
        "n": 1, "seq": 17, "time": "2025-11-24T16:00:00.123456789Z", "kind": "start", "args": [],
        "headers": {"Mesh-From": "{app:x}"}, "base64": lines[0]["base64"],
        "data": {"workflow": "app:order", "args": [{"total": 3}], "entropy": "0102", "memo": {"who": "ada"}},
    }  # fmt: skip
    assert {name: lines[1][name] for name in lines[1] if name not in ("n", "seq", "time")} == {
        "kind": "signal", "args": ["go"], "data": {"ok": True, "n": 1.5},
    }  # fmt: skip
    assert lines[2]["text"] == '{ "ok" : true }'
    assert "data" not in lines[2]
    assert lines[3]["data"] == [0, {"raw": "�"}]
    assert "base64" in lines[3]
    assert not {"data", "text", "base64"} & set(lines[4])
    assert lines[5]["data"]["next"]["args"] == [{"total": 3}]


def test_a_file_is_compressed_by_its_name_and_complete_or_not_there(tmp_path: Path) -> None:
    """Whoever finds the file may rely on it: one that was not finished has no name."""
    history = a_history([an_event(17, "start", data=StartSpec("app:order").encode())])
    for name in ("h.jsonl", "h.jsonl.gz"):
        with new_history_file(tmp_path / name) as file:
            dump_history(file, history.header, history.events)
            dump_history(file, history.header, history.events)
            assert not (tmp_path / name).exists()
        assert list(load_histories(tmp_path / name)) == [history, history]
    assert gzip.decompress((tmp_path / "h.jsonl.gz").read_bytes()) == (tmp_path / "h.jsonl").read_bytes()

    with pytest.raises(RuntimeError), new_history_file(tmp_path / "other.jsonl"):
        raise RuntimeError("in the middle")
    with pytest.raises(ValueError, match="the header says 1 events, there are 0"):
        dump_history(io.BytesIO(), history.header, [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["h.jsonl", "h.jsonl.gz"]


def test_neither_long_histories_nor_many_need_memory(tmp_path: Path) -> None:
    """A history is written and read event by event."""
    count = 5_000
    header = HistoryHeader("orders", "long", 1, "app:order", "", "running", "", count)
    few = HistoryHeader("orders", "short", 1, "app:order", "", "running", "", 1)

    def generated() -> Iterator[Event]:
        for seq in range(1, count + 1):
            yield an_event(seq, "signal", "go", data=b"x" * 500)

    tracemalloc.start()
    with new_history_file(tmp_path / "h.jsonl.gz") as file:
        dump_history(file, header, generated())
        for _ in range(500):
            dump_history(file, few, [an_event(1, "kill")])
    seen = [(found.id, sum(1 for _ in events)) for found, events in read_histories(tmp_path / "h.jsonl.gz")]
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert seen == [("long", count), *[("short", 1)] * 500]
    assert peak_bytes < 600_000
    # Events that nobody looks at are passed over.
    assert [found.id for found, _ in read_histories(tmp_path / "h.jsonl.gz")][:2] == ["long", "short"]


ONE = written(a_history([an_event(17, "start", data=b"x"), an_event(18, "kill")])).decode()
HEADER, START, KILL = ONE.splitlines()
UNKNOWN = KILL.replace("kill", "signal").replace("[]", '["\\ud800"]')  # a character that does not exist


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("hello\n", 1, "no JSON"),
        ("[1]\n", 1, "the line is no JSON object"),
        ('{"a": 1}\n', 1, 'it has no field "moonmesh"'),
        (HEADER.replace('"moonmesh":1', '"moonmesh":2'), 1, "format 2 is not known here, only 1"),
        (HEADER.replace('"run":17', '"run":"17"'), 1, "the header's field 'run' must be a number"),
        (HEADER.replace('"queue":"orders"', '"queue":""'), 1, "an empty name"),
        (f"{HEADER}\n{START}\n", 3, "the file ends after 1 of the 2 events of workflow 'order/1 ü'"),
        (f"{HEADER}\n{START}\n{HEADER}\n", 3, "has 2 events, here begins the next after 1"),
        (f"{HEADER}\n{START}\n{KILL}\n{KILL}\n", 4, "an event that belongs to no header"),
        (f"{HEADER}\n\n{START}\n{KILL[:-20]}", 4, "the file ends in the middle of the line"),
        (f"{HEADER}\n{KILL}\n", 2, "event 1 of workflow 'order/1 ü': it is numbered 2"),
        (f"{HEADER}\n{START.replace('start', 'begin')}\n", 2, "begin is no event of a workflow"),
        (f"{HEADER}\n{START.replace('[]', '[1]')}\n", 2, "args must be a list of texts, not [1]"),
        (f"{HEADER}\n{START}\n{UNKNOWN}\n", 3, "surrogates not allowed"),
        (f"{HEADER}\n{START.replace('seq', 'sequence')}\n", 2, "the field 'seq' is missing"),
        (f"{HEADER}\n{START.replace('2025-11', 'yesterday')}\n", 2, "Invalid isoformat"),
        (f"{HEADER}\n{START.replace('text', 'base64')}\n", 2, "no base64"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_said_with_the_line(text: str, line: int, reason: str) -> None:
    """A file that somebody has edited, or a download that broke off, must not be read as if it were whole."""
    with pytest.raises(BadHistoryFile) as caught:
        read(text.encode())
    assert caught.value.line == line
    assert reason in caught.value.reason
    assert str(caught.value).startswith(f"h.jsonl:{line}: ")


def test_a_compressed_file_that_is_cut_off_is_damaged(tmp_path: Path) -> None:
    """Gzip notices it at the end only."""
    history = a_history([an_event(17 + i, "signal", "go", data=bytes([i]) * 50) for i in range(100)])
    with new_history_file(tmp_path / "h.jsonl.gz") as file:
        dump_history(file, history.header, history.events)
    whole = (tmp_path / "h.jsonl.gz").read_bytes()
    for damaged in (whole[:-20], whole[:200] + b"\0" * 50 + whole[250:], b"no gzip at all"):
        (tmp_path / "h.jsonl.gz").write_bytes(damaged)
        with pytest.raises(BadHistoryFile, match="damaged or ends too early"):
            list(load_histories(tmp_path / "h.jsonl.gz"))


async def test_a_run_is_fetched_with_all_of_its_events_and_no_others(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    """A run is its own history, also when the id was used again; the server's own headers are not the event's."""
    app = write_app(
        tmp_path,
        workflows={"ask": "return function() return funcs.call('app:one') end"},
        functions={"one": "return {main = function() return {1, 'x'} end}"},
    )
    async with a_mesh(nats_server().url, app) as mesh:
        first = await mesh.start("ask", id="w")
        await first.result()
        again = await mesh.start("ask", id="w")
        await again.result()
        history = mesh.client.history("orders")
        older = await fetch_history(history, first.key, first.run)
        newest = await fetch_history(history, first.key)

    assert [event.kind for event in older.events] == ["start", "ret", "end"]
    assert [event.kind for event in newest.events] == ["start", "ret", "end"]
    assert (older.run, newest.run) == (first.run, again.run)
    assert older.header.type == "app:ask"
    assert older.header.status == "completed"
    assert older.header.events == 3
    file = written(older, newest)
    assert b"Nats-Time-Stamp" not in file
    assert b"Nats-Stream" not in file
    again_read = read(file)
    assert [(e.kind, e.seq, e.at_ns, e.args, e.data) for h in again_read for e in h.events] == [
        (e.kind, e.seq, e.at_ns, e.args, e.data) for h in (older, newest) for e in h.events
    ]


def test_a_large_payload_is_written_as_it_is_and_no_second_time_for_reading() -> None:
    """As JSON a text may take six times as much: the line would be longer than one that is read back."""
    large = codec.encode("\x01" * (READABLE_BYTES_MAX + 1))
    history = a_history([an_event(17, "start"), an_event(18, "signal", "large", data=large)])
    file = written(history)
    assert len(file) < 1.4 * len(large)
    assert read(file)[0].events == history.events
