"""The version of moonmesh. Here and not asked of the installation: looking there takes a tenth of a node's start."""

from __future__ import annotations

from typing import Final

VERSION: Final = "0.1.0"
