"""What a stream has: what is known of it, and the messages in it.

Direct reads (ADR-31) are answered by whichever copy of a stream comes first, and one that was cut off or has a slow
disk is behind by seconds. All of them are beginnings of the same log, though: what one has is right, and what one
lacks or calls the last is asked of the leader, or of another copy until one has come as far as the leader had. So
every read here sees all that was acknowledged before it began. A server that stands alone is asked once.

Not here: writing (`mesh.jetstream`), how the server's answers are taken apart (`mesh.stored_messages`), following a
stream as it grows (`mesh.follower`).

Invariants: what was acknowledged before a read began is seen by it. Pages of one answer are of one moment, or are not
given out.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import anyio

from mesh.connection import Connection, Reply, status_of
from mesh.envelopes import ENVELOPE, context_of
from mesh.errors import NoResponders, NotFound, NotReady, RequestTimeout, ServerRefused
from mesh.jetstream_api import TIMEOUT_S, Config, JetStreamApi, dump, error_of, json_answer
from mesh.references import ARRANGE, is_reference
from mesh.stored_messages import StoredMessage, direct_message, leaders_message

# Below the server's own limit of 1,024 results of a multi-last read (ADR-31).
BATCH_READS = 1000
# How many bytes one request reads: all that a connection reads at a time has to stay below what the server holds for a
# client that is slow to take it (64 MB, `max_pending`). Above that it hangs up.
READ_BYTES = 4 * 1024 * 1024
# A copy of a stream is behind by milliseconds, or by seconds after it was cut off; another one is asked at once.
COPIES_AT_ONCE = 3
COPIES_TRIES = 300
COPIES_AGAIN_S = 0.01
# An answer with so many sequences is a few hundred KB.
DELETED_TOLD_MAX = 50_000

_PENDING = re.compile(rb"\r\nNats-Num-Pending: (\d{1,20})\r\n")
_UP_TO = re.compile(rb"\r\nNats-UpTo-Sequence: (\d+)\r\n")


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """A stream's configuration (as the server gives it) and state. created: when it was made, as the server says."""

    name: str
    config: Config
    messages: int
    first_seq: int
    last_seq: int
    created: str = ""


