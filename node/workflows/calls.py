"""Calls in flight: dispatched to function hosts, asked after, given up (docs/architecture.md, "Calls to functions").

A call is published with the outcome's subject as its reply: whoever runs it answers into the history. One that this
node's own function host takes (`node.functions.at_home`) is handed over instead, and is as good as published. Nothing
here waits for the answer. What is kept is when to look after a call again; a call that has its outcome by then is
dropped without further ado.

    published ── 1 s without outcome ──> "who has this call?" asked of all hosts of the function
                 or a node is gone
        somebody has it  ──> leave it, ask again in a second; later where there are very many
        nobody has it    ──> the attempt has failed (`HostLost`) and the retry policy decides; a call that may run only
                             once is published again if no host has claimed it, else its outcome is unknown for ever
        no host at all   ──> the attempt has failed (`NotFound`)

After a takeover the question comes before the first dispatch. Of a call with a `heartbeat_timeout` it is asked more
often, and when nobody has it any more it has timed out: that a host says it has the call is the call's heartbeat.

Services outside of the mesh cannot be asked: `node.workflows.foreign_calls`.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, Protocol

import anyio
import anyio.abc

from mesh import codec
from mesh.connection import Connection
from mesh.envelopes import request_context
from mesh.errors import (
    Disconnected,
    InvalidName,
    MeshError,
    NoResponders,
    PayloadTooLarge,
)
from mesh.failure import Failure, Kind
from mesh.jetstream import JetStream
from mesh.subjects import (
    WorkflowKey,
    function_request,
    function_stop,
    function_who,
    stream_name,
)
from node.functions.call_headers import HEADER_RUN_ONCE
from node.functions.held_calls import decode_held
from node.workflows.attempts import DURABLE_PAUSE_NS
from node.workflows.background import insist
from node.workflows.call_failures import host_lost, nobody_offers, outcome_unknown, timed_out
from node.workflows.call_options import DEFAULT_CALL_OPTIONS, CallOptions
from node.workflows.call_watch import Watch
from node.workflows.foreign_calls import ForeignCalls
from node.workflows.ops import OpState
from node.workflows.retry import LOST
from node.workflows.run import Run

if TYPE_CHECKING:
    from mesh.tracecontext import TraceContext

ASK_AFTER_S: Final = 1.0
# When a node is gone: a request that is younger than this may still be on its way to a host that lives.
ON_ITS_WAY_S: Final = 0.1
# How long hosts have to answer. Once all live nodes that offer the function have answered, nothing is waited for; a
# node that is gone leaves the roster within a fraction of a second. So this is for nodes that are paused or swamped.
ANSWER_S: Final = 2.0
# A call that may run once only is not failed because hosts are just restarting, nor one of what a live node offers.
NO_HOST_PATIENCE_S: Final = 5.0
TICK_S: Final = 0.05
TOGETHER_S: Final = 0.005  # after a takeover: calls that come up within this are asked after together
ASK_AT_ONCE_MAX: Final = 500
# Calls that somebody has are asked after again; so many a second, however many there are. When a node is gone, all are.
ASKED_PER_S: Final = 5000

_log = logging.getLogger(__name__)


Failed = Callable[[WorkflowKey, Run, OpState, Failure], None]


class Take(Protocol):
    """What a function host of the same node does with a call: takes it, or has it sent (False)."""

    def __call__(self, function_id: str, ret: str, request: bytes, trace: TraceContext | None, *, once: bool) -> bool:
        """Take it or not."""
        ...


class Calls:
    """The calls of one engine.

    foreign: subject and encoding of the functions that services outside of the mesh serve.
    hosts_of: how many live nodes offer a function.
    failed: records a failure that we know of ourselves. record: records the outcome of a host that may not itself, with
    its headers, under its subject. is_open: whether a call still lacks its outcome.
    may_act: whether this node's lease holds.
    take: the function host of this node, which may run a call without its being sent.
    """

    def __init__(
        self,
        conn: Connection,
        js: JetStream,
        *,
        foreign: Mapping[str, tuple[str, str]],
        hosts_of: Callable[[str], int],
        failed: Failed,
        record: Callable[[str, bytes, bytes], None],
        may_act: Callable[[], bool],
        is_open: Callable[[Run, OpState], bool],
        take: Take | None = None,
    ) -> None:
        self._conn = conn
        self._js = js
        self._take = take or _take_none
        self._foreign_ids = foreign
        self._foreign = ForeignCalls(
            conn,
            js,
            foreign,
            is_due=lambda watch: may_act() and is_open(watch.run, watch.op),
            publish=self._publish,
            fail=self._fail,
            tasks=lambda: self._group,
        )
        self._hosts_of = hosts_of
        self._failed = failed
        self._record = record
        self._may_act = may_act
        self._is_open = is_open
        # Calls just dispatched with the default options, oldest first; nearly all have their outcome within a second.
        self._fresh: deque[tuple[float, WorkflowKey, Run, OpState, int]] = deque()
        self._heap: list[tuple[float, int, Watch]] = []
        self._order = itertools.count()
        self._node_gone_s = 0.0  # when a node was gone last (monotonic); answers to questions from before say nothing
        self._urgent = anyio.Event()  # there is something to look after before the next tick
        self._tasks: anyio.abc.TaskGroup | None = None

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Look after calls until cancelled."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            task_status.started()
            while True:
                with anyio.move_on_after(TICK_S):
                    await self._urgent.wait()
                    await anyio.sleep(TOGETHER_S)
                self._urgent = anyio.Event()
                self._look()

    def dispatch(self, key: WorkflowKey, run: Run, op: OpState, *, recovering: bool) -> None:
        """Call a function; when recovering, ask first whether somebody has the call already."""
        now = time.monotonic()
        options = run.call_options(op.n)
        if options is DEFAULT_CALL_OPTIONS and not recovering and op.target not in self._foreign_ids:
            # The hot path: nothing but the request, and a note to look after it if it is still open in a second.
            try:
                trace = run.trace.step(op.n, op.attempt) if run.trace is not None else None
                ret = run.ret_subject(op)
                if not self._take(op.target, ret, op.payload, trace, once=False):
                    headers = trace.headers if trace is not None else None
                    self._conn.publish_nowait(function_request(op.target), op.payload, ret, headers)
            except MeshError:
                pass
            else:
                self._fresh.append((now, key, run, op, op.attempt))
                return
        close_by = now + options.start_to_close_ns / 1e9 if options.start_to_close_ns else 0.0
        watch = Watch(key, run, op, op.attempt, not recovering, now, close_by)
        if recovering and op.target not in self._foreign_ids:
            self._push(watch, now)
            self._urgent.set()
            return
        if not self._publish(watch):
            return
        self._push(watch, _next_look_s(watch, now))

    def retry_later(self, key: WorkflowKey, run: Run, op: OpState, due_ns: int) -> None:
        """Dispatch the next attempt when it is due (a pause that a restart of the node may lengthen, not lose)."""
        # The event it follows from has the server's time. This node's clock may be behind that, for a moment even by
        # hours; but a pause as long as a durable one is not waited out here.
        wait_s = min(max(0, due_ns - time.time_ns()), DURABLE_PAUSE_NS) / 1e9
        if wait_s == 0.0:
            op.due_ns = 0
            self.dispatch(key, run, op, recovering=False)
            return
        now = time.monotonic()
        self._push(Watch(key, run, op, op.attempt, False, now, 0.0, waits=True), now + wait_s)

    def abandon(self, run: Run, op: OpState) -> None:
        """Ask whoever runs this call to stop. It need not obey."""
        try:
            self._conn.publish_nowait(function_stop(op.target), codec.encode([run.ret_subject(op)]))
        except (Disconnected, InvalidName):
            return

    def stop(self, run: Run, op: OpState) -> None:
        """Ask whoever runs this call to stop; its outcome is waited for all the same."""
        op.told = True
        self.abandon(run, op)

    def node_gone(self) -> None:
        """A node is gone, and calls may be with it: ask now after all that are open, not when each is due."""
        now = self._node_gone_s = time.monotonic()
        self._heap = [
            (min(due_s, max(now, watch.begun_s + ON_ITS_WAY_S)), order, watch)
            if watch.published and not watch.waits
            else (due_s, order, watch)
            for due_s, order, watch in self._heap
        ]
        heapq.heapify(self._heap)
        fresh, self._fresh = self._fresh, deque()
        for begun, key, run, op, attempt in fresh:
            if run.open.get(op.n) is op and self._is_open(run, op) and op.attempt == attempt:
                close_by = begun + DEFAULT_CALL_OPTIONS.start_to_close_ns / 1e9
                watch = Watch(key, run, op, attempt, True, begun, close_by)
                self._push(watch, max(now, begun + ON_ITS_WAY_S))
        self._urgent.set()

    def _push(self, watch: Watch, due_s: float) -> None:
        watch.due_s = due_s
        heapq.heappush(self._heap, (due_s, next(self._order), watch))

    def _publish(self, watch: Watch) -> bool:
        """Publish the request. False when that showed the call to be impossible."""
        op = watch.op
        if watch.storing or watch.claiming:
            return True
        try:
            if op.target in self._foreign_ids:
                self._foreign.request(watch)
                return True
            self._publish_request(watch, watch.stored or op.payload)
        except Disconnected:
            watch.published = False  # looked after like a request that was lost
            return True
        except PayloadTooLarge as error:
            if op.target in self._foreign_ids or watch.stored:
                self._fail(watch, _too_large(error))
                return False
            watch.storing, watch.published = True, False
            self._group.start_soon(self._store_arguments, watch, error)
            return True
        except InvalidName as error:
            self._fail(watch, Failure(str(error), Kind.INVALID, False))
            return False
        except (TypeError, ValueError, OverflowError) as error:
            self._fail(watch, Failure(f"the arguments cannot be sent to this service: {error}", Kind.INVALID, False))
            return False
        watch.published = True
        return True

    def _publish_request(self, watch: Watch, payload: bytes) -> None:
        op = watch.op
        once = watch.once_only
        trace = watch.run.trace.step(op.n, watch.attempt) if watch.run.trace is not None else None
        if not watch.stored and self._take(op.target, watch.ret, payload, trace, once=once):
            return
        headers = trace.headers if trace is not None else {}
        if once:
            headers[HEADER_RUN_ONCE] = "1"
        self._conn.publish_nowait(function_request(op.target), payload, watch.ret, headers or None)

    async def _store_arguments(self, watch: Watch, refused: PayloadTooLarge) -> None:
        """Put the arguments of a call into an object store and make the call with a reference to them."""
        request = function_request(watch.op.target)
        try:
            watch.stored = await insist(
                lambda: self._js.objects.instead_of_arguments(
                    watch.ret, request_context(request, watch.ret), watch.op.payload, refused
                ),
                f"arguments of call {watch.op.n} of workflow {watch.key.id!r}", watch.run.about(),
            )  # fmt: skip
        except PayloadTooLarge as error:
            self._fail(watch, _too_large(error))
            return
        except MeshError as error:
            self._fail(watch, Failure(f"the arguments cannot be stored: {error}", Kind.UNAVAILABLE, True))
            return
        finally:
            watch.storing = False
        if self._is_open(watch.run, watch.op) and watch.op.attempt == watch.attempt:
            self._publish(watch)
        else:
            await self._drop_arguments(watch)

    async def _drop_arguments(self, watch: Watch) -> None:
        """Remove the object of a call that needs it no more. What is left behind goes with the run."""
        await self._js.objects.take_back(watch.ret, watch.stored)

    def _let_go(self, watch: Watch) -> None:
        """An attempt is over: nothing is kept for it any more."""
        if watch.stored:
            self._group.start_soon(self._drop_arguments, watch)
        if watch.unlisten is not None:
            watch.unlisten()

    def _fail(self, watch: Watch, failure: Failure) -> None:
        self._let_go(watch)
        if self._is_open(watch.run, watch.op) and watch.op.attempt == watch.attempt:
            self._failed(watch.key, watch.run, watch.op, failure)

    # -- looking after -----------------------------------------------------------------------------------------

    def _look(self) -> None:
        if not self._may_act():
            return  # looked after again once it is clear who owns what
        now = time.monotonic()
        ask: dict[str, list[Watch]] = defaultdict(list)
        fresh = self._fresh
        while fresh and fresh[0][0] + ASK_AFTER_S <= now:
            begun, key, run, op, attempt = fresh.popleft()
            if run.open.get(op.n) is not op:
                continue  # nearly all of them
            if self._is_open(run, op) and op.attempt == attempt:
                close_by = begun + DEFAULT_CALL_OPTIONS.start_to_close_ns / 1e9
                ask[op.target].append(Watch(key, run, op, attempt, True, begun, close_by))
        heap = self._heap
        while heap and heap[0][0] <= now:
            watch = heapq.heappop(heap)[2]
            if not self._is_open(watch.run, watch.op) or watch.op.attempt != watch.attempt:
                self._let_go(watch)
                continue
            if watch.waits:
                watch.op.due_ns = 0
                self.dispatch(watch.key, watch.run, watch.op, recovering=False)
            elif self._timed_out(watch, now):
                continue
            elif watch.storing:
                self._push(watch, now + ASK_AFTER_S)
            elif watch.op.target in self._foreign_ids:
                if not watch.published:
                    self._publish(watch)
                self._push(watch, now + ASK_AFTER_S)
            else:
                ask[watch.op.target].append(watch)
        for function, watches in ask.items():
            for i in range(0, len(watches), ASK_AT_ONCE_MAX):
                self._group.start_soon(self._ask, function, watches[i : i + ASK_AT_ONCE_MAX])

    def _timed_out(self, watch: Watch, now: float) -> bool:
        options = watch.run.call_options(watch.op.n)
        if options.schedule_to_close_ns and time.time_ns() >= watch.op.issued_ns + options.schedule_to_close_ns:
            self._fail(watch, _timeout(watch, "schedule_to_close"))
            return True
        if watch.close_by_s and now >= watch.close_by_s:
            self.abandon(watch.run, watch.op)
            self._fail(watch, _timeout(watch, "start_to_close"))
            return True
        return False

    async def _ask(self, function: str, watches: list[Watch]) -> None:
        wanted, asked_s = {watch.ret: watch for watch in watches}, time.monotonic()
        running: dict[str, float] = {}
        answers = 0

        def note(data: bytes) -> bool:
            nonlocal answers
            answers += 1
            for ret, elapsed_s, outcome in decode_held(data):
                if ret in wanted:
                    running[ret] = elapsed_s
                    if outcome is not None:
                        self._record(ret, *outcome)
            return len(running) == len(wanted) or answers >= max(1, self._hosts_of(function))

        nobody_listens = False
        try:
            await self._conn.request_many(
                function_who(function),
                codec.encode(list(wanted)),
                timeout_s=ANSWER_S,
                stop=lambda reply: note(reply.data),
                no_responders_ok=False,
            )
        except NoResponders:
            nobody_listens = True
        except InvalidName as error:
            for watch in watches:
                self._fail(watch, Failure(str(error), Kind.INVALID, False))
            return
        except MeshError as error:
            self._ask_later(function, watches, error)
            return
        gone = [] if nobody_listens else [watch for ret, watch in wanted.items() if ret not in running]
        try:
            answered = await self._answered(gone)
        except MeshError as error:
            self._ask_later(function, watches, error)
            return
        now = time.monotonic()
        if not self._may_act():
            for watch in watches:
                self._push(watch, now)
            return
        for ret, watch in wanted.items():
            if not self._is_open(watch.run, watch.op) or watch.op.attempt != watch.attempt:
                continue
            if ret in running:
                self._found(watch, running[ret], now, asked_s)
            elif nobody_listens:
                self._no_host(watch, now)
            elif ret in answered:
                self._push(watch, now + ASK_AFTER_S)
            else:
                self._lost(watch, now)

    def _ask_later(self, function: str, watches: list[Watch], error: MeshError) -> None:
        _log.info("hosts of %s not asked: %s", function, error, extra={"function": function})
        for watch in watches:
            self._push(watch, time.monotonic() + ASK_AFTER_S)

    async def _answered(self, watches: list[Watch]) -> set[str]:
        """Which of these calls have an outcome in the stream, by its subject.

        A host that has no call any more has stored its outcome. An owner that has much to do, as after thousands of
        starts, reads that seconds later; till then each such call would be recorded as lost.
        """
        if not watches:
            return set()
        stored = [watch.key.stored("*", *watch.ret.split(".")[4:]) for watch in watches]
        counted = await self._js.counts_of_each(stream_name(watches[0].key.queue), stored)
        return {watch.ret for watch, counts in zip(watches, counted, strict=True) if counts}

    def _found(self, watch: Watch, elapsed_s: float, now: float, asked_s: float) -> None:
        stc_ns = watch.run.call_options(watch.op.n).start_to_close_ns
        if stc_ns and (watch.waits_to_start or not watch.published):
            # From when it began; a call that waits for a place or for its worker's limits has not.
            watch.close_by_s = now - elapsed_s + stc_ns / 1e9
        watch.published = True
        watch.waits_to_start = elapsed_s == 0.0
        if watch.op.stopping and not watch.op.told:
            self.stop(watch.run, watch.op)  # an owner before us was asked to do so
        watch.no_host_since_s = 0.0
        if not self._failed_to_start(watch):
            # It may be the node that is gone which had answered before.
            again_s = ask_again_s(len(self._heap)) if asked_s > self._node_gone_s else ASK_AFTER_S
            self._push(watch, _next_look_s(watch, now, again_s))

    def _failed_to_start(self, watch: Watch) -> bool:
        limit_ns = watch.run.call_options(watch.op.n).schedule_to_start_ns
        if not watch.waits_to_start or not limit_ns or time.time_ns() < watch.op.issued_ns + limit_ns:
            return False
        self.abandon(watch.run, watch.op)
        self._fail(watch, _timeout(watch, "schedule_to_start"))
        return True

    def _heart_stopped(self, watch: Watch, *, begun: bool) -> bool:
        """Whether a call that has a time for its heartbeat is lost by that; begun: somebody had it."""
        if not begun or not watch.run.call_options(watch.op.n).heartbeat_ns:
            return False
        self._fail(watch, _timeout(watch, "heartbeat"))
        return True

    def _no_host(self, watch: Watch, now: float) -> None:
        if self._failed_to_start(watch) or self._heart_stopped(watch, begun=not watch.waits_to_start):
            return
        once = watch.once_only
        if once and watch.op.claimed:
            self._fail(watch, outcome_unknown(watch.op.target))
            return
        watch.no_host_since_s = watch.no_host_since_s or now
        # A server that was just joined, or that others have just come back to, does not know yet who listens where:
        # that nobody does is believed at once only when no node says that it has the function.
        offered = self._hosts_of(watch.op.target) > 0
        watch.published = watch.published and offered
        if (once or offered) and now - watch.no_host_since_s < NO_HOST_PATIENCE_S:
            self._push(watch, now + ASK_AFTER_S)
            return
        self._fail(watch, nobody_offers(watch.op.target))

    def _lost(self, watch: Watch, now: float) -> None:
        if self._failed_to_start(watch):
            return
        failure = host_lost(watch.op, watch.attempt, watch.run.call_options(watch.op.n))
        if failure is None:
            self._publish(watch)
            self._push(watch, now + ASK_AFTER_S)
            return
        if failure.kind == LOST:
            _log.info(
                "workflow %r: no host has call %d of %s any more", watch.key.id, watch.op.n, watch.op.target,
                extra=watch.run.about() | {"function": watch.op.target},
            )  # fmt: skip
        self._fail(watch, failure)

    @property
    def _group(self) -> anyio.abc.TaskGroup:
        if self._tasks is None:
            raise RuntimeError("the calls are not looked after")
        return self._tasks


def _too_large(error: PayloadTooLarge) -> Failure:
    return Failure(f"the arguments are too large: {error}", Kind.INVALID, False)


def _take_none(_function_id: str, _ret: str, _request: bytes, _trace: TraceContext | None, *, once: bool) -> bool:
    """Where no function host is."""
    return False


def ask_again_s(calls: int) -> float:
    """How long to leave a call alone that somebody has, where so many are in flight."""
    return max(ASK_AFTER_S, calls / ASKED_PER_S)


def _next_look_s(watch: Watch, now: float, again_s: float | None = None) -> float:
    """When to look after a call again (monotonic): in a second, or earlier where one of its limits ends.

    again_s: instead of that second.
    """
    options = watch.run.call_options(watch.op.n)
    looks = [now + _ask_every_s(options, ASK_AFTER_S if again_s is None else again_s)]
    if watch.close_by_s:
        looks.append(watch.close_by_s)
    since_issued_s = (time.time_ns() - watch.op.issued_ns) / 1e9
    if options.schedule_to_close_ns:
        looks.append(now + max(0.0, options.schedule_to_close_ns / 1e9 - since_issued_s))
    if options.schedule_to_start_ns and watch.waits_to_start:
        looks.append(now + max(0.0, options.schedule_to_start_ns / 1e9 - since_issued_s))
    return min(looks)


def _ask_every_s(options: CallOptions, again_s: float) -> float:
    """How often it is asked who has a call. That somebody has it is its heartbeat."""
    if not options.heartbeat_ns:
        return again_s
    return min(ASK_AFTER_S, max(TICK_S, options.heartbeat_ns / 2e9))


def _timeout(watch: Watch, which: str) -> Failure:
    return timed_out(watch.op.target, watch.attempt, which)
