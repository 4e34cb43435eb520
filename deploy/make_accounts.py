"""Write `nats/accounts.conf`: who may do what on the servers of a mesh. The one place where the permissions are said.

    python -m deploy.make_accounts --queue orders --foreign shipping.create > deploy/nats/accounts.conf

Permissions of NATS match whole tokens of a subject, so "the streams of all queues" (`WF_*`) cannot be said: clients
and observers read the streams of the queues that are named here, and nothing else. Run it again for a new queue and
let the servers reload (`nats-server --signal reload`).

Why clients and observers have accounts of their own. The server checks on which subjects a user publishes, but not
which reply subject a request carries, and it answers on that one with its own rights. Within one account whoever may
ask anything can therefore have an answer stored as an event: a direct read with the reply `mesh.wf.q.x.end.7` writes an
end. Between accounts a reply leads back into the account of whoever asked, where no stream is. So what a client's
account does not import it cannot reach, by no detour.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SHIPPED: Final = Path(__file__).parent / "nats" / "accounts.conf"
SHIPPED_QUEUES: Final = ("orders", "packing")
SHIPPED_FOREIGN: Final = ("shipping.create", "shipping.cancel")

# How long a call may take whose caller is in another account: until then the server keeps the way back.
CALL_MAX: Final = "24h"

# How clients and observers ask for the JetStream of the mesh: --js-api-prefix, or the context's jetstream_api_prefix.
JS_API_PREFIX: Final = "JS.MESH.API"

# What a user may: the server tells each about itself.
WHO_AM_I: Final = "$SYS.REQ.USER.INFO"

# How often the servers flush: only the system account may ask that, and lends it under this name.
SETTINGS: Final = "mesh.server.jetstream"
_SETTINGS_ASKED: Final = "$SYS.REQ.SERVER.PING.JSZ"

# What a node asks JetStream. Not in it: deleting, restoring and snapshotting streams, and what concerns the cluster.
_NODE_API: Final = (
    "INFO", "STREAM.NAMES", "STREAM.LIST", "STREAM.INFO.*", "STREAM.CREATE.*", "STREAM.UPDATE.*", "STREAM.PURGE.*",
    "STREAM.MSG.GET.*", "STREAM.MSG.DELETE.*", "DIRECT.GET.*", "DIRECT.GET.*.>", "CONSUMER.CREATE.>",
    "CONSUMER.INFO.*.*", "CONSUMER.DELETE.*.*", "CONSUMER.MSG.NEXT.*.*",
)  # fmt: skip

# The verbs of the control API that only read.
READING_VERBS: Final = (
    "list", "count", "describe", "history", "result", "nodes", "functions", "services", "processes", "schedule.ls",
)  # fmt: skip
# What a node or function host is asked about itself.
_QUESTIONS: Final = ("status", "functions", "processes", "suspended", "logs")


@dataclass(frozen=True, slots=True)
class Service:
    """A subject of the mesh on which another account may ask. many: more than one answer may come."""

    subject: str
    many: bool = False
    threshold: str = ""

    @property
    def as_asked(self) -> str:
        """The subject in the other account.

        `$JS.API` is answered there already: "JetStream not enabled". And a client publishes what happens to a workflow
        as everybody does.
        """
        return self.subject.replace("$JS.API", JS_API_PREFIX, 1).replace("mesh.in.", "mesh.wf.", 1)


def node_permissions(foreign: Sequence[str] = ()) -> dict[str, object]:
    """A node: all of the mesh's subjects and JetStream without what destroys a stream."""
    return {
        "publish": [
            "mesh.>", "$SRV.STATS", "$KV.>", "$O.>", *(f"$JS.API.{verb}" for verb in _NODE_API),
            "$JS.FC.>", "$JS.ACK.>", "_INBOX_node.>", "_INBOX_functions.>", "_INBOX.>", "_R_.>", WHO_AM_I, *foreign,
        ],
        "subscribe": [
            "_INBOX_node.>", "mesh.fn.>", "mesh.who.>", "mesh.stop.>", "mesh.api.>", "mesh.node.>", "mesh.queue.>",
            "mesh.in.>", "mesh.events.*", "mesh.note.>", "mesh.logs.>", "mesh.wf.*.*.end.*", "mesh.wf.*.*.ret.>",
            "mesh.ended.*.*.*", "$SRV.>",
        ],
    }  # fmt: skip


