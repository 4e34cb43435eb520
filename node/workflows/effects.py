"""Carrying out what a run asks for: calls, timers, marks, what is done to other workflows, the end.

Every effect may be carried out twice; what comes of it is written into the history and comes back as an event.

Invariants:
  * nothing that follows from a decision becomes visible before its mark is recorded, nor while the node's lease is
    over: effects behind a mark wait in the instance's gate; what may be under way is asked after behind it, too;
  * whatever has to be written is counted in `unacked` until it is, so that the instance stays busy as long.
"""

from __future__ import annotations

import functools
import itertools
import logging
import time
from collections.abc import Callable, Mapping
from typing import Final

import anyio

from mesh import codec
from mesh.connection import Connection
from mesh.errors import Conflict, Disconnected, MeshError
from mesh.events import MARK_LOST
from mesh.failure import Failure, Kind
from mesh.hosts import HostRecord
from mesh.jetstream import JetStream
from mesh.outbox import Ack, Outbox
from mesh.roster import Roster
from mesh.subjects import WorkflowKey, stream_name
from node.telemetry.witness import Witness
from node.unit_logs import log_line
from node.workflows.attempts import retry_tick
from node.workflows.background import Background, insist
from node.workflows.calls import Calls, Take
from node.workflows.ending import Ending
from node.workflows.instances import Gated, Instance, Instances, InTrouble
from node.workflows.ops import (
    Abandon,
    Dispatch,
    Effect,
    Finish,
    Ignore,
    Log,
    OpState,
    Perform,
    RetryLater,
    SetTimer,
    Stop,
    Suspend,
    WriteAttrs,
    WriteMark,
)
from node.workflows.others import Others
from node.workflows.partition import Lost
from node.workflows.run import Run
from node.workflows.timers import Timers

LEASE_LOOK_S: Final = 0.05

_log = logging.getLogger(__name__)


