"""Where the embedded servers of this machine keep their data. Nothing but names: commands read this at their start."""

from __future__ import annotations

from typing import Final

STORES: Final = ".mesh"  # below the directory in which a mesh of this machine is started
STORE_VARIABLE: Final = "MESH_STORE"  # where `mesh up` tells its nodes that the server's store is
