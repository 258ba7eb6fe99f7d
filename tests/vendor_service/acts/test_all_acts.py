"""Every act by every face: the same in the books, the same record, refused alike, money once."""

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args
from urllib.parse import quote

import pytest
from sqlalchemy import select, update

from tests.vendor_service.acts.faces import Faces, Given, form_of, request_of, without_names
from tests.vendor_service.batches.bulk_books import BulkProcess
from tests.vendor_service.books import Books, opened_books
from tests.vendor_service.cli.command import Command
from tests.vendor_service.console.visits import Visit, problem_of
from tests.vendor_service.http.local_admin import LocalAdmin
from vendor_service.accounts.accounts import Terms
from vendor_service.accounts.keys import KeyTerms, Scope
from vendor_service.accounts.projects import ProjectTerms
from vendor_service.acts import (
    accounts,
    invitations,
    keys,
    operators,
    prices,
    projects,
    receipts_keys,
    receivers,
)
from vendor_service.acts.act import Act, ActContext, OperatorScope
from vendor_service.acts.declaration import DeclaredAct, data_of
from vendor_service.acts.registry import ACTS, QUERIES
from vendor_service.audit import log
from vendor_service.audit.actors import customer_key
from vendor_service.clock import DAY, SECOND
from vendor_service.console import sessions
from vendor_service.console.seal import Seal
from vendor_service.console.sessions import CUSTOMERS
from vendor_service.database.tables import Base, BooksHead, WebhookEvent
from vendor_service.money.orders import Order
from vendor_service.terms import Unit
from vendor_service.webhooks import events
from vendor_service.webhooks.events import EventKind

READ, ACCOUNTS, MONEY, ALL = OperatorScope
URL = "https://example.com/hooks"
# What is answered at once, for all that there is.
REPORTS = ("extraction report", "ledger verify", "doctor")
LATER = "credit-notes"  # of which there are none in the first month: see customers/test_pages.py
# What `after` takes of a row, where it is not the first field.
ID = {"GET /accounts/{account}/ledger": "seq", "holds": "request_id"}


@dataclass(frozen=True)
class Stage:
    """What an act finds: an account with a charge, a key, a project and a job, and what else there is."""

    books: Books
    context: ActContext
    order: Order
    account: str
    mark: str

    def concerns(self, line: Mapping[str, Any]) -> bool:
        """Whether a line of a list is not about the account of another stage."""
        account = line.get("account")
        return account in (None, self.account) or self.mark in account

    def do(self, work: Callable[[Act], Any]) -> Any:
        """Lay something out."""
        with self.context.write() as act:
            return work(act)

    def another(self, name: str) -> str:
        """A name that nothing has."""
        return f"{name}-of-{self.mark}"

    def token(self) -> str:
        """A new token's id."""
        return str(self.do(lambda act: operators.issue(act, "crm", [READ])).token_id)

    def receiver(self) -> str:
        """A new receiver's id."""
        return str(self.do(lambda act: receivers.create(act, f"{URL}/{self.mark}")).endpoint_id)

    def event(self) -> str:
        """The id of an event of the account."""
        with self.context.write() as act:
            events.emit(act.session, EventKind.KEY_ROTATED, self.books.account(self.order), {}, act.now)
            act.session.flush()
            mine = select(WebhookEvent.id).where(WebhookEvent.account_id == self.order.account_id)
            return str(act.session.scalars(mine).first())

    def lay_out(self) -> None:
        """One thing more of everything that is listed."""
        self.do(lambda act: accounts.open_account(act, self.another(f"a{act.now}"), Terms()))
        self.do(lambda act: projects.create(act, self.account, f"p{act.now}", ProjectTerms()))
        self.do(lambda act: keys.issue(act, self.account, KeyTerms()))
        receiver = self.receiver()
        self.do(lambda act: receivers.send_test(act, receiver))
        for each in (self.token, self.plan, self.signing_key, self.session, self.job):
            each()
        self.session(invited=True)
        self.books.buy(self.order)
        self.books.admit(self.order)

    def job(self) -> str:
        """A job's id."""
        bulk = BulkProcess(self.books.database, self.books.clock, self.books.admission)
        return bulk.begin(self.order, (1, 0)).id

    def session(self, *, invited: bool = False) -> str:
        """The id of a session that a key of the account began, or of the invitation that began another."""
        name = self.account
        code = self.do(lambda act: invitations.invite(act, name)).code if invited else None
        by_key = {"key_id": self.order.key_id, "secret_hash": self.books.key(self.order).secret_hash}
        by = {"secret_hash": "", "invitation_id": invitations.id_of(code)} if code else by_key
        seal, now = Seal(b""), self.books.clock()
        with self.context.write() as act:
            whose = self.order.account_id
            cookie = sessions.begin(act.session, seal, CUSTOMERS, now, account_id=whose, **by)
            found = sessions.find(act.session, seal, CUSTOMERS, cookie, now)
        assert found is not None
        return str(found[0].invitation_id or found[0].id)

    def plan(self) -> str:
        """A plan that names a price of images."""
        plan = self.another("plan")
        self.do(lambda act: prices.set_price(act, "icon-clip", "image", 70, plan, new=True))
        self.books.clock.advance(1)
        return plan

    def signing_key(self) -> str:
        """A key that signs receipts."""
        self.books.clock.advance(1)
        return receipts_keys.rotate(self.context)[0].key

    def with_signing_key(self) -> dict[str, Any]:
        """Nothing, once there is a key to be retired."""
        self.signing_key()
        return {}

    def suspended(self) -> str:
        """The account's name, once it is suspended."""
        self.do(lambda act: accounts.suspend(act, self.account))
        return self.account

    def no_seller(self) -> str:
        """A name for the seller, whom nobody has named before."""
        with self.context.write() as act:
            act.session.execute(update(BooksHead).values(seller=None))
        return "Vision GmbH"

    def unnamed(self) -> str:
        """A currency, which nobody has named before."""
        with self.context.write() as act:
            act.session.execute(update(BooksHead).values(currency=None))
        return "EUR"


