"""The Python half of `store`: finds the store an entry stands for and checks what is asked of it (contract 14.6).

The kinds of stores are behind `node.modules.stores.Store`. A store belongs to the node, not to the unit that got it:
releasing one is a matter of the Lua object.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import anyio
import anyio.abc

from mesh.failure import Kind
from mesh.jetstream import JetStream
from node.modules import Caller, Refused, text_of
from node.modules.kv_store import KvStore
from node.modules.memory_store import MemoryStore
from node.modules.stores import ALWAYS, KEY_BYTES_MAX, LIST_LIMIT, LIST_LIMIT_MAX, TTL_S_MAX, Condition, Held, Store
from node.registry import KvStoreEntry, MemoryStoreEntry, Registry, resolve_reference

_PUT_OPTIONS = ("ttl", "if_version", "only_if_absent")
_LIST_OPTIONS = ("prefix", "after", "limit")


class StoreModule:
    """The stores of a node. Run it to have expired keys of memory stores dropped."""

    def __init__(self, registry: Registry, stores: Mapping[str, Store]) -> None:
        self._registry = registry
        self._stores = dict(stores)

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Clean up until cancelled."""
        async with anyio.create_task_group() as tasks:
            for store in self._stores.values():
                if isinstance(store, MemoryStore):
                    tasks.start_soon(store.run)
            task_status.started()

    async def ask(self, verb: str, args: list[Any], caller: Caller) -> Any:
        """Answer one call. Raises Refused."""
        match verb, args:
            case "open", [reference]:
                return self._open(reference, caller)
            case "get", [store_id, key]:
                return (await self._held(store_id, key)).value
            case "entry", [store_id, key]:
                return (await self._held(store_id, key)).shown()
            case "has", [store_id, key]:
                return await self._store(store_id).get(_key(key)) is not None
            case "delete", [store_id, key]:
                return await self._store(store_id).delete(_key(key))
            case "set", [store_id, key, value, ttl]:
                await self._store(store_id).put(_key(key), _value(value), _ttl_s(ttl), ALWAYS)
                return True
            case "put", [store_id, key, value, given]:
                options = _options(given, _PUT_OPTIONS, "put")
                condition, ttl_s = _condition(options), _ttl_s(options.get("ttl"))
                return (await self._store(store_id).put(_key(key), _value(value), ttl_s, condition)).shown()
            case "list", [store_id, given]:
                return await self._list(self._store(store_id), _options(given, _LIST_OPTIONS, "list"))
            case "info", [store_id]:
                return self._store(store_id).info()
            case _:
                raise Refused(f"store.{verb} is not known")

    def unit_ended(self, pid: str) -> None:
        """Nothing is held for a unit."""

    def _open(self, reference: object, caller: Caller) -> str:
        reference = text_of(reference, "store.get: the id")
        store_id = resolve_reference(reference, caller.namespace)
        if store_id in self._stores:
            return store_id
        entry = self._registry.get(store_id)
        if entry is None:
            raise Refused(f"store.get: no entry {store_id}", Kind.NOT_FOUND)
        if entry.kind in ("store.memory", "store.kv"):
            reason = f"store.get: {store_id} has a problem of its own; `mesh check` tells it"
            raise Refused(reason, Kind.NOT_FOUND)
        raise Refused(f"store.get: {store_id} is a {entry.kind}, not a store", Kind.INVALID)

    def _store(self, store_id: str) -> Store:
        return self._stores[store_id]

    async def _held(self, store_id: str, given: object) -> Held:
        key = _key(given)
        held = await self._store(store_id).get(key)
        if held is None:
            raise Refused(f"store {store_id} has no key {key!r}", Kind.NOT_FOUND)
        return held

    async def _list(self, store: Store, options: Mapping[str, Any]) -> dict[str, Any]:
        limit = options.get("limit", LIST_LIMIT)
        if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= LIST_LIMIT_MAX:
            raise Refused(f"store:list: limit must be 1 to {LIST_LIMIT_MAX}", Kind.INVALID)
        texts = {name: text_of(options.get(name, ""), f"store:list: {name}") for name in ("prefix", "after")}
        page = await store.list(texts["prefix"], texts["after"], limit)
        cursor = page.items[-1].key if page.items else texts["after"]
        return {"items": [held.shown() for held in page.items], "cursor": cursor, "has_more": page.has_more}


def _key(given: object) -> str:
    key = text_of(given, "the key")
    if len(key.encode("utf-8", "surrogatepass")) > KEY_BYTES_MAX:
        raise Refused(f"a key may have {KEY_BYTES_MAX} bytes", Kind.INVALID)
    return key


def _value(given: object) -> object:
    if given is None:  # a function or a channel, say: it cannot leave its unit
        raise Refused("the value cannot be stored; use texts, numbers, booleans and tables of them", Kind.INVALID)
    return given


def _ttl_s(given: object) -> float | None:
    """Seconds to live; none and 0 are for ever."""
    if given is None:
        return None
    if not isinstance(given, int | float) or isinstance(given, bool) or math.isnan(given):
        raise Refused("ttl must be a number of seconds", Kind.INVALID)
    if given < 0 or given > TTL_S_MAX:
        raise Refused(f"ttl must be 0 to {TTL_S_MAX} seconds, not {given:g}", Kind.INVALID)
    return float(given) or None


def _options(given: object, known: tuple[str, ...], what: str) -> dict[str, Any]:
    if isinstance(given, list) and not given:  # an empty table
        return {}
    if not isinstance(given, dict):
        raise Refused(f"store:{what}: the options must be a table with texts as keys", Kind.INVALID)
    for name in given:
        if name not in known:
            raise Refused(f"store:{what}: unknown option {name}; there are {', '.join(known)}", Kind.INVALID)
    return given


def _condition(options: Mapping[str, Any]) -> Condition:
    absent, version = options.get("only_if_absent", False), options.get("if_version")
    if not isinstance(absent, bool):
        raise Refused("store:put: only_if_absent must be true or false", Kind.INVALID)
    if version is None:
        return Condition(absent)
    if absent:
        raise Refused("store:put: only_if_absent and if_version exclude each other", Kind.INVALID)
    number = int(version) if isinstance(version, str) and version.isdecimal() and len(version) < 20 else version
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise Refused("store:put: if_version must be the version of an entry", Kind.INVALID)
    return Condition(version=number)


def build(registry: Registry, js: JetStream) -> StoreModule:
    """Make the module of a node. Its `run` belongs into the node's task group."""
    stores: dict[str, Store] = {}
    for store_id, entry in registry.stores().items():
        match entry:
            case MemoryStoreEntry():
                stores[store_id] = MemoryStore(entry)
            case KvStoreEntry():
                stores[store_id] = KvStore(entry, js)
    return StoreModule(registry, stores)
