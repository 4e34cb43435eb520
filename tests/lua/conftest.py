"""Lets pytest collect the behaviours: every Lua file below `behaviours` is one item per mode (tests.lua.suite)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lua.suite import BEHAVIOURS, BehaviourFile, close_stages


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> BehaviourFile | None:
    if file_path.suffix == ".lua" and file_path.is_relative_to(BEHAVIOURS):
        return BehaviourFile.from_parent(parent, path=file_path)
    return None


def pytest_unconfigure(config: pytest.Config) -> None:
    """The end of the session, Ctrl-C too: no node is left."""
    close_stages(config)
