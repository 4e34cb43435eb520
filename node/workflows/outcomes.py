"""Outcomes as others have written them into the history, read as our own.

Pure. An outcome may come from a host of ours, from a micro service that knows nothing of us, or from a person with a
command line: nothing that arrives raises here. What nobody can read is a failure that says so.
"""

from __future__ import annotations

from mesh import codec
from mesh.errors import PayloadTooLarge, TooLarge, Undecodable
from mesh.events import Event
from mesh.failure import Failure, Kind


def read_outcome(event: Event) -> tuple[bytes, Failure | None]:
    """The outcome of an op in our own form, and the failure it carries. A success of our own hosts is left as it is."""
    data = event.data
    if data[:3] != codec.SUCCESS_PREFIX:
        return normal_outcome(event)
    try:
        codec.unpack(data[3:])
    except Undecodable as error:
        failure = codec.undecodable_failure("outcome", error)
        return codec.encode_failure(failure), failure
    return data, None


def normal_outcome(event: Event) -> tuple[bytes, Failure | None]:
    """An outcome in our own form, whoever wrote it, and the failure it carries."""
    if event.raw_headers:
        headers = event.headers
        code = headers.get("Nats-Service-Error-Code")
        if code is not None:
            text = headers.get("Nats-Service-Error") or f"service error {code}"
            failure = Failure(text, service_error_kind(code), None, {"code": code})
            return codec.encode_failure(failure), failure
    try:
        ok, value = codec.decode_outcome(event.data)
        if ok:
            return codec.encode_success(value), None
        return codec.encode_failure(value), value
    except ValueError as error:  # Undecodable, or nested so deep that it can be read but not be written
        failure = codec.undecodable_failure("outcome", error)
        return codec.encode_failure(failure), failure


def result_too_large(error: PayloadTooLarge) -> Failure:
    """What a call or a workflow fails with whose result cannot be stored."""
    if isinstance(error, TooLarge):
        text = f"the result is too large: {error}"
    else:
        text = (
            f"the result takes {error.payload_bytes} bytes, the server takes at most {error.payload_bytes_max}; "
            "return a reference"
        )
    return Failure(text, Kind.INVALID, False)


def service_error_kind(code: str) -> str:
    """The kind of error behind a micro service's numeric code, which services take from HTTP (ADR-32)."""
    return {
        "400": Kind.INVALID, "401": Kind.PERMISSION_DENIED, "403": Kind.PERMISSION_DENIED, "404": Kind.NOT_FOUND,
        "408": Kind.TIMEOUT, "409": Kind.CONFLICT, "422": Kind.INVALID, "429": Kind.RATE_LIMITED,
        "503": Kind.UNAVAILABLE, "504": Kind.TIMEOUT,
    }.get(code, Kind.INTERNAL)  # fmt: skip
