"""The list of all runs in a SQLite file, to be searched.

Not the truth: everything in it comes from the streams of the queues and can be made from them again. Which event does
what to it is decided in `store.runs`, how a query is answered in `store.search`; the file, with its tables, is
`store.projection_file`, and following the streams is `store.projecting`.

    runs       one row per run; everything that is searched on it is in each of its indexes (see `store.search`)
    attrs      (name, value, row): search attributes and memo; the elements of a list one by one
    names      attributes and notes, numbered: attrs.customer, memo.comment
    types      workflow types, numbered
    queues     queues, numbered; how far each one's stream was taken in, and which stream that was
    commons    values of attributes that very many runs have, each a bit of `runs.common`
    sums       how many runs there are of each queue, type and status, of those that are the newest of their id or not

Invariants:
  * rows and the place in the stream that they are of are written in one transaction;
  * one process at a time has a file (a lock file beside it), and one thread at a time calls its writing methods;
    `page` and `counts` are for another thread.
"""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final, NamedTuple

from mesh import codec
from mesh.events import Event
from mesh.instants import iso
from mesh.listing import STATUSES, Count, ListPage, ListQuery
from mesh.subjects import untoken
from store.filters import parse_filter
from store.projection_file import ProjectionDamaged, ProjectionFile, lock_file, put_aside
from store.runs import NOT_ENDED, Run, json_of, searched, take_in, text_of
from store.search import PRESENT, Place, Search, Sql, read_cursor, stored, write_cursor
from store.words import Words

# A memo is for reading; one that is longer is not shown in lists, `mesh show` has it.
VALUES_CHARACTERS_MAX: Final = 16 * 1024
# A page is a message, and a server takes 1 MB by default.
PAGE_BYTES_MAX: Final = 400_000
QUERY_S_MAX: Final = 10.0
# Ids in one SQL statement; SQLite takes 32,766 parameters.
_CHUNK: Final = 1000
COMMON_RUNS_MIN: Final = 2000
COMMON_SHARE_MIN: Final = 0.04
_WATCHED_VALUES_MAX: Final = 20_000
_STATUS_CODES: Final = {status: code for code, status in enumerate(STATUSES)}
_RUNNING, _SUSPENDED = _STATUS_CODES["running"], _STATUS_CODES["suspended"]

_log = logging.getLogger(__name__)


class Position(NamedTuple):
    """How far a queue's stream was taken in. created: when that stream was made, as its server says."""

    seq: int = 0
    created: str = ""
    at_ns: int = 0


class _Found(NamedTuple):
    record: Mapping[str, Any]
    payload_bytes: int
    place: Place


class SuspendedRun(NamedTuple):
    """A run whose owner says that it is suspended."""

    queue: str
    id: str
    run: int


