"""Verbs of the control API as commands: carried out, and their records printed when somebody wants JSON.

Not here: what the verbs do (`node.api`), what a command says to people.
"""

from __future__ import annotations

from typing import Any

from node.cli.connecting import Server, run
from node.cli.printing import print_json


def carried_out(server: Server, what: str, verb: str, *, as_json: bool, **arguments: Any) -> dict[str, Any]:
    """Carry out a verb, here or by a node where this user may not; return its record, and print it as JSON if asked.

    what: is named when it takes longer than `--timeout`. Raises what the verb does.
    """
    record: dict[str, Any] = {}

    async def main() -> None:
        from node.api.carrying_out import carry_out

        async with server.client() as client:
            with server.deadline(what):
                record.update(await carry_out(server.asker(client), verb, **arguments))

    run(main)
    if as_json:
        print_json(record)
    return record
