"""Durations as Go writes them: `1h30m`, `250ms`, `1.5s`, to and from integer nanoseconds.

Every place that reads a duration (registry files, options of calls and workflows, the command line) comes through here,
so that all of them accept the same texts and refuse the rest with the same words. What a plain number means differs
from place to place (nanoseconds, milliseconds, seconds), so the caller says it.

Invariants: a result always fits in a signed 64-bit integer; `parse_duration_ns(format_duration(n))` is `n`; arithmetic
is on integers only, parts of a nanosecond are cut off towards zero. (Go multiplies fractions as floats, so where a
fraction is finer than a nanosecond, as in `0.3333333333333333333h`, its result may be one nanosecond higher.)
"""

from __future__ import annotations

import math
import re

from mesh.errors import MeshError

NANOSECOND = 1
MICROSECOND = 1_000
MILLISECOND = 1_000_000
SECOND = 1_000_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE

_UNITS = {
    "ns": NANOSECOND,
    "us": MICROSECOND,
    "\u00b5s": MICROSECOND,  # micro sign
    "\u03bcs": MICROSECOND,  # Greek letter mu
    "ms": MILLISECOND,
    "s": SECOND,
    "m": MINUTE,
    "h": HOUR,
}
_NS_MAX = 2**63 - 1
_NS_MIN = -(2**63)
# A fraction's later digits weigh less than 4e-6 ns even in hours; Go stops reading at about the same place.
_FRACTION_DIGITS_MAX = 18
_NUMBER = re.compile(r"([0-9]*)(?:\.([0-9]*))?")
_UNIT = re.compile(r"[^.0-9]*")


class BadDuration(MeshError, ValueError):
    """Raised when a text or number is not a duration, or is one that does not fit in 64 bits."""

    code = "bad-duration"

    def __init__(self, given: object, reason: str) -> None:
        self.given = given
        super().__init__(reason)


def parse_duration_ns(text_or_number: str | int | float, *, number_unit_ns: int) -> int:
    """Return a duration in nanoseconds.

    text_or_number: a Go duration text, or a number of units.
    number_unit_ns: what one unit of a plain number is; a text is not affected by it.
    Raises BadDuration, worded like Go's `time.ParseDuration`.
    """
    given = text_or_number
    if isinstance(given, str):
        return _parse_text(given)
    if isinstance(given, bool) or (isinstance(given, float) and not math.isfinite(given)):
        raise BadDuration(given, f"time: invalid duration {given}")
    numerator, denominator = given.as_integer_ratio()
    ns = _divide_towards_zero(numerator * number_unit_ns, denominator)
    if not _NS_MIN <= ns <= _NS_MAX:
        raise BadDuration(given, f"time: invalid duration {given}: more than 64 bits of nanoseconds")
    return ns


def format_duration(ns: int) -> str:
    """Return the text Go prints for a duration: `1h30m45s`, `1.5s`, `250ms`, `0s`."""
    sign, rest = ("-", -ns) if ns < 0 else ("", ns)
    if rest == 0:
        return "0s"
    if rest < SECOND:
        unit, name = next(
            u for u in ((MILLISECOND, "ms"), (MICROSECOND, "\u00b5s"), (NANOSECOND, "ns")) if rest >= u[0]
        )
        return f"{sign}{_decimal(rest, unit)}{name}"
    minutes, below_minute = divmod(rest, MINUTE)
    hours, minutes_left = divmod(minutes, 60)
    text = f"{_decimal(below_minute, SECOND)}s"
    if minutes:
        text = f"{minutes_left}m{text}"
    if hours:
        text = f"{hours}h{text}"
    return sign + text


def _parse_text(text: str) -> int:
    negative = text.startswith("-")
    at = 1 if text[:1] in ("-", "+") else 0
    if text[at:] == "0":
        return 0
    if at == len(text):
        raise _invalid(text)
    total = 0
    while at < len(text):
        number = _NUMBER.match(text, at)
        if number is None or not (number[1] or number[2]):
            raise _invalid(text)
        unit = _UNIT.match(text, number.end())
        if unit is None or not unit[0]:
            raise BadDuration(text, f"time: missing unit in duration {_quote(text)}")
        scale = _UNITS.get(unit[0])
        if scale is None:
            raise BadDuration(text, f"time: unknown unit {_quote(unit[0])} in duration {_quote(text)}")
        total += _amount(text, number[1], number[2] or "", scale)
        at = unit.end()
        if total > -_NS_MIN:
            raise _invalid(text)
    if not negative and total > _NS_MAX:
        raise _invalid(text)
    return -total if negative else total


def _amount(text: str, whole: str, fraction: str, scale: int) -> int:
    significant = whole.lstrip("0")
    if len(significant) > len(str(_NS_MAX)):  # also keeps int() away from texts it refuses for their length
        raise _invalid(text)
    digits = fraction[:_FRACTION_DIGITS_MAX]
    divisor: int = 10 ** len(digits)
    part = int(digits or "0") * scale // divisor
    return int(significant or "0") * scale + part


def _decimal(ns: int, unit: int) -> str:
    whole, rest = divmod(ns, unit)
    fraction = str(rest).rjust(len(str(unit)) - 1, "0").rstrip("0")
    return f"{whole}.{fraction}" if fraction else str(whole)


def _divide_towards_zero(numerator: int, denominator: int) -> int:
    quotient = abs(numerator) // denominator
    return -quotient if numerator < 0 else quotient


def _invalid(text: str) -> BadDuration:
    return BadDuration(text, f"time: invalid duration {_quote(text)}")


def _quote(text: str) -> str:
    """Quote as package time does: every byte that is not printable ASCII is written in hexadecimal."""
    out = []
    for byte in text.encode("utf-8", "surrogatepass"):
        if byte in b'"\\':
            out.append("\\" + chr(byte))
        elif 0x20 <= byte < 0x80:
            out.append(chr(byte))
        else:
            out.append(f"\\x{byte:02x}")
    return '"' + "".join(out) + '"'