class Projection:
    """All runs, in a file or (path None) in memory. Made by `open_projection`."""

    def __init__(self, file: ProjectionFile) -> None:
        self._file = file
        self._writer = file.writer
        self._reader = file.reader
        with file.reading():
            self._words = Words(self._writer.conn)
            self._n = int(self._one("SELECT coalesce(max(n), 0) FROM runs"))
            self._runs = int(self._one("SELECT count(*) FROM runs INDEXED BY runs_started"))
        self._watched: Counter[tuple[int, Any]] = Counter()

    def close(self) -> None:
        """Close the file and let others have it."""
        self._file.close()

    # -- writing -----------------------------------------------------------------------------------------------------

    def positions(self) -> dict[str, Position]:
        """How far each queue was taken in."""
        with self._file.reading():
            rows = self._writer.execute("SELECT name, seq, created, at_ns FROM queues").fetchall()
        return {name: Position(seq, created, at_ns) for name, seq, created, at_ns in rows}

    def begin(self, queue: str, created: str) -> int:
        """Get ready for a queue's stream; return the sequence after which to go on: 0 when it is another stream."""
        with self._transaction():
            position = self._position(queue)
            if position.created != created:
                if position.seq:
                    _log.warning("the stream of queue %s was made anew: its workflows are listed anew", queue)
                self._forget(queue, created)
                return 0
            return position.seq

    def start_over(self, queue: str, created: str) -> None:
        """Forget what is known of a queue: its stream has lost what was taken in."""
        with self._transaction():
            self._forget(queue, created)

    def take_in(self, queue: str, events: Sequence[Event], seq: int, at_ns: int) -> None:
        """Apply the next events of a queue's stream, up to sequence `seq`."""
        with self._transaction():
            code = self._words.queue(queue)
            newest = self._newest(code, {event.id_token: _id_of(event) for event in events})
            older: dict[tuple[str, int], Run | None] = {}
            touched: dict[int, Run] = {}
            before: dict[int, tuple[int, int, int]] = {}
            for event in events:
                known = newest.get(event.id_token)
                if known is not None and event.kind == "attrs" and event.run < known.run:
                    # Written by the owner of a run that has ended meanwhile, after the start of the next.
                    place = event.id_token, event.run
                    if place not in older:
                        older[place] = self._older(code, known.id, event.run)
                    known = older[place]
                if known is not None and known.n:
                    before.setdefault(known.n, self._kind(known))
                run = take_in(known, event)
                if run is None:
                    continue
                if known is not None and known is not run:
                    touched[id(known)] = older[event.id_token, known.run] = known
                touched[id(run)] = run
                if run.newest:
                    newest[event.id_token] = run
            self._write(code, list(touched.values()), before)
            self._writer.execute("UPDATE queues SET seq = ?, at_ns = ? WHERE queue = ?", (seq, at_ns, code))
        self._share_bits()

    def suspend(self, suspended: Iterable[SuspendedRun]) -> None:
        """Say which runs are suspended; all others that are open run."""
        with self._transaction():
            wanted: set[int] = set()
            for queue, workflow_id, run in suspended:
                row = self._writer.execute(
                    "SELECT n FROM runs WHERE id = ? AND run = ? AND queue = ? AND ended < 0",
                    (workflow_id, run, self._words.queues.get(queue)),
                ).fetchone()
                if row is not None:
                    wanted.add(row[0])
            sql = "SELECT n FROM runs INDEXED BY runs_open WHERE status <= 1 AND status = ?"
            present = {n for (n,) in self._writer.execute(sql, (_SUSPENDED,))}
            for rows, was, now in ((wanted - present, _RUNNING, _SUSPENDED), (present - wanted, _SUSPENDED, _RUNNING)):
                for n in rows:
                    queue_code, type_code, newest = self._writer.execute(
                        "SELECT queue, type, newest FROM runs WHERE n = ?", (n,)
                    ).fetchone()
                    self._writer.execute("UPDATE runs SET status = ? WHERE n = ?", (now, n))
                    self._add_up({(queue_code, type_code, was, newest): -1, (queue_code, type_code, now, newest): 1})

    def remove(self, queue: str, workflow_id: str, before: int | None) -> int:
        """Forget runs of a workflow whose events are no longer in the stream; return how many that were.

        before: those that began before this sequence; None = all.
        """
        sql = "SELECT n FROM runs INDEXED BY runs_id WHERE id = ? AND queue = ? AND run < ?"
        params = (workflow_id, self._words.queues.get(queue), 2**63 - 1 if before is None else before)
        with self._transaction():
            return self._remove(sql, params)

    def remove_before(self, queue: str, seq: int) -> int:
        """Forget runs that began before a stream's first message; return how many."""
        sql = "SELECT n FROM runs INDEXED BY runs_started WHERE queue = ? AND run < ?"
        with self._transaction():
            return self._remove(sql, (self._words.queues.get(queue), seq))

    def drop_queue(self, queue: str) -> None:
        """Forget a queue that is no longer there."""
        with self._transaction():
            self._forget(queue, "")
            self._writer.execute("DELETE FROM queues WHERE name = ?", (queue,))
            self._words.queues.pop(queue, None)

    def some_ids(self, queue: str, after_n: int, count: int) -> list[tuple[int, str, int]]:
        """Row, id and run of the next workflows of a queue that have ended, in the order they were taken in."""
        sql = "SELECT n, id, run FROM runs WHERE n > ? AND queue = ? AND newest = 1 AND ended >= 0 ORDER BY n LIMIT ?"
        with self._file.reading():
            code = self._words.queues.get(queue)
            return [(n, id_, run) for n, id_, run in self._reader.execute(sql, (after_n, code, count))]

    # -- reading -----------------------------------------------------------------------------------------------------

    def page(self, query: ListQuery, now_ns: int) -> ListPage:
        """The workflows that fit. Raises BadQuery (FilterError for a where-text), QueryTooSlow, ProjectionDamaged."""
        query.checked()
        after = read_cursor(query)
        search = Search(query, parse_filter(query.where, now_ns), self._words, after, query.by)
        with self._file.reading(QUERY_S_MAX):
            sql = search.select(self._read_rows)
            rows = [n for (n,) in self._reader.execute(sql.text, sql.params)]
            found = self._records(rows[: query.limit], query.by[0])
        shown: list[_Found] = []
        taken = 0
        for one in found:
            taken += one.payload_bytes
            if shown and taken > PAGE_BYTES_MAX:
                break
            shown.append(one)
        more = len(rows) > query.limit or len(found) > len(shown)
        following = write_cursor(query, shown[-1].place) if more and shown else ""
        return ListPage(tuple(one.record for one in shown), following)

    def plan(self, query: ListQuery, now_ns: int) -> tuple[Sql, list[str]]:
        """How a query is answered: the SQL and SQLite's words for what it does."""
        search = Search(query, parse_filter(query.where, now_ns), self._words, read_cursor(query), query.by)
        with self._file.reading():
            sql = search.select(self._read_rows)
            plan = self._reader.execute(f"EXPLAIN QUERY PLAN {sql.text}", sql.params).fetchall()
        return sql, [str(row[3]) for row in plan]

    def counts(self, *, all_runs: bool = False) -> tuple[Count, ...]:
        """How many workflows there are of each status, type and queue; by default the newest run of each id."""
        sql = (
            "SELECT s.status, t.text, q.name, sum(s.runs) FROM sums s JOIN types t USING (type) "
            "JOIN queues q USING (queue) WHERE s.newest >= ? GROUP BY 1, 2, 3 HAVING sum(s.runs) > 0"
        )
        with self._file.reading():
            rows = self._reader.execute(sql, (0 if all_runs else 1,)).fetchall()
        return tuple(Count(STATUSES[status], type_, queue, runs) for status, type_, queue, runs in rows)

    def open_runs(self) -> dict[str, int]:
        """How many workflows of each queue have not ended."""
        sql = (
            "SELECT q.name, coalesce(sum(s.runs), 0) FROM queues q LEFT JOIN sums s "
            "ON s.queue = q.queue AND s.newest = 1 AND s.status <= 1 GROUP BY q.queue"
        )
        with self._file.reading():
            return dict(self._reader.execute(sql).fetchall())

    # -- rows --------------------------------------------------------------------------------------------------------

    def _write(self, queue: int, runs: list[Run], before: Mapping[int, tuple[int, int, int]]) -> None:
        sums: Counter[tuple[int, int, int, int]] = Counter()
        added: list[tuple[Any, ...]] = []
        updated: list[tuple[Any, ...]] = []
        revalued: list[tuple[int]] = []
        values: list[tuple[int, Any, int]] = []
        for run in runs:
            kind = self._kind(run)
            if run.n:
                sums[queue, *before[run.n]] -= 1
            sums[queue, *kind] += 1
            if run.revalued:
                if run.n:
                    revalued.append((run.n,))
                is_new, run.n = not run.n, run.n or self._next_n()
                common = self._collect(run, values)
            else:
                is_new, common = False, None
            duration = run.ended_ns - run.started_ns if not run.is_open else NOT_ENDED
            type_code, status, newest = kind
            if is_new:
                added.append((
                    run.n, queue, run.id, run.run, type_code, status, newest, run.started_ns, run.ended_ns, duration,
                    run.attempt, common, run.parent, _json(run.attrs), _json(run.memo), run.imported,
                ))  # fmt: skip
            elif common is None:
                updated.append((status, newest, run.ended_ns, duration, run.n))
            else:
                updated.append((status, newest, run.ended_ns, duration, run.n))
                self._writer.execute(
                    "UPDATE runs SET common = ?, attrs = ?, memo = ? WHERE n = ?",
                    (common, _json(run.attrs), _json(run.memo), run.n),
                )
            run.changed = run.revalued = False
        conn = self._writer.conn
        conn.executemany(f"INSERT INTO runs VALUES ({', '.join('?' * 16)})", added)  # noqa: S608
        conn.executemany("UPDATE runs SET status = ?, newest = ?, ended = ?, duration = ? WHERE n = ?", updated)
        conn.executemany("DELETE FROM attrs WHERE n = ?", revalued)
        values.sort(key=_by_index)
        conn.executemany("INSERT OR IGNORE INTO attrs VALUES (?, ?, ?)", values)
        self._runs += len(added)
        self._add_up(sums)

    def _next_n(self) -> int:
        self._n += 1
        return self._n

    def _collect(self, run: Run, values: list[tuple[int, Any, int]]) -> int:
        """Add the values that a run is found by to those that will be written; return its bits."""
        common = 0
        for prefix, of in (("attrs.", run.attrs), ("memo.", run.memo)):
            for name in (name for name, value in of.items() if isinstance(value, list) and len(value) > 1):
                self._words.note_list(prefix + text_of(str(name)))
            names: set[int] = set()
            for name, value in searched(of):
                code, kept = self._words.name_code(prefix + name), stored(value)
                values.append((code, kept, run.n))
                common |= self._bit(code, kept)
                names.add(code)
            for code in names:
                common |= self._bit(code, PRESENT)
        return common

    def _bit(self, name: int, value: object) -> int:
        """The bit of a value, 0 when it has none; then it is counted."""
        bit = self._words.common(name, value)
        if not bit:
            self._watched[name, value] += 1
        return bit

    def _kind(self, run: Run) -> tuple[int, int, int]:
        return self._words.type(run.type), _STATUS_CODES[run.status], int(run.newest)

    def _newest(self, queue: int, ids: Mapping[str, str]) -> dict[str, Run]:
        """The newest runs of these ids, by id token."""
        found: dict[str, Run] = {}
        for chunk in _chunks(list(set(ids.values()))):
            which = f"id IN ({', '.join('?' * len(chunk))}) AND queue = ? AND newest = 1"
            found |= {run.id: run for run in self._runs_where(which, (*chunk, queue))}
        return {token: found[id_] for token, id_ in ids.items() if id_ in found}

    def _older(self, queue: int, workflow_id: str, run: int) -> Run | None:
        """A run that is not the newest of its id; None when it is not known."""
        which = "id = ? AND run = ? AND queue = ? AND newest = 0"
        return next(self._runs_where(which, (workflow_id, run, queue)), None)

    def _runs_where(self, which: str, params: Sequence[Any]) -> Iterator[Run]:
        sql = (
            "SELECT n, id, run, type, status, newest, started, ended, attempt, parent, attrs, memo, imported FROM runs "  # noqa: S608
            f"INDEXED BY runs_id WHERE {which}"
        )
        for row in self._writer.execute(sql, params):
            n, id_, run, type_, status, newest, started, ended, attempt, parent, attrs, memo, imported = row
            yield Run(
                id_, run, self._words.type_text(type_), started, STATUSES[status], ended, attempt, parent,
                _values(memo), _values(attrs), newest=bool(newest), imported=bool(imported), n=n,
                changed=False, revalued=False,
            )  # fmt: skip

    def _remove(self, sql: str, params: Sequence[Any]) -> int:
        """Delete the rows that a SELECT gives."""
        conn = self._writer.conn
        rows = [n for (n,) in conn.execute(sql, params)]
        for chunk in _chunks(rows):
            marks = ", ".join("?" * len(chunk))
            kinds = conn.execute(f"SELECT queue, type, status, newest FROM runs WHERE n IN ({marks})", chunk)  # noqa: S608
            self._add_up({kind: -count for kind, count in Counter(kinds.fetchall()).items()})
            for table in ("attrs", "runs"):
                conn.execute(f"DELETE FROM {table} WHERE n IN ({marks})", chunk)  # noqa: S608
        self._runs -= len(rows)
        return len(rows)

    def _forget(self, queue: str, created: str) -> None:
        code = self._words.queue(queue)
        self._remove("SELECT n FROM runs WHERE queue = ?", (code,))
        self._writer.execute("DELETE FROM sums WHERE queue = ?", (code,))
        self._writer.execute("UPDATE queues SET seq = 0, at_ns = 0, created = ? WHERE queue = ?", (created, code))

    def _add_up(self, sums: Mapping[tuple[int, int, int, int], int]) -> None:
        self._writer.conn.executemany(
            "INSERT INTO sums VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET runs = runs + excluded.runs",
            [(*kind, count) for kind, count in sums.items() if count],
        )

    def _share_bits(self) -> None:
        """Give values that very many runs have a bit of their own, and that bit to the runs that have them."""
        if len(self._watched) > _WATCHED_VALUES_MAX:
            self._watched = Counter(dict(self._watched.most_common(_WATCHED_VALUES_MAX // 2)))
        least = max(COMMON_RUNS_MIN, int(self._runs * COMMON_SHARE_MIN))
        often = [key for key, count in self._watched.items() if count >= least]
        for name, value in often:
            del self._watched[name, value]
            bit = self._words.free_bit()
            if bit is None:
                return
            with self._transaction():
                self._writer.execute("INSERT INTO commons VALUES (?, ?, ?)", (bit, name, value))
                having = "name = ?" if value is PRESENT else "name = ? AND value = ?"
                self._writer.execute(
                    f"UPDATE runs SET common = common | ? WHERE n IN (SELECT n FROM attrs WHERE {having})",  # noqa: S608
                    (1 << bit, name) if value is PRESENT else (1 << bit, name, value),
                )
            # Only now: a reader that asked for the bit before would miss runs.
            self._words.add_common(bit, name, value)

    def _records(self, rows: list[int], ordered_by: str) -> list[_Found]:
        found: dict[int, _Found] = {}
        for chunk in _chunks(rows):
            sql = (
                "SELECT n, id, q.name, run, t.text, status, started, ended, parent, attempt, memo, attrs "  # noqa: S608
                "FROM runs r JOIN queues q USING (queue) JOIN types t USING (type) "
                f"WHERE n IN ({', '.join('?' * len(chunk))})"
            )
            for n, id_, queue, run, type_, status, started, ended, parent, attempt, memo, attrs in self._reader.execute(
                sql, chunk
            ):
                duration = ended - started if ended >= 0 else NOT_ENDED
                key = {"started": started, "ended": ended, "duration": duration, "id": id_}[ordered_by]
                record = {
                    "id": id_, "queue": queue, "run": run, "type": type_, "status": STATUSES[status],
                    "started": iso(started), "ended": iso(ended) if ended >= 0 else None,
                    "duration_s": round(duration / 1e9, 6) if ended >= 0 else None,
                    "parent": parent, "attempt": attempt, "memo": json.loads(memo), "attrs": json.loads(attrs),
                }  # fmt: skip
                found[n] = _Found(record, len(codec.to_json(record).encode()), Place(key, run, queue))
        # What was deleted between the two looks is left out.
        return [found[n] for n in rows if n in found]

    def _read_rows(self, sql: Sql, limit: int) -> list[int]:
        return [n for (n,) in self._reader.execute(f"{sql.text} LIMIT ?", (*sql.params, limit))]

    def _position(self, queue: str) -> Position:
        code = self._words.queue(queue)
        row = self._writer.execute("SELECT seq, created, at_ns FROM queues WHERE queue = ?", (code,)).fetchone()
        return Position(*row)

    def _transaction(self) -> AbstractContextManager[None]:
        # What is not written is no word either.
        return self._file.transaction(self._words.read)

    def _one(self, sql: str) -> Any:
        row = self._writer.execute(sql).fetchone()
        return row[0] if row is not None else None


def open_projection(path: Path | None) -> Projection:
    """Open a projection, or make one. One that is damaged or of another version is put aside, and a new one made.

    Raises ProjectionInUse, OSError.
    """
    if path is None:
        return Projection(ProjectionFile(None))
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = lock_file(path)
    try:
        try:
            return Projection(ProjectionFile(path, lock))
        except ProjectionDamaged as error:
            aside = put_aside(path)
            _log.warning("%s; it is kept as %s and a new one is made from the streams", error, aside)
            return Projection(ProjectionFile(path, lock))
    except BaseException:
        os.close(lock)
        raise


def _id_of(event: Event) -> str:
    return text_of(untoken(event.id_token))


def _chunks(items: list[Any]) -> Iterator[list[Any]]:
    for at in range(0, len(items), _CHUNK):
        yield items[at : at + _CHUNK]


def _json(values: Mapping[str, Any]) -> str:
    if not values:
        return "{}"
    text = json_of(values)
    return text if len(text) <= VALUES_CHARACTERS_MAX else "null"


def _values(text: str) -> Mapping[str, Any]:
    values = json.loads(text)
    return values if isinstance(values, dict) else {}


def _by_index(row: tuple[int, Any, int]) -> tuple[int, str, Any, int]:
    """The order of the table `attrs`, as far as types do not mix: what is written next to each other is quicker."""
    name, value, n = row
    return name, "" if isinstance(value, (int, float)) else type(value).__name__, value, n
