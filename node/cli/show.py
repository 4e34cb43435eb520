"""`mesh show`: what a workflow is doing, what it waits for, and its history as a table.

Values are shown as they are in the history: what is secret should not be passed to a workflow.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from mesh import codec
from mesh.failure import Failure
from node.cli.connecting import Server, connection_options, run
from node.cli.printing import (
    away,
    clock,
    iso,
    one_line,
    print_json,
    print_table,
    say,
    shortened,
    styled_status,
)
from node.cli.workflows import queue_option

if TYPE_CHECKING:
    from mesh.client import Client, WorkflowState
    from mesh.events import Event, StartSpec

LAST_DEFAULT = 200


@click.command()
@click.argument("workflow_id", metavar="ID")
@queue_option
@click.option(
    "-n",
    "--last",
    type=click.IntRange(0),
    default=LAST_DEFAULT,
    show_default=True,
    metavar="COUNT",
    help="How many events to show, the newest; 0 for all.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print {id, queue, run, workflow, status, value, error, args, node, reason, waiting, children, stacks, "
    "events_total, events: [{seq, time, kind, ...}]}.",
)
@connection_options
def show(workflow_id: str, *, queue: str | None, last: int, as_json: bool, server: Server) -> None:
    """Show the workflow ID: its state, what it is waiting for, and the history of its newest run.

    For each operation that is open: its attempt, the last error and when the next attempt is due. The stack says
    where in the Lua code each task of the workflow stands.
    """

    async def main() -> None:
        from mesh.errors import NotFound
        from node.cli.locating import find, is_scheduled

        async with server.client() as client:
            with server.deadline("the workflow"):
                handle = await find(client, server.url, workflow_id, queue)
                try:
                    state = await handle.describe()
                except NotFound:
                    if not await is_scheduled(client, handle):
                        raise
                    say(f"{workflow_id} is scheduled by cron on queue {handle.key.queue} and has not run yet")
                    return
                events = await client.history(handle.key.queue).events(handle.key, state.run)
                targets = await _targets(client, state)
        shown = events[-last:] if last else events
        if as_json:
            print_json(_record(state, events, shown, targets))
        else:
            _print(state, events, shown, targets)

    run(main)


async def _targets(client: Client, state: WorkflowState) -> dict[str, str]:
    """What the fingerprints in the history stand for, as far as the nodes that are up and the open ops tell."""
    from mesh.errors import MeshError
    from node.cli.nodes import ask_nodes
    from node.workflows.ops import fingerprint

    names = {item.get("target"): str(item.get("kind")) for item in state.detail.get("waiting") or ()}
    try:
        for status in (await ask_nodes(client)).values():
            names |= dict.fromkeys(status.get("functions") or (), "call")
    except MeshError:
        return {}
    return {fingerprint(kind, str(name)): f"{kind} {name}" for name, kind in names.items() if name}


# -- for people ------------------------------------------------------------------------------------------------------


def _print(state: WorkflowState, events: Sequence[Event], shown: Sequence[Event], targets: Mapping[str, str]) -> None:
    now_ns = time.time_ns()
    detail = state.detail
    click.echo(f"{state.key.id}  {state.workflow}  {styled_status(state.status)}")
    facts = [f"queue {state.key.queue}", f"run {state.run}"]
    if events:
        facts.append(f"started {clock(events[0].at_ns)} ({away(events[0].at_ns, now_ns)})")
    if detail.get("node"):
        facts.append(f"on node {detail['node']}")
    if int(detail.get("attempt") or 1) > 1:
        facts.append(f"run attempt {detail['attempt']}")
    if detail.get("deadline_ns"):
        facts.append(f"limit {away(detail['deadline_ns'], now_ns)}")
    if detail.get("cancel_requested"):
        facts.append("cancellation requested")
    click.echo(", ".join(facts))
    if isinstance(state.value, Failure):
        click.echo(f"error: {one_line(str(state.value))}")
        if state.value.stack:
            click.echo(_indented(state.value.stack))
    elif state.status == "completed":
        click.echo(f"result: {shortened(one_line(codec.to_json(state.value)))}")
    for line in _waiting_lines(state, now_ns):
        click.echo(line)
    for stack in detail.get("stacks") or ():
        click.echo(f"stack:\n{_indented(stack)}")
    if len(shown) < len(events):
        click.echo(f"\n{len(events) - len(shown)} earlier events are not shown; --last 0 shows all")
    else:
        click.echo()
    rows = [(str(e.seq), clock(e.at_ns), e.kind, _describe(decoded(e, targets))) for e in shown]
    print_table(("seq", "time", "kind", "detail"), rows)


def _waiting_lines(state: WorkflowState, now_ns: int) -> list[str]:
    detail = state.detail
    if state.status not in ("running", "suspended"):
        return []
    if detail.get("note"):
        return [f"note: {detail['note']}"]
    if state.status == "suspended":
        return [
            f"suspended: {one_line(str(detail.get('reason')))}",
            "nothing is lost; it goes on by itself once a node with fitting code owns it",
        ]
    if detail.get("delayed_until_ns"):
        return [f"waiting for: its start, {away(detail['delayed_until_ns'], now_ns)}"]
    waiting = list(detail.get("waiting") or ())
    lines = ["waiting for:"]
    for item in waiting:
        text = f"  {item.get('n')}  {item.get('kind')} {item.get('target', '')}".rstrip()
        if item.get("due_ns"):
            text += f" due {away(item['due_ns'], now_ns)}"
        if item.get("kind") == "call":
            text += f", attempt {item.get('attempt', 1)}"
        if item.get("next_attempt_ns"):
            text += f", next {away(item['next_attempt_ns'], now_ns)}"
        if item.get("last_error"):
            text += f", last error: {shortened(one_line(str(item['last_error'])))}"
        elif item.get("since_ns"):
            text += f", asked {away(item['since_ns'], now_ns)}"
        lines.append(text)
    lines += [f"  child {one_line(str(child))}" for child in detail.get("children") or ()]
    if len(lines) == 1:
        return ["waiting for: a signal or message"]
    return lines


def _indented(text: str) -> str:
    return "\n".join(f"  {one_line(line.strip())}" for line in text.splitlines())


def _describe(record: Mapping[str, Any]) -> str:
    """One event's record as a line."""
    rest = {name: value for name, value in record.items() if name not in ("seq", "time", "kind")}
    parts = []
    match record["kind"]:
        case "start":
            parts.append(f"{rest['workflow']}({', '.join(codec.to_json(value) for value in rest['args'])})")
            parts += [f"{k} {rest[k]}" for k in ("host", "parent", "cron") if rest.get(k)]
            if rest.get("attempt", 1) > 1:
                parts.append(f"attempt {rest['attempt']}")
            if rest.get("memo"):
                parts.append(f"memo {codec.to_json(rest['memo'])}")
        case "signal":
            parts.append(f"{rest['topic']} {codec.to_json(rest['value'])}")
            if rest.get("from"):
                parts.append(f"from {rest['from']}")
        case "ret":
            attempt = f" attempt {rest['attempt']}" if rest["attempt"] > 1 else ""
            target = f" {rest['target']}" if rest.get("target") else ""
            parts.append(f"op {rest['op']}{target}{attempt} {_outcome(rest)}")
        case "exit":
            parts.append(f"child of op {rest['op']} {_outcome(rest)}")
        case "claim":
            parts.append(f"op {rest['op']} attempt {rest['attempt']} is begun, at most once")
        case "tick":
            parts.append(rest["timer"])
        case "mark":
            parts.append(f"{rest['name']} = {codec.to_json(rest['value'])}")
        case "end":
            parts.append(f"{rest['status']} {'' if rest.get('next') else _outcome(rest)}".rstrip())
            if rest.get("next"):
                parts.append(f"next run {rest['next']}")
        case _:
            if rest.get("from"):
                parts.append(f"from {rest['from']}")
    if rest.get("problem"):
        parts.append(rest["problem"])
    return ", ".join(part for part in parts if part)


