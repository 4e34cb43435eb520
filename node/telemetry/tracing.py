"""The spans of a node. The only importer of opentelemetry.

One trace per run: a span for the run, one below it for each attempt of a step, and below that the span of whoever ran
it. The owner makes its spans when they are over, from what the history says, with the ids that `RunTrace` gives them:
no span is open while a run waits, and none is lost with a node but those that were not sent yet. The span of a function
call is a live one: the function's own spans come below it.

Made by `tracing_of`, as the OTEL_ variables say (`node.telemetry.trace_settings`). Where they ask for nothing, this
module is not even imported.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
)

from mesh.redaction import shown_text
from mesh.subjects import WorkflowKey
from mesh.tracecontext import SAMPLED, TraceContext
from node.telemetry.run_trace import RunTrace, derived_trace_id
from node.telemetry.trace_settings import TraceSettings, TracingNotPossible

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.sdk.trace.id_generator import IdGenerator

Attributes = Mapping[str, str | int | float | bool]

# The SDK's own default is 5 s. What is not sent yet when a node is killed is lost.
EXPORT_EVERY_MS: Final = 1000
FLUSH_MS: Final = 3000


class FunctionSpan:
    """The span of a function call, while it runs. context: for what the function calls."""

    __slots__ = ("_span", "context")

    def __init__(self, span: Span) -> None:
        self._span = span
        self.context = _context_of(span.get_span_context())

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make it the parent of the spans that the code in the block makes."""
        with trace.use_span(self._span, end_on_exit=False, record_exception=False, set_status_on_exception=False):
            yield

    def end(self, failure: str | None) -> None:
        """The call is over. failure: why it failed."""
        if failure is not None:
            self._span.set_status(Status(StatusCode.ERROR, failure))
        self._span.set_attribute("mesh.outcome", "completed" if failure is None else "failed")
        self._span.end()


class Tracing:
    """Makes the spans of one node with a provider of OpenTelemetry's SDK, which decides what becomes of them."""

    def __init__(self, provider: TracerProvider, version: str = "") -> None:
        self.provider = provider
        self._ids = _GivenIds(provider.id_generator)
        # It has the methods; the class to inherit from is in the SDK, which need not be there when this is imported.
        provider.id_generator = self._ids  # type: ignore[assignment]
        self._tracer = provider.get_tracer("moonmesh", version or None)

    def run_trace(self, key: WorkflowKey, run: int, workflow: str, parent: TraceContext | None) -> RunTrace:
        """The trace of a run. parent: the context that its start came with. Whether it is recorded is decided here."""
        trace_id = parent.trace_id if parent is not None else derived_trace_id(key, run)
        sampled = self.provider.sampler.should_sample(_as_parent(parent), trace_id, f"workflow {workflow}")
        flags = SAMPLED if sampled.decision.is_sampled() else 0  # type: ignore[no-untyped-call]
        state = sampled.trace_state.to_header() if sampled.trace_state else ""
        return RunTrace(key, run, parent, flags=flags, state=state)

    def step(
        self, run: RunTrace, name: str, span: TraceContext, start_ns: int, end_ns: int, *, attributes: Attributes,
        failure: str | None = None, remote: bool = False,
    ) -> None:  # fmt: skip
        """A step of a run is over, or an attempt of it. remote: somebody else carried it out."""
        kind = SpanKind.CLIENT if remote else SpanKind.INTERNAL
        made = self._start(name, span, run.root, kind, start_ns, attributes)
        if failure is not None:
            made.set_status(Status(StatusCode.ERROR, failure))
        made.end(max(start_ns, end_ns))

    def run(
        self, run: RunTrace, name: str, start_ns: int, end_ns: int, *, attributes: Attributes, failure: str | None
    ) -> None:
        """A run is over."""
        made = self._start(name, run.root, run.parent, SpanKind.INTERNAL, start_ns, attributes)
        if run.follows is not None:
            made.add_link(_span_context(run.follows), {"mesh.link": "follows"})
        for note in run.notes:
            made.add_event(note.name, {"mesh.topic": note.topic} if note.topic else None, note.at_ns)
        if failure is not None:
            made.set_status(Status(StatusCode.ERROR, failure))
        made.end(max(start_ns, end_ns))

    def function(self, function_id: str, parent: TraceContext | None, attributes: Attributes) -> FunctionSpan:
        """A call of a function begins."""
        return FunctionSpan(
            self._tracer.start_span(
                function_id, context=_as_parent(parent), kind=SpanKind.SERVER, attributes=dict(attributes)
            )
        )

    def make_global(self) -> None:
        """Let the code of functions make spans with this provider, unless there is one already."""
        if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            trace.set_tracer_provider(self.provider)

    def shut_down(self) -> None:
        """Send what is not sent yet, for a short time. Waits, so not on the event loop."""
        self.provider.force_flush(FLUSH_MS)
        self.provider.shutdown()

    def _start(
        self, name: str, span: TraceContext, parent: TraceContext | None, kind: SpanKind, start_ns: int,
        attributes: Attributes,
    ) -> Span:  # fmt: skip
        with self._ids.given(span.trace_id, span.span_id):
            return self._tracer.start_span(
                name, context=_as_parent(parent), kind=kind, start_time=start_ns, attributes=dict(attributes)
            )


