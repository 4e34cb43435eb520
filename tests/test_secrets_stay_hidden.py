"""Secrets that are planted where secrets belong, and looked for in everything that comes out where something fails."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Final

import anyio
import pytest

from mesh.connection import ConnectOptions
from mesh.failure import Failure
from mesh.redaction import shown_url, unresolved, without_quotes, without_secrets
from node.modules.http_client import HttpClientModule
from node.registry import load_registry
from node.telemetry.trace_settings import trace_settings
from node.telemetry.tracing import tracing_of
from tests.commands import typed
from tests.units import Units
from tests.web_server import a_web_server

PLANTED: Final = "pl4nted-s3cret"

REQUESTS: Final = {
    "nobody listens": "http_client.get('http://user:SECRET@127.0.0.1:9/x?key=SECRET')",
    "no URL": "http_client.get('http://user:SECRET@ho st/?key=SECRET')",
    "another scheme": "http_client.get('ftp://user:SECRET@host/?key=SECRET')",
    "a header that cannot be sent": "http_client.get(url, {headers = {Authorization = 'Bearer SECRET\\n'}})",
    "a user that cannot be sent": "http_client.get(url, {auth = {user = 'SECRET\\0', pass = 'SECRET'}, headers = {X = 'SECRET\\r'}})",
    "an answer that is too long": "http_client.get(url .. '/echo?key=SECRET', {max_response_body = 1})",
    "in a batch": "http_client.request_batch({{'GET', 'http://user:SECRET@127.0.0.1:9/x?key=SECRET'}})",
}  # fmt: skip


@pytest.mark.parametrize("name", REQUESTS)
async def test_what_a_request_carries_is_in_no_error_and_no_log(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """An error of a function is an outcome, so it would stand in a history for ever."""
    caplog.set_level(logging.INFO)
    module = HttpClientModule()
    source = f"return function(url) local r, err = {REQUESTS[name].replace('SECRET', PLANTED)} if err then return tostring(err) .. err:stack() end return payload.new(r):string() end"
    with a_web_server() as web:
        async with anyio.create_task_group() as tasks:
            await tasks.start(module.run)
            told = await Units({"http_client": module}).run(source, web.url)
            tasks.cancel_scope.cancel()
    text = f"{told} {told.stack if isinstance(told, Failure) else ''}"
    assert PLANTED not in text, text
    assert PLANTED not in caplog.text


def test_a_check_of_an_app_names_the_placeholder_and_not_what_it_holds(tmp_path: Path) -> None:
    """Somebody may have put the wrong variable into a field; its value is shown to whoever reads the log of a build."""
    (tmp_path / "_index.yaml").write_text(
        """version: "1.0"
namespace: app
entries:
  - {name: worker, kind: temporal.worker, client: "app:client", task_queue: "q", worker_options: {max_concurrent_activity_execution_size: "${env:PLANTED}"}}
  - {name: client, kind: temporal.client, address: "x"}
  - {name: store, kind: store.memory, max_size: "${env:PLANTED}", cleanup_interval: "${env:PLANTED}"}
  - {name: data, kind: db.sql.sqlite, file: ":memory:", pool: {max_open: "a${PLANTED}", max_lifetime: "${PLANTED}"}}
"""
    )
    try:
        problems = [str(p) for p in load_registry(tmp_path, environ={"PLANTED": PLANTED}).problems]
    except Exception as error:
        problems = [str(error)]
    assert problems
    assert PLANTED not in "\n".join(problems)
    assert "${env:PLANTED}" in "\n".join(problems)


async def test_a_command_that_proposes_another_does_not_repeat_a_password() -> None:
    address = f"nats://user:{PLANTED}@127.0.0.1:1"
    for command in (["ls"], ["doctor"], ["nodes"], ["show", "x"], ["start", "app:x"]):
        ran = await typed(*command, "-s", address, "--timeout", "5s")
        assert ran.status != 0
        assert "127.0.0.1:1" in ran.out + ran.err
        assert PLANTED not in ran.out + ran.err
    for character in "/#?[,":  # as passwords that are made by chance have them, and addresses may not
        ran = await typed("ls", "-s", f"nats://user:{PLANTED}{character}{PLANTED}@127.0.0.1:1", "--timeout", "5s")
        assert ran.status != 0
        assert PLANTED not in ran.out + ran.err, ran
        assert "as %2F" in ran.err, ran


@pytest.mark.parametrize("endpoint", [f"http://127.0.0.1:9/x?key={PLANTED}", f"htp://u:{PLANTED}@127.0.0.1:9"])
def test_where_traces_could_not_be_sent_is_logged_without_secrets(
    endpoint: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.5")
    settings = trace_settings(os.environ)
    assert settings is not None
    tracing = tracing_of(settings, "node", "1")
    tracing.function("app:f", None, {}).end("failed")
    tracing.shut_down()
    assert "opentelemetry" in caplog.text
    assert PLANTED not in caplog.text


def test_options_of_a_connection_do_not_show_themselves() -> None:
    """A traceback with locals, or a debugger's list, prints their repr."""
    options = ConnectOptions(user="u", password=PLANTED, token=PLANTED, jwt=PLANTED, seed=PLANTED)
    assert PLANTED not in repr(options)


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (without_secrets(f"nats://u:{PLANTED}@h:1"), "nats://h:1"),
        (without_secrets(f"{PLANTED}@h:1"), "nats://h:1"),
        (without_secrets("nats://[::1]:4222"), "nats://[::1]:4222"),
        (without_secrets("nats://[::1]"), "nats://[::1]"),
        (without_secrets(f"nats://u:{PLANTED}/[{PLANTED}#?@h:1"), "nats://h:1"),
        (without_secrets(f"nats://u:{PLANTED}"), "nats://u"),  # what a comma in a password leaves
        (shown_url(f"https://u:{PLANTED}@h/p?key={PLANTED}#x"), "https://h/p?...#x"),
        (shown_url(f"https://u:{PLANTED}/{PLANTED}#?@h/p"), "https://h/p"),
        (shown_url("https://h:80/@user"), "https://h:80/@user"),
        (shown_url(f"https://u:{PLANTED}@h st/p"), "https://h st/p"),
        (without_quotes(f"Illegal header value b'{PLANTED}'"), "Illegal header value '...'"),
        (unresolved("not 'x1'", {"x1": "${X}"}), "not '${X}'"),
        (unresolved("at least 1, not 1", {"1": "${X}"}), "at least 1, not 1"),
    ],
)
def test_the_one_place_that_redacts(shown: str, expected: str) -> None:
    assert shown == expected
