"""A SQLite database of a node: connections, who may write, limits. Statements run in worker threads.

A file is in WAL mode, so reading does not wait for writing: each query borrows a reading connection, everything that
writes takes turns on one writing connection. The turn is waited for on the event loop and not in a thread, so waiting
writers cannot keep the one that has the turn from finishing. `:memory:` has one connection, and all take turns on it.

Other processes (nodes on the same machine) may use the same file: SQLite's own locks and the busy timeout see to that.

Statements come from Lua code that may see this database and nothing else: opening other files (ATTACH, VACUUM INTO)
is not authorized, and transactions are begun and ended by `Database`, not by statements.

Not here: who asks, handles, which database an id means (`node.modules.sql`).
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread

from mesh.failure import Failure, Kind
from mesh.redaction import without_quotes
from node.modules import Refused

MEMORY: Final = ":memory:"
READERS_MAX: Final = 4
STATEMENT_S_MAX: Final = 30.0  # a statement that takes longer is interrupted
# The result becomes a Lua value, of which a step may make 64 MB; a row of small numbers takes some 200 bytes there.
ROWS_MAX: Final = 50_000
RESULT_BYTES_MAX: Final = 16 * 1024 * 1024
_LOOK_EVERY: Final = 10_000  # SQLite's instructions between two looks at the time

# Blanks and comments, then a keyword. Possessive, so that many comments are read once and not in every combination.
_TRANSACTION = re.compile(
    r"(?>\s+|;|--[^\n]*|/\*(?:(?!\*/).)*+(?:\*/)?)*+(BEGIN|COMMIT|END|ROLLBACK|SAVEPOINT|RELEASE)\b",
    re.IGNORECASE | re.DOTALL,
)
_UNIQUE: Final = frozenset({"SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY", "SQLITE_CONSTRAINT_ROWID"})
_WRONG_VALUE: Final = frozenset(
    {"SQLITE_CONSTRAINT_NOTNULL", "SQLITE_CONSTRAINT_CHECK", "SQLITE_CONSTRAINT_DATATYPE", "SQLITE_MISMATCH"}
)
_GUARDED_PRAGMAS: Final = frozenset(
    {"query_only", "busy_timeout", "journal_mode", "locking_mode", "temp_store_directory"}
)

Parameters = Sequence[Any] | Mapping[str, Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Changed:
    """What a statement did. last_insert_id: of the connection's last INSERT."""

    rows_affected: int
    last_insert_id: int


