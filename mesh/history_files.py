"""Histories in files: JSON lines that people can read and that keep every event byte for byte.

A history is one header line and then one line per event, and a file holds as many of them as one likes:

    {"moonmesh": 1, "queue": "orders", "id": "order-1", "run": 17, "type": "app:order", "host": "app:worker",
     "status": "completed", "exported": "2026-11-25T20:00:00.000000000Z", "events": 5}
    {"n": 1, "seq": 17, "time": "2026-11-25T19:59:58.120000000Z", "kind": "start", "args": [], "data": {...},
     "base64": "wYSo..."}
    {"n": 2, "seq": 21, ..., "kind": "signal", "args": ["approve"], "headers": {"Mesh-From": "..."}, "text": "yes"}

n: the event's number in its history. args: the subject's tokens after the kind. What an event carries is in the first
of these that is there: `base64` (the bytes), `text` (what a person or a foreign program sent, in UTF-8), `data` (the
value of a payload of ours, where writing that value gives the same bytes again). Beside `base64`, `data` is for
reading only. None of them: no bytes. What is encrypted stands there encrypted (`base64` alone), bound to the workflow
of the header.

A file whose name ends in `.gz` is compressed. Files are read and written a line at a time, so neither a long history
nor very many of them need memory.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import gzip
import json
import os
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short  # as deep as anybody has nested it
from typing import IO, Any, Final

from mesh import codec
from mesh.envelopes import ENCRYPTED, ENVELOPE, PayloadCodec, context_of
from mesh.errors import InvalidName, MeshError, Undecodable
from mesh.events import Event, decode_end, decode_start, parse
from mesh.failure import Failure
from mesh.history import History
from mesh.instants import iso, timestamp_ns_of
from mesh.lineage import up_to_end
from mesh.stored_messages import own_headers
from mesh.subjects import WorkflowKey, token
from mesh.wire import encode_headers, parse_headers

FORMAT: Final = 1
# A payload has at most 64 MiB by default (`mesh.handshake`), and base64 takes a third more.
LINE_BYTES_MAX: Final = 128 * 1024 * 1024
# Above that nobody reads a line, and as JSON it may take six times as much.
READABLE_BYTES_MAX: Final = 8 * 1024 * 1024
RUNNING: Final = "running"

BinaryFile = IO[bytes] | gzip.GzipFile


class BadHistoryFile(MeshError):
    """Raised when a file is no file of histories, or is damaged."""

    code = "bad-history-file"

    def __init__(self, name: str, line: int, reason: str) -> None:
        self.line = line
        self.reason = reason
        super().__init__(f"{name}:{line}: {reason}; histories are written by `mesh export`")


@dataclass(frozen=True, slots=True)
class HistoryHeader:
    """Of which run a history is. type: the workflow it was started as. exported: when, as text.

    status: how the run ended, "running" when it had not. events: how many follow.
    """

    queue: str
    id: str
    run: int
    type: str
    host: str
    status: str
    exported: str
    events: int

    @property
    def key(self) -> WorkflowKey:
        """The workflow."""
        return WorkflowKey(self.queue, self.id)


@dataclass(frozen=True, slots=True)
class RecordedHistory:
    """A run and all of its events, numbered from 1 in this order."""

    header: HistoryHeader
    events: list[Event]

    @property
    def key(self) -> WorkflowKey:
        """The workflow."""
        return self.header.key

    @property
    def run(self) -> int:
        """The run."""
        return self.header.run


# -- writing ---------------------------------------------------------------------------------------------------------


def header_of(
    key: WorkflowKey, run: int, events: list[Event], *, type: str, host: str, status: str, exported_ns: int
) -> HistoryHeader:
    """The header for a list of events."""
    return HistoryHeader(key.queue, key.id, run, type, host, status, iso(exported_ns), len(events))


def dump_history(file: BinaryFile, header: HistoryHeader, events: Iterable[Event]) -> None:
    """Write one history. Raises ValueError when there are not as many events as the header says."""
    written = {"moonmesh": FORMAT} | {name: getattr(header, name) for name in HistoryHeader.__slots__}
    file.write(_line(written))
    number = 0
    for number, event in enumerate(events, 1):
        file.write(_line(_event_record(number, event)))
    if number != header.events:
        raise ValueError(f"the header says {header.events} events, there are {number}")


@contextmanager
def new_history_file(path: Path) -> Iterator[BinaryFile]:
    """Open a file to write histories to; it is there under its name once the block is left, complete and on disk."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with beside.open("wb") as raw:
            if path.suffix == ".gz":
                # No name and no time inside, so that the same histories are the same file.
                with gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=6, mtime=0) as compressed:
                    yield compressed
            else:
                yield raw
            raw.flush()
            os.fsync(raw.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    """Have the name of a new file on disk, too."""
    with contextlib.suppress(OSError):  # not every file system can
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode("ascii") + b"\n"


def _event_record(number: int, event: Event) -> dict[str, Any]:
    record: dict[str, Any] = {
        "n": number, "seq": event.seq, "time": iso(event.at_ns), "kind": event.kind, "args": event.args,
    }  # fmt: skip
    raw = own_headers(event.raw_headers)
    if raw is not None:
        headers = parse_headers(raw)
        try:
            is_plain = encode_headers(headers) == raw
        except (InvalidName, UnicodeEncodeError):
            is_plain = False
        record |= {"headers": headers} if is_plain else {"headers_base64": base64.b64encode(raw).decode()}
    return record | _payload_fields(event.kind, event.data)


def _payload_fields(kind: str, data: bytes) -> dict[str, Any]:
    if not data:
        return {}
    exact = {"base64": base64.b64encode(data).decode()}
    if len(data) > READABLE_BYTES_MAX:
        return exact
    if data[:1] != codec.MARKER:
        try:
            return {"text": data.decode("utf-8")}
        except UnicodeDecodeError:
            return exact
    try:
        value = codec.decode(data)
    except Undecodable:
        return exact
    if _survives_json(value, data):
        return {"data": value}
    return {"data": _readable(kind, value), **exact}


def _survives_json(value: Any, data: bytes) -> bool:
    """Whether the value is the same after it was JSON, and the same bytes when it is encoded again."""
    try:
        again = json.loads(json.dumps(value, allow_nan=False))
        return codec.encode(again) == data
    except (TypeError, ValueError, RecursionError):
        return False


def _readable(kind: str, value: Any) -> Any:
    """A value for people: payloads inside it decoded, bytes as text. What reads the file goes by the bytes."""
    if kind == "start" and isinstance(value, dict):
        value = dict(value)
        with contextlib.suppress(Undecodable, TypeError):
            value["args"] = codec.unpack(value["args"]) if "args" in value else []
        if isinstance(value.get("entropy"), bytes):
            value["entropy"] = value["entropy"].hex()
    if kind == "end" and isinstance(value, dict) and value.get("next"):
        value = value | {"next": _decoded("start", value["next"])}
    return json.loads(codec.to_json(_opened(value)))


def _decoded(kind: str, data: Any) -> Any:
    try:
        return _readable(kind, codec.decode(data))
    except (Undecodable, TypeError, AttributeError):
        return data


def _opened(value: Any) -> Any:
    match value:
        case bytes() if value[:1] == codec.MARKER:
            try:
                return _opened(codec.decode(value))
            except Undecodable:
                return value
        case dict():
            return {name: _opened(item) for name, item in value.items()}
        case list():
            return [_opened(item) for item in value]
        case Failure():
            return value.to_wire()
        case _:
            return value


# -- reading ---------------------------------------------------------------------------------------------------------


def load_histories(path: Path | str) -> Iterator[RecordedHistory]:
    """The histories of a file, one after the other. Raises BadHistoryFile, OSError."""
    for header, events in read_histories(path):
        yield RecordedHistory(header, list(events))


def read_histories(path: Path | str) -> Iterator[tuple[HistoryHeader, Iterator[Event]]]:
    """The same, with the events read one at a time: of each history while it is the newest one that was given out."""
    path = Path(path)
    with contextlib.ExitStack() as stack:
        opened: BinaryFile = stack.enter_context(path.open("rb"))
        if path.suffix == ".gz":
            opened = stack.enter_context(gzip.GzipFile(fileobj=opened, mode="rb"))
        yield from scan_histories(opened, str(path))


def scan_histories(file: BinaryFile, name: str) -> Iterator[tuple[HistoryHeader, Iterator[Event]]]:
    """The histories in a binary file that is open. name: what errors call it."""
    lines = _Lines(file, name)
    while (record := lines.next()) is not None:
        header = _header(lines, record)
        events = _events(lines, header)
        yield header, events
        for _ in events:  # what the caller has not looked at
            pass


class _Lines:
    """The lines of a file as JSON objects, and which one is being read."""

    def __init__(self, file: BinaryFile, name: str) -> None:
        self._file = file
        self._name = name
        self.number = 0

    def next(self) -> dict[str, Any] | None:
        """The next object, None at the end of the file. Raises BadHistoryFile."""
        while True:
            self.number += 1
            try:
                line = self._file.readline(LINE_BYTES_MAX)
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise self.bad(f"the compressed file is damaged or ends too early ({error})") from error
            if not line:
                return None
            if line.strip():
                break
        if not line.endswith(b"\n") and len(line) >= LINE_BYTES_MAX:
            raise self.bad(f"the line has more than {LINE_BYTES_MAX} bytes")
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            cut = "" if line.endswith(b"\n") else ", and the file ends in the middle of the line"
            raise self.bad(f"no JSON ({error}){cut}") from error
        if not isinstance(record, dict):
            raise self.bad("the line is no JSON object")
        return record

    def bad(self, reason: str) -> BadHistoryFile:
        """The error for the present line."""
        return BadHistoryFile(self._name, self.number, reason)


def _header(lines: _Lines, record: Mapping[str, Any]) -> HistoryHeader:
    version = record.get("moonmesh")
    if version is None:
        if "n" in record and "kind" in record:
            raise lines.bad("an event that belongs to no header before it: the header counts fewer events")
        raise lines.bad('no header of a history: it has no field "moonmesh"')
    if version != FORMAT:
        raise lines.bad(f"format {short(version)} is not known here, only {FORMAT}; it was written by a newer mesh")
    fields: dict[str, Any] = {}
    for name, annotation in HistoryHeader.__annotations__.items():
        value, kind = record.get(name), int if annotation == "int" else str
        if type(value) is not kind:
            raise lines.bad(f"the header's field {name!r} must be {'a number' if kind is int else 'a text'}")
        fields[name] = value
    header = HistoryHeader(**fields)
    try:
        token(header.queue)
        token(header.id)
    except InvalidName as error:
        raise lines.bad(str(error)) from error
    return header


def _events(lines: _Lines, header: HistoryHeader) -> Iterator[Event]:
    key = header.key
    for number in range(1, header.events + 1):
        record = lines.next()
        if record is None:
            raise lines.bad(f"the file ends after {number - 1} of the {header.events} events of workflow {header.id!r}")
        if "moonmesh" in record:
            raise lines.bad(
                f"workflow {header.id!r} has {header.events} events, here begins the next after {number - 1}"
            )
        try:
            yield _event(key, number, record)
        except (ValueError, KeyError, TypeError, InvalidName) as error:
            what = f"the field {error} is missing" if isinstance(error, KeyError) else str(error)
            raise lines.bad(f"event {number} of workflow {header.id!r}: {what}") from error


def _event(key: WorkflowKey, number: int, record: Mapping[str, Any]) -> Event:
    if record["n"] != number:
        raise ValueError("it is numbered " + short(record["n"]))
    seq, args = record["seq"], record["args"]
    if type(seq) is not int or seq < 1:
        raise ValueError(f"seq must be a sequence of a stream, not {short(seq)}")
    if not isinstance(args, list) or not all(isinstance(part, str) and part for part in args):
        raise ValueError(f"args must be a list of texts, not {short(args)}")
    for part in args:
        part.encode("utf-8", "surrogateescape")  # raises ValueError: JSON can name characters that do not exist
    kind, time = record["kind"], record["time"]
    if not isinstance(kind, str) or not isinstance(time, str):
        raise ValueError("kind and time must be texts")
    subject = key.stored(0, kind, *args)
    event = parse(subject, seq, timestamp_ns_of(time), _payload(record), _headers(record))
    if event is None or event.args != args:
        raise ValueError(f"{'.'.join((kind, *args))} is no event of a workflow")
    return event


def _payload(record: Mapping[str, Any]) -> bytes:
    if "base64" in record:
        return _bytes(record["base64"])
    if "text" in record:
        return str(record["text"]).encode("utf-8")
    return codec.encode(record["data"]) if "data" in record else b""


def _headers(record: Mapping[str, Any]) -> bytes | None:
    if "headers_base64" in record:
        return _bytes(record["headers_base64"])
    headers = record.get("headers")
    if headers is None:
        return None
    if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
        raise ValueError("headers must be texts by name")
    return encode_headers(headers)


def _bytes(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError) as error:
        raise ValueError(f"no base64: {error}") from error


# -- encrypted histories ----------------------------------------------------------------------------------------------


def sealed_events(keys: PayloadCodec | None, header: HistoryHeader, events: Iterable[Event]) -> Iterator[Event]:
    """The events with their payloads encrypted, if there are keys, bound to the workflow that the header names."""
    for event in events:
        context = _context(header, event)
        if keys is not None and context and event.data and event.data[:2] != ENVELOPE:
            event = event._replace(data=keys.seal(context, event.data))
        yield event


def opened_events(keys: PayloadCodec | None, header: HistoryHeader, events: Iterable[Event]) -> Iterator[Event]:
    """The events of a file as they were before they were encrypted, as far as the keys can."""
    for event in events:
        if keys is not None and event.data[:3] == ENCRYPTED:
            event = event._replace(data=keys.open(_context(header, event), event.data))
        yield event


def _context(header: HistoryHeader, event: Event) -> str:
    return context_of(header.key.subject(event.kind, *event.args))


# -- fetching --------------------------------------------------------------------------------------------------------


async def fetch_history(history: History, key: WorkflowKey, run: int = 0) -> RecordedHistory:
    """Read a history from the mesh: of the newest run, or of the one that is named. Raises NotFound."""
    opened, ended = await history.run_named(key, run)
    headers = parse_headers(opened.start.raw_headers)
    try:
        spec = decode_start(opened.start.data, headers)
        workflow, host = spec.workflow, spec.host
    except Undecodable:
        workflow, host = headers.get("Mesh-Workflow", "?"), ""
    events = await history.events(key, opened.run)
    if ended is not None:
        events = up_to_end(opened.run, events, ended.seq)
    status = decode_end(ended.data).status if ended is not None else RUNNING
    header = header_of(
        key, opened.run, events, type=workflow, host=host, status=status, exported_ns=time.time_ns()
    )  # fmt: skip
    return RecordedHistory(header, events)
