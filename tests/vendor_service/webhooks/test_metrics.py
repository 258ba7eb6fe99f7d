"""The metric of receivers: who failed three times is counted once, whatever waits for them."""

from tests.vendor_service.books import Books, on_sqlite
from vendor_service.acts import receivers
from vendor_service.acts.act import Act
from vendor_service.webhooks import events
from vendor_service.webhooks.events import EventKind
from vendor_service.webhooks.metrics import ReceiverMetrics


@on_sqlite
def test_a_receiver_that_failed_three_times_is_counted_once(books: Books) -> None:
    order = books.open()
    with books.database.write() as session:
        receivers.create(Act(session, "os:test", books.clock), "https://example.com/hooks")
        for _ in range(2):
            events.emit(session, EventKind.KEY_ROTATED, books.account(order), {}, books.clock())

    def failing() -> float:
        (family,) = ReceiverMetrics(books.database).collect()
        return float(family.samples[0].value)

    assert failing() == 0
    books.tamper("UPDATE webhook_deliveries SET attempts = 2")
    assert failing() == 0
    books.tamper("UPDATE webhook_deliveries SET attempts = 3")
    assert failing() == 1
    books.tamper("UPDATE webhook_deliveries SET state = 'delivered'")
    assert failing() == 0
