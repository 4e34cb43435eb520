"""What an acknowledged write survives, by the settings of the server and the stream. Pure.

A mesh promises no more than its streams keep. What they keep is decided by how many copies there are, whether they are
files, when the server writes and flushes them, and whether it removes messages by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from mesh.sync import ALWAYS

COPIES_FOR_MAJORITY: Final = 3
_REMOVES: Final = ("max_age", "max_msgs", "max_bytes", "max_msgs_per_subject")


class Durability(StrEnum):
    """What acknowledged writes survive; each level includes those before it."""

    NOTHING = "nothing"
    PROCESS_CRASH = "process-crash"
    POWER_LOSS = "power-loss"

    def covers(self, wanted: Durability) -> bool:
        """Whether this is at least what is wanted."""
        levels = list(Durability)
        return levels.index(self) >= levels.index(wanted)


@dataclass(frozen=True, slots=True)
class Settings:
    """What counts of a stream and its server.

    sync: how often the server flushes: "always", a duration such as "2m0s", or None when it does not tell.
    is_async: the server acknowledges before it has written. removes: limits by which it deletes the oldest messages.
    """

    copies: int = 1
    in_memory: bool = False
    is_async: bool = False
    sync: str | None = None
    removes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Promise:
    """What is promised under some settings: the level, in words, and how to have more (empty: there is no more)."""

    durability: Durability
    text: str
    more: str = ""


def settings_of(config: Mapping[str, Any], sync: str | None) -> Settings:
    """Read a stream's configuration as the server gives it."""
    return Settings(
        copies=int(config.get("num_replicas") or 1),
        in_memory=config.get("storage") == "memory",
        is_async=config.get("persist_mode") == "async",
        sync=sync,
        removes=tuple(name for name in _REMOVES if int(config.get(name) or 0) > 0),
    )


def promise(settings: Settings) -> Promise:
    """What the settings promise of a write that was acknowledged."""
    copies, sync = settings.copies, settings.sync
    many = copies >= COPIES_FOR_MAJORITY
    if settings.removes:
        return Promise(
            Durability.NOTHING,
            f"the server removes events by itself ({', '.join(settings.removes)})",
            "take these limits off the stream: `mesh doctor` says how",
        )
    if settings.in_memory and not many:
        return Promise(
            Durability.NOTHING, "the stream is in the server's memory: all is lost when that ends", "storage: file"
        )
    if settings.is_async:
        return Promise(
            Durability.NOTHING,
            "the server acknowledges before it has written: its crash loses acknowledged writes",
            "set the stream's persist_mode to default",
        )
    if settings.in_memory:
        return Promise(
            Durability.PROCESS_CRASH,
            f"{copies} copies in memory: a crash of one server loses nothing, of all of them everything",
            "storage: file",
        )
    if sync == ALWAYS:
        where = f"the disks of most of {copies} servers" if many else "the server's disk"
        text = f"flushed to {where} before it is acknowledged: a power failure loses nothing"
        return Promise(Durability.POWER_LOSS, text)
    last = f"what was written in the last {sync}" if sync else "the last minutes, as nobody says how often is flushed"
    if many:
        return Promise(
            Durability.POWER_LOSS,
            f"on most of {copies} servers before it is acknowledged: a power failure of one of them loses nothing, of "
            f"all at once perhaps {last}",
            "sync_interval: always, if all servers may lose their power at once",
        )
    return Promise(
        Durability.PROCESS_CRASH,
        "written to files before it is acknowledged: the crash of a process loses nothing, a power failure perhaps "
        f"{last}",
        "jetstream { sync_interval: always }, or three servers and --replicas 3",
    )
