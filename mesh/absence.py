"""Whether a stream is there: asked of the server before a write to it is given up.

"No stream takes this" is also said while a cluster elects a leader or a server shuts down, so it proves nothing. What
the server answers to the question for the stream's name does.

Not here: when there is reason to doubt (`mesh.outbox`).

Invariants: a place is asked for every ASK_AGAIN_S at most; what is not known is not absent.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from anyio.abc import TaskGroup

from mesh.errors import MeshError, NotPermitted
from mesh.jetstream_api import JetStreamApi

ASK_AGAIN_S = 1.0
PLACES_ASKED_MAX = 1000

_log = logging.getLogger(__name__)


class Absence:
    """What the server has said of streams, by place: a name for all subjects of one. now_s: the clock of all times."""

    def __init__(self, js: JetStreamApi, tasks: TaskGroup, now_s: Callable[[], float]) -> None:
        self._js = js
        self._tasks = tasks
        self._now_s = now_s
        self._asked_s: dict[str, float] = {}
        self._absent_s: dict[str, float] = {}

    def is_known(self, place: str, since_s: float) -> bool:
        """Whether the server has said after a moment that there is no such stream."""
        return self._absent_s.get(place, 0.0) > since_s

    def ask(self, place: str, subject: str, doubt: MeshError) -> None:
        """Ask after the stream that takes a subject, if that was not done just now. doubt: what raised it."""
        now_s = self._now_s()
        if now_s - self._asked_s.get(place, -ASK_AGAIN_S) < ASK_AGAIN_S:
            return
        if len(self._asked_s) >= PLACES_ASKED_MAX:
            self._asked_s.clear()
            self._absent_s.clear()
        self._asked_s[place] = now_s
        self._tasks.start_soon(self._look, place, subject, doubt)

    async def _look(self, place: str, subject: str, doubt: MeshError) -> None:
        try:
            answer = await self._js.api("STREAM.NAMES", {"subject": subject})
        except NotPermitted:
            found = False  # nobody tells us: what the server said for so long stands
        except MeshError:
            return  # asked again
        else:
            found = bool(answer.get("streams"))
        if found:
            _log.warning("not stored yet: %s; its stream is there, so this is tried again", doubt)
            self._absent_s.pop(place, None)
        else:
            self._absent_s[place] = self._now_s()
