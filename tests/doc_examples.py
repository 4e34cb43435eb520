"""The Lua examples of a document, made into one app whose entries show whether the document is right.

Every ```lua block is an entry of namespace `app`: a function, unless an HTML comment in front of it says otherwise.

    <!-- function: NAME -->  <!-- process: NAME -->   units that other examples call or spawn; they do not run by themselves
    <!-- workflow -->        <!-- workflow: NAME -->  a workflow, run by itself or by others
    <!-- library: NAME -->                            imported by all other blocks under its name
    <!-- terminal: NAME -->                           a program; the ```console block behind it says how it is run, what it writes
    <!-- fails: KIND -->                              a function that must fail, with an Error of this kind
    <!-- text -->                                     not run: it shows a form

A block that ends with `return main` or `return { main = main }` is a whole file, any other is the body of a main function.
`CODE --> VALUES` says what an expression, the variables of a `local`, or a `return` gives: Lua values, compared deep.
An Error is shown by its kind alone (`--> nil, NotFound`) or its text, other objects by their text. Entries that are not
code come from the document's first ```yaml block.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio

from mesh.client import FunctionFailed, WorkflowFailed
from mesh.errors import MeshError
from node.registry import AVAILABLE, workflow_fault
from tests.apps import Mesh
from tests.cluster import mesh_command

_ENTRY_KINDS: Final = {"terminal": "process"}
EXAMPLE_TIMEOUT_S: Final = 30.0
WEB_SERVER: Final = "http://shop.example"

_BLOCK = re.compile(r"(?:^<!-- (?P<mark>[^>]+?) -->\n)?^```lua\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
_CONSOLE = re.compile(
    r"```console\n\$ printf '(?P<input>[^']*)' \| mesh run \S+ -x app:(?P<name>\w+)(?P<args>.*)\n(?P<output>(?:.*\n)*?)```$",
    re.MULTILINE,
)
_YAML = re.compile(r"^```yaml\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_SHOWN = re.compile(r"^(?P<indent>\s*)(?P<code>\S.*?)\s*-->\s*(?P<values>.+)$")
_LOCAL = re.compile(r"local (?P<names>[\w, ]+?) = .+")
_WHOLE_FILE = re.compile(r"^return (main|\{ main = main \})$", re.MULTILINE)

# `line(number, expected, ...)` raises when the values are not the expected ones, and gives them back when they are.
_CHECK: Final = r"""
local kinds = { Invalid = {}, NotFound = {}, AlreadyExists = {}, PermissionDenied = {}, Unavailable = {}, Internal = {},
  Canceled = {}, Conflict = {}, Timeout = {}, RateLimited = {} }
local kind_of = {}
for kind, marker in pairs(kinds) do kind_of[marker] = kind end

local function is_error(v) return type(v) == "userdata" and pcall(function() return v:retryable(), v:kind() end) end

local function same(got, wanted)
  if kind_of[wanted] then
    return is_error(got) and got:kind() == kind_of[wanted]
  elseif type(got) == "userdata" and type(wanted) == "string" then
    return tostring(got) == wanted
  elseif type(got) ~= "table" or type(wanted) ~= "table" then
    return got == wanted and math.type(got) == math.type(wanted)
  end
  for k, v in pairs(wanted) do
    if not same(got[k], v) then return false end
  end
  for k in pairs(got) do
    if wanted[k] == nil then return false end
  end
  return true
end

