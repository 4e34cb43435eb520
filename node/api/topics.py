"""Topics of messages: what a workflow listens to, beside what it was sent; near misses get a proposal. Pure.

A message whose topic nobody listens to waits, as the code may listen to it later. So a mistyped topic is no error, and
nobody hears of it; who looks at the workflow is told.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from node.api.findings import some

Record = dict[str, Any]

_HELD: Final = ("listener", "inbox", "nobody")


def unread_records(mailbox: Mapping[str, Any]) -> list[Record]:
    """What a workflow has not read, by topic: {topic, messages, held, near}.

    held: by the `listener` of the topic, by the `inbox`, or by `nobody` so far. near: a topic that it listens to and
    that looks like this one, else null.
    """
    listens = listened(mailbox)
    return [
        {
            "topic": str(item.get("topic")), "messages": item.get("messages"), "held": item.get("held"),
            "near": near(str(item.get("topic")), listens) if item.get("held") != "listener" else None,
        }
        for item in mailbox.get("unread") or ()
        if item.get("held") in _HELD
    ]  # fmt: skip


def listened(mailbox: Mapping[str, Any]) -> list[str]:
    """The topics that a workflow listens to."""
    return [str(topic) for topic in mailbox.get("listens") or ()]


def near(topic: str, listens: Sequence[str]) -> str | None:
    """The topic that may have been meant; None when nothing looks like it, or it is listened to itself."""
    if topic in listens:
        return None
    folded = {one.casefold(): one for one in listens}
    found = difflib.get_close_matches(topic.casefold(), folded, n=1)
    return folded[found[0]] if found else None


def why_unheard(workflow_id: str, topic: str, mailbox: Mapping[str, Any]) -> str | None:
    """What to tell somebody who has sent a signal that the workflow does not listen to now; None when all is well.

    A workflow that listens to nothing at all has not come so far yet, and one that reads its inbox takes any topic.
    """
    listens = listened(mailbox)
    if not listens or topic in listens:
        return None
    meant = near(topic, listens)
    if meant is not None:
        return f"{workflow_id} listens to {meant} and not to {topic}: did you mean {meant}? It was sent all the same"
    if mailbox.get("inbox") or mailbox.get("cut"):
        return None
    return (
        f"{workflow_id} does not listen to {topic} now, but to {some(listens)}; the signal waits until it listens to "
        "its topic, or reads its inbox"
    )