class Session:
    """A connection with what belongs to it. One task uses it at a time; only `Database` makes sessions."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.deadline = 0.0
        self.stopped = False  # what runs is to end as soon as SQLite looks

    def query(self, text: str, parameters: Parameters) -> list[dict[str, Any]]:
        """Run one statement and return its rows as tables by column name. Blocks."""
        _refuse_transaction(text)
        with self._limited():
            cursor = self.connection.execute(text, parameters)
            try:
                names = [column[0] for column in cursor.description or ()]
                rows: list[dict[str, Any]] = []
                size = 0
                for row in cursor:
                    size += sum(len(value) for value in row if isinstance(value, str | bytes))
                    if len(rows) >= ROWS_MAX:
                        raise Refused(f"the query has more than {ROWS_MAX} rows; add a LIMIT", Kind.INVALID)
                    if size > RESULT_BYTES_MAX:
                        raise Refused(
                            f"the rows have more than {RESULT_BYTES_MAX} bytes; add a LIMIT or name fewer columns",
                            Kind.INVALID,
                        )
                    rows.append(dict(zip(names, row, strict=True)))
                return rows
            finally:
                cursor.close()

    def execute(self, text: str, parameters: Parameters) -> Changed:
        """Run a statement, or several separated by ; when there are no parameters. Blocks."""
        affected = 0
        for statement in [text] if parameters else _statements(text):
            _refuse_transaction(statement)
            with self._limited():
                cursor = self.connection.execute(statement, parameters)
                try:
                    for _ in cursor:  # a statement may give rows (RETURNING, PRAGMA); it is done when they are read
                        pass
                    affected += max(cursor.rowcount, 0)
                finally:
                    cursor.close()
        last = self.connection.execute("SELECT last_insert_rowid()").fetchone()[0]
        return Changed(affected, int(last))

    def check(self, text: str) -> None:
        """Compile one statement without running it. Blocks."""
        _refuse_transaction(text)
        with self._limited():
            try:
                # Without values for the parameters; that they are missing is said after compiling.
                self.connection.execute(f"EXPLAIN {text}").close()
            except sqlite3.ProgrammingError as error:
                if "binding" not in str(error).lower():
                    raise

    def control(self, text: str) -> None:
        """Run a statement of our own: BEGIN, COMMIT, SAVEPOINT and so on. Blocks."""
        with self._limited():
            self.connection.execute(text).close()

    @contextmanager
    def _limited(self) -> Iterator[None]:
        self.deadline = time.monotonic() + STATEMENT_S_MAX
        try:
            yield
        except (sqlite3.Error, sqlite3.Warning, OverflowError, UnicodeError) as error:
            raise refusal_of(error) from None


class Database:
    """One database. `close` when it is not needed any more.

    name: of its entry, for messages; not the file, whose path may come from a variable and is nobody's who calls.
    """

    def __init__(self, name: str, file: str, *, busy_timeout_s: float, threads: anyio.CapacityLimiter) -> None:
        self.name = name
        self.file = file
        self._busy_timeout_s = busy_timeout_s
        self._threads = threads
        self._turn = anyio.Semaphore(1)  # not a Lock: a transaction is begun by one task and ended by another
        self._has_turn = ""
        self._reading = anyio.Semaphore(READERS_MAX)
        self._writer: Session | None = None
        self._readers: list[Session] = []
        self._all: list[Session] = []

    @property
    def is_memory(self) -> bool:
        """Whether it has no file."""
        return self.file == MEMORY

    async def open(self) -> None:
        """Open it, so that a file that cannot be used is found out at once."""
        if self._writer is None:
            async with self.writing("opening"):
                pass

    async def query(self, text: str, parameters: Parameters, who: str) -> list[dict[str, Any]]:
        """Run a query. One that turns out to write waits for its turn to."""
        if not self.is_memory:
            async with self._reader() as session:
                try:
                    return await self.run(session, lambda s: s.query(text, parameters))
                except Refused as refused:
                    # Nothing has happened: it was refused before it changed anything.
                    if refused.failure.details.get("code") != "SQLITE_READONLY":
                        raise
        async with self.writing(who) as session:
            return await self.run(session, lambda s: s.query(text, parameters))

    async def execute(self, text: str, parameters: Parameters, who: str) -> Changed:
        """Run a statement when it is its turn."""
        async with self.writing(who) as session:
            return await self.run(session, lambda s: s.execute(text, parameters))

    async def check(self, text: str, who: str) -> None:
        """See whether a statement can be compiled."""
        async with self.writing(who) if self.is_memory else self._reader() as session:
            await self.run(session, lambda s: s.check(text))

    async def begin(self, who: str) -> Session:
        """Begin a transaction and keep the turn until `end`."""
        session = await self._take_turn(who)
        try:
            await self.run(session, lambda s: s.control("BEGIN IMMEDIATE"))
            await anyio.lowlevel.checkpoint_if_cancelled()  # the thread is waited for even when we are cancelled
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self.end(session, "ROLLBACK")
            raise
        return session

    async def end(self, session: Session, how: str) -> None:
        """End a transaction by COMMIT or ROLLBACK and give the turn away, whatever comes of it.

        A commit that fails is rolled back, so that nobody is kept waiting.
        """
        try:
            await self.run(session, lambda s: _end(s, how))
        finally:
            self._give_turn()

    async def close(self) -> None:
        """Stop what runs and close all connections; open transactions are lost."""
        for session in self._all:
            session.stopped = True
        sessions, self._all, self._readers, self._writer = self._all, [], [], None
        for session in sessions:
            await self._thread(session.connection.close)

    async def run(self, session: Session, work: Callable[[Session], T]) -> T:
        """Run something that blocks on a session. When it is cancelled the statement is stopped, and waited for."""
        results: list[T] = []
        failures: list[Exception] = []

        def job() -> None:
            try:
                results.append(work(session))
            except Exception as error:  # raised below: a task group would wrap it
                failures.append(error)

        session.stopped = False
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_stop_when_cancelled, session)
            await self._thread(job)
            tasks.cancel_scope.cancel()
        if failures:
            raise failures[0]
        return results[0]

    async def _thread(self, work: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(work, limiter=self._threads)

    @asynccontextmanager
    async def writing(self, who: str) -> AsyncIterator[Session]:
        """Have the turn for one statement. Raises Refused when it does not come within the busy timeout."""
        session = await self._take_turn(who)
        try:
            yield session
        finally:
            self._give_turn()

    async def _take_turn(self, who: str) -> Session:
        with anyio.move_on_after(self._busy_timeout_s) as waited:
            await self._turn.acquire()
        if waited.cancelled_caught:
            own = self._has_turn == who
            holder = "a transaction of the same unit" if own else self._has_turn
            hint = "use the transaction's own methods, or end it first" if own else "try again"
            raise Refused(
                f"{self.file} is locked: {holder} has been writing for more than {self._busy_timeout_s:g} s; {hint}",
                Kind.UNAVAILABLE,
                retryable=True,
            )
        try:
            if self._writer is None:
                self._writer = await self._thread(lambda: self._connect(writing=True))
                self._all.append(self._writer)
        except BaseException:
            self._turn.release()
            raise
        self._has_turn = who
        return self._writer

    def _give_turn(self) -> None:
        self._has_turn = ""
        self._turn.release()

    @asynccontextmanager
    async def _reader(self) -> AsyncIterator[Session]:
        await self.open()  # the file and its mode are the writer's business
        async with self._reading:
            if self._readers:
                session = self._readers.pop()
            else:
                session = await self._thread(lambda: self._connect(writing=False))
                self._all.append(session)
            try:
                yield session
            finally:
                if session in self._all:
                    self._readers.append(session)

    def _connect(self, *, writing: bool) -> Session:
        try:
            if writing and not self.is_memory:
                Path(self.file).parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(
                self.file, timeout=self._busy_timeout_s, isolation_level=None, check_same_thread=False
            )
        except (sqlite3.Error, OSError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or without_quotes(str(error))
            raise Refused(f"the file of database {self.name} cannot be opened: {reason}", Kind.INTERNAL) from None
        session = Session(connection)
        try:
            connection.text_factory = _text
            if not self.is_memory:
                connection.execute("PRAGMA journal_mode=WAL").close()
                connection.execute("PRAGMA synchronous=NORMAL").close()
            connection.execute("PRAGMA foreign_keys=ON").close()
            if not writing:
                connection.execute("PRAGMA query_only=ON").close()
        except sqlite3.Error as error:
            connection.close()
            refused = refusal_of(error)
            raise Refused(
                f"{self.file} cannot be used as a database: {error}",
                refused.failure.kind,
                retryable=refused.failure.retryable,
            ) from None
        connection.set_authorizer(_authorize)
        connection.set_progress_handler(
            lambda: int(session.stopped or time.monotonic() > session.deadline), _LOOK_EVERY
        )
        return session


async def _stop_when_cancelled(session: Session) -> None:
    try:
        await anyio.sleep_forever()
    finally:
        session.stopped = True  # if the work is done already, nobody looks any more


def _end(session: Session, how: str) -> None:
    if not session.connection.in_transaction:
        return  # some errors end a transaction by themselves
    try:
        session.control(how)
    except Refused:
        if session.connection.in_transaction:
            session.control("ROLLBACK")
        raise


def refusal_of(error: Exception) -> Refused:
    """Say an error of SQLite as ours. details.code is SQLite's own name of it."""
    code = str(getattr(error, "sqlite_errorname", ""))
    text = str(error)
    retryable = False
    kind: Kind = Kind.INTERNAL
    if code in _UNIQUE:
        kind = Kind.ALREADY_EXISTS
    elif code in _WRONG_VALUE:
        kind = Kind.INVALID
    elif code.startswith("SQLITE_CONSTRAINT"):
        kind = Kind.CONFLICT
    elif code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        kind, retryable = Kind.UNAVAILABLE, True
    elif code == "SQLITE_INTERRUPT":
        kind, text = Kind.TIMEOUT, f"the statement was interrupted: it may take {STATEMENT_S_MAX:g} s"
    elif code in ("SQLITE_AUTH", "SQLITE_PERM") or code.startswith("SQLITE_READONLY"):
        kind = Kind.PERMISSION_DENIED
    elif "one statement at a time" in text:
        kind, text = Kind.INVALID, "several statements at once are possible with execute and without parameters only"
    elif code in ("SQLITE_ERROR", "SQLITE_TOOBIG", "SQLITE_RANGE") or not code:
        kind = Kind.INVALID  # what has no code are wrong parameters, found by Python
    refused = Refused(text, kind, retryable=retryable)
    if code:
        refused.failure = Failure(text, kind, retryable, {"code": code})
    return refused


def _refuse_transaction(text: str) -> None:
    if found := _TRANSACTION.match(text):
        raise Refused(
            f"{found[1].upper()} is not a statement to run here; use db:begin(), tx:commit(), "
            "tx:rollback(), tx:savepoint()",
            Kind.INVALID,
        )


def _statements(text: str) -> list[str]:
    """Split a script. Only a ; at which SQLite sees a complete statement ends one: not those in triggers and texts."""
    found, begin = [], 0
    for at, char in enumerate(text):
        if char == ";" and sqlite3.complete_statement(text[begin : at + 1]):
            found.append(text[begin : at + 1])
            begin = at + 1
    found.append(text[begin:])
    return [statement for statement in found if statement.strip(" \t\r\n;")] or [text]


def _authorize(action: int, first: str | None, second: str | None, _database: str | None, _trigger: str | None) -> int:
    """What a statement may do. Called while it is compiled."""
    if action == sqlite3.SQLITE_ATTACH and first != "":  # VACUUM attaches a nameless file
        return sqlite3.SQLITE_DENY
    if action == sqlite3.SQLITE_PRAGMA and second is not None and (first or "").lower() in _GUARDED_PRAGMAS:
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")  # bytes that are no text stay what they are