def _outcome(record: Mapping[str, Any]) -> str:
    error = record.get("error")
    if error is None:
        return f"-> {codec.to_json(record.get('value'))}"
    kind = f"{error['kind']}: " if error.get("kind") else ""
    return f"-> error {kind}{error.get('message')}"


# -- for machines ----------------------------------------------------------------------------------------------------


def _record(
    state: WorkflowState, events: Sequence[Event], shown: Sequence[Event], targets: Mapping[str, str]
) -> dict[str, Any]:
    failed = isinstance(state.value, Failure)
    detail = dict(state.detail)
    first = decoded(events[0], targets) if events else {}
    return {
        "id": state.key.id,
        "queue": state.key.queue,
        "run": state.run,
        "workflow": state.workflow,
        "status": state.status,
        "value": None if failed else state.value,
        "error": state.value.to_wire() if failed else None,
        "args": first.get("args"),
        "node": detail.get("node"),
        "reason": detail.get("reason") or detail.get("note") or None,
        "waiting": list(detail.get("waiting") or ()),
        "children": list(detail.get("children") or ()),
        "stacks": list(detail.get("stacks") or ()),
        "events_total": len(events),
        "events": [decoded(event, targets) for event in shown],
    }


def decoded(event: Event, targets: Mapping[str, str]) -> dict[str, Any]:
    """One event as a record with readable values: seq, time, kind, then what belongs to its kind. Never raises.

    targets: what fingerprints stand for.
    """
    from mesh.errors import Undecodable

    record: dict[str, Any] = {"seq": event.seq, "time": iso(event.at_ns), "kind": event.kind}
    try:
        record |= _by_kind(event, targets)
    except Undecodable as error:
        record |= _shape(event) | {"problem": f"undecodable: {error}"}
    return record


