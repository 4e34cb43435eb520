"""Reads the keys of an entry's `meta` that the runtime looks at.

A dotted key may be written flat (`temporal.activity.worker: x`), nested (`temporal: {activity: {worker: x}}`) or in any
mixture of the two; `mesh.` may stand for `temporal.`. Everything else in `meta` belongs to the application.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from node.registry.documents import FieldPath, Value
from node.registry.entries import did_you_mean

WORKFLOW_WORKER = "temporal.workflow.worker"
WORKFLOW_NAME = "temporal.workflow.name"
ACTIVITY_WORKER = "temporal.activity.worker"
ACTIVITY_LOCAL = "temporal.activity.local"

_KEYS = (WORKFLOW_WORKER, WORKFLOW_NAME, ACTIVITY_WORKER, ACTIVITY_LOCAL)
_KNOWN = frozenset(_KEYS) | {key.replace("temporal.", "mesh.", 1) for key in _KEYS}
_ALIKE = 0.88  # the known keys themselves are alike; only clear slips should be reported


def find_key(meta: Mapping[str, Value], key: str) -> list[tuple[FieldPath, Value]]:
    """Return every spelling of a key that is present, with its path below `meta`; null counts as absent."""
    spellings = (key, key.replace("temporal.", "mesh.", 1)) if key.startswith("temporal.") else (key,)
    return [hit for spelling in spellings for hit in _find(meta, tuple(spelling.split(".")), ())]


def collect_options(meta: Mapping[str, Value]) -> dict[str, Value]:
    """Return `options`, with keys written flat as `options.retry` or `options.retry.jitter` put in their place."""
    nested = meta.get("options")
    options: dict[str, Value] = dict(nested) if isinstance(nested, dict) else {}
    for key, value in meta.items():
        if key.startswith("options."):
            _put(options, key.split(".")[1:], value)
    return options


def misspelt_keys(meta: Mapping[str, Value]) -> Iterator[tuple[FieldPath, str]]:
    """Find dotted keys that are spelled like one the runtime knows, with what to say about each."""
    for path in _leaves(meta, ()):
        key = ".".join(path)
        if key.count(".") == 2 and key not in _KNOWN and (hint := did_you_mean(key, _KNOWN, alike=_ALIKE)):
            yield path, f"unknown field meta.{key}{hint}"


def _find(values: Mapping[str, Value], parts: tuple[str, ...], at: FieldPath) -> Iterator[tuple[FieldPath, Value]]:
    for end in range(1, len(parts) + 1):
        key = ".".join(parts[:end])
        value = values.get(key)
        if end == len(parts):
            if value is not None:
                yield (*at, key), value
        elif isinstance(value, dict):
            yield from _find(value, parts[end:], (*at, key))


def _leaves(values: Mapping[str, Value], at: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for key, value in values.items():
        path = (*at, key)
        if isinstance(value, dict) and len(path) < 3:
            yield from _leaves(value, path)
        else:
            yield path


def _put(options: dict[str, Value], parts: list[str], value: Value) -> None:
    """Set a nested option without changing mappings that belong to the entry. Options like `activity.x` stay flat."""
    if len(parts) == 1 or parts[0] != "retry":
        options[".".join(parts)] = value
        return
    inner = options.get(parts[0])
    copy: dict[str, Value] = dict(inner) if isinstance(inner, dict) else {}
    _put(copy, parts[1:], value)
    options[parts[0]] = copy
