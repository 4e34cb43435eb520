"""Fixtures: a real nats-server for each test that asks for one."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers import ServerProcess

ServerFactory = Callable[..., ServerProcess]


@pytest.hookimpl(tryfirst=True)  # before the plugin looks at the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep together, with several workers, what shares something: the tests of a file, and all behaviours in Lua.

    Those share nodes and servers (tests/lua), which every worker would start anew.
    """
    behaviours = Path(__file__).parent / "lua"
    for item in items:
        group = "lua" if item.path.is_relative_to(behaviours) else item.path.name
        item.add_marker(pytest.mark.xdist_group(group))


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
