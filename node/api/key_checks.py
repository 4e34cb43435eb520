"""What `mesh doctor` says of encryption: which keys encrypt where, and who cannot read what others write. Pure.

Nodes say of their keys the names, which of them encrypts, and fingerprints that tell nothing of a key (`mesh keys ls`
shows the same): enough to see that two of one name are not the same. Of clients nothing is known but of the one that
asks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from node.api.findings import Facts, Finding, ok, problem, some, warning

COMMAND: Final = "this command"
_GIVE: Final = "give it the file that the others have (--keys FILE, worker_options.keys)"


class Holder(NamedTuple):
    """Somebody's keys. primary: the one that encrypts, None for none. keys: fingerprints of all, by name."""

    primary: str | None
    keys: Mapping[str, str]


def check_keys(facts: Facts) -> Iterator[Finding]:
    """Look at the keys of each queue's nodes, and at those of whoever asks."""
    up = {name: answer for name, answer in facts.nodes.items() if "keys" in answer}
    if not up:
        return  # none answers, or all are of a release that says nothing of keys
    default = _holders({name: answer["keys"] for name, answer in up.items()})
    queues: dict[str, dict[str, Any]] = {}
    strict = set()
    for name, answer in up.items():
        for worker in answer.get("workers") or ():
            queues.setdefault(str(worker.get("queue")), {})[name] = worker.get("keys")
            if worker.get("encryption") == "required":
                strict.add(str(worker.get("queue")))
    by_queue = {queue: _holders(said) for queue, said in sorted(queues.items())}
    if any(said is not None and said.get("own") for said in (facts.keys, *(answer["keys"] for answer in up.values()))):
        yield ok("encryption", "by a codec of somebody's own, of which nothing is known here")
        return
    everybody = [*default.values(), *(holder for holders in by_queue.values() for holder in holders.values())]
    if not any(holder.keys for holder in everybody):
        yield ok("encryption", "no node has keys: payloads are stored in plain")
    else:
        differ = False
        for queue, holders in by_queue.items():
            found = list(_differences(f"queue {queue}", holders))
            differ = differ or bool(found)
            yield from found or [_alike(queue, holders, is_strict=queue in strict)]
        if not differ:
            yield from _differences("what is of no worker's queue", default)
    yield from _check_command(facts, by_queue or {"": default}, strict)


def _holders(said: Mapping[str, Any]) -> dict[str, Holder]:
    return {name: _holder(keys) for name, keys in said.items()}


def _holder(said: Mapping[str, Any] | None) -> Holder:
    return Holder(said.get("primary"), said.get("keys") or {}) if said else Holder(None, {})


def _differences(what: str, holders: Mapping[str, Holder]) -> Iterator[Finding]:
    """Who of the nodes cannot read what another one writes; and whether they write alike."""
    clashes = _clashes(holders)
    for key, by_fingerprint in clashes.items():
        yield problem(
            "encryption", f"{what}: nodes have different keys of the name {key}: {_groups(by_fingerprint)}",
            "what one of them writes the others cannot read: give all one file; `mesh keys rotate` makes another key",
            what,
        )  # fmt: skip
    writers = _by_primary(holders)
    lacking = {
        name: missing for name, holder in holders.items() if (missing := sorted(writers.keys() - holder.keys.keys()))
    }
    for name, missing in sorted(lacking.items()):
        has = "lacks" if holders[name].keys else "has no keys at all, so not"
        told = "; ".join(f"{key}, with which {some(writers[key])} {_encrypt(writers[key])}" for key in missing)
        yield problem(
            "encryption", f"{what}: node {name} {has} key {told}: what it meets of that is suspended", _GIVE, what
        )
    plain = [name for name, holder in holders.items() if holder.primary is None]
    if not clashes and not lacking and len(writers) + bool(plain) > 1:
        groups = {**{f"key {key}": names for key, names in writers.items()}, **({"none": plain} if plain else {})}
        yield warning(
            "encryption", f"{what}: nodes encrypt with different keys: {_groups(groups)}",
            "right while keys are rotated, else give all the same file; each of them can read what the others write",
            what,
        )  # fmt: skip


