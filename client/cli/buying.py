"""`client embed`, `models`, `usage`, `batches`, `canary`, `isolation-test`: what a vendor sells and sold."""

from pathlib import Path
from typing import Annotated

import typer
from pydantic import Field

from client.cli.command import Printed, app, command, on_terminal, print_json
from client.cli.lines import from_lines
from client.options.vendor import CanaryOptions, EmbedOptions, IsolationOptions, VendorOptions
from client.progress import Display
from shared.billing import GroupBy
from shared.declared import Option

_PANEL = "Buy embeddings"


class Embed(EmbedOptions, Printed):
    """The options of `client embed`."""

    out: Annotated[Path, Option(one_command=True)] = Field(
        description="The file to write: FILE.npy, FILE.parquet or FILE.jsonl."
    )


@command(app, panel=_PANEL)
def embed(given: Embed) -> None:
    """Embed images and texts, buying what the cache lacks. Rows are in the order given: texts, then images.

    Folders are searched below; hidden files are left out. Images that cannot be embedded are listed, and the
    command ends with 1. In .npy they are rows of NaN, and FILE.index.jsonl names every row; in .parquet and
    .jsonl, which hold the names themselves, they are left out.

    Example: client embed --text "a photo of a cat" --images photos --out embeddings.npy
    """
    from client.api import embedding
    from client.runs.embedding import check_output

    check_output(given.out)  # before standard input is read
    texts, images = from_lines(given.texts, [str(word) for word in given.images])
    options = given.model_copy(update={"texts": tuple(texts), "images": tuple(images)})
    embeddings = embedding.embed(options, confirm=on_terminal(), progress=Display())
    if given.as_json:
        print_json(embeddings.to_json())
    if embeddings.skipped:
        raise typer.Exit(1)


class OfVendor(VendorOptions, Printed):
    """A vendor, of which something is printed."""


@command(app, panel=_PANEL, without=("cache", "teacher", "price"))
def models(given: OfVendor) -> None:
    """List the models that the vendor sells, with fingerprints and with the prices that this account pays.

    Example: client models --vendor http://127.0.0.1:8000
    """
    from client.api import account
    from client.cli.tables import print_models

    cards = account.models(given, progress=Display())
    if given.as_json:
        print_json([card.model_dump(mode="json") for card in cards])
    else:
        print_models(cards)


class Usage(OfVendor):
    """The options of `client usage`."""

    group_by: Annotated[GroupBy, Option(safe=True)] = Field(
        default="day", description="What each row stands for."
    )
    reconcile: Annotated[bool, Option(typed=True)] = Field(
        default=False,
        description="Compare the vendor's ledger with the receipts here; exit 1 if they differ.",
    )


@command(app, panel=_PANEL, without=("teacher", "price"))
def usage(given: Usage) -> None:
    """Show what the vendor says this account used, was billed, and has left.

    Example: client usage --group-by kind
    """
    from client.api import account
    from client.cli.proofs import print_reconciliation
    from client.cli.tables import print_usage

    if given.reconcile:
        found = account.reconcile(given, progress=Display())
        print_json(found.to_json()) if given.as_json else print_reconciliation(found)
        raise typer.Exit(1 if found.differences else 0)
    used = account.usage(given, given.group_by, progress=Display())
    print_json(used.to_json()) if given.as_json else print_usage(used)


class Batches(OfVendor):
    """The options of `client batches`."""

    cancel: Annotated[str | None, Option(typed=True)] = Field(
        default=None, description="End this job now; what is done is paid for, and is yours."
    )


@command(app, panel=_PANEL, without=("cache", "teacher", "price"))
def batches(given: Batches) -> None:
    """List this account's bulk jobs, which --batch begins; the command that began one fetches what it brings.

    Example: client batches
    """
    from client.api import account
    from client.cli.tables import print_batches

    jobs = (
        account.batches(given, progress=Display())
        if given.cancel is None
        else [account.cancel_batch(given, given.cancel, progress=Display())]
    )
    if given.as_json:
        print_json([job.model_dump(mode="json") for job in jobs])
    else:
        print_batches(jobs)


class Canary(CanaryOptions, Printed):
    """The options of `client canary`."""

    evidence: Annotated[Path | None, Option(metavar="FILE")] = Field(
        default=None, description="File to write if the model was swapped: it proves this to others."
    )


@command(app, panel=_PANEL, without=("price",))
def canary(given: Canary) -> None:
    """Ask a few known inputs again: does the fingerprint still stand for the same model? Ends with 1 if not.

    Inputs are drawn at random from those given that the cache knows, and then from the vendor's signed card.

    Example: client canary --images photos --count 8
    """
    from client.api import canary as api
    from client.cli.proofs import check_evidence, print_canary, write_evidence

    if given.evidence is not None:
        check_evidence(given.evidence)
    found = api.canary(given, confirm=on_terminal(), progress=Display())
    is_written, error = write_evidence(given.evidence, found.evidence)
    if given.as_json:
        print_json(found.to_json() | {"evidence": str(given.evidence) if is_written else None})
    else:
        print_canary(found)
    if error is not None:
        raise error
    if found.swapped:
        raise typer.Exit(1)


class OfTwoKeys(IsolationOptions, Printed):
    """The options of `client isolation-test`."""


@command(app, "isolation-test", panel=_PANEL, without=("cache", "teacher", "price"))
def isolation_test(given: OfTwoKeys) -> None:
    """Try with a second key, of another project, what the first one has at the vendor; it costs nothing.

    Ends with 1 if a wall is broken. Give the keys the other way round to try the other side.

    Example: client isolation-test --api-key-file search.key --other-key-file night.key
    """
    from client.api import isolation
    from client.cli.proofs import print_isolation

    found = isolation.isolation_test(given, progress=Display())
    print_json(found.to_json()) if given.as_json else print_isolation(found)
    if not found.holds:
        raise typer.Exit(1)
