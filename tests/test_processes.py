"""Processes on one node: what starts them, what they say to each other, what ends them, and who hears of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.apps import a_mesh, write_app
from tests.conftest import ServerFactory

PROCESSES = {
    "echo": """
        local function main(...)
          local inbox = process.inbox()
          while true do
            local m = inbox:receive()
            if m:topic() == "stop" then return m:payload():data() end
            if m:topic() == "fail" then error(m:payload():data()) end
            process.send(m:from(), "echo", m:payload():data())
          end
        end
        return { main = main }""",
    "adder": "return { main = function(a, b) return a + b end }",
    "broken": "error('no such luck')",
    "endless": "return { main = function() while true do end end }",
    "hog": """
        return { main = function()
          local kept, time = {}, require("time")
          while true do
            for i = 1, 4000 do kept[#kept + 1] = { i, tostring(i) .. string.rep("x", 100) } end
            time.sleep("1ms")
          end
        end }""",
    "upgraded": """
        return { main = function(to)
          local m = process.inbox():receive()
          process.send(to, "new", process.pid(), process.id(), m:payload():data())
        end }""",
    "busy_before": """
        return { main = function()
          process.inbox()
          process.listen("c")
          process.listen("go"):receive()
          process.upgrade("app:reads_three")
        end }""",
    "upgrades_with_events": """
        return { main = function()
          process.events()
          process.listen("go"):receive()
          process.upgrade("app:reads_an_event")
        end }""",
    "reads_an_event": """
        local events = process.events()
        process.set_options{ trap_links = true }
        return { main = function() return { events:receive().kind, process.get_options().trap_links } end }""",
    "reads_three": """
        return { main = function()
          local got, inbox = {}, process.inbox()
          for i = 1, 3 do
            local m = inbox:receive()
            got[i] = m:topic() .. m:payload():data()
          end
          return table.concat(got, " ")
        end }""",
    "before": """
        return { main = function(to)
          process.send(to, "old", process.pid())
          process.listen("go"):receive()
          process.upgrade("app:upgraded", to)
        end }""",
}

PRELUDE = """
local time = require("time")
local HOST = "app:processes"
local function receive(ch, what)
  local r = channel.select{ ch:case_receive(), time.after("20s"):case_receive() }
  if r.channel ~= ch then error("no " .. what .. " within 20 s", 2) end
  return r.value
end
"""


async def the_function_gives(tmp_path: Path, nats_server: ServerFactory, body: str, expected: Any) -> None:
    app = write_app(
        tmp_path, processes=PROCESSES, functions={"t": f"{PRELUDE} return {{ main = function() {body} end }}"}
    )
    async with a_mesh(nats_server().url, app) as mesh:
        assert await mesh.client.call("app:t") == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param("return process.exec('app:adder', HOST, 2, 3)", 5, id="exec gives the result"),
        pytest.param(
            """local pid = process.spawn("app:echo", HOST)
            process.send(pid, "x", { 1, "two" })
            local m = receive(process.inbox(), "answer")
            return { m:topic(), m:payload():data(), m:from() == pid }""",
            ["echo", [1, "two"], True],
            id="a process answers",
        ),
        pytest.param(
            """local pid = process.spawn_monitored("app:adder", HOST, 20, 22)
            local ev = receive(process.events(), "event")
            return { ev.kind, ev.from == pid, ev.result.value, ev.result.error == nil, type(ev.at) }""",
            ["pid.exit", True, 42, True, "number"],
            id="a monitor gets EXIT with the value",
        ),
        pytest.param(
            """process.set_options{ trap_links = true }
            local pid = process.spawn_linked_monitored("app:echo", HOST)
            process.send(pid, "fail", "oops")
            local one, two = receive(process.events(), "event"), receive(process.events(), "event")
            return { one.kind, two.kind, tostring(two.result.error), one.result.error:kind() }""",
            ["pid.exit", "pid.link.down", "echo.lua:7: oops", "Internal"],
            id="EXIT comes before LINK_DOWN",
        ),
        pytest.param(
            """local pid, err = process.spawn("app:broken", HOST)
            return { pid == nil, tostring(err), err:kind() }""",
            [True, "broken.lua:1: no such luck", "Internal"],
            id="a chunk that raises fails the spawn",
        ),
        pytest.param(
            """local a, e1 = process.spawn("app:nothing", HOST)
            local b, e2 = process.spawn("app:adder", "app:nowhere")
            return { e1:kind(), (tostring(e1):gsub(":.*", "")), e2:kind(), (tostring(e2):gsub(":.*", "")) }""",
            ["NotFound", "factory not found", "NotFound", "host not found"],
            id="what cannot be spawned is not found",
        ),
        pytest.param(
            """local s = process.with_options({}):with_name("me"):with_message("x", 1):with_message("x", 2)
            local a = s:spawn("app:echo", HOST)
            local b = s:spawn("app:adder", HOST)
            local found = process.registry.lookup("me")
            process.send("me", "stop", 7)
            return { a == b, a == found }""",
            [True, True],
            id="a taken name gives the process that has it",
        ),
        pytest.param(
            """local pid = process.spawn_monitored("app:echo", HOST)
            process.registry.register("n", pid)
            process.send("n", "stop", 1)
            receive(process.events(), "event")
            local found, err = process.registry.lookup("n")
            local ok, gone = process.send(pid, "x")
            return { found == nil, err:kind(), gone:kind(), (tostring(gone):gsub(":.*", "")) }""",
            [True, "NotFound", "NotFound", "process not found"],
            id="names are free before EXIT is seen",
        ),
        pytest.param(
            """local pid = process.spawn_monitored("app:before", HOST, process.pid())
            local old = receive(process.listen("old"), "old")
            process.send(pid, "later", "kept")
            process.send(pid, "go")
            local new = receive(process.listen("new"), "new")
            local ev = receive(process.events(), "event")
            return { old == pid, new[1] == pid, new[2], new[3], ev.kind }""",
            [True, True, "app:upgraded", "kept", "pid.exit"],
            id="upgrade keeps the PID, the mailbox and the monitors",
        ),
        pytest.param(
            """local pid = process.spawn_monitored("app:busy_before", HOST)
            process.send(pid, "b", 1)
            process.send(pid, "b", 2)
            process.send(pid, "c", 3)
            process.send(pid, "go")
            return receive(process.events(), "event").result.value""",
            "b1 b2 c3",
            id="an upgrade keeps what the inbox and the listeners hold",
        ),
        pytest.param(
            """local pid = process.spawn_monitored("app:upgrades_with_events", HOST)
            process.cancel(pid, "early")
            process.send(pid, "go")
            return receive(process.events(), "event").result.value""",
            ["pid.cancel", True],
            id="an upgrade keeps events and options for code that looks at them when it is loaded",
        ),
        pytest.param(
            """local pid = process.spawn_monitored("app:endless", HOST)
            local other = process.spawn("app:echo", HOST)
            local ev = receive(process.events(), "event")
            process.send(other, "x", "alive")
            local failed = ev.result.error
            return { (tostring(failed):gsub("%d+", "N")), failed:retryable() == nil, receive(process.inbox(), "answer"):payload():data() }""",
            ["endless.lua:N: ran N instructions in one step without waiting; an endless loop?", True, "alive"],
            id="an endless loop ends its process and no other",
        ),
        pytest.param(
            """local other = process.spawn("app:echo", HOST)
            local pid = process.spawn_monitored("app:hog", HOST)
            local r = channel.select{ process.events():case_receive(), time.after("20s"):case_receive() }
            process.send(other, "x", "alive")
            local failed = r.value.result.error
            return { tostring(failed):match("at most %d+ MB"), failed:retryable() == nil, receive(process.inbox(), "answer"):payload():data() }""",
            ["at most 64 MB", True, "alive"],
            id="a process that holds too much memory ends and no other",
        ),
        pytest.param(
            """local pid = process.spawn_monitored("app:echo", HOST)
            process.terminate(pid)
            local ev = receive(process.events(), "event")
            local ok, err = process.monitor(pid)
            return { tostring(ev.result.error), ev.result.error:kind(), tostring(err):match("^pid not registered"), err:kind() }""",
            ["process terminated", "Internal", "pid not registered", "Internal"],
            id="terminate ends without asking",
        ),
    ],
)  # fmt: skip
async def test_processes(tmp_path: Path, nats_server: ServerFactory, body: str, expected: Any) -> None:
    await the_function_gives(tmp_path, nats_server, body, expected)
