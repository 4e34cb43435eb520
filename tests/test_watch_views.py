"""What moves on a terminal: progress bars and the views of `--watch`, on a pseudo-terminal as a person sees them."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import pytest
from anyio.streams.text import TextReceiveStream

from mesh import codec
from node.cli import mesh as mesh_group
from node.cli.live import with_interval
from node.units.spawn_request import SpawnRequest
from tests.apps import a_mesh, write_app
from tests.cluster import plain_environment
from tests.conftest import ServerFactory
from tests.terminals import CTRL_C, Terminal, a_program_on_terminal, on_terminal
from tests.waiting import wait_until

WAITS = "return function() require('process').events():receive() end"

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


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        (["--watch", "5s"], ["--watch", "--every", "5s"]),
        (["-w", "200ms", "--json"], ["-w", "--every", "200ms", "--json"]),
        (["--watch=1m"], ["--watch", "--every", "1m"]),
        (["--watch", "order-1"], ["--watch", "order-1"]),
        (["--watch", "5apples"], ["--watch", "5apples"]),
        (["--", "--watch", "5s"], ["--", "--watch", "5s"]),
    ],
)
def test_an_interval_may_stand_behind_watch(typed: list[str], read: list[str]) -> None:
    command = mesh_group.get_command(mesh_group.make_context("mesh", [], resilient_parsing=True), "nodes")
    assert command is not None
    assert with_interval(command, typed) == read
    doctor = mesh_group.get_command(mesh_group.make_context("mesh", [], resilient_parsing=True), "doctor")
    assert doctor is not None
    assert with_interval(doctor, typed) == typed, "it has no such option"


def test_an_interval_may_stand_behind_the_watch_of_a_command_below_another() -> None:
    schedule = mesh_group.get_command(mesh_group.make_context("mesh", [], resilient_parsing=True), "schedule")
    assert schedule is not None
    assert with_interval(schedule, ["ls", "--watch", "5s"]) == ["ls", "--watch", "--every", "5s"]


async def test_a_list_is_drawn_again_in_place_until_q(nats_server: ServerFactory, tmp_path: Path) -> None:
    """What comes appears, what goes disappears, and the table stays one; the mesh may be away for a while."""
    app = write_app(tmp_path, processes={"waits": {"source": WAITS, "modules": ["process"]}})
    server = nats_server()
    async with a_mesh(server.url, app, settled=False) as mesh:

        def spawn() -> str:
            wish = SpawnRequest("app:waits", "app:processes", codec.encode([[], None]))
            return str(codec.decode_outcome(mesh.node.spawning.spawn_here("", wish))[1])

        def look(terminal: Terminal) -> None:
            terminal.expect("no process and no function call is under way")

        with on_terminal("ps", "--watch", "100ms", "-s", server.url, environ={"TERM": "xterm-256color"}) as terminal:
            await anyio.to_thread.run_sync(look, terminal)
            first, second = spawn(), spawn()
            await anyio.to_thread.run_sync(terminal.expect, second)
            unit = mesh.node.units.get(first)
            assert unit is not None
            unit.post("cancel", None, b"enough", b"")
            await wait_until(lambda: mesh.node.processes.running == 1)

            def shows_the_second_alone(screen: str) -> bool:
                rows = [line.split()[:2] for line in screen.splitlines()]
                return rows == [["PID", "ENTRY"], [second, "app:waits"]]

            await anyio.to_thread.run_sync(terminal.expect_screen, shows_the_second_alone)
            server.kill()
            # What was seen last stays.
            await anyio.to_thread.run_sync(
                terminal.expect_screen, lambda screen: "trying again" in screen and second in screen
            )
            server.start()
            await wait_until(lambda: mesh.client.conn.is_connected)
            third = spawn()
            await anyio.to_thread.run_sync(
                terminal.expect_screen, lambda screen: third in screen and "trying again" not in screen
            )
            terminal.type("q")
            assert await anyio.to_thread.run_sync(terminal.wait) == 0
        assert "\x1b[?25h" in terminal.seen, "the cursor is shown again"
        with on_terminal("nodes", "-w", "-s", server.url, environ={"COLUMNS": "40"}) as terminal:
            await anyio.to_thread.run_sync(terminal.expect, "up")
            terminal.type(CTRL_C)
            assert await anyio.to_thread.run_sync(terminal.wait) == 0
        assert all(len(line) <= 40 for line in terminal.screen().splitlines())


async def test_without_a_terminal_a_list_is_printed_again_and_again(nats_server: ServerFactory, tmp_path: Path) -> None:
    """As JSON one object a line; SIGINT ends it with 0, a reader that goes away ends it too."""
    app = write_app(tmp_path, functions={"double": "return function(n) return 2 * n end"})
    async with a_mesh(nats_server().url, app, settled=False) as mesh:
        command = [sys.executable, "-m", "node", "functions", "--watch", "50ms", "--json"]
        environ = plain_environment({"NATS_URL": mesh.client.conn.address})
        async with await anyio.open_process(command, env=environ, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            text = ""
            async for part in TextReceiveStream(process.stdout):
                text += part
                if text.count("\n") >= 3:
                    break
            assert [json.loads(line)["function"] for line in text.splitlines()[:3]] == ["app:double"] * 3
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 0
        piped = f'{shlex.join(command)} | head -n 1 > /dev/null; echo "${{PIPESTATUS[0]}}"'
        done = await anyio.run_process(["bash", "-c", piped], env=environ)
        assert (done.stdout, done.stderr) == (b"0\n", b"")
