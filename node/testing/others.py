"""What is done to workflows in a simulation: starts, messages, requests to stop. Stands for `node.workflows.others`.

Each call gives the outcome of an op, in the words of the mesh.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from mesh import codec
from mesh.errors import InvalidName
from mesh.events import HEADER_FROM, HEADER_ONCE, StartSpec
from mesh.failure import Kind
from mesh.hosts import HostRecord, UnknownHost
from mesh.pids import ProcessPid, WorkflowPid, parse_pid
from mesh.starting import AlreadyStarted, ConflictPolicy, ReusePolicy, on_existing
from mesh.subjects import WorkflowKey, token
from node.machine.code import CodeMissing
from node.machine.vm import Op
from node.testing.errors import NotReplaced
from node.testing.lua_functions import LuaCall
from node.testing.records import Message, Process
from node.units.naming import unresolved
from node.units.outcomes import TRUE, failed
from node.workflows.ops import OpState
from node.workflows.starts import child_host, child_id, child_start, policies, start_spec

if TYPE_CHECKING:
    from node.testing.engine import Engine, Instance

NO_CRON: Final = "a simulation keeps no schedules; start the workflow itself, as the schedule would"


class Others:
    """Starts, signals and stops the workflows of an engine.

    processes: by name, whom else messages reach. live: the call of a Lua function that has a PID, if there is one.
    """

    def __init__(self, engine: Engine, live: Callable[[str], LuaCall | None]) -> None:
        self.live = live
        self.processes: dict[str, Process] = {}
        self._engine = engine

    # -- for tests and functions -------------------------------------------------------------------------------

    def start(
        self,
        key: WorkflowKey,
        spec: StartSpec,
        conflict: ConflictPolicy,
        reuse: ReusePolicy,
        sender: str,
        done: Callable[[int | AlreadyStarted], None],
    ) -> None:
        """Start a workflow, or find the one that runs, as the policies say; done gets its run."""
        if spec.cron:
            raise NotReplaced(spec.workflow, f"is started with cron_schedule, and {NO_CRON}")
        engine = self._engine
        instance = engine.instances.get(key)
        try:
            verdict = "start"
            if instance is not None and (instance.is_running or instance.runs):
                end = instance.runs[-1].end if instance.runs else None
                ended = None if instance.is_running or end is None else end.status
                verdict = on_existing(key, ended, conflict, reuse)
        except AlreadyStarted as error:
            done(error)
            return
        if verdict == "start":
            done(engine.publish(key, "start", data=spec.encode()).seq)
        elif verdict == "use" and instance is not None:
            for i, message in enumerate(spec.messages):
                body = message.get("body") or codec.NIL_OUTCOME
                self.signal(key, str(message.get("topic")), body, sender, once=f"{spec.entropy.hex()}/{i}")
            done(instance.runs[-1].id if instance.runs else 0)
        else:
            # Once it has ended this start is the next one, whatever the other policy says of what has ended.
            engine.publish(key, "kill")
            again = lambda: self.start(key, spec, conflict, "allow_duplicate", sender, done)  # noqa: E731
            engine.agenda.at(engine.agenda.now_ns, again)

    def signal(self, key: WorkflowKey, topic: str, body: bytes, sender: str, *, once: str = "") -> None:
        """Send a message to a workflow."""
        headers = {name: value for name, value in ((HEADER_FROM, sender), (HEADER_ONCE, once)) if value}
        self._engine.publish(key, "signal", token(topic), data=body, headers=headers)

    def from_function(self, pid: str, entry_id: str, op: Op, done: Callable[[bytes], None]) -> None:
        """Do what a function does to a workflow or process. Raises NotReplaced for what needs a mesh."""
        options: Mapping[str, Any] = codec.unpack(op.options) if op.options else {}
        if op.kind == "spawn":
            self._spawn_from_function(pid, entry_id, op, options, done)
        else:
            done(self._tell_from_function(pid, op, options))

    def _tell_from_function(self, pid: str, op: Op, options: Mapping[str, Any]) -> bytes:
        body = op.payload or codec.encode(None)
        to = self._resolve(str(op.target))
        if to is None:
            return unresolved(str(op.target))
        if not isinstance(to, WorkflowPid):
            return self._tell_process(pid, to, op.kind, options, body)
        key = self._key_of(to)
        if key is None or not self._is_running(key):
            kind = Kind.NOT_FOUND if op.kind == "send" else Kind.INTERNAL
            return failed(f"process not found: no workflow {op.target} is running", kind)
        if op.kind == "send":
            self.signal(key, str(options.get("topic", "")), body, pid)
        else:
            self._engine.publish(key, "cancel" if op.kind == "cancel" else "kill")
        return TRUE

    def _spawn_from_function(
        self, pid: str, entry_id: str, op: Op, spec: Mapping[str, Any], done: Callable[[bytes], None]
    ) -> None:
        options = spec.get("options") or {}
        workflow = str(op.target)
        if spec.get("variant"):
            raise NotReplaced(entry_id, f"monitors or links the {workflow} that it starts")
        try:
            host = self._engine.app.host(str(options.get("task_queue") or spec.get("host")))
        except UnknownHost as error:
            if workflow in {str(name) for name in self._engine.app.registry.processes()}:
                raise NotReplaced(entry_id, f"spawns the process {workflow}") from error
            done(failed(f"host not found: {error}", Kind.NOT_FOUND))
            return
        if workflow not in host.workflows:
            done(failed(f"factory not found: {host.worker} offers no workflow {workflow}", Kind.NOT_FOUND))
            return
        entropy = self._engine.entropy()
        key = WorkflowKey(host.queue, str(options.get("id") or f"{workflow.rpartition(':')[2]}-{entropy.hex()}"))
        messages = tuple({**message, "from": pid} for message in spec.get("messages") or ())
        try:
            start = start_spec(workflow, host, op.payload or b"", options, messages, entropy=entropy)
        except InvalidName as error:
            done(failed(str(error), Kind.INVALID))
            return

        def started(came: int | AlreadyStarted) -> None:
            if isinstance(came, AlreadyStarted):
                done(failed(str(came), Kind.ALREADY_EXISTS))
            elif spec.get("exec"):
                self._engine.when_ended(key, done)
            else:
                done(codec.encode_success(host.pid(key.id)))

        self.start(key, start, *policies(options), pid, started)

    # -- for workflows -----------------------------------------------------------------------------------------

    def perform(self, instance: Instance, run: int, op: OpState, done: Callable[[bytes], None]) -> None:
        """Do what an op of a workflow asks for; done gets its outcome."""
        try:
            if op.kind == "spawn":
                self._spawn(instance, run, op, done)
            else:
                done(self._tell(instance, run, op))
        except UnknownHost as error:
            done(failed(f"host not found: {error}", Kind.NOT_FOUND))
        except InvalidName as error:
            done(failed(str(error), Kind.INVALID))

    def child_key(self, instance: Instance, run: int, op: OpState) -> WorkflowKey:
        """Which workflow a spawn op has started or would have. Raises UnknownHost, InvalidName."""
        child = op.options.get("child")
        if isinstance(child, Mapping) and child.get("queue") and child.get("id"):
            return WorkflowKey(str(child["queue"]), str(child["id"]))
        return WorkflowKey(self._child_host(instance, op).queue, child_id(instance.key, run, op))

    def _child_host(self, instance: Instance, op: OpState) -> HostRecord:
        name = child_host(instance.host, op)
        return instance.host if name is None else self._engine.app.host(name)

    def _spawn(self, instance: Instance, run: int, op: OpState, done: Callable[[bytes], None]) -> None:
        target = self._child_host(instance, op)
        if target.queue == instance.host.queue:
            try:
                self._engine.app.code.workflow_id(op.target)
            except CodeMissing as error:
                done(failed(f"factory not found: {error}", Kind.NOT_FOUND))
                return
        elif op.target not in target.workflows:
            done(failed(f"factory not found: {target.worker} offers no workflow {op.target}", Kind.NOT_FOUND))
            return
        key = WorkflowKey(target.queue, child_id(instance.key, run, op))
        token(key.id)  # raises InvalidName
        start = child_start(instance.key, instance.host, run, op, target)

        def started(came: int | AlreadyStarted) -> None:
            if isinstance(came, AlreadyStarted):
                done(failed(str(came), Kind.ALREADY_EXISTS))
            else:
                done(codec.encode_success({"pid": target.pid(key.id), "queue": key.queue, "id": key.id}))

        sender = instance.host.pid(instance.key.id)
        self.start(key, start, *policies(op.options.get("options") or {}), sender, started)

    def _tell(self, instance: Instance, run: int, op: OpState) -> bytes:
        sender = instance.host.pid(instance.key.id)
        to = self._resolve(op.target)
        if to is not None and not isinstance(to, WorkflowPid):
            return self._tell_process(sender, to, op.kind, op.options, op.payload)
        key = self._key_of(to) if to is not None else None
        if key is None:
            return unresolved(op.target)
        if not self._is_running(key):
            return failed(f"{op.target}: process not found (no such workflow is running)", Kind.NOT_FOUND)
        if op.kind == "send":
            once = f"{instance.key.queue}/{instance.key.id}/{run}/{op.n}"
            self.signal(key, str(op.options.get("topic", "")), op.payload, sender, once=once)
        else:
            # Inside a workflow, terminate is a request like cancel (contract 11.4).
            self._engine.publish(key, "cancel")
        return TRUE

    def _tell_process(
        self, sender: str, to: Process | LuaCall, verb: str, options: Mapping[str, Any], body: bytes
    ) -> bytes:
        topic = str(options.get("topic", ""))
        if isinstance(to, LuaCall):
            told: dict[str, Callable[[], None]] = {
                "send": lambda: to.deliver(topic, body, sender),
                "cancel": lambda: to.ask_to_stop(sender, options.get("reason")),
                "terminate": to.kill,
            }
            self._engine.agenda.at(self._engine.agenda.now_ns, told[verb])
        elif verb == "send":
            to.messages.append(Message(topic, codec.decode(body), sender, self._engine.agenda.elapsed_s))
        else:
            to.canceled = True
        return TRUE

    def _resolve(self, dest: str) -> Process | LuaCall | WorkflowPid | None:
        pid = parse_pid(dest)
        if isinstance(pid, WorkflowPid):
            return pid
        if isinstance(pid, ProcessPid):
            here = next((process for process in self.processes.values() if process.pid == dest), None)
            return here or self.live(dest)
        return self.processes.get(dest)

    def _key_of(self, pid: WorkflowPid) -> WorkflowKey | None:
        try:
            return WorkflowKey(self._engine.app.host(pid.worker).queue, pid.workflow_id)
        except UnknownHost:
            return None

    def _is_running(self, key: WorkflowKey) -> bool:
        instance = self._engine.instances.get(key)
        return instance is not None and instance.is_running
