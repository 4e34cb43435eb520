"""Python functions: async ones run on the event loop, all others in worker threads.

What a function raises is the failure of its call. Not here: who may call when (`node.functions.host`).
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import logging
import math
import traceback
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar, Final

import anyio
import anyio.abc
import anyio.to_thread

from mesh import codec
from mesh.errors import MeshError, Undecodable
from mesh.failure import Failure, Kind
from node.functions.call_bodies import decode_request
from node.functions.job import Answer, Job
from node.log_fields import working_for
from node.registry import PythonFunctionEntry

PYTHON_THREADS_MAX: Final = 64
FRAMES_MAX: Final = 10

_log = logging.getLogger(__name__)


class PythonFunctionMissing(MeshError):
    """Raised when a `function.python` entry names something that cannot be imported or called."""

    code = "python-function-missing"


class PythonCalls:
    """Runs the calls of the Python functions of a node."""

    kind: ClassVar = "python"

    def __init__(self, *, tasks: Callable[[], anyio.abc.TaskGroup], answer: Answer) -> None:
        self._tasks = tasks
        self._answer = answer
        self._callables: dict[str, tuple[Callable[..., Any], bool]] = {}  # whether it is async
        self._threads = anyio.CapacityLimiter(PYTHON_THREADS_MAX)

    def add(self, entry: PythonFunctionEntry) -> None:
        """Get a function ready to be called. Raises PythonFunctionMissing."""
        target = load_python(entry)
        self._callables[str(entry.id)] = target, inspect.iscoroutinefunction(target)

    def start(self, job: Job) -> None:
        """Run a call."""
        self._tasks().start_soon(self._run, job)

    async def _run(self, job: Job) -> None:
        outcome = codec.encode_failure(Failure("operation canceled", Kind.CANCELED, False))
        with anyio.CancelScope() as scope:
            job.stop = scope.cancel
            try:
                with working_for(job.about()), job.span.current() if job.span is not None else nullcontext():
                    outcome = await self._outcome(job)
            except (Exception, SystemExit) as error:  # the function's own failure is an outcome
                outcome = encode_failure_of(error)
                with working_for(job.about()):
                    # As a Lua function's: the outcome says what, and this where.
                    _log.error("%s failed: %s", job.function.id, failure_of(error), extra={"stack": frames_of(error)})
            except asyncio.CancelledError:
                # Also when it is the node that ends, up or not: what it was doing has no outcome, as nobody knows it.
                if anyio.current_effective_deadline() == -math.inf:
                    raise
                # Nobody cancelled this call: the function has let somebody else's cancellation out.
                outcome = codec.encode_failure(Failure("the function was cancelled from inside", Kind.INTERNAL))
        self._answer(job, outcome)

    async def _outcome(self, job: Job) -> bytes:
        call, is_async = self._callables[job.function.id]
        try:
            args = decode_request(job.request)
        except Undecodable as error:
            return codec.encode_failure(codec.undecodable_failure("request", error))
        if is_async:
            value = await call(*args)
        else:
            value = await anyio.to_thread.run_sync(lambda: call(*args), limiter=self._threads)
        try:
            return codec.encode_success(value)
        except (TypeError, ValueError, OverflowError) as error:
            return codec.encode_failure(Failure(f"the result cannot be sent: {error}", Kind.INVALID, False))


def load_python(entry: PythonFunctionEntry) -> Callable[..., Any]:
    """Import the callable of an entry. Raises PythonFunctionMissing."""
    source = f"{entry.module}:{entry.attribute}"
    try:
        target: Any = importlib.import_module(entry.module)
        for part in entry.attribute.split("."):
            target = getattr(target, part)
    except Exception as error:  # whatever importing somebody's module raises
        # Only of a module that is not found can its place be the reason.
        lost = isinstance(error, ModuleNotFoundError)
        raise PythonFunctionMissing(
            f"{entry.id}: {source} cannot be imported ({type(error).__name__}: {error})"
            + ("; is it installed, or its directory on PYTHONPATH?" if lost else "")
        ) from error
    if not callable(target):
        raise PythonFunctionMissing(f"{entry.id}: {source} is no callable")
    return target  # type: ignore[no-any-return]  # an imported object is untyped


def failure_of(error: BaseException) -> Failure:
    """What a Python exception says as a failure: attributes kind, retryable, details when it has them."""
    kind = getattr(error, "kind", None)
    retryable = getattr(error, "retryable", None)
    details = getattr(error, "details", None)
    if kind is None:
        kind = Kind.TIMEOUT if isinstance(error, TimeoutError) else Kind.INTERNAL
    return Failure(
        f"{type(error).__name__}: {error}" if not hasattr(error, "kind") else str(error),
        str(kind),
        retryable if isinstance(retryable, bool) else None,
        details if isinstance(details, Mapping) else {},
    )


def frames_of(error: BaseException) -> str:
    """Where in the user's code an exception was raised, a line for each frame, innermost first; ours are left out."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = max((i for i, frame in enumerate(frames) if frame.filename == __file__), default=-1)
    theirs = [f"{Path(frame.filename).name}:{frame.lineno}: in {frame.name}" for frame in frames[ours + 1 :]]
    return "\n".join(theirs[::-1][:FRAMES_MAX])


def encode_failure_of(error: BaseException) -> bytes:
    """What a Python exception says, as the outcome of a call; details that cannot be sent are left out."""
    failure = failure_of(error)
    try:
        return codec.encode_failure(failure)
    except (TypeError, ValueError, OverflowError) as problem:
        note = {"note": f"details could not be sent: {problem}"}
        return codec.encode_failure(Failure(failure.message, failure.kind, failure.retryable, note))
