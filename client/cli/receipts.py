"""`client receipts`: what the vendor has signed, checked and handed to others. Nothing here asks a vendor."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from client.cli.options import CacheOption, JsonOption, is_typed, print_json, print_line
from client.errors import UsageError

if TYPE_CHECKING:  # numpy and what checks signatures are not imported before a command needs them
    from client.proofs.evidence import Evidence
    from client.proofs.swap import SwapCheck

receipts_app = typer.Typer(
    name="receipts",
    help="Check the vendor's signed receipts, and hand them to others.\n\nExample: client receipts verify",
    no_args_is_help=True,
)


@receipts_app.command()
def verify(
    context: typer.Context,
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]",
            help="File that `client receipts export` or `client canary` wrote; without it, the cache.",
        ),
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option(
            "--keys", metavar="JWKS", help="The vendor's keys, from its /.well-known/jwks.json, for a FILE."
        ),
    ] = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check every signed receipt, and every embedding against its receipt; ends with 1 if one is wrong.

    Of a canary's evidence it says whether the vendor has signed two answers to one input.

    Example: client receipts verify bought.json --keys jwks.json
    """
    from client.api import receipts
    from client.api.options import VendorOptions
    from client.cli.proofs import print_evidence

    found: Evidence | SwapCheck
    if file is not None:
        found = receipts.verify_receipts_file(file, keys)
    elif is_typed(context, "keys"):
        raise UsageError("--keys is for a FILE; the cache keeps the keys with its receipts.")
    else:
        found = receipts.verify_receipts(VendorOptions(cache=cache))
    if as_json:
        print_json(found.to_json())
    else:
        print_evidence(found, trusted=file is None or keys is not None)
    if not found.holds:
        raise typer.Exit(1)


@receipts_app.command()
def export(
    out: Annotated[Path, typer.Argument(metavar="FILE", help="File to write.", show_default=False)],
    cache: CacheOption = None,
) -> None:
    """Write all signed receipts, with hashes of what was bought, to a file that anybody can check.

    Example: client receipts export bought.json
    """
    from client.api import receipts
    from client.api.options import VendorOptions

    count = receipts.export_receipts(VendorOptions(cache=cache), out)
    print_line(f"{count} signed receipts in {out}.")
