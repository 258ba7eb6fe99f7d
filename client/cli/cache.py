"""`client cache`: what was bought, checked, carried elsewhere and cleaned up. Nothing here spends."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from client.cli.options import CacheOption, JsonOption, a_number, print_json, print_line
from client.errors import CacheError, UsageError
from client.progress import Display

if TYPE_CHECKING:  # numpy and httpx are not imported before a command needs them
    from client.runs.connection import Connection

cache_app = typer.Typer(
    name="cache",
    help="Look after the cache of bought embeddings.\n\nExample: client cache stats",
    no_args_is_help=True,
)

ModelOption = Annotated[
    str | None,
    typer.Option("--model-fingerprint", help="Fingerprint of the model; `client cache stats` lists them."),
]


@cache_app.command()
def stats(cache: CacheOption = None, as_json: JsonOption = False) -> None:
    """Show what the cache holds, by model and kind, and what was paid for it.

    Example: client cache stats
    """
    from client.cli.tables import print_holdings

    with _connection(cache).cache(must_exist=True) as store:
        holdings, paid, size = store.holdings(), store.paid(), store.path.stat().st_size
        path = store.path
    if as_json:
        rows = [asdict(holding) for holding in holdings]
        print_json({"file": str(path), "file_bytes": size, "holdings": rows, "paid": asdict(paid)})
    else:
        print_holdings(path, size, holdings, paid)


@cache_app.command()
def verify(cache: CacheOption = None, as_json: JsonOption = False) -> None:
    """Read every embedding and check it; ends with 1 if one is damaged.

    Example: client cache verify
    """
    connection = _connection(cache)
    with connection.cache(must_exist=True) as store:
        total = sum(holding.embeddings for holding in store.holdings())
        with connection.display.track("Verifying", total) as advance:
            damaged = store.verify(lambda checked: advance(checked, ""))
    if as_json:
        print_json({"embeddings": total, "damaged": damaged})
    else:
        print_line(f"{total} embeddings, {damaged} damaged.")
    if damaged:
        raise CacheError(
            f"{damaged} embeddings are damaged. They are never used, and are bought again when they are "
            "needed; `client cache prune --damaged` deletes them."
        )


@cache_app.command("export")
def export_(
    out: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="File to write, which ends in .safetensors or .parquet.", show_default=False
        ),
    ],
    model_fingerprint: ModelOption = None,
    half: Annotated[
        bool, typer.Option("--half", help="Round to float16; then only a cache of float16 imports it.")
    ] = False,
    cache: CacheOption = None,
) -> None:
    """Write one model's embeddings to a safetensors or Parquet file, with digests, kinds and checksums.

    Example: client cache export bought.parquet
    """
    from client.cache.archive import export_embeddings

    with _connection(cache).cache(must_exist=True) as store:
        count = export_embeddings(store, out, fingerprint=model_fingerprint, half=half)
    print_line(f"{count} embeddings in {out}.")


@cache_app.command("import")
def import_(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="File that `client cache export` wrote.", show_default=False),
    ],
    cache: CacheOption = None,
) -> None:
    """Add the embeddings of an exported file that the cache lacks.

    Example: client cache import bought.safetensors
    """
    from client.cache.archive import import_embeddings

    with _connection(cache).cache() as store:
        added, total = import_embeddings(store, file)
    print_line(f"{added} of {total} embeddings were new to the cache.")


@cache_app.command()
def forget(
    kept: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="The folder of --keep.", show_default=False),
    ],
    older_than: Annotated[
        float,
        typer.Option(
            "--older-than",
            min=0,
            help="Delete only images that were kept at least this many days ago.",
            callback=a_number,
        ),
    ] = 0.0,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete images that were kept because the vendor was asked about them, and their embeddings.

    So is what lies beside the cache: what is known of their files (thumbnails, names, digests), and all
    decoded images, which later runs decode again. Of the folder, only files that --keep wrote are deleted.
    Receipts stay, and so do runs and exported files; who asks again pays again.

    Example: client cache forget kept --older-than 30
    """
    from client.deferral import keeping

    connection = _connection(cache)
    try:
        named = keeping.kept_before(kept, days=older_than)
        doomed = [each for each in named if each.is_intact()]
    except OSError as error:
        raise UsageError(f"{error.filename or kept}: {error.strerror}.") from error
    # The files go last: their names alone say what else is theirs.
    embeddings = connection.forget([each.digest for each in doomed])
    keeping.delete(doomed)
    if others := len(named) - len(doomed):
        connection.display.note(
            f"{others} files are named like kept images and hold something else: they stay, and so do "
            "embeddings of those names."
        )
    if as_json:
        print_json({"images": len(doomed), "embeddings": embeddings})
    else:
        print_line(f"Deleted {len(doomed)} images and {embeddings} embeddings.")


@cache_app.command()
def create(
    cache: CacheOption = None,
    half: Annotated[
        bool, typer.Option("--half", help="Keep vectors as float16: half the disk, rounded to 3 digits.")
    ] = False,
) -> None:
    """Make an empty cache. Buying makes one too, of exact float32; this is for one of float16.

    Example: client cache create --half --cache small.db
    """
    with _connection(cache).cache(must_exist=False, half=half) as store:
        if any(store.holdings()) or (store.dtype.itemsize == 2) != half:
            raise UsageError(f"The cache {store.path} exists already. Name another with --cache.")
        print_line(f"{store.path} is made.")


@cache_app.command()
def prune(
    model_fingerprint: ModelOption = None,
    damaged: Annotated[
        bool, typer.Option("--damaged", help="Delete embeddings that no longer match their checksum.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Delete embeddings although they were paid for.")
    ] = False,
    cache: CacheOption = None,
) -> None:
    """Delete damaged embeddings, or those of a model that is no longer sold. Receipts stay.

    Example: client cache prune --model-fingerprint fp_0123 --yes
    """
    if damaged == (model_fingerprint is not None):
        raise UsageError("Say what to delete: --damaged, or a model with --model-fingerprint.")
    with _connection(cache).cache(must_exist=True) as store:
        doomed = sum(h.embeddings for h in store.holdings() if h.fingerprint == model_fingerprint)
        if doomed and not yes:
            raise UsageError(f"This deletes {doomed} embeddings that were paid for. Add --yes to do it.")
        print_line(f"{store.prune(model_fingerprint)} embeddings deleted.")


def _connection(cache: Path | None) -> "Connection":
    from client.runs.connection import Connection

    return Connection("http://localhost", None, cache, Display())
