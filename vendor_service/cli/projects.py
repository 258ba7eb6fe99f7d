"""`vendor projects`: parts of an account, each with limits of its own."""

from typing import Annotated

import typer

from shared.projects import ProjectInfo
from vendor_service.accounts import projects
from vendor_service.accounts.accounts import find_account
from vendor_service.accounts.projects import ProjectTerms
from vendor_service.acts import projects as acts
from vendor_service.cli.books import AsJson, DatabaseUrl, acting, print_rows, reading
from vendor_service.cli.confirm import Yes, confirm
from vendor_service.cli.parsers import micro_units, whole_number
from vendor_service.clock import system_clock

app = typer.Typer(help="Parts of an account, each with limits of its own.", no_args_is_help=True)


@app.command("create")
def create(
    account: str,
    name: str,
    quota: Annotated[
        int | None, typer.Option(parser=whole_number, help="Queries a period. (default: the account's)")
    ] = None,
    spend_limit: Annotated[
        int | None, typer.Option(parser=micro_units, help="Micro-units a period. (default: the account's)")
    ] = None,
    rate_limit: Annotated[
        int | None, typer.Option(parser=whole_number, help="Queries a second. (default: the account's)")
    ] = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Add a project to an account; the account's own limits hold beside those of the project.

    Example: vendor projects create acme search --quota 10000
    """
    terms = ProjectTerms(quota, spend_limit, rate_limit)
    with acting(database_url) as act:
        shown = acts.create(act, account, name, terms)
    _print(shown, as_json=as_json)


@app.command("list")
def list_all(account: str, database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """List an account's projects with what they have used. The default one has the account's limits alone.

    Example: vendor projects list acme
    """
    with reading(database_url) as session:
        owner = find_account(session, account)
        found = projects.list_projects(session, owner)
        rows = [projects.public(each, owner, system_clock()).model_dump(mode="json") for each in found]
    print_rows(rows, as_json=as_json)


@app.command("set-quota")
def set_quota(
    account: str,
    name: str,
    quota: Annotated[
        int | None,
        typer.Argument(
            parser=whole_number, help="Queries a period; without it only the account's limit holds."
        ),
    ] = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Let another quota hold from now on. What was used of the former one counts.

    Example: vendor projects set-quota acme search 20000
    """
    with acting(database_url) as act:
        shown = acts.set_quota(act, account, name, quota)
    _print(shown, as_json=as_json)


@app.command("set-spend-limit")
def set_spend_limit(
    account: str,
    name: str,
    micros: Annotated[
        int | None,
        typer.Argument(
            parser=micro_units, help="Micro-units a period; without it only the account's limit holds."
        ),
    ] = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Let another spend limit hold from now on. What was spent within the former one counts.

    Example: vendor projects set-spend-limit acme search 9000000
    """
    with acting(database_url) as act:
        shown = acts.set_spend_limit(act, account, name, micros)
    _print(shown, as_json=as_json)


@app.command("set-rate-limit")
def set_rate_limit(
    account: str,
    name: str,
    rate: Annotated[
        int | None,
        typer.Argument(
            parser=whole_number, help="Queries a second; without it only the account's limit holds."
        ),
    ] = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Let another rate hold from now on; ten seconds of it may be asked at once.

    Example: vendor projects set-rate-limit acme search 50
    """
    with acting(database_url) as act:
        shown = acts.set_rate_limit(act, account, name, rate)
    _print(shown, as_json=as_json)


@app.command("archive")
def archive(
    account: str, name: str, database_url: DatabaseUrl = None, as_json: AsJson = False, yes: Yes = False
) -> None:
    """End a project for good: its keys are refused. What is in flight is answered and charged.

    Example: vendor projects archive acme search
    """
    with reading(database_url) as session:
        project = projects.find_project(session, find_account(session, account), name)
    if project.archived_at is None:
        loss = f"All keys of the project {name} of {account} are refused from now on, for good."
        confirm(loss, name, yes=yes)
    with acting(database_url) as act:
        shown = acts.archive(act, account, name)
    _print(shown, as_json=as_json)


def _print(shown: ProjectInfo, *, as_json: bool) -> None:
    print_rows([shown.model_dump(mode="json")], as_json=as_json, one=True)
