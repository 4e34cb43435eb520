"""What a run makes of payloads that it cannot read, and of those that came in plain though it takes only encrypted ones."""

from __future__ import annotations

from mesh import codec
from mesh.encryption import Keyring
from mesh.envelopes import REFERENCE, Closed, Opened
from mesh.events import HEADER_FORCE, StartSpec
from tests.flows import Flow

SOURCE = """
return function()
  local inbox = process.listen("go")
  local value = funcs.call("app:f")
  return { value, (inbox:receive()) }
end
"""
PARENT = """
return function()
  process.spawn_monitored("app:child", "app:worker")
  return (process.events():receive()).result.value
end
"""
ONE, TWO = b"1" * 32, b"2" * 32


def sealed(payload: bytes, context: str, ring: Keyring | None = None) -> bytes:
    return (ring or Keyring({"two": TWO}, "two")).seal(context, payload)


def closed(payload: bytes) -> bytes:
    """What a node without the key gets."""
    return Keyring({"one": ONE}, "one").open("here", sealed(payload, "here"))


def test_an_event_without_its_key_suspends_the_run_before_anything_follows_from_it() -> None:
    flow = Flow(SOURCE)
    assert flow.start() == ["call 1 app:f"]
    unread = closed(codec.encode_success("value"))
    suspended = flow.ret(1, unread)
    assert len(suspended) == 1
    assert "event ret at sequence" in suspended[0]
    assert "key two is not in the keyring" in suspended[0]
    assert flow.run.waits_for_key
    assert not flow.run.does_not_fit
    assert 1 in flow.run.open  # nothing was made of it
    assert flow.signal("go", "late") == []
    # With the key it is the same history as if the key had been there all the time.
    events = [e._replace(data=codec.encode_success("value")) if e.data is unread else e for e in flow.events]
    again = flow.replay(events=events)
    assert again.result == ["value", "late"]


def test_a_run_that_waits_for_a_key_can_be_terminated_unless_its_very_start_is_unread() -> None:
    flow = Flow(SOURCE)
    flow.start()
    flow.signal("go", raw=closed(codec.encode("x")))
    assert flow.event("kill")[0].startswith("end terminated")
    unread = Flow(SOURCE)
    unread.run.suspended, unread.run.is_unread, unread.run.waits_for_key = "its start is encrypted", True, True
    assert unread.event("kill") == []
    assert unread.event("kill", data=b"x", headers={HEADER_FORCE: "1"}) == []
    assert unread.run.finished is None
    assert unread.event("kill", headers={HEADER_FORCE: "1"})[0].startswith("end terminated")


def test_a_request_that_says_nothing_is_no_less_one_for_what_somebody_puts_into_it() -> None:
    """The payload of a cancellation is never read."""
    flow = Flow(SOURCE)
    flow.start()
    flow.event("cancel", data=closed(codec.encode("x")))
    assert not flow.run.suspended
    assert flow.run.cancel_requested


def test_bytes_that_nobody_will_ever_open_are_bytes_that_somebody_has_sent() -> None:
    for junk in (b"\xc1\xc1\x01junk", b"\xc1\xc1", Closed.because(REFERENCE + b"junk", "no reference", for_ever=True)):
        flow = Flow(SOURCE)
        flow.start()
        flow.signal("go", raw=junk)
        assert not flow.run.suspended
        flow.ok(1, "value")
        assert flow.result == ["value", junk]


def strict(source: str = SOURCE) -> Flow:
    """A run that takes only what is encrypted, whose start came so."""
    flow = Flow(source, spec=StartSpec(workflow="app:flow", entropy=b"entropy", encrypted=True))
    flow.event("start", data=Opened(flow.spec.encode()))
    return flow


def test_a_strict_run_ignores_what_comes_in_plain_and_takes_what_came_encrypted() -> None:
    flow = strict()
    said = flow.signal("go", raw=codec.encode("forged"))
    assert said == ["ignore event signal at sequence 101 came in plain, and the run takes only what is encrypted"]
    assert flow.signal("go", raw=b"")[0].startswith("ignore event signal")
    assert flow.ok(1, "forged")[0].startswith("ignore event ret")
    flow.ret(1, Opened(codec.encode_success("value")))
    flow.signal("go", raw=Opened(codec.encode("genuine")))
    assert flow.result == ["value", "genuine"]
    # A replay decides alike.
    assert flow.replay().result == ["value", "genuine"]
    # Whoever may terminate it says nothing in it.
    assert strict().event("kill")[0].startswith("end terminated")


def test_a_history_that_somebody_has_decrypted_replays_all_the_same() -> None:
    flow = strict()
    flow.ret(1, Opened(codec.encode_success("value")))
    flow.signal("go", raw=Opened(codec.encode("genuine")))
    plain = [event._replace(data=bytes(bytearray(event.data))) for event in flow.events]
    assert flow.replay(events=plain).result == ["value", "genuine"]


def test_the_end_of_a_child_in_plain_suspends_a_strict_run() -> None:
    """It is not sent again: who ignored it would wait for ever."""
    flow = strict(PARENT)
    flow.ret(1, Opened(codec.encode_success({"pid": "{c@w|child}"})))
    suspended = flow.exit(1, codec.encode_success("forged"))
    assert len(suspended) == 1
    assert "does the child's node have the keys?" in suspended[0]


def test_that_a_run_is_strict_is_in_its_start_and_stays_so() -> None:
    spec = StartSpec(workflow="app:flow", encrypted=True)
    flow = Flow(SOURCE, spec=spec)
    assert flow.spec.encrypted
    assert not Flow(SOURCE).spec.encrypted
