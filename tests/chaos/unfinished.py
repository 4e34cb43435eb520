"""What has not ended, and what it waits for: the sentence of a finding is of no use without that.

Of every such workflow `logs/show-<id>.json` has what `mesh show --json` says of it.
"""

from __future__ import annotations

import json
from typing import Any, Final

from mesh.client import Client
from mesh.errors import MeshError
from mesh.subjects import WorkflowKey, untoken
from node.api.describing import describe
from tests.chaos.load import read_ledger
from tests.chaos.record import QUEUE, Record

DESCRIBED_MAX: Final = 10


async def unfinished(client: Client, record: Record) -> list[str]:
    """A sentence for each workflow that somebody waits for, or that the server holds without an end."""
    waited_for = [name for name, known in read_ledger(record).items() if known.acknowledged and not known.ended]
    held = [untoken(name.split()[0]) for name in record.leftovers().get("open", ())]
    names = list(dict.fromkeys(waited_for + held))
    found = [await _sentence(client, record, name) for name in names[:DESCRIBED_MAX]]
    if len(names) > DESCRIBED_MAX:
        found.append(
            f"{len(names) - DESCRIBED_MAX} further workflows have not ended: {', '.join(names[DESCRIBED_MAX:])}"
        )
    return found


async def _sentence(client: Client, record: Record, name: str) -> str:
    try:
        shown = await describe(client, WorkflowKey(QUEUE, name))
    except MeshError as error:
        return f"{name} has not ended, and cannot be described: {error}"
    text = json.dumps(shown, indent=1, default=str)
    (record.directory / "logs" / f"show-{name}.json").write_text(text + "\n", encoding="utf-8")
    return f"{name} has not ended: {shown.get('status')}, {_waiting(shown)}"


def _waiting(shown: dict[str, Any]) -> str:
    waiting = shown.get("waiting") or shown.get("note") or shown.get("reason")
    return f"waits for {json.dumps(waiting, default=str)}" if waiting else "and nobody says what it waits for"
