"""Fixtures: a real nats-server for each test that asks for one. And what holds for a whole test run."""

from __future__ import annotations

import gc
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from node.workflows.slack import give_back
from tests.servers import ServerProcess

ServerFactory = Callable[..., ServerProcess]


BYTECODE = Path(__file__).parent.parent / ".cache" / "bytecode"


def pytest_configure() -> None:
    """What holds for the whole run."""
    _keep_bytecode()
    # How long an example takes says nothing about the code on a machine that does other things: it may stand still for
    # longer than hypothesis allows for one example. A test that hangs ends by the time limit of pytest.
    # And every run tries the same examples: what a search by chance finds, one day, is for the nightly form of the fuzz.
    nightly = os.environ.get("MESH_FUZZ", "") == "nightly"
    settings.register_profile(
        "moonmesh", deadline=None, derandomize=not nightly, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("moonmesh")


def _keep_bytecode() -> None:
    """Have Python keep what it compiles, also where the environment says not to, but then away from the sources.

    A test run starts a thousand nodes and commands: compiling moonmesh was half of the start of each.
    """
    if sys.dont_write_bytecode:
        sys.dont_write_bytecode, sys.pycache_prefix = False, str(BYTECODE)
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # not set where Python was told so by its option -B
        os.environ["PYTHONPYCACHEPREFIX"] = str(BYTECODE)


# What takes longest, in this order: begun last it would keep one worker busy while the others have nothing left.
LONGEST = (
    "tests/fuzz/test_programs.py", "tests/lua", "tests/test_cli.py", "tests/test_kill_at_every_event.py",
    "tests/test_mesh_run.py", "tests/test_bench.py", "tests/test_failover.py", "tests/test_chaos.py",
    "tests/test_chaos_faults.py", "tests/test_sandbox_stalls.py", "tests/test_services_on_nodes.py",
    "tests/test_example_orders.py", "tests/test_example_chat.py", "tests/test_encryption.py", "tests/test_workflows.py",
    "tests/test_watchdog.py", "tests/test_server_death.py", "tests/test_calls.py", "tests/test_replay_properties.py",
    "tests/test_cluster.py",
)  # fmt: skip


def scope_of(nodeid: str) -> str:
    """What a test stays together with: the tests of its file, and all behaviours in Lua (`tests/lua`)."""
    file = nodeid.partition("::")[0]
    return "tests/lua" if file.startswith("tests/lua/") else file


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, then with what has most tests."""
    scopes = Counter(scope_of(item.nodeid) for item in items)
    rank = {scope: number for number, scope in enumerate(LONGEST)}
    items.sort(key=lambda item: (rank.get(scope := scope_of(item.nodeid), len(rank)), -scopes[scope], scope))


def pytest_collection_finish() -> None:
    """What is there for good, thousands of tests, is not to be looked through for garbage again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def _garbage_goes_with_its_file() -> Iterator[None]:
    """Lua VMs of many megabytes hang on objects that weigh nothing to Python, which sees no reason to look for them."""
    yield
    gc.collect()
    give_back()


class Together(LoadScopeScheduling):  # type: ignore[misc]  # the plugin has no types
    """Keeps with one worker what shares something, such as nodes and servers, which every worker would start anew.

    Marks of groups do not reach pytest-xdist 3.8 with pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Together:
    """Say which tests stay together; asked only when there are several workers. They keep the order they have."""
    config.option.loadscopereorder = False
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
