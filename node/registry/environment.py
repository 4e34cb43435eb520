"""The variables that placeholders and the `env` module read: `env.variable` entries over their storages.

A name is looked up as the public name of an `env.variable`, then as an entry id, then as an entry of the asking
namespace; only if no such entry exists is the operating system's environment asked. An empty value counts as absent.

Not here: writing variables at run time. What `env.storage.memory` holds at load is nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from node.registry.entries import Entry, EntryId, Problem, resolve_reference

_PUBLIC_NAME = re.compile(r"[A-Za-z0-9_]+")
_STORAGE_KINDS = frozenset(
    {"env.storage.memory", "env.storage.os", "env.storage.static", "env.storage.file", "env.storage.router"}
)


@dataclass(frozen=True, slots=True)
class Variable:
    """An `env.variable` entry. `storage` None: it has its default only."""

    id: EntryId
    variable: str | None
    storage: EntryId | None
    default: str | None
    readonly: bool

    @property
    def key(self) -> str:
        """What the variable is called inside its storage."""
        return self.variable if self.variable is not None else self.id.partition(":")[2]


@dataclass(slots=True)
class Environment:
    """Looks variables up. Built once per registry; reads no file and no process state afterwards."""

    environ: Mapping[str, str]
    by_id: dict[EntryId, Variable] = field(default_factory=dict)
    by_name: dict[str, Variable] = field(default_factory=dict)
    stored: dict[EntryId, Mapping[str, str]] = field(default_factory=dict)
    routes: dict[EntryId, tuple[EntryId, ...]] = field(default_factory=dict)

    def get(self, name: str, namespace: str) -> str | None:
        """Return the value of a variable as code of `namespace` sees it, None if it has none."""
        variable = self.by_name.get(name) or self.by_id.get(resolve_reference(name, namespace))
        if variable is None:
            return self.environ.get(name) or None
        held = self._find(variable.storage, variable.key, frozenset()) if variable.storage else None
        return held or variable.default or None

    def _find(self, storage: EntryId, key: str, passed: frozenset[EntryId]) -> str | None:
        for target in self.routes.get(storage, ()):
            if target not in passed and (value := self._find(target, key, passed | {storage})):
                return value
        return self.stored.get(storage, {}).get(key)


def build_environment(
    entries: Mapping[EntryId, Entry], environ: Mapping[str, str]
) -> tuple[Environment, tuple[Problem, ...]]:
    """Build the environment of a registry from its `env.*` entries and the given OS variables."""
    builder = _Builder(entries, Environment(environ))
    for entry in entries.values():
        builder.add(entry)
    return builder.environment, tuple(builder.problems)


class _Builder:
    def __init__(self, entries: Mapping[EntryId, Entry], environment: Environment) -> None:
        self.environment = environment
        self.problems: list[Problem] = []
        self._entries = entries

    def add(self, entry: Entry) -> None:
        match entry.kind:
            case "env.variable":
                self._add_variable(entry)
            case "env.storage.os":
                self.environment.stored[entry.id] = self.environment.environ
            case "env.storage.static":
                self._add_static(entry)
            case "env.storage.file":
                self._add_file(entry)
            case "env.storage.router":
                self._add_router(entry)
            case _:
                pass

    def _add_variable(self, entry: Entry) -> None:
        data = entry.data if isinstance(entry.data, dict) else {}
        name, storage, default = data.get("variable"), data.get("storage"), data.get("default")
        if name is not None and not (isinstance(name, str) and _PUBLIC_NAME.fullmatch(name)):
            self._problem(entry, "variable", f"variable must be of letters, digits and _, not {name!r}")
            return
        if storage is not None and not isinstance(storage, str):
            self._problem(entry, "storage", "storage must be the id of an env.storage entry")
            return
        if isinstance(default, dict | list):
            self._problem(entry, "default", "default must be a text")
            return
        readonly = data.get("readonly", False)
        if not isinstance(readonly, bool):
            self._problem(entry, "readonly", "readonly must be true or false")
            return
        variable = Variable(
            id=entry.id,
            variable=name,
            storage=self._storage(entry, "storage", storage) if storage else None,
            default=None if default is None else _text(default),
            readonly=readonly,
        )
        self.environment.by_id[entry.id] = variable
        if name is None:
            return
        first = self.environment.by_name.setdefault(name, variable)
        if first is not variable:
            self._problem(entry, "variable", f"variable {name!r} is already that of {first.id}")

    def _add_static(self, entry: Entry) -> None:
        values = entry.data.get("values") if isinstance(entry.data, dict) else None
        if values is None:
            return
        if not isinstance(values, dict) or any(isinstance(v, dict | list) for v in values.values()):
            self._problem(entry, "values", "values must map names to texts")
            return
        self.environment.stored[entry.id] = {k: _text(v) for k, v in values.items() if v is not None}

    def _add_file(self, entry: Entry) -> None:
        path = entry.data.get("file_path") if isinstance(entry.data, dict) else None
        if not isinstance(path, str) or not path:
            self._problem(entry, "file_path", "file_path is required and must be a text")
            return
        try:
            text = (entry.root / path).read_text(encoding="utf-8")
        except FileNotFoundError:
            return  # not written yet
        except (OSError, ValueError) as e:
            self._problem(entry, "file_path", f"{path} cannot be read: {e}")
            return
        self.environment.stored[entry.id] = parse_env_file(text.splitlines())

    def _add_router(self, entry: Entry) -> None:
        listed = entry.data.get("storages") if isinstance(entry.data, dict) else None
        if not isinstance(listed, list) or not all(isinstance(s, str) for s in listed):
            self._problem(entry, "storages", "storages is required and must be a list of ids")
            return
        targets = [self._storage(entry, "storages", s) for s in listed if isinstance(s, str)]
        self.environment.routes[entry.id] = tuple(t for t in targets if t is not None)

    def _storage(self, entry: Entry, field_name: str, reference: str) -> EntryId | None:
        target = resolve_reference(reference, entry.namespace)
        found = self._entries.get(target)
        if found is None:
            self._problem(entry, field_name, f"{field_name}: no entry {target}")
        elif found.kind not in _STORAGE_KINDS:
            self._problem(entry, field_name, f"{field_name}: {target} is a {found.kind}, not an env.storage")
        else:
            return target
        return None

    def _problem(self, entry: Entry, field_name: str, reason: str) -> None:
        self.problems.append(Problem(entry.file, entry.line_of((field_name,)), entry.id, reason))


def parse_env_file(lines: Iterable[str]) -> dict[str, str]:
    """Read `KEY=VALUE` lines; `#` starts a comment line, one pair of quotes around a value is dropped."""
    values: dict[str, str] = {}
    for line in lines:
        key, equals, value = line.partition("=")
        key, value = key.strip().removeprefix("export ").strip(), value.strip()
        if not equals or not key or key.startswith("#"):
            continue
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        values[key] = value
    return values


def _text(value: object) -> str:
    """Write a YAML scalar as the text a shell would hold."""
    return str(value).lower() if isinstance(value, bool) else str(value)
