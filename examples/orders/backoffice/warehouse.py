"""The shelf: puts pieces aside for orders. Both functions may be asked twice and act once."""

from __future__ import annotations

from typing import Any

from . import ledger


async def put_aside(order_id: str, sku: str, quantity: int) -> dict[str, Any]:
    """Put pieces aside for an order."""
    ledger.record_once("reserve", order_id, sku=sku, quantity=quantity)
    return {"reservation_id": f"rv-{order_id}", "quantity": quantity}


async def put_back(order_id: str) -> dict[str, Any]:
    """Put an order's pieces back."""
    ledger.record_once("release", order_id)
    return {"reservation_id": f"rv-{order_id}"}
