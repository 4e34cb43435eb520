"""The keys of a node: those it was given, and those that workers of its app have for themselves.

Who encrypts what is decided here once, from the registry; the rest is `mesh.encryption`. A queue whose worker says
`encryption: off` is written as it is, whatever keys there are; with `required` there have to be some. What is of no
worker's queue takes the node's keys or, if it was given none, those of the first worker that has some.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import anyio

from mesh.errors import MeshError
from mesh.subjects import token
from node.registry import Encryption, Registry

if TYPE_CHECKING:
    from collections.abc import Callable

    from mesh.encryption import Keyring, Keys
    from mesh.envelopes import PayloadCodec
    from mesh.key_files import KeyFile

LOOK_EVERY_S: Final = 1.0


class NoKeys(MeshError):
    """Raised when a worker requires encryption and a node has no key to encrypt with."""

    code = "no-keys"


def keys_of(registry: Registry, given: PayloadCodec | None) -> PayloadCodec | None:
    """What encrypts on a node that runs this app. given: what the node was given, None for nothing.

    Raises NoKeys, and BadKeys for a worker's key file that cannot be used.
    """
    from_workers = any(w.options.keys or w.options.encryption is Encryption.OFF for w in registry.workers().values())
    if given is None and not from_workers:
        _check_required(registry, None)
        return None
    from mesh.encryption import Keyring, Keys
    from mesh.key_files import KeyFile

    files: dict[str, KeyFile] = {}
    by_queue: dict[str, Keyring | None] = {}
    for worker in registry.workers().values():
        options = worker.options
        if options.encryption is Encryption.OFF:
            by_queue[token(worker.task_queue)] = None
        elif options.keys:
            if options.keys not in files:
                files[options.keys] = KeyFile(options.keys)
            by_queue[token(worker.task_queue)] = files[options.keys]
        elif given is None:
            by_queue[token(worker.task_queue)] = None
    if given is not None and not isinstance(given, Keyring):
        return given  # a codec of somebody's own
    # Log lines, answers, calls by clients, messages of processes and of queues, other nodes' queues: no worker's.
    # They carry what a worker was given all the same: that the node has no keys is no reason to leave them in plain.
    keys = Keys(given if given is not None else next(iter(files.values()), None), by_queue)
    _check_required(registry, keys)
    return keys if keys.rings else None  # all workers say off


def _check_required(registry: Registry, keys: Keys | None) -> None:
    for worker_id, worker in registry.workers().items():
        if worker.options.encryption is Encryption.REQUIRED:
            ring = keys.ring_of_queue(token(worker.task_queue)) if keys is not None else None
            if ring is None or ring.primary is None:
                raise NoKeys(
                    f"worker {worker_id} requires encryption and has no key to encrypt with; "
                    "start the node with --keys FILE, or set worker_options.keys (`mesh keys new FILE` makes one)"
                )


def key_files_of(codec: PayloadCodec | None) -> list[KeyFile]:
    """The key files that a codec reads."""
    if codec is None:
        return []
    from mesh.key_files import KeyFile

    return [ring for ring in _rings_of(codec) if isinstance(ring, KeyFile)]


def told_keys(codec: PayloadCodec | None, queue: str = "") -> dict[str, Any] | None:
    """What may be said of the keys for a queue, else of those for what is of no queue, to anybody who asks.

    {primary, keys: {name: fingerprint}}: which one encrypts, and all that can be opened with. None: there are no keys;
    {own: true}: a codec of somebody's own, of which nothing is known.
    """
    if codec is None:
        return None
    from mesh.encryption import Keyring, Keys

    if not isinstance(codec, Keyring | Keys):
        return {"own": True}
    writes = codec.ring_of_queue(token(queue) if queue else "") if isinstance(codec, Keys) else codec
    known: dict[str, str] = {}
    for ring in (*_rings_of(codec), *([writes] if writes is not None else [])):
        known |= ring.fingerprints
    return {"primary": writes.primary if writes is not None else None, "keys": known}


def _rings_of(codec: PayloadCodec) -> list[Keyring]:
    from mesh.encryption import Keyring, Keys

    return codec.rings if isinstance(codec, Keys) else [codec] if isinstance(codec, Keyring) else []


async def watch_keys(codec: PayloadCodec, changed: Callable[[], None]) -> None:
    """Look at the key files again now and then, until cancelled; changed() is called when there are other keys."""
    removers = [ring.on_change(changed) for ring in _rings_of(codec)]
    files = key_files_of(codec)
    try:
        while True:
            await anyio.sleep(LOOK_EVERY_S)
            for file in files:
                file.look()
    finally:
        for remove in removers:
            remove()
