"""Arguments and outcomes of calls that are too large for a message: out of an object store, and into one.

Of outcomes only those that somebody waits for in an inbox: that of a workflow's call is an event, and the outbox
(`mesh.outbox`) sees to it.

Invariant: what cannot be read or stored is what the call fails with; nothing is raised.
"""

from __future__ import annotations

from mesh import codec
from mesh.envelopes import outcome_context, request_context, why_closed
from mesh.errors import MeshError, NotPermitted, PayloadTooLarge
from mesh.failure import Failure, Kind
from mesh.objects import Objects
from mesh.subjects import function_request
from node.functions.job import Job
from node.workflows.outcomes import result_too_large


class LargeCalls:
    """The large payloads of one host's calls."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    async def fetch_arguments(self, job: Job) -> Failure | None:
        """Give a job the arguments that its request refers to; why that cannot be, if it cannot."""
        context = request_context(function_request(job.function.id), job.identity)
        try:
            job.request = await self._objects.fetched_in_call(job.identity, context, job.request)
        except NotPermitted as error:
            text = f"the arguments are too large for a message, and this host may not read them ({error})"
            return Failure(text, Kind.INVALID, False)
        except MeshError as error:
            return Failure(f"the arguments cannot be read: {error}", Kind.UNAVAILABLE, True)
        if reason := why_closed(job.request):
            # The next attempt stores them anew.
            return Failure(f"the arguments are {reason}", Kind.UNAVAILABLE, True)
        return None

    async def outcome_instead(self, job: Job, outcome: bytes, refused: PayloadTooLarge) -> bytes:
        """Store an outcome; what is answered instead of it."""
        try:
            return await self._objects.instead_of_outcome(job.identity, outcome_context(job.identity), outcome, refused)
        except PayloadTooLarge as error:
            return codec.encode_failure(result_too_large(error))
        except MeshError as error:
            text = f"the result is too large for a message and cannot be stored: {error}"
            return codec.encode_failure(Failure(text, Kind.UNAVAILABLE, True))
