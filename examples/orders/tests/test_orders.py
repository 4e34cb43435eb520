"""The workflows of the shop, in a simulation: no server, and a day passes in no time.

Every test runs twice: as it is, and with a crash after each event, from which the run is replayed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from node.testing import Simulation, WorkflowFailed, answer, fail, lost, replay

SHOP = Path(__file__).parents[1]
HISTORIES = Path(__file__).with_name("histories.jsonl")
ORDER = {"id": "o-1", "card": "4000-0000", "amount": 30}


@pytest.fixture(params=[False, True], ids=["", "replayed"])
def shop(request: pytest.FixtureRequest) -> Simulation:
    """The shop with a bank that is a few lines of Python."""
    sim = Simulation(SHOP, replay_after_every_event=request.param)
    sim.function("app.api:charge_card", {"charge_id": "ch-1"})
    sim.function("app.api:check_status", {"state": "settled", "charge_id": "ch-1"})
    sim.function("app.api:refund", {"refund_id": "re-1"})
    return sim


# -- order_processor ---------------------------------------------------------------------------------------------


def test_order_is_paid_once_the_bank_has_settled(shop: Simulation) -> None:
    order = shop.start("app.workflows:order_processor", ORDER)
    shop.advance("23h")
    assert order.status == "running"
    assert shop.calls("app.api:check_status") == []
    shop.advance("1h")
    assert order.result() == {"order_id": "o-1", "state": "paid", "charge_id": "ch-1"}
    assert order.elapsed_s == 24 * 3600
    [charge] = shop.calls("app.api:charge_card")
    assert charge.args == [{"order_id": "o-1", "card": "4000-0000", "amount": 30}]


def test_order_whose_card_is_declined_ends_at_once(shop: Simulation) -> None:
    shop.function("app.api:charge_card", fail("no money", kind="PermissionDenied", retryable=False))
    order = shop.start("app.workflows:order_processor", ORDER)
    assert order.result() == {"order_id": "o-1", "state": "declined", "reason": "no money"}
    assert order.elapsed_s == 0


def test_order_whose_money_does_not_arrive_is_refunded(shop: Simulation) -> None:
    shop.function("app.api:check_status", {"state": "failed", "reason": "bounced"})
    order = shop.start("app.workflows:order_processor", ORDER)
    assert order.result() == {"order_id": "o-1", "state": "refunded", "reason": "bounced", "refund_id": "re-1"}


def test_card_is_charged_once_although_nobody_knows_whether_it_was(shop: Simulation) -> None:
    """The host dies in the middle of the charge: it is not made again, the bank is asked."""
    shop.function("app.api:charge_card", lost())
    order = shop.start("app.workflows:order_processor", ORDER)
    assert order.result()["state"] == "paid"
    assert len(shop.calls("app.api:charge_card")) == 1


def test_bank_that_is_down_is_asked_again(shop: Simulation) -> None:
    shop.function("app.api:check_status", [fail("down"), fail("down"), {"state": "settled", "charge_id": "ch-1"}])
    order = shop.start("app.workflows:order_processor", {**ORDER, "settle": "1h"})
    assert order.result()["state"] == "paid"
    assert [call.at_s for call in shop.calls("app.api:check_status")] == [3600, 3601, 3603]


def test_order_that_is_not_approved_is_refunded(shop: Simulation) -> None:
    order = shop.start("app.workflows:order_processor", {**ORDER, "approval": True})
    order.signal("approve", {"approved": False, "reason": "too late"}, at="26h")
    assert order.result() == {"order_id": "o-1", "state": "rejected", "reason": "too late", "refund_id": "re-1"}
    assert order.elapsed_s == 26 * 3600


# -- order_saga --------------------------------------------------------------------------------------------------


@pytest.fixture
def services(shop: Simulation) -> Simulation:
    """The shop with services that all do as they are asked, unless a test says otherwise."""
    for name in ("inventory:reserve", "inventory:release", "payments:charge", "payments:refund", "shipping:cancel"):
        shop.function(f"app.{name}", {"done": name})
    shop.function("app.shipping:create", lambda order: {"tracking": f"tr-{order['id']}"})
    return shop


def test_saga_that_succeeds_keeps_all_receipts(services: Simulation) -> None:
    saga = services.start("app.workflows:order_saga", ORDER)
    assert saga.result()["state"] == "completed"
    assert saga.result()["receipts"]["ship"] == {"tracking": "tr-o-1"}


def test_saga_that_fails_undoes_what_was_done_the_latest_first(services: Simulation) -> None:
    services.function("app.shipping:create", {"error": "no such country"})
    saga = services.start("app.workflows:order_saga", ORDER)
    assert saga.result() == {
        "order_id": "o-1",
        "state": "compensated",
        "failed": "ship",
        "reason": "no such country",
        "undone": [{"step": "charge"}, {"step": "reserve"}],
    }


def test_saga_undoes_a_charge_that_may_have_happened(services: Simulation) -> None:
    services.function("app.payments:charge", lost())
    saga = services.start("app.workflows:order_saga", ORDER)
    assert saga.result()["undone"] == [{"step": "charge"}, {"step": "reserve"}]
    assert len(services.calls("app.payments:refund")) == 1


def test_saga_whose_stock_is_empty_has_nothing_to_undo(services: Simulation) -> None:
    services.function("app.inventory:reserve", {"error": "sold out"})
    saga = services.start("app.workflows:order_saga", ORDER)
    assert saga.result()["undone"] == []
    assert services.calls("app.payments:charge") == []


# -- approval ----------------------------------------------------------------------------------------------------


def test_request_that_nobody_decides_expires_after_a_day(shop: Simulation) -> None:
    request = shop.start("app.workflows:approval", {"subject": "a raise"})
    assert request.result() == {"subject": "a raise", "state": "expired"}
    assert request.elapsed_s == 24 * 3600


def test_request_is_decided_by_the_first_message_that_decides(shop: Simulation) -> None:
    request = shop.start("app.workflows:approval", {"subject": "a raise"})
    request.signal("approve", {"note": "thinking about it"}, at="1h")
    request.signal("approve", {"approved": True, "by": "ann"}, at="2h")
    request.signal("approve", {"approved": False, "by": "bob"}, at="3h")
    assert request.result()["by"] == "ann"
    assert request.elapsed_s == 2 * 3600


# -- fan_out -----------------------------------------------------------------------------------------------------

PARCELS = {"id": "o-1", "items": [{"sku": "lamp", "quantity": 2}, {"sku": "teapot", "quantity": 1}]}


def test_every_item_is_packed_by_a_child_and_listed_in_the_order_of_the_items(shop: Simulation) -> None:
    """The function that weighs is the shop's own Lua."""
    packed = shop.start("app.workflows:fan_out", PARCELS).result()
    assert [parcel["sku"] for parcel in packed["parcels"]] == ["lamp", "teapot"]
    assert packed["grams"] == 2 * 850 + 640
    assert len(shop.workflows()) == 3


