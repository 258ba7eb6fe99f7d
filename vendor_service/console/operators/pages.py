"""Operators' pages. Each is a function of the books and of what the monitor has seen."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

from sqlalchemy import Select, func, or_, select
from sqlalchemy.orm import Session

from vendor_service.accounts import keys
from vendor_service.accounts.accounts import find_account
from vendor_service.acts import invitations, sessions
from vendor_service.acts.act import ActContext
from vendor_service.acts.declaration import DeclaredAct, data_of
from vendor_service.acts.keys import newest
from vendor_service.acts.money import describe
from vendor_service.acts.prices import PriceLine, history
from vendor_service.acts.projects import in_view as projects_of
from vendor_service.acts.projects import open_names
from vendor_service.acts.registry import QUERIES
from vendor_service.acts.verification import LedgerVerifier
from vendor_service.audit import log
from vendor_service.clock import DAY, SECOND, to_datetime
from vendor_service.console.acts import ActForm, Acts, Choices
from vendor_service.console.meters import meters_of
from vendor_service.console.operators import alerts
from vendor_service.console.operators.monitor import Monitor, live
from vendor_service.console.operators.visitor import SignedInOperator
from vendor_service.console.rendering import readable
from vendor_service.console.routes import Action, ConsoleRequest, Done, Page, Shown
from vendor_service.console.spent import chart_of_days, shares_of, shown_days
from vendor_service.database.tables import (
    STANDARD_PLAN,
    Account,
    ApiKey,
    AuditHead,
    FinalInvoice,
    LedgerEntry,
    Project,
)
from vendor_service.database.view import View
from vendor_service.errors import OperatorError
from vendor_service.money import (
    credit_notes,
    currency,
    entry_search,
    invoices,
    ledger,
    parties,
    prices,
    spending,
)
from vendor_service.money.disputes import facts
from vendor_service.money.entry_search import EntryFilter
from vendor_service.money.holds import count_open, open_holds
from vendor_service.money.refusals import refused_since
from vendor_service.money.standing import why_ended
from vendor_service.money.usage import account_status
from vendor_service.terms import MAX_NUMBER

Values = Mapping[str, Any]
Asked = ConsoleRequest[SignedInOperator]

_ON_KEY = ("key.set", "key.rotate", "key.contain", "key.revoke")
_ON_PROJECT = ("project.set", "project.archive")
_DAYS = 30
_PAGE = 25
_ENTRIES = 25
_KEYS = 25  # of an account that are in use, and that ended
_HOLDS = 50
_MOST_ACCOUNTS = 500  # of a month that are listed, those that were charged most
# What is set up for the whole vendor: the query that lists it, by the noun of its acts.
_SET_UP = {
    "operators": ("Operators' tokens", "operators list"),
    "receivers": ("Receivers of events", "webhooks list"),
    "receipts_keys": ("Keys that sign receipts", "receipts-key list"),
    "models": ("Models", None),
}


@dataclass(frozen=True)
class OperatorPages:
    """The pages, and what they need beside the books' session."""

    acts: ActContext
    monitor: Monitor
    forms: Acts[SignedInOperator]

    def all(self) -> list[Page[SignedInOperator]]:
        """Every page, in the order of the menu. A new one is a line here, a function and a template."""
        watch, run = "Watch", "Run"
        return [
            Page("", "Now", "operators/now.html", self.now, watch),
            Page("/health", "Health", "operators/health.html", self.health, watch),
            Page("/money", "Money", "operators/money.html", self.money, watch),
            Page("/accounts", "Accounts", "operators/accounts.html", self.accounts, run),
            Page("/accounts/{account}", "Account", "operators/account.html", self.account),
            Page("/models", "Models", "operators/models.html", self.models, run),
            Page("/set-up", "Set up", "operators/set_up.html", self.set_up, run),
            Page("/disputes", "Disputes", "operators/disputes.html", self.disputes, run),
            Page("/prices", "Try prices", "operators/prices.html", self.try_prices, run),
            Page("/audit", "Audit log", "operators/audit.html", self.audit, run),
        ]

    def verifications(self) -> list[Action[SignedInOperator]]:
        """The actions that read all of the books, when a button is pressed."""
        return [
            Action("/money/verify", lambda _: "/money", lambda _: None, self.verify_ledger),
            Action("/audit/verify", lambda _: "/audit", lambda _: None, self.verify_log),
        ]

    def now(self, asked: Asked, session: Session) -> Values:
        """The present."""
        self.monitor.refresh()
        today = to_datetime(asked.now).date()
        (of_today,) = spending.by_day(session, None, today, today)
        return {
            "live": live(self.monitor),
            "away": self.monitor.away,
            "firing": [each for each in alerts.states(self.monitor, asked.now / SECOND) if each.message],
            "today": of_today,
        }

    def health(self, asked: Asked, session: Session) -> Values:
        """The state of the alerts."""
        self.monitor.refresh()
        ready, why = self.monitor.is_ready()
        newest = self.monitor.newest()
        verified = 0.0 if newest is None else newest.highest("tuition_ledger_verified_timestamp_seconds")
        return {
            "states": alerts.states(self.monitor, asked.now / SECOND),
            "checked": newest is not None,
            "ready": ready,
            "why": why,
            "verified": to_datetime(round(verified * SECOND)) if verified else None,
            "holds": count_open(session),
            "findings": QUERIES["doctor"].call(self.acts, {}),
        }

    def disputes(self, asked: Asked, session: Session) -> Values:
        """What the books say of a receipt, or of a request."""
        wanted = asked.query.get("q").strip()
        found = QUERIES["dispute"].call(self.acts.act_in(session), {"receipt": wanted}) if wanted else None
        return {"wanted": wanted, "found": found, "facts": [] if found is None else facts(found)}

    def try_prices(self, asked: Asked, session: Session) -> Values:
        """A month at other prices."""
        written, month = asked.query.get("prices"), asked.query.get("month") or None
        given = {"written": written, "month": month}
        found = QUERIES["prices preview"].call(self.acts.act_in(session), given) if written.strip() else None
        return {"written": written, "month": month, "found": found}

    def money(self, asked: Asked, session: Session) -> Values:
        """Revenue, open holds, and the invoices of a month."""
        today = to_datetime(asked.now).date()
        first = today - timedelta(days=_DAYS - 1)
        days = spending.by_day(session, None, first, today)
        month = asked.query.get("month") or f"{today:%Y-%m}"
        begin, end = invoices.month_bounds(month)
        last_day = min(to_datetime(end - 1).date(), today)
        charged = spending.by_group(session, None, "account", to_datetime(begin).date(), last_day)
        final = _final_invoices(session, month)
        uncharged = final.keys() - {each.group for each in charged}
        charged += [spending.Spent(name) for name in sorted(uncharged)]
        return {
            "chart": chart_of_days("Revenue by day", days, currency.current(session)),
            "days": shown_days(days),
            "revenue": sum(each.charged_micros for each in days),
            "net": sum(each.net_micros for each in days),
            "by_account": shares_of(spending.by_group(session, None, "account", first, today)),
            "by_model": shares_of(spending.by_group(session, None, "model", first, today)),
            "holds": open_holds(session, limit=_HOLDS),
            "open": count_open(session),
            "month": month,
            "charged": charged[:_MOST_ACCOUNTS],
            "accounts": len(charged),
            "final": final,
            "notes": credit_notes.issued_between(session, begin, end)[-_MOST_ACCOUNTS:],
            "seller": self.forms.form(asked.who, "seller.set", parties.seller(session)),
            "close": self.forms.form(asked.who, "month.close", month=month) if end <= asked.now else None,
        }

    def accounts(self, asked: Asked, session: Session) -> Values:
        """Accounts by name, or those that a search finds."""
        wanted, after = asked.query.get("q"), asked.query.get("after")
        found = select(Account).where(Account.name > after).order_by(Account.name).limit(_PAGE + 1)
        if wanted:
            by_key = keys.id_of(wanted)  # of a whole key only the id is looked for
            found = found.where(
                or_(
                    Account.name.contains(wanted, autoescape=True),
                    Account.id == wanted,
                    Account.id.in_(_owners_of(by_key or wanted.removeprefix("tk_"))),
                )
            )
        rows = session.scalars(found).all()
        return {
            "statuses": [account_status(session, View.whole(each.id), asked.now) for each in rows[:_PAGE]],
            "more": rows[_PAGE - 1].name if len(rows) > _PAGE else None,
            "wanted": wanted,
            "open": self.forms.form(asked.who, "account.create", choices=_choices(session, asked.now)),
        }

    def account(self, asked: Asked, session: Session) -> Values:
        """One account, and everything that can be done about it."""
        account = find_account(session, asked.path["account"])
        status = account_status(session, View.whole(account.id), asked.now)
        today = to_datetime(asked.now).date()
        days = spending.by_day(session, View.whole(account.id), today - timedelta(days=_DAYS - 1), today)
        projects = projects_of(session, View.whole(account.id), account, asked.now)
        choices = {**_choices(session, asked.now), "projects": open_names(projects)}
        return {
            "account": account,
            "status": status,
            "opened": to_datetime(account.created_at),
            "meters": meters_of(status, account, asked.now),
            "chart": chart_of_days("Charges by day", days, status.currency),
            "days": shown_days(days),
            "forms": self.forms.forms(asked.who, account, choices=choices, account=account.name),
            "projects": [
                (
                    each,
                    self.forms.some(
                        *(asked.who, _ON_PROJECT, session.get_one(Project, each.project_id)),
                        account=account.name,
                        name=each.project,
                    ),
                )
                for each in projects
            ],
            "buyer": self.forms.form(asked.who, "buyer.set", parties.buyer(account), account=account.name),
            "refused": refused_since(session, View.whole(account.id), asked.now - _DAYS * DAY),
            "records": log.entries(session, limit=10, subject=account.name)[::-1],
            "describe": describe,
            **self._keys(asked, session, account),
            **self._let_in(asked.who, session, account),
            **self._entries(asked, session, account),
        }

    def models(self, asked: Asked, session: Session) -> Values:
        """The models, and their prices by plan."""
        self.monitor.refresh()
        newest = self.monitor.newest()
        served = [] if newest is None else newest.series.get("tuition_model_info", {})
        today = to_datetime(asked.now).date()
        first = today - timedelta(days=_DAYS - 1)
        return {
            "served": [dict(labels) for labels in served],
            "prices": [
                (each, self._price_form(asked.who, each))
                for each in history(self.acts.act_in(session), past=True)
            ],
            "by_model": shares_of(spending.by_group(session, None, "model", first, today)),
            "set_price": self.forms.form(asked.who, "price.set", choices=_choices(session, asked.now)),
            "currency_form": self.forms.form(asked.who, "currency.set"),
        }

    def set_up(self, asked: Asked, session: Session) -> Values:
        """The settings of the whole vendor, and the acts on them: made from their declarations alone."""
        return {
            "sections": [
                self._section(asked.who, session, noun, title, query)
                for noun, (title, query) in _SET_UP.items()
            ]
        }

    def audit(self, asked: Asked, session: Session) -> Values:
        """The audit log, the newest entry first."""
        subject, before = asked.query.get("subject"), asked.query.number("before")
        found = log.entries(session, before=before, limit=_PAGE + 1, subject=subject or None)[::-1]
        return {
            "records": [(each, _changes(each)) for each in found[:_PAGE]],
            "subject": subject,
            "older": found[_PAGE - 1].seq if len(found) > _PAGE else None,
            "entries": session.scalars(select(AuditHead.seq)).one(),
        }

    def verify_ledger(self, asked: Asked) -> Shown:
        """Recompute chains, sums and counters, of one account or of all; one verification at a time."""
        verifier = self.acts.verifier or LedgerVerifier(self.acts.database)
        found = verifier.verify(asked.form.get("account"))
        return Shown("What the verification found", "operators/verified.html", {"found": found})

    def verify_log(self, _: Asked) -> Done:
        """Recompute the chain of the audit log."""
        with self.acts.read() as act:
            found = log.verify(act.session)
        if found.problem is not None:
            raise OperatorError(f"the audit log is not in order: {found.problem}")
        return Done(f"The audit log is in order: {found.entries:,} entries.", "/audit")

    def _keys(self, asked: Asked, session: Session, account: Account) -> Values:
        view, now = View.whole(account.id), asked.now
        older, older_ended = asked.query.get("keys") or None, asked.query.get("ended") or None
        live, more_live = newest(session, view, older, _KEYS, now=now, ended=False)
        ended, more_ended = newest(session, view, older_ended, _KEYS, now=now, ended=True)
        return {
            "keys": [
                (
                    keys.public(each, account, now),
                    why_ended(each, now),
                    self.forms.some(asked.who, _ON_KEY, each, key_id=each.id),
                )
                for each in (*live, *ended)
            ],
            "more_live": live[-1].id if more_live else None,
            "more_ended": ended[-1].id if more_ended else None,
        }

    def _let_in(self, who: SignedInOperator, session: Session, account: Account) -> Values:
        """Who is signed in to the account's console, and who was invited."""
        act, name = self.acts.act_in(session), account.name
        invited = invitations.list_invitations(act, name)
        return {
            "sessions": [
                (each, self.forms.form(who, "session.end", account=name, session_id=each.session_id))
                for each in sessions.list_sessions(act, name)
            ],
            "invitations": [
                (each, self.forms.form(
                    *(who, "invitation.withdraw", each), account=name, invitation_id=each.invitation_id
                ))
                for each in invited
            ],
        }  # fmt: skip

    def _entries(self, asked: Asked, session: Session, account: Account) -> Values:
        before = asked.query.number("before")
        before = MAX_NUMBER if before is None else before
        found = entry_search.search(session, View.whole(account.id), EntryFilter(), before, _ENTRIES + 1)
        given_back = _given_back(session, account, found)
        entries = []
        for each in map(ledger.public, found[:_ENTRIES]):
            left = -each.amount_micros - given_back.get(each.seq, 0)
            open_charge = each.kind == "charge" and (left or each.seq not in given_back)
            refund = self.forms.form(asked.who, "money.refund", account=account.name, seq=each.seq)
            entries.append((each, given_back.get(each.seq), left, refund if open_charge else None))
        return {"entries": entries, "more": found[_ENTRIES - 1].seq if len(found) > _ENTRIES else None}

    def _price_form(self, who: SignedInOperator, line: PriceLine) -> ActForm | None:
        if line.plan == STANDARD_PLAN or line.state == "past" or line.micros is None:
            return None
        return self.forms.form(who, "price.unset", model=line.model, kind=line.kind, plan=line.plan)

    def _section(
        self, who: SignedInOperator, session: Session, noun: str, title: str, query: str | None
    ) -> Values:
        """A list of things with the acts on each of them, and those that are on none."""
        things = [] if query is None else QUERIES[query].call(self.acts.act_in(session), {})
        declared = [each for each in self.forms.declared.values() if each.noun == noun]
        labels = {one.name: one.label for each in declared for one in each.parameters}
        listed = []
        for thing in things:
            row = data_of(thing)
            found = [
                self.forms.form(who, each.name, SimpleNamespace(**row), **_named(each, row))
                for each in declared
                if each.subjects and all(subject.name in row for subject in each.subjects)
            ]
            listed.append((dict(thing), [each for each in found if each is not None]))
        known = {name: None for row, _ in listed for name, value in row.items() if value is not None}
        return {
            "title": title,
            "columns": [labels.get(name) or _title(name) for name in known],
            "rows": [([readable(name, row[name]) for name in known], on_row) for row, on_row in listed],
            "forms": self.forms.some(who, [each.name for each in declared if not each.subjects]),
        }


