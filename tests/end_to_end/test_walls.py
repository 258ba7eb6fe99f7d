"""Projects are walls: by whatever route or page, a key of one sees and changes nothing of another.

The routes are those that the vendor has, so one that is yet to come is walked as well: where its path, its
form or its body takes something that is not named here, the walk fails.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from sqlalchemy import select

from client.cli.main import main
from client.vendors.bulk_api import KEY_LABEL
from tests.vendor_service.console.customers.people import (
    HOOK,
    event_for,
    issued,
    key_id,
    open_invitation,
    receiver_of,
    session_of,
    signed_in,
    try_it,
    with_project,
)
from tests.vendor_service.console.jobs import begun, ended
from tests.vendor_service.console.visits import Visit
from tests.vendor_service.local_vendor import LocalVendor
from vendor_service.accounts.callers import Caller
from vendor_service.accounts.keys import Scope
from vendor_service.acts import money
from vendor_service.acts.act import Act
from vendor_service.database.tables import Base
from vendor_service.database.view import View

MONTH = "2026-11"
TEXT = {"text": "what the night asks"}
ONCE = {"idempotency-key": "of-the-night"}


@dataclass(frozen=True)
class Project:
    """What a project has: `names` are what paths may name of it, `marks` what no other is told."""

    key: str
    names: Mapping[str, str]
    marks: Mapping[str, str]


@dataclass(frozen=True)
class Walker:
    """Somebody who walks, by a key, along what another project has."""

    vendor: LocalVendor
    key: str
    visit: Visit
    there: Project

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}", "cookie": self.visit.cookie}

    def get(self, path: str, query: str = "") -> httpx.Response:
        return self.vendor.http.get(f"{path}{query}", headers=self.headers)

    def send(self, method: str, path: str, **sent: Any) -> httpx.Response:
        headers = self.headers | sent.pop("headers", {})
        return self.vendor.http.request(method, path, headers=headers, **sent)

    def do(self, path: str, **form: str) -> httpx.Response:
        return self.visit.do(path.removeprefix("/console"), **form)


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalVendor]:
    folder = tmp_path_factory.mktemp("vendor")
    with (
        pytest.MonkeyPatch.context() as patch,
        LocalVendor(folder, batch_store=str(folder / "store"), metrics_token="for the operator") as local,
    ):
        patch.setattr("vendor_service.http.history_rate.BURST", 10_000.0)
        yield local


@pytest.fixture(scope="module")
def owner(vendor: LocalVendor) -> str:
    """A key of the default project of an account with the projects night and day."""
    owner = vendor.key()
    for name in ("night", "day"):
        with_project(vendor, owner, name)
    return owner


@pytest.fixture(scope="module")
def night(vendor: LocalVendor, owner: str) -> Project:
    """A project that has something of everything."""
    scopes = frozenset({Scope.ADMIN})
    terms = {"label": "label-of-the-night", "quota": 987_654, "project": "night", "scopes": scopes}
    key = issued(vendor, owner, **terms)
    free = issued(vendor, owner, project="night", scopes=scopes)
    bought = vendor.embed(key, TEXT, headers=ONCE).json()
    vendor.embed(key, TEXT, headers={"x-expect-fingerprint": "fp_none"})
    job = ended(vendor, key, begun(vendor, key, "a night", metadata={"of": "label-of-a-job"}))
    vendor.app.state.refusals.write()
    visit = signed_in(vendor, free)
    visit.do(f"/keys/{key_id(key)}/rotate", grace="360000")
    receiver = receiver_of(vendor, owner)
    with vendor.books.write() as session:
        act = Act(session, "os:test", vendor.clock)
        money.refund(act, vendor.account(owner).name, 1, reference="refund-of-the-night")
    project = next(each for each in vendor.get("/v1/projects", free)["data"] if each["project"] == "night")
    names = {
        "file_id": job["output_file_id"],
        "batch_id": job["id"],
        "key_id": key_id(key),
        "endpoint_id": receiver,
        "event_id": event_for(vendor, owner),
        "session_id": session_of(vendor, free),
        "invitation_id": open_invitation(vendor, owner),
        "project": project["project"],
    }
    marks = {name: each for name, each in names.items() if name not in ("event_id", "project")} | {
        "input": job["input_file_id"],
        "request": bought["id"],
        "project": project["project_id"],
        "label": "label-of-the-night",
        "metadata": "label-of-a-job",
        "refund": "refund-of-the-night",
        "quota": "987,?654",
        "refusal": "fingerprint_mismatch",
    }
    return Project(free, names, marks)


# What paths name beside what the other project has.
ELSE = {"month": MONTH, "number": "CN-1", "model_id": "icon-clip", "name": "none", "path": "none"}
# By which a list can be asked for what comes behind something, on routes and pages.
BEHIND = {
    "/v1/files": ("after=file_id",),
    "/v1/batches": ("after=batch_id",),
    "/v1/keys": ("after=key_id",),
    "/v1/projects": ("after=project",),
    "/v1/sessions": ("after=session_id",),
    "/v1/invitations": ("after=invitation_id",),
    "/v1/credit-notes": ("after=number",),
    "/console/batches": ("after=batch_id",),
    "/console/keys": ("before=key_id", "ended=key_id"),
    "/console/ledger": ("key=key_id",),
    "/console/ledger.csv": ("key=key_id",),
}
Sender = Callable[[Walker, str], httpx.Response]
# How everything is sent that is no page.
SENT: dict[str, Sender] = {
    "POST /embed": lambda by, path: by.send("POST", path, json={"inputs": [TEXT]}, headers=ONCE),
    "POST /v1/embeddings": lambda by, path: by.send("POST", path, json={"input": "a"}, headers=ONCE),
    "POST /v1/estimate": lambda by, path: by.send("POST", path, json={"images": 1}),
    "POST /v1/keys": lambda by, path: by.send("POST", path, json={"project": "night"}),
    "POST /v1/keys/{key_id}/rotate": lambda by, path: by.send("POST", path),
    "POST /v1/keys/{key_id}/contain": lambda by, path: by.send("POST", path),
    "POST /v1/keys/{key_id}/revoke": lambda by, path: by.send("POST", path),
    "POST /v1/sessions/{session_id}/end": lambda by, path: by.send("POST", path),
    "POST /v1/invitations/{invitation_id}/withdraw": lambda by, path: by.send("POST", path),
    "POST /v1/files": lambda by, path: by.send(
        "POST", path, data={"purpose": "batch"}, files={"file": ("in.jsonl", b"{}")}
    ),
    "DELETE /v1/files/{file_id}": lambda by, path: by.send("DELETE", path),
    "POST /v1/batches": lambda by, path: by.send("POST", path, json=_job(by.there.marks["input"])),
    "POST /v1/batches/{batch_id}/cancel": lambda by, path: by.send("POST", path),
    "POST /console/sign-in": lambda by, path: by.send("POST", path, data={"key": by.key}),
    "POST /console/invitation": lambda by, path: by.send("POST", path, data={"code": "none"}),
    "POST /console/models/try": lambda by, _: try_it(by.vendor, by.visit, by.there.key),
    "POST /console/keys/create": lambda by, path: by.do(path, label="a", project="night", scope="embed"),
    "POST /console/keys/{key_id}/rotate": lambda by, path: by.do(path, grace="0"),
    "POST /console/keys/{key_id}/contain": lambda by, path: by.do(path),
    "POST /console/keys/{key_id}/revoke": lambda by, path: by.do(path),
    "POST /console/sessions/{session_id}/end": lambda by, path: by.do(path),
    "POST /console/sessions/invitations/{invitation_id}/withdraw": lambda by, path: by.do(path),
    "POST /console/batches/{batch_id}/cancel": lambda by, path: by.do(path),
    "POST /console/events/receivers/add": lambda by, path: by.do(path, address=HOOK),
    "POST /console/events/receivers/{endpoint_id}/rotate": lambda by, path: by.do(path, grace="0"),
    "POST /console/events/receivers/{endpoint_id}/disable": lambda by, path: by.do(path),
    "POST /console/events/receivers/{endpoint_id}/send/{event_id}": lambda by, path: by.do(path),
    "POST /console/sign-out": lambda by, path: by.do(path, everywhere="yes"),  # the last one
}


def _job(file_id: str) -> dict[str, str]:
    return {"input_file_id": file_id, "endpoint": "/v1/embeddings", "completion_window": "24h"}


def routes_of(routes: Sequence[Any]) -> Iterator[APIRoute]:
    """All routes, those of routers within included."""
    for each in routes:
        if isinstance(each, APIRoute):
            yield each
        elif (router := getattr(each, "original_router", None)) is not None:
            yield from routes_of(router.routes)


def asked_for(vendor: LocalVendor) -> list[tuple[str, str]]:
    """The method and the path of everything that a customer can ask for: pages first, then as in SENT."""
    found = [
        (method, route.path)
        for route in routes_of(vendor.app.routes)
        for method in (route.methods or set()) - {"HEAD"}
    ]
    order = {name: number for number, name in enumerate(SENT)}
    return sorted(found, key=lambda each: (each[0] != "GET", order.get(" ".join(each), -1)))


def walked(by: Walker, *, pages_only: bool = False) -> Iterator[tuple[str, httpx.Response]]:
    """Ask for everything, naming what the other project has where something is named."""
    names = {**ELSE, **by.there.names}
    for method, pattern in asked_for(by.vendor):
        named = [each.partition(":")[0] for each in re.findall(r"{([^}]+)}", pattern)]
        assert set(named) <= names.keys(), f"say in ELSE or in Project what stands for {pattern}"
        path = re.sub(r"{(\w+)[^}]*}", lambda found: names[found[1]], pattern)
        if method == "GET":
            yield f"GET {path}", by.get(path)
            for each in BEHIND.get(pattern, ()):
                option, _, name = each.partition("=")
                yield f"GET {path}?{each}", by.get(path, f"?{option}={names[name]}")
        elif not pages_only:
            name = f"{method} {pattern}"
            assert name in SENT, f"say in SENT how {name} is sent"
            yield name, SENT[name](by, path)


def kept(vendor: LocalVendor, there: Project) -> list[tuple[str, dict[str, Any]]]:
    """All rows of the books that name something of the project."""
    known = {*there.names.values(), *there.marks.values()}
    with vendor.books.read() as session:
        return [
            (table.name, {name: value for name, value in row.items() if name != "last_used_at"})
            for table in Base.metadata.sorted_tables
            if table.name not in ("webhook_deliveries", "webhook_attempts")  # which go on by themselves
            for row in session.execute(select(table).order_by(*table.primary_key)).mappings()
            if known & {value for value in row.values() if isinstance(value, str)}
        ]


def text_of(answer: httpx.Response) -> str:
    return answer.text + json.dumps(dict(answer.headers))


def seen(there: Project, text: str) -> set[str]:
    return {name for name, mark in there.marks.items() if re.search(mark, text)}


def named_in(answer: httpx.Response, there: Project) -> set[str]:
    """The marks of the other project that a request named, in its path, its query or its body."""
    return seen(there, str(answer.request.url) + answer.request.read().decode(errors="replace"))


@pytest.mark.parametrize("whose", ["of the project day, admin", "of the default project, not admin"])
def test_a_key_of_another_project_sees_and_changes_nothing(
    vendor: LocalVendor, owner: str, night: Project, whose: str
) -> None:
    key = owner
    if "day" in whose:
        key = issued(vendor, owner, project="day", scopes=frozenset({Scope.ADMIN}))
    before = kept(vendor, night)
    for asked, answer in walked(Walker(vendor, key, signed_in(vendor, key), night)):
        told = named_in(answer, night)  # what was sent may be told back
        assert seen(night, text_of(answer)) <= told, asked
        assert not told or answer.status_code in (403, 404) or "?" in asked, (asked, answer.status_code)
        assert answer.status_code < 500, asked
        assert "idempotent-replayed" not in answer.headers, asked
    assert kept(vendor, night) == before


def test_the_walk_sees_what_there_is_to_see(vendor: LocalVendor, night: Project, owner: str) -> None:
    """So that it finds nothing is no accident: the project's own key is shown all of it."""
    whole = issued(vendor, owner, scopes=frozenset({Scope.ADMIN}))
    for key, more in ((night.key, False), (whole, True)):
        visit = signed_in(vendor, key)
        answers = [each for _, each in walked(Walker(vendor, key, visit, night), pages_only=True)]
        text = "".join(map(text_of, answers))
        hidden = set() if more else {"endpoint_id", "invitation_id"}
        assert seen(night, text) == night.marks.keys() - hidden


