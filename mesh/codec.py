"""How values become bytes and bytes become values.

Our own payloads are 0xC1 followed by one msgpack value. 0xC1 is the one byte that msgpack never uses and that no UTF-8
text contains, so everything else is what a person or a foreign program sent: JSON if it parses, else text, else raw
bytes. Nothing here raises anything but `Undecodable`. Why a marker byte and no header: docs/adr/0002.

An *outcome* (what answers a call) is 0xC1 and the array [0, value] or [1, failure map]; a reply of a foreign service
is a success whose value is its decoded body.
"""

from __future__ import annotations

import json
import math
import re
import reprlib
from typing import Any, Final

import msgpack

from mesh.envelopes import ENVELOPE, Unopened, why_closed
from mesh.errors import Undecodable
from mesh.failure import Failure, Kind

MARKER = b"\xc1"
EXT_ERROR = 1

SUCCESS_PREFIX = MARKER + b"\x92\x00"
FAILURE_PREFIX = MARKER + b"\x92\x01"
NIL_OUTCOME = SUCCESS_PREFIX + b"\xc0"

# Lua reads and writes no deeper than this (node/lua/msgpack.lua); foreign JSON that is deeper stays text.
DEPTH_MAX: Final = 128

# What is not ASCII and steers a terminal all the same: C1 control characters, changes of the direction of writing.
_STEERING: Final = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def pack(value: Any) -> bytes:
    """Encode as msgpack. A `Failure` anywhere inside becomes extension type 1. Raises ValueError or TypeError.

    Text that was no UTF-8 when it was read (see `unpack`) becomes the bytes it was.
    """
    packed: bytes
    try:
        packed = msgpack.packb(value, default=_pack_extension, use_bin_type=True)
    except UnicodeEncodeError:  # tried last: with an error handler every text takes the slow way
        packed = msgpack.packb(value, default=_pack_extension, use_bin_type=True, unicode_errors="surrogateescape")
    return packed


def unpack(data: bytes) -> Any:
    """Decode one msgpack value; text that is no UTF-8 keeps its bytes as surrogates. Raises Undecodable."""
    try:
        return msgpack.unpackb(
            data,
            ext_hook=_unpack_extension,
            raw=False,
            strict_map_key=False,
            unicode_errors="surrogateescape",
        )
    # msgpack raises half a dozen unrelated classes for malformed input; TypeError for a list or map as a key.
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise Undecodable(f"malformed msgpack: {error or type(error).__name__}") from error


def encode(value: Any) -> bytes:
    """Encode as one of our payloads."""
    return MARKER + pack(value)


def decode(data: bytes) -> Any:
    """Decode a payload of ours, JSON or text. Empty bytes are None.

    Raises Undecodable for a broken payload of ours, Unopened for an envelope that was not opened.
    """
    if data[:1] == MARKER:
        return _unpack_marked(data)
    return decode_foreign(data)


def _unpack_marked(data: bytes) -> Any:
    try:
        return unpack(data[1:])
    except Undecodable:
        if data[:2] == ENVELOPE:
            raise Unopened(why_closed(data) or "") from None
        raise


def decode_foreign(data: bytes) -> Any:
    """What a person or a foreign program meant: JSON if it parses, else text, else the bytes themselves.

    The result can always be encoded: integers beyond 64 bits become floats, and JSON that no payload of ours can hold
    (nested too deep, half a surrogate pair) is text.
    """
    if not data.strip():
        return None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data
    try:
        value = json.loads(text, parse_constant=_refuse_constant, parse_int=_integer)
    except (ValueError, RecursionError):
        return text
    return value if _can_be_encoded(text, value) else text


def as_marked(data: bytes) -> bytes:
    """The same value as a payload of ours; what is ours already passes unchanged once it is known to decode."""
    if data[:1] == MARKER:
        _unpack_marked(data)
        return data
    return encode(decode_foreign(data))


def encode_success(value: Any) -> bytes:
    """The outcome of a call that succeeded."""
    return SUCCESS_PREFIX + pack(value)


def encode_failure(failure: Failure) -> bytes:
    """The outcome of a call that failed."""
    return FAILURE_PREFIX + pack(failure.to_wire())


def decode_outcome(data: bytes) -> tuple[bool, Any]:
    """Read an outcome: (True, value) or (False, Failure). Raises Undecodable."""
    if data[:1] != MARKER:
        return True, decode_foreign(data)
    value = _unpack_marked(data)
    if not (isinstance(value, list) and len(value) == 2 and value[0] in (0, 1)):
        raise Undecodable("an outcome is [0, value] or [1, failure]")
    return (True, value[1]) if value[0] == 0 else (False, Failure.from_wire(value[1]))


def undecodable_failure(what: str, error: Exception) -> Failure:
    """The failure that stands for bytes nobody can read."""
    return Failure(message=f"undecodable {what}: {error}", kind=Kind.INTERNAL)


def to_json(value: Any, *, indent: int | None = None) -> str:
    """Show a value as JSON for people: bytes as text, failures as their map. Never raises.

    It is JSON that everybody reads and that can be printed on a terminal: `NaN` and `Infinity` are texts, and what
    would steer a terminal is an escape.
    """
    try:
        text = json.dumps(_showable(value), ensure_ascii=False, allow_nan=False, default=_show, indent=indent)
    except (TypeError, ValueError):  # keys that are no texts
        text = json.dumps(repr(value), ensure_ascii=False, indent=indent)
    except RecursionError:
        text = json.dumps(reprlib.repr(value), ensure_ascii=False, indent=indent)
    return text if text.isascii() and "\x7f" not in text else _STEERING.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def _showable(value: object) -> object:
    if isinstance(value, dict):
        return {_show_key(key): _showable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_showable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return json.dumps(value)
    return value


def _show_key(key: object) -> str | int | float | bool | None:
    if isinstance(key, bytes):
        return key.decode("utf-8", "replace")
    return key if isinstance(key, str | int | float | bool) or key is None else repr(key)


def _show(value: object) -> object:
    if isinstance(value, Failure):
        return value.to_wire()
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return repr(value)


def _integer(digits: str) -> int | float:
    value = int(digits)
    # Not float(value): that refuses what is larger than any float, where the text `1e999` is infinite.
    return value if -(2**63) <= value < 2**64 else float(digits)


def _can_be_encoded(text: str, value: Any) -> bool:
    if "\\u" in text:
        try:
            pack(value)
        except ValueError:
            return False
    if text.count("[") + text.count("{") <= DEPTH_MAX:
        return True  # the usual case: there are not even that many brackets
    level: list[Any] = [value]
    for _ in range(DEPTH_MAX + 1):
        level = [inner for outer in level for inner in _members(outer)]
        if not level:
            return True
    return False


def _members(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _pack_extension(value: object) -> msgpack.ExtType:
    if isinstance(value, Failure):
        return msgpack.ExtType(EXT_ERROR, pack(value.to_wire()))
    if isinstance(value, int):
        raise ValueError(f"the integer {value} does not fit in 64 bits")
    raise TypeError(f"a {type(value).__name__} cannot be sent; use numbers, text, bytes, lists, dicts and None")


def _unpack_extension(code: int, data: bytes) -> object:
    if code == EXT_ERROR:
        return Failure.from_wire(unpack(data))
    return None
