"""The bank: charges cards, gives money back, and knows what it did.

A charge is not idempotent here: ask twice, pay twice. That is why the registry lets it run at most once.
"""

from __future__ import annotations

from typing import Any

from . import ledger

# Test cards: one is declined at once, the money of the other does not arrive.
DECLINED_CARD = "4000-0002"
BOUNCING_CARD = "4000-0341"


class CardDeclinedError(Exception):
    """Raised when a card cannot be charged. Trying again does not help."""

    kind = "PermissionDenied"
    retryable = False


def charge_card(payment: dict[str, Any]) -> dict[str, Any]:
    """Charge a card. Raises CardDeclinedError."""
    if payment["card"] == DECLINED_CARD:
        raise CardDeclinedError(f"card {payment['card']} was declined")
    order_id = payment["order_id"]
    ledger.record("charge", order_id, amount=payment["amount"], card=payment["card"])
    return {"charge_id": _charge_id(order_id), "amount": payment["amount"]}


def charge_or_say_why(order: dict[str, Any]) -> dict[str, Any]:
    """Charge an order's card, or answer with the reason as `error`."""
    try:
        return charge_card({"order_id": order["id"], "card": order["card"], "amount": order["amount"]})
    except CardDeclinedError as error:
        return {"error": str(error)}


def refund(request: dict[str, Any]) -> dict[str, Any]:
    """Give the money of an order back, once; nothing was charged, nothing is given back."""
    order_id = request.get("order_id") or request["id"]
    charge = ledger.find("charge", order_id)
    if charge is None:
        return {"refund_id": None, "amount": 0}
    ledger.record_once("refund", order_id, amount=charge["amount"])
    return {"refund_id": f"re-{order_id}", "amount": charge["amount"]}


def look_up(order_id: str) -> dict[str, Any] | None:
    """Tell what the books say about an order: its charge, and why the money did not arrive if it did not."""
    charge = ledger.find("charge", order_id)
    if charge is None:
        return None
    entry: dict[str, Any] = {"charge_id": _charge_id(order_id), "amount": charge["amount"]}
    if charge["card"] == BOUNCING_CARD:
        entry["bounced"] = "the card's bank took the money back"
    return entry


def _charge_id(order_id: str) -> str:
    return f"ch-{order_id}"
