"""Replaying recordings in other processes, with a crash after every event.

`Replayers` starts a few processes that differ as nodes do (Python's hash seed, time zone, locale, the collector of Lua,
addresses and with them Lua's hash seed) and gives each recording to all of them at once; each takes its share of the
crashes. Run as a program (`python -m tests.fuzz.replays`) this file is such a process: recordings in on stdin, what is
different out on stdout.

What is compared: of the whole history and of each prefix of it, followed by the event that comes next, the ops that
came up (number, kind, target, fingerprint, bytes of the arguments, options, times) and in which order, where the run
stood afterwards with the stack of every coroutine, and the bytes of its end.
"""

from __future__ import annotations

import logging
import os
import random
import select
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import msgpack

from mesh import codec
from mesh.events import Event, start_spec_of
from mesh.subjects import WorkflowKey
from node.machine.vm import LuaVM
from node.testing.app import App
from node.workflows.opening import Opening
from node.workflows.replaying import Step, recorded_marks, replay_steps
from node.workflows.run import Run
from tests.fuzz import faults
from tests.fuzz.scenarios import Recording, RunRecording, asked_for, how_ended, recording_from_wire, where

ANSWER_TIMEOUT_S: Final = 60.0
# Of a long history so many crashes are tried, evenly spread.
CRASHES_MAX: Final = 60
SURROUNDINGS: Final[tuple[Mapping[str, str], ...]] = (
    {"PYTHONHASHSEED": "1", "TZ": "Asia/Tokyo", "LC_ALL": "C.UTF-8"},
    {"PYTHONHASHSEED": "random", "TZ": "America/New_York", "LC_ALL": "C", "PADDING": "x" * 5000},
)
_PROJECT: Final = Path(__file__).parent.parent.parent


@dataclass(frozen=True, slots=True)
class Difference:
    """Where a replay was not what the run was. event: its number, from 1. crash: the event before which it was replayed."""

    run: str
    event: int
    crash: int
    what: str
    was: Any
    now: Any

    def __str__(self) -> str:
        after = f", after a crash that followed event {self.crash}" if self.crash else ""
        return f"run {self.run}, event {self.event}{after}: {self.what}\n  was: {self.was!r}\n  now: {self.now!r}"


def differences(recording: Recording, *, share: int = 0, of: int = 1) -> Iterator[Difference]:
    """Replay all runs of a recording and tell what is different. share, of: which part of the crashes to try."""
    app = App(recording.scenario.registry())
    for run in recording.runs:
        yield from _Replay(app, run).differences(share, of)


