"""Receivers of events at the console."""

import re

import pytest
from sqlalchemy import select

from tests.vendor_service.console.customers.people import (
    EVIL,
    HOOK,
    SIGNING,
    admin_of,
    event_for,
    issued,
    key_id,
    receiver_of,
    signed_in,
    with_project,
)
from tests.vendor_service.console.visits import problem_of
from tests.vendor_service.local_vendor import LocalVendor
from vendor_service.accounts.keys import KeyTerms, Scope
from vendor_service.accounts.projects import ProjectTerms
from vendor_service.acts import keys, projects, receivers
from vendor_service.acts.act import Act
from vendor_service.audit import log
from vendor_service.clock import SECOND, to_datetime
from vendor_service.database.tables import (
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
)
from vendor_service.webhooks import events, model_notices
from vendor_service.webhooks.events import EventKind


def test_a_customer_adds_renews_and_disables_receivers_and_has_events_sent_again(vendor: LocalVendor) -> None:
    key = vendor.key()
    admin = admin_of(vendor, key)
    made = admin.ask("/events/receivers/add", address=HOOK, event=["key.rotated", "invoice.finalized"])
    (secret,) = set(SIGNING.findall(made.text))
    page = admin.page("/events")
    assert HOOK in page
    assert "invoice.finalized, key.rotated" in page
    assert secret not in page
    (receiver,) = set(re.findall(r"receivers/(wh_\w+)/", page))
    renewed = admin.do(f"/events/receivers/{receiver}/rotate")
    assert set(SIGNING.findall(renewed.text)).isdisjoint({secret})

    admin.do(f"/keys/{key_id(key)}/rotate", grace="60")
    with vendor.books.write() as session:
        (delivery,) = session.scalars(
            select(WebhookDelivery).where(WebhookDelivery.endpoint_id == receiver)
        ).all()
        event, delivery.state, delivery.tries_left = delivery.event_id, "failed", 0
    again = f"/events/receivers/{receiver}/send/{event}"
    assert f"/console{again}" in admin.page("/events")
    assert admin.do(again).headers["location"] == "/console/events"
    with vendor.books.read() as session:
        assert session.get_one(WebhookDelivery, (event, receiver)).tries_left > 0
        assert session.get_one(WebhookEndpoint, receiver).added_by == "customer"
    assert admin.do(f"/events/receivers/{receiver}/send/evt_none").status_code == 404

    assert admin.do(f"/events/receivers/{receiver}/disable").headers["location"] == "/console/events"
    assert "disabled" in admin.page("/events")
    assert "is disabled" in problem_of(admin.ask(f"/events/receivers/{receiver}/rotate"))
    with vendor.books.read() as session:
        acts = log.entries(session, subject=receiver)
    assert [each.action.partition(".")[2] for each in acts] == ["create", "rotate", "replay", "disable"]
    assert len({each.actor for each in acts}) == 1
    assert acts[0].actor.startswith("key:")


def test_a_form_that_is_sent_twice_makes_one_receiver_and_one_secret(vendor: LocalVendor) -> None:
    key = vendor.key()
    receiver, admin, add = receiver_of(vendor, key), admin_of(vendor, key), "/events/receivers/add"
    assert "was added already" in problem_of(admin.ask(add, address=HOOK))
    assert admin.ask(add, address=HOOK, event="key.rotated").status_code == 200
    again = admin.ask(add, address=HOOK, event=["key.rotated", "key.rotated"])
    assert "was added already" in problem_of(again)

    def secrets() -> tuple[str, str | None]:
        with vendor.books.read() as session:
            row = session.get_one(WebhookEndpoint, receiver)
            return row.secret, row.former_secret

    first, _ = secrets()
    rotate = f"/events/receivers/{receiver}/rotate"
    asked = admin.ask(rotate, grace="86400")
    assert "signs no more" not in asked.text
    (second,) = set(SIGNING.findall(admin.confirm(rotate, asked).text))
    assert "since the page was loaded" in problem_of(admin.confirm(rotate, asked))
    assert secrets() == (second, first)
    assert "signs no more" in admin.ask(rotate).text
    admin.do(f"/events/receivers/{receiver}/disable")
    assert admin.ask(add, address=HOOK).status_code == 200


def test_what_an_operators_receiver_failed_with_is_not_shown_to_customers(vendor: LocalVendor) -> None:
    key = vendor.key()
    theirs, account = receiver_of(vendor, key), vendor.account(key)
    with vendor.books.write() as session:
        act = Act(session, "os:test", vendor.clock)
        ours = [receivers.create(act, HOOK, account=account.name).endpoint_id for _ in range(3)]
    unreached = (None, "OSError: 10.1.2.3")
    told = {theirs: (None, "TimeoutError"), ours[0]: unreached, ours[1]: (502, None), ours[2]: unreached}
    with vendor.books.write() as session:  # nobody else sees that they are to be told
        events.emit(session, EventKind.KEY_ROTATED, account, {}, vendor.clock())
        session.flush()
        for each in session.scalars(select(WebhookDelivery).where(WebhookDelivery.endpoint_id.in_(told))):
            each.state, each.attempts, (status, error) = "failed", 3, told[each.endpoint_id]
            session.add(
                WebhookAttempt(
                    event_id=each.event_id,
                    endpoint_id=each.endpoint_id,
                    number=3,
                    at=0,
                    milliseconds=1,
                    status=status,
                    error=error,
                )
            )
    page = signed_in(vendor, key).page("/events")
    assert "10.1.2.3" not in page
    for shown in ("3 tries, TimeoutError: <", "3 tries, not reached, 2 receivers<", "3 tries, HTTP 502<"):
        assert shown in page


