"""`vendor top-up`, `payment`, `refund`, `adjust`, `invoice`, `ledger`: money moved and accounted for."""

import json
import re
import sys
from collections.abc import Callable
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn

from shared.billing import Entry
from vendor_service.accounts import accounts
from vendor_service.acts import money as acts
from vendor_service.acts.act import Act
from vendor_service.acts.verification import LedgerVerifier
from vendor_service.audit.actors import os_user
from vendor_service.cli.books import AsJson, DatabaseUrl, acting, prepared, print_rows, reading
from vendor_service.cli.parsers import micro_units, whole_number
from vendor_service.clock import system_clock
from vendor_service.database.session import Database
from vendor_service.errors import OperatorError, UsageError
from vendor_service.money import ledger
from vendor_service.money.invoice_formats import as_csv, as_html, as_pdf, as_text
from vendor_service.money.spreadsheets import csv_lines
from vendor_service.money.verification import Verification
from vendor_service.run.settings import Settings

# As `GET /v1/invoices/{month}` takes it.
_MONTH = re.compile(r"2\d{3}-(0[1-9]|1[0-2])", re.ASCII)

ledger_app = typer.Typer(help="The record of every charge and correction.", no_args_is_help=True)


class InvoiceFormat(StrEnum):
    """How an invoice is printed."""

    TEXT = "text"
    JSON = "json"
    HTML = "html"
    PDF = "pdf"
    CSV = "csv"


class ExportFormat(StrEnum):
    """How the ledger is printed."""

    CSV = "csv"
    JSONL = "jsonl"


Micros = Annotated[int, typer.Argument(parser=micro_units)]
Reference = Annotated[
    str, typer.Option(help="Its name at the bank or in your files; it counts once an account.")
]