class _Replay:
    """Replays one recorded run."""

    def __init__(self, app: App, recorded: RunRecording) -> None:
        self._recorded = recorded
        self._key = WorkflowKey(recorded.queue, recorded.id)
        self._opening: Opening = app.opening(app.host_of(self._key))
        self._spec = start_spec_of(
            next(event for event in recorded.events if event.kind == "start" and event.seq == recorded.run)
        )
        self._vm = LuaVM()
        # The code is not alone in its VM, and objects are not where they were.
        self._vm._lua.execute(f"collectgarbage('{random.choice(('generational', 'incremental'))}')".encode())

    def differences(self, share: int, of: int) -> Iterator[Difference]:
        events = self._recorded.events
        if share == 0:
            run = self._fresh(len(events))
            for i, step in enumerate(replay_steps(run, events, record_ops=True)):
                yield from self._compared(i, 0, run, step, last=i == len(events) - 1)
            run.close()
        crashes = range(share, len(events), of)
        for at in crashes[:: max(1, len(crashes) * of // CRASHES_MAX)]:
            yield from self._crashed(at)

    def _crashed(self, at: int) -> Iterator[Difference]:
        """The owner dies after event `at` (from 0); the next one replays what is stored, and takes the event after it."""
        if any(event.seq < self._recorded.run for event in self._recorded.events[at + 1 :]):
            return  # what came before its start is handed over in one go, and was noted down after all of it
        stored = [event for i, event in enumerate(self._recorded.events[: at + 1]) if self._is_there(event, at)]
        run = self._fresh(at)
        steps = list(replay_steps(run, stored, record_ops=True))
        yield from self._stands(at, at + 1, run)
        if at + 1 < len(self._recorded.events) and run.ops.asked is not None:
            event = self._recorded.events[at + 1]
            run.ops.asked.clear()
            effects = run.apply(event)
            yield from self._compared(
                at + 1, at + 1, run, Step(len(steps) + 1, event, effects, tuple(run.ops.asked)), last=True
            )
        run.close()

    def _is_there(self, event: Event, at: int) -> bool:
        dropped = self._recorded.dropped.get(event.seq)
        return dropped is None or dropped >= at

    def _fresh(self, at: int) -> Run:
        """The run before its first event, with the decisions that were recorded before event `at` was handled.

        A decision counts wherever it stands in the history: its owner goes no further before it is stored.
        """
        recorded = recorded_marks(self._recorded.run, self._recorded.events)
        marks = {name: value for name, value in recorded.items() if self._recorded.marked.get(name, -1) < at}
        return self._opening.new_run(self._key, self._recorded.run, self._spec, marks, vm=lambda: self._vm)

    def _compared(self, i: int, crash: int, run: Run, step: Step, *, last: bool) -> Iterator[Difference]:
        was, now = self._recorded.asked[i], asked_for(step.asked)
        if was != now:
            for before, after in zip([*was, None], [*now, None], strict=False):
                if before != after:
                    yield Difference(self._name, i + 1, crash, "it asks for something else", before, after)
                    return
        # In the midst of a replay it is nowhere: lines and times of what is past are not looked at.
        if last:
            yield from self._stands(i, crash, run)

    def _stands(self, i: int, crash: int, run: Run) -> Iterator[Difference]:
        was, now = self._recorded.stood[i], where(run, self._recorded.now_ns[i])
        if was != now:
            yield Difference(self._name, i + 1, crash, "it stands somewhere else", was, now)
        elif i == len(self._recorded.events) - 1 and self._recorded.end != how_ended(run):
            yield Difference(self._name, i + 1, crash, "it ends otherwise", self._recorded.end, how_ended(run))

    @property
    def _name(self) -> str:
        return f"{self._recorded.id}/{self._recorded.run}"


# -- processes --------------------------------------------------------------------------------------------------------


class Replayers:
    """Processes that replay recordings."""

    def __init__(self, processes: Sequence[subprocess.Popen[bytes]]) -> None:
        self._processes = processes

    def differences(self, recording: Recording) -> list[str]:
        """What is different when other processes replay a recording, as texts."""
        wire = recording.to_wire()
        for i, process in enumerate(self._processes):
            _write(_pipe(process.stdin), codec.pack([i, len(self._processes), wire]))
        found: list[str] = []
        for process in self._processes:
            output = _pipe(process.stdout)
            if not select.select([output], [], [], ANSWER_TIMEOUT_S)[0]:
                raise AssertionError(f"a replay takes longer than {ANSWER_TIMEOUT_S:g} s")
            answer = _read(output)
            if answer is None:
                raise AssertionError(f"a replaying process has ended with {process.wait(5)}; see its standard error")
            found += codec.unpack(answer)
        return found

    def surroundings(self) -> list[tuple[str, str]]:
        """What each process shows of itself that must not matter: the order of a plain Lua table, and an address."""
        shown = []
        for process in self._processes:
            _write(_pipe(process.stdin), b"")
            order, address = codec.unpack(_read(_pipe(process.stdout)) or b"")
            shown.append((order, address))
        return shown


@contextmanager
def replayers(*, fault: str = "") -> Iterator[Replayers]:
    """Start replaying processes. fault: what is broken in each, to see that it is found (`tests.fuzz.faults`)."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LC_", "LANG", "TZ", "PYTHONHASHSEED"))
    }
    path = os.pathsep.join(part for part in (str(_PROJECT), inherited.get("PYTHONPATH", "")) if part)
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.replays", *([fault] if fault else [])],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=inherited | {"PYTHONPATH": path} | dict(extra), cwd=_PROJECT, bufsize=0,
        )
        for extra in SURROUNDINGS
    ]  # fmt: skip
    try:
        yield Replayers(processes)
    finally:
        for process in processes:
            _pipe(process.stdin).close()
        for process in processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            _pipe(process.stdout).close()


def serve(source: IO[bytes], target: IO[bytes]) -> None:
    """Replay what comes in until there is no more."""
    while (request := _read(source)) is not None:
        if not request:
            _write(target, codec.pack(_shown()))
            continue
        share, of, wire = codec.unpack(request)
        try:
            found = [str(each) for each in differences(recording_from_wire(wire), share=share, of=of)]
        except Exception as error:  # the other side tells of it, with the program that did it
            found = [f"replaying raises {type(error).__name__}: {error}"]
        _write(target, msgpack.packb(found, unicode_errors="surrogateescape"))


def _shown() -> list[str]:
    lua = LuaVM()._lua
    order = lua.eval(
        b"(function() local t, o = {}, {} for i = 1, 200 do t['key' .. i] = i end for k in next, t do o[#o + 1] = k end return table.concat(o, ' ') end)()"
    )
    return [order.decode(), lua.eval(b"tostring({})").decode()]


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise RuntimeError("a replaying process has no pipes")
    return pipe


def _write(pipe: IO[bytes], data: bytes) -> None:
    rest = memoryview(struct.pack(">I", len(data)) + data)
    while rest:
        rest = rest[pipe.write(rest) :]
    pipe.flush()


def _read(pipe: IO[bytes]) -> bytes | None:
    size = _exactly(pipe, 4)
    return _exactly(pipe, struct.unpack(">I", size)[0]) if len(size) == 4 else None


def _exactly(pipe: IO[bytes], size: int) -> bytes:
    parts: list[bytes] = []
    while size and (part := pipe.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    with faults.planted(sys.argv[1] if len(sys.argv) > 1 else ""):
        serve(sys.stdin.buffer, sys.stdout.buffer)
