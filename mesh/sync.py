"""How often a server flushes what it has acknowledged to its disk: the words for it. Pure.

Not here: asking a server for it (`mesh.server_settings`), what it means for a write (`store.durability`).
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias, get_args

Sync: TypeAlias = Literal["always", "relaxed"]

SYNCS: Final[tuple[Sync, ...]] = get_args(Sync)
ALWAYS: Final = "always"  # the word of the server's configuration, too

# "2m" is the server's own default: what was acknowledged in the last two minutes can be lost at power failure.
SYNC_INTERVALS: Final[dict[Sync, str]] = {"always": ALWAYS, "relaxed": "2m"}
