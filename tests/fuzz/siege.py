"""A node under siege: thousands of hostile messages on everything it listens to, among good work.

The besieger speaks the protocol of NATS by itself, as a client library would not let it send what it sends: subjects
and reply subjects that are no text, header blocks that are none, bodies of any kind. What the node listens to is asked
of the server, so that nothing is forgotten when a new subject comes up.
"""

from __future__ import annotations

import asyncio
import json
import re
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from mesh import codec
from tests.fuzz.decoders import DIRECT, HEADERS, MESSAGES, ROSTER, START
from tests.fuzz.mutation import BYTES_MAX, Mutator

_UNIT_REQUESTS: Final = (
    ["send", "{x@y|1}", "PID", "topic", b"\xc1\x01", ""], ["deliver", "PID", [["topic", codec.encode(1)]]],
    ["spawn", "{x@y|1}", "app:sleeper", "app:processes", codec.encode([[1], None]), "", [["t", codec.encode(1)]], True, False],
    ["ended", "PID", codec.NIL_OUTCOME, [["PID", True]]], ["register", "name", "PID", 0], ["monitor", "{x@y|1}", "PID"], ["unmonitor", "{x@y|1}", "PID"],
    ["link", "{x@y|1}", "PID"], ["unlink", "{x@y|1}", "PID"], ["cancel", "{x@y|1}", "PID", "why"], ["terminate", "PID"],
)  # fmt: skip
_API_BODIES: Final = (
    b'{"workflow": "app:victim", "id": "victim-api", "args": [1], "host": "app:worker"}', b'{"id": "victim-0"}', b'{"id": "victim-1", "topic": "t", "value": {"a": 1}}',
    b'{"id": "victim-1", "event": 2}', b'{"status": "running", "where": "attrs.a = 1 and started > -1h", "limit": 3}', b'{"by": ["status"]}', b'{"id": "victim-1", "timeout": 0.01}', b"",
)  # fmt: skip


@dataclass
class Siege:
    """Attacks one node. subjects: what it listens to, with wildcards. pids: of processes on it. victims: workflow ids."""

    random: Random
    queue: str
    victims: Sequence[str]
    subjects: Sequence[str] = ()
    pids: Sequence[str] = ()
    sent: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.mutator = Mutator(self.random)

    def message(self) -> tuple[bytes, bytes, bytes | None, bytes]:
        """One hostile message: subject, reply, headers, body."""
        kind = self.random.choice(("events", "events", "listened", "listened", "buckets", "schedules"))
        subject, body = getattr(self, f"_{kind}")()
        self.sent[kind] = self.sent.get(kind, 0) + 1
        raw = _on_the_wire(subject)
        if self.random.random() < 0.06:
            raw = (
                _on_the_wire(subject.rpartition(".")[0])
                + b"."
                + self.random.choice((b"\xff", b"\xc3\x28", b"a\xffb", b"\xe2\x80\xae", b"\x01"))
            )
        headers = None
        if self.random.random() < 0.3:
            headers = self.mutator.header(self.random.choice((HEADERS, DIRECT, b"NATS/1.0\r\nNats-Msg-Id: x\r\n\r\n")))
            headers = _without_power(headers)
        # The server hangs up on who sends more than it takes.
        return raw, self._reply(), headers, body[:BYTES_MAX]

    def _reply(self) -> bytes:
        which = self.random.randrange(8)
        victim = self.random.choice(list(self.victims))
        choices = (
            b"", b"_INBOX.siege", b"_INBOX.siege.\xff", b"_INBOX.\x01", b"mesh.wf.%s.%s.signal.stolen" % (self.queue.encode(), victim.encode()),
            b"mesh.wf.%s.%s.ret.1.1.1.0123456789" % (self.queue.encode(), victim.encode()), b"$JS.API.STREAM.DELETE.x", b"_INBOX." + b"r" * 2500,
        )  # fmt: skip
        return choices[which]

    def _events(self) -> tuple[str, bytes]:
        stored, data, _ = self.random.choice(MESSAGES)
        kind = stored.split(".", 5)[5]
        if self.random.random() < 0.4:
            kind = self.mutator.tokens(kind)
        if self.random.random() < 0.8:
            data = self.mutator.msgpack(data, [each[1] for each in MESSAGES])
        victim = self.random.choice((*self.victims, "nobody", f"new-{self.random.randrange(50)}"))
        if kind == "start" and self.random.random() < 0.5:
            data = START.encode()
        return f"mesh.wf.{self.queue}.{victim}.{kind}", data

    def _listened(self) -> tuple[str, bytes]:
        subject = self.random.choice(list(self.subjects))
        filled = subject.replace("*", self.random.choice(("0", "1", "x", "99", "%"))).replace(
            ">", self.random.choice(("a", "a.b"))
        )
        bodies: tuple[bytes, ...] = tuple(each[1] for each in MESSAGES)
        if subject.endswith(".unit"):
            request = [self._pid() if part == "PID" else part for part in self.random.choice(_UNIT_REQUESTS)]
            bodies = (codec.encode(request),)
        elif subject.startswith("mesh.api."):
            bodies = _API_BODIES
        elif subject.endswith(".describe"):
            bodies = (
                codec.encode({"id": "victim-0", "full": True}),
                codec.encode({"id": "victim-0", "run": 1, "at": 3}),
            )
        elif subject.startswith("mesh.events"):
            bodies = (codec.encode({"kind": "k", "path": "p", "data": {"a": 1}, "sender": "s"}),)
        data = self.random.choice(bodies)
        if self.random.random() < 0.9:
            data = self.mutator.json(data, bodies) if data[:1] == b"{" else self.mutator.msgpack(data, bodies)
        return filled, data

    def _pid(self) -> str:
        return self.random.choice((*self.pids, "{a@app:processes|0x0000000000001}", "x"))

    def _buckets(self) -> tuple[str, bytes]:
        subject, data, _ = self.random.choice((
            *ROSTER, ("$KV.mesh_hosts.nobody", b'{"worker": "a:b", "client": "a:c", "queue": "q", "workflows": []}', None), ("$KV.mesh_names.x", b'"{a@b|c}"', None),
            ("$KV.mesh_roster.host.x", b'{"functions": ["app:double"]}', None),
        ))  # fmt: skip
        # Not the node's own keys, nor those of its partitions: whoever may write those may take them from it.
        subject = subject.replace("member.a", "member.z").replace("claim.orders", "claim.other")
        return subject, self.mutator.json(data.replace(b"orders", b"others"))

    def _schedules(self) -> tuple[str, bytes]:
        victim = self.random.choice(list(self.victims))
        kind = self.random.choice(("cron", "paused", "0", "x"))
        return f"mesh.at.{self.queue}.{kind}.{victim}", self.mutator.msgpack(START.encode())


