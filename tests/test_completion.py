"""Shell completion: commands, options and values, through click's own interface and in a real bash."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import anyio
import pytest
from click.shell_completion import BashComplete

import node.cli
from node.cli import completing
from node.cli.completion import SHELLS, source_for
from tests.apps import WORKER, a_mesh, write_app
from tests.cluster import mesh_command, plain_environment
from tests.conftest import ServerFactory

# What an answer may take with no server there; a quiet machine takes 0.2 s.
NO_SERVER_S = 1.0
PATIENCE_S = 20.0


@pytest.fixture
def in_a_shell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in a shell that asks what may come next."""
    monkeypatch.setenv("_MESH_COMPLETE", "bash_complete")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("NATS_URL", raising=False)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """As somebody who waits for the answers of a busy machine: what comes too late is left out, and nothing is said."""
    monkeypatch.setattr(completing, "ANSWER_S", PATIENCE_S)
    monkeypatch.setattr(completing, "CONNECT_S", PATIENCE_S)


def completed(*words: str) -> list[str]:
    """What may stand for the last word of a line."""
    *before, last = words
    return [
        item.value for item in BashComplete(node.cli.mesh, {}, "mesh", "_MESH_COMPLETE").get_completions(before, last)
    ]


def test_commands_and_options_are_completed(in_a_shell: None) -> None:
    assert completed("no") == ["node", "nodes"]
    assert completed("ps", "--no") == ["--node", "--no-context", "--no-tlsfirst"]
    assert completed("ps", "--order", "") == ["started", "newest", "mailbox"]
    assert completed("ls", "--order", "")[:5] == ["started", "ended", "duration", "id", "-started"]
    assert completed("completion", "") == list(SHELLS)
    assert completed("help", "sch") == ["schedule"]
    assert completed("schedule", "p") == ["pause"]


async def test_values_are_asked_of_the_mesh(
    nats_server: ServerFactory, tmp_path: Path, in_a_shell: None, patient: None
) -> None:
    """Ids, queues, types, hosts and nodes; of the server that the line itself names."""
    source = "return function() return process.inbox():receive() end"
    app = write_app(tmp_path / "app", workflows={"greet": source, "part": source})
    (tmp_path / "nats" / "context").mkdir(parents=True)
    (tmp_path / "nats" / "context" / "here.json").write_text(json.dumps({"url": "nats://127.0.0.1:1"}))
    url = nats_server().url
    async with a_mesh(url, app) as mesh:
        for workflow_id in ("order-1", "order-2", "parcel-1", "with space"):
            await mesh.client.start("app:greet", host=WORKER, id=workflow_id)

        async def on_line(*words: str) -> list[str]:
            *before, last = words
            return await anyio.to_thread.run_sync(lambda: completed(*before, "-s", url, last))

        assert await on_line("show", "order") == ["order-1", "order-2"]
        assert await on_line("signal", "") == ["order-1", "order-2", "parcel-1", "with space"]
        assert await on_line("result", "--queue", "nothing", "") == []
        assert await on_line("start", "") == ["app:greet", "app:part"]
        assert await on_line("start", "app:greet", "--id", "ord") == [], "a new id is nobody's yet"
        assert await on_line("export", "order-1", "or") == ["order-2"], "one is named once"
        nightly = ("schedule", "add", "nightly", "app:greet", "--cron", "0 3 * * *")
        done = await mesh_command(*nightly, url=url, environ={"_MESH_COMPLETE": ""})
        assert done.status == 0, done.err
        assert await on_line("schedule", "pause", "") == ["nightly"]
        assert await on_line("schedule", "add", "ni") == []
        for option, command, values in (
            ("--queue", "show", ["orders"]), ("--node", "ps", ["a"]), ("--host", "start", ["app:worker", "orders"]),
            ("--context", "nodes", ["here"]), ("--workflow", "logs", ["order-1", "order-2", "parcel-1", "with space"]),
        ):  # fmt: skip
            found = await anyio.to_thread.run_sync(completed, command, "-s", url, option, "")
            assert found == values, option
        by_variable = await anyio.to_thread.run_sync(lambda: completed("show", "--context", "here", "-s", url, "p"))
        assert by_variable == ["parcel-1"]


def test_without_a_server_nothing_comes_and_nothing_is_said(
    in_a_shell: None, capfd: pytest.CaptureFixture[str]
) -> None:
    took_s = []
    for _ in range(3):
        began = time.perf_counter()
        assert completed("show", "-s", "nats://127.0.0.1:1", "") == []
        assert completed("show", "--context", "nowhere", "") == []
        assert completed("show", "-s", "no address", "") == []
        took_s.append(time.perf_counter() - began)
    # The quickest: a wait of ours is in each of them, what else the machine does is not.
    assert min(took_s) < NO_SERVER_S
    assert capfd.readouterr() == ("", "")


async def test_a_real_bash_completes_names_with_colons(nats_server: ServerFactory, tmp_path: Path) -> None:
    """A colon ends a word for bash; the name must not be doubled by that."""
    source = "return function() return 1 end"
    app = write_app(tmp_path / "app", workflows={"greet": source, "grow": source})
    programs = tmp_path / "bin"
    programs.mkdir()
    command = programs / "mesh"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m node "$@"\n')
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    bash = shutil.which("bash")
    assert bash is not None
    async with a_mesh(nats_server().url, app) as mesh:
        environ = plain_environment({"NATS_URL": mesh.client.conn.address})
        environ["PATH"] = os.pathsep.join((str(programs), os.environ["PATH"]))

        async def pressed_tab(*words: str) -> list[str]:
            """What bash offers at the end of a line of these words."""
            line = " ".join(f"'{word}'" for word in words)
            script = (
                'eval "$(mesh completion bash)"\n'
                f"COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}\n"
                '_mesh_completion mesh; printf "%s\\n" "${COMPREPLY[@]}"'
            )
            done = await anyio.run_process([bash, "--norc", "-c", script], env=environ, stderr=subprocess.STDOUT)
            return done.stdout.decode().split()

        names: list[str] = []
        with anyio.fail_after(PATIENCE_S):
            while not names:  # what a busy machine does not find in time it leaves out
                names = await pressed_tab("mesh", "start", "app", ":", "gr")
        assert names == ["greet", "grow"]
        assert await pressed_tab("mesh", "star") == ["start"]


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_has_a_script(shell: str) -> None:
    source = source_for(shell)
    assert f"_MESH_COMPLETE={shell}_complete" in source
    assert "mesh" in source.splitlines()[-2] + source.splitlines()[-1] + source.splitlines()[-3]


async def test_the_shell_is_that_of_the_environment(tmp_path: Path) -> None:
    done = await mesh_command("completion", environ={"SHELL": "/usr/bin/fish"})
    assert done.status == 0
    assert done.out.startswith("# Completion of mesh for fish; mesh completion fish > ")
    unknown = await mesh_command("completion", environ={"SHELL": "/bin/tcsh"})
    assert unknown.status == 2
    assert "$SHELL names none of bash, zsh, fish" in unknown.err
