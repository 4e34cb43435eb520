"""One behaviour, as its file tells it, and the app that all of them make together.

A file opens with comments: the first names the rule with its section of the contract, further ones may hold
directives (`DIRECTIVES`; README.md says what they mean). Not here: what runs a behaviour (`tests.lua.suite`).
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from node.registry.modules import AVAILABLE, MODULES

HERE: Final = Path(__file__).parent
BEHAVIOURS: Final = HERE / "behaviours"
SUPPORT: Final = HERE / "support"
NAMESPACE: Final = "lua.behaviours"
WORKER: Final = "lua.support:worker"
PROCESSES: Final = "lua.support:processes"
QUEUE: Final = "lua"
FUNCTION_MODULES: Final = tuple(sorted(AVAILABLE))
WORKFLOW_MODULES: Final = tuple(sorted(name for name in AVAILABLE if MODULES[name]))
DIRECTIVES: Final = {
    "as": ("function", "process", "workflow"),
    "modules": None,
    "imports": None,
    "nodes": None,
    "kill": None,
    "process": None,
}
_RULE: Final = re.compile(r"-- (\d+(?:\.\d+)?) (\S.*)")
_DIRECTIVE: Final = re.compile(r"-- (\w+): *(.*?) *")


class BadBehaviour(Exception):
    """Raised when a file of the suite does not say what a behaviour has to say."""

    def __init__(self, file: Path, line: int, reason: str) -> None:
        super().__init__(f"{file}:{line}: {reason}")


@dataclass(frozen=True, slots=True)
class Behaviour:
    """A behaviour.

    form: function, process or workflow. modules, imports: of its entry. one_node, unkilled, unspawned: why it is not
    run with the callers on a node of their own, not with its owner killed, or as a function not as a process too;
    "" = it is.
    """

    file: Path
    section: str
    rule: str
    form: str
    modules: tuple[str, ...]
    imports: dict[str, str]
    one_node: str
    unkilled: str
    unspawned: str

    @property
    def source(self) -> str:
        """Its file, as the app and the errors name it."""
        return f"{self.file.parent.name}/{self.file.name}"

    @property
    def id(self) -> str:
        """Its entry ID."""
        return f"{NAMESPACE}:{self.file.parent.name}.{self.file.stem}"

    @property
    def process_id(self) -> str:
        """The entry ID of a function that is run as a process."""
        return f"{self.id}.as_process"

    def entries(self) -> list[dict[str, Any]]:
        """Its registry entry, and that of the process which a function is run as too."""
        if self.form == "function" and not self.unspawned:
            return [self._entry(self.id, "function"), self._entry(self.process_id, "process")]
        return [self._entry(self.id, self.form)]

    def _entry(self, entry_id: str, form: str) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "name": entry_id.partition(":")[2], "kind": f"{form}.lua", "source": f"file://{self.source}",
            "method": "main", "modules": list(self.modules), "imports": {"check": "lua.support:check"} | self.imports,
        }  # fmt: skip
        match form:
            case "workflow":
                fields["meta"] = {"mesh.workflow.worker": WORKER}
            case "process":
                fields["meta"] = {"default_host": PROCESSES}
        return fields


def read_behaviour(file: Path) -> Behaviour:
    """Read what a file says of itself. Raises BadBehaviour."""
    lines = file.read_text(encoding="utf-8").splitlines()
    rule = _RULE.fullmatch(lines[0]) if lines else None
    if rule is None:
        raise BadBehaviour(file, 1, "the first line has to name the rule: -- 6.2 The first ready case is taken.")
    said: dict[str, str] = {}
    for number, line in enumerate(lines[1:], 2):
        if not line.startswith("--"):
            break
        directive = _DIRECTIVE.fullmatch(line)
        if directive is not None and directive[1] in DIRECTIVES:
            name, value = directive.groups()
            allowed = DIRECTIVES[name]
            if name in said or (allowed is not None and value not in allowed):
                raise BadBehaviour(file, number, f"`{name}` is said once, as one of {', '.join(allowed or ('...',))}")
            said[name] = value
    form = said.get("as", "function")
    return Behaviour(
        file=file,
        section=rule[1],
        rule=rule[2],
        form=form,
        modules=tuple(said["modules"].replace(",", " ").split()) if "modules" in said else _modules(form),
        imports=_imports(file, said.get("imports", "")),
        one_node=_reason(file, "nodes", "one", said.get("nodes")),
        unkilled=_reason(file, "kill", "never", said.get("kill")),
        unspawned=_reason(file, "process", "never", said.get("process")),
    )


def _modules(form: str) -> tuple[str, ...]:
    return WORKFLOW_MODULES if form == "workflow" else FUNCTION_MODULES


def _imports(file: Path, said: str) -> dict[str, str]:
    imports = {}
    for part in said.replace(",", " ").split():
        alias, equals, entry_id = part.partition("=")
        if not equals:
            raise BadBehaviour(file, 1, f"`imports` are written alias=lua.support:name, not {part!r}")
        imports[alias] = entry_id
    return imports


def _reason(file: Path, name: str, word: str, said: str | None) -> str:
    if said is None:
        return ""
    first, _, reason = said.partition(",")
    if first != word or not reason.strip():
        raise BadBehaviour(file, 1, f"`{name}` is written `-- {name}: {word}, because ...`")
    return reason.strip()


def behaviour_files() -> list[Path]:
    """The files of all behaviours, in the order of the contract."""
    return sorted(BEHAVIOURS.glob("*/*.lua"))


def write_suite_app(directory: Path, behaviours: Iterable[Behaviour]) -> Path:
    """Write the app of the suite: the support app, and these behaviours as entries."""
    shutil.copytree(SUPPORT, directory / "support")
    entries = []
    for behaviour in behaviours:
        file = directory / behaviour.source
        file.parent.mkdir(exist_ok=True)
        shutil.copyfile(behaviour.file, file)
        entries += behaviour.entries()
    index = {"version": "1.0", "namespace": NAMESPACE, "entries": entries}
    (directory / "behaviours.json").write_text(json.dumps(index), encoding="utf-8")
    return directory
