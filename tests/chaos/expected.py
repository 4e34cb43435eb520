"""What each input must come to, computed without the engine: plain Python over the input and a few facts.

A fact is something that the input does not decide: whether somebody asked the workflow to stop, which messages it was
sent, whether the outcome of a call that may run only once is unknown. Every function here returns sentences that say
what is wrong; none means that the result is right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

ONCE: Final = "once"
LEAST: Final = "least"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a workflow has ended. value: its result; failure: what it failed with, {} when it did not."""

    status: str
    value: Any = None
    failure: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Facts:
    """What the input does not decide. asked: to stop; killed: terminated from outside.

    unknown: the steps whose outcome nobody knows, as the history says.
    """

    asked: bool = False
    killed: bool = False
    unknown: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Step:
    """A step that a workflow says it has taken. how: whether its function ran at least or at most once."""

    name: str
    how: str = LEAST


def problems(sort: str, given: Mapping[str, Any], ended: Ended, facts: Facts) -> list[str]:
    """What is wrong with the end of a workflow of that sort, which was started with that input."""
    if ended.status == "terminated":
        return [] if facts.killed else ["it was terminated, and nobody has asked for that"]
    return _JUDGES[sort](given, ended, facts)


def steps(sort: str, given: Mapping[str, Any], ended: Ended) -> list[Step]:
    """The steps that the end says were taken, in no particular order."""
    value = _told(ended)
    match sort:
        case "order" if ended.status == "completed":
            names = ["price", "confirm", *(f"reserve:{item['name']}" for item in given["items"])]
            names += ["stamp"] if given["stamp"] else []
            names += ["deliver"] if given["letter"] else []
            names += ["bulk"] if given.get("bulk_kb") else []
            taken = [Step(name) for name in names]
            return [*taken, Step("charge", ONCE)] if value.get("charge") == "charged" else taken
        case "saga":
            tokens = value.get("tokens") or {}
            once = {step["name"] for step in given["steps"] if step["once"]}
            done = [Step(name, ONCE if name in once else LEAST) for name in value.get("done") or () if name in tokens]
            return done + [Step(f"undo:{name}") for name in value.get("undone") or ()]
        case "leaf" if ended.status == "completed":
            return [Step("leaf")]
        case _:
            return []


def only_once(sort: str, given: Mapping[str, Any]) -> set[str]:
    """The steps whose function may begin one time only, whatever happens."""
    if sort == "order":
        return {"charge"}
    return {step["name"] for step in given["steps"] if step["once"]} if sort == "saga" else set()


def _order(given: Mapping[str, Any], ended: Ended, facts: Facts) -> list[str]:
    unknown = "charge" in facts.unknown
    if given["decline"] and not unknown:
        return _failed_with(ended, "Declined")
    if ended.status != "completed":
        return [f"it should have completed, but is {ended.status}: {dict(ended.failure)}"]
    value = ended.value
    names = [item["name"] for item in given["items"]]
    return [
        *_differs("price", value.get("price"), given["price"]),
        *_differs("charge", value.get("charge"), "unknown" if unknown else "charged"),
        *_differs("arrived (in any order)", sorted(value.get("arrived") or ()), sorted(names)),
        *_differs("total", value.get("total"), sum(item["value"] for item in given["items"])),
        *_differs("letter", bool(value.get("letter")), bool(given["letter"])),
        *([] if value.get("bulk", "") == "bulk" * 256 * given.get("bulk_kb", 0)
          else [f"bulk has {len(value.get('bulk', ''))} characters that are not those of {given.get('bulk_kb')} KB"]),
        *([f"slept {value.get('slept_ms')} ms of {given['settle_ms']}"]
          if value.get("slept_ms", 0) < given["settle_ms"] else []),
    ]  # fmt: skip


def _saga(given: Mapping[str, Any], ended: Ended, facts: Facts) -> list[str]:
    value = _told(ended)
    names = [step["name"] for step in given["steps"]]
    declined = next((i for i, step in enumerate(given["steps"]) if step["decline"]), len(names))
    unknown = next((i for i, name in enumerate(names) if name in facts.unknown), len(names))
    done, state = list(value.get("done") or ()), value.get("state")
    found = []
    if state == "canceled":
        if not facts.asked:
            found.append("it stopped although nobody has asked it to")
        if done != names[: len(done)] or len(done) > declined:
            found.append(f"done is {done}, no beginning of {names[:declined]}")
    elif unknown < declined or (unknown == declined < len(names)):
        found += _differs("done", done, names[: unknown + 1]) + _differs("state", state, "compensated")
    elif declined < len(names):
        found += _differs("done", done, names[:declined]) + _differs("state", state, "compensated")
    else:
        found += _differs("done", done, names) + _differs("state", state, "completed")
    undone = [] if state == "completed" else done[::-1]
    found += _differs("undone", list(value.get("undone") or ()), undone)
    fails = state == "compensated" and given["raise"]
    return found + _differs("status", ended.status, "failed" if fails else "completed")