def _alike(queue: str, holders: Mapping[str, Holder], *, is_strict: bool) -> Finding:
    names, holder = some(list(holders)), next(iter(holders.values()))
    if holder.primary is None:
        others = f", though {some(sorted(holder.keys))} can be read" if holder.keys else ""
        return ok("encryption", f"queue {queue}: written in plain by {names}{others}", f"queue {queue}")
    also = sorted(holder.keys.keys() - {holder.primary})
    read = f", {some(also)} can be read too" if also else ""
    only = ", and only what is encrypted is taken" if is_strict else ""
    shown = f"{holder.primary} ({holder.keys.get(holder.primary)})"
    return ok("encryption", f"queue {queue}: encrypted with key {shown} by {names}{read}{only}", f"queue {queue}")


def _check_command(facts: Facts, by_queue: Mapping[str, Mapping[str, Holder]], strict: set[str]) -> Iterator[Finding]:
    """What the keys of the command that asks are good for: as it is with them, it is with any client that has them."""
    own = _holder(facts.keys)
    nodes = {f"{queue} {name}": holder for queue, holders in by_queue.items() for name, holder in holders.items()}
    writers = _by_primary(nodes)
    fix = "give it the nodes' keys with --keys FILE or MESH_KEYS; other clients need them, too, and cannot be seen here"
    if not own.keys:
        if writers:
            refused = f"; queue {some(sorted(strict))} takes no such thing" if strict else ""
            yield warning(
                "encryption",
                f"{COMMAND} has no keys: what it starts and signals is stored in plain{refused}, and values are hidden "
                "from it", fix, COMMAND,
            )  # fmt: skip
        return
    if not any(holder.keys for holder in nodes.values()):
        if own.primary is not None:
            yield warning(
                "encryption",
                f"{COMMAND} encrypts with key {own.primary}, and no node has keys: what it starts is suspended",
                "give the nodes the keys with --keys FILE, or leave --keys (MESH_KEYS) out", COMMAND,
            )  # fmt: skip
        return
    clash = next((key for key in _clashes({**nodes, COMMAND: own}) if key not in _clashes(nodes)), None)
    if clash is not None:
        yield warning("encryption", f"{COMMAND} has another key of the name {clash} than nodes have", fix, COMMAND)
        return
    missing = sorted(writers.keys() - own.keys.keys())
    if missing:
        yield warning(
            "encryption",
            f"{COMMAND} lacks key {some(missing)}, with which nodes encrypt: it cannot read that",
            fix,
            COMMAND,
        )
    # Where nodes themselves encrypt with that key, one that lacks it was named before.
    unread = {
        name
        for holders in by_queue.values()
        for name, holder in holders.items()
        if own.primary and own.primary not in holder.keys and own.primary not in _by_primary(holders)
    }
    if unread:
        yield warning(
            "encryption",
            f"{COMMAND} encrypts with key {own.primary}, which {some(sorted(unread))} cannot read: what it starts "
            "there is suspended", fix, COMMAND,
        )  # fmt: skip


def _clashes(holders: Mapping[str, Holder]) -> dict[str, dict[str, list[str]]]:
    """The names that several keys have: who has which, by fingerprint."""
    found: dict[str, dict[str, list[str]]] = {}
    for name, holder in holders.items():
        for key, fingerprint in holder.keys.items():
            found.setdefault(key, {}).setdefault(fingerprint, []).append(name)
    return {key: by_fingerprint for key, by_fingerprint in sorted(found.items()) if len(by_fingerprint) > 1}


def _by_primary(holders: Mapping[str, Holder]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, holder in holders.items():
        if holder.primary is not None:
            found.setdefault(holder.primary, []).append(name)
    return found


def _groups(by: Mapping[str, list[str]]) -> str:
    return "; ".join(f"{what} on {some(names)}" for what, names in sorted(by.items()))


def _encrypt(names: list[str]) -> str:
    return "encrypts" if len(names) == 1 else "encrypt"
