"""`/console` without a browser: who gets in, what is theirs, what they may change, and nobody else."""

import http.cookies
import re
from collections.abc import Iterator
from concurrent.futures import Future
from html import unescape
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from pypdf import PdfReader
from sqlalchemy import select

from shared.errors import ErrorCode
from tests.vendor_service.batches.held_model import HeldModel
from tests.vendor_service.console.jobs import begun, ended
from tests.vendor_service.console.visits import Visit, problem_of
from tests.vendor_service.local_vendor import LocalVendor, image_file, image_input
from vendor_service.accounts.keys import KeyTerms, Scope
from vendor_service.accounts.projects import ProjectTerms
from vendor_service.audit import log
from vendor_service.billing.admission import Admission
from vendor_service.billing.orders import Charged
from vendor_service.clock import SECOND
from vendor_service.console.customers.actions import CustomerActions
from vendor_service.console.customers.pages import CustomerPages
from vendor_service.console.rendering import money as money_shown
from vendor_service.database.tables import (
    Account,
    Invitation,
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookEvent,
)
from vendor_service.errors import CommitInDoubt
from vendor_service.operators import accounts as account_acts
from vendor_service.operators import currency, invitations, keys, money, projects, webhooks
from vendor_service.operators.act import Act
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
# Every page, with the names that its path takes.
DESK: Any = object()  # of bulk jobs, which have pages where there is one
PAGES = [page.path for page in CustomerPages.all(CustomerPages(None, None, None, None, DESK))]  # type: ignore[arg-type]
ACTIONS = [action.path for action in CustomerActions.all(CustomerActions(None, None, DESK))]  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalVendor]:
    folder = tmp_path_factory.mktemp("vendor")
    with LocalVendor(folder, batch_store=str(folder / "store")) as local:
        yield local


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
    if "{endpoint_id}" not in path:
        return path
    receiver = receiver_of(vendor, key)
    return path.replace("{endpoint_id}", receiver).replace("{event_id}", event_for(vendor, key))


def test_a_key_that_may_read_signs_in_and_its_cookie_is_kept_from_everything_else(
    vendor: LocalVendor,
) -> None:
    answer = Visit(vendor.http).sign_in(key=vendor.key())
    assert answer.headers["location"] == "/console?begun=1"
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("__Host-tuition-console=")
    for attribute in ("HttpOnly", "Secure", "SameSite=lax", "Path=/", "Max-Age=43200"):
        assert attribute in cookie
    assert "Domain" not in cookie


def test_who_may_not_read_or_is_unknown_does_not_get_in(vendor: LocalVendor) -> None:
    owner = vendor.key()
    for key, status in ((vendor.another_key(owner, Scope.EMBED), 403), (owner[:-1] + "x", 401), ("", 401)):
        answer = Visit(vendor.http).sign_in(key=key)
        assert answer.status_code == status
        assert problem_of(answer)
        assert "set-cookie" not in answer.headers
    signed_out = Visit(vendor.http).get("/ledger?kind=charge")
    assert signed_out.headers["location"] == "/console/sign-in?next=%2Fledger%3Fkind%3Dcharge"


def test_wrong_secrets_of_a_key_are_not_tried_for_ever_and_keep_no_other_key_out(vendor: LocalVendor) -> None:
    owner = vendor.key()
    wrong = owner[:-2] + ("00" if owner[-2:] != "00" else "11")
    statuses = [Visit(vendor.http).sign_in(key=wrong).status_code for _ in range(12)]
    assert statuses == [401] * 10 + [429] * 2
    assert Visit(vendor.http).sign_in(key=owner).status_code == 429
    assert Visit(vendor.http).sign_in(key=vendor.key()).status_code == 303


def test_after_signing_in_one_is_where_one_wanted_to_be_but_never_elsewhere(vendor: LocalVendor) -> None:
    key = vendor.key()
    for wanted, location in (
        ("/ledger?kind=refund", "/console/ledger?kind=refund&begun=1"),
        ("//evil.example/", "/console?begun=1"),
        ("https://evil.example/", "/console?begun=1"),
        ("/\\evil.example", "/console?begun=1"),
    ):
        answer = vendor.http.post("/console/sign-in", params={"next": wanted}, data={"key": key})
        assert answer.headers["location"] == location


@pytest.mark.parametrize("pattern", PAGES)
def test_every_page_can_be_read_with_a_strict_policy_and_needs_a_session(
    vendor: LocalVendor, reader: Visit, pattern: str
) -> None:
    answer = reader.get(path_of(pattern, "tk_0_0"))
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    if answer.headers["content-type"].startswith("text/html"):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert not re.search(r"<script>|<style|\sstyle=|\son\w+=", answer.text)
    stranger = vendor.http.get(f"/console{path_of(pattern, 'tk_0_0')}")
    assert stranger.status_code == 303


@pytest.fixture(scope="module")
def reader(vendor: LocalVendor) -> Visit:
    key = vendor.key(quota=100, spend_limit_micros=10**6, queries_per_second=100)
    vendor.embed(key, CAT, image_input())
    return signed_in(vendor, key)


