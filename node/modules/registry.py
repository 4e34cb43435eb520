"""The Python half of `registry`: the entries of the app as code sees them, and what code changes (contract 14.4).

What is changed stays in this node's memory; functions, workflows and the rest of the node go on with the entries they
were built from. Placeholders are shown as they are written.
"""

from __future__ import annotations

import logging
from typing import Any

from mesh.failure import Kind
from node.modules import Caller, Refused
from node.registry import Registry, resolve_reference
from node.registry.finding import BadFilter, Item, read_filter
from node.registry.versions import Unfit, Version, Versions, delta, read_items, shown

_log = logging.getLogger(__name__)


class RegistryModule:
    """Answers what the code of a node asks about entries. Nothing here waits."""

    def __init__(self, versions: Versions) -> None:
        self.versions = versions

    async def ask(self, verb: str, args: list[Any], caller: Caller) -> Any:
        """Answer one call. Raises Refused."""
        try:
            return self._answer(verb, args, caller)
        except BadFilter as error:
            raise Refused(f"registry.find: {error}", Kind.INVALID) from error
        except Unfit as error:
            raise Refused(str(error), error.kind, retryable=error.retryable) from error

    def unit_ended(self, pid: str) -> None:
        """Nothing is held for a unit."""

    def _answer(self, verb: str, args: list[Any], caller: Caller) -> Any:
        match verb, args:
            case "get", [version, entry_id]:
                return self._get(self._version(version), entry_id, caller)
            case "find", [version, given]:
                return self._find(self._version(version), given, caller)
            case "namespace", [version, namespace]:
                return [shown(item) for item in self._version(version).items.values() if item.namespace == namespace]
            case "current", []:
                return _told(self.versions.current)
            case "version", [number]:
                return _told(self.versions.get(number))
            case "next", [number]:
                following = self.versions.next_of(number)
                return _told(following) if following is not None else None
            case "versions", []:
                return [_told(version) for version in self.versions.all()]
            case "apply_version", [number]:
                self.versions.select(number)
                return True
            case "apply", [base, ops]:
                return _told(self.versions.apply(base, ops))
            case "delta", [before, after]:
                return delta(self._side(before), self._side(after))
            case _:
                raise Refused(f"registry.{verb} is not known")

    def _version(self, number: int | None) -> Version:
        return self.versions.current if number is None else self.versions.get(number)

    def _get(self, version: Version, given: object, caller: Caller) -> dict[str, Any]:
        entry_id = resolve_reference(given, caller.namespace) if isinstance(given, str) else None
        item = version.items.get(entry_id) if entry_id is not None else None
        if item is None:
            raise Refused(f"registry.get: no entry {entry_id or given!r}", Kind.NOT_FOUND)
        return shown(item)

    def _find(self, version: Version, given: object, caller: Caller) -> list[dict[str, Any]]:
        wanted = read_filter(given)
        for key in wanted.ignored:
            _log.warning(
                "%s: registry.find: the filter key %r filters nothing; write .kind, .name, .ns, .id or meta.x",
                caller.entry_id, key,
            )  # fmt: skip
        return [shown(item) for item in version.items.values() if wanted.takes(item)]

    def _side(self, given: object) -> Any:
        return self.versions.get(given).items if isinstance(given, int) else read_items(given)


def _told(version: Version) -> list[int | None]:
    return [version.id, version.previous]


def build(registry: Registry) -> RegistryModule:
    """Make the module of a node that has loaded this registry."""
    return RegistryModule(Versions(Item(e.id, e.kind, e.meta, e.data) for e in registry.entries.values()))
