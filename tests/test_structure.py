"""What the modules say of themselves, and what is checked of them."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parent.parent


def test_every_module_that_says_it_is_pure_is_checked_for_it() -> None:
    """Decisions import no I/O (`lint-imports`); a module that only says so may stop being one unseen."""
    contracts = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (checked,) = (set(one["source_modules"]) for one in contracts if one["name"] == "what decides does no I/O")
    said = set()
    for package in ("mesh", "store", "node"):
        for file in (PROJECT / package).rglob("*.py"):
            docstring = ast.get_docstring(ast.parse(file.read_text())) or ""
            if re.search(r"\bPure\.", docstring):
                said.add(".".join(file.relative_to(PROJECT).with_suffix("").parts))
    assert len(said) > 30
    assert said <= checked
