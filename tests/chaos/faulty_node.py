"""A node with planted faults: `python -m tests.chaos.faulty_node FAULT[+FAULT]... <the arguments of mesh node>`.

The engine is the real one, patched before it starts (`tests.chaos.faults`); FAULT "none" patches nothing.
"""

from __future__ import annotations

import sys

from node.cli import main
from tests.chaos.faults import plant

if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    plant(sys.argv[1])
    main(["node", *sys.argv[2:]])
