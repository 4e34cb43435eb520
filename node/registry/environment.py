"""The variables that placeholders and the `env` module read: `env.variable` entries over their storages.

A name is looked up as the public name of an `env.variable`, then as an entry id, then as an entry of the asking
namespace; only if no such entry exists is the operating system's environment asked. An empty value counts as absent.

What is set at run time is put in here by `node.modules.env`, which also writes the files; a storage of the kind
`env.storage.memory` holds nothing before that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from node.registry.entries import Entry, EntryId, Problem, resolve_reference

_PUBLIC_NAME = re.compile(r"[A-Za-z0-9_]+")
_MODE = re.compile(r"0?o?([0-7]{3})")
FILE_MODE = 0o644
DIR_MODE = 0o755
MODE_MAX = 0o777
OWNER_USES = 0o600
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


@dataclass(frozen=True, slots=True)
class EnvFile:
    """The file behind an `env.storage.file`. The modes are for what is made, not for what is there."""

    path: Path
    auto_create: bool
    file_mode: int
    dir_mode: int


@dataclass(slots=True)
class Environment:
    """Looks variables up. Built once per registry; reads no file and no process state afterwards."""

    environ: Mapping[str, str]
    by_id: dict[EntryId, Variable] = field(default_factory=dict)
    by_name: dict[str, Variable] = field(default_factory=dict)
    stored: dict[EntryId, Mapping[str, str]] = field(default_factory=dict)
    routes: dict[EntryId, tuple[EntryId, ...]] = field(default_factory=dict)
    files: dict[EntryId, EnvFile] = field(default_factory=dict)
    memories: set[EntryId] = field(default_factory=set)

    def get(self, name: str, namespace: str) -> str | None:
        """Return the value of a variable as code of `namespace` sees it, None if it has none."""
        variable = self.find(name, namespace)
        if variable is None:
            return self.environ.get(name) or None
        return self._held(variable) or variable.default or None

    def find(self, name: str, namespace: str) -> Variable | None:
        """Return the variable that a name means to code of `namespace`, None if no entry is meant."""
        return self.by_name.get(name) or self.by_id.get(resolve_reference(name, namespace))

    def held(self) -> dict[str, str]:
        """Return what the storages hold, without defaults and empty values.

        When several storages hold a name, the variable of that name says which counts, else the first by id does.
        """
        values: dict[str, str] = {}
        for storage in sorted(self.stored):
            for key, value in self.stored[storage].items():
                if value:
                    values.setdefault(key, value)
        for name, variable in self.by_name.items():
            if held := self._held(variable):
                values[name] = held
        return values

    def write_target(self, storage: EntryId) -> EntryId | None:
        """Return the storage that a write to this one goes to (a router's first), None if that is read only."""
        passed: set[EntryId] = set()
        while self.routes.get(storage) and storage not in passed:
            passed.add(storage)
            storage = self.routes[storage][0]
        return storage if storage in self.memories or storage in self.files else None

    def put(self, storage: EntryId, key: str, value: str) -> None:
        """Set what a storage that can be written holds under a key."""
        self.stored[storage] = {**self.stored.get(storage, {}), key: value}

    def _held(self, variable: Variable) -> str | None:
        return self._find(variable.storage, variable.key, frozenset()) if variable.storage else None

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
            case "env.storage.memory":
                self.environment.memories.add(entry.id)
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
        auto_create = entry.data.get("auto_create", False) if isinstance(entry.data, dict) else False
        if not isinstance(auto_create, bool):
            self._problem(entry, "auto_create", "auto_create must be true or false")
            return
        file_mode, dir_mode = self._mode(entry, "file_mode", FILE_MODE), self._mode(entry, "dir_mode", DIR_MODE)
        if file_mode is None or dir_mode is None:
            return
        self.environment.files[entry.id] = EnvFile(entry.root / path, auto_create, file_mode, dir_mode)
        try:
            text = (entry.root / path).read_text(encoding="utf-8")
        except FileNotFoundError:
            return  # not written yet
        except (OSError, ValueError) as e:
            self._problem(entry, "file_path", f"{path} cannot be read: {e}")
            return
        self.environment.stored[entry.id] = parse_env_file(text.splitlines())

    def _mode(self, entry: Entry, field_name: str, default: int) -> int | None:
        """Return the permissions of a file that its owner can read and write.

        YAML 1.2 reads `0644` as the number 644, so a number is taken by its digits, as people write modes. One with
        an 8 or 9 in it can only be a mode's value (`0o600` is read as 384). What could be meant either way and gives
        the owner no rights by its digits (`0o644`, read as 420) is refused rather than guessed.
        """
        value = entry.data.get(field_name) if isinstance(entry.data, dict) else None
        if value is None:
            return default
        if isinstance(value, int | str) and not isinstance(value, bool):
            digits = _MODE.fullmatch(str(value))
            mode = int(digits[1], 8) if digits is not None else value
            if isinstance(mode, int) and 0 <= mode <= MODE_MAX and mode & OWNER_USES == OWNER_USES:
                return mode
        self._problem(entry, field_name, f"{field_name} must be permissions such as 0644 with 6 or 7 for the owner")
        return None

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


def with_variable(text: str, key: str, value: str) -> str:
    """Return the text of an env file with a variable set; all other lines stay as they are.

    The variable's last line is replaced, because that is the one that counts when the file is read.
    Raises ValueError for a value that does not fit on a line.
    """
    if value.splitlines() not in ([], [value]):
        raise ValueError("a value in an env file must not have more than one line")
    quoted = value != value.strip() or (len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'")
    line = f'{key}="{value}"' if quoted else f"{key}={value}"
    lines = text.splitlines()
    for i in range(len(lines) - 1, -1, -1):
        if key in parse_env_file([lines[i]]):
            lines[i] = line
            break
    else:
        lines.append(line)
    return "\n".join(lines) + "\n"


def _text(value: object) -> str:
    """Write a YAML scalar as the text a shell would hold."""
    return str(value).lower() if isinstance(value, bool) else str(value)