@dataclass(frozen=True)
class Case:
    """An act: what is given to it at a stage, and on which terms the account is."""

    given: Callable[[Stage], dict[str, Any]]
    terms: Mapping[str, Any] = field(default_factory=dict)


def key_of(stage: Stage) -> dict[str, Any]:
    return {"key_id": stage.order.key_id}


def contained(stage: Stage) -> dict[str, Any]:
    """A key that has made another one and a receiver, and has begun a job and a session."""
    stage.job()
    stage.session()
    by = stage.context.by(customer_key(stage.order.key_id))
    with by.write() as act:
        keys.issue(act, stage.account, KeyTerms("of a thief"))
        receivers.create(act, f"{URL}/{stage.mark}", account=stage.account)
    return key_of(stage) | {"since": stage.books.clock() // SECOND * SECOND - DAY}


def project_of(stage: Stage) -> dict[str, Any]:
    return {"account": stage.account, "name": "search"}


CASES: dict[str, Case] = {
    "account.create": Case(lambda stage: {
        "name": stage.another("acme"), "quota": 5, "quota_period": "total", "spend_limit_micros": 2_500_000,
        "credit_micros": 500, "queries_per_second": 7, "coverage_limit": 9, "plan": "standard",
    }),
    "account.set": Case(lambda stage: {
        "name": stage.account, "quota": 8, "spend_limit_micros": None, "queries_per_second": 6,
        "coverage_limit": 5, "plan": stage.plan(), "quota_period": "total",
    }, {"spend_limit_micros": 900_000}),
    "account.suspend": Case(lambda stage: {"name": stage.account}),
    "account.resume": Case(lambda stage: {"name": stage.suspended()}),
    "account.rename": Case(lambda stage: {"name": stage.account, "new_name": stage.another("acme")}),
    "account.close": Case(lambda stage: {"name": stage.account}),
    "account.repair": Case(lambda stage: {"name": stage.account}),
    "account.forget_sketches": Case(lambda stage: {"name": stage.account}),
    "account.invite": Case(lambda stage: {"name": stage.account, "hours": 5, "address": "https://v.example"}),
    "key.create": Case(lambda stage: {
        "account": stage.account, "label": "laptop", "scopes": [Scope.EMBED], "quota": 9,
        "spend_limit_micros": 1_000_000, "queries_per_second": 5, "concurrency": 4,
        "expires_at": stage.books.clock() // (60 * 10**6) * 60 * 10**6 + DAY, "project": "search",
    }),
    "key.set": Case(lambda stage: key_of(stage) | {"quota": 7, "spend_limit_micros": 2_000_000}),
    "key.rotate": Case(lambda stage: key_of(stage) | {"grace_seconds": 3600}),
    "key.contain": Case(contained),
    "key.revoke": Case(key_of),
    "session.end": Case(lambda stage: {"account": stage.account, "session_id": stage.session()}),
    "invitation.withdraw": Case(
        lambda stage: {"account": stage.account, "invitation_id": stage.session(invited=True)}
    ),
    "project.create": Case(lambda stage: {"account": stage.account, "name": "news", "quota": 10}),
    "project.set": Case(lambda stage: project_of(stage) | {"quota": 8, "queries_per_second": None}),
    "project.archive": Case(project_of),
    "money.top_up": Case(
        lambda stage: {"account": stage.account, "micros": 1_500_000, "reference": "bank 1"},
        {"credit_micros": 10_000},
    ),
    "money.payment": Case(lambda stage: {"account": stage.account, "micros": -70, "reference": "bank 2"}),
    "money.refund": Case(
        lambda stage: {"account": stage.account, "seq": 1, "micros": 30, "reference": "ticket 812"}
    ),
    "money.adjustment": Case(lambda stage: {"account": stage.account, "micros": -20, "reason": "a mistake",
         "reference": "ticket 9"}),
    "month.close": Case(lambda _: {"month": "2026-10"}),
    "seller.set": Case(lambda stage: {"legal_name": stage.no_seller(), "country": "DE", "due_days": 30}),
    "buyer.set": Case(lambda stage: {
        "account": stage.account, "legal_name": "Acme SA", "tax_id": "FR12", "taxed": "reverse-charge",
    }),
    "batch.cancel": Case(lambda stage: {"account": stage.account, "batch_id": stage.job()}),
    "price.discount": Case(lambda stage: {"plan": stage.another("plan"), "percent": 20}),
    "price.set": Case(lambda stage: {
        "model": "icon-clip", "kind": "text", "micros": 500_000, "plan": stage.another("plan"), "new": True,
        "since": stage.books.clock() // (60 * 10**6) * 60 * 10**6 + DAY,
    }),
    "price.unset": Case(lambda stage: {"model": "icon-clip", "kind": "image", "plan": stage.plan()}),
    "currency.set": Case(lambda stage: {"code": stage.unnamed()}),
    "operator.create": Case(lambda _: {"name": "deploy", "scopes": [ACCOUNTS, MONEY]}),
    "operator.rotate": Case(lambda stage: {"token_id": stage.token(), "grace_seconds": 3600}),
    "operator.revoke": Case(lambda stage: {"token_id": stage.token()}),
    "receipts_key.rotate": Case(lambda stage: stage.with_signing_key()),
    "receipts_key.withdraw": Case(lambda stage: {"key": stage.signing_key()}),
    "webhook.create": Case(lambda stage: {"url": URL, "kinds": [EventKind.QUOTA], "account": stage.account}),
    "webhook.rotate": Case(lambda stage: {"endpoint_id": stage.receiver(), "grace_seconds": 0}),
    "webhook.disable": Case(lambda stage: {"endpoint_id": stage.receiver()}),
    "webhook.test": Case(lambda stage: {"endpoint_id": stage.receiver()}),
    "webhook.replay": Case(lambda stage: {"endpoint_id": stage.receiver(), "event_id": stage.event()}),
    "models.reload": Case(lambda _: {}),
}  # fmt: skip


@dataclass(frozen=True)
class Effect:
    """What came of an act: who is said to have done it, what is recorded, and what its account has then."""

    actors: set[str]
    recorded: list[str]
    books: list[str]


# The lines of lists and reports, each with the name of its query.
Look = set[tuple[str, str]]


def listed(data: Any) -> list[Any]:
    """The lines of a list, as it is or as a page of it; a report is one line."""
    found = data.get("data", [data]) if isinstance(data, dict) else data
    return found if isinstance(found, list) else [found]


class World:
    """Books with all faces, and a new stage for each act. Renew them: each look lists all that they have."""

    def __init__(
        self, books: Books, admin: LocalAdmin, visits: Mapping[OperatorScope, Visit], context: ActContext
    ) -> None:
        self.books = books
        self.admin = admin
        self.visits = visits
        self.context = context
        self._stages = 0
        self._new = sqlite3.connect(":memory:", check_same_thread=False)
        with self._file() as file:
            file.backup(self._new)

    def renew(self) -> None:
        """Have the books as they were at first."""
        with self._file() as file:
            self._new.backup(file)

    def close(self) -> None:
        self._new.close()

    def _file(self) -> "closing[sqlite3.Connection]":
        return closing(sqlite3.connect(str(self.books.database.engine.url.database)))

    def stage(self, terms: Mapping[str, Any]) -> Stage:
        """A new account on these terms, which has bought something and has a project."""
        self._stages += 1
        order = self.books.open(**terms)
        self.books.open_project(order, name="search")
        self.books.buy(order)
        account = self.books.account(order).name
        return Stage(self.books, self.context, order, account, f"stage-{self._stages}-")

    def look(self, stage: Stage) -> Look:
        """What all lists and reports say now that are read in one transaction, line by line."""
        account = self.books.account(stage.order).name  # it may have another by now
        asked, lines = {"account": account, "name": account}, set()
        with self.context.read() as act:
            for name, each in QUERIES.items():
                if each.transaction and not name.startswith("audit"):
                    takes = {one.name for one in each.parameters}
                    if any(one.is_required and one.name not in asked for one in each.parameters):
                        continue
                    data = data_of(each.call(act, {key: asked[key] for key in asked if key in takes}))
                    lines |= {(name, json.dumps(line)) for line in listed(data) if stage.concerns(line)}
        return lines

    def effect(self, stage: Stage, before: Look, last: int) -> Effect:
        """What has come of what was done since this look at the books, and this entry of the log."""
        names = {stage.account: "<account>", stage.order.key_id: "<key>", stage.mark: "<stage>"}
        now = self.look(stage)
        with self.context.read() as act:
            records = log.entries(act.session, after=last, limit=100)
        facts = [json.dumps([each.action, each.subject, each.before, each.after]) for each in records]
        return Effect(
            {each.actor.partition(":")[0] for each in records},
            [without_names(each, names) for each in facts],
            sorted(f"{name}: {without_names(line, names)}" for name, line in now - before),
        )

    def last(self) -> int:
        """The number of the log's last entry."""
        with self.context.read() as act:
            found = log.entries(act.session, limit=1)
        return found[0].seq if found else 0


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("books")
    with opened_books(f"sqlite:///{folder / 'books.db'}") as books:
        keys_in = folder / "keys"
        with LocalAdmin(books, reload_models=lambda: None, keys_in=keys_in) as admin:
            visits = {scope: Visit(admin.http, "/operator") for scope in OperatorScope}
            for scope, visit in visits.items():
                visit.sign_in(token=admin.tokens[scope])
            context = ActContext(books.database, books.clock, keys_in=keys_in, actor="os:test")
            context = replace(context, reload_models=lambda: None)
            with closing(World(books, admin, visits, context)) as world:
                yield world


@pytest.fixture
def faces(world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Faces:
    """The faces of the world; commands have its clock and its files."""
    url = world.books.url
    monkeypatch.setenv("VENDOR_DATABASE_URL", url)
    monkeypatch.setenv("VENDOR_KEYS_IN", str(world.context.keys_in))
    monkeypatch.setattr("vendor_service.cli.books.system_clock", world.books.clock)
    return Faces(world.admin, Command(capsys, monkeypatch), world.visits)


def test_every_act_has_a_case_here() -> None:
    assert set(CASES) == set(ACTS)


@pytest.mark.parametrize("name", CASES)
def test_every_face_does_the_same_and_leaves_the_same_record(world: World, faces: Faces, name: str) -> None:
    world.renew()
    declared, case = ACTS[name], CASES[name]
    ways: dict[str, Callable[[DeclaredAct, Given], None]] = {
        "test": lambda declared, given: declared.perform(world.context, given),
        "operator": faces.by_form,
    }
    if declared.command:
        ways["os"] = faces.by_command
    if declared.route:
        ways["route"] = faces.by_route
    effects = {}
    for way, do in ways.items():
        stage = world.stage(case.terms)
        given = case.given(stage)
        before, last = world.look(stage), world.last()
        do(declared, given)
        effects[way] = world.effect(stage, before, last)
        assert len(effects[way].recorded) == (0 if name == "account.repair" else 1), effects[way]
        assert effects[way].actors <= {"os", "operator"}
    expected = effects.pop("test")
    for way, effect in effects.items():
        assert effect.recorded == expected.recorded, way
        assert effect.books == expected.books, way


@pytest.mark.parametrize("name", CASES)
def test_no_face_does_what_the_scope_of_a_token_does_not_allow(world: World, faces: Faces, name: str) -> None:
    declared, case = ACTS[name], CASES[name]
    stage = world.stage(case.terms)
    given, before = case.given(stage), world.last()
    for scope in {READ, ACCOUNTS, MONEY} - {declared.scope}:
        if declared.route:
            assert faces.ask(declared, given, scope).status_code == 403
        visit = faces.visits[scope]
        assert visit.do(f"/do/{name}", **form_of(declared, given)).status_code == 403
    if declared.route:
        method, path, body = request_of(declared.route, declared, given)
        unread = faces.admin.http.request(method, f"/admin{path}", json=body)
        assert unread.status_code == 401
    visit = faces.visits[ALL]
    for csrf in ("", faces.visits[READ].csrf):
        sent = {**form_of(declared, given), "csrf": csrf, "confirmed": "yes", "once": "1"}
        assert visit.send(f"/do/{name}", sent).status_code == 403
    assert world.last() == before


def asked_at(stage: Stage, name: str) -> dict[str, Any]:
    """What a query that takes more than an account is given."""
    if name == "dispute":
        return {"receipt": stage.books.entries(stage.order)[-1].hold_id}
    return {"written": "icon-clip image 0.0002", "month": "2026-11"} if name == "prices preview" else {}


@pytest.mark.parametrize("name", [name for name, each in QUERIES.items() if each.route])
def test_every_token_reads_and_nobody_else_does(world: World, faces: Faces, name: str) -> None:
    stage = world.stage({})
    method, path, body = request_of(QUERIES[name].route, QUERIES[name], asked_at(stage, name))
    path = path.replace("{account}", stage.account).replace("{month}", "2026-11").removeprefix("/")
    admin, body = faces.admin, body if method == "POST" else None
    answers = [
        admin.ask(method, path, body, scope=READ),
        admin.http.request(method, f"/admin/{path}", json=body),
    ]
    assert [each.status_code for each in answers] == [200, 401]


@pytest.mark.parametrize("name", [name for name, each in QUERIES.items() if each.command and each.route])
def test_a_list_or_a_report_is_the_same_by_command_and_by_route(
    world: World, faces: Faces, name: str, tmp_path: Path
) -> None:
    declared, stage = QUERIES[name], world.stage({"credit_micros": 10_000})
    if given := asked_at(stage, name):
        (tmp_path / "prices.txt").write_text(given.get("written", ""))
        words = {"prices preview": [str(tmp_path / "prices.txt"), "--month", "2026-11"]}.get(
            name, [*given.values()]
        )
        shown = faces.vendor.json(*declared.command.split(), *words)
        method, path, body = request_of(declared.route, declared, given)
        answer = faces.admin.done(method, path.removeprefix("/"), body if method == "POST" else None)
        assert listed(answer) == listed(shown)
        return
    named = [each for each in declared.parameters if each.on_wire == "account"]
    path = declared.route.partition(" ")[2].replace("{account}", stage.account).removeprefix("/")
    if named and "{" not in declared.route:
        path += f"?account={stage.account}"
    told = listed(faces.admin.done("GET", path))
    words = [*declared.command.split(), *([stage.account] if named else [])]
    assert listed(faces.vendor.json(*words))[: len(told)] == told
    code, shown, _ = faces.vendor(*words)
    assert code == 0
    assert shown or not told


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, each in QUERIES.items()
        if each.route.startswith("GET ") and not each.route.endswith("{receipt}")
    ],
)
def test_every_list_is_answered_page_by_page_in_the_same_way(world: World, faces: Faces, name: str) -> None:
    stage = world.stage({"credit_micros": 10_000})
    path = QUERIES[name].route.removeprefix("GET /").replace("{account}", stage.account)
    answer = faces.admin.done("GET", path.replace("{month}", "2026-11"))
    if name in (*REPORTS, LATER) or "data" not in answer:
        return
    for _ in range(2):
        world.books.clock.advance(1)
        stage.lay_out()
    most = 100 if name == "batches list" else 1000
    whole = faces.admin.done("GET", f"{path}?limit={most}")
    assert len(whole["data"]) > 1
    assert not whole["has_more"]
    seen: list[Any] = []
    after = "0" if name == "audit list" else ""
    for _ in whole["data"]:
        told = f"&after={quote(after, safe='')}" if after else ""
        page = faces.admin.done("GET", f"{path}?limit=1{told}")
        assert page["has_more"] is (len(seen) + 1 < len(whole["data"]))
        seen += page["data"]
        after = str(seen[-1][ID.get(name) or next(iter(seen[-1]))])
    assert seen == whole["data"]
    assert faces.admin.ask("GET", f"{path}?limit={most + 1}").status_code == 422


