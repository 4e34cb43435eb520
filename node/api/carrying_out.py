"""Carrying verbs out where the caller is, or having a node do it where the caller may not.

Who may only ask (the role `client` of deploy/) has no right to end workflows or to write schedules; a node has, and the
server's accounts say who may ask it for what.
"""

from __future__ import annotations

from typing import Any

from mesh.asking import NoApi
from mesh.errors import NotPermitted
from node.api.endpoints import endpoint
from node.api.verbs import Asker


async def carry_out(asker: Asker, name: str, **arguments: Any) -> Any:
    """Carry out a verb; its record. Where this user is refused something, a node of the mesh is asked instead.

    Raises what the verb does, ApiError, and NotPermitted when this user may not even ask.
    """
    spec = endpoint(name)
    if spec is None:
        raise ValueError(f"there is no verb {name}")
    try:
        return await spec.load()(asker, **arguments)
    except NotPermitted as refused:
        given = {field.name: arguments.get(field.argument) for field in spec.fields}
        try:
            answer = await asker.client.ask(
                name, **{field: value for field, value in given.items() if value is not None}
            )
        except (NoApi, NotPermitted):
            raise refused from None
        return answer[spec.key] if spec.key else answer