def _title(name: str) -> str:
    return name.removesuffix("_at").removesuffix("_id").replace("_", " ").capitalize()


def _named(declared: DeclaredAct, row: Mapping[str, Any]) -> dict[str, Any]:
    return {each.name: row[each.name] for each in declared.subjects}


def _choices(session: Session, now: int) -> Choices:
    return {
        "plans": sorted(prices.plans(session, now)),
        "models": sorted(prices.served_models(session)),
    }


def _owners_of(key_id: str) -> Select[str]:
    return select(ApiKey.account_id).where(ApiKey.id == key_id)


def _given_back(session: Session, account: Account, entries: Sequence[LedgerEntry]) -> dict[int, int]:
    """How much of the charges among some entries was given back, of those of which something was."""
    charges = [each.seq for each in entries if each.kind == "charge"]
    found = session.execute(
        select(LedgerEntry.corrects_seq, func.sum(LedgerEntry.amount_micros))
        .where(LedgerEntry.account_id == account.id, LedgerEntry.corrects_seq.in_(charges))
        .group_by(LedgerEntry.corrects_seq)
    )
    return {seq: int(micros) for seq, micros in found if seq is not None}


def _final_invoices(session: Session, month: str) -> dict[str, Mapping[str, Any]]:
    """The invoices of a month that are final, by the account's name."""
    found = {each.account_id: each for each in invoices.finals_of(session, month)}
    names = session.execute(
        select(Account.id, Account.name)
        .join(FinalInvoice, FinalInvoice.account_id == Account.id)
        .where(FinalInvoice.month == month)
    )
    return {name: json.loads(found[each].content) for each, name in names if each in found}


def _changes(record: log.AuditRecord) -> list[tuple[str, str, str, bool]]:
    """Changes of an entry of the log: a name, before and after, and whether there was something before."""
    before, after = (_facts(record, each or {}) for each in (record.before, record.after))
    names = [*before, *(name for name in after if name not in before)]
    return [
        (
            name.removesuffix("_micros").replace("_", " "),
            readable(name, before.get(name)),
            readable(name, after.get(name)),
            name in before,
        )
        for name in names
    ]


def _facts(record: log.AuditRecord, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts in an entry. The price of bulk jobs is a percentage, where prices have micro-units."""
    if record.action.startswith("price.") and record.subject.endswith(f" {prices.BATCH_PERCENT}"):
        return {"percent" if name == "micros" else name: value for name, value in facts.items()}
    return dict(facts)