class Besieger:
    """A connection of somebody who means harm."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, port: int) -> Besieger:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024 * 1024)
        await reader.readline()
        writer.write(
            b'CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"name":"besieger","lang":"x","version":"0"}\r\nSUB _INBOX.siege.> 1\r\nSUB _INBOX.siege 2\r\n'
        )
        return cls(reader, writer)

    async def send(self, messages: Sequence[tuple[bytes, bytes, bytes | None, bytes]]) -> None:
        """Send all, and return when the server has taken them."""
        for subject, reply, headers, body in messages:
            to = subject + (b" " + reply if reply else b"")
            if headers is None:
                self._writer.write(b"PUB %s %d\r\n%s\r\n" % (to, len(body), body))
            else:
                self._writer.write(
                    b"HPUB %s %d %d\r\n%s%s\r\n" % (to, len(headers), len(headers) + len(body), headers, body)
                )
        self._writer.write(b"PING\r\n")
        await self._writer.drain()
        # What is answered meanwhile is of no interest.
        while (line := await self._reader.readline()) != b"PONG\r\n":
            if not line:
                raise ConnectionError("the server hung up on the besieger")
            if line.startswith(b"PING"):
                self._writer.write(b"PONG\r\n")

    def close(self) -> None:
        self._writer.close()


def listened(monitor_url: str, name: str) -> list[str]:
    """The subjects that a client of the server has subscribed to, without inboxes."""
    with urllib.request.urlopen(f"{monitor_url}/connz?subs=1&limit=1000") as answer:
        connections: list[dict[str, Any]] = json.load(answer)["connections"]
    names = [each.get("name", "") for each in connections]
    if name not in names:
        raise LookupError(f"there is no connection {name!r}, but {names}")
    found = {
        subject for each in connections if each.get("name") == name for subject in each.get("subscriptions_list") or ()
    }
    return sorted(subject for subject in found if not subject.startswith(("_INBOX", "_R_")))


_POWERFUL: Final = re.compile(rb"^Nats-(Rollup|TTL|Schedule[^:]*|Batch[^:]*|Expected[^:]*)", re.IGNORECASE)


def _without_power(block: bytes) -> bytes:
    """Without headers by which the server itself deletes, schedules or batches; and in a form that it takes."""
    lines = [line for line in block.split(b"\r\n") if line and not _POWERFUL.match(line) and b"\n" not in line]
    if not lines or not lines[0].startswith(b"NATS/1.0"):
        lines.insert(0, b"NATS/1.0")
    return b"\r\n".join(lines)[:3000] + b"\r\n\r\n"


def _on_the_wire(subject: str) -> bytes:
    """A subject as the server takes it: with no blank in it, no empty tokens and no wildcards."""
    raw = subject.encode("utf-8", "surrogatepass")
    raw = re.sub(rb"[\s*>]", b"_", raw)
    return b".".join(part or b"x" for part in raw.split(b"."))[:1500]


__all__ = ["Besieger", "Siege", "listened"]