def test_what_pages_load_is_in_the_package_and_small(vendor: LocalVendor, reader: Visit) -> None:
    page = reader.page()
    files = set(re.findall(r'(?:src|href)="(/console/assets/[^"]*)"', page))
    assert len(files) == 3
    sizes = [len(vendor.http.get(each).content) for each in files]
    assert sum(sizes) + len(page) < 100_000
    assert not re.findall(r'(?:src|href|action)="(?:https?:)?//', page)
    assert vendor.http.get("/console/assets/base.html").status_code == 404


def test_a_session_ends_when_it_is_old_when_it_is_idle_and_when_one_signs_out(vendor: LocalVendor) -> None:
    key = vendor.key()
    visit, idle, other = (signed_in(vendor, key) for _ in range(3))
    try:
        for _ in range(7):
            vendor.clock.advance(1.5 * HOUR)
            assert visit.get().status_code == 200
        assert idle.get().status_code == 303
        vendor.clock.advance(1.5 * HOUR)
        assert visit.get().status_code == 303
        other = signed_in(vendor, key)
        assert other.ask("/sign-out").headers["location"] == "/console/sign-in"
        assert other.get().status_code == 303
    finally:
        vendor.clock.advance(-12 * HOUR)


def test_signing_out_everywhere_ends_the_sessions_of_the_account_or_for_readers_of_their_key(
    vendor: LocalVendor,
) -> None:
    key = vendor.key()
    first, second, admin, stranger = (
        signed_in(vendor, key), signed_in(vendor, key), admin_of(vendor, key), signed_in(vendor, vendor.key())
    )  # fmt: skip
    assert "Ends those of your key, this one included" in first.page("/sessions")
    first.ask("/sign-out", everywhere="yes")
    assert [each.get().status_code for each in (first, second, admin)] == [303, 303, 200]
    again = signed_in(vendor, key)
    admin.ask("/sign-out", everywhere="yes")
    assert [each.get().status_code for each in (again, admin, stranger)] == [303, 303, 200]


def test_a_session_ends_with_the_secret_that_began_it(vendor: LocalVendor) -> None:
    key = vendor.key()
    visit, admin = signed_in(vendor, key), admin_of(vendor, key)
    assert "shown again" in admin.do(f"/keys/{key_id(key)}/rotate", grace="3600").text
    assert visit.get().status_code == 200
    vendor.clock.advance(HOUR)
    assert visit.get().status_code == 303
    vendor.clock.advance(-HOUR)
    admin.do(f"/keys/{key_id(key)}/revoke")
    assert visit.get().status_code == 303


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


def test_a_session_ends_with_its_key_and_with_the_project_of_its_key(vendor: LocalVendor) -> None:
    owner = vendor.key()
    project = with_project(vendor, owner)
    until = vendor.clock() + HOUR * SECOND
    expiring = signed_in(vendor, issued(vendor, owner, expires_at=until))
    archived = signed_in(vendor, issued(vendor, owner, project=project))
    vendor.clock.advance(HOUR - 1)
    assert [each.get().status_code for each in (expiring, archived)] == [200, 200]
    vendor.clock.advance(1)
    assert expiring.get().status_code == 303
    with vendor.books.write() as session:
        projects.archive(Act(session, "os:test", vendor.clock), vendor.account(owner).name, project)
    assert archived.get().status_code == 303
    vendor.clock.advance(-HOUR)
    assert expiring.get().status_code == 200


def test_a_key_that_expired_or_whose_project_was_archived_pays_for_nothing_and_is_not_changed(
    vendor: LocalVendor,
) -> None:
    owner = vendor.key()
    project = with_project(vendor, owner)
    ended = [
        issued(vendor, owner, expires_at=vendor.clock() + SECOND),
        issued(vendor, owner, project=project),
    ]
    admin = admin_of(vendor, owner)
    assert all(f'<option value="{key_id(each)}"' in admin.page("/models") for each in ended)
    vendor.clock.advance(1)
    with vendor.books.write() as session:
        projects.archive(Act(session, "os:test", vendor.clock), vendor.account(owner).name, project)
    page = admin.page("/models")
    for each, why in zip(ended, ("expired at", "was archived"), strict=True):
        assert f'<option value="{key_id(each)}"' not in page
        assert try_it(vendor, admin, each).status_code == 403
        for act in ("rotate", "revoke"):
            assert why in problem_of(admin.ask(f"/keys/{key_id(each)}/{act}"))
    assert vendor.account(owner).spent_micros == 0
    vendor.clock.advance(-1)


