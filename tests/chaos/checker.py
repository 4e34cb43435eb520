"""Judges the record of a chaos run: `python -m tests.chaos.checker RECORD`.

Written apart from the engine: it reads the record directory and nothing else, with a reader of its own
(`tests.chaos.reading`), and what an input must come to is computed without the engine (`tests.chaos.expected`). Of the
engine only the replays make use (`tests.chaos.replaying`), in a process of their own.

A finding names a workflow, the rule that is broken and the lines of the record that show it. The rules are the keys of
`RULES`, each a function of everything that is known; docs/chaos.md says what is proven by them and what is not.
"""

from __future__ import annotations

import itertools
import sys
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from tests.chaos import expected
from tests.chaos.expected import Ended, Facts
from tests.chaos.reading import UNKNOWN_OUTCOME, Message, Run, Workflow, read_workflows, unpacked
from tests.chaos.record import PLACE, Record
from tests.chaos.replaying import replay_all

EVIDENCE_MAX: Final = 6
# Between the clocks of the server and of a node, and for the time a tick takes to be stored.
EARLY_NS_MAX: Final = 50_000_000


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that must not be. evidence: lines of the record, `file:line`, with what they say."""

    rule: str
    workflow: str
    text: str
    evidence: tuple[str, ...] = ()

    def __str__(self) -> str:
        shown = "".join(f"\n    {line}" for line in self.evidence[:EVIDENCE_MAX])
        return f"{self.rule}: {self.workflow or 'the mesh'}: {self.text}{shown}"


@dataclass(frozen=True, slots=True)
class Attempts:
    """What the ledger says about one thing that a client did: all lines of it, and the acknowledgement."""

    lines: tuple[Mapping[str, Any], ...]

    @property
    def acknowledged(self) -> Mapping[str, Any] | None:
        return next((line for line in self.lines if line.get("state") == "acknowledged"), None)

    @property
    def place(self) -> str:
        told = self.acknowledged or self.lines[-1]
        return f"{told[PLACE]} ({told['op']} {told.get('state')})"


@dataclass
class Known:
    """Everything in a record, arranged."""

    workflows: dict[str, Workflow]
    ledger: list[dict[str, Any]]
    effects: list[dict[str, Any]]
    leftovers: dict[str, Any]
    alive: frozenset[int] = frozenset()
    inputs: dict[str, tuple[str, Mapping[str, Any]]] = field(default_factory=dict)
    histories: dict[tuple[str, int], list[dict[str, Any]]] = field(default_factory=dict)

    @cached_property
    def attempts(self) -> dict[tuple[str, str, str, int], Attempts]:
        """What clients did, by (op, workflow, sender, n)."""
        found: dict[tuple[str, str, str, int], list[Mapping[str, Any]]] = defaultdict(list)
        for line in self.ledger:
            if line["op"] in ("start", "signal", "cancel", "kill"):
                found[line["op"], line["workflow"], line.get("sender", ""), line.get("n", 0)].append(line)
        return {what: Attempts(tuple(lines)) for what, lines in found.items()}

    @cached_property
    def effects_of(self) -> dict[str, list[dict[str, Any]]]:
        """What functions did for each workflow, oldest first."""
        found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for effect in self.effects:
            found[effect["workflow"]].append(effect)
        return found

    @cached_property
    def by_token(self) -> dict[str, list[dict[str, Any]]]:
        """What one execution of a function wrote down."""
        found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for effect in self.effects:
            found[effect["token"]].append(effect)
        return found

    def ended(self) -> Iterator[tuple[Workflow, str, Mapping[str, Any], Ended]]:
        """The workflows that have come to their end, with their sort, input and end."""
        for workflow in self.workflows.values():
            if workflow.runs and workflow.last.end is not None and not workflow.last.goes_on:
                sort, given = self.input_of(workflow)
                if sort:
                    yield workflow, sort, given, end_of(workflow.last)

    def input_of(self, workflow: Workflow) -> tuple[str, Mapping[str, Any]]:
        """The sort of a workflow and what it was started with; ("", {}) when that cannot be told."""
        if workflow.id in self.inputs:
            return self.inputs[workflow.id]
        wire = workflow.runs[0].start.value if workflow.runs else None
        if not isinstance(wire, dict) or "workflow" not in wire:
            return "", {}
        args = unpacked(wire["args"]) if wire.get("args") else []
        return str(wire["workflow"]).partition(":")[2], args[0] if args and isinstance(args[0], dict) else {}

    def facts(self, workflow: Workflow) -> Facts:
        """What the input of a workflow does not decide."""
        kills = bool(workflow.of("kill")) or ("kill", workflow.id, "", 0) in self.attempts
        asked = bool(workflow.of("cancel")) or ("cancel", workflow.id, "", 0) in self.attempts
        unknown = set()
        for run in workflow.runs:
            for op, message in run.effective().items():
                ok, value = message.outcome
                if not ok and value.get("kind") == UNKNOWN_OUTCOME:
                    unknown |= set(self.steps_of_op(workflow.id, run.number, op)) or {"?"}
        if "?" in unknown:
            # Claimed and never begun: which step it was is told by the input, which has at most one that is left.
            unknown |= self._once_without_effect(workflow)
        return Facts(asked, kills, frozenset(unknown))

    def _once_without_effect(self, workflow: Workflow) -> set[str]:
        sort, given = self.input_of(workflow)
        names = list(expected.only_once(sort, given))
        order = [step["name"] for step in given.get("steps", ())] or names
        begun = {effect["step"] for effect in self.effects_of[workflow.id]}
        return {next((name for name in order if name in names and name not in begun), "?")}

    def steps_of_op(self, workflow: str, run: int, op: int) -> set[str]:
        """The steps that functions say they did for an op."""
        return {e["step"] for e in self.effects_of[workflow] if e["run"] == run and e["op"] == op}


def check(record_dir: Path | str, *, replays: bool = True) -> list[Finding]:
    """Judge a record. replays: also whether every recorded history replays to its end, in a process of its own."""
    record = Record(record_dir)
    known = read(record)
    findings = [finding for rule in RULES.values() for finding in _judged(rule, known)]
    if replays:
        findings += [Finding("replay", *told) for told in replay_all(record.directory)]
    return findings


def _judged(rule: Callable[[Known], Iterable[Finding]], known: Known) -> list[Finding]:
    """What a rule finds. A record that it cannot make sense of is one that no sound engine leaves behind."""
    try:
        return list(rule(known))
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = f"the rule {rule.__name__} cannot judge this record: {type(error).__name__}: {error}"
        return [Finding("senseless", "", text, (f"{Path(where.filename).name}:{where.lineno} ({where.line})",))]


def read(record: Record) -> Known:
    """Everything in a record, arranged."""
    ledger, leftovers = record.ledger(), record.leftovers()
    inputs = {line["workflow"]: (line["sort"], line["input"]) for line in ledger if line["op"] == "plan"}
    alive = frozenset(leftovers.pop("alive", ()))
    workflows = read_workflows(record.messages())
    return Known(workflows, ledger, record.effects(), leftovers, alive, inputs, record.histories())


def end_of(run: Run) -> Ended:
    """How a run has ended."""
    ok, value = run.result
    return Ended(run.status, value) if ok else Ended(run.status, None, value if isinstance(value, dict) else {})


# -- starts and ends -------------------------------------------------------------------------------------------------


def start_lost(known: Known) -> Iterator[Finding]:
    """What a client was told is stored has to be stored: every acknowledged start, under the run that was told."""
    for (op, name, _, _), attempts in known.attempts.items():
        told = attempts.acknowledged
        if op != "start" or told is None:
            continue
        workflow = known.workflows.get(name)
        if workflow is None or not workflow.runs:
            yield Finding("start-lost", name, "its start was acknowledged, and it was never started", (attempts.place,))
        elif told.get("run") not in {run.number for run in workflow.runs}:
            text = f"it was acknowledged as run {told.get('run')}, which there is not"
            yield Finding("start-lost", name, text, (attempts.place, str(workflow.runs[0].start)))


def never_ended(known: Known) -> Iterator[Finding]:
    """Nothing hangs: whatever was begun has an end."""
    for workflow in known.workflows.values():
        if not workflow.runs:
            continue
        if workflow.last.end is None:
            yield Finding("never-ended", workflow.id, "its run has no end", _newest(workflow))
        elif workflow.last.goes_on:
            yield Finding("never-ended", workflow.id, "the run that should follow its last one was not started",
                          _newest(workflow))  # fmt: skip


def started_twice(known: Known) -> Iterator[Finding]:
    """One id is one workflow: its further runs are those that its own ends ask for."""
    for workflow in known.workflows.values():
        for before, run in zip(workflow.runs, workflow.runs[1:], strict=False):
            if not before.goes_on:
                text = "it ran again although its end asked for no further run"
                yield Finding("started-twice", workflow.id, text, (str(before.end), str(run.start)))


def ends_differ(known: Known) -> Iterator[Finding]:
    """Whoever writes the end of a run writes the same: it follows from the events before it."""
    for workflow in known.workflows.values():
        for run in workflow.runs:
            ends = [message for message in run.own if message.kind == "end"]
            if len({message.data for message in ends}) > 1:
                yield Finding("ends-differ", workflow.id, "two ends of one run say different things", _told(ends))


def wrong_result(known: Known) -> Iterator[Finding]:
    """Every workflow ends as its input says."""
    for workflow, sort, given, ended in known.ended():
        for problem in expected.problems(sort, given, ended, known.facts(workflow)):
            yield Finding("wrong-result", workflow.id, problem, _told([workflow.runs[0].start, workflow.last.end]))


def seen_otherwise(known: Known) -> Iterator[Finding]:
    """What a client was told about the end is what the history says."""
    for line in known.ledger:
        workflow = known.workflows.get(line["workflow"])
        if line["op"] != "result" or workflow is None or not workflow.runs or workflow.last.end is None:
            continue
        ended = end_of(workflow.last)
        told, is_so = line["status"], ended.status
        if told == is_so == "completed":
            told, is_so = line["value"], ended.value
        if told != is_so:
            text = f"a client was told {told!r}, the history says {is_so!r}"
            yield Finding("seen-otherwise", workflow.id, text, (line[PLACE], str(workflow.last.end)))


# -- messages --------------------------------------------------------------------------------------------------------


def signal_not_stored(known: Known) -> Iterator[Finding]:
    """An acknowledged message is stored, where the acknowledgement says."""
    for (op, name, sender, n), attempts in known.attempts.items():
        told = attempts.acknowledged
        if op != "signal" or told is None:
            continue
        workflow = known.workflows.get(name)
        stored = {message.seq: message for message in workflow.of("signal")} if workflow is not None else {}
        found = stored.get(told["seq"])
        if found is None or not _is_said(found.value, sender, n):
            text = f"message {n} of {sender or 'the last'} was acknowledged as {told['seq']}, and is not stored there"
            yield Finding("signal-not-stored", name, text, (attempts.place,))


def signals(known: Known) -> Iterator[Finding]:
    """A workflow has received exactly what was stored for it while it listened: once, in order per sender."""
    for workflow, sort, _given, ended in known.ended():
        if sort not in ("approval", "counter") or ended.status != "completed":
            continue
        received = [tuple(item) for item in ended.value.get("received") or ()]
        until = _heard_until(workflow, sort, ended.value)
        due = [(m.value["sender"], m.value["n"], m) for m in workflow.signals() if m.seq < until and _has_sender(m)]
        yield from _compared(known, workflow, received, due)


def _compared(
    known: Known, workflow: Workflow, received: list[tuple[str, int]], due: list[tuple[str, int, Message]]
) -> Iterator[Finding]:
    startup = [line for line in known.ledger if line["op"] == "plan" and line["workflow"] == workflow.id]
    given = [("startup", n) for n in range(1, startup[0]["startup"] + 1)] if startup else []
    wanted = Counter([*given, *((sender, n) for sender, n, _ in due)])
    found = Counter(received)
    places = {(sender, n): message for sender, n, message in due}
    for item in wanted - found:
        text = f"message {item[1]} of {item[0]} was stored for it and not received"
        yield Finding("signal-lost", workflow.id, text, _told([places.get(item), workflow.last.end]))
    for item in found - wanted:
        stored = [message for message in workflow.of("signal") if _is_said(message.value, *item)]
        text = f"message {item[1]} of {item[0]} was received {found[item]} times, and sent {wanted[item]} times"
        yield Finding("signal-twice", workflow.id, text, _told([*stored, workflow.last.end]))
    order = expected.per_sender([*given, *((sender, n) for sender, n, _ in due)])
    for sender, numbers in expected.per_sender(received).items():
        # Once each, as the rules above see to the rest.
        if list(dict.fromkeys(numbers)) != [n for n in dict.fromkeys(order.get(sender, ())) if n in numbers]:
            text = f"messages of {sender} were stored as {order.get(sender)} and received as {numbers}"
            yield Finding("signal-order", workflow.id, text, _told([workflow.last.end]))


def _heard_until(workflow: Workflow, sort: str, value: Mapping[str, Any]) -> float:
    """Up to which event the workflow listened."""
    state = value.get("state") if sort == "approval" else "closed"
    run = workflow.last
    match state:
        case "closed":
            lasts = [m.seq for m in workflow.signals() if isinstance(m.value, dict) and m.value.get("last")]
        case "canceled":
            lasts = [message.seq for message in workflow.of("cancel")]
        case _:
            lasts = [message.seq for message in run.own if message.kind == "tick" and message.op == 1]
    return min(lasts, default=float("inf"))


def _has_sender(message: Message) -> bool:
    return isinstance(message.value, dict) and "sender" in message.value


def _is_said(value: Any, sender: str, n: int) -> bool:
    if not isinstance(value, dict):
        return False
    return bool(value.get("last")) if not sender else (value.get("sender"), value.get("n")) == (sender, n)


# -- effects ---------------------------------------------------------------------------------------------------------


def effect_missing(known: Known) -> Iterator[Finding]:
    """What a workflow says was done, was done: a function wrote down that it did it."""
    for workflow, sort, given, ended in known.ended():
        done = {effect["step"] for effect in known.effects_of[workflow.id] if effect["what"] == "end"}
        for step in expected.steps(sort, given, ended):
            if step.name not in done:
                text = f"step {step.name} counts as done, and no function did it"
                yield Finding("effect-missing", workflow.id, text, _told([workflow.last.end]))


def outcome_without_effect(known: Known) -> Iterator[Finding]:
    """Every outcome in a history is one that a function gave, or that says that the call failed."""
    for workflow in known.workflows.values():
        for run in workflow.runs:
            for message in run.effective().values():
                ok, value = message.outcome
                if not ok or value is True or (isinstance(value, dict) and "token" not in value):
                    continue
                token = value.get("token") if isinstance(value, dict) else None
                if token is None or not any(effect["what"] == "end" for effect in known.by_token.get(token, ())):
                    text = f"op {message.op} of run {run.number} has the outcome {value!r}, which no function gave"
                    yield Finding("outcome-without-effect", workflow.id, text, _told([message]))


def more_than_once(known: Known) -> Iterator[Finding]:
    """What may be done at most once is begun at most once, ever."""
    for workflow in known.workflows.values():
        sort, given = known.input_of(workflow)
        if not sort:
            continue
        for step in sorted(expected.only_once(sort, given)):
            begun = _effects(known, workflow, step, "begin")
            if len(begun) > 1:
                text = f"step {step} may be done at most once, and was begun {len(begun)} times"
                yield Finding("more-than-once", workflow.id, text, _places(begun))


def unclaimed(known: Known) -> Iterator[Finding]:
    """Before a host begins what may be done at most once, it has said so in the history."""
    for workflow in known.workflows.values():
        sort, given = known.input_of(workflow)
        if not sort:
            continue
        claims = {(m.run, m.op, m.attempt): m for m in workflow.of("claim")}
        for step in sorted(expected.only_once(sort, given)):
            for effect in _effects(known, workflow, step, "begin"):
                claim = claims.get((effect["run"], effect["op"], effect["attempt"]))
                if claim is None or claim.data.decode("utf-8", "replace") != effect["node"]:
                    text = f"step {step} was begun by {effect['node']}, who had not claimed it"
                    yield Finding("unclaimed", workflow.id, text, (*_places([effect]), *_told([claim])))


def attempt_twice(known: Known) -> Iterator[Finding]:
    """One attempt of a call is made by one host at a time: before it is made again, the hosts are asked who has it."""
    by_attempt: dict[tuple[str, int, int, int], list[dict[str, Any]]] = defaultdict(list)
    for effect in known.effects:
        if effect["op"]:
            by_attempt[effect["workflow"], effect["run"], effect["op"], effect["attempt"]].append(effect)
    seen_last = {effect["pid"]: effect["mono_ns"] for effect in known.effects}
    for (name, run, op, attempt), effects in by_attempt.items():
        begun = [effect for effect in effects if effect["what"] == "begin"]
        for first, second in itertools.pairwise(begun):
            over = [e for e in effects if e["token"] == first["token"] and e["what"] != "begin"]
            until = over[0]["mono_ns"] if over else seen_last[first["pid"]]
            if until > second["mono_ns"] or (not over and first["pid"] in known.alive):
                text = f"attempt {attempt} of op {op} ({first['step']}, run {run}) was under way on two hosts at once"
                yield Finding("attempt-twice", name, text, _places([first, second, *over]))


def outcome_lost(known: Known) -> Iterator[Finding]:
    """What a host has done and lives to tell, it has told: its outcome is stored, however often it has to be sent."""
    stored: set[str] = set()
    stopped: set[tuple[str, int, int, int]] = set()
    ops: set[tuple[str, int, int]] = set()
    for workflow in known.workflows.values():
        for message in workflow.of("ret"):
            ok, value = message.outcome
            ops.add((workflow.id, message.run, message.op))
            if ok and isinstance(value, dict):
                stored.add(str(value.get("token")))
            elif isinstance(value, dict) and value.get("kind") == "Canceled":
                stopped.add((workflow.id, message.run, message.op, message.attempt))
    for effect in known.effects:
        if effect["what"] != "end" or not effect["op"] or effect["pid"] not in known.alive or effect["token"] in stored:
            continue
        name, number, op, attempt = effect["workflow"], effect["run"], effect["op"], effect["attempt"]
        runs = known.workflows[name].runs if name in known.workflows else []
        run = next((run for run in runs if run.number == number), None)
        if run is None or (run.end is not None and (name, number, op) not in ops):
            continue  # nobody waited for it any more
        if (name, number, op, attempt) in stopped:
            continue
        text = f"{effect['node']} has done {effect['step']} (op {op}, attempt {attempt}) and lives, but has not told it"
        yield Finding("outcome-lost", name, text, _places([effect]))


def believed_otherwise(known: Known) -> Iterator[Finding]:
    """The first outcome of an op counts: a workflow believes in it, before and after every takeover."""
    for workflow, _sort, _given, ended in known.ended():
        value = ended.value if isinstance(ended.value, dict) else ended.failure.get("details")
        first = _first_tokens(known, workflow)
        for step, token in _tokens(value).items():
            message = first.get(step)
            if message is not None and message.outcome[1]["token"] != token:
                text = f"it went by {token} for {step}, the first outcome was {message.outcome[1]['token']}"
                yield Finding("believed-otherwise", workflow.id, text, _told([message, workflow.last.end]))
        for effect in known.effects_of[workflow.id]:
            seen = effect["seen"] if effect["what"] == "begin" and isinstance(effect["seen"], dict) else {}
            for step, token in seen.items():
                message = first.get(step)
                if message is not None and message.outcome[1]["token"] != token:
                    text = (
                        f"when it called {effect['step']}, it went by {token} for {step}; "
                        f"the first outcome was {message.outcome[1]['token']}"
                    )
                    yield Finding("believed-otherwise", workflow.id, text, (*_places([effect]), str(message)))


def _first_tokens(known: Known, workflow: Workflow) -> dict[str, Message]:
    """By step, the outcome that counts."""
    first = {}
    for run in workflow.runs:
        for message in run.effective().values():
            ok, outcome = message.outcome
            effects = known.by_token.get(outcome.get("token", ""), []) if isinstance(outcome, dict) else []
            if ok and effects:
                first[effects[0]["step"]] = message
    return first


def _tokens(value: Any) -> Mapping[str, Any]:
    tokens = value.get("tokens") if isinstance(value, dict) else None
    return tokens if isinstance(tokens, dict) else {}  # an empty table of Lua is a list


def other_key(known: Known) -> Iterator[Finding]:
    """A run draws the same random values in every replay: all its functions are given one key, and it returns that."""
    for workflow in known.workflows.values():
        for run in workflow.runs:
            effects = [e for e in known.effects_of[workflow.id] if e["run"] == run.number and e["what"] == "begin"]
            keys = {effect["key"]: effect for effect in effects}
            ok, value = run.result
            told = value.get("key") if ok and isinstance(value, dict) else None
            if len(keys) > 1:
                yield Finding("other-key", workflow.id, f"its functions were given {len(keys)} keys: {sorted(keys)}",
                              _places(keys.values()))  # fmt: skip
            elif keys and told is not None and told not in keys:
                text = f"its functions were given the key {next(iter(keys))}, it returned {told}"
                yield Finding("other-key", workflow.id, text, (*_places(keys.values()), *_told([run.end])))


def early_timer(known: Known) -> Iterator[Finding]:
    """Nobody sleeps for less than was asked: by the server's clock, which all events have in common."""
    for workflow, sort, given, _ended in known.ended():
        if sort != "order":
            continue
        run = workflow.last
        charged = run.effective().get(2)
        tick = next((m for m in run.own if m.kind == "tick" and m.op == 3), None)
        if charged is None or tick is None:
            continue
        slept_ns = tick.at_ns - charged.at_ns
        if slept_ns < given["settle_ms"] * 1_000_000 - EARLY_NS_MAX:
            text = f"it slept {slept_ns / 1e6:.0f} ms of {given['settle_ms']}"
            yield Finding("early-timer", workflow.id, text, _told([charged, tick]))


