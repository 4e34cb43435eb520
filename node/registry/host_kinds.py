"""Decodes what runs processes and keeps them running: hosts, services, and the `lifecycle` of any entry."""

from __future__ import annotations

from collections.abc import Mapping

from node.registry import kinds
from node.registry.entries import Entry, EntryId
from node.registry.fields import EntryReader, Fields
from node.registry.kinds import (
    LifecycleSpec,
    Placement,
    ProcessHostEntry,
    RestartSpec,
    ServiceEntry,
    Startup,
    TerminalHostEntry,
    canonical_kind,
)

# What each kind of host runs (contract 2.2).
_RUNS = {kinds.PROCESS_HOST: kinds.PROCESS, kinds.WORKER: kinds.WORKFLOW}
_HOST_OF = {process: host for host, process in _RUNS.items()}


def read_process_host(reader: EntryReader) -> ProcessHostEntry:
    """Decode a `process.host`."""
    fields = reader.fields()
    host = fields.section("host")
    view = ProcessHostEntry(
        id=reader.entry.id,
        workers=host.count("workers", 0),
        queue_size=host.count("queue_size", 1024),
        local_queue_size=host.count("local_queue_size", 256),
        lifecycle=read_lifecycle(fields),
    )
    host.close()
    fields.close()
    return view


def read_terminal_host(reader: EntryReader) -> TerminalHostEntry:
    """Decode a `terminal.host`."""
    fields = reader.fields()
    view = TerminalHostEntry(id=reader.entry.id, hide_logs=fields.flag("hide_logs"), lifecycle=read_lifecycle(fields))
    fields.close()
    return view


def read_service(reader: EntryReader, entries: Mapping[EntryId, Entry]) -> ServiceEntry:
    """Decode a `process.service`. Its host must be of the kind that runs its process."""
    fields = reader.fields()
    process = fields.reference("process", sorted(_HOST_OF), required=True)
    host = fields.reference("host", sorted(_RUNS), required=True)
    if process and host:
        kind, host_kind = entries[process].kind, entries[host].kind
        if _RUNS[canonical_kind(host_kind)] != kind:
            fields.fault("host", f"{host} is a {host_kind}, but {process} is a {kind}: that needs a {_HOST_OF[kind]}")
    view = ServiceEntry(
        id=reader.entry.id,
        process=process or EntryId(""),
        host=host or EntryId(""),
        input=fields.items("input"),
        placement=fields.choice("placement", Placement, Placement.EACH),
        lifecycle=read_lifecycle(fields),
    )
    fields.close()
    return view


def read_lifecycle(fields: Fields) -> LifecycleSpec:
    """Decode the field `lifecycle` of any entry that is started and stopped."""
    section = fields.section("lifecycle")
    restart = section.section("restart")
    requires = section.references("requires") + section.references("depends_on")
    spec = LifecycleSpec(
        auto_start=section.flag("auto_start"),
        start_timeout_s=section.duration_s("start_timeout", 10.0),
        stop_timeout_s=section.duration_s("stop_timeout", 10.0),
        stable_threshold_s=section.duration_s("stable_threshold", 5.0),
        requires=tuple(dict.fromkeys(requires)),
        startup=section.choice("startup", Startup, Startup.REQUIRED),
        restart=RestartSpec(
            initial_delay_s=restart.duration_s("initial_delay", 1.0),
            max_delay_s=restart.duration_s("max_delay", 90.0),
            backoff_factor=restart.number("backoff_factor", 2.0, least=1.0),
            jitter=restart.number("jitter", 0.1, most=1.0),
            attempts_max=restart.integer("max_attempts", 0),
        ),
    )
    restart.close()
    section.close("security")
    return spec
