"""What the headers of a call say, read from the block as it came. Pure.

A call has few headers, and most calls have none of these: looking for the beginning of a line takes less than parsing
them all.
"""

from __future__ import annotations

from typing import Final

from mesh.calls import HEADER_CALL, HEADER_FOR
from node.functions.job import WORKFLOW_REPLY

HEADER_RUN_ONCE: Final = "Mesh-Run-Once"
HEADER_CLAIM: Final = "Mesh-Claim"
CLAIM_LINE: Final = f"\r\n{HEADER_CLAIM}: ".encode()
FOR_LINE: Final = f"\r\n{HEADER_FOR}: ".encode()
VALUE_BYTES_MAX: Final = 512  # of a subject that somebody writes into a header

_CALL_LINE: Final = f"\r\n{HEADER_CALL}: ".encode()


def identity_in(raw_headers: bytes) -> str:
    """The identity that the caller gave a call; not that of a workflow's call, which is its reply."""
    named = value_of(raw_headers, _CALL_LINE)
    return "" if named.startswith(WORKFLOW_REPLY) else named


def value_of(raw_headers: bytes, line: bytes) -> str:
    """What stands behind the beginning of a line of headers, "" when there is no such line or it is too long."""
    at = raw_headers.find(line)
    if at < 0:
        return ""
    value = raw_headers[at + len(line) :].split(b"\r\n", 1)[0]
    return value.decode("ascii", "replace") if len(value) <= VALUE_BYTES_MAX else ""
