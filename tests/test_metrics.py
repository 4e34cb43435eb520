"""The figures of a node, scraped over HTTP as Prometheus does."""

from __future__ import annotations

from pathlib import Path

import pytest

import mesh.client
from mesh.hosts import HostRecord, Hosts
from node.telemetry.address import BadAddress, following_address, parse_address
from node.telemetry.counts import OTHER, ByLabel, Counter, Histogram
from node.telemetry.readings import METRICS
from node.telemetry.serving import AddressTaken
from store.streams import ensure_queue
from tests.apps import PARTITIONS, QUEUE, WORKER, a_mesh, is_handled, write_app
from tests.cluster import a_node, mesh_command
from tests.conftest import ServerFactory
from tests.scraping import free_address, http_get, scrape
from tests.waiting import wait_until, wait_until_async

PROJECT = Path(__file__).parent.parent

WORKFLOWS = {
    "greet": "return function(name) return funcs.call('app:hello', name) end",
    "retries": """return function()
        local quick = funcs.new():with_options{retry_policy = {initial_interval = 1, maximum_attempts = 3}}
        local _, err = quick:call('app:broken')
        return tostring(err)
    end""",
    "sleeps": "return function() time.sleep('1h') return 1 end",
    "asks_twice": """return function()
        local first = funcs.call('app:hello', 'a')
        process.inbox():receive()
        return first .. funcs.call('app:hello', 'b')
    end""",
}
FUNCTIONS = {
    "hello": "return function(name) if name == 'no' then return nil, errors.new{message = 'no', retryable = false} end return 'hello ' .. name end",
    "broken": "return function() return nil, errors.new{message = 'broken', retryable = true} end",
}


async def test_figures_are_exact_after_a_known_set_of_workflows(nats_server: ServerFactory, tmp_path: Path) -> None:
    app, address = write_app(tmp_path, workflows=WORKFLOWS, functions=FUNCTIONS), free_address()
    async with a_mesh(nats_server().url, app, metrics=address, resident_max=2) as node:
        for i in range(3):
            assert await node.run("greet", "Ada", id=f"g-{i}") == "hello Ada"
        assert (await node.failure("greet", "no", id="g-no")).message == "no"
        assert "broken" in await node.run("retries", id="r")
        # A result is known before the owner of the run has been told of its end.
        await wait_until(lambda: node.statistics()["resident"] == 0)
        for i in range(3):
            await node.start("sleeps", id=f"s-{i}")
        await wait_until(lambda: node.statistics()["evictions"] == 1)
        await wait_until(lambda: node.node.telemetry.loop_lag.lags.counts != [0] * 17)
        figures = await scrape(address)

        def queue(name: str, **labels: str) -> float:
            return figures(name, queue=QUEUE, **labels)

        started = {name: queue("mesh_workflow_started_total", workflow=f"app:{name}") for name in WORKFLOWS}
        assert started == {"greet": 4, "retries": 1, "sleeps": 3, "asks_twice": 0}
        assert figures.of("mesh_workflow_ended_total") == {
            frozenset({"queue": QUEUE, "workflow": f"app:{name}", "outcome": outcome}.items()): count
            for name, outcome, count in (("greet", "completed", 3), ("greet", "failed", 1), ("retries", "completed", 1))
        }
        assert queue("mesh_workflow_duration_seconds_count", workflow="app:greet") == 4
        assert queue("mesh_step_seconds_count", function="app:hello", outcome="completed") == 3
        assert queue("mesh_step_seconds_count", function="app:hello", outcome="failed") == 1
        assert queue("mesh_step_seconds_count", function="app:broken", outcome="failed") == 1
        assert queue("mesh_call_retries_total", function="app:broken") == 2
        assert figures("mesh_call_seconds_count", function="app:broken", outcome="failed") == 3
        assert figures("mesh_call_seconds_count", function="app:hello", outcome="completed") == 3
        assert figures("mesh_call_wait_seconds_count", function="app:hello") == 4
        assert queue("mesh_instances", state="running") == 2
        assert (queue("mesh_evictions_total"), queue("mesh_replay_seconds_count")) == (1, 0)
        assert queue("mesh_partitions_owned") == PARTITIONS
        assert queue("mesh_takeover_seconds_count", how="free") == PARTITIONS
        assert queue("mesh_partition_lag_messages", partition="0") == 0
        # 8 starts, 3 + 1 outcomes of hello, 3 of broken with as many marks of what they came to, 5 ends.
        assert queue("mesh_activation_seconds_count") == 23
        assert (queue("mesh_calls_in_flight"), figures("mesh_connected"), figures("mesh_nodes")) == (0, 1, 1)
        step_s = queue("mesh_step_seconds_sum", function="app:hello", outcome="completed")
        assert 0 < queue("mesh_activation_seconds_sum") < 10
        assert 0 < step_s < 10

        for i in range(3):
            await node.get(f"s-{i}").terminate()
            await node.failed(node.get(f"s-{i}"))
        await wait_until(lambda: node.statistics()["resident"] == 0)
        figures = await scrape(address)
        # What was evicted was replayed for that: its start is not counted again.
        assert queue("mesh_replay_seconds_count") >= 1
        assert queue("mesh_workflow_started_total", workflow="app:sleeps") == 3
        assert queue("mesh_workflow_ended_total", workflow="app:sleeps", outcome="terminated") == 3
        assert set(figures.families) >= {"process_cpu_seconds", "mesh_build_info"}


