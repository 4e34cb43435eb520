"""Clock and randomness: a workflow sees its event's and its seed's, every other unit the real ones at each call."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

import node.machine.vm
from mesh.failure import Failure
from node.machine.host_functions import host_functions
from tests.units import T0_NS, Unit, run_unit

LIVE = ("function", "process")

# Everything that asks for the time or for chance.
DRAWS = (
    "local key = ('k'):rep(32) "
    "return {math.random(), math.random(1, 2^53 | 0), uuid.v1(), uuid.v4(), uuid.v7(), crypto.random.uuid(), "
    "crypto.random.bytes(16), crypto.random.string(16), crypto.encrypt.aes('x', key), crypto.encrypt.chacha20('x', key), "
    "tostring(time.now()), os.time(), os.date(), os.clock()}"
)
CHANCE = 10  # so many of them are chance


@pytest.mark.parametrize("kind", LIVE)
def test_chance_in_live_units_never_repeats(kind: str) -> None:
    first, second = run_unit(DRAWS, kind=kind), run_unit(DRAWS, kind=kind)
    assert [a for a, b in zip(first[:CHANCE], second[:CHANCE], strict=True) if a == b] == []


def test_a_reused_function_goes_on_drawing() -> None:
    source = f"return function() {DRAWS} end"
    unit = Unit(source, kind="function")
    first = unit.result
    unit.ops += unit.machine.feed("request", T0_NS, b"\xc1\x92\x90\xc0", b"{a:host|0x00002}")
    assert [a for a, b in zip(first[:CHANCE], unit.result[:CHANCE], strict=True) if a == b] == []


def test_chance_in_workflows_follows_the_seed_alone() -> None:
    assert run_unit(DRAWS) == run_unit(DRAWS)
    first, second = run_unit(DRAWS), run_unit(DRAWS, seed=b"other")
    assert [a for a, b in zip(first[:CHANCE], second[:CHANCE], strict=True) if a == b] == []


def test_two_draws_of_a_workflow_differ() -> None:
    assert run_unit(
        "local a, b = crypto.random.bytes(32), crypto.random.bytes(32) local c, d = crypto.random.string(9), crypto.random.string(9) return {a == b, c == d}"
    ) == [False, False]


def test_a_workflow_never_reaches_the_real_clock_or_the_systems_randomness(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_doors(*doors: Any) -> dict[str, Callable[..., Any]]:
        return {
            name: function for name, function in host_functions(*doors).items() if name not in ("now_ns", "entropy")
        }

    monkeypatch.setattr(node.machine.vm, "host_functions", without_doors)
    draws = run_unit(
        f"math.randomseed() local t = crypto.jwt.encode({{exp = 1700000001}}, 'k') local ok = crypto.jwt.verify(t, 'k') local all = (function() {DRAWS} end)() all[#all + 1] = ok.exp return all"
    )
    assert draws[-1] == 1_700_000_001
    assert isinstance(run_unit("return uuid.v4()", kind="function"), Failure), "the doors were really gone"


@pytest.mark.parametrize("kind", LIVE)
def test_live_units_see_time_pass_within_an_activation(kind: str) -> None:
    before = time.time_ns()
    assert run_unit("local a = time.now() local b repeat b = time.now() until b ~= a return b:after(a)", kind=kind)
    assert run_unit("local a = os.clock() local b repeat b = os.clock() until b > a return true", kind=kind)
    assert run_unit(
        "local a = uuid.v7() local b repeat b = uuid.v7():sub(1, 13) until a:sub(1, 13) ~= b return true", kind=kind
    )
    now, seconds, date = run_unit("return {time.now():unix_nano(), os.time(), os.date('%Y')}", kind=kind)
    after = time.time_ns()
    assert before <= now <= after
    assert before // 10**9 <= seconds <= after // 10**9
    assert date == time.strftime("%Y", time.gmtime(now // 10**9))


def test_the_clock_of_a_workflow_stands_at_its_event() -> None:
    assert run_unit("local a = time.now() for _ = 1, 1e5 do end return {a:unix_nano(), time.now() == a, os.time(), os.clock()}") == [
        T0_NS, True, T0_NS // 10**9, 0.0,
    ]  # fmt: skip


def test_tokens_of_live_units_are_held_against_the_real_clock() -> None:
    body = "local t = crypto.jwt.encode({exp = os.time() + (...)}, 'k') local claims, err = crypto.jwt.verify(t, 'k') return claims and 'valid' or err:message()"
    assert run_unit(body, 60, kind="function") == "valid"
    assert run_unit(body, -1, kind="function") == "crypto.jwt.verify: the token is not valid: it has expired"
