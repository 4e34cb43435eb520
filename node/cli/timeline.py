"""A history as a timeline: what each event was in words, when, how long its step took, and who ran it.

Made from the records of `node.api.event_records`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from mesh import codec
from mesh.events import MARK_LOST
from node.cli.printing import clock, one_line, shortened
from node.workflows.attempts import VERDICT_MARK
from node.workflows.ops import fingerprint

COLUMNS: Final = ("n", "time", "after", "event", "step", "ran", "node", "detail")
# Of an event's words in a line of its own: the number, the time and the offset stand before.
EVENT_INDENT: Final = 30
# A line is parts of text, each with a style of rich; "" is none.
Line = tuple[tuple[str, str], ...]
SPARE: Final = ("ran", "node", "step")  # what a narrow terminal leaves out, one after the other
DETAIL_CHARACTERS_MAX: Final = 120
# Narrower than this a column of details is a ribbon that nobody reads.
DETAIL_CHARACTERS_MIN: Final = 40
# How the outcome of an op reads, by its kind: done, and not done.
_OUTCOMES: Final = {
    "call": ("{target} answered", "{target} failed"),
    "spawn": ("{target} started as a child", "{target} could not be started"),
    "send": ("message to {target} delivered", "message to {target} not delivered"),
    "cancel": ("{target} was asked to stop", "{target} could not be asked to stop"),
    "terminate": ("{target} was terminated", "{target} could not be terminated"),
}
_ENDS: Final = {
    "completed": "completed", "failed": "failed", "canceled": "canceled", "terminated": "terminated",
    "timed-out": "timed out", "continued": "goes on in a new run", "retried": "failed, and is tried again in a new run",
}  # fmt: skip


def rows_of(
    events: Sequence[Mapping[str, Any]], ops: Sequence[Mapping[str, Any]], *, day: str = ""
) -> Sequence[Sequence[str]]:
    """The rows of COLUMNS for events; ops: those of the run, as far as they are known.

    day: for a terminal: the day that is in the heading already; details are cut so that most events take a line or two.
    """
    by_n = {int(op["n"]): op for op in ops}
    rows = [row_of(event, by_n, day=day) for event in events]
    return [(*row[:-1], shortened(row[-1], DETAIL_CHARACTERS_MAX)) for row in rows] if day else rows


def fitted(
    columns: Sequence[str], rows: Sequence[Sequence[str]], characters: int
) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """The table for a terminal of so many characters.

    Where details would be folded in a narrow column they stand behind the words, and the time goes: `after` says it.
    """
    widths = [max(len(cell) for cell in column) for column in zip(columns, *rows, strict=True)]
    beside = sum(widths[:-1]) + 2 * (len(widths) - 1)
    if characters - beside >= min(widths[-1], DETAIL_CHARACTERS_MIN):
        return columns, rows
    order = [i for i, name in enumerate(columns) if name not in ("time", "event", "detail")]
    event, detail = columns.index("event"), columns.index("detail")
    return (
        (*(columns[i] for i in order), "event"),
        [(*(row[i] for i in order), f"{row[event]}  {row[detail]}".rstrip()) for row in rows],
    )


def row_of(event: Mapping[str, Any], ops: Mapping[int, Mapping[str, Any]], *, day: str = "") -> tuple[str, ...]:
    """One event as a row of COLUMNS. day: which needs not to be said, as `clock_of` begins with it."""
    at = clock_of(event["time"])
    return (
        str(event["n"]), at[len(day) + 1 :] if day and at.startswith(day) else at, _offset(event), words(event, ops),
        lasting(event["duration_s"]) if "duration_s" in event else "",
        lasting(event["took_s"]) if "took_s" in event else "", str(event.get("node") or ""), detail(event),
    )  # fmt: skip


def day_of(record: Mapping[str, Any]) -> str:
    """The day on which a run began."""
    return clock_of(record["started"]).partition(" ")[0] if record["started"] else ""


def _offset(event: Mapping[str, Any]) -> str:
    text = lasting(event["since_s"])
    return text if text.startswith("-") else f"+{text}"


def event_line(event: Mapping[str, Any], ops: Mapping[int, Mapping[str, Any]]) -> Line:
    """One event as a line of its own, for a view that goes on below."""
    facts = []
    if "duration_s" in event:
        facts.append(f"after {lasting(event['duration_s'])}")
    if "took_s" in event:
        facts.append(f"ran {lasting(event['took_s'])}{' on ' + event['node'] if event.get('node') else ''}")
    about = f"  ({one_line(', '.join(facts))})" if facts else ""
    failed = bool(event.get("error"))
    return (
        (f"{event['n']:>4}  {clock_of(event['time'])[11:]}  {_offset(event):<8}  ", "dim"),
        (one_line(words(event, ops)), "red" if failed else "bold"), (about, "dim"),
        (f"  {shortened(one_line(detail(event)))}", ""),
    )  # fmt: skip


def words(event: Mapping[str, Any], ops: Mapping[int, Mapping[str, Any]]) -> str:
    """What happened, in a few words."""
    op = ops.get(event.get("op") or _timer_op(event), {})
    match event["kind"]:
        case "start":
            return "reset" if event.get("base") else "started"
        case "signal":
            return f"signal {event['topic']}"
        case "ret":
            return _outcome_words(event, op)
        case "exit":
            child = f"child {op['target']}" if op.get("target") else f"child of op {event['op']}"
            return f"{child} {'failed' if event.get('error') else 'ended'}"
        case "claim":
            return f"{op.get('target') or 'op ' + str(event['op'])} begun, at most once"
        case "tick":
            return _tick_words(str(event["timer"]), op)
        case "mark" if event["name"] == MARK_LOST:
            return "suspended for good"
        case "unreadable":
            return f"unreadable: {event['event']}"
        case "mark" if _is_verdict(event):
            n, _, attempt = str(event["name"]).removeprefix(VERDICT_MARK).partition("-")
            again = isinstance(event["value"], int)
            return (
                f"op {n} is tried again after attempt {attempt}"
                if again
                else f"op {n} given up after attempt {attempt}"
            )
        case "mark":
            return f"decided {str(event['name']).removeprefix('version:')}"
        case "attrs" if "memo" in event:
            return "attributes changed"
        case "cancel":
            return "asked to stop"
        case "kill":
            return "ended to be reset" if event.get("reset") else "terminated by request"
        case "monitor":
            return "watched from outside"
        case "end":
            return _ENDS.get(str(event["status"]), str(event["status"]))
        case kind:
            return str(kind)


def _is_verdict(event: Mapping[str, Any]) -> bool:
    """Whether a mark says what was decided about a failed attempt."""
    return str(event["name"]).startswith(VERDICT_MARK) and isinstance(event.get("value"), int | str)


def _outcome_words(event: Mapping[str, Any], op: Mapping[str, Any]) -> str:
    kind, _, target = str(event.get("target") or "").partition(" ")
    if not kind and _is_of_another(event, op):
        op = {}
    kind = kind or str(op.get("kind") or "")
    if event.get("problem") and kind in _OUTCOMES:
        kind = "call"  # whether it was done is not known: it has an answer
    done, failed = _OUTCOMES.get(kind, ("op {n} answered", "op {n} failed"))
    text = (failed if event.get("error") else done).format(target=target or op.get("target") or "?", n=event["op"])
    return text + (f", attempt {event['attempt']}" if event["attempt"] > 1 or event.get("error") else "")


def _is_of_another(event: Mapping[str, Any], op: Mapping[str, Any]) -> bool:
    """Whether an outcome is that of another op than the one that the code has asked for by this number."""
    # Those whose fingerprints are made of what a record shows.
    return op.get("kind") in ("call", "spawn") and fingerprint(op["kind"], op["target"]) != event["fingerprint"]


def _timer_op(event: Mapping[str, Any]) -> int:
    name = str(event.get("timer") or "").removeprefix("op ")
    return int(name) if name.isdecimal() else 0


def _tick_words(timer: str, op: Mapping[str, Any]) -> str:
    if timer == "timeout":
        return "time is up"
    if timer == "delay":
        return "delay over"
    if timer.startswith("retry-"):
        n, _, attempt = timer.removeprefix("retry-").partition("-")
        return f"pause over, attempt {attempt} of op {n}"
    if op.get("due") and op.get("since"):
        return f"timer {lasting(seconds_between(op['since'], op['due']))} fired"
    return f"timer of {timer} fired"


def detail(event: Mapping[str, Any]) -> str:
    """What came with an event: arguments, values, errors."""
    parts = []
    match event["kind"]:
        case "start":
            parts.append(", ".join(codec.to_json(value) for value in event["args"]))
            parts += [f"{name} {event[name]}" for name in ("host", "parent", "cron") if event.get(name)]
            if event.get("attempt", 1) > 1:
                parts.append(f"attempt {event['attempt']}")
            if event.get("memo"):
                parts.append(f"memo {codec.to_json(event['memo'])}")
            if event.get("base"):
                parts.append(f"goes on from run {event['base']}, sequence {event['base_seq']}")
            if event.get("reason"):
                parts.append(f"reason: {event['reason']}")
        case "mark" if _is_verdict(event) and isinstance(event["value"], int):
            parts.append(f"in {lasting(event['value'] / 1e9)}")
        case "signal" | "mark":
            parts.append(codec.to_json(event["value"]))
        case "attrs" if "memo" in event:
            parts += [f"{name} {codec.to_json(event[name])}" for name in ("attrs", "memo") if event[name]]
        case "ret":
            parts.append(f"op {event['op']} {_outcome(event)}".rstrip())
        case "exit":
            parts.append(_outcome(event))
        case "end":
            parts.append("" if event.get("next") else _outcome(event))
            if event.get("next"):
                parts.append(f"next run {event['next']}")
    if event.get("from"):
        parts.append(f"from {event['from']}")
    if event.get("problem"):
        parts.append(event["problem"])
    return ", ".join(part for part in parts if part)


def _outcome(event: Mapping[str, Any]) -> str:
    if event.get("problem"):
        return ""  # which is said behind it
    error = event.get("error")
    if error is None:
        return f"-> {codec.to_json(event.get('value'))}"
    kind = f"{error['kind']}: " if error.get("kind") else ""
    return f"-> error {kind}{error.get('message')}"


# -- times -----------------------------------------------------------------------------------------------------------


def lasting(seconds: float) -> str:
    """A length of time for people: `0.8ms`, `4.21s`, `3m20s`, `23h59m`, `12d3h`."""
    if seconds < 0:
        return f"-{lasting(-seconds)}"
    if seconds < 1:
        return f"{_plain(seconds * 1e3, 1 if seconds < 0.1 else 0)}ms"
    if seconds < 60:
        return f"{_plain(seconds, 2)}s"
    whole = round(seconds)
    for unit, small, size, small_size in (("m", "s", 60, 1), ("h", "m", 3600, 60), ("d", "h", 86400, 3600)):
        if whole < size * (60 if unit == "m" else 48):
            rest = whole % size // small_size
            return f"{whole // size}{unit}{f'{rest}{small}' if rest else ''}"
    return f"{whole // 86400}d{f'{whole % 86400 // 3600}h' if whole % 86400 >= 3600 else ''}"


def _plain(number: float, digits: int) -> str:
    text = f"{number:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def clock_of(iso: str) -> str:
    """An ISO time as people read it: local, to the millisecond."""
    return clock(ns_of(iso))


def seconds_between(first: str, second: str) -> float:
    """How long it is from one ISO time to another."""
    return (ns_of(second) - ns_of(first)) / 1e9


def ns_of(iso: str) -> int:
    """The Unix time in nanoseconds of a time as records have it (`mesh.instants.iso`)."""
    whole, _, fraction = iso.rstrip("Z").partition(".")
    seconds = int(datetime.fromisoformat(f"{whole}+00:00").timestamp())
    return seconds * 1_000_000_000 + int((fraction or "0").ljust(9, "0"))