def top_up(
    account: str,
    micros: Micros,
    reference: Reference,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Add to the credit of a prepaid account. Said again, with the same reference, it changes nothing.

    Example: vendor top-up acme 5000000 --reference "bank 2026-11-27/17"
    """
    _pay(acts.top_up, account, micros, reference, database_url, as_json=as_json)


def payment(
    account: str,
    micros: Micros,
    reference: Reference,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Record what an invoiced account paid: a negative amount, after `--`, is a payment that was returned.

    Invoices show it apart, and it is deducted from no month's total. Said again, with the same reference,
    it changes nothing.

    Example: vendor payment acme 5000000 --reference "bank 2026-11-27/17"
    """
    _pay(acts.pay, account, micros, reference, database_url, as_json=as_json)


def _pay(
    pay: Callable[[Act, str, int, str], acts.Recorded],
    account: str,
    micros: int,
    reference: str,
    database_url: str | None,
    *,
    as_json: bool,
) -> None:
    with acting(database_url) as act:
        recorded = pay(act, account, micros, reference)
    _print_recorded(recorded, as_json=as_json)


def _print_recorded(recorded: acts.Recorded, *, as_json: bool) -> None:
    if recorded.before:
        typer.echo(f"this was recorded already, as entry {recorded.entry.seq}; nothing was changed", err=True)
    _print(recorded.entry, as_json=as_json)


def refund(
    account: str,
    entry: Annotated[
        int,
        typer.Option(parser=whole_number, help="The `seq` of the charge: see vendor ledger export."),
    ],
    amount: Annotated[
        int | None,
        typer.Option(parser=micro_units, help="Micro-units. (default: all that is left of the charge)"),
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="Its name in your files; it counts once an account.")
    ] = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Give a charge back, or a part of it. Its queries stay used: this returns money, not quota.

    A charge may be given back in several parts, which need a reference each: said again with the same one, it
    changes nothing. In all no more is given back than was charged. What it took of the present period's spend
    limit is free again. Once nothing is left of the charge, it is not answered again for free.

    Example: vendor refund acme --entry 17 --amount 2500 --reference "ticket 812"
    """
    if not 1 <= entry <= ledger.MAX_NUMBER:
        raise UsageError(f"--entry is the `seq` of a charge, not {entry}: see vendor ledger export")
    if amount is not None and reference is None:
        raise UsageError("a part of a charge needs a --reference, so that it is given back once")
    with acting(database_url) as act:
        recorded = acts.refund(act, account, entry, amount, reference)
    _print_recorded(recorded, as_json=as_json)


def adjust(
    account: str,
    micros: Micros,
    reason: Annotated[str, typer.Option(help="The reason; it is kept in the ledger.")],
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Correct what an account owes: a positive amount is in its favour, a negative one after `--`.

    Example: vendor adjust acme 250000 --reason "outage of 14 November"
    """
    with acting(database_url) as act:
        entry = acts.adjust(act, account, micros, reason)
    _print(entry, as_json=as_json)


def invoice(
    account: str,
    month: Annotated[str, typer.Option(help="YYYY-MM, in UTC.")],
    form: Annotated[InvoiceFormat, typer.Option("--format", help="How to print it.")] = InvoiceFormat.TEXT,
    database_url: DatabaseUrl = None,
) -> None:
    """Print a month's invoice. Once the month is over it is final: the same whenever it is asked for.

    Example: vendor invoice acme --month 2026-11 --format pdf > acme-2026-11.pdf
    """
    if not _MONTH.fullmatch(month):
        raise UsageError(f"{month!r} is no month; write it as 2026-01")
    if form is InvoiceFormat.PDF and sys.stdout.isatty():
        raise UsageError(f"a PDF is not for a terminal; write it to a file: > {account}-{month}.pdf")
    trust_clock = Settings.read().trust_clock
    with prepared(database_url) as database:
        issued = acts.issue_invoice(
            database, os_user(), system_clock, account, month, trust_clock=trust_clock
        )
    if form is InvoiceFormat.JSON:
        print(issued.model_dump_json(indent=2))
    elif form is InvoiceFormat.CSV:
        print(as_csv(issued), end="")
    elif form is InvoiceFormat.PDF:
        sys.stdout.buffer.write(as_pdf(issued))
    else:
        print((as_html if form is InvoiceFormat.HTML else as_text)(issued))


@ledger_app.command("verify")
def ledger_verify(
    account: Annotated[str | None, typer.Argument(help="Only this account. (default: all)")] = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Recompute chain, sums and counters, and name the first fault of each account; exit 1 if there is one.

    Example: vendor ledger verify acme
    """
    with prepared(database_url) as database:
        found = _verify(database, account)
    print_rows([asdict(each) for each in found], as_json=as_json)
    if not found:
        typer.echo("there are no accounts yet", err=True)
    faulty = [each.account for each in found if each.problem]
    if faulty:
        raise OperatorError(f"the books of {', '.join(faulty)} are not in order")


@ledger_app.command("export")
def ledger_export(
    account: str,
    form: Annotated[ExportFormat, typer.Option("--format", help="How to print it.")] = ExportFormat.CSV,
    database_url: DatabaseUrl = None,
) -> None:
    """Print all entries of an account, oldest first.

    Example: vendor ledger export acme --format jsonl
    """
    with reading(database_url) as session:
        entries = map(ledger.public, ledger.entries(session, accounts.find_account(session, account).id))
        if form is ExportFormat.JSONL:
            for entry in entries:
                print(json.dumps(entry.model_dump(mode="json"), separators=(",", ":")))
            return
        for line in csv_lines(list(Entry.model_fields), (entry.model_dump(mode="json") for entry in entries)):
            print(line)


def _verify(database: Database, account: str | None) -> list[Verification]:
    """Verify one account or all; a terminal is shown how far it is."""
    console = Console(stderr=True)
    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TextColumn("entries"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("verifying", total=None)

        def show(name: str, entries: int, more: int) -> None:
            progress.update(task, description=name, advance=more, total=entries)

        return LedgerVerifier(database).verify(account, show)


def _print(entry: Entry, *, as_json: bool) -> None:
    print_rows([entry.model_dump(mode="json")], as_json=as_json, one=True)
