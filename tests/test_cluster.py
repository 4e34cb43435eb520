"""A mesh on three servers as shipped: TLS, three replicas, users of all kinds, and servers and nodes that are killed."""

from __future__ import annotations

import gc
import json
import math
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

import mesh.client
from deploy.make_secrets import make_secrets
from mesh.client import Client
from mesh.connection import ConnectOptions, connect
from mesh.errors import BadCredentials
from mesh.jetstream import JetStream
from node.node import NodeConfig, running_node
from node.registry import load_registry
from tests.apps import QUEUE, WORKER, write_app
from tests.cluster import Finished, NodeProcess, a_node, mesh_command
from tests.conftest import ServerFactory
from tests.credentials import write_credentials
from tests.secured import SecuredServers, secured_servers
from tests.waiting import wait_until_async

pytestmark = pytest.mark.timeout(180)  # many commands and nodes, each a process to start

STEPS = 8
WORKFLOWS = 6
ADD_UP = f"""
return function(first)
    local sum = 0
    for i = 1, {STEPS} do
        sum = sum + funcs.call('app:double', first + i)
    end
    return sum
end
"""
DOUBLE = "return function(n) time.sleep('30ms') return 2 * n end"


@pytest.fixture(scope="module")
def servers() -> Iterator[SecuredServers]:
    """Servers that want a client certificate, too."""
    with (
        tempfile.TemporaryDirectory(prefix="mesh-test-", ignore_cleanup_errors=True) as directory,
        secured_servers(Path(directory), queues=[QUEUE], verify_clients=True) as running,
    ):
        yield running


def with_certificate(servers: SecuredServers, role: str) -> dict[str, str]:
    """The environment of a user with password and certificate."""
    return servers.environment(role) | {
        "NATS_CERT": servers.file(f"{role}.pem"),
        "NATS_KEY": servers.file(f"{role}.key"),
    }


def with_nkey(servers: SecuredServers, role: str) -> tuple[str, ...]:
    """The flags of a user with nkey and certificate."""
    flags = ("--tlsca", "ca.pem", "--tlscert", f"{role}.pem", "--tlskey", f"{role}.key", "--nkey", f"{role}.nk")
    named = (part if part.startswith("--") else servers.file(part) for part in flags)
    prefix = () if role == "operator" else ("--inbox-prefix", f"_INBOX_{role}")
    return (*named, *prefix, *(("--js-api-prefix", "JS.MESH.API") if role in ("client", "observer") else ()))


async def test_a_tls_connection_lives_through_a_garbage_collection(servers: SecuredServers) -> None:
    """The writer below that of TLS closes the socket when it is collected, so somebody has to hold it."""
    async with connect(servers.url, name="test", options=servers.options("node", certificate=True)) as conn:
        await conn.flush()  # by now nothing but our connection holds it
        gc.collect()
        await conn.flush()
        await conn.flush()
        assert conn.statistics().epoch == 1


async def owner_of(client: Client, workflow_id: str) -> str:
    """The node that owns it; while it changes hands there is none."""
    while True:
        owner = (await client.get(workflow_id, queue=QUEUE).describe()).detail.get("node")
        if owner:
            return str(owner)
        await anyio.sleep(0.05)


async def test_workflows_survive_kill_9_of_the_stream_leader_and_of_their_owner(
    servers: SecuredServers, tmp_path: Path
) -> None:
    """With three replicas nothing that was acknowledged is lost with one server; whoever is left goes on (DESIGN, R3)."""
    app = write_app(tmp_path, workflows={"add_up": ADD_UP}, functions={"double": DOUBLE})
    options = servers.options("client", certificate=True)
    operator = servers.options("operator", certificate=True)
    async with (
        a_node(
            app, servers.url, node_id="a", arguments=("--replicas", "3"), environ=with_certificate(servers, "node")
        ) as a,
        a_node(app, servers.url, node_id="b", arguments=("--replicas", "3", *with_nkey(servers, "node"))) as b,
        a_node(app, servers.url, node_id="f", arguments=("--functions-only", *with_nkey(servers, "functions"))),
        mesh.client.connect(servers.url, options=options) as client,
        connect(servers.url, name="operator", options=operator) as conn,
    ):
        js = JetStream(conn)
        config = {name: (await js.stream_info(name)).config["num_replicas"] for name in ("WF_orders", "KV_mesh_roster")}
        assert config == {"WF_orders": 3, "KV_mesh_roster": 3}
        handles = [
            await client.start("app:add_up", 100 * number, host=WORKER, id=f"sum-{number}")
            for number in range(WORKFLOWS)
        ]
        await wait_until_async(lambda: _has_begun(client, handles[0].id))

        leader = str((await js.api("STREAM.INFO.WF_orders"))["cluster"]["leader"])
        owner = await owner_of(client, handles[0].id)
        servers.kill(leader)
        {"a": a, "b": b}[owner].kill()

        expected = [sum(2 * (100 * number + i) for i in range(1, STEPS + 1)) for number in range(WORKFLOWS)]
        assert [await handle.result(timeout_s=45) for handle in handles] == expected
        survivor: NodeProcess = b if owner == "a" else a
        alive = next(name for name in servers.names if name != leader)
        await _check_commands(servers, survivor.id, alive, tmp_path)