def _by_kind(event: Event, targets: Mapping[str, str]) -> dict[str, Any]:
    from mesh.events import HEADER_FROM, decode_end, decode_start
    from mesh.subjects import untoken
    from mesh.wire import parse_headers

    headers = parse_headers(event.raw_headers) if event.raw_headers else {}
    sender = {"from": headers[HEADER_FROM]} if headers.get(HEADER_FROM) else {}
    args = event.args
    match event.kind:
        case "start":
            return _start_fields(decode_start(event.data, headers))
        case "signal":
            return {"topic": event.topic, "value": codec.decode(event.data)} | sender
        case "ret":
            target = {"target": targets[args[3]]} if args[3] in targets else {}
            return (
                {"op": int(args[1]), "attempt": int(args[2]), "fingerprint": args[3]} | target | _outcome_fields(event)
            )
        case "exit":
            return {"op": int(args[1])} | _outcome_fields(event) | sender
        case "claim":
            return {"op": int(args[1]), "attempt": int(args[2])}
        case "tick":
            name = args[1]
            return {"timer": f"op {name}" if name.isdecimal() else name}
        case "mark":
            return {"name": untoken(args[1]), "value": codec.decode(event.data)}
        case "end":
            end = decode_end(event.data)
            following = {"next": decode_start(end.next_start, {}).workflow} if end.next_start else {}
            value = end.value()
            failure = value.to_wire() if isinstance(value, Failure) else None
            return {"status": end.status, "value": None if failure else value, "error": failure} | following
        case _:
            return dict(sender)


def _start_fields(spec: StartSpec) -> dict[str, Any]:
    parent = f"{spec.parent.id} op {spec.parent.n}" if spec.parent else None
    return {
        "workflow": spec.workflow, "args": codec.unpack(spec.args), "host": spec.host, "parent": parent,
        "attempt": spec.attempt, "cron": spec.cron or None, "memo": dict(spec.memo),
    }  # fmt: skip


def _outcome_fields(event: Event) -> dict[str, Any]:
    from mesh.errors import Undecodable

    try:
        ok, value = codec.decode_outcome(event.data)
    except Undecodable as error:
        return {"value": None, "error": {"message": f"undecodable: {error}", "kind": "Internal"}}
    return {"value": value, "error": None} if ok else {"value": None, "error": value.to_wire()}


def _shape(event: Event) -> dict[str, Any]:
    """The fields that a line needs, for an event whose body nobody can read."""
    match event.kind:
        case "start":
            return {"workflow": "?", "args": []}
        case "signal":
            return {"topic": event.topic, "value": event.data}
        case "mark":
            return {"name": event.args[1], "value": event.data}
        case "end":
            return {"status": "?", "value": None, "error": None}
        case _:
            return {}
