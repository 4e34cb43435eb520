"""Claims: "I run this attempt", written into a workflow's history before a call begins that may run only once.

The claim is written where none must be yet, so of all hosts that a call comes to one gets it. It holds a number of its
own: a claim that was stored, and not acknowledged in time, is written again, and what then stands in the way is ours.

Not here: what a host does with a call that is another's (`node.functions.host`), when services outside of the mesh are
asked (`node.workflows.foreign_calls`).
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable

from anyio.abc import TaskGroup

from mesh.errors import Conflict, MeshError
from mesh.jetstream import JetStream
from mesh.outbox import Ack, Outbox
from mesh.subjects import claim_of_ret, stream_name
from node.functions.call_headers import CLAIM_LINE, HEADER_CLAIM, value_of
from node.functions.job import Job
from node.workflows.background import insist


class Claims:
    """The claims of one host. won: begins a call that is its own. lost: leaves a call to others, and may say why."""

    def __init__(
        self,
        *,
        js: JetStream,
        outbox: Outbox,
        node_id: str,
        tasks: Callable[[], TaskGroup],
        won: Callable[[Job], None],
        lost: Callable[[Job, MeshError | None], None],
    ) -> None:
        self._js = js
        self._outbox = outbox
        self._node_id = node_id.encode()
        self._tasks = tasks
        self._won = won
        self._lost = lost
        # What our claims are told by from those of a node of this name before it restarted, and from each other.
        nonce = secrets.token_urlsafe(9)
        self._names = (f"{nonce}-{n}" for n in itertools.count(1))

    def make(self, job: Job) -> None:
        """Claim a call; it is won or lost later."""
        name = next(self._names)

        def on_ack(ack: Ack) -> None:
            if ack.error is None:
                self._won(job)
            elif isinstance(ack.error, Conflict):
                self._tasks().start_soon(self._look_whose, job, name)
            else:
                self._lost(job, ack.error)

        headers = {"Nats-Expected-Last-Subject-Sequence": "0", HEADER_CLAIM: name}
        self._outbox.write(claim_of_ret(job.reply), self._node_id, headers, on_ack)

    async def _look_whose(self, job: Job, name: str) -> None:
        """There is a claim already: another host's, or our own, repeated because nobody acknowledged it in time."""
        refusal: MeshError | None = None
        try:
            subject = claim_of_ret(job.reply)
            if await insist(lambda: is_claim_named(self._js, subject, name), f"claim {subject}", job.about()):
                self._won(job)
                return
        except MeshError as error:
            refusal = error  # this host may only answer calls
        self._lost(job, refusal)


async def is_claim_named(js: JetStream, subject: str, name: str) -> bool:
    """Whether the claim that a history has under a subject is the one of that name."""
    _, _, queue, id_token, *kind_and_args = subject.split(".")
    everywhere = f"mesh.log.{queue}.*.{id_token}.{'.'.join(kind_and_args)}"
    stored = await js.get_last(stream_name(queue), everywhere, from_leader=True)
    return stored is not None and value_of(stored.raw_headers or b"", CLAIM_LINE) == name
