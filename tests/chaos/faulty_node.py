"""A node with a planted fault: `python -m tests.chaos.faulty_node FAULT <the arguments of mesh node>`.

The engine is the real one, patched before it starts (`tests.chaos.faults`); FAULT "none" patches nothing.
"""

from __future__ import annotations

import sys

from node.cli import main
from tests.chaos.faults import FAULTS


def plant_and_run(arguments: list[str]) -> None:
    """Plant the fault that is named first, then run a node with the rest."""
    name = arguments[0] if arguments else ""
    if name not in FAULTS:
        raise SystemExit(f"no fault {name!r}; there are {', '.join(FAULTS)}")
    FAULTS[name]()
    main(["node", *arguments[1:]])


if __name__ == "__main__":
    plant_and_run(sys.argv[1:])
