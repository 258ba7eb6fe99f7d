"""What customers do with what is their own: the same by a function, by `/v1` and by the console's form."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.vendor_service.acts.faces import Given, form_of, request_of, without_names
from tests.vendor_service.batches.held_model import HeldModel
from tests.vendor_service.console.customers.people import (
    event_for,
    key_id,
    open_invitation,
    receiver_of,
    session_of,
    signed_in,
)
from tests.vendor_service.console.jobs import begun
from tests.vendor_service.local_vendor import LocalVendor
from vendor_service.accounts.keys import Scope
from vendor_service.acts.act import ActContext, Customer
from vendor_service.acts.declaration import DeclaredAct
from vendor_service.acts.registry import ACTS
from vendor_service.audit import log
from vendor_service.audit.actors import customer_key
from vendor_service.clock import DAY
from vendor_service.database.tables import ApiKey

OWN = [each for each in ACTS.values() if each.own is not None]


@dataclass(frozen=True)
class Somebody:
    """A customer with a key that may do everything."""

    vendor: LocalVendor
    key: str
    admin: str

    def given(self, declared: DeclaredAct) -> dict[str, Any]:
        """What this act is given."""
        given: dict[str, Callable[[], dict[str, Any]]] = {
            "key.create": lambda: {"label": "laptop", "scopes": [Scope.EMBED], "quota": 9},
            "key.rotate": lambda: {"key_id": key_id(self.key), "grace_seconds": 3600},
            "key.revoke": lambda: {"key_id": key_id(self.key)},
            "key.contain": lambda: {"key_id": key_id(self.key)},
            "session.end": lambda: {"session_id": session_of(self.vendor, self.key)},
            "invitation.withdraw": lambda: {"invitation_id": open_invitation(self.vendor, self.key)},
            "batch.cancel": lambda: {"batch_id": begun(self.vendor, self.key, "wait")["id"]},
            "webhook.create": lambda: {"url": "https://example.com/hooks"},
            "webhook.rotate": lambda: {"endpoint_id": self.receiver()} | {"grace_seconds": 86_400},
            "webhook.disable": lambda: {"endpoint_id": self.receiver()},
            "webhook.replay": lambda: {"endpoint_id": self.receiver(), "event_id": self.event()},
        }
        return given[declared.name]()

    def receiver(self) -> str:
        """A receiver that they added."""
        return receiver_of(self.vendor, self.key)

    def event(self) -> str:
        """An event of theirs."""
        return event_for(self.vendor, self.key)

    def context(self) -> ActContext:
        """What they act with by the key that may do everything."""
        account = self.vendor.account(self.key)
        with self.vendor.books.read() as session:
            key = session.get_one(ApiKey, key_id(self.admin))
            customer = Customer(account, key)
        context = ActContext(self.vendor.books, self.vendor.clock, keep_micros=30 * DAY)
        return context.by(customer_key(key.id), customer=customer)

    def by_function(self, declared: DeclaredAct, given: Given) -> None:
        """Call it."""
        takes_account = any(each.name == "account" for each in declared.parameters)
        named = {"account": self.vendor.account(self.key).name} if takes_account else {}
        declared.perform(self.context(), {**given, **named})

    def by_route(self, declared: DeclaredAct, given: Given) -> None:
        """Ask for it by `/v1`."""
        answer = self.ask(self.admin, declared, given)
        assert answer.status_code == declared.status, answer.text

    def ask(self, key: str, declared: DeclaredAct, given: Given) -> httpx.Response:
        """Ask for it by `/v1`, by some key."""
        assert declared.own is not None
        method, path, body = request_of(declared.own.route, declared, given)
        headers = {"authorization": f"Bearer {key}"}
        return self.vendor.http.request(method, path, json=body, headers=headers)

    def by_form(self, declared: DeclaredAct, given: Given) -> None:
        """Send its form and agree, if it asks; twice where that would repeat it: once counts."""
        assert declared.own is not None
        path = declared.own.form
        for name, value in given.items():
            path = path.replace(f"{{{name}}}", str(value))
        visit = signed_in(self.vendor, self.admin)
        for _ in range(2 if declared.repeats else 1):
            asked = visit.ask(path, once="the page that was sent", **form_of(declared, given))
        assert ("This is what will happen" in asked.text) == declared.own.asks
        done = visit.confirm(path, asked)
        assert done.status_code in (200, 303), done.text

    def recorded(self, given: Given, after: int) -> list[str]:
        """What was recorded since, without ids."""
        names: Mapping[str, str] = {
            self.vendor.account(self.key).name: "<account>",
            key_id(self.key): "<key>",
            key_id(self.admin): "<admin>",
            str(given.get("batch_id")): "<job>",
        }
        with self.vendor.books.read() as session:
            found = log.entries(session, after=after, limit=100)
        facts = [[each.actor, each.action, each.subject, each.before, each.after] for each in found]
        return [without_names(json.dumps(each), names) for each in facts]

    def last(self) -> int:
        """The number of the log's last entry."""
        with self.vendor.books.read() as session:
            found = log.entries(session, limit=1)
        return found[0].seq if found else 0


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalVendor]:
    folder = tmp_path_factory.mktemp("vendor")
    with LocalVendor(folder, batch_store=str(folder / "store")) as local:
        yield local


def somebody(vendor: LocalVendor) -> Somebody:
    key = vendor.key()
    return Somebody(vendor, key, vendor.another_key(key, Scope.ADMIN))


@pytest.mark.parametrize("declared", OWN, ids=lambda each: each.name)
def test_every_way_to_do_it_does_the_same_and_leaves_the_same_record(
    vendor: LocalVendor, monkeypatch: pytest.MonkeyPatch, declared: DeclaredAct
) -> None:
    monkeypatch.setattr("vendor_service.http.history_rate.BURST", 1000.0)
    held = HeldModel(monkeypatch)
    held.stop_at("wait")  # a job that is to be cancelled
    assert declared.own is not None
    ways = [Somebody.by_function, Somebody.by_form] + ([Somebody.by_route] if declared.own.route else [])
    records = []
    for do in ways:
        who = somebody(vendor)
        given = who.given(declared)
        last = who.last()
        do(who, declared, given)
        records.append(who.recorded(given, last))
        assert len(records[-1]) == 1
    held.go()
    assert all(each == records[0] for each in records), records
    assert "<admin>" in records[0][0]


@pytest.mark.parametrize("declared", [each for each in OWN if each.own and each.own.route],
                         ids=lambda each: each.name)  # fmt: skip
def test_no_key_does_it_without_its_scope_and_none_of_another_account(
    vendor: LocalVendor, declared: DeclaredAct
) -> None:
    who, other = somebody(vendor), somebody(vendor)
    given, last = who.given(declared), who.last()
    assert who.ask(who.key, declared, given).status_code == 403
    if {"key_id", "session_id", "invitation_id"} & given.keys():
        assert who.ask(other.admin, declared, given).status_code == 404
    assert who.last() == last


def test_what_is_given_in_a_body_that_an_act_does_not_take_is_not_passed_over(vendor: LocalVendor) -> None:
    who = somebody(vendor)
    last, headers = who.last(), {"authorization": f"Bearer {who.admin}"}
    path = f"/v1/keys/{key_id(who.key)}/contain"
    refused = vendor.http.post(path, json={"revoke": True}, headers=headers)
    assert (refused.status_code, who.last()) == (422, last)
    assert "belongs in the URL" in refused.text
    assert vendor.http.post(path, json={}, headers=headers).status_code == 200
