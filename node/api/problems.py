"""Errors as the control API answers them: a code that HTTP's readers know, a sentence, and what else a program may use.

    {"error": {"code": 404, "kind": "not-found", "message": "no workflow 'x' on any queue (orders); did you mean y?"}}

Pure. 400: the request is wrong. 403: it is about what is encrypted, and keys are missing, here or there. 404: there is
nothing of that name. 408: it takes longer than the caller would wait. 409: it cannot be done as things stand. 503: the
mesh cannot do it at the moment. 500: we are wrong.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from mesh.client import NeedsKeys
from mesh.envelopes import Unopened
from mesh.errors import (
    Conflict,
    Disconnected,
    InvalidName,
    MeshError,
    NoResponders,
    NotFound,
    OutcomeUnknown,
    PayloadTooLarge,
    RequestTimeout,
    ServerRefused,
    Undecodable,
    Unreachable,
)
from mesh.hosts import SeveralHosts
from mesh.resetting import CannotReset, NoSuchEvent
from mesh.schedules import ScheduleExists
from mesh.starting import AlreadyStarted
from node.api.locating import EmptyMesh
from node.api.requests import BadRequest

BAD_REQUEST: Final = 400
REFUSED: Final = 403
NOT_FOUND: Final = 404
NOT_YET: Final = 408
CONFLICT: Final = 409
OURS: Final = 500
UNAVAILABLE: Final = 503

# The first that fits decides.
_CODES: Final[tuple[tuple[tuple[type[Exception], ...], int], ...]] = (
    ((BadRequest, InvalidName, PayloadTooLarge, NoSuchEvent), BAD_REQUEST),
    ((AlreadyStarted, CannotReset, Conflict, ScheduleExists, SeveralHosts), CONFLICT),
    ((EmptyMesh, Disconnected, Unreachable, NoResponders, RequestTimeout, OutcomeUnknown, ServerRefused), UNAVAILABLE),
    ((NotFound,), NOT_FOUND),
    ((NeedsKeys, Unopened), REFUSED),
    ((Undecodable,), OURS),
    ((ValueError,), BAD_REQUEST),  # of ours: a value that somebody gave
)


class StateError(MeshError):
    """Raised when something cannot be done in the state a thing is in. state: its record, for the caller.

    status: of the API's answer.
    """

    code = "wrong-state"
    status = CONFLICT

    def __init__(self, text: str, state: dict[str, Any]) -> None:
        self.state = state
        super().__init__(text)


class Problem(NamedTuple):
    """An error as it is answered."""

    code: int
    message: str
    record: dict[str, Any]


def problem_of(error: BaseException) -> Problem:
    """What an error is to the caller."""
    code = error.status if isinstance(error, StateError) else _code(error)
    message = str(error) if isinstance(error, MeshError) else f"unexpected {type(error).__name__}: {error}"
    record = {"code": code, "kind": getattr(error, "code", "internal"), "message": message}
    if isinstance(error, StateError):
        record["state"] = error.state
    return Problem(code, message, {"error": record})


def _code(error: BaseException) -> int:
    if not isinstance(error, MeshError):
        return OURS
    return next((code for classes, code in _CODES if isinstance(error, classes)), OURS)