def function_permissions() -> dict[str, object]:
    """A function host: it takes calls and answers each once, claims those that may run once, and calls functions.

    It says in one key that it is there. An answer is what the server saw a request for (`allow_responses`), so no
    outcome of another call is written by mistake; one answer a request, as what is remembered of the others piles up.
    By intent it is: a call to itself with another reply subject is a request, too (docs/security.md).
    """
    return {
        "publish": [
            "mesh.fn.>", "mesh.who.>", "mesh.stop.>", "mesh.wf.*.*.claim.*.*.*", "mesh.logs.*",
            "$KV.mesh_roster.host.*", "_INBOX_functions.>", "_INBOX_node.>", WHO_AM_I,
        ],
        "subscribe": [
            "_INBOX_functions.>", "mesh.fn.>", "mesh.who.>", "mesh.stop.>", "mesh.node.*.ping",
            *(f"mesh.node.*.{question}" for question in _QUESTIONS), "$SRV.>",
        ],
        "allow_responses": {"max": 1, "expires": CALL_MAX},
    }  # fmt: skip


def client_services(queues: Iterable[str]) -> list[Service]:
    """What a client asks: starts, signals, cancellations, calls, the control API, and histories for results.

    The first three it does not write into the stream: by a header one could delete all the others, and the server has
    no permissions for headers. Nodes look at them and pass them on.

    Payloads that are too large for a message it puts into the bucket of their queue and reads from there.
    """
    from mesh.subjects import EVERY_INTAKE

    return [
        *map(Service, EVERY_INTAKE),
        Service("mesh.fn.>", threshold=CALL_MAX),
        Service("mesh.who.>", many=True),
        Service("mesh.stop.>"),
        Service("mesh.api.>", threshold=CALL_MAX),
        Service("mesh.queue.*.*.describe"),
        *(Service(f"$O.{_bucket(queue)}.{part}") for queue in queues for part in ("C.>", "M.*")),
        *_reading(["KV_mesh_hosts", *map(_stream, queues), *_bucket_streams(queues)]),
    ]


def observer_services(queues: Iterable[str]) -> list[Service]:
    """What an observer asks: only what changes nothing.

    It may not make a consumer, which can be told to deliver anywhere; it follows a stream by reading on.
    """
    return [
        *(Service(f"mesh.api.{verb}") for verb in READING_VERBS),
        Service("mesh.queue.*.*.describe"),
        *(Service(f"mesh.node.*.{question}") for question in _QUESTIONS),
        Service("$SRV.>", many=True),
        *_reading(["KV_mesh_hosts", "KV_mesh_roster", *map(_stream, queues), *_bucket_streams(queues)]),
    ]


CLIENT_STREAMS: Final = ("mesh.wf.*.*.end.*", "mesh.ended.*.*.*", "mesh.note.*.*.suspended")
OBSERVER_STREAMS: Final = (*CLIENT_STREAMS, "mesh.logs.*", "mesh.events.*")


def _stream(queue: str) -> str:
    from mesh.subjects import stream_name

    return stream_name(queue)


def _bucket(queue: str) -> str:
    from mesh.references import bucket_of

    return bucket_of(queue)


def _bucket_streams(queues: Iterable[str]) -> list[str]:
    return [f"OBJ_{_bucket(queue)}" for queue in queues]


def _reading(streams: Iterable[str]) -> list[Service]:
    services = [Service("$JS.API.INFO")]
    for stream in streams:
        services += [
            Service(f"$JS.API.STREAM.INFO.{stream}"),
            Service(f"$JS.API.STREAM.MSG.GET.{stream}"),
            Service(f"$JS.API.DIRECT.GET.{stream}", many=True),
            Service(f"$JS.API.DIRECT.GET.{stream}.>"),
        ]
    return services


