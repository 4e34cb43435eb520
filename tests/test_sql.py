"""The module `sql` from Lua on real SQLite files: values, parameters, transactions, turns, limits, errors."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from mesh.failure import Failure, Kind
from node.modules import Caller, Refused, sqlite
from node.modules.sql import SqlModule
from node.registry import load_registry
from tests.units import Units
from tests.waiting import wait_until

T = "db:execute('CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, name TEXT UNIQUE, v)') "
DB = "local db = assert(sql.get('app:db')) "


@asynccontextmanager
async def databases(root: Path, entries: str = "") -> AsyncIterator[Units]:
    (root / "i.yaml").write_text(
        "namespace: app\nentries:\n"
        f"  - {{name: db, kind: db.sql.sqlite, file: '{root}/data/app.db', busy_timeout: 300ms, lifecycle: {{auto_start: true}}}}\n"
        f"  - {{name: mem, kind: db.sql.sqlite, file: ':memory:', busy_timeout: 300ms}}\n{entries}"
    )
    registry = load_registry(root, environ={}, strict=True)
    module = SqlModule(registry.databases())
    async with anyio.create_task_group() as tasks:
        await tasks.start(module.run)
        yield Units({"sql": module})
        tasks.cancel_scope.cancel()


async def run(root: Path, body: str, *args: Any) -> Any:
    async with databases(root) as units:
        return await units.run(f"return function(...) {DB}{T}{body} end", *args)


async def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    got = await run(
        tmp_path,
        "local r = db:execute('INSERT INTO t (name, v) VALUES (?, ?)', {'a', 1}) "
        "local s = db:execute('INSERT INTO t (name, v) VALUES (:name, :v)', {name = 'b', v = 2.5}) "
        "local u = db:execute('UPDATE t SET v = v + 1') "
        "return {r, s.last_insert_id, u.rows_affected, db:query('SELECT name, v FROM t ORDER BY id'), db:type(), db:query('SELECT 1 AS x WHERE 0')}",
    )
    assert got == [
        {"rows_affected": 1, "last_insert_id": 1}, 2, 2, [{"name": "a", "v": 2}, {"name": "b", "v": 3.5}], "sqlite", [],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("lua", "stored", "read"),
    [
        ("sql.NULL", "null", None),
        ("sql.as.null()", "null", None),
        ("true", "integer", 1),
        ("false", "integer", 0),
        ("9223372036854775807", "integer", 2**63 - 1),
        ("math.mininteger", "integer", -(2**63)),
        ("1.0", "real", 1.0),
        ("'text ü'", "text", "text ü"),
        ("''", "text", ""),
        ("'a\\0b'", "text", "a\0b"),
        ("'\\255\\0\\254'", "blob", b"\xff\0\xfe"),
        ("sql.as.binary('abc')", "blob", "abc"),
        ("sql.as.int('7')", "integer", 7),
        ("sql.as.float(7)", "real", 7.0),
        ("sql.as.text(7)", "text", "7"),
    ],
)
async def test_values_keep_their_type(tmp_path: Path, lua: str, stored: str, read: Any) -> None:
    got = await run(
        tmp_path, f"local r = db:query('SELECT typeof(?1) AS t, ?1 AS v', {{{lua}, n = 1}}) return {{r[1].t, r[1].v}}"
    )
    assert got[0] == stored
    assert (got[1] if len(got) > 1 else None) in (
        read,
        read.encode() if isinstance(read, str) and stored == "blob" else read,
    )


async def test_bytes_that_are_no_text_in_a_text_column_stay_what_they_are(tmp_path: Path) -> None:
    assert await run(tmp_path, "return db:query(\"SELECT CAST(x'ff61' AS TEXT) AS v\")[1].v == '\\255a'") is True


async def test_holes_in_a_list_of_parameters_are_null(tmp_path: Path) -> None:
    got = await run(tmp_path, "return db:query('SELECT ?1 AS a, ?2 AS b, ?3 AS c', {nil, nil, 3})[1]")
    assert got == {"c": 3}
    got = await run(tmp_path, "return db:query('SELECT ?1 AS a, ?2 AS b', table.pack(1, nil))[1]")
    assert got == {"a": 1}


async def test_parameters_are_bound_and_never_part_of_the_statement(tmp_path: Path) -> None:
    evil = "x'); DROP TABLE t; --"
    got = await run(
        tmp_path, "local evil = ... db:execute('INSERT INTO t (name) VALUES (?)', {evil}) return db:query('SELECT name FROM t WHERE name = ?', {evil})", evil,
    )  # fmt: skip
    assert got == [{"name": evil}]


async def test_a_prepared_statement_runs_until_it_is_closed(tmp_path: Path) -> None:
    got = await run(
        tmp_path,
        "local s = db:prepare('INSERT INTO t (name) VALUES (?)') for i = 1, 3 do assert(s:execute({'n' .. i})) end "
        "local q = db:prepare('SELECT count(*) AS n FROM t WHERE name LIKE :p') local n = q:query({p = 'n%'})[1].n "
        "s:close() local _, err = s:execute({'x'}) local _, bad = db:prepare('SELEC 1') local _, two = db:prepare('SELECT 1; SELECT 2') "
        "return {n, err:kind(), err:message(), tostring(s), bad:kind(), bad:message(), two:kind()}",
    )
    assert got == [
        3,
        "Invalid",
        "the statement is closed",
        "sql.Statement{closed}",
        "Invalid",
        'near "SELEC": syntax error',
        "Invalid",
    ]


async def test_a_script_runs_statement_by_statement(tmp_path: Path) -> None:
    got = await run(
        tmp_path,
        "local r = db:execute([[CREATE TABLE a (x); -- one; two\n CREATE TRIGGER tr AFTER INSERT ON a BEGIN INSERT INTO t (name) VALUES ('from;trigger'); END;\n"
        "INSERT INTO a VALUES (';'), (2); ]]) return {r.rows_affected, db:query('SELECT count(*) AS n FROM a')[1].n, (select(2, db:query('SELECT 1; SELECT 2'))):kind()}",
    )
    # The trigger inserts the same name twice: the second time is refused, and with it its whole statement.
    assert isinstance(got, Failure)
    assert "nil" in got.message
    got = await run(
        tmp_path,
        "db:execute('CREATE TABLE b (x); INSERT INTO b VALUES (1), (2); ;') return db:query('SELECT count(*) AS n FROM b')[1].n",
    )
    assert got == 2


async def test_a_query_may_write_and_return_what_it_wrote(tmp_path: Path) -> None:
    got = await run(tmp_path, "return db:query('INSERT INTO t (name) VALUES (?) RETURNING id, name', {'q'})")
    assert got == [{"id": 1, "name": "q"}]


# -- transactions ----------------------------------------------------------------------------------------------------


async def test_a_transaction_is_seen_by_others_when_it_is_committed(tmp_path: Path) -> None:
    got = await run(
        tmp_path,
        "local function n(x) return x:query('SELECT count(*) AS n FROM t')[1].n end local tx = db:begin() "
        "tx:execute('INSERT INTO t (name) VALUES (?)', {'a'}) local inside, outside = n(tx), n(db) local ok = tx:commit() "
        "local tx2 = db:begin() tx2:execute('DELETE FROM t') local back = tx2:rollback() local _, err = tx2:execute('SELECT 1') "
        "return {inside, outside, ok, n(db), back, err:kind(), err:message(), tostring(tx), tostring(db:begin())}",
    )
    assert got == [
        1,
        0,
        True,
        1,
        True,
        "Invalid",
        "the transaction has ended",
        "sql.Transaction{ended}",
        "sql.Transaction{}",
    ]


async def test_savepoints_take_back_a_part(tmp_path: Path) -> None:
    got = await run(
        tmp_path,
        "local tx = db:begin() local s = tx:prepare('INSERT INTO t (name) VALUES (?)') s:execute({'a'}) tx:savepoint('p') s:execute({'b'}) "
        "tx:rollback_to('p') s:execute({'c'}) tx:release('p') local _, err = tx:rollback_to('p') local _, bad = tx:savepoint('x; DROP TABLE t') tx:commit() "
        "return {db:query('SELECT name FROM t ORDER BY id'), err:kind(), bad:kind()}",
    )
    assert got == [[{"name": "a"}, {"name": "c"}], "Invalid", "Invalid"]


async def test_a_transaction_that_an_ended_unit_left_open_is_rolled_back(tmp_path: Path) -> None:
    async with databases(tmp_path) as units:
        left = f"return function() {DB}{T} local tx = db:begin() tx:execute(\"INSERT INTO t (name) VALUES ('x')\") return 'left' end"
        for _ in range(3):  # nobody could begin the second one otherwise
            assert await units.run(left) == "left"
        assert await units.run(f"return function() {DB} return db:query('SELECT count(*) AS n FROM t')[1].n end") == 0
        failed = await units.run(f"return function() {DB} db:begin() error('boom') end")
        assert isinstance(failed, Failure)
        count = await units.run(
            f"return function() {DB} return db:execute(\"INSERT INTO t (name) VALUES ('y')\").rows_affected end"
        )
        assert count == 1


async def test_a_unit_that_is_stopped_in_a_long_statement_of_a_transaction_lets_go(tmp_path: Path) -> None:
    async with databases(tmp_path) as units:
        endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) AS n FROM c"
        with anyio.move_on_after(0.3) as stopped:
            await units.run(f"return function() {DB} local tx = db:begin() return tx:query('{endless}') end")
        assert stopped.cancelled_caught
        begun = time.monotonic()
        assert await units.run(f"return function() {DB}{T} return db:begin():commit() end") is True
        assert time.monotonic() - begun < 20  # by itself it would never end


@pytest.mark.parametrize("name", ["app:db", "mem"])
async def test_a_unit_that_writes_past_its_own_transaction_is_told_and_not_blocked_for_ever(
    tmp_path: Path, name: str
) -> None:
    async with databases(tmp_path) as units:
        result = await units.run(
            f"return function() local db = sql.get('{name}') local tx = db:begin() local _, err = db:execute('CREATE TABLE x (a)') "
            "local _, again = db:begin() local ok = tx:execute('CREATE TABLE y (a)') ~= nil tx:commit() return {ok, err, again} end"
        )
    ok, err, again = result
    assert ok is True
    for refused in (err, again):
        assert (refused.kind, refused.retryable) == (Kind.UNAVAILABLE, True)
        assert "a transaction of the same unit has been writing for more than 0.3 s" in refused.message


async def test_many_writers_take_turns(tmp_path: Path) -> None:
    """Waiting for the turn takes no thread: with more writers than threads the one that has it must get on."""
    async with databases(
        tmp_path, "  - {name: slow, kind: db.sql.sqlite, file: ':memory:', busy_timeout: 20s}\n"
    ) as units:
        assert (
            await units.run(
                "return function() return sql.get('slow'):execute('CREATE TABLE n (x); INSERT INTO n VALUES (0)').rows_affected end"
            )
            == 1
        )
        add = "return function() local tx = assert(sql.get('slow'):begin()) local x = tx:query('SELECT x FROM n')[1].x tx:execute('UPDATE n SET x = ?', {x + 1}) return tx:commit() end"
        results: list[Any] = []

        async def one() -> None:
            results.append(await units.run(add))

        async with anyio.create_task_group() as tasks:
            for _ in range(40):
                tasks.start_soon(one)
        assert results == [True] * 40
        assert await units.run("return function() return sql.get('slow'):query('SELECT x FROM n')[1].x end") == 40


async def test_reading_does_not_wait_for_a_writer(tmp_path: Path) -> None:
    async with databases(tmp_path) as units:
        got = await units.run(
            f"return function() {DB}{T} local tx = db:begin() tx:execute(\"INSERT INTO t (name) VALUES ('x')\") "
            "local d = channel.new(9) for i = 1, 6 do coroutine.spawn(function() d:send(db:query('SELECT count(*) AS n FROM t')[1].n) end) end "
            "local sum = 0 for i = 1, 6 do sum = sum + d:receive() end tx:rollback() return sum end"
        )
        assert got == 0


async def test_a_transaction_of_another_unit_cannot_be_used(tmp_path: Path) -> None:
    async with databases(tmp_path) as units, anyio.create_task_group() as tasks:
        tasks.start_soon(units.run, f"return function() {DB} db:begin() time.sleep('10s') end")
        await wait_until(lambda: (tmp_path / "data/app.db").exists())
        # A handle is nothing but a number: the number of the other unit's transaction is guessed here.
        module = units.given["sql"]
        assert isinstance(module, SqlModule)
        await wait_until(lambda: module._transactions)
        with pytest.raises(Refused, match="it is another unit's"):
            await module.ask("query", [1, "SELECT 1", "list"], Caller("{node@app:other|1}", "app:other"))
        tasks.cancel_scope.cancel()


async def test_another_process_that_holds_the_file_makes_it_unavailable(tmp_path: Path) -> None:
    async with databases(tmp_path) as units:
        assert await units.run(f"return function() {DB}{T} return 1 end") == 1
        other = sqlite3.connect(tmp_path / "data/app.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        refused = await units.run(
            f"return function() {DB} return db:execute(\"INSERT INTO t (name) VALUES ('x')\") end"
        )
        assert (refused.kind, refused.retryable, refused.details["code"]) == (Kind.UNAVAILABLE, True, "SQLITE_BUSY")
        other.execute("ROLLBACK")
        other.close()
        got = await units.run(
            f"return function() {DB} return db:execute(\"INSERT INTO t (name) VALUES ('x')\").rows_affected end"
        )
        assert got == 1


# -- errors and limits -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "kind", "part"),
    [
        (
            "db:execute(\"INSERT INTO t (name) VALUES ('dup'), ('dup')\")",
            "AlreadyExists",
            "UNIQUE constraint failed: t.name",
        ),
        ("db:execute('INSERT INTO c (id) VALUES (5)')", "Conflict", "FOREIGN KEY constraint failed"),
        ("db:execute('INSERT INTO c (id, must) VALUES (NULL, NULL)')", "Invalid", "NOT NULL constraint failed"),
        ("db:query('SELEC 1')", "Invalid", 'near "SELEC": syntax error'),
        ("db:query('SELECT * FROM nowhere')", "Invalid", "no such table: nowhere"),
        ("db:query('')", "Invalid", "a statement is required"),
        ("db:query('   ')", "Invalid", "a statement is required"),
        ("db:query(7)", "Invalid", "a statement is required"),
        ("db:query('SELECT \\255')", "Invalid", "must be UTF-8 text"),
        ("db:query('SELECT ?, ?', {1})", "Invalid", "uses 2, and there are 1 supplied"),
        ("db:query('SELECT :a', {b = 1})", "Invalid", "did not supply a value for binding"),
        ("db:query('SELECT ?', 5)", "Invalid", "parameters must be a table, not a number"),
        ("db:query('SELECT ?', {{}})", "Invalid", "parameter 1 is a table; only texts, numbers"),
        ("db:query('SELECT :a', {a = print})", "Invalid", "parameter a is a function"),
        ("db:query('SELECT ?', {1, a = 2})", "Invalid", "not both"),
        ("db:query('SELECT ?', {[1.5] = 2})", "Invalid", "parameter 1.5 has no place"),
        ("db:query('SELECT ?', {sql.as.int('x')})", "Invalid", "parameter 2 is a userdata"),
        ("db:execute('BEGIN')", "Invalid", "BEGIN is not a statement to run here"),
        ("db:execute('/* x */ -- y\\n; commit')", "Invalid", "COMMIT is not a statement to run here"),
        ("db:execute(\"ATTACH '/tmp/other.db' AS o\")", "PermissionDenied", "not authorized"),
        ("db:execute(\"VACUUM INTO '/tmp/other.db'\")", "PermissionDenied", "authorization denied"),
        ("db:execute('PRAGMA journal_mode=DELETE')", "PermissionDenied", "not authorized"),
        ("sql.get('')", "Invalid", "the id of a database is required"),
        ("sql.get(5)", "Invalid", "the id of a database is required"),
        ("sql.get('app:none')", "NotFound", "there is no database app:none"),
        ("sql.get('none')", "NotFound", "there is no database app:none"),
        ("sql.get('broken')", "Internal", "cannot be used as a database"),
    ],
)
async def test_what_goes_wrong_is_told_with_a_kind(tmp_path: Path, call: str, kind: str, part: str) -> None:
    (tmp_path / "broken.db").write_bytes(b"no database at all" * 100)
    async with databases(
        tmp_path, f"  - {{name: broken, kind: db.sql.sqlite, file: '{tmp_path}/broken.db'}}\n"
    ) as units:
        result = await units.run(
            f"return function() {DB}{T} db:execute('CREATE TABLE c (id REFERENCES t (id), must DEFAULT 1 NOT NULL)') return {call} end"
        )
    assert isinstance(result, Failure), result
    assert (result.kind, result.retryable) == (kind, False), result
    assert part in result.message


async def test_vacuum_itself_is_allowed(tmp_path: Path) -> None:
    assert await run(tmp_path, "return db:execute('VACUUM').rows_affected") == 0


async def test_a_released_database_is_of_no_use(tmp_path: Path) -> None:
    got = await run(
        tmp_path,
        "local a, b = db:release(), db:release() local _, err = db:query('SELECT 1') local _, e2 = db:begin() return {a, b, err:kind(), e2:kind(), tostring(db)}",
    )
    assert got == [True, True, "Invalid", "Invalid", "sql.DB{released}"]


async def test_a_result_at_the_limit_is_taken_and_one_more_row_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "ROWS_MAX", 10)
    monkeypatch.setattr(sqlite, "RESULT_BYTES_MAX", 1000)
    series = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT {}) SELECT x FROM c"
    async with databases(tmp_path) as units:
        count = f"return function(q) {DB} local r, err = db:query(q) return r and #r, err end"
        assert await units.run(count, series.format(10)) == 10
        assert "more than 10 rows; add a LIMIT" in (await units.run(count, series.format(11))).message
        assert await units.run(count, "SELECT hex(zeroblob(500)) AS x") == 1
        assert "more than 1000 bytes" in (await units.run(count, "SELECT hex(zeroblob(500)) || 'x' AS x")).message


async def test_a_statement_that_takes_too_long_is_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "STATEMENT_S_MAX", 0.1)
    result = await run(
        tmp_path,
        "return db:query('WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) AS n FROM c')",
    )
    assert (result.kind, result.message) == (Kind.TIMEOUT, "the statement was interrupted: it may take 0.1 s")


async def test_a_transaction_the_database_gave_up_does_not_go_on_by_itself(tmp_path: Path) -> None:
    got = await run(
        tmp_path,
        "local tx = db:begin() tx:execute(\"INSERT INTO t (name) VALUES ('a')\") local _, e1 = tx:execute(\"INSERT OR ROLLBACK INTO t (name) VALUES ('a')\") "
        "local _, e2 = tx:execute(\"INSERT INTO t (name) VALUES ('b')\") local _, e3 = tx:commit() local again = db:begin() ~= nil "
        "return {e1:kind(), e2:kind(), e3:kind(), again, db:query('SELECT count(*) AS n FROM t')[1].n}",
    )
    assert got == ["AlreadyExists", "Conflict", "Conflict", True, 0]


async def test_the_loop_is_not_blocked_by_a_statement(tmp_path: Path) -> None:
    async with databases(tmp_path) as units:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await anyio.sleep(0.005)
                ticks += 1

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(tick)
            series = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 3000000) SELECT count(*) AS n FROM c"
            assert await units.run(f"return function() {DB} return db:query('{series}')[1].n end") == 3_000_000
            tasks.cancel_scope.cancel()
        assert ticks > 3


async def test_the_memory_of_a_database_is_shared_by_all_units_of_the_node(tmp_path: Path) -> None:
    async with databases(tmp_path) as units:
        assert (
            await units.run("return function() return sql.get('mem'):execute('CREATE TABLE a (x)').rows_affected end")
            == 0
        )
        assert await units.run("return function() return sql.get('app:mem'):query('SELECT * FROM a') end") == []
