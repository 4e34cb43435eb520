"""Monitors and links, decided: who is told of an end, and nobody twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from node.units.links import Farewell, Links


def test_an_end_concerns_monitors_then_links_in_the_order_they_came() -> None:
    links = Links()
    assert links.monitor("b", "t")
    assert links.monitor("a", "t")
    links.link("t", "c")
    links.link("a", "t")
    links.monitor("t", "x")
    assert links.ended("t") == Farewell(("b", "a"), ("c", "a"), ("x",))
    assert links.ended("t") == Farewell((), (), ())
    assert not links.is_linked("a", "t")


def test_a_second_monitor_is_refused_and_a_second_link_is_fine() -> None:
    links = Links()
    assert links.monitor("a", "t")
    assert not links.monitor("a", "t")
    links.link("a", "t")
    links.link("a", "t")
    assert links.ended("t") == Farewell(("a",), ("a",), ())


def test_what_is_taken_back_is_not_told() -> None:
    links = Links()
    links.monitor("a", "t")
    links.link("a", "t")
    assert links.unmonitor("a", "t")
    assert not links.unmonitor("a", "t")
    assert links.unlink("t", "a")
    assert not links.unlink("a", "t")
    assert links.ended("t") == Farewell((), (), ())


def test_a_watcher_that_ends_is_not_told_any_more() -> None:
    links = Links()
    links.monitor("a", "t")
    links.ended("a")
    assert links.ended("t") == Farewell((), (), ())


def test_all_units_of_a_lost_node_end_at_once() -> None:
    links = Links()
    links.monitor("here", "gone-1")
    links.link("gone-2", "here")
    links.monitor("gone-1", "here")
    links.monitor("here", "stays")
    lost = links.lost(lambda pid: pid.startswith("gone"))
    assert lost == {"gone-1": Farewell(("here",), (), ("here",)), "gone-2": Farewell((), ("here",), ())}
    assert links.ended("stays") == Farewell(("here",), (), ())
    assert links.ended("here") == Farewell((), (), ())


UNITS = st.sampled_from("abcd")
STEPS = st.lists(
    st.tuples(st.sampled_from(["monitor", "unmonitor", "link", "unlink", "ended"]), UNITS, UNITS), max_size=30
)


@given(STEPS)
def test_it_agrees_with_a_plain_model_of_sets_of_pairs(steps: list[tuple[str, str, str]]) -> None:
    """Whoever is told of an end is exactly who watches at that moment."""
    links, monitors, pairs = Links(), set[tuple[str, str]](), set[frozenset[str]]()
    for verb, one, other in steps:
        if verb == "monitor":
            assert links.monitor(one, other) == ((one, other) not in monitors)
            monitors.add((one, other))
        elif verb == "unmonitor":
            assert links.unmonitor(one, other) == ((one, other) in monitors)
            monitors.discard((one, other))
        elif verb == "link":
            links.link(one, other)
            pairs.add(frozenset((one, other)))
        elif verb == "unlink":
            assert links.unlink(one, other) == (frozenset((one, other)) in pairs)
            pairs.discard(frozenset((one, other)))
        else:
            farewell = links.ended(one)
            linked = {next(iter(pair - {one}), one) for pair in pairs if one in pair}
            assert set(farewell.monitors) == {watcher for watcher, target in monitors if target == one}
            assert set(farewell.linked) == linked
            assert set(farewell.watched) - {one} == {t for w, t in monitors if w == one} - {one}
            monitors = {pair for pair in monitors if one not in pair}
            pairs = {pair for pair in pairs if one not in pair}
