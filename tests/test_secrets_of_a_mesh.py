"""Secrets that a whole mesh has been given, looked for in all that it tells, stores and logs while everything fails."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, Final
from urllib.request import urlopen

import anyio.to_thread
import nkeys
import pytest

import mesh.client
from mesh.connection import Connection, ConnectOptions
from mesh.key_files import KeyFile
from node.api.endpoints import names
from tests.apps import WORKER, write_app
from tests.cluster import NodeProcess, a_node, mesh_command
from tests.commands import typed
from tests.conftest import ServerFactory
from tests.test_traces import a_collector
from tests.waiting import wait_until
from tests.web_server import a_web_server

pytestmark = pytest.mark.timeout(180)  # many commands and nodes, each a process to start

PASSWORD: Final = "pl4nted-password"
SEED: Final = bytes(nkeys.encode_seed(b"s" * 32, nkeys.PREFIX_BYTE_USER)).decode()
KEY: Final = base64.b64encode(b"pl4nted-key-of-32-bytes-or-so-00").decode()
# What the variables hold that placeholders and code of the app name.
VARIABLES: Final = {
    name: f"pl4nted-{name.lower()}" for name in ("API_KEY", "DATABASE", "STATIC", "WRONG_FIELD", "NOTE")
}
COOKIE: Final = "session=abc"  # what the web server of the tests hands out
NOWHERE: Final = {PASSWORD, SEED, KEY, COOKIE, *VARIABLES.values()}
# What is given to workflows: only encryption keeps it from whoever has no key.
ARGUMENT: Final = "pl4nted-argument"

ENTRIES: Final[list[dict[str, Any]]] = [
    {"name": "db", "kind": "db.sql.sqlite", "file": "/proc/${env:DATABASE}/x.sqlite"},
    {"name": "held", "kind": "env.storage.static", "values": {"HELD": "${env:STATIC}"}},
    {"name": "held_one", "kind": "env.variable", "variable": "HELD", "storage": "held", "readonly": True},
    {"name": "cache", "kind": "store.memory", "max_size": "${env:WRONG_FIELD}"},
    {
        "name": "service", "kind": "process.service", "process": "crashing", "host": "processes",
        "lifecycle": {"auto_start": True},
    },
]  # fmt: skip
FAILING: Final = {
    "header": "http_client.get('http://127.0.0.1:9/x', {headers = {Authorization = 'Bearer ' .. key .. '\\n'}})",
    "address": "http_client.get('http://user:' .. key .. '@127.0.0.1:9/' , {query = {key = key}})",
    "user": "http_client.post('http://127.0.0.1:9/', {auth = {user = 'u', pass = key}, json = {key = key}})",
    "answered": "http_client.get(env.get('WEB') .. '/echo?key=' .. key, {headers = {Authorization = 'Bearer ' .. key}, cookies = {key = key}, max_response_body = 1})",
    "cookie": "http_client.get(env.get('WEB') .. '/cookie')",
    "database": "(function() local db, err = sql.get('app:db') if err then return nil, err end return db:query('select 1') end)()",
    "readonly": "env.set('HELD', key)",
    "unknown": "funcs.call('app:nobody', key)",
    "quoting": "(function() error('no such card: ' .. argument) end)()",
    "crash": "(function() local t = nil; return t[key] end)()",
}
MODULES: Final = ["http_client", "sql", "env", "funcs", "process", "time", "logger"]
WORKFLOWS: Final = {
    "failing": "return function(name, argument) return funcs.call('app:' .. name, argument) end",
    "open": "return function(argument) return process.listen('go'):receive() end",
}


def an_app(directory: Path) -> Path:
    functions = {
        name: {
            "source": f"return function(argument) local key = env.get('API_KEY') local r, err = {does} if err then error(err) end return 1 end",
            "modules": MODULES, "meta": {"comment": "${env:NOTE}", "options": {"retry_policy": {"maximum_attempts": 2, "initial_interval": "1ms"}}},
        }
        for name, does in FAILING.items()
    }  # fmt: skip
    crashing = (
        "return function() local key = env.get('API_KEY') time.sleep('20ms') error({held = env.get('HELD') == key}) end"
    )
    return write_app(
        directory, workflows=WORKFLOWS, functions=functions, entries=ENTRIES,
        processes={"crashing": {"source": crashing, "modules": MODULES}},
    )  # fmt: skip


def leaks(where: str, text: str, secrets: set[str]) -> list[str]:
    """Where a secret stands, with what is around it; never the empty text of something that told nothing."""
    assert text, f"{where} is empty"
    return [f"{where}: ...{text[max(0, text.index(s) - 150) : text.index(s) + 80]}" for s in secrets if s in text]


async def asked(conn: Connection, verb: str, fields: dict[str, Any]) -> str:
    reply = await conn.request(f"mesh.api.{verb}", json.dumps(fields).encode(), timeout_s=10)
    return (reply.data + (reply.raw_headers or b"")).decode(errors="replace")


async def test_no_secret_of_a_mesh_is_told_logged_or_stored(nats_server: ServerFactory, tmp_path: Path) -> None:
    public = bytes(nkeys.from_seed(bytearray(SEED.encode())).public_key).decode()
    users = f"authorization {{ users: [ {{user: ada, password: {PASSWORD}}}, {{nkey: {public}}} ] }}"
    server = nats_server(config=users)
    with_password = server.url.replace("//", f"//ada:{PASSWORD}@")
    seed, keys = tmp_path / "ada.nk", tmp_path / "keys.yaml"
    seed.write_text(SEED)
    keys.write_text(f"primary: one\nkeys:\n  one: {KEY}\n")
    seed.chmod(0o600)
    keys.chmod(0o600)
    app, projection = an_app(tmp_path / "app"), tmp_path / "projection.sqlite3"
    told: dict[str, str] = {}  # to whoever has keys, or by nodes themselves
    seen: dict[str, str] = {}  # by whoever has none
    with a_collector() as (collector, spans), a_web_server() as web:
        environ = VARIABLES | {
            "WEB": web.url,
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector, "OTEL_BSP_SCHEDULE_DELAY": "50", "MESH_KEYS": str(keys), "MESH_LOG_LEVEL": "debug",
        }  # fmt: skip
        by_password = environ | {"NATS_USER": "ada", "NATS_PASSWORD": PASSWORD}
        owner = ("--log-format", "json", "--metrics", "127.0.0.1:0", "--projection", str(projection))
        options = ConnectOptions(codec=KeyFile(keys))
        async with (
            a_node(app, server.url, node_id="owner", arguments=owner, environ=by_password) as node,
            a_node(app, server.url, node_id="other", arguments=("--log-format", "text", "--without", "app:worker"),
                   environ=environ | {"NATS_NKEY": str(seed)}) as other,
            mesh.client.connect(with_password, options=options) as client,
        ):  # fmt: skip
            for name in FAILING:
                handle = await client.start("app:failing", name, ARGUMENT, host=WORKER, id=f"w-{name}")
                try:
                    told[f"result {name}"] = repr(await handle.result(timeout_s=20))
                except mesh.client.WorkflowFailed as error:
                    told[f"result {name}"] = f"{error} {error.failure!r} {error.failure.stack}"
                history = [f"{event.kind} {event.data!r} {event.headers}" for event in await handle.history()]
                assert len(history) > 1
                told[f"history {name}"] = "\n".join(history)
            await client.start("app:open", ARGUMENT, host=WORKER, id="w-open")
            await wait_until(lambda: "crashing" in node.log() + other.log())
            await wait_until(lambda: {span for span, _ in spans} == {"owner", "other"})
            exported = {"told": tmp_path / "with-keys.jsonl", "seen": tmp_path / "without.jsonl"}
            commands = [
                ["ls", "--json"], ["show", "w-header"], ["show", "w-quoting", "--json"], ["show", "w-open", "--locals"], ["nodes", "--json"],
                ["functions", "--json"], ["services", "--json"], ["ps", "--json"], ["watch", "w-quoting", "--json"], ["logs", "--json", "-n", "500"], ["doctor"],
            ]  # fmt: skip
            for into, name in ((told, "told"), (seen, "seen")):
                flags = ["--keys", str(keys)] if into is told else []
                for command in [*commands, ["export", "w-quoting", "-o", str(exported[name])]]:
                    done = await typed(*command, *flags, url=with_password)
                    into[f"mesh {' '.join(command)}"] = f"{done.status} {done.out} {done.err}"
                into["exported"] = exported[name].read_text()
            told["mesh check"] = (await mesh_command("check", str(app), environ=VARIABLES)).out
            async with mesh.client.connect(with_password) as stranger:
                for verb in names():
                    fields: dict[str, Any] = {"id": "w-header"} if verb in ("describe", "history", "result") else {}
                    told[f"mesh.api.{verb}"] = await asked(client.conn, verb, fields)
                    seen[f"mesh.api.{verb}"] = await asked(stranger.conn, verb, fields)
            metrics = json.loads(told["mesh.api.nodes"])["nodes"][-1]["metrics"]
            seen["metrics"] = await anyio.to_thread.run_sync(lambda: urlopen(f"{metrics}/metrics").read().decode())
            told["command lines"] = "\n".join(command_line(each) for each in (node, other))
            lines = node.log()
            told["log owner"], told["log other"] = lines, other.log()
        told["spans"] = "\n".join(str(span) for _, span in spans)
    server.stop()
    for file in (server.directory / "store").rglob("*"):
        if file.is_file() and file.stat().st_size:
            seen[f"store {file.name}"] = file.read_bytes().decode("latin-1")
    for name, text in [*told.items(), *seen.items()]:
        print(f"=== {name}\n{text[:1500]}")
    found = [leak for name, text in told.items() for leak in leaks(name, text, NOWHERE)]
    found += [leak for name, text in seen.items() for leak in leaks(name, text, NOWHERE | {ARGUMENT})]
    assert not found, "\n\n".join(found)


def command_line(node: NodeProcess) -> str:
    return Path(f"/proc/{node.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