# -- sagas and children ----------------------------------------------------------------------------------------------


def compensation(known: Known) -> Iterator[Finding]:
    """What was done is undone when a saga fails, and nothing else: each step one time, the last one first."""
    for workflow, sort, given, ended in known.ended():
        if sort != "saga" or ended.status == "terminated":
            continue
        value = ended.value if isinstance(ended.value, dict) else ended.failure.get("details") or {}
        effects = known.effects_of[workflow.id]
        done = [step["name"] for step in given["steps"] if _ended(effects, step["name"])]
        begun = [e for e in effects if e["what"] == "begin" and e["step"].startswith("undo:")]
        undone = [step for step in dict.fromkeys(effect["step"] for effect in begun) if _ended(effects, step)]
        undone = [step.removeprefix("undo:") for step in undone]
        if value.get("state") == "completed":
            wanted: list[str] = []
        else:
            # What nobody knows to have been done is undone, too.
            unknown = known.facts(workflow).unknown
            wanted = [step["name"] for step in given["steps"] if step["name"] in done or step["name"] in unknown][::-1]
        if undone != wanted:
            text = f"{done} was done and {undone} undone, in this order; it should have been {wanted}"
            yield Finding("compensation", workflow.id, text, (*_places(begun), *_told([workflow.last.end])))
        ops: dict[str, set[int]] = defaultdict(set)
        for effect in effects:
            ops[effect["step"]].add(effect["op"])
        for step, numbers in ops.items():
            if len(numbers) > 1:
                text = f"step {step} was asked for {len(numbers)} times, as ops {sorted(numbers)}"
                yield Finding("compensation", workflow.id, text, _places(e for e in effects if e["step"] == step))


