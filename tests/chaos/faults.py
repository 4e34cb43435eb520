"""Planted faults."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

FAULTS: Final[dict[str, Callable[[], None]]] = {"none": lambda: None}
