"""Customers at the console: how they got there, and what there is of theirs."""

import re
from secrets import token_hex
from types import SimpleNamespace
from typing import Any

import httpx
from sqlalchemy import select

from tests.vendor_service.console.jobs import begun
from tests.vendor_service.console.visits import Visit
from tests.vendor_service.local_vendor import LocalVendor, image_file
from vendor_service.accounts.keys import KeyTerms, Scope
from vendor_service.accounts.projects import ProjectTerms
from vendor_service.acts import invitations, keys, projects
from vendor_service.acts.act import Act
from vendor_service.clock import SECOND
from vendor_service.console.acts import Acts
from vendor_service.console.customers.acts import CustomerFace
from vendor_service.console.customers.pages import CustomerPages
from vendor_service.database.tables import (
    Account,
    ConsoleSession,
    Invitation,
    WebhookEndpoint,
    WebhookEvent,
)
from vendor_service.webhooks import events
from vendor_service.webhooks.events import EventKind

CAT = {"text": "a photo of a cat"}
EVIL = "<script>alert('x')</script>\"'>"
BACKSLASH = chr(92)
HOUR = 3600
HOOK = "https://example.com/hooks"
SIGNING = re.compile(r"whsec_[A-Za-z0-9+/=]{40,}")
SECRET = re.compile("tk_[0-9a-f]{16}_[0-9a-f]{48}")
Files = list[tuple[str, tuple[str | None, bytes | str]]]


def _site(*, runs_jobs: bool) -> tuple[list[str], list[str]]:
    """The paths of all pages and of all actions, with the names that they take."""
    nothing: Any = SimpleNamespace(database=None, watch=None)
    forms = Acts(CustomerFace(nothing, runs_jobs))
    pages = CustomerPages(nothing, nothing, forms, runs_jobs).all()
    return [page.path for page in pages], [action.path for action in forms.actions()]


_PAGES, ACTIONS = _site(runs_jobs=True)
# Those of a credit note, which few accounts have, stand apart.
NOTE_PAGES = [each for each in _PAGES if "{number}" in each]
PAGES = [each for each in _PAGES if each not in NOTE_PAGES]


def paths(*, runs_jobs: bool) -> list[str]:
    """The paths of all pages and actions where the vendor runs jobs, or none."""
    return [path for each in _site(runs_jobs=runs_jobs) for path in each]


def signed_in(vendor: LocalVendor, key: str) -> Visit:
    visit = Visit(vendor.http)
    answer = visit.sign_in(key=key)
    assert answer.status_code == 303, answer.text
    return visit


def admin_of(vendor: LocalVendor, key: str) -> Visit:
    return signed_in(vendor, vendor.another_key(key, Scope.ADMIN))


def invited(vendor: LocalVendor, key: str, hours: int = 72) -> str:
    with vendor.books.write() as session:
        act = Act(session, "os:test", vendor.clock)
        return invitations.invite(act, vendor.account(key).name, hours).code


def key_id(key: str) -> str:
    return key.split("_")[1]


def path_of(pattern: str, key: str, month: str = "2026-11") -> str:
    return pattern.replace("{month}", month).replace("{key_id}", key_id(key))


def path_for(vendor: LocalVendor, pattern: str, key: str) -> str:
    """The path of a page or an action about what this key has, which gets a job if it is about one."""
    path = path_of(pattern, key)
    if "{batch_id}" in path:
        return path.replace("{batch_id}", begun(vendor, key, "a cat")["id"])
    if "{session_id}" in path:
        return path.replace("{session_id}", session_of(vendor, key))
    if "{invitation_id}" in path:
        return path.replace("{invitation_id}", open_invitation(vendor, key))
    if "{endpoint_id}" not in path:
        return path
    receiver = receiver_of(vendor, key)
    return path.replace("{endpoint_id}", receiver).replace("{event_id}", event_for(vendor, key))


def issued(vendor: LocalVendor, owner: str, **terms: Any) -> str:
    """One more key of the same account, on these `KeyTerms`."""
    with vendor.books.write() as session:
        act = Act(session, "os:test", vendor.clock)
        return keys.issue(act, vendor.account(owner).name, KeyTerms(**terms)).api_key


def with_project(vendor: LocalVendor, owner: str, name: str = "search") -> str:
    with vendor.books.write() as session:
        act = Act(session, "os:test", vendor.clock)
        projects.create(act, vendor.account(owner).name, name, ProjectTerms())
    return name


def session_of(vendor: LocalVendor, key: str) -> str:
    """Sign somebody in with a key; the id of that session."""
    with vendor.books.read() as session:
        before = set(session.scalars(select(ConsoleSession.id)))
    signed_in(vendor, key)
    with vendor.books.read() as session:
        (made,) = set(session.scalars(select(ConsoleSession.id))) - before
    return made


def open_invitation(vendor: LocalVendor, key: str) -> str:
    """Have somebody be invited to the account of a key, of which nobody has a record; the invitation's id."""
    made = Invitation(id=token_hex(8), account_id=vendor.account(key).id, secret_hash="")
    made.created_at, made.expires_at = vendor.clock(), vendor.clock() + HOUR * SECOND
    with vendor.books.write() as session:
        session.add(made)
    return made.id


def event_for(vendor: LocalVendor, key: str) -> str:
    """Have something happen to the account of a key, of which its receivers are told; the event's id."""
    with vendor.books.write() as session:
        account = session.get_one(Account, vendor.account(key).id)
        events.emit(session, EventKind.KEY_ROTATED, account, {}, vendor.clock())
        happened = select(WebhookEvent).where(WebhookEvent.account_id == account.id)
        return session.scalars(happened.order_by(WebhookEvent.created_at.desc())).all()[0].id


def receiver_of(vendor: LocalVendor, key: str) -> str:
    """Add a receiver to the account of a key; its id."""
    made = admin_of(vendor, key).ask("/events/receivers/add", address=HOOK)
    assert SIGNING.search(made.text), made.text
    with vendor.books.read() as session:
        mine = select(WebhookEndpoint).where(WebhookEndpoint.account_id == vendor.account(key).id)
        return session.scalars(mine.order_by(WebhookEndpoint.created_at.desc())).all()[0].id


def try_it(vendor: LocalVendor, visit: Visit, key: str, **form: str) -> httpx.Response:
    files: Files = [
        ("image", ("red.png", image_file("red"))), ("image", ("also red.png", image_file("red"))),
        ("text", (None, "<b>red</b>")),
    ]  # fmt: skip
    fields = {"csrf": visit.csrf, "key": key_id(key), "most": "220", "once": once_on(visit)} | form
    headers = {"cookie": visit.cookie}
    return vendor.http.post("/console/models/try", data=fields, files=files, headers=headers)


def once_on(visit: Visit) -> str:
    """What the form of a new page of models brings, if there is a form."""
    found = re.search(r'name="once" value="([^"]+)"', visit.page("/models"))
    return "" if found is None else found[1]
