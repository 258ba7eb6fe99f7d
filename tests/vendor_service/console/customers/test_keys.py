"""Keys at the console: whose they are, and what a customer makes of them."""

from tests.vendor_service.console.customers.people import (
    CAT,
    SECRET,
    admin_of,
    issued,
    key_id,
    signed_in,
    try_it,
    with_project,
)
from tests.vendor_service.console.visits import Visit, hidden, problem_of, told_by
from tests.vendor_service.local_vendor import LocalVendor, image_input
from vendor_service.accounts.keys import Scope
from vendor_service.acts import projects
from vendor_service.acts.act import Act
from vendor_service.audit import log
from vendor_service.clock import SECOND


def test_a_key_that_expired_or_whose_project_was_archived_pays_for_nothing_and_gets_no_other_secret(
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
        assert why in problem_of(admin.ask(f"/keys/{key_id(each)}/rotate"))
        assert admin.do(f"/keys/{key_id(each)}/revoke").status_code == 303
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
    (made,) = set(SECRET.findall(visit.ask("/keys/create", scope="embed", label="new").text))
    assert vendor.get("/v1/keys", mine)["data"][-1]["project"] == project
    assert whole.do(f"/keys/{key_id(made)}/revoke").status_code == 303
    assert "Ends those of your key, this one included" in visit.page("/sessions")
    assert "Ends all of these, this one included" in whole.page("/sessions")
    visit.ask("/sign-out", everywhere="yes")
    assert [each.get().status_code for each in (visit, other, whole)] == [303, 200, 200]


def test_a_customer_makes_a_key_with_an_end_and_limits_in_a_project(vendor: LocalVendor) -> None:
    owner = vendor.key()
    project, admin = with_project(vendor, owner), admin_of(vendor, owner)
    form = {"scope": "embed", "rate": "7", "concurrency": "3", "expires": "2026-12-01T00:00"}
    admin.ask("/keys/create", label="indexer", project=project, **form)
    (made,) = [each for each in vendor.get("/v1/keys", vendor.another_key(owner, Scope.ADMIN))["data"]
               if each["label"] == "indexer"]  # fmt: skip
    assert (made["project"], made["queries_per_second"], made["concurrency"]) == (project, 7, 3)
    assert made["expires_at"] == "2026-12-01T00:00:00Z"
    page = admin.page("/keys")
    for shown in (f"project {project}", "7 a second, 3 at once", 'ends <time datetime="2026-12-01T00:00:00'):
        assert shown in page
    assert "no project" in problem_of(admin.ask("/keys/create", project="nothing", **form))
    past = form | {"expires": "2026-11-14T00:00"}
    assert "not in the past" in problem_of(admin.ask("/keys/create", **past))


def test_a_key_with_limits_of_its_own_makes_none_without(vendor: LocalVendor) -> None:
    admin = signed_in(vendor, issued(vendor, vendor.key(), quota=5, scopes=frozenset({Scope.ADMIN})))
    assert admin.ask("/keys/create", scope="embed").status_code == 403


def test_a_form_that_is_sent_twice_rotates_once(vendor: LocalVendor) -> None:
    key = vendor.key()
    admin, rotate = admin_of(vendor, key), f"/keys/{key_id(key)}/rotate"
    asked = admin.ask(rotate, grace="3600")
    assert "before the present one" not in asked.text
    (renewed,) = set(SECRET.findall(admin.confirm(rotate, asked).text))
    again = admin.confirm(rotate, asked)
    assert (again.status_code, SECRET.findall(again.text)) == (422, [])
    assert "since the page was loaded" in problem_of(again)
    assert [vendor.embed(each, CAT).status_code for each in (key, renewed)] == [200, 200]
    assert "before the present one stops working at once" in admin.ask(rotate, grace="3600").text


def test_a_form_that_is_sent_twice_makes_one_key(vendor: LocalVendor) -> None:
    key = vendor.key()
    admin, form = admin_of(vendor, key), {"scope": "embed", "label": "twice"}
    form["once"] = hidden(admin.get("/keys"), "once")
    first, again = admin.ask("/keys/create", **form), admin.ask("/keys/create", **form)
    assert (first.status_code, len(set(SECRET.findall(first.text)))) == (200, 1)
    assert "sent before; the secret was shown then" in told_by(admin, again)
    assert admin.ask("/keys/create", **form | {"label": "another"}).status_code == 422
    assert "once is empty" in problem_of(admin.ask("/keys/create", **form | {"once": ""}))
    listed = vendor.get("/v1/keys", vendor.another_key(key, Scope.ADMIN))["data"]
    assert [each["label"] for each in listed].count("twice") == 1
    assert hidden(admin.get("/keys"), "once") != form["once"]


def test_a_customer_contains_the_key_that_they_signed_in_with_and_is_shown_what_it_made(
    vendor: LocalVendor,
) -> None:
    admin_key = vendor.another_key(vendor.key(), Scope.ADMIN)
    admin = signed_in(vendor, admin_key)
    admin.ask("/keys/create", scope="embed", label="<b>of a thief</b>")
    asked = admin.ask(f"/keys/{key_id(admin_key)}/contain")
    assert "you will be signed out" in asked.text
    shown = admin.confirm(f"/keys/{key_id(admin_key)}/contain", asked)
    (renewed,) = set(SECRET.findall(shown.text))
    assert "&lt;b&gt;of a thief&lt;/b&gt;" in shown.text
    assert admin.get().status_code == 303
    assert signed_in(vendor, renewed).get().status_code == 200
    assert Visit(vendor.http).sign_in(key=admin_key).status_code == 401


def test_a_customer_makes_rotates_and_revokes_keys_as_itself(vendor: LocalVendor) -> None:
    owner = vendor.key(quota=50)
    admin_key = vendor.another_key(owner, Scope.ADMIN)
    admin = signed_in(vendor, admin_key)
    made = admin.ask(
        "/keys/create", label="laptop", scope=["embed", "usage:read"], quota="3", spend_limit="0.00004"
    )
    (new,) = set(SECRET.findall(made.text))
    assert [vendor.embed(new, CAT).status_code for _ in range(3)] == [200, 200, 402]
    assert "0.00004" in admin.page("/keys")
    asked = admin.ask(f"/keys/{key_id(new)}/rotate", grace="0")
    assert "at once" in asked.text
    assert vendor.embed(new, image_input()).status_code == 402  # nothing was done yet
    (renewed,) = set(SECRET.findall(admin.confirm(f"/keys/{key_id(new)}/rotate", asked).text))
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
