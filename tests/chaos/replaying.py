"""Whether every recorded history replays to the end that it records: with the engine, in a process of its own.

`python -m tests.chaos.replaying RECORD APP` prints a line for each history that does not. The process has another seed
for hashes, another time zone and nothing of the run in its memory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.chaos.record import APP, Record

TIMEOUT_S = 600.0


def replay_all(record_dir: Path, app: Path = APP) -> list[tuple[str, str, tuple[str, ...]]]:
    """The workflows whose histories do not replay to their ends: (workflow, what differs, where)."""
    environ = os.environ | {"PYTHONHASHSEED": "4711", "TZ": "Pacific/Chatham"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos.replaying", str(record_dir), str(app)],
        capture_output=True, text=True, timeout=TIMEOUT_S, env=environ, check=False,
        cwd=Path(__file__).parent.parent.parent,
    )  # fmt: skip
    if done.returncode:
        return [("", f"the replays failed: {done.stderr[-2000:]}", ())]
    told = [json.loads(line) for line in done.stdout.splitlines()]
    return [(line["workflow"], line["text"], tuple(line["evidence"])) for line in told]


def main(record_dir: Path, app: Path) -> None:
    """Replay everything, and print what does not come to the same end."""
    from mesh.errors import MeshError
    from mesh.history_files import load_histories
    from node.checking import AppChecker

    checker = AppChecker(app, environ={})
    for file in Record(record_dir).history_files():
        try:
            for recorded in load_histories(file):
                checked = checker.replay(recorded, same_result=True)
                checked.run.close()
                header = recorded.header
                problem = checked.mismatch.reason if checked.mismatch is not None else ""
                if header.status != "running" and checked.mismatch is None and len(recorded.events) != header.events:
                    problem = "it has another number of events than its header says"
                if problem:
                    place = (
                        f"histories/{file.name} run {header.run} event {checked.mismatch.number}"
                        if checked.mismatch
                        else file.name
                    )
                    _print(header.id, problem, place)
        except MeshError as error:
            _print(file.stem, f"its history cannot be read: {error}", f"histories/{file.name}")


def _print(workflow: str, text: str, place: str) -> None:
    print(json.dumps({"workflow": workflow, "text": text, "evidence": [place]}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
