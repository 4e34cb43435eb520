"""The VM of processes: what code does to itself there costs its own process, not its neighbours, the VM or the node."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from mesh import codec
from mesh.failure import Kind
from node.machine.vm import NoRoom, Op, ProcessVM, UnitIdentity, UnitSpec

MB = 1024 * 1024
WAITING = "return { main = function() local inbox = process.inbox() inbox:receive() inbox:receive() return 'both' end }"


class Host:
    """A process VM and what its processes have asked for."""

    def __init__(self) -> None:
        self.vm = ProcessVM()
        self.ops: list[tuple[int, Op]] = []
        self._specs: dict[str, UnitSpec] = {}
        self._last = 0

    def load(self, source: str, request: bytes) -> tuple[int, str, bytes | None]:
        spec = self._specs.get(source)
        if spec is None:
            key = f"code{len(self._specs)}"
            assert self.vm.compile(key, source, "t.lua") is None
            spec = self._specs[source] = UnitSpec("process", f"app:{key}", key, modules=("funcs", "time", "errors"))
        self._last += 1
        pid = f"{{a@app:host|0x{self._last:05x}}}"
        handle, failure = self.vm.spawn(spec, UnitIdentity(pid=pid, seed=b"s" * 16), request, 1)
        return handle, pid, failure

    def spawn(self, source: str, *args: Any) -> tuple[int, str]:
        handle, pid, failure = self.load(source, codec.encode([list(args), None]))
        assert failure is None
        self.turn(handle, "go")
        return handle, pid

    def turn(self, handle: int, verb: str, a: Any = None, b: Any = None, c: Any = None) -> None:
        more, found = self.vm.turn(1, 0.5, handle, verb, a, b, c)
        while True:
            self.ops.extend((owner, op) for owner, ops in found for op in ops)
            if not more:
                return
            more, found = self.vm.turn(1, 0.5)

    def message(self, handle: int) -> None:
        self.turn(handle, "message", b"x", codec.encode(1), b"")

    def ended(self, handle: int) -> Any:
        """What a process has ended with, None while it lives."""
        payloads: Sequence[bytes | None] = [
            op.payload for owner, op in self.ops if owner == handle and op.kind == "end"
        ]
        assert len(payloads) <= 1
        return codec.decode_outcome(payloads[0] or b"")[1] if payloads else None


def test_a_process_stopped_in_the_middle_of_a_send_leaves_the_receiver_and_the_vm_intact() -> None:
    """Its budget ends at one instruction after the other of the send."""
    source = """return { main = function(to, n)
      local send = process.send
      for i = 1, n do end
      send(to, "x", 1)
      while true do end
    end }"""
    host = Host()
    host.vm = ProcessVM(instructions_max=50_000)
    arrived = []
    for n in range(49_500, 50_000, 100):
        receiver, pid = host.spawn(WAITING)
        host.spawn(source, pid, n)
        host.message(receiver)
        arrived.append(host.ended(receiver) == "both")
    first_late = 49_500 + 100 * arrived.index(False)
    for n in range(first_late - 220, first_late + 1):
        receiver, pid = host.spawn(WAITING)
        host.spawn(source, pid, n)
        host.message(receiver)
        host.message(receiver)
        assert host.ended(receiver) == "both", n


@pytest.mark.parametrize("outcome", [b"\xc1\x92\x01\x05", b"\xc1\x92\x01\xc0", b"\xc1\x92\x02\xc0", b"", b"\xc1"])
def test_an_outcome_that_nobody_can_read_is_an_error_and_not_the_end_of_the_vm(outcome: bytes) -> None:
    host = Host()
    caller, _ = host.spawn(
        "return { main = function() local v, err = require('funcs').call('a:b') return err:kind() end }"
    )
    watcher, _ = host.spawn("return { main = function() return process.events():receive().kind end }")
    host.turn(caller, "resolve", 1, outcome)
    host.turn(watcher, "ended", None, outcome, b"{a@app:host|0x1}")
    assert [host.ended(caller), host.ended(watcher)] == ["Internal", "pid.exit"]


@pytest.mark.parametrize("request_", [b"", b"\xc1", b"\xc1\x92\x05\xc0", b"\xc1\x92\x90", b"text"])
def test_a_request_that_nobody_can_read_fails_the_spawn(request_: bytes) -> None:
    host = Host()
    handle, _, failure = host.load("return { main = function() end }", request_)
    assert handle == 0
    assert failure is not None
    assert codec.decode_outcome(failure)[1].kind == Kind.INVALID


def test_a_context_that_is_no_map_counts_for_nothing() -> None:
    host = Host()
    handle, _, failure = host.load("return { main = function() return 'ran' end }", b"\xc1\x92\x90\x05")
    assert failure is None
    host.turn(handle, "go")
    assert host.ended(handle) == "ran"


def test_what_the_kernel_fails_at_costs_the_process_it_was_busy_with_and_no_other() -> None:
    host = Host()
    neighbour, _ = host.spawn(WAITING)
    victim, _ = host.spawn(WAITING)
    host.turn(victim, "message", None, codec.encode(1), b"")  # no topic: nothing that the runtime ever sends
    assert "the runtime failed" in host.ended(victim).message
    host.message(neighbour)
    host.message(neighbour)
    assert host.ended(neighbour) == "both"


def test_an_error_object_that_upgrades_when_it_is_shown_ends_its_process_once() -> None:
    host = Host()
    handle, _ = host.spawn("""return { main = function()
      error(setmetatable({}, { __tostring = function() process.upgrade(nil) end }))
    end }""")
    assert host.ended(handle).kind == Kind.INTERNAL


def test_a_chunk_that_yields_fails_the_spawn() -> None:
    _, _, failure = Host().load("coroutine.yield(1) return { main = function() end }", codec.encode([[], None]))
    assert failure is not None


@pytest.mark.timeout(120)
def test_processes_that_fill_a_vm_together_do_not_take_it_with_them() -> None:
    """Each holds less than a process may; the one for which nothing is left fails."""
    host = Host()
    source = """return { main = function()
      local kept, time = {}, require("time")
      for i = 1, 5 do
        kept[i] = string.rep("x", 10 * 1024 * 1024)
        time.sleep("1s")
      end
      process.inbox():receive()
    end }"""
    first, _ = host.spawn(WAITING)
    for _ in range(12):
        handle, _ = host.spawn(source)
        for n in range(1, 6):
            host.turn(handle, "resolve", n, codec.NIL_OUTCOME)
    assert "no memory is left" in host.ended(handle).message
    host.message(first)
    host.message(first)
    assert host.ended(first) == "both"


def test_what_does_not_fit_into_a_vm_is_refused_before_lua_would_end_the_node() -> None:
    """In a process of its own, as that is what would end."""
    code = """if True:
        from mesh import codec
        from node.machine.vm import LuaVM, NoRoom, UnitSpec, UnitIdentity
        vm = LuaVM(memory_bytes_max=64 * 1024 * 1024)
        assert vm.compile("k", "return { main = function() process.inbox():receive() end }", "t.lua") is None
        machine = vm.open(UnitSpec("function", "app:k", "k"), UnitIdentity(pid="p", seed=b"x" * 16))
        machine.feed("request", 1, codec.encode([[], None]), b"p")
        try:
            machine.feed("message", 1, b"x", codec.encode("y" * 80_000_000), b"")
        except NoRoom:
            print("refused")
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "refused\n"), done.stderr


