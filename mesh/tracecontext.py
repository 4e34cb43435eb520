"""The W3C trace context: which trace something belongs to, as it travels in the headers of a message.

Pure but for `current_context`: what a request came with, as its handler says by `carrying`, else the span that the
caller is in. OpenTelemetry is asked for that only when somebody else in this process has imported it: where nobody has,
there is no span.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, NamedTuple

from mesh.wire import parse_headers

HEADER_PARENT: Final = "traceparent"
HEADER_STATE: Final = "tracestate"
# On the start of a run that follows another one: the span of that.
HEADER_FOLLOWS: Final = "Mesh-Follows"
SAMPLED: Final = 0x01

_PARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?").fullmatch


_carried: ContextVar[TraceContext | None] = ContextVar("mesh_trace_context", default=None)


class TraceContext(NamedTuple):
    """A span that others may have as their parent. state: what the tracing systems on the way have to say."""

    trace_id: int
    span_id: int
    flags: int = SAMPLED
    state: str = ""

    @property
    def text(self) -> str:
        """As the value of `traceparent`."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{self.flags:02x}"

    @property
    def trace_id_text(self) -> str:
        """The trace's id as people look for it."""
        return f"{self.trace_id:032x}"

    @property
    def headers(self) -> dict[str, str]:
        """As headers of a message."""
        headers = {HEADER_PARENT: self.text}
        if self.state:
            headers[HEADER_STATE] = self.state
        return headers


def read_context(raw_headers: bytes | None) -> TraceContext | None:
    """The context that came with a message; None when there is none, or none that can be read."""
    # The names are taken in any case: Go's clients write Traceparent.
    if raw_headers is None or b"raceparent: " not in raw_headers:
        return None
    headers = {name.lower(): value for name, value in parse_headers(raw_headers).items()}
    return parse_context(headers.get(HEADER_PARENT, ""), headers.get(HEADER_STATE, ""))


def followed_context(raw_headers: bytes | None) -> TraceContext | None:
    """The span of the run that the run of this start follows; None when there is none."""
    if raw_headers is None or HEADER_FOLLOWS.encode() not in raw_headers:
        return None
    return parse_context(parse_headers(raw_headers).get(HEADER_FOLLOWS, ""))


def parse_context(parent: str, state: str = "") -> TraceContext | None:
    """Read the values of the two headers; None for what is no context."""
    found = _PARENT(parent.strip())
    if found is None or found[1] == "ff" or (found[1] == "00" and found[5]):
        return None
    trace_id, span_id = int(found[2], 16), int(found[3], 16)
    if not trace_id or not span_id:
        return None
    return TraceContext(trace_id, span_id, int(found[4], 16), state)


@contextmanager
def carrying(context: TraceContext | None) -> Iterator[None]:
    """Let what is started and called in the block belong to this context; None changes nothing."""
    token = _carried.set(context or _carried.get())
    try:
        yield
    finally:
        _carried.reset(token)


def current_context() -> TraceContext | None:
    """The context that the caller carries, or the span that it is in, if there is one."""
    carried = _carried.get()
    if carried is not None:
        return carried
    trace: Any = sys.modules.get("opentelemetry.trace")  # a module that is there or not has no type
    if trace is None:
        return None
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return TraceContext(context.trace_id, context.span_id, int(context.trace_flags), context.trace_state.to_header())
