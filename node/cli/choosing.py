"""Which histories a command is about: ids, or all workflows that fit, of the queues that there are.

Shared by the commands that read histories: `mesh replay`, `mesh export`, `mesh archive`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from mesh.errors import MeshError, NotFound
from mesh.history_files import RUNNING, RecordedHistory, fetch_history
from mesh.subjects import WorkflowKey

if TYPE_CHECKING:
    from mesh.client import Client
    from mesh.events import EndRecord
    from mesh.jetstream import StoredMessage
    from node.cli.progress import Progress

# What a run can be by what is stored: whether one that has no end is suspended, its owner knows alone.
STATUSES: Final = (RUNNING, "completed", "failed", "canceled", "terminated", "timed-out", "continued", "retried")
PAGE: Final = 200
FETCHES_AT_ONCE: Final = 16

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Wanted:
    """What restricts a choice; empty does not. type: as the workflow was started. ended_before_ns: 0 = any time."""

    statuses: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    queue: str | None = None
    ended_before_ns: int = 0

    def fits(self, status: str, type: str) -> bool:
        """Whether a run is one of those."""
        return (not self.statuses or status in self.statuses) and (not self.types or type in self.types)


@dataclass(frozen=True, slots=True)
class Chosen:
    """The newest run of a workflow. ended_ns: 0 while it has not ended."""

    key: WorkflowKey
    run: int
    type: str
    status: str
    ended_ns: int = 0


def choice_options(command: Command) -> Command:
    """Give a command `--all`, `--status` and `--type`: the parameters `everything`, `statuses` and `types`."""
    options = (
        click.option("--all", "everything", is_flag=True, help="All workflows that fit --status, --type and --queue."),
        click.option("--status", "statuses", type=click.Choice(STATUSES), multiple=True, metavar="STATUS",
                     help=f"Those of this status; repeat it for more. One of {', '.join(STATUSES)}."),
        click.option("--type", "types", multiple=True, metavar="NAME", help="Those of this type; repeat it for more."),
    )  # fmt: skip
    decorated: Any = command
    for option in reversed(options):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]  # click's decorators are typed for one signature at a time


def check_choice(ids: Sequence[str], everything: bool, statuses: Sequence[str], types: Sequence[str]) -> None:
    """Raises UsageError unless either ids or --all are given."""
    if ids and everything:
        raise click.UsageError("give ids or --all, not both")
    if not ids and not everything:
        raise click.UsageError("say which: an ID, or --all")
    if (statuses or types) and not everything:
        raise click.UsageError("--status and --type choose among --all")


async def queues_of(client: Client, url: str, queue: str | None) -> list[str]:
    """The queues to look through. Raises NotFound for one that is not there."""
    import difflib

    from node.cli.locating import workers

    names = sorted({record.queue for record in await workers(client, url)})
    if queue is None:
        return names
    if queue not in names:
        near = difflib.get_close_matches(queue, names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(names) or 'none'}"
        raise NotFound(f"no queue {queue!r}; {hint}")
    return [queue]


async def walk(client: Client, queue: str, wanted: Wanted, *, bar: Progress | None = None) -> AsyncIterator[Chosen]:
    """The newest run of each workflow of a queue that fits, those first that were started first.

    bar: shows how many workflows were looked at.
    """
    from mesh.events import decode_end, decode_start
    from mesh.subjects import stored_under, token, untoken
    from mesh.wire import parse_headers

    stream, js = client.history(queue).stream, client.js
    starts = stored_under(queue, "*", "*", "start")
    seq = 0
    while True:
        page = await js.batch_get(stream, from_seq=seq + 1, subject_filter=starts, batch=PAGE, messages_max=PAGE)
        if not page:
            return
        seq = page[-1].seq
        newest = {start.seq for start in await js.multi_last(stream, sorted({start.subject for start in page}))}
        page_newest = [start for start in page if start.seq in newest]
        ends = await _ends_of(client, queue, page_newest)
        if bar is not None:
            bar.advance(len(page_newest))
        for start in page_newest:
            end = ends.get(start.seq)
            record: EndRecord | None = decode_end(end.data) if end is not None else None
            status = record.status if record is not None else RUNNING
            try:
                workflow = decode_start(start.data, parse_headers(start.raw_headers)).workflow
            except MeshError:
                workflow = "?"
            ended_ns = end.timestamp_ns if end is not None else 0
            if wanted.ended_before_ns and not 0 < ended_ns < wanted.ended_before_ns:
                continue
            if wanted.fits(status, workflow):
                key = WorkflowKey(queue, untoken(start.subject.split(".")[4]))
                if token(key.id) == start.subject.split(".")[4]:  # else it is no event of any workflow
                    yield Chosen(key, start.seq, workflow, status, ended_ns)


async def _ends_of(client: Client, queue: str, starts: Sequence[StoredMessage]) -> dict[int, StoredMessage]:
    """The ends of some runs, by run."""
    subjects = [f"{start.subject.removesuffix('.start')}.end.{start.seq}" for start in starts]
    ends = await client.js.multi_last(client.history(queue).stream, subjects) if subjects else []
    return {int(end.subject.rsplit(".", 1)[1]): end for end in ends}


async def fetch_all(client: Client, chosen: AsyncIterator[Chosen]) -> AsyncIterator[RecordedHistory]:
    """The histories of chosen runs, some read at the same time, in order. One that has gone meanwhile is left out."""
    import anyio

    from mesh.groups import unwrapped

    page: list[Chosen] = []
    more = True
    while more:
        page.clear()
        async for one in chosen:
            page.append(one)
            if len(page) == FETCHES_AT_ONCE:
                break
        more = len(page) == FETCHES_AT_ONCE
        found: dict[int, RecordedHistory] = {}

        async def fetch(i: int, one: Chosen, found: dict[int, RecordedHistory] = found) -> None:
            try:
                found[i] = await fetch_history(client.history(one.key.queue), one.key, one.run)
            except NotFound:
                return

        with unwrapped():
            async with anyio.create_task_group() as tasks:
                for i, one in enumerate(page):
                    tasks.start_soon(fetch, i, one)
        for i in sorted(found):
            yield found[i]
