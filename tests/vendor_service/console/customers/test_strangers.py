"""What nobody else reaches by `/console`: no page, no form, no script."""

import re

import pytest

from tests.vendor_service.console.customers.people import (
    ACTIONS,
    CAT,
    EVIL,
    HOOK,
    PAGES,
    Files,
    admin_of,
    event_for,
    key_id,
    path_for,
    path_of,
    receiver_of,
    signed_in,
)
from tests.vendor_service.console.jobs import begun, ended
from tests.vendor_service.console.visits import hidden, problem_of
from tests.vendor_service.local_vendor import LocalVendor, image_file
from vendor_service.accounts.keys import KeyTerms
from vendor_service.acts import accounts as account_acts
from vendor_service.acts import keys, money
from vendor_service.acts.act import Act
from vendor_service.audit import log


@pytest.mark.parametrize("pattern", [*ACTIONS, "/sign-out"])
def test_no_form_is_taken_without_its_sessions_token_or_from_another_site(
    vendor: LocalVendor, pattern: str
) -> None:
    key = vendor.key()
    admin, other = admin_of(vendor, key), admin_of(vendor, key)
    path, form = path_for(vendor, pattern, key), {"scope": "embed", "address": HOOK, "confirmed": "yes"}
    form["once"] = "1"
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
    if path.endswith(("/rotate", "/contain")):
        good |= {"state": hidden(admin.ask(path), "state")}
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
    assert [each.get().status_code for each in (reader, admin)] == [303, 303]
    admin = admin_of(vendor, key)
    assert "suspended" in problem_of(admin.do(path, scope="embed"))
    assert "suspended" in admin.page()
    with vendor.books.read() as session:
        acts = [each.action for each in log.entries(session, subject=vendor.account(key).name)]
    assert acts == ["account.suspend"]


def test_nothing_of_another_account_is_reached_by_any_page_or_action(
    vendor: LocalVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vendor_service.http.history_rate.BURST", 1000.0)
    theirs, mine = vendor.key(quota=777), vendor.key()
    job = ended(vendor, theirs, begun(vendor, theirs, "a", "b", metadata={"for": "a private reason"}))
    request = vendor.embed(theirs, CAT).headers["x-request-id"]
    stranger, hook = admin_of(vendor, mine), receiver_of(vendor, theirs)
    event = event_for(vendor, theirs)
    with vendor.books.write() as session:
        money.adjust(
            Act(session, "os:t", vendor.clock), vendor.account(theirs).name, -5, "a private reason", "ticket"
        )
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
            assert answer.status_code in (200, 422), path
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
        money.adjust(act, name, 7, EVIL, EVIL)
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
