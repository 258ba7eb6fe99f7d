"""`client batches`, `models` and `usage`: an account at the vendor, and what the vendor sells to it."""

from typing import TYPE_CHECKING, Annotated

import typer

from client.cli.options import (
    DEFAULT_VENDOR,
    CacheOption,
    JsonOption,
    KeyFileOption,
    VendorOption,
    print_json,
)
from client.progress import Display
from shared.billing import GroupBy

if TYPE_CHECKING:  # httpx is not imported before a command needs it
    from client.api.options import VendorOptions


def batches(
    cancel: Annotated[
        str | None, typer.Option("--cancel", help="End this job now; what is done is paid for, and is yours.")
    ] = None,
    vendor: VendorOption = DEFAULT_VENDOR,
    api_key_file: KeyFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """List this account's bulk jobs, which --batch begins; the command that began one fetches what it brings.

    Example: client batches
    """
    from client.api import account
    from client.api.options import VendorOptions
    from client.cli.tables import print_batches

    options = VendorOptions(vendor=vendor, api_key_file=api_key_file)
    if cancel is not None:
        jobs = [account.cancel_batch(options, cancel, progress=Display())]
    else:
        jobs = account.batches(options, progress=Display())
    if as_json:
        print_json([job.model_dump(mode="json") for job in jobs])
    else:
        print_batches(jobs)


def models(
    vendor: VendorOption = DEFAULT_VENDOR, api_key_file: KeyFileOption = None, as_json: JsonOption = False
) -> None:
    """List the models that the vendor sells, with fingerprints and with the prices that this account pays.

    Example: client models --vendor http://127.0.0.1:8000
    """
    from client.api import account
    from client.api.options import VendorOptions
    from client.cli.tables import print_models

    cards = account.models(VendorOptions(vendor=vendor, api_key_file=api_key_file), progress=Display())
    if as_json:
        print_json([card.model_dump(mode="json") for card in cards])
    else:
        print_models(cards)


def usage(
    group_by: Annotated[GroupBy, typer.Option("--group-by", help="One row for each of these.")] = "day",
    reconcile: Annotated[
        bool,
        typer.Option(
            "--reconcile", help="Compare the vendor's ledger with the receipts here; exit 1 if they differ."
        ),
    ] = False,
    vendor: VendorOption = DEFAULT_VENDOR,
    api_key_file: KeyFileOption = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what the vendor says this account used, was billed, and has left.

    Example: client usage --group-by kind
    """
    from client.api import account
    from client.api.options import VendorOptions
    from client.cli.tables import print_usage

    options = VendorOptions(vendor=vendor, api_key_file=api_key_file, cache=cache)
    if reconcile:
        _reconcile(options, as_json=as_json)
        return
    used = account.usage(options, group_by, progress=Display())
    if as_json:
        print_json(used.to_json())
    else:
        print_usage(used)


def _reconcile(options: "VendorOptions", *, as_json: bool) -> None:
    from client.api import account
    from client.cli.proofs import print_reconciliation

    found = account.reconcile(options, progress=Display())
    if as_json:
        print_json(found.to_json())
    else:
        print_reconciliation(found)
    if found.differences:
        raise typer.Exit(1)
