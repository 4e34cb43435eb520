"""The starts that code makes: of the children of a workflow, and of workflows by functions and processes.

Pure. Carrying them out is done in `node.workflows.others` and `node.units.live`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from mesh import codec
from mesh.errors import InvalidName
from mesh.events import Parent, StartSpec
from mesh.hosts import HostRecord
from mesh.starting import ENTROPY_BYTES, ConflictPolicy, ReusePolicy
from mesh.subjects import WorkflowKey
from node.workflows.ops import OpState
from node.workflows.retry import decode_policy


def child_start(key: WorkflowKey, host: HostRecord, run: int, op: OpState, target: HostRecord) -> StartSpec:
    """The start of the child that a spawn op asks for. Raises InvalidName for options that cannot be."""
    options = op.options.get("options") or {}
    messages = tuple({**message, "from": host.pid(key.id)} for message in op.options.get("messages") or ())
    return start_spec(
        op.target, target, op.payload, options, messages, parent=Parent(key.queue, key.id, run, op.n),
        entropy=_entropy(key, run, op),
    )  # fmt: skip


def policies(options: Mapping[str, Any]) -> tuple[ConflictPolicy, ReusePolicy]:
    """What is to happen when a workflow with this id runs, or has run: what the options say, or what follows."""
    conflict: ConflictPolicy = options.get("id_conflict_policy") or ("use_existing" if options.get("id") else "fail")
    if options.get("execution_error_when_already_started"):
        conflict = "fail"
    return conflict, options.get("id_reuse_policy") or "allow_duplicate"


def child_host(host: HostRecord, op: OpState) -> str | None:
    """On which other worker or task queue a spawn op wants its child; None for the parent's own."""
    name = str((op.options.get("options") or {}).get("task_queue") or op.options.get("host", ""))
    return None if name in (host.worker, host.queue) else name


def start_spec(
    workflow: str,
    host: HostRecord,
    request: bytes,
    options: Mapping[str, Any],
    messages: tuple[Mapping[str, Any], ...],
    *,
    entropy: bytes,
    parent: Parent | None = None,
) -> StartSpec:
    """A start from a request body ([args, context]) and normalized start options (durations in ns).

    Raises InvalidName for an option whose inside is wrong; types were checked by whoever gave them.
    """
    args, context = codec.decode(request)
    _check_insides(options)
    policy = options.get("retry_policy")  # an empty Lua table arrives as an empty list
    return StartSpec(
        workflow=workflow,
        args=codec.pack(args),
        host=host.worker,
        client=host.client,
        context=context or {},
        entropy=entropy,
        parent=parent,
        messages=messages,
        run_timeout_ns=options.get("run_timeout") or 0,
        execution_timeout_ns=options.get("execution_timeout") or 0,
        start_delay_ns=options.get("start_delay") or 0,
        retry_policy={} if policy == [] else policy,
        cron=options.get("cron_schedule") or "",
        memo=options.get("memo") or {},
        attrs=options.get("search_attributes") or {},
        encrypted=host.encrypted,
    )


def _check_insides(options: Mapping[str, Any]) -> None:
    try:
        decode_policy(options.get("retry_policy") or None)
    except ValueError as error:
        raise InvalidName(str(error)) from error
    for name in ("memo", "search_attributes"):
        values = options.get(name) or {}
        if not isinstance(values, Mapping) or not all(isinstance(key, str) for key in values):
            raise InvalidName(f"{name} must be a table with texts as keys")
    for key, value in (options.get("search_attributes") or {}).items():
        plain = isinstance(value, str | bool | int | float)
        if not plain and not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
            raise InvalidName(
                f"search_attributes must be strings, booleans, numbers or lists of strings; {key} is {value!r}"
            )


def child_id(key: WorkflowKey, run: int, op: OpState) -> str:
    """The id of a child: what the code says, or one that follows from parent, run and op."""
    options = op.options.get("options") or {}
    return str(options.get("id") or f"{key.id}_{run}_{op.n}")


def _entropy(key: WorkflowKey, run: int, op: OpState) -> bytes:
    # Derived, so that a start that is repeated after a crash is recognised as the same.
    text = f"{key.queue}/{key.id}/{run}/{op.n}"
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=ENTROPY_BYTES).digest()
