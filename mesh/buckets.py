"""Key-value buckets (ADR-8): one value per key, each with a time to live of its own if wanted (ADR-48).

    bucket = Bucket(js, "mesh_roster")
    revision = await bucket.create("claim.orders.0", b"{}")
    await bucket.update("claim.orders.0", b"...", revision)

A bucket is a stream, and so its keys are followed as any other is (`mesh.follower`).

Not here: what is in the buckets of the mesh (`mesh.roster`, `mesh.hosts`, `node.units.names`); object stores, whose
buckets are others (`mesh.objects`).

Invariants: a marker (deleted, purged or expired key) counts as absent, and its sequence is the one that the next write
has to expect. A write that was sent and not acknowledged raises OutcomeUnknown.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from mesh.errors import Conflict, InvalidName
from mesh.jetstream import JetStream
from mesh.stored_messages import StoredMessage, is_marker
from mesh.stream_reads import StreamInfo

# Long enough for every watcher to see that a key has gone, also after a break.
MARKER_TTL_S = 60

_KEY = re.compile(r"[-/_=.a-zA-Z0-9]+")


class KvEntry(NamedTuple):
    """A key's value. revision: sequence of the write that made it."""

    key: str
    value: bytes
    revision: int


class Bucket:
    """One bucket. stream: the one that it is; prefix: what its keys stand behind in the subjects of that."""

    def __init__(self, js: JetStream, name: str) -> None:
        self.name = name
        self.stream = f"KV_{name}"
        self.prefix = f"$KV.{name}."
        self._js = js

    async def ensure(self, *, marker_ttl_s: int = MARKER_TTL_S, description: str = "", replicas: int = 1) -> StreamInfo:
        """Create the bucket, or update it where it differs; doing it twice is harmless.

        marker_ttl_s: how long a marker of an expired key stands.
        """
        config = bucket_config(self.name, marker_ttl_s=marker_ttl_s, description=description, replicas=replicas)
        return await self._js.ensure_stream(config)

    async def get(self, key: str, *, from_leader: bool = False) -> KvEntry | None:
        """Return the key's value, None if it is absent, deleted or expired."""
        message = await self._js.get_last(self.stream, self._subject(key), from_leader=from_leader)
        return None if message is None or is_marker(message.raw_headers) else self._entry(message)

    async def entries(self, keys: str = ">") -> list[KvEntry]:
        """Return all present keys that fit the pattern, oldest write first."""
        messages = await self._js.batch_get(self.stream, subject_filter=f"{self.prefix}{keys}")
        # A copy that is behind may still have an older value of a key, and another one then gives the newer.
        newest = {message.subject: message for message in messages}
        return [
            self._entry(message)
            for message in messages
            if newest[message.subject] is message and not is_marker(message.raw_headers)
        ]

    async def put(self, key: str, value: bytes, *, ttl_s: int | None = None) -> int:
        """Set a key whatever it was; return its revision."""
        return (await self._js.publish(self._written(key), value, ttl_s=ttl_s)).seq

    async def create(self, key: str, value: bytes, *, ttl_s: int | None = None) -> int:
        """Set a key that is absent; return its revision. Raises Conflict if it is there, OutcomeUnknown."""
        written = self._written(key)
        try:
            return (await self._js.publish(written, value, expect_last_subject_seq=0, ttl_s=ttl_s)).seq
        except Conflict:
            last = await self._js.get_last(self.stream, self._subject(key), from_leader=True)
            if last is not None and not is_marker(last.raw_headers):
                raise
        expected = last.seq if last is not None else 0
        return (await self._js.publish(written, value, expect_last_subject_seq=expected, ttl_s=ttl_s)).seq

    async def update(self, key: str, value: bytes, revision: int, *, ttl_s: int | None = None) -> int:
        """Set a key whose last write is `revision`; return the new one. Raises Conflict, OutcomeUnknown."""
        subject = self._written(key)
        return (await self._js.publish(subject, value, expect_last_subject_seq=revision, ttl_s=ttl_s)).seq

    async def delete(self, key: str, *, revision: int | None = None, marker_ttl_s: int = MARKER_TTL_S) -> int:
        """Delete a key, only if its last write is `revision` when that is given; return the marker's sequence.

        The marker itself goes after marker_ttl_s. Raises Conflict, OutcomeUnknown.
        """
        headers = {"KV-Operation": "DEL"}
        subject = self._written(key)
        ack = await self._js.publish(subject, headers=headers, expect_last_subject_seq=revision, ttl_s=marker_ttl_s)
        return ack.seq

    def _subject(self, key: str) -> str:
        if not _KEY.fullmatch(key) or key[0] == "." or key[-1] == "." or ".." in key:
            raise InvalidName(f"{key!r} is no key of a bucket: letters, digits and -/_=. only")
        return self.prefix + key

    def _written(self, key: str) -> str:
        """The subject that this user writes a key on, which another account may know by a longer one."""
        return self._js.conn.js_keys_prefix + self._subject(key)

    def _entry(self, message: StoredMessage) -> KvEntry:
        return KvEntry(message.subject[len(self.prefix) :], message.data, message.seq)


def bucket_config(
    bucket: str, *, marker_ttl_s: int = MARKER_TTL_S, description: str = "", replicas: int = 1
) -> dict[str, Any]:
    """The stream that a bucket is; the parameters are those of `Bucket.ensure`.

    History is 1, for with any other the server silently raises a key's time to live to that of the markers.
    """
    return {
        "name": f"KV_{bucket}",
        "description": description,
        "subjects": [f"$KV.{bucket}.>"],
        "max_msgs_per_subject": 1,
        "storage": "file",
        "num_replicas": replicas,
        "discard": "new",
        "allow_rollup_hdrs": True,
        "deny_delete": True,
        "allow_direct": True,
        "allow_msg_ttl": True,
        "subject_delete_marker_ttl": marker_ttl_s * 1_000_000_000,
    }
