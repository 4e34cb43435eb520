"""Every subject of the mesh: the one place that builds and parses them.

    mesh.wf.<queue>.<id>.<kind...>         what happens to a workflow; anybody with the right may publish
    mesh.in.<queue>.<id>.<kind...>         the same by whoever is in another account: nodes look at it and pass it on
    mesh.log.<queue>.<p>.<id>.<kind...>    the same as stored: the stream maps one to the other
    mesh.at.<queue>.<p>.<id>.<run>.<n>     scheduled messages (ADR-51)
    mesh.note.<queue>.<id>.<what>          live notices, not stored
    mesh.ended.<queue>.<id>.<run>          what the server says when it has stored the end of a run
    mesh.fn.<namespace...>.<name>          function requests, a queue group of hosts
    mesh.who.<namespace...>.<name>         "who has this call?", all hosts
    mesh.stop.<namespace...>.<name>        "nobody waits for this call any more", all hosts
    mesh.node.<node>.<verb>                requests to one node
    mesh.logs.<node>                       what it logs, line by line; not stored
    mesh.queue.<queue>.<p>.<verb>          requests to the owner of a partition
    mesh.events.<system>                   events for the units of all nodes, not stored
    mesh.api.<verb>                        requests to the control API, a queue group of nodes
    mesh.mq.<name>                         messages of a message queue (`queue.publish`), stored in its stream

An id, queue, topic or name is one token: characters that mean something in a subject (and `%`, blanks, anything
outside printable ASCII) are percent-encoded from UTF-8. Ordinary ids such as `order-1` stand as they are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal
from urllib.parse import unquote_to_bytes

from mesh.errors import InvalidName

STREAM_NAME_BYTES_MAX = 255  # the server's limit

# The server's default max_control_line is 4096 bytes and a subject has to fit with its reply.
TOKEN_BYTES_MAX = 512

# A few times as many as there are workflows in memory: an entry takes a few hundred bytes, and a node sees millions.
CACHED_NAMES_MAX = 8192

_OUTCOME: Final = re.compile(r"mesh\.wf\.[^.]+\.[^.]+\.ret(?:\.[^.]+){4,5}")
_UNSAFE = re.compile(rb"[^A-Za-z0-9_\-:@=+,~!/]")


@lru_cache(maxsize=CACHED_NAMES_MAX)
def token(name: str) -> str:
    """Encode a name as one subject token. Raises InvalidName when it is empty or too long."""
    if not name:
        raise InvalidName(
            "an empty name cannot stand in a subject; give a workflow id, queue or topic of at least one character"
        )
    try:
        raw = name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise InvalidName(f"{name!r} is no valid text: {error}") from error
    encoded = _UNSAFE.sub(lambda m: b"%%%02X" % m.group()[0], raw).decode("ascii")
    if len(encoded) > TOKEN_BYTES_MAX:
        raise InvalidName(
            f"{name[:40]!r}... takes {len(encoded)} bytes in a subject; at most {TOKEN_BYTES_MAX} are possible"
        )
    return encoded


@lru_cache(maxsize=CACHED_NAMES_MAX)
def untoken(text: str) -> str:
    """Decode one subject token; bytes that are no UTF-8 become surrogates."""
    if "%" not in text:
        return text
    return _unquoted(text)


@dataclass(frozen=True, slots=True)
class WorkflowKey:
    """A workflow: its queue and its id, decoded."""

    queue: str
    id: str

    def subject(self, *kind: str) -> str:
        """The subject on which something happens to this workflow; the parts of `kind` are tokens already."""
        return ".".join((f"mesh.wf.{token(self.queue)}.{token(self.id)}", *kind))

    def start(self) -> str:
        """Where a start is published."""
        return self.subject("start")

    def signal(self, topic: str) -> str:
        """Where a signal with this topic is published."""
        return self.subject("signal", token(topic))

    def ret(self, run: int, n: int, attempt: int, fp: str, seen: str = "") -> str:
        """Where the outcome of one attempt of an op is published. seen: what the code had seen when it asked for it."""
        return self.subject("ret", str(run), str(n), str(attempt), fp, *([seen] if seen else ()))

    def claim(self, run: int, n: int, attempt: int) -> str:
        """Where a host claims an attempt that must not run twice."""
        return self.subject("claim", str(run), str(n), str(attempt))

    def tick(self, run: int, n: int) -> str:
        """Where the server publishes a timer that fired."""
        return self.subject("tick", str(run), str(n))

    def exit(self, run: int, n: int) -> str:
        """Where the end of a child is told to its parent."""
        return self.subject("exit", str(run), str(n))

    def mark(self, run: int, name: str) -> str:
        """Where the owner records a value of its own."""
        return self.subject("mark", str(run), token(name))

    def attrs(self, run: int) -> str:
        """Where the owner records search attributes and memo as they are now."""
        return self.subject("attrs", str(run))

    def end(self, run: int) -> str:
        """Where the owner records the end of a run."""
        return self.subject("end", str(run))

    def note(self, what: str) -> str:
        """Where live notices about this workflow go; not stored."""
        return f"mesh.note.{token(self.queue)}.{token(self.id)}.{what}"

    def ended(self) -> str:
        """Where the server says that it has stored the end of a run of this workflow."""
        return f"mesh.ended.{token(self.queue)}.{token(self.id)}.*"

    def stored(self, partition: int | Literal["*"], *kind: str) -> str:
        """The subject as the stream stores it; partition "*" and trailing ">" are good for look-ups."""
        return stored_under(self.queue, partition, token(self.id), *kind)

    def schedule(self, partition: int, run: int, n: int | str) -> str:
        """Where the scheduled message of a timer is stored."""
        return f"mesh.at.{token(self.queue)}.{partition}.{token(self.id)}.{run}.{n}"


def stored_under(queue: str, partition: int | Literal["*"], id_token: str, *kind: str) -> str:
    """The subject as the stream stores it, from an id as it stands there."""
    return ".".join((f"mesh.log.{token(queue)}.{partition}.{id_token}", *kind))


def schedules_under(queue: str, partition: int, id_token: str) -> str:
    """All scheduled messages of a workflow's timers."""
    return f"mesh.at.{token(queue)}.{partition}.{id_token}.*.*"


