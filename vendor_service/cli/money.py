"""`vendor invoice`, `credit-note`, `currency` and `ledger export`: what is printed in forms of its own."""

import json
import re
import sys
from enum import StrEnum
from typing import Annotated

import typer

from shared.billing import Entry
from vendor_service.accounts import accounts
from vendor_service.acts.invoicing import issue_invoice, list_credit_notes
from vendor_service.acts.prices import name_currency, show_currency
from vendor_service.cli.books import AsJson, DatabaseUrl, acting
from vendor_service.cli.printing import print_json, print_row
from vendor_service.errors import OperatorError, UsageError
from vendor_service.money import ledger
from vendor_service.money.einvoice import as_xml
from vendor_service.money.invoice_formats import Bill, as_csv, as_html, as_pdf, as_text
from vendor_service.money.spreadsheets import csv_lines

# As `GET /v1/invoices/{month}` takes it.
_MONTH = re.compile(r"2\d{3}-(0[1-9]|1[0-2])", re.ASCII)


class InvoiceFormat(StrEnum):
    """How an invoice or a credit note is printed."""

    TEXT = "text"
    JSON = "json"
    HTML = "html"
    PDF = "pdf"
    CSV = "csv"
    XML = "xml"


class ExportFormat(StrEnum):
    """How the ledger is printed."""

    CSV = "csv"
    JSONL = "jsonl"


def currency(
    code: Annotated[
        str | None, typer.Argument(help="The currency, a code of ISO 4217. (default: show it)")
    ] = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Show or name the currency of which all sums are millionths. It stays the same once money has moved.

    Example: vendor currency EUR
    """
    with acting(database_url, reads=code is None) as context:
        if code is None:
            with context.read() as act:
                shown = show_currency(act)
        else:
            with context.write() as act:
                shown = name_currency(act, code)
    (print_json if as_json else print_row)(shown.model_dump())


Form = Annotated[InvoiceFormat, typer.Option("--format", help="How to print it.")]


def invoice(
    account: str,
    month: Annotated[str, typer.Option(help="YYYY-MM, in UTC.")],
    form: Form = InvoiceFormat.TEXT,
    database_url: DatabaseUrl = None,
) -> None:
    """Print a month's invoice. Once the month is over it is final: the same whenever it is asked for.

    Example: vendor invoice acme --month 2026-11 --format pdf > acme-2026-11.pdf
    """
    if not _MONTH.fullmatch(month):
        raise UsageError(f"{month!r} is no month; write it as 2026-01")
    _check_terminal(form, f"{account}-{month}")
    with acting(database_url) as context:
        issued = issue_invoice(context, account, month)
    _print(issued, form)


def credit_note(
    account: str,
    number: Annotated[
        str, typer.Argument(help="Its number, as 3 or CN-3: see `vendor credit-notes ACCOUNT`.")
    ],
    form: Form = InvoiceFormat.TEXT,
    database_url: DatabaseUrl = None,
) -> None:
    """Print a credit note: a refund of a charge that an invoice has.

    Example: vendor credit-note acme CN-3 --format pdf > acme-CN-3.pdf
    """
    name = f"CN-{number.removeprefix('CN-')}"
    _check_terminal(form, f"{account}-{name}")
    with acting(database_url, reads=True) as context, context.read() as act:
        found = [each for each in list_credit_notes(act, account) if each.name == name]
    if not found:
        raise OperatorError(f"{account} has no credit note {name[:20]}; see: `vendor credit-notes {account}`")
    _print(found[0], form)


def _check_terminal(form: InvoiceFormat, name: str) -> None:
    if form is InvoiceFormat.PDF and sys.stdout.isatty():
        raise UsageError(f"a PDF is not for a terminal; write it to a file: > {name}.pdf")


def _print(bill: Bill, form: InvoiceFormat) -> None:
    if form is InvoiceFormat.JSON:
        print(bill.model_dump_json(indent=2))
    elif form is InvoiceFormat.CSV:
        print(as_csv(bill), end="")
    elif form is InvoiceFormat.XML:
        sys.stdout.buffer.write(as_xml(bill))
    elif form is InvoiceFormat.PDF:
        sys.stdout.buffer.write(as_pdf(bill))
    else:
        print((as_html if form is InvoiceFormat.HTML else as_text)(bill))


def ledger_export(
    account: str,
    form: Annotated[ExportFormat, typer.Option("--format", help="How to print it.")] = ExportFormat.CSV,
    database_url: DatabaseUrl = None,
) -> None:
    """Print all entries of an account, oldest first.

    Example: vendor ledger export acme --format jsonl
    """
    with acting(database_url, reads=True) as context, context.read() as act:
        owner = accounts.find_account(act.session, account)
        entries = map(ledger.public, ledger.entries(act.session, owner.id))
        if form is ExportFormat.JSONL:
            for entry in entries:
                print(json.dumps(entry.model_dump(mode="json"), separators=(",", ":")))
            return
        for line in csv_lines(list(Entry.model_fields), (entry.model_dump(mode="json") for entry in entries)):
            print(line)
