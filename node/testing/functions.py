"""Functions in a simulation: what a test has put in their place, else the app's own.

A Lua function of the app runs for real, in virtual time; so does a Python function, in no time at all. What only the
outside world could answer has to be replaced.

Invariant: a call is answered at most once.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from mesh import codec
from mesh.failure import Failure, Kind
from node.functions.python_calls import encode_failure_of, load_python
from node.registry import EntryId, LuaFunctionEntry, NatsFunctionEntry, ProcessEntry, PythonFunctionEntry
from node.testing.agenda import Agenda, Appointment
from node.testing.app import App
from node.testing.errors import NotReplaced, SimulationError, UnknownName
from node.testing.outcomes import Answer, FunctionFails, HostLost, NoAnswer
from node.testing.records import Call

CANCELED: Final = codec.encode_failure(Failure("operation canceled", Kind.CANCELED, False))

Reply = Callable[[bytes], None]


@dataclass(slots=True)
class Replacement:
    """What a test has put in the place of a function. outcomes: of successive attempts; the last one stays."""

    outcomes: list[Any]
    after_ns: int
    calls: int = 0

    def next(self) -> Any:
        """What the next attempt comes to."""
        outcome = self.outcomes[min(self.calls, len(self.outcomes) - 1)]
        self.calls += 1
        return outcome


class Running:
    """A call under way. done: gets its outcome. lost: is told when its host has died."""

    def __init__(self, done: Reply, lost: Callable[[], None]) -> None:
        self._done = done
        self._lost = lost
        self._over = False
        self.later: Appointment | None = None

    def answer(self, outcome: bytes) -> None:
        """Give the call its outcome, if nobody has."""
        if not self._over:
            self._over = True
            self._done(outcome)

    def lose(self) -> None:
        """Its host is gone."""
        if not self._over:
            self._over = True
            self._lost()

    def stop(self) -> None:
        """Somebody asks it to stop; it answers in the end."""
        if self.later is not None:
            self.later.call_off()
        self.answer(CANCELED)


LuaRunner = Callable[[Call, bytes, str | None, Running], Running]


class Functions:
    """Makes the calls of a simulation.

    calls: every attempt so far. run_lua: runs Lua, of the app or the source given.
    """

    def __init__(self, app: App, agenda: Agenda, run_lua: LuaRunner) -> None:
        self.app = app
        self.calls: list[Call] = []
        self._agenda = agenda
        self._run_lua = run_lua
        self._replaced: dict[str, Replacement] = {}

    def known(self) -> set[str]:
        """Everything that can be called."""
        return self.app.function_ids() | set(self._replaced)

    def replace(self, function_id: str, what: Any, after_ns: int, *, elsewhere: bool) -> None:
        """Put something in the place of a function. Raises UnknownName."""
        if not elsewhere and function_id not in self.known():
            way_out = "If another app offers it, say elsewhere=True."
            raise UnknownName("function", function_id, self.known(), way_out)
        outcomes = list(what) if isinstance(what, list | tuple) else [what]
        if not outcomes:
            raise SimulationError(f"{function_id}: an empty list of outcomes says nothing; to return one: answer([])")
        self._replaced[function_id] = Replacement(outcomes, after_ns)

    def of(self, function_id: str) -> list[Call]:
        """All attempts of a function so far. Raises UnknownName."""
        if function_id not in self.known():
            raise UnknownName("function", function_id, self.known())
        return [call for call in self.calls if call.function == function_id]

    def begin(
        self, function_id: str, request: bytes, done: Reply, lost: Callable[[], None], *, attempt: int, caller: str
    ) -> Running:
        """Begin a call; `done` gets its outcome, at once or later. Raises NotReplaced, UnknownName."""
        args, context = codec.decode(request)
        call = Call(function_id, list(args), self._agenda.elapsed_s, attempt, caller, context or {})
        self.calls.append(call)
        running = Running(done, lost)
        replacement = self._replaced.get(function_id)
        if replacement is not None:
            what = replacement.next()
            if isinstance(what, str):
                return self._run_lua(call, request, what, running)
            self._settle(running, function_id, _outcome_of(what, call), replacement.after_ns)
            return running
        view: object = self.app.registry.functions().get(EntryId(function_id)) or self.app.registry.processes().get(
            EntryId(function_id)
        )
        match view:
            case LuaFunctionEntry():
                return self._run_lua(call, request, None, running)
            case ProcessEntry() if view.default_host:
                return self._run_lua(call, request, None, running)
            case PythonFunctionEntry():
                self._settle(running, function_id, self._python(view, call), 0)
                return running
            case NatsFunctionEntry():
                raise NotReplaced(function_id, f"is served by whoever listens on {view.subject}")
            case _:
                raise UnknownName("function", function_id, self.known(), f"It is called by {caller or 'the test'}.")

    def _settle(self, running: Running, function_id: str, outcome: Any, after_ns: int) -> None:
        match outcome:
            case NoAnswer():
                return
            case HostLost():
                after_ns += outcome.after_ns
                end: Callable[[], None] = running.lose
            case FunctionFails():
                after_ns += outcome.after_ns
                failed = encode_failure_of(outcome)
                end = lambda: running.answer(failed)  # noqa: E731
            case BaseException():
                failed = encode_failure_of(outcome)
                end = lambda: running.answer(failed)  # noqa: E731
            case _:
                value = outcome
                if isinstance(outcome, Answer):
                    value, after_ns = outcome.value, after_ns + outcome.after_ns
                succeeded = _encoded(function_id, value)
                end = lambda: running.answer(succeeded)  # noqa: E731
        if after_ns:
            running.later = self._agenda.at(self._agenda.now_ns + after_ns, end)
        else:
            end()

    def _python(self, entry: PythonFunctionEntry, call: Call) -> Any:
        if self.app.directory is not None:
            from node.cli.apps import add_to_path

            add_to_path(self.app.directory)
        return _called(load_python(entry), call.args, failures=(Exception, SystemExit))


def _outcome_of(what: Any, call: Call) -> Any:
    """What a replacement comes to: a callable is called."""
    # A wrong assertion in a test's own function is the test's failure, never the function's.
    return (
        _called(what, call.args, failures=(Exception,), but=(AssertionError, SimulationError))
        if callable(what)
        else what
    )


def _called(
    function: Callable[..., Any],
    args: list[Any],
    *,
    failures: tuple[type[BaseException], ...],
    but: tuple[type[BaseException], ...] = (),
) -> Any:
    try:
        value = function(*args)
        return _awaited(value) if inspect.iscoroutine(value) else value
    except but:
        raise
    except failures as error:
        return error


def _awaited(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The value of a coroutine, in an event loop of its own; also where the test itself runs in one."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    came: dict[str, Any] = {}

    def run() -> None:
        try:
            came["value"] = asyncio.run(coroutine)
        except BaseException as error:  # raised again in the thread that waits
            came["error"] = error

    thread = threading.Thread(target=run, name="simulated function")
    thread.start()
    thread.join()
    if "error" in came:
        raise came["error"]
    return came["value"]


def _encoded(function_id: str, value: Any) -> bytes:
    try:
        return codec.encode_success(value)
    except (TypeError, ValueError, OverflowError) as error:
        return codec.encode_failure(
            Failure(f"the result of {function_id} cannot be sent: {error}", Kind.INVALID, False)
        )
