"""Hostile input made from good input: values, bytes, texts, header blocks and subjects, changed where it hurts.

A `Mutator` draws everything from one `Random`, so that a seed repeats a run. It knows the structure of what it changes:
a map loses a key or gets one of another type, a number goes to the edge of its range, a text is no UTF-8, a list is
nested deeper than anybody reads, a token of a query or a file stands where it should not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final

import msgpack

BYTES_MAX: Final = 200_000

ODD_VALUES: Final[tuple[Any, ...]] = (
    None, True, False, 0, 1, -1, 2**31, 2**53, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), 1.5, -0.0, 1e308, float("nan"), float("inf"), "", "0", "-1", "null",
    "a", "\x00", "\r\n", "x" * 5000, "\ud800", "٣", "²", "1" * 400, "{x|y}", "{c@w|x}", ".", "*", ">", "%", "%ff", "$SYS", b"", b"\xff\xfe", b"\xc1",
    b"\xc1\x92\x00\xc0", b"\xc1\x92\x01\x80", [], {}, [[]], [None], {"a": 1}, {"": None}, [1, "2", None], "1h", "-1h", "9999999h", "@every 0s", "app:main",
)  # fmt: skip
ODD_BYTES: Final = (
    b"\x00", b"\xff", b"\xc1", b"\xc1\xc1", b"\r\n", b"\n", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"-1", b"0", b"99999999999999999999", b"9" * 400, b"1e999",
    b"{", b"}", b"[" * 300, b'"', b"\\", b"\\ud800", b"null", b"NaN", b"%", b"${", b"${env:", b"}}", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff",
    b"\xd4\x01\x00", b"\x91" * 600, b"\xc7\x00\x01", b"\x81\x90\x00", b": ", b"- ", b"&a ", b"*a", b"!!python/object:os.system ", b"!!binary ", b"<<: ", b"|\n", b"\t", b"---\n",
)  # fmt: skip
ODD_TEXTS: Final = (
    "", " ", "\x00", "\n", "\r\n", "\ufeff", "\ud800", "\u202e", "\x1b[2J", "💥", "(", ")", "[[", "]]", "[==[", "--[[", "--", '"', "'", "`", "\\", "\\x", "\\u{", "${", "}",
    "%", "*", "?", ">", "<=", "!=", "~", ":", "::", "goto", "end", "function", "local", "as", "type", "<", "nil", "and", "or", "not", "in", "like", "null", "true", "1e999", "0x",
    "99999999999999999999999", "-1", ".", "..", "...", "/", ";", "' OR 1=1 --", '"; DROP TABLE runs; --', "&anchor ", "*anchor", "!!python/name:os.system", "- ", "? ", "{", "[",
    "@every", "@daily", "L", "W", "#", "h", "ns", "µs", "1h", "1.5", "60", "*/0", "Europe/Paris", "../../etc/passwd", "file://", "file:///etc/passwd", "env:PATH", "|",
)  # fmt: skip


class Mutator:
    """Makes hostile input from good input, by chance."""

    def __init__(self, random: Random) -> None:
        self.random = random

    # -- values --------------------------------------------------------------------------------------------------------

    def value(self, value: Any, changes: int = 0) -> Any:
        """A value with some of its parts changed."""
        for _ in range(changes or self.random.choice((1, 1, 1, 2, 4))):
            value = self._changed(value, 0)
        return value

    def odd(self) -> Any:
        """A value that is seldom expected."""
        kind = self.random.randrange(12)
        if kind == 0:
            return self._nested(self.random.choice((3, 100, 127, 128, 129, 450, 509, 520, 700, 950, 990, 1018, 2000)))
        if kind == 1:
            return {self.text("key"): self.random.choice(ODD_VALUES) for _ in range(self.random.randrange(6))}
        if kind == 2:
            return [self.random.choice(ODD_VALUES)] * self.random.choice((1, 3, 1000))
        return self.random.choice(ODD_VALUES)

    def _nested(self, depth: int) -> Any:
        value: Any = self.random.choice((1, None, "x"))
        for _ in range(depth):
            value = [value] if self.random.random() < 0.7 else {"a": value}
        return value

    def _changed(self, value: Any, depth: int) -> Any:
        if isinstance(value, dict) and value and self.random.random() < 0.85:
            changed = dict(value)
            key = self.random.choice(list(changed))
            how = self.random.randrange(8)
            if how < 4:
                changed[key] = self._changed(changed[key], depth + 1)
            elif how == 4:
                del changed[key]
            elif how == 5:
                changed[self.random.choice(("x", "", key, "id", "a" * 300, 1, None))] = self.odd()
            elif how == 6:
                other = self.random.choice(list(changed))
                changed[key], changed[other] = changed[other], changed[key]
            else:
                changed[key] = self.odd()
            return changed
        if isinstance(value, list) and value and self.random.random() < 0.85:
            items = list(value)
            at = self.random.randrange(len(items))
            how = self.random.randrange(6)
            if how < 3:
                items[at] = self._changed(items[at], depth + 1)
            elif how == 3:
                del items[at]
            elif how == 4:
                items.insert(at, self.odd())
            else:
                items += items
            return items
        if isinstance(value, bytes) and self.random.random() < 0.6:
            return self.octets(value)
        if isinstance(value, str) and self.random.random() < 0.6:
            return self.text(value)
        if isinstance(value, int) and not isinstance(value, bool) and self.random.random() < 0.4:
            return value + self.random.choice((-1, 1, 2**31, 2**62, -(2**62)))
        return self.odd()

    # -- bytes ---------------------------------------------------------------------------------------------------------

    def octets(self, data: bytes, others: Sequence[bytes] = ()) -> bytes:
        """Bytes with some changed, at most BYTES_MAX."""
        out = bytearray(data)
        for _ in range(self.random.choice((1, 1, 2, 3, 8))):
            at = self.random.randrange(len(out) + 1)
            end = min(len(out), at + self.random.choice((1, 1, 2, 4, 16, 100)))
            how = self.random.randrange(9)
            if how == 0 and out:
                out[at % len(out)] ^= 1 << self.random.randrange(8)
            elif how == 1 and out:
                out[at % len(out)] = self.random.randrange(256)
            elif how == 2:
                del out[at:end]
            elif how == 3:
                out[at:at] = self.random.choice(ODD_BYTES)
            elif how == 4:
                out[at:end] = self.random.choice(ODD_BYTES)
            elif how == 5:
                del out[at:]
            elif how == 6:
                out[at:at] = out[at:end] * self.random.choice((1, 3, 50))
            elif how == 7 and others:
                other = self.random.choice(others)
                out[at:] = other[self.random.randrange(len(other) + 1) :]
            else:
                out[at:at] = self.random.randbytes(self.random.choice((1, 4, 40)))
        return bytes(out[:BYTES_MAX])

    def msgpack(self, data: bytes, others: Sequence[bytes] = ()) -> bytes:
        """A msgpack value, maybe behind a marker, that is another one or none at all."""
        prefix, body = (data[:1], data[1:]) if data[:1] == b"\xc1" else (b"", data)
        if self.random.random() < 0.65:
            try:
                value = msgpack.unpackb(body, raw=False, strict_map_key=False, unicode_errors="surrogateescape")
                return prefix + packed(self.value(value))
            except (ValueError, TypeError, msgpack.UnpackException, RecursionError, OverflowError):
                pass
        return self.octets(data, others)

    def json(self, data: bytes, others: Sequence[bytes] = ()) -> bytes:
        """A JSON text that says something else or nothing."""
        if self.random.random() < 0.65:
            try:
                return json.dumps(_for_json(self.value(json.loads(data)))).encode("utf-8", "surrogatepass")
            except (ValueError, TypeError, RecursionError):
                pass
        return self.octets(data, others)

    # -- texts ---------------------------------------------------------------------------------------------------------

    def text(self, text: str, others: Sequence[str] = ()) -> str:
        """A text with tokens changed."""
        tokens = re.findall(r"\w+|\s+|.", text, re.DOTALL) or [""]
        for _ in range(self.random.choice((1, 1, 2, 3, 6))):
            at = self.random.randrange(len(tokens) + 1)
            how = self.random.randrange(9)
            if how == 0 and at < len(tokens):
                del tokens[at]
            elif how == 1 and at < len(tokens):
                tokens[at] = self.random.choice(ODD_TEXTS)
            elif how in (2, 3):
                tokens.insert(at, self.random.choice(ODD_TEXTS))
            elif how == 4 and at < len(tokens):
                tokens[at] = tokens[at] * self.random.choice((2, 3, 400))
            elif how == 5 and at < len(tokens):
                other = self.random.randrange(len(tokens))
                tokens[at], tokens[other] = tokens[other], tokens[at]
            elif how == 6:
                tokens = tokens[:at]
            elif how == 7 and others:
                tokens[at:at] = re.findall(r"\w+|\s+|.", self.random.choice(others), re.DOTALL)
            else:
                tokens[at:at] = [self.random.choice("([{<")] * self.random.choice((1, 30, 250, 3000))
            tokens = tokens[:40_000] or [""]
        return "".join(tokens)[:BYTES_MAX]

    def header(self, block: bytes) -> bytes:
        """A header block with lines dropped, doubled, changed, or broken."""
        lines = block.split(b"\r\n")
        for _ in range(self.random.choice((1, 2, 4))):
            at = self.random.randrange(len(lines))
            how = self.random.randrange(7)
            if how == 0 and len(lines) > 1:
                del lines[at]
            elif how == 1:
                lines.insert(at, lines[at])
            elif how == 2:
                lines[at] = self.octets(lines[at])
            elif how == 3:
                name, colon, _ = lines[at].partition(b":")
                lines[at] = name + colon + b" " + self.random.choice((*ODD_BYTES, b"9" * 5000, b"x" * 3000))
            elif how == 4:
                lines[at] = lines[at].replace(b":", b"")
            elif how == 5:
                lines.insert(at, b"X: y")
            else:
                lines[0] = self.random.choice(
                    (
                        b"NATS/1.0 503",
                        b"NATS/1.0",
                        b"NATS/1.0 abc",
                        b"NATS/1.0 100 Idle",
                        b"",
                        b"HTTP/1.1 200",
                        b"NATS/1.0 -1",
                    )
                )
        return b"\r\n".join(lines)

    def tokens(self, subject: str) -> str:
        """A subject with tokens changed; may be one that no server would deliver."""
        parts = subject.split(".")
        for _ in range(self.random.choice((1, 1, 2, 3))):
            at = self.random.randrange(len(parts))
            how = self.random.randrange(5)
            if how == 0 and len(parts) > 1:
                del parts[at]
            elif how == 1:
                parts.insert(at, parts[at])
            elif how == 2:
                parts[at] = self.random.choice(
                    (
                        "0",
                        "-1",
                        "²",
                        "٣",
                        "9" * 19,
                        "9" * 30,
                        "x",
                        "%",
                        "%zz",
                        "%2e",
                        "%ff",
                        "",
                        "start",
                        "end",
                        "retry-1-1",
                        "retry-",
                        "delay",
                        "timeout",
                        "a" * 600,
                    )
                )
            elif how == 3:
                parts[at] = self.text(parts[at]).replace(".", "")[:800]
            else:
                parts.append(self.random.choice(("1", "x", "%20")))
        return ".".join(parts)

    def among(self, mutations: Sequence[Callable[[], Any]]) -> Any:
        """What one of these gives."""
        return self.random.choice(mutations)()


def packed(value: Any) -> bytes:
    """A value as msgpack, as deep as it is: the library unpacks what is deeper than what it packs."""
    out: list[bytes] = []
    stack = [value]
    while stack:
        part = stack.pop()
        if isinstance(part, dict):
            out.append(bytes([0x80 | len(part)]) if len(part) < 16 else b"\xdf" + len(part).to_bytes(4, "big"))
            stack += [each for item in reversed(part.items()) for each in reversed(item)]
        elif isinstance(part, list | tuple):
            out.append(bytes([0x90 | len(part)]) if len(part) < 16 else b"\xdd" + len(part).to_bytes(4, "big"))
            stack += reversed(part)
        else:
            out.append(_packed_leaf(part))
    return b"".join(out)


def _packed_leaf(value: Any) -> bytes:
    try:
        data: bytes = msgpack.packb(value, use_bin_type=True, unicode_errors="surrogatepass")
    except (ValueError, OverflowError, TypeError):
        data = msgpack.packb(repr(value)[:200], use_bin_type=True, unicode_errors="surrogatepass")
    return data


def _for_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, dict):
        return {
            (key if isinstance(key, str | int | float | bool) or key is None else repr(key)): _for_json(item)
            for key, item in value.items()
        }
    return [_for_json(item) for item in value] if isinstance(value, list | tuple) else value