def test_a_key_of_a_project_sees_and_manages_the_keys_of_it_alone_and_is_signed_out_alone(
    vendor: LocalVendor,
) -> None:
    owner = vendor.key()
    project = with_project(vendor, owner)
    mine = issued(vendor, owner, project=project, label="of the project", scopes=frozenset({Scope.ADMIN}))
    theirs = issued(vendor, owner, label="of somebody else")
    visit, other, whole = signed_in(vendor, mine), signed_in(vendor, theirs), admin_of(vendor, owner)
    for path in ("/keys", "/models", "/usage?group=key", "/ledger", "/sessions"):
        page = visit.page(path)
        assert "of somebody else" not in page, path
        assert key_id(theirs) not in page, path
    assert "of the project" in visit.page("/keys")
    for act in ("rotate", "revoke"):
        assert visit.do(f"/keys/{key_id(theirs)}/{act}").status_code == 404
    assert try_it(vendor, visit, theirs).status_code == 403
    (made,) = SECRET.findall(visit.ask("/keys/create", scope="embed", label="new").text)
    assert vendor.get("/v1/keys", mine)["data"][-1]["project"] == project
    assert whole.do(f"/keys/{key_id(made)}/revoke").status_code == 303
    assert "Ends those of your key, this one included" in visit.page("/sessions")
    assert "Ends all of these, this one included" in whole.page("/sessions")
    visit.ask("/sign-out", everywhere="yes")
    assert [each.get().status_code for each in (visit, other, whole)] == [303, 200, 200]


def test_a_customer_makes_a_key_with_an_end_and_limits_in_a_project(vendor: LocalVendor) -> None:
    owner = vendor.key()
    project, admin = with_project(vendor, owner), admin_of(vendor, owner)
    form = {"scope": "embed", "rate": "7", "concurrency": "3", "last_day": "2026-11-30"}
    admin.ask("/keys/create", label="indexer", project=project, **form)
    (made,) = [each for each in vendor.get("/v1/keys", vendor.another_key(owner, Scope.ADMIN))["data"]
               if each["label"] == "indexer"]  # fmt: skip
    assert (made["project"], made["queries_per_second"], made["concurrency"]) == (project, 7, 3)
    assert made["expires_at"] == "2026-12-01T00:00:00Z"
    page = admin.page("/keys")
    for shown in (f"project {project}", "7 a second, 3 at once", 'ends <time datetime="2026-12-01T00:00:00'):
        assert shown in page
    assert "no project" in problem_of(admin.ask("/keys/create", project="nothing", **form))
    assert "not in the past" in problem_of(admin.ask("/keys/create", **form | {"last_day": "2026-11-14"}))


def test_a_key_with_limits_of_its_own_makes_none_without(vendor: LocalVendor) -> None:
    admin = signed_in(vendor, issued(vendor, vendor.key(), quota=5, scopes=frozenset({Scope.ADMIN})))
    assert admin.ask("/keys/create", scope="embed").status_code == 403


def test_a_cookie_that_was_changed_or_is_of_another_vendor_is_nobodys(vendor: LocalVendor) -> None:
    visit = signed_in(vendor, vendor.key())
    name, _, value = visit.cookie.partition("=")
    written, _, tag = value.partition(".")
    for forged in (
        f"{written}.",
        f"{written}.{tag[:-2]}AA",
        f"{written[:-2]}AA.{tag}",
        "",
        ".",
        "a.b.c",
        "ü",
    ):
        answer = vendor.http.get("/console", headers={b"cookie": f"{name}={forged}".encode()})
        assert answer.status_code == 303


