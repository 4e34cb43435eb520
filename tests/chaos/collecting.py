"""After the drain: waits until the mesh is quiet, then writes down everything that the server holds.

The stream is written as it is stored, message by message, beside the histories as `mesh export` gives them, so that the
checker need not trust how the mesh reads its own histories.
"""

from __future__ import annotations

import base64
import json
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

import anyio

from mesh.buckets import Bucket
from mesh.client import Client
from mesh.errors import MeshError, NotFound
from mesh.history_files import dump_history, fetch_history, new_history_file
from mesh.roster import BUCKET
from mesh.stored_messages import StoredMessage, own_headers
from mesh.subjects import WorkflowKey, bucket_key, message_queue_stream, stream_name, sure_subject, token, untoken
from mesh.wire import parse_headers
from tests.chaos.record import QUEUE, Record

LETTERS: Final = "chaos:letters"
LOOK_EVERY_S: Final = 0.3
# A checkpoint is saved about once a second.
QUIET_S: Final = 20.0
# Histories that are read at once.
AT_ONCE: Final = 8


async def collect(client: Client, record: Record, quiet_s: float = QUIET_S) -> None:
    """Write stream.jsonl, histories/ and leftovers.json, once nothing moves any more or the time is over."""
    with anyio.move_on_after(quiet_s):
        while any((await _leftovers(client)).values()):  # noqa: ASYNC110 - the server tells nobody that it is empty
            await anyio.sleep(LOOK_EVERY_S)
    messages = await _messages(client)
    _write_stream(record, messages)
    record.write_leftovers({**await _leftovers(client), "alive": _alive(record)})
    await _write_histories(client, record, messages)


def _alive(record: Record) -> list[int]:
    """Which of the processes that have run functions are there still, and do not stand still."""
    return sorted(pid for pid in {effect["pid"] for effect in record.effects()} if _state(pid) not in "TtZX")


def _state(pid: int) -> str:
    """What a process is doing, as one letter; X for none (proc_pid_stat(5))."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return "X"


async def _messages(client: Client) -> list[StoredMessage]:
    return await client.js.batch_get(stream_name(QUEUE), subject_filter=f"mesh.log.{token(QUEUE)}.>")


def _write_stream(record: Record, messages: list[StoredMessage]) -> None:
    with record.stream_file.open("w") as file:
        for message in messages:
            raw = own_headers(message.raw_headers)
            line = {
                "seq": message.seq, "at_ns": message.timestamp_ns, "subject": message.subject,
                "headers": dict(parse_headers(raw)) if raw is not None else {},
                "base64": base64.b64encode(message.data).decode(),
            }  # fmt: skip
            file.write(json.dumps(line) + "\n")


async def _write_histories(client: Client, record: Record, messages: list[StoredMessage]) -> None:
    """One file for each workflow, with all of its runs. What is said not to be there is noted for the checker."""
    runs: dict[str, list[int]] = defaultdict(list)
    for message in messages:
        parts = message.subject.split(".")
        if parts[5] == "start":
            runs[parts[4]].append(message.seq)
    left = iter(runs.items())

    async def write_some() -> None:
        for id_token, seqs in left:
            await _write_history(client, record, WorkflowKey(QUEUE, untoken(id_token)), seqs)

    async with anyio.create_task_group() as tasks:
        for _ in range(AT_ONCE):
            tasks.start_soon(write_some)


async def _write_history(client: Client, record: Record, key: WorkflowKey, seqs: list[int]) -> None:
    history = client.history(QUEUE)
    with new_history_file(record.directory / "histories" / f"{token(key.id)}.jsonl") as file:
        for seq in seqs:
            try:
                recorded = await fetch_history(history, key, seq)
            except NotFound as error:
                record.note("unexported", key.id, run=seq, why=str(error))
                continue
            dump_history(file, recorded.header, recorded.events)


async def _leftovers(client: Client) -> dict[str, Any]:
    """What is not as it is when everything is done. Each is empty when all is well."""
    js, stream = client.js, stream_name(QUEUE)
    counts = await js.subject_counts(stream, f"mesh.at.{token(QUEUE)}.>")
    starts = await js.batch_get(stream, subject_filter=f"mesh.log.{token(QUEUE)}.*.*.start")
    ends = await js.batch_get(stream, subject_filter=f"mesh.log.{token(QUEUE)}.*.*.end.*")
    ended = {(message.subject.split(".")[4], message.subject.split(".")[6]) for message in ends}
    # A second start while a run is open is none; it has no end, and only the owner knows. So the newest alone counts.
    newest = {message.subject.split(".")[4]: message.seq for message in starts}
    still_open = sorted(
        f"{id_token} run {seq}" for id_token, seq in newest.items() if (id_token, str(seq)) not in ended
    )
    return {
        "schedules": sorted(counts.keys() - {sure_subject(QUEUE)}),  # that expires by itself
        "open": still_open,
        "unread": await _unread(client),
        "unowned": await _unowned(client),
    }


async def _unread(client: Client) -> list[str]:
    """Letters that nobody has taken."""
    try:
        info = await client.js.stream_info(message_queue_stream(LETTERS))
    except NotFound:
        return []
    return [f"{info.messages} letters in {LETTERS}"] if info.messages else []


async def _unowned(client: Client) -> list[str]:
    """Partitions whose events nobody has handled to the last one."""
    js = client.js
    last: dict[int, int] = {}
    for message in await js.batch_get(stream_name(QUEUE), subject_filter=f"mesh.log.{token(QUEUE)}.>"):
        last[int(message.subject.split(".")[3])] = message.seq
    try:
        entries = await Bucket(js, BUCKET).entries()
    except MeshError as error:
        return [f"the roster cannot be read: {error}"]
    members = {entry.key.partition(".")[2] for entry in entries if entry.key.startswith("member.")}
    found = []
    claims: dict[int, dict[str, Any]] = {}
    for entry in entries:
        kind, _, rest = entry.key.partition(".")
        queue, _, number = rest.rpartition(".")
        if kind == "claim" and queue == bucket_key(QUEUE):
            claims[int(number)] = json.loads(entry.value)
    for partition, seq in sorted(last.items()):
        claim = claims.get(partition)
        if claim is None or not claim.get("node"):
            found.append(f"partition {partition}: nobody owns it")
        elif bucket_key(claim["node"]) not in members:
            found.append(f"partition {partition}: its owner {claim['node']} is not there")
        elif claim.get("checkpoint", 0) < seq:
            found.append(f"partition {partition}: {claim['node']} has handled {claim.get('checkpoint')} of {seq}")
        elif claim.get("busy"):
            found.append(f"partition {partition}: {claim['node']} is still busy with {', '.join(claim['busy'][:5])}")
    return found
