"""The registry: YAML and JSON files of an app as checked, typed entries, and the Lua code each one runs."""

from __future__ import annotations

from node.registry.documents import Value
from node.registry.entries import Entry, EntryId, Problem, RegistryError, resolve_reference
from node.registry.environment import Environment, Variable
from node.registry.kinds import (
    AuthSpec,
    AuthType,
    ClientEntry,
    CodeEntry,
    Encoding,
    FunctionEntry,
    LibraryEntry,
    LifecycleSpec,
    LuaFunctionEntry,
    NatsFunctionEntry,
    PoolSpec,
    PoolType,
    ProcessEntry,
    PythonFunctionEntry,
    RestartSpec,
    Startup,
    TlsSpec,
    View,
    WorkerEntry,
    WorkerOptions,
    WorkflowEntry,
    canonical_kind,
)
from node.registry.modules import AVAILABLE, MODULES, module_fault, workflow_fault
from node.registry.registry import CompileSource, Registry, check_registry, content_fingerprint, load_registry
from node.registry.units import CodeUnit

__all__ = [
    "AVAILABLE",
    "MODULES",
    "AuthSpec",
    "AuthType",
    "ClientEntry",
    "CodeEntry",
    "CodeUnit",
    "CompileSource",
    "Encoding",
    "Entry",
    "EntryId",
    "Environment",
    "FunctionEntry",
    "LibraryEntry",
    "LifecycleSpec",
    "LuaFunctionEntry",
    "NatsFunctionEntry",
    "PoolSpec",
    "PoolType",
    "Problem",
    "ProcessEntry",
    "PythonFunctionEntry",
    "Registry",
    "RegistryError",
    "RestartSpec",
    "Startup",
    "TlsSpec",
    "Value",
    "Variable",
    "View",
    "WorkerEntry",
    "WorkerOptions",
    "WorkflowEntry",
    "canonical_kind",
    "check_registry",
    "content_fingerprint",
    "load_registry",
    "module_fault",
    "resolve_reference",
    "workflow_fault",
]