async def _has_begun(client: Client, workflow_id: str) -> bool:
    return sum(event.kind == "ret" for event in await client.get(workflow_id, queue=QUEUE).history()) >= 2


async def _check_commands(servers: SecuredServers, survivor: str, alive: str, directory: Path) -> None:
    """The command line with two of three servers: by flags, by variables, and by a context of the `nats` tool."""
    contexts = directory / "config" / "nats" / "context"
    contexts.mkdir(parents=True)
    for role in ("client", "observer"):
        context = json.loads((servers.secrets / "contexts" / f"{role}.json").read_text())
        certificate = {"cert": servers.file(f"{role}.pem"), "key": servers.file(f"{role}.key")}
        (contexts / f"mesh-{role}.json").write_text(json.dumps(context | {"url": servers.url} | certificate))
    at_home = {"XDG_CONFIG_HOME": str(directory / "config")}
    done: dict[str, Finished] = {}

    async def run(name: str, *arguments: str, url: str | None = None, environ: dict[str, str] | None = None) -> None:
        done[name] = await mesh_command(*arguments, url=url, environ=environ)

    async with anyio.create_task_group() as tasks:
        flags = with_nkey(servers, "client")
        tasks.start_soon(lambda: run("flags", "result", "sum-1", *flags, url=servers.url))
        tasks.start_soon(lambda: run("context", "nodes", "--json", "--context", "mesh-observer", environ=at_home))
        tasks.start_soon(
            lambda: run(
                "start refused", "start", "app:add_up", "--input", "0", "--context", "mesh-observer", environ=at_home
            )
        )
        alone = servers.environment("observer") | {"NATS_URL": servers.url_of(alive)}
        tasks.start_soon(lambda: run("no certificate", "nodes", environ=alone))
    assert {name: finished.status for name, finished in done.items()} == {
        "flags": 0, "context": 0, "start refused": 1, "no certificate": 3,
    }, done  # fmt: skip
    assert json.loads(done["flags"].out) == sum(2 * (100 + i) for i in range(1, STEPS + 1))
    assert survivor in done["context"].out
    assert '"f"' in done["context"].out
    assert "mesh.wf.orders." in done["start refused"].err
    assert "permission denied" in done["start refused"].err
    assert done["start refused"].err.count("\n") == 1
    assert "it wants a client certificate: --tlscert and --tlskey" in done["no certificate"].err


async def test_a_credentials_file_is_good_for_a_node_and_for_the_command_line(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    """What `nsc` makes: a token and a seed in one file, checked by the server against its operator."""
    make_secrets(tmp_path / "secrets", rounds=4)
    creds, ca = tmp_path / "user.creds", str(tmp_path / "secrets" / "ca.pem")
    certificate = f'cert_file: "{tmp_path}/secrets/server.pem", key_file: "{tmp_path}/secrets/server.key"'
    server = nats_server(config=f"{write_credentials(creds)}\ntls {{ {certificate} }}")
    url = f"tls://localhost:{server.port}"
    app = write_app(tmp_path / "app", workflows={"add_up": ADD_UP}, functions={"double": DOUBLE})
    options = ConnectOptions(creds=str(creds), tls_ca=ca)
    config = NodeConfig(url, node_id="a", partitions=4, options=options)
    async with running_node(config, load_registry(app, environ={})):
        flags = ("--creds", str(creds), "--tlsca", ca)
        done = await mesh_command("start", "app:add_up", "--input", "0", "--wait", *flags, url=url)
        assert (done.status, json.loads(done.out)) == (0, sum(2 * i for i in range(1, STEPS + 1)))
    creds.write_text(creds.read_text().replace("\nSU", "\nSX"))
    with pytest.raises(BadCredentials, match=f"{creds} holds no usable credentials"):
        # A node waits for a server for ever, but not for a file to become better.
        async with connect(url, name="test", options=replace(options, patience_s=math.inf)):
            pass
