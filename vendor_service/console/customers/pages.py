"""Customers' pages. Each is a function of who asks and of the books."""

import json
import secrets
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, get_args

from sqlalchemy import or_, select
from sqlalchemy.orm import Session
from starlette.responses import Response

from shared.billing import GroupBy, UsageReport
from shared.errors import ErrorCode
from shared.kinds import KINDS, price_fields
from shared.projects import DEFAULT_PROJECT
from vendor_service.accounts.keys import public as key_info
from vendor_service.acts import invitations, keys, projects, receivers, sessions
from vendor_service.acts.act import ActContext
from vendor_service.clock import DAY, from_datetime, month_start, to_datetime
from vendor_service.console.acts import ActForm, Acts
from vendor_service.console.customers import jobs, sentences
from vendor_service.console.customers.acts import QUICK_START
from vendor_service.console.customers.money_pages import MoneyPages
from vendor_service.console.customers.saved import csv_file
from vendor_service.console.customers.visitor import SignedInCustomer, labels_of, payers
from vendor_service.console.forms import Fields
from vendor_service.console.meters import meters_of
from vendor_service.console.routes import ConsoleRequest, Page
from vendor_service.console.spent import Share, chart_of_days, shares_of, shown_days
from vendor_service.database.tables import (
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookEvent,
)
from vendor_service.embed.models import Models
from vendor_service.errors import APIError
from vendor_service.money import prices, spending
from vendor_service.money.refusals import refused_since
from vendor_service.money.standing import why_ended
from vendor_service.money.usage import account_status, usage_report
from vendor_service.webhooks.events import EventKind

Values = Mapping[str, Any]
Asked = ConsoleRequest[SignedInCustomer]

_ON_KEY = ("key.rotate", "key.contain", "key.revoke")
_DAYS = 30
_EVENTS = 25
_KEYS = 25  # that are in use, and that ended
_MOST_ROWS = 1000  # of a report; one by key has as many as there were keys that bought
# What a customer can do about a refusal, by its code.
ADVICE = {
    ErrorCode.QUOTA_EXHAUSTED: "The quota of the account, of its project or of the key is used up; a monthly "
    "one resets next month, and the vendor can raise it.",
    ErrorCode.SPEND_LIMIT_REACHED: "The spend limit of the account, of its project or of the key is reached.",
    ErrorCode.INSUFFICIENT_CREDIT: "The prepaid credit is used up; top it up with the vendor.",
    ErrorCode.COVERAGE_LIMIT_REACHED: "The answers cover as much of the model as was agreed.",
    ErrorCode.RATE_LIMITED: "Requests came faster than agreed; wait as long as retry-after says.",
    ErrorCode.MAX_COST_EXCEEDED: "The price was above what the request allowed.",
    ErrorCode.INVALID_IMAGE: "An image could not be decoded; on_error=skip passes over such inputs.",
    ErrorCode.KEY_REVOKED: "A program still uses a key that was revoked.",
    ErrorCode.INSUFFICIENT_SCOPE: "A key was used for what its scopes do not allow.",
    ErrorCode.OVERLOADED: "The vendor was busy; our client repeats such requests by itself.",
}


