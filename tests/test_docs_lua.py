"""What docs/lua.md says is so: its examples are run on a real node, and every function that code can see is in it."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

import pytest

from mesh import codec
from node.machine.vm import LuaVM, UnitSpec
from node.registry import AVAILABLE
from tests.apps import a_mesh
from tests.conftest import ServerFactory
from tests.doc_examples import BadDocument, examples_of, fault_of, session_fault, sessions_of, with_url, write_examples

STANDARD: Final = ("coroutine", "math", "os", "package", "string", "table")
YAML: Final = """
```yaml
version: "1.0"
namespace: app
entries:
  - { name: client, kind: mesh.client, address: "nats://127.0.0.1:4222", lifecycle: { auto_start: true } }
  - { name: orders, kind: mesh.worker, client: client, task_queue: orders, lifecycle: { auto_start: true } }
  - { name: processes, kind: process.host, lifecycle: { auto_start: true } }
```
"""
LIST_FUNCTIONS: Final = """
local modules, found = ..., {}
local function see(name, contents)
  for key, value in pairs(contents) do
    if type(value) == "function" then found[#found + 1] = name .. key
    elseif type(value) == "table" and name ~= "" and name ~= "package." then see(name .. key .. ".", value) end
  end
end
see("", _G)
for _, name in ipairs(modules) do
  local there, module = pcall(require, name)
  if there and type(module) == "table" then see(name .. ".", module) end
end
return found
"""
# The classes of objects are the kernel's own; this is how a test gets to see them.
LIST_METHODS: Final = b"""function(feed)
  local function upvalue(f, wanted)
    for i = 1, 255 do
      local name, value = debug.getupvalue(f, i)
      if name == nil or string.find(name, wanted) then return value end
    end
  end
  local found = {}
  for mt, class in pairs(upvalue(upvalue(feed, "^K$").class_of, "^classes$")) do
    local methods = type(mt.__index) == "function" and upvalue(mt.__index, "methods$") or mt.__index
    for name, method in pairs(methods) do
      if type(method) == "function" then found[#found + 1] = class .. ":" .. name end
    end
  end
  return table.concat(found, " ")
end"""

PROJECT: Final = Path(__file__).parent.parent
DOCUMENT: Final = PROJECT / "docs" / "lua.md"


class Shop(BaseHTTPRequestHandler):
    """A web server that tells what it was asked."""

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        told = json.dumps({"path": self.path, "body": body.decode()}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(told)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = answer  # noqa: N815 - names of the library

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def a_shop() -> Iterator[str]:
    """Run the web server; its URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Shop) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


async def faults_of(directory: Path, url: str, document: str) -> list[str]:
    """What is wrong with the examples of a document."""
    examples = examples_of(document)
    app = write_examples(directory, document, examples)
    async with a_mesh(url, app) as mesh:
        faults = [await fault_of(mesh, example) for example in examples if example.runs]
    return [fault for fault in faults if fault is not None]


async def test_every_example_runs_and_gives_what_it_shows(tmp_path: Path, nats_server: ServerFactory) -> None:
    with a_shop() as shop:
        document = with_url(DOCUMENT.read_text(encoding="utf-8"), shop)
        faults = await faults_of(tmp_path, nats_server().url, document)
    assert not faults, "docs/lua.md: " + "\n".join(faults)


async def test_programs_in_a_terminal_write_what_is_shown(tmp_path: Path, nats_server: ServerFactory) -> None:
    document = DOCUMENT.read_text(encoding="utf-8")
    sessions = sessions_of(document)
    app = write_examples(tmp_path, document, examples_of(document))
    url = nats_server().url
    assert sessions
    assert [fault for session in sessions if (fault := await session_fault(app, url, session)) is not None] == []


async def test_an_example_that_shows_something_else_is_found(tmp_path: Path, nats_server: ServerFactory) -> None:
    """Each way to show a value, right and wrong; a wrong kind; what runs into an error; what does not fail as it should."""
    document = (
        "\n".join(
            f"{mark}```lua\n{code}\n```\n"
            for mark, code in [
                ("", 'local a, b = 1, "x" --> 1, "x"\na --> 1\nreturn { a } --> { 1 }'),
                ("", 'local a, b = 1, "x" --> 1, "y"'),
                ("", "1 + 1 --> 2.0"),
                ("", "return { 1, 2 } --> { 1 }"),
                ("", "pcall(error) --> false"),
                ("", 'funcs.call("x") --> nil, Invalid'),
                ("", 'funcs.call("x") --> nil, NotFound'),
                ("", "nothing.at_all --> nil"),
                ("<!-- fails: Conflict -->\n", "error(errors.new{ message = 'no', kind = errors.CONFLICT })"),
                ("<!-- fails: Conflict -->\n", "error('no')"),
                ("<!-- fails: Conflict -->\n", "return 1"),
                ("<!-- workflow -->\n", "time.now():is_zero() --> true"),
            ]
        )
        + YAML
    )
    faults = await faults_of(tmp_path, nats_server().url, document)
    assert [fault.partition(":")[0] for fault in faults] == [
        f"line {line}" for line in (8, 12, 16, 28, 32, 42, 47, 52)
    ]  # fmt: skip
    assert faults[0] == 'line 8: Internal: Internal: line 8 says 1, "y", but it is 1, "x"'


@pytest.mark.parametrize("mark", ["nonsense", "process: nobody_spawns_it"])
def test_a_mark_that_means_nothing_is_refused(mark: str) -> None:
    with pytest.raises(BadDocument, match="line 3"):
        examples_of(f"<!-- {mark} -->\n```lua\nreturn 1\n```\n")


def function_names() -> list[str]:
    """The functions that a unit which lists all modules sees: `print`, `json.encode`, `crypto.random.bytes`, ..."""
    vm, modules = LuaVM(), sorted(AVAILABLE)
    assert vm.compile("list", f"return function(...) {LIST_FUNCTIONS} end", "list.lua") is None
    unit = vm.open(UnitSpec(kind="function", entry_id="app:list", code="list", modules=tuple(modules)))
    end = unit.feed("start", 0, codec.pack([modules]))[-1]
    _, names = codec.decode_outcome(end.payload or codec.NIL_OUTCOME)
    assert isinstance(names, list), names
    return names


def method_names() -> list[tuple[str, str]]:
    """Class and name of every method of the objects that code may get."""
    vm = LuaVM()
    listed: bytes = vm._lua.eval(LIST_METHODS)(vm._api[b"feed"])
    return [(of, name) for of, _, name in (each.partition(":") for each in listed.decode().split())]


def executed() -> str:
    """The code of the examples that run."""
    return "\n".join(example.code for example in examples_of(DOCUMENT.read_text(encoding="utf-8")))


def test_every_function_of_every_module_has_an_example() -> None:
    """As a unit that lists all modules sees them. Those of the standard library are only named, one row each."""
    code, text = executed(), DOCUMENT.read_text(encoding="utf-8")
    rows = {found[1]: found[2] for found in re.finditer(r"^\| `?([\w ]+?)`? \| (.+?) \|$", text, re.MULTILINE)}
    functions = function_names()
    missing = []
    for name in functions:
        module, _, function = name.rpartition(".")
        if module in STANDARD or not module:
            known = f"`{function}`" in rows.get(module or "globals", "") or f"`{function}`" in rows.get("as checks", "")
        else:
            known = re.search(rf"\b{re.escape(name)}\s*[({{]", code) is not None
        if not known:
            missing.append(name)
    assert not missing, f"docs/lua.md does not show {', '.join(missing)}"
    assert len(functions) > 200


def test_every_method_of_every_object_has_an_example() -> None:
    code = executed()
    methods = method_names()
    missing = sorted({f"{of}:{name}" for of, name in methods if not re.search(rf":{name}\s*[({{]", code)})
    assert not missing, f"docs/lua.md does not show {', '.join(missing)}"
    assert len(methods) > 130
