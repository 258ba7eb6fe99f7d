"""An account with more keys than a page shows."""

import re

import pytest
from sqlalchemy import select

from tests.vendor_service.console.customers.people import (
    CAT,
    admin_of,
    issued,
    key_id,
    signed_in,
    try_it,
    with_project,
)
from tests.vendor_service.local_vendor import LocalVendor
from vendor_service.accounts.keys import KeyTerms, Scope, issue_key
from vendor_service.acts import projects
from vendor_service.acts.act import Act
from vendor_service.clock import SECOND
from vendor_service.console.customers import pages
from vendor_service.database.tables import Account, ApiKey
from vendor_service.money.standing import why_ended

IN_USE = re.compile(r'action="/console/keys/([0-9a-f]+)/revoke"')
CODES = re.compile(r"<code>([0-9a-f]{16})</code>")
OFFERED = re.compile(r'<option value="([0-9a-f]{16})"')
OLDER = re.compile(r'href="(\?(?:before|ended)=[0-9a-f]+)')


def with_keys(vendor: LocalVendor, owner: str, number: int, label: str = "") -> list[str]:
    """So many keys more of the same account, the oldest first; their ids."""
    made = []
    with vendor.books.write() as session:
        account = session.get_one(Account, vendor.account(owner).id)
        for _ in range(number):
            vendor.clock.advance(1e-6)
            made.append(issue_key(session, account, KeyTerms(label), vendor.clock).key_id)
    return made


def revoke(vendor: LocalVendor, key_ids: list[str]) -> None:
    with vendor.books.write() as session:
        for each in key_ids:
            session.get_one(ApiKey, each).revoked_at = vendor.clock()


def test_keys_stand_page_by_page_the_newest_first_and_those_in_use_before_those_that_ended(
    vendor: LocalVendor,
) -> None:
    owner = vendor.key()
    other, project, archived = vendor.key(), with_project(vendor, owner), with_project(vendor, owner, "old")
    of_project = issued(vendor, owner, project=project)
    expired = issued(vendor, owner, expires_at=vendor.clock() + SECOND)
    without = issued(vendor, owner, project=archived)
    revoke(vendor, with_keys(vendor, owner, 60))
    with_keys(vendor, owner, 110, label="<in use>")
    with vendor.books.write() as session:
        projects.archive(Act(session, "os:test", vendor.clock), vendor.account(owner).name, archived)
    vendor.clock.advance(1)
    admin = admin_of(vendor, owner)
    with vendor.books.read() as session:
        account_id = vendor.account(owner).id
        order = (ApiKey.created_at.desc(), ApiKey.id.desc())
        found = session.scalars(select(ApiKey).where(ApiKey.account_id == account_id).order_by(*order)).all()
        good = [each.id for each in found if not why_ended(each, vendor.clock())]
        ended = [each.id for each in found if each.id not in good]
    assert {key_id(expired), key_id(without)} <= set(ended)
    assert {key_id(owner), key_id(of_project)} <= set(good)
    first = admin.page("/keys")
    assert IN_USE.findall(first) == good[:25]
    assert CODES.findall(first) == good[:25] + ended[:25]
    more, more_ended = OLDER.findall(first)
    second = admin.page(f"/keys{more}")
    assert IN_USE.findall(second) == good[25:50]
    assert IN_USE.findall(admin.page(f"/keys{OLDER.findall(second)[0]}")) == good[50:75]
    assert CODES.findall(admin.page(f"/keys{more_ended}")) == good[:25] + ended[25:50]
    assert admin.get(f"/keys?before={key_id(other)}").status_code == 404
    assert CODES.findall(signed_in(vendor, of_project).page("/keys")) == [key_id(of_project)]


def test_forms_offer_some_of_many_keys_and_take_any(vendor: LocalVendor) -> None:
    owner = vendor.key()
    vendor.embed(owner, CAT)
    own = issued(vendor, owner, scopes=frozenset({Scope.ADMIN}))
    made = with_keys(vendor, owner, 130)
    admin = signed_in(vendor, own)
    assert OFFERED.findall(admin.page("/models")) == [key_id(own), *made[:-100:-1]]
    assert try_it(vendor, admin, owner).status_code == 200
    # The last one bought what is shown.
    assert OFFERED.findall(admin.page("/ledger")) == [*made[:-101:-1], key_id(owner)]
    chosen = admin.page(f"/ledger?key={made[0]}")
    assert f'<option value="{made[0]}" selected>' in chosen
    assert "No entry matches" in chosen


def test_a_report_by_key_has_some_of_many_rows_and_says_so(
    vendor: LocalVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = vendor.key()
    keys = sorted((owner, issued(vendor, owner, label="laptop")), key=key_id)
    for each in keys:
        vendor.embed(each, CAT)
    visit = signed_in(vendor, owner)
    path = "/usage?group=key"
    assert CODES.findall(visit.page(path)) == [key_id(each) for each in keys]
    assert "The first" not in visit.page(path)
    monkeypatch.setattr(pages, "_MOST_ROWS", 1)
    page = visit.page(path)
    assert CODES.findall(page) == [key_id(keys[0])]
    assert "The first 1 of 2 rows; the file has all." in page
    assert len(visit.page("/usage.csv?group=key").splitlines()) == 4
