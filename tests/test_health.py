"""Whether a node lives and whether it is ready, asked over HTTP as whoever keeps it running does."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import anyio

from node.telemetry.serving import Status, serving
from tests.apps import a_mesh, write_app
from tests.cluster import a_node
from tests.conftest import ServerFactory
from tests.scraping import free_address, get, http_get, scrape
from tests.waiting import wait_until_async

PATHS = ("/healthz", "/readyz", "/metrics")
APP = {"greet": "return function() return 1 end"}


async def answers(address: str, path: str) -> tuple[int, str]:
    status, text, _ = await http_get(f"http://{address}{path}")
    return status, text.strip()


async def test_a_node_is_ready_while_it_is_a_member_that_is_connected(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    app, address, server = write_app(tmp_path, workflows=APP), free_address(), nats_server()
    async with a_mesh(server.url, app, metrics=address) as mesh:
        assert await answers(address, "/healthz") == (200, "ok")
        assert await answers(address, "/readyz") == (200, "ready")
        assert (await answers(address, "/nothing"))[0] == 404

        server.kill()

        async def is_cut_off() -> bool:
            status, text = await answers(address, "/readyz")
            return status == 503 and text.startswith("not ready: not connected to nats://127.0.0.1:")

        await wait_until_async(is_cut_off)
        assert await answers(address, "/healthz") == (200, "ok"), "it lives; a restart would not help"

        server.start()

        async def is_ready() -> bool:
            return (await answers(address, "/readyz"))[0] == 200

        await wait_until_async(is_ready, timeout_s=20)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(mesh.node.leave)

            async def is_leaving() -> bool:
                status, text = await answers(address, "/readyz")
                return status == 503 and text.startswith("not ready: the node is leaving")

            await wait_until_async(is_leaving)


async def test_a_node_without_a_server_lives_and_says_why_it_is_not_ready(tmp_path: Path) -> None:
    app, address, nobody = write_app(tmp_path, workflows=APP), free_address(), free_address()
    async with anyio.create_task_group() as tasks:

        async def start() -> None:
            async with a_node(app, f"nats://{nobody}", node_id="a", environ={"MESH_METRICS": address}):
                raise AssertionError("there is no server")

        tasks.start_soon(start)

        async def is_up() -> bool:
            try:
                return await answers(address, "/healthz") == (200, "ok")
            except OSError:
                return False

        await wait_until_async(is_up, timeout_s=20)
        assert await answers(address, "/readyz") == (503, "not ready: not connected to NATS yet")
        status, text, _ = await http_get(f"http://{address}/metrics")
        assert status == 200
        assert "process_cpu_seconds_total" in text
        tasks.cancel_scope.cancel()


def now(url: str) -> tuple[int, str]:
    status, text, _ = get(url)
    return status, text.strip()


async def test_a_node_that_serves_functions_only_is_ready_and_counts_its_calls(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    """It is no member of the mesh, and need not be one to be ready."""
    app = write_app(tmp_path, workflows=APP, functions={"hello": "return function(name) return 'hello ' .. name end"})
    address, url = free_address(), nats_server().url
    async with a_mesh(url, app, functions=False), a_mesh(
        url, app, node_id="f", functions_only=True, metrics=address, settled=False
    ) as m:  # fmt: skip
        assert await answers(address, "/readyz") == (200, "ready")
        assert await m.client.call("app:hello", "Ada") == "hello Ada"
        figures = await scrape(address)
        assert figures("mesh_call_seconds_count", function="app:hello", outcome="completed") == 1
        assert figures.of("mesh_nodes") == figures.of("mesh_partitions_owned") == {}


async def test_a_loop_that_stands_still_is_not_healthy() -> None:
    """It answers nothing; the thread that serves does, and says so."""
    async with serving("127.0.0.1:0", Status(list, list, answer_s=0.1)) as url:
        seen: list[tuple[int, str]] = []
        asking = threading.Thread(target=lambda: seen.extend(now(f"{url}{path}") for path in PATHS))
        asking.start()
        while len(seen) < len(PATHS):
            time.sleep(0.05)  # noqa: ASYNC251 - the loop must not turn meanwhile
        asking.join()
        assert seen == [(503, "the event loop has not turned for 0.1 s")] * len(PATHS)

        async def is_healthy_again() -> bool:
            return await answers(url.removeprefix("http://"), "/healthz") == (200, "ok")

        await wait_until_async(is_healthy_again)