def exits(known: Known) -> Iterator[Finding]:
    """A child has told its parent how it ended before it ended; and what it told is how it ended."""
    for workflow in known.workflows.values():
        for run in workflow.runs:
            if run.parent is None or run.end is None or run.goes_on:
                continue
            name, number, op = run.parent
            parent = known.workflows.get(name)
            told = [m for m in parent.of("exit") if (m.run, m.op) == (number, op)] if parent is not None else []
            if not told or told[0].seq > run.end.seq:
                text = f"it ended without having told its parent {name} before"
                yield Finding("exit-missing", workflow.id, text, _told([run.start, run.end]))
                continue
            ok, value = run.result
            said_ok, said = told[0].outcome
            same = said == value if ok else _same_failure(said, value)
            if said_ok != ok or not same:
                text = f"it told its parent {said!r}, and ended with {value!r}"
                yield Finding("exit-differs", workflow.id, text, _told([told[0], run.end]))


def child_missing(known: Known) -> Iterator[Finding]:
    """A child that a history says was started is there."""
    for workflow in known.workflows.values():
        for run in workflow.runs:
            for message in run.effective().values():
                ok, value = message.outcome
                if ok and isinstance(value, dict) and {"pid", "queue", "id"} <= value.keys():
                    child = known.workflows.get(str(value["id"]))
                    if child is None or not child.runs:
                        text = f"it was told that its child {value['id']} had started, and that was never stored"
                        yield Finding("child-missing", workflow.id, text, _told([message]))