@pytest.mark.parametrize("name", [name for name, each in ACTS.items() if each.state is not None])
def test_what_changed_since_the_question_was_asked_is_not_changed_again(
    world: World, faces: Faces, name: str
) -> None:
    declared, stage = ACTS[name], world.stage(CASES[name].terms)
    given, visit, path = CASES[name].given(stage), faces.visits[ALL], f"/do/{name}"
    asked = visit.ask(path, **form_of(declared, given))
    declared.perform(world.context, given)
    last, answer = world.last(), visit.confirm(path, asked)
    assert answer.status_code == 422
    assert "has changed since the page was loaded" in problem_of(answer)
    assert world.last() == last


@pytest.mark.parametrize("name", [name for name, each in ACTS.items() if each.reveals])
def test_a_secret_is_shown_once_and_is_not_in_the_books(world: World, name: str) -> None:
    declared, stage = ACTS[name], world.stage(CASES[name].terms)
    shown = data_of(declared.perform(world.context, CASES[name].given(stage)))[declared.reveals]
    kept_whole = {"webhook_endpoints"}  # what signs requests to a receiver is needed whole
    with world.books.database.engine.connect() as connection:
        for table in set(Base.metadata.tables) - kept_whole:
            assert shown.split("_")[-1] not in str(connection.exec_driver_sql(f"SELECT * FROM {table}").all())


