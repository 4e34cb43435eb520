"""What a simulation has seen and shows to tests: calls, log lines, messages. Values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Call:
    """One attempt of a call.

    args: as the function gets them. at_s: when it began, seconds after that of the simulation. attempt: from 1.
    caller: the id of the workflow, or the entry id of the function, that made it; "" for the test itself.
    """

    function: str
    args: list[Any]
    at_s: float
    attempt: int = 1
    caller: str = ""
    context: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line that the code under test has logged. source: a workflow's id, or the entry id of a function."""

    level: str
    text: str
    at_s: float
    source: str


@dataclass(frozen=True, slots=True)
class Message:
    """What a workflow has sent to a process. sender: its PID."""

    topic: str
    value: Any
    sender: str
    at_s: float


@dataclass(slots=True)
class Process:
    """Somebody outside whom workflows can send messages to. Made by `Simulation.process`.

    canceled: whether somebody has asked it to stop.
    """

    name: str
    pid: str
    messages: list[Message] = field(default_factory=list)
    canceled: bool = False