local function shown(v)
  if type(v) == "string" then return string.format("%q", v) end
  if is_error(v) then return v:kind() .. " (" .. tostring(v) .. ")" end
  if kind_of[v] then return kind_of[v] end
  if type(v) ~= "table" then return tostring(v) end
  local parts = {}
  for k, item in pairs(v) do
    parts[#parts + 1] = (type(k) == "number" and "" or tostring(k) .. " = ") .. shown(item)
  end
  return "{ " .. table.concat(parts, ", ") .. " }"
end

local function list(values)
  local parts = {}
  for i = 1, values.n do parts[i] = shown(values[i]) end
  return table.concat(parts, ", ")
end

local function line(number, wanted, ...)
  local got = table.pack(...)
  for i = 1, math.max(got.n, wanted.n) do
    if not same(got[i], wanted[i]) then
      error("line " .. number .. " says " .. list(wanted) .. ", but it is " .. list(got), 0)
    end
  end
  return ...
end

return { line = line, kinds = kinds }
"""
_KINDS: Final = (
    "Invalid", "NotFound", "AlreadyExists", "PermissionDenied", "Unavailable", "Internal", "Canceled", "Conflict",
    "Timeout", "RateLimited",
)  # fmt: skip
_PRELUDE: Final = (
    f"local __line, {', '.join(_KINDS)} = __check.line, {', '.join(f'__check.kinds.{kind}' for kind in _KINDS)}"
)


@dataclass(frozen=True, slots=True)
class Session:
    """How a program is run in a terminal, and what it must write to standard output."""

    name: str
    arguments: tuple[str, ...]
    input: str
    output: str


class BadDocument(ValueError):
    """Raised when the marks of a document make no sense."""


@dataclass(frozen=True, slots=True)
class Example:
    """A block. line: where its code begins in the document. fails: the kind it must fail with, None if it must not."""

    line: int
    kind: str  # function, process, workflow, library, terminal (a process)
    name: str
    code: str
    runs: bool
    fails: str | None

    @property
    def source(self) -> str:
        """Its code as a file of its own. What makes it look at its values stands in front of the first line."""
        checked = "\n".join(_checked(text, self.line + i) for i, text in enumerate(self.code.splitlines()))
        begin, end = "", ""
        if self.kind != "library" and not _WHOLE_FILE.search(self.code):
            begin, end = " return { main = function(...)", "\nend }"
        return f"{_PRELUDE}{begin} {checked}{end}\n"


def _checked(text: str, number: int) -> str:
    """A line that says what it gives, as code that looks whether it is so."""
    shown = _SHOWN.match(text)
    if shown is None:
        return text
    code, wanted = shown["code"], f"table.pack({shown['values']})"
    if (names := _LOCAL.fullmatch(code)) is not None:
        return f"{code} __line({number}, {wanted}, {names['names']})"
    if code.startswith("return "):
        return f"return __line({number}, {wanted}, {code.removeprefix('return ')})"
    return f"__line({number}, {wanted}, {code})"


def examples_of(document: str) -> list[Example]:
    """The examples of a document, in order. Raises BadDocument."""
    found = []
    for block in _BLOCK.finditer(document):
        line = document.count("\n", 0, block.start("code")) + 1
        mark, _, name = (block["mark"] or "function").partition(": ")
        if mark == "text":
            continue
        if mark not in ("function", "process", "workflow", "library", "terminal", "fails"):
            raise BadDocument(f"line {line}: unknown mark {block['mark']!r}")
        kind = "function" if mark == "fails" else mark
        fails = name if mark == "fails" else None
        runs = kind in ("function", "workflow") and (not name or fails is not None)
        found.append(Example(line, kind, f"line_{line}" if runs else name, block["code"], runs, fails))
    for example in found:
        used = re.search(rf"app:{example.name}\b|\bfunc: {example.name}\b", document)
        if not used and not example.runs and example.kind != "library":
            raise BadDocument(f"line {example.line}: nothing uses {example.kind} {example.name}")
    return found


def sessions_of(document: str) -> list[Session]:
    """What stands in the document about programs in a terminal."""
    return [
        Session(found["name"], tuple(found["args"].split()), found["input"].replace("\\n", "\n"), found["output"])
        for found in _CONSOLE.finditer(document)
    ]


def _yaml_of(document: str) -> str:
    block = _YAML.search(document)
    return block["text"] if block is not None else "version: '1.0'\nnamespace: app\n"


def write_examples(directory: Path, document: str, examples: Sequence[Example]) -> Path:
    """Write the app of a document's examples and return its directory."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "document.yaml").write_text(_yaml_of(document), encoding="utf-8")
    (directory / "__check.lua").write_text(_CHECK, encoding="utf-8")
    entries: list[dict[str, Any]] = [{"name": "__check", "kind": "library.lua", "source": "file://__check.lua"}]
    imports = {"__check": "app:__check"}
    libraries = {example.name: f"app:{example.name}" for example in examples if example.kind == "library"}
    for example in examples:
        (directory / f"{example.name}.lua").write_text(example.source, encoding="utf-8")
        entry: dict[str, Any] = {
            "name": example.name, "kind": f"{_ENTRY_KINDS.get(example.kind, example.kind)}.lua", "source": f"file://{example.name}.lua",
            "modules": sorted(m for m in AVAILABLE if example.kind not in ("workflow", "library") or not workflow_fault(m)),
            "imports": imports if example.kind == "library" else imports | libraries,
        }  # fmt: skip
        if example.kind == "function":
            entry["method"] = "main"
            entry["meta"] = {"mesh.activity.worker": "app:orders"}
        elif example.kind == "workflow":
            entry["meta"] = {"mesh.workflow.worker": "app:orders"}
        elif example.kind == "process":
            entry["meta"] = {"default_host": "app:processes"}
        entries.append(entry)
    text = json.dumps({"version": "1.0", "namespace": "app", "entries": entries})
    (directory / "examples.json").write_text(text, encoding="utf-8")
    return directory


def with_url(document: str, url: str) -> str:
    """The document with the address of a real server in place of the one that its examples name."""
    return document.replace(WEB_SERVER, url)


async def session_fault(app: Path, url: str, session: Session) -> str | None:
    """Run a program as the document says; what is wrong with it, None if nothing is."""
    command = ("run", str(app), "-x", f"app:{session.name}", *session.arguments)
    done = await mesh_command(*command, url=url, stdin=session.input)
    if (done.status, done.out) == (0, session.output):
        return None
    return f"app:{session.name} gives status {done.status} and {done.out!r}, not {session.output!r}; {done.err}"


async def fault_of(mesh: Mesh, example: Example) -> str | None:
    """Run an example; what is wrong with it, None if nothing is."""
    try:
        with anyio.fail_after(EXAMPLE_TIMEOUT_S):
            if example.kind == "workflow":
                handle = await mesh.client.start(f"app:{example.name}", host="app:orders", id=example.name)
                await handle.result()
            else:
                await mesh.client.call(f"app:{example.name}")
    except (FunctionFailed, WorkflowFailed) as error:
        if example.fails is not None and error.failure.kind == example.fails:
            return None
        return f"line {example.line}: {error.failure.kind}: {error.failure}"
    except (MeshError, TimeoutError) as error:
        return f"line {example.line}: {error!r}"
    if example.fails is not None:
        return f"line {example.line}: did not fail"
    return None
