"""What a workflow is doing, for people: lines of text with styles, made from the record of `node.api.describing`.

Where it goes (a terminal, a pipe, a view that is drawn again and again) is for `node.cli.show` to say.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from mesh import codec
from mesh.events import ENDED
from node.cli.printing import away, one_line, shortened
from node.cli.timeline import Line, clock_of, lasting, ns_of

STATUS_STYLES: Final = {
    "running": "cyan", "completed": "green", "failed": "red", "terminated": "red", "timed-out": "red",
    "canceled": "yellow", "suspended": "bold red",
}  # fmt: skip
NEW_NS: Final = 1_000_000
TASKS_SHOWN_MAX: Final = 20
WAITING_SHOWN_MAX: Final = 100
RUNS_SHOWN_MAX: Final = 5
TOPICS_SHOWN_MAX: Final = 20
OPEN: Final = ("running", "suspended")


def line(*parts: str | tuple[str, str]) -> Line:
    """A line of parts; a part without a style may be given as it is. Control characters become escapes."""
    return tuple((one_line(part), "") if isinstance(part, str) else (one_line(part[0]), part[1]) for part in parts)


def state_lines(record: Mapping[str, Any], *, with_locals: bool, hint: str = "") -> list[Line]:
    """The whole state. with_locals: what variables hold. hint: the flags that lead to the same mesh."""
    lines = head_lines(record, hint=hint)
    lines += outcome_lines(record, hint=hint)
    lines += waiting_lines(record)
    lines += unread_lines(record)
    lines += task_lines(record, with_locals=with_locals)
    if record["tasks"] and not with_locals and record["at"] is None:
        lines.append(line((f"variables: mesh show {record['id']} --locals{hint}", "dim")))
    return lines


def head_lines(record: Mapping[str, Any], *, hint: str = "") -> list[Line]:
    """Who it is, when it began and ended, and what it was given on its way."""
    now_ns = time.time_ns()
    lines = [
        line(
            (str(record["id"]), "bold"), "  ", str(record["type"]), "  ",
            (str(record["status"]), STATUS_STYLES.get(record["status"], "")),
        )
    ]  # fmt: skip
    if record["at"]:
        at = record["at"]
        lines.append(line((f"as it was at event {at['n']}, {clock_of(at['time'])}", "bold")))
    facts = [f"queue {record['queue']}", f"run {record['run']}"]
    if record["started"]:
        started = clock_of(record["started"])
        facts.append(f"started {started} ({away(ns_of(record['started']), now_ns)})")
    if record["ended"]:
        facts.append(f"ended {clock_of(record['ended'])} after {lasting(record['duration_s'])}")
    if record["node"]:
        facts.append(f"{'replayed ' if record['at'] else ''}on node {record['node']}")
    lines.append(line(", ".join(facts)))
    facts = []
    if record["parent"]:
        facts.append(f"parent {record['parent']}")
    if record["attempt"] > 1:
        facts.append(f"run attempt {record['attempt']}")
    if record["deadline"]:
        facts.append(f"limit {away(ns_of(record['deadline']), now_ns)}")
    if record["cancel_requested"]:
        facts.append("cancellation requested")
    facts += [f"{name} {_json(record[name])}" for name in ("memo", "attrs") if record[name]]
    if facts:
        lines.append(line(", ".join(facts)))
    others = [run for run in record["runs"] if run != record["run"]]
    if others:
        told = ", ".join(str(run) for run in others[-RUNS_SHOWN_MAX:])
        hidden = record["runs_total"] - 1 - min(len(others), RUNS_SHOWN_MAX)
        more = f" and {hidden} earlier" if hidden else ""
        lines.append(line((f"other runs: {told}{more}; mesh show {record['id']} --run RUN{hint}", "dim")))
    if record.get("history_warning"):
        lines.append(line((f"warning: {record['history_warning']}", "yellow")))
    return lines


def outcome_lines(record: Mapping[str, Any], *, hint: str = "") -> list[Line]:
    """How it ended, or why it does not go on. hint: the flags that lead to the same mesh."""
    error = record["error"]
    if error and record["status"] == ENDED:
        return [line((one_line(str(error.get("message"))), "dim"))]  # of which the key is missing
    if error:
        kind = f"{error['kind']}: " if error.get("kind") else ""
        lines = [line(("error: ", "bold red"), one_line(f"{kind}{error.get('message')}"))]
        lines += [line(f"  {one_line(text.strip())}") for text in str(error.get("stack") or "").splitlines()[1:]]
        return lines
    if record["status"] == "completed":
        return [line("result: ", shortened(_json(record["value"])))]
    if record["status"] == "suspended":
        at = f" at event {record['suspended_at']}" if record["suspended_at"] else ""
        sides = []
        if record["expected"]:
            sides.append(line("  the history has: ", (one_line(record["expected"]), "green")))
            sides.append(line("  the code asks for: ", (one_line(record["got"] or "nothing"), "red")))
        # Nobody has to wait for a key that is lost; a request to end it without --force waits for that key, too.
        end = f"mesh terminate {record['id']} --force{hint}"
        given_up = [line(f"when that key is lost, only this ends it: {end}")] if record.get("unreadable") else []
        return [
            line((f"suspended{at}: ", "bold red"), one_line(str(record["reason"]))),
            *sides,
            line("it goes on by itself once a node owns it that has fitting code, the keys, and all of its history"),
            line(f"to check code before it is deployed: mesh replay {record['id']} APP"),
            *given_up,
        ]
    return []


def waiting_lines(record: Mapping[str, Any]) -> list[Line]:
    """What an open run waits for."""
    if record["status"] not in OPEN:
        return []
    now_ns = ns_of(record["at"]["time"]) if record["at"] else time.time_ns()
    if record["status"] == "running" and record["reason"]:
        return [line(f"note: {record['reason']}")]
    if record["delayed_until"]:
        return [line(f"waiting for: its start, {away(ns_of(record['delayed_until']), now_ns)}")]
    lines = [_waiting_line(item, now_ns) for item in record["waiting"][:WAITING_SHOWN_MAX]]
    lines += [line(f"  child {child}") for child in record["children"][:WAITING_SHOWN_MAX]]
    hidden = len(record["waiting"]) + len(record["children"]) - len(lines)
    if hidden:
        lines.append(line((f"  and {hidden} more, see --json", "dim")))
    if lines:
        return [line(("waiting for:", "bold")), *lines]
    return [] if record["status"] == "suspended" else [line("waiting for: a signal or message")]


def unread_lines(record: Mapping[str, Any]) -> list[Line]:
    """What an open run has been sent and has not read, beside what it listens to."""
    if record["status"] not in OPEN or not record["unread"]:
        return []
    hears = record["listens"] or record["inbox"]
    # Of one that listens to nothing at all, its code may not have come so far: that is no mistake of the sender.
    unheard = "it does not listen to that" if hears else "kept until it listens to that, or reads its inbox"
    lines = [line(("unread messages:", "bold"))]
    for item in record["unread"][:TOPICS_SHOWN_MAX]:
        meant = f"; did you mean {item['near']}?" if item["near"] else ""
        style = "yellow" if meant or (item["held"] == "nobody" and hears) else ""
        held = {"listener": "not received yet", "inbox": "in its inbox"}.get(item["held"], unheard)
        lines.append(line("  ", (f"{item['topic']}  {item['messages']}, {held}{meant}", style)))
    if len(record["unread"]) > TOPICS_SHOWN_MAX:
        lines.append(line((f"  and {len(record['unread']) - TOPICS_SHOWN_MAX} more topics, see --json", "dim")))
    listens = [*_some_of(record["listens"]), *(["all others in its inbox"] if record["inbox"] else [])]
    lines.append(line(f"  it listens to: {', '.join(listens) or 'nothing yet'}"))
    return lines


def _some_of(topics: Sequence[str]) -> list[str]:
    """The first of the topics, and how many there are more."""
    rest = len(topics) - TOPICS_SHOWN_MAX
    return [*topics[:TOPICS_SHOWN_MAX], *([f"{rest} more"] if rest > 0 else [])]


def _waiting_line(item: Mapping[str, Any], now_ns: int) -> Line:
    text = f"  {item.get('n')}  {item.get('kind')} {item.get('target', '')}".rstrip()
    if item.get("due_ns"):
        if item.get("since_ns"):
            text += f" of {lasting((item['due_ns'] - item['since_ns']) / 1e9)}"
        text += f" due {away(item['due_ns'], now_ns)}"
    if item.get("kind") == "call":
        text += f", attempt {item.get('attempt', 1)}"
    if item.get("next_attempt_ns"):
        text += f", next {away(item['next_attempt_ns'], now_ns)}"
    if item.get("since_ns") and not item.get("due_ns"):
        is_new = now_ns - item["since_ns"] < NEW_NS
        text += f", asked {'just now' if is_new else away(item['since_ns'], now_ns)}"
    if item.get("last_error"):
        text += f", last error: {shortened(one_line(str(item['last_error'])))}"
    return line(text)


# -- tasks -----------------------------------------------------------------------------------------------------------


def task_lines(record: Mapping[str, Any], *, with_locals: bool) -> list[Line]:
    """Where the code stands: each task with what it waits for and its frames, innermost first."""
    tasks = [task for task in record["tasks"] if task["frames"] or not task["runtimes"]]
    lines: list[Line] = []
    for task in tasks if with_locals else tasks[:TASKS_SHOWN_MAX]:
        name = "main task" if task["main"] else f"task {task['id']}"
        lines.append(line((f"{name}: ", "bold"), waits_text(task["waits"])))
        lines += _frame_lines(task["frames"], with_locals)
    hidden = record["tasks_total"] - (len(record["tasks"]) if with_locals else min(len(tasks), TASKS_SHOWN_MAX))
    if hidden > 0 and len(tasks) >= TASKS_SHOWN_MAX:
        lines.append(line((f"{hidden} more tasks", "dim")))
    for i, coroutine in enumerate(record["coroutines"] if with_locals else (), 1):
        stands = "suspended" if coroutine["frames"] else "not begun"
        lines.append(line((f"coroutine {i}: ", "bold"), stands))
        lines += _frame_lines(coroutine["frames"], with_locals)
    if with_locals and record["globals"]:
        lines.append(line(("globals:", "bold")))
        lines += _variable_lines(record["globals"], "  ")
    if not record["tasks"]:
        for stack in record["stacks"]:
            lines.append(line(("stack:", "bold")))
            lines += [line(f"  {one_line(text.strip())}") for text in str(stack).splitlines()]
    return lines


def _frame_lines(frames: Sequence[Mapping[str, Any]], with_locals: bool) -> list[Line]:
    lines = []
    for frame in frames:
        place = f"{frame['file']}:{frame['line']}" if frame["line"] > 0 else str(frame["file"])
        lines.append(line("  ", (one_line(place), "cyan"), f" in {one_line(str(frame['function']))}"))
        if with_locals:
            variables = [*frame.get("locals", ()), *frame.get("upvalues", ())]
            lines += _variable_lines(variables, "      ")
    return lines


def _variable_lines(variables: Sequence[Sequence[str]], indent: str) -> list[Line]:
    width = min(max((len(name) for name, _ in variables), default=0), 24)
    return [line(indent, (one_line(name).ljust(width), "green"), " = ", one_line(text)) for name, text in variables]


def waits_text(waits: Mapping[str, Any]) -> str:
    """What a task waits for, in words."""
    n, what = waits.get("op"), waits.get("what")
    match waits["kind"]:
        case "op":
            return f"waits for {what or 'an op'} (op {n})"
        case "child":
            return f"waits for the end of {what or 'a child'} (op {n})"
        case "cancel":
            return f"waits until {what or 'a call'} has stopped (op {n})"
        case "receive" | "send":
            return _case_text(waits["cases"][0])
        case "select":
            return "selects: " + "; ".join(_case_text(case) for case in waits["cases"])
        case _:
            return "stopped here"


def _case_text(case: Mapping[str, Any]) -> str:
    name = one_line(str(case.get("name") or "a channel"))
    about = []
    if case.get("op"):
        about.append(f"op {case['op']}{': ' + one_line(case['what']) if case.get('what') else ''}")
    if case.get("closed"):
        about.append("closed")
    if case.get("held") and case.get("size"):
        about.append(f"{case['held']} of {case['size']} in its buffer")
    about_text = f" ({', '.join(about)})" if about else ""
    if case["verb"] == "send":
        return f"sends {shortened(one_line(str(case.get('value'))), 80)} to {name}{about_text}"
    return f"receives from {name}{about_text}"


def _json(value: Any) -> str:
    return one_line(codec.to_json(value))
