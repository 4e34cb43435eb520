"""A shipping company: a NATS micro service written with nats-py alone, which has never heard of workflows.

    NATS_URL=nats://localhost:4222 python examples/orders/shipping_service.py

It takes JSON on `shipping.create` and `shipping.cancel` and answers with JSON, `{"error": ...}` when it cannot. Like
any service that is called over a network it may be asked twice for the same order, and acts once. What it does goes
into the books named by ORDERS_LEDGER, one JSON line each, if there are any.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from typing import Any

import nats
import nats.micro
from nats.micro.request import Request

COUNTRIES = {"DE": 2, "FR": 3, "PT": 4}  # days


class Shipping:
    """The parcels that are on their way, by order."""

    def __init__(self, books: str | None) -> None:
        self._books = books
        self._parcels: dict[str, dict[str, Any]] = {}

    async def create(self, request: Request) -> None:
        """Send an order on its way."""
        order = json.loads(request.data)
        days = COUNTRIES.get(order["country"])
        if days is None:
            await request.respond(json.dumps({"error": f"we do not ship to {order['country']}"}).encode())
            return
        if order["id"] not in self._parcels:
            self._parcels[order["id"]] = {"parcel_id": f"pa-{order['id']}", "days": days}
            self._note("ship", order["id"])
        await request.respond(json.dumps(self._parcels[order["id"]]).encode())

    async def cancel(self, request: Request) -> None:
        """Call an order's parcel back."""
        order = json.loads(request.data)
        if self._parcels.pop(order["id"], None) is not None:
            self._note("unship", order["id"])
        await request.respond(b'{"cancelled": true}')

    def _note(self, effect: str, order_id: str) -> None:
        if self._books is None:
            return
        fd = os.open(self._books, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(fd, json.dumps({"effect": effect, "order_id": order_id, "pid": os.getpid()}).encode() + b"\n")
        finally:
            os.close(fd)


async def main() -> None:
    """Serve until told to stop."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    connection = await nats.connect(os.environ.get("NATS_URL", "nats://localhost:4222"))
    shipping = Shipping(os.environ.get("ORDERS_LEDGER"))
    service = await nats.micro.add_service(
        connection, name="shipping", version="1.0.0", description="Sends parcels and calls them back"
    )
    await service.add_endpoint(name="create", subject="shipping.create", handler=shipping.create)
    await service.add_endpoint(name="cancel", subject="shipping.cancel", handler=shipping.cancel)
    await connection.flush()  # now the server knows the subscriptions
    print("shipping is ready", flush=True)
    await stop.wait()
    await service.stop()
    await connection.close()


if __name__ == "__main__":
    asyncio.run(main())
