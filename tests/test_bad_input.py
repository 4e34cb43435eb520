"""Bad input of every sort: each gives a clear error, and nothing is lost or wedged by it."""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mesh.client import connect as connect_client
from mesh.codec import encode
from mesh.connection import ConnectOptions
from mesh.errors import InvalidName, MeshError, PayloadTooLarge
from mesh.subjects import node_request
from node.workflows.ops import fingerprint
from tests.apps import TIMEOUT_S, Mesh, a_mesh, key, write_app, write_files
from tests.cluster import a_node
from tests.conftest import ServerFactory
from tests.waiting import wait_until, wait_until_async

PYTHON: dict[str, Any] = {"kind": "function.python"}
BROKEN = b"\xc1\xff\xff"  # says that it is one of our payloads and is none
JUNK = (BROKEN, b"\x00\xff\xfe", b"", b'{"broken":', b"\xc1\x93\x01\x02\x03", "grüße".encode())

# Takes messages until one says "stop"; what it got is its result.
COLLECTOR = """
return function()
  local got = {}
  while true do
    local m = process.inbox():receive()
    if m:topic() == "stop" then return got end
    got[#got + 1] = {m:topic(), m:payload():data()}
  end
end
"""


async def publish(mesh: Mesh, subject: str, data: bytes = b"") -> int:
    """Store anything at all on a subject, as `nats pub` would."""
    return (await mesh.client.js.publish(subject, data)).seq


async def goes_on(mesh: Mesh, workflow_id: str, expected: Any) -> None:
    """Stop a collector and compare what it got."""
    await mesh.get(workflow_id).signal("stop", 0)
    assert await mesh.get(workflow_id).result(timeout_s=TIMEOUT_S) == expected


# -- bytes --------------------------------------------------------------------------------------------------------


