"""The clients of a chaos run: they start, signal and cancel workflows, and keep a ledger of what they were told.

    async with anyio.create_task_group() as tasks:
        stop = anyio.Event()
        tasks.start_soon(load.run, urls, record, seed, stop)
        ...                         # the nemesis does its work
        stop.set()
    await load.drain(urls, record, timeout_s)   # when everything is up again

Every attempt is in the ledger before it is made, and its acknowledgement after; an attempt without one has an unknown
outcome. Clients are careful users: what got no answer is repeated under the same identity. One kind of sender has none
("bare") and never repeats.

`run` stops in the middle of whatever it is doing. `drain` goes by the ledger alone: it brings every script to its end,
waits for the results, and then writes down what the server holds (`tests.chaos.collecting`).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import anyio
import anyio.abc

import mesh.client
from mesh import codec
from mesh.client import Client, WorkflowFailed, WorkflowHandle, WorkflowSuspended
from mesh.errors import Conflict, MeshError, OutcomeUnknown, PayloadTooLarge
from mesh.events import HEADER_HOST, HEADER_ONCE, HEADER_WORKFLOW, decode_end
from mesh.failure import Failure
from mesh.groups import unwrapped
from mesh.starting import AlreadyStarted
from mesh.subjects import WorkflowKey
from tests.chaos.collecting import QUIET_S, collect
from tests.chaos.plan import Script, Sender, Shape, script
from tests.chaos.record import QUEUE, Record, append

HOST: Final = "chaos:worker"
STAMP: Final = "chaos.stamp"
AGAIN_S: Final = 0.25
ANSWER_S: Final = 3.0
CLIENTS: Final = 3
LOOK_S: Final = 0.05
LOOK_S_MAX: Final = 0.4


@dataclass(slots=True)
class Known:
    """What the ledger says about one workflow. attempted, acknowledged: (op, sender, n)."""

    script: Script
    attempted: set[tuple[str, str, int]] = field(default_factory=set)
    acknowledged: set[tuple[str, str, int]] = field(default_factory=set)
    run: int = 0
    ended: bool = False


async def run(urls: Sequence[str], record: Record, seed: int, stop: anyio.Event, *, shape: Shape | None = None) -> None:
    """Start workflows and see to them until told to stop. A seed gives the same scripts in the same order."""
    shape = shape or Shape()
    open_limit = anyio.CapacityLimiter(shape.open_max)
    with unwrapped():
        async with _clients(urls) as clients, anyio.create_task_group() as tasks:
            service = Service(clients[0], record)
            await service.ready()

            async def see_to(number: int) -> None:
                made = script(seed, number, shape)
                async with open_limit:
                    record.note("plan", made.workflow, **_without_workflow(made))
                    await Clerk(clients, record, Known(made), number).see_through()

            async def start_all() -> None:
                number = 0
                while not shape.at_most or number < shape.at_most:
                    tasks.start_soon(see_to, number)
                    number += 1
                    await anyio.sleep(1 / shape.rate)

            tasks.start_soon(start_all)
            await stop.wait()
            tasks.cancel_scope.cancel()


async def drain(urls: Sequence[str], record: Record, timeout_s: float, *, quiet_s: float = QUIET_S) -> bool:
    """Bring everything that was begun to its end and write down what is left; whether all came to an end in time.

    quiet_s: how long it is waited, after that, until nothing moves in the mesh any more. What does not come to its end is the checker's to find.
    """
    in_time = False
    with unwrapped():
        async with _clients(urls) as clients:
            service = Service(clients[0], record)
            await service.ready()
            with anyio.move_on_after(timeout_s):
                async with anyio.create_task_group() as tasks:
                    for number, known in enumerate(read_ledger(record).values()):
                        if not known.ended:
                            tasks.start_soon(Clerk(clients, record, known, number).see_through)
                in_time = True
            record.note("drained" if in_time else "not-drained", "")
            await collect(clients[1], record, quiet_s)
    return in_time


def read_ledger(record: Record) -> dict[str, Known]:
    """What is known about each workflow, in the order in which they were planned."""
    found: dict[str, Known] = {}
    for line in record.ledger():
        if line["op"] == "plan":
            found[line["workflow"]] = Known(Script.from_json(line))
            continue
        known = found.get(line["workflow"])
        if known is None:
            continue
        what = (line["op"], line.get("sender", ""), line.get("n", 0))
        if line["op"] == "result":
            known.ended = True
        elif line["state"] == "attempted":
            known.attempted.add(what)
        elif line["state"] == "acknowledged":
            known.acknowledged.add(what)
            known.run = line.get("run", known.run)
    return found


class Clerk:
    """Sees one workflow through: its start, its messages, its closing, its result."""

    def __init__(self, clients: Sequence[Client], record: Record, known: Known, number: int) -> None:
        self._client = clients[number % len(clients)]
        # Messages go through another connection than the start: nothing but acknowledgements orders them.
        self._sending = clients[(number + 1) % len(clients)]
        self._record = record
        self._known = known
        self._script = known.script
        self._key = WorkflowKey(QUEUE, known.script.workflow)
        self._quiet = number % 4 != 0

    async def see_through(self) -> None:
        """Do everything that the ledger does not say was done."""
        script = self._script
        await self._persist(("start", "", 0), self._start, repeats=True)
        async with anyio.create_task_group() as tasks:
            for sender in script.senders:
                tasks.start_soon(self._send_all, sender)
            if script.asked_after_ms:
                tasks.start_soon(self._ask_to_stop)
        if script.closing == "last":
            await self._persist(("signal", "", 0), self._say_last, repeats=True)
        elif script.closing == "cancel":
            await self._persist(("cancel", "", 0), self._cancel, repeats=True)
        elif script.closing == "kill":
            await self._persist(("kill", "", 0), self._kill, repeats=True)
        await self._result()

    async def _persist(
        self, what: tuple[str, str, int], attempt: Callable[[], Awaitable[dict[str, Any]]], *, repeats: bool
    ) -> None:
        """Attempt something until it is acknowledged; once only, and for ever unknown, if it must not be repeated."""
        op, sender, n = what
        about = {"sender": sender, "n": n} if op == "signal" else {}
        if what in self._known.acknowledged or (what in self._known.attempted and not repeats):
            return
        while True:
            self._record.note(op, self._script.workflow, state="attempted", **about)
            try:
                told = await attempt()
            except (MeshError, TimeoutError) as error:
                if isinstance(error, PayloadTooLarge):
                    raise
                self._record.note(op, self._script.workflow, state="unknown", why=str(error)[:200], **about)
                if not repeats:
                    return
                await anyio.sleep(AGAIN_S)
                continue
            self._record.note(op, self._script.workflow, state="acknowledged", **about, **told)
            return

    async def _start(self) -> dict[str, Any]:
        script = self._script
        if script.raw_start:
            return await self._start_raw()
        startup = [("note", {"sender": "startup", "n": n}) for n in range(1, script.startup + 1)]
        try:
            handle = await self._client.start(
                script.type, script.input, host=HOST, id=script.workflow, reuse="reject_duplicate", messages=startup
            )
        except AlreadyStarted:
            # By an attempt of ours that got no answer: it has run and come to its end.
            found = await self._client.history(QUEUE).last_run(self._key)
            if found is None:
                raise OutcomeUnknown(self._key.start()) from None
            return {"run": found[0].run, "existed": True}
        return {"run": handle.run, "existed": handle.existing}

    async def _start_raw(self) -> dict[str, Any]:
        """As somebody would who has nothing but the `nats` tool: the input as JSON, and not if it is there already."""
        headers = {HEADER_WORKFLOW: self._script.type, HEADER_HOST: HOST}
        body = json.dumps(self._script.input).encode()
        try:
            ack = await self._client.js.publish(
                self._key.start(), body, headers=headers, expect_last_subject_seq=0, timeout_s=ANSWER_S
            )
        except Conflict:
            found = await self._client.history(QUEUE).last_run(self._key)
            if found is None:
                raise OutcomeUnknown(self._key.start()) from None
            return {"run": found[0].run, "existed": True}
        return {"run": ack.seq, "existed": False}

    async def _send_all(self, sender: Sender) -> None:
        for n in range(1, sender.count + 1):

            async def send(n: int = n) -> dict[str, Any]:
                return await self._send(sender, n)

            await self._persist(("signal", sender.name, n), send, repeats=sender.how != "bare")
            await anyio.sleep(sender.gap_ms / 1e3)

    async def _send(self, sender: Sender, n: int) -> dict[str, Any]:
        value = {"sender": sender.name, "n": n}
        once = f"{self._script.workflow}/{sender.name}/{n}"
        if sender.how == "client":
            handle = self._sending.get(self._script.workflow, queue=QUEUE)
            return {"seq": await handle.signal(sender.topic, value, once=once), "how": "client"}
        headers = {HEADER_ONCE: once} if sender.how == "once" else {}
        body = json.dumps(value).encode()
        ack = await self._sending.js.publish(
            self._key.signal(sender.topic), body, headers=headers, timeout_s=ANSWER_S
        )  # fmt: skip
        if sender.how == "once" and n % 2 == 0:
            # To be sure: whoever has an identity may say a thing twice.
            await self._sending.js.publish(
                self._key.signal(sender.topic), body, headers=headers, timeout_s=ANSWER_S
            )  # fmt: skip
        return {"seq": ack.seq, "how": sender.how}

    async def _say_last(self) -> dict[str, Any]:
        once = f"{self._script.workflow}/closing/0"
        handle = self._sending.get(self._script.workflow, queue=QUEUE)
        return {"seq": await handle.signal("note", {"last": True}, once=once), "how": "client"}

    async def _ask_to_stop(self) -> None:
        await anyio.sleep(self._script.asked_after_ms / 1e3)
        await self._persist(("cancel", "", 0), self._cancel, repeats=True)

    async def _cancel(self) -> dict[str, Any]:
        await self._client.get(self._script.workflow, queue=QUEUE).cancel()
        return {}

    async def _kill(self) -> dict[str, Any]:
        await self._client.get(self._script.workflow, queue=QUEUE).terminate()
        return {}

    async def _result(self) -> None:
        if self._quiet:
            await self._watch_for_end()
        else:
            await self._ask_for_result()

    async def _watch_for_end(self) -> None:
        """Wait for the end in the log alone, and ask nobody.

        Whoever asks a workflow's owner how it is doing makes it look: a workflow that was forgotten comes back to life.
        """

        def on_suspended(_subject: str, _reply: str, data: bytes, _raw_headers: bytes | None) -> None:
            self._record.note("suspended", self._script.workflow, state="seen", why=str(codec.decode(data))[:300])

        notes = self._client.conn.subscribe_direct(self._key.note("suspended"), on_suspended)
        history = self._client.history(QUEUE)
        look_s = LOOK_S
        try:
            while True:
                try:
                    found = await history.last_run(self._key)
                except MeshError as error:
                    self._record.note("waiting", self._script.workflow, state="again", why=str(error)[:200])
                    found = None
                if found is not None and found[1] is not None and not found[1].goes_on:
                    record = decode_end(found[1].data)
                    self._tell(record.status, record.value())
                    return
                await anyio.sleep(look_s)
                look_s = min(look_s * 2, LOOK_S_MAX)
        finally:
            notes.unsubscribe()

    def _tell(self, status: str, value: Any) -> None:
        if isinstance(value, Failure):
            told = {"kind": value.kind, "message": value.message, "details": _plain(dict(value.details))}
            self._record.note("result", self._script.workflow, status=status, **told)
        else:
            self._record.note("result", self._script.workflow, status=status, value=_plain(value))

    async def _ask_for_result(self) -> None:
        handle = WorkflowHandle(self._client, self._key)
        while True:
            try:
                value = await handle.result()
            except WorkflowFailed as error:
                self._tell(error.status, error.failure)
                return
            except WorkflowSuspended as error:
                self._record.note("suspended", self._script.workflow, state="seen", why=str(error)[:300])
                await anyio.sleep(4 * AGAIN_S)
            except MeshError as error:
                self._record.note("waiting", self._script.workflow, state="again", why=str(error)[:200])
                await anyio.sleep(AGAIN_S)
            else:
                self._tell("completed", value)
                return


class Service:
    """A service outside of the mesh: it knows nothing of workflows and answers every request twice, each time anew."""

    def __init__(self, client: Client, record: Record) -> None:
        self._conn = client.conn
        self._file = record.effects_file("stamp")
        self._count = 0

    async def ready(self) -> None:
        """Serve while the connection is there."""
        self._conn.subscribe_direct(STAMP, self._on_request, queue="stamp")
        await self._conn.flush()

    def _on_request(self, _subject: str, reply: str, data: bytes, _raw_headers: bytes | None) -> None:
        request = json.loads(data)
        for _ in range(2):
            self._count += 1
            token = f"stamp-{os.getpid()}-{time.time_ns()}-{self._count}"
            append(
                self._file,
                {
                    "what": "end", "at_ns": time.time_ns(), "mono_ns": time.monotonic_ns(), "token": token,
                    "function": "stamp", "workflow": request.get("workflow", ""), "step": "stamp",
                    "key": request.get("key", ""), "seen": None, "run": 0, "op": 0, "attempt": 0, "pid": os.getpid(),
                    "node": "stamp",
                },
            )  # fmt: skip
            try:
                self._conn.publish_nowait(reply, json.dumps({"token": token}).encode())
            except MeshError:
                return  # the workflow asks again when its time is over


@asynccontextmanager
async def _clients(urls: Sequence[str]) -> AsyncIterator[list[Client]]:
    """Several connections, so that what they say is ordered by nothing but acknowledgements."""
    async with (
        mesh.client.connect(urls, name="chaos-0") as first,
        mesh.client.connect(urls, name="chaos-1") as second,
        mesh.client.connect(urls, name="chaos-2") as third,
    ):
        yield [first, second, third]


def _without_workflow(made: Script) -> dict[str, Any]:
    return {name: value for name, value in made.to_json().items() if name != "workflow"}


def _plain(value: Any) -> Any:
    return json.loads(codec.to_json(value))
