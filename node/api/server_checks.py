"""What `mesh doctor` says of the NATS server: whether it can do what the mesh needs, and does it the way we rely on.

Pure: facts in, findings out. The mesh itself is looked at in `node.api.mesh_checks`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from mesh.buckets import bucket_config
from mesh.hosts import BUCKET as HOSTS
from mesh.roster import BUCKET as ROSTER
from node.api.findings import Facts, Finding, ok, problem, queue_of, some, warning
from node.units.names import BUCKET as NAMES
from store.durability import Durability, promise, settings_of
from store.streams import METADATA_PARTITIONS, PARTITIONS_DEFAULT, stream_config

# Atomic batches and scheduled messages came with 2.12, cron schedules with 2.14 (ADR-50, ADR-51).
VERSION_MIN: Final = (2, 12)
VERSION_FOR_CRON: Final = (2, 14)
STORAGE_WARNING: Final = 0.75
STORAGE_PROBLEM: Final = 0.95
ROUND_TRIP_WARNING_S: Final = 0.1
CLOCK_WARNING_S: Final = 2.0
REPLICA_LAG_WARNING: Final = 1000
BUCKETS: Final = (ROSTER, NAMES, HOSTS)

# What somebody who uses the mesh does, and a subject that is published to for it; `*` tokens stand for any name.
DUTIES: Final = (
    ("start and signal workflows", "mesh.wf.q.id.start"),
    ("read histories", "$JS.API.DIRECT.GET.WF_q"),
    ("call functions", "mesh.fn.app.name"),
    ("ask nodes how they are", "mesh.node.n.status"),
    ("run a node", "$KV.mesh_roster.member.n"),
)
# Settings that the server does not change once a stream is there.
_FIXED: Final = ("storage", "retention", "subject_transform")
_FLAGS: Final = {
    "duplicate_window": "--dupe-window 2m",
    "discard": "--discard old",
    "max_msgs": "--max-msgs -1",
    "max_bytes": "--max-bytes -1",
    "max_age": "--max-age 0",
    "max_msgs_per_subject": "--max-msgs-per-subject -1",
    "allow_direct": "--allow-direct",
    "allow_msg_ttl": "--allow-msg-ttl",
    "allow_atomic": "--allow-batch",
    "allow_rollup_hdrs": "--allow-rollup",
    "allow_msg_schedules": "--allow-schedules",
}


def check_server(facts: Facts) -> Iterator[Finding]:
    """Look at the server: can it do what the mesh needs, and how far is it away."""
    version = str(facts.server.get("version", "?"))
    number = _version(version)
    name = facts.server.get("server_name") or "?"
    where = f"{name}, nats-server {version}"
    if facts.is_cluster:
        where += f", cluster {facts.server['cluster']}"
    if number and number < VERSION_MIN:
        yield problem(
            "server", f"{where} is too old: the mesh needs atomic batches and scheduled messages",
            f"upgrade it to {'.'.join(map(str, VERSION_FOR_CRON))} or later",
        )  # fmt: skip
    elif number and number < VERSION_FOR_CRON:
        yield warning(
            "server", f"{where} knows no cron schedules", "upgrade it to 2.14 or later if schedules are used"
        )  # fmt: skip
    else:
        yield ok("server", where)
    if facts.account is None:
        yield problem(
            "jetstream", f"no JetStream for this user: {facts.faults.get('account', 'it does not answer')}",
            "start the server with -js, and give the account JetStream in its configuration",
        )  # fmt: skip
    else:
        yield from _check_limits(facts.account)
    if facts.round_trip_s is not None:
        text = f"{facts.round_trip_s * 1e3:.1f} ms to the server and back"
        if facts.round_trip_s > ROUND_TRIP_WARNING_S:
            yield warning("latency", text, "each step of a workflow takes some of these: run nodes near the server")
        else:
            yield ok("latency", text)
    far = {who: ahead_s for who, ahead_s in facts.clocks_ahead_s.items() if abs(ahead_s) > CLOCK_WARNING_S}
    if far:
        told = some([f"{who} by {ahead_s:+.1f} s" for who, ahead_s in sorted(far.items())])
        yield warning("clocks", f"clocks differ from this machine's: {told}", "keep them right, with NTP for example")
    elif facts.clocks_ahead_s:
        most_s = max(abs(ahead_s) for ahead_s in facts.clocks_ahead_s.values())
        yield ok("clocks", f"server, nodes and this machine agree within {most_s * 1e3:.0f} ms")


def _check_limits(account: Mapping[str, Any]) -> Iterator[Finding]:
    limits = account.get("limits") or {}
    for what, used, limit in (
        ("storage", account.get("storage", 0), limits.get("max_storage", -1)),
        ("memory", account.get("memory", 0), limits.get("max_memory", -1)),
        ("streams", account.get("streams", 0), limits.get("max_streams", -1)),
        ("consumers", account.get("consumers", 0), limits.get("max_consumers", -1)),
    ):
        if not isinstance(limit, int) or limit <= 0:
            continue
        share = used / limit
        text = f"{_amount(what, used)} of {_amount(what, limit)} {what} used ({share:.0%})"
        fix = "raise the limit of the account, or keep less: a shorter `retention` of the workers, `mesh archive`"
        if share >= STORAGE_PROBLEM:
            yield problem("jetstream", f"{text}: nothing can be written soon", fix, what)
        elif share >= STORAGE_WARNING:
            yield warning("jetstream", text, fix, what)
        else:
            yield ok("jetstream", text, what)
    if int(limits.get("max_storage", -1)) <= 0:
        yield ok("jetstream", f"{_amount('storage', account.get('storage', 0))} stored, no limit", "storage")


def check_permissions(facts: Facts) -> Iterator[Finding]:
    """Look at what the user may do. To be allowed less than everything is right for most."""
    if facts.user is None:
        why = facts.faults.get("user", "the server does not say")
        yield warning("permissions", f"what this user may do is not known: {why}", "")
        return
    account = facts.user.get("account_name") or facts.user.get("account")
    who = f"user {facts.user.get('user') or '(none)'} of account {account}"
    rights = facts.user.get("permissions") or {}
    may = [duty for duty, subject in DUTIES if is_allowed(rights.get("publish"), subject)]
    may_not = [duty for duty, _ in DUTIES if duty not in may]
    if not may_not:
        yield ok("permissions", f"{who} may do everything")
    elif "ask nodes how they are" in may_not or "read histories" in may_not:
        yield warning(
            "permissions", f"{who} may not {' nor '.join(may_not)}: not all of this could be looked at",
            "look again as a user who may observe the mesh",
        )  # fmt: skip
    else:
        yield ok("permissions", f"{who} may {', '.join(may)}; not {', '.join(may_not)}")


def is_allowed(rights: Mapping[str, Any] | None, subject: str) -> bool:
    """Whether permissions as the server tells them ({allow, deny}) let one publish to a subject."""
    allow, deny = (rights or {}).get("allow"), (rights or {}).get("deny")
    if any(matches(pattern, subject) for pattern in deny or ()):
        return False
    return not allow or any(matches(pattern, subject) for pattern in allow)


def matches(pattern: str, subject: str) -> bool:
    """Whether a subject fits a pattern with wildcards."""
    wanted, given = pattern.split("."), subject.split(".")
    for at, part in enumerate(wanted):
        if part == ">":
            return len(given) > at
        if at >= len(given) or part not in ("*", given[at]):
            return False
    return len(wanted) == len(given)


def check_streams(facts: Facts) -> Iterator[Finding]:
    """Look at the streams of the queues and at the buckets: settings, copies, leaders."""
    as_expected: list[Mapping[str, Any]] = []
    for name, info in sorted(facts.streams.items()):
        queue = queue_of(info)
        bucket = name.removeprefix("KV_")
        if queue is not None:
            config = info["config"]
            partitions = int((config.get("metadata") or {}).get(METADATA_PARTITIONS, PARTITIONS_DEFAULT))
            expected = stream_config(queue, partitions, int(config.get("num_replicas", 1)))
            subject = f"queue {queue}"
        elif bucket in BUCKETS:
            expected = bucket_config(bucket)
            subject = f"bucket {bucket}"
        else:
            continue
        other_settings = [*_check_settings(name, subject, expected, info["config"])]
        if not other_settings:
            as_expected.append(info)
        findings = [*other_settings, *_check_copies(facts, name, subject, info)]
        yield from findings
        if not findings:
            state, copies = info.get("state") or {}, info["config"].get("num_replicas", 1)
            size = f"{state.get('messages', 0)} messages, {_amount('storage', state.get('bytes', 0))}"
            yield ok(
                "streams", f"settings as expected, {size}, {copies} {'copy' if copies == 1 else 'copies'}", subject
            )
    yield from _check_durability(facts, as_expected)


def _check_settings(
    name: str, subject: str, expected: Mapping[str, Any], actual: Mapping[str, Any]
) -> Iterator[Finding]:
    for field, wanted, found in differences(expected, actual):
        text = f"{name}: {field} is {_shown(found)}, should be {_shown(wanted)}"
        if field in _FIXED:
            fix = (
                "the server cannot change that in a stream: export its histories, delete it, start a node, import them"
            )
        elif field in _FLAGS:
            fix = f"nats stream edit {name} {_FLAGS[field]}"
        else:
            fix = f"put `config` of `nats stream info {name} --json` right: nats stream edit {name} --config FILE"
        yield problem("streams", text, fix, subject)


def differences(expected: Mapping[str, Any], actual: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """The settings that are otherwise than expected: name, expected, actual. The server leaves out what is false or 0.

    A longer memory for duplicates does no harm; how many copies there are is whoever's wish made the stream.
    """
    found = []
    for name, wanted in expected.items():
        has = actual.get(name)
        if name in ("name", "description", "num_replicas"):
            continue
        if name == "republish" and not has:
            continue  # a stream of an earlier release: whoever waits for a result reads it from there
        if name == "metadata":
            has = {key: (has or {}).get(key) for key in wanted}
        elif name in ("duplicate_window", "subject_delete_marker_ttl") and isinstance(has, int) and has > wanted:
            continue
        elif isinstance(wanted, Mapping) and isinstance(has, Mapping):
            has = {key: has.get(key) for key in wanted}
        if (wanted or None) != (has or None):
            found.append((name, wanted, has))
    return found


def _check_copies(facts: Facts, name: str, subject: str, info: Mapping[str, Any]) -> Iterator[Finding]:
    copies = int(info["config"].get("num_replicas", 1))
    cluster = info.get("cluster") or {}
    if facts.is_cluster and not cluster.get("leader"):
        yield problem("replicas", f"{name} has no leader: nothing can be written", "bring its servers back", subject)
    if facts.is_cluster and copies == 1:
        yield warning(
            "replicas", f"{name} has one copy: with its server {cluster.get('leader') or '?'} it is away",
            f"nats stream edit {name} --replicas 3, and `mesh node --replicas 3`", subject,
        )  # fmt: skip
    for replica in cluster.get("replicas") or ():
        who, lag = replica.get("name"), int(replica.get("lag", 0))
        if replica.get("offline"):
            yield warning("replicas", f"{name}: the server {who} with a copy is down", f"start {who}", subject)
        elif not replica.get("current", True) or lag > REPLICA_LAG_WARNING:
            yield warning(
                "replicas", f"{name}: the copy on {who} is {lag} writes behind",
                "it catches up by itself; if not, look at that server's disk and network", subject,
            )  # fmt: skip


def _check_durability(facts: Facts, streams: Iterable[Mapping[str, Any]]) -> Iterator[Finding]:
    """What acknowledged events survive, by queue, and whether that is what their workers want."""
    wanted: dict[str, Durability] = {}
    for answer in facts.nodes.values():
        for worker in answer.get("workers") or ():
            want, queue = Durability(worker.get("durability") or Durability.PROCESS_CRASH), str(worker.get("queue"))
            wanted[queue] = want if want.covers(wanted.get(queue, want)) else wanted[queue]
    for info in streams:
        name = queue_of(info)
        if name is None:
            continue
        subject = f"queue {name}"
        given, want = promise(settings_of(info["config"], facts.sync)), wanted.get(name, Durability.PROCESS_CRASH)
        if not given.durability.covers(want):
            text = f"a worker wants {want}, and gets {given.durability}: {given.text}"
            yield problem("durability", text, given.more, subject)
        elif given.durability is Durability.POWER_LOSS:
            yield ok("durability", given.text, subject)
        else:
            yield warning("durability", given.text, given.more, subject)
        if info.get("lost_bytes"):
            text = f"the server found its files damaged when it started: {info['lost_bytes']} bytes are lost"
            fix = "look for suspended workflows (`mesh ls --status suspended`); restore the store from a backup"
            yield problem("durability", text, fix, subject)


def _version(text: str) -> tuple[int, ...]:
    found = re.match(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else ()


def _amount(what: str, number: int) -> str:
    if what not in ("storage", "memory"):
        return str(number)
    for unit in ("B", "KB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000  # type: ignore[assignment]  # from here on it is a fraction
    return f"{number:.1f} TB"


def _shown(value: Any) -> str:
    return "not set" if value in (None, {}) else str(value)
