"""The receivers that customers add themselves: how much an account does about them in a day."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import select

from tests.vendor_service.books import Books, on_sqlite
from vendor_service.acts import receivers
from vendor_service.acts.act import Act, Customer
from vendor_service.clock import DAY
from vendor_service.database.tables import WebhookDelivery
from vendor_service.errors import APIError
from vendor_service.money.orders import Order
from vendor_service.webhooks import events
from vendor_service.webhooks.events import EventKind

HOOK = "https://example.com/hooks"


@contextmanager
def acting(books: Books, order: Order) -> Iterator[Act]:
    """What the customer does."""
    customer = Customer(books.account(order), None)
    with books.database.write() as session:
        yield Act(session, "key:1", books.clock, customer=customer)


def add(books: Books, order: Order) -> str:
    """Add a receiver of its own address as the customer does; its id."""
    with acting(books, order) as act:
        return receivers.create(act, f"{HOOK}/{secrets.token_hex(8)}").endpoint_id


def rotate(books: Books, order: Order, receiver: str) -> None:
    with acting(books, order) as act:
        receivers.rotate(act, receiver, 60)


def send_again(books: Books, order: Order, receiver: str) -> None:
    """Send the receiver again what it was told of."""
    told = select(WebhookDelivery.event_id).where(WebhookDelivery.endpoint_id == receiver)
    with acting(books, order) as act:
        receivers.replay(act, act.session.scalars(told).one(), receiver)


def disable(books: Books, order: Order, receiver: str) -> None:
    with acting(books, order) as act:
        receivers.disable(act, receiver)


@on_sqlite
def test_an_account_does_so_much_about_receivers_in_a_day_disabled_ones_included(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receivers, "_MOST_A_DAY", 6)
    order, other = books.open(), books.open()
    kept, theirs = add(books, order), add(books, other)
    with books.locked(order) as (session, account):
        events.emit(session, EventKind.KEY_ROTATED, account, {}, books.clock())
    disable(books, order, add(books, order))
    rotate(books, order, kept)
    send_again(books, order, kept)
    add(books, order)
    acts: list[Callable[[], object]] = [
        lambda: add(books, order),
        lambda: rotate(books, order, kept),
        lambda: send_again(books, order, kept),
    ]
    for do in acts:
        with pytest.raises(APIError, match="6 times in 24 hours; try again tomorrow") as refused:
            do()
        assert refused.value.code == "conflict"
    rotate(books, other, theirs)
    books.clock.now += DAY
    for do in acts:
        do()
    disable(books, order, kept)
