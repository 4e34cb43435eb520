"""The module `io`: what Lua code writes and reads, through pipes and in a node."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from mesh.failure import Kind
from node.modules import Caller, Refused
from node.modules.io import LINE_BYTES_MAX, READ_BYTES_MAX, UNWRITTEN_BYTES_MAX, StandardStreams
from node.registry import load_registry
from tests.apps import a_mesh, write_app
from tests.conftest import ServerFactory

CLI = Caller("{a@app:terminal|0x1}", "app:cli")
OTHER = Caller("{a@app:processes|0x2}", "app:worker")


class Pipes:
    """The streams of a module, and their other ends."""

    def __init__(self) -> None:
        stdin, self.type_here = os.pipe()
        self.out, stdout = os.pipe()
        self.err, stderr = os.pipe()
        self._all = {stdin, self.type_here, self.out, stdout, self.err, stderr}
        self.io = StandardStreams(stdin=stdin, stdout=stdout, stderr=stderr)
        self.io.attach("app:terminal", ["a", "b"])

    def close(self, *fds: int) -> None:
        for fd in fds or tuple(self._all):
            self._all.discard(fd)
            os.close(fd)

    async def readline(self) -> object:
        return await self.io.ask("readline", [], CLI)

    async def refused(self, verb: str, *args: object, caller: Caller = CLI) -> tuple[str, str]:
        """Kind and message of the refusal."""
        with pytest.raises(Refused) as caught:
            await self.io.ask(verb, list(args), caller)
        return str(caught.value.failure.kind), caught.value.failure.message


@pytest.fixture
def pipes() -> Iterator[Pipes]:
    made = Pipes()
    yield made
    made.close()


async def test_what_is_written_leaves_in_order(pipes: Pipes) -> None:
    async def write(number: int) -> None:
        await pipes.io.ask("write", ["stdout", f"{number}\n"], OTHER if number % 2 else CLI)

    async with anyio.create_task_group() as tasks:
        for number in range(1000):
            tasks.start_soon(write, number)
    await pipes.io.ask("write", ["stderr", b"\xff\n"], CLI)
    await pipes.io.ask("flush", [], CLI)
    assert os.read(pipes.out, 65536).decode() == "".join(f"{number}\n" for number in range(1000))
    assert os.read(pipes.err, 65536) == b"\xff\n"


async def test_who_writes_more_than_is_read_waits_and_nobody_else_does(pipes: Pipes) -> None:
    """The event loop goes on while the thread is stuck in a full pipe."""
    done = 0
    block = "x" * UNWRITTEN_BYTES_MAX

    async def write() -> None:
        nonlocal done
        for _ in range(4):
            await pipes.io.ask("write", ["stdout", block], CLI)
            done += 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write)
        for _ in range(20):
            await anyio.sleep(0.005)
        assert done < 4
        count = 0
        while count < 4 * len(block):
            count += len(await anyio.to_thread.run_sync(os.read, pipes.out, 65536))
    assert done == 4


async def test_a_closed_output_is_an_error_for_who_writes_to_it_only(pipes: Pipes) -> None:
    pipes.close(pipes.out)
    await pipes.io.ask("write", ["stdout", "lost"], CLI)
    with anyio.fail_after(5):
        await pipes.io.wait_closed()
        await pipes.io.flush()
    assert await pipes.refused("write", "stdout", "x") == (Kind.UNAVAILABLE, "nobody reads the output any more")
    await pipes.io.ask("write", ["stderr", "heard"], CLI)
    await pipes.io.flush()
    assert os.read(pipes.err, 100) == b"heard"


async def test_lines_come_without_their_ends_and_the_last_one_needs_none(pipes: Pipes) -> None:
    os.write(pipes.type_here, b"one\n\ntwo\r\n\xfe\nlast")
    pipes.close(pipes.type_here)
    assert [await pipes.readline() for _ in range(5)] == [b"one", b"", b"two", b"\xfe", b"last"]
    assert await pipes.refused("readline") == (Kind.NOT_FOUND, "EOF")
    assert await pipes.refused("readline") == (Kind.NOT_FOUND, "EOF")
    assert await pipes.refused("read", 10) == (Kind.NOT_FOUND, "EOF")


async def test_read_gives_what_there_is_up_to_n_bytes(pipes: Pipes) -> None:
    os.write(pipes.type_here, b"abcdef\nrest\n")
    assert await pipes.io.ask("read", [4], CLI) == b"abcd"
    assert await pipes.io.ask("read", [READ_BYTES_MAX], CLI) == b"ef\nrest\n"
    for wrong in (0, -1, READ_BYTES_MAX + 1):
        assert await pipes.refused("read", wrong) == (
            Kind.INVALID, f"io.read takes 1 to {READ_BYTES_MAX} bytes, got {wrong}",
        )  # fmt: skip


async def test_a_line_that_never_ends_is_refused_and_can_still_be_read(pipes: Pipes) -> None:
    async def type_much() -> None:
        block = b"x" * 65536
        for _ in range(LINE_BYTES_MAX // len(block) + 1):
            await anyio.to_thread.run_sync(os.write, pipes.type_here, block)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(type_much)
        kind, message = await pipes.refused("readline")
    assert (kind, message) == (Kind.INVALID, "a line is longer than 16 MB; use io.read")
    assert await pipes.io.ask("read", [3], CLI) == b"xxx"


async def test_a_reader_that_was_given_up_loses_nothing(pipes: Pipes) -> None:
    with anyio.move_on_after(0.01) as given_up:
        await pipes.readline()
    assert given_up.cancelled_caught
    os.write(pipes.type_here, b"kept\n")
    assert await pipes.readline() == b"kept"


async def test_interrupt_ends_who_reads_and_refuses_who_comes_later(pipes: Pipes) -> None:
    async with anyio.create_task_group() as tasks:

        async def read() -> None:
            assert await pipes.refused("readline") == (Kind.CANCELED, "interrupted")

        tasks.start_soon(read)
        await anyio.sleep(0.01)
        pipes.io.interrupt()
    os.write(pipes.type_here, b"late\n")
    assert await pipes.refused("readline") == (Kind.CANCELED, "interrupted")


async def test_input_and_arguments_are_those_of_the_process_on_the_terminal_host(pipes: Pipes) -> None:
    assert await pipes.io.ask("args", [], CLI) == ["a", "b"]
    assert await pipes.io.ask("args", [], OTHER) == []
    kind, message = await pipes.refused("readline", caller=OTHER)
    assert kind == Kind.INVALID
    assert message == (
        "io.readline: app:worker has no input, as it does not run on a terminal.host; "
        "only the process that `mesh run APP -x ENTRY` runs there has one"
    )


FUNCTION = """
local io = require("io")
local function main()
  local shown = { io.print("a", 1, nil, true), io.write("b", 2, "\\n"), io.flush() }
  io.eprint("oops")
  local line, err = io.readline()
  local _, wrong = io.read("*l")
  return { shown, line == nil, err:kind(), #io.args(), tostring(wrong) }
end
return { main = main }
"""


async def test_functions_write_to_the_output_of_their_node_and_have_no_input(
    nats_server: ServerFactory, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    app = write_app(tmp_path, functions={"t": {"source": FUNCTION, "modules": ["io"]}})
    async with a_mesh(nats_server().url, app) as mesh:
        assert await mesh.client.call("app:t") == [
            [True, True, True], True, "Invalid", 0,
            "io.read takes a number of bytes, got *l; a line is read by io.readline",
        ]  # fmt: skip
        await mesh.node.modules.io.flush()
    shown = capfd.readouterr()
    assert shown.out == "a\t1\tnil\ttrue\nb2\n"
    assert "oops\n" in shown.err


async def test_io_is_there_only_when_it_is_listed(nats_server: ServerFactory, tmp_path: Path) -> None:
    source = "return { main = function() return { io == nil, (pcall(require, 'io')) } end }"
    app = write_app(tmp_path, functions={"t": {"source": source, "modules": []}})
    async with a_mesh(nats_server().url, app) as mesh:
        assert await mesh.client.call("app:t") == [True, False]


def test_a_workflow_cannot_list_io(tmp_path: Path) -> None:
    (tmp_path / "_index.yaml").write_text(
        "namespace: a\nentries:\n"
        "  - {name: w, kind: workflow.lua, source: return function() end, modules: [io]}\n"
    )  # fmt: skip
    [problem] = load_registry(tmp_path, environ={}).problems
    assert "module 'io' is not allowed in workflows" in problem.reason
