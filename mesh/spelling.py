"""What somebody has probably meant who wrote a word that is not known. Pure.

Every error about an unknown name proposes one: the nearest that there is, else the way to all of them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str], *, alike: float = 0.6) -> str | None:
    """The known word that is spelled most like this one, None when none is much like it. alike: from 0, any, to 1."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=alike)), None)


def proposal(word: str, known: Iterable[str], otherwise: str = "", *, alike: float = 0.6) -> str:
    """A question for the nearest word, or what to do when there is none. otherwise: by default all words are named."""
    known = list(known)
    near = nearest(word, known, alike=alike)
    if near is not None:
        return f"did you mean {near}?"
    return otherwise or f"there are: {', '.join(known) or 'none'}"
