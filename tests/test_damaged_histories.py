"""Histories that have lost something: a message deleted by hand, a flipped bit in the store, a tail that is gone.

What can be noticed suspends the workflow, instead of having it do again what it has done. docs/durability.md says what
cannot.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mesh import codec
from mesh.client import Client, connect
from mesh.events import MARK_LOST, UNREADABLE, parse
from mesh.history import History
from mesh.server import embedded_server
from node.workflows.seen import as_token, difference, folded
from store.streams import ensure_queue
from tests.apps import QUEUE, Mesh, a_mesh, is_handled, key, write_app
from tests.conftest import ServerFactory
from tests.flows import Flow
from tests.ports import free_ports
from tests.waiting import wait_until_async

STREAM = "WF_orders"
# Two messages, a call that rests on them, another one, and then it waits.
ORDER = """
return function()
  local inbox = process.listen("item")
  local items = { inbox:receive(), inbox:receive() }
  local charged = funcs.call("app:charge", items)
  funcs.call("app:pack", charged)
  return process.listen("done"):receive()
end
"""
CHARGE = "return function(items) return #items end"
PACK = "return function(n) return n end"


@pytest.fixture
def app(tmp_path: Path) -> Path:
    return write_app(tmp_path / "app", workflows={"order": ORDER}, functions={"charge": CHARGE, "pack": PACK})


# -- what an outcome says of the events before it -------------------------------------------------------------------------


def told() -> Flow:
    """The workflow above, up to where it waits for the last message."""
    flow = Flow(ORDER)
    flow.start()
    for item in ("book", "pen"):
        flow.event("signal", "item", data=codec.encode(item))
    assert flow.ok(1, 2) == ["call 2 app:pack"]
    assert flow.ok(2, 2) == []
    return flow


def replayed(flow: Flow, lacking: int) -> Flow:
    """The same history without one of its events, from 0."""
    again = Flow(ORDER)
    for at, event in enumerate(flow.events):
        if at != lacking:
            again.apply(event)
    return again


def test_a_whole_history_fits() -> None:
    assert replayed(told(), -1).run.suspended == ""


@pytest.mark.parametrize("lacking", [1, 2])
def test_a_message_that_is_gone_is_noticed_at_the_first_outcome_after_it(lacking: int) -> None:
    """The code would wait for another message, and be given an outcome of a call it has not made."""
    run = replayed(told(), lacking).run
    assert (
        run.suspended
        == "the history has an outcome for op 1 (fingerprint aa0707f279), the code has asked for 0 ops so far"
    )


def test_an_outcome_that_is_gone_is_noticed_at_the_next_one() -> None:
    run = replayed(told(), 3).run
    assert "the history has an outcome for op 2" in run.suspended


DIRECT = """
return function()
  local inbox = process.listen("item")
  funcs.call("app:charge", 1)
  while true do
    local item, more = inbox:receive()
    if item == "last" then break end
  end
  return funcs.call("app:pack")