def accounts_conf(queues: Sequence[str], foreign: Sequence[str] = ()) -> str:
    """The text of accounts.conf. The passwords and keys are variables, which `secrets/users.conf` sets."""
    clients, observers = client_services(queues), observer_services(queues)
    streams = dict.fromkeys((*CLIENT_STREAMS, *OBSERVER_STREAMS))
    accounts_of_others = ["CLIENTS", "OBSERVERS"]
    accounts = _who({"CLIENTS": clients, "OBSERVERS": observers})
    exports = [
        _line({"service": service.subject, **_response(service), "accounts": accounts[service.subject]})
        for service in dict.fromkeys((*clients, *observers))
    ]
    exports += [
        _line(
            {
                "stream": subject,
                "accounts": ["CLIENTS", "OBSERVERS"] if subject in CLIENT_STREAMS else ["OBSERVERS"],
            }
        )
        for subject in streams
    ]
    return f"""\
# Who may do what. Made by `python -m deploy.make_accounts {_arguments(queues, foreign)}`; change it there.
include "secrets/users.conf"

NODE: {_block(node_permissions(foreign))}
FUNCTIONS: {_block(function_permissions())}
CLIENT: {_block(_asking(clients, CLIENT_STREAMS, "client"))}
OBSERVER: {_block(_asking(observers, OBSERVER_STREAMS, "observer"))}

accounts {{
  # The servers' own account: `nats server ...` and nothing of the mesh.
  SYS {{
    users: [ {{ user: admin, password: $ADMIN_PASSWORD }} ]
    exports: [
      {_line({"service": _SETTINGS_ASKED, "response_type": "Stream", "accounts": ["MESH", *accounts_of_others]})}
    ]
  }}

  # The mesh: histories, nodes, function hosts; and the operator, who may do everything here.
  MESH {{
    jetstream: enabled
    users: [
      {{ user: operator, password: $OPERATOR_PASSWORD }}
      {{ nkey: $OPERATOR_NKEY }}
      {{ user: node, password: $NODE_PASSWORD, permissions: $NODE }}
      {{ nkey: $NODE_NKEY, permissions: $NODE }}
      {{ user: functions, password: $FUNCTIONS_PASSWORD, permissions: $FUNCTIONS }}
      {{ nkey: $FUNCTIONS_NKEY, permissions: $FUNCTIONS }}
    ]
    exports: [
{_indented(exports)}
    ]
    imports: [
      {_SETTINGS_IMPORT}
    ]
  }}

  # Whoever starts, signals and awaits workflows and calls functions. Another team gets another account like this one.
  CLIENTS {{
    users: [
      {{ user: client, password: $CLIENT_PASSWORD, permissions: $CLIENT }}
      {{ nkey: $CLIENT_NKEY, permissions: $CLIENT }}
    ]
    imports: [
{_indented(_imports(clients, CLIENT_STREAMS))}
    ]
  }}

  # Whoever only looks.
  OBSERVERS {{
    users: [
      {{ user: observer, password: $OBSERVER_PASSWORD, permissions: $OBSERVER }}
      {{ nkey: $OBSERVER_NKEY, permissions: $OBSERVER }}
    ]
    imports: [
{_indented(_imports(observers, OBSERVER_STREAMS))}
    ]
  }}
}}
"""


def _asking(services: Iterable[Service], streams: Iterable[str], role: str) -> dict[str, object]:
    return {
        "publish": [*(service.as_asked for service in services), WHO_AM_I, SETTINGS],
        "subscribe": [f"_INBOX_{role}.>", *streams],
    }


def _imports(services: Iterable[Service], streams: Iterable[str]) -> list[str]:
    of_mesh: list[dict[str, object]] = []
    for service in services:
        imported: dict[str, object] = {"service": {"account": "MESH", "subject": service.subject}}
        if service.as_asked != service.subject:
            imported["to"] = service.as_asked
        of_mesh.append(imported)
    followed = [_line({"stream": {"account": "MESH", "subject": subject}}) for subject in streams]
    return [*map(_line, of_mesh), *followed, _SETTINGS_IMPORT]


def _who(services: dict[str, list[Service]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for account, asked in services.items():
        for service in asked:
            found.setdefault(service.subject, []).append(account)
    return found


def _response(service: Service) -> dict[str, str]:
    many = {"response_type": "Stream"} if service.many else {}
    return many | ({"response_threshold": service.threshold} if service.threshold else {})


def _line(value: object) -> str:
    return json.dumps(value)


_SETTINGS_IMPORT: Final = _line({"service": {"account": "SYS", "subject": _SETTINGS_ASKED}, "to": SETTINGS})


def _indented(lines: Iterable[str]) -> str:
    return "\n".join(f"      {line}" for line in lines)


def _block(permissions: dict[str, object]) -> str:
    parts = []
    for name, value in permissions.items():
        if isinstance(value, list):
            parts.append(f"  {name}: [\n" + "\n".join(f"    {json.dumps(subject)}" for subject in value) + "\n  ]")
        else:
            parts.append(f"  {name}: {json.dumps(value)}")
    return "{\n" + "\n".join(parts) + "\n}"


def _arguments(queues: Iterable[str], foreign: Iterable[str]) -> str:
    return " ".join([*(f"--queue {queue}" for queue in queues), *(f"--foreign {subject}" for subject in foreign)])


def main() -> None:
    """Print the file for the queues on the command line."""
    parser = argparse.ArgumentParser(description="Print accounts.conf for a mesh with these queues.")
    parser.add_argument("--queue", action="append", required=True, metavar="NAME", help="a queue of workflows")
    parser.add_argument(
        "--foreign", action="append", default=[], metavar="SUBJECT", help="of a service outside that workflows call"
    )
    given = parser.parse_args()
    print(accounts_conf(given.queue, given.foreign), end="")


if __name__ == "__main__":
    main()
