"""`vendor currency`: the unit of all money in the books."""

from typing import Annotated

import typer

from vendor_service.acts.currency import CurrencyName, name_currency
from vendor_service.cli.books import AsJson, DatabaseUrl, acting, print_rows, reading
from vendor_service.money.currency import current


def currency(
    code: Annotated[
        str | None, typer.Argument(help="The currency, a code of ISO 4217. (default: show it)")
    ] = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Show or name the currency of which all sums are millionths. It stays the same once money has moved.

    Example: vendor currency EUR
    """
    if code is None:
        with reading(database_url) as session:
            shown = CurrencyName(currency=current(session))
    else:
        with acting(database_url) as act:
            shown = name_currency(act, code)
    print_rows([shown.model_dump()], as_json=as_json, one=True)
