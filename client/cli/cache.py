"""`client cache`: what was bought, checked, carried elsewhere and cleaned up. Nothing here spends."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import Field

from client.cli.command import Printed, app, command, print_json, print_line
from client.errors import CacheError, UsageError
from client.options.vendor import CacheOptions
from client.progress import Display
from shared.declared import Option

if TYPE_CHECKING:  # numpy is not imported before a command needs it
    from client.runs.storage import Storage

cache_app = typer.Typer(
    name="cache",
    help="Manage the cache of bought embeddings.\n\nExample: client cache stats",
    no_args_is_help=True,
)
app.add_typer(cache_app)


_Fingerprint = Annotated[
    str | None, Field(description="Fingerprint of the model; `client cache stats` lists them.")
]


class PrintedCache(CacheOptions, Printed):
    """A cache, of which something is printed."""


@command(cache_app)
def stats(given: PrintedCache) -> None:
    """Show what the cache holds, by model and kind, and what was paid for it.

    Example: client cache stats
    """
    from client.cli.tables import print_holdings

    with _storage(given).cache(must_exist=True) as store:
        holdings, paid, size = store.holdings(), store.paid(), store.path.stat().st_size
        path = store.path
    if given.as_json:
        rows = [asdict(holding) for holding in holdings]
        print_json({"file": str(path), "file_bytes": size, "holdings": rows, "paid": asdict(paid)})
    else:
        print_holdings(path, size, holdings, paid)


@command(cache_app)
def verify(given: PrintedCache) -> None:
    """Read every embedding and check it; ends with 1 if one is damaged.

    Example: client cache verify
    """
    storage = _storage(given)
    with storage.cache(must_exist=True) as store:
        total = sum(holding.embeddings for holding in store.holdings())
        with storage.display.track("Verifying", total) as advance:
            damaged = store.verify(lambda checked: advance(checked, ""))
    if given.as_json:
        print_json({"embeddings": total, "damaged": damaged})
    else:
        print_line(f"{total} embeddings, {damaged} damaged.")
    if damaged:
        raise CacheError(
            f"{damaged} embeddings are damaged. They are never used, and are bought again when they are "
            "needed; `client cache prune --damaged` deletes them."
        )


class Export(CacheOptions):
    """The options of `client cache export`."""

    out: Annotated[Path, Option(argument=True, metavar="FILE")] = Field(
        description="File to write, which ends in .safetensors or .parquet."
    )
    model_fingerprint: _Fingerprint = None
    half: Annotated[bool, Option(safe=True)] = Field(
        default=False, description="Round to float16; then only a cache of float16 imports it."
    )


@command(cache_app, "export")
def export_(given: Export) -> None:
    """Write one model's embeddings to a safetensors or Parquet file, with digests, kinds and checksums.

    Example: client cache export bought.parquet
    """
    from client.cache.archive import export_embeddings

    with _storage(given).cache(must_exist=True) as store:
        count = export_embeddings(store, given.out, fingerprint=given.model_fingerprint, half=given.half)
    print_line(f"{count} embeddings in {given.out}.")


class Import(CacheOptions):
    """The options of `client cache import`."""

    file: Annotated[Path, Option(argument=True, metavar="FILE")] = Field(
        description="File that `client cache export` wrote."
    )


@command(cache_app, "import")
def import_(given: Import) -> None:
    """Add the embeddings of an exported file that the cache lacks.

    Example: client cache import bought.safetensors
    """
    from client.cache.archive import import_embeddings

    with _storage(given).cache() as store:
        added, total = import_embeddings(store, given.file)
    print_line(f"{added} of {total} embeddings were new to the cache.")


class Forget(PrintedCache):
    """The options of `client cache forget`."""

    kept: Annotated[Path, Option(argument=True, metavar="DIR")] = Field(description="The folder of --keep.")
    older_than: float = Field(
        default=0.0, ge=0, description="Delete only images that were kept at least this many days ago."
    )


@command(cache_app)
def forget(given: Forget) -> None:
    """Delete images that were kept because the vendor was asked about them, and their embeddings.

    So is what lies beside the cache: what is known of their files (thumbnails, names, digests), and all
    decoded images, which later runs decode again. Of the folder, only files that --keep wrote are deleted.
    Receipts stay, and so do runs and exported files; who asks again pays again.

    Example: client cache forget kept --older-than 30
    """
    from client.data import kept_images

    storage = _storage(given)
    try:
        named = kept_images.kept_before(given.kept, days=given.older_than)
        doomed = [each for each in named if each.is_intact()]
    except OSError as error:
        raise UsageError(f"{error.filename or given.kept}: {error.strerror}.") from error
    # The files go last: their names alone say what else is theirs.
    embeddings = storage.forget([each.digest for each in doomed])
    kept_images.delete(doomed)
    if others := len(named) - len(doomed):
        storage.display.note(
            f"{others} files are named like kept images and hold something else: they were left alone, and "
            "so were the embeddings under those names."
        )
    if given.as_json:
        print_json({"images": len(doomed), "embeddings": embeddings})
    else:
        print_line(f"Deleted {len(doomed)} images and {embeddings} embeddings.")


class Create(CacheOptions):
    """The options of `client cache create`."""

    half: Annotated[bool, Option(safe=True)] = Field(
        default=False, description="Keep vectors as float16: half the disk, rounded to 3 digits."
    )


@command(cache_app)
def create(given: Create) -> None:
    """Make an empty cache. Buying makes one too, of exact float32; this is for one of float16.

    Example: client cache create --half --cache small.db
    """
    with _storage(given).cache(half=given.half) as store:
        if any(store.holdings()) or (store.dtype.itemsize == 2) != given.half:
            raise UsageError(f"The cache {store.path} exists already. Name another with --cache.")
        print_line(f"{store.path} was made.")


class Prune(CacheOptions):
    """The options of `client cache prune`."""

    model_fingerprint: Annotated[_Fingerprint, Option(typed=True)] = None
    damaged: Annotated[bool, Option(typed=True)] = Field(
        default=False, description="Delete embeddings that no longer match their checksum."
    )
    yes: Annotated[bool, Option(typed=True)] = Field(
        default=False, description="Delete embeddings although they were paid for."
    )


@command(cache_app)
def prune(given: Prune) -> None:
    """Delete damaged embeddings, or those of a model that is no longer sold. Receipts stay.

    Example: client cache prune --model-fingerprint fp_0123 --yes
    """
    fingerprint = given.model_fingerprint
    if given.damaged == (fingerprint is not None):
        raise UsageError("Say what to delete: --damaged, or a model with --model-fingerprint.")
    with _storage(given).cache(must_exist=True) as store:
        doomed = sum(each.embeddings for each in store.holdings() if each.fingerprint == fingerprint)
        if doomed and not given.yes:
            raise UsageError(f"This deletes {doomed} embeddings that were paid for. Add --yes to do it.")
        print_line(f"{store.prune(fingerprint)} embeddings deleted.")


def _storage(options: CacheOptions) -> "Storage":
    from client.runs.storage import Storage

    return Storage(options, Display())
