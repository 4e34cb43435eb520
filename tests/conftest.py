"""Fixtures: a real nats-server for each test that asks for one. And what holds for a whole test run."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from tests.servers import ServerProcess

ServerFactory = Callable[..., ServerProcess]


BYTECODE = Path(__file__).parent.parent / ".cache" / "bytecode"


def pytest_configure() -> None:
    """Have Python keep what it compiles, also where the environment says not to, but then away from the sources.

    A test run starts a thousand nodes and commands: compiling moonmesh was half of the start of each.
    """
    if sys.dont_write_bytecode:
        sys.dont_write_bytecode, sys.pycache_prefix = False, str(BYTECODE)
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # not set where Python was told so by its option -B
        os.environ["PYTHONPYCACHEPREFIX"] = str(BYTECODE)


class Together(LoadScopeScheduling):  # type: ignore[misc]  # the plugin has no types
    """Keeps with one worker what shares something: the tests of a file, and all behaviours in Lua (`tests/lua`).

    Those share nodes and servers, which every worker would start anew. Marks of groups do not reach pytest-xdist 3.8
    with pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "lua" if file.startswith("tests/lua/") else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Together:
    """Say which tests stay together; asked only when there are several workers."""
    return Together(config, log)


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
