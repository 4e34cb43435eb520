"""The code of an app, ready for a VM: registry entries compiled on demand.

Not responsible for reading files (`node.registry`) or for running anything (`node.machine.vm`).
"""

from __future__ import annotations

from typing import Any

from mesh.errors import MeshError
from mesh.spelling import proposal
from node.machine.vm import LuaVM, UnitSpec
from node.registry import CodeUnit, Registry


class CodeMissing(MeshError):
    """Raised when this node has no code for what it is asked to run, or code that does not compile."""

    code = "code-missing"


class Code:
    """The code units of a registry."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self._types: dict[str, str] = {}  # type name or entry ID -> entry ID
        self._names: dict[str, str] = {}  # the other way round: entry ID -> type name
        for entry_id, entry in registry.workflows().items():
            name = entry.type_name or str(entry_id)
            self._types[name] = self._types[str(entry_id)] = str(entry_id)
            self._names[str(entry_id)] = name

    def workflow_id(self, name: str) -> str:
        """The entry behind a workflow's type name or ID. Raises CodeMissing that knows what was meant."""
        entry_id = self._types.get(name)
        if entry_id is None:
            hint = proposal(name, self._types, f"it has {', '.join(sorted(set(self._types))) or 'none'}")
            raise CodeMissing(f"this node's registry has no workflow {name!r}; {hint}")
        return entry_id

    def type_name(self, name: str) -> str:
        """The type name of a workflow that was started by that or by its entry ID; what is unknown stays as it is."""
        return self._names.get(self._types.get(name, ""), name)

    def prepare(self, vm: LuaVM, kind: str, entry_id: str) -> UnitSpec:
        """Compile an entry and its libraries into a VM, once. Raises CodeMissing with file and line."""
        prepared = vm.prepared.get(entry_id)
        if prepared is None:
            prepared = vm.prepared[entry_id] = self._prepare(vm, kind, entry_id)
        return prepared

    def _prepare(self, vm: LuaVM, kind: str, entry_id: str) -> UnitSpec:
        unit = self.registry.code_unit(entry_id)
        libraries = [
            {"id": str(lib.entry_id), "code": self._compile(vm, lib), "imports": _imports(lib)}
            for lib in unit.libraries
        ]
        return UnitSpec(
            kind=kind,
            entry_id=str(entry_id),
            code=self._compile(vm, unit),
            method=unit.method or "main",
            modules=tuple(sorted({*unit.modules, *(name for lib in unit.libraries for name in lib.modules)})),
            imports=_imports(unit),
            libraries=tuple(libraries),
        )

    def _compile(self, vm: LuaVM, unit: CodeUnit) -> str:
        key = str(unit.entry_id)
        problem = vm.compile(key, unit.source_text, unit.source_name)
        if problem is not None:
            raise CodeMissing(f"{unit.entry_id}: {problem}")
        return key


def _imports(unit: CodeUnit) -> dict[str, Any]:
    return {alias: str(entry_id) for alias, entry_id in unit.imports}
