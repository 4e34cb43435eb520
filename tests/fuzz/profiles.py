"""How long the fuzz goes on: a little in `make test`, long in `make fuzz` (MESH_FUZZ=nightly).

MESH_FUZZ_PROGRAMS, MESH_FUZZ_SECONDS, MESH_FUZZ_SEED override the number of programs, the time for hostile bytes and
the seed of what is not left to hypothesis.
"""

from __future__ import annotations

import os
from typing import Final

from hypothesis import HealthCheck, settings

NIGHTLY: Final = os.environ.get("MESH_FUZZ", "") == "nightly"
PROGRAMS: Final = int(os.environ.get("MESH_FUZZ_PROGRAMS", "2500" if NIGHTLY else "100"))
SEED: Final = int(os.environ.get("MESH_FUZZ_SEED", "1"))


def fuzz_settings(examples: int) -> settings:
    """Settings for so many examples; an example takes as long as it takes."""
    return settings(
        max_examples=examples,
        deadline=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
