"""README's ten minutes: what it shows is typed in, on a mesh that runs the example, and must be what appears.

`python -m tests.test_readme` prints README with what appears now, for whoever has changed what a command prints.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.cluster import PROJECT, mesh_command, plain_environment
from tests.mesh_up import Up
from tests.sessions import Typed, difference, differences, filled, sessions
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


async def owner_of(workflow_id: str, url: str) -> int | None:
    """The process that runs a workflow."""
    node = (await shown(workflow_id, url))["node"]
    nodes = [json.loads(line) for line in (await mesh_command("nodes", "--json", url=url)).out.splitlines()]
    return next((record["pid"] for record in nodes if record["node"] == node), None)


async def kill_the_owner(url: str) -> None:
    """What README tells its reader to do, and its promise: another node goes on.

    Or the same again, as another process: `mesh up` starts it anew, and it may have its share back when we look.
    """
    killed = await owner_of(ORDER, url)
    assert killed is not None
    os.kill(killed, signal.SIGKILL)

    async def elsewhere() -> bool:
        return await owner_of(ORDER, url) not in (None, killed)

    await wait_until_async(elsewhere)


def environment(url: str) -> Mapping[str, str]:
    return plain_environment({"NATS_URL": url, "COLUMNS": "200"})


# Some thirty commands, each a process of its own, one after the other: minutes on a machine with much else to do.
@pytest.mark.timeout(300)
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


def test_what_readme_shows_fits_at_any_hour() -> None:
    """How long it is until a schedule's next start has other units at another hour of the day."""
    shown = Typed("mesh schedule add", ("next start in 4h17m",), 1)
    assert [difference(shown, f"next start in {left}\n") for left in ("49m21s", "56m", "9s", "24h0m", "1.5s")] == [
        None
    ] * 5
    assert difference(shown, "no next start\n")
    assert difference(shown, "next start in 4 weeks\n")


def test_the_app_in_readme_is_a_whole_one(tmp_path: Path) -> None:
    text = README.read_text(encoding="utf-8")
    blocks = re.findall(r"^```(lua|yaml|python)\n(.*?)^```$", text.partition("## An app of your own")[2], re.M | re.S)
    yaml, code, check = (block for _, block in blocks[:3])
    workflow = re.findall(r"^```lua\n(.*?)^```$", text, re.M | re.S)[0]
    shop = tmp_path / "shop"
    shop.mkdir()
    files = {"_index.yaml": yaml, "cards.py": code, "order.lua": workflow, "test_shop.py": check}
    for name, content in files.items():
        (shop / name).write_text(content)
    checked = subprocess.run(
        [sys.executable, "-m", "node", "check", "--strict", "shop"], cwd=tmp_path, env=plain_environment(), text=True,
        capture_output=True, check=False,
    )  # fmt: skip
    assert (checked.returncode, checked.stdout) == (0, "")
    assert checked.stderr == "shop: 4 entries (1 workflow, 1 function, 1 worker), no problems\n"
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "shop"], cwd=tmp_path, env=plain_environment(),
        text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert tested.returncode == 0, tested.stdout
    assert "1 passed" in tested.stdout


async def _print_filled() -> None:
    with the_example() as up:
        environ = environment(await address_of(up))
        sys.stdout.write(filled(README, environ=environ, directory=PROJECT))


if __name__ == "__main__":
    anyio.run(_print_filled)