@dataclass(frozen=True)
class CustomerPages:
    """The pages, and what they need beside the books' session; there may be none of bulk jobs."""

    acts: ActContext
    models: Models
    forms: Acts[SignedInCustomer]
    runs_jobs: bool = False

    def all(self) -> list[Page[SignedInCustomer]]:
        """Every page, in the order of the menu. A new one is a line here, a function and a template."""
        use, set_up = "Use", "Set up"
        batches = Page("/batches", "Batches", "customers/batches.html", self.batches, use)
        return [
            Page("", "Overview", "customers/overview.html", self.overview, use),
            Page("/usage", "Usage", "customers/usage.html", self.usage, use),
            Page("/usage.csv", "Usage", "", self.usage_csv),
            Page("/models", "Models", "customers/models.html", self.models_page, use),
            *([batches] if self.runs_jobs else []),
            *MoneyPages(self.acts.database, self.acts.watch).all(),
            Page("/keys", "Keys", "customers/keys.html", self.keys_page, set_up),
            Page("/events", "Events", "customers/events.html", self.events, set_up),
            Page("/sessions", "Sessions", "customers/sessions.html", self.sessions_page, set_up),
            Page(
                *(QUICK_START, "Quick start", "customers/quick_start.html", self.quick_start, set_up),
                leads=lambda who: not who.has_bought,
            ),
        ]

    def overview(self, asked: Asked, session: Session) -> Values:
        """Where the account stands, and what it spent on what."""
        who, today = asked.who, to_datetime(asked.now).date()
        first = today - timedelta(days=_DAYS - 1)
        status = account_status(session, who.view, asked.now)
        days = spending.by_day(session, who.view, first, today)
        by_key = shares_of(spending.by_group(session, who.view, "key", first, today))
        labels = labels_of(session, who, [each.spent.group for each in by_key])
        return {
            "course": self._course(asked, session, status.currency or "units"),
            "status": status,
            "meters": meters_of(status, who.account, asked.now),
            "days": shown_days(days),
            "chart": chart_of_days("Charges by day", days, status.currency),
            "spent": sum(each.charged_micros for each in days),
            "queries": sum(each.queries for each in days),
            "by_key": by_key,
            "by_model": shares_of(spending.by_group(session, who.view, "model", first, today)),
            "by_project": self._by_project(session, who, first, today),
            "labels": labels,
            "bought": who.has_bought,
            "refused": refused_since(session, who.view, asked.now - _DAYS * DAY),
            "advice": ADVICE,
        }

    def usage(self, asked: Asked, session: Session) -> Values:
        """The queries bought in a range, in groups."""
        first, last, group = _range(asked.query, asked.now)
        report = self._report(asked, session)
        rows = report.rows[:_MOST_ROWS]
        by_key = [row.group for row in rows] if group == "key" else []
        most = max((row.cost_micros for row in report.rows), default=0)
        return {
            "report": report,
            "rows": rows,
            "first": first,
            "last": last,
            "group": group,
            "groups": get_args(GroupBy),
            "most": most,
            "labels": labels_of(session, asked.who, by_key),
        }

    def usage_csv(self, asked: Asked, session: Session) -> Response:
        """The same for a spreadsheet, with money in micro-units."""
        report = self._report(asked, session)
        rows = [row.model_dump() for row in (*report.rows, report.total)]
        columns = ("group", "requests", *KINDS.values(), "billed_queries", "cost_micros")
        return csv_file(columns, rows, f"usage-{report.account}.csv")

    def models_page(self, asked: Asked, session: Session) -> Values:
        """The models for sale with their prices, and a form to try one."""
        plan = asked.who.account.plan
        cards = [
            {
                "facts": each.facts,
                "limits": each.terms.limits,
                "deprecated_at": each.terms.deprecated_at,
                "sunset_at": each.terms.sunset_at,
                "prices": price_fields(prices.current(session, plan, each.facts.id, asked.now)),
                "is_default": each is self.models.default,
            }
            for each in self.models
        ]
        return {
            "cards": cards,
            "plan": plan,
            "payers": payers(session, asked.who, asked.now),
            "once": secrets.token_urlsafe(16),
            "result": None,
        }

    def batches(self, asked: Asked, session: Session) -> Values:
        """The bulk jobs, the newest first."""
        after = asked.query.get("after") or None
        found, more = jobs.page_of(session, asked.who.view, after)
        running = [each.job.id for each in found if each.job.status == "in_progress"]
        cancel = {each: self.forms.form(asked.who, "batch.cancel", batch_id=each) for each in running}
        return {
            "jobs": found,
            "more": found[-1].job.id if more else None,
            "after": after,
            "cancel": defaultdict(lambda: None, cancel),
            "may_cancel": any(cancel.values()),
        }

    def keys_page(self, asked: Asked, session: Session) -> Values:
        """The account's keys, or those of the project that one is signed in to, those in use first."""
        account, view, now = asked.who.account, asked.who.view, asked.now
        before, ended_before = asked.query.get("before") or None, asked.query.get("ended") or None
        live, more = keys.newest(session, view, before, _KEYS, now=now, ended=False)
        ended, more_ended = keys.newest(session, view, ended_before, _KEYS, now=now, ended=True)
        theirs = projects.in_view(session, view, account, now)
        names = projects.open_names(theirs) if view.is_whole else []
        return {
            "projects": theirs,
            "live": [
                (key_info(each, account, now), self.forms.some(asked.who, _ON_KEY, each, key_id=each.id))
                for each in live
            ],
            "more": live[-1].id if more else None,
            "ended": [(key_info(each, account, now), why_ended(each, now)) for each in ended],
            "more_ended": ended[-1].id if more_ended else None,
            "create": self.forms.form(asked.who, "key.create", choices={"projects": names}),
            "own": None if asked.who.key is None else asked.who.key.id,
        }

    def events(self, asked: Asked, session: Session) -> Values:
        """The events, their receivers, and the outcome of each delivery."""
        view = asked.who.view
        mine = select(WebhookEvent).where(or_(WebhookEvent.account_id.is_(None), view.rows(WebhookEvent)))
        found = session.scalars(mine.order_by(WebhookEvent.created_at.desc()).limit(_EVENTS)).all()
        added = session.scalars(
            select(WebhookEndpoint).where(WebhookEndpoint.account_id == view.account_id)
            .order_by(WebhookEndpoint.created_at)
        ).all() if view.is_whole else []  # fmt: skip
        own = {each.id: each for each in added}
        data: list[dict[str, Any]] = [json.loads(each.content)["data"] for each in found]
        labels = labels_of(session, asked.who, {each["key_id"] for each in data if each.get("key_id")})
        return {
            "events": [
                {
                    "kind": each.kind,
                    "at": to_datetime(each.created_at),
                    "said": sentences.of_event(EventKind(each.kind), facts, labels),
                    "deliveries": self._deliveries(asked.who, session, each.id, own),
                }
                for each, facts in zip(found, data, strict=True)
            ],
            "receivers": [(receivers.public(each), self._receiver_forms(asked.who, each)) for each in added],
            "add": self.forms.form(asked.who, "webhook.create") if view.is_whole else None,
        }

    def sessions_page(self, asked: Asked, session: Session) -> Values:
        """Who is signed in to this account, by which key and since when; and who was invited."""
        who, act = asked.who, self.acts.by(asked.who.actor, customer=asked.who.customer).act_in(session)
        found = sessions.list_sessions(act, who.name)
        invited = invitations.list_invitations(act, who.name) if who.view.is_whole else []
        return {
            "sessions": [
                (each, self.forms.form(who, "session.end", session_id=each.session_id)) for each in found
            ],
            "invitations": [
                (each, self.forms.form(who, "invitation.withdraw", each, invitation_id=each.invitation_id))
                for each in invited
            ],
        }

    def quick_start(self, asked: Asked, session: Session) -> Values:
        """A key, a picture to try, and the first request in several languages, with this vendor's address."""
        create = self.forms.form(asked.who, "key.create")
        return {
            **self.models_page(asked, session),
            "url": asked.base_url,
            "model": self.models.default.facts.id,
            "create": None if create is None else create.only(label="first key", scope="", spend_limit=""),
        }

    def _receiver_forms(self, who: SignedInCustomer, receiver: WebhookEndpoint) -> list[ActForm]:
        if not receivers.is_own(receiver):
            return []
        names = ("webhook.rotate", "webhook.disable")
        return self.forms.some(who, names, receiver, endpoint_id=receiver.id)

    def _deliveries(
        self,
        who: SignedInCustomer,
        session: Session,
        event_id: str,
        own: Mapping[str, WebhookEndpoint],
    ) -> list[dict[str, Any]]:
        found = session.scalars(select(WebhookDelivery).where(WebhookDelivery.event_id == event_id)).all()
        deliveries: dict[tuple[object, ...], dict[str, Any]] = {}
        for each in found:
            receiver = own.get(each.endpoint_id)
            if receiver is None:
                continue
            last, again = receivers.last_attempt(session, each), None
            is_own = receivers.is_own(receiver)
            if is_own and receiver.disabled_at is None and each.state != "pending":
                again = self.forms.form(who, "webhook.replay", event_id=event_id, endpoint_id=receiver.id)
            shown = {
                "state": each.state,
                "attempts": each.attempts,
                "last": None if last is None else _outcome(last, receiver),
                "to": receiver.url if is_own else None,
            }
            alike = deliveries.setdefault(
                (*shown.values(), is_own and receiver.id), {**shown, "times": 0, "again": again}
            )
            alike["times"] += 1
        return list(deliveries.values())

    def _course(self, asked: Asked, session: Session, unit: str) -> str | None:
        """Where the month is heading, and by which key."""
        who, today = asked.who, to_datetime(asked.now).date()
        first, begin = today.replace(day=1), max(month_start(asked.now), asked.who.account.created_at)
        days = spending.by_day(session, who.view, first, today)
        keys = shares_of(spending.by_group(session, who.view, "key", first, today))
        labels = labels_of(session, who, [each.spent.group for each in keys[:1]])
        return sentences.course(days, keys, labels, begin, asked.now, unit)

    def _by_project(self, session: Session, who: SignedInCustomer, first: date, last: date) -> list[Share]:
        """The charges of each project; nothing where there is only the default one."""
        spent = spending.by_group(session, who.view, "project", first, last)
        return shares_of(spent) if any(each.group != DEFAULT_PROJECT for each in spent) else []

    def _report(self, asked: Asked, session: Session) -> UsageReport:
        first, last, group = _range(asked.query, asked.now)
        since, until = _instant(first), _instant(last + timedelta(days=1))
        return usage_report(session, asked.who.view, group, since, until)


def _range(query: Fields, now: int) -> tuple[date, date, GroupBy]:
    today = to_datetime(now).date()
    last = query.day("to") or today
    first = query.day("from") or min(last, today - timedelta(days=_DAYS - 1))
    if first > last:
        raise APIError(ErrorCode.INVALID_REQUEST, "the first day is later than the last one", param="from")
    group = query.get("group") or "day"
    if group not in get_args(GroupBy):
        raise APIError(ErrorCode.INVALID_REQUEST, "usage cannot be grouped by that", param="group")
    return first, last, group  # type: ignore[return-value]


def _instant(day: date) -> int:
    return from_datetime(datetime(day.year, day.month, day.day))


def _outcome(last: WebhookAttempt, receiver: WebhookEndpoint) -> str:
    if last.error is None:
        return f"HTTP {last.status}"
    # The error of a receiver that operators added may name addresses of their own network.
    return last.error if receivers.is_own(receiver) else "not reached"
