"""What `mesh doctor` says of the mesh on the server: nodes, partitions, workers, functions, workflows. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from mesh.membership import Member, is_void
from mesh.rendezvous import NodeId
from node.api.findings import Facts, Finding, ok, problem, queue_of, some, warning
from store.streams import METADATA_PARTITIONS, PARTITIONS_DEFAULT

# A checkpoint is saved every second; what is older and not handled waits for something.
LAG_WARNING_S: Final = 10.0
# What is asked for and has no finding of its own when that fails.
_PARTS: Final = {
    "streams": "settings and copies of the streams",
    "claims": "owners of partitions",
    "ends": "how far partitions are",
    "hosts": "workers",
    "schedules": "schedules",
    "consumers": "consumers",
}


def check_nodes(facts: Facts) -> Iterator[Finding]:
    """Look at the members: do they answer, are they of one kind."""
    if not facts.nodes:
        why = facts.faults.get("nodes")
        if why:
            yield warning("nodes", f"the nodes could not be asked: {why}", "look as a user who may")
        else:
            yield warning("nodes", "no node is up: nothing runs", "start one with: mesh node APP")
        return
    silent = [name for name, answer in facts.nodes.items() if "pid" not in answer]
    for name in silent:
        where = facts.nodes[name].get("member", {}).get("pid")
        yield problem(
            "nodes", f"node {name} is a member and does not answer",
            f"look at its log; process {where} may be stopped or busy; after `kill -9` others take over",
            name,
        )  # fmt: skip
    up = {name: answer for name, answer in facts.nodes.items() if name not in silent}
    if up and not silent:
        yield ok("nodes", f"{len(up)} {'is' if len(up) == 1 else 'are'} up: {some(list(up))}")
    versions = _by(up, "version")
    if len(versions) > 1:
        yield warning("versions", f"nodes of different versions: {_groups(versions)}", "upgrade the older ones")
    elif versions and facts.version not in versions:
        yield warning(
            "versions", f"the nodes have version {next(iter(versions))}, this command {facts.version}",
            "use one version",
        )  # fmt: skip
    yield from _check_apps(up)


def _check_apps(up: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    """Nodes of one worker should offer the same workflows: any of them may have to run any."""
    offered: dict[str, dict[str, frozenset[str]]] = {}
    for name, answer in up.items():
        for worker in answer.get("workers") or ():
            offered.setdefault(str(worker.get("worker")), {})[name] = frozenset(worker.get("workflows") or ())
    differ = False
    for worker, by_node in sorted(offered.items()):
        everything = frozenset().union(*by_node.values())
        lacking = {name: sorted(everything - has) for name, has in by_node.items() if has != everything}
        if lacking:
            differ = True
            told = "; ".join(f"{name} lacks {some(names)}" for name, names in sorted(lacking.items()))
            yield warning(
                "apps", f"the nodes of worker {worker} offer different workflows: {told}",
                "what such a node owns is suspended until it moves on: give all nodes the same app", worker,
            )  # fmt: skip
    registries = _by(up, "registry")
    if len(registries) > 1 and not differ:
        yield warning(
            "apps", f"nodes have different registries or code: {_groups(registries)}",
            "right while a new version is rolled out, else start again who has the old one; `mesh replay --all` "
            "checks code against the histories",
        )  # fmt: skip


def check_queues(facts: Facts) -> Iterator[Finding]:
    """Look at the partitions of each queue: does somebody own them, do they keep up; and at what waits for nobody."""
    members = [
        Member(
            NodeId(name), str(member.get("incarnation", "")), frozenset(member.get("queues") or ()), 0,
            bool(member.get("leaving")),
        )
        for name, answer in facts.nodes.items()
        if (member := answer.get("member") or {})
    ]  # fmt: skip
    streams = {name: info for info in facts.streams.values() if (name := queue_of(info))}
    for queue in facts.queues:
        subject = f"queue {queue}"
        serving = [str(m.node_id) for m in members if queue in m.queues]
        if not serving and "nodes" in facts.faults:
            continue  # who serves it is not known, and `check_nodes` says so
        if not serving:
            messages = (streams.get(queue, {}).get("state") or {}).get("messages", 0)
            yield _unserved(queue, messages, facts.schedules.get(queue, 0), subject)
            continue
        info = streams.get(queue)
        if info is None or "claims" in facts.faults:
            continue
        metadata = info["config"].get("metadata") or {}
        partitions = int(metadata.get(METADATA_PARTITIONS, PARTITIONS_DEFAULT))
        claims = {claim.partition: claim for claim in facts.claims if claim.queue == queue}
        orphans = [n for n in range(partitions) if n not in claims or is_void(claims[n], members)]
        if orphans:
            yield problem(
                "partitions", f"{len(orphans)} of {partitions} partitions of queue {queue} have no owner: "
                f"{some([str(n) for n in orphans], 10)}; nothing of their workflows goes on",
                "right for a moment while nodes come and go; else look at the logs of " + some(serving), subject,
            )  # fmt: skip
        behind = [
            (n, facts.now_ns - last.at_ns)
            for n in range(partitions)
            if n not in orphans
            and (last := facts.ends.get((queue, n))) is not None
            and last.seq > claims[n].checkpoint
            and facts.now_ns - last.at_ns > LAG_WARNING_S * 1e9
        ]
        if behind:
            worst, age_ns = max(behind, key=lambda item: item[1])
            yield warning(
                "partitions", f"{len(behind)} partitions of queue {queue} lag: partition {worst}, owned by "
                f"{claims[worst].node_id}, has an event of {age_ns / 1e9:.0f} s ago that is not handled",
                "look at the load and the log of that node; more nodes share the partitions", subject,
            )  # fmt: skip
        if not orphans and not behind:
            yield ok("partitions", f"all {partitions} owned, by {some(serving)}, none lags", subject)


def _unserved(queue: str, messages: int, schedules: int, subject: str) -> Finding:
    if not messages:
        return ok("workers", f"no node has a worker for queue {queue}, and nothing waits there", subject)
    left = f", and {schedules} of its schedules go on starting workflows" if schedules else ""
    return warning(
        "workers", f"no node has a worker for queue {queue}: its open workflows wait ({messages} messages){left}",
        "start a node with its app; if it is not needed any more, end its workflows and delete its stream", subject,
    )  # fmt: skip


def check_functions(facts: Facts) -> Iterator[Finding]:
    """Look for functions that apps name and nobody offers."""
    if "functions" in facts.faults:
        yield warning("functions", f"the functions could not be asked for: {facts.faults['functions']}", "")
        return
    missing = [record["function"] for record in facts.functions if not record["instances"] and record["kind"] != "nats"]
    for name in missing:
        yield warning(
            "functions", f"{name} is in an app and no node offers it: calls fail with NotFound and are tried again",
            "`mesh check APP` says what is wrong with it; or a node excludes it (--only, --without)", name,
        )  # fmt: skip
    for record in facts.functions:
        if record["kind"] == "nats" and not record["instances"]:
            yield warning(
                "functions", f"no NATS service says that it serves {record['subject']}, called by {record['function']}",
                "start it; one that is not a micro service (`nats micro ls`) cannot be seen", record["function"],
            )  # fmt: skip
    offered = sum(1 for record in facts.functions if record["instances"])
    if offered and not missing:
        yield ok("functions", f"{offered} offered")


def check_workflows(facts: Facts) -> Iterator[Finding]:
    """Look for workflows that cannot go on."""
    total = 0
    found: list[str] = []
    for answer in facts.nodes.values():
        total += sum(int(statistics.get("suspended", 0)) for statistics in (answer.get("queues") or {}).values())
        found += [f"{item.get('id')} ({item.get('reason')})" for item in answer.get("suspended") or ()]
    if total:
        yield problem(
            "workflows", f"{total} suspended: {some(found, 3)}",
            "`mesh show ID` says why; deploy fitting code, give nodes the keys or restore what is lost, or reset or "
            "end them",
        )  # fmt: skip
    elif facts.nodes:
        yield ok("workflows", "none is suspended")


def check_consumers(facts: Facts) -> Iterator[Finding]:
    """Look for consumers that nobody reads any more, and message queues that nobody takes from."""
    leftover = []
    for consumer in facts.consumers:
        config = consumer.get("config") or {}
        stream, name = str(consumer.get("stream_name")), str(consumer.get("name"))
        if config.get("deliver_subject"):
            if not consumer.get("push_bound") and not config.get("inactive_threshold"):
                leftover.append(f"{stream} > {name}")
        elif stream.startswith("MQ_") and consumer.get("num_pending") and not consumer.get("num_waiting"):
            yield warning(
                "consumers", f"{consumer['num_pending']} messages of {stream} wait and nobody takes them",
                "start a node whose app has the consumer", name,
            )  # fmt: skip
        elif stream.startswith("WF_"):
            leftover.append(f"{stream} > {name}")
    if leftover:
        first = leftover[0].replace(" > ", " ")
        yield warning(
            "consumers", f"{len(leftover)} that are not ours and that nobody may read any more: {some(leftover, 3)}",
            f"if so: nats consumer rm {first}",
        )  # fmt: skip


def check_unasked(facts: Facts) -> Iterator[Finding]:
    """Say what else could not be looked at, and why."""
    for part, what in _PARTS.items():
        if part in facts.faults:
            yield warning(part, f"{what} could not be looked at: {facts.faults[part]}", "look as a user who may")


def _by(answers: Mapping[str, Mapping[str, Any]], what: str) -> dict[str, list[str]]:
    """The nodes by what they say of something; those that say nothing are left out."""
    found: dict[str, list[str]] = {}
    for name, answer in answers.items():
        if answer.get(what):
            found.setdefault(str(answer[what]), []).append(name)
    return found


def _groups(by: Mapping[str, list[str]]) -> str:
    return "; ".join(f"{value} on {some(names)}" for value, names in sorted(by.items()))