end
"""


def test_a_message_that_changes_nothing_else_is_missed_all_the_same() -> None:
    """The code asks for the same ops without it; the number of events before them says that one is gone."""
    flow = Flow(DIRECT)
    flow.start()
    flow.ok(1)
    for item in ("a", "b", "last"):
        flow.event("signal", "item", data=codec.encode(item))
    flow.ok(2)
    again = Flow(DIRECT)
    for at, event in enumerate(flow.events):
        if at != 3:
            again.apply(event)
    assert again.run.suspended == (
        "op 2, call app:pack: it was asked for after 5 events, the code asks for it after 4 events; the history before it has "
        "lost events or was changed, or the code is not the code that wrote it"
    )


def test_messages_that_have_changed_places_are_noticed() -> None:
    flow = Flow(DIRECT)
    flow.start()
    for topic in ("item", "other"):
        flow.event("signal", topic, data=codec.encode("last"))
    flow.ok(1)
    flow.ok(2)
    again = Flow(DIRECT)
    for at in (0, 2, 1, 3, 4):
        again.apply(flow.events[at])
    assert (
        "op 2, call app:pack: it was asked for after 4 events, the code asks for it after as many, but others"
        in again.run.suspended
    )


def test_outcomes_that_say_nothing_of_what_was_before_are_taken_as_they_are() -> None:
    """Histories of earlier releases, and people who answer by hand."""
    flow = Flow(DIRECT)
    flow.start()
    fp = flow.run.open[1].fp
    assert flow.ret(1, codec.NIL_OUTCOME, fp=fp) == []
    assert flow.run.suspended == ""


def test_an_attempt_that_was_not_the_last_one_and_now_would_be_is_noticed() -> None:
    """The registry says of the function that it is tried once; when it had been tried twice, its success counted."""
    flow = Flow("return function() funcs.call('a:b'); funcs.call('a:c'); return funcs.call('a:d') end")
    flow.start()
    assert flow.fails(1, "no")[0].startswith("retry 1 a:b attempt 2")
    assert flow.ok(1, "good", attempt=2) == ["call 2 a:c"]
    assert flow.ok(2) == ["call 3 a:d"]
    assert flow.replay().run.suspended == ""
    flow.defaults["a:b"] = {"retry_policy": {"maximum_attempts": 1}}
    assert flow.replay().run.suspended.startswith(
        "op 2, call a:c: it was asked for after 2 events, the code asks for it after as many, but others"
    )


def test_somebody_elses_word_for_it_is_named() -> None:
    assert (
        difference("x-y", as_token(3, 0))
        == "somebody else wrote 'x-y' where the number of events before it should stand"
    )
    assert (
        difference("1-00000000", as_token(2, 0))
        == "it was asked for after 1 event, the code asks for it after 2 events"
    )


def test_the_number_of_the_run_is_no_part_of_what_was_seen() -> None:
    """A reset run has the events of the older one under its own number."""
    sums = set()
    for run in ("5", "77"):
        event = parse(key("o").stored(0, "ret", run, "1", "1", "fp"), 9, 9, b"", None)
        assert event is not None
        sums.add(folded(0, event))
    assert len(sums) == 1


# -- a real server ------------------------------------------------------------------------------------------------------


async def a_waiting_order(mesh: Mesh, order_id: str, *, events: int = 5) -> None:
    handle = await mesh.start("order", id=order_id)
    for item in ("book", "pen"):
        await handle.signal("item", item)

    async def waits() -> bool:
        return await is_handled(mesh.client, handle, events=events)

    await wait_until_async(waits)


async def status_of(client: Client, order_id: str) -> tuple[str, str]:
    """Once it is suspended or has ended: the status, and why."""
    handle = client.get(order_id, queue=QUEUE)
    found = [("", "")]

    async def is_settled() -> bool:
        await client.conn.wait_connected()
        state = await handle.describe()
        found.append((str(state.status), str(state.detail.get("reason") or "")))
        return state.status != "running"

    await wait_until_async(is_settled)
    return found[-1]


async def test_a_history_with_a_hole_is_suspended_and_others_go_on(nats_server: ServerFactory, app: Path) -> None:
    url = nats_server().url
    async with a_mesh(url, app) as mesh:
        await a_waiting_order(mesh, "holed")
        await a_waiting_order(mesh, "whole")
        events = await mesh.events("holed")
        await mesh.client.js.delete_message(STREAM, events[1].seq)
    async with a_mesh(url, app, node_id="b") as mesh:
        # Something happens to both, so both are loaded.
        for order_id in ("holed", "whole"):
            await mesh.get(order_id).signal("done", "yes")
        assert await mesh.get("whole").result(timeout_s=20) == "yes"
        status, reason = await status_of(mesh.client, "holed")
        assert status == "suspended"
        assert "op 1" in reason
        assert [event.kind for event in await mesh.events("holed")].count("ret") == 2, "nothing was called again"


def flip(store: Path, planted: bytes) -> None:
    """Flip a bit in the message of the queue's stream that has these bytes."""
    [block] = [path for path in store.glob(f"jetstream/*/streams/{STREAM}/msgs/*.blk") if planted in path.read_bytes()]
    data = bytearray(block.read_bytes())
    data[data.index(planted)] ^= 1
    block.write_bytes(data)


