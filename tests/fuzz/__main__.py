"""Looks at a failure of the fuzz again: `python -m tests.fuzz FILE`.

Prints the programs and histories of a recording, replays it with the code as it is now, then runs the same scenario
anew and replays that. The exit status is 1 if anything is different.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from tests.fuzz.replays import replayers
from tests.fuzz.reports import load, told
from tests.fuzz.scenarios import run_scenario


def main(arguments: list[str]) -> int:
    """Look at one file."""
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        recording = load(Path(arguments[0]))
    except (OSError, ValueError, LookupError, TypeError) as error:
        print(f"{arguments[0]} is no recording of the fuzz ({type(error).__name__}: {error})", file=sys.stderr)
        return 2
    print(told(recording))
    status = 0
    with replayers() as others:
        for title, each in (("as recorded", recording), ("run anew", run_scenario(recording.scenario))):
            different = others.differences(each)
            print(f"-- {title}: {len(different)} differences", *different, sep="\n")
            status = 1 if different else status
    return status


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    sys.exit(main(sys.argv[1:]))
