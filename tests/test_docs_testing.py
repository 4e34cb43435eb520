"""The examples of docs/testing.md are tests that pass, run by pytest as a user would run them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
DOCUMENT: Final = ROOT / "docs" / "testing.md"
_BLOCK: Final = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_examples_of_the_document_pass(tmp_path: Path) -> None:
    blocks = _BLOCK.findall(DOCUMENT.read_text(encoding="utf-8"))
    file = tmp_path / "test_document.py"
    file.write_text("from __future__ import annotations\n\n" + "\n\n".join(blocks), encoding="utf-8")

    # In the project's directory, where the documents' paths begin.
    arguments = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(ROOT), str(file)]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=50, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    heads = [line for block in blocks for line in block.splitlines() if line.startswith("def test_")]
    twice = [head for head in heads if "shop" in head]  # by the fixture
    assert len(heads) >= 6
    assert f"{len(heads) + len(twice)} passed" in done.stdout
