"""The module `http_client`: requests to the web, one client with its connections per node.

Arguments have been looked at in Lua (node/lua/http_client.lua); what needs a URL parser or the network is checked here.
Nothing is shared between two requests but connections: cookies that a server sets are told to the caller and forgotten.

Invariants: every request has a time limit and both bodies have a size limit. An answer with any status code is a
response; only what brought no answer is an error.
"""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

import anyio
import anyio.abc
import anyio.to_thread

from mesh.duration import SECOND, BadDuration, parse_duration_ns
from mesh.failure import Failure, Kind
from mesh.redaction import shown_url, without_quotes
from node.modules import Caller, Refused

if TYPE_CHECKING:
    import httpx2

TIMEOUT_S: Final = 30.0
TIMEOUT_MAX_S: Final = 600.0
# A response becomes a Lua value, of which a step may make 64 MB.
RESPONSE_BYTES_MAX: Final = 8 * 1024 * 1024
RESPONSE_BYTES_MOST: Final = 32 * 1024 * 1024  # what the option max_response_body may ask for
REQUEST_BYTES_MAX: Final = 8 * 1024 * 1024
CONNECTIONS_MAX: Final = 100
CONNECTIONS_IDLE_MAX: Final = 20
REDIRECTS_MAX: Final = 10
BATCH_MAX: Final = 100
BATCH_AT_ONCE: Final = 10

_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110, 5.6.2
# Carrying these out twice does no harm (RFC 9110, 9.2.2).
_IDEMPOTENT: Final = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"})