class StreamReads(JetStreamApi, ABC):
    """All that is read of streams over one connection.

    opens: messages are read as they were before they were encrypted and put into an object store; else as they are
    stored. lazily: payloads out of an object store are not read but where a history cannot be put together without;
    the others stay references (`mesh.references`), for whoever reads them one after the other.
    """

    def __init__(
        self, conn: Connection, *, timeout_s: float = TIMEOUT_S, opens: bool = True, lazily: bool = False
    ) -> None:
        super().__init__(conn, timeout_s=timeout_s)
        self.opens = opens
        self._lazily = lazily

    @abstractmethod
    async def fetched(self, subject: str, reference: bytes) -> bytes:
        """What a reference that is stored under this subject stands for (`mesh.objects`)."""

    def opened(self, subject: str, data: bytes) -> bytes:
        """A payload that is stored under this subject, opened if that is wanted and possible (`mesh.envelopes`)."""
        return self.conn.opened(context_of(subject) or subject, data) if self.opens else data

    async def stream_info(self, stream: str) -> StreamInfo:
        """Return a stream's configuration and state. Raises NotFound."""
        return stream_info_of(await self.api(f"STREAM.INFO.{stream}"))

    async def lost_bytes(self, stream: str) -> int:
        """How many bytes the server says that it has lost, as it found its files damaged when it started.

        It tells only together with all the sequences that are missing. Where these are very many it is not asked: 0.
        """
        state = (await self.api(f"STREAM.INFO.{stream}"))["state"]
        if int(state.get("num_deleted") or 0) > DELETED_TOLD_MAX:
            return 0
        state = (await self.api(f"STREAM.INFO.{stream}", {"deleted_details": True}))["state"]
        return int((state.get("lost") or {}).get("bytes") or 0)

    async def subject_counts(self, stream: str, subject_filter: str) -> dict[str, int]:
        """Return how many messages each subject that fits has, from the subject index. Raises NotFound."""
        counts: dict[str, int] = {}
        told = 0  # not the same as len(counts): subjects that are no UTF-8 all come as the same text
        while True:
            request = {"subjects_filter": subject_filter, "offset": told}
            answer = await self.api(f"STREAM.INFO.{stream}", request)
            page = answer["state"].get("subjects") or {}
            counts |= page
            told += len(page)
            if not page or told >= answer.get("total", 0):
                return counts

    async def counts_of_each(self, stream: str, subject_filters: Sequence[str]) -> list[dict[str, int]]:
        """The same for each of several filters, asked for side by side; what fits one of them must be few subjects.

        Raises NotFound, NotReady, RequestTimeout, Disconnected.
        """
        request = f"{self.api_prefix}.STREAM.INFO.{stream}"
        bodies = [dump({"subjects_filter": subject_filter}) for subject_filter in subject_filters]
        found: list[dict[str, int]] = []
        for reply in await self.conn.request_each(request, bodies, timeout_s=self.timeout_s):
            answer = json_answer(request, reply.data)
            if "error" in answer:
                raise error_of(request, answer["error"])
            found.append(answer["state"].get("subjects") or {})
        return found

    @property
    def has_copies(self) -> bool:
        """Whether streams may have several copies, as the server is one of a cluster."""
        return bool(self.conn.server_info.get("cluster"))

    async def get_last(self, stream: str, subject: str, *, from_leader: bool = False) -> StoredMessage | None:
        """Return the last message of a subject (of a filter, from the leader), None if there is none."""
        if from_leader or self.has_copies:
            return await self._get_from_leader(stream, {"last_by_subj": subject})
        return await self._get_direct(f"{self.api_prefix}.DIRECT.GET.{stream}.{subject}", b"")

    async def get_seq(
        self, stream: str, seq: int, *, from_leader: bool = False, as_stored: bool = False
    ) -> StoredMessage | None:
        """Return the message with this sequence, None if there is none (any more).

        as_stored: its payload is of no interest and is not opened or looked for.
        """
        return await self._get_one(stream, {"seq": seq}, from_leader=from_leader, as_stored=as_stored)

    async def get_next(
        self, stream: str, seq: int, subject_filter: str, *, from_leader: bool = False, as_stored: bool = False
    ) -> StoredMessage | None:
        """Return the first message at or after this sequence whose subject fits, None if there is none."""
        request = {"seq": max(seq, 1), "next_by_subj": subject_filter}
        return await self._get_one(stream, request, from_leader=from_leader, as_stored=as_stored)

    async def _get_one(
        self, stream: str, request: Config, *, from_leader: bool, as_stored: bool
    ) -> StoredMessage | None:
        found = None
        if not from_leader:
            found = await self._get_direct(f"{self.api_prefix}.DIRECT.GET.{stream}", dump(request), as_stored=as_stored)
        if found is None and (from_leader or self.has_copies):
            return await self._get_from_leader(stream, request, as_stored=as_stored)
        return found

    async def batch_get(
        self,
        stream: str,
        *,
        from_seq: int = 1,
        subject_filter: str = ">",
        batch: int = BATCH_READS,
        max_bytes: int = READ_BYTES,
        messages_max: int | None = None,
        timeout_s: float | None = None,
    ) -> list[StoredMessage]:
        """Return all messages from a sequence on whose subject fits, read in requests of `batch` (ADR-31).

        messages_max: stop after so many. timeout_s is for each request. Raises NotFound, NotReady, RequestTimeout,
        Disconnected.
        """
        messages: list[StoredMessage] = []
        seq = max(from_seq, 1)
        tries = 0
        while messages_max is None or len(messages) < messages_max:
            count = batch if messages_max is None else min(batch, messages_max - len(messages))
            request: dict[str, object] = {"seq": seq, "next_by_subj": subject_filter, "batch": count}
            request["max_bytes"] = max_bytes
            page, pending, _ = await self._read_batch(stream, request, timeout_s)
            messages += page
            if page:
                seq = page[-1].seq + 1
            if page and pending:
                continue
            last = await self._get_from_leader(stream, {"last_by_subj": subject_filter}) if self.has_copies else None
            if last is None or last.seq < seq:
                break
            tries = await self._try_another_copy(stream, tries)
        return messages

    async def multi_last(
        self, stream: str, subjects: Sequence[str], *, timeout_s: float | None = None, at_least: int | None = None
    ) -> list[StoredMessage]:
        """Return the last message of every subject that fits one of `subjects` (wildcards allowed), in stream order.

        All as of one moment, before which all is seen that had a sequence of at_least; by default all that there was
        when this was called. The server refuses (ServerRefused) if more than 1,024 subjects fit. Raises NotReady.
        """
        return await self._multi_last(stream, subjects, timeout_s, at_least)

    async def multi_last_at_once(
        self, stream: str, subjects: Sequence[str], *, at_least: int | None = None
    ) -> list[StoredMessage] | None:
        """The same in one page of an answer; None when they are too many for one, or too much (READ_BYTES)."""
        try:
            return await self._multi_last(stream, subjects, None, at_least, pages_max=1)
        except (ServerRefused, _MorePages):
            return None

    async def _multi_last(
        self,
        stream: str,
        subjects: Sequence[str],
        timeout_s: float | None,
        at_least: int | None,
        pages_max: int | None = None,
    ) -> list[StoredMessage]:
        if self.has_copies and at_least is None:
            at_least = (await self.stream_info(stream)).last_seq
        tries = 0
        while True:
            messages, up_to = await self._last_of_a_copy(stream, subjects, timeout_s, pages_max)
            if not self.has_copies or up_to >= (at_least or 0):
                return messages
            if not up_to and not await self._any_in_leader(stream, subjects):
                return []
            tries = await self._try_another_copy(stream, tries)

    async def _last_of_a_copy(
        self, stream: str, subjects: Sequence[str], timeout_s: float | None, pages_max: int | None = None
    ) -> tuple[list[StoredMessage], int]:
        """The last messages as one copy of the stream has them, and how far it has come.

        0 = not said, none fits; -1 = they are not of one moment, as the rest came of a copy that is behind the first.
        Raises _MorePages.
        """
        messages: list[StoredMessage] = []
        request: dict[str, object] = {"multi_last": list(subjects), "batch": BATCH_READS}
        as_of, left, pages = 0, None, 0
        while True:
            page, pending, up_to = await self._read_batch(stream, request, timeout_s)
            if left is not None and len(page) + pending != left and self.has_copies:
                return messages, -1
            messages += page
            left = pending
            pages += 1
            # With a limit the server says the limit: what the first page says is how far that copy had come.
            as_of = as_of or up_to
            if not page or pending == 0:
                return messages, as_of
            if pages == pages_max:
                raise _MorePages
            request |= {"seq": page[-1].seq + 1, "up_to_seq": as_of}

    async def _any_in_leader(self, stream: str, subjects: Sequence[str]) -> bool:
        for subject in subjects:
            if await self._get_from_leader(stream, {"last_by_subj": subject}) is not None:
                return True
        return False

    async def _try_another_copy(self, stream: str, tries: int) -> int:
        """Wait a little before a copy is asked again; which one, chance decides. Raises NotReady after many times."""
        if tries >= COPIES_TRIES:
            raise NotReady(f"reading stream {stream}", 503, "no copy of it that answers is up to date")
        if tries >= COPIES_AT_ONCE:
            await anyio.sleep(COPIES_AGAIN_S)
        return tries + 1

    async def _get_direct(self, subject: str, body: bytes, *, as_stored: bool = False) -> StoredMessage | None:
        try:
            reply = await self.conn.request(subject, body, timeout_s=self.timeout_s)
        except NoResponders:
            raise NotFound(f"{subject}: no such stream, or it does not allow direct reads") from None
        code, description = status_of(reply.raw_headers)
        if code == 404:
            return None
        if code is not None:
            raise ServerRefused(subject, code, description)
        message = direct_message(reply.data, reply.raw_headers)[0]
        return message if as_stored else (await self._opened([message]))[0]

    async def _get_from_leader(self, stream: str, request: Config, *, as_stored: bool = False) -> StoredMessage | None:
        answer = await self.ask_for_message(f"STREAM.MSG.GET.{stream}", request)
        if answer is None:
            return None
        message = leaders_message(answer["message"])
        return message if as_stored else (await self._opened([message]))[0]

    async def _opened(self, messages: list[StoredMessage]) -> list[StoredMessage]:
        """The messages with their payloads as they were (see the class)."""
        for i, message in enumerate(messages):
            if message.data[:2] == ENVELOPE and self.opens:
                messages[i] = message._replace(data=await self._opened_envelope(message.subject, message.data))
        return messages

    async def _opened_envelope(self, subject: str, data: bytes) -> bytes:
        if not is_reference(data):
            return self.opened(subject, data)
        if self._lazily and not ARRANGE.intersection(subject.split(".", 6)[5:6]):
            return data
        return await self.fetched(subject, data)

    async def _read_batch(
        self, stream: str, request: Config, timeout_s: float | None
    ) -> tuple[list[StoredMessage], int, int]:
        """Read one batch; return its messages, how many are left, and the sequence it is as of (multi_last)."""
        subject = f"{self.api_prefix}.DIRECT.GET.{stream}"
        timeout_s = timeout_s or self.timeout_s
        request = {"max_bytes": READ_BYTES, **request}
        try:
            async with self.conn.reads:
                replies = await self.conn.request_many(
                    subject, dump(request), timeout_s=timeout_s, stop=_ends_a_batch, no_responders_ok=False
                )
        except NoResponders:
            raise NotFound(f"{subject}: no such stream, or it does not allow direct reads") from None
        if not replies or not _ends_a_batch(replies[-1]):
            raise RequestTimeout(subject, timeout_s)
        raw = replies[-1].raw_headers or b""
        code, description = status_of(raw)
        if code == 404:
            return [], 0, 0
        if code != 204:
            raise ServerRefused(subject, code or 0, description)
        page = [direct_message(reply.data, reply.raw_headers) for reply in replies[:-1]]
        left = _PENDING.search(raw)
        up_to = _UP_TO.search(raw)
        pending = int(left[1]) if left else 0
        if page and page[-1][1] != pending:
            # Replies are ordinary messages: if the server had to drop one, the count does not fit.
            raise RequestTimeout(subject, timeout_s)
        opened = await self._opened([message for message, _ in page])
        return opened, pending, int(up_to[1]) if up_to else 0


class _MorePages(Exception):
    """Raised when an answer has more pages than were wanted."""


def _ends_a_batch(reply: Reply) -> bool:
    return not reply.data and reply.raw_headers is not None and reply.raw_headers.startswith(b"NATS/1.0 ")


def stream_info_of(answer: Config) -> StreamInfo:
    """A stream as the server describes it in an answer."""
    config, state = answer["config"], answer["state"]
    return StreamInfo(
        str(config["name"]), config, int(state["messages"]), int(state["first_seq"]), int(state["last_seq"]),
        str(answer.get("created", "")),
    )  # fmt: skip
