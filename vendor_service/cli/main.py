"""`vendor`: the operator's command line. Every command parses, calls one function, and prints."""

import logging
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from shared.errors import ErrorCode
from shared.http.logging import escaped, masked
from shared.threads import share_processors
from vendor_service.cli import database, money
from vendor_service.cli.books import AsJson, DatabaseUrl
from vendor_service.cli.declared import SigningKeyFile, add_commands
from vendor_service.cli.printing import print_json, print_rows
from vendor_service.errors import APIError, CommitInDoubt, OperatorError, UsageError
from vendor_service.run.settings import DtypeChoice, LogFormat, Settings

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_GROUPS = {
    name: typer.Typer(help=text, no_args_is_help=True)
    for name, text in {
        "accounts": "Customers and what is agreed with them.",
        "projects": "Parts of an account, each with limits of its own.",
        "keys": "The keys with which customers ask.",
        "prices": "What a query costs: by plan, model and kind, and since when.",
        "batches": "The bulk jobs of an account.",
        "ledger": "The record of every charge and correction.",
        "operators": "The tokens with which operators ask /admin.",
        "webhooks": "Receivers of events, and the deliveries to them.",
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
app.command("currency")(money.currency)
app.add_typer(database.app, name="db")


def main() -> None:
    """Run the command line; an error that is told to people becomes one message and its exit code."""
    try:
        _require_utf8(sys.argv[1:])
        app()
    except CommitInDoubt:  # its message is for who sends requests
        message = "the database went away before it said whether this was done; it may have been"
        typer.echo(f"error: {message}: look with `vendor audit list` before you repeat it", err=True)
        sys.exit(OperatorError.exit_code)
    except (OperatorError, APIError) as error:
        typer.echo(f"error: {escaped(masked(str(error)))}", err=True)
        sys.exit(_exit_code(error))


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


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on. (default: 127.0.0.1)")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one. (default: 8000)")] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that serve, each with the model. (default: 1)")
    ] = None,
    admin_port: Annotated[
        int | None,
        typer.Option(help="Port of the operators' API, /admin; 0 takes a free one. (default: none)"),
    ] = None,
    admin_host: Annotated[
        str | None, typer.Option(help="Address of the operators' API. (default: 127.0.0.1)")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="icon-clip, an open_clip name, or local-dir:PATH; several times for several models, the "
            "first of which is the default. (default: icon-clip)"
        ),
    ] = None,
    models_file: Annotated[
        Path | None,
        typer.Option(
            "--models", help="File of several models, which is read again at SIGHUP. (default: none)"
        ),
    ] = None,
    pretrained: Annotated[
        str | None, typer.Option(help="Weights of an open_clip name: a tag or a file.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda, or several: cuda:0,cuda:1 (default: auto)")
    ] = None,
    dtype: Annotated[
        DtypeChoice | None, typer.Option(help="Arithmetic of the model. (default: auto)")
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="Folder of images like customers', for --dtype int8. (default: none)")
    ] = None,
    compile_model: Annotated[
        bool | None, typer.Option("--compile", help="Compile the model with torch.compile: a slow start.")
    ] = None,
    database_url: DatabaseUrl = None,
    migrate: Annotated[
        bool | None, typer.Option("--migrate", help="Bring a PostgreSQL database to this version first.")
    ] = None,
    billing_log: Annotated[
        Path | None, typer.Option(help="File for a line of JSON for each charge and refusal. (default: none)")
    ] = None,
    first_key_to: Annotated[
        Path | None,
        typer.Option(
            help="At the first start, open an account and write its key to this file. (default: none)"
        ),
    ] = None,
    signing_key_in: SigningKeyFile = None,
    batch_store: Annotated[
        str | None,
        typer.Option(
            help="Folder or fsspec URL for files of bulk jobs; without it there are none. (default: none)"
        ),
    ] = None,
    log_format: Annotated[
        LogFormat | None, typer.Option(help="How to log to standard error. (default: text)")
    ] = None,
) -> None:
    """Serve a model over HTTP until stopped. Each option is also a setting: VENDOR_PORT, VENDOR_MODEL ...

    Example: vendor serve --model ViT-B-16 --pretrained openai --port 8000
    """
    settings = Settings.read(
        host=host,
        port=port,
        workers=workers,
        admin_port=admin_port,
        admin_host=admin_host,
        model=(model[0] if len(model) == 1 else tuple(model)) if model else None,
        models=models_file,
        pretrained=pretrained,
        device=device,
        dtype=dtype,
        calibration=calibration,
        compile=compile_model,
        database_url=database_url,
        migrate=migrate,
        billing_log=billing_log,
        first_key_to=first_key_to,
        signing_key_in=signing_key_in,
        batch_store=batch_store,
        log_format=log_format,
    )
    # The model's libraries take seconds to import, which no other command should wait for.
    share_processors()
    from shared.http.logging import configure_logging
    from vendor_service.run.model_loader import end_while_loading
    from vendor_service.run.serve import start

    def announce(url: str, facts: str) -> None:
        print(f"Tuition vendor ready on {url} ({facts})", flush=True)

    configure_logging("vendor_service", as_json=settings.log_format == "json")
    _tell(settings)
    status = 130 if start(settings, announce) else 0
    end_while_loading(status)
    raise typer.Exit(status)


def _tell(settings: Settings) -> None:
    log = logging.getLogger(__name__)
    log.info("settings", extra={"fields": settings.shown()})
    for name in settings.unknown():
        log.warning("%s is set, but is not a setting of this version", name)


@app.command()
def models(
    check: Annotated[
        Path | None,
        typer.Option(help="Look whether a file of models is right, and list those instead; loads none."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List what can be served: the bundled model, and open_clip's names with their pretrained tags.

    Example: vendor models | grep ViT-B-16
    """
    if check is not None:
        _show_specs(check, as_json=as_json)
        return
    from vendor_service.encoder.sources import list_models

    found = [{"model": name, "pretrained": tag} for name, tag in list_models()]
    if as_json:
        print_json(found)
        return
    for each in found:
        print(
            f"--model {each['model']}" + (f" --pretrained {each['pretrained']}" if each["pretrained"] else "")
        )


def _show_specs(file: Path, *, as_json: bool) -> None:
    from vendor_service.run.model_specs import find_specs

    found = find_specs(Settings.read().model_copy(update={"models": file}))
    rows = [
        {
            "model": each.id,
            "default": each.default,
            "source": each.source.label,
            "device": each.device,
            "dtype": each.dtype,
            "deprecated_at": None if each.deprecated_at is None else each.deprecated_at.isoformat(),
            "sunset_at": None if each.sunset_at is None else each.sunset_at.isoformat(),
        }
        for each in found
    ]
    (print_json if as_json else print_rows)(rows)