def test_no_cookie_that_takes_long_to_undo_is_undone_on_any_path(
    vendor: LocalVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def undo(_: str) -> str:
        raise AssertionError("Python takes quadratic time for this")

    visit = signed_in(vendor, vendor.key())
    monkeypatch.setattr(http.cookies, "_unquote", undo)
    for length, status in ((1000, 200), (60_000, 303)):  # where they are too long, none is read
        head = {"cookie": f'x="{length * BACKSLASH}"; {visit.cookie}'}
        assert vendor.http.get("/console", headers=head).status_code == status
        for path, answered in (("/console/sign-in", 200), ("/livez", 200), ("/embed", 405), ("/none", 404)):
            assert vendor.http.get(path, headers=head).status_code == answered


def test_an_invitation_signs_in_once_and_only_when_its_button_is_pressed(vendor: LocalVendor) -> None:
    key = vendor.key()
    code = invited(vendor, key)
    for _ in range(2):  # as a mail program would, that looks where links lead
        assert vendor.http.get("/console/invitation", params={"code": code}).status_code == 200
    visit = Visit(vendor.http)
    assert visit.sign_in("/invitation", code=code).status_code == 303
    made = visit.ask("/keys/create", scope="admin", label="mine").text
    assert re.search(r"tk_[0-9a-f]{16}_[0-9a-f]{48}", made)
    again = Visit(vendor.http).sign_in("/invitation", code=code)
    assert (again.status_code, "used already" in problem_of(again)) == (404, True)
    with vendor.books.read() as session:
        acts = log.entries(session, limit=3, subject=vendor.account(key).name)
        (row,) = [session.get_one(Invitation, each.after["invitation_id"]) for each in acts[:1] if each.after]
    assert row.used_at == vendor.clock()
    assert [each.action for each in acts] == ["account.invite", "account.join", "key.create"]
    assert {each.actor for each in acts[1:]} == {f"invitation:{code.split('_')[1]}"}
    assert code.split("_")[2] not in row.secret_hash


def test_an_invitation_that_is_old_or_made_up_signs_nobody_in(vendor: LocalVendor) -> None:
    code = invited(vendor, vendor.key(), hours=1)
    vendor.clock.advance(HOUR)
    wrong = code[:-1] + ("0" if code[-1] != "0" else "1")
    for each in (code, wrong, "", "in_1_2"):
        assert Visit(vendor.http).sign_in("/invitation", code=each).status_code == 404
    vendor.clock.advance(-HOUR)


def test_a_stranger_keeps_nobody_from_using_an_invitation(tmp_path: Path) -> None:
    with LocalVendor(tmp_path) as vendor:
        code, other = (invited(vendor, vendor.key()) for _ in range(2))
        made_up = [f"tk_{'0' * 16}_{'0' * 48}", f"in_{'0' * 16}_{'0' * 48}"]
        for _ in range(11):
            Visit(vendor.http).sign_in(key=made_up[0])
            Visit(vendor.http).sign_in("/invitation", code=made_up[1])
        assert Visit(vendor.http).sign_in(key=made_up[0]).status_code == 429
        assert Visit(vendor.http).sign_in("/invitation", code=made_up[1]).status_code == 429
        wrong = f"{code.rpartition('_')[0]}_{'0' * 48}"
        statuses = [Visit(vendor.http).sign_in("/invitation", code=wrong).status_code for _ in range(11)]
        assert statuses == [404] * 10 + [429]
        assert Visit(vendor.http).sign_in("/invitation", code=code).status_code == 429
        assert Visit(vendor.http).sign_in("/invitation", code=other).status_code == 303


@pytest.mark.parametrize("pattern", [*ACTIONS, "/sign-out"])
def test_no_form_is_taken_without_its_sessions_token_or_from_another_site(
    vendor: LocalVendor, pattern: str
) -> None:
    key = vendor.key()
    admin, other = admin_of(vendor, key), admin_of(vendor, key)
    path, form = path_for(vendor, pattern, key), {"scope": "embed", "address": HOOK, "confirmed": "yes"}
    for csrf in ("", other.csrf):
        assert admin.send(path, form | {"csrf": csrf}).status_code == 403
    good = form | {"csrf": admin.csrf}
    for headers in (
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "http://evil"},
        {"origin": "http://["},
    ):
        assert admin.send(path, good, **headers).status_code == 403
    with vendor.books.read() as session:
        acts = log.entries(session, limit=10, subject=vendor.account(key).name)
    assert not acts
    assert admin.send(path, good, **{"sec-fetch-site": "same-origin"}).status_code in (200, 303)


@pytest.mark.parametrize("path", ["/sign-in", "/invitation", "/models/try"])
def test_an_origin_that_is_none_is_another_site(vendor: LocalVendor, path: str) -> None:
    for origin in ("http://[", "null", ""):
        answer = vendor.http.post(f"/console{path}", data={"key": ""}, headers={"origin": origin})
        assert answer.status_code == 403


@pytest.mark.parametrize("pattern", ACTIONS)
def test_who_may_only_read_and_whose_account_is_suspended_changes_nothing(
    vendor: LocalVendor, pattern: str
) -> None:
    key = vendor.key()
    reader, admin, path = signed_in(vendor, key), admin_of(vendor, key), path_for(vendor, pattern, key)
    assert reader.do(path, scope="embed").status_code == 403
    with vendor.books.write() as session:
        account_acts.suspend(Act(session, "os:test", vendor.clock), vendor.account(key).name)
    assert "suspended" in problem_of(admin.do(path, scope="embed"))
    assert "suspended" in admin.page()
    with vendor.books.read() as session:
        acts = [each.action for each in log.entries(session, subject=vendor.account(key).name)]
    assert acts == ["account.suspend"]