def test_a_message_that_does_not_fit_is_refused_and_the_vm_goes_on() -> None:
    host = Host()
    host.vm = ProcessVM(memory_bytes_max=64 * MB)
    handle, _ = host.spawn(WAITING)
    with pytest.raises(NoRoom):
        host.turn(handle, "message", b"x", codec.encode("y" * 80 * MB), b"")
    host.message(handle)
    host.message(handle)
    assert host.ended(handle) == "both"


@pytest.mark.parametrize(
    ("keep", "mb"),
    [
        pytest.param("kept[i] = string.rep('x', 100000)", 20, id="equal texts made one by one"),
        pytest.param("kept[i] = one", 0, id="one text kept many times"),
        pytest.param("kept[i] = { i, tostring(i) .. string.rep('x', 100) }", 0, id="a few small things"),
    ],
)
def test_the_weight_of_a_process_is_what_it_holds(keep: str, mb: int) -> None:
    host = Host()
    handle, _ = host.spawn(f"""return {{ main = function()
      local kept, one = {{}}, string.rep("x", 100000)
      for i = 1, 200 do {keep} end
      process.inbox():receive()
      return kept
    end }}""")
    heaviest, kb = host.vm.heaviest(8, 1.0, 96 * 1024)
    assert heaviest == handle
    assert mb * 900 <= kb <= mb * 1100 + 500


def test_a_look_at_a_vm_that_holds_only_garbage_collects_it_and_weighs_nobody() -> None:
    host = Host()
    host.spawn("""return { main = function()
      local kept = string.rep("x", 2000000)
      for i = 1, 20 do local garbage = string.rep("x", 1000000 + i) end
      process.inbox():receive()
      return kept
    end }""")
    assert host.vm.heaviest(8, 1.0, 96 * 1024, 10 * 1024) == (0, 0)
    assert host.vm.memory_kb < 10 * 1024
    assert host.vm.heaviest(8, 1.0, 96 * 1024, 1024)[0] > 0


def test_what_the_host_returns_into_a_full_vm_is_refused_before_the_node_would_hang() -> None:
    """In a process of its own, as that is what would hang."""
    code = """if True:
        from mesh import codec
        from node.machine.vm import LuaVM, OutOfMemory, UnitSpec, UnitIdentity
        vm = LuaVM(memory_bytes_max=48 * 1024 * 1024)
        source = '''return { main = function()
          local kept, crypto = {}, require("crypto")
          for i = 1, 200 do kept[i] = crypto.random.bytes(1048576) end
        end }'''
        assert vm.compile("k", source, "t.lua") is None
        machine = vm.open(UnitSpec("function", "app:k", "k", modules=("crypto",)), UnitIdentity(pid="p", seed=b"x" * 16))
        try:
            machine.feed("request", 1, codec.encode([[], None]), b"p")
        except OutOfMemory:
            print("refused")
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=50)
    assert (done.returncode, done.stdout) == (0, "refused\n"), done.stderr
