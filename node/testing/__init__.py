"""Testing workflows without a mesh: in one process, in virtual time, as plain pytest functions (docs/testing.md)."""

from __future__ import annotations

from mesh.client import FunctionFailed
from mesh.failure import Failure
from mesh.results import WorkflowFailed, WorkflowSuspended
from node.testing.errors import NeverEnds, NotReplaced, ReplayDiffers, SimulationError, StillWaiting, UnknownName
from node.testing.outcomes import answer, fail, hang, lost
from node.testing.records import Call, LogLine, Message, Process
from node.testing.replays import Replayed, ReplayMismatch, replay
from node.testing.simulation import Simulation
from node.testing.workflow import Workflow

__all__ = [
    "Call",
    "Failure",
    "FunctionFailed",
    "LogLine",
    "Message",
    "NeverEnds",
    "NotReplaced",
    "Process",
    "ReplayDiffers",
    "ReplayMismatch",
    "Replayed",
    "Simulation",
    "SimulationError",
    "StillWaiting",
    "UnknownName",
    "Workflow",
    "WorkflowFailed",
    "WorkflowSuspended",
    "answer",
    "fail",
    "hang",
    "lost",
    "replay",
]