def test_nothing_of_another_account_is_reached_by_any_page_or_action(
    vendor: LocalVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vendor_service.api.history_rate.BURST", 1000.0)
    theirs, mine = vendor.key(quota=777), vendor.key()
    job = ended(vendor, theirs, begun(vendor, theirs, "a", "b", metadata={"for": "a private reason"}))
    request = vendor.embed(theirs, CAT).headers["x-request-id"]
    stranger, hook = admin_of(vendor, mine), receiver_of(vendor, theirs)
    event = event_for(vendor, theirs)
    with vendor.books.write() as session:
        money.adjust(Act(session, "os:t", vendor.clock), vendor.account(theirs).name, -5, "a private reason")
    secrets = (
        key_id(theirs),
        request,
        vendor.account(theirs).name,
        vendor.account(theirs).id,
        "private reason",
        job["id"],
        job["input_file_id"],
        job["output_file_id"],
        hook,
        event,
    )
    account = vendor.account(theirs)
    for pattern in PAGES:
        path = path_of(pattern, theirs)
        for query in ("", f"?key={key_id(theirs)}", f"?account={account.id}", f"?account={account.name}"):
            answer = stranger.get(f"{path}{query}")
            assert answer.status_code in (200, 400), path
            page = re.sub(r'value="[^"]*"|href="[^"]*"', "", answer.text)
            assert not [each for each in secrets if each in page], path
    for pattern in [each for each in ACTIONS if "{" in each]:
        path = path_of(pattern, theirs).replace("{batch_id}", job["id"])
        answer = stranger.do(path.replace("{endpoint_id}", hook).replace("{event_id}", event))
        assert answer.status_code == 404
        assert problem_of(answer).startswith("This account has no ")
    assert stranger.get(f"/batches?after={job['id']}").status_code == 404
    for file_id in (job["input_file_id"], job["output_file_id"]):
        assert stranger.get(f"/batches/files/{file_id}").status_code == 404
    files: Files = [("image", ("a.png", image_file())), ("text", (None, "a"))]
    form = {"csrf": stranger.csrf, "key": key_id(theirs)}
    tried = vendor.http.post(
        "/console/models/try", data=form, files=files, headers={"cookie": stranger.cookie}
    )
    assert tried.status_code == 403
    assert vendor.account(theirs).ledger_seq == 3
    assert vendor.embed(theirs, CAT).status_code == 200


def test_what_people_wrote_is_shown_and_never_run(vendor: LocalVendor) -> None:
    key = vendor.key(credit_micros=1000)
    name = vendor.account(key).name
    with vendor.books.write() as session:
        act = Act(session, "os:test", vendor.clock)
        keys.issue(act, name, KeyTerms(label=EVIL))
        money.adjust(act, name, 7, EVIL)
    begun(vendor, key, "a cat", metadata={EVIL: EVIL})
    admin = admin_of(vendor, key)
    assert admin.ask("/keys/create", scope="embed", label=EVIL).status_code == 200
    shown = 0
    for pattern in PAGES:
        answer = admin.get(f"{path_of(pattern, key)}?kind={EVIL}&key={EVIL}&from=&before=")
        if answer.headers["content-type"].startswith("text/html"):
            assert "<script>alert" not in answer.text
            shown += answer.text.count("&lt;script&gt;")
    assert shown >= 6
    assert "&lt;script&gt;" in admin.ask(f"/keys/{key_id(key)}/rotate", extra=EVIL).text
    sheet = admin.get("/ledger.csv").text
    assert EVIL.replace('"', '""') in sheet


def test_a_customer_makes_rotates_and_revokes_keys_as_itself(vendor: LocalVendor) -> None:
    owner = vendor.key(quota=50)
    admin_key = vendor.another_key(owner, Scope.ADMIN)
    admin = signed_in(vendor, admin_key)
    made = admin.ask(
        "/keys/create", label="laptop", scope=["embed", "usage:read"], quota="3", spend_limit="0.00004"
    )
    (new,) = re.findall(r"tk_[0-9a-f]{16}_[0-9a-f]{48}", made.text)
    assert [vendor.embed(new, CAT).status_code for _ in range(3)] == [200, 200, 402]
    assert "0.00004" in admin.page("/keys")
    asked = admin.ask(f"/keys/{key_id(new)}/rotate", grace="0")
    assert "at once" in asked.text
    assert vendor.embed(new, image_input()).status_code == 402  # nothing was done yet
    (renewed,) = re.findall(
        r"tk_[0-9a-f]{16}_[0-9a-f]{48}", admin.confirm(f"/keys/{key_id(new)}/rotate", asked).text
    )
    assert (renewed != new, vendor.get("/v1/account", renewed)["queries_used"]) == (True, 2)
    assert admin.do(f"/keys/{key_id(new)}/revoke").headers["location"] == "/console/keys"
    assert vendor.embed(renewed, CAT).json()["error"]["code"] == "key_revoked"
    # The key with which one is signed in can be rotated without being signed out.
    assert admin.do(f"/keys/{key_id(admin_key)}/rotate", grace="0").status_code == 200
    assert admin.get("/keys").status_code == 200
    with vendor.books.read() as session:
        acts = log.entries(session, subject=vendor.account(owner).name)
    assert [each.action for each in acts] == ["key.create", "key.rotate", "key.revoke", "key.rotate"]
    assert {each.actor for each in acts} == {f"key:{key_id(admin_key)}"}


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"quota": "many", "scope": "embed"}, "write a whole number"),
        ({"spend_limit": "1.2345678", "scope": "embed"}, "to the millionth at most"),
        ({"spend_limit": "NaN", "scope": "embed"}, "write an amount"),
        ({"quota": "-1", "scope": "embed"}, "must be between 0"),
        ({"quota": "9" * 20, "scope": "embed"}, "write a whole number"),
        ({"spend_limit": "Infinity", "scope": "embed"}, "write an amount"),
        ({"spend_limit": "9e999999", "scope": "embed"}, "write an amount"),
        ({"label": "\0", "scope": "embed"}, "cannot be read"),
        ({}, "tick at least one"),
    ],
)
def test_a_field_that_makes_no_sense_is_told_with_what_to_do(
    vendor: LocalVendor, admin: Visit, form: dict[str, str], words: str
) -> None:
    answer = admin.ask("/keys/create", **form)
    assert answer.status_code in (400, 422)
    assert words in problem_of(answer)
    assert "Nothing was changed" in answer.text