# What is no number, and no moment, by what it is counted in; and what is said of it.
WRONG = {
    Unit.PLAIN: ("1.000", "is not a whole number"),
    Unit.MONEY: ("5.0000001", "is not an amount"),
    Unit.PRICE: ("0.5micros", "is not an amount"),
    Unit.MOMENT: ("20261201", "is not a moment"),
}


@pytest.mark.parametrize(
    ("name", "parameter"),
    [
        (name, each.name)
        for name, declared in (ACTS | QUERIES).items()
        for each in declared.parameters
        if declared.command and each.term.typed and each.kind is int
    ],
)
def test_numbers_and_moments_are_typed_as_they_stand_or_refused(
    world: World, faces: Faces, name: str, parameter: str
) -> None:
    declared = (ACTS | QUERIES)[name]
    options, arguments, last = [], [], world.last()
    for each in declared.parameters:
        if each.name != parameter and not each.is_required:
            continue
        known = get_args(each.kind) or ("7",)
        written = WRONG[each.term.unit][0] if each.name == parameter else str(known[0])
        if each.term.is_argument:
            arguments.append(written)
        else:
            options += [each.term.typed.split()[0], written]
    code, out, err = faces.vendor(*declared.command.split(), *options, "--", *arguments)
    wrong, said = WRONG[{each.name: each.term.unit for each in declared.parameters}[parameter]]
    assert (code, out) == (2, "")
    assert f"{wrong!r} is not" in err
    assert said in err
    assert world.last() == last
