"""The endpoints of the control API: their names, their fields, and what carries them out. To add one, add a line."""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

from mesh.listing import LIMIT_MAX
from mesh.subjects import api_request
from node.api.requests import Field, Kind

WAIT_S_MAX: Final = 300.0
PAGE_EVENTS_MAX: Final = 10_000
PROCESSES_MAX: Final = 10_000

Verb = Callable[..., Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class EndpointSpec:
    """One endpoint. where: module and function that carry it out, as `module:function`; called as f(asker, **fields).

    answer: the record it answers with. key: a list that it gives is answered as {key: list}.
    of: what it is called with: the asker, its client, or the projection; without that a node does not serve it.
    """

    name: str
    where: str
    about: str
    answer: str
    fields: tuple[Field, ...] = ()
    key: str = ""
    of: Literal["asker", "client", "projection"] = "asker"

    @property
    def subject(self) -> str:
        """Where it is requested."""
        return api_request(self.name)

    def load(self) -> Verb:
        """Import what carries it out."""
        module, _, attribute = self.where.partition(":")
        return cast("Verb", getattr(importlib.import_module(module), attribute))


ID: Final = Field("id", Kind.TEXT, "id of the workflow", required=True)
QUEUE: Final = Field("queue", Kind.TEXT, "queue of the workflow, where an id is on several")
RUN: Final = Field("run", Kind.INTEGER, "an older run of it, by the number of its start", least=0)
ARGS: Final = Field("args", Kind.LIST, "arguments, a list")
_EVENT: Final = Field("event", Kind.INTEGER, "number of the event, from 1, or its stream sequence", required=True)
_CONFLICT: Final = ("use_existing", "fail", "terminate_existing")
_REUSE: Final = ("allow_duplicate", "allow_duplicate_failed_only", "reject_duplicate")
_START: Final = (
    Field("workflow", Kind.TEXT, "the workflow, as namespace:name", required=True),
    ARGS,
    Field("host", Kind.TEXT, "worker or task queue to run on; needed when several offer the workflow"),
    Field("memo", Kind.OBJECT, "notes to keep with it"),
    Field("attrs", Kind.OBJECT, "search attributes"),
    Field("run_timeout", Kind.DURATION, "limit of one run", least=0),
    Field("execution_timeout", Kind.DURATION, "limit of all runs together", least=0),
    Field("retry_policy", Kind.OBJECT, "what to do when it fails"),
)

_WHICH: Final = (Field("id", Kind.TEXT, "id of the schedule", required=True), QUEUE)
_SCHEDULE: Final = "{id, queue, workflow, args, cron, every, timezone, paused, next, run, last_run, last_status}"

ENDPOINTS: Final = (
    EndpointSpec(
        "start", "node.api.verbs:start", "Start a workflow.", "{id, queue, run, existing}",
        (
            *_START,
            Field("id", Kind.TEXT, "its id; by default one that is new"),
            Field("conflict", Kind.TEXT, "when one with this id runs", choices=_CONFLICT),
            Field("reuse", Kind.TEXT, "when one with this id has run", choices=_REUSE),
            Field("start_delay", Kind.DURATION, "begin this much later", least=0),
            Field("messages", Kind.LIST, "signals it begins with, each {topic, value}"),
            Field("cron", Kind.TEXT, "start it regularly; see schedule.add"),
        ),
    ),
    EndpointSpec(
        "signal", "node.api.verbs:signal", "Send a signal to a running workflow.", "{id, queue, topic, seq}",
        (
            ID,
            Field("topic", Kind.TEXT, "topic of the signal", required=True),
            Field("value", Kind.ANY, "its value"),
            QUEUE,
        ),
    ),
    EndpointSpec(
        "result", "node.api.verbs:result", "Wait for the end of a workflow. Error 408 when it has not ended in time.",
        "{id, queue, run, status, value, error}",
        (
            ID,
            QUEUE,
            Field("run", Kind.INTEGER, "wait for the end of what this run began; by default the newest run", least=0),
            Field("timeout", Kind.DURATION, "how long to wait, 4s by default", least=0, most=WAIT_S_MAX),
        ),
    ),
    EndpointSpec(
        "describe", "node.api.verbs:describe", "What a workflow is doing, or how it ended.",
        "as `mesh show --json` prints",
        (
            ID,
            QUEUE,
            RUN,
            Field("at", Kind.INTEGER, "how it was at this event: its number, or its stream sequence", least=1),
            Field("last", Kind.INTEGER, "how many events, the newest; 0 for all, 200 by default", least=0),
        ),
    ),
    EndpointSpec(
        "list", "node.api.listing:list_workflows", "List and search workflows. Served by nodes that keep a projection.",
        "{workflows, next, lag}",
        (
            Field("status", Kind.TEXTS, "only in this state, or one of these"),
            Field("type", Kind.TEXT, "only of this type, as namespace:name"),
            Field("queue", Kind.TEXT, "only on this queue"),
            Field("id", Kind.TEXT, "only those whose id begins like this"),
            Field("where", Kind.TEXT, "only those that fit, in the language of docs/search.md"),
            Field("order", Kind.TEXT, "started, ended, duration or id; with - in front the largest first"),
            Field("limit", Kind.INTEGER, "how many, 50 by default", least=1, most=LIMIT_MAX),
            Field("cursor", Kind.TEXT, "go on behind the page that this cursor came with as `next`"),
            Field("all_runs", Kind.FLAG, "every run, not only the newest of each id"),
        ),
        of="projection",
    ),
    EndpointSpec(
        "count", "node.api.listing:count_workflows", "Count workflows. Served by nodes that keep a projection.",
        "{counts, lag}",
        (
            Field("by", Kind.TEXTS, "what is counted by: status, type, queue; status and type by default"),
            Field("all_runs", Kind.FLAG, "every run, not only the newest of each id"),
        ),
        of="projection",
    ),
    EndpointSpec(
        "history", "node.api.verbs:history", "The events of a workflow's newest run.",
        "{id, queue, run, events_total, events, next}",
        (
            ID,
            QUEUE,
            RUN,
            Field("after", Kind.INTEGER, "begin after the event of this number", least=0),
            Field("limit", Kind.INTEGER, "how many, 200 by default", least=1, most=PAGE_EVENTS_MAX),
        ),
    ),
    EndpointSpec("cancel", "node.api.verbs:cancel", "Ask a workflow to stop.", "{id, queue, run}", (ID, QUEUE)),
    EndpointSpec(
        "terminate", "node.api.verbs:terminate", "End a workflow without asking it, and a schedule of its id.",
        "{id, queue, run}",
        (ID, QUEUE, Field("force", Kind.FLAG, "also when its start cannot be read; its own children go on then")),
    ),
    EndpointSpec(
        "reset", "node.api.verbs:reset", "Run a workflow anew from one of its events.",
        "{id, queue, run, base, event, seq}",
        (
            ID,
            _EVENT,
            QUEUE,
            Field("reason", Kind.TEXT, "why, to be kept in the history"),
            Field("signals", Kind.FLAG, "whether the signals that came after the event are given to the new run"),
            Field("without", Kind.LIST, "numbers of signals after the event that are not given to the new run"),
        ),
    ),
    EndpointSpec(
        "call", "node.api.verbs:call", "Call a function.", "{function, value, error}",
        (
            Field("function", Kind.TEXT, "the function, as namespace:name", required=True),
            ARGS,
            Field("timeout", Kind.DURATION, "how long to wait, 4s by default", least=0, most=WAIT_S_MAX),
        ),
    ),
    EndpointSpec(
        "schedule.add", "node.api.scheduling:add", "Have a workflow started regularly.", _SCHEDULE,
        (
            Field("id", Kind.TEXT, "id of the schedule and of the workflow it starts", required=True),
            *_START,
            Field("cron", Kind.TEXT, "when: minute hour day month weekday; this or every"),
            Field("timezone", Kind.TEXT, "whose clock cron goes by, such as Europe/Paris; UTC by default"),
            Field("every", Kind.TEXT, "how often, a duration of at least a second, such as 5m; this or cron"),
            Field("paused", Kind.FLAG, "do not start it before it is resumed"),
            Field("replace", Kind.FLAG, "take the place of one with this id"),
        ),
    ),
    EndpointSpec(
        "schedule.ls", "node.api.scheduling:every_schedule", "The schedules.", _SCHEDULE,
        (Field("queue", Kind.TEXT, "only those of this queue"),), key="schedules",
    ),
    EndpointSpec(
        "schedule.pause", "node.api.scheduling:pause", "Start nothing any more until it is resumed.", _SCHEDULE,
        _WHICH,
    ),
    EndpointSpec(
        "schedule.resume", "node.api.scheduling:resume", "Start it again when it is due.", _SCHEDULE, _WHICH
    ),
    EndpointSpec(
        "schedule.trigger", "node.api.scheduling:trigger", "Start it now, paused or not.", "{id, queue, run}", _WHICH
    ),
    EndpointSpec(
        "schedule.rm", "node.api.scheduling:remove", "Forget a schedule; a run that is open goes on.", "{id, queue}",
        _WHICH,
    ),
    EndpointSpec(
        "nodes", "node.api.directory:nodes", "The nodes of the mesh.", "as `mesh nodes --json` prints",
        key="nodes", of="client",
    ),
    EndpointSpec(
        "functions", "node.api.directory:functions", "The functions of the mesh.", "as `mesh functions --json` prints",
        key="functions", of="client",
    ),
    EndpointSpec(
        "services", "node.api.directory:services", "The services of the mesh.", "as `mesh services --json` prints",
        key="services", of="client",
    ),
    EndpointSpec(
        "processes", "node.api.directory:processes", "Processes and function calls under way.",
        "as `mesh ps --json` prints",
        (
            Field("node", Kind.TEXT, "only those of this node"),
            Field("entry", Kind.TEXT, "only those whose entry fits this pattern, such as app:*"),
            Field("pid", Kind.TEXT, "only this one"),
            Field("order", Kind.TEXT, "which come first", choices=("started", "newest", "mailbox")),
            Field("limit", Kind.INTEGER, "how many, 200 by default", least=1, most=PROCESSES_MAX),
        ),
        key="processes", of="client",
    ),
)  # fmt: skip


def endpoint(name: str) -> EndpointSpec | None:
    """The endpoint of that name."""
    return next((spec for spec in ENDPOINTS if spec.name == name), None)


def names() -> Iterator[str]:
    """The names of all endpoints."""
    return (spec.name for spec in ENDPOINTS)
