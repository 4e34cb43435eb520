"""Workflows and processes talk: signals, answers, monitors and links across the two (contract 11.4, 11.8)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.apps import a_mesh, write_app
from tests.conftest import ServerFactory
from tests.test_processes import PRELUDE, PROCESSES

WORKFLOWS = {
    "asker": """
        return { main = function(pid, value)
          local ok, err = process.send(pid, "ask", value)
          if err then return nil, err end
          local m = process.inbox():receive()
          return { m:topic(), m:payload():data(), m:from() == pid }
        end }""",
    "waits": """
        return { main = function()
          local events, inbox = process.events(), process.inbox()
          local r = channel.select{ events:case_receive(), inbox:case_receive() }
          if r.channel == events then
            return { r.value.kind, type(r.value.at), r.value.reason == nil, r.value.from }
          end
          local m = r.value
          if m:topic() == "fail" then return nil, errors.new{ message = m:payload():data(), kind = "Conflict" } end
          process.send(m:from(), "ok", m:payload():data())
          return m:payload():data()
        end }""",
    "strict": """
        return { main = function(pid)
          local function text(_, err) return err:kind() .. ": " .. err:message():match("^[%w%.]+") end
          return { text(process.monitor(pid)), text(process.link(pid)), text(process.registry.lookup("x")),
            text(nil, select(2, process.set_options{ trap_links = true })) }
        end }""",
}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(
            """local pid = process.spawn("app:echo", HOST)
            return process.exec("app:asker", "app:worker", pid, { 7 })""",
            ["echo", [7], True],
            id="a workflow asks a process and is answered",
        ),
        pytest.param(
            """local pid = process.spawn("app:echo", HOST)
            process.registry.register("e", pid)
            local value, err = process.exec("app:asker", "app:worker", "nobody", 1)
            return { process.exec("app:asker", "app:worker", "e", 1)[2], err:kind(), tostring(err):match("'nobody'") }""",
            [1, "NotFound", "'nobody'"],
            id="a workflow sends to a name",
        ),
        pytest.param(
            """local wf = process.spawn("app:waits", "app:worker")
            process.monitor(wf)
            process.send(wf, "go", "x")
            local m = receive(process.inbox(), "answer")
            local ev = receive(process.events(), "event")
            local known = process.monitor(wf)
            local late = receive(process.events(), "event of a stored end")
            return { m:topic(), m:from() == wf, ev.kind, ev.result.value, ev.from == wf, known, late.result.value }""",
            ["ok", True, "pid.exit", "x", True, True, "x"],
            id="a monitor of a workflow, also after its end",
        ),
        pytest.param(
            """process.set_options{ trap_links = true }
            local wf = process.spawn_linked("app:waits", "app:worker")
            process.send(wf, "fail", "no")
            local down = receive(process.events(), "event")
            local other = process.spawn_linked("app:waits", "app:worker")
            process.send(other, "go", 1)
            local exit = receive(process.events(), "event")
            return { down.kind, down.result.error:kind(), tostring(down.result.error), exit.kind, exit.result.value }""",
            ["pid.link.down", "Conflict", "no", "pid.exit", 1],
            id="a link to a workflow tells failure and success apart",
        ),
        pytest.param(
            """local wf = process.spawn_monitored("app:waits", "app:worker")
            process.cancel(wf, "because")
            local ev = receive(process.events(), "event")
            local t = process.spawn_monitored("app:waits", "app:worker")
            process.terminate(t)
            local gone = receive(process.events(), "event")
            return { ev.result.value, gone.result.error:kind(), tostring(gone.result.error) }""",
            [["pid.cancel", "string", True, "{|topology}"], "Canceled", "workflow terminated"],
            id="cancel asks, terminate does not",
        ),
        pytest.param(
            """local unknown = process.spawn("app:waits", "app:worker"):gsub("|.*", "|never-existed}")
            local ok = process.monitor(unknown)
            local ev = receive(process.events(), "event")
            return { ok, ev.kind, ev.result.error:kind() }""",
            [True, "pid.exit", "NotFound"],
            id="monitoring what never existed gives an EXIT with an error",
        ),
        pytest.param(
            """return process.exec("app:strict", "app:worker", process.pid())""",
            ["Internal: process.monitor", "Internal: process.link", "Internal: process.registry.lookup",
             "Internal: process.set"],
            id="what a workflow may not do",
        ),
    ],
)  # fmt: skip
async def test_workflows_and_processes(tmp_path: Path, nats_server: ServerFactory, body: str, expected: Any) -> None:
    functions = {"t": f"{PRELUDE} return {{ main = function() {body} end }}"}
    app = write_app(tmp_path, processes=PROCESSES, workflows=WORKFLOWS, functions=functions)
    async with a_mesh(nats_server().url, app) as mesh:
        assert await mesh.client.call("app:t") == expected
