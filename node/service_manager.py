"""What a node tells systemd, when systemd started it: that it is ready, that it still turns, that it leaves.

The protocol of sd_notify(3): one datagram of VARIABLE=value lines to the socket in NOTIFY_SOCKET. Without that variable
nobody is there to be told, and nothing happens. The watchdog's sign of life comes from the event loop, so one that is
stuck is silent; a mesh that cannot be reached is no reason to be started again.

Invariant: a service manager that does not listen harms nobody.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping

import anyio

_log = logging.getLogger(__name__)


class ServiceManager:
    """The service manager of this process. environ: where it says how it is told; pid: of this process."""

    def __init__(self, environ: Mapping[str, str], pid: int | None = None) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        self._pid = os.getpid() if pid is None else pid
        self.watchdog_s = self._watchdog_s(environ)
        self._complained = False

    def ready(self, status: str) -> None:
        """The service does its work from now on. status: a line for `systemctl status`."""
        self._tell(f"READY=1\nSTATUS={status}")

    def stopping(self, status: str) -> None:
        """The service has begun to end."""
        self._tell(f"STOPPING=1\nSTATUS={status}")

    async def keep_alive(self) -> None:
        """Give signs of life until cancelled, twice as often as asked for; returns at once when none is."""
        if not self.watchdog_s:
            return
        while True:
            self._tell("WATCHDOG=1")
            await anyio.sleep(self.watchdog_s / 2)

    def _watchdog_s(self, environ: Mapping[str, str]) -> float:
        """How often a sign of life is wanted, 0.0 = never. That of another process is none of ours."""
        microseconds = environ.get("WATCHDOG_USEC", "")
        whose = environ.get("WATCHDOG_PID", "")
        if not self._address or not microseconds.isdecimal() or whose not in ("", str(self._pid)):
            return 0.0
        return int(microseconds) / 1e6

    def _tell(self, message: str) -> None:
        if not self._address:
            return
        # A leading @ stands for the zero byte of an abstract socket.
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as told:
                told.setblocking(False)
                told.sendto(message.encode(), address)
        except (OSError, ValueError) as error:
            if not self._complained:
                self._complained = True
                _log.warning("the service manager cannot be told at %s: %s", self._address, error)
