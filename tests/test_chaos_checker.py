"""The checker of the chaos suite, on records made by hand: a sound one, and for each rule one that breaks it.

Nothing of the engine is used: the messages are encoded here, as docs/architecture.md says that they are stored.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgpack
import pytest

from tests.chaos import checker, expected
from tests.chaos.checker import RULES, Finding, check
from tests.chaos.expected import Ended, Facts
from tests.chaos.record import Record, append

HOST_PID: Final = 100
MS: Final = 1_000_000
# What cannot be shown by a record made by hand: a history that the engine does not replay (tests/test_chaos_faults.py).
NEEDS_THE_ENGINE: Final = {"replay"}


class Story:
    """A record while it is made: what is in its files, to be changed before it is written."""

    def __init__(self) -> None:
        self.stream: list[dict[str, Any]] = []
        self.effects: list[dict[str, Any]] = []
        self.ledger: list[dict[str, Any]] = []
        self.leftovers: dict[str, Any] = {"open": [], "schedules": [], "unread": [], "unowned": [], "alive": [HOST_PID]}
        self.unexported: set[int] = set()  # runs, and events of runs, that are not in the exported histories
        self.exported_otherwise: dict[int, dict[str, Any]] = {}  # by sequence, what a history says of an event
        self._at_ns = 1_000_000_000

    # -- the stream --------------------------------------------------------------------------------------------

    def stored(self, workflow: str, kind: str, *args: object, data: bytes = b"", headers: Any = None) -> int:
        """Store a message a millisecond later; its sequence."""
        self._at_ns += MS
        seq = len(self.stream) + 1
        subject = ".".join(["mesh.log.chaos.7", workflow.replace(".", "%2E"), kind, *map(str, args)])
        line = {"seq": seq, "at_ns": self._at_ns, "subject": subject, "headers": headers or {}}
        self.stream.append(line | {"base64": base64.b64encode(data).decode()})
        return seq

    def start(self, workflow: str, sort: str, given: dict[str, Any], parent: tuple[str, int, int] | None = None) -> int:
        wire: dict[str, Any] = {"workflow": f"chaos:{sort}", "args": msgpack.packb([given])}
        return self.stored(workflow, "start", data=ours(wire | ({"parent": ["chaos", *parent]} if parent else {})))

    def signal(self, workflow: str, value: dict[str, Any], once: str = "") -> int:
        return self.stored(
            workflow, "signal", "note", data=json.dumps(value).encode(), headers={"Mesh-Once": once} if once else {}
        )

    def end(self, workflow: str, run: int, value: Any, *, status: str = "completed", following: bytes = b"") -> int:
        failed = status in ("failed", "terminated")
        wire = {"status": status, "outcome": outcome(value, failed=failed), "next": following}
        return self.stored(workflow, "end", run, data=ours(wire))

    def step(self, workflow: str, run: int, op: int, step: str, *, key: str, **more: Any) -> str:
        """A function does a step, and its outcome is stored; its token."""
        if more.pop("once", False):
            self.stored(workflow, "claim", run, op, 1, data=b"n1")
        token = f"token-{workflow}-{step}"
        self.did(workflow, run, op, step, token, key=key, **more)
        self.stored(workflow, "ret", run, op, 1, "fp", data=outcome({"token": token, "value": more.get("value", 0)}))
        return token

    def did(
        self, workflow: str, run: int, op: int, step: str, token: str, *, key: str = "k", ends: str = "end",
        seen: Any = None, value: Any = 0, pid: int = HOST_PID, attempt: int = 1,
    ) -> None:  # fmt: skip
        """What a function writes down."""
        record = {
            "token": token, "function": "work", "workflow": workflow, "step": step, "key": key, "seen": seen,
            "run": run, "op": op, "attempt": attempt, "pid": pid, "node": "n1", "value": value,
        }  # fmt: skip
        for what in ("begin", ends):
            self._at_ns += MS
            self.effects.append({"what": what, "at_ns": self._at_ns, "mono_ns": self._at_ns, **record})

    # -- the ledger --------------------------------------------------------------------------------------------

    def note(self, op: str, workflow: str, **fields: Any) -> None:
        self.ledger.append({"op": op, "workflow": workflow, **fields})

    def planned(self, workflow: str, sort: str, given: dict[str, Any], *, startup: int = 0) -> int:
        """A client starts it, and is told so; the run."""
        self.note("plan", workflow, sort=sort, input=given, startup=startup)
        self.note("start", workflow, state="attempted")
        run = self.start(workflow, sort, given)
        self.note("start", workflow, state="acknowledged", run=run)
        return run

    def said(self, workflow: str, sender: str, n: int) -> None:
        """A client sends a message, and is told so."""
        self.note("signal", workflow, sender=sender, n=n, state="attempted")
        seq = self.signal(
            workflow, {"sender": sender, "n": n} if sender else {"last": True}, f"{workflow}/{sender}/{n}"
        )
        self.note("signal", workflow, sender=sender, n=n, state="acknowledged", seq=seq)

    # -- changing it -------------------------------------------------------------------------------------------

    def find(self, ending: str) -> dict[str, Any]:
        """The message whose subject ends so."""
        return next(line for line in self.stream if line["subject"].endswith(ending))

    def drop(self, ending: str) -> None:
        """Lose a message; the others keep their sequences."""
        self.stream.remove(self.find(ending))

    def effect(self, step: str, what: str = "end") -> dict[str, Any]:
        return next(line for line in self.effects if line["step"] == step and line["what"] == what)

    def write(self, directory: Path) -> Record:
        record = Record(directory)
        for line in self.stream:
            append(record.stream_file, line)
        for line in self.effects:
            append(record.effects_file("n1"), line)
        for line in self.ledger:
            append(record.ledger_file, line)
        record.write_leftovers(self.leftovers)
        for line in self.stream:
            if line["subject"].endswith(".start") and line["seq"] not in self.unexported:
                self._export(record, line)
        return record

    def _export(self, record: Record, start: dict[str, Any]) -> None:
        """The history of a run: all of its workflow since its start, as `mesh export` would write it."""
        id_token = start["subject"].split(".")[4]
        file = record.directory / "histories" / f"{id_token}.jsonl"
        append(file, {"moonmesh": 1, "id": id_token.replace("%2E", "."), "run": start["seq"]})
        for line in self.stream:
            _, _, _, _, of, kind, *_ = line["subject"].split(".")
            if of == id_token and line["seq"] >= start["seq"] and line["seq"] not in self.unexported:
                event = {"seq": line["seq"], "kind": kind, "base64": line["base64"]}
                append(file, event | self.exported_otherwise.get(line["seq"], {}))


def ours(value: Any) -> bytes:
    packed: bytes = msgpack.packb(value)
    return b"\xc1" + packed


def outcome(value: Any, *, failed: bool = False) -> bytes:
    return ours([1 if failed else 0, value])


def failure(kind: str, **more: Any) -> dict[str, Any]:
    return {"message": "no", "kind": kind, **more}


ORDER: Final = {
    "id": "order-1", "price": 5, "decline": False, "settle_ms": 200, "stamp": False, "letter": False,
    "items": [{"name": "item0", "value": 3}],
}  # fmt: skip
SAGA: Final = {
    "id": "saga-1", "raise": False,
    "steps": [
        {"name": "step0", "decline": False, "once": False}, {"name": "step1", "decline": False, "once": True},
        {"name": "step2", "decline": True, "once": False},
    ],
}  # fmt: skip
APPROVAL: Final = {"id": "approval-1", "limit_ms": 5000, "topics": False}
COUNTER: Final = {"id": "counter-1", "each": 2}
LEAF: Final = {"kind": "leaf", "value": 4, "decline": False, "messages": 0}


def sound() -> Story:
    """A record in which everything is as it should be."""
    story = Story()
    order(story)
    saga(story)
    approval(story)
    parent(story)
    counter(story)
    return story


def order(story: Story) -> None:
    run = story.planned("order-1", "order", ORDER)
    tokens = {"price": story.step("order-1", run, 1, "price", key="k", value=5)}
    tokens["charge"] = story.step("order-1", run, 2, "charge", key="k", value=5, once=True)
    story._at_ns += 200 * MS
    story.stored("order-1", "tick", run, 3)
    tokens["reserve:item0"] = story.step("order-1", run, 4, "reserve:item0", key="k", value=3)
    tokens["confirm"] = story.step("order-1", run, 5, "confirm", key="k", seen=dict(tokens))
    value = {
        "id": "order-1", "key": "k", "price": 5, "charge": "charged", "arrived": ["item0"], "total": 3,
        "slept_ms": 201, "tokens": tokens,
    }  # fmt: skip
    story.end("order-1", run, value)
    story.note("result", "order-1", status="completed", value=value)


def saga(story: Story) -> None:
    run = story.planned("saga-1", "saga", SAGA)
    tokens = {"step0": story.step("saga-1", run, 2, "step0", key="s")}
    tokens["step1"] = story.step("saga-1", run, 4, "step1", key="s", once=True)
    story.did("saga-1", run, 6, "step2", "token-declined", key="s", ends="declined")
    declined = failure("Declined", retryable=False)
    story.stored("saga-1", "ret", run, 6, 1, "fp", data=outcome(declined, failed=True))
    for op, step in ((7, "undo:step1"), (8, "undo:step0")):
        tokens[step] = story.step("saga-1", run, op, step, key="s")
    value = {
        "id": "saga-1", "key": "s", "state": "compensated", "done": ["step0", "step1"], "undone": ["step1", "step0"],
        "tokens": tokens,
    }  # fmt: skip
    story.end("saga-1", run, value)


def approval(story: Story) -> None:
    run = story.planned("approval-1", "approval", APPROVAL, startup=1)
    for n in (1, 2, 3):
        story.said("approval-1", "sender0", n)
    story.signal("approval-1", {"sender": "sender0", "n": 2}, "approval-1/sender0/2")  # said twice
    story.said("approval-1", "", 0)
    story.signal("approval-1", {"sender": "sender0", "n": 4})  # too late
    received = [["startup", 1], ["sender0", 1], ["sender0", 2], ["sender0", 3]]
    story.end("approval-1", run, {"id": "approval-1", "state": "closed", "received": received, "waited_ms": 9})


def parent(story: Story) -> None:
    run = story.planned("parent-1", "parent", {"id": "parent-1", "children": [LEAF], "exec": None})
    child = story.start("parent-1.1", "leaf", {"id": "parent-1.1", **LEAF}, ("parent-1", run, 1))
    started = {"pid": "{c@w|parent-1.1}", "queue": "chaos", "id": "parent-1.1"}
    story.stored("parent-1", "ret", run, 1, 1, "fp", data=outcome(started))
    token = story.step("parent-1.1", child, 1, "leaf", key="l", value=4)
    value = {"id": "parent-1.1", "key": "l", "value": 8, "tokens": {"leaf": token}}
    story.stored("parent-1", "exit", run, 1, data=outcome(value))
    story.end("parent-1.1", child, value)
    story.end("parent-1", run, {"id": "parent-1", "ends": {"1": {"value": 8}}, "messages": [], "sum": 8})


def counter(story: Story) -> None:
    run = story.planned("counter-1", "counter", COUNTER)
    for n in (1, 2):
        story.said("counter-1", "sender0", n)
    story.end("counter-1", run, None, status="continued", following=b"more")
    again = story.start("counter-1", "counter", COUNTER)
    story.said("counter-1", "sender0", 3)
    story.said("counter-1", "", 0)
    received = [["sender0", 1], ["sender0", 2], ["sender0", 3]]
    story.end("counter-1", again, {"id": "counter-1", "received": received, "runs": 2})


def found(story: Story, directory: Path) -> list[Finding]:
    return check(story.write(directory).directory, replays=False)


def changed(story: Story, ending: str, change: Callable[[Any], None]) -> None:
    """Change the result in an end."""
    line = story.find(ending)
    wire = msgpack.unpackb(base64.b64decode(line["base64"])[1:])
    code, value = msgpack.unpackb(wire["outcome"][1:])
    change(value)
    line["base64"] = base64.b64encode(ours(wire | {"outcome": ours([code, value])})).decode()


def test_sound_record_has_no_findings(tmp_path: Path) -> None:
    assert found(sound(), tmp_path) == []


# -- one broken record for each rule ---------------------------------------------------------------------------------

Break = Callable[[Story], None]
BREAKS: dict[str, tuple[str, Break]] = {}


def breaks(rule: str, workflow: str) -> Callable[[Break], Break]:
    """Says which rule a change of the sound record breaks, and for which workflow."""

    def note(change: Break) -> Break:
        BREAKS[f"{rule} {change.__name__}"] = workflow, change
        return change

    return note


@breaks("start-lost", "lost")
def acknowledged_start_is_not_there(story: Story) -> None:
    story.note("plan", "lost", sort="order", input=ORDER, startup=0)
    story.note("start", "lost", state="acknowledged", run=77)


@breaks("start-lost", "order-1")
def start_was_acknowledged_as_another_run(story: Story) -> None:
    next(line for line in story.ledger if line["op"] == "start" and "run" in line)["run"] = 900


@breaks("never-ended", "order-1")
def run_has_no_end(story: Story) -> None:
    story.drop("order-1.end.1")


@breaks("never-ended", "endless")
def run_that_should_follow_is_not_there(story: Story) -> None:
    run = story.start("endless", "counter", COUNTER)
    story.end("endless", run, None, status="continued", following=b"more")


@breaks("started-twice", "order-1")
def workflow_ran_again(story: Story) -> None:
    run = story.start("order-1", "order", ORDER)
    story.end("order-1", run, None, status="terminated")
    story.stored("order-1", "kill")


@breaks("ends-differ", "order-1")
def two_owners_wrote_different_ends(story: Story) -> None:
    story.end("order-1", 1, {"id": "order-1", "price": 6})


@breaks("wrong-result", "order-1")
def order_has_another_total(story: Story) -> None:
    changed(story, "order-1.end.1", lambda value: value.update(total=99))


@breaks("wrong-result", "order-1")
def order_says_unknown_and_the_history_does_not(story: Story) -> None:
    changed(story, "order-1.end.1", lambda value: value.update(charge="unknown"))


@breaks("wrong-result", "approval-1")
def approval_was_terminated_and_nobody_asked(story: Story) -> None:
    line = next(line for line in story.stream if ".approval-1.end." in line["subject"])
    wire = {"status": "terminated", "outcome": outcome(failure("Canceled"), failed=True), "next": b""}
    line["base64"] = base64.b64encode(ours(wire)).decode()


@breaks("seen-otherwise", "order-1")
def client_was_told_another_result(story: Story) -> None:
    next(line for line in story.ledger if line["op"] == "result")["value"] = {"total": 4}


@breaks("signal-not-stored", "approval-1")
def acknowledged_message_is_not_stored(story: Story) -> None:
    lines = [line for line in story.ledger if line["op"] == "signal" and line.get("seq")]
    lines[0]["seq"] = 9999


@breaks("signal-lost", "approval-1")
def message_was_not_received(story: Story) -> None:
    changed(story, f"approval-1.end.{_run(story, 'approval-1')}", lambda value: value["received"].pop(2))


@breaks("signal-lost", "approval-1")
def startup_message_was_not_received(story: Story) -> None:
    changed(story, f"approval-1.end.{_run(story, 'approval-1')}", lambda value: value["received"].pop(0))


@breaks("signal-twice", "approval-1")
def message_was_received_twice(story: Story) -> None:
    changed(
        story, f"approval-1.end.{_run(story, 'approval-1')}", lambda value: value["received"].append(["sender0", 2])
    )


@breaks("signal-order", "approval-1")
def messages_were_received_in_another_order(story: Story) -> None:
    changed(story, f"approval-1.end.{_run(story, 'approval-1')}", lambda value: value["received"].reverse())


@breaks("effect-missing", "saga-1")
def step_counts_as_done_that_nobody_did(story: Story) -> None:
    story.effects.remove(story.effect("undo:step0", "begin"))
    story.effects.remove(story.effect("undo:step0"))


@breaks("outcome-without-effect", "order-1")
def outcome_that_no_function_gave(story: Story) -> None:
    made_up = outcome({"token": "made up", "value": 5})
    story.find("order-1.ret.1.1.1.fp")["base64"] = base64.b64encode(made_up).decode()


@breaks("more-than-once", "order-1")
def charge_was_begun_twice(story: Story) -> None:
    story.did("order-1", 1, 2, "charge", "again", ends="end", attempt=1, pid=7)


@breaks("unclaimed", "order-1")
def charge_was_begun_without_a_claim(story: Story) -> None:
    story.drop("order-1.claim.1.2.1")


@breaks("unclaimed", "order-1")
def charge_was_begun_by_somebody_else(story: Story) -> None:
    story.find("order-1.claim.1.2.1")["base64"] = base64.b64encode(b"n2").decode()


@breaks("attempt-twice", "order-1")
def attempt_was_under_way_on_two_hosts(story: Story) -> None:
    first = story.effect("reserve:item0", "begin")
    story.effects.append(first | {"token": "other", "pid": 8, "mono_ns": first["mono_ns"] + 1, "what": "begin"})


@breaks("attempt-twice", "order-1")
def attempt_hangs_on_a_host_that_lives(story: Story) -> None:
    first = story.effect("reserve:item0", "begin")
    story.effects.append(first | {"token": "before", "mono_ns": first["mono_ns"] - 5})


@breaks("outcome-lost", "order-1")
def host_lives_and_its_outcome_is_not_stored(story: Story) -> None:
    story.did("order-1", 1, 4, "reserve:item0", "unheard", attempt=2)


@breaks("believed-otherwise", "order-1")
def order_went_by_the_second_outcome(story: Story) -> None:
    story.did("order-1", 1, 1, "price", "second", attempt=2)
    story.stored("order-1", "ret", 1, 1, 2, "fp", data=outcome({"token": "second", "value": 5}))
    changed(story, "order-1.end.1", lambda value: value["tokens"].update(price="second"))


@breaks("believed-otherwise", "order-1")
def order_went_by_another_outcome_when_it_called(story: Story) -> None:
    story.effect("confirm", "begin")["seen"] = {"price": "second"}


@breaks("other-key", "order-1")
def functions_were_given_two_keys(story: Story) -> None:
    story.effect("confirm", "begin")["key"] = "another"


@breaks("other-key", "order-1")
def order_returned_another_key(story: Story) -> None:
    changed(story, "order-1.end.1", lambda value: value.update(key="another"))


@breaks("early-timer", "order-1")
def order_slept_too_short(story: Story) -> None:
    story.find("order-1.tick.1.3")["at_ns"] -= 100 * MS


@breaks("compensation", "saga-1")
def what_was_done_was_not_undone(story: Story) -> None:
    story.effects.remove(story.effect("undo:step0"))


@breaks("compensation", "saga-1")
def undone_in_the_order_in_which_it_was_done(story: Story) -> None:
    for step in ("undo:step0", "undo:step1"):
        for what in ("begin", "end"):
            story.effect(step, what)["mono_ns"] *= 1 if step == "undo:step0" else 2


@breaks("compensation", "saga-1")
def undone_although_it_was_not_done(story: Story) -> None:
    story.did("saga-1", _run(story, "saga-1"), 9, "undo:step2", "too much", key="s", pid=3)


@breaks("compensation", "saga-1")
def step_was_asked_for_by_two_ops(story: Story) -> None:
    story.did("saga-1", _run(story, "saga-1"), 12, "undo:step0", "once more", key="s", pid=3)


@breaks("exit-missing", "parent-1.1")
def child_ended_without_telling(story: Story) -> None:
    story.stream = [line for line in story.stream if ".exit." not in line["subject"]]


@breaks("exit-missing", "parent-1.1")
def child_told_its_parent_after_its_end(story: Story) -> None:
    exit_, end = next(line for line in story.stream if ".exit." in line["subject"]), _end(story, "parent-1%2E1")
    exit_["seq"], end["seq"] = end["seq"], exit_["seq"]
    story.stream.sort(key=lambda line: line["seq"])


@breaks("exit-differs", "parent-1.1")
def child_told_its_parent_another_result(story: Story) -> None:
    line = next(line for line in story.stream if ".exit." in line["subject"])
    line["base64"] = base64.b64encode(outcome({"value": 9})).decode()


@breaks("child-missing", "parent-1")
def child_is_not_there(story: Story) -> None:
    story.stream = [line for line in story.stream if ".parent-1%2E1." not in line["subject"]]


@breaks("left-schedules", "")
def timer_is_left(story: Story) -> None:
    story.leftovers["schedules"] = ["mesh.at.chaos.7.order-1.1.3"]


@breaks("left-open", "")
def run_is_open(story: Story) -> None:
    story.leftovers["open"] = ["order-9 run 3"]


@breaks("left-unread", "")
def letter_is_unread(story: Story) -> None:
    story.leftovers["unread"] = ["1 letters in chaos:letters"]


@breaks("left-unowned", "")
def partition_has_no_owner(story: Story) -> None:
    story.leftovers["unowned"] = ["partition 7: nobody owns it"]


@breaks("senseless", "")
def end_is_no_end(story: Story) -> None:
    story.find("order-1.end.1")["base64"] = base64.b64encode(ours({"status": "completed"})).decode()


@breaks("suspended", "order-1")
def run_was_suspended(story: Story) -> None:
    story.note("suspended", "order-1", state="seen", why="op 3: the history has a timer")


@breaks("history-missing", "order-1")
def history_was_not_exported(story: Story) -> None:
    story.unexported.add(_run(story, "order-1"))
    story.note("unexported", "order-1", run=_run(story, "order-1"), why="there is none")


@breaks("history-missing", "saga-1")
def history_lacks_an_event(story: Story) -> None:
    story.unexported.add(story.find("saga-1.end." + str(_run(story, "saga-1")))["seq"])


@breaks("history-missing", "order-1")
def history_has_another_outcome(story: Story) -> None:
    other = base64.b64encode(outcome({"token": "another", "value": 5})).decode()
    story.exported_otherwise[story.find("order-1.ret.1.1.1.fp")["seq"]] = {"base64": other}


@breaks("history-missing", "order-1")
def history_has_another_kind_of_event(story: Story) -> None:
    story.exported_otherwise[story.find("order-1.tick.1.3")["seq"]] = {"kind": "unreadable"}


def _run(story: Story, workflow: str) -> int:
    seq: int = next(line["seq"] for line in story.stream if line["subject"].endswith(f".{workflow}.start"))
    return seq


def _end(story: Story, id_token: str) -> dict[str, Any]:
    return next(line for line in story.stream if f".{id_token}.end." in line["subject"])


@pytest.mark.parametrize("name", BREAKS)
def test_broken_record_is_found_by_its_rule(name: str, tmp_path: Path) -> None:
    """With the workflow it is about, and lines of the record that show it."""
    rule, (workflow, change) = name.split()[0], BREAKS[name]
    story = sound()
    change(story)
    findings = found(story, tmp_path)
    mine = [finding for finding in findings if finding.rule == rule and finding.workflow == workflow]
    assert mine, f"{rule} not found, but {[str(finding) for finding in findings]}"
    for place in re.findall(r"(\w+\.jsonl):(\d+)", " ".join(mine[0].evidence)):
        file = next(tmp_path.rglob(place[0]))
        assert len(file.read_text().splitlines()) >= int(place[1]), place
    assert mine[0].evidence
    assert rule == "senseless" or not [finding for finding in findings if finding.rule == "senseless"]


def test_every_finding_that_there_can_be_is_shown_by_a_broken_record() -> None:
    source = Path(checker.__file__).read_text()
    named = set(re.findall(r'Finding\(\s*"([a-z-]+)"', source))
    assert 'f"left-{what}"' in source
    shown = {name.split()[0] for name in BREAKS}
    assert named - NEEDS_THE_ENGINE <= shown, named - shown
    assert {name for name in shown if not name.startswith("left-")} <= named
    assert len(RULES) >= 20
    page = set(re.findall(r"`([a-z-]+)`", (Path(__file__).parent.parent / "docs" / "chaos.md").read_text()))
    assert named - {"senseless"} <= page, named - page


@pytest.mark.parametrize("name", ["elsewhere", "empty"])
def test_nothing_is_judged_where_no_record_is(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    assert checker.main([str(tmp_path / name)]) == 2
    assert "is no record of a chaos run" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_what_was_never_acknowledged_may_be_missing(tmp_path: Path) -> None:
    """A start and a message whose outcome nobody knows: either is right, not to be there and to be there once."""
    story = sound()
    story.note("plan", "unsure", sort="order", input=ORDER, startup=0)
    story.note("start", "unsure", state="attempted")
    story.note("start", "unsure", state="unknown", why="no answer")
    story.note("signal", "approval-1", sender="sender1", n=1, state="attempted")
    story.note("signal", "approval-1", sender="sender1", n=1, state="unknown", why="no answer")
    assert found(story, tmp_path) == []


def test_unknown_outcome_of_a_call_that_may_run_once_is_undone_with_the_rest(tmp_path: Path) -> None:
    """Whether it took effect nobody knows: the saga goes back, and undoes that step too."""
    story = Story()
    run = story.planned("saga-1", "saga", SAGA)
    tokens = {"step0": story.step("saga-1", run, 2, "step0", key="s")}
    story.stored("saga-1", "claim", run, 4, 1, data=b"n1")
    story.did("saga-1", run, 4, "step1", "half", key="s", pid=9)
    del story.effects[-1]  # its host was killed in the middle of it
    unknown = failure("UnknownOutcome", retryable=False)
    story.stored("saga-1", "ret", run, 4, 1, "fp", data=outcome(unknown, failed=True))
    for op, step in ((5, "undo:step1"), (6, "undo:step0")):
        tokens[step] = story.step("saga-1", run, op, step, key="s")
    value = {
        "id": "saga-1", "key": "s", "state": "compensated", "done": ["step0", "step1"], "undone": ["step1", "step0"],
        "tokens": tokens,
    }  # fmt: skip
    story.end("saga-1", run, value)
    assert found(story, tmp_path / "sound") == []

    changed(story, f"saga-1.end.{run}", lambda value: value.update(done=["step0"], undone=["step0"]))
    assert {finding.rule for finding in found(story, tmp_path / "broken")} == {"wrong-result"}


def test_retries_of_a_function_are_no_second_time(tmp_path: Path) -> None:
    """At least once: a failed attempt and a lost host are followed by another attempt, and the first success counts."""
    story = sound()
    run = _run(story, "saga-1")
    failed = story.effect("step0", "begin") | {"token": "failed", "mono_ns": 1, "pid": 55, "attempt": 1}
    story.effects += [failed, failed | {"what": "failed", "mono_ns": 2}]
    for effect in story.effects:
        if effect["step"] == "step0" and effect["token"] != "failed":
            effect["attempt"] = 2
    line = story.find(f"saga-1.ret.{run}.2.1.fp")
    line["subject"] = line["subject"].replace(".2.1.fp", ".2.2.fp")
    lost = outcome(failure("HostLost"), failed=True)
    story.stream.append(
        line | {"subject": line["subject"].replace(".2.2.fp", ".2.1.fp"), "base64": base64.b64encode(lost).decode()}
    )
    assert found(story, tmp_path) == []


@pytest.mark.parametrize(
    ("ended", "facts", "wrong"),
    [
        (Ended("completed", {"state": "canceled", "done": ["step0"], "undone": ["step0"]}), Facts(asked=True), 0),
        (Ended("completed", {"state": "canceled", "done": ["step0"], "undone": ["step0"]}), Facts(), 1),
        (Ended("completed", {"state": "canceled", "done": ["step1"], "undone": ["step1"]}), Facts(asked=True), 1),
        (Ended("completed", {"state": "canceled", "done": ["step0"], "undone": []}), Facts(asked=True), 1),
        (Ended("terminated"), Facts(killed=True), 0),
        (Ended("terminated"), Facts(asked=True), 1),
    ],
)  # fmt: skip
def test_saga_that_is_asked_to_stop_undoes_what_it_has_done_so_far(ended: Ended, facts: Facts, wrong: int) -> None:
    assert len(expected.problems("saga", SAGA, ended, facts)) == wrong