def tracing_of(settings: TraceSettings, node_id: str, version: str) -> Tracing:
    """Traces as they are asked for. Raises TracingNotPossible when what is needed for that is not installed."""
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
    except ImportError as error:
        raise TracingNotPossible(
            f"{settings.asked_by} asks for traces, but the SDK of OpenTelemetry is not installed; "
            "pip install 'moonmesh[otel]'"
        ) from error
    running = trace.get_tracer_provider()
    if isinstance(running, TracerProvider):
        return Tracing(running, version)  # somebody has set it up for this process, as opentelemetry-instrument does
    about = {"service.instance.id": node_id, "service.version": version}
    named = os.environ.get("OTEL_SERVICE_NAME") or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    if not named:
        about["service.name"] = "moonmesh"
    provider = TracerProvider(resource=Resource.create(about))
    every_ms = None if os.environ.get("OTEL_BSP_SCHEDULE_DELAY") else EXPORT_EVERY_MS
    for name in settings.exporters:
        exporter: SpanExporter = (
            # Standard output is for results.
            ConsoleSpanExporter(out=sys.stderr) if name == "console" else _otlp_exporter(settings)
        )
        provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=every_ms))
    return Tracing(provider, version)


def _otlp_exporter(settings: TraceSettings) -> SpanExporter:
    http = settings.protocol == "http/protobuf"
    package = "opentelemetry-exporter-otlp-proto-http" if http else "opentelemetry-exporter-otlp-proto-grpc"
    # By name: the one for gRPC is not among our dependencies.
    module = f"opentelemetry.exporter.otlp.proto.{'http' if http else 'grpc'}.trace_exporter"
    try:
        exporter: type[SpanExporter] = importlib.import_module(module).OTLPSpanExporter
    except ImportError as error:
        raise TracingNotPossible(
            f"{settings.asked_by} asks for traces over {settings.protocol}; pip install {package}"
        ) from error
    # It tells where it failed to send them, in full, and what is logged is published.
    logging.getLogger(exporter.__module__).addFilter(_without_secrets)
    return exporter()


def _without_secrets(record: logging.LogRecord) -> bool:
    record.msg, record.args = shown_text(record.getMessage()), ()
    return True


class _GivenIds:
    """Ids that are given, else those of the generator that was there. Others make spans in other threads."""

    def __init__(self, others: IdGenerator) -> None:
        self._others = others
        self._here = threading.local()

    @contextmanager
    def given(self, trace_id: int, span_id: int) -> Iterator[None]:
        """Give these to the one span that this thread makes in the block."""
        self._here.ids = (trace_id, span_id)
        try:
            yield
        finally:
            self._here.ids = None

    def generate_span_id(self) -> int:
        """As the SDK asks for it."""
        ids = getattr(self._here, "ids", None)
        return ids[1] if ids is not None else self._others.generate_span_id()

    def generate_trace_id(self) -> int:
        """As the SDK asks for it, for a span without parent."""
        ids = getattr(self._here, "ids", None)
        return ids[0] if ids is not None else self._others.generate_trace_id()

    def is_trace_id_random(self) -> bool:
        """Whether the SDK may say that trace ids are random: ours are hashes, but older SDKs do not ask."""
        return False


def _as_parent(parent: TraceContext | None) -> Context:
    """A context with a parent from elsewhere; without one an empty one, so that what happens to be current is none."""
    if parent is None:
        return Context()
    return trace.set_span_in_context(NonRecordingSpan(_span_context(parent)), Context())


def _span_context(context: TraceContext) -> SpanContext:
    state = TraceState.from_header([context.state]) if context.state else None
    return SpanContext(context.trace_id, context.span_id, True, TraceFlags(context.flags), state)


def _context_of(span: SpanContext) -> TraceContext:
    return TraceContext(span.trace_id, span.span_id, int(span.trace_flags), span.trace_state.to_header())
