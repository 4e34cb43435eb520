"""Whether a server is sent batches follows from how quickly it has acknowledged what it was sent."""

from __future__ import annotations

from mesh.pace import BATCHES, REST_S, SAMPLES, SLOW_S, SLOW_TIMES, WORTH_IT, Pace

FLUSHED_S = SLOW_S * 2


def slow(pace: Pace, now_s: float = 0.0) -> None:
    for _ in range(SAMPLES * SLOW_TIMES):
        pace.note_singles(FLUSHED_S, now_s)


def test_a_server_that_is_quick_is_never_sent_a_batch() -> None:
    pace = Pace()
    for _ in range(100):
        pace.note_singles(SLOW_S, 0.0)
    assert not pace.in_batches


def test_a_server_that_flushes_each_write_is_sent_batches_once_that_is_clear() -> None:
    pace = Pace()
    for i in range(SAMPLES * SLOW_TIMES):
        assert not pace.in_batches, f"after {i} samples"
        pace.note_singles(FLUSHED_S, 0.0)
    assert pace.in_batches


def test_one_stretch_in_which_all_stood_still_says_nothing() -> None:
    pace = Pace()
    for _ in range(5):
        for _ in range(SAMPLES * 3):
            pace.note_singles(SLOW_S / 10, 0.0)
        pace.note_singles(SLOW_S * 100, 0.0)
    assert not pace.in_batches


def test_acknowledgements_that_come_in_bursts_count_as_slow_as_they_are_together() -> None:
    """So they come when the node is busy: many are read at once, and then none for a while."""
    pace = Pace()
    for _ in range(SLOW_TIMES):
        for i in range(SAMPLES):
            pace.note_singles(FLUSHED_S * SAMPLES / 2 if i % (SAMPLES // 2) == 1 else SLOW_S / 10, 0.0)
    assert pace.in_batches


def test_batches_that_save_too_little_end_for_a_while() -> None:
    pace = Pace()
    slow(pace)
    for _ in range(2 * BATCHES):
        pace.note_batch(FLUSHED_S * WORTH_IT * 100, 100, 5.0)
    assert pace.in_batches
    for _ in range(BATCHES // 2 + 1):
        assert pace.in_batches
        pace.note_batch(FLUSHED_S * 100, 100, 5.0)
    assert not pace.in_batches
    slow(pace, 5.0 + REST_S - 0.1)
    assert not pace.in_batches
    slow(pace, 5.0 + REST_S)
    assert pace.in_batches


def test_a_batch_that_waited_behind_what_others_wrote_ends_nothing() -> None:
    pace = Pace()
    slow(pace)
    for i in range(4 * BATCHES):
        pace.note_batch(FLUSHED_S * (4000 if i % 3 == 0 else 50), 100, 5.0)
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
    for _ in range(BATCHES - 1):
        pace.note_batch(FLUSHED_S * 1000, 100, 5.0)
    assert pace.in_batches
    pace.note_batch(FLUSHED_S * 1000, 100, 5.0)
    assert not pace.in_batches
