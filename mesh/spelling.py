"""What somebody has probably meant who wrote a word that is not known. Pure.

Every error about an unknown name proposes one: the nearest that there is, else the way to all of them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Final

# Entries of one namespace, `shop:charge` and `shop:order`, look alike whatever they are called: their names must, too.
NAMES_ALIKE: Final = 0.5


def nearest(word: str, known: Iterable[str], *, alike: float = 0.6) -> str | None:
    """The known word that is spelled most like this one, None when none is much like it. alike: from 0, any, to 1.

    Of entries (`namespace:name`) the one with that very name when the namespace was left out.
    """
    known = [one for one in known if _names_alike(word, one)]
    named_so = [one for one in known if one.rpartition(":")[2] == word]
    return next(iter(named_so or difflib.get_close_matches(word, known, n=1, cutoff=alike)), None)


def _names_alike(word: str, other: str) -> bool:
    if ":" not in word or ":" not in other:
        return True
    matcher = difflib.SequenceMatcher(None, word.rpartition(":")[2], other.rpartition(":")[2])
    return matcher.ratio() >= NAMES_ALIKE


def proposal(word: str, known: Iterable[str], otherwise: str = "", *, alike: float = 0.6) -> str:
    """A question for the nearest word, or what to do when there is none. otherwise: by default all words are named."""
    known = list(known)
    near = nearest(word, known, alike=alike)
    if near is not None:
        return f"did you mean {near}?"
    return otherwise or f"there are: {', '.join(known) or 'none'}"
