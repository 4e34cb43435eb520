"""What a node has at the moment: its functions and what they have done, its processes and the calls under way.

Answers to questions of operators (`node.questions`); `node.api.directory` puts those of all nodes together. Reads only.
Answers are bounded: a node may have 100,000 processes, and its event loop must not stand still for a question.
"""

from __future__ import annotations

import heapq
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

from mesh.subjects import parse_workflow
from node.functions.host import FunctionHost
from node.functions.job import Function, Job
from node.registry import LuaFunctionEntry, NatsFunctionEntry, Registry
from node.services.services import ServiceStatistics
from node.units.links import Links
from node.units.naming import Naming
from node.units.processes import ProcessHost, ProcessUnit

# About 300 bytes and 10 µs each.
PROCESSES_SHOWN_MAX: Final = 1000
PROCESSES_SHOWN_DEFAULT: Final = 200
ERROR_CHARACTERS_MAX: Final = 200
ORDERS: Final = ("started", "newest", "mailbox")


class Inventory:
    """Looks at the parts of one node. services: how its services are.

    encrypted: payloads are, so what users wrote into an error is not for everybody who may ask.
    """

    def __init__(
        self,
        node_id: str,
        registry: Registry,
        *,
        functions: FunctionHost | None,
        processes: ProcessHost,
        links: Links,
        naming: Naming,
        services: Callable[[], Sequence[ServiceStatistics]],
        encrypted: bool,
    ) -> None:
        self._node_id = node_id
        self._registry = registry
        self._functions = functions
        self._processes = processes
        self._links = links
        self._naming = naming
        self._services = services
        self._encrypted = encrypted

    def functions(self) -> list[dict[str, Any]]:
        """The functions this node offers, and those its app has that it does not: of foreign services, or left out.

        Each is {id, kind, offered}; an offered one has calls, errors, last_error, busy_s (of all calls together),
        in_flight and waiting, too, one of a foreign service its subject.
        """
        offered = self._functions.functions if self._functions is not None else {}
        found = [self._statistics(function) for function in offered.values()]
        for entry_id, view in self._registry.functions().items():
            if isinstance(view, NatsFunctionEntry):
                found.append({"id": str(entry_id), "kind": "nats", "offered": False, "subject": view.subject})
            elif str(entry_id) not in offered:
                kind = "lua" if isinstance(view, LuaFunctionEntry) else "python"
                found.append({"id": str(entry_id), "kind": kind, "offered": False})
        return sorted(found, key=lambda item: str(item["id"]))

    def _statistics(self, function: Function) -> dict[str, Any]:
        done = function.endpoint
        error = (done.last_error[:ERROR_CHARACTERS_MAX] if done else "") or None
        return {
            "id": function.id, "kind": function.runner.kind, "offered": True,
            "calls": done.requests if done else 0,
            "errors": done.errors if done else 0,
            "last_error": "encrypted" if error and self._encrypted else error,
            "busy_s": done.processing_ns / 1e9 if done else 0.0,
            "in_flight": function.running,
            "waiting": len(function.waiting) + len(function.limited),
        }  # fmt: skip

    def processes(self, wish: Mapping[str, Any]) -> dict[str, Any]:
        """Processes and calls under way: {total, shown: [{pid, kind, entry, ...}]}, not more than are wished for.

        wish: limit; order ("started": the oldest first, "newest", or "mailbox": processes with most to read); entry, a
        pattern for entry ids; pid, exactly one. Times are Unix times in nanoseconds.
        """
        limit = max(0, min(_whole(wish.get("limit"), PROCESSES_SHOWN_DEFAULT), PROCESSES_SHOWN_MAX))
        pattern, pid = wish.get("entry"), wish.get("pid")

        def is_wished(entry_id: str, its_pid: str) -> bool:
            fits = not isinstance(pattern, str) or entry_id == pattern or fnmatchcase(entry_id, pattern)
            return fits and (not isinstance(pid, str) or its_pid == pid)

        jobs = self._functions.jobs if self._functions is not None else []
        calls = {job.pid: job for job in jobs if job.pid}
        if wish.get("order") == "mailbox":
            longest = self._processes.longest_mailboxes(PROCESSES_SHOWN_MAX)
            units = [unit for unit, _ in longest if is_wished(unit.entry_id, unit.pid)]
            shown: list[tuple[int, ProcessUnit | Job]] = [(unit.began_ns, unit) for unit in units[:limit]]
            return {"total": len(units), "shown": self._described(shown, calls)}
        found: list[tuple[int, ProcessUnit | Job]] = [
            (unit.began_ns, unit) for unit in self._processes.units if is_wished(unit.entry_id, unit.pid)
        ]
        # A call that runs as a process is that process.
        found += [(_begun_ns(job), job) for job in jobs if not job.pid and is_wished(job.function.id, _pid(job))]
        pick = heapq.nlargest if wish.get("order") == "newest" else heapq.nsmallest
        return {"total": len(found), "shown": self._described(pick(limit, found, key=_age_key), calls)}

    def _described(
        self, shown: Sequence[tuple[int, ProcessUnit | Job]], calls: Mapping[str, Job]
    ) -> list[dict[str, Any]]:
        services = {item.pid: str(item.id) for item in self._services() if item.pid}
        return [
            self._process(unit, calls.get(unit.pid), services.get(unit.pid))
            if isinstance(unit, ProcessUnit)
            else self._call(unit)
            for _, unit in shown
        ]

    def _process(self, unit: ProcessUnit, call: Job | None, service: str | None) -> dict[str, Any]:
        # What watches on behalf of the node itself is nobody's parent.
        parent = unit.parent if "@#|" not in unit.parent else ""
        return {
            "pid": unit.pid, "kind": "process", "entry": unit.entry_id, "host": unit.host_id, "state": "running",
            "began_ns": unit.began_ns, "age_s": _age_s(unit.began_ns), "parent": parent or None,
            "workflow": _caller(call) if call else None, "service": service, "mailbox": unit.unread,
            "pending": len(unit.pending), **self._ties(unit.pid),
        }  # fmt: skip

    def _call(self, job: Job) -> dict[str, Any]:
        pid = _pid(job)
        began_ns = _begun_ns(job)
        return {
            "pid": pid or None, "kind": "call", "entry": job.function.id, "host": None,
            "state": "running" if job.begun_s else "waiting", "began_ns": began_ns, "age_s": _age_s(began_ns),
            "parent": None, "workflow": _caller(job), "service": None,
            # It lives in a thread, which is not asked: it may be computing.
            "mailbox": None, "pending": len(job.unit.pending) if job.unit else 0, **self._ties(pid),
        }  # fmt: skip

    def _ties(self, pid: str) -> dict[str, Any]:
        monitored_by, monitors, links = self._links.counts(pid)
        names = self._naming.names_of(pid) if pid else []
        return {"names": names, "monitored_by": monitored_by, "monitors": monitors, "links": links}


def memory_bytes() -> int:
    """How much memory this process has of the machine's; the most that it had where only that is known."""
    try:
        with open("/proc/self/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def _pid(job: Job) -> str:
    return job.unit.pid if job.unit is not None else ""


def _begun_ns(job: Job) -> int:
    """When a call began, or began to wait, by the clock of the wall."""
    return time.time_ns() - round((time.monotonic() - (job.begun_s or job.waits_since_s)) * 1e9)


def _age_s(began_ns: int) -> float:
    return round(max(0, time.time_ns() - began_ns) / 1e9, 3)


def _caller(job: Job) -> dict[str, Any] | None:
    """The workflow that has made a call, None when it was somebody else."""
    parsed = parse_workflow(job.reply)
    if parsed is None or parsed[1] != "ret":
        return None
    key, _, args = parsed
    return {"queue": key.queue, "id": key.id, "run": int(args[0]), "op": int(args[1]), "attempt": int(args[2])}


def _age_key(item: tuple[int, object]) -> int:
    return item[0]


def _whole(value: object, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else default
