"""What an engine does beside its loop: the tasks that wait for the server.

All of them belong to the engine's task group, so a task that fails ends the engine.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final, TypeVar, TypeVarTuple

import anyio
import anyio.abc

from mesh.errors import TEMPORARY

INSIST_AFTER_S: Final = 0.05
INSIST_AFTER_MAX_S: Final = 2.0

_log = logging.getLogger(__name__)

T = TypeVar("T")
Args = TypeVarTuple("Args")


class Background:
    """The tasks of one engine. Its parts start them; the engine opens the group that owns them."""

    def __init__(self) -> None:
        self._tasks: anyio.abc.TaskGroup | None = None

    def begin(self, tasks: anyio.abc.TaskGroup) -> None:
        """Start tasks in this group from now on."""
        self._tasks = tasks

    def start_soon(self, function: Callable[[*Args], Coroutine[Any, Any, object]], *args: *Args) -> None:
        """Run it as a task. Raises RuntimeError when the engine is not running."""
        if self._tasks is None:
            raise RuntimeError("the engine is not running")
        self._tasks.start_soon(function, *args)


async def insist(action: Callable[[], Awaitable[T]], what: str, about: Mapping[str, object] | None = None) -> T:
    """Do it again and again until nothing temporary is in the way. Other errors are the caller's.

    about: fields of the lines that say so.
    """
    delay_s = INSIST_AFTER_S
    while True:
        try:
            return await action()
        except TEMPORARY as error:
            _log.warning("%s: %s; trying again", what, error, extra=about)
        await anyio.sleep(delay_s)
        delay_s = min(delay_s * 2, INSIST_AFTER_MAX_S)
