"""The body of a call: arguments and context as the mesh writes them, or one JSON value from anybody else."""

from __future__ import annotations

from typing import Any, Final

from mesh import codec

_PREFIX: Final = codec.MARKER + b"\x92"


def checked_request(data: bytes) -> bytes:
    """A request as the kernel reads it, [arguments, context]. Raises Undecodable.

    Somebody else's JSON is the only argument.
    """
    if data[:2] == _PREFIX:
        codec.unpack(data[1:])
        return data
    value = codec.decode(data)
    return codec.encode([[] if value is None else [value], None])


def decode_request(data: bytes) -> list[Any]:
    """The arguments of a request. Raises Undecodable."""
    value = codec.decode(data)
    if data[:2] == _PREFIX and isinstance(value[0], list):
        return list(value[0])
    return [] if value is None else [value]
