"""The module `store`: one set of tests for every kind of store, and what is special about each.

Not here: the JetStream helpers beneath (tests/test_jetstream.py).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from mesh.buckets import Bucket
from mesh.connection import connect
from mesh.jetstream import JetStream
from node.modules import Refused, store
from node.modules.memory_store import MemoryStore
from node.modules.store import StoreModule
from node.modules.stores import ALWAYS, KEY_BYTES_MAX, LIST_LIMIT_MAX, TTL_S_MAX
from node.registry import (
    EntryId,
    KvStoreEntry,
    LifecycleSpec,
    MemoryStoreEntry,
    Registry,
    RestartSpec,
    Startup,
    load_registry,
)
from node.registry.decoding import bucket_of
from tests.conftest import ServerFactory
from tests.units import Units, failure_of
from tests.waiting import wait_until, wait_until_async

APP = """
namespace: app
entries:
  - {name: memory, kind: store.memory, max_size: "${env:SIZE|3}", cleanup_interval: 50ms, lifecycle: {auto_start: true}}
  - {name: kv, kind: store.kv}
  - {name: named, kind: store.kv, bucket: carts, replicas: 1}
  - {name: broken, kind: store.memory, max_size: many}
  - {name: other, kind: registry.entry}
"""
LIFECYCLE = LifecycleSpec(False, 10.0, 10.0, 5.0, (), Startup.REQUIRED, RestartSpec(1.0, 90.0, 2.0, 0.1, 0))


def load(directory: Path, text: str = APP, **environ: str) -> Registry:
    (directory / "app.yaml").write_text(text)
    return load_registry(directory, environ=environ)


@asynccontextmanager
async def stores(url: str, directory: Path, **environ: str) -> AsyncIterator[tuple[Units, JetStream, StoreModule]]:
    """The stores of a node, running."""
    async with connect(url, name="stores") as conn, anyio.create_task_group() as tasks:
        js = JetStream(conn)
        module = store.build(load(directory, **environ), js)
        await tasks.start(module.run)
        yield Units({"store": module}), js, module
        tasks.cancel_scope.cancel()


@pytest.fixture(params=["memory", "kv"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


Lua = Callable[..., Awaitable[Any]]
Run = Callable[[str], AbstractAsyncContextManager[Lua]]


@pytest.fixture
def opened(nats_server: ServerFactory, tmp_path: Path) -> Run:
    """Run Lua code with a store of the kind as `s`."""

    @asynccontextmanager
    async def open_store(kind: str) -> AsyncIterator[Lua]:
        async with stores(nats_server().url, tmp_path, SIZE="1000") as (units, _, _):

            async def lua(body: str, *args: Any) -> Any:
                return await units.run(f"return function(...) local s = store.get('{kind}') {body} end", *args)

            yield lua

    return open_store


VALUES: list[Any] = [
    1,
    -5,
    2**62,
    1.5,
    "text",
    "",
    True,
    False,
    [1, 2],
    {"a": {"b": [1, "x"]}},
    b"\xff\x00",
    "ä",
    [[], {"x": 1}],
]


async def test_every_value_is_given_back_as_it_was(kind: str, opened: Run) -> None:
    async with opened(kind) as lua:
        for value in VALUES:
            assert await lua("s:set('k', ...) return s:get('k')", value) == value
        assert await lua("s:set('f', 2.0) return math.type(s:get('f'))") == "float"


async def test_the_methods_in_their_usual_order(kind: str, opened: Run) -> None:
    async with opened(kind) as lua:
        body = """
          local before = { s:has("k"), s:delete("k"), select(2, s:get("k")):kind(), select(2, s:entry("k")):kind() }
          local set = s:set("k", { n = 1 })
          local e = s:entry("k")
          local first, has = e.version, s:has("k")
          s:set("k", { n = 2 })
          local e2 = s:entry("k")
          local after = { s:delete("k"), s:delete("k"), s:has("k") }
          return { before, set, has, e.key, e.value.n, type(first), e2.value.n, first ~= e2.version, after }
        """
        assert await lua(body) == [
            [False, False, "NotFound", "NotFound"], True, True, "k", 1, "string", 2, True, [True, False, False],
        ]  # fmt: skip


async def test_conditional_writes(kind: str, opened: Run) -> None:
    async with opened(kind) as lua:
        body = """
          local first = s:put("k", 1, { only_if_absent = true })
          local _, taken = s:put("k", 2, { only_if_absent = true })
          local second = s:put("k", 2, { if_version = first.version })
          local _, stale = s:put("k", 3, { if_version = first.version })
          local third = s:put("k", 3, { if_version = tonumber(second.version) })
          local _, absent = s:put("none", 1, { if_version = "1" })
          s:delete("k")
          local _, gone = s:put("k", 4, { if_version = third.version })
          local again = s:put("k", 5, { only_if_absent = true })
          local plain = s:put("k", 6)
          return { first.key, first.value, taken:kind(), second.value, stale:kind(), stale:retryable(), third.value, absent:kind(), gone:kind(),
            again.value, plain.value, s:get("k"), first.version ~= second.version, s:entry("k").version == plain.version }
        """
        assert await lua(body) == [
            "k", 1, "AlreadyExists", 2, "Conflict", True, 3, "Conflict", "Conflict", 5, 6, 6, True, True,
        ]  # fmt: skip


async def test_a_key_with_a_time_to_live_goes(kind: str, opened: Run) -> None:
    async with opened(kind) as lua:
        assert await lua(
            "s:set('short', 1, 1) s:set('long', 2, 100) s:set('ever', 3, 0) return {s:get('short'), s:has('short')}"
        ) == [1, True]

        async def is_gone() -> bool:
            return await lua("return s:has('short')") is False

        await wait_until_async(is_gone)
        body = """
          local _, err = s:get("short")
          local keys = {}
          for i, e in ipairs(s:list().items) do keys[i] = e.key end
          local again = s:put("short", 5, { only_if_absent = true, ttl = 100 })
          return { err:kind(), s:delete("none"), keys, again.value, s:get("long"), s:get("ever") }
        """
        assert await lua(body) == ["NotFound", False, ["ever", "long"], 5, 2, 3]


async def test_a_write_without_a_time_to_live_is_for_ever(kind: str, opened: Run) -> None:
    async with opened(kind) as lua:
        await lua("s:set('k', 1, 1) s:set('k', 2) s:set('mark', 1, 1)")

        async def is_gone() -> bool:
            return await lua("return s:has('mark')") is False

        await wait_until_async(is_gone)
        assert await lua("return s:get('k')") == 2


async def test_list_pages_in_the_order_of_keys(kind: str, opened: Run) -> None:
    async with opened(kind) as lua:
        await lua(
            "for i = 1, 25 do s:set(string.format('a:%02d', i), i) end for _, k in ipairs{'b', 'a', 'B', 'a.x', 'ä', '*', 'a=b'} do s:set(k, k) end s:delete('a:03')"
        )
        body = """
          local l, pages, after = {}, 0, nil
          repeat
            local page = s:list{ prefix = ..., limit = 10, after = after }
            for _, e in ipairs(page.items) do l[#l + 1] = e.key end
            pages, after = pages + 1, page.cursor
          until not page.has_more
          return { l, pages }
        """
        assert await lua(body, "a:") == [[f"a:{i:02}" for i in range(1, 26) if i != 3], 3]
        assert await lua(body, "a:0") == [[f"a:0{i}" for i in range(1, 10) if i != 3], 1]
        assert await lua(body, "none") == [[], 1]
        everything = (await lua(body, ""))[0]
        assert everything == sorted(everything)
        assert len(everything) == 31
        assert await lua("local p = s:list{ prefix = 'a:', limit = 24 } return { #p.items, p.has_more, p.cursor }") == [
            24,
            False,
            "a:25",
        ]
        assert await lua("local p = s:list{ prefix = 'a:', limit = 23 } return { #p.items, p.has_more, p.cursor }") == [
            23,
            True,
            "a:24",
        ]
        assert await lua(
            "local p = s:list{ prefix = 'none', after = 'x' } return { #p.items, p.has_more, p.cursor }"
        ) == [0, False, "x"]
        assert await lua(
            "local e = s:list{ prefix = 'b' }.items[1] return { e.key, e.value, e.version == s:entry('b').version }"
        ) == ["b", "b", True]


async def test_list_goes_on_over_more_keys_than_are_read_at_once(kind: str, opened: Run) -> None:
    async with opened(kind) as lua:
        await lua(
            "for i = 1, 250 do s:set(string.format('%03d', i), i) end for i = 1, 120 do s:delete(string.format('%03d', i)) end"
        )
        body = "local p = s:list{ limit = ... } return { #p.items, p.items[1].key, p.items[#p.items].key, p.has_more }"
        assert await lua(body, 130) == [130, "121", "250", False]
        assert await lua(body, 129) == [129, "121", "249", True]
        assert await lua("return #s:list().items") == 100


async def test_a_released_store_answers_nothing_and_can_be_got_again(kind: str, opened: Run) -> None:
    async with opened(kind) as lua:
        body = """
          s:set("k", 1)
          local open, list = tostring(s), {}
          local released = { s:release(), s:release() }
          for _, call in ipairs{ function() return s:get("k") end, function() return s:set("k", 1) end, function() return s:has("k") end,
            function() return s:delete("k") end, function() return s:entry("k") end, function() return s:put("k", 1) end,
            function() return s:list() end, function() return s:info() end } do
            local value, err = call()
            list[#list + 1] = value == nil and err:kind() .. tostring(err:retryable())
          end
          return { open, released, list, tostring(s), type(s), store.get(...):get("k") }
        """
        assert await lua(body, kind) == [
            "store.Store{}", [True, True], ["Invalidfalse"] * 8, "store.Store{released}", "userdata", 1,
        ]  # fmt: skip


async def test_info_says_what_the_store_can_do(kind: str, opened: Run) -> None:
    async with opened(kind) as lua:
        info = await lua(
            "local i = s:info() return { i, i.backend == store.backend[...], i.consistency == store.consistency.LOCAL }",
            kind.upper(),
        )
    assert info[1:] == [True, kind == "memory"]
    assert {name: info[0][name] for name in ("id", "durable", "list", "versioned", "conditional_put", "ttl")} == {
        "id": f"app:{kind}", "durable": kind == "kv", "list": True, "versioned": True, "conditional_put": True, "ttl": True,
    }  # fmt: skip


BAD = [
    ("s:get('')", "Invalid", "the key must not be empty"),
    ("s:set('', 1)", "Invalid", "the key must not be empty"),
    ("s:put('', 1)", "Invalid", "the key must not be empty"),
    ("s:set('k', nil)", "Invalid", "the value is nil"),
    ("s:put('k')", "Invalid", "the value is nil"),
    ("s:set('k', print)", "Invalid", "the value cannot be stored"),
    ("s:get('\\xff')", "Invalid", "the key must be UTF-8 text"),
    ("s:set('k', 1, -1)", "Invalid", "ttl must be 0 to"),
    ("s:set('k', 1, 0/0)", "Invalid", "ttl must be a number of seconds"),
    ("s:set('k', 1, 1/0)", "Invalid", "ttl must be 0 to"),
    (f"s:set('k', 1, {TTL_S_MAX + 1})", "Invalid", "ttl must be 0 to"),
    ("s:put('k', 1, {ttl = '5s'})", "Invalid", "ttl must be a number of seconds"),
    ("s:put('k', 1, {tll = 5})", "Invalid", "unknown option tll; there are ttl, if_version, only_if_absent"),
    ("s:put('k', 1, {1})", "Invalid", "the options must be a table with texts as keys"),
    ("s:put('k', 1, {only_if_absent = 1})", "Invalid", "only_if_absent must be true or false"),
    ("s:put('k', 1, {if_version = 'x'})", "Invalid", "if_version must be the version of an entry"),
    ("s:put('k', 1, {if_version = 0})", "Invalid", "if_version must be the version of an entry"),
    ("s:put('k', 1, {if_version = '1', only_if_absent = true})", "Invalid", "exclude each other"),
    ("s:list{limit = 0}", "Invalid", f"limit must be 1 to {LIST_LIMIT_MAX}"),
    (f"s:list{{limit = {LIST_LIMIT_MAX + 1}}}", "Invalid", f"limit must be 1 to {LIST_LIMIT_MAX}"),
    ("s:list{limit = 1.5}", "Invalid", f"limit must be 1 to {LIST_LIMIT_MAX}"),
    ("s:list{prefix = 1}", "Invalid", "prefix must be UTF-8 text"),
    ("s:list{cursor = 'x'}", "Invalid", "unknown option cursor"),
    ("s:get(5)", "Internal", "bad argument #1 to 'get' (string expected, got number)"),
    ("s:set('k', 1, '5')", "Internal", "bad argument #3 to 'set' (number expected, got string)"),
    ("s:put('k', 1, 5)", "Internal", "bad argument #3 to 'put' (table expected, got number)"),
    ("s:list(5)", "Internal", "bad argument #1 to 'list' (table expected, got number)"),
    ("s.get({}, 'k')", "Internal", "bad argument #1 to 'get' (store.Store expected, got table)"),
]


async def test_what_cannot_be_done_says_why(kind: str, opened: Run) -> None:
    async with opened(kind) as lua:
        for call, error, text in BAD:
            got, message = failure_of(await lua(f"return {call}"))
            assert (got, text in message) == (error, True), (call, message)
        assert await lua("return #s:list().items") == 0


async def test_the_longest_key_fits_and_one_byte_more_is_invalid(kind: str, opened: Run) -> None:
    async with opened(kind) as lua:
        for key in ("k" * KEY_BYTES_MAX, ":" * KEY_BYTES_MAX):
            assert await lua(
                "local k = ... s:set(k, 1) return { s:get(k), s:list().items[1].key == k, s:delete(k) }", key
            ) == [1, True, True]
        assert failure_of(await lua("return s:set(..., 1)", "k" * (KEY_BYTES_MAX + 1))) == (
            "Invalid",
            f"a key may have {KEY_BYTES_MAX} bytes",
        )
        assert await lua(f"return {{s:set('k', 1, {TTL_S_MAX}), s:get('k')}}") == [True, 1]


@pytest.mark.parametrize(
    ("reference", "error", "text"),
    [
        ("", "Invalid", "a store ID is required"),
        ("none", "NotFound", "no entry app:none"),
        ("a:none", "NotFound", "no entry a:none"),
        ("other", "Invalid", "app:other is a registry.entry, not a store"),
        ("broken", "NotFound", "app:broken has a problem of its own; `mesh check` tells it"),
    ],
)
async def test_a_store_that_is_none_is_not_found(
    nats_server: ServerFactory, tmp_path: Path, reference: str, error: str, text: str
) -> None:
    async with stores(nats_server().url, tmp_path) as (units, _, _):
        kind, message = failure_of(await units.run("return function(id) return store.get(id) end", reference))
        assert (kind, text in message) == (error, True), message
        assert failure_of(await units.run("return function() store.get() end"))[1].endswith(
            "(string expected, got nil)"
        )
        assert await units.run("return function() return tostring(store.get('app:memory')) end") == "store.Store{}"


# -- memory ------------------------------------------------------------------------------------------------------


def memory(size: int, now: list[float]) -> MemoryStore:
    return MemoryStore(MemoryStoreEntry(EntryId("a:s"), size, 300.0, LIFECYCLE), clock=lambda: now[0])


async def test_a_full_store_refuses_new_keys_and_takes_the_old_ones(nats_server: ServerFactory, tmp_path: Path) -> None:
    async with stores(nats_server().url, tmp_path, SIZE="3") as (units, _, _):
        body = """
          local s, l = store.get("memory"), {}
          for i = 1, 3 do l[i] = s:set("k" .. i, i) end
          local _, full = s:set("k4", 4)
          local old = s:set("k1", 9)
          s:delete("k2")
          return { l, full:kind(), full:message(), full:retryable(), old, s:set("k4", 4), s:has("k4"), s:info().size }
        """
        assert await units.run(f"return function() {body} end") == [
            [True] * 3, "RateLimited", "store app:memory is full: it has 3 keys (max_size); delete some", True, True, True, True, 3,
        ]  # fmt: skip


async def test_expired_keys_make_room() -> None:
    now = [0.0]
    held = memory(2, now)
    await held.put("a", 1, 5.0, ALWAYS)
    await held.put("b", 1, None, ALWAYS)
    now[0] = 4.999
    assert await held.get("a") is not None
    with pytest.raises(Refused):
        await held.put("c", 1, None, ALWAYS)
    now[0] = 5.0
    assert await held.get("a") is None
    await held.put("c", 1, 1.0, ALWAYS)
    now[0] = 6.0
    assert len(held) == 2
    await held.put("d", 1, None, ALWAYS)
    assert [item.key for item in (await held.list("", "", 10)).items] == ["b", "d"]


async def test_expired_keys_are_dropped_though_nobody_asks_for_them(nats_server: ServerFactory, tmp_path: Path) -> None:
    async with stores(nats_server().url, tmp_path) as (units, _, module):
        await units.run("return function() local s = store.get('memory') s:set('a', 1, 0.01) s:set('b', 1) end")
        held = module._stores["app:memory"]
        assert isinstance(held, MemoryStore)
        await wait_until(lambda: len(held) == 1)


async def test_what_a_unit_has_stored_does_not_change_with_its_table(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    async with stores(nats_server().url, tmp_path) as (units, _, _):
        body = "local s, t = store.get('memory'), {1} s:set('k', t) t[1] = 2 local u = s:get('k') u[1] = 3 return s:get('k')"
        assert await units.run(f"return function() {body} end") == [1]


# -- KV ----------------------------------------------------------------------------------------------------------


async def test_a_bucket_is_shared_by_nodes_and_outlives_them(nats_server: ServerFactory, tmp_path: Path) -> None:
    url = nats_server().url
    async with stores(url, tmp_path) as (first, _, _), stores(url, tmp_path) as (second, _, _):
        assert await first.run("return function() return store.get('named'):put('k', {1}).version end") == "1"
        assert await second.run(
            "return function() local s = store.get('named') return {s:entry('k').version, s:delete('k')} end"
        ) == ["1", True]
        assert await first.run("return function() return store.get('named'):has('k') end") is False
        await first.run("return function() store.get('named'):set('k', 'kept') end")
    async with stores(url, tmp_path) as (third, js, _):
        assert await third.run("return function() return store.get('named'):get('k') end") == "kept"
        assert (await js.stream_info("KV_carts")).config["max_msgs_per_subject"] == 1


async def test_of_many_writers_at_once_one_wins(nats_server: ServerFactory, tmp_path: Path) -> None:
    async with stores(nats_server().url, tmp_path) as (units, _, _):
        outcomes: list[Any] = []

        async def write(number: int) -> None:
            body = "local e, err = store.get('kv'):put('k', ..., { only_if_absent = true }) return e and 'won' or err:kind()"
            outcomes.append(await units.run(f"return function(...) {body} end", number))

        async with anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(write, number)
        assert sorted(outcomes) == ["AlreadyExists"] * 9 + ["won"]


@pytest.mark.parametrize("ttl", ["0.5", "0.999"])
async def test_a_time_to_live_below_what_the_server_takes_is_invalid(opened: Run, ttl: str) -> None:
    async with opened("kv") as lua:
        kind, text = failure_of(await lua(f"return s:set('k', 1, {ttl})"))
        assert (kind, text) == ("Invalid", f"ttl must be at least 1 s in a store.kv, not {ttl} s")
        assert await lua("return {s:has('k'), s:set('k', 1, 1.5), s:get('k')}") == [False, True, 1]


async def test_what_others_put_into_the_bucket_is_read_as_it_is(nats_server: ServerFactory, tmp_path: Path) -> None:
    async with stores(nats_server().url, tmp_path) as (units, js, _):
        await units.run("return function() store.get('named'):set('ours', 1) end")
        await Bucket(js, "carts").put("theirs", b'{"n": 1}')
        await Bucket(js, "carts").put("text", b"plain")
        await Bucket(js, "carts").put("broken", b"\xc1\xc1")
        await Bucket(js, "carts").put("not.ours", b"1")
        body = "local s = store.get('named') local l = {} for i, e in ipairs(s:list().items) do l[i] = e.key end return {l, s:get('theirs'), s:get('text'), s:get('broken')}"
        assert await units.run(f"return function() {body} end") == [
            ["broken", "ours", "text", "theirs"],
            {"n": 1},
            "plain",
            b"\xc1\xc1",
        ]


async def test_somebody_elses_bucket_is_left_alone(nats_server: ServerFactory, tmp_path: Path) -> None:
    async with stores(nats_server().url, tmp_path) as (units, js, _):
        await js.ensure_stream(
            {"name": "KV_carts", "subjects": ["$KV.carts.>"], "max_msgs_per_subject": 5, "storage": "file"}
        )
        kind, text = failure_of(await units.run("return function() return store.get('named'):set('k', 1) end"))
        assert (kind, "there is a bucket of another sort" in text) == ("Invalid", True)
        assert (await js.stream_info("KV_carts")).config["max_msgs_per_subject"] == 5


async def test_a_bucket_that_somebody_deletes_is_made_again(nats_server: ServerFactory, tmp_path: Path) -> None:
    async with stores(nats_server().url, tmp_path) as (units, js, _):
        await units.run("return function() store.get('named'):set('k', 1) end")
        await js.delete_stream("KV_carts")
        body = "local s = store.get('named') return {s:has('k'), s:set('k', 2), s:get('k')}"
        assert await units.run(f"return function() {body} end") == [False, True, 2]


async def test_a_value_the_server_does_not_take_is_invalid(nats_server: ServerFactory, tmp_path: Path) -> None:
    async with stores(nats_server(config="max_payload: 5000").url, tmp_path) as (units, _, _):
        source = "return function(n) return store.get('kv'):set('k', string.rep('x', n)) end"
        assert await units.run(source, 4000) is True
        kind, text = failure_of(await units.run(source, 5000))
        assert (kind, "the value is too large" in text) == ("Invalid", True)


async def test_without_a_server_a_call_fails_and_may_be_tried_again(nats_server: ServerFactory, tmp_path: Path) -> None:
    server = nats_server()
    async with stores(server.url, tmp_path) as (units, js, _):
        await units.run("return function() store.get('kv'):set('k', 1) end")
        server.stop()
        await wait_until(lambda: not js.conn.is_connected)
        body = "local s = store.get('kv') local _, a = s:get('k') local _, b = s:set('k', 2) return {a:kind(), a:retryable(), b:kind(), b:retryable()}"
        assert await units.run(f"return function() {body} end") == ["Unavailable", True, "Unavailable", True]


# -- entries -----------------------------------------------------------------------------------------------------


def test_the_views_of_stores(tmp_path: Path) -> None:
    registry = load(tmp_path, SIZE="7")
    assert registry.stores()[EntryId("app:named")] == KvStoreEntry(EntryId("app:named"), "carts", 1, LIFECYCLE)
    memory_view = registry.stores()[EntryId("app:memory")]
    assert isinstance(memory_view, MemoryStoreEntry)
    assert (memory_view.size_max, memory_view.cleanup_interval_s, memory_view.lifecycle.auto_start) == (7, 0.05, True)
    text = "namespace: a\nentries:\n  - {name: m, kind: store.memory}\n  - {name: zero, kind: store.memory, max_size: 0, cleanup_interval: 0}\n"
    plain = load(tmp_path, text).stores()
    assert [
        (view.size_max, view.cleanup_interval_s) for view in plain.values() if isinstance(view, MemoryStoreEntry)
    ] == [(10000, 300.0)] * 2


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ("store.memory, max_size: -1", "max_size must be at least 0, not -1"),
        ("store.memory, max_sise: 5", "unknown field max_sise; did you mean 'max_size'?"),
        ("store.memory, cleanup_interval: soon", "cleanup_interval must be a duration"),
        ("store.kv, bucket: 'a b'", "bucket must be 1 to 200 letters, digits, _ and -, not 'a b'"),
        ("store.kv, bucket: mesh_roster", "bucket must not begin with mesh_, such buckets are the mesh's own"),
        ("store.kv, replicas: 6", "replicas must be at most 5, not 6"),
        ("store.kv, replicas: 0", "replicas must be at least 1, not 0"),
    ],
)
def test_bad_fields_of_stores_are_problems(tmp_path: Path, fields: str, reason: str) -> None:
    registry = load(tmp_path, f"namespace: a\nentries:\n  - {{name: s, kind: {fields}}}\n")
    assert [reason in str(problem) for problem in registry.problems] == [True], registry.problems
    assert not registry.stores()


def test_two_stores_never_get_the_same_bucket_by_default() -> None:
    ids = ["a:b", "a.b:c", "a_b:c", "a:b_c", "a:b.c", "a:b-c", "a:b/c", "a_3A:b", "a:3Ab"]
    assert len({bucket_of(EntryId(store_id)) for store_id in ids}) == len(ids)
