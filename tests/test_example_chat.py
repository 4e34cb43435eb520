"""The chat of `examples/chat`, as its README has it: on terminals, alone and together, also when the room breaks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cluster import PROJECT, mesh_command
from tests.terminals import CTRL_C, CTRL_D, on_terminal

pytestmark = pytest.mark.timeout(180)  # many commands and nodes, each a process to start

CHAT = str(PROJECT / "examples" / "chat")


async def test_nothing_is_wrong_with_the_app() -> None:
    done = await mesh_command("check", "--strict", CHAT)
    assert (done.status, done.out) == (0, "")


def test_one_chats_with_the_bot_and_the_supervisor_repairs_the_room(tmp_path: Path) -> None:
    with on_terminal("run", CHAT, "-x", "chat:cli", "ann", directory=tmp_path) as ann:
        ann.expect("* bot joined\n")
        ann.type("!help\n")
        ann.expect("bot: I know !help, !time and !dice\n")
        ann.type("/crash\n")
        ann.expect("* the room is gone, waiting for it\n")
        ann.expect("* you are in again\n")
        ann.expect("* bot joined\n")
        ann.type("!dice\n")
        ann.expect("bot: you rolled ")
        ann.type("/quit\n")
        assert ann.wait() == 0
        assert "ERROR" not in ann.seen


def test_several_chat_over_the_mesh(tmp_path: Path) -> None:
    """The services are on one node, each guest on one of its own, which comes and goes."""
    with on_terminal("run", CHAT, directory=tmp_path) as services:
        services.expect("running: chat:bot.service chat:room.service; node ")
        with on_terminal("run", CHAT, "-x", "chat:cli", "ann", directory=tmp_path) as ann:
            ann.expect("* you are in")
            with on_terminal("run", CHAT, "-x", "chat:cli", "bob", directory=tmp_path) as bob:
                ann.expect("* bob joined\n")
                bob.expect("* ann joined\n")
                ann.type("hello bob\n")
                bob.expect("ann: hello bob\n")
                bob.type("!time\n")
                ann.expect("bob: !time\n")
                ann.expect("bot: it is ")
                bob.type(CTRL_D)
                assert bob.wait() == 0
            ann.expect("* bob left\n")
            ann.type(CTRL_C)
            assert ann.wait() == 130
        services.type(CTRL_C)
        assert services.wait() == 0


def test_the_room_notices_a_guest_that_is_killed(tmp_path: Path) -> None:
    with on_terminal("run", CHAT, directory=tmp_path) as services:
        services.expect("running: ")
        with on_terminal("run", CHAT, "-x", "chat:cli", "ann", directory=tmp_path) as ann:
            ann.expect("* you are in")
            with on_terminal("run", CHAT, "-x", "chat:cli", "bob", directory=tmp_path) as bob:
                ann.expect("* bob joined\n")
                bob.process.kill()
                assert bob.wait() == -9
                ann.expect("* bob left\n")


async def test_without_a_name_it_says_how_to_use_it(tmp_path: Path) -> None:
    done = await mesh_command("run", CHAT, "-x", "chat:cli", directory=tmp_path)
    assert (done.status, done.out) == (2, "")
    assert re.fullmatch("usage: mesh run APP -x chat:cli NAME\n", done.err)
