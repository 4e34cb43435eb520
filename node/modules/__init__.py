"""The Python halves of the Lua modules that reach outside: `store`, `queue`, `sql`, `http_client`, `env`, `events`, ...

In Lua, `K.ask("<module>.<verb>", ...)` is an op; the live driver hands it to the module's `ask` here and its answer
back. Workflows cannot use these modules (`node.registry.modules`), so nothing here is ever replayed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from mesh import codec
from mesh.failure import Failure, Kind


@dataclass(frozen=True, slots=True)
class Caller:
    """The unit that asks. namespace: that of its entry, for references without one."""

    pid: str
    entry_id: str

    @property
    def namespace(self) -> str:
        """The namespace of the unit's entry."""
        return self.entry_id.partition(":")[0]


class Refused(Exception):
    """Raised by a module to answer with a failure; `failure` is the Error that the Lua code gets."""

    def __init__(self, message: str, kind: str = Kind.INTERNAL, *, retryable: bool | None = False) -> None:
        self.failure = Failure(message, kind, retryable)
        super().__init__(message)


def text_of(value: object, what: str) -> str:
    """An argument that must be text: Lua strings may be any bytes. Raises Refused, in words that begin with `what`."""
    if not isinstance(value, str):
        raise Refused(f"{what} must be UTF-8 text", Kind.INVALID)
    return value


class LuaModule(Protocol):
    """A module of one node. It is asked on the event loop and must not block it."""

    async def ask(self, verb: str, args: list[Any], caller: Caller) -> Any:
        """Answer one call: a value that can be encoded. Raises Refused."""
        ...

    def unit_ended(self, pid: str) -> None:
        """Forget what a unit held here."""
        ...


Deliver = Callable[[str, str, Any], None]  # pid, topic, value: hand a message to a unit of this node, sender ""


class Modules:
    """The modules of a node by name."""

    def __init__(self, modules: Mapping[str, LuaModule]) -> None:
        self._modules = dict(modules)

    async def ask(self, what: str, payload: bytes, caller: Caller) -> bytes:
        """Answer an `ask` op: the outcome's bytes. Never raises but for cancellation."""
        name, _, verb = what.partition(".")
        module = self._modules.get(name)
        if module is None:
            return codec.encode_failure(Failure(f"module {name!r} is not available on this node", Kind.INTERNAL, False))
        try:
            value = await module.ask(verb, codec.decode(payload), caller)
            return codec.encode_success(value)
        except Refused as refusal:
            return codec.encode_failure(refusal.failure)
        except Exception as error:  # whatever a library raises is the answer, not the node's end
            return codec.encode_failure(Failure(f"{what}: {type(error).__name__}: {error}", Kind.INTERNAL, False))

    def unit_ended(self, pid: str) -> None:
        """Tell all modules that a unit is gone."""
        for module in self._modules.values():
            module.unit_ended(pid)
