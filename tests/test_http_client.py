"""The module `http_client` from Lua against a real HTTP server."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from mesh.failure import Failure, Kind
from node.modules import http_client
from node.modules.http_client import RESPONSE_BYTES_MOST, HttpClientModule
from tests.units import Units
from tests.web_server import WebServer, a_web_server


@pytest.fixture
def web() -> Iterator[WebServer]:
    with a_web_server() as server:
        yield server


@asynccontextmanager
async def client() -> AsyncIterator[Units]:
    module = HttpClientModule()
    async with anyio.create_task_group() as tasks:
        await tasks.start(module.run)
        yield Units({"http_client": module})
        tasks.cancel_scope.cancel()


async def test_a_response_has_status_headers_and_body(web: WebServer) -> None:
    async with client() as units:
        got = await units.run(
            "return function(url) local r, err = http_client.get(url .. '/echo') "
            "return {r.status_code, r.ok, r.headers['Content-Type'], r.headers['X-Two'], json.decode(r.body).method, #r.body == r.body_size, r.url == url .. '/echo', err == nil} end",
            web.url,
        )
    assert got == [200, True, "application/json", "1", "GET", True, True, True]


@pytest.mark.parametrize("method", ["get", "post", "put", "patch", "delete"])
async def test_each_method_has_a_function(web: WebServer, method: str) -> None:
    async with client() as units:
        source = "return function(url, m) return json.decode(http_client[m](url .. '/echo', {headers = {['X-A'] = 7}}).body) end"
        told = await units.run(source, web.url, method)
        assert (told["method"], told["headers"]["x-a"]) == (method.upper(), "7")


async def test_head_has_no_body_and_request_takes_any_method(web: WebServer) -> None:
    async with client() as units:
        source = (
            "return function(url) local h = http_client.head(url .. '/echo') "
            "return {h.body, h.status_code, json.decode(http_client.request('options', url).body).method} end"
        )
        assert await units.run(source, web.url) == ["", 200, "OPTIONS"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("{body = 'a\\255'}", {"body": "a\xff"}),
        ("{json = {a = 1}}", {"body": '{"a":1}', "headers.content-type": "application/json"}),
        (
            "{form = {a = 'x y', b = {1, true}}}",
            {"body": "a=x+y&b=1&b=true", "headers.content-type": "application/x-www-form-urlencoded"},
        ),
        ("{form = {a = 1}, headers = {['content-type'] = 'mine'}}", {"headers.content-type": "mine"}),
        ("{query = {q = 'a b', n = {1, 2}}}", {"path": "/echo?x=1&n=1&n=2&q=a+b"}),
        ("{auth = {user = 'u', pass = 'p'}}", {"headers.authorization": "Basic dTpw"}),
        ("{cookies = {a = '1', b = '2'}}", {"headers.cookie": "a=1; b=2"}),
        ("{headers = {}, query = {}, timeout = '5s'}", {"path": "/echo?x=1"}),
        ("{timeout = time.SECOND and time.parse_duration('3s')}", {"path": "/echo?x=1"}),
    ],
)
async def test_options_say_what_is_sent(web: WebServer, options: str, expected: dict[str, str]) -> None:
    async with client() as units:
        told = await units.run(
            f"return function(url) local r, err = http_client.post(url .. '/echo?x=1', {options}) if err then return nil, err end return json.decode(r.body) end",
            web.url,
        )
    assert not isinstance(told, Failure), told
    for where, value in expected.items():
        found: Any = told
        for part in where.split(".", 1):
            found = found[part]
        if where == "path":
            assert sorted(found.partition("?")[2].split("&")) == sorted(value.partition("?")[2].split("&"))
        else:
            assert found == value


async def test_a_status_that_is_no_success_is_a_response_and_not_an_error(web: WebServer) -> None:
    async with client() as units:
        source = "return function(url) local r, err = http_client.get(url .. '/gone') return {r.status_code, r.ok, r.body, err == nil} end"
        assert await units.run(source, web.url) == [410, False, "no more", True]


async def test_bodies_are_bytes(web: WebServer) -> None:
    async with client() as units:
        assert (
            await units.run("return function(url) return http_client.get(url .. '/binary').body end", web.url)
            == b"\x00\xff\xfe"
        )
        source = (
            "return function(url) local r = http_client.get(url .. '/gzip') return {r.body_size, r.body:sub(1, 2)} end"
        )
        assert await units.run(source, web.url) == [100_000, "yy"]


async def test_redirects_are_followed_up_to_a_limit_or_not_at_all(web: WebServer) -> None:
    async with client() as units:
        source = (
            "return function(url) local r = http_client.get(url .. '/moved') "
            "local s = http_client.get(url .. '/moved', {follow_redirects = false}) "
            "local none, err = http_client.get(url .. '/loop') return {r.status_code, r.url, s.status_code, none == nil, err:message()} end"
        )
        status, url, unfollowed, none, text = await units.run(source, web.url)
    assert (status, url, unfollowed, none) == (200, f"{web.url}/echo", 302, True)
    assert text == f"GET {web.url}/loop: redirected more than 10 times"


async def test_cookies_of_a_server_are_told_and_forgotten(web: WebServer) -> None:
    async with client() as units:
        source = (
            "return function(url) local r = http_client.get(url .. '/cookie') "
            "return {r.cookies.session, json.decode(http_client.get(url .. '/echo').body).headers.cookie == nil} end"
        )
        assert await units.run(source, web.url) == ["abc", True]


async def test_a_body_at_the_limit_is_taken_and_one_byte_more_refused(
    web: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_client, "RESPONSE_BYTES_MAX", 1000)
    async with client() as units:
        source = "return function(url, o) local r, err = http_client.get(url, o) return r and r.body_size, err end"
        assert await units.run(source, f"{web.url}/bytes?1000") == 1000
        refused = await units.run(source, f"{web.url}/bytes?1001")
        assert (refused.kind, refused.retryable) == (Kind.INVALID, False)
        assert "more than 1000 bytes" in refused.message
        assert "max_response_body" in refused.message
        assert await units.run(source, f"{web.url}/bytes?1001", {"max_response_body": 1001}) == 1001
        monkeypatch.setattr(http_client, "REQUEST_BYTES_MAX", 10)
        assert await units.run(source, web.url, {"body": "1234567890"}) is not None
        refused = await units.run(source, web.url, {"body": "12345678901"})
        assert (refused.kind, "11 bytes" in refused.message) == (Kind.INVALID, True)


async def test_silence_is_a_timeout_and_a_closed_port_unavailable(web: WebServer) -> None:
    async with client() as units:
        source = "return function(url, o) local r, err = http_client.request(o.method or 'GET', url, {timeout = o.timeout}) return r, err end"
        begun = time.monotonic()
        late = await units.run(source, f"{web.url}/slow", {"timeout": "50ms"})
        assert (late.kind, late.retryable) == (Kind.TIMEOUT, True)
        assert late.message == f"GET {web.url}/slow: no answer within 0.05 s"
        assert (await units.run(source, f"{web.url}/slow", {"timeout": 0.05})).kind == Kind.TIMEOUT
        assert time.monotonic() - begun < 5
        nobody = await units.run(source, "http://127.0.0.1:1/", {})
        assert (nobody.kind, nobody.retryable) == (Kind.UNAVAILABLE, True)
        broken = await units.run(source, f"{web.url}/hangup", {"method": "POST"})
        assert (broken.kind, broken.retryable) == (Kind.UNAVAILABLE, False)
        assert (await units.run(source, f"{web.url}/hangup", {})).retryable is True


@pytest.mark.parametrize(
    ("call", "part"),
    [
        ("get('')", "URL is required"),
        ("get(5)", "URL is required"),
        ("get('example.com/x')", "must begin with http:// or https://"),
        ("get('file:///etc/passwd')", "must begin with http:// or https://"),
        ("get('http://')", "no URL"),
        ("get('http://[::1')", "no URL"),
        ("get('http://a b/')", "no URL"),
        ("get('http://x/', {max_response_body = 0})", "option max_response_body must be 1 to"),
        ("get('http://x/', 5)", "options must be a table, not a number"),
        ("get('http://x/', {bodi = 'x'})", "option bodi is not supported; there are auth, body, cookies"),
        ("get('http://x/', {body = {}})", "option body must be a string, not a table"),
        ("get('http://x/', {body = 'a', form = {a = 1}})", "only one of the options body, json and form"),
        ("get('http://x/', {timeout = 0})", "must be above 0 and at most 600 s"),
        ("get('http://x/', {timeout = 601})", "must be above 0 and at most 600 s"),
        ("get('http://x/', {timeout = 'soon'})", "option timeout must be a number of seconds or a duration such as 5s"),
        ("get('http://x/', {timeout = {}})", "option timeout must be a number of seconds or a duration such as 5s"),
        ("get('http://x/', {headers = {'x'}})", "option headers must be a table with texts as keys"),
        ("get('http://x/', {headers = {a = {b = 1}}})", "option headers: 'a' must be a text"),
        ("get('http://x/', {headers = {a = 'x\\r\\nEvil: 1'}})", "header 'a' cannot be sent"),
        ("get('http://x/', {headers = {['a b'] = 'x'}})", "cannot be sent"),
        ("get('http://x/', {auth = {user = 'x', pass = 5}})", "option auth must be {user = text, pass = text}"),
        ("get('http://x/', {max_response_body = 1e12})", "option max_response_body must be 1 to"),
        ("request('', 'http://x/')", "method such as GET is required"),
        ("request('GET IT', 'http://x/')", "'GET IT' is no method"),
        ("request_batch({})", "a list of requests is required"),
        ("request_batch('x')", "a list of requests is required"),
    ],
)
async def test_bad_arguments_are_invalid_and_say_why(call: str, part: str) -> None:
    async with client() as units:
        result = await units.run(f"return function() return http_client.{call} end")
    assert isinstance(result, Failure), result
    assert (result.kind, result.retryable) == (Kind.INVALID, False), result
    assert part in result.message


async def test_a_batch_answers_each_request_under_its_number(web: WebServer) -> None:
    async with client() as units:
        source = (
            "return function(url) local rs, errs = http_client.request_batch({{'GET', url .. '/gone'}, {method = 'POST', url = url .. '/echo', options = {body = 'b'}}, "
            "{'GET', 'ftp://x'}, 'x', {'GET', 'http://127.0.0.1:1/'}}) "
            "local all, none = http_client.request_batch({{'GET', url}}) "
            "return {rs[1].status_code, json.decode(rs[2].body).body, rs[3] == nil, errs[3]:kind(), errs[4]:message(), errs[5]:kind(), errs[1] == nil, all[1].ok, none == nil} end"
        )
        assert await units.run(source, web.url) == [
            410, "b", True, "Invalid", "request 4 must be a table, not a string", "Unavailable", True, True, True,
        ]  # fmt: skip


async def test_a_batch_runs_side_by_side_and_has_a_limit(web: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "BATCH_MAX", 3)
    async with client() as units:
        source = (
            "return function(url, n) local l = {} for i = 1, n do l[i] = {'GET', url .. '/meet'} end "
            "local rs, errs = http_client.request_batch(l) if not rs then return nil, errs end return {#rs, errs} end"
        )
        assert await units.run(source, web.url, 3) == [3], "each is answered when all are there"
        refused = await units.run(source, web.url, 4)
        assert (refused.kind, refused.message) == (Kind.INVALID, "a batch may have 3 requests, not 4")


async def test_texts_are_escaped_for_urls() -> None:
    async with client() as units:
        source = (
            "return function() local e = http_client.encode_uri('a b/ü~') return {e, http_client.decode_uri(e)} end"
        )
        assert await units.run(source) == ["a%20b%2F%C3%BC~", "a b/ü~"]


def test_the_limit_a_caller_may_ask_for_fits_into_a_step() -> None:
    from node.machine.vm import STEP_MEMORY_BYTES_MAX

    assert RESPONSE_BYTES_MOST <= STEP_MEMORY_BYTES_MAX // 2
