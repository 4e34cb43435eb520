"""A real node under siege lives, works, and says what it refused; what it could not take suspends those attacked at most."""

from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path
from random import Random

import anyio
import pytest

import mesh.client
from mesh import codec
from mesh.client import Client, WorkflowSuspended
from mesh.events import Event, StartSpec
from node.refusals import EVERY_S, LINES_MAX, Refusals
from node.workflows.ops import Effect
from node.workflows.run import Run
from tests.apps import QUEUE, WORKER, a_mesh, write_app
from tests.cluster import NodeProcess, a_node
from tests.conftest import ServerFactory
from tests.fuzz.profiles import SEED, number
from tests.fuzz.siege import Besieger, Siege, listened
from tests.trouble import TROUBLE
from tests.waiting import wait_until_async

MESSAGES = number("MESH_FUZZ_MESSAGES", 3000, 60000)
AT_ONCE = 150
RESULT_S = 120.0  # whatever else the machine does; a wedged partition never answers
VICTIMS = tuple(f"victim-{i}" for i in range(6))

GOOD = """
return function(n)
  local child = process.with_options{parent_close_policy = "abandon"}:spawn("app:kid", "app:worker", n)
  local sum = 0
  for i = 1, 3 do sum = sum + funcs.call("app:double", n + i) end
  time.sleep("5ms")
  local m = process.inbox():receive()
  local e = process.events():receive()
  return {sum, m:payload():data(), e.result.value}
end
"""
VICTIM = """
return function()
  local inbox, events = process.inbox(), process.events()
  process.listen("s1")
  coroutine.spawn(function() while true do inbox:receive() end end)
  coroutine.spawn(function() while true do events:receive() end end)
  coroutine.spawn(function() funcs.call("app:double", 1) funcs.call("app:nowhere", 1) end)
  workflow.version("change", 1, 2)
  process.spawn("app:kid", "app:worker", 1)
  time.sleep("1h")
end
"""


async def good_work(client: Client, number: int) -> object:
    """A workflow with calls, a timer, a signal and a child, from its start to its result."""
    handle = await client.start("app:good", number, host=WORKER, id=f"good-{number}")
    await handle.signal("go", {"n": number})
    return await handle.result(timeout_s=RESULT_S)