@pytest.mark.parametrize(
    "path",
    [
        f"/ledger?before={'9' * 20}",
        f"/ledger?before=-{'9' * 20}",
        "/ledger?to=9999-12-31",
        f"/ledger/entries?after={'9' * 20}",
        "/usage?to=9999-12-31",
        "/usage.csv?to=9999-12-31",
    ],
)
def test_a_number_or_a_day_that_cannot_be_is_told(vendor: LocalVendor, path: str) -> None:
    answer = signed_in(vendor, vendor.key()).get(path)
    assert answer.status_code == 400
    assert "write a" in problem_of(answer)


@pytest.fixture(scope="module")
def admin(vendor: LocalVendor) -> Visit:
    return admin_of(vendor, vendor.key())


def test_pages_tell_what_the_api_tells(vendor: LocalVendor) -> None:
    key = vendor.key(quota=100, credit_micros=5000)
    vendor.embed(key, CAT, image_input(), image_input())
    vendor.embed(key, CAT)
    visit = signed_in(vendor, key)
    usage = vendor.get("/v1/usage", key)["total"]
    rows = visit.get("/usage.csv").text.split()
    assert (
        rows[-1] == f"total,{usage['requests']},{usage['images']},{usage['texts']},4,{usage['cost_micros']}"
    )
    assert "0.00024" in visit.page("/usage")
    for entry in vendor.get("/v1/ledger", key)["data"]:
        assert entry["entry_hash"] in visit.page("/ledger")
    assert "0.00024" in visit.page("/invoices/2026-11")
    assert "so far, not final" in visit.page("/invoices/2026-11")
    assert visit.get("/invoices/2026-10").status_code == 404  # before the account was opened
    overview = visit.page()
    assert "of 100 a month" in overview
    assert "At this pace" in overview
    assert "Dec" in overview or "2026-12-01" in overview


def test_what_each_project_used_is_told_where_there_is_one(vendor: LocalVendor) -> None:
    key = vendor.key()
    vendor.embed(key, CAT)
    visit = signed_in(vendor, key)
    assert "By project" not in visit.page()
    vendor.embed(issued(vendor, key, project=with_project(vendor, key)), CAT, CAT)
    overview = visit.page()
    assert re.search(
        r'By project.*search</th><td class="n">2</td><td class="n">0.00004</td>', overview, re.DOTALL
    )
    usage = visit.page("/usage?group=project")
    for group, requests in (("default", 1), ("search", 1)):
        assert re.search(rf'<th scope="row">{group}</th><td class="n">{requests}</td>', usage)


def test_the_ledger_is_filtered_and_read_page_by_page(vendor: LocalVendor) -> None:
    key = vendor.key(credit_micros=10**6)
    other = vendor.another_key(key, Scope.EMBED)
    for _ in range(3):
        vendor.embed(key, CAT)
    vendor.clock.advance(2 * HOUR)
    vendor.embed(other, CAT)
    vendor.clock.advance(30 * HOUR)
    vendor.embed(key, image_input())
    visit = signed_in(vendor, key)

    def numbers(query: str) -> list[int]:
        return [int(each) for each in re.findall(r'<tr id="entry-(\d+)">', visit.page(f"/ledger{query}"))]

    assert numbers("") == [6, 5, 4, 3, 2, 1]
    assert numbers("?kind=charge") == [6, 5, 4, 3, 2]
    assert numbers("?kind=top_up") == [1]
    assert numbers(f"?key={key_id(other)}") == [5]
    assert numbers(f"?key={key_id(key)}&before=6") == [4, 3, 2]
    assert numbers("?from=2026-11-16") == [6]
    assert numbers("?to=2026-11-15&kind=charge") == [5, 4, 3, 2]
    assert numbers("?model=another") == []
    vendor.clock.advance(-32 * HOUR)


def test_what_was_refused_is_told_with_the_reason(vendor: LocalVendor) -> None:
    key = vendor.key(quota=1)
    vendor.embed(key, CAT, CAT)
    bad = vendor.embed(key, {"image": "AAAA"}).json()["error"]["code"]
    visit = signed_in(vendor, key)
    visit.get("/nothing")  # a page that is not there is no refusal of the API
    vendor.app.state.refusals.write()
    overview = visit.page()
    for code in ("quota_exhausted", bad):
        assert re.search(rf"<code>{code}</code></th><td class=\"n\">1</td>", overview)
    assert "not_found" not in overview
    vendor.embed(key, CAT, CAT)
    vendor.app.state.refusals.write()
    assert re.search(r"<code>quota_exhausted</code></th><td class=\"n\">2</td>", visit.page())


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


