"""Three real servers with the configuration that `deploy/nats` ships: TLS, accounts, roles, replicas.

    with secured_servers(directory, queues=["orders"]) as servers:
        async with connect(servers.url, name="x", options=servers.options("client")) as conn: ...

Everything is as shipped but what has to be: free ports of 127.0.0.1, certificates and passwords made for the test
(by `deploy.make_secrets`, with a cheap hash), and the queues of the test in `accounts.conf`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from deploy.make_accounts import JS_API_PREFIX, accounts_conf
from deploy.make_secrets import make_secrets
from mesh.connection import ConnectOptions
from tests.ports import free_ports
from tests.servers import nats_server_binary, tied_to_us

SHIPPED = Path(__file__).parent.parent / "deploy" / "nats"
START_TIMEOUT_S = 40.0
HASH_ROUNDS = 4  # the least there is: each connection costs the server one


class SecuredServers:
    """The servers n1, n2 and n3."""

    def __init__(self, directory: Path, *, queues: Sequence[str], verify_clients: bool = False) -> None:
        self.directory = directory
        self.secrets = directory / "secrets"
        directory.mkdir(parents=True, exist_ok=True)
        make_secrets(self.secrets, rounds=HASH_ROUNDS)
        shutil.copy(SHIPPED / "nats-server.conf", directory)
        (directory / "accounts.conf").write_text(accounts_conf(queues))
        self.names = ("n1", "n2", "n3")
        ports = free_ports(9)  # servers of a cluster have to know each other's before they start
        self._ports = dict(zip(self.names, (ports[:3], ports[3:6], ports[6:]), strict=True))
        self._verify = verify_clients
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def url(self) -> str:
        return ",".join(self.url_of(name) for name in self.names)

    def url_of(self, name: str) -> str:
        return f"tls://localhost:{self._ports[name][0]}"

    def file(self, name: str) -> str:
        """The path of a secret."""
        return str(self.secrets / name)

    def password(self, role: str) -> str:
        lines = (self.secrets / f"{role}.env").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)["NATS_PASSWORD"]

    def options(self, role: str, *, patience_s: float = 5.0, certificate: bool = False) -> ConnectOptions:
        """How to connect with user name and password, and with a client certificate where that is asked for."""
        prefix = "_INBOX" if role == "operator" else f"_INBOX_{role}"
        api = JS_API_PREFIX if role in ("client", "observer") else "$JS.API"
        return ConnectOptions(
            user=role, js_api_prefix=api, password=self.password(role), tls_ca=self.file("ca.pem"), inbox_prefix=prefix,
            patience_s=patience_s,
            tls_cert=self.file(f"{role}.pem") if certificate else None,
            tls_key=self.file(f"{role}.key") if certificate else None,
        )  # fmt: skip

    def environment(self, role: str) -> dict[str, str]:
        """The same for a command: what `deploy.make_secrets` wrote, with the address of these servers."""
        lines = (self.secrets / f"{role}.env").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines) | {"NATS_URL": self.url}

    def start(self, name: str) -> None:
        """Start one server; does not wait."""
        client, cluster, monitor = self._ports[name]
        routes = [f"nats://127.0.0.1:{self._ports[other][1]}" for other in self.names]
        environment = {
            "MESH_NATS_NAME": name, "MESH_NATS_LISTEN": f"127.0.0.1:{client}",
            "MESH_NATS_CLUSTER_LISTEN": f"127.0.0.1:{cluster}", "MESH_NATS_HTTP": f"127.0.0.1:{monitor}",
            "MESH_NATS_ROUTES": json.dumps(routes), "MESH_NATS_STORE": str(self.directory / name),
            "MESH_NATS_STORE_MAX": "1GB", "MESH_NATS_SYNC": "120s", "MESH_NATS_NO_ADVERTISE": "true",
            "MESH_NATS_PID_FILE": str(self.directory / f"{name}.pid"),
            "MESH_NATS_CERT": self.file("server.pem"), "MESH_NATS_KEY": self.file("server.key"),
            "MESH_NATS_CA": self.file("ca.pem"), "MESH_NATS_VERIFY": str(self._verify).lower(),
        }  # fmt: skip
        with (self.directory / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                tied_to_us(nats_server_binary(), "-c", str(self.directory / "nats-server.conf")),
                env=environment, stdout=log, stderr=log,
            )  # fmt: skip

    def kill(self, name: str) -> None:
        """SIGKILL."""
        process = self._processes.pop(name)
        process.kill()
        process.wait()

    def wait_ready(self) -> None:
        """Wait until every server serves JetStream: the cluster has a leader by then."""
        deadline = time.monotonic() + START_TIMEOUT_S
        for name in self.names:
            while not self._is_healthy(name):
                if self._processes[name].poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{name} did not start:\n{self.log(name)}")
                time.sleep(0.02)

    def _is_healthy(self, name: str) -> bool:
        try:
            return bool(self.monitor(name, "healthz").get("status") == "ok")
        except OSError:
            return False

    def monitor(self, name: str, path: str) -> dict[str, Any]:
        """An answer of a server's monitoring port."""
        with urlopen(f"http://127.0.0.1:{self._ports[name][2]}/{path}", timeout=5) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    def log(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text(errors="replace")

    def stop(self) -> None:
        for name in list(self._processes):
            self.kill(name)


@contextmanager
def secured_servers(
    directory: Path, *, queues: Sequence[str], verify_clients: bool = False
) -> Iterator[SecuredServers]:
    """Run the servers while the block runs; they are ready when it starts."""
    servers = SecuredServers(directory, queues=queues, verify_clients=verify_clients)
    try:
        for name in servers.names:
            servers.start(name)
        servers.wait_ready()
        yield servers
    finally:
        servers.stop()
