"""`vendor`: the operator's command line. Every command parses, calls one function, and prints."""

import json
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy.orm import Session

from shared.billing import QuotaPeriod
from vendor_service.accounts import accounts, keys
from vendor_service.billing.usage import account_status
from vendor_service.clock import system_clock, to_datetime
from vendor_service.database import schema
from vendor_service.database.session import Database
from vendor_service.database.tables import ApiKey
from vendor_service.errors import OperatorError
from vendor_service.settings import DtypeChoice, LogFormat, Settings

app = typer.Typer(
    help="Host a CLIP model and sell its embeddings by the query.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
accounts_app = typer.Typer(help="Customers and what is agreed with them.", no_args_is_help=True)
keys_app = typer.Typer(help="The keys with which customers ask.", no_args_is_help=True)
db_app = typer.Typer(help="The database's tables and their version.", no_args_is_help=True)
app.add_typer(accounts_app, name="accounts")
app.add_typer(keys_app, name="keys")
app.add_typer(db_app, name="db")

DatabaseUrl = Annotated[
    str | None,
    typer.Option(help="Where the books are. [default: sqlite:///tuition-vendor.db]", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


def main() -> None:
    """Run the command line; an `OperatorError` becomes one message and its exit code."""
    try:
        app()
    except OperatorError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on. [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one. [default: 8000]")] = None,
    model: Annotated[
        str | None, typer.Option(help="icon-clip, an open_clip name, or local-dir:PATH. [default: icon-clip]")
    ] = None,
    pretrained: Annotated[
        str | None, typer.Option(help="Which weights of an open_clip name: tag or file.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1 ... [default: auto]")] = None,
    dtype: Annotated[
        DtypeChoice | None, typer.Option(help="Arithmetic of the model. [default: auto]")
    ] = None,
    database_url: DatabaseUrl = None,
    log_format: Annotated[
        LogFormat | None, typer.Option(help="How to log to standard error. [default: text]")
    ] = None,
) -> None:
    """Serve a model over HTTP until stopped. Each option is also a setting: VENDOR_PORT, VENDOR_MODEL ...

    Example: vendor serve --model ViT-B-16 --pretrained openai --port 8000
    """
    settings = Settings.read(
        host=host,
        port=port,
        model=model,
        pretrained=pretrained,
        device=device,
        dtype=dtype,
        database_url=database_url,
        log_format=log_format,
    )
    # The model's libraries take seconds to import, which no other command should wait for.
    from vendor_service.app import create_app
    from vendor_service.observability import configure_logging
    from vendor_service.server import serve as run

    configure_logging(as_json=settings.log_format == "json")
    application = create_app(settings)
    served = application.state.model

    def announce(url: str) -> None:
        facts = f"model {served.id}, device {served.device}, dtype {served.dtype}"
        print(f"Tuition vendor ready on {url} ({facts})", flush=True)

    interrupted = run(application, settings.host, settings.port, announce)
    raise typer.Exit(130 if interrupted else 0)


@app.command()
def models(as_json: AsJson = False) -> None:
    """List what can be served: the bundled model, and open_clip's names with their pretrained tags.

    Example: vendor models | grep ViT-B-16
    """
    from vendor_service.encoder.clip import list_models

    found = [{"model": name, "pretrained": tag} for name, tag in list_models()]
    if as_json:
        _print_json(found)
        return
    for each in found:
        print(
            f"--model {each['model']}" + (f" --pretrained {each['pretrained']}" if each["pretrained"] else "")
        )


@accounts_app.command("create")
def accounts_create(
    name: str,
    quota: Annotated[int | None, typer.Option(help="Queries a period. [default: no limit]")] = None,
    period: Annotated[QuotaPeriod, typer.Option(help="A calendar month in UTC, or all time.")] = "month",
    spend_limit: Annotated[int | None, typer.Option(help="Micro-units a period. [default: no limit]")] = None,
    credit: Annotated[int | None, typer.Option(help="Prepaid micro-units. [default: invoiced]")] = None,
    rate_limit: Annotated[int | None, typer.Option(help="Queries a second. [default: no limit]")] = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Open an account.

    Example: vendor accounts create acme --quota 50000 --period month
    """
    terms = accounts.Terms(
        quota=quota,
        quota_period=period,
        spend_limit_micros=spend_limit,
        credit_micros=credit,
        queries_per_second=rate_limit,
    )
    with _writing(database_url) as session:
        account = accounts.open_account(session, name, terms, system_clock)
        status = account_status(session, account.id, system_clock())
    _print_rows([status.model_dump(mode="json")], as_json=as_json, one=True)


@accounts_app.command("list")
def accounts_list(database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """List all accounts with what they have used.

    Example: vendor accounts list --json
    """
    with _reading(database_url) as session:
        found = accounts.list_accounts(session)
        statuses = [account_status(session, account.id, system_clock()) for account in found]
    _print_rows([status.model_dump(mode="json") for status in statuses], as_json=as_json)


@accounts_app.command("show")
def accounts_show(name: str, database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Show one account.

    Example: vendor accounts show acme
    """
    with _reading(database_url) as session:
        status = account_status(session, accounts.find_account(session, name).id, system_clock())
    _print_rows([status.model_dump(mode="json")], as_json=as_json, one=True)


@keys_app.command("create")
def keys_create(
    account: str,
    label: Annotated[str, typer.Option(help="What the key is for.")] = "",
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Issue a key to an account and print it, this once.

    Example: vendor keys create acme --label laptop
    """
    with _writing(database_url) as session:
        issued = keys.issue_key(session, accounts.find_account(session, account), label, system_clock)
    if as_json:
        _print_json(asdict(issued))
        return
    print(issued.api_key)
    typer.echo("Keep it: only its hash is stored, so it cannot be shown again.", err=True)


@keys_app.command("list")
def keys_list(account: str, database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """List an account's keys, without their secrets.

    Example: vendor keys list acme
    """
    with _reading(database_url) as session:
        found = keys.list_keys(session, accounts.find_account(session, account))
    _print_rows([_key_row(key) for key in found], as_json=as_json)


@keys_app.command("revoke")
def keys_revoke(key_id: str, database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """End a key at once. KEY_ID is its middle part: tk_<KEY_ID>_...

    Example: vendor keys revoke 0f3c7a91d2b45e68
    """
    with _writing(database_url) as session:
        revoked = keys.revoke_key(session, key_id, system_clock)
    _print_rows([_key_row(revoked)], as_json=as_json, one=True)


@db_app.command("upgrade")
def db_upgrade(database_url: DatabaseUrl = None) -> None:
    """Bring the tables to this version; an embedded SQLite database does so by itself.

    Example: vendor db upgrade --database-url postgresql+psycopg://tuition@db/tuition
    """
    with closing(_database(database_url)) as database:
        schema.upgrade(database)
        print(schema.current(database))


@db_app.command("downgrade")
def db_downgrade(revision: str, database_url: DatabaseUrl = None) -> None:
    """Take the tables back to an earlier REVISION; base removes them with all that is in them.

    Example: vendor db downgrade base
    """
    with closing(_database(database_url)) as database:
        schema.downgrade(database, revision)
        print(schema.current(database))


@db_app.command("current")
def db_current(database_url: DatabaseUrl = None) -> None:
    """Print the version of the tables, or None for an empty database.

    Example: vendor db current
    """
    with closing(_database(database_url)) as database:
        print(schema.current(database))


def _database(database_url: str | None) -> Database:
    return Database(Settings.read(database_url=database_url).database_url)


@contextmanager
def _reading(database_url: str | None) -> Iterator[Session]:
    with closing(_database(database_url)) as database:
        schema.prepare(database)
        with database.read() as session:
            yield session


@contextmanager
def _writing(database_url: str | None) -> Iterator[Session]:
    with closing(_database(database_url)) as database:
        schema.prepare(database)
        with database.write() as session:
            yield session


def _key_row(key: ApiKey) -> dict[str, Any]:
    revoked_at = None if key.revoked_at is None else to_datetime(key.revoked_at).isoformat()
    created_at = to_datetime(key.created_at).isoformat()
    return {"key_id": key.id, "label": key.label, "created_at": created_at, "revoked_at": revoked_at}


def _print_json(data: object) -> None:
    print(json.dumps(data, indent=2))


def _print_rows(rows: list[dict[str, Any]], *, as_json: bool, one: bool = False) -> None:
    """Print rows of the same columns: as JSON (just the object if there is to be `one`), or for people."""
    if as_json:
        _print_json(rows[0] if one else rows)
    elif one:
        for name, value in rows[0].items():
            print(f"{name}: {'-' if value is None else value}")
    elif rows:
        table = Table(*rows[0])
        for row in rows:
            table.add_row(*("-" if value is None else str(value) for value in row.values()))
        Console().print(table)
