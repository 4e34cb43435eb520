"""A node with planted faults: `python -m tests.chaos.faulty_node FAULT[+FAULT]... node APP ...`.

What follows the faults is the command line as `python -m node` takes it. The engine is the real one, patched before it starts (`tests.chaos.faults`); FAULT "none" patches nothing.
"""

from __future__ import annotations

import sys

from node.cli import main
from tests.chaos.faults import plant

if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    plant(sys.argv[1])
    main(sys.argv[2:])