def test_a_model_is_tried_and_charged_once_to_the_chosen_key(vendor: LocalVendor) -> None:
    key = vendor.key()
    visit, admin = signed_in(vendor, key), admin_of(vendor, key)
    page = try_it(vendor, visit, key)
    assert page.status_code == 200
    assert re.findall(r"<b>(-?\d\.\d{3})</b>", page.text)[0] == "1.000"  # an image and itself
    assert "cost 0.00022 units" in page.text
    assert "<b>red</b>" not in page.text
    assert vendor.account(key).spent_micros == 220
    assert try_it(vendor, admin, key).status_code == 200
    assert vendor.account(key).spent_micros == 440
    assert try_it(vendor, visit, key, most="219").status_code == 402
    assert try_it(vendor, visit, key, csrf="").status_code == 403
    reader = signed_in(vendor, vendor.another_key(key, Scope.READ_USAGE))
    assert try_it(vendor, reader, key).status_code == 403
    assert "To try a model takes a key that may embed" in reader.page("/models")
    assert vendor.account(key).spent_micros == 440


def test_a_trial_of_which_nobody_heard_is_charged_once_from_the_same_page(
    vendor: LocalVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = vendor.key()
    visit = signed_in(vendor, key)
    once = once_on(visit)
    settle = Admission.settle

    def unanswered(*given: Any) -> Future[Charged]:
        settle(*given).result(20)
        lost: Future[Charged] = Future()
        lost.set_exception(CommitInDoubt(ErrorCode.OVERLOADED, "send it again with the same Idempotency-Key"))
        return lost

    with monkeypatch.context() as cut:
        cut.setattr(Admission, "settle", unanswered)
        doubtful = try_it(vendor, visit, key, once=once)
    assert "it may have been" in problem_of(doubtful)
    assert "Nothing was changed" not in doubtful.text
    assert vendor.account(key).spent_micros == 220
    assert "cost 0.00022 units" in try_it(vendor, visit, key, once=once).text
    assert vendor.account(key).spent_micros == 220
    assert "once is empty" in problem_of(try_it(vendor, visit, key, once=""))


def test_jobs_are_seen_with_their_cost_and_their_files_are_sent_to_who_may_buy(vendor: LocalVendor) -> None:
    key = vendor.key()
    visit = signed_in(vendor, key)
    assert "There are no jobs" in visit.page("/batches")
    job = ended(vendor, key, begun(vendor, key, "a", "b", "c" * 100_000, metadata={"for": "the archive"}))
    page = visit.page("/batches")
    for shown in (job["id"], "completed", "for: the archive", "3 <span class=\"soft\">of 3</span>, 1 refused",
                  f'<td class="n">{money_shown(job["cost_micros"])}</td>'):  # fmt: skip
        assert shown in page, shown
    headers = {"authorization": f"Bearer {key}"}
    for file_id in (job["input_file_id"], job["output_file_id"], job["error_file_id"]):
        assert f"/console/batches/files/{file_id}" in page
        sent = visit.get(f"/batches/files/{file_id}")
        assert sent.content == vendor.http.get(f"/v1/files/{file_id}/content", headers=headers).content
        assert sent.headers["content-disposition"] == f'attachment; filename="{file_id}.jsonl"'
    path = f"/batches/files/{job['output_file_id']}"
    reader = signed_in(vendor, vendor.another_key(key, Scope.READ_USAGE))
    assert "/batches/files/" not in reader.page("/batches")
    assert reader.get(path).status_code == 403
    assert vendor.http.get(f"/console{path}").status_code == 303
    with vendor.books.write() as session:
        account_acts.suspend(Act(session, "os:test", vendor.clock), vendor.account(key).name)
    assert visit.get(path).status_code == 403


def test_without_jobs_there_is_no_page_of_them() -> None:
    pages = CustomerPages.all(CustomerPages(None, None, None, None))  # type: ignore[arg-type]
    actions = CustomerActions.all(CustomerActions(None, None))  # type: ignore[arg-type]
    paths = [*(each.path for each in pages), *(each.path for each in actions)]
    assert not [each for each in paths if "batches" in each]


def test_a_job_is_cancelled_after_a_question_that_says_what_stays(
    vendor: LocalVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = vendor.key()
    admin, held = admin_of(vendor, key), HeldModel(monkeypatch)
    held.stop_at("wait")
    job = begun(vendor, key, "wait", "b")
    assert held.stopped.wait(20)
    page = admin.page("/batches")
    assert "in progress" in page
    assert "0.00002 held" in page
    asked = admin.ask(f"/batches/{job['id']}/cancel")
    assert "2 of its 2 lines are not answered" in asked.text
    assert "at most 0.00002, is free again" in asked.text
    assert vendor.get(f"/v1/batches/{job['id']}", key)["status"] == "in_progress"
    assert admin.confirm(f"/batches/{job['id']}/cancel", asked).headers["location"] == "/console/batches"
    held.go()
    assert vendor.get(f"/v1/batches/{job['id']}", key)["status"] == "cancelled"
    assert "it is cancelled" in problem_of(admin.ask(f"/batches/{job['id']}/cancel"))
    assert vendor.account(key).held_micros == 0


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


def test_what_an_operators_receiver_failed_with_is_not_shown_to_customers(vendor: LocalVendor) -> None:
    key = vendor.key()
    theirs, account = receiver_of(vendor, key), vendor.account(key)
    with vendor.books.write() as session:
        act = Act(session, "os:test", vendor.clock)
        ours = [webhooks.create(act, HOOK, account=account.name).endpoint_id for _ in range(2)]
    told = {theirs: (None, "TimeoutError"), ours[0]: (None, "OSError: 10.1.2.3"), ours[1]: (502, None)}
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
    for shown in ("3 tries, TimeoutError<", "3 tries, not reached<", "3 tries, HTTP 502<"):
        assert shown in page


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"address": "http://example.com/"}, "begins with https://"),
        ({"address": "https://user@example.com/"}, "without a user"),
        ({"address": ""}, "address is empty"),
        ({"address": HOOK, "event": EVIL}, "no kind of events"),
    ],
)
def test_a_receiver_that_cannot_be_is_told_with_what_to_do(
    vendor: LocalVendor, form: dict[str, str], words: str
) -> None:
    answer = admin_of(vendor, vendor.key()).ask("/events/receivers/add", **form)
    assert answer.status_code == 400
    assert words in problem_of(answer)


