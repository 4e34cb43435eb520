"""Schedules: kept and fired by the server, paused, resumed, triggered and removed by whoever may."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mesh.errors import NotFound
from mesh.events import StartSpec
from mesh.schedules import (
    BadSchedule,
    NoSchedule,
    Schedule,
    ScheduleChanged,
    ScheduleExists,
    check_schedule,
    find_schedule,
    list_schedules,
    next_ns,
    pause_schedule,
    put_schedule,
    remove_schedule,
    resume_schedule,
)
from mesh.starting import AlreadyStarted
from mesh.stored_messages import StoredMessage
from mesh.timers import cron_subject, paused_subject
from tests.apps import QUEUE, TIMEOUT_S, WORKER, Mesh, a_mesh, key, write_app
from tests.cluster import Finished
from tests.commands import typed
from tests.conftest import ServerFactory
from tests.waiting import wait_until_async

WORKFLOWS = {
    "quick": "return function(x) return x end",
    "waits": "return function(x) process.listen('go'):receive() return x end",
}
STREAM = "WF_orders"


async def stored(mesh: Mesh, name: str) -> list[str]:
    """Where a schedule is in the stream."""
    found = await mesh.client.js.multi_last(STREAM, [cron_subject(key(name)), paused_subject(key(name))])
    return [message.subject.split(".")[3] for message in found]


async def test_a_schedule_fires_rests_while_it_is_paused_and_is_told_apart_from_its_runs(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    async with a_mesh(nats_server().url, write_app(tmp_path, workflows=WORKFLOWS)) as mesh:
        schedules, client = mesh.client.schedules, mesh.client
        await schedules.add(
            "tick", "app:quick", 7, host=WORKER, every="1s", memo={"a": 1}, search_attributes={"c": "x"}
        )
        with pytest.raises(ScheduleExists, match="a schedule 'tick' is on queue 'orders' already"):
            await schedules.add("tick", "app:quick", host=WORKER, every="5s")

        async def has_fired() -> bool:
            return (await schedules.state(await schedules.get("tick"))).status == "completed"

        await wait_until_async(has_fired)
        state = await schedules.state(await schedules.get("tick"))
        assert await client.get("tick", queue=QUEUE).result(timeout_s=TIMEOUT_S) == 7
        assert 0 < state.next_ns - state.started_ns < 2_500_000_000
        assert (state.next_ns % 10**9, state.run > 0) == (0, True)

        paused = await schedules.pause("tick")
        assert (paused.paused, paused.every, await stored(mesh, "tick")) == (True, "1s", ["paused"])
        await schedules.pause("tick")
        assert (await schedules.state(paused)).next_ns == 0
        with pytest.raises(ScheduleExists):
            await schedules.add("tick", "app:quick", host=WORKER, every="5s", paused=True)
        await client.get("tick", queue=QUEUE).result(timeout_s=TIMEOUT_S)  # also of what fired just before that
        # Also when it is paused it can be started now; the run is one like any other.
        _, run = await schedules.trigger("tick")
        assert (await client.get("tick", queue=QUEUE).describe()).run == run
        assert await client.get("tick", queue=QUEUE).result(timeout_s=TIMEOUT_S) == 7
        started = (await client.get("tick", queue=QUEUE).history())[0]
        assert b"Nats-Scheduler" not in (started.raw_headers or b"")

        resumed = await schedules.resume("tick")
        assert (resumed.paused, resumed.spec.memo, resumed.spec.attrs) == (False, {"a": 1}, {"c": "x"})
        assert await stored(mesh, "tick") == ["cron"]

        async def has_fired_again() -> bool:
            return (await client.get("tick", queue=QUEUE).describe()).run > run

        await wait_until_async(has_fired_again)
        await schedules.remove("tick")
        assert (await stored(mesh, "tick"), await schedules.all()) == ([], [])
        with pytest.raises(NoSchedule, match="no schedule 'tick'; there are: none"):
            await schedules.get("tick")

        # A start that is due while a run is open is left out, and so is a trigger.
        await schedules.add("long", "app:waits", 1, host=WORKER, every="1s")
        handle = client.get("long", queue=QUEUE)

        async def starts() -> int:
            found = await client.js.batch_get(STREAM, subject_filter=handle.key.stored("*", "start"))
            return len(found)

        async def has_fired_twice() -> bool:
            return await starts() >= 2

        await wait_until_async(has_fired_twice)
        with pytest.raises(AlreadyStarted, match="is running"):
            await schedules.trigger("long")
        first = (await handle.describe()).run
        await schedules.pause("long")
        assert (await handle.describe()).run == first
        # Terminating a workflow ends its schedule, paused or not.
        await handle.terminate()
        assert await schedules.all() == []

        # What `mesh start --cron` makes is one, too.
        await client.start("app:quick", 1, host=WORKER, id="old", cron="*/5 * * * *")
        old = await schedules.get("old")
        assert (old.expression, old.timezone, old.paused, old.every) == ("*/5 * * * *", "UTC", False, None)
        with pytest.raises(NoSchedule, match="no schedule 'odl'; did you mean old"):
            await schedules.pause("odl")
        with pytest.raises(NotFound):
            await schedules.trigger("old", queue="elsewhere")


async def test_a_move_that_was_interrupted_loses_nothing(nats_server: ServerFactory, tmp_path: Path) -> None:
    """In both places it fires, so it is not paused; doing the same again completes it."""
    async with a_mesh(nats_server().url, write_app(tmp_path, workflows=WORKFLOWS)) as mesh:
        js = mesh.client.js
        spec = StartSpec("app:quick", entropy=b"e", cron="0 4 * * *")
        await put_schedule(js, key("s"), spec, timezone="Europe/Paris")
        active = await js.get_last(STREAM, cron_subject(key("s")))
        await put_schedule(js, key("s"), spec, timezone="Europe/Paris", paused=True)
        assert await stored(mesh, "s") == ["paused"]
        assert active is not None
        await js.publish(
            cron_subject(key("s")), active.data,
            headers={"Nats-Schedule": "0 0 4 * * *", "Nats-Schedule-Target": key("s").start(), "Nats-Schedule-Time-Zone": "Europe/Paris"},
        )  # fmt: skip
        assert await stored(mesh, "s") == ["paused", "cron"]
        (found,) = await list_schedules(js, QUEUE)
        assert (found.paused, found.timezone, found.spec) == (False, "Europe/Paris", spec)
        await pause_schedule(js, found)
        assert await stored(mesh, "s") == ["paused"]
        for _ in range(2):
            paused = await find_schedule(js, key("s"))
            assert paused is not None
            assert (paused.timezone, paused.spec, paused.body) == ("Europe/Paris", spec, active.data)
            await resume_schedule(js, paused)
            assert await stored(mesh, "s") == ["cron"]
            await mesh.client.schedules.pause("s")
        await remove_schedule(js, key("s"))
        await remove_schedule(js, key("s"))
        assert await stored(mesh, "s") == []
        # The server has the last word on what it can read.
        with pytest.raises(BadSchedule, match=r"cron_schedule must be a cron expression, '0 0 \* \* 7L'"):
            await put_schedule(js, key("s"), StartSpec("app:quick", cron="0 0 * * 7L"))


async def test_what_was_removed_or_replaced_meanwhile_does_not_come_back(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    """Two people at the same schedule: who comes second is told, and nothing that was removed fires again."""
    async with a_mesh(nats_server().url, write_app(tmp_path, workflows=WORKFLOWS)) as mesh:
        js = mesh.client.js
        spec = StartSpec("app:quick", entropy=b"e", cron="0 4 * * *")
        for paused in (False, True):
            await put_schedule(js, key("s"), spec, paused=paused)
            seen = await find_schedule(js, key("s"))
            assert seen is not None
            move = resume_schedule if paused else pause_schedule
            await remove_schedule(js, key("s"))
            with pytest.raises(ScheduleChanged, match="changed or removed by somebody else"):
                await move(js, seen)
            assert await stored(mesh, "s") == []
            await put_schedule(js, key("s"), replace(spec, cron="0 5 * * *"), paused=paused)
            with pytest.raises(ScheduleChanged):
                await move(js, seen)
            (found,) = await list_schedules(js, QUEUE)
            assert (found.spec.cron, found.paused) == ("0 5 * * *", paused)


@pytest.mark.parametrize(
    ("expression", "timezone", "text"),
    [
        ("* * * *", "UTC", "'* * * *' is no cron expression; write five fields (minute hour day month weekday) or @every 5m"),
        ("61 * * * *", "UTC", "cron_schedule must be a cron expression, '61 * * * *' cannot be read (its minute is no such)"),
        ("0 4 * 13 *", "UTC", "cron_schedule must be a cron expression, '0 4 * 13 *' cannot be read (its month is no such)"),
        ("@dayly", "UTC", "'@dayly' is no schedule; did you mean @daily?"),
        ("@every 100ms", "UTC", "'@every 100ms' is no interval; write a duration of at least a second, such as @every 5m"),
        ("@every often", "UTC", "'@every often' is no interval"),
        ("@every 5m", "Europe/Paris", "an interval is in no time zone: leave Europe/Paris out"),
        ("0 4 * * *", "Europe/Pari", "there is no time zone 'Europe/Pari'; did you mean Europe/Paris?"),
        ("0 4 * * *", "../etc", "there is no time zone '../etc'"),
        ("0 4 * * *", "", "there is no time zone ''"),
    ],
)  # fmt: skip
def test_a_schedule_that_nobody_can_read_is_refused_with_what_is_wrong(
    expression: str, timezone: str, text: str
) -> None:
    with pytest.raises(BadSchedule) as caught:
        check_schedule(expression, timezone)
    assert str(caught.value).startswith(text)


NOW_NS = int(datetime(2026, 3, 28, 23, 59, 59, tzinfo=UTC).timestamp()) * 10**9


def due(expression: str, timezone: str = "UTC", *, stored_ns: int = 0, last: StoredMessage | None = None) -> str | None:
    """When a schedule is due, as UTC."""
    check_schedule(expression, timezone)
    schedule = Schedule(key("s"), StartSpec("a:b"), expression, timezone, False, stored_ns, b"")
    found = next_ns(schedule, NOW_NS, last)
    return f"{datetime.fromtimestamp(found / 1e9, UTC):%m-%d %H:%M:%S}" if found is not None else None


def test_the_next_start_is_told_in_the_schedules_time_zone() -> None:
    """Also over the change of the clocks: in Paris there is no 02:30 on 29 March 2026, and nothing starts then."""
    assert due("*/5 * * * *") == "03-29 00:00:00"
    assert due("0 9 * * MON-FRI") == "03-30 09:00:00"
    assert due("0 9 * * mon-fri") == "03-30 09:00:00"
    assert due("30 4 ? * 1", "Asia/Tokyo") == "03-29 19:30:00"
    assert due("30 2 * * *", "Europe/Paris") == "03-30 00:30:00"
    assert due("@daily", "America/New_York") == "03-29 04:00:00"
    assert due("15 30 4 * * *") == "03-29 04:30:15"
    assert due("@hourly") == "03-29 00:00:00"


def test_the_next_start_of_an_interval_follows_from_when_it_was_stored_or_from_what_the_server_said_last() -> None:
    stored_ns = NOW_NS - 95 * 10**9 - 300_000_000
    assert due("@every 1m", stored_ns=stored_ns) == "03-29 00:00:24"
    assert due("@every 1h", stored_ns=stored_ns) == "03-29 00:58:24"
    headers = b"NATS/1.0\r\nNats-Scheduler: x\r\nNats-Schedule-Next: 2026-03-29T00:00:31Z\r\n\r\n"
    last = StoredMessage("mesh.log.orders.1.s.start", 9, stored_ns + 10**9, b"", headers)
    assert due("@every 1m", stored_ns=stored_ns, last=last) == "03-29 00:00:31"
    before = last._replace(timestamp_ns=stored_ns - 1)
    assert due("@every 1m", stored_ns=stored_ns, last=before) == "03-29 00:00:24"
    paused = Schedule(key("s"), StartSpec("a:b"), "* * * * *", "UTC", True, 0, b"")
    assert next_ns(paused, NOW_NS, None) is None


async def test_the_command_line_and_the_api_make_list_and_remove_schedules(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    url = nats_server().url
    async with a_mesh(url, write_app(tmp_path, workflows=WORKFLOWS)) as mesh:

        async def schedule(*arguments: str) -> Finished:
            return await typed("schedule", *arguments, url=url)

        async def api(verb: str, body: dict[str, Any] | None = None) -> Any:
            payload = json.dumps(body).encode() if body is not None else b""
            reply = await mesh.client.conn.request(f"mesh.api.schedule.{verb}", payload, timeout_s=15.0)
            return json.loads(reply.data)

        added = await schedule("add", "night", "app:quick", "--cron", "0 4 * * *", "--tz", "Europe/Paris", "--input", "1", "--json")  # fmt: skip
        record = json.loads(added.out)
        assert record == {
            "id": "night", "queue": QUEUE, "workflow": "app:quick", "args": [1], "cron": "0 4 * * *", "every": None,
            "timezone": "Europe/Paris", "paused": False, "next": record["next"], "run": None, "last_run": None,
            "last_status": None,
        }  # fmt: skip
        assert record["next"][11:] in ("02:00:00.000000000Z", "03:00:00.000000000Z")
        assert await api("add", {"id": "poll", "workflow": "app:waits", "every": "5m", "paused": True}) == {
            "id": "poll", "queue": QUEUE, "workflow": "app:waits", "args": [], "cron": None, "every": "5m",
            "timezone": None, "paused": True, "next": None, "run": None, "last_run": None, "last_status": None,
        }  # fmt: skip
        again = await api("add", {"id": "poll", "workflow": "app:waits", "every": "5m"})
        assert (again["error"]["code"], again["error"]["kind"]) == (409, "schedule-exists")
        run = (await api("trigger", {"id": "poll"}))["run"]
        busy = (await api("trigger", {"id": "poll"}))["error"]
        assert (busy["code"], busy["kind"], busy["state"]["run"]) == (409, "is-running", run)
        listed = await schedule("ls", "--json")
        assert [json.loads(line) for line in listed.out.splitlines()] == (await api("ls"))["schedules"]
        assert [r["last_status"] for r in (await api("ls"))["schedules"]] == [None, "running"]
        table = (await schedule("ls")).out.splitlines()
        assert table[0].split() == ["ID", "LAST", "STATUS", "WORKFLOW", "WHEN", "NEXT", "LAST", "RUN", "QUEUE"]
        assert table[2].startswith("poll   running      app:waits  every 5m                paused")
        assert (await api("resume", {"id": "poll"}))["paused"] is False
        assert (await api("pause", {"id": "poll"}))["next"] is None
        wrong = await schedule("add", "x", "app:quick", "--cron", "0 25 * * *")
        assert (wrong.status, wrong.err) == (
            1,
            "mesh: cron_schedule must be a cron expression, '0 25 * * *' cannot be read (its hour is no such); write "
            "minute hour day month weekday, such as '*/5 * * * *'\n",
        )
        assert await api("rm", {"id": "poll"}) == {"id": "poll", "queue": QUEUE}
        assert (await api("rm", {"id": "poll"}))["error"]["code"] == 404
        removed = await schedule("rm", "night")
        assert (removed.status, removed.out, removed.err) == (0, "", "night on queue orders is scheduled no more\n")
        assert (await schedule("add", "x", "app:quick")).status == 2
        assert "did you mean pause?" in (await schedule("pauze", "x")).err