def test_what_bills_the_account_is_for_no_project_of_it(vendor: LocalVendor, night: Project) -> None:
    walker = Walker(vendor, night.key, signed_in(vendor, night.key), night)
    for path in (f"invoices/{MONTH}", "credit-notes/CN-1", "invoices"):
        assert walker.get(f"/console/{path}").status_code == 403
    for path in (f"invoices/{MONTH}", "credit-notes"):
        assert walker.get(f"/v1/{path}").status_code == 403


def test_a_list_that_can_be_asked_for_what_comes_behind_something_is_walked_so(vendor: LocalVendor) -> None:
    behind = {
        route.path
        for route in routes_of(vendor.app.routes)
        for each in route.dependant.query_params
        if each.name == "after" and each.field_info.annotation is not int
    }
    assert behind
    assert behind <= BEHIND.keys()


def test_each_project_has_idempotency_keys_of_its_own(
    vendor: LocalVendor, owner: str, night: Project
) -> None:
    """Neither answers another's paid request or job, nor keeps another from its key."""
    day = issued(vendor, owner, project="day")
    asked = [
        vendor.embed(key, TEXT, headers={"idempotency-key": "one"}).json() for key in (night.key, day) * 2
    ]
    assert [each["replayed"] for each in asked] == [False, False, True, True]
    assert asked[0]["id"] == asked[2]["id"] != asked[1]["id"]
    assert vendor.embed(owner, {"text": "another"}, headers={"idempotency-key": "one"}).status_code == 200
    jobs = [
        vendor.http.post("/v1/batches", json=_job(sent), headers=headers).json()
        for key in (night.key, day)
        for headers in [{"authorization": f"Bearer {key}", "idempotency-key": "one"}]
        for sent in [begun(vendor, key, f"by {key_id(key)}")["input_file_id"]]
    ]
    assert jobs[0]["id"] != jobs[1]["id"]


