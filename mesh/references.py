"""What stands in a message for a payload that is too large for one: a reference to an object. Pure.

A reference is an envelope of the kind 02 (`mesh.envelopes`) and then the msgpack array [name, size, chunks, digest]:
the object's name, how many bytes and chunks it has, and their SHA-256. Of which queue the object is says the message
that refers to it.

An object's name is four tokens, `<id>.<run>.<what>.<nonce>`: the workflow as it stands in subjects, the run it is
written for (0: before there is one), what it is (the kind of the event that refers to it, or one of the names below),
and what tells it from all others. It is the subject of the object's chunks, too, so those of a workflow or of a run
are found and removed through one filter.

Invariants: an object belongs to one workflow of one queue, and a reference to an object of another workflow is
refused: who may send a signal could otherwise have a workflow read what he may not.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from mesh import codec
from mesh.envelopes import REFERENCE, Closed, context_of
from mesh.errors import MeshError, Undecodable
from mesh.subjects import untoken

DIGEST_BYTES: Final = 32
NAME_LENGTH_MAX: Final = 1024  # an id has 512 at most, the rest is ours; and it has to fit into a subject
# The arguments of a call, which no event holds: of use until the call has its outcome.
ARGUMENTS: Final = "arg"
OUTCOME: Final = "ret"
CALL: Final = "call."  # how the identity of a call begins that no workflow makes (`mesh.calls`)
NO_QUEUE: Final = ""  # what belongs to no workflow: those calls
# The start that a schedule publishes again and again.
SCHEDULED: Final = "cron"

# What the history of a run cannot be put together without (`mesh.lineage`, marks): read at once by whoever reads the
# other payloads one after the other.
ARRANGE: Final = frozenset({"start", "mark", "kill", "end"})
_NAME_A_RUN: Final = frozenset({"ret", "exit", "mark", "attrs", "end"})

_TOKEN: Final = re.compile(r"[^\s.*>]+")
_PLAIN: Final = re.compile(r"[^A-Za-z0-9_\-]|-(?=[^A-Za-z0-9_])")


class Reference(NamedTuple):
    """Where a payload is. size: in bytes. digest: SHA-256 of all of them."""

    name: str
    size: int
    chunks: int
    digest: bytes

    def encode(self) -> bytes:
        """The bytes that stand for the payload."""
        return REFERENCE + codec.pack(list(self))

    @property
    def about(self) -> ObjectName:
        """The parts of the name."""
        return ObjectName(*self.name.split("."))


class ObjectName(NamedTuple):
    """The name of an object, by its tokens."""

    id_token: str
    run: str
    what: str
    nonce: str

    def __str__(self) -> str:
        return ".".join(self)


class Holder(NamedTuple):
    """What a message is that may refer to an object: of which workflow, which run (0: none yet), and of what kind."""

    queue: str
    id_token: str
    run: int
    what: str


class NotOfThisWorkflow(Undecodable):
    """Raised when a message refers to an object that is not of the workflow it was sent to."""

    code = "not-of-this-workflow"

    def __init__(self, name: str, id_token: str) -> None:
        self.name = name
        super().__init__(f"the object {name} is not one of workflow {id_token}: nobody may refer to it from there")


class ObjectMissing(MeshError):
    """Raised when an object is not there (any more), or not all of it. Nothing can be done without it."""

    code = "object-missing"

    def __init__(self, bucket: str, name: str, found: str) -> None:
        self.bucket = bucket
        self.name = name
        super().__init__(f"the object {name} of bucket {bucket} is missing ({found}); restore it from a backup")


class ObjectDamaged(MeshError):
    """Raised when what an object holds is not what was put into it."""

    code = "object-damaged"

    def __init__(self, bucket: str, name: str, reason: str) -> None:
        self.bucket = bucket
        self.name = name
        super().__init__(f"the object {name} of bucket {bucket} is damaged ({reason}); restore it from a backup")


def is_reference(data: bytes) -> bool:
    """Whether bytes stand for an object that nobody has tried to fetch yet."""
    return data[:3] == REFERENCE and not isinstance(data, Closed)


def decode_reference(data: bytes) -> Reference:
    """Read a reference. Raises Undecodable."""
    wire = codec.unpack(data[len(REFERENCE) :])
    match wire:
        case [str(name), int(size), int(chunks), bytes(digest)] if (
            parse_name(name) is not None and size > 0 and chunks > 0 and len(digest) == DIGEST_BYTES
        ):
            return Reference(name, size, chunks, digest)
    raise Undecodable("a reference is [name of four tokens, size, chunks, SHA-256]")


def run_of(data: bytes) -> int:
    """For which run the object was written that a reference names; 0 when that cannot be said."""
    try:
        run = decode_reference(data).about.run
    except Undecodable:
        return 0
    return int(run) if run.isdecimal() else 0


def parse_name(name: str) -> ObjectName | None:
    """The parts of an object's name; None when it is not one of ours."""
    parts = name.split(".") if len(name) <= NAME_LENGTH_MAX else []
    if len(parts) != len(ObjectName._fields) or not all(_TOKEN.fullmatch(part) for part in parts):
        return None
    return ObjectName(*parts)


def reference_to(data: bytes, id_token: str) -> Reference:
    """Read a reference in a message of this workflow. Raises Undecodable, NotOfThisWorkflow."""
    reference = decode_reference(data)
    if reference.about.id_token != id_token:
        raise NotOfThisWorkflow(reference.name, id_token)
    return reference


def holder_of(subject: str) -> Holder | None:
    """What a message on this subject, or stored under it, is; None when no object may stand for its payload."""
    parts = context_of(subject).split(".")
    if len(parts) < 5 or parts[:2] != ["mesh", "wf"]:
        return None
    kind = SCHEDULED if subject.startswith("mesh.at.") else parts[4]
    run = int(parts[5]) if kind in _NAME_A_RUN and len(parts) > 5 and parts[5].isdecimal() else 0
    return Holder(untoken(parts[2]), parts[3], run, kind)


def holder_of_call(identity: str) -> Holder | None:
    """The same of a call, by what it is asked after by: for a workflow's call that is where its outcome goes."""
    if not identity.startswith(CALL):
        return holder_of(identity)
    of = identity.removeprefix(CALL)
    return Holder(NO_QUEUE, of, 0, OUTCOME) if _TOKEN.fullmatch(of) is not None else None


def bucket_of(queue: str) -> str:
    """The bucket of a queue's objects: other characters than a bucket's name may have are written `--XX`.

    That of the calls that belong to no queue is `mesh`.
    """
    if queue == NO_QUEUE:
        return "mesh"
    return "mesh_" + _PLAIN.sub(lambda found: "".join(f"--{byte:02X}" for byte in _bytes(found[0])), queue)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
