"""What moves on a terminal: progress bars and the views of `--watch`, on a pseudo-terminal as a person sees them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.cluster import plain_environment
from tests.terminals import a_program_on_terminal

COUNTING = """\
import sys, time
from node.cli.progress import progress
with progress("counting sheep", 3, shown_after_s=0.0) as bar:
    for i in range(3):
        print("sheep", i, flush=True)
        bar.advance()
print("done")
"""


def test_a_progress_bar_is_drawn_on_a_terminal_and_leaves_only_the_results(tmp_path: Path) -> None:
    program = tmp_path / "count.py"
    program.write_text(COUNTING)
    with a_program_on_terminal(str(program)) as terminal:
        assert terminal.wait() == 0
    assert "counting sheep" in terminal.seen
    assert "3/3" not in terminal.screen()
    assert terminal.screen().split() == ["sheep", "0", "sheep", "1", "sheep", "2", "done"]


def test_scripts_see_no_progress_bar(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", COUNTING], capture_output=True, text=True, env=plain_environment())
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "sheep 0\nsheep 1\nsheep 2\ndone\n"
