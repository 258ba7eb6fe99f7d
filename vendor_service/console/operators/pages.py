"""What operators' pages show. Each is a function of the books and of what the monitor has seen."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Select, func, or_, select
from sqlalchemy.orm import Session

from shared.billing import Entry
from shared.kinds import KINDS
from vendor_service.accounts import keys
from vendor_service.accounts.accounts import find_account
from vendor_service.accounts.keys import Scope
from vendor_service.acts import own_keys
from vendor_service.acts import prices as price_acts
from vendor_service.acts.tokens import OperatorScope
from vendor_service.audit import log
from vendor_service.clock import DAY, SECOND, Clock, to_datetime
from vendor_service.console import projects
from vendor_service.console.api_keys import why_ended
from vendor_service.console.meters import meters_of
from vendor_service.console.operators import alerts
from vendor_service.console.operators.monitor import Monitor, figures_of, lines_of, refusals_of
from vendor_service.console.operators.visitor import SignedInOperator
from vendor_service.console.rendering import readable
from vendor_service.console.routes import Asked, Page
from vendor_service.console.spent import chart_of_days, shares_of, shown_days
from vendor_service.database.tables import Account, ApiKey, AuditHead, FinalInvoice, LedgerEntry
from vendor_service.money import currency, entry_search, invoices, ledger, prices, spending
from vendor_service.money.entry_search import EntryFilter
from vendor_service.money.holds import count_open, open_holds
from vendor_service.money.refusals import refused_since
from vendor_service.money.usage import account_status

Values = Mapping[str, Any]

_DAYS = 30
_PAGE = 50
_ENTRIES = 25
_KEYS = 25  # of an account that are in use, and that ended
_HOLDS = 50
_MOST_ACCOUNTS = 500  # of a month that are listed, those that were charged most


@dataclass(frozen=True)
class OperatorPages:
    """The pages, and what they need beside the books' session."""

    clock: Clock
    monitor: Monitor

    def all(self) -> list[Page[SignedInOperator]]:
        """Every page, in the order of the menu. A new one is a line here, a function and a template."""
        watch, run = "Watch", "Run"
        return [
            Page("", "Now", "operators/now.html", self.now, watch),
            Page("/health", "Health", "operators/health.html", self.health, watch),
            Page("/money", "Money", "operators/money.html", self.money, watch),
            Page("/accounts", "Accounts", "operators/accounts.html", self.accounts, run),
            Page("/accounts/{name}", "Account", "operators/account.html", self.account),
            Page("/models", "Models", "operators/models.html", self.models, run),
            Page("/audit", "Audit log", "operators/audit.html", self.audit, run),
        ]

    def now(self, asked: Asked[SignedInOperator], session: Session) -> Values:
        """What happens now."""
        self.monitor.refresh()
        points = self.monitor.points()
        firing = [each for each in alerts.states(self.monitor, asked.now / SECOND) if each.message]
        today = to_datetime(asked.now).date()
        (of_today,) = spending.by_day(session, None, today, today)
        return {
            "figures": figures_of(points[-1]) if points else None,
            "lines": lines_of(points),
            "refusals": refusals_of(points[-1]) if points else [],
            "away": self.monitor.away,
            "firing": firing,
            "today": of_today,
        }

    def health(self, asked: Asked[SignedInOperator], session: Session) -> Values:
        """What the alerts say."""
        self.monitor.refresh()
        ready, told = self.monitor.is_ready()
        newest = self.monitor.newest()
        verified = 0.0 if newest is None else newest.highest("tuition_ledger_verified_timestamp_seconds")
        return {
            "states": alerts.states(self.monitor, asked.now / SECOND),
            "ready": ready,
            "told": told,
            "verified": to_datetime(round(verified * SECOND)) if verified else None,
            "holds": count_open(session),
        }

    def money(self, asked: Asked[SignedInOperator], session: Session) -> Values:
        """What was earned, what is held, and the invoices of a month."""
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
        }

    def accounts(self, asked: Asked[SignedInOperator], session: Session) -> Values:
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
            "statuses": [account_status(session, each.id, asked.now) for each in rows[:_PAGE]],
            "more": rows[_PAGE - 1].name if len(rows) > _PAGE else None,
            "wanted": wanted,
            "plans": sorted(prices.plans(session, asked.now)),
        }

    def account(self, asked: Asked[SignedInOperator], session: Session) -> Values:
        """One account, and everything that can be done about it."""
        account = find_account(session, asked.path["name"])
        status = account_status(session, account.id, asked.now)
        today = to_datetime(asked.now).date()
        days = spending.by_day(session, account.id, today - timedelta(days=_DAYS - 1), today)
        before = asked.query.number("before")
        entries = entry_search.search(
            session, account.id, EntryFilter(), ledger.MAX_NUMBER if before is None else before, _ENTRIES + 1
        )
        found = projects.all_of(session, account, asked.now)
        older, older_ended = asked.query.get("keys") or None, asked.query.get("ended") or None
        live, more_live = own_keys.newest(session, account.id, None, older, _KEYS, now=asked.now, ended=False)
        ended, more_ended = own_keys.newest(
            session, account.id, None, older_ended, _KEYS, now=asked.now, ended=True
        )
        return {
            "account": account,
            "status": status,
            "opened": to_datetime(account.created_at),
            "meters": meters_of(status, account, asked.now),
            "chart": chart_of_days("Charges by day", days, status.currency),
            "days": shown_days(days),
            "keys": [
                (keys.public(each, account, asked.now), why_ended(each, asked.now))
                for each in (*live, *ended)
            ],
            "more_live": live[-1].id if more_live else None,
            "more_ended": ended[-1].id if more_ended else None,
            "projects": found,
            "names": projects.open_names(found),
            "scopes": list(Scope),
            "entries": [ledger.public(each) for each in entries[:_ENTRIES]],
            "given_back": _given_back(session, account, entries),
            "more": entries[_ENTRIES - 1].seq if len(entries) > _ENTRIES else None,
            "refused": refused_since(session, account.id, asked.now - _DAYS * DAY),
            "acts": log.entries(session, limit=10, subject=account.name)[::-1],
            "plans": sorted(prices.plans(session, asked.now)),
            "describe": describe,
            "may_change": asked.who.may(OperatorScope.ACCOUNTS),
            "may_move_money": asked.who.may(OperatorScope.MONEY),
        }

    def models(self, asked: Asked[SignedInOperator], session: Session) -> Values:
        """What is served, and what it costs on which plan."""
        self.monitor.refresh()
        newest = self.monitor.newest()
        served = [] if newest is None else newest.series.get("tuition_model_info", {})
        today = to_datetime(asked.now).date()
        first = today - timedelta(days=_DAYS - 1)
        return {
            "served": [dict(labels) for labels in served],
            "prices": price_acts.history(session, asked.now, past=True),
            "known": sorted(prices.served_models(session)),
            "plans": sorted(prices.plans(session, asked.now)),
            "by_model": shares_of(spending.by_group(session, None, "model", first, today)),
            "may_move_money": asked.who.may(OperatorScope.MONEY),
        }

    def audit(self, asked: Asked[SignedInOperator], session: Session) -> Values:
        """Who did what, the newest first."""
        subject, before = asked.query.get("subject"), asked.query.number("before")
        found = log.entries(session, before=before, limit=_PAGE + 1, subject=subject or None)[::-1]
        return {
            "records": [_told(each) for each in found[:_PAGE]],
            "subject": subject,
            "older": found[_PAGE - 1].seq if len(found) > _PAGE else None,
            "entries": session.scalars(select(AuditHead.seq)).one(),
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


def _told(record: log.AuditRecord) -> dict[str, Any]:
    """An entry of the log, with what it changed as pairs."""
    before, after = (_facts(record, each or {}) for each in (record.before, record.after))
    names = [*before, *(name for name in after if name not in before)]
    changes = [
        (
            name.removesuffix("_micros").replace("_", " "),
            readable(name, before.get(name)),
            readable(name, after.get(name)),
            name in before,
        )
        for name in names
    ]
    return {"record": record, "changes": changes}


def _facts(record: log.AuditRecord, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What an entry has recorded. What bulk jobs pay is a percent, where prices have micro-units."""
    if record.action.startswith("price.") and record.subject.endswith(f" {prices.BATCH_PERCENT}"):
        return {"percent" if name == "micros" else name: value for name, value in facts.items()}
    return dict(facts)


def describe(entry: Entry) -> str:
    """What an entry was for, in words."""
    parts = [
        f"{number:,} {kind if number == 1 else KINDS[kind]}"
        for kind, number in entry.counts.items()
        if number
    ]
    return f"{' and '.join(parts)} to {entry.model}" if parts else entry.kind.replace("_", "-")
