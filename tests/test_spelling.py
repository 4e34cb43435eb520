"""What is proposed to whoever writes a name that is not known."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from mesh.spelling import nearest, proposal

KNOWN = ["orders", "billing", "b", "a"]


@pytest.mark.parametrize(
    ("word", "known", "said"),
    [
        ("ordres", KNOWN, "did you mean orders?"),
        ("shipping", KNOWN, "there are: orders, billing, b, a"),  # as they are given
        ("ordres", iter(KNOWN), "did you mean orders?"),
        ("shipping", iter(KNOWN), "there are: orders, billing, b, a"),
        ("ordres", [], "there are: none"),
    ],
)
def test_the_nearest_word_is_proposed_else_all_are_named(word: str, known: Iterable[str], said: str) -> None:
    assert proposal(word, known) == said


def test_another_way_out_is_told_only_where_no_word_is_near() -> None:
    assert proposal("shipping", KNOWN, "see: mesh ls") == "see: mesh ls"
    assert proposal("order", KNOWN, "see: mesh ls") == "did you mean orders?"


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("shop:ordr", "shop:order"),
        ("shp:order", "shop:order"),
        ("order", "shop:order"),
        ("approval", "app.workflows:approval"),
        ("shop:charge", None),  # all that it shares is the namespace
        ("shop:older", "shop:order"),
        ("charge", None),
    ],
)
def test_entries_of_one_namespace_must_be_alike_in_their_names(word: str, near: str | None) -> None:
    assert nearest(word, ["shop:loop", "shop:order", "app.workflows:approval"]) == near


def test_how_much_alike_words_must_be_can_be_said() -> None:
    """`order` and `orders` share 10 of 11 letters."""
    assert nearest("order", KNOWN, alike=0.90) == "orders"
    assert nearest("order", KNOWN, alike=0.92) is None
