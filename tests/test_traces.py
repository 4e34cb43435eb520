"""The traces of workflows: one for each run, whoever owns it and whoever carries out its steps."""

from __future__ import annotations

import gzip
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import anyio
import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler, TraceIdRatioBased

import mesh.client
from mesh.subjects import WorkflowKey
from mesh.tracecontext import TraceContext, current_context, parse_context, read_context
from node.telemetry.run_trace import RunTrace
from node.telemetry.trace_settings import TracingNotPossible, trace_settings
from node.telemetry.tracing import Tracing, tracing_of
from tests.apps import WORKER, a_mesh, is_handled, write_app
from tests.cluster import a_node, mesh_command
from tests.conftest import ServerFactory
from tests.waiting import wait_until, wait_until_async

PYTHON = {"kind": "function.python"}
STARTER = TraceContext(0xABC << 100, 0xDEF << 40)


async def inner(name: str) -> str:
    """A function that makes a span of its own, as users' functions do."""
    tracer = PROVIDERS[name].get_tracer("users")
    with tracer.start_as_current_span("of the user"):
        return trace.format_trace_id(trace.get_current_span().get_span_context().trace_id)


async def gate(file: str) -> int:
    """A function that ends when a file is there."""
    while not await anyio.Path(file).exists():  # noqa: ASYNC110 - it is another process that makes it
        await anyio.sleep(0.02)
    return 2


PROVIDERS: dict[str, TracerProvider] = {}