def test_a_receiver_that_an_operator_added_is_the_vendors(vendor: LocalVendor) -> None:
    key = vendor.key()
    admin = admin_of(vendor, key)
    with vendor.books.write() as session:
        act = Act(session, "os:test", vendor.clock)
        address = "https://example.com/internal"
        theirs = webhooks.create(act, address, account=vendor.account(key).name).endpoint_id
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
        webhooks.create(act, HOOK, account=vendor.account(key).name)
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


def test_invoices_have_numbers_and_credit_notes_and_money_is_in_the_currency_that_is_named(
    tmp_path: Path,
) -> None:
    with LocalVendor(tmp_path) as vendor:
        key = vendor.key(spend_limit_micros=10**6)
        with vendor.books.write() as session:
            act = Act(session, "os:test", vendor.clock)
            currency.name_currency(act, "EUR")
        vendor.embed(key, CAT, CAT)
        vendor.clock.advance(31 * 24 * HOUR)
        visit = signed_in(vendor, key)
        november = visit.page("/invoices/2026-11")
        assert "<dt>Number</dt><dd>1</dd>" in november
        assert "Total, in EUR" in november
        assert "Credit notes" not in november
        saved = visit.get("/invoices/2026-11.pdf")
        assert saved.headers["content-type"] == "application/pdf"
        assert re.search(r'filename="invoice-[a-z0-9-]+-2026-11\.pdf"', saved.headers["content-disposition"])
        shown = PdfReader(BytesIO(saved.content)).pages[0].extract_text()
        assert "Invoice 1 of" in shown
        assert "0.000040" in shown
        assert visit.get("/invoices/2026-10.pdf").status_code == 404  # before the account was opened
        assert "<td>1</td>" in visit.page("/invoices")
        assert "0.00004 EUR" in visit.page("/invoices")
        with vendor.books.write() as session:
            act = Act(session, "os:test", vendor.clock)
            money.refund(act, vendor.account(key).name, 1, 30, "ticket 812")
        december = visit.page("/invoices/2026-12")
        assert re.search(r'2026-11</th><td><a href="[^"]*">Invoice 1</a></td><td class="n">0.00003', december)
        overview = visit.page()
        assert "Charges by day, in EUR" in overview
        assert "Amounts in EUR" in overview
        assert "units" not in overview
        admin = admin_of(vendor, key)
        assert "Spend limit, in EUR" in admin.page("/keys")


def test_the_console_can_be_left_out(tmp_path: Path) -> None:
    with LocalVendor(tmp_path, console=False) as vendor:
        assert vendor.http.get("/console").status_code == 404
        assert vendor.http.get("/v1/models").status_code == 200


def test_a_new_account_finds_what_to_do(vendor: LocalVendor) -> None:
    visit = signed_in(vendor, vendor.key())
    assert "Send the first request" in visit.page()
    assert "There are no entries yet" in visit.page("/ledger")
    begin = unescape(visit.page("/quick-start"))
    assert f"http://127.0.0.1:{vendor.port}/embed" in begin
    assert "# in Tuition's folder\npip install '.[client]'" in begin  # nobody publishes a package tuition
    assert visit.get("/nowhere").status_code == 404


def test_pages_may_not_be_asked_for_all_the_time(
    vendor: LocalVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vendor_service.api.history_rate.QUESTIONS_A_SECOND", 0.01)
    visit = signed_in(vendor, vendor.key())
    answers = [visit.get("/quick-start") for _ in range(45)]
    assert [each.status_code for each in answers].count(200) == 40
    other = signed_in(vendor, vendor.key())
    assert [other.get("/ledger.csv").status_code for _ in range(6)] == [200] * 4 + [429] * 2
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert "Wait a moment" in answers[-1].text
