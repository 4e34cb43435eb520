"""A call that was taken for lost and answered after all: the history read back is the one that was lived.

Two messages on one subject: the failure that the owner recorded, then the success that the host had to write again
(a server restart took the acknowledgement). The run went on with the success; a replay that saw only one of the two
would ask for other ops than those that have outcomes.
"""

from __future__ import annotations

import mesh.client
from mesh import codec
from mesh.events import StartSpec
from mesh.failure import Failure
from mesh.subjects import WorkflowKey
from node.workflows.ops import fingerprint
from node.workflows.retry import LOST
from store.streams import ensure_queue
from tests.conftest import ServerFactory
from tests.flows import Flow

SOURCE = "local funcs = require('funcs') return function() return funcs.call('a:one') + funcs.call('a:two') end"


def test_success_of_an_attempt_that_was_taken_for_lost_is_the_outcome() -> None:
    flow = Flow(SOURCE)
    flow.start()

    assert flow.fails(1, Failure("the host is gone", LOST, True)) == ["retry 1 a:one attempt 2 at +0ms"]
    assert flow.ok(1, 40) == ["call 2 a:two"]
    assert flow.ok(2, 2) == ["end completed 42"]
    assert flow.ok(1, 40, attempt=2) == []

    assert flow.replay().result == 42


async def test_history_keeps_both_outcomes_that_an_attempt_has_had(nats_server: ServerFactory) -> None:
    """In their order, with what came between and after: a replay must see what was seen live."""
    async with mesh.client.connect(nats_server().url) as client:
        await ensure_queue(client.js, "orders")
        key = WorkflowKey("orders", "w-1")
        started = await client.js.publish(key.start(), StartSpec(workflow="app:flow", entropy=b"e").encode())
        one, two = (
            key.ret(started.seq, n, 1, fingerprint("call", target)) for n, target in ((1, "a:one"), (2, "a:two"))
        )
        lost = codec.encode_failure(Failure("the host is gone", LOST, True))
        for subject, data in (
            (one, lost),
            (one, codec.encode_success(40)),
            (two, codec.encode_success(2)),
            (one, codec.encode_success(40)),
        ):
            await client.js.publish(subject, data)

        events = await client.history("orders").events(key, started.seq)
        only = await client.history("orders").only_run(key)

        told = [(event.kind, *event.args[1:2], codec.decode_outcome(event.data)[0]) for event in events[1:]]
        assert told == [("ret", "1", False), ("ret", "1", True), ("ret", "2", True), ("ret", "1", True)]
        assert only is not None
        assert only[1] == events
        assert only[0].run == started.seq