class Spans:
    """What a provider has made, in the order in which it ended."""

    def __init__(self, sampler: Sampler = ALWAYS_ON) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(resource=Resource({"service.instance.id": "a"}), sampler=sampler)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracing = Tracing(self.provider)

    @property
    def all(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.all if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span

    def parent_of(self, span: ReadableSpan) -> str:
        """The name of a span's parent."""
        if span.parent is None:
            return "-"
        names = [s.name for s in self.all if s.context.span_id == span.parent.span_id]
        return names[0] if names else f"somebody's {span.parent.span_id:x}"

    def tree(self) -> dict[str, str]:
        """Each name with that of its parent."""
        return {span.name: self.parent_of(span) for span in self.all}


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


APP = {
    "order": """return function()
        local first = funcs.call('app:outer', 'Ada')
        time.sleep('5ms')
        workflow.exec('app:child')
        process.inbox():receive()
        return first
    end""",
    "child": "return function() return funcs.call('app:leaf', 1) end",
    "retries": """return function()
        local quick = funcs.new():with_options{retry_policy = {initial_interval = 1, maximum_attempts = 2}}
        local _, err = quick:call('app:broken')
        return tostring(err)
    end""",
    "counts": "return function(n) if n > 1 then process.upgrade(nil, n - 1) end return 'done' end",
    "fails": "return function() error('no way') end",
    "asks": "return function(name) return funcs.call('app:inner', name) end",
    "gated": "return function(file) return funcs.call('app:leaf', 1) + funcs.call('app:gate', file) + funcs.call('app:leaf', 3) end",
}
FUNCTIONS: dict[str, Any] = {
    "outer": "return function(name) return funcs.call('app:leaf', name) end",
    "leaf": "return function(x) return x end",
    "broken": "return function() return nil, errors.new{message = 'broken', retryable = true} end",
    "gate": PYTHON | {"source": "tests.test_traces:gate"},
    "inner": PYTHON | {"source": "tests.test_traces:inner"},
}


async def test_a_run_is_one_trace_with_a_span_for_each_step(nats_server: ServerFactory, tmp_path: Path) -> None:
    spans = Spans()
    async with a_mesh(
        nats_server().url, write_app(tmp_path, workflows=APP, functions=FUNCTIONS), tracing=spans.tracing
    ) as m:
        handle = await m.start("order", id="o-1")
        await handle.signal("go")
        assert await handle.result(timeout_s=20) == "Ada"
        # Each span ends with the end as the stream has it, and the two workflows are in partitions of their own.
        await wait_until(lambda: spans.named("workflow app:order") and spans.named("workflow app:child"))
        await wait_until(lambda: len(spans.all) >= 9)
        assert {span.context.trace_id for span in spans.all} == {spans.one("workflow app:order").context.trace_id}
        leaves = sorted(spans.parent_of(span) for span in spans.named("app:leaf"))
        assert leaves == ["app:outer", "call app:leaf"]
        tree = spans.tree()
        assert tree | {"app:leaf": ""} == {
            "workflow app:order": "-",
            "call app:outer": "workflow app:order",
            "app:outer": "call app:outer",
            "app:leaf": "",
            "timer": "workflow app:order",
            "spawn app:child": "workflow app:order",
            "workflow app:child": "spawn app:child",
            "call app:leaf": "workflow app:child",
        }
        assert len(spans.all) == 9
        root = spans.one("workflow app:order")
        assert attributes(root).items() >= {
            "mesh.workflow_id": "o-1", "mesh.workflow": "app:order", "mesh.queue": "orders", "mesh.outcome": "completed",
        }.items()  # fmt: skip
        assert [(event.name, dict(event.attributes or {})) for event in root.events] == [
            ("signal", {"mesh.topic": "go"})
        ]
        step = spans.one("call app:outer")
        assert (
            attributes(step).items()
            >= {
                "mesh.function": "app:outer",
                "mesh.attempt": 1,
                "mesh.outcome": "completed",
                "mesh.host_node": "a",
            }.items()
        )
        assert root.resource.attributes["service.instance.id"] == "a"
        assert root.start_time is not None
        assert step.start_time == root.start_time, "both from the start event"
        events = await m.events("o-1")
        assert step.end_time == next(event.at_ns for event in events if event.kind == "ret")
        assert root.end_time == events[-1].at_ns
        timer = spans.one("timer")
        assert timer.start_time is not None
        assert timer.end_time is not None
        assert timer.end_time - timer.start_time >= 5_000_000


async def test_attempts_and_failures_are_told(nats_server: ServerFactory, tmp_path: Path) -> None:
    spans = Spans()
    async with a_mesh(
        nats_server().url, write_app(tmp_path, workflows=APP, functions=FUNCTIONS), tracing=spans.tracing
    ) as m:
        assert "broken" in await m.run("retries")
        await wait_until(lambda: len(spans.named("call app:broken")) == len(spans.named("app:broken")) == 2)
        first, second = spans.named("call app:broken")
        assert [attributes(span)["mesh.attempt"] for span in (first, second)] == [1, 2]
        assert all("broken" in (span.status.description or "") for span in (first, second))
        assert first.end_time is not None
        assert second.start_time is not None
        assert second.start_time - first.end_time == 1_000_000, "the pause of the policy lies between them"
        assert [spans.parent_of(span) for span in spans.named("app:broken")] == ["call app:broken"] * 2
        assert [span.parent.span_id for span in spans.named("app:broken") if span.parent] == [
            first.context.span_id, second.context.span_id,
        ]  # fmt: skip
        assert "no way" in (await m.failure("fails")).message
        await wait_until(lambda: spans.named("workflow app:fails"))
        failed = spans.one("workflow app:fails")
        assert failed.status.status_code is trace.StatusCode.ERROR
        assert (failed.status.description or "").startswith("failed: ")


async def test_the_trace_of_who_starts_a_workflow_goes_on_in_it(nats_server: ServerFactory, tmp_path: Path) -> None:
    """And a Python function runs inside its span: the spans that it makes are below that."""
    spans = Spans()
    PROVIDERS["a"] = spans.provider
    async with a_mesh(
        nats_server().url, write_app(tmp_path, workflows=APP, functions=FUNCTIONS), tracing=spans.tracing
    ) as m:
        with spans.provider.get_tracer("client").start_as_current_span("the client") as span:
            handle = await m.start("asks", "a")
            assert await m.client.call("app:leaf", 7) == 7
        assert await handle.result(timeout_s=20) == f"{span.get_span_context().trace_id:032x}"
        await wait_until(lambda: len(spans.all) >= 6)
        assert spans.tree() == {
            "the client": "-",
            "app:leaf": "the client",
            "workflow app:asks": "the client",
            "call app:inner": "workflow app:asks",
            "app:inner": "call app:inner",
            "of the user": "app:inner",
        }


class Collector(BaseHTTPRequestHandler):
    """What takes spans over HTTP, as Jaeger and Tempo do. spans: node id and span, as they came."""

    spans: ClassVar[list[tuple[str, Span]]]

    def do_POST(self) -> None:
        request = ExportTraceServiceRequest()
        request.ParseFromString(gzip_free(self.rfile.read(int(self.headers["Content-Length"])), self.headers))
        for resource in request.resource_spans:
            about = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans.extend((about["service.instance.id"], span) for span in scope.spans)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        return


def gzip_free(data: bytes, headers: Message) -> bytes:
    return gzip.decompress(data) if headers.get("Content-Encoding") == "gzip" else data


@contextmanager
def a_collector() -> Iterator[tuple[str, list[tuple[str, Span]]]]:
    """A collector's address, and what it gets."""
    spans: list[tuple[str, Span]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Collects", (Collector,), {"spans": spans}))
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.05))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", spans
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


