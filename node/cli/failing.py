"""What a command says and which exit status it has when something goes wrong.

Not here: wrong usage, which is click's.
"""

from __future__ import annotations

from typing import Final

from mesh.envelopes import Unopened
from mesh.errors import (
    Disconnected,
    MeshError,
    NoResponders,
    OutcomeUnknown,
    RequestTimeout,
    Unreachable,
)

FAILED: Final = 1
NOT_REACHED: Final = 3


def exit_status(error: BaseException) -> int:
    """3 when the mesh could not be reached or did not answer, else 1."""
    error = _innermost(error)
    unanswered = isinstance(error, (Unreachable, Disconnected, RequestTimeout, OutcomeUnknown, NoResponders))
    return NOT_REACHED if unanswered else FAILED


def sentence(error: BaseException) -> str:
    """What happened and what to do, for a person."""
    error = _innermost(error)
    match error:
        case NoResponders() if error.subject.startswith("$JS."):
            return "the NATS server has no JetStream; start it with -js, or start one of ours with `mesh up APP`"
        case RequestTimeout():
            return f"{error}; it may be busy or unreachable: try again, or with a longer --timeout"
        case Unopened() if "encrypted" in error.reason:
            return f"{error}; give the keys with --keys FILE"
        case MeshError():
            return str(error)
        case OSError():
            return f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
        case _:
            return f"unexpected {type(error).__name__}: {error}; run it again with --debug and report what that shows"


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and error.exceptions:
        error = error.exceptions[0]
    return error
