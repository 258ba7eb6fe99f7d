"""`vendor receipts-key`: the keys that sign receipts."""

from pathlib import Path
from typing import Annotated

import typer

from vendor_service.audit.actors import os_user
from vendor_service.cli.books import AsJson, DatabaseUrl, acting, prepared, print_rows, reading
from vendor_service.cli.confirm import Yes, confirm
from vendor_service.clock import system_clock
from vendor_service.run.settings import Settings

SigningKeyFile = Annotated[
    Path | None,
    typer.Option(
        help="File of the key that signs receipts, made if need be. (default: beside an SQLite database)"
    ),
]

app = typer.Typer(help="The keys that sign receipts.", no_args_is_help=True)


@app.command("list")
def list_all(database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """List the keys that ever signed receipts, the newest first.

    Example: vendor receipts-key list
    """
    from vendor_service.acts import receipts_keys

    with reading(database_url) as session:
        found = receipts_keys.list_keys(session)
    rows = [
        {
            "key": each.key,
            "since": each.since.isoformat(),
            "withdrawn": each.withdrawn.isoformat() if each.withdrawn else None,
        }
        for each in found
    ]
    print_rows(rows, as_json=as_json)


@app.command("rotate")
def rotate(signing_key_in: SigningKeyFile = None, database_url: DatabaseUrl = None) -> None:
    """Make a new key, by which the vendors of this file sign within seconds. Old receipts stay good.

    Example: vendor receipts-key rotate
    """
    from vendor_service.acts import receipts_keys

    settings = Settings.read(database_url=database_url, signing_key_in=signing_key_in)
    with prepared(database_url) as database:
        key, file = receipts_keys.rotate(database, os_user(), system_clock, settings.signing_key_in)
    print(f"{key} in {file}")


@app.command("withdraw")
def withdraw(
    key: Annotated[str, typer.Argument(help="As `vendor receipts-key list` names it.")],
    yes: Yes = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Disown a key that others have got hold of; rotate first. Nothing that it signed is proof any more.

    Example: vendor receipts-key withdraw 8vKzXxYw...
    """
    from vendor_service.acts import receipts_keys

    confirm(f"Customers will refuse every receipt that {key} signed.", key, yes=yes)
    with acting(database_url) as act:
        receipts_keys.withdraw(act, key)
    print(f"{key} is withdrawn")
