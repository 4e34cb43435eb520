"""What a node tells systemd, over a real socket; and the units that ship."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from node.service_manager import ServiceManager
from tests.apps import write_app
from tests.cluster import a_node
from tests.conftest import ServerFactory
from tests.waiting import wait_until

UNITS = Path(__file__).parent.parent / "deploy" / "systemd"


@contextmanager
def a_service_manager(address: Path) -> Iterator[list[dict[str, str]]]:
    """Listen at an address; what was said so far. Read at once: ten messages wait, and the next one is lost."""
    said: list[dict[str, str]] = []
    over = threading.Event()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(address))
        listening.settimeout(0.05)

        def listen() -> None:
            while True:
                try:
                    said.append(variables(listening.recv(4096)))
                except TimeoutError:
                    if over.is_set():
                        return

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield said
        finally:
            over.set()
            thread.join()


def variables(message: bytes) -> dict[str, str]:
    return dict(line.split("=", 1) for line in message.decode().splitlines())


async def test_a_node_says_that_it_is_ready_alive_and_leaving(nats_server: ServerFactory, tmp_path: Path) -> None:
    app = write_app(tmp_path / "app", functions={"hello": "return function() return 'hello' end"})
    environ = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "100000"}
    with a_service_manager(tmp_path / "notify") as said:
        async with a_node(app, nats_server().url, node_id="a", environ=environ) as node:
            await wait_until(lambda: len(said) > 3)
            assert await node.terminate() == 0
    assert said[:4] == [{"READY": "1", "STATUS": "node a, queues orders"}, *[{"WATCHDOG": "1"}] * 3]
    assert [message for message in said[4:] if "WATCHDOG" not in message] == [
        {"STOPPING": "1", "STATUS": "leaving the mesh"}
    ]


def test_a_socket_may_be_abstract() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        name = f"mesh-test-notify-{os.getpid()}"  # all of the machine share these names
        listening.bind(f"\0{name}")
        listening.settimeout(5)
        ServiceManager({"NOTIFY_SOCKET": f"@{name}"}).ready("up")
        assert variables(listening.recv(4096)) == {"READY": "1", "STATUS": "up"}


@pytest.mark.parametrize(
    ("environ", "watchdog_s"),
    [
        ({}, 0.0),
        ({"WATCHDOG_USEC": "30000000"}, 0.0),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "30000000"}, 30.0),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 30.0),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, 0.0),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "soon"}, 0.0),
    ],
)
def test_signs_of_life_are_given_only_where_this_process_is_asked_for_them(
    environ: dict[str, str], watchdog_s: float
) -> None:
    assert ServiceManager(environ, pid=7).watchdog_s == watchdog_s


def test_a_service_manager_that_is_gone_is_complained_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    manager = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    manager.ready("up")
    manager.stopping("down")
    assert len([record for record in caplog.records if "cannot be told" in record.message]) == 1


@pytest.mark.parametrize("name", ["mesh-node@.service", "nats-server.service"])
def test_the_units_are_what_systemd_understands(name: str, tmp_path: Path) -> None:
    """By systemd itself where it is installed, else by the keys that systemd.service(5) and systemd.exec(5) know."""
    text = (UNITS / name).read_text()
    if shutil.which("systemd-analyze"):
        # The commands of the unit are not installed here; everything else is as it ships.
        unit = tmp_path / name
        unit.write_text(re.sub(r"(?m)^ExecStart=\S+", f"ExecStart={sys.executable}", text))
        done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        return
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # the documented way to keep the case of keys
    parser.read_string(text)
    assert parser.sections() == ["Unit", "Service", "Install"]
    assert set(parser["Service"]) <= KNOWN_SERVICE_KEYS


KNOWN_SERVICE_KEYS = frozenset(
    re.findall(
        r"\w+",
        """Type NotifyAccess User Group EnvironmentFile ExecStart ExecReload ExecStop WorkingDirectory StateDirectory
        StateDirectoryMode RuntimeDirectory KillMode KillSignal TimeoutStopSec TimeoutStartSec Restart RestartSec WatchdogSec
        WatchdogSignal LimitNOFILE OOMPolicy UMask ProtectSystem ProtectHome PrivateTmp PrivateDevices PrivateUsers ProtectClock
        ProtectControlGroups ProtectHostname ProtectKernelLogs ProtectKernelModules ProtectKernelTunables ProtectProc
        RestrictAddressFamilies RestrictNamespaces RestrictRealtime RestrictSUIDSGID NoNewPrivileges LockPersonality RemoveIPC
        CapabilityBoundingSet AmbientCapabilities SystemCallArchitectures SystemCallFilter MemoryDenyWriteExecute""",
    )
)