def republished_ends(queue: str) -> dict[str, str]:
    """What a queue's stream publishes once it is stored, and under which subjects (`WorkflowKey.ended`)."""
    q = token(queue)
    return {"src": f"mesh.log.{q}.*.*.end.*", "dest": f"mesh.ended.{q}.{{{{wildcard(2)}}}}.{{{{wildcard(3)}}}}"}


def is_canonical(id_token: str) -> bool:
    """Whether an id is written the one way we write it; under any other way nothing is an event."""
    try:
        return token(untoken(id_token)) == id_token
    except InvalidName:
        return False


def can_be_named(subject: str) -> bool:
    """Whether a message is to be had from the server by its subject; not so by one that is no text, or unprintable.

    The server counts such a subject under another text. Who reads a history could never be sure that he has all of it,
    so what is stored there is no event to anybody.
    """
    return subject.isprintable() and "\ufffd" not in subject


def claim_of_ret(ret: str) -> str:
    """The claim subject that belongs to an outcome's subject (`mesh.wf.<queue>.<id>.ret.<run>.<n>.<attempt>...`)."""
    mesh, wf, queue, id_token, _, run, n, attempt, *_ = ret.split(".")
    return f"{mesh}.{wf}.{queue}.{id_token}.claim.{run}.{n}.{attempt}"


# What others may have happen to a workflow, each as the nodes hear it.
EVERY_INTAKE: Final = ("mesh.in.*.*.start", "mesh.in.*.*.signal.*", "mesh.in.*.*.cancel")


# Where services outside of the mesh answer a workflow's call.
OUTCOME_INTAKE: Final = "mesh.in.*.*.ret.>"


