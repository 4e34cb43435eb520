"""Requests: a subject of their own to answer on, who waits for the answers, and for how long.

All requests of a connection share one inbox; the last token of the subject of an answer says whose it is. Whatever
ends the hope of an answer is told at once: nobody listens, the connection broke, the server does not permit it.

Not here: publishing, subscriptions and the connection that they go over (`mesh.connection`).
"""

from __future__ import annotations

import asyncio
import functools
import logging
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

from mesh.errors import MeshError, NoResponders, NotPermitted, RequestTimeout
from mesh.wire import Headers, is_no_responders

_log = logging.getLogger(__name__)

T = TypeVar("T")


class Reply(NamedTuple):
    """One answer to a request."""

    data: bytes
    raw_headers: bytes | None


class _Waiter(NamedTuple):
    """Who waits for the replies to one request."""

    subject: str
    on_reply: Callable[[bytes, bytes | None], None]
    on_error: Callable[[MeshError], None] | None


class Requests(ABC):
    """What asks over something that can publish, and hears the answers. inbox_prefix: what they all begin with."""

    def __init__(self, inbox_prefix: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._inbox_prefix = inbox_prefix
        self._inbox = f"{self.new_inbox()}."
        self._token_last = 0
        self._waiters: dict[str, _Waiter] = {}
        self._unanswerable: NotPermitted | None = None  # why no answer to a request can arrive

    @abstractmethod
    def publish_nowait(
        self,
        subject: str,
        payload: bytes = b"",
        reply: str = "",
        headers: Headers | None = None,
        *,
        context: str = "",
        as_it_came: bool = False,
    ) -> None:
        """Send a message, as a connection does."""

    @abstractmethod
    def _opened_answer(self, subject: str, data: bytes) -> bytes:
        """What has answered a request to that subject, as it was before it was encrypted."""

    def new_inbox(self) -> str:
        """Return a subject nobody else uses; append tokens to it for a family of them."""
        return f"{self._inbox_prefix}.{secrets.token_hex(11)}"

    def request_nowait(
        self,
        subject: str,
        payload: bytes,
        on_reply: Callable[[bytes, bytes | None], None],
        headers: Headers | None = None,
        *,
        on_error: Callable[[MeshError], None] | None = None,
        context: str = "",
        as_it_came: bool = False,
    ) -> str:
        """Send a request and call on_reply(data, raw_headers) for each reply until `forget(token)`; return the token.

        on_error is called at most once, with Disconnected when the connection breaks or NotPermitted when the
        request is not permitted; nothing comes after it. There is no time limit. Raises as `publish_nowait`, and
        NotPermitted when this user may not hear answers.
        """
        if self._unanswerable is not None:
            raise self._unanswerable
        self._token_last += 1
        token = str(self._token_last)
        reply = f"{self._inbox}{token}"
        self.publish_nowait(subject, payload, reply, headers, context=context, as_it_came=as_it_came)
        self._waiters[token] = _Waiter(subject, on_reply, on_error)
        return token

    def forget(self, token: str) -> None:
        """Take no more replies for a request. Repeating is harmless."""
        self._waiters.pop(token, None)

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        *,
        timeout_s: float,
        headers: Headers | None = None,
        opens: bool = True,
    ) -> Reply:
        """Send a request and return the first reply, opened if that is wanted (but not if a stream has answered).

        Raises NoResponders, RequestTimeout, Disconnected (before it was sent or after: see the epoch), PayloadTooLarge,
        NotPermitted. After RequestTimeout and Disconnected it may have been carried out.
        """
        answer: asyncio.Future[Reply] = self._loop.create_future()

        def on_reply(data: bytes, raw_headers: bytes | None) -> None:
            if not answer.done():
                if is_no_responders(data, raw_headers):
                    answer.set_exception(NoResponders(subject))
                else:
                    answer.set_result(Reply(self._opened_answer(subject, data) if opens else data, raw_headers))

        token = self.request_nowait(subject, payload, on_reply, headers, on_error=_failing(answer))
        try:
            return await self._within(timeout_s, answer, subject)
        finally:
            self.forget(token)

    async def request_each(self, subject: str, payloads: Sequence[bytes], *, timeout_s: float) -> list[Reply]:
        """Send requests side by side to one subject and return the first reply to each, in the order of the requests.

        For what a server of NATS answers: nothing is opened. Raises as `request` does, when one of them does.
        """
        replies: dict[int, Reply] = {}
        done: asyncio.Future[None] = self._loop.create_future()

        def take(number: int, data: bytes, raw_headers: bytes | None) -> None:
            if done.done():
                return
            if is_no_responders(data, raw_headers):
                done.set_exception(NoResponders(subject))
                return
            replies.setdefault(number, Reply(data, raw_headers))
            if len(replies) == len(payloads):
                done.set_result(None)

        tokens: list[str] = []
        try:
            for number, payload in enumerate(payloads):
                on_reply = functools.partial(take, number)
                tokens.append(self.request_nowait(subject, payload, on_reply, on_error=_failing(done)))
            if payloads:
                await self._within(timeout_s, done, subject)
        finally:
            for token in tokens:
                self.forget(token)
        return [replies[number] for number in range(len(payloads))]

    async def request_many(
        self,
        subject: str,
        payload: bytes = b"",
        *,
        timeout_s: float,
        stop: Callable[[Reply], bool] | None = None,
        headers: Headers | None = None,
        no_responders_ok: bool = True,
    ) -> list[Reply]:
        """Send a request and return the replies of timeout_s seconds, or up to the first that `stop` accepts (ADR-47).

        Nobody listening gives no replies at once, or NoResponders if that is not ok. Raises Disconnected if the
        connection breaks meanwhile.
        """
        replies: list[Reply] = []
        done: asyncio.Future[None] = self._loop.create_future()

        def on_reply(data: bytes, raw_headers: bytes | None) -> None:
            if done.done():
                return
            if is_no_responders(data, raw_headers):
                if no_responders_ok:
                    done.set_result(None)
                else:
                    done.set_exception(NoResponders(subject))
                return
            reply = Reply(self._opened_answer(subject, data), raw_headers)
            replies.append(reply)
            if stop is not None and stop(reply):
                done.set_result(None)

        token = self.request_nowait(subject, payload, on_reply, headers, on_error=_failing(done))
        try:
            await self._within(timeout_s, done, subject)
        except RequestTimeout:
            pass
        finally:
            self.forget(token)
        return replies

    async def _within(self, timeout_s: float, future: asyncio.Future[T], subject: str) -> T:
        """Wait for the future; raise RequestTimeout when the time is over."""

        def expire() -> None:
            if not future.done():
                future.set_exception(RequestTimeout(subject, timeout_s))

        timer = self._loop.call_later(timeout_s, expire)
        try:
            return await future
        finally:
            timer.cancel()

    # ---- for the connection ----------------------------------------------------------------------------------------

    def _on_reply(self, subject: str, _reply: str, data: bytes, raw_headers: bytes | None) -> None:
        waiter = self._waiters.get(subject[len(self._inbox) :])
        if waiter is not None:
            waiter.on_reply(data, raw_headers)

    def _requests_to(self, subject: str) -> list[str]:
        """The tokens of the requests to a subject."""
        return [token for token, waiter in self._waiters.items() if waiter.subject == subject]

    def _fail_requests(self, tokens: Iterable[str], why: Callable[[], MeshError]) -> None:
        """Tell whoever waits for the answers to these that there will be none."""
        for token in tokens:
            waiter = self._waiters.pop(token, None)
            if waiter is not None and waiter.on_error is not None:
                try:
                    waiter.on_error(why())
                except Exception:
                    _log.exception("an on_error callback failed, subject %s", waiter.subject)

    def _let_no_answer_come(self, error: NotPermitted) -> None:
        """The server does not let us listen for answers: nobody is to wait for any, until the next connect."""
        self._unanswerable = error
        self._fail_requests(list(self._waiters), lambda: error)


def _failing(future: asyncio.Future[Any]) -> Callable[[MeshError], None]:
    def fail(error: MeshError) -> None:
        if not future.done():
            future.set_exception(error)

    return fail
