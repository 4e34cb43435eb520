"""An order outlives the node that runs it: `python -m examples.orders.demo`.

Starts a server, three nodes and a shipping service, each a process of its own, starts an order, shows what happens to
it as it happens, kills the very node that owns it with SIGKILL while it sleeps, and shows who goes on. Everything that
is printed was read from the mesh, from the ledger, or from the operating system; whatever does not come out as claimed
ends the demo with exit code 1 and the reason. All processes end with it, and its files go too.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
from rich.text import Text

import mesh.client
from examples.orders.backoffice import ledger
from examples.orders.children import APP, NODES, ChildEnded, Children, running_children
from examples.orders.screen import Screen
from examples.orders.watching import FUNCTION, SERVICE, Fact, Histories, Roster, brief
from mesh.client import Client, WorkflowHandle
from mesh.errors import MeshError
from mesh.groups import unwrapped
from mesh.roster import BUCKET
from mesh.server import embedded_server
from mesh.subjects import WorkflowKey, stream_name
from node.registry import NatsFunctionEntry, load_registry
from store.streams import queue_stream

HOST = "app:temporal_worker"
QUEUES = ("orders", "packing")

SETTLE_S = 5  # how long the bank takes; 24h in earnest
KILL_AFTER_S = 1.5  # into that sleep
LOOK_S = 1.0  # how long a workflow is left waiting, so that one sees it wait
ANSWER_S = 0.2  # to a question; then it is asked again
WAIT_S = 40.0  # for any one thing, on a machine with much else to do
LIMIT_S = 90.0

ORDER = {"id": "order-1", "card": "4000-1111", "amount": 4990, "settle": f"{SETTLE_S}s", "approval": True}
REQUEST = {"subject": "a lamp", "deadline": "1h"}
FAR_ORDER = {
    "id": "order-2",
    "sku": "teapot",
    "quantity": 2,
    "card": "4000-1111",
    "amount": 3800,
    "country": "Atlantis",
}


class DemoFailed(Exception):
    """Raised when something that the demo claims did not happen."""


class Demo:
    """The story, told by what the mesh says."""

    def __init__(self, screen: Screen, children: Children, client: Client) -> None:
        self.screen = screen
        self.children = children
        self.client = client
        self.roster = Roster(client)
        self.killed: dict[str, int] = {}
        self.facts: list[Fact] = []
        self._pids = {children.pid("shipping"): "shipping"}
        self._workflow = ""
        self._news = anyio.Event()
        functions = {
            str(entry_id): SERVICE if isinstance(entry, NatsFunctionEntry) else FUNCTION
            for entry_id, entry in load_registry(APP, environ=os.environ).functions().items()
        }
        self.histories = Histories(client, "orders", functions, self.roster, self._on_fact)
        self.roster.on_join = self._on_join
        self.roster.on_gone = self._on_gone
        screen.board = self._board

    async def watch(self, tasks: anyio.abc.TaskGroup) -> None:
        """Listen to the mesh, as soon as the first node has set it up."""
        await self._until("the nodes set the mesh up", lambda: self._exists(f"KV_{BUCKET}"))
        await tasks.start(self.roster.follower().run)
        await self._until("the nodes set the queue up", lambda: self._exists(stream_name("orders")))
        await tasks.start(self.histories.follower().run)
        self.histories.listen_to_calls(time.time_ns)

    async def tell(self) -> list[str]:
        """Tell the whole story; return what it has shown."""
        await self._until("all nodes join", lambda: len(self.roster.members) == len(NODES))
        streams = [await queue_stream(self.client.js, queue) for queue in QUEUES]
        partitions = [stream.partitions for stream in streams if stream is not None]
        await self._until("the partitions are shared evenly", lambda: self._is_settled(partitions))
        shares = ", ".join(f"{node} {count}" for node, count in sorted(self.roster.shares().items()))
        self.screen.say("", f"{sum(partitions)} partitions of {len(QUEUES)} queues: {shares}")
        shown = await self._order()
        shown += await self._approval()
        shown += await self._saga()
        return shown

    # ---- the order -------------------------------------------------------------------------------------------------

    async def _order(self) -> list[str]:
        self._begin("order-1", "charge a card, sleep, check, wait for approval")
        handle = await self.client.start("app.workflows:order_processor", ORDER, host=HOST, id="order-1")
        timer = await self._fact("timer")
        await anyio.sleep(KILL_AFTER_S)

        partition = self.histories.partition("order-1")
        first = await self._owner(handle, partition)
        _expect(time.time_ns() < timer.due_ns, "the order was to be killed in its sleep; is this machine very busy?")
        pid = self.roster.members[first]
        second, took_ms = await self._kill(first, pid, partition)
        runs, waiting = await self._describe(handle)
        _expect(runs == second, f"{second} claimed the order, but {runs} runs it")
        left_s = (max((op.get("due_ns", 0) for op in waiting), default=0) - time.time_ns()) / 1e9
        _expect(left_s > 0, f"{second} knows nothing of the order's timer: it says {waiting}")
        self.screen.say(second, f"has replayed the history and knows: {left_s:.1f} s to sleep")

        status = await self._fact("ret", after_ns=timer.due_ns)
        step_ms = (status.at_ns - timer.due_ns) / 1e6
        await self._until("the order waits for a message", lambda: self._waits_for_message(handle))
        self.screen.say(second, f"waits for a message; its step was done {step_ms:.0f} ms after its timer")
        await anyio.sleep(LOOK_S)
        await handle.signal("approve", {"approved": True, "by": "you"})
        result = await self._result(handle)

        end = await self._fact("end")
        _expect(end.who == second, f"{second} took the order over, but it ended under {end.who}")
        charges = [entry for entry in self._ledger("order-1") if entry["effect"] == "charge"]
        _expect(
            result == {"order_id": "order-1", "state": "paid", "charge_id": "ch-order-1"},
            f"the order came out as {result}",
        )
        _expect(len(charges) == 1, f"the card was charged {len(charges)} times")
        return [
            f"order-1 was {first}'s when {first} (pid {pid}) was killed with SIGKILL",
            f"it was {second}'s {took_ms:.0f} ms later, and {second} brought it to its end: {result['state']}",
            f"the ledger has {len(charges)} charge for it, by {self._name(charges[0]['pid'])}",
        ]

    async def _kill(self, node: str, pid: int, partition: int) -> tuple[str, float]:
        """Kill the owner; return who took over, and how many ms after the kill the claim was stored."""
        _expect(self.children.pid(node) == pid, f"{node} says it is pid {pid}, we started {self.children.pid(node)}")
        self.screen.say("kill -9", f"{node}, pid {pid}: the order has no owner now", style="bold red")
        killed_ns = self.killed[node] = self.children.kill(node)
        code = await self.children.ended(node)
        _expect(code == -signal.SIGKILL, f"{node} was to be killed, but ended with {code}")
        await self._until("another node takes over", lambda: self.roster.owner("orders", partition) not in (None, node))
        owner = str(self.roster.owner("orders", partition))
        claimed_ns = self.roster.claimed_at_ns("orders", partition)
        took_ms = (claimed_ns - killed_ns) / 1e6
        self.screen.say(owner, f"takes it over, {took_ms:.0f} ms after the kill", style="bold green")
        return owner, took_ms

    async def _owner(self, handle: WorkflowHandle, partition: int) -> str:
        """Who runs the order: asked of the mesh, and compared with the claim that stands."""
        node, _ = await self._describe(handle)
        claimed_by = self.roster.owner("orders", partition)
        _expect(node == claimed_by, f"{node} answers for the order, but the claim is {claimed_by}'s")
        return node

    async def _describe(self, handle: WorkflowHandle) -> tuple[str, list[dict[str, Any]]]:
        """Ask the owner of a workflow what it waits for, until there is one that answers."""
        with anyio.move_on_after(WAIT_S):
            while True:
                # A node that has claimed a partition and does not run it yet leaves the question unanswered.
                with anyio.move_on_after(ANSWER_S):
                    state = await handle.describe()
                    if "node" in state.detail:
                        return str(state.detail["node"]), list(state.detail.get("waiting", ()))
                await anyio.sleep(0.02)
        raise DemoFailed(f"nobody answers for {handle.id}")

    async def _waits_for_message(self, handle: WorkflowHandle) -> bool:
        """Tell whether nothing but a message can wake the workflow: it runs and has no operation open."""
        _, waiting = await self._describe(handle)
        return not waiting

    # ---- the others ------------------------------------------------------------------------------------------------

    async def _approval(self) -> list[str]:
        self._begin("approval-1", "wait for anybody's JSON, but at most an hour")
        handle = await self.client.start("app.workflows:approval", REQUEST, host=HOST, id="approval-1")
        await self._fact("timer")
        await anyio.sleep(LOOK_S)
        # What `nats pub` would send.
        subject = WorkflowKey("orders", "approval-1").signal("approve")
        await self.client.js.publish(subject, b'{"approved": true, "by": "the boss"}')
        result = await self._result(handle)
        _expect(
            result.get("state") == "approved" and result.get("by") == "the boss", f"the approval came out as {result}"
        )
        return [f"approval-1 was {result['state']} by plain JSON, as `nats pub` sends it"]

    async def _saga(self) -> list[str]:
        self._begin("order-2", "a saga: nobody ships to Atlantis, so all is undone")
        handle = await self.client.start("app.workflows:order_saga", FAR_ORDER, host=HOST, id="order-2")
        result = await self._result(handle)
        effects = [entry["effect"] for entry in self._ledger("order-2")]
        _expect(result.get("state") == "compensated", f"the saga came out as {result}")
        _expect(effects == ["reserve", "charge", "refund", "release"], f"the saga did {effects}")
        return [f"order-2 was undone in reverse: {', '.join(effects)}"]

    def _begin(self, workflow: str, about: str) -> None:
        self._workflow = workflow
        self.screen.title(f"{workflow}: {about}")

    async def _result(self, handle: WorkflowHandle) -> Any:
        """Wait for a result, and print it with what the ledger says."""
        result = await handle.result(timeout_s=WAIT_S)
        await self._fact("end")
        self.screen.say("client", f"has the result: {brief(result)}", style="bold green")
        for entry in self._ledger(handle.id):
            details = {k: v for k, v in entry.items() if k not in ("effect", "order_id", "pid")}
            self.screen.say(
                "ledger", f"{entry['effect']:<8} by {self._name(entry['pid'])} {brief(details)}", style="cyan"
            )
        return result

    # ---- what comes in ---------------------------------------------------------------------------------------------

    def _on_fact(self, fact: Fact) -> None:
        self.facts.append(fact)
        named = "" if fact.workflow == self._workflow else f"{fact.workflow}: "
        style = "bold" if fact.kind in ("start", "signal", "tick", "end") else ""
        self.screen.say(fact.who, f"{named}{fact.text}", style=style)
        self._news.set()
        self._news = anyio.Event()

    def _on_join(self, node: str, pid: int, at_ns: int) -> None:
        self._pids[pid] = node
        self.screen.say(node, f"joins, pid {pid}")

    def _on_gone(self, node: str, at_ns: int) -> None:
        since = f", {(at_ns - self.killed[node]) / 1e6:.0f} ms after the kill" if node in self.killed else ""
        self.screen.say("roster", f"{node} is found dead and struck off{since}")

    async def _fact(self, kind: str, *, after_ns: int = 0) -> Fact:
        """Wait for a fact about the workflow in hand."""
        with anyio.move_on_after(WAIT_S):
            while True:
                for fact in self.facts:
                    if fact.workflow == self._workflow and fact.kind == kind and fact.at_ns >= after_ns:
                        return fact
                await self._news.wait()
        raise DemoFailed(f"{self._workflow}: no {kind} was seen within {WAIT_S:g} s")

    async def _until(self, what: str, condition: Callable[[], bool | Awaitable[bool]]) -> None:
        """Wait for a condition as long as all processes are well."""
        with anyio.move_on_after(WAIT_S):
            while True:
                held = condition()
                if (await held) if isawaitable(held) else held:
                    return
                self.children.check()
                await anyio.sleep(0.01)
        raise DemoFailed(f"within {WAIT_S:g} s it did not happen that {what}")

    def _is_settled(self, partitions: list[int]) -> bool:
        shares = self.roster.shares()
        least = sum(number // len(NODES) for number in partitions)
        return shares.total() == sum(partitions) and all(shares[node] >= least for node in NODES)

    async def _exists(self, stream: str) -> bool:
        try:
            await self.client.js.stream_info(stream)
        except MeshError:
            return False
        return True

    # ---- what goes out ---------------------------------------------------------------------------------------------

    def _ledger(self, order: str) -> list[ledger.Entry]:
        return [entry for entry in ledger.entries(self.children.ledger) if entry["order_id"] == order]

    def _name(self, pid: int) -> str:
        return self._pids.get(pid, f"pid {pid}")

    def _board(self) -> Text:
        board = Text("\n")
        members, shares = self.roster.members, self.roster.shares()
        for node in NODES:
            if node in self.killed:
                board.append(f" ✗ {node} killed   ", "bold red")
            elif node in members:
                board.append(" ● ", self.screen.style(node)).append(f"{node} {shares[node]} parts   ")
            else:
                board.append(f" ○ {node} starts   ", "dim")
        now_ns = time.time_ns()
        due_ns = max((fact.due_ns for fact in self.facts if fact.workflow == self._workflow), default=0)
        if due_ns > now_ns and not any(fact.kind == "end" and fact.workflow == self._workflow for fact in self.facts):
            board.append(f" {self._workflow} sleeps {(due_ns - now_ns) / 1e9:.1f} s", "bold")
        return board


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise DemoFailed(otherwise)


async def _run(screen: Screen, directory: Path) -> list[str]:
    async with embedded_server(directory / "store", port=0) as server:
        screen.say("server", f"nats-server, pid {server.pid}, at {server.url}")
        async with running_children(directory, server.url) as children:
            try:
                async with mesh.client.connect(server.url, name="demo") as client, anyio.create_task_group() as tasks:
                    tasks.start_soon(screen.run)
                    demo = Demo(screen, children, client)
                    await demo.watch(tasks)
                    shown = await demo.tell()
                    tasks.cancel_scope.cancel()
            except Exception:
                screen.plain(Text(children.last_words(), "dim"))
                raise
            return shown


async def run() -> int:
    """Run the demo; return the exit code."""
    screen = Screen(NODES)
    shown: list[str] = []
    reason, interrupted = "", 0

    async def end_on_signal(scope: anyio.CancelScope) -> None:
        nonlocal interrupted
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
            async for number in signals:
                interrupted = interrupted or number
                scope.cancel()

    screen.plain(Text("A server, three nodes, one order, and a kill -9 in the middle\n", "bold"))
    with tempfile.TemporaryDirectory(prefix="orders-demo-", ignore_cleanup_errors=True) as directory, screen:
        try:
            with unwrapped():
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(end_on_signal, tasks.cancel_scope)
                    with anyio.fail_after(LIMIT_S):
                        shown = await _run(screen, Path(directory))
                    tasks.cancel_scope.cancel()
        except (DemoFailed, ChildEnded, MeshError) as error:
            reason = str(error)
        except TimeoutError:
            reason = f"not done within {LIMIT_S:g} s"
    if interrupted:
        screen.plain("interrupted; everything that was started has ended")
        return 128 + interrupted
    screen.plain()
    if reason:
        screen.plain(Text(f"✗ {reason}", "bold red"))
        return 1
    for line in shown:
        screen.plain(Text("✓ ", "bold green").append(line, "default"))
    screen.plain(_what_next())
    return 0


def _what_next() -> Text:
    """Say what to try now, as it can be typed here."""
    tool = "mesh" if shutil.which("mesh") else os.path.relpath(Path(sys.executable).with_name("mesh"))
    app = os.path.relpath(APP)
    lines = Text("\nWhat you can do next\n", "bold")
    for about, command in (
        ("a mesh that stays", f"{tool} up {app} --nodes 3"),
        (
            "in another terminal: an order (it sleeps 24h if settle is left out)",
            f"{tool} start app.workflows:order_processor \\\n"
            '    --id order-7 --input \'{"id": "order-7", "card": "4000-1111", "amount": 4990,\n'
            '      "settle": "10s", "approval": true}\'',
        ),
        ("its history, and what it waits for", f"{tool} show order-7"),
        ("approve it", f"{tool} signal order-7 approve '{{\"approved\": true}}'"),
        ("the same with the NATS CLI", "nats pub mesh.wf.orders.order-7.signal.approve '{\"approved\": true}'"),
    ):
        lines.append(f"  # {about}\n", "dim").append(f"  {command}\n", "default")
    return lines.append(f"\nHow it is made: {app}/README.md", "default")


def main() -> None:
    """Run the demo and exit."""
    sys.exit(anyio.run(run))


if __name__ == "__main__":
    main()