def to_intake(ret: str) -> str:
    """Where an outcome is handed in that is to be looked at before it is stored under its subject, `mesh.wf...`."""
    return "mesh.in." + ret.removeprefix("mesh.wf.")


def of_intake(subject: str) -> str | None:
    """The `mesh.wf` subject that a `mesh.in` one stands for; None when nothing there would be an event."""
    parts = subject.split(".")
    if len(parts) < 5 or parts[:2] != ["mesh", "in"] or not can_be_named(subject) or not is_canonical(parts[3]):
        return None
    target = ".".join(("mesh", "wf", *parts[2:]))
    match parts[4:]:
        case ["start" | "cancel"] | ["signal", _]:
            return target
    # As an owner has named it, with what its code had seen.
    return target if len(parts) == 10 and _OUTCOME.fullmatch(target) is not None else None


@dataclass(frozen=True, slots=True)
class StoredSubject:
    """A parsed `mesh.log` subject. `args` are the raw tokens after the kind."""

    queue: str
    partition: int
    id_token: str
    kind: str
    args: tuple[str, ...]

    @property
    def id(self) -> str:
        """The workflow id, decoded."""
        return untoken(self.id_token)


def parse_stored(subject: str) -> StoredSubject | None:
    """Parse a stored subject; None when it is not of that form."""
    parts = subject.split(".")
    if len(parts) < 6 or parts[0] != "mesh" or parts[1] != "log" or not parts[3].isdecimal():
        return None
    return StoredSubject(untoken(parts[2]), int(parts[3]), parts[4], parts[5], tuple(parts[6:]))


def parse_workflow(subject: str) -> tuple[WorkflowKey, str, tuple[str, ...]] | None:
    """Parse a `mesh.wf` subject into key, kind and the tokens after it; None when it is not of that form."""
    parts = subject.split(".")
    if len(parts) < 5 or parts[0] != "mesh" or parts[1] != "wf":
        return None
    return WorkflowKey(untoken(parts[2]), untoken(parts[3])), parts[4], tuple(parts[5:])


def listed_filters(queue: str) -> list[str]:
    """All that lists of workflows are made of."""
    every = f"mesh.log.{token(queue)}.*.*"
    return [f"{every}.start", f"{every}.end.*", f"{every}.attrs.*"]


def partition_filter(queue: str, partition: int) -> str:
    """All events of one partition."""
    return f"mesh.log.{token(queue)}.{partition}.>"


def sure_subject(queue: str) -> str:
    """A subject of a queue's stream that is nobody's: what is stored there tells a reader that a copy is up to date."""
    return f"mesh.at.{token(queue)}.sure"


@lru_cache(maxsize=4096)
def function_tokens(function_id: str) -> str:
    """`ns.sub:name` as subject tokens: namespace dots separate, dots in the name are encoded, so no two ids collide."""
    namespace, colon, name = function_id.partition(":")
    if not colon or not namespace or not name:
        raise InvalidName(f"{function_id!r} is no function id; write namespace:name")
    return ".".join((*(token(part) for part in namespace.split(".")), token(name)))


def function_request(function_id: str) -> str:
    """Where a call of this function is requested."""
    return f"mesh.fn.{function_tokens(function_id)}"


def function_who(function_id: str) -> str:
    """Where all hosts of this function are asked about a call."""
    return f"mesh.who.{function_tokens(function_id)}"


def function_stop(function_id: str) -> str:
    """Where all hosts of this function are told that nobody waits for a call any more."""
    return f"mesh.stop.{function_tokens(function_id)}"


def node_request(node_id: str, verb: str) -> str:
    """Where one node is asked something."""
    return f"mesh.node.{token(node_id)}.{verb}"


def log_subject(node_id: str) -> str:
    """Where a node publishes what it logs."""
    return f"mesh.logs.{token(node_id)}"


