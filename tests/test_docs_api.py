"""docs/api.md: every request in it is made, in order, and every answer is what it says."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import anyio

from node.api.endpoints import names
from tests.apps import a_mesh, write_app
from tests.cluster import PROJECT
from tests.conftest import ServerFactory

TEXT: Final = (PROJECT / "docs" / "api.md").read_text(encoding="utf-8")
LUA: Final = re.compile(r"^```lua\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EXAMPLE: Final = re.compile(
    r"^```console\n\$ nats req mesh\.api\.(?P<verb>\S+) '(?P<request>[^\n]*)'\n```\n```json\n(?P<answer>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z")
# What is another number, or another text, each time.
NUMBERS: Final = frozenset({"run", "base", "seq", "pid", "memory_bytes", "calls", "seconds"})
TEXTS: Final = frozenset({"machine", "registry", "version"})
# A projection is behind for a moment, what was terminated ends a moment later, and a call takes as long as it takes.
LATE: Final = frozenset({"list", "count", "nodes", "result", "functions"})
PATIENCE_S: Final = 15.0


def differences(shown: Any, got: Any, at: str = "") -> list[str]:
    """Where an answer is not what the document says, but for what differs each time."""
    name = at.rpartition(".")[2]
    if isinstance(shown, Mapping) and isinstance(got, Mapping):
        missing = [f"{at}.{key}: only on one side" for key in shown.keys() ^ got.keys()]
        return missing + [
            text for key in shown.keys() & got.keys() for text in differences(shown[key], got[key], f"{at}.{key}")
        ]
    if isinstance(shown, list) and isinstance(got, list) and len(shown) == len(got):
        return [text for i, pair in enumerate(zip(shown, got, strict=True)) for text in differences(*pair, f"{at}.{i}")]
    if (
        isinstance(shown, str)
        and isinstance(got, str)
        and (name in TEXTS or (TIME.fullmatch(shown) and TIME.fullmatch(got)))
    ):
        return []
    numbers = isinstance(shown, int | float) and isinstance(got, int | float) and not isinstance(shown, bool)
    if numbers and (name in NUMBERS or name.endswith("_s")):
        return []
    return (
        [] if shown == got and type(shown) is type(got) else [f"{at}: {shown!r} in the document, {got!r} in the answer"]
    )


async def test_every_request_of_the_document_is_answered_as_it_says(nats_server: ServerFactory, tmp_path: Path) -> None:
    workflow, function = LUA.findall(TEXT)
    app = write_app(tmp_path / "app", workflows={"order": workflow}, functions={"charge": function})
    examples = list(EXAMPLE.finditer(TEXT))
    assert len(examples) == TEXT.count("$ nats req")
    # The first is about errors, and begins nothing.
    async with a_mesh(nats_server().url, app, node_id="node-1", projection=tmp_path / "p.sqlite3") as mesh:
        for example in examples:
            with anyio.move_on_after(PATIENCE_S):
                while True:
                    reply = await mesh.client.conn.request(
                        f"mesh.api.{example['verb']}", example["request"].encode(), timeout_s=10.0
                    )
                    found = differences(json.loads(example["answer"]), json.loads(reply.data))
                    if not found or example["verb"] not in LATE:
                        break
                    await anyio.sleep(0.02)
            assert not found, f"{example['verb']}: {found}"


def test_the_document_has_a_place_for_every_verb() -> None:
    missing = [
        name
        for name in names()
        if f"mesh.api.{name} " not in TEXT and not re.search(rf"^### .*\b{name}\b", TEXT, re.MULTILINE)
    ]
    assert missing == []


async def test_every_field_of_what_a_workflow_is_doing_is_described(nats_server: ServerFactory, tmp_path: Path) -> None:
    texts = [TEXT, (PROJECT / "docs" / "debugging.md").read_text(encoding="utf-8")]
    words = {word for code in re.findall(r"`([^`\n]+)`", "\n".join(texts)) for word in re.findall(r"\w+", code)}
    app = write_app(tmp_path / "app", workflows={"order": "return function() return time.sleep('1h') end"})
    async with a_mesh(nats_server().url, app) as mesh:
        await mesh.start("order", id="order-1")
        record = await mesh.client.ask("describe", id="order-1")
    assert sorted({*record, *record["waiting"][0]} - words - {"since_ns", "due_ns"}) == []
