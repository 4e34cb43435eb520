"""How a run ends: others are told, its timers are taken back, the end is written, the run that follows is started.

Invariants:
  * notify, then end: once the end is in the history nobody looks after the run any more, so whoever must know has been
    told before;
  * every step is harmless to repeat, so an owner that comes after may do all of it again.
"""

from __future__ import annotations

import functools
import logging

from mesh import codec
from mesh.errors import Conflict, InvalidName, MeshError, NotFound, PayloadTooLarge, Undecodable
from mesh.events import HEADER_FROM, EndRecord, decode_start, parent_headers
from mesh.failure import Failure, Kind
from mesh.history import History
from mesh.hosts import HostRecord
from mesh.jetstream import JetStream
from mesh.outbox import Ack, Outbox
from mesh.subjects import WorkflowKey
from mesh.tracecontext import HEADER_FOLLOWS
from node.telemetry.run_trace import RunTrace
from node.workflows.background import Background, insist
from node.workflows.instances import Instance, Instances, InTrouble
from node.workflows.ops import ChildAtEnd, Finish
from node.workflows.others import Others
from node.workflows.outcomes import result_too_large
from node.workflows.run import Run, told_to_parent
from node.workflows.timers import Timers

_log = logging.getLogger(__name__)


class Ending:
    """Ends the runs of one queue."""

    def __init__(
        self,
        *,
        js: JetStream,
        outbox: Outbox,
        history: History,
        host: HostRecord,
        instances: Instances,
        others: Others,
        timers: Timers,
        background: Background,
        in_trouble: InTrouble,
    ) -> None:
        self._js = js
        self._outbox = outbox
        self._history = history
        self._host = host
        self._instances = instances
        self._others = others
        self._timers = timers
        self._background = background
        self._in_trouble = in_trouble

    def finish(self, instance: Instance, run: Run, finish: Finish) -> None:
        """End a run. What its calls were doing is somebody else's business by now."""
        own_timers = run.deadline_ns or run.delayed_until_ns
        timers = own_timers or any(op.kind == "timer" or op.durable for op in run.open.values())
        instance.unacked += 1
        if finish.children or run.spec.parent is not None or timers or finish.record.next_start:
            self._instances.chains[instance.id_token] = instance.partition
            self._background.start_soon(self._finish_slowly, instance, run, finish, bool(timers))
            return

        def on_ack(ack: Ack) -> None:
            instance.unacked -= 1
            if isinstance(ack.error, PayloadTooLarge):
                self._outbox.write(instance.key.end(run.run), _too_large(ack.error).encode())
            elif ack.error is not None:
                self._in_trouble(instance, run, ack.error)

        self._outbox.write(instance.key.end(run.run), finish.record.encode(), None, on_ack)

    def refuse_start(self, instance: Instance, run: int, error: Undecodable) -> None:
        """End a run whose start cannot be read."""
        failure = Failure(f"the start of workflow {instance.key.id!r} cannot be read: {error}", Kind.INVALID, False)
        _log.warning("%s", failure.message, extra=instance.about() | {"run": run})
        if self._instances.holds(instance):
            self._instances.forget(instance.id_token)
        self._outbox.write(instance.key.end(run), EndRecord("failed", codec.encode_failure(failure)).encode())

    async def start_next(self, key: WorkflowKey, ended: int, record: EndRecord, run: Run | None = None) -> bool:
        """Start the run that follows run `ended`; False when there is one already, by somebody else.

        Whoever was held up here may find that the next run has not only been started, but has ended, too: a start after
        the end of `ended` is all that counts. record: how that ended. run: with what was known of it in memory. Raises
        NotFound while the server does not know the end yet.
        """
        # All of it from the leader: to a replica that lags behind, a run that has just ended is open, or an older start
        # is the last one, and a chain that is not gone on with here is gone on with by nobody.
        stream, partition = self._history.stream, await self._history.partition_of(key)
        if partition is None:
            raise NotFound(f"workflow {key.id!r} is not there yet")
        last = await self._js.get_last(stream, key.stored(partition, "start"), from_leader=True)
        ends = key.stored(partition, "end", str(ended))
        first_end = await self._js.get_next(stream, ended, ends, from_leader=True)
        if last is None or first_end is None:
            raise NotFound(f"the end of run {ended} of workflow {key.id!r} is not there yet")
        if last.seq > first_end.seq:
            return False
        try:
            headers = _parent_headers(record.next_start) if run is None or run.spec.parent is not None else {}
            if run is not None and isinstance(run.trace, RunTrace):
                headers[HEADER_FOLLOWS] = run.trace.root.text
            await self._js.publish(
                key.start(), record.next_start, headers=headers or None, expect_last_subject_seq=last.seq
            )
        except Conflict:
            return False
        return True

    async def _finish_slowly(self, instance: Instance, run: Run, finish: Finish, timers: bool) -> None:
        """Children, parent, timers, end, next run: in this order, each acknowledged, all of it harmless to repeat."""
        key, what = instance.key, f"end of workflow {instance.key.id!r}"
        about = instance.about()
        try:
            for child in finish.children:
                await insist(functools.partial(self._tell_child, key, run, child), what, about)
            record = await insist(lambda: self._tell_parent(key, run, finish.record), what, about)
            if timers:
                # Before the end: whoever comes after us does not look after a run that has ended.
                await self._timers.take_back(instance, run, "*")
            await insist(lambda: self._write_end(key, run, record), what, about)
            if record.next_start:
                await insist(lambda: self.start_next(key, run.run, record, run), what, about)
        except MeshError as error:
            self._in_trouble(instance, run, error)
        finally:
            instance.unacked -= 1
            self._instances.leave_chain(instance)

    async def _tell_child(self, key: WorkflowKey, run: Run, child: ChildAtEnd) -> None:
        try:
            child_key = await self._others.child_key(self._host, key, run.run, child.op)
            if child_key is not None:
                once = f"{key.queue}/{key.id}/{run.run}/{child.op.n}/{child.verb}"
                await self._outbox.write_acked(child_key.subject(child.verb), b"", {"Nats-Msg-Id": once})
        except InvalidName:
            return  # such a child was never started

    async def _tell_parent(self, key: WorkflowKey, run: Run, record: EndRecord) -> EndRecord:
        """Tell the parent, if there is one and this is the end; return the record as the parent has it."""
        parent = run.spec.parent
        if parent is None or record.next_start:
            return record
        subject, headers = parent.key.exit(parent.run, parent.n), {HEADER_FROM: self._host.pid(key.id)}
        try:
            await self._outbox.write_acked(subject, told_to_parent(record.outcome, run), headers)
        except PayloadTooLarge as error:
            record = _too_large(error)
            await self._outbox.write_acked(subject, record.outcome, headers)
        except NotFound as error:
            _log.warning("workflow %r: its parent cannot be told: %s", key.id, error, extra=run.about())
        return record

    async def _write_end(self, key: WorkflowKey, run: Run, record: EndRecord) -> None:
        try:
            await self._outbox.write_acked(key.end(run.run), record.encode())
        except PayloadTooLarge as error:
            await self._outbox.write_acked(key.end(run.run), _too_large(error).encode())


def _parent_headers(next_start: bytes) -> dict[str, str]:
    try:
        return parent_headers(decode_start(next_start, {}).parent)
    except (Undecodable, InvalidName):
        return {}  # whoever loads it says so


def _too_large(error: PayloadTooLarge) -> EndRecord:
    return EndRecord("failed", codec.encode_failure(result_too_large(error)))
