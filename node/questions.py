"""What a node is asked over the mesh: whether it is up, what it does, and what a workflow of its own is doing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import anyio
import anyio.abc

from mesh import codec
from mesh.connection import Connection
from mesh.envelopes import answer_context
from mesh.errors import Disconnected, MeshError, PayloadTooLarge, Undecodable
from mesh.subjects import may_be_answered, node_request, token
from node.inventory import Inventory
from node.workflows.engine import Engine

# What is left out of a description that does not fit into a message, one after the other; at last open ops.
SPARED: Final = (("ops",), ("globals", "coroutines"), ("stacks",), ("tasks",), ("mailbox",), ("children",))


class Questions:
    """Answers questions to one node.

    status: what it is doing. suspended: runs that cannot go on. inventory: what it has.
    """

    def __init__(
        self,
        conn: Connection,
        node_id: str,
        *,
        status: Callable[[], dict[str, Any]],
        suspended: Callable[[], list[dict[str, Any]]],
        inventory: Inventory,
    ) -> None:
        self._conn = conn
        self._node_id = node_id
        self._status = status
        self._inventory = inventory
        self._suspended = suspended

    def start(self) -> None:
        """Answer questions about the node as long as the connection lives."""
        self._conn.subscribe_direct(node_request(self._node_id, "ping"), self._on_ping)
        self._conn.subscribe_direct(node_request(self._node_id, "status"), self._on_status)
        self._conn.subscribe_direct(node_request(self._node_id, "functions"), self._on_functions)
        self._conn.subscribe_direct(node_request(self._node_id, "processes"), self._on_processes)
        self._conn.subscribe_direct(node_request(self._node_id, "suspended"), self._on_suspended)

    def _on_ping(self, _subject: str, reply: str, _data: bytes, _raw_headers: bytes | None) -> None:
        self._reply("", reply, {"node": self._node_id})

    def _on_status(self, _subject: str, reply: str, _data: bytes, _raw_headers: bytes | None) -> None:
        self._reply("", reply, self._status())

    def _on_functions(self, _subject: str, reply: str, _data: bytes, _raw_headers: bytes | None) -> None:
        self._reply_list(reply, {}, "functions", self._inventory.functions())

    def _on_processes(self, _subject: str, reply: str, data: bytes, _raw_headers: bytes | None) -> None:
        try:
            wish = codec.decode(data)
        except Undecodable:
            wish = None
        answer = self._inventory.processes(wish if isinstance(wish, dict) else {})
        self._reply_list(reply, {"total": answer["total"]}, "shown", answer["shown"])

    def _on_suspended(self, _subject: str, reply: str, _data: bytes, _raw_headers: bytes | None) -> None:
        self._reply_list(reply, {}, "suspended", self._suspended())

    def _reply_list(self, reply: str, head: dict[str, Any], name: str, items: list[dict[str, Any]]) -> None:
        """Reply with as many items of a list as a message takes; `total` says how many there are."""
        total = head.get("total", len(items))
        while not self._reply("", reply, {**head, "total": total, name: items}) and items:
            items = items[: len(items) // 2]

    def _reply(self, subject: str, reply: str, value: object) -> bool:
        """Reply, if somebody wants that in his inbox; False when it is too large for a message.

        subject: of the request, when the answer holds values of users, which only those who have the keys may read.
        """
        if reply and may_be_answered(reply, outcomes=False):
            try:
                context = answer_context(subject) if subject else ""
                self._conn.publish_nowait(reply, codec.encode(value), context=context)
            except PayloadTooLarge:
                return False
            except Disconnected:
                pass
        return True

    async def serve_owner(self, engine: Engine) -> None:
        """Answer questions about workflows whose partition this node owns."""
        async with anyio.create_task_group() as tasks:

            def on_request(subject: str, reply: str, data: bytes, _raw_headers: bytes | None) -> None:
                number = subject.split(".")[3]
                if reply and number.isdecimal() and int(number) in engine.partitions:
                    tasks.start_soon(self._describe, engine, subject, reply, data)

            subject = f"mesh.queue.{token(engine.queue)}.*.describe"
            subscription = self._conn.subscribe_direct(subject, on_request)
            try:
                await anyio.sleep_forever()
            finally:
                subscription.unsubscribe()

    async def _describe(self, engine: Engine, subject: str, reply: str, data: bytes) -> None:
        """Answer {id}: what a workflow is doing; {id, full}: with variables and ops; {id, run, at}: how it was.

        What cannot be answered is a `note` to the first two, and a `problem` to the third.
        """
        described: dict[str, Any] | None = None
        looks_back = False
        try:
            wish = codec.decode(data)
            if isinstance(wish, dict) and "id" in wish:
                looks_back = isinstance(wish.get("run"), int)
                if looks_back:
                    at = wish.get("at")
                    described = await engine.look_back(str(wish["id"]), wish["run"], at if isinstance(at, int) else 0)
                else:
                    described = await engine.describe(str(wish["id"]), full=bool(wish.get("full")))
        except (Undecodable, MeshError) as error:
            described = _refusal(looks_back, error)
        answer = {**described, "node": self._node_id} if described else None
        for spared in SPARED:
            if self._reply(subject, reply, answer) or answer is None:
                return
            left_out = [*answer.get("left_out", ()), *(name for name in spared if answer.get(name))]
            answer = {name: value for name, value in answer.items() if name not in spared} | {"left_out": left_out}
        while answer and not self._reply(subject, reply, answer) and answer.get("waiting"):
            answer["waiting"] = answer["waiting"][: len(answer["waiting"]) // 2]
            answer["left_out"] = [*(name for name in answer["left_out"] if name != "waiting"), "waiting"]


def _refusal(looks_back: bool, error: MeshError) -> dict[str, Any]:
    return {"problem": str(error)} if looks_back else {"status": "running", "note": str(error)}
