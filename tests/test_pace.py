"""Whether a server is sent batches follows from how quickly it has acknowledged what it was sent."""

from __future__ import annotations

from mesh.pace import REST_S, SAMPLES_MIN, SLOW_S, WORTH_IT, Pace

FLUSHED_S = SLOW_S * 2


def slow(pace: Pace, now_s: float = 0.0) -> None:
    for _ in range(SAMPLES_MIN):
        pace.note_singles(FLUSHED_S, now_s)


def test_a_server_that_is_quick_is_never_sent_a_batch() -> None:
    pace = Pace()
    for _ in range(100):
        pace.note_singles(SLOW_S, 0.0)
    assert not pace.in_batches


def test_a_server_that_flushes_each_write_is_sent_batches_once_that_is_clear() -> None:
    pace = Pace()
    for i in range(SAMPLES_MIN):
        assert not pace.in_batches, f"after {i} samples"
        pace.note_singles(FLUSHED_S, 0.0)
    assert pace.in_batches


def test_one_slow_stretch_among_quick_ones_says_nothing() -> None:
    pace = Pace()
    for _ in range(20):
        pace.note_singles(SLOW_S / 10, 0.0)
    pace.note_singles(SLOW_S * 3, 0.0)
    assert not pace.in_batches


def test_batches_that_save_too_little_end_for_a_while() -> None:
    pace = Pace()
    slow(pace)
    for _ in range(10):
        pace.note_batch(FLUSHED_S * WORTH_IT * 100, 100, 5.0)
    assert pace.in_batches
    pace.note_batch(FLUSHED_S * 400, 100, 5.0)
    assert not pace.in_batches
    slow(pace, 5.0 + REST_S - 0.1)
    assert not pace.in_batches
    slow(pace, 5.0 + REST_S)
    assert pace.in_batches


def test_another_server_is_measured_anew() -> None:
    pace = Pace()
    slow(pace)
    pace.restart()
    assert not pace.in_batches
    slow(pace)
    assert pace.in_batches


def test_the_first_batches_may_take_long() -> None:
    pace = Pace()
    slow(pace)
    for _ in range(SAMPLES_MIN - 1):
        pace.note_batch(FLUSHED_S * 1000, 100, 5.0)
    assert pace.in_batches
    pace.note_batch(FLUSHED_S * 1000, 100, 5.0)
    assert not pace.in_batches
