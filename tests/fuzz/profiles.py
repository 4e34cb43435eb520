"""How long the fuzz goes on: a little in `make test`, long in `make fuzz` (MESH_FUZZ=nightly).

MESH_FUZZ_PROGRAMS, MESH_FUZZ_INPUTS, MESH_FUZZ_MESSAGES, MESH_FUZZ_SEED override the number of programs, of inputs for
each decoder and of messages of a siege, and the seed of what is not left to hypothesis.
"""

from __future__ import annotations

import os
from typing import Final

import pytest
from hypothesis import HealthCheck, settings


def number(name: str, short: int, nightly: int) -> int:
    """A number of the environment, or the one of the form that runs. Raises UsageError."""
    said = os.environ.get(name, "")
    if said and not said.isdecimal():
        raise pytest.UsageError(f"{name} is a number, not {said!r}")
    return int(said) if said else nightly if NIGHTLY else short


NIGHTLY: Final = os.environ.get("MESH_FUZZ", "") == "nightly"
PROGRAMS: Final = number("MESH_FUZZ_PROGRAMS", 100, 2500)
SEED: Final = number("MESH_FUZZ_SEED", 1, 1)


def fuzz_settings(examples: int) -> settings:
    """Settings for so many examples; an example takes as long as it takes."""
    return settings(
        max_examples=examples,
        deadline=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
