"""The SQLite file of a projection: opened by one process at a time, with its tables, and its troubles by name.

    file = ProjectionFile(Path("runs.db"))
    with file.transaction(lambda: None):
        file.writer.execute("INSERT INTO ...")

The only importer of sqlite_utils. Not here: what is in the tables and what they are asked (`store.projection`).

Invariants: one process has a file (a lock file beside it); what SQLite says of a broken file leaves as
ProjectionDamaged, and of one that cannot be used just now as ProjectionBlocked; a transaction that raises has written
nothing.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Final

import sqlite_utils

from mesh.errors import MeshError
from mesh.listing import BadQuery

SCHEMA_VERSION: Final = 2
CACHE_KIB: Final = 64 * 1024
# Walking along an index is a fifth quicker than with the 4,096 of SQLite, and filling one no slower (2026-11-25).
PAGE_BYTES: Final = 16_384
WAL_PAGES: Final = 2000  # 32 MB: filling a projection writes the same pages again and again
MMAP_BYTES: Final = 4 << 30

_BEHIND_KEY: Final = "newest, status, type, attempt, common, parent"
_SCHEMA: Final = f"""
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE queues (queue INTEGER PRIMARY KEY, name TEXT UNIQUE, seq INTEGER, at_ns INTEGER, created TEXT);
CREATE TABLE types (type INTEGER PRIMARY KEY, text TEXT UNIQUE);
CREATE TABLE names (name INTEGER PRIMARY KEY, text TEXT UNIQUE, list INTEGER DEFAULT 0);
CREATE TABLE commons (bit INTEGER PRIMARY KEY, name INTEGER, value);
CREATE TABLE sums (
    queue INTEGER, type INTEGER, status INTEGER, newest INTEGER, runs INTEGER,
    PRIMARY KEY (queue, type, status, newest)
) WITHOUT ROWID;
CREATE TABLE runs (
    n INTEGER PRIMARY KEY, queue INTEGER, id TEXT, run INTEGER, type INTEGER, status INTEGER, newest INTEGER,
    started INTEGER, ended INTEGER, duration INTEGER, attempt INTEGER, common INTEGER, parent TEXT,
    attrs TEXT, memo TEXT, imported INTEGER
);
CREATE TABLE attrs (name INTEGER, value, n INTEGER, PRIMARY KEY (name, value, n)) WITHOUT ROWID;
CREATE INDEX attrs_of_run ON attrs (n, name, value);
CREATE INDEX runs_started ON runs (started, run, queue, ended, id, {_BEHIND_KEY});
CREATE INDEX runs_ended ON runs (ended, run, queue, started, id, {_BEHIND_KEY});
CREATE INDEX runs_duration ON runs (duration, run, queue, started, ended, id, {_BEHIND_KEY});
CREATE INDEX runs_id ON runs (id, run, queue, started, ended, {_BEHIND_KEY});
CREATE INDEX runs_open ON runs (started, run, queue, ended, id, {_BEHIND_KEY}) WHERE status <= 1;
CREATE INDEX runs_parent ON runs (parent) WHERE parent IS NOT NULL;
"""


class ProjectionInUse(MeshError):
    """Raised when another process keeps a projection in this file."""

    code = "projection-in-use"

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is kept by another process; give this node another file with --projection")


class ProjectionDamaged(MeshError):
    """Raised when a projection's file cannot be read or written as one."""

    code = "projection-damaged"


class ProjectionBlocked(MeshError):
    """Raised when a projection's file cannot be read or written at the moment: the disk is full, it is locked."""

    code = "projection-blocked"


class QueryTooSlow(BadQuery):
    """Raised when a query takes longer than it may."""

    code = "query-too-slow"

    def __init__(self, seconds_max: float) -> None:
        super().__init__(f"the query took longer than {seconds_max:g} s; make it narrower")