def expected(number: int) -> object:
    return [sum(2 * (number + i) for i in (1, 2, 3)), {"n": number}, number + 1]


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_a_node_under_siege_goes_on_with_its_work(nats_server: ServerFactory, tmp_path: Path) -> None:
    app = write_app(
        tmp_path / "app",
        workflows={"good": GOOD, "victim": VICTIM, "kid": "return function(n) return n + 1 end"},
        functions={"double": "return function(n) return n * 2 end"},
        processes={"sleeper": "return function() process.inbox():receive() end"},
        entries=[
            *(
                {
                    "name": f"service-{i}",
                    "kind": "process.service",
                    "process": "app:sleeper",
                    "host": "app:processes",
                    # However often the siege ends it.
                    "lifecycle": {"auto_start": True, "restart": {"initial_delay": "10ms", "max_delay": "50ms"}},
                }
                for i in range(3)
            ),
            {"name": "jobs", "kind": "queue.driver.jetstream"},
            {"name": "inbox", "kind": "queue.queue", "driver": "app:jobs"},
            {
                "name": "consumer",
                "kind": "queue.consumer",
                "queue": "app:inbox",
                "func": "app:double",
                "lifecycle": {"auto_start": True},
            },
        ],
    )
    server = nats_server(config='http: "127.0.0.1:-1"\nmax_traced_msg_len: 100')
    random = Random(SEED)
    arguments = ("--projection", str(tmp_path / "list.db"))
    async with (
        a_node(app, server.url, node_id="a", arguments=arguments) as node,
        mesh.client.connect(server.url) as client,
    ):
        for victim in VICTIMS:
            await client.start("app:victim", host=WORKER, id=victim)
        assert await good_work(client, 0) == expected(0)
        siege = Siege(random, QUEUE, VICTIMS, listened(server.monitor_url, "moonmesh a"))
        assert len(siege.subjects) > 20, siege.subjects
        besieger = await Besieger.connect(server.port)
        looks: list[int] = []
        for number in range(1, MESSAGES // AT_ONCE + 1):
            await besieger.send([siege.message() for _ in range(AT_ONCE)])
            if number % 5 == 1:
                siege.pids = await processes(client)
                for _ in range(20):  # those it has ended are started again
                    if siege.pids:
                        break
                    await anyio.sleep(0.05)
                    siege.pids = await processes(client)
                looks.append(len(siege.pids))
                assert await good_work(client, number) == expected(number), node.log()[-3000:]
            assert node.returncode is None, node.log()[-5000:]
        besieger.close()
        for number in range(100_000, 100_012):  # some on every partition
            assert await good_work(client, number) == expected(number)
        await only_victims_are_suspended(client)
        assert all(siege.sent.values())
        assert sum(1 for found in looks if found) > len(looks) / 2, f"no processes to attack: {looks}"
        no_trouble(node)
        assert await node.terminate() == 0
        no_trouble(node)


POISON: dict[str, tuple[bytes, bytes, bytes]] = {
    "an integer larger than any float": (b"mesh.wf.orders.RUN.signal.t", b"", b"9" * 400),
    "a topic that is no text": (b"mesh.wf.orders.RUN.signal.\xff", b"", b"1"),
    "an id that is no text": (b"mesh.wf.orders.\xff.start", b"", b"1"),
    "the end of a child that is nested deep": (
        b"mesh.wf.orders.RUN.exit.SEQ.1",
        b"",
        codec.FAILURE_PREFIX + b"\x91" * 1000 + b"\xc0",
    ),
    "an end of no run that is nested deep": (
        b"mesh.wf.orders.nobody.end.7",
        b"",
        codec.MARKER + b"\x91" * 1000 + b"\xc0",
    ),
    "a question to be answered on no text": (b"mesh.node.a.status", b"_INBOX.\xff", b""),
    "a question to be answered on a control character": (b"mesh.node.a.unit", b"_INBOX.\x01", b"x"),
    "a question to be answered on a very long subject": (b"mesh.node.a.ping", b"_INBOX." + b"x" * 3950, b""),
    "a question to be answered into a history": (b"mesh.node.a.ping", b"mesh.wf.orders.RUN.signal.stolen", b""),
    "a request to be answered into a history": (
        b"mesh.node.a.unit",
        b"mesh.wf.orders.RUN.signal.stolen",
        codec.encode(["nothing"]),
    ),
    "discovery to be answered into a history": (b"$SRV.PING", b"mesh.wf.orders.RUN.signal.stolen", b""),
    "a start that begins later than there is time": (
        b"mesh.wf.orders.nobody.start",
        b"",
        StartSpec("app:collector", start_delay_ns=2**64 - 1).encode(),
    ),
    "a start that goes on from before there was anything": (
        b"mesh.wf.orders.no-one.start",
        b"",
        StartSpec("app:collector", since=-5).encode(),
    ),
    "a host that is none": (b"$KV.mesh_hosts.nobody", b"", b"[]"),
    "a member that is none": (b"$KV.mesh_roster.member.b", b"", b'{"queues": [["orders"]], "functions": 5}'),
}


@pytest.mark.timeout(120)
async def test_messages_that_once_ended_a_node_or_were_answered_into_histories(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    collector = """
    return function()
      process.spawn("app:kid", "app:worker")
      local got = {}
      while true do
        local m = process.inbox():receive()
        if m:topic() == "stop" then return got end
        got[#got + 1] = m:payload():data()
      end
    end"""
    app = write_app(tmp_path, workflows={"collector": collector, "kid": "return function() time.sleep('1h') end"})
    server = nats_server()
    async with a_node(app, server.url, node_id="a") as node, mesh.client.connect(server.url) as client:
        besieger = await Besieger.connect(server.port)
        # A history with what cannot be had by its subject: no events, to nobody, now and after a crash.
        attacked = await client.start("app:collector", host=WORKER, id="attacked")
        await attacked.signal("t", "before")
        topics = (b"\xff", b"\x01", b"\xe2\x80\xae", b"\xef\xbf\xbd", b"\xc3\x28")
        await besieger.send([(b"mesh.wf.orders.attacked.signal." + topic, b"", None, b"1") for topic in topics * 2])
        # And with events of a run that no stream can have, more than one on a subject.
        await besieger.send([(b"mesh.wf.orders.attacked.mark." + b"9" * 30 + b".lost", b"", None, b"1")] * 2)
        await attacked.signal("t", "after")
        for number, (what, (subject, reply, body)) in enumerate(POISON.items()):
            handle = await client.start("app:collector", host=WORKER, id=f"w-{number}")
            run, seq = handle.id.encode(), str(handle.run).encode()
            names = subject.replace(b"RUN", run).replace(b"SEQ", seq), reply.replace(b"RUN", run)
            await besieger.send([(*names, None, body)])
            await handle.signal("stop")
            got = await handle.result(timeout_s=20)
            assert node.returncode is None, f"{what}: {node.log()[-3000:]}"
            assert got == ([float("inf")] if body == b"9" * 400 else []), what
        besieger.close()
        assert all(word not in node.log() for word in TROUBLE), node.log()[-5000:]
        # Whoever takes over reads all of it again.
        node.kill()
        await node.wait()
    async with a_node(app, server.url, node_id="b") as node, mesh.client.connect(server.url) as client:
        attacked = client.get("attacked", queue=QUEUE)
        await attacked.signal("stop")
        assert await attacked.result(timeout_s=20) == ["before", "after"]
        handle = await client.start("app:collector", host=WORKER, id="after")
        await handle.signal("stop")
        assert await handle.result(timeout_s=20) == []
        assert all(word not in node.log() for word in TROUBLE), node.log()[-5000:]


async def test_a_fault_of_ours_suspends_the_run_that_it_befalls_and_nothing_else(
    nats_server: ServerFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were it the node that ends, the same event would end every node that takes the partition over."""
    waits = "return function() return process.inbox():receive():topic() end"
    app = write_app(tmp_path, workflows={"waits": waits})
    applied = Run.apply

    def apply(run: Run, event: Event, *, more: bool = False) -> list[Effect]:
        if event.kind == "signal" and event.topic == "poison":
            raise ZeroDivisionError("we did not think of that")
        return applied(run, event, more=more)

    monkeypatch.setattr(Run, "apply", apply)
    url = nats_server().url
    async with a_mesh(url, app, partitions=1) as one:
        attacked, other = await one.start("waits", id="attacked"), await one.start("waits", id="other")
        await attacked.signal("poison")
        with pytest.raises(WorkflowSuspended, match=r"moonmesh failed at event signal .* we did not think of that"):
            await attacked.result(timeout_s=10)
        await other.signal("go")
        assert await other.result(timeout_s=10) == "go"
    async with a_mesh(url, app, node_id="b") as two:  # in a replay, too
        with pytest.raises(WorkflowSuspended, match="moonmesh failed"):
            await two.get("attacked").result(timeout_s=10)
        assert await two.run("waits", messages=[("go", 1)]) == "go"
    monkeypatch.undo()
    async with a_mesh(url, app, node_id="c") as three:  # a version that can do it
        assert await three.get("attacked").result(timeout_s=10) == "poison"


def test_of_what_is_refused_some_lines_are_logged_and_the_rest_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    refusals = Refusals(logging.getLogger("test"), clock=lambda: now)
    for i in range(LINES_MAX + 7):
        refusals.note("refused %d", i)
    refusals.note("something else %s", "x")
    assert [record.getMessage() for record in caplog.records] == [
        *(f"refused {i}" for i in range(LINES_MAX)),
        "something else x",
    ]
    now = EVERY_S
    refusals.note("refused %d", 99)
    refusals.note("refused %d", 100)
    assert [record.getMessage() for record in caplog.records][LINES_MAX + 1 :] == [
        "refused 99, and 7 like it before",
        "refused 100",
    ]


async def processes(client: Client) -> list[str]:
    """The PIDs of the processes on the node, which anybody may ask for."""
    reply = await client.conn.request("mesh.node.a.processes", codec.encode({}), timeout_s=10)
    return [str(process["pid"]) for process in codec.decode(reply.data)["shown"]]


async def only_victims_are_suspended(client: Client) -> None:
    async def asked() -> bool:
        reply = await client.conn.request("mesh.node.a.suspended", b"", timeout_s=5)
        found.extend(run["id"] for run in codec.decode(reply.data)["suspended"])
        return True

    found: list[str] = []
    await wait_until_async(asked)
    assert not [one for one in found if one.startswith("good")], found


def no_trouble(node: NodeProcess) -> None:
    """Nothing came out of a task or a handler, and what was refused is told, but not each time."""
    log = node.log()
    for word in TROUBLE:
        at = log.find(word)
        assert at < 0, f"{word}: ...{log[max(0, at - 1500) : at + 3000]}"
    lines = log.splitlines()
    kinds = Counter(line.split("(sequence")[0][20:70] for line in lines)
    assert len(lines) < 400 + MESSAGES // 4, kinds.most_common(12)
    assert any("is no event of a workflow" in line for line in lines), lines[-20:]


def test_what_a_node_listens_to_is_attacked_as_it_is() -> None:
    """The siege makes no message that a server would not take."""
    siege = Siege(
        Random(3),
        QUEUE,
        VICTIMS,
        ("mesh.fn.app.double", "mesh.node.a.unit", "mesh.api.start", "mesh.queue.orders.*.describe", "mesh.events.>"),
    )
    for _ in range(2000):
        subject, reply, headers, body = siege.message()
        assert subject
        assert not set(subject) & set(b" \r\n\t*>")
        assert b".." not in subject
        assert len(subject) + len(reply) < 4000
        assert headers is None or headers.endswith(b"\r\n\r\n")
        assert len(body) < 1024 * 1024
    assert json.dumps(siege.sent)