class Effects:
    """Carries out the effects of one queue's runs. reload: reads an instance's history again.

    calls: for the engine to run.
    """

    def __init__(
        self,
        *,
        conn: Connection,
        js: JetStream,
        outbox: Outbox,
        roster: Roster,
        host: HostRecord,
        foreign: Mapping[str, tuple[str, str]],
        hosts_of: Callable[[str], int],
        instances: Instances,
        others: Others,
        timers: Timers,
        ending: Ending,
        background: Background,
        reload: Callable[[Instance], None],
        in_trouble: InTrouble,
        witness: Witness,
        take_call: Take | None,
    ) -> None:
        self.calls = Calls(
            conn,
            js,
            foreign=foreign,
            hosts_of=hosts_of,
            failed=self._call_failed,
            record=outbox.write,
            may_act=roster.may_act,
            is_open=self._call_is_open,
            take=take_call,
        )
        self._conn = conn
        self._js = js
        self._outbox = outbox
        self._may_act = roster.may_act
        self._host = host
        self._instances = instances
        self._others = others
        self._timers = timers
        self._ending = ending
        self._background = background
        self._reload = reload
        self._in_trouble = in_trouble
        self._witness = witness
        self._saying: set[str] = set()  # id tokens of runs whose attributes are being recorded

    def carry_out(self, instance: Instance, run: Run, effects: list[Effect], *, recovering: bool = False) -> None:
        """Carry out effects in order. recovering: they follow from a replay, and may be under way already."""
        if instance.gate is not None:
            instance.gate += [Gated(effect, recovering) for effect in effects]
            return
        for i, effect in enumerate(effects):
            if type(effect) is Dispatch:
                under_way = recovering and _may_be_under_way(instance, effect.op)
                self.calls.dispatch(instance.key, run, effect.op, recovering=under_way)
            elif type(effect) is SetTimer:
                self._timers.set(instance, run, effect.name, effect.due_ns, recovering=recovering)
            elif type(effect) is Finish:
                for op in run.open.values():
                    if op.kind == "call":
                        self.calls.abandon(run, op)
                self._ending.finish(instance, run, effect)
            elif type(effect) is RetryLater:
                self._retry_later(instance, run, effect, recovering=recovering)
            elif type(effect) is Perform:
                instance.unacked += 1
                self._background.start_soon(self._perform, instance, run, effect.op)
            elif type(effect) is Abandon:
                self._abandon(instance, run, effect.n, effect.op)
            elif type(effect) is Stop:
                self._stop(instance, run, effect.op)
            elif type(effect) is WriteMark:
                instance.gate = [Gated(waiting, recovering) for waiting in effects[i:]]
                self._background.start_soon(self._write_marks, instance, run)
                return
            elif type(effect) is WriteAttrs:
                self._write_attrs(instance, run)
            elif type(effect) is Suspend:
                self._suspended(instance, run, effect)
            elif type(effect) is Ignore:
                _log.warning("workflow %r: ignored: %s", instance.key.id, effect.reason, extra=instance.about())
            elif type(effect) is Log and not recovering:
                self.log(instance, run, effect)

    def log(self, instance: Instance, run: Run, effect: Log) -> None:
        """Write what a workflow says to the log."""
        log_line(
            effect.level, effect.payload, effect.options, stack=effect.stack, **{**instance.about(), **run.about()}
        )

    def _retry_later(self, instance: Instance, run: Run, effect: RetryLater, *, recovering: bool) -> None:
        if effect.op.durable:
            self._timers.set(instance, run, retry_tick(effect.op), effect.due_ns, recovering=recovering)
        elif recovering and effect.due_ns <= time.time_ns():
            effect.op.due_ns = 0
            self.calls.dispatch(instance.key, run, effect.op, recovering=_may_be_under_way(instance, effect.op))
        else:
            self.calls.retry_later(instance.key, run, effect.op, effect.due_ns)
        if effect.drop:
            self._background.start_soon(self._drop_attempt, instance.key, effect.drop)

    async def _drop_attempt(self, key: WorkflowKey, seqs: tuple[int, ...]) -> None:
        """Delete what is recorded of a failed attempt, in this order: what is left must still make sense."""
        for seq in seqs:
            try:
                await self._js.delete_message(stream_name(key.queue), seq)
            except MeshError as error:
                _log.debug("failed attempt at sequence %d kept: %s", seq, error)
                return

    def _abandon(self, instance: Instance, run: Run, n: int, op: OpState | None) -> None:
        if op is None:
            return
        if op.kind == "timer":
            self._timers.abandon(instance, run, str(n))
        elif op.kind == "call":
            self.calls.abandon(run, op)

    def _stop(self, instance: Instance, run: Run, op: OpState) -> None:
        if op.due_ns:  # between two attempts: nobody runs it
            if op.durable:
                self._timers.abandon(instance, run, retry_tick(op))
            self._call_failed(instance.key, run, op, Failure("operation canceled", Kind.CANCELED, False))
        else:
            self.calls.stop(run, op)

    def _suspended(self, instance: Instance, run: Run, effect: Suspend) -> None:
        if run.does_not_fit:
            self._witness.does_not_fit(run)
        _log.error("workflow %r is suspended: %s", instance.key.id, effect.reason, extra=instance.about())
        try:
            self._conn.publish_nowait(instance.key.note("suspended"), codec.encode(effect.reason))
        except Disconnected:
            return

    async def _perform(self, instance: Instance, run: Run, op: OpState) -> None:
        """Do something to another workflow, one after another per run, and record the outcome."""
        try:
            trace = run.trace.step(op.n) if run.trace is not None else None
            outcome = await self._others.perform(self._host, instance.key, run.run, op, trace)
            await self._outbox.write_acked(run.ret_subject(op), outcome)
        except MeshError as error:
            self._in_trouble(instance, run, error)
        except Exception as error:
            _log.exception("workflow %r op %d (%s)", instance.key.id, op.n, op.kind, extra=instance.about())
            failure = Failure(f"{op.kind} failed in the node: {error}", Kind.INTERNAL, False)
            self._outbox.write(run.ret_subject(op), codec.encode_failure(failure))
        finally:
            instance.unacked -= 1

    # -- marks -------------------------------------------------------------------------------------------------

    async def _write_marks(self, instance: Instance, run: Run) -> None:
        """Record the marks in the gate, also those that come up meanwhile, then let everything else go."""
        written: set[str] = set()
        while instance.run is run and instance.gate is not None:
            if not self._may_act():
                # Others may own this by now. A mark of theirs about a failed attempt is gone with the attempt when the
                # next one has failed: then ours is taken for the first one, though they went on otherwise.
                await anyio.sleep(LEASE_LOOK_S)
                continue
            marks = (gated.effect for gated in instance.gate)
            mark = next((e for e in marks if isinstance(e, WriteMark) and e.name not in written), None)
            if mark is None:
                waiting, instance.gate = instance.gate, None
                for recovering, together in itertools.groupby(waiting, lambda gated: gated.recovering):
                    effects: list[Effect] = [one.effect for one in together if not isinstance(one.effect, WriteMark)]
                    self.carry_out(instance, run, effects, recovering=recovering)
                return
            write = functools.partial(self._write_mark, instance, run, mark)
            fits = await insist(write, f"mark of workflow {instance.key.id!r}", instance.about())
            if not fits:
                # Another owner has decided otherwise, and was first: think again with its decision.
                if self._instances.holds(instance) and instance.run is run:
                    self._reload(instance)
                return
            written.add(mark.name)
            run.mark_recorded(mark.name)

    async def _write_mark(self, instance: Instance, run: Run, mark: WriteMark) -> bool:
        """Record a mark; False when another value was recorded first."""
        subject = instance.key.mark(run.run, mark.name)
        try:
            await self._js.publish(subject, mark.payload, expect_last_subject_seq=0)
        except Conflict:
            stored = await self._js.get_last(
                stream_name(instance.key.queue),
                instance.key.stored(instance.partition.number, *subject.split(".")[4:]),
            )
            return stored is None or stored.data == mark.payload
        return True

    def record_loss(self, run: Run, lost: Lost) -> None:
        """A run has seen events that the server has lost since: it goes no further, on no node."""
        stream, key = stream_name(run.key.queue), run.key
        run.suspended = (
            "the server has lost events that this workflow may have seen, between the sequences "
            f"{lost.last_seq + 1} and {lost.seen_seq} of stream {stream}; begin anew from one of the events that are "
            f"left (`mesh reset {key.id} --event N`), or end it (`mesh terminate {key.id}`)"
        )
        self._outbox.write(run.key.mark(run.run, MARK_LOST), codec.encode(run.suspended))

    # -- attributes --------------------------------------------------------------------------------------------

    def _write_attrs(self, instance: Instance, run: Run) -> None:
        """Record what attributes and memo are now. One write of a run at a time: the newest must be the last."""
        if instance.id_token not in self._saying:
            self._saying.add(instance.id_token)
            instance.unacked += 1
            self._background.start_soon(self._say_attrs, instance, run)

    async def _say_attrs(self, instance: Instance, run: Run) -> None:
        subject, said = instance.key.attrs(run.run), b""
        try:
            while (record := run.attributes.record()) != said:
                await self._outbox.write_acked(subject, record, {"Nats-Rollup": "sub"})
                said = record
        except MeshError as error:
            _log.warning(
                "workflow %r: its attributes cannot be recorded: %s", instance.key.id, error, extra=run.about()
            )
        finally:
            self._saying.discard(instance.id_token)
            instance.unacked -= 1

    # -- what calls ask ----------------------------------------------------------------------------------------

    def _call_is_open(self, run: Run, op: OpState) -> bool:
        """Whether a call still lacks its outcome, and this instance is the one that waits for it."""
        instance = self._instances.by_token.get(run.id_token)
        if instance is None or instance.run is not run or run.finished is not None or run.suspended:
            return False
        return run.open.get(op.n) is op

    def _call_failed(self, _key: WorkflowKey, run: Run, op: OpState, failure: Failure) -> None:
        """A call has failed by our own knowledge (host lost, timeout, nobody offers it): say so in the history."""
        instance = self._instances.by_token.get(run.id_token)

        def on_ack(ack: Ack) -> None:
            if ack.error is not None and instance is not None:
                self._in_trouble(instance, run, ack.error)

        self._outbox.write(run.ret_subject(op), codec.encode_failure(failure), None, on_ack)


def _may_be_under_way(instance: Instance, op: OpState) -> bool:
    """Whether somebody may have been called already for the attempt that is due, by an owner before us or by us.

    What came up in an event that no owner before us has seen cannot be under way anywhere. Nobody may be asked about
    that, as nobody has it: a pause between two attempts that ends while the run is not in memory would be followed by
    a lost host instead of an attempt, and that by the next pause.
    """
    live_seq = instance.partition.live_seq
    return instance.reloaded or live_seq is None or op.due_seq <= live_seq
