"""The functions of the shop: each writes down what it does, on its own side, where no history can hide it.

One line per effect, appended by a single write to a file that all nodes share, so lines of several processes never mix.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

import anyio

ENVIRONMENT = "RECOVERY_EFFECTS"
CHARGE_S = 0.03  # after the effect, so that a host can be killed between the effect and its answer


def note(effect: str, request: dict[str, Any]) -> None:
    """Write down that an effect has taken place."""
    line = json.dumps({"effect": effect, "order_id": request["order_id"], "key": request["key"], "pid": os.getpid()})
    file = os.open(os.environ[ENVIRONMENT], os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        os.write(file, f"{line}\n".encode())
    finally:
        os.close(file)


def charge(payment: dict[str, Any]) -> dict[str, Any]:
    """Take the money. The entry says at most once."""
    note("charge", payment)
    time.sleep(CHARGE_S)
    return {"state": "charged"}


def status(payment: dict[str, Any]) -> dict[str, Any]:
    """Say that the bank has taken the money back."""
    note("status", payment)
    return {"state": "failed"}


def refund(payment: dict[str, Any]) -> dict[str, Any]:
    """Give the money back."""
    note("refund", payment)
    return {"state": "refunded"}


def weigh(parcel: dict[str, Any]) -> dict[str, Any]:
    """Weigh a parcel."""
    note("weigh", parcel)
    return {"grams": 250}


async def step(request: dict[str, Any]) -> dict[str, Any]:
    """Take a moment and answer with the number that was asked for."""
    await anyio.sleep(request["pace_ms"] / 1000)
    return {"got": request["i"]}