# -- what is left ----------------------------------------------------------------------------------------------------


def leftovers(known: Known) -> Iterator[Finding]:
    """When everything has come to its end nothing is left: no timer, no unread letter, no partition that nobody owns."""
    for what, items in known.leftovers.items():
        if items:
            yield Finding(f"left-{what}", "", f"{len(items)}: {', '.join(map(str, items[:3]))}", ("leftovers.json",))


def suspended(known: Known) -> Iterator[Finding]:
    """No run is ever suspended: its code has not changed, so it fits its history."""
    told: dict[str, dict[str, Any]] = {}
    for line in known.ledger:
        if line["op"] == "suspended":
            told.setdefault(line["workflow"], line)
    for name, line in told.items():
        yield Finding("suspended", name, line["why"], (line[PLACE],))


# -- histories -------------------------------------------------------------------------------------------------------


def history_missing(known: Known) -> Iterator[Finding]:
    """Every run has its exported history, of the messages as they are stored: what is replayed is what there was."""
    newest = max((m.seq for workflow in known.workflows.values() for m in workflow.messages), default=0)
    for workflow in known.workflows.values():
        stored = {message.seq: message for message in workflow.messages}
        for run in workflow.runs:
            events = known.histories.get((workflow.id, run.number))
            if events is None:
                why = [f"{line[PLACE]} ({line['why']})" for line in known.ledger
                       if line["op"] == "unexported" and (line["workflow"], line["run"]) == (workflow.id, run.number)]  # fmt: skip
                text = f"run {run.number} has no exported history"
                yield Finding("history-missing", workflow.id, text, (str(run.start), *why))
                continue
            told = {event["seq"]: event for event in events}
            lacking = [message for message in workflow.due(run) if message.seq not in told]
            if lacking:
                text = f"the exported history of run {run.number} lacks {len(lacking)} of its messages"
                yield Finding("history-missing", workflow.id, text, _told(lacking))
            # What has been stored while the histories were written is not in the stream as it was written down before.
            others = [
                e for seq, e in told.items() if seq <= newest and not (seq in stored and stored[seq].is_told_by(e))
            ]
            if others:
                which = ", ".join(f"{event['kind']} (seq {event['seq']})" for event in others[:3])
                text = f"the exported history of run {run.number} has events that are not as they are stored: {which}"
                yield Finding("history-missing", workflow.id, text, _told([run.start, stored.get(others[0]["seq"])]))