def test_parcel_that_cannot_be_packed_does_not_keep_the_others_from_it(shop: Simulation) -> None:
    def weigh(item: dict[str, Any]) -> dict[str, int]:
        if item["sku"] == "lamp":
            raise fail("broken", kind="Conflict", retryable=False)
        return {"grams": 640 * item["quantity"]}

    shop.function("app.packing:weigh", weigh)
    packed = shop.start("app.workflows:fan_out", PARCELS).result()
    assert [parcel["sku"] for parcel in packed["parcels"]] == ["teapot"]
    assert packed["failed"] == [{"number": 1, "reason": "broken"}]


def test_order_that_is_canceled_takes_its_parcels_along(shop: Simulation) -> None:
    shop.function("app.packing:weigh", answer({"grams": 1}, after="1h"))
    order = shop.start("app.workflows:fan_out", PARCELS)
    order.terminate(after="10m")
    with pytest.raises(WorkflowFailed, match="terminated"):
        order.result()
    assert {w.status for w in shop.workflows()} == {"terminated"}


# -- what has run before -------------------------------------------------------------------------------------------


def test_code_fits_the_histories_of_orders_that_a_mesh_has_run() -> None:
    """Written by `mesh export`. Code that did not fit them would suspend such orders when it is deployed."""
    runs = {run.id: run for run in replay(HISTORIES, SHOP)}
    assert runs["paid"].value["state"] == "paid"
    assert runs["settling"].waiting[0].startswith("timer 2 in 24h")
    assert {run.id for run in runs.values() if run.status == "running"} == {"settling", "to-approve", "undecided"}
