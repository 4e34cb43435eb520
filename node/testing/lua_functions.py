"""Lua functions in virtual time: the code runs in a real machine, what it asks for is carried out by the simulation.

Carried out: calls of other functions with their `retry` option, sleeps and timers, log lines, messages and requests to
workflows, and what needs only the app itself (variables, entries, stores, keys derived from passwords). Everything else
reaches outside: the function has to be replaced.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, Final

from mesh import codec
from mesh.duration import SECOND
from mesh.errors import Undecodable
from mesh.failure import HOST_LOST, Failure, Kind
from mesh.pids import TOPOLOGY, ProcessPid
from node.functions.call_bodies import checked_request
from node.functions.lanes import FUNCTION_INSTRUCTIONS_MAX, LANE_MEMORY_BYTES_MAX
from node.machine.code import CodeMissing
from node.machine.vm import LuaMachine, LuaVM, Op, OutOfMemory, UnitSpec
from node.modules import Caller, LuaModule, Refused, env, registry
from node.modules.memory_store import MemoryStore
from node.modules.store import StoreModule
from node.modules.stores import Store
from node.registry import AVAILABLE, EntryId, KvStoreEntry, MemoryStoreEntry
from node.testing.agenda import Agenda, Appointment
from node.testing.app import App
from node.testing.errors import NotReplaced
from node.testing.functions import Functions, Running
from node.testing.records import Call
from node.units.outcomes import failed, lua_text
from node.units.retry_option import RetryOption, decode_retry, merged_retry

# What needs nothing but the app itself, and what of other modules does.
_MODULES: Final = ("registry", "store")
_ANSWERED: Final = frozenset({"env.get", "env.get_all", "crypto.pbkdf2"})
_KEYS_MAX: Final = 1_000_000  # of a store that the mesh would keep

Say = Callable[[str, str, bytes, bytes | None], None]  # source, level, text, options
GiveUp = Callable[[bool], None]  # True: ask whoever is at it to stop, too
# Sender's PID, its entry, an op that is about somebody else, and who gets the outcome.
Tell = Callable[[str, str, Op, Callable[[bytes], None]], None]


class LuaFunctions:
    """Runs the Lua functions of a simulation.

    log: takes what they log. tell: carries out what they do to workflows. chance: the randomness they get.
    """

    def __init__(self, app: App, agenda: Agenda, chance: Random, log: Say, tell: Tell) -> None:
        self.agenda = agenda
        self.chance = chance
        self.log = log
        self.tell = tell
        self._made = 0
        self._kept: dict[str, MemoryStore] = {}
        self.live: dict[str, LuaCall] = {}  # what runs, by PID
        self.use(app)

    def use(self, app: App) -> None:
        """Run the code of this app from now on."""
        self.app = app
        self._vm: LuaVM | None = None
        self._given: dict[tuple[str, str], UnitSpec] = {}  # by function and source
        self._modules: dict[str, LuaModule] = {
            "env": env.build(app.registry), "registry": registry.build(app.registry),
            "store": StoreModule(app.registry, self._stores(app)),
        }  # fmt: skip

    def run(self, functions: Functions, call: Call, request: bytes, source: str | None, running: Running) -> Running:
        """Run a call of a function of the app, or of the source that is given in its place."""
        try:
            checked = checked_request(request)
            spec = self._spec(call.function, source)
        except (Undecodable, CodeMissing) as error:
            running.answer(codec.encode_failure(Failure(str(error), Kind.INVALID, False)))
            return running
        self._made += 1
        pid = str(ProcessPid("simulation", f"{call.function}#lua.1", f"0x00000000{self._made:05x}"))
        lua_call = self.live[pid] = LuaCall(self, functions, call.function, pid, self._vm_now().open(spec), running)
        return lua_call.begin(checked)

    def ask(self, entry_id: str, pid: str, op: Op) -> bytes:
        """Answer what a function asks a module. Raises NotReplaced."""
        what = str(op.target)
        module, _, verb = what.partition(".")
        if what not in _ANSWERED and module not in _MODULES:
            raise NotReplaced(entry_id, f"uses {what}, which reaches outside")
        args = codec.decode(op.payload or b"")
        try:
            if what == "crypto.pbkdf2":
                return codec.encode_success(_derived(args))
            answering = self._modules[module].ask(verb, args, Caller(pid, entry_id))
            return codec.encode_success(_at_once(answering))
        except Refused as refusal:
            return codec.encode_failure(refusal.failure)

    def _stores(self, app: App) -> dict[str, Store]:
        """The stores of an app: those of a mesh live in memory, too. What is in them outlives a change of the code."""
        stores: dict[str, Store] = {}
        for store_id, entry in app.registry.stores().items():
            kept = self._kept.get(store_id)
            if kept is None:
                if isinstance(entry, KvStoreEntry):
                    entry = MemoryStoreEntry(store_id, _KEYS_MAX, 0.0, entry.lifecycle)
                kept = self._kept[store_id] = MemoryStore(entry, clock=lambda: self.agenda.elapsed_s)
            stores[store_id] = kept
        return stores

    def lost(self) -> None:
        """The VM has no memory left: those that come use another one."""
        self._vm = None
        self._given.clear()

    def _vm_now(self) -> LuaVM:
        if self._vm is None:
            self._vm = LuaVM(
                memory_bytes_max=LANE_MEMORY_BYTES_MAX, instructions_max=FUNCTION_INSTRUCTIONS_MAX,
                now_ns=lambda: self.agenda.now_ns, entropy=self.chance.randbytes,
            )  # fmt: skip
        return self._vm

    def _spec(self, function_id: str, source: str | None) -> UnitSpec:
        vm = self._vm_now()
        if source is None:
            return self.app.code.prepare(vm, "function", function_id)
        spec = self._given.get((function_id, source))
        if spec is None:
            key = f"{function_id} given {len(self._given)}"
            problem = vm.compile(key, source, f"{function_id} as the test gives it")
            if problem is not None:
                raise SyntaxError(problem)
            view = self.app.registry.functions().get(EntryId(function_id))
            method = getattr(view, "method", "") or "main"
            spec = UnitSpec("function", function_id, key, method=method, modules=tuple(sorted(AVAILABLE)))
            self._given[function_id, source] = spec
        return spec


class LuaCall(Running):
    """A call of a Lua function: a machine, and what it waits for by the number of the op."""

    def __init__(
        self, lua: LuaFunctions, functions: Functions, entry_id: str, pid: str, machine: LuaMachine, running: Running
    ) -> None:
        super().__init__(running.answer, running.lose)
        self._lua = lua
        self._functions = functions
        self._entry_id = entry_id
        self._pid = pid
        self._machine: LuaMachine | None = machine
        self._pending: dict[int, GiveUp] = {}  # how to give each op up
        self._posted: deque[tuple[str, Any, Any, Any]] = deque()
        self._busy = False

    def begin(self, request: bytes) -> LuaCall:
        """Let it run until it waits for something."""
        self._post("request", request, lua_text(self._pid))
        return self

    def stop(self) -> None:
        """Ask it to stop. It need not obey."""
        self._post("cancel", None, None, TOPOLOGY.encode())

    def deliver(self, topic: str, body: bytes, sender: str) -> None:
        """Somebody has sent it a message."""
        self._post("message", lua_text(topic), body, lua_text(sender))

    def ask_to_stop(self, sender: str, reason: str | None) -> None:
        """Somebody asks it to stop. It need not obey."""
        self._post("cancel", None, lua_text(reason) if reason is not None else None, lua_text(sender))

    def kill(self) -> None:
        """Somebody ends it without asking."""
        self._end()
        self.answer(failed("process terminated", Kind.INTERNAL))

    def _post(self, verb: str, a: Any = None, b: Any = None, c: Any = None) -> None:
        self._posted.append((verb, a, b, c))
        if self._busy:
            return  # whoever is at it takes this, too
        self._busy = True
        try:
            while self._posted and self._machine is not None:
                self._feed(*self._posted.popleft())
        finally:
            self._busy = False

    def _feed(self, verb: str, a: Any, b: Any, c: Any) -> None:
        machine = self._machine
        if machine is None:
            return
        try:
            ops = machine.feed(verb, self._lua.agenda.now_ns, a, b, c)
        except OutOfMemory:
            self._lua.lost()
            self._lua.live.pop(self._pid, None)
            self._machine = None
            text = f"{self._entry_id} took more memory than a function may have"
            self.answer(codec.encode_failure(Failure(text, Kind.INTERNAL)))
            return
        for op in ops:
            if op.kind == "end":
                outcome = op.payload or codec.NIL_OUTCOME
                if op.target in ("raised", "doomed"):
                    _, failure = codec.decode_outcome(outcome)
                    line = f"{self._entry_id} failed: {failure}".encode("utf-8", "surrogateescape")
                    self._lua.log(self._entry_id, "error", line, None)
                self._end()
                self.answer(outcome)
                return
            self._carry_out(op)
            if self._machine is None:
                return

    def _end(self) -> None:
        self._lua.live.pop(self._pid, None)
        machine, self._machine = self._machine, None
        if machine is not None:
            machine.close()
        pending, self._pending = self._pending, {}
        for give_up in pending.values():
            give_up(False)

    def _resolve(self, n: int, outcome: bytes) -> None:
        if self._pending.pop(n, None) is not None:
            self._post("resolve", n, outcome)

    def _carry_out(self, op: Op) -> None:
        n = op.n
        match op.kind:
            case "log":
                self._lua.log(self._entry_id, str(op.target), op.payload or b"", op.options)
            case "cancel_op":
                give_up = self._pending.pop(int(op.target), None)
                if give_up is not None:
                    give_up(True)
            case "timer":
                agenda = self._lua.agenda
                due_ns = agenda.now_ns + int(op.target)
                timer = agenda.at(due_ns, lambda: self._resolve(n, codec.NIL_OUTCOME))
                self._pending[n] = lambda _asked: timer.call_off()
            case "call":
                _LuaCallOfAnother(self._lua, self._functions, self._entry_id, op, self._pending, self._resolve).begin()
            case "ask":
                self._pending[n] = _nothing
                self._resolve(n, self._lua.ask(self._entry_id, self._pid, op))
            case "send" | "cancel" | "terminate" | "spawn":
                self._pending[n] = _nothing
                self._lua.tell(self._pid, self._entry_id, op, lambda outcome: self._resolve(n, outcome))
            case _:
                raise NotReplaced(self._entry_id, f"asks for {op.kind.replace('.', ' ')} {op.target}")


class _LuaCallOfAnother:
    """A call that a function makes, again while it fails and its `retry` option says so."""

    def __init__(
        self, lua: LuaFunctions, functions: Functions, caller: str, op: Op, pending: dict[int, GiveUp],
        resolve: Callable[[int, bytes], None],
    ) -> None:  # fmt: skip
        self._lua = lua
        self._functions = functions
        self._caller = caller
        self._op = op
        self._pending = pending
        self._resolve = resolve
        self._retry: RetryOption | None = None
        self._attempt = 0
        self._running: Running | None = None
        self._pause: Appointment | None = None

    def begin(self) -> None:
        op = self._op
        self._pending[op.n] = self._give_up
        given = codec.unpack(op.options) if op.options else {}
        defaults = self._lua.app.call_defaults(str(op.target))
        try:
            self._retry = decode_retry(merged_retry(defaults.get("retry"), given.get("retry")))
        except ValueError as error:
            self._resolve(op.n, codec.encode_failure(Failure(str(error), Kind.INVALID, False)))
            return
        self._again()

    def _again(self) -> None:
        self._attempt += 1
        lost = codec.encode_failure(Failure(f"the host that ran {self._op.target} is gone", HOST_LOST, True))
        self._running = self._functions.begin(
            str(self._op.target), self._op.payload or b"", self._done, lambda: self._done(lost),
            attempt=self._attempt, caller=self._caller,
        )  # fmt: skip

    def _done(self, outcome: bytes) -> None:
        ok, failure = codec.decode_outcome(outcome)
        if ok or self._retry is None or not self._retry.again(self._attempt, failure):
            self._resolve(self._op.n, outcome)
            return
        pause_s = self._retry.delay_s(self._attempt, self._lua.chance.random())
        agenda = self._lua.agenda
        self._pause = agenda.at(agenda.now_ns + round(pause_s * SECOND), self._again)

    def _give_up(self, asked: bool) -> None:
        self._retry = None
        if self._pause is not None:
            self._pause.call_off()
        if self._running is not None and asked:
            self._running.stop()


def _nothing(_asked: bool) -> None:
    return


def _derived(args: list[Any]) -> bytes:
    from node.machine.crypto import pbkdf2  # slow to import

    password, salt, iterations, length, digest = args
    return pbkdf2(_bytes(digest), _bytes(password), _bytes(salt), iterations, length)


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")


def _at_once(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The value of a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    coroutine.close()
    raise RuntimeError("a module that answers from memory has waited")