def _approval(given: Mapping[str, Any], ended: Ended, facts: Facts) -> list[str]:
    if ended.status != "completed":
        return [f"it should have completed, but is {ended.status}: {dict(ended.failure)}"]
    state, waited_ms = ended.value.get("state"), ended.value.get("waited_ms", 0)
    if state == "expired" and waited_ms < given["limit_ms"]:
        return [f"it expired after {waited_ms} ms of {given['limit_ms']}"]
    if state == "canceled" and not facts.asked:
        return ["it stopped although nobody has asked it to"]
    return [] if state in ("expired", "canceled", "closed") else [f"its state is {state!r}"]


def _parent(given: Mapping[str, Any], ended: Ended, _facts: Facts) -> list[str]:
    if ended.status != "completed":
        return [f"it should have completed, but is {ended.status}: {dict(ended.failure)}"]
    ends: dict[str, Any] = {}
    messages: dict[str, list[int]] = {}
    for index, child in enumerate(given["children"], 1):
        if child["kind"] == "leaf":
            ends[str(index)] = {"kind": "Declined"} if child["decline"] else {"value": 2 * child["value"]}
        elif child["kind"] == "echo":
            ends[str(index)] = {"value": child["messages"]}
            messages[str(index)] = list(range(1, child["messages"] + 1))
    executed = {"value": 2 * given["exec"]} if given["exec"] else None
    value = ended.value
    return [
        *_differs("ends", value.get("ends") or {}, ends),
        *_differs("messages", value.get("messages") or {}, messages),
        *_differs("sum", value.get("sum"), sum(end.get("value", 0) for end in ends.values())),
        *_differs("executed", value.get("executed") or None, executed),
    ]


def _leaf(given: Mapping[str, Any], ended: Ended, facts: Facts) -> list[str]:
    if ended.status == "canceled" and facts.asked:
        return []
    if given.get("decline"):
        return _failed_with(ended, "Declined")
    if ended.status != "completed":
        return [f"it should have completed, but is {ended.status}: {dict(ended.failure)}"]
    return _differs("value", ended.value.get("value"), 2 * given["value"])


def _echo(given: Mapping[str, Any], ended: Ended, _facts: Facts) -> list[str]:
    if ended.status != "completed":
        return [f"it should have completed, but is {ended.status}: {dict(ended.failure)}"]
    return _differs("value", ended.value.get("value"), given["messages"])


def _linger(_given: Mapping[str, Any], ended: Ended, _facts: Facts) -> list[str]:
    return [f"it should have been terminated with its parent, but is {ended.status}"]


def _counter(given: Mapping[str, Any], ended: Ended, _facts: Facts) -> list[str]:
    if ended.status != "completed":
        return [f"it should have completed, but is {ended.status}: {dict(ended.failure)}"]
    count = len(ended.value.get("received") or ())
    return _differs("runs", ended.value.get("runs"), count // given["each"] + 1)


_JUDGES: Final = {
    "order": _order, "saga": _saga, "approval": _approval, "parent": _parent, "leaf": _leaf, "echo": _echo,
    "linger": _linger, "counter": _counter,
}  # fmt: skip


def _failed_with(ended: Ended, kind: str) -> list[str]:
    if ended.status == "failed" and ended.failure.get("kind") == kind:
        return []
    return [f"it should have failed with {kind}, but is {ended.status}: {ended.value or dict(ended.failure)}"]


def _differs(what: str, found: Any, wanted: Any) -> list[str]:
    return [] if found == wanted else [f"{what} is {found!r}, not {wanted!r}"]


def per_sender(received: Sequence[Sequence[Any]]) -> dict[str, list[int]]:
    """What was received from each sender, in the order in which it came."""
    found: dict[str, list[int]] = {}
    for sender, n in received:
        found.setdefault(sender, []).append(n)
    return found


def _told(ended: Ended) -> Mapping[str, Any]:
    """The story that an end tells: as a result, or as details of a failure."""
    told = ended.value if ended.status == "completed" else ended.failure.get("details")
    return told if isinstance(told, Mapping) else {}
