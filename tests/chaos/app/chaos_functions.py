"""The functions of the chaos app: each writes down on its own side what it did, where no history can hide it.

One record when it begins, before its effect, so that "at most once" can be judged; one when it has ended. A record is one
line, appended by a single write to a file that belongs to the node (MESH_CHAOS_EFFECTS).

Which of the tries of a call fail is decided by a hash of seed, workflow, step and how often this process has tried it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import anyio

from node.log_fields import fields_of

ENVIRONMENT = "MESH_CHAOS_EFFECTS"

_numbers = itertools.count(1)
_tries: Counter[tuple[str, str]] = Counter()
_lock = threading.Lock()


class Declined(Exception):
    """Raised when a step is refused for good, as its input says."""

    kind = "Declined"
    retryable = False


class Effect:
    """One execution of a function: noted when it begins and when it ends."""

    def __init__(self, function: str, request: dict[str, Any]) -> None:
        call = fields_of(logging.makeLogRecord({}))
        with _lock:
            number = next(_numbers)
        self.token = f"{os.getpid()}-{time.time_ns()}-{number}"
        self._record = {
            "token": self.token, "function": function, "workflow": request.get("workflow", ""),
            "step": request.get("step", function), "key": request.get("key", ""), "seen": request.get("seen"),
            "run": call.get("run", 0), "op": call.get("op", 0), "attempt": call.get("attempt", 0),
            "pid": os.getpid(), "node": Path(os.environ[ENVIRONMENT]).stem,
        }  # fmt: skip
        self.note("begin")

    def note(self, what: str) -> None:
        """Append a record."""
        line = json.dumps({"what": what, "at_ns": time.time_ns(), "mono_ns": time.monotonic_ns()} | self._record)
        file = os.open(os.environ[ENVIRONMENT], os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600)
        try:
            os.write(file, f"{line}\n".encode())
        finally:
            os.close(file)


def work(request: dict[str, Any]) -> dict[str, Any]:
    """Do a step: takes its time, fails when the dice say so, is declined when the input says so."""
    effect = Effect("work", request)
    time.sleep(request["ms"] / 1e3)
    return _end(effect, request)


async def light(request: dict[str, Any]) -> dict[str, Any]:
    """The same on the event loop."""
    effect = Effect("light", request)
    await anyio.sleep(request["ms"] / 1e3)
    return _end(effect, request)


def deliver(letter: dict[str, Any]) -> dict[str, Any]:
    """Take a letter out of the message queue."""
    effect = Effect("deliver", letter)
    effect.note("end")
    return {"token": effect.token}


def fails(request: dict[str, Any]) -> bool:
    """Whether this try fails: in `flaky` of 100 cases, and never more than three times in one process."""
    if not request["flaky"]:
        return False
    who = request["workflow"], request["step"]
    with _lock:
        _tries[who] += 1
        tries = _tries[who]
    dice = hashlib.blake2b(f"{request['seed']}/{'/'.join(who)}/{tries}".encode(), digest_size=4).digest()
    return tries <= 3 and int.from_bytes(dice, "big") % 100 < request["flaky"]


def _end(effect: Effect, request: dict[str, Any]) -> dict[str, Any]:
    if request["decline"]:
        effect.note("declined")
        raise Declined(f"{request['step']} is declined")
    if fails(request):
        effect.note("failed")
        raise ConnectionError(f"{request['step']} did not work this time")
    effect.note("end")
    bulk = {"bulk": request["bulk"]} if request.get("bulk") else {}
    return {"token": effect.token, "value": request["value"]} | bulk