async def test_a_replay_after_a_kill_counts_nothing_again(nats_server: ServerFactory, tmp_path: Path) -> None:
    app, address, url = write_app(tmp_path, workflows=WORKFLOWS, functions=FUNCTIONS), free_address(), nats_server().url
    async with mesh.client.connect(url) as client:
        async with a_node(app, url, node_id="a") as killed:
            handle = await client.start("app:asks_twice", host=WORKER, id="one")

            await wait_until_async(lambda: is_handled(client, handle, events=2))
            killed.kill()
            await killed.wait()
        async with a_mesh(url, app, node_id="b", metrics=address) as node:
            figures = await scrape(address)
            assert figures.of("mesh_workflow_started_total") == {}
            assert figures.of("mesh_step_seconds_count") == {}
            await handle.signal("go")
            assert await handle.result(timeout_s=20) == "hello ahello b"
            # A result is known before the owner of the run has been told of its end.
            await wait_until(lambda: node.statistics()["resident"] == 0)
            figures = await scrape(address)
        assert (
            figures("mesh_takeover_seconds_count", queue=QUEUE, how="lost")
            == node.node.engines[QUEUE].stream.partitions
        )
        assert figures("mesh_replay_seconds_count", queue=QUEUE) == 1
        assert figures("mesh_replayed_events_total", queue=QUEUE) == 3
        assert figures.of("mesh_workflow_started_total") == {}
        assert figures("mesh_step_seconds_count", queue=QUEUE, function="app:hello", outcome="completed") == 1
        assert figures("mesh_workflow_ended_total", queue=QUEUE, workflow="app:asks_twice", outcome="completed") == 1


async def test_two_nodes_in_one_process_have_figures_of_their_own(nats_server: ServerFactory, tmp_path: Path) -> None:
    app, url = write_app(tmp_path, workflows=WORKFLOWS, functions=FUNCTIONS), nats_server().url
    first, second = free_address(), free_address()
    async with (
        a_mesh(url, app, metrics=first) as a,
        a_mesh(url, app, node_id="b", metrics=second, settled=False) as b,
    ):
        await wait_until(lambda: len(a.node.engines[QUEUE].partitions) == len(b.node.engines[QUEUE].partitions) == 2)
        figures = await scrape(first), await scrape(second)
        assert [f("mesh_partitions_owned", queue=QUEUE) for f in figures] == [2, 2]
        assert [{dict(labels)["node"] for labels in f.of("mesh_build_info")} for f in figures] == [{"a"}, {"b"}]
        with pytest.raises(AddressTaken, match=f"{first}: another program uses it; choose another --metrics address"):
            async with a_mesh(url, app, node_id="c", metrics=first):
                pass