class ProjectionFile:
    """A file, or (path None) the same in memory. writer and reader are for one thread each.

    lock: what `lock_file` has given for it. Raises ProjectionDamaged, ProjectionBlocked, OSError.
    """

    def __init__(self, path: Path | None, lock: int | None = None) -> None:
        self.path = path
        self._lock = lock
        self._turn: Any = threading.Lock() if path is None else nullcontext()
        self.writer = _connected(path)
        # What is in memory belongs to one connection; then readers and writer take turns.
        self.reader = self.writer if path is None else _connected(path)
        # Walking along an index is mostly copying its pages otherwise. Nobody else has the file.
        self.reader.conn.execute(f"PRAGMA mmap_size = {MMAP_BYTES}")
        with _damage(path):
            self._prepare()

    def close(self) -> None:
        """Close the file and let others have it."""
        for database in {id(one): one for one in (self.reader, self.writer)}.values():
            with suppress(sqlite3.Error):
                database.conn.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @contextmanager
    def reading(self, seconds_max: float | None = None) -> Iterator[None]:
        """For questions to the file. Raises QueryTooSlow where they take longer, if a time is given."""
        with self._turn, _damage(self.path):
            if seconds_max is None:
                yield
                return
            with _limited(self.reader, seconds_max):
                yield

    @contextmanager
    def transaction(self, rolled_back: Callable[[], None]) -> Iterator[None]:
        """Write all that is written in the block, or nothing. rolled_back: is called when it came to nothing."""
        with self._turn, _damage(self.path):
            conn = self.writer.conn
            conn.execute("BEGIN IMMEDIATE")
            try:
                yield
                conn.commit()  # where a full disk is noticed
            except BaseException:
                conn.rollback()
                rolled_back()
                raise

    def _prepare(self) -> None:
        """Make the tables, or check that they are ours."""
        database = self.writer
        if not database.table_names():
            if self.path is not None:
                database.enable_wal()
            database.executescript(_SCHEMA)
            database.execute("INSERT INTO meta VALUES ('version', ?)", (SCHEMA_VERSION,))
            database.conn.commit()
        if database["meta"].exists():
            version = database.execute("SELECT value FROM meta WHERE key = 'version'").fetchone()
            if version is not None and version[0] == SCHEMA_VERSION:
                return
        raise ProjectionDamaged(f"{self.path} is of another version, or no projection at all")


def lock_file(path: Path) -> int:
    """Take a projection's file, until what is returned is closed. Raises ProjectionInUse, OSError."""
    lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise ProjectionInUse(path) from None
    return lock


def put_aside(path: Path) -> Path:
    """Rename a projection's files; return the new name."""
    aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
    for end in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            path.with_name(path.name + end).rename(aside.with_name(aside.name + end))
    return aside


def _connected(path: Path | None) -> sqlite_utils.Database:
    where = str(path) if path is not None else ":memory:"
    if path is not None:
        # SQLite would let everybody read it, and what is encrypted everywhere else stands in it as it is.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    # Threads of a pool take turns; no statement cache of a thread's own is lost by that.
    conn = sqlite3.connect(where, check_same_thread=False, cached_statements=256, timeout=30.0)
    try:
        with _damage(path):
            database = sqlite_utils.Database(conn, execute_plugins=False)
            conn.execute(f"PRAGMA page_size = {PAGE_BYTES}")  # of a file that is made now
            conn.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            conn.execute("PRAGMA temp_store = MEMORY")
            # A power failure loses what can be read from the stream again.
            conn.execute("PRAGMA synchronous = NORMAL")
            conn.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
    except BaseException:
        conn.close()
        raise
    return database


@contextmanager
def _damage(path: Path | None) -> Iterator[None]:
    """Raise what SQLite says of a broken file as ProjectionDamaged."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if str(error).startswith("no such "):  # a table or an index of ours is missing
            raise ProjectionDamaged(f"{path or 'the projection'} is damaged: {error}") from error
        # The file is as good as before.
        raise ProjectionBlocked(f"{path or 'the projection'} cannot be used: {error}") from error
    except sqlite3.DatabaseError as error:
        raise ProjectionDamaged(f"{path or 'the projection'} is damaged: {error}") from error


@contextmanager
def _limited(database: sqlite_utils.Database, seconds_max: float) -> Iterator[None]:
    """Interrupt a query that takes too long."""
    until = time.monotonic() + seconds_max
    late = False

    def look() -> bool:
        nonlocal late
        late = time.monotonic() > until
        return late

    database.conn.set_progress_handler(look, 1_000_000)
    try:
        yield
    except sqlite3.OperationalError:
        if late:
            raise QueryTooSlow(seconds_max) from None
        raise
    finally:
        database.conn.set_progress_handler(None, 0)
