"""An archive has every ended history once, whatever breaks off, and only what it has is removed from the mesh."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mesh.history_files import fetch_history, load_histories
from node.cli.archiving import INDEX, Archive, BadIndex
from tests.apps import QUEUE, TIMEOUT_S, Mesh, a_mesh, key, write_app
from tests.commands import typed
from tests.conftest import ServerFactory

APP = {
    "quick": "return function(x) if x == 'bad' then error('oh') end return x end",
    "waits": "return function() return process.inbox():receive():payload():data() end",
}


@asynccontextmanager
async def a_busy_mesh(url: str, app: Path) -> AsyncIterator[Mesh]:
    """Three workflows that have completed, one that failed, one that waits, and an id that was used three times."""
    async with a_mesh(url, write_app(app, workflows=APP)) as mesh:
        for i in range(3):
            await mesh.run("quick", i, id=f"done-{i}")
        await mesh.failed(await mesh.start("quick", "bad", id="failed"))
        await mesh.start("waits", id="open")
        await mesh.run("quick", 1, id="used")
        await mesh.run("quick", 2, id="used")
        await mesh.start("waits", id="used")
        yield mesh


def in_archive(directory: Path) -> list[tuple[str, int, str]]:
    """What the files hold: ids, how many events, how it ended."""
    histories = [h for path in sorted(directory.glob("*.jsonl.gz")) for h in load_histories(path)]
    return sorted((h.header.id, h.header.events, h.header.status) for h in histories)


def in_index(directory: Path) -> list[tuple[str, int, str]]:
    lines = (directory / INDEX).read_text().splitlines()
    return sorted((entry["id"], entry["events"], entry["status"]) for entry in map(json.loads, lines))


ENDED = [
    ("done-0", 2, "completed"), ("done-1", 2, "completed"), ("done-2", 2, "completed"), ("failed", 2, "failed"),
    ("used", 2, "completed"), ("used", 2, "completed"),
]  # fmt: skip


async def ids(mesh: Mesh) -> list[str]:
    starts = await mesh.client.js.batch_get("WF_orders", subject_filter="mesh.log.orders.*.*.start")
    return sorted(start.subject.split(".")[4] for start in starts)


async def test_what_ended_is_archived_once_and_removed_when_asked(nats_server: ServerFactory, tmp_path: Path) -> None:
    """First the file, then the index, then the mesh: what is removed is on disk."""
    server = nats_server()
    archive = tmp_path / "archive"
    async with a_busy_mesh(server.url, tmp_path / "app") as mesh:
        original = await fetch_history(mesh.client.history(QUEUE), key("done-1"))
        done = await typed("archive", str(archive), "--status", "failed", "--json", url=server.url)
        assert done.status == 0, done.err
        [record] = [json.loads(line) for line in done.out.splitlines()]
        assert (record["histories"], record["events"], record["removed"]) == (1, 2, 0)
        assert in_archive(archive) == in_index(archive) == [("failed", 2, "failed")]
        done = await typed("archive", str(archive), "--older-than", "1d", url=server.url)
        assert done.err == "there is nothing new to archive\n"
        assert await ids(mesh) == ["done-0", "done-1", "done-2", "failed", "open", "used", "used", "used"]

        done = await typed("archive", str(archive), "--purge", url=server.url)
        assert done.status == 0, done.err
        assert done.err == f"archived 5 histories in 1 file in {archive}, removed 6 from the mesh\n"
        assert in_archive(archive) == in_index(archive) == ENDED
        assert await ids(mesh) == ["open", "used"]
        for workflow_id in ("open", "used"):
            await mesh.get(workflow_id).signal("go", 7)
            assert await mesh.get(workflow_id).result(timeout_s=TIMEOUT_S) == 7
        [archived] = [h for path in archive.glob("*.jsonl.gz") for h in load_histories(path) if h.header.id == "done-1"]
        assert [(e.kind, e.seq, e.at_ns, e.data) for e in archived.events] == [
            (e.kind, e.seq, e.at_ns, e.data) for e in original.events
        ]


async def test_an_archive_that_broke_off_is_completed(nats_server: ServerFactory, tmp_path: Path) -> None:
    """Killed after a file and before its entries, or in the middle of a line of the index."""
    server = nats_server()
    archive = tmp_path / "archive"
    async with a_busy_mesh(server.url, tmp_path / "app") as mesh:
        done = await typed("archive", str(archive), url=server.url)
        assert done.status == 0, done.err
        index = (archive / INDEX).read_bytes()
        (archive / INDEX).unlink()
        assert Archive(archive).directory == archive
        assert in_index(archive) == ENDED
        (archive / INDEX).write_bytes(index[: len(index) - 30])
        Archive(archive)
        assert (archive / INDEX).read_bytes().endswith(b"\n")
        assert in_index(archive) == ENDED
        done = await typed("archive", str(archive), "--purge", url=server.url)
        assert done.status == 0, done.err
        assert in_archive(archive) == in_index(archive) == ENDED
        assert await ids(mesh) == ["open", "used"]
        (archive / INDEX).write_text("hello\n")
        with pytest.raises(BadIndex, match=r"index.jsonl:1: no entry of an archive; delete the file"):
            Archive(archive)
