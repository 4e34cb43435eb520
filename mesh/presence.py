"""A function host on its own says that it is there: one key beside the members of the mesh, and nothing read.

Such a node owns no partitions, so it needs no view of who else is up; it need not even be allowed one. Its key
`host.<node>` in the bucket of the roster expires unless it is renewed. Owners of workflows count by these keys how many
answers to "who has this call?" there are to come (`mesh.roster`).

Not here: serving calls. Invariant: that the key cannot be written stops nothing, it is tried again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

import anyio

from mesh.buckets import Bucket
from mesh.errors import TEMPORARY, MeshError, NotPermitted
from mesh.jetstream import JetStream
from mesh.roster import BUCKET, GOOD_BYE_S, MEMBER_TTL_S, RENEW_EVERY_S
from mesh.subjects import bucket_key

_log = logging.getLogger(__name__)


class Presence:
    """The key of one function host. details: what it says of itself, of which `functions` counts."""

    def __init__(self, js: JetStream, node_id: str, details: Mapping[str, Any]) -> None:
        self._bucket = Bucket(js, BUCKET)
        self._key = f"host.{bucket_key(node_id)}"
        self._value = json.dumps(dict(details)).encode()
        self._left = False

    async def run(self) -> None:
        """Say so until cancelled. Raises NotPermitted: what this user may not write, it will not be let later."""
        told = ""
        while not self._left:
            try:
                await self._bucket.put(self._key, self._value, ttl_s=MEMBER_TTL_S)
                told = ""
            except NotPermitted:
                raise
            except TEMPORARY as error:
                if str(error) != told:
                    told = str(error)
                    _log.warning("the mesh is not told of this host yet (is a node up?): %s", error)
            await anyio.sleep(RENEW_EVERY_S)

    async def leave(self) -> None:
        """Say good-bye."""
        self._left = True
        try:
            with anyio.fail_after(GOOD_BYE_S):
                await self._bucket.delete(self._key)
        except (MeshError, TimeoutError) as error:
            _log.warning("could not say good-bye, the key of this host will expire: %s", error or "no answer")
