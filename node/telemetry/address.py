"""Where metrics are served: [HOST]:PORT, as people write it for Prometheus. Pure."""

from __future__ import annotations

from typing import Final

from mesh.errors import MeshError

PORT_MAX: Final = 65535


class BadAddress(MeshError):
    """Raised when the address for metrics cannot be read."""

    code = "bad-metrics-address"

    def __init__(self, address: str) -> None:
        self.address = address
        super().__init__(
            f"{address!r} is no address to serve metrics on; write [HOST]:PORT, such as :9464 or 127.0.0.1:9464"
        )


def parse_address(address: str) -> tuple[str, int]:
    """Host and port; an empty host is all interfaces, port 0 any free one. Raises BadAddress."""
    host, _, port = address.rpartition(":")
    is_ipv6 = host.startswith("[") and host.endswith("]")
    is_port = port.isascii() and port.isdecimal() and len(port) <= len(str(PORT_MAX)) and int(port) <= PORT_MAX
    if not is_port or (":" in host and not is_ipv6):
        raise BadAddress(address)
    return host[1:-1] if is_ipv6 else host, int(port)


def following_address(address: str, steps: int) -> str:
    """The address whose port is so many further; any free port stays that. Raises BadAddress."""
    host, port = parse_address(address)
    shown = f"[{host}]" if ":" in host else host
    following = f"{shown}:{port + steps if port else 0}"
    parse_address(following)
    return following