RULES: Final[dict[str, Callable[[Known], Iterable[Finding]]]] = {
    rule.__name__.replace("_", "-"): rule
    for rule in (
        start_lost, never_ended, started_twice, ends_differ, wrong_result, seen_otherwise, signal_not_stored, signals,
        effect_missing, outcome_without_effect, more_than_once, unclaimed, attempt_twice, outcome_lost,
        believed_otherwise, other_key, early_timer, compensation, exits, child_missing, leftovers, suspended,
        history_missing,
    )
}  # fmt: skip


def _effects(known: Known, workflow: Workflow, step: str, what: str) -> list[dict[str, Any]]:
    return [e for e in known.effects_of[workflow.id] if e["step"] == step and e["what"] == what]


def _ended(effects: Iterable[Mapping[str, Any]], step: str) -> bool:
    return any(effect["step"] == step and effect["what"] == "end" for effect in effects)


def _same_failure(said: Any, value: Any) -> bool:
    """Whether a parent was told the failure of its child, which it sees with further details."""
    if not (isinstance(said, dict) and isinstance(value, dict)):
        return False
    return all(said.get(name) == value.get(name) for name in ("message", "kind", "retryable"))


def _told(messages: Iterable[Message | None]) -> tuple[str, ...]:
    return tuple(str(message) for message in messages if message is not None)


def _newest(workflow: Workflow) -> tuple[str, ...]:
    return _told([workflow.last.start, *workflow.messages[-3:]])


def _places(effects: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    return tuple(
        f"{e.get(PLACE, '')} ({e['what']} {e['step']}, run {e['run']} op {e['op']} attempt {e['attempt']}, pid {e['pid']})"
        for e in effects
    )


def main(arguments: list[str]) -> int:
    """Judge a record and print what was found; 1 when anything was, 2 when there is no record."""
    if len(arguments) != 1:
        print("usage: python -m tests.chaos.checker RECORD", file=sys.stderr)
        return 2
    if not (Path(arguments[0]) / "ledger.jsonl").is_file():
        print(f"{arguments[0]} is no record of a chaos run: it has no ledger.jsonl", file=sys.stderr)
        return 2
    findings = check(Path(arguments[0]))
    for finding in findings:
        print(finding)
    print(f"{len(findings)} findings in {arguments[0]}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
