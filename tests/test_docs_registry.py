"""What docs/registry.md says is so: its YAML loads without a problem, and every kind and field is in it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from node.registry import Registry, load_registry
from node.registry.fields import Fields
from node.registry.kinds import KIND_ALIASES, KNOWN_KINDS
from tests.apps import write_files

DOCUMENT: Final = Path(__file__).parent.parent / "docs" / "registry.md"
CODE: Final = "return { main = function() end }"


def blocks() -> list[str]:
    return re.findall(r"^```yaml\n(.*?)^```$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def load(directory: Path, text: str) -> Registry:
    """Load a block as an app of its own; the code it names is there."""
    files = dict.fromkeys(re.findall(r"file://([\w.]+)", text), CODE)
    return load_registry(write_files(directory, {**files, "app.yaml": text}), strict=True, environ={})


@pytest.mark.parametrize("text", blocks(), ids=lambda text: re.findall(r"(?m)^namespace: (\S+)", text)[0])
def test_an_example_loads_without_a_problem(tmp_path: Path, text: str) -> None:
    registry = load(tmp_path, text)
    assert registry.entries
    assert registry.problems == registry.notes == ()


def test_every_kind_has_an_example(tmp_path: Path) -> None:
    entries = [e for i, text in enumerate(blocks()) for e in load(tmp_path / str(i), text).entries.values()]
    missing = KNOWN_KINDS - {entry.kind for entry in entries} - set(KIND_ALIASES.values())
    assert not missing, f"docs/registry.md has no example of {', '.join(sorted(missing))}"


def test_every_field_of_every_kind_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fields that the decoders look at when the examples are loaded."""
    looked_at: set[str] = set()
    close = Fields.close

    def closed(fields: Fields, *accepted: str) -> None:
        looked_at.update(".".join(str(part) for part in fields.path(name)) for name in fields._taken)
        close(fields, *accepted)

    monkeypatch.setattr(Fields, "close", closed)
    for i, text in enumerate(blocks()):
        load(tmp_path / str(i), text)
    named = set(re.findall(r"`([\w.]+)`", DOCUMENT.read_text(encoding="utf-8")))
    parts = {part for name in named for part in name.split(".")}
    missing = sorted(path for path in looked_at if path.rpartition(".")[2] not in parts)
    assert not missing, f"docs/registry.md does not name {', '.join(missing)}"
    assert len(looked_at) > 90