async def test_every_metric_has_the_labels_that_are_written_down(nats_server: ServerFactory, tmp_path: Path) -> None:
    """None has an id for a label: each value of a label is a series that Prometheus keeps."""
    app, address = write_app(tmp_path, workflows=WORKFLOWS, functions=FUNCTIONS), free_address()
    url = nats_server().url
    async with mesh.client.connect(url) as client:
        await ensure_queue(client.js, QUEUE, partitions=PARTITIONS)
        await Hosts(client.js).announce([HostRecord(WORKER, "app:client", QUEUE)])
        for i in range(3):
            await client.start("app:sleeps", host=WORKER, id=f"s-{i}")
    async with a_mesh(url, app, metrics=address, projection=tmp_path / "projection.sqlite3") as node:
        await node.run("greet", "Ada", id="g-1")

        async def is_counted() -> bool:
            return (await scrape(address))("mesh_workflows_open", queue=QUEUE) == 3

        await wait_until_async(is_counted)
        figures = await scrape(address)
        assert figures.of("mesh_projection_lag_messages").keys() == {frozenset()}
        assert "g-1" not in figures.text
        for name, family in figures.families.items():
            if name.startswith("mesh_"):
                for sample in family.samples:
                    assert set(sample.labels) - {"le"} == set(METRICS[name].labels), sample
        _, _, content_type = await http_get(f"http://{address}/metrics", "application/openmetrics-text; version=1.0.0")
        assert content_type.startswith("application/openmetrics-text")


async def test_a_wrong_address_for_metrics_is_refused_before_anything_starts(tmp_path: Path) -> None:
    app = write_app(tmp_path, workflows=WORKFLOWS)
    done = await mesh_command("node", str(app), "--metrics", "here")
    assert done.status == 2
    assert "'here' is no address to serve metrics on; write [HOST]:PORT, such as :9464 or 127.0.0.1:9464" in done.err


def test_addresses_are_read_as_prometheus_people_write_them() -> None:
    assert parse_address(":9464") == parse_address("9464") == ("", 9464)
    assert parse_address("127.0.0.1:0") == ("127.0.0.1", 0)
    assert parse_address("[::1]:9464") == ("::1", 9464)
    assert following_address(":9464", 2) == ":9466"
    assert following_address("[::1]:9464", 1) == "[::1]:9465"
    assert following_address("127.0.0.1:0", 3) == "127.0.0.1:0"
    for wrong in ("", "::1:9464", "host:", "host:65536", ":x", "host:-1"):
        with pytest.raises(BadAddress):
            parse_address(wrong)
    with pytest.raises(BadAddress, match=":65536"):
        following_address(":65535", 1)


def test_labels_are_bounded_whatever_names_code_makes_up() -> None:
    counters: ByLabel[str, Counter] = ByLabel(Counter, OTHER, labels_max=2)
    for name in ("a", "b", "c", "d", "a"):
        counters[name].value += 1
    assert {name: counter.value for name, counter in counters.items()} == {"a": 2, "b": 1, OTHER: 2}


def test_a_limit_of_a_histogram_belongs_below_it() -> None:
    histogram = Histogram((0.1, 1.0))
    for seconds in (0.0, 0.1, 0.11, 1.0, 1.01, 99.0):
        histogram.observe(seconds)
    assert histogram.counts == [2, 2, 2]
    assert histogram.total_s == pytest.approx(101.22 + 0.0)
    copied = histogram.copy()
    histogram.observe(0.5)
    assert sum(copied.counts) == 6
