"""Fixtures: a real nats-server for each test that asks for one."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers import ServerProcess

ServerFactory = Callable[..., ServerProcess]


@pytest.fixture
def nats_server() -> Iterator[ServerFactory]:
    """Give a factory of running servers, each with its own port and empty store; they end with the test.

    It takes the arguments of `ServerProcess` but the directory: `nats_server(config="max_payload: 1000")`.
    """
    servers: list[ServerProcess] = []
    with tempfile.TemporaryDirectory(prefix="mesh-test-", ignore_cleanup_errors=True) as directory:

        def start(*, config: str = "", sync_interval: str | None = None, domain: str = "") -> ServerProcess:
            server = ServerProcess(
                Path(directory) / str(len(servers)), config=config, sync_interval=sync_interval, domain=domain
            )
            servers.append(server)
            return server.start()

        try:
            yield start
        finally:
            for server in servers:
                server.stop()