def cut(store: Path, planted: bytes) -> None:
    """End the file of the queue's stream within the message that has these bytes."""
    [block] = [path for path in store.glob(f"jetstream/*/streams/{STREAM}/msgs/*.blk") if planted in path.read_bytes()]
    data = block.read_bytes()
    block.write_bytes(data[: data.index(planted)])


def forget_index(store: Path) -> None:
    """What a crash of the machine does as well: the server goes through its files again, and stops at what is damaged."""
    for path in store.glob(f"jetstream/*/streams/{STREAM}/msgs/index.db"):
        path.unlink()


async def test_an_event_with_a_flipped_bit_is_named_and_the_workflow_suspended(app: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    async with embedded_server(store, port=0) as server, a_mesh(server.url, app) as mesh:
        for order_id in ("damaged", "whole"):
            handle = await mesh.start("order", id=order_id)
            await handle.signal("item", f"first of {order_id}")
            await handle.signal("item", "pen")
            await handle.history()
        await wait_until_async(lambda: is_handled(mesh.client, mesh.get("damaged"), events=5))
        await wait_until_async(lambda: is_handled(mesh.client, mesh.get("whole"), events=5))
        await mesh.get("damaged").signal("other", "planted in damaged")
        await wait_until_async(lambda: is_handled(mesh.client, mesh.get("damaged"), events=6))
    flip(store, b"planted in damaged")
    async with embedded_server(store, port=0) as server, a_mesh(server.url, app) as mesh:
        for order_id in ("damaged", "whole"):
            await mesh.get(order_id).signal("done", "yes")
        assert await mesh.get("whole").result(timeout_s=20) == "yes"
        status, reason = await status_of(mesh.client, "damaged")
        assert (status, "signal other" in reason) == ("suspended", True), reason
        kinds = await mesh.kinds("damaged")
        assert kinds[:2] == ["start", UNREADABLE]
        assert kinds.count("ret") == 2, "the rest can be read, and nothing was called again"


async def test_a_start_that_cannot_be_read_is_said_and_not_taken_for_none(
    app: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = tmp_path / "store"
    async with embedded_server(store, port=0) as server, connect(server.url) as client:
        await ensure_queue(client.js, QUEUE, partitions=1)
        await client.js.publish(
            key("damaged").start(), codec.encode({"workflow": "app:order", "memo": {"x": "planted"}})
        )
    flip(store, b"planted")
    async with embedded_server(store, port=0) as server, a_mesh(server.url, app) as mesh:
        await mesh.get("damaged").signal("item", 1)
        await wait_until_async(
            lambda: said(caplog, "the start of workflow 'damaged' is in the index of stream WF_orders")
        )
        with pytest.raises(Exception, match="its files are damaged"):
            await mesh.client.history(QUEUE).last_run(key("damaged"))


async def ends_with_mark(mesh: Mesh) -> bool:
    return (await mesh.kinds("cut"))[-1] == "mark"


async def said(caplog: pytest.LogCaptureFixture, text: str) -> bool:
    return text in caplog.text


@pytest.mark.parametrize(("node_lives", "index_is_left"), [(True, False), (True, True), (False, False)])
async def test_a_tail_that_is_gone_suspends_whoever_had_seen_it_on_every_node(
    app: Path, tmp_path: Path, *, node_lives: bool, index_is_left: bool
) -> None:
    """The server has come up without the newest messages, as after a power failure without flushing."""
    store = tmp_path / "store"
    stopped, damaged = asyncio.Event(), asyncio.Event()

    async def first_server(use: Callable[[str], object]) -> None:
        async with embedded_server(store, port=port) as server:
            use(server.url)
            await stopped.wait()
        if index_is_left:
            cut(store, b"planted")  # the server knows that something is missing
        else:
            flip(store, b"planted")
            forget_index(store)
        damaged.set()

    (port,) = free_ports(1)
    found: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(first_server(found.set_result))
    url = await found
    try:
        async with a_mesh(url, app) as mesh:
            await a_waiting_order(mesh, "older")
            await a_waiting_order(mesh, "cut")
            handle = mesh.get("cut")
            await handle.signal("other", "planted")
            await wait_until_async(lambda: is_handled(mesh.client, handle, events=6))
            if node_lives:
                stopped.set()
                await damaged.wait()
                async with embedded_server(store, port=port):
                    status, reason = await status_of(mesh.client, "cut")
                    assert (status, "the server has lost events" in reason) == ("suspended", True), reason
                    # It is suspended at once, and the reason is on its way to its history.
                    await wait_until_async(lambda: ends_with_mark(mesh))
                    assert await mesh.client.js.lost_bytes(STREAM) > 0, "which `mesh doctor` says"
                    assert (await mesh.events("cut"))[-1].args[1] == MARK_LOST
                    await mesh.get("older").signal("done", "yes")
                    assert await mesh.get("older").result(timeout_s=20) == "yes"
        if not node_lives:
            stopped.set()
        await serving
    finally:
        serving.cancel()
    async with embedded_server(store, port=port) as server, a_mesh(server.url, app, node_id="b") as mesh:
        if node_lives:
            await mesh.get("cut").signal("done", "yes")
            assert (await status_of(mesh.client, "cut"))[0] == "suspended", "another node does not forget it"
        else:
            # Nobody is left who has seen it; that the stream is shorter than a checkpoint is all there is to notice.
            await mesh.get("older").signal("done", "yes")
            assert await mesh.get("older").result(timeout_s=20) == "yes"


async def test_a_tail_that_others_have_replaced_is_noticed_by_the_next_owner(
    nats_server: ServerFactory, app: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The stream does not end before the checkpoint: others have written what has these numbers now."""
    server = nats_server()
    store, kept = server.directory / "store", server.directory / "kept"
    queue_files = f"jetstream/$G/streams/{STREAM}"
    async with a_mesh(server.url, app, partitions=1) as mesh:
        await a_waiting_order(mesh, "older")
        await a_waiting_order(mesh, "cut", events=5)
    server.stop()
    shutil.copytree(store / queue_files, kept)
    server.start()
    async with a_mesh(server.url, app, partitions=1) as mesh:
        handle = mesh.get("cut")
        await handle.signal("other", 1)
        await handle.signal("other", 2)
        await wait_until_async(lambda: is_handled(mesh.client, handle, events=7))
        await mesh.node.leave()
    server.stop()
    shutil.rmtree(store / queue_files)
    shutil.copytree(kept, store / queue_files)
    server.start()
    async with connect(server.url) as client:
        for n in range(3):
            await client.get("older", queue=QUEUE).signal("other", n)
    async with a_mesh(server.url, app, partitions=1, node_id="b") as mesh:
        assert "has others than before" in caplog.text
        await mesh.get("older").signal("done", "yes")
        assert await mesh.get("older").result(timeout_s=20) == "yes"


async def test_a_message_deleted_while_a_history_is_read_is_no_damage(nats_server: ServerFactory) -> None:
    async with connect(nats_server().url) as client:
        await ensure_queue(client.js, QUEUE, partitions=1)
        run = (await client.js.publish(key("o").start(), b"{}")).seq
        ack = await client.js.publish(key("o").ret(run, 1, 1, "fp"), b"")
        await client.js.delete_message(STREAM, ack.seq)
        history = History(client.js, QUEUE)
        messages, unreadable = await history._one_by_one([key("o").stored(0, "ret", str(run), "1", "1", "fp")])
        assert (messages, unreadable) == ([], [])
