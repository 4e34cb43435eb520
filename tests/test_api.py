"""The control API, asked as any language would ask it: raw NATS requests with JSON bodies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import pytest

from mesh.asking import ApiError, NoApi
from mesh.client import connect as mesh_client
from mesh.connection import parse_headers
from mesh.errors import NoResponders, NotPermitted
from mesh.schedules import ScheduleExists
from node.api.carrying_out import carry_out
from node.api.endpoints import ENDPOINTS, names
from node.api.requests import BadRequest, Field, Kind, read_request, schema_of
from node.api.service import answer_bytes
from node.api.verbs import Asker
from tests.apps import QUEUE, WORKER, Mesh, a_mesh, write_app
from tests.conftest import ServerFactory
from tests.waiting import wait_until_async

WORKFLOWS = {
    "greet": "return function(name) return 'hello ' .. funcs.call('app:upper', name) end",
    "waits": "return function() local l = time.after('24h') local m = process.listen('go'):receive() return {got = m} end",
    "fails": "return function() return nil, errors.new{message = 'no money', kind = errors.INVALID} end",
    "strange": "return function() return {0/0, 1/0} end",
}
FUNCTIONS = {
    "upper": {"kind": "function.lua", "source": "return {main = function(x) return string.upper(x) end}"},
    "refuses": {"kind": "function.lua", "source": "return {main = function() return nil, 'not today' end}"},
    "slow": {"kind": "function.lua", "source": "return {main = function() time.sleep('60s') end}"},
}


class Answer(NamedTuple):
    """What came back: code is 0 when it is no error."""

    code: int
    text: str
    body: Any


async def ask(mesh: Mesh, verb: str, body: Mapping[str, Any] | bytes | None = None) -> Answer:
    payload = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    reply = await mesh.client.conn.request(f"mesh.api.{verb}", payload, timeout_s=10.0)
    headers = parse_headers(reply.raw_headers) if reply.raw_headers else {}
    code = int(headers.get("Nats-Service-Error-Code", "0"))
    return Answer(code, headers.get("Nats-Service-Error", ""), json.loads(reply.data))


async def told(mesh: Mesh, verb: str, body: Mapping[str, Any] | None = None) -> Any:
    """Ask for what must succeed."""
    answer = await ask(mesh, verb, body)
    assert not answer.code, answer
    return answer.body


async def refused(mesh: Mesh, verb: str, body: Mapping[str, Any] | bytes | None = None) -> tuple[int, str, str]:
    """Ask for what must fail; headers and body must say the same. Code, kind and message."""
    answer = await ask(mesh, verb, body)
    error = answer.body["error"]
    assert list(answer.body) == ["error"]
    assert (error["code"], error["message"].isascii()) == (answer.code, True)
    assert " ".join(error["message"].split()) == answer.text
    return answer.code, error["kind"], error["message"]


async def test_workflows_are_started_signalled_and_waited_for(nats_server: ServerFactory, tmp_path: Path) -> None:
    app = write_app(tmp_path, workflows=WORKFLOWS, functions=FUNCTIONS)
    async with a_mesh(nats_server().url, app, projection=tmp_path / "projection.sqlite3") as mesh:
        started = await told(mesh, "start", {"workflow": "app:greet", "args": ["Ada"], "id": "g"})
        assert started == {"id": "g", "queue": QUEUE, "run": started["run"], "existing": False}
        done = {
            "id": "g",
            "queue": QUEUE,
            "run": started["run"],
            "status": "completed",
            "value": "hello ADA",
            "error": None,
        }
        assert await told(mesh, "result", {"id": "g"}) == done
        described = await told(mesh, "describe", {"id": "g"})
        assert (described["status"], described["value"], described["args"]) == ("completed", "hello ADA", ["Ada"])
        page = await told(mesh, "history", {"id": "g", "limit": 2})
        assert [(e["n"], e["kind"]) for e in page["events"]] == [(1, "start"), (2, "ret")]
        assert (page["events_total"], page["next"]) == (3, 2)
        rest = await told(mesh, "history", {"id": "g", "after": 2})
        assert ([(e["n"], e["kind"]) for e in rest["events"]], rest["next"]) == ([(3, "end")], None)

        waits = await told(
            mesh, "start",
            {"workflow": "app:waits", "id": "w", "host": WORKER, "memo": {"a": 1}, "attrs": {"customer": "c-1"}},
        )  # fmt: skip
        waiting: list[Any] = []
        while not waiting:  # its owner hears of the start after it was stored
            waiting = (await told(mesh, "describe", {"id": "w"}))["waiting"]
        late = await ask(mesh, "result", {"id": "w", "timeout": "100ms"})
        assert (late.code, late.body["error"]["kind"]) == (408, "still-running")
        assert [(item["n"], item["kind"], item["due"][:4] >= "2026") for item in waiting] == [(1, "timer", True)]
        assert late.body["error"]["state"] == {
            "id": "w", "queue": QUEUE, "run": waits["run"], "status": "running", "waiting": waiting,
        }  # fmt: skip
        sent = await told(mesh, "signal", {"id": "w", "topic": "go", "value": [1, "x"]})
        assert sent == {"id": "w", "queue": QUEUE, "topic": "go", "seq": sent["seq"]}
        assert (await told(mesh, "result", {"id": "w", "run": waits["run"]}))["value"] == {"got": [1, "x"]}
        assert await refused(mesh, "signal", {"id": "w", "topic": "go"}) == (
            409, "has-ended",
            "workflow 'w' has ended (completed); nobody would read the signal, see `mesh show w`",
        )  # fmt: skip

        again = await told(mesh, "reset", {"id": "w", "event": 1, "signals": False, "reason": "once more"})
        assert again == {
            "id": "w", "queue": QUEUE, "run": again["run"], "base": waits["run"], "event": 1, "seq": waits["run"],
        }  # fmt: skip
        assert (await refused(mesh, "reset", {"id": "w", "event": 70}))[:2] == (400, "no-such-event")
        assert await told(mesh, "cancel", {"id": "w"}) == {"id": "w", "queue": QUEUE, "run": again["run"]}
        assert (await told(mesh, "terminate", {"id": "w"}))["id"] == "w"
        ended = await told(mesh, "result", {"id": "w"})
        assert (ended["status"], ended["error"]["kind"]) == ("terminated", "Canceled")

        failed = await told(mesh, "start", {"workflow": "app:fails"})
        assert (await told(mesh, "result", {"id": failed["id"]}))["error"]["message"] == "no money"
        # JSON has no such numbers: their names stand for them.
        strange = await told(mesh, "start", {"workflow": "app:strange"})
        value = (await told(mesh, "result", {"id": strange["id"]}))["value"]
        assert (value[0].lstrip("-"), value[1]) == ("NaN", "Infinity")

        assert await told(mesh, "call", {"function": "app:upper", "args": ["x"]}) == {
            "function": "app:upper", "value": "X", "error": None,
        }  # fmt: skip
        assert (await told(mesh, "call", {"function": "app:refuses"}))["error"]["message"] == "not today"
        assert await refused(mesh, "call", {"function": "app:uper"}) == (
            404, "not-found", "no node offers a function 'app:uper'; did you mean app:upper?",
        )  # fmt: skip
        assert (await refused(mesh, "call", {"function": "app:slow", "timeout": 0.05}))[:2] == (408, "call-timeout")

        # What is wrong is said with what would be right.
        assert await refused(mesh, "start", {"workflow": "app:greets"}) == (
            404, "unknown-workflow", "no node offers a workflow 'app:greets'; did you mean app:greet?",
        )  # fmt: skip
        assert await refused(mesh, "start", {"workflow": "app:greet", "arg": [1]}) == (
            400, "bad-request", 'no field "arg"; did you mean args?',
        )  # fmt: skip
        assert await refused(mesh, "start") == (
            400, "bad-request", "the field workflow is missing: the workflow, as namespace:name",
        )  # fmt: skip
        assert await refused(mesh, "start", {"workflow": "app:waits", "id": "g", "reuse": "reject_duplicate"}) == (
            409, "already-started",
            "workflow 'g' on queue 'orders' has run before; choose another id or another policy",
        )  # fmt: skip
        assert await refused(mesh, "result", {"id": "h"}) == (
            404, "not-found", "no workflow 'h' on any queue (orders); see what there is with: mesh ls",
        )  # fmt: skip
        assert (await refused(mesh, "result", {"id": "g", "queue": "order"}))[
            2
        ] == "no queue 'order'; did you mean orders?"
        assert await refused(mesh, "start", b"[1]") == (
            400,
            "bad-request",
            "the request must be a JSON object, not [1]",
        )
        assert (await refused(mesh, "start", {"workflow": "app:greet", "id": ""}))[:2] == (400, "invalid-name")

        (node,) = (await told(mesh, "nodes"))["nodes"]
        assert (node["node"], node["state"]) == ("a", "up")
        assert [f["function"] for f in (await told(mesh, "functions"))["functions"] if f["nodes"]] == [
            "app:refuses", "app:slow", "app:upper",
        ]  # fmt: skip
        assert await told(mesh, "services") == {"services": []}
        called = (await told(mesh, "processes", {"entry": "app:slow"}))["processes"]
        assert [(p["entry"], p["kind"]) for p in called] == [("app:slow", "call")]
        assert (await refused(mesh, "processes", {"node": "b"}))[:2] == (404, "unknown-node")

        async def all_is_listed() -> bool:
            listed = (await told(mesh, "list", {"queue": QUEUE}))["workflows"]
            return [w["status"] == "running" for w in listed] == [False] * 4

        await wait_until_async(all_is_listed)
        page = await told(mesh, "list", {"status": ["terminated", "failed"], "where": 'attrs.customer = "c-1"'})
        assert ([w["id"] for w in page["workflows"]], page["next"]) == (["w"], None)
        counts = (await told(mesh, "count", {"by": "status"}))["counts"]
        assert {c["status"]: c["workflows"] for c in counts} == {"completed": 2, "failed": 1, "terminated": 1}
        assert (await refused(mesh, "list", {"where": "id ="}))[:2] == (400, "bad-filter")
        assert (await refused(mesh, "list", {"limit": 10**9}))[:2] == (400, "bad-request")
        # A node may write histories, so it answers into none.
        for reply in ("mesh.wf.orders.forged.start", "$KV.mesh_hosts.forged"):
            mesh.client.conn.publish_nowait("mesh.api.start", b'{"workflow": "app:greet", "id": "never"}', reply)
        assert (await refused(mesh, "result", {"id": "forged"}))[0] == 404
        assert (await refused(mesh, "result", {"id": "never"}))[0] == 404
        # The Python client asks the same way.
        assert (await mesh.client.ask("result", id="g"))["value"] == "hello ADA"
        with pytest.raises(ApiError, match="no workflow 'h' on any queue") as error:
            await mesh.client.ask("describe", id="h")
        assert (error.value.status, error.value.error["kind"]) == (404, "not-found")
        with pytest.raises(NoApi, match=r"no node serves mesh\.api\.nothing"):
            await mesh.client.ask("nothing")
        await discovered(mesh)


async def discovered(mesh: Mesh) -> None:
    """The service is found, described and counted as ADR-32 says."""
    conn = mesh.client.conn
    info = json.loads((await conn.request("$SRV.INFO.mesh", b"", timeout_s=5.0)).data)
    assert (info["type"], info["name"]) == ("io.nats.micro.v1.info_response", "mesh")
    assert info["metadata"] == {"node": "a"}
    assert [e["subject"] for e in info["endpoints"]] == [f"mesh.api.{name}" for name in names()]
    for announced, spec in zip(info["endpoints"], ENDPOINTS, strict=True):
        assert announced["name"].replace("_", "-").replace("-", "").isalnum()
        assert announced["queue_group"] == "q"
        assert all(isinstance(value, str) for value in announced["metadata"].values())
        schema = json.loads(announced["metadata"]["request"])
        assert list(schema["properties"]) == [field.name for field in spec.fields]
    stats = json.loads((await conn.request("$SRV.STATS.mesh", b"", timeout_s=5.0)).data)
    start = next(e for e in stats["endpoints"] if e["name"] == "start")
    assert (start["num_requests"], start["num_errors"]) == (10, 6)
    assert start["average_processing_time"] * start["num_requests"] <= start["processing_time"]
    assert start["last_error"].startswith("an empty name cannot stand in a subject")
    ping = json.loads((await conn.request(f"$SRV.PING.mesh.{info['id']}", b"", timeout_s=5.0)).data)
    assert (ping["type"], ping["id"]) == ("io.nats.micro.v1.ping_response", info["id"])


async def test_a_node_that_is_told_not_to_serves_no_api_and_one_that_leaves_answers_what_it_has_taken(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    url, app = nats_server().url, write_app(tmp_path, workflows=WORKFLOWS, functions=FUNCTIONS)
    async with a_mesh(url, app, api=False) as mesh:
        with pytest.raises(NoResponders):
            await ask(mesh, "start")
    async with a_mesh(url, app, node_id="b") as mesh:
        await told(mesh, "start", {"workflow": "app:waits", "id": "w"})
        answers = []

        async def wait() -> None:
            answers.append(await ask(mesh, "result", {"id": "w", "timeout": 60}))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await mesh.client.conn.flush()
            await told(mesh, "describe", {"id": "w"})
            await mesh.node.leave()
        assert (answers[0].code, answers[0].body["error"]["kind"]) == (503, "leaving")


FIELDS = (
    Field("id", Kind.TEXT, "the id", required=True),
    Field("event", Kind.INTEGER, "a number", least=1, most=9),
    Field("timeout", Kind.DURATION, "a time", least=0, most=60),
    Field("signals", Kind.FLAG, "whether"),
    Field("reuse", Kind.TEXT, "how", choices=("allow", "reject")),
    Field("args", Kind.LIST, "some"),
    Field("memo", Kind.OBJECT, "some"),
    Field("status", Kind.TEXTS, "some"),
    Field("value", Kind.ANY, "anything"),
)


@pytest.mark.parametrize(
    ("body", "read"),
    [
        ('{"id": "a"}', {"id": "a"}),
        ('\ufeff {"id": "a", "event": null, "value": null}\n', {"id": "a", "value": None}),
        ('{"id": "a", "timeout": 1.5}', {"id": "a", "timeout_s": 1.5}),
        ('{"id": "a", "timeout": "1m"}', {"id": "a", "timeout_s": 60.0}),
        ('{"id": "a", "event": 9, "signals": false}', {"id": "a", "event": 9, "signals": False}),
        ('{"id": "a", "args": [1, {"b": []}], "memo": {}, "status": ["x"]}', {"id": "a", "args": [1, {"b": []}], "memo": {}, "status": ["x"]}),
    ],
)  # fmt: skip
def test_a_request_is_read_as_its_fields_say(body: str, read: dict[str, Any]) -> None:
    assert read_request(FIELDS, body.encode()) == read


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "the field id is missing: the id"),
        (b'{"id": null}', "the field id is missing: the id"),
        (b'{"id": 1}', "the field id must be a text, not 1"),
        (b'{"id": "a", "event": true}', "the field event must be an integer, not true"),
        (b'{"id": "a", "event": 1.0}', "the field event must be an integer, not 1.0"),
        (b'{"id": "a", "event": 0}', "the field event must be at least 1, not 0"),
        (b'{"id": "a", "event": 10}', "the field event must be at most 9, not 10"),
        (b'{"id": "a", "timeout": 61}', "the field timeout must be at most 60 seconds, not 61.0"),
        (b'{"id": "a", "timeout": "soon"}', 'the field timeout must be a duration, not "soon": a number of seconds, or a text such as 1h30m'),
        (b'{"id": "a", "timeout": true}', "the field timeout must be a duration, not true: a number of seconds, or a text such as 1h30m"),
        (b'{"id": "a", "signals": 1}', "the field signals must be true or false, not 1"),
        (b'{"id": "a", "reuse": "alow"}', 'the field reuse cannot be "alow"; did you mean allow?'),
        (b'{"id": "a", "reuse": "xyz"}', 'the field reuse cannot be "xyz"; write one of allow, reject'),
        (b'{"id": "a", "args": {}}', "the field args must be a list, not {}"),
        (b'{"id": "a", "memo": []}', "the field memo must be an object, not []"),
        (b'{"id": "a", "status": ["x", 1]}', 'the field status must be a text or a list of texts, not ["x", 1]'),
        (b'{"id": "a", "timeout": 1e400}', 'the field timeout must be a duration, not "Infinity"'),
        (b'{"id": "a", "value": 36893488147419103232}', "the field value cannot be sent: the integer 36893488147419103232 does not fit in 64 bits"),
        (b'{"id": "a", "evnt": 1}', 'no field "evnt"; did you mean event?'),
        (b'{"id": "a", "zzz": 1}', 'no field "zzz"; there are: id, event, timeout, signals, reuse, args, memo, status, value'),
        (b"[]", "the request must be a JSON object, not []"),
        (b'{"id": NaN}', "the request is no JSON: NaN is not JSON"),
        (b'{"id":', "the request is no JSON at line 1 column 7: Expecting value"),
        (b"\xff", "the request is no UTF-8 text; it must be a JSON object"),
        (b"[" * 100_000, "the request is no JSON: maximum recursion depth exceeded"),
    ],
)  # fmt: skip
def test_a_request_that_cannot_be_read_says_what_is_wrong(body: bytes, text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read_request(FIELDS, body)
    assert str(caught.value).startswith(text)


def test_the_fields_are_described_as_a_json_schema() -> None:
    schema = schema_of(FIELDS)
    assert (schema["required"], schema["additionalProperties"]) == (["id"], False)
    assert schema["properties"]["event"] == {"type": "integer", "description": "a number", "minimum": 1, "maximum": 9}
    assert schema["properties"]["reuse"]["enum"] == ["allow", "reject"]
    assert "required" not in schema_of(())


def test_an_answer_is_always_json() -> None:
    assert json.loads(answer_bytes({"a": [float("nan"), float("-inf"), 1.5, b"\xff", "\udcff"]})) == {
        "a": ["NaN", "-Infinity", 1.5, "\ufffd", "?"]
    }


async def test_who_may_only_ask_has_a_node_do_what_it_may_not(nats_server: ServerFactory, tmp_path: Path) -> None:
    """The role client of deploy/ may start and signal, and end nothing and schedule nothing by itself."""
    denied = '["mesh.wf.*.*.kill", "mesh.at.>", "$JS.API.STREAM.PURGE.>"]'
    users = "{user: node, password: n}, {user: client, password: c, permissions: {publish: {deny: %s}}}"
    asking = '{user: nobody, password: x, permissions: {publish: {deny: ["mesh.wf.>", "mesh.at.>", "mesh.api.>"]}}}'
    server = nats_server(config=f"authorization {{ users: [{users % denied}, {asking}] }}")
    at = server.url.removeprefix("nats://")
    app = write_app(tmp_path, workflows=WORKFLOWS, functions=FUNCTIONS)
    async with a_mesh(f"nats://node:n@{at}", app) as mesh, mesh_client(f"nats://client:c@{at}") as client:
        asker = Asker(client)
        started = await mesh.start("waits", id="w")
        done = await carry_out(asker, "reset", id="w", event=1, reason="once more")
        assert (done["base"], await carry_out(asker, "terminate", id="w")) == (
            started.run, {"id": "w", "queue": QUEUE, "run": done["run"]},
        )  # fmt: skip
        assert (await mesh.failed(mesh.get("w"))).status == "terminated"
        added = await carry_out(asker, "schedule.add", id="s", workflow="app:greet", every="1h", run_timeout_s=60.0)
        assert (added["every"], await carry_out(asker, "schedule.ls")) == ("1h", [added])
        assert (await mesh.client.schedules.get("s")).spec.run_timeout_ns == 60 * 10**9
        with pytest.raises(ScheduleExists):
            await carry_out(asker, "schedule.add", id="s", workflow="app:greet", every="1h")
        async with mesh_client(f"nats://nobody:x@{at}") as other:
            with pytest.raises(NotPermitted, match=r"mesh\.wf\.orders\.s\.start: permission denied"):
                await carry_out(Asker(other), "schedule.trigger", id="s")
