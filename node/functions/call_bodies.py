"""The body of a call: arguments and context as the mesh writes them, and what is written outside of it. Pure.

From anybody else comes one JSON value; a service outside of the mesh takes what its entry says (`function.nats`).
"""

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


def foreign_body(request: bytes, encoding: str) -> bytes:
    """A request of ours for a service outside of the mesh: its one argument, several as a list, nothing for none.

    encoding: json, text or msgpack. Raises TypeError, ValueError, OverflowError for what cannot be written so.
    """
    args, _context = codec.decode(request)
    value = args[0] if len(args) == 1 else (args or None)
    if encoding == "msgpack":
        return codec.pack(value)
    if encoding == "text":
        if isinstance(value, bytes):
            return value
        return value.encode() if isinstance(value, str) else codec.to_json(value).encode()
    if value is None:
        return b""
    return codec.to_json(value).encode("utf-8", "replace")
