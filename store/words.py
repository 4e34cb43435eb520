"""The words of a projection and the numbers that stand for them in its tables: types, queues, names, common values.

What is said of very many runs is kept as a number or as a bit, so that an index over a million of them stays small. Not
responsible for transactions: words are written in those of `store.projection`, and read again when one came to nothing.
"""

from __future__ import annotations

import sqlite3
from typing import Any, Final

from store.search import stored

# SQLite integers have 63 bits to set.
COMMONS_MAX: Final = 60


class Words:
    """Types, queues and names of attributes, by number and by text. New ones are written as they come."""

    def __init__(self, conn: sqlite3.Connection) -> None:
        self._conn = conn
        self.types: dict[str, int] = {}
        self.queues: dict[str, int] = {}
        self._names: dict[str, int] = {}
        self._lists: set[str] = set()
        self._type_texts: dict[int, str] = {}
        self._commons: dict[tuple[int, type, Any], int] = {}
        self.read()

    def read(self) -> None:
        """Read what is written: at the beginning, and after a transaction that came to nothing."""
        execute = self._conn.execute
        self.types = {text: code for code, text in execute("SELECT type, text FROM types")}
        self.queues = {name: code for code, name in execute("SELECT queue, name FROM queues")}
        self._names = {text: code for code, text in execute("SELECT name, text FROM names")}
        self._lists = {text for (text,) in execute("SELECT text FROM names WHERE list")}
        self._type_texts = {code: text for text, code in self.types.items()}
        self._commons = {_common(name, value): 1 << bit for bit, name, value in execute("SELECT * FROM commons")}

    def type(self, text: str) -> int:
        """The number of a type."""
        if text not in self.types:
            code = self._add("types", "type", "text", text)
            self._type_texts[code] = text
            self.types = self.types | {text: code}  # a reader may be going through the old one
        return self.types[text]

    def type_text(self, code: int) -> str:
        """The type behind a number."""
        return self._type_texts[code]

    def queue(self, name: str) -> int:
        """The number of a queue."""
        if name not in self.queues:
            sql = "INSERT INTO queues (name, seq, at_ns, created) VALUES (?, 0, 0, '')"
            code = int(self._conn.execute(sql, (name,)).lastrowid or 0)
            self.queues = self.queues | {name: code}
        return self.queues[name]

    def name(self, name: str) -> int | None:
        """The number of an attribute's name, None when none has it."""
        return self._names.get(name)

    def name_code(self, name: str) -> int:
        """The number of an attribute's name."""
        if name not in self._names:
            self._names[name] = self._add("names", "name", "text", name)
        return self._names[name]

    def is_list(self, name: str) -> bool:
        """Whether some run has several values under this name."""
        return name in self._lists

    def note_list(self, name: str) -> None:
        """Some run has a list under this name."""
        if name not in self._lists:
            self._conn.execute("UPDATE names SET list = 1 WHERE name = ?", (self.name_code(name),))
            self._lists.add(name)

    def common(self, name: int, value: object) -> int:
        """The bit of a value that very many runs have, else 0."""
        return self._commons.get(_common(name, stored(value)), 0)

    def free_bit(self) -> int | None:
        """A bit that no value has yet."""
        return len(self._commons) if len(self._commons) < COMMONS_MAX else None

    def add_common(self, bit: int, name: int, value: object) -> None:
        """From now on runs are marked with the bit, and found by it."""
        self._commons[_common(name, value)] = 1 << bit

    def _add(self, table: str, code: str, column: str, text: str) -> int:
        sql = f"INSERT INTO {table} ({column}) VALUES (?) RETURNING {code}"  # noqa: S608 - our own names
        return int(self._conn.execute(sql, (text,)).fetchone()[0])


def _common(name: int, value: object) -> tuple[int, type, Any]:
    # 1 is 1.0 in SQLite, and as a key.
    return name, float if isinstance(value, (int, float)) else type(value), value