def owner_request(queue: str, partition: int, verb: str) -> str:
    """Where the owner of a partition is asked something."""
    return f"mesh.queue.{token(queue)}.{partition}.{verb}"


def api_request(verb: str) -> str:
    """Where the control API is asked for something."""
    return f"mesh.api.{verb}"


EVERY_EVENT = "mesh.events.*"


def event_subject(system: str) -> str:
    """Where events of a system are published for all nodes."""
    return f"mesh.events.{token(system)}"


def event_system(subject: str) -> str:
    """The system behind an event's subject."""
    return untoken(subject.removeprefix("mesh.events."))


def stream_name(queue: str) -> str:
    """The stream of a queue. Stream names take fewer characters than subjects: the rest is encoded with `=`."""
    return "WF_" + re.sub(rb"[^A-Za-z0-9_\-]", lambda m: b"=%02X" % m.group()[0], queue.encode()).decode("ascii")


EVERY_QUEUE = "mesh.wf.>"
EVERY_SUSPENDED_NOTE = "mesh.note.*.*.suspended"
EVERY_PURGED_NOTE = "mesh.note.*.*.purged"


def parse_note(subject: str) -> WorkflowKey:
    """The workflow that a live notice is about."""
    parts = subject.split(".")
    return WorkflowKey(untoken(parts[2]), untoken(parts[3]))


def queue_of_stream(stream: str) -> str:
    """The queue behind the name of its stream."""
    return unquote_to_bytes(stream.removeprefix("WF_").replace("=", "%")).decode("utf-8", "surrogateescape")


def message_queue(name: str) -> str:
    """Where the messages of a message queue are published. Not to be taken for a queue of workflows."""
    return f"mesh.mq.{token(name)}"


def message_queue_stream(name: str) -> str:
    """The stream of a message queue. Raises InvalidName when the name is too long for one."""
    stream = "MQ_" + bucket_key(name)
    if not name or len(stream) > STREAM_NAME_BYTES_MAX:
        raise InvalidName(
            f"queue name {name[:40]!r}... takes {len(stream)} bytes as the name of a stream, "
            f"at most {STREAM_NAME_BYTES_MAX} are possible; set a shorter queue_name"
        )
    return stream


def parse_delivery(ack: str) -> tuple[int, int] | None:
    """Parse the subject on which the server wants a message's ack: (deliveries so far, stream sequence).

    Both forms of it (ADR-15): `$JS.ACK.<stream>.<consumer>.<delivered>.<sseq>...` and the one with domain and account.
    """
    parts = ack.split(".")
    at = 4 if len(parts) == 9 else 6
    if len(parts) < 9 or parts[:2] != ["$JS", "ACK"] or not (parts[at].isdecimal() and parts[at + 1].isdecimal()):
        return None
    return int(parts[at]), int(parts[at + 1])


def bucket_key(name: str) -> str:
    """A name as a key of a KV bucket (`[A-Za-z0-9_=/-]`): the rest is encoded with `=`."""
    written = name.encode("utf-8", "surrogateescape")
    return re.sub(rb"[^A-Za-z0-9_\-]", lambda m: b"=%02X" % m.group()[0], written).decode("ascii")


def bucket_key_name(key: str) -> str:
    """The name behind a key."""
    return _unquoted(key.replace("=", "%"))


def _unquoted(text: str) -> str:
    try:
        raw = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a pair: only a file can have that, the mesh has bytes
        raw = text.encode("utf-8", "surrogatepass")
    return unquote_to_bytes(raw).decode("utf-8", "surrogateescape")


def may_be_answered(reply: str, *, outcomes: bool = True) -> bool:
    """Whether an answer may be published there: in somebody's inbox or, with outcomes, as that of a workflow's call.

    The server does not check the reply subject of a request, so who may only ask could have us publish an answer as a
    signal or an end of a workflow, which it may not publish itself.
    """
    if outcomes and _OUTCOME.fullmatch(reply) is not None:
        return True
    return not reply.startswith(("mesh.", "$"))
