"""Customers' pages about the books: the ledger, invoices and credit notes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, get_args

from sqlalchemy.orm import Session
from starlette.responses import JSONResponse, Response

from shared.billing import CreditNote, EntryKind, EntryPage, Invoice
from shared.errors import ErrorCode
from shared.kinds import KINDS
from vendor_service.clock import ClockWatch, month_of, to_datetime
from vendor_service.console.customers.saved import csv_file, saved
from vendor_service.console.customers.visitor import SignedInCustomer, labels_of, newest_labels
from vendor_service.console.forms import Fields
from vendor_service.console.routes import ConsoleRequest, Later, Page
from vendor_service.database.session import Database
from vendor_service.errors import APIError
from vendor_service.money import credit_notes, entry_search, invoices, ledger, spending
from vendor_service.money.einvoice import as_xml
from vendor_service.money.entry_search import EntryFilter
from vendor_service.money.invoice_formats import as_pdf, document_of, to_pay
from vendor_service.terms import MAX_NUMBER

Values = Mapping[str, Any]
Asked = ConsoleRequest[SignedInCustomer]

_ENTRIES = 25
_MOST_EXPORTED = 10_000
_COST_OF_EXPORT = 10  # in pages: it takes the processor as long as they do
_PORTION = 1000  # entries that the script which verifies the chain is given at once


@dataclass(frozen=True)
class MoneyPages:
    """The pages, and what they need beside the books' session."""

    database: Database
    watch: ClockWatch | None

    def all(self) -> list[Page[SignedInCustomer]]:
        """Every page, in the order of the menu."""
        money = "Money"
        return [
            Page("/ledger", "Ledger", "customers/ledger.html", self.ledger_page, money),
            Page("/ledger.csv", "Ledger", "", self.ledger_csv, cost=_COST_OF_EXPORT),
            Page("/ledger/entries", "Ledger", "", self.entries),
            Page("/invoices", "Invoices", "customers/invoices.html", self.invoices_page, money),
            Page("/invoices/{month}.pdf", "Invoice", "", self.invoice_pdf),
            Page("/invoices/{month}.xml", "Invoice", "", self.invoice_xml),
            Page("/invoices/{month}", "Invoice", "customers/invoice.html", self.invoice),
            Page("/credit-notes/{number}.pdf", "Credit note", "", self.credit_note_pdf),
            Page("/credit-notes/{number}.xml", "Credit note", "", self.credit_note_xml),
            Page("/credit-notes/{number}", "Credit note", "customers/credit_note.html", self.credit_note),
        ]

    def ledger_page(self, asked: Asked, session: Session) -> Values:
        """The entries, the newest first."""
        wanted, before = _filter(asked.query), asked.query.number("before")
        view = asked.who.view
        found = entry_search.search(
            session, view, wanted, MAX_NUMBER if before is None else before, _ENTRIES + 1
        )
        entries = [ledger.public(each) for each in found[:_ENTRIES]]
        named = {each.key_id for each in entries if each.key_id is not None} | {asked.query.get("key")}
        labels = labels_of(session, asked.who, named)
        return {
            "entries": entries,
            "more": found[_ENTRIES - 1].seq if len(found) > _ENTRIES else None,
            "counted": entry_search.count(session, view, wanted),
            "query": asked.query,
            "kept": [(name, value) for name, value in asked.query.pairs if name != "before" and value],
            "kinds": get_args(EntryKind),
            "labels": labels,
            "offered": newest_labels(session, asked.who) | labels,
            "models": sorted({each.group for each in spending.by_group(
                session, view, "model", to_datetime(asked.who.account.created_at).date(),
                to_datetime(asked.now).date(),
            )}),
            "balance": asked.who.account.credit_micros,
        }  # fmt: skip

    def ledger_csv(self, asked: Asked, session: Session) -> Response:
        """The newest of the same entries for a spreadsheet, with money in micro-units."""
        found = entry_search.search(session, asked.who.view, _filter(asked.query), MAX_NUMBER, _MOST_EXPORTED)
        rows = [ledger.public(each).model_dump(mode="json") for each in found]
        columns = ("seq", "created_at", "kind", "amount_micros", *KINDS.values(),
                   *(f"{kind}_micros" for kind in KINDS), "model", "key_id", "request_id",
                   "corrects_seq", "reason", "reference", "entry_hash")  # fmt: skip
        return csv_file(columns, rows, f"ledger-{asked.who.name}.csv")

    def entries(self, asked: Asked, session: Session) -> Response:
        """Entries behind one, oldest first, for the script that verifies the chain."""
        after = asked.query.number("after") or 0
        data = ledger.page(session, asked.who.view, min(max(after, 0), MAX_NUMBER), _PORTION)
        page = EntryPage(data=data, next_after=data[-1].seq if data else after)
        told = page.model_dump(mode="json") | {"last": asked.who.account.ledger_seq}
        return JSONResponse(told, headers={"cache-control": "no-store", "x-content-type-options": "nosniff"})

    def invoices_page(self, asked: Asked, session: Session) -> Values:
        """The months since the account was opened, with the invoices that are final."""
        account = asked.who.account
        asked.who.customer.require_whole("invoices are")
        final = {each.month: json.loads(each.content) for each in invoices.finals(session, account.id)}
        months = [
            {"month": month, "invoice": final.get(month), "is_now": month == month_of(asked.now)}
            for month in months_since(account.created_at, asked.now)
        ]
        return {"months": months, "notes": credit_notes.of_account(session, account.id)[::-1]}

    def invoice(self, asked: Asked, _: Session) -> Later:
        """One invoice, as it was issued, or as it stands."""
        return Later(lambda: self._shown(asked))

    def invoice_pdf(self, asked: Asked, _: Session) -> Later:
        """The same to keep."""
        return Later(lambda: self._saved(asked))

    def invoice_xml(self, asked: Asked, _: Session) -> Later:
        """The same for programs: Factur-X, by EN 16931."""

        def made() -> Response:
            found = self._invoice(asked)
            return saved(as_xml(found), "application/xml", f"invoice-{found.account}-{found.month}.xml")

        return Later(made)

    def credit_note(self, asked: Asked, session: Session) -> Values:
        """One credit note, as it was issued."""
        note = _note(asked, session)
        return {"note": note, "laid_out": document_of(note)}

    def credit_note_pdf(self, asked: Asked, session: Session) -> Later:
        """The same to keep."""
        note = _note(asked, session)
        name = f"credit-note-{note.account}-{note.name}.pdf"
        return Later(lambda: saved(as_pdf(note), "application/pdf", name))

    def credit_note_xml(self, asked: Asked, session: Session) -> Later:
        """The same for programs."""
        note = _note(asked, session)
        name = f"credit-note-{note.account}-{note.name}.xml"
        return Later(lambda: saved(as_xml(note), "application/xml", name))

    def _shown(self, asked: Asked) -> Values:
        found = self._invoice(asked)
        with self.database.read() as session:
            issued = invoices.finals(session, asked.who.account_id) if found.final else []
        dates = {each.month: to_datetime(each.issued_at) for each in issued}
        laid_out = document_of(found)
        return {
            "invoice": found,
            "issued_at": dates.get(found.month),
            "to_pay": to_pay(found),
            "parties": laid_out.parties,
            "facts": [*laid_out.facts, *laid_out.sums],
        }

    def _saved(self, asked: Asked) -> Response:
        found = self._invoice(asked)
        return saved(as_pdf(found), "application/pdf", f"invoice-{found.account}-{found.month}.pdf")

    def _invoice(self, asked: Asked) -> Invoice:
        asked.who.customer.require_whole("invoices are")
        month = asked.path["month"]
        if month not in months_since(asked.who.account.created_at, asked.now):
            raise APIError(ErrorCode.NOT_FOUND, f"there is no invoice {month[:20]!r} of this account")
        return invoices.issue(self.database, asked.who.account_id, month, asked.now, self.watch)


def _note(asked: Asked, session: Session) -> CreditNote:
    asked.who.customer.require_whole("credit notes are")
    name = asked.path["number"]
    for each in credit_notes.of_account(session, asked.who.account_id):
        if each.name == name:
            return each
    raise APIError(ErrorCode.NOT_FOUND, f"there is no credit note {name[:20]!r} of this account")


def months_since(begin: int, now: int) -> list[str]:
    """The UTC months from one instant to another, written as 2026-11, the newest first."""
    months, moment = [], to_datetime(begin).replace(day=1)
    while moment <= to_datetime(now):
        months.append(f"{moment:%Y-%m}")
        moment = (moment + timedelta(days=32)).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return months[::-1]


def _filter(query: Fields) -> EntryFilter:
    return EntryFilter(
        kind=query.get("kind") or None,
        key_id=query.get("key") or None,
        model=query.get("model") or None,
        first=query.day("from"),
        last=query.day("to"),
    )
