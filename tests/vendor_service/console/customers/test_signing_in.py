"""Who gets into `/console`, by a key or an invitation, and when that ends."""

import http.cookies
import re
from pathlib import Path

import pytest

from tests.vendor_service.console.customers.people import (
    BACKSLASH,
    HOUR,
    admin_of,
    invited,
    issued,
    key_id,
    session_of,
    signed_in,
    with_project,
)
from tests.vendor_service.console.visits import Visit, problem_of, told_by
from tests.vendor_service.local_vendor import LocalVendor
from vendor_service.accounts.keys import Scope
from vendor_service.acts import accounts, projects
from vendor_service.acts.act import Act
from vendor_service.audit import log
from vendor_service.clock import SECOND
from vendor_service.database.tables import (
    Invitation,
)


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


def test_all_addresses_of_one_subscriber_have_the_tries_of_one(vendor: LocalVendor) -> None:
    key = vendor.key()
    wrong = {"key": key[:-2] + ("00" if key[-2:] != "00" else "11")}
    statuses = [
        vendor.http.post(
            "/console/sign-in", data=wrong, headers={"x-forwarded-for": f"2001:db8:{network}::{number:x}"}
        ).status_code
        for network, tries in ((1, 11), (2, 1))
        for number in range(1, tries + 1)
    ]
    assert statuses == [401] * 10 + [429, 401]


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


def test_of_more_sessions_of_a_key_than_it_may_have_the_oldest_ends_and_none_of_another_key(
    vendor: LocalVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vendor_service.console.sessions._MOST_OF_ONE", 2)
    key, visits = vendor.key(), list[Visit]()
    colleague = admin_of(vendor, key)
    for _ in range(3):
        vendor.clock.advance(1)
        visits.append(signed_in(vendor, key))
    assert [each.get().status_code for each in visits] == [303, 200, 200]
    assert colleague.get().status_code == 200


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


def test_a_session_that_ended_is_neither_listed_nor_counted(vendor: LocalVendor) -> None:
    owner = vendor.key()
    project = with_project(vendor, owner)
    revoked, expiring, archived, idle = (
        issued(vendor, owner),
        issued(vendor, owner, expires_at=vendor.clock() + 2 * HOUR * SECOND),
        issued(vendor, owner, project=project),
        issued(vendor, owner),
    )
    signed_in(vendor, idle)
    vendor.clock.advance(HOUR)
    for key in (owner, revoked, expiring, archived):
        signed_in(vendor, key)
    admin = admin_of(vendor, owner)
    listed = admin.page("/sessions")
    for key in (owner, revoked, expiring, archived, idle):
        assert f"key {key_id(key)}" in listed
    admin.do(f"/keys/{key_id(revoked)}/revoke")
    with vendor.books.write() as session:
        projects.archive(Act(session, "os:test", vendor.clock), vendor.account(owner).name, project)
    vendor.clock.advance(HOUR + 1)
    listed = admin.page("/sessions")
    assert f"key {key_id(owner)}" in listed
    for key in (revoked, expiring, archived, idle):
        assert f"key {key_id(key)}" not in listed
    left = admin.ask("/sign-out", everywhere="yes")
    assert "2 sessions were ended" in told_by(admin, left)
    vendor.clock.advance(-2 * HOUR - 1)


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


@pytest.mark.parametrize("written", [b"\xa0", b"\x85", b"\xe2\x80\x80"])
def test_a_cookie_that_any_host_may_write_is_no_session(vendor: LocalVendor, written: bytes) -> None:
    # Browsers keep `__Host-` for this host over TLS, and take this for another name.
    cookie = signed_in(vendor, vendor.key()).cookie.encode()
    assert vendor.http.get("/console", headers={b"cookie": b"x=y; \t " + cookie}).status_code == 200
    assert vendor.http.get("/console", headers={b"cookie": written + cookie}).status_code == 303


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


def test_whoever_was_invited_by_mistake_is_locked_out_by_a_suspension_and_resuming_brings_nobody_back(
    vendor: LocalVendor,
) -> None:
    key = vendor.key()
    name, left = vendor.account(key).name, invited(vendor, key)
    joined, by_key, stranger = Visit(vendor.http), signed_in(vendor, key), signed_in(vendor, vendor.key())
    joined.sign_in("/invitation", code=invited(vendor, key))
    for act in (accounts.suspend, accounts.resume):
        with vendor.books.write() as session:
            act(Act(session, "os:test", vendor.clock), name)
        assert [each.get().status_code for each in (joined, by_key, stranger)] == [303, 303, 200]
        assert joined.send("/keys/create", {"scope": "admin", "once": "1"}).status_code == 303
        assert Visit(vendor.http).sign_in("/invitation", code=left).status_code == 404
    assert signed_in(vendor, key).get().status_code == 200
    again = Visit(vendor.http)
    assert again.sign_in("/invitation", code=invited(vendor, key)).status_code == 303


def test_an_invitation_is_withdrawn_with_the_session_that_it_began_and_one_session_is_ended_alone(
    vendor: LocalVendor,
) -> None:
    key = vendor.key()
    visits, codes = [Visit(vendor.http), Visit(vendor.http)], [invited(vendor, key) for _ in range(3)]
    for visit, code in zip(visits, codes, strict=False):
        visit.sign_in("/invitation", code=code)
    admin = admin_of(vendor, key)
    page = admin.page("/sessions")
    ids = [code.split("_")[1] for code in codes]
    assert all(f"<code>{each}</code>" in page for each in ids)
    assert not [code for code in codes if code.split("_")[2] in page]
    for each in (ids[0], ids[2]):
        assert admin.do(f"/sessions/invitations/{each}/withdraw").headers["location"] == "/console/sessions"
    assert [each.get().status_code for each in (*visits, admin)] == [303, 200, 200]
    assert Visit(vendor.http).sign_in("/invitation", code=codes[2]).status_code == 404
    headers = {"authorization": f"Bearer {vendor.another_key(key, Scope.ADMIN)}"}
    listed = vendor.http.get("/v1/sessions", headers=headers).json()["data"]
    (mine,) = [each["session_id"] for each in listed if each["by"] == f"invitation:{ids[1]}"]
    assert visits[1].ask(f"/sessions/{mine}/end").status_code == 303
    assert [each.get().status_code for each in (*visits, admin)] == [303, 303, 200]
    states = vendor.http.get("/v1/invitations", headers=headers).json()["data"]
    assert {each["invitation_id"]: each["withdrawn_at"] is not None for each in states} == dict(
        zip(ids, (True, False, True), strict=True)
    )


def test_a_key_of_a_project_lists_and_ends_the_sessions_of_its_project_alone(vendor: LocalVendor) -> None:
    owner = vendor.key()
    theirs, project = session_of(vendor, owner), with_project(vendor, owner)
    mine = issued(vendor, owner, project=project, scopes=frozenset({Scope.ADMIN}))
    own, headers = session_of(vendor, mine), {"authorization": f"Bearer {mine}"}
    listed = vendor.http.get("/v1/sessions", headers=headers).json()["data"]
    assert [each["session_id"] for each in listed] == [own]
    ended = [vendor.http.post(f"/v1/sessions/{each}/end", headers=headers) for each in (theirs, own)]
    assert [each.status_code for each in ended] == [404, 200]
    assert vendor.http.get("/v1/invitations", headers=headers).status_code == 403
    assert signed_in(vendor, mine).page("/sessions").count("<tr>") == 2  # its head, and itself
