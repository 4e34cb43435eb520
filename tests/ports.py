"""Ports of 127.0.0.1 for whoever has to be told one before it starts, or keeps one while it is down.

    first, second = free_ports(2)

Not from the range out of which the kernel gives ports to outgoing connections, as it does for port 0. Until a server
listens, and whenever it is down, such a port may become an end of somebody's connection: of another test, or of a client
that tries to reach that very server and so reaches itself. The server cannot listen on it then.
"""

from __future__ import annotations

import os
import random
import socket
from contextlib import ExitStack, closing
from typing import Final

# The kernel's range begins at 32768, or at 16000 in a sandbox that is a kernel of its own. Each worker of pytest-xdist has ports of its own: what one has found to be free,
# another one would find free, too, until it is used.
FIRST: Final = 10_000
EACH: Final = 1_500
WORKERS: Final = 4


def _begin() -> int:
    """Where this process begins among the ports of its worker: another test run on this machine does so elsewhere."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return FIRST + worker % WORKERS * EACH + random.randrange(EACH)


_next = _begin()


def free_ports(count: int) -> list[int]:
    """Ports that follow each other, on which nobody listens; the same ones are not given again for long."""
    global _next
    while True:
        first = FIRST + (_next - FIRST) // EACH * EACH
        if _next + count > first + EACH:
            _next = first
        ports = list(range(_next, _next + count))
        _next = ports[-1] + 1 if ports[-1] + 1 < first + EACH else first
        try:
            with ExitStack() as stack:
                for port in ports:
                    stack.enter_context(closing(socket.socket())).bind(("127.0.0.1", port))
        except OSError:
            continue
        return ports
