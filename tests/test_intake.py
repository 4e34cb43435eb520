"""What others have stored of workflows: which headers may pass, and what a start may say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from mesh.connection import ConnectOptions, connect
from mesh.errors import Undecodable
from mesh.events import Base, EndRecord, NotForOthers, Parent, StartSpec, decode_start
from mesh.history import History
from mesh.jetstream import JetStream
from mesh.subjects import WorkflowKey
from mesh.wire import encode_headers, parse_headers
from node.admission import NotAdmitted, admit
from node.intake import Intake
from node.workflows.engine import _FIRST_START
from node.workflows.others import _was_told
from store.streams import ensure_queue
from tests.apps import a_mesh, write_app
from tests.conftest import ServerFactory
from tests.waiting import wait_until

START, SIGNAL, CANCEL = (f"mesh.in.orders.o-1.{kind}" for kind in ("start", "signal.approve", "cancel"))
EXPECTED = "Nats-Expected-Last-Subject-Sequence"
PLAIN = {"traceparent": "00-ab-cd-01", "tracestate": "a=b", "Content-Type": "application/json", "X-Tenant": "t-1"}


def headers_of(subject: str, headers: dict[str, str]) -> dict[str, str]:
    return parse_headers(admit(subject, b"x", encode_headers(headers)).headers)


def test_a_message_goes_to_the_workflow_that_its_subject_names() -> None:
    assert [admit(subject, b"x", None).subject for subject in (START, SIGNAL, CANCEL)] == [
        "mesh.wf.orders.o-1.start", "mesh.wf.orders.o-1.signal.approve", "mesh.wf.orders.o-1.cancel",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "subject",
    [
        *(f"mesh.in.orders.o-1.{kind}" for kind in ("kill", "ret.1.1.1.ab", "end.1", "exit.1.1", "mark.1.m", "attrs.1")),
        "mesh.in.orders.o-1.signal", "mesh.in.orders.o-1.signal.a.b", "mesh.in.orders.o-1.start.now", "mesh.in.orders.o-1",
        "mesh.in.orders.o%2D1.start", "mesh.in.orders.\ufffd.start", "mesh.in.orders.o-1.signal.\udcff", "mesh.wf.orders.o-1.start",
    ],
)  # fmt: skip
def test_what_is_no_start_signal_or_cancel_is_not_passed_on(subject: str) -> None:
    with pytest.raises(NotAdmitted):
        admit(subject, b"x", None)


@pytest.mark.parametrize("subject", [START, SIGNAL, CANCEL])
def test_headers_that_mean_nothing_to_the_server_or_to_us_pass(subject: str) -> None:
    from_outside = {"Mesh-Intake": "1"} if subject == START else {}
    assert headers_of(subject, PLAIN) == PLAIN | from_outside


@pytest.mark.parametrize(
    ("subject", "name", "value"),
    [(START, EXPECTED, "0"), (START, EXPECTED, "18446744073709551615"), (START, "Mesh-Workflow", "app:w"), (START, "Mesh-Host", "app:h")],
)  # fmt: skip
def test_a_start_says_what_it_expects_and_which_workflow_it_means(subject: str, name: str, value: str) -> None:
    assert headers_of(subject, {name: value})[name] == value


FORBIDDEN = {
    "Nats-Rollup": "all", "nats-rollup": "all", "Nats-Schedule": "@every 1s", "Nats-Schedule-Target": "mesh.wf.orders.x.end.1",
    "Nats-Schedule-TTL": "1s", "Nats-TTL": "1s", "Nats-Marker-Reason": "MaxAge", "Nats-Batch-Id": "b", "Nats-Batch-Sequence": "1",
    "Nats-Batch-Commit": "1", "Nats-Expected-Stream": "WF_x", "Nats-Expected-Last-Sequence": "1", "Nats-Expected-Last-Msg-Id": "m",
    "Nats-Expected-Last-Subject-Sequence-Subject": "mesh.log.>", "nats-msg-id": "m", "Nats-Incr": "+1", "Nats-Trace-Dest": "x",
    "Nats-Service-Error-Code": "500", "Mesh-From": "{app:w@app:h|o-2}", "Mesh-Node": "node-1", "Mesh-Took": "1", "Mesh-Imported": "i 1",
    "Mesh-Origin": "orders o-1 1 1", "Mesh-Events": "1", "Mesh-Follows": "00-ab-cd-01", "Mesh-Intake": "1", "mesh-once": "a/1",
}  # fmt: skip


@pytest.mark.parametrize("name", list(FORBIDDEN))
@pytest.mark.parametrize("subject", [START, SIGNAL, CANCEL])
def test_a_header_by_which_others_could_do_more_than_send_a_message_is_refused(subject: str, name: str) -> None:
    with pytest.raises(NotAdmitted, match=name):
        admit(subject, b"x", encode_headers(PLAIN | {name: FORBIDDEN[name]}))


@pytest.mark.parametrize(
    ("subject", "name"),
    [(SIGNAL, EXPECTED), (CANCEL, EXPECTED), (SIGNAL, "Mesh-Workflow"), (CANCEL, "Mesh-Once"), (START, "Mesh-Once")],
)
def test_a_header_of_one_kind_is_refused_in_another(subject: str, name: str) -> None:
    with pytest.raises(NotAdmitted, match=name):
        admit(subject, b"x", encode_headers({name: "1"}))


@pytest.mark.parametrize(
    "block",
    [
        b"NATS/1.0\r\nX: a\nNats-Rollup: all\r\n\r\n",
        b"NATS/1.0\r\nX: a\rNats-Rollup: all\r\n\r\n",
        b"NATS/1.0\r\n Nats-Rollup: all\r\n\r\n",
        b"NATS/1.0\r\nNats-Rollup : all\r\n\r\n",
        b"NATS/1.0\r\nX\r\n\r\n",
        b"NATS/1.0\r\nNats-Msg-Id: a\r\nNats-Msg-Id: b\r\n\r\n",
        b"NATS/1.0\r\nX: a\r\n\r\nNats-Rollup: all\r\n\r\n",
    ],
)
def test_no_header_hides_from_us_and_is_seen_by_the_server(block: bytes) -> None:
    with pytest.raises(NotAdmitted):
        admit(SIGNAL, b"x", block)


def test_a_status_is_not_passed_on() -> None:
    assert admit(SIGNAL, b"x", b"NATS/1.0 503 Nats-Rollup: all\r\nX: a\r\n\r\n").headers == b"NATS/1.0\r\nX: a\r\n\r\n"


def test_an_expectation_that_is_no_number_is_refused_and_not_forgotten() -> None:
    for value in ("", "-1", "1e3", "1" * 21):
        with pytest.raises(NotAdmitted):
            admit(START, b"x", encode_headers({EXPECTED: value}))


def test_an_identity_of_outside_holds_back_only_the_same_message() -> None:
    """The server has one list of message ids for a stream, and nodes write under ids that can be guessed."""
    guessed = "orders/o-1/5/kill"

    def msg_id(subject: str, value: str) -> str:
        return headers_of(subject, {"Nats-Msg-Id": value})["Nats-Msg-Id"]

    assert msg_id(SIGNAL, guessed) == msg_id(SIGNAL, guessed) != guessed
    assert len({msg_id(SIGNAL, guessed), msg_id(CANCEL, guessed), msg_id("mesh.in.orders.o-2.cancel", guessed)}) == 3
    assert msg_id("mesh.in.orders.o-1.signal.a", "b") != msg_id("mesh.in.orders.o-1.signal.ab", "")


def test_no_identity_of_outside_is_that_of_a_workflows_message() -> None:
    assert headers_of(SIGNAL, {"Mesh-Once": "orders/o-2/1/3"})["Mesh-Once"] == "outside/orders/o-2/1/3"


def test_an_identity_of_one_account_is_none_of_another() -> None:
    """The server says last from which account a message came; where it says nothing readable, none is assumed."""

    def in_account(info: str) -> dict[str, str]:
        return headers_of(SIGNAL, {"Mesh-Once": "a/1", "Nats-Msg-Id": "a/1", "Nats-Request-Info": info})

    one, other = in_account('{"acc":"CLIENTS","rtt":1}'), in_account('{"acc":"OTHERS","rtt":1}')
    assert (one["Mesh-Once"], other["Mesh-Once"]) == ("outside/CLIENTS/a/1", "outside/OTHERS/a/1")
    assert one["Nats-Msg-Id"] != other["Nats-Msg-Id"]
    for broken in ("", "{", "[" * 5000, '{"acc":1}', '["acc"]', '{"acc":""}'):
        assert in_account(broken) == {"Mesh-Once": "outside//a/1", "Nats-Msg-Id": in_account("x")["Nats-Msg-Id"]}
    twice = b'NATS/1.0\r\nNats-Request-Info: {"acc":"A"}\r\nMesh-Once: a/1\r\nNats-Request-Info: {"acc":"B"}\r\n\r\n'
    assert admit(SIGNAL, b"x", twice).headers == b"NATS/1.0\r\nMesh-Once: outside/B/a/1\r\n\r\n"


SPEC = StartSpec(workflow="app:w", entropy=b"e" * 16, messages=({"topic": "t", "body": b"x"},), retry_policy={"a": 1})
CLAIMS = {
    "parent": replace(SPEC, parent=Parent("orders", "victim", 7, 1)),
    "base": replace(SPEC, base=Base(7, 0, 7, 0, 0)),
    "since": replace(SPEC, since=1),
    "attempt": replace(SPEC, attempt=2),
    "chain_started_ns": replace(SPEC, chain_started_ns=1),
    "heard": replace(SPEC, heard=("orders/o-2/1/3",)),
    "messages.from": replace(SPEC, messages=({"topic": "t", "body": b"x", "from": "{app:w@app:h|o-2}"},)),
}


@pytest.mark.parametrize("field", list(CLAIMS))
def test_a_start_from_outside_claims_no_parent_sender_or_earlier_run(field: str) -> None:
    """Refused where it comes in, and where it is read: what is encrypted or in an object store is seen only there."""
    body = CLAIMS[field].encode()
    with pytest.raises(NotAdmitted, match=field):
        admit(START, body, None)
    with pytest.raises(NotForOthers, match=field):
        decode_start(body, headers_of(START, {}))
    assert decode_start(body, {}).workflow == "app:w"


def test_what_nobody_here_can_read_is_passed_on_to_who_can() -> None:
    for body in (b"\xc1\xc1\x01\x01k", b"\xc1\xc1\x02x", b"\xc1\xff", b'{"total": 3}', SPEC.encode()):
        assert admit(START, body, None).subject == "mesh.wf.orders.o-1.start"
    assert decode_start(SPEC.encode(), headers_of(START, {})).entropy == SPEC.entropy
    with pytest.raises(Undecodable):
        decode_start(b"\xc1\xff", headers_of(START, {}))


def test_a_header_is_not_found_in_the_value_of_another_one() -> None:
    """Any user may say in a header of his own what a header of ours says."""
    first = {EXPECTED: "0"}
    assert _FIRST_START in encode_headers(first)
    assert _FIRST_START not in encode_headers({"X-Note": f"{EXPECTED}: 0", f"X-{EXPECTED}": "0"})


async def test_whether_an_ended_workflow_was_told_something_is_not_for_others_to_say(
    nats_server: ServerFactory,
) -> None:
    """After a crash the owner of a sender asks it, and would take a message for sent that never was."""
    once, key = "orders/o-2/1/3", WorkflowKey("orders", "o-1")
    async with connect(nats_server().url, name="test") as conn:
        js = JetStream(conn)
        await ensure_queue(js, "orders", partitions=1)
        run = (await js.publish(key.start(), SPEC.encode())).seq
        for name, value in (("X-Note", once), ("X-Mesh-Once", once), ("Mesh-Once", f"outside/{once}")):
            await js.publish(key.signal("t"), b"x", headers={name: value})
        await js.publish(key.end(run), EndRecord("completed").encode())
        assert not await _was_told(History(js, "orders"), key, f"Mesh-Once: {once}")
        await js.publish(key.signal("t"), b"x", headers={"Mesh-Once": once})
        assert await _was_told(History(js, "orders"), key, f"Mesh-Once: {once}")


OUTCOME = "mesh.in.orders.o-1.ret.5.1.1.abcdef0123.2-00000000"
TWO_ACCOUNTS = """
accounts {
  MESH {
    jetstream: enabled
    users: [ { user: mesh, password: mesh } ]
    imports: [ { service: { account: SHIPPING, subject: shipping.> } } ]
  }
  SHIPPING {
    users: [ { user: shipping, password: shipping } ]
    exports: [ { service: shipping.> } ]
  }
}
"""
HOSTILE = {
    "Nats-Rollup": {"Nats-Rollup": "all"},
    "Nats-Schedule": {
        "Nats-Schedule": "@at 2020-01-01T00:00:00Z",
        "Nats-Schedule-Target": "mesh.wf.orders.victim.end.1",
    },
    "Nats-TTL": {"Nats-TTL": "1s"},
    "Nats-Msg-Id": {"Nats-Msg-Id": "orders/victim/1/kill"},
    "Mesh-From": {"Mesh-From": "{app:worker@app:worker|boss}", "Mesh-Imported": "i 1"},
}


def test_of_the_headers_of_a_services_answer_only_the_error_and_its_own_are_kept() -> None:
    errors = {"Nats-Service-Error": "no such article", "Nats-Service-Error-Code": "404"}
    for name, value in FORBIDDEN.items():
        if name not in errors:
            assert headers_of(OUTCOME, PLAIN | errors | {name: value}) == PLAIN | errors, name
    for subject in ("mesh.in.orders.o-1.ret.5.1", "mesh.in.orders.o-1.ret.5.1.1.ab.cd.ef", "mesh.in.orders.o-1.end.5"):
        with pytest.raises(NotAdmitted):
            admit(subject, b"x", None)


async def test_only_the_answer_of_a_service_is_published_until_the_stream_has_it(nats_server: ServerFactory) -> None:
    """A signal that nobody wants to know of is published once, whatever its workflow is called: twice would be two."""
    url = nats_server().url
    passed_on: dict[str, str] = {}
    async with (
        connect(url, name="node") as conn,
        connect(url, name="other") as other,
        anyio.create_task_group() as tasks,
    ):
        other.subscribe_direct("mesh.wf.>", lambda subject, reply, *_: passed_on.update({subject: reply}))
        await other.flush()
        await tasks.start(Intake(conn).run)
        signal = "mesh.in.orders.ret.signal.approve"
        for subject in (OUTCOME, signal):
            other.publish_nowait(subject, b"x")
        await wait_until(lambda: len(passed_on) == 2)
        assert {subject: bool(reply) for subject, reply in passed_on.items()} == {
            OUTCOME.replace(".in.", ".wf.", 1): True, signal.replace(".in.", ".wf.", 1): False,
        }  # fmt: skip
        tasks.cancel_scope.cancel()


async def test_a_service_in_another_account_deletes_and_forges_nothing_by_a_header_of_its_answer(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    """Its answer is a message for the stream, whose server takes rollups and schedules from whoever writes there."""
    call = "return function(name) return funcs.call('app:' .. name) end"
    app = write_app(
        tmp_path,
        workflows={"ask": call, "wait": "return function() return process.inbox():receive():topic() end"},
        entries=[
            {"name": f"hostile{n}", "kind": "function.nats", "subject": f"shipping.{n}"} for n in range(len(HOSTILE))
        ],
    )
    server = nats_server(config=TWO_ACCOUNTS)
    options = ConnectOptions(user="mesh", password="mesh")
    async with (
        connect(server.url, name="shipping", options=ConnectOptions(user="shipping", password="shipping")) as shipping,
        a_mesh(server.url, app, options=options) as mesh,
    ):
        victim = await mesh.start("wait", id="victim")
        for n, headers in enumerate(HOSTILE.values()):

            def answer(_subject: str, reply: str, _data: bytes, _raw: bytes | None, headers: Any = headers) -> None:
                shipping.publish_nowait(reply, b'"done"', headers=headers)

            shipping.subscribe_direct(f"shipping.{n}", answer)
        await shipping.flush()
        for n, name in enumerate(HOSTILE):
            assert await mesh.run("ask", f"hostile{n}", id=f"ask-{n}") == "done", name
        await victim.signal("still here")
        assert await victim.result(timeout_s=10) == "still here"
        assert await mesh.kinds("victim") == ["start", "signal", "end"]
        assert [await mesh.kinds(f"ask-{n}") for n in range(len(HOSTILE))] == [["start", "ret", "end"]] * len(HOSTILE)
        answers = [event for n in range(len(HOSTILE)) for event in await mesh.events(f"ask-{n}") if event.kind == "ret"]
        set_by_them = {name for headers in HOSTILE.values() for name in headers}
        assert [set_by_them & event.headers.keys() for event in answers] == [set()] * len(HOSTILE)
