"""`vendor receipts-key`: the keys that sign receipts."""

from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy import select

from vendor_service.cli.books import AsJson, DatabaseUrl, prepared, print_rows, reading, writing
from vendor_service.cli.confirm import Yes, confirm
from vendor_service.clock import system_clock, to_datetime
from vendor_service.database.tables import SigningKeyRow
from vendor_service.settings import Settings

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
    with reading(database_url) as session:
        found = session.scalars(select(SigningKeyRow).order_by(SigningKeyRow.created_at.desc())).all()
    rows = [
        {
            "key": each.kid,
            "since": to_datetime(each.created_at).isoformat(),
            "withdrawn": to_datetime(each.withdrawn_at).isoformat() if each.withdrawn_at else None,
        }
        for each in found
    ]
    print_rows(rows, as_json=as_json)


@app.command("rotate")
def rotate(signing_key_in: SigningKeyFile = None, database_url: DatabaseUrl = None) -> None:
    """Make a new key, by which the vendors of this file sign within seconds. Old receipts stay good.

    Example: vendor receipts-key rotate
    """
    from vendor_service.billing import signing

    settings = Settings.read(database_url=database_url, signing_key_in=signing_key_in)
    with prepared(database_url) as database:
        file = settings.signing_key_in or signing.default_file(database)
        key = signing.rotate(database, file, system_clock)
    print(f"{key.public.kid} in {file}")


@app.command("withdraw")
def withdraw(
    key: Annotated[str, typer.Argument(help="As `vendor receipts-key list` names it.")],
    yes: Yes = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Disown a key that others have got hold of; rotate first. Nothing that it signed is proof any more.

    Example: vendor receipts-key withdraw 8vKzXxYw...
    """
    from vendor_service.billing import signing

    confirm(f"Customers will refuse every receipt that {key} signed.", key, yes=yes)
    with writing(database_url) as session:
        signing.withdraw(session, key, system_clock())
    print(f"{key} is withdrawn")
