"""Which servers a connection may go to, and trying them until one takes it.

Not here: one try at one server (`mesh.handshake`), when to try (`mesh.connection`).

Invariant: all that are known are tried, those of the configuration and those learnt from the cluster alike, in an order
that chance decides: so many nodes do not all go to the same one.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from urllib.parse import urlsplit

import anyio

from mesh.errors import BadCredentials, InvalidName, Unreachable
from mesh.handshake import ConnectOptions, Link, check_address, dial
from mesh.redaction import with_scheme

RECONNECT_WAIT_FIRST_S = 0.02

_log = logging.getLogger(__name__)


def addresses_of(url: str | Sequence[str]) -> list[str]:
    """The addresses in a text, separated by commas, or in a sequence. Raises InvalidName."""
    addresses = [part.strip() for part in (url.split(",") if isinstance(url, str) else url) if part.strip()]
    for address in addresses:
        check_address(address)
    if not addresses:
        raise InvalidName("no address was given to connect to")
    return addresses


class Dialler:
    """The servers that are known, and the way to one of them. name: what the connection calls itself there."""

    def __init__(self, addresses: Sequence[str], name: str, options: ConnectOptions) -> None:
        self.name = name
        self.first = addresses[0]
        self._configured = list(addresses)
        self._discovered: list[str] = []
        self._options = options
        self._was_let_in = False

    def learn(self, others: Sequence[object]) -> None:
        """Take note of what a server says of the others of its cluster: bare addresses."""
        known = {urlsplit(with_scheme(address)).netloc.rpartition("@")[2] for address in self._configured}
        self._discovered = [str(other) for other in others if str(other) not in known]

    async def dial(self, patience_s: float) -> Link:
        """Try all servers until one takes us, for so long at least. Raises Unreachable, BadCredentials."""
        deadline = anyio.current_time() + patience_s
        wait_s = RECONNECT_WAIT_FIRST_S
        said = ""
        while True:
            failure: Unreachable | BadCredentials | None = None
            for address, hostname in self.candidates():
                try:
                    link = await dial(address, self.name, self._options, hostname=hostname)
                except Unreachable as error:
                    failure = error
                except BadCredentials as error:
                    if not self._was_let_in:
                        raise  # it was never right: nobody is about to make it better
                    failure = error  # somebody replaces the file just now
                else:
                    self._was_let_in = True
                    return link
            if failure is not None and anyio.current_time() >= deadline:
                raise failure
            if failure is not None and str(failure) != said:
                said = str(failure)
                if type(failure) is Unreachable:  # "start one" is no advice to somebody who waits
                    _log.warning("%s cannot be reached: %s; trying again", failure.url, failure.reason)
                else:
                    _log.warning("%s; trying again", said)
            # Jitter, so that many nodes do not knock at the same instant.
            await anyio.sleep(wait_s * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
            wait_s = min(2 * wait_s, self._options.reconnect_wait_max_s)

    def candidates(self) -> list[tuple[str, str | None]]:
        """All known addresses in random order, with the host name that a TLS certificate has to be for.

        Servers learnt from the cluster are bare IP addresses: they take scheme, credentials and host name of ours.
        """
        ours = urlsplit(with_scheme(self.first))
        credentials = f"{ours.netloc.rpartition('@')[0]}@" if "@" in ours.netloc else ""
        given = self._options.tls_hostname
        candidates = [(address, given) for address in self._configured]
        candidates += [(f"{ours.scheme}://{credentials}{other}", given or ours.hostname) for other in self._discovered]
        random.shuffle(candidates)
        return candidates
