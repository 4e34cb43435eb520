"""The Python half of `env`: reading and setting the variables of the registry (contract 14.5).

What names mean is said in `node.registry.environment`; here is what setting one does to the world: env files are
written by a thread, a whole new file put in the old one's place.

Invariants: a value that was set is read from then on by everything that looks into this registry's environment; what
could not be written to its file has not been set.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import anyio

from mesh.failure import Kind
from node.modules import Caller, Refused, text_of
from node.registry import EntryId, Environment, Registry
from node.registry.environment import EnvFile, with_variable

VALUE_BYTES_MAX: Final = 64 * 1024


class EnvModule:
    """Answers what the code of a node asks about variables."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._writing = anyio.Lock()

    async def ask(self, verb: str, args: list[Any], caller: Caller) -> Any:
        """Answer one call. Raises Refused."""
        match verb, args:
            case "get", [name]:
                return self._get(text_of(name, "env.get: the name"), caller)
            case "set", [name, value]:
                await self._set(text_of(name, "env.set: the name"), text_of(value, "env.set: the value"), caller)
                return True
            case "get_all", []:
                return self._environment.held()
            case _:
                raise Refused(f"env.{verb} is not known")

    def unit_ended(self, pid: str) -> None:
        """Nothing is held for a unit."""

    def _get(self, name: str, caller: Caller) -> str:
        value = self._environment.get(name, caller.namespace)
        if value is None:
            raise Refused(f"env.get: variable {name!r} has no value", Kind.NOT_FOUND)
        return value

    async def _set(self, name: str, value: str, caller: Caller) -> None:
        if len(value.encode("utf-8", "surrogatepass")) > VALUE_BYTES_MAX:
            raise Refused(f"env.set: a value may have {VALUE_BYTES_MAX} bytes", Kind.INVALID)
        variable = self._environment.find(name, caller.namespace)
        if variable is None:
            raise Refused(f"env.set: no env.variable {name!r}; add one to the registry", Kind.NOT_FOUND)
        if variable.readonly:
            raise Refused(f"env.set: {variable.id} is read only", Kind.PERMISSION_DENIED)
        if variable.storage is None:
            raise Refused(f"env.set: {variable.id} names no storage to write to", Kind.PERMISSION_DENIED)
        target = self._environment.write_target(variable.storage)
        if target is None:
            reason = f"env.set: {variable.id}: its storage {variable.storage} is read only"
            raise Refused(reason, Kind.PERMISSION_DENIED)
        await self._write(target, variable.key, value)

    async def _write(self, target: EntryId, key: str, value: str) -> None:
        file = self._environment.files.get(target)
        if file is None:
            self._environment.put(target, key, value)
            return
        async with self._writing:  # each takes over what the one before has written
            try:
                await anyio.to_thread.run_sync(write_variable, file, key, value)
            except FileNotFoundError as error:
                reason = f"env.set: {target}: {file.path} does not exist; make it, or set auto_create"
                raise Refused(reason, Kind.NOT_FOUND) from error
            except PermissionError as error:
                reason = f"env.set: {target}: {file.path} cannot be written: {error.strerror}"
                raise Refused(reason, Kind.PERMISSION_DENIED) from error
            except UnicodeDecodeError as error:
                raise Refused(f"env.set: {target}: {file.path} is not UTF-8 text") from error
            except OSError as error:
                raise Refused(f"env.set: {target}: {file.path} cannot be written: {error}") from error
            except ValueError as error:
                raise Refused(f"env.set: {target}: {error}", Kind.INVALID) from error
            self._environment.put(target, key, value)


def write_variable(file: EnvFile, key: str, value: str) -> None:
    """Set a variable in an env file: the file is either as it was or complete with it, whatever happens.

    Blocks. Raises FileNotFoundError when there is no file and none may be made, ValueError when the value does not fit.
    """
    path = file.path.resolve()  # the file behind a link is replaced, not the link
    mode = file.file_mode
    try:
        text = path.read_text(encoding="utf-8")
        mode = path.stat().st_mode & 0o7777
    except FileNotFoundError:
        if not file.auto_create:
            raise
        text = ""
    changed = with_variable(text, key, value)
    if file.auto_create:
        _make_directories(path.parent, file.dir_mode)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(changed)
            out.flush()
            os.fsync(out.fileno())
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(temporary).unlink()
        raise


def _make_directories(directory: Path, mode: int) -> None:
    missing = []
    while not directory.exists():
        missing.append(directory)
        directory = directory.parent
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
        each.chmod(mode)  # mkdir's own mode is cut by the umask


def build(registry: Registry) -> EnvModule:
    """Make the module of a node that has loaded this registry."""
    return EnvModule(registry.environment)
