"""Options that are read and change nothing, with what to use instead: so that nobody relies on what is not there.

Entries that were written for Temporal load unchanged, and what a mesh does by itself, or otherwise, is accepted in
them. Whoever has set such an option meant something by it. A note for each tells, in `mesh check` and once in the log
of a node. Here is the one list of them; all others are checked like any field (`node.registry.decoding`).

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from node.registry import kinds, meta
from node.registry.documents import FieldPath, Value
from node.registry.entries import Entry, EntryId, Problem
from node.registry.kinds import LuaCode, canonical_kind

_NO_POLLING: Final = "nothing is polled, calls and events come by themselves"
_BUILDS: Final = "changed code is told apart by `workflow.version`"
_LOCAL: Final = "short calls stay on the node of their workflow by themselves"
_NO_SESSIONS: Final = "there are no sessions; a process keeps state between calls"
_TAKE_TURNS: Final = "the processes of a node take turns, and each has a mailbox for 10,000 messages"
_LOOKED_AFTER: Final = "nodes look after their connection; `mesh node --metrics` serves /healthz and /readyz"

# Of each kind, by path below the entry's data, what to do instead.
_FIELDS: Final[Mapping[str, Mapping[FieldPath, str]]] = {
    kinds.CLIENT: {
        ("namespace",): "queues are kept apart by `tq_prefix`, or by accounts of the server",
        ("keep_alive_timeout",): "`keep_alive_time` says how often the server is pinged",
        ("health_check",): _LOOKED_AFTER,
        ("data_converter",): "payloads are encrypted with `worker_options.keys`, or `mesh node --keys`",
        ("tls", "cert_file"): "use `auth.type: mtls` with `auth.cert_file`",
        ("tls", "key_file"): "use `auth.type: mtls` with `auth.key_file`",
    },
    kinds.WORKER: {
        ("worker_options", name): instead
        for name, instead in {
            "max_concurrent_workflow_task_execution_size": "the workflows of a node take turns",
            "max_concurrent_activity_task_pollers": _NO_POLLING,
            "max_concurrent_workflow_task_pollers": _NO_POLLING,
            "deadlock_detection_timeout": "`mesh node --stuck-after` ends a node whose code stands still",
            "max_heartbeat_throttle_interval": "a host is asked as often as the call's `heartbeat_timeout` needs",
            "default_heartbeat_throttle_interval": "a host is asked as often as the call's `heartbeat_timeout` needs",
            "identity": "a node is named by `mesh node --id`",
            "deployment_name": _BUILDS,
            "build_id": _BUILDS,
            "use_versioning": _BUILDS,
            "default_versioning_behavior": _BUILDS,
            "max_concurrent_local_activity_execution_size": _LOCAL,
            "worker_local_activities_per_second": _LOCAL,
            "local_activity_worker_only": _LOCAL,
            "disable_eager_activities": _LOCAL,
            "max_concurrent_eager_activity_execution_size": _LOCAL,
            "max_concurrent_session_execution_size": _NO_SESSIONS,
            "enable_session_worker": _NO_SESSIONS,
            "disable_registration_aliasing": "a workflow can always be started by its name and by its ID",
        }.items()
    },
    kinds.PROCESS_HOST: {
        ("host", "workers"): _TAKE_TURNS,
        ("host", "queue_size"): _TAKE_TURNS,
        ("host", "local_queue_size"): _TAKE_TURNS,
    },
}
# What says the same as nothing.
_AS_WITHOUT: Final[Mapping[FieldPath, Value]] = {("namespace",): "default"}

# Options of calls and spawns in Lua that mean something elsewhere. Of names that code may use for something else only
# the long form is looked for.
_LUA: Final = (
    (
        re.compile(r"""(["'])(?:temporal\.|mesh\.)?activity\.task_queue\1"""),
        "activity.task_queue",
        "a call goes to any node that offers the function; `mesh node --only` and `--without` say which do",
    ),
    (
        re.compile(r"""(["'])(?:temporal\.|mesh\.)?workflow\.namespace\1"""),
        "namespace",
        "a workflow on another queue is spawned on the host of that queue",
    ),
    (
        re.compile(r"\btask_timeout\s*=|[\"'](?:temporal\.|mesh\.)?workflow\.task_timeout[\"']"),
        "task_timeout",
        "what a step may take is limited by itself, see docs/security.md",
    ),
)


def options_without_effect(entries: Mapping[EntryId, Entry], views: Mapping[EntryId, object]) -> list[Problem]:
    """A note for each option that is set and changes nothing."""
    return [note for entry in entries.values() for note in (*_of_fields(entry), *_of_code(entry, views.get(entry.id)))]


def _of_fields(entry: Entry) -> Iterator[Problem]:
    for path, instead in _FIELDS.get(canonical_kind(entry.kind), {}).items():
        value = _at(entry.data, path)
        if value and value != _AS_WITHOUT.get(path):  # what is off, or 0 for the default, asks for what there is
            yield _note(entry, path, ".".join(map(str, path)), instead)
    for path, value in meta.find_key(entry.meta, meta.ACTIVITY_LOCAL):
        if value is False:
            continue
        yield _note(entry, ("meta", *path), f"meta.{'.'.join(map(str, path))}", _LOCAL)
    lifecycle = ("lifecycle", "security")
    if _at(entry.data, lifecycle) is not None:
        yield _note(entry, lifecycle, ".".join(lifecycle), "accounts and permissions of the server say who may do what")


def _of_code(entry: Entry, view: object) -> Iterator[Problem]:
    if not isinstance(view, LuaCode):
        return
    for number, line in enumerate(view.source_text.splitlines(), 1):
        code = line.partition("--")[0]
        for pattern, name, instead in _LUA:
            if pattern.search(code):
                where = entry.line_of(("source",)) if entry.source_file == entry.file else number
                yield Problem(entry.source_file, where, view.id, _reason(f"the option {name}", instead))


def _note(entry: Entry, path: FieldPath, name: str, instead: str) -> Problem:
    return Problem(entry.file, entry.line_of(path), entry.id, _reason(name, instead))


def _reason(what: str, instead: str) -> str:
    return f"{what} has no effect: {instead}"


def _at(data: Value, path: FieldPath) -> Value:
    for part in path:
        if not isinstance(data, Mapping):
            return None
        data = data.get(str(part))
    return data
