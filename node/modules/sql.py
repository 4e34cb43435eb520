"""The module `sql`: databases of a node by the id of their entry, and the transactions units have open.

A transaction belongs to the unit that began it: nobody else can use it, and it is rolled back when the unit ends.

Not here: connections, limits, the errors of SQLite (`node.modules.sqlite`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import anyio
import anyio.abc

from mesh.failure import Kind
from node.modules import Caller, Refused
from node.modules.sqlite import Changed, Database, Parameters, Session
from node.registry import EntryId, SqliteEntry, resolve_reference

THREADS_MAX: Final = 8
_LOST: Final = "the database has rolled the transaction back by itself after an error; begin it again"

T = TypeVar("T")


@dataclass(slots=True)
class _Transaction:
    """busy: one statement at a time, and none while it is rolled back."""

    database: Database
    session: Session
    pid: str
    busy: anyio.Lock = field(default_factory=anyio.Lock)
    ended: bool = False


class SqlModule:
    """The Python half of `sql`. `run` must be running: it rolls back what ended units left, and closes all at its end.

    databases: the views of a registry.
    """

    def __init__(self, databases: Mapping[EntryId, SqliteEntry]) -> None:
        self._entries = databases
        self._open: dict[str, Database] = {}
        self._transactions: dict[int, _Transaction] = {}
        self._numbers = itertools.count(1)
        self._threads = anyio.CapacityLimiter(THREADS_MAX)
        self._tasks: anyio.abc.TaskGroup | None = None

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Be there until cancelled."""
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                task_status.started()
                await anyio.sleep_forever()
        finally:
            self._tasks = None
            with anyio.CancelScope(shield=True):
                for database in self._open.values():
                    await database.close()

    async def ask(self, verb: str, args: list[Any], caller: Caller) -> Any:
        """Answer a call of node/lua/sql.lua. A reference is a database's id or a transaction's number."""
        match verb, args:
            case "open", [str(name)]:
                entry_id = resolve_reference(name, caller.namespace)
                await self._database(entry_id)
                return str(entry_id)
            case "begin", [str(entry_id)]:
                return await self._begin(entry_id, caller)
            case (("query" | "execute"), [ref, str() | bytes() as text, str(style), *flat]):
                return await self._statement(verb, ref, _statement_text(text), _parameters(style, flat), caller)
            case "check", [ref, str() | bytes() as text]:
                return await self._check(ref, _statement_text(text), caller)
            case (("commit" | "rollback"), [int(number)]):
                return await self._end(number, verb.upper(), caller)
            case (("savepoint" | "rollback_to" | "release"), [int(number), str(name)]):
                words = {"savepoint": "SAVEPOINT", "rollback_to": "ROLLBACK TO", "release": "RELEASE"}[verb]
                transaction = self._transaction(number, caller)
                await self._within(transaction, lambda session: session.control(f'{words} "{name}"'))
                return True
            case _:
                raise Refused(f"sql.{verb} is not called this way", Kind.INVALID)

    def unit_ended(self, pid: str) -> None:
        """Roll back what a unit left open."""
        for number, transaction in list(self._transactions.items()):
            if transaction.pid == pid and self._tasks is not None:
                del self._transactions[number]
                self._tasks.start_soon(self._roll_back, transaction)

    async def _database(self, entry_id: str) -> Database:
        database = self._open.get(entry_id)
        if database is None:
            entry = self._entries.get(EntryId(entry_id))
            if entry is None:
                raise Refused(f"there is no database {entry_id}: no entry of kind db.sql.sqlite", Kind.NOT_FOUND)
            database = Database(entry_id, entry.file, busy_timeout_s=entry.busy_timeout_s, threads=self._threads)
            self._open[entry_id] = database
        await database.open()
        return database

    async def _begin(self, entry_id: str, caller: Caller) -> int:
        database = await self._database(entry_id)
        session = await database.begin(caller.pid)
        number = next(self._numbers)
        self._transactions[number] = _Transaction(database, session, caller.pid)
        return number

    async def _statement(self, verb: str, ref: object, text: str, parameters: Parameters, caller: Caller) -> Any:
        if isinstance(ref, int):
            transaction = self._transaction(ref, caller)
            if verb == "query":
                return await self._within(transaction, lambda session: session.query(text, parameters))
            return _told(await self._within(transaction, lambda session: session.execute(text, parameters)))
        database = await self._database(str(ref))
        if verb == "query":
            return await database.query(text, parameters, caller.pid)
        return _told(await database.execute(text, parameters, caller.pid))

    async def _check(self, ref: object, text: str, caller: Caller) -> bool:
        if isinstance(ref, int):
            await self._within(self._transaction(ref, caller), lambda session: session.check(text))
        else:
            await (await self._database(str(ref))).check(text, caller.pid)
        return True

    def _transaction(self, number: int, caller: Caller) -> _Transaction:
        transaction = self._transactions.get(number)
        if transaction is None or transaction.pid != caller.pid:
            raise Refused("the transaction has ended, or it is another unit's", Kind.INVALID)
        return transaction

    async def _within(self, transaction: _Transaction, work: Callable[[Session], T]) -> T:
        async with transaction.busy:
            if transaction.ended:
                raise Refused(_LOST, Kind.CONFLICT)
            session = transaction.session
            try:
                return await transaction.database.run(session, work)
            finally:
                if not session.connection.in_transaction:  # what came after would be written at once
                    transaction.ended = True
                    with anyio.CancelScope(shield=True):
                        await transaction.database.end(session, "ROLLBACK")

    async def _end(self, number: int, how: str, caller: Caller) -> bool:
        transaction = self._transaction(number, caller)
        del self._transactions[number]
        # Begun, it is carried through: a unit that is stopped meanwhile must not leave the turn taken.
        with anyio.CancelScope(shield=True):
            await self._finish(transaction, how)
        return True

    async def _roll_back(self, transaction: _Transaction) -> None:
        with anyio.CancelScope(shield=True):
            transaction.session.stopped = True
            await self._finish(transaction, "ROLLBACK")

    @staticmethod
    async def _finish(transaction: _Transaction, how: str) -> None:
        async with transaction.busy:
            if transaction.ended and how == "COMMIT":
                raise Refused(_LOST, Kind.CONFLICT)
            if not transaction.ended:
                transaction.ended = True
                await transaction.database.end(transaction.session, how)


def _told(changed: Changed) -> dict[str, int]:
    return {"rows_affected": changed.rows_affected, "last_insert_id": changed.last_insert_id}


def _statement_text(text: str | bytes) -> str:
    if isinstance(text, bytes) or "\0" in text:
        raise Refused("a statement must be UTF-8 text without zero bytes; bind bytes as parameters", Kind.INVALID)
    return text


def _parameters(style: str, flat: Sequence[Any]) -> Parameters:
    values = [_value(value) for value in (flat if style == "list" else flat[1::2])]
    if style == "list":
        return values
    return {str(name).lstrip(":@$"): value for name, value in zip(flat[::2], values, strict=True)}


def _value(value: Any) -> Any:
    if isinstance(value, list):  # sql.as.binary
        return value[0].encode("utf-8", "surrogateescape") if isinstance(value[0], str) else value[0]
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return value.encode("utf-8", "surrogateescape")
    return value
