"""What an app's client entry says of its server, for a node that is told nothing else."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import anyio
import pytest
from anyio.streams.text import TextReceiveStream

from mesh.handshake import ConnectOptions
from node.cli.client_entry import BadClient, client_of, connection_of
from node.registry import Registry, load_registry
from tests.apps import write_files
from tests.cluster import plain_environment
from tests.conftest import ServerFactory

FUNCTION = "  - { name: f, kind: function.lua, method: main, source: 'return { main = function() end }' }\n"


def app(tmp_path: Path, *clients: str) -> Path:
    text = "namespace: app\nentries:\n" + "".join(f"  - {{ {c}, kind: mesh.client }}\n" for c in clients) + FUNCTION
    return write_files(tmp_path / "app", {"_index.yaml": text})


def registry(tmp_path: Path, *clients: str) -> Registry:
    loaded = load_registry(app(tmp_path, *clients), environ={})
    assert not loaded.problems
    return loaded


def connection(tmp_path: Path, client: str, environ: dict[str, str] | None = None) -> tuple[str, ConnectOptions]:
    entry = client_of(registry(tmp_path, client))
    assert entry is not None
    return connection_of(entry, ConnectOptions(), environ or {})


def test_the_first_client_with_a_nats_address_counts(tmp_path: Path) -> None:
    entry = client_of(registry(tmp_path, "name: a, address: 'localhost:7233'", "name: b, address: 'nats://b:4222'"))
    assert entry is not None
    assert entry.id == "app:b"
    assert client_of(registry(tmp_path, "name: a, address: 'localhost:7233'")) is None


def test_times_and_addresses_are_taken_over(tmp_path: Path) -> None:
    url, options = connection(
        tmp_path, "name: c, address: 'nats://a:1,nats://b:2', connection_timeout: 3s, keep_alive_time: 1s"
    )
    assert (url, options.connect_timeout_s, options.ping_interval_s) == ("nats://a:1,nats://b:2", 3.0, 1.0)
    assert connection(tmp_path, "name: c, address: 'nats://a:1'")[1].ping_interval_s == ConnectOptions().ping_interval_s


def test_a_key_is_a_token_or_credentials_wherever_it_stands(tmp_path: Path) -> None:
    def auth(text: str) -> ConnectOptions:
        client = f"name: c, address: 'nats://a:1', auth: {{ type: api_key, {text} }}"
        return connection(tmp_path, client, {"KEY": "from-env", "CREDS": "-----BEGIN NATS USER JWT-----"})[1]

    file = tmp_path / "key"
    file.write_text("from-file\n")
    assert auth("api_key: inline").token == "inline"
    assert auth("api_key_env: KEY").token == "from-env"
    assert auth(f"api_key_file: '{file}'").token == "from-file"
    creds = auth("api_key_env: CREDS")
    assert creds.token is None
    assert creds.creds is not None
    assert "USER JWT" in Path(creds.creds).read_text()
    assert stat.S_IMODE(Path(creds.creds).parent.stat().st_mode) == 0o700
    with pytest.raises(BadClient, match="app:c: the variable NONE, which its auth names, is not set"):
        auth("api_key_env: NONE")
    with pytest.raises(BadClient, match="cannot be read"):
        auth("api_key_file: /nowhere/key")


def test_tls_is_taken_over(tmp_path: Path) -> None:
    tls = "tls: { enabled: true, ca_file: ca.pem, server_name: s, insecure_skip_verify: true }"
    url, options = connection(tmp_path, f"name: c, address: 'nats://a:1', {tls}")
    assert (url, options.tls_ca, options.tls_hostname, options.tls_insecure) == ("tls://a:1", "ca.pem", "s", True)
    mtls = "auth: { type: mtls, cert_file: c.pem, key_pem_env: KEY }"
    url, options = connection(tmp_path, f"name: c, address: 'nats://a:1', {mtls}", {"KEY": "secret"})
    assert (url, options.tls_cert) == ("tls://a:1", "c.pem")
    assert Path(options.tls_key or "").read_text() == "secret"


@pytest.mark.timeout(90)
async def test_a_node_joins_the_server_that_its_app_names(tmp_path: Path, nats_server: ServerFactory) -> None:
    server = nats_server(config='authorization { token: "t0p" }')
    client = f"name: c, address: '{server.url}', auth: {{ type: api_key, api_key_env: SECRET }}"
    process = await anyio.open_process(
        [sys.executable, "-m", "node", "node", str(app(tmp_path, client)), "--id", "a", "--with-parent"],
        env=plain_environment({"SECRET": "t0p", "HOME": os.environ.get("HOME", "/")}),
    )
    seen = ""
    assert process.stdout is not None
    try:
        with anyio.fail_after(75):
            async for text in TextReceiveStream(process.stdout):
                seen += text
                if " is ready" in seen:
                    break
        assert " is ready" in seen
    finally:
        process.terminate()
        await process.wait()
        await process.aclose()