def tried(vendor: LocalVendor, folder: Path, mine: str, other: str) -> tuple[int, Any]:
    """What `client isolation-test --json` ends with, and what it prints."""
    for name, key in (("mine", mine), ("other", other)):
        (folder / name).write_text(key)
    words = ["isolation-test", "--json", "--vendor", f"http://127.0.0.1:{vendor.port}"]
    words += ["--api-key-file", str(folder / "mine"), "--other-key-file", str(folder / "other")]
    printed = StringIO()
    with redirect_stdout(printed), pytest.raises(SystemExit) as end:
        main(words)
    return int(end.value.code or 0), json.loads(printed.getvalue() or "null")


def test_the_isolation_test_finds_a_wall_that_is_broken(
    vendor: LocalVendor, owner: str, night: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = {"authorization": f"Bearer {night.key}", "idempotency-key": "noted"}
    job = _job(begun(vendor, night.key, "a line")["input_file_id"]) | {"metadata": {KEY_LABEL: "noted"}}
    ended(vendor, night.key, vendor.http.post("/v1/batches", json=job, headers=headers).json())
    day = issued(vendor, owner, project="day", scopes=frozenset({Scope.ADMIN}))
    entries = vendor.account(owner).ledger_seq
    for other in (day, owner, vendor.key()):
        status, found = tried(vendor, tmp_path, night.key, other)
        outcomes = {each["what"]: each["outcome"] for each in found["attempts"]}
        assert (status, found["holds"]) == (0, True), found
        assert set(outcomes.values()) == {"held"} | ({"not tried"} if other != day else set())
    assert (found["project"], found["other_project"]) == ("night", None)  # the last one is another account's
    everything = outcomes.keys() | {"read the usage of the project", "list the project"}
    monkeypatch.setattr(View, "rows", lambda view, table: table.account_id == view.account_id)
    monkeypatch.setattr(View, "has", lambda view, row: row.account_id == view.account_id)
    monkeypatch.setattr(Caller, "project_id", night.marks["project"])
    status, found = tried(vendor, tmp_path, night.key, day)
    broken = {each["what"] for each in found["attempts"] if each["outcome"] == "broken"}
    standing = {"list the project", "read the account's invoice"}  # which look at the view itself
    assert (status, found["holds"], broken) == (1, False, everything - standing)
    assert vendor.account(owner).ledger_seq == entries
    files = vendor.get("/v1/files", night.key)["data"]
    assert not [each for each in files if each["filename"] == "requests.jsonl"]


def test_no_wall_is_looked_for_where_there_is_none(
    vendor: LocalVendor, owner: str, night: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = issued(vendor, owner, scopes=frozenset({Scope.ADMIN}))
    assert tried(vendor, tmp_path, night.key, whole)[0] == 2
    assert "sees the whole account" in " ".join(capsys.readouterr().err.split())
    assert tried(vendor, tmp_path, night.key, issued(vendor, owner, project="night"))[0] == 2
    assert "Both keys are of the project night" in " ".join(capsys.readouterr().err.split())
