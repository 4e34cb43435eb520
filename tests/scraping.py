"""Reading a node's metrics over HTTP, as Prometheus does.

figures = await scrape(url)
figures["mesh_workflow_started_total", {"queue": "orders", "workflow": "app:greet"}]
"""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Mapping

import anyio.to_thread
from prometheus_client.parser import text_string_to_metric_families

from tests.ports import free_ports


class Figures:
    """What one scrape gave."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self._samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float:
        """The sample with exactly these labels; 0 when there is none."""
        return self._samples.get((name, frozenset(labels.items())), 0.0)

    def of(self, name: str) -> Mapping[frozenset[tuple[str, str]], float]:
        """All samples of a name, by their labels."""
        return {labels: value for (sample, labels), value in self._samples.items() if sample == name}


def get(url: str, accept: str = "") -> tuple[int, str, str]:
    """Status, body and content type of a GET."""
    request = urllib.request.Request(url, headers={"Accept": accept} if accept else {})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode(), answer.headers["Content-Type"]
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(), error.headers["Content-Type"]


async def http_get(url: str, accept: str = "") -> tuple[int, str, str]:
    """The same without holding up the loop."""
    return await anyio.to_thread.run_sync(get, url, accept)


async def scrape(address: str) -> Figures:
    """The metrics that are served at HOST:PORT."""
    status, text, _ = await http_get(f"http://{address}/metrics")
    assert status == 200, text
    return Figures(text)


def free_address() -> str:
    """An address of this machine on which nobody listens."""
    return free_addresses(1)[0]


def free_addresses(count: int) -> list[str]:
    """Addresses with ports that follow each other, on which nobody listens."""
    return [f"127.0.0.1:{port}" for port in free_ports(count)]