async def test_a_run_whose_owner_is_killed_is_still_one_trace_without_a_span_twice(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    """What came while nobody owned the run is made a span by the next owner; what the first had handled is not."""
    app, url, file = write_app(tmp_path, workflows=APP, functions=FUNCTIONS), nats_server().url, tmp_path / "open"
    with a_collector() as (address, spans):
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": address, "OTEL_BSP_SCHEDULE_DELAY": "50"}

        def called(name: str) -> list[tuple[str, Span]]:
            return [(node, span) for node, span in spans if span.name == name]

        async with (
            mesh.client.connect(url) as client,
            a_node(app, url, node_id="functions", arguments=("--without", "app:worker"), environ=environ),
        ):
            async with a_node(
                app, url, node_id="killed", arguments=("--only", "app:worker"), environ=environ
            ) as killed:
                handle = await client.start("app:gated", str(file), host=WORKER, id="o-1")
                await wait_until_async(lambda: is_handled(client, handle, events=2))
                await wait_until(lambda: called("call app:leaf"))
                killed.kill()
                await killed.wait()
            file.touch()

            async def is_answered() -> bool:
                return len(await handle.history()) == 3

            await wait_until_async(is_answered)
            async with a_node(app, url, node_id="next", arguments=("--only", "app:worker"), environ=environ):
                assert await handle.result(timeout_s=20) == 6
                await wait_until(lambda: called("workflow app:gated"))
        by_id = {span.span_id: span for _, span in spans}
        assert len(by_id) == len(spans), "no span came twice"
        assert {span.trace_id for _, span in spans} == {spans[0][1].trace_id}
        made = sorted(
            (node, span.name, by_id[span.parent_span_id].name if span.parent_span_id else "-") for node, span in spans
        )
        assert made == [
            ("functions", "app:gate", "call app:gate"),
            ("functions", "app:leaf", "call app:leaf"),
            ("functions", "app:leaf", "call app:leaf"),
            ("killed", "call app:leaf", "workflow app:gated"),
            ("next", "call app:gate", "workflow app:gated"),
            # The first attempt is one that the owner before might have made, and that nobody has.
            ("next", "call app:leaf", "workflow app:gated"),
            ("next", "call app:leaf", "workflow app:gated"),
            ("next", "workflow app:gated", "-"),
        ]


async def test_a_run_that_follows_another_is_a_trace_of_its_own_with_a_link(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    """A workflow may go on for ever; its trace may not."""
    spans = Spans()
    async with a_mesh(
        nats_server().url, write_app(tmp_path, workflows=APP, functions=FUNCTIONS), tracing=spans.tracing
    ) as m:
        with trace.use_span(trace.NonRecordingSpan(_remote(STARTER))):
            handle = await m.start("counts", 2, id="c")
        assert await handle.result(timeout_s=20) == "done"
        await wait_until(lambda: len(spans.named("workflow app:counts")) == 2)
        first, second = spans.named("workflow app:counts")
        assert [attributes(span)["mesh.outcome"] for span in (first, second)] == ["continued", "completed"]
        assert first.context.trace_id == STARTER.trace_id
        assert second.context.trace_id != STARTER.trace_id
        assert second.parent is None
        (link,) = second.links
        assert (link.context.trace_id, link.context.span_id) == (first.context.trace_id, first.context.span_id)


async def test_the_control_api_and_the_command_line_start_in_the_trace_they_are_called_in(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    spans, url = Spans(), nats_server().url
    async with a_mesh(url, write_app(tmp_path, workflows=APP, functions=FUNCTIONS), tracing=spans.tracing) as m:
        body = json.dumps({"workflow": "app:child", "id": "by-api", "host": WORKER}).encode()
        await m.client.conn.request("mesh.api.start", body, timeout_s=15, headers=STARTER.headers)
        done = await mesh_command(
            "start", "app:child", "--id", "by-command", url=url, environ={"TRACEPARENT": STARTER.text}
        )
        assert done.status == 0, done.err
        await wait_until(lambda: len(spans.named("workflow app:child")) == 2, timeout_s=20)
        assert {span.context.trace_id for span in spans.named("workflow app:child")} == {STARTER.trace_id}


async def test_who_samples_decides_for_the_whole_run(nats_server: ServerFactory, tmp_path: Path) -> None:
    spans = Spans(ParentBased(ALWAYS_OFF))
    async with a_mesh(
        nats_server().url, write_app(tmp_path, workflows=APP, functions=FUNCTIONS), tracing=spans.tracing
    ) as m:
        await m.run("child", id="unseen")
        assert await m.kinds("unseen") == ["start", "ret", "end"]
        with trace.use_span(trace.NonRecordingSpan(_remote(STARTER))):
            await m.run("child", id="seen")
        await wait_until(lambda: len(spans.all) == 3)
        assert {span.context.trace_id for span in spans.all} == {STARTER.trace_id}
        assert spans.one("workflow app:child")


@pytest.mark.parametrize("context", [STARTER, None], ids=["with one", "without"])
async def test_a_node_that_makes_no_spans_hands_on_the_context_that_came_in(
    nats_server: ServerFactory, tmp_path: Path, context: TraceContext | None
) -> None:
    """And without one no request has a header for it."""
    async with a_mesh(nats_server().url, write_app(tmp_path, workflows=APP, functions=FUNCTIONS)) as m:
        seen: list[TraceContext | None] = []
        m.client.conn.subscribe_direct("mesh.fn.>", lambda _subject, _reply, _data, raw: seen.append(read_context(raw)))
        await m.client.conn.flush()
        with trace.use_span(trace.NonRecordingSpan(_remote(context))) if context is not None else nullcontext():
            await m.run("child", id="c-1")
        assert seen == [context]


def _remote(context: TraceContext) -> trace.SpanContext:
    return trace.SpanContext(context.trace_id, context.span_id, True, trace.TraceFlags(context.flags))


# -- the decisions ----------------------------------------------------------------------------------------------------


def test_the_ids_of_a_run_are_the_same_for_every_owner() -> None:
    key = WorkflowKey("orders", "o-1")
    first, again, other = (RunTrace(key, run, None, flags=1) for run in (7, 7, 8))
    assert (first.trace_id, first.root, first.step(3, 2)) == (again.trace_id, again.root, again.step(3, 2))
    spans = {first.root.span_id, *(first.step(n, attempt).span_id for n in (1, 2, 12) for attempt in (1, 2, 21))}
    assert len(spans) == 10
    assert other.trace_id != first.trace_id
    started = RunTrace(key, 7, STARTER, flags=1)
    assert (started.trace_id, started.root.span_id) == (STARTER.trace_id, first.root.span_id)


def test_a_ratio_decides_alike_on_every_node() -> None:
    key = WorkflowKey("orders", "o-1")
    sampler = ParentBased(TraceIdRatioBased(0.5))
    decisions = [
        [Spans(sampler).tracing.run_trace(key, run, "w", None).root.flags for run in range(40)] for _ in range(2)
    ]
    assert decisions[0] == decisions[1]
    assert set(decisions[0]) == {0, 1}


@pytest.mark.parametrize(
    ("parent", "found"),
    [
        (STARTER.text, STARTER),
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", TraceContext(0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, 0)),
        ("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-later", TraceContext(0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331)),
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-later", None),
        ("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", None),
        ("00-00000000000000000000000000000000-b7ad6b7169203331-01", None),
        ("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", None),
        ("00-0AF7651916CD43DD8448EB211C80319C-B7AD6B7169203331-01", None),
        ("nonsense", None),
        ("", None),
    ],
)  # fmt: skip
def test_only_a_whole_w3c_context_is_read(parent: str, found: TraceContext | None) -> None:
    assert parse_context(parent) == found


def test_a_context_is_read_from_headers_in_any_case() -> None:
    raw = f"NATS/1.0\r\nTraceparent: {STARTER.text}\r\nTracestate: a=1\r\n\r\n".encode()
    assert read_context(raw) == STARTER._replace(state="a=1")
    assert read_context(None) is None
    assert read_context(b"NATS/1.0\r\nOther: x\r\n\r\n") is None
    assert current_context() is None


def test_the_variables_of_opentelemetry_ask_for_traces() -> None:
    asked = {
        "": None,
        "OTEL_TRACES_EXPORTER=none OTEL_EXPORTER_OTLP_ENDPOINT=http://x": None,
        "OTEL_SDK_DISABLED=true OTEL_TRACES_EXPORTER=otlp": None,
        "OTEL_SERVICE_NAME=shop": None,
        "OTEL_EXPORTER_OTLP_ENDPOINT=http://x": (("otlp",), "http/protobuf", "OTEL_EXPORTER_OTLP_ENDPOINT"),
        "OTEL_TRACES_EXPORTER=otlp,console": (("otlp", "console"), "http/protobuf", "OTEL_TRACES_EXPORTER"),
        "OTEL_TRACES_EXPORTER=otlp OTEL_EXPORTER_OTLP_PROTOCOL=grpc": (("otlp",), "grpc", "OTEL_TRACES_EXPORTER"),
    }
    for variables, expected in asked.items():
        found = trace_settings(dict(pair.split("=", 1) for pair in variables.split()))
        assert (found and (found.exporters, found.protocol, found.asked_by)) == expected, variables
    with pytest.raises(TracingNotPossible, match="OTEL_TRACES_EXPORTER=zipkin: there are otlp, console and none"):
        trace_settings({"OTEL_TRACES_EXPORTER": "zipkin"})
    with pytest.raises(TracingNotPossible, match="OTEL_EXPORTER_OTLP_PROTOCOL=http/json"):
        trace_settings({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"})


def test_traces_that_need_what_is_not_installed_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = trace_settings({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"})
    assert settings is not None
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(TracingNotPossible, match="pip install opentelemetry-exporter-otlp-proto-http"):
        tracing_of(settings, "a", "1")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    with pytest.raises(TracingNotPossible, match=r"OTEL_EXPORTER_OTLP_ENDPOINT asks .* pip install 'moonmesh\[otel\]'"):
        tracing_of(settings, "a", "1")