async def test_junk_on_the_subjects_of_a_workflow_is_ignored_live_and_in_replay(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    app = write_app(tmp_path, workflows={"collector": COLLECTOR})
    url = nats_server().url
    async with a_mesh(url, app, partitions=1) as mesh:
        run = (await mesh.start("collector", id="one")).run
        subject = key("one").subject
        for data in JUNK:
            for kind in (
                ("start",), ("monitor",), ("tick", str(run), "nothing"), ("tick", str(run), "delay"), ("mark", str(run), "x"),
                ("mark", str(run), "version%3A%ff"), ("claim", str(run), "1", "1"), ("end", "7"), ("end", "0"),
                ("tick", str(run), "timeout"), ("tick", str(run), "retry-x"), ("tick", str(run), "retry-9"),
                # another run
                ("ret", "999", "1", "1", "0123456789"), ("exit", "999", "1"), ("tick", "999", "1"),
                # unknown kinds, wrong numbers of tokens, no numbers where numbers belong
                ("retort",), ("end",), ("end", str(run), "x"), ("end", "x"), ("start", "x"), ("signal",), ("cancel", "x"),
                ("kill", "x"), ("monitor", "x"), ("mark", str(run)), ("tick", str(run)), ("tick", "x", "1"), ("exit", str(run)),
                ("exit", str(run), "x"), ("ret", str(run), "1", "1"), ("ret", str(run), "x", "1", "f"),
                ("ret", str(run), "1", "x", "f"), ("ret", str(run), "1", "1", "f", "x", "x"), ("claim", str(run), "x", "1"),
                ("ret", str(run), "²", "1", "f"), ("mark", str(run), "%"), ("%",), ("start%",),
            ):  # fmt: skip
                await publish(mesh, subject(*kind), data)
            await publish(mesh, "mesh.wf.orders.one", data)
            await publish(mesh, "mesh.wf.orders.%6fne.signal.x", data)  # not how we write that id
            await publish(mesh, "mesh.wf.orders.%.start", data)
            await publish(mesh, "mesh.wf.orders.%.signal.x", data)
        await mesh.get("one").signal("a", 1)
        assert (await mesh.get("one").describe()).status == "running"
        assert await mesh.run("collector", id="two", messages=[("stop", 0)]) == []
    async with a_mesh(url, app, node_id="b") as mesh:
        await mesh.get("one").signal("a", 2)
        await goes_on(mesh, "one", [["a", 1], ["a", 2]])
        assert await mesh.run("collector", id="three", messages=[("stop", 0)]) == []


async def test_signals_of_any_bytes_arrive(nats_server: ServerFactory, tmp_path: Path) -> None:
    app = write_app(tmp_path, workflows={"collector": COLLECTOR})
    url = nats_server().url
    bodies: list[tuple[bytes, Any]] = [
        (b'{"approved": true', '{"approved": true'), (b'{"approved": true}', {"approved": True}), (b"NaN", "NaN"),
        (b"just text", "just text"), (b"\x00\xff\xfe", b"\x00\xff\xfe"), (BROKEN, BROKEN), (b"[" * 300, "[" * 300),
        (b"123456789012345678901234567890", 1.2345678901234568e29), ("ü".encode(), "ü"), (b"\xc1", b"\xc1"),
    ]  # fmt: skip
    async with a_mesh(url, app) as mesh:
        await mesh.start("collector", id="one")
        for data, _ in bodies:
            await publish(mesh, key("one").signal("x"), data)
        await publish(mesh, "mesh.wf.orders.one.signal.a.b", b"1")
    async with a_mesh(url, app, node_id="b") as mesh:
        await goes_on(mesh, "one", [*(["x", value] for _, value in bodies), ["a.b", 1]])


released = threading.Event()


def slow() -> str:
    """A function that takes until it is released."""
    released.wait(30)
    return "done"


@pytest.mark.parametrize("data", JUNK[:2])
async def test_an_outcome_nobody_can_read_is_a_failed_attempt(
    nats_server: ServerFactory, tmp_path: Path, data: bytes
) -> None:
    """A stranger answers a call that is under way: with bytes that are no payload of ours, or with some that claim to be."""
    source = """
    return function()
      local call = funcs.new():with_options{retry_policy = {initial_interval = 10}}
      local first, err = call:call("app:slow")
      return {first, tostring(err)}
    end
    """
    app = write_app(
        tmp_path,
        workflows={"wf": source},
        functions={"slow": PYTHON | {"source": "tests.test_bad_input:slow"}},
    )
    released.clear()
    async with a_mesh(nats_server().url, app) as mesh:
        handle = await mesh.start("wf", id="one")
        await wait_until(lambda: mesh.node.functions is not None and mesh.node.functions.running == 1)
        described = (await handle.describe()).detail["waiting"][0]
        fp = fingerprint(described["kind"], described["target"])
        await publish(mesh, key("one").ret(handle.run, 1, 1, fp), data)
        released.set()
        result = await handle.result(timeout_s=TIMEOUT_S)
        # What does not claim to be ours is the answer of a foreign service: its bytes are the value.
        assert result == (["done", "nil"] if data == BROKEN else [data, "nil"])


async def test_the_result_of_a_child_that_nobody_can_read_is_an_error(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    parent = """
    return function()
      process.with_options{id = "child"}:spawn("app:collector", "app:worker")
      local e = process.events():receive()
      return {e.result.error:kind(), e.result.error:message()}
    end
    """
    app = write_app(tmp_path, workflows={"parent": parent, "collector": COLLECTOR})
    async with a_mesh(nats_server().url, app) as mesh:
        handle = await mesh.start("parent", id="one")
        await wait_until_async(lambda: has_events(mesh, "one", 2))
        await publish(mesh, key("one").exit(handle.run, 1), BROKEN)
        kind, message = await handle.result(timeout_s=TIMEOUT_S)
        assert kind == "Internal"
        assert message.startswith("undecodable outcome: malformed msgpack")


async def has_events(mesh: Mesh, workflow_id: str, number: int) -> bool:
    return len(await mesh.kinds(workflow_id)) >= number


async def test_a_start_nobody_can_read_is_a_failed_run_and_the_id_stays_usable(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    app = write_app(tmp_path, workflows={"collector": COLLECTOR})
    starts = (
        (BROKEN, "malformed msgpack"),
        (b'{"workflow": "app:collector"}', "a start needs the workflow's name in the header Mesh-Workflow"),
        (encode({"workflow": 7}), "a start is a map with the workflow's name"),
        (encode({"workflow": "app:collector", "args": b"\xc1"}), "the start's arguments"),
        (encode({"workflow": "app:collector", "context": 3}), "the start's field context is a int"),
        (encode({"workflow": "app:collector", "messages": [1]}), "a startup message is a map"),
        (encode({"workflow": "app:collector", "parent": [1]}), "the start's field parent"),
    )
    async with a_mesh(nats_server().url, app) as mesh:
        for data, reason in starts:
            await publish(mesh, key("one").start(), data)
            error = await mesh.failed(mesh.get("one"))
            assert (error.status, error.failure.kind) == ("failed", "Invalid")
            assert error.failure.message.startswith("the start of workflow 'one' cannot be read: ")
            assert reason in error.failure.message
        assert await mesh.run("collector", id="one", messages=[("a", 1), ("stop", 0)]) == [["a", 1]]


async def test_an_end_written_by_somebody_else_is_a_failure_that_says_so(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    app = write_app(tmp_path, workflows={"collector": COLLECTOR})
    async with a_mesh(nats_server().url, app) as mesh:
        for data in (BROKEN, b"done", b"\x00\xff", encode({"status": "completed", "outcome": BROKEN})):
            handle = await mesh.start("collector", id="one")
            await publish(mesh, key("one").end(handle.run), data)
            error = await mesh.failed(handle)
            assert "was written by somebody else" in error.failure.message or "undecodable" in error.failure.message
        await wait_until(lambda: mesh.statistics()["resident"] == 0)
        assert await mesh.run("collector", id="one", messages=[("stop", 0)]) == []


async def test_cancel_and_kill_with_junk_in_them_are_cancel_and_kill(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    waiter = "return function() local e = process.events():receive() return {e.kind, e.from} end"
    app = write_app(tmp_path, workflows={"waiter": waiter})
    async with a_mesh(nats_server().url, app) as mesh:
        for data in JUNK:
            handle = await mesh.start("waiter", id="one")
            await publish(mesh, key("one").subject("cancel"), data)
            assert await handle.result(timeout_s=TIMEOUT_S) == ["pid.cancel", "{|topology}"]
            handle = await mesh.start("waiter", id="one")
            await publish(mesh, key("one").subject("kill"), data)
            assert (await mesh.failed(handle)).status == "terminated"


async def test_a_recorded_version_that_is_none_is_an_error_of_the_code(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    """Somebody has written the mark of a decision that the code has not taken yet."""
    source = """
    return function()
      process.inbox():receive()
      local version, err = workflow.version("change", 1, 2)
      funcs.call("app:echo", 1)
      process.inbox():receive()
      return {version or "none", err and err:kind() or "none", err and err:message() or "none"}
    end
    """
    app = write_app(tmp_path, workflows={"wf": source}, functions={"echo": "return function(v) return v end"})
    marks = {"2^60": encode(2**60), "broken": BROKEN, "bytes": b"\x00\xff", "text": encode("text"), "nil": encode(None),
             "json": b"[1,2]"}  # fmt: skip
    async with a_mesh(nats_server().url, app) as mesh:
        for name, data in marks.items():
            handle = await mesh.start("wf", id=name)
            await publish(mesh, key(name).mark(handle.run, "version:change"), data)
            await handle.signal("go", 1)
            await handle.signal("go", 2)
            version, kind, message = await handle.result(timeout_s=TIMEOUT_S)
            assert (version, kind) == ("none", "Invalid"), name
            beyond = "version 1152921504606846976, the code supports 1 to 2"
            assert (
                message
                == f"change change is recorded as {beyond if name == '2^60' else 'something that is no version'}"
            )
        good = await mesh.start("wf", id="good")
        await publish(mesh, key("good").mark(good.run, "version:change"), encode(1))
        await good.signal("go", 1)
        await good.signal("go", 2)
        assert await good.result(timeout_s=TIMEOUT_S) == [1, "none", "none"]


# -- values -------------------------------------------------------------------------------------------------------

VALUES = """
local cycle = {1}
cycle[2] = cycle
local deep = {}
for _ = 1, 200 do deep = {deep} end
local values = {
  cycle = cycle, deep = deep, nan = 0/0, inf = 1/0, fn = {f = print, n = 1}, ch = channel.new(), mixed = {1, 2, x = 3},
  bytes = "\\0\\255", [1] = "one",
}
return function(name, how)
  local value = values[name]
  if how == "return" then return value end
  if how == "call" then
    local v, err = funcs.call("app:echo", value)
    return {v or false, err and err:kind() or "none", err and err:message() or "none"}
  end
  if how == "send" then
    local v, err = process.send(process.pid(), "me", value)
    return {v or false, err and err:kind() or "none", err and err:message() or "none"}
  end
  if how == "spawn" then
    local v, err = process.exec("app:values", "app:worker", value)
    return {v or false, err and err:kind() or "none", err and err:message() or "none"}
  end
end
"""


async def test_values_that_cannot_be_sent_are_an_error_where_they_are_sent(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    app = write_app(tmp_path, workflows={"values": VALUES}, functions={"echo": "return function(v) return v end"})
    async with a_mesh(nats_server().url, app) as mesh:
        for name, reason in (("cycle", "cyclic"), ("deep", "deep")):
            for how in ("call", "send", "spawn"):
                answer = await mesh.run("values", name, how)
                assert answer[-2:-1] == ["Invalid"], (name, how, answer)
                assert reason in answer[-1], (name, how, answer)
            failure = await mesh.failure("values", name, "return")
            assert (failure.kind, failure.retryable) == ("Internal", False)
            assert failure.message.startswith("the result cannot be sent: ")
            assert reason in failure.message
        assert math.isnan(await mesh.run("values", "nan", "return"))
        assert math.isnan((await mesh.run("values", "nan", "call"))[0])
        assert await mesh.run("values", "inf", "return") == math.inf
        assert await mesh.run("values", "bytes", "call") == [b"\x00\xff", "none", "none"]
        assert await mesh.run("values", "mixed", "return") == {1: 1, 2: 2, "x": 3}
        assert await mesh.run("values", "fn", "return") == {"n": 1}
        assert await mesh.run("values", "ch", "return") is None


def strange(what: str) -> Any:
    """Results of a function in Python that nobody can send."""
    cycle: list[Any] = []
    cycle.append(cycle)
    return {
        "object": object(), "set": {1}, "huge": 2**70, "cycle": cycle, "surrogate": "\udcff", "key": {(1, 2): 3},
        "nan": float("nan"), "half": "\ud800",
    }[what]  # fmt: skip


async def test_results_of_python_functions_that_cannot_be_sent_are_failures(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    source = """
    return function(what)
      local v, err = funcs.new():with_options{retry_policy = {maximum_attempts = 2, initial_interval = 1}}:call("app:strange", what)
      if err then return {err:kind(), err:message()} end
      return {v}
    end
    """
    app = write_app(
        tmp_path,
        workflows={"wf": source},
        functions={"strange": PYTHON | {"source": "tests.test_bad_input:strange"}},
    )
    async with a_mesh(nats_server().url, app) as mesh:
        for what, reason in (
            ("object", "a object cannot be sent"), ("set", "a set cannot be sent"), ("huge", "does not fit in 64 bits"),
            ("cycle", "recursion"), ("half", "surrogates not allowed"), ("unknown", "KeyError"),
        ):  # fmt: skip
            kind, message = await mesh.run("wf", what)
            assert reason in message, (what, kind, message)
            assert kind == ("Internal" if what == "unknown" else "Invalid")
        assert math.isnan((await mesh.run("wf", "nan"))[0])
        assert await mesh.run("wf", "surrogate") == [b"\xff"] or await mesh.run("wf", "surrogate") == ["\udcff"]
        odd = await mesh.run("wf", "key")
        assert odd == [None] or odd[0] in ("Internal", "Invalid") or isinstance(odd[0], dict), odd
        assert math.isnan((await mesh.run("wf", "nan"))[0]), "the host goes on"


async def test_arguments_of_a_start_that_cannot_be_sent_are_refused_by_the_client(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    app = write_app(tmp_path, workflows={"collector": COLLECTOR})
    async with a_mesh(nats_server().url, app) as mesh:
        for value in (object(), {1, 2}, 2**70, [[object()]]):
            with pytest.raises((TypeError, ValueError), match=r"cannot be sent|64 bits"):
                await mesh.start("collector", value, id="one")
            with pytest.raises((TypeError, ValueError)):
                await mesh.get("one").signal("x", value)
        with pytest.raises(MeshError, match="no workflow 'one'"):
            await mesh.get("one").history()


BIG = """
return function(how, n)
  local big = string.rep("x", n)
  local once = funcs.new():with_options{retry_policy = {maximum_attempts = 1}}
  local v, err
  if how == "argument" then v, err = funcs.call("app:size", big)
  elseif how == "result" then v, err = funcs.call("app:large", n)
  elseif how == "failure" then v, err = once:call("app:fails", n)
  elseif how == "child" then v, err = process.exec("app:big", "app:worker", "return", n)
  elseif how == "spawn" then v, err = process.exec("app:big", "app:worker", big, 1)
  elseif how == "send" then v, err = process.send(process.pid(), "me", big)
  elseif how == "continue" then process.upgrade(nil, big, 1)
  elseif how == "raise" then error(big)
  elseif how == "return" then return big
  end
  if err then return {err:kind(), err:message()} end
  return {v}
end
"""


async def test_payloads_above_the_limit_for_all_payloads(nats_server: ServerFactory, tmp_path: Path) -> None:
    app = write_app(
        tmp_path,
        workflows={"big": BIG},
        functions={
            "size": "return function(s) return #s end",
            "large": "return function(n) return string.rep('y', n) end",
            "fails": "return function(n) error(string.rep('z', n)) end",
        },
    )
    limit = 32 * 1024
    server, options = nats_server(config=f"max_payload: {limit}"), ConnectOptions(payload_bytes_max=limit)
    async with (
        a_mesh(server.url, app, options=options) as mesh,
        connect_client(server.url, options=options) as client,
    ):
        mesh = replace(mesh, client=client)
        big = "x" * (limit + 1)
        refusal = r"takes 3\d{4} bytes, at most 32768 are possible; put the data into a store of your own"
        with pytest.raises(PayloadTooLarge, match=refusal):
            await mesh.start("big", big, id="one")
        with pytest.raises(PayloadTooLarge, match=refusal):
            await mesh.start("big", id="one", messages=[("a", big)])
        with pytest.raises(PayloadTooLarge, match=refusal):
            await mesh.get("one").signal("a", big)
        for how, reason in (
            ("argument", "the arguments are too large: the payload (arg) takes 32"),
            ("result", "the result is too large: the payload (ret) takes 32"),
            ("failure", "the result is too large: the payload (ret) takes 6"),
            ("child", "the result is too large: the payload (exit) takes 32"), ("spawn", "the payload (start) takes 32"),
            ("send", "the payload (signal) takes 32"),
        ):  # fmt: skip
            kind, message = await mesh.run("big", how, limit + 1)
            assert kind == "Invalid", (how, kind, message)
            assert reason in message, (how, message)
        for how in ("return", "raise", "continue"):
            failure = await mesh.failure("big", how, limit + 1, id=how)
            assert (failure.kind, failure.retryable) == ("Invalid", False), how
            assert "the result is too large: the payload (end) takes" in failure.message
            await wait_until(lambda: mesh.statistics()["resident"] == 0)
        assert await mesh.run("big", "argument", 1000) == [1000]


# -- code that misbehaves -----------------------------------------------------------------------------------------


async def test_a_runaway_workflow_fails_and_takes_nobody_with_it(nats_server: ServerFactory, tmp_path: Path) -> None:
    app = write_app(
        tmp_path,
        workflows={
            "loop": "return function()\n  while true do end\nend",
            "caught": "return function()\n  while true do pcall(function() while true do end end) end\nend",
            "hog": "return function()\n  local t = {}\n  while true do t[#t + 1] = string.rep('x', 100000) end\nend",
            "text": "return function()\n  local s = 'x'\n  while true do s = s .. s end\nend",
            "recursion": "return function()\n  local function f() return 1 + f() end\n  return f()\nend",
            "collector": COLLECTOR,
        },
    )
    async with a_mesh(nats_server().url, app, partitions=1) as mesh:
        await mesh.start("collector", id="bystander")
        for i, (name, reason, retryable) in enumerate((
            ("loop", "loop.lua:2: ran 10000000 instructions in one step without waiting; an endless loop?", False),
            ("caught", "caught.lua:2: ran 10000000 instructions in one step without waiting; an endless loop?", False),
            ("hog", "hog.lua:3: took more than 64 MB of memory in one step", False),
            ("text", "text.lua:3: took more than 64 MB of memory in one step", False),
            ("recursion", "recursion.lua:2: stack overflow", None),  # an error of Lua, as any other
        )):  # fmt: skip
            failure = await mesh.failure(name, id=name)
            assert (failure.kind, failure.retryable) == ("Internal", retryable)
            assert reason in failure.message
            await mesh.get("bystander").signal("n", i)
            reply = await mesh.client.conn.request(node_request("a", "ping"), b"", timeout_s=15)
            assert reply.data
        await goes_on(mesh, "bystander", [["n", i] for i in range(5)])


async def test_a_workflow_that_raises_fails_with_its_place(nats_server: ServerFactory, tmp_path: Path) -> None:
    app = write_app(
        tmp_path,
        workflows={
            "text": "return function()\n  error('no stock')\nend",
            "table": "return function()\n  error({code = 3})\nend",
            "error": "return function()\n  error(errors.new{message = 'not now', kind = 'Unavailable', retryable = true})\nend",
            "index": "return function()\n  local t\n  return t.x\nend",
            "task": "return function()\n  coroutine.spawn(function() error('in a task') end)\n  process.inbox():receive()\nend",
            "blocked": "return function()\n  channel.new():receive()\nend",
            "yield": "return function()\n  coroutine.yield()\nend",
        },
    )
    async with a_mesh(nats_server().url, app) as mesh:
        for name, kind, message in (
            ("text", "Internal", "text.lua:2: no stock"),
            ("table", "Internal", "table.lua:2: raised table"),
            ("error", "Unavailable", "not now"),
            ("index", "Internal", "index.lua:3: attempt to index a nil value (local 't')"),
            ("task", "Internal", "task.lua:2: in a task"),
            (
                "blocked",
                "Internal",
                "blocked.lua:2: all coroutines blocked: nothing is left that could wake this workflow",
            ),
            ("yield", "Internal", "yield.lua:2: attempt to yield from outside a coroutine"),
        ):
            failure = await mesh.failure(name)
            assert failure.kind == kind
            assert failure.message.startswith(message)
        assert (await mesh.failure("text")).stack.splitlines()[1].strip() == "text.lua:2: in main function"


async def test_files_that_are_no_function_fail_their_own_calls_only(nats_server: ServerFactory, tmp_path: Path) -> None:
    call = "return function(id) local v, err = once:call(id) return {err:kind(), err:message()} end"
    call = f"local once = funcs.new():with_options{{retry_policy = {{maximum_attempts = 1}}}}\n{call}"
    app = write_app(
        tmp_path,
        workflows={"number": "return 7", "nothing": "local x = 1", "raises": "error('at load')", "waits": "time.sleep('1s')",
                   "table": "return {run = function() end}", "call": call},
        functions={"f-number": "return 7", "f-raises": "error('at load')", "f-ok": "return function() return 1 end"},
    )  # fmt: skip
    async with a_mesh(nats_server().url, app) as mesh:
        for name in ("number", "nothing", "table"):
            failure = await mesh.failure(name)
            assert (failure.kind, failure.message) == ("NotFound", 'method "main" not found in module')
        assert "raises.lua:1: at load" in (await mesh.failure("raises")).message
        assert "a file's top level may not" in (await mesh.failure("waits")).message
        assert await mesh.run("call", "app:f-number") == ["NotFound", 'method "main" not found in module']
        kind, message = await mesh.run("call", "app:f-raises")
        assert (kind, "f-raises.lua:1: at load" in message) == ("Internal", True)


DYING = """
import os

def die():
    os._exit(9)

def live():
    return "alive"
"""


async def test_a_function_that_dies_with_its_host_again_and_again_fails(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    """The workflow's node has no functions of its own; each attempt costs a host."""
    source = """
    return function(id, attempts)
      local call = funcs.new():with_options{retry_policy = {maximum_attempts = attempts, initial_interval = 10}}
      local v, err = call:call(id)
      if err then return {err:kind(), err:message(), err:details()._attempt} end
      return {v}
    end
    """
    app = write_files(
        write_app(
            tmp_path,
            workflows={"wf": source},
            functions={name: PYTHON | {"source": f"dying:{name}"} for name in ("die", "live")},
        ),
        {"dying.py": DYING},
    )
    url = nats_server().url
    async with a_mesh(url, app, functions=False) as mesh:
        async with (
            a_node(app, url, node_id="b") as b,
            a_node(app, url, node_id="c") as c,
            a_node(app, url, node_id="d") as d,
        ):
            hosts = [b, c, d]
            assert await mesh.run("wf", "app:die", 2) == ["HostLost", "the host that ran app:die is gone", 2]
            await wait_until(lambda: sum(host.returncode is not None for host in hosts) == 2)
            assert await mesh.run("wf", "app:live", 1) == ["alive"]
            kind, message, attempt = await mesh.run("wf", "app:die", 1)
            assert (kind, attempt) == ("UnknownOutcome", 1)
            assert message == "app:die may run only once, its host began and is gone: whether it took effect is unknown"
            assert [await host.wait() for host in hosts] == [9, 9, 9]
        async with a_node(app, url, node_id="e"):
            assert await mesh.run("wf", "app:live", 1) == ["alive"]


async def test_a_call_with_a_time_for_its_heartbeat_times_out_when_its_host_dies(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    source = """
    return function()
      local call = funcs.new():with_options{
        heartbeat_timeout = "200ms", retry_policy = {maximum_attempts = 2, initial_interval = 10} }
      local _, err = call:call("app:die_later")
      return {err:kind(), err:retryable(), err:details().timeout_type, err:details()._attempt}
    end
    """
    dying = "import os, time\n\ndef die_later():\n    time.sleep(0.4)\n    os._exit(9)\n"
    app = write_files(
        write_app(
            tmp_path, workflows={"wf": source}, functions={"die_later": PYTHON | {"source": "dying_later:die_later"}}
        ),
        {"dying_later.py": dying},
    )
    url = nats_server().url
    async with (
        a_mesh(url, app, functions=False) as mesh,
        a_node(app, url, node_id="b"),
        a_node(app, url, node_id="c"),
        a_node(app, url, node_id="d"),
    ):
        assert await mesh.run("wf") == ["Timeout", False, "heartbeat", 2]


# -- names --------------------------------------------------------------------------------------------------------

IDS = (
    "a.b.c",
    "two words",
    "*",
    ">",
    "order.*",
    "заказ-1",
    "注文",
    "100%",
    "%2E",
    "a\tb",
    "$SYS",
    "x" * 300,
    ".",
    "..",
    "_",
)


@pytest.mark.parametrize("number", ["9" * 20, "9" * 5000])
async def test_a_header_with_a_number_that_is_none_stops_neither_a_node_nor_its_lists(
    nats_server: ServerFactory, tmp_path: Path, number: str
) -> None:
    """Whoever may start a workflow may write what he likes into the headers of an import."""
    app = write_app(tmp_path, workflows={"echo": "return function(x) return x end"})
    async with a_mesh(nats_server().url, app, projection=tmp_path / "p.sqlite3") as mesh:
        for id, header in (
            ("one", {"Mesh-Imported": f"x {number}"}),
            ("two", {"Mesh-Origin": f"q i {number} {number}"}),
        ):
            await mesh.client.js.publish(key(id).start(), b"7", headers={"Mesh-Workflow": "app:echo", **header})
            assert await mesh.get(id).result(timeout_s=TIMEOUT_S) == 7

        async def listed() -> bool:
            return {workflow["id"] async for workflow in mesh.client.list(status="completed")} == {"one", "two"}

        await wait_until_async(listed)


@pytest.mark.timeout(120)
async def test_ids_of_any_characters(nats_server: ServerFactory, tmp_path: Path) -> None:
    """Each is a workflow of its own that can be signalled, described, sent to, and started by another workflow."""
    parent = """
    return function(id)
      local pid, err = process.with_options{id = id}:spawn("app:collector", "app:worker")
      if err then return nil, err end
      process.send(pid, "to." .. id:sub(1, 50), id)
      process.send(pid, "stop", 1)
      local e = process.events():receive()
      return {pid, e.from, e.result.value}
    end
    """
    app = write_app(tmp_path, workflows={"collector": COLLECTOR, "parent": parent})
    url = nats_server().url
    async with a_mesh(url, app) as mesh:
        for workflow_id in IDS:
            handle = await mesh.start("collector", workflow_id, id=workflow_id)
            await handle.signal(workflow_id, workflow_id)
            assert (await handle.describe()).status == "running"
            pid = f"{{app:client@app:worker|c-{workflow_id}}}"
            topic = f"to.{f'c-{workflow_id}'.encode()[:50].decode(errors='surrogateescape')}"
            assert await mesh.run("parent", f"c-{workflow_id}") == [pid, pid, [[topic, f"c-{workflow_id}"]]]
    async with a_mesh(url, app, node_id="b") as mesh:
        for workflow_id in IDS:
            assert (await mesh.client.find(workflow_id)).key == key(workflow_id)
            await goes_on(mesh, workflow_id, [[workflow_id, workflow_id]])
            assert await mesh.kinds(workflow_id) == ["start", "signal", "signal", "end"]


async def test_ids_and_topics_that_cannot_be_are_refused_clearly(nats_server: ServerFactory, tmp_path: Path) -> None:
    spawns = """
    return function(id)
      local pid, err = process.with_options{id = id}:spawn("app:collector", "app:worker")
      return {pid or "none", err and err:kind() or "none", err and err:message() or "none"}
    end
    """
    app = write_app(tmp_path, workflows={"collector": COLLECTOR, "spawns": spawns})
    async with a_mesh(nats_server().url, app) as mesh:
        with pytest.raises(InvalidName, match="an empty name cannot stand in a subject; give a workflow id"):
            await mesh.start("collector", id="")
        with pytest.raises(InvalidName, match=r"takes 1800 bytes in a subject; at most 512 are possible"):
            await mesh.start("collector", id="ж" * 300)
        handle = await mesh.start("collector", id="one")
        with pytest.raises(InvalidName, match="an empty name"):
            await handle.signal("", 1)
        with pytest.raises(InvalidName, match="at most 512"):
            await handle.signal("t" * 513, 1)
        pid, kind, message = await mesh.run("spawns", "")
        assert (pid, kind) == ("none", "Invalid")
        pid, kind, message = await mesh.run("spawns", "ж" * 300)
        assert (pid, kind) == ("none", "Invalid")
        assert "at most 512 are possible" in message
        await goes_on(mesh, "one", [])
