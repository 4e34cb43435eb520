"""What `make` says to somebody who has just cloned the project."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests.cluster import PROJECT

# Runs the code that it is given by -c, as an older Python would.
OLD_PYTHON = """#!/bin/sh
exec {python} -c 'import sys; sys.version_info = (3, 9, 2); exec(sys.argv[2])' "$@"
"""


def test_a_python_that_is_too_old_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    """An environment made with it would be in the way of the next attempt, which names another Python."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(PROJECT / name, tmp_path)
    python = tmp_path / "old-python"
    python.write_text(OLD_PYTHON.format(python=sys.executable))
    python.chmod(0o755)
    done = subprocess.run(
        ["make", "setup", f"PYTHON={python}"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode != 0
    assert f"moonmesh needs Python 3.11 or newer, {python} is 3.9; name another one: make PYTHON=" in done.stderr
    assert not (tmp_path / ".venv").exists()