class HttpClientModule:
    """The Python half of `http_client`. `run` must be running; it closes the connections at its end."""

    def __init__(self) -> None:
        self._client: httpx2.AsyncClient | None = None
        self._making = anyio.Lock()

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Be there until cancelled."""
        task_status.started()
        try:
            await anyio.sleep_forever()
        finally:
            client, self._client = self._client, None
            if client is not None:
                with anyio.move_on_after(1.0, shield=True):
                    await client.aclose()

    async def ask(self, verb: str, args: list[Any], caller: Caller) -> Any:
        """Answer `request` (method, url, options) and `batch` (a list of those)."""
        match verb, args:
            case "request", [str(method), str(url), options]:
                return await self._request(method, url, options or {})
            case "batch", [list(wishes)]:
                return await self._batch(wishes)
            case _:
                raise Refused(f"http_client.{verb} is not called this way", Kind.INVALID)

    def unit_ended(self, pid: str) -> None:
        """Nothing is kept for a unit: its requests are cancelled with their ops."""

    async def _batch(self, wishes: Sequence[Any]) -> list[Any]:
        if len(wishes) > BATCH_MAX:
            raise Refused(f"a batch may have {BATCH_MAX} requests, not {len(wishes)}", Kind.INVALID)
        answers: list[Any] = [None] * len(wishes)
        at_once = anyio.CapacityLimiter(BATCH_AT_ONCE)

        async def one(place: int, method: str, url: str, options: Any) -> None:
            async with at_once:
                try:
                    answers[place] = await self._request(method, url, options or {})
                except Refused as refusal:
                    answers[place] = refusal.failure
                except Exception as error:  # one request's bad luck is not that of the others
                    answers[place] = Failure(f"{method} {shown_url(url)}: {type(error).__name__}", Kind.INTERNAL, False)

        async with anyio.create_task_group() as tasks:
            for place, (method, url, options) in enumerate(wishes):
                tasks.start_soon(one, place, method, url, options)
        total = sum(answer["body_size"] for answer in answers if isinstance(answer, dict))
        if total > RESPONSE_BYTES_MOST:
            raise Refused(
                f"the responses of the batch have {total} bytes together, at most {RESPONSE_BYTES_MOST} are possible; "
                "make smaller batches",
                Kind.INVALID,
            )
        return answers

    async def _request(self, method: str, url: str, options: Mapping[str, Any]) -> dict[str, Any]:
        if not _TOKEN.fullmatch(method):
            raise Refused(f"{method!r} is no method", Kind.INVALID)
        headers = _headers(options)
        content = _content(options, headers)
        timeout_s = _timeout_s(options.get("timeout"))
        body_max = _body_max(options.get("max_response_body"))
        query = _pairs(options.get("query"), "query")
        client = await self._open()
        import httpx2

        try:
            target = httpx2.URL(url)
            if query:
                target = target.copy_with(params=[*target.params.multi_items(), *query])
        except (httpx2.InvalidURL, ValueError, TypeError) as error:
            raise Refused(f"{shown_url(url)!r} is no URL: {without_quotes(str(error))}", Kind.INVALID) from None
        if target.scheme not in ("http", "https") or not target.host or re.search(r"[\s%]", target.host):
            raise Refused(
                f"{shown_url(url)!r} is no URL to ask: it must begin with http:// or https:// and a host", Kind.INVALID
            )
        redirects = options.get("follow_redirects", True)
        what = f"{method} {shown_url(url)}"
        try:
            with anyio.fail_after(timeout_s):
                request = client.build_request(method, target, headers=headers, content=content)
                response = await client.send(request, stream=True, follow_redirects=redirects is not False)
                try:
                    body = await _read(what, response, body_max)
                finally:
                    await response.aclose()
        except (TimeoutError, httpx2.TimeoutException):
            raise Refused(f"{what}: no answer within {timeout_s:g} s", Kind.TIMEOUT, retryable=True) from None
        except httpx2.TooManyRedirects:
            raise Refused(f"{what}: redirected more than {REDIRECTS_MAX} times", Kind.INTERNAL) from None
        except (httpx2.LocalProtocolError, httpx2.UnsupportedProtocol, httpx2.InvalidURL, UnicodeError) as error:
            raise Refused(f"{what}: cannot be sent: {without_quotes(str(error))}", Kind.INVALID) from None
        except httpx2.DecodingError as error:
            raise Refused(f"{what}: the answer cannot be read: {error}", Kind.INTERNAL) from None
        except (httpx2.TransportError, OSError) as error:
            # What broke off after it was sent may have been carried out.
            again = method in _IDEMPOTENT or isinstance(error, httpx2.ConnectError)
            reason = str(error) or type(error).__name__
            raise Refused(f"{what}: {reason}", Kind.UNAVAILABLE, retryable=again) from None
        return {
            "status_code": response.status_code,
            "ok": response.is_success,
            "headers": _canonical(response.headers.multi_items()),
            "cookies": _cookies_of(response.headers.get_list("set-cookie")),
            "url": str(response.url),
            "body": body,
            "body_size": len(body),
        }

    async def _open(self) -> httpx2.AsyncClient:
        if self._client is None:
            async with self._making:
                if self._client is None:
                    # The import and the certificates take a tenth of a second.
                    self._client = await anyio.to_thread.run_sync(_new_client)
        return self._client


def _new_client() -> httpx2.AsyncClient:
    from http.cookiejar import CookieJar, DefaultCookiePolicy

    import httpx2

    # They log every request with its whole URL, and the headers of every answer: passwords, keys, cookies.
    for name in ("httpx2", "httpcore2"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return httpx2.AsyncClient(
        limits=httpx2.Limits(max_connections=CONNECTIONS_MAX, max_keepalive_connections=CONNECTIONS_IDLE_MAX),
        max_redirects=REDIRECTS_MAX,
        timeout=None,  # every request is under a limit of its own
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),  # keeps none: units do not share sessions
    )


async def _read(what: str, response: httpx2.Response, body_max: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.aiter_bytes():
        size += len(chunk)
        if size > body_max:
            raise Refused(
                f"{what}: the answer has more than {body_max} bytes; ask for less, or raise the option "
                f"max_response_body (to {RESPONSE_BYTES_MOST} at most)",
                Kind.INVALID,
            )
        chunks.append(chunk)
    return b"".join(chunks)


def _headers(options: Mapping[str, Any]) -> list[tuple[str, str]]:
    headers = [(name, value) for name, value in _pairs(options.get("headers"), "headers")]
    cookies = _pairs(options.get("cookies"), "cookies")
    if cookies:
        headers.append(("Cookie", "; ".join(f"{name}={value}" for name, value in cookies)))
    auth = options.get("auth")
    if auth:
        user, password = (auth.get("user"), auth.get("pass", "")) if isinstance(auth, Mapping) else (None, None)
        if not isinstance(user, str) or not isinstance(password, str):
            raise Refused("option auth must be {user = text, pass = text}", Kind.INVALID)
        token = base64.b64encode(f"{user}:{password}".encode("utf-8", "surrogateescape")).decode("ascii")
        headers.append(("Authorization", f"Basic {token}"))
    for name, value in headers:
        if not _TOKEN.fullmatch(name) or any(c in "\r\n\0" for c in value):
            raise Refused(
                f"header {name!r} cannot be sent: a name is ASCII without blanks, a value one line", Kind.INVALID
            )
    return headers


def _content(options: Mapping[str, Any], headers: list[tuple[str, str]]) -> bytes | None:
    """Return the body and add its content type, if the caller has not named one."""
    content, content_type = _bytes(options.get("body")), ""
    if options.get("json") is not None:
        content, content_type = _bytes(options["json"]), "application/json"
    elif options.get("form") is not None:
        pairs = _pairs(options["form"], "form")
        content, content_type = (
            urlencode(pairs, errors="surrogateescape").encode("ascii"),
            "application/x-www-form-urlencoded",
        )
    if content is not None and len(content) > REQUEST_BYTES_MAX:
        raise Refused(
            f"the body has {len(content)} bytes, a request may have {REQUEST_BYTES_MAX}; send a reference", Kind.INVALID
        )
    if content_type and not any(name.lower() == "content-type" for name, _ in headers):
        headers.append(("Content-Type", content_type))
    return content


def _timeout_s(given: object) -> float:
    """Return the time limit: a number of seconds or a Go duration text."""
    if given is None:
        return TIMEOUT_S
    if isinstance(given, bool) or not isinstance(given, str | int | float):
        raise Refused("option timeout must be a number of seconds or a duration such as 5s", Kind.INVALID)
    try:
        timeout_s = parse_duration_ns(given, number_unit_ns=SECOND) / SECOND
    except BadDuration as error:
        raise Refused(
            f"option timeout must be a number of seconds or a duration such as 5s: {error}", Kind.INVALID
        ) from None
    if not 0 < timeout_s <= TIMEOUT_MAX_S:
        raise Refused(
            f"option timeout must be above 0 and at most {TIMEOUT_MAX_S:g} s, not {timeout_s:g}", Kind.INVALID
        )
    return timeout_s


def _body_max(given: object) -> int:
    if given is None:
        return RESPONSE_BYTES_MAX
    if not isinstance(given, int | float) or given != int(given) or not 0 < given <= RESPONSE_BYTES_MOST:
        raise Refused(f"option max_response_body must be 1 to {RESPONSE_BYTES_MOST} bytes, not {given}", Kind.INVALID)
    return int(given)


def _pairs(values: object, option: str) -> list[tuple[str, str]]:
    """Return the names and values of a table; a list gives its name several times."""
    if not values:  # an empty table comes as a list
        return []
    if not isinstance(values, Mapping):
        raise Refused(f"option {option} must be a table with texts as keys", Kind.INVALID)
    pairs = []
    for name, value in values.items():
        for item in value if isinstance(value, list) else [value]:
            if not isinstance(name, str) or not isinstance(item, str | int | float | bytes):
                raise Refused(
                    f"option {option}: {name!r} must be a text, a number, a boolean or a list of those", Kind.INVALID
                )
            pairs.append((name, _text(item)))
    return pairs


def _text(value: str | float | bytes) -> str:
    """A scalar as Lua writes it."""
    match value:
        case bool():
            return "true" if value else "false"
        case bytes():
            return value.decode("utf-8", "surrogateescape")
        case _:
            return str(value)


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value


def _canonical(items: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Return headers under names such as Content-Type; of several with one name the values are joined."""
    headers: dict[str, str] = {}
    for name, value in items:
        shown = "-".join(part.capitalize() for part in name.split("-"))
        headers[shown] = f"{headers[shown]}, {value}" if shown in headers else value
    return headers


def _cookies_of(lines: Sequence[str]) -> dict[str, str]:
    cookies = {}
    for line in lines:
        name, equals, value = line.partition(";")[0].partition("=")
        if equals and name.strip():
            cookies[name.strip()] = value.strip()
    return cookies
