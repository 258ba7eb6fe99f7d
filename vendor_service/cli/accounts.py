"""`vendor accounts`: customers and what is agreed with them."""

from dataclasses import asdict
from typing import Annotated

import typer

from shared.billing import AccountStatus, QuotaPeriod
from shared.questions import interruptible_question
from vendor_service.accounts.accounts import Terms, find_account, list_accounts
from vendor_service.acts import accounts, invitations
from vendor_service.cli.books import AsJson, DatabaseUrl, acting, print_json, print_rows, reading
from vendor_service.cli.parsers import micro_units, whole_number
from vendor_service.clock import system_clock, to_datetime
from vendor_service.database.tables import STANDARD_PLAN
from vendor_service.money.usage import account_status

app = typer.Typer(help="Customers and what is agreed with them.", no_args_is_help=True)


@app.command("create")
def create(
    name: str,
    quota: Annotated[
        int | None, typer.Option(parser=whole_number, help="Queries a period. (default: no limit)")
    ] = None,
    period: Annotated[QuotaPeriod, typer.Option(help="A calendar month in UTC, or all time.")] = "month",
    spend_limit: Annotated[
        int | None, typer.Option(parser=micro_units, help="Micro-units a period. (default: no limit)")
    ] = None,
    credit: Annotated[
        int | None, typer.Option(parser=micro_units, help="Prepaid micro-units. (default: invoiced)")
    ] = None,
    rate_limit: Annotated[
        int | None, typer.Option(parser=whole_number, help="Queries a second. (default: no limit)")
    ] = None,
    coverage_limit: Annotated[
        int | None,
        typer.Option(
            parser=whole_number, help="Buckets of the embedding space, over all time. (default: no limit)"
        ),
    ] = None,
    plan: Annotated[str, typer.Option(help="The plan whose prices hold: see vendor prices.")] = STANDARD_PLAN,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Open an account.

    Example: vendor accounts create acme --quota 50000 --period month
    """
    terms = Terms(
        quota=quota,
        quota_period=period,
        spend_limit_micros=spend_limit,
        credit_micros=credit,
        queries_per_second=rate_limit,
        coverage_limit=coverage_limit,
        plan=plan,
    )
    with acting(database_url, new=True) as act:
        status = accounts.open_account(act, name, terms)
    _print(status, as_json=as_json)
    if quota is None and spend_limit is None and credit is None:
        typer.echo(
            f"{name} may buy without a limit: it has no quota, no spend limit and no prepaid credit"
            + (", nor a rate limit" if rate_limit is None else "")
            + f". Set one with: vendor accounts set-quota {name} QUERIES",
            err=True,
        )


@app.command("list")
def list_all(database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """List all accounts with what they have used.

    Example: vendor accounts list --json
    """
    with reading(database_url) as session:
        found = list_accounts(session)
        statuses = [account_status(session, account.id, system_clock()) for account in found]
    print_rows([status.model_dump(mode="json") for status in statuses], as_json=as_json)


@app.command("show")
def show(name: str, database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Show one account.

    Example: vendor accounts show acme
    """
    with reading(database_url) as session:
        account = find_account(session, name)
        _print(account_status(session, account.id, system_clock()), as_json=as_json)


@app.command("set-quota")
def set_quota(
    name: str,
    quota: Annotated[
        int | None,
        typer.Argument(parser=whole_number, help="Queries a period; without it there is no limit."),
    ] = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Agree on another quota, from now on. What was used of the former one counts.

    Example: vendor accounts set-quota acme 80000
    """
    with acting(database_url) as act:
        status = accounts.set_quota(act, name, quota)
    _print(status, as_json=as_json)


@app.command("set-spend-limit")
def set_spend_limit(
    name: str,
    micros: Annotated[
        int | None,
        typer.Argument(parser=micro_units, help="Micro-units a period; without it there is no limit."),
    ] = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Agree on another spend limit, from now on. What was spent within the former one counts.

    Example: vendor accounts set-spend-limit acme 9000000
    """
    with acting(database_url) as act:
        status = accounts.set_spend_limit(act, name, micros)
    _print(status, as_json=as_json)


@app.command("set-rate-limit")
def set_rate_limit(
    name: str,
    rate: Annotated[
        int | None,
        typer.Argument(parser=whole_number, help="Queries a second; without it there is no limit."),
    ] = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Agree on another rate, from now on; ten seconds of it may be asked at once.

    Example: vendor accounts set-rate-limit acme 200
    """
    with acting(database_url) as act:
        status = accounts.set_rate_limit(act, name, rate)
    _print(status, as_json=as_json)


@app.command("set-coverage-limit")
def set_coverage_limit(
    name: str,
    buckets: Annotated[
        int | None,
        typer.Argument(
            parser=whole_number,
            help="Buckets of the embedding space, over all time; without it there is no limit.",
        ),
    ] = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Agree on how much of a model an account's answers may cover, from now on. What it covers counts.

    Example: vendor accounts set-coverage-limit acme 800
    """
    with acting(database_url) as act:
        status = accounts.set_coverage_limit(act, name, buckets)
    _print(status, as_json=as_json)


@app.command("set-plan")
def set_plan(name: str, plan: str, database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Let another plan's prices hold for what an account asks from now on.

    Example: vendor accounts set-plan acme research
    """
    with acting(database_url) as act:
        status = accounts.set_plan(act, name, plan)
    _print(status, as_json=as_json)


@app.command("suspend")
def suspend(name: str, database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Sell an account nothing from now on; it may still read. What is in flight is answered and charged.

    Example: vendor accounts suspend acme
    """
    with acting(database_url) as act:
        status = accounts.suspend(act, name)
    _print(status, as_json=as_json)


@app.command("resume")
def resume(name: str, database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Serve a suspended account again.

    Example: vendor accounts resume acme
    """
    with acting(database_url) as act:
        status = accounts.resume(act, name)
    _print(status, as_json=as_json)


@app.command("invite")
def invite(
    name: str,
    hours: Annotated[int, typer.Option(parser=whole_number, help="Hours for which the link is good.")] = 72,
    address: Annotated[
        str | None, typer.Option(help="Where customers reach the vendor, as in https://vendor.example.")
    ] = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Print a link that signs somebody in to an account's console, once, to see and change everything there.

    Example: vendor accounts invite acme --address https://vendor.example
    """
    with acting(database_url) as act:
        made = invitations.invite(act, name, hours)
    link = f"{(address or '').rstrip('/')}{made.path}"
    if as_json:
        print_json({"link": link, "expires_at": made.expires_at.isoformat()})
        return
    print(link)
    where = "" if address else "Put the vendor's own address in front of it. "
    typer.echo(f"{where}It is good once, until {made.expires_at:%Y-%m-%d %H:%M} UTC.", err=True)


@app.command("repair")
def repair_dates(
    name: str,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Let the books of an account go on from now, which a wrong clock dated ahead of it.

    An adjustment of nothing says so in the ledger. Entries that were dated ahead keep their dates, and are on
    the invoice of their month. Set this machine's clock right first.

    Example: vendor accounts repair acme
    """
    if not yes:
        moment = f"{to_datetime(system_clock()):%Y-%m-%d %H:%M:%S} UTC"
        with interruptible_question():
            typer.confirm(
                f"What is dated later than {moment} is wrong: is this clock right?", abort=True, err=True
            )
    with acting(database_url) as act:
        done = accounts.repair_dates(act, name)
    if done.by_seq is not None or as_json:
        print_rows([asdict(done)], as_json=as_json, one=True)
    else:
        print(f"There is nothing to repair: nothing of {done.account} is dated later than now.")


def _print(status: AccountStatus, *, as_json: bool) -> None:
    print_rows([status.model_dump(mode="json")], as_json=as_json, one=True)
