"""Code is checked against what was recorded: what does not fit is told with event and line, what fits passes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from mesh.encryption import Keyring
from mesh.history_files import RecordedHistory, dump_history, fetch_history, new_history_file
from node.checking import AppChecker, Verdict
from node.testing import Simulation
from tests.apps import QUEUE, Mesh, a_mesh, write_app
from tests.commands import typed
from tests.conftest import ServerFactory
from tests.waiting import wait_until_async

ORDER = """
local function charge(order)
  return funcs.call("app:charge", order)
end

return function(order)
  local receipt = charge(order)
  time.sleep("1ms")
  local where = funcs.call("app:ship", receipt)
  local decided = process.inbox():receive():payload():data()
  if decided == "no" then return nil, errors.new{message = "refused", kind = "Conflict"} end
  return {receipt, where, decided}
end
"""
FUNCTIONS = {
    "charge": "return {main = function(order) return 'paid ' .. order end}",
    "ship": "return {main = function() return 'on its way' end}",
    "note": "return {main = function() return 1 end}",
}
PARENT = "return function() local pid = process.spawn('app:order', 'app:worker', 1) return process.inbox():receive():topic() end"


def an_app(directory: Path, order: str = ORDER, functions: Mapping[str, str] = FUNCTIONS) -> Path:
    return write_app(directory, workflows={"order": order, "parent": PARENT}, functions=functions)


async def recorded(mesh: Mesh, workflow_id: str) -> RecordedHistory:
    return await fetch_history(mesh.client.history(QUEUE), mesh.get(workflow_id).key)


async def some_histories(url: str, app: Path) -> dict[str, RecordedHistory]:
    """Of orders: one that has completed, one that failed, one that waits for its decision."""
    async with a_mesh(url, app) as mesh:
        found = {}
        for workflow_id, decision in (("done", "yes"), ("refused", "no"), ("waits", "")):
            handle = await mesh.start("order", workflow_id, id=workflow_id)

            async def shipped(workflow_id: str = workflow_id) -> bool:
                return (await mesh.kinds(workflow_id)).count("ret") == 2

            await wait_until_async(shipped)
            if decision:
                await handle.signal("decision", decision)

                async def ended(workflow_id: str = workflow_id) -> bool:
                    return (await mesh.kinds(workflow_id))[-1] == "end"

                await wait_until_async(ended)
            found[workflow_id] = await recorded(mesh, workflow_id)
        return found


def line_of(source: str, text: str) -> str:
    return f"order.lua:{source[: source.index(text)].count(chr(10)) + 1}"


async def test_changed_code_is_told_what_does_not_fit_and_where(nats_server: ServerFactory, tmp_path: Path) -> None:
    """Everything that may go wrong when workflow code is changed, found before it is deployed."""
    histories = await some_histories(nats_server().url, an_app(tmp_path / "app"))
    assert [(e.kind) for e in histories["done"].events] == ["start", "ret", "tick", "ret", "signal", "end"]

    def check(name: str, order: str, of: str = "done", functions: Mapping[str, str] = FUNCTIONS) -> Verdict:
        return AppChecker(an_app(tmp_path / name, order, functions), environ={}).check(histories[of])

    for workflow_id in histories:
        checked = check("same", ORDER, workflow_id)
        assert (checked.mismatch, checked.notes) == (None, ())

    # Without its key an outcome says nothing: neither that the code fits, nor that it does not.
    ring, whole = Keyring({"one": b"1" * 32}, "one"), histories["done"]
    for number in (1, 4, 6):
        events = list(whole.events)
        events[number - 1] = events[number - 1]._replace(data=ring.seal("here", events[number - 1].data))
        unread = AppChecker(an_app(tmp_path / "same", ORDER), environ={}).check(replace(whole, events=events))
        assert (unread.fits, unread.mismatch, unread.unread) == (False, None, "encrypted with key one"), number

    # A call was added before the others: op 1 is another one. The stack leads to it through the function it is in.
    source = ORDER.replace(
        'return funcs.call("app:charge", order)', 'funcs.call("app:note")\n  return funcs.call("app:charge", order)'
    )
    found = check("added", source).mismatch
    assert found is not None
    assert (found.number, found.event) == (2, histories["done"].events[1])
    assert found.expected == "the outcome of op 1, call app:charge"
    assert found.got == "call app:note (op 1)"
    assert found.line == line_of(source, '"app:note"')
    assert found.stack.splitlines() == [
        f"{found.line}: in function 'charge'",
        f"{line_of(source, 'local receipt')}: in main function",
    ]
    assert str(check("added", source)) == (
        f"workflow 'done' run {histories['done'].run} (app:order) does not fit, event 2: {found.reason}"
    )

    # One was removed: what comes next stands in its place.
    source = ORDER.replace('time.sleep("1ms")', "")
    found = check("removed", source).mismatch
    assert found is not None
    assert (found.number, found.expected, found.got) == (3, "the timer 2", "call app:ship (op 2)")
    assert found.line == line_of(source, '"app:ship"')
    # The last one: there is nothing left that it could be.
    source = ORDER.replace('funcs.call("app:ship", receipt)', "nil")
    found = check("fewer", source).mismatch
    assert found is not None
    assert (found.number, found.expected) == (4, "the outcome of op 3, call app:ship")
    assert found.got == "has asked for 2 ops so far"
    assert found.line == line_of(source, "process.inbox")

    # Two have changed places.
    source = ORDER.replace("local receipt = charge(order)", "local receipt = nil").replace(
        'local where = funcs.call("app:ship", receipt)',
        'local where = funcs.call("app:ship", receipt)\n  charge(order)',
    )
    found = check("reordered", source).mismatch
    assert found is not None
    assert (found.number, found.expected, found.got) == (
        2, "the outcome of op 1, call app:charge", "timer (op 1)",
    )  # fmt: skip

    # A function has another name, and the app knows the old one no more.
    renamed = {"bill" if name == "charge" else name: source for name, source in FUNCTIONS.items()}
    found = check("renamed", ORDER.replace("app:charge", "app:bill"), functions=renamed).mismatch
    assert found is not None
    assert found.got == "call app:bill (op 1)"
    assert found.expected.startswith("the outcome of op 1, of fingerprint ")
    app = tmp_path / "renamed"
    named = AppChecker(app, environ={}, functions=("app:charge",)).check(histories["done"]).mismatch
    assert named is not None
    assert named.expected == "the outcome of op 1, call app:charge"

    # It goes on where the history ends, ends where it goes on, or ends otherwise.
    source = ORDER.replace("return {receipt", 'funcs.call("app:note")\n  return {receipt')
    found = check("later", source).mismatch
    assert found is not None
    assert (found.number, found.got, found.line) == (6, "waits for call app:note (op 4)", line_of(source, '"app:note"'))
    assert found.expected == 'completed ["paid done", "on its way", "yes"]'
    found = check("earlier", ORDER.replace("time.sleep", "if true then return 1 end time.sleep")).mismatch
    assert found is not None
    assert (found.number, found.expected, found.got) == (
        3, "the timer 2", "completed 1",
    )  # fmt: skip
    source = ORDER.replace("return {receipt", 'error("oh")\n  return {receipt')
    found = check("raises", source).mismatch
    assert found is not None
    assert (found.number, found.line) == (6, line_of(source, 'error("oh")'))
    assert found.got == f"failed Internal: {found.line}: oh"

    source = ORDER.replace("time.sleep", "while true do end time.sleep")
    found = check("loops", source).mismatch
    assert found is not None
    assert (found.number, found.line) == (3, line_of(source, "while true"))
    assert f"{found.line}: ran 10000000 instructions" in found.got

    # Without the code, or with code that is none.
    found = check("broken", ORDER + "\nend").mismatch
    assert found is not None
    assert found.line == f"order.lua:{(ORDER + chr(10)).count(chr(10)) + 1}"
    assert found.reason.endswith(f"{found.line}: unexpected 'end': no block is open")
    missing = write_app(tmp_path / "missing", workflows={"orders": ORDER}, functions=FUNCTIONS)
    found = AppChecker(missing, environ={}).check(histories["done"]).mismatch
    assert found is not None
    assert found.reason == "this node's registry has no workflow 'app:order'; did you mean app:orders?"


async def test_changes_that_fit_pass(nats_server: ServerFactory, tmp_path: Path) -> None:
    """A change under workflow.version, one behind what has happened, and one of what is computed only."""
    histories = await some_histories(nats_server().url, an_app(tmp_path / "app"))

    def check(name: str, order: str, of: str) -> Verdict:
        return AppChecker(an_app(tmp_path / name, order), environ={}).check(histories[of])

    guarded = ORDER.replace(
        "time.sleep", 'if workflow.version("note", 0, 1) > 0 then funcs.call("app:note") end\n  time.sleep'
    )
    for workflow_id in histories:
        assert check("guarded", guarded, workflow_id).fits
    behind = ORDER.replace("return {receipt", 'funcs.call("app:note")\n  return {receipt')
    assert check("behind", behind, "waits").fits
    assert check("behind", behind, "refused").fits

    other = check("other", ORDER.replace("return {receipt,", "return {1,"), "done")
    assert other.fits
    assert other.notes == (
        'the run ended with completed ["paid done", "on its way", "yes"], the code ends with completed [1, "on its way", "yes"]',
    )
    ends = check(
        "ends",
        ORDER.replace("local decided = process.inbox():receive():payload():data()", 'local decided = "yes"'),
        "done",
    )
    assert ends.notes == ("the code ends at event 4, before it was given the signals of events 5",)
    now = check(
        "now",
        ORDER.replace("local decided = process.inbox():receive():payload():data()", 'local decided = "yes"'),
        "waits",
    )
    assert now.notes == ('the code would end the run at event 4: completed ["paid waits", "on its way", "yes"]',)


async def test_the_command_replays_files_and_what_is_on_the_mesh(nats_server: ServerFactory, tmp_path: Path) -> None:
    """As it is typed before a deployment: exit status 1 and a line for people, or one object a line for machines."""
    url = nats_server().url
    app = an_app(tmp_path / "app")
    histories = await some_histories(url, app)
    changed = an_app(tmp_path / "changed", ORDER.replace('time.sleep("1ms")', ""))
    file = tmp_path / "histories.jsonl.gz"
    with new_history_file(file) as opened:
        for history in histories.values():
            dump_history(opened, history.header, history.events)

    done = await typed("replay", str(file), str(app))
    assert (done.status, done.out) == (0, "")
    assert done.err == f"3 histories replayed, all fit the code in {app}\n"
    done = await typed("replay", "--all", "--status", "running", "--status", "failed", str(changed), "--json", url=url)
    assert done.status == 1
    assert done.err == f"2 of 2 histories do not fit the code in {changed}\n"
    records = [json.loads(line) for line in done.out.splitlines()]
    assert [(record["id"], record["status"], record["ok"], record["event"]) for record in records] == [
        ("refused", "failed", False, 3), ("waits", "running", False, 3),
    ]  # fmt: skip
    assert records[0]["line"] == "order.lua:9"
    assert (records[0]["expected"], records[0]["got"]) == ("the timer 2", "call app:ship (op 2)")
    done = await typed("replay", "done", str(changed), url=url)
    assert done.status == 1
    assert done.out.splitlines() == [
        f"mismatch  done  run {histories['done'].run}  app:order  completed",
        "  event 3 (tick 2) at order.lua:9",
        "  expected  the timer 2",
        "  got       call app:ship (op 2)",
        "    order.lua:9: in main function",
    ]
    # Nothing was written.
    async with a_mesh(url, app) as mesh:
        assert await mesh.kinds("waits") == ["start", "ret", "tick", "ret"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["app"], 2, "say which: an ID, or --all"),
        (["one", "--all", "app"], 2, "give ids or --all, not both"),
        (["one", "--status", "failed", "app"], 2, "--status, --type and --where choose among --all"),
        (["--all", "--where", "colour = 1", "app"], 2, "colour"),
        (["--all", "--run", "5", "app"], 2, "--run is the run of one ID"),
        (["--all", "nowhere"], 2, "Directory 'nowhere' does not exist"),
        (["bad.jsonl", "app"], 1, "bad.jsonl:1: no JSON"),
        (["none.jsonl.gz", "app"], 2, "there is no file none.jsonl.gz"),
    ],
)
async def test_what_cannot_be_replayed_is_told(tmp_path: Path, arguments: list[str], status: int, message: str) -> None:
    """Before anything is done."""
    an_app(tmp_path / "app")
    (tmp_path / "bad.jsonl").write_text("hello\n")
    done = await typed("replay", *arguments, directory=tmp_path)
    assert done.status == status
    assert message in done.err


async def test_names_in_a_file_do_not_steer_the_terminal(tmp_path: Path) -> None:
    """A file of histories may come from anywhere."""
    app, wild = an_app(tmp_path / "app"), "x\x1b[2J\n"
    simulation = Simulation(app)
    order = simulation.start("app:order", 1, id=wild)
    order.signal(wild, 1)
    history = order.history()
    with new_history_file(tmp_path / "wild.jsonl") as file:
        dump_history(file, replace(history.header, type=wild), history.events)
    changed = an_app(tmp_path / "changed", ORDER.replace("local receipt = charge(order)", "local receipt"))
    done = await typed("replay", str(tmp_path / "wild.jsonl"), str(changed))
    assert done.status == 1
    assert all(line.isprintable() for line in done.out.splitlines()), done.out
    assert done.out.startswith("mismatch  x\\x1b[2J\\n  run ")
