"""Whether traces are asked for, by the variables that all of OpenTelemetry goes by. Pure.

    OTEL_TRACES_EXPORTER              otlp, console or none; several split by commas
    OTEL_EXPORTER_OTLP_ENDPOINT       where they are sent; said alone, it asks for otlp
    OTEL_SDK_DISABLED                 true: no traces, whatever else is said

Everything else (sampler, headers, names, limits) is read by the SDK itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from mesh.errors import MeshError

EXPORTERS: Final = ("otlp", "console")
PROTOCOLS: Final = ("http/protobuf", "grpc")
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


class TracingNotPossible(MeshError):
    """Raised when traces are asked for and cannot be made as asked."""

    code = "tracing-not-possible"


@dataclass(frozen=True, slots=True)
class TraceSettings:
    """Where traces go. asked_by: the variable that asks for them."""

    exporters: tuple[str, ...]
    protocol: str
    asked_by: str


def trace_settings(environ: Mapping[str, str]) -> TraceSettings | None:
    """What the variables ask for; None for no traces. Raises TracingNotPossible for what there is not."""
    said = [name.strip() for name in environ.get("OTEL_TRACES_EXPORTER", "").split(",") if name.strip()]
    endpoint = next((name for name in _ENDPOINTS if environ.get(name)), "")
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or "none" in said or not (said or endpoint):
        return None
    for name in said:
        if name not in EXPORTERS:
            raise TracingNotPossible(f"OTEL_TRACES_EXPORTER={name}: there are {', '.join(EXPORTERS)} and none")
    protocol_name = next((name for name in _PROTOCOLS if environ.get(name)), "")
    protocol = environ.get(protocol_name, "") or PROTOCOLS[0]
    if protocol not in PROTOCOLS:
        raise TracingNotPossible(f"{protocol_name}={protocol}: there are {' and '.join(PROTOCOLS)}")
    return TraceSettings(tuple(said) or ("otlp",), protocol, "OTEL_TRACES_EXPORTER" if said else endpoint)