def test_what_an_event_tells_is_shown_as_what_it_is(vendor: LocalVendor) -> None:
    key = vendor.key()
    admin = admin_of(vendor, key)
    admin.do(f"/keys/{key_id(key)}/rotate", grace="3600")
    invoice = {"month": "2026-10", "number": 1234, "total_micros": 2_500_000, "last_seq": 56789}
    quota = {"percent": 50, "used_queries": 1500, "limit_queries": 3000}
    with vendor.books.write() as session:
        for kind, data in ((EventKind.INVOICE_FINALIZED, invoice), (EventKind.QUOTA, quota)):
            events.emit(session, kind, vendor.account(key), data, vendor.clock())
    page = admin.page("/events")
    until = to_datetime(vendor.clock() + 3600 * SECOND)
    assert f"The old one works until {until:%Y-%m-%d %H:%M} UTC.<" in page
    assert "Invoice 1234 of 2026-10 is final: 2.50.<" in page
    assert "The account reached 50% of its quota: 1,500 of 3,000 queries.<" in page


def test_a_key_of_a_project_reads_of_its_own_keys_alone_in_events(vendor: LocalVendor) -> None:
    owner = vendor.key()
    project = with_project(vendor, owner)
    outside = issued(vendor, owner, label="for the owner alone")
    inside = issued(vendor, owner, label="for the search", project=project)
    admin = admin_of(vendor, owner)
    for key in (outside, inside):
        admin.do(f"/keys/{key_id(key)}/rotate", grace="3600")
    scopes = frozenset({Scope.READ_USAGE})
    part = signed_in(vendor, issued(vendor, owner, project=project, scopes=scopes)).page("/events")
    assert "Key for the search has a new secret." in part
    assert "for the owner alone" not in part
    assert key_id(outside) not in part
    assert "Key for the owner alone has a new secret." in admin.page("/events")


def test_a_customer_is_told_of_a_model_that_goes_and_can_have_it_sent_again(vendor: LocalVendor) -> None:
    key = vendor.key()
    admin = admin_of(vendor, key)
    admin.ask("/events/receivers/add", address=HOOK, event="model.deprecated")
    with vendor.books.write() as session:
        at = to_datetime(vendor.clock())
        model_notices.tell(session, "model-that-goes", at, None, vendor.clock())
        session.flush()
        mine = select(WebhookEndpoint.id).where(WebhookEndpoint.account_id == vendor.account(key).id)
        receiver = session.scalars(mine).one()
        delivery = session.scalars(
            select(WebhookDelivery).where(WebhookDelivery.endpoint_id == receiver)
        ).one()
        event, delivery.state = delivery.event_id, "failed"
    again = f"/events/receivers/{receiver}/send/{event}"
    page = admin.page("/events")
    assert "model-that-goes" in page
    assert f"/console{again}" in page
    assert admin.do(again).headers["location"] == "/console/events"
    stranger = admin_of(vendor, vendor.key()).page("/events")
    assert "model-that-goes" in stranger
    assert receiver not in stranger


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"address": "http://example.com/"}, "begins with https://"),
        ({"address": "https://user@example.com/"}, "without a user"),
        ({"address": ""}, "Address: this is empty"),
        ({"address": HOOK, "event": EVIL}, "Events to send: there is no"),
    ],
)
def test_a_receiver_that_cannot_be_is_told_with_what_to_do(
    vendor: LocalVendor, form: dict[str, str], words: str
) -> None:
    answer = admin_of(vendor, vendor.key()).ask("/events/receivers/add", **form)
    assert answer.status_code == 422
    assert words in problem_of(answer)


def test_a_receiver_that_an_operator_added_is_the_vendors(vendor: LocalVendor) -> None:
    key = vendor.key()
    admin = admin_of(vendor, key)
    with vendor.books.write() as session:
        act = Act(session, "os:test", vendor.clock)
        address = "https://example.com/internal"
        theirs = receivers.create(act, address, account=vendor.account(key).name).endpoint_id
    event = event_for(vendor, key)
    with vendor.books.write() as session:
        session.get_one(WebhookDelivery, (event, theirs)).state = "failed"
    page = admin.page("/events")
    assert "one of the vendor" in page
    assert address not in page
    assert theirs not in page  # there is no button for it
    for act_on_it in ("rotate", "disable", f"send/{event}"):
        answer = admin.do(f"/events/receivers/{theirs}/{act_on_it}")
        assert (answer.status_code, "no such receiver" in answer.text) == (404, True)
    with vendor.books.read() as session:
        assert session.get_one(WebhookEndpoint, theirs).disabled_at is None
        assert session.get_one(WebhookEndpoint, theirs).former_secret is None


def test_receivers_are_few_and_of_the_whole_account(vendor: LocalVendor) -> None:
    key = vendor.key()
    admin = admin_of(vendor, key)
    with vendor.books.write() as session:  # what operators add is not counted
        act = Act(session, "os:test", vendor.clock)
        receivers.create(act, HOOK, account=vendor.account(key).name)
    answers = [admin.ask("/events/receivers/add", address=f"{HOOK}/{n}").status_code for n in range(11)]
    assert answers == [200] * 10 + [422]
    with vendor.books.write() as session:
        act = Act(session, "os:test", vendor.clock)
        projects.create(act, vendor.account(key).name, "search", ProjectTerms())
        terms = KeyTerms(scopes=frozenset({Scope.ADMIN}), project="search")
        of_project = keys.issue(act, vendor.account(key).name, terms).api_key
    part = signed_in(vendor, of_project)
    assert "Add a receiver" not in part.page("/events")
    assert part.ask("/events/receivers/add", address=HOOK).status_code == 403
