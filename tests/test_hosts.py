"""Which host a workflow is started on when none is named."""

from __future__ import annotations

import pytest

from mesh.client import connect
from mesh.errors import NotFound, NotReady
from mesh.hosts import HostRecord, Hosts, NobodyOffers, SeveralHosts
from mesh.jetstream import JetStream, PubAck
from store.streams import ensure_queue
from tests.conftest import ServerFactory


async def test_the_only_host_that_offers_a_workflow_needs_no_name(nats_server: ServerFactory) -> None:
    async with connect(nats_server().url) as client:
        both = ("app:both",)
        await client.hosts.announce(
            [
                HostRecord("app:shop", "app:client", "shop", ("app:order", *both)),
                HostRecord("app:bank", "app:client", "bank", ("app:pay", *both)),
            ]
        )
        await ensure_queue(client.js, "shop", partitions=1)
        started = await client.start("app:order", 1, id="o-1")
        assert (started.key.queue, started.key.id) == ("shop", "o-1")
        with pytest.raises(SeveralHosts, match=r"say which as its host .*: app:bank, app:shop"):
            await client.start("app:both")
        with pytest.raises(NobodyOffers, match=r"did you mean app:order\?"):
            await client.start("app:ordr")


class LeaderlessJetStream(JetStream):
    """As of a cluster that has lost the leader of a bucket."""

    async def publish(self, subject: str, *_payload: object, **_expected: object) -> PubAck:
        raise NotFound(f"no stream takes {subject}")


async def test_a_directory_that_has_lost_its_leader_is_not_ready(nats_server: ServerFactory) -> None:
    """Not missing: a node that starts just then waits for it."""
    async with connect(nats_server().url) as client:
        with pytest.raises(NotReady, match="no stream takes"):
            await Hosts(LeaderlessJetStream(client.conn)).announce([HostRecord("app:a", "app:client", "a", ())])
