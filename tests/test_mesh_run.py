"""`mesh run`: programs of an app on a terminal and in a pipe, and its services, as a person starts and ends them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from node.cli.run import exit_code, with_separator
from tests.apps import write_files
from tests.cluster import Finished, a_node, mesh_command, plain_environment
from tests.conftest import ServerFactory
from tests.servers import tied_to_us
from tests.terminals import CTRL_C, CTRL_D, on_terminal
from tests.waiting import wait_until_async

pytestmark = pytest.mark.timeout(180)  # many commands and nodes, each a process to start

REGISTRY = """\
version: "1.0"
namespace: app
entries:
  - {name: terminal, kind: terminal.host, lifecycle: {stop_timeout: 20s}}
  - {name: cli, kind: process.lua, source: file://cli.lua, modules: [io, time, funcs]}
  - {name: broken, kind: process.lua, source: "error('no such luck')"}
  - {name: double, kind: function.lua, source: "return {main = function(n) return n * 2 end}", method: main}
"""
CLI = """\
local io, time, funcs = require("io"), require("time"), require("funcs")
local does = {}
function does.args(...) io.print(#io.args(), table.concat(io.args(), "|"), select("#", ...)) end
function does.returns(text) return ({ three = 3, big = 256, minus = -1, float = 3.5, yes = true, text = "3", table = { 1 } })[text] end
function does.raises() error("out of " .. tostring(nil) .. " cheese") end
function does.gives_error()
  return nil, errors.new{ message = "no cheese", kind = errors.NOT_FOUND, details = { shop = "corner" } }
end
function does.numbers()
  for i = 1, 100000 do io.print("line", i) end
end
function does.upper()
  while true do
    local line, err = io.readline()
    if not line then return err:kind() == "NotFound" and 0 or 9 end
    io.print(line:upper())
  end
end
function does.asks()
  io.write("name? ")
  io.print("hello " .. tostring(io.readline()))
  io.write("and? ")
  local line, err = io.readline()
  io.print(line, err)
end
function does.obeys()
  io.print("ready")
  local event = process.events():receive()
  io.print(event.kind, event.reason)
  return 7
end
function does.sleeps() io.print("ready") time.sleep("1h") end
function does.logs() print("shown by the log") io.print("shown") end
function does.calls() io.print((funcs.call("app:double", 21))) io.print("ready") io.readline() end
local function main(verb, ...) return does[verb](select(1, ...)) end
return { main = main }
"""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    write_files(tmp_path / "app", {"_index.yaml": REGISTRY, "cli.lua": CLI})
    return tmp_path / "app"


async def run(app: Path, *arguments: str, stdin: str = "", entry: str = "app:cli") -> Finished:
    """`mesh run APP -x ENTRY ...` on a mesh of its own, with its store next to the app."""
    return await mesh_command("run", str(app), "-x", entry, *arguments, stdin=stdin, directory=app.parent)


@contextmanager
def in_background(*arguments: str, directory: Path) -> Iterator[subprocess.Popen[str]]:
    """`mesh` with these arguments while the block runs; what it prints is in its `stdout`."""
    process = subprocess.Popen(
        tied_to_us(sys.executable, "-m", "node", *arguments),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=directory, env=plain_environment(),
        text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=20)


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def sentence(done: Finished, status: int = 1) -> str:
    """The one line it says; nothing on standard output."""
    assert (done.status, done.out) == (status, ""), done
    [line] = done.err.strip().splitlines()
    return line.removeprefix("mesh: ")


# -- results ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "status"),
    [
        (0, 0),
        (3, 3),
        (255, 255),
        (256, 255),
        (257, 1),
        (-1, 255),
        (-256, 255),
        (None, 0),
        (True, 0),
        (1.0, 0),
        ("1", 0),
    ],
)
def test_an_integer_result_is_the_exit_status_and_never_becomes_0(result: object, status: int) -> None:
    assert exit_code(result) == status


@pytest.mark.parametrize(("what", "status"), [("three", 3), ("big", 255), ("float", 0), ("table", 0), ("nil", 0)])
async def test_a_program_ends_with_its_result_and_says_nothing_of_its_own(app: Path, what: str, status: int) -> None:
    assert await run(app, "returns", what) == Finished(status, "", "")


async def test_an_error_is_status_1_and_shows_where_it_happened(app: Path) -> None:
    done = await run(app, "raises")
    assert (done.status, done.out) == (1, "")
    said = done.err.splitlines()
    assert said[0] == "mesh: app:cli failed: cli.lua:5: out of nil cheese"
    assert said[1].startswith("  cli.lua:5: in ")
    assert len(said) < 5


async def test_a_returned_error_is_status_1_with_kind_and_details(app: Path) -> None:
    done = await run(app, "gives_error")
    assert (done.status, done.out) == (1, "")
    said = done.err.splitlines()
    assert said[:2] == ["mesh: app:cli failed: NotFound: no cheese", '  details: {"shop": "corner"}']
    assert said[2].startswith("  cli.lua:7: in ")


async def test_a_file_that_cannot_be_loaded_fails_the_run(app: Path) -> None:
    done = await run(app, entry="app:broken")
    assert (done.status, done.out) == (1, "")
    assert done.err.splitlines()[0] == "mesh: app:broken failed: _index.yaml#broken:1: no such luck"


async def test_logs_are_warnings_unless_asked_for(app: Path) -> None:
    assert await run(app, "logs") == Finished(0, "shown\n", "")
    done = await mesh_command(
        "run", str(app), "-x", "app:cli", "--log-level", "info", "logs", directory=app.parent
    )  # fmt: skip
    assert done.out == "shown\n"
    assert "shown by the log" in done.err


# -- arguments -------------------------------------------------------------------------------------------------------

OPTIONS = {"-x": True, "--exec": True, "-s": True, "--strict": False, "-h": False, "--help": False}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("app", "app"),
        ("app -x app:cli", "app -x app:cli"),
        ("app -x app:cli one", "app -x app:cli -- one"),
        ("-x app:cli app one -s two", "-x app:cli app -- one -s two"),
        ("app -x app:cli --name ann --strict", "app -x app:cli -- --name ann --strict"),
        ("app --strict --exec=app:cli -s url -v -x", "app --strict --exec=app:cli -s url -- -v -x"),
        ("app -xapp:cli --help", "app -xapp:cli --help"),
        ("app -x app:cli -- --help", "app -x app:cli -- --help"),
        ("app -x app:cli a -- b", "app -x app:cli -- a -- b"),
        ("app -x app:cli - x", "app -x app:cli -- - x"),
        ("--no-such app", "--no-such app"),
    ],
)
def test_what_follows_our_options_is_the_programs(line: str, expected: str) -> None:
    assert with_separator(line.split(), OPTIONS) == expected.split()


async def test_a_program_gets_its_arguments_unread(app: Path) -> None:
    done = await run(app, "args", "--name", "a b", "-s", "x", "--debug", "--", "", "ü")
    assert done == Finished(0, "9\targs|--name|a b|-s|x|--debug|--||ü\t8\n", "")


async def test_what_cannot_be_run_is_said_in_one_line_with_the_way_out(app: Path) -> None:
    assert sentence(await run(app, entry="app:cl")) == "no process 'app:cl'; did you mean app:cli?"
    assert sentence(await run(app, entry="cli")) == "no process 'cli'; did you mean app:cli?"
    assert sentence(await run(app, entry="other:thing")) == (
        "no process 'other:thing'; there are app:broken, app:cli"
    )  # fmt: skip
    assert sentence(await run(app, entry="app:double")) == (
        "app:double is a function.lua; -x runs a process.lua; there are app:broken, app:cli"
    )
    assert sentence(await run(app, "--host", "app:screen")) == (
        "no terminal.host 'app:screen' in the app; it has app:terminal"
    )
    none = await mesh_command("run", str(app), directory=app.parent)
    assert sentence(none) == (
        f"no service of {app} starts by itself: add a process.service with `lifecycle: {{auto_start: true}}`, "
        f"or run one process: mesh run {app} -x app:broken"
    )
    usage = await mesh_command("run", str(app), "word", directory=app.parent)
    assert usage.status == 2
    assert "'word': only a program has arguments; name it before them, with -x ENTRY" in usage.err


async def test_the_host_is_chosen_when_there_are_several_and_built_in_when_there_is_none(app: Path) -> None:
    one = "  - {name: terminal, kind: terminal.host, lifecycle: {stop_timeout: 20s}}\n"
    write_files(app, {"_index.yaml": REGISTRY + one.replace("terminal,", "screen,")})
    done = await run(app, "args")
    assert sentence(done) == "the app has several terminal hosts: choose one with --host, from app:screen, app:terminal"
    assert (await run(app, "--host", "app:screen", "args")).out == "1\targs\t0\n"
    write_files(app, {"_index.yaml": REGISTRY.replace(one, "")})
    assert (await run(app, "args")).out == "1\targs\t0\n"


# -- input and output ------------------------------------------------------------------------------------------------


async def test_standard_input_is_read_to_its_end(app: Path) -> None:
    assert await run(app, "upper", stdin="one\ntwo") == Finished(0, "ONE\nTWO\n", "")
    assert await run(app, "upper") == Finished(0, "", "")


def test_a_program_whose_reader_goes_ends_quietly(app: Path) -> None:
    """As `yes | head -1`: no trace, no hanging."""
    with in_background("run", str(app), "-x", "app:cli", "numbers", directory=app.parent) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "line\t1\n"
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(20) == 0
        process.stdout = None


def test_a_program_talks_with_a_person_at_a_terminal(app: Path) -> None:
    with on_terminal("run", str(app), "-x", "app:cli", "asks", directory=app.parent) as terminal:
        terminal.expect("name? ")
        terminal.type("Ada\n")
        terminal.expect("hello Ada\n")
        terminal.expect("and? ")
        terminal.type(CTRL_D)
        terminal.expect("nil\tEOF\n")
        assert terminal.wait() == 0


# -- signals ---------------------------------------------------------------------------------------------------------


def test_ctrl_c_is_a_cancel_event_and_the_program_decides_how_it_ends(app: Path) -> None:
    with on_terminal("run", str(app), "-x", "app:cli", "obeys", directory=app.parent) as terminal:
        terminal.expect("ready")
        terminal.type(CTRL_C)
        terminal.expect("pid.cancel\tinterrupted\n")
        assert terminal.wait() == 7


def test_ctrl_c_ends_the_wait_for_a_line(app: Path) -> None:
    with on_terminal("run", str(app), "-x", "app:cli", "upper", directory=app.parent) as terminal:
        terminal.type("a\n")
        terminal.expect("A\n")
        terminal.type(CTRL_C)
        assert terminal.wait() == 9


def test_a_program_that_does_not_stop_in_time_is_killed(app: Path) -> None:
    write_files(app, {"_index.yaml": REGISTRY.replace("stop_timeout: 20s", "stop_timeout: 300ms")})
    with on_terminal("run", str(app), "-x", "app:cli", "sleeps", directory=app.parent) as terminal:
        terminal.expect("ready")
        terminal.type(CTRL_C)
        terminal.expect("interrupted\n")
        assert terminal.wait() == 130


def test_a_second_ctrl_c_does_not_wait_for_that(app: Path) -> None:
    registry = REGISTRY.replace("stop_timeout: 20s", "stop_timeout: 1h")
    write_files(app, {"_index.yaml": registry})
    with on_terminal("run", str(app), "-x", "app:cli", "sleeps", directory=app.parent) as terminal:
        terminal.expect("ready")
        terminal.type(CTRL_C)
        terminal.expect("app:cli is asked to stop; once more ends it at once\n")
        terminal.type(CTRL_C)
        terminal.expect("interrupted\n")
        assert terminal.wait() == 130


def test_sigterm_asks_as_well(app: Path) -> None:
    with in_background("run", str(app), "-x", "app:cli", "obeys", directory=app.parent) as process:
        assert first_line(process) == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert first_line(process) == "pid.cancel\tterminated\n"
        assert process.wait(20) == 7


# -- services --------------------------------------------------------------------------------------------------------

SERVICES = """\
version: "1.0"
namespace: app
entries:
  - {name: host, kind: process.host}
  - {name: thing, kind: process.lua, source: file://thing.lua, modules: [io]}
  - {name: broken, kind: process.lua, source: "error('no such luck')"}
  - {name: cli, kind: process.lua, source: "return function() return 5 end"}
  - {name: a, kind: process.service, process: thing, host: host, input: [a], lifecycle: {auto_start: true, requires: [b]}}
  - {name: b, kind: process.service, process: thing, host: host, input: [b], lifecycle: {requires: [c]}}
  - {name: c, kind: process.service, process: thing, host: host, input: [c]}
"""
THING = """\
local io = require("io")
return { main = function(name)
  io.print("start", name)
  local event = process.events():receive()
  io.print("stop", name, event.reason)
end }
"""
BROKEN = "  - {name: d, kind: process.service, process: broken, host: host, lifecycle: {auto_start: true%s}}\n"


def an_app_of_services(directory: Path, more: str = "") -> Path:
    return write_files(directory / "app", {"_index.yaml": SERVICES + more, "thing.lua": THING})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_services_start_in_order_and_stop_the_other_way_round(tmp_path: Path, number: signal.Signals) -> None:
    app = an_app_of_services(tmp_path)
    with in_background("run", str(app), directory=tmp_path) as process:
        seen = [first_line(process) for _ in range(4)]
        assert [line for line in seen if line.startswith("start")] == ["start\tc\n", "start\tb\n", "start\ta\n"]
        [told] = [line for line in seen if not line.startswith("start")]
        assert re.fullmatch(
            r"running: app:a app:b app:c; node node-\w+ on nats://127.0.0.1:\d+; Ctrl-C stops everything\n", told
        )
        process.send_signal(number)
        assert process.stdout is not None
        assert process.stdout.read() == "".join(f"stop\t{name}\tservice stopping\n" for name in "abc")
        assert process.wait(20) == 0


async def test_a_required_service_that_does_not_start_ends_the_run(tmp_path: Path) -> None:
    app = an_app_of_services(tmp_path, BROKEN % "")
    for arguments in ([], ["-x", "app:cli"]):
        done = await mesh_command("run", str(app), "--log-level", "error", *arguments, directory=tmp_path)
        assert done.status == 1
        assert done.err == (
            "mesh: required services did not start (app:d: Internal: _index.yaml#broken:1: no such luck); "
            "repair them, or set lifecycle.startup to optional\n"
        )


async def test_an_optional_service_that_does_not_start_is_only_told(tmp_path: Path) -> None:
    app = an_app_of_services(tmp_path, BROKEN % ", startup: optional")
    done = await mesh_command("run", str(app), "--log-level", "error", "-x", "app:cli", directory=tmp_path)
    assert (done.status, done.err) == (5, "")
    with in_background("run", str(app), "--log-level", "error", directory=tmp_path) as process:
        told = next(line for line in iter(lambda: first_line(process), "") if line.startswith("running"))
        assert told.startswith("running: app:a app:b app:c, not running: app:d; ")


async def test_nodes_shows_processes_and_services(nats_server: ServerFactory, tmp_path: Path) -> None:
    app = an_app_of_services(tmp_path, BROKEN % ", startup: optional")
    url = nats_server().url
    async with a_node(app, url, node_id="a"):

        async def are_up() -> bool:
            [record] = (await mesh_command("nodes", "--json", url=url)).records()
            running = [service["id"] for service in record["services"] if service["state"] == "Running"]
            errors = [service["id"] for service in record["services"] if service.get("last_error")]
            return (running, errors) == (["app:a", "app:b", "app:c"], ["app:d"])

        await wait_until_async(are_up)
        table = (await mesh_command("nodes", url=url)).out.splitlines()
        columns = dict(zip(table[0].split(), table[1].split(), strict=True))
        assert (columns["PROCESSES"], columns["SERVICES"]) == ("3", "3/4")
        [record] = (await mesh_command("nodes", "--json", url=url)).records()
        states = {service["id"]: service["state"] for service in record["services"]}
        assert states | {"app:d": ""} == {"app:a": "Running", "app:b": "Running", "app:c": "Running", "app:d": ""}
        [failed] = [service for service in record["services"] if service["id"] == "app:d"]
        assert failed["last_error"] == "Internal: _index.yaml#broken:1: no such luck"
        # A terminal of the usual width has no room for all columns: some are left out, none is cut.
        with on_terminal("nodes", "--nats", url, environ={"COLUMNS": "80", "TERM": "dumb"}) as terminal:
            assert terminal.wait() == 0
        headings, row, *rest = terminal.seen.splitlines()
        assert " ".join(headings.split()) == "NODE STATE PID RUNS CALLS PROCESSES SERVICES UP MEMORY QUEUES"
        *cells, _up, memory, queues = row.split()
        assert (cells, queues) == (["a", "up", columns["PID"], "0", "0", "3", "3/4"], "-")
        assert memory.endswith("MB")
        assert rest == []


# -- which mesh ------------------------------------------------------------------------------------------------------


async def test_a_second_run_joins_the_mesh_of_the_first_and_leaves_its_functions_to_it(app: Path) -> None:
    """A program that runs for a moment takes no work from the nodes that stay."""
    service = "  - {name: host, kind: process.host}\n" + (
        "  - {name: waits, kind: process.lua, source: 'return function() process.events():receive() end'}\n"
        "  - {name: one, kind: process.service, process: waits, host: host, placement: one, lifecycle: {auto_start: true}}\n"
    )
    write_files(app, {"_index.yaml": REGISTRY + service})
    with in_background("run", str(app), "--id", "stays", directory=app.parent) as stays:
        url = re.search(r"nats://\S+\d", first_line(stays))
        assert url is not None
        command = ("run", str(app), "--id", "passes", "-x", "app:cli", "calls")
        with in_background(*command, directory=app.parent) as program:
            assert [first_line(program), first_line(program)] == ["42\n", "ready\n"]
            nodes = (await mesh_command("nodes", "--json", url=url[0])).records()
            assert {node["node"]: (node["functions"], node["processes"]) for node in nodes} == {
                "stays": (1, 1), "passes": (0, 1),
            }  # fmt: skip
            out, err = program.communicate("\n", timeout=20)
            assert (program.returncode, out, err) == (0, "", "")


async def test_a_named_server_is_used_and_no_store_is_made(nats_server: ServerFactory, app: Path) -> None:
    url = nats_server().url
    done = await mesh_command("run", str(app), "-x", "app:cli", "args", url=url, directory=app.parent)
    assert done == Finished(0, "1\targs\t0\n", "")
    assert not (app.parent / ".mesh").exists()
    unreachable = await mesh_command("run", str(app), "--nats", "nats://127.0.0.1:1", "-x", "app:cli", "args")
    assert "no NATS server at nats://127.0.0.1:1" in sentence(unreachable, status=3)


async def test_the_store_is_that_of_mesh_up(app: Path) -> None:
    await run(app, "args")
    assert os.listdir(app.parent / ".mesh") == ["app"]
