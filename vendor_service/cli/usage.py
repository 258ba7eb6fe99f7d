"""`vendor usage`, `holds`: what customers use, and what is in flight."""

from datetime import datetime
from typing import Annotated

import typer

from shared.billing import GroupBy
from vendor_service.accounts.accounts import find_account
from vendor_service.cli.books import AsJson, DatabaseUrl, print_json, print_rows, reading
from vendor_service.cli.parsers import moment
from vendor_service.clock import from_datetime, system_clock
from vendor_service.errors import UsageError
from vendor_service.money.holds import open_holds
from vendor_service.money.usage import usage_report


def usage(
    account: str,
    since: Annotated[
        datetime | None, typer.Option("--from", parser=moment, help="First moment, UTC.")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option("--to", parser=moment, help="End, not included, UTC.")
    ] = None,
    group_by: Annotated[GroupBy, typer.Option(help="One row for each of these.")] = "day",
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Print what was answered and charged, in groups and in all.

    Example: vendor usage acme --from 2026-11-01 --group-by key
    """
    begin = from_datetime(since) if since else 0
    end = from_datetime(until) if until else system_clock() + 1
    if begin > end:
        raise UsageError("--from is later than --to")
    with reading(database_url) as session:
        report = usage_report(session, find_account(session, account).id, group_by, begin, end)
    if as_json:
        print_json(report.model_dump(mode="json"))
        return
    unit = {"currency": report.currency}
    print_rows([row.model_dump() | unit for row in (*report.rows, report.total)], as_json=False)


def holds(
    account: Annotated[str | None, typer.Argument(help="Only this account's. (default: all)")] = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """List the requests in flight, and what is held for them, oldest first.

    Example: vendor holds acme
    """
    with reading(database_url) as session:
        if account is not None:
            find_account(session, account)
        found = open_holds(session, account)
    print_rows([each.model_dump(mode="json") for each in found], as_json=as_json)
