"""`client receipts`: what the vendor has signed, checked and handed to others. Nothing here asks a vendor."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import Field

from client.cli.command import Printed, app, command, print_json, print_line
from client.errors import UsageError
from client.options.vendor import CacheOptions
from client.progress import Display
from shared.declared import Option

if TYPE_CHECKING:  # numpy and what checks signatures are not imported before a command needs them
    from client.proofs.evidence import Evidence
    from client.proofs.swap import SwapCheck

receipts_app = typer.Typer(
    name="receipts",
    help="Check the vendor's signed receipts, and hand them to others.\n\nExample: client receipts verify",
    no_args_is_help=True,
)
app.add_typer(receipts_app)


class Verify(CacheOptions, Printed):
    """The options of `client receipts verify`."""

    file: Annotated[Path | None, Option(argument=True, typed=True, metavar="[FILE]")] = Field(
        default=None,
        description="File that `client receipts export` or `client canary` wrote; without it, the cache.",
    )
    keys: Annotated[Path | None, Option(typed=True, metavar="JWKS")] = Field(
        default=None, description="The vendor's keys, from its /.well-known/jwks.json, for a FILE."
    )


@command(receipts_app)
def verify(given: Verify) -> None:
    """Check every signed receipt, and every embedding against its receipt; ends with 1 if one is wrong.

    Of a canary's evidence it says whether the vendor has signed two answers to one input.

    Example: client receipts verify bought.json --keys jwks.json
    """
    from client.api import receipts
    from client.cli.proofs import print_evidence

    found: Evidence | SwapCheck
    if given.file is not None:
        found = receipts.verify_receipts_file(given.file, given.keys)
    elif "keys" in given.model_fields_set:
        raise UsageError("--keys is for a FILE; the cache keeps the keys with its receipts.")
    else:
        found = receipts.verify_receipts(given, progress=Display())
    if given.as_json:
        print_json(found.to_json())
    else:
        print_evidence(found, trusted=given.file is None or given.keys is not None)
    if not found.holds:
        raise typer.Exit(1)


class Export(CacheOptions):
    """The options of `client receipts export`."""

    out: Annotated[Path, Option(argument=True, metavar="FILE")] = Field(description="File to write.")


@command(receipts_app)
def export(given: Export) -> None:
    """Write all signed receipts, with hashes of what was bought, to a file that anybody can check.

    Example: client receipts export bought.json
    """
    from client.api import receipts

    count = receipts.export_receipts(given, given.out, progress=Display())
    print_line(f"{count} signed receipts in {given.out}.")
