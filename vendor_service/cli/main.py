"""`vendor`: the operator's command line. Every command parses, calls one function, and prints."""

import os
import sys
from importlib.metadata import version
from typing import Annotated

import typer

from shared.errors import ErrorCode
from shared.http.logging import masked
from shared.text import visible
from vendor_service.advice import addressed, typed_url
from vendor_service.cli import database, models, money
from vendor_service.cli.books import AsJson
from vendor_service.cli.declared import add_commands
from vendor_service.cli.printing import print_json, print_rows
from vendor_service.cli.serve import add_serve
from vendor_service.errors import APIError, CommitInDoubt, OperatorError, UsageError
from vendor_service.run.settings import Settings

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
# Books and customers' files are for their owner alone: 0600, in folders of 0700.
_FOR_NOBODY_ELSE = 0o077
_GROUPS = {
    name: typer.Typer(help=text, no_args_is_help=True)
    for name, text in {
        "accounts": "Customers and what is agreed with them.",
        "projects": "Parts of an account, each with limits of its own.",
        "keys": "The keys with which customers ask.",
        "invitations": "Links that sign somebody in to the console of an account.",
        "sessions": "Who is signed in to the console of an account.",
        "prices": "What a query costs: by plan, model and kind, and since when.",
        "batches": "The bulk jobs of an account.",
        "ledger": "The record of every charge and correction.",
        "operators": "The tokens with which operators ask /admin.",
        "webhooks": "Receivers of events, and the deliveries to them.",
        "month": "The end of a month.",
        "seller": "Who sells, as invoices name it.",
        "buyer": "Who buys by an account, as its invoices name it.",
        "audit": "The record of who changed what in the books.",
        "receipts-key": "The keys that sign receipts.",
        "extraction": "How much of a model its answers have given away.",
    }.items()
}
for _name, _group in _GROUPS.items():
    app.add_typer(_group, name=_name)
add_commands(app, _GROUPS)
_GROUPS["ledger"].command("export")(money.ledger_export)
app.command("invoice")(money.invoice)
app.command("credit-note")(money.credit_note)
app.command("currency")(money.currency)
app.add_typer(database.app, name="db")
app.add_typer(models.app, name="models")
add_serve(app)


def main() -> None:
    """Run the command line; an error that is told to people becomes one message and its exit code."""
    os.umask(_FOR_NOBODY_ELSE)
    try:
        _require_utf8(sys.argv[1:])
        app()
    except CommitInDoubt:  # its message is for who sends requests
        message = "the database went away before it said whether this was done; it may have been"
        _say(f"{message}: look with `vendor audit list` before you repeat it")
        sys.exit(OperatorError.exit_code)
    except (OperatorError, APIError) as error:
        _say(str(error))
        sys.exit(_exit_code(error))


def _say(problem: str) -> None:
    """Tell what went wrong; commands in it find the books that were typed."""
    text = addressed(visible(masked(problem)), typed_url(sys.argv[1:]))
    typer.echo(f"error: {text}", err=True)


def _exit_code(error: OperatorError | APIError) -> int:
    if isinstance(error, OperatorError):
        return error.exit_code
    return (UsageError if error.code is ErrorCode.INVALID_REQUEST else OperatorError).exit_code


def _require_utf8(arguments: list[str]) -> None:
    for count, each in enumerate(arguments, start=1):
        try:
            each.encode()
        except UnicodeEncodeError as error:  # Python has a surrogate for each byte that it could not read
            raise UsageError(f"argument {count} is not UTF-8: {each}") from error


def _show_version(wanted: bool) -> None:
    if wanted:
        print(version("tuition"))
        raise typer.Exit


@app.callback()
def options(
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Host a CLIP model and sell its embeddings by the query."""


@app.command("settings")
def settings_list(as_json: AsJson = False) -> None:
    """Print every setting: what holds, where that comes from, and what it is for. Secrets are not shown.

    Example: vendor settings
    """
    rows = Settings.read().sources()
    (print_json if as_json else print_rows)(rows)
