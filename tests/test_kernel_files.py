"""The kernel's files: which there are, in which order they are loaded, and what is missing when one is."""

from __future__ import annotations

from pathlib import Path

import pytest

import node
from node.machine import vm
from node.machine.vm import KERNEL_FILES, LuaVM, MachineFailed


def test_every_file_of_the_kernel_is_loaded_once() -> None:
    there = sorted(file.stem for file in (Path(node.__file__).parent / "lua").glob("*.lua"))
    assert sorted(KERNEL_FILES) == there


def test_a_missing_file_of_the_kernel_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit without it would only notice when it calls what is not there."""
    monkeypatch.setattr(vm, "KERNEL_FILES", ("objects", "lost", *KERNEL_FILES[1:]))
    with pytest.raises(MachineFailed, match=r"node/lua/lost\.lua cannot be read.*reinstall"):
        LuaVM()
