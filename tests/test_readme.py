"""README's ten minutes: what it shows is typed in, on a mesh that runs the example, and must be what appears.

`python -m tests.test_readme` prints README with what appears now, for whoever has changed what a command prints.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio

from tests.cluster import PROJECT, mesh_command, plain_environment
from tests.mesh_up import Up
from tests.sessions import Typed, differences, filled, sessions
from tests.waiting import wait_until_async

README = PROJECT / "README.md"
ORDER = "order-7"


@contextmanager
def the_example() -> Iterator[Up]:
    """The mesh that README lets run: three nodes with examples/orders."""
    app = PROJECT / "examples" / "orders"
    with (
        tempfile.TemporaryDirectory(prefix="mesh-readme-") as directory,
        Up(app, "--nodes", "3", directory=Path(directory)) as up,
    ):
        yield up


async def address_of(up: Up) -> str:
    return (await up.lines_until("Ctrl-C"))[0].split()[1]


async def shown(workflow_id: str, url: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((await mesh_command("show", workflow_id, "--json", url=url)).out)
    return record


async def kill_the_owner(url: str) -> None:
    """What README tells its reader to do, and its promise: another node goes on."""
    owner = (await shown(ORDER, url))["node"]
    nodes = [json.loads(line) for line in (await mesh_command("nodes", "--json", url=url)).out.splitlines()]
    os.kill(next(node["pid"] for node in nodes if node["node"] == owner), signal.SIGKILL)

    async def elsewhere() -> bool:
        return (await shown(ORDER, url))["node"] not in (None, owner)

    await wait_until_async(elsewhere)


def environment(url: str) -> Mapping[str, str]:
    return plain_environment({"NATS_URL": url, "COLUMNS": "200"})


async def test_what_readme_shows_is_what_appears() -> None:
    first, *others = sessions(README)
    with the_example() as up:
        environ = environment(url := await address_of(up))

        async def type_all(session: list[Typed]) -> list[str]:
            return await anyio.to_thread.run_sync(lambda: differences(session, environ=environ, directory=PROJECT))

        found = await type_all(first)
        await kill_the_owner(url)
        for session in others:
            found += await type_all(session)
    assert not found, "\n\n".join(found)


async def _print_filled() -> None:
    with the_example() as up:
        environ = environment(await address_of(up))
        sys.stdout.write(filled(README, environ=environ, directory=PROJECT))


if __name__ == "__main__":
    anyio.run(_print_filled)
