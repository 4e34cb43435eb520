"""What a simulation has to say to the author of a test."""

from __future__ import annotations

from collections.abc import Iterable

from mesh.errors import MeshError
from node.registry.entries import did_you_mean


class SimulationError(MeshError):
    """Raised when a test asks for what a simulation cannot do; the text says what to write instead."""

    code = "simulation"


class UnknownName(SimulationError):
    """Raised when the app has no workflow, function, worker or workflow id of that name."""

    code = "simulation-unknown-name"

    def __init__(self, what: str, name: str, known: Iterable[str], way_out: str = "") -> None:
        self.name = name
        names = sorted(known)
        hint = did_you_mean(name, names, alike=0.6) or f"; there is {', '.join(names) or 'none'}."
        super().__init__(f"no {what} {name!r}{hint}{f' {way_out}' if way_out else ''}")


class NotReplaced(SimulationError):
    """Raised when a function is called that only a mesh, or the outside world, could answer."""

    code = "simulation-not-replaced"

    def __init__(self, function_id: str, reason: str) -> None:
        self.function_id = function_id
        super().__init__(
            f"{function_id} {reason}; a simulation has no outside world. "
            f"Replace it: sim.function({function_id!r}, lambda ...: ...)"
        )


class StillWaiting(SimulationError):
    """Raised when a result is asked for that nothing in the simulation will bring about."""

    code = "simulation-still-waiting"


class NeverEnds(SimulationError):
    """Raised when so much has happened without an end that the code under test is going round in circles."""

    code = "simulation-never-ends"


class ReplayDiffers(AssertionError):
    """Raised when a run that was replayed after an event does not stand where the live one stands.

    event: its label, number: from 1. live, replayed: what each still waits for, as texts.
    """

    def __init__(self, workflow_id: str, number: int, event: str, live: list[str], replayed: list[str]) -> None:
        self.workflow_id = workflow_id
        self.number = number
        self.event = event
        self.live = live
        self.replayed = replayed
        super().__init__(
            f"workflow {workflow_id!r}, replayed after event {number} ({event}), does not stand where it stood:\n"
            f"  live:     {'; '.join(live) or 'nothing'}\n"
            f"  replayed: {'; '.join(replayed) or 'nothing'}\n"
            "The code asks for something else when it is run again: it must depend on its events alone."
        )
