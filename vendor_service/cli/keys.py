"""`vendor keys`: the keys with which customers ask."""

from dataclasses import asdict
from datetime import datetime
from enum import StrEnum
from typing import Annotated

import typer

from shared.projects import DEFAULT_PROJECT
from vendor_service.accounts import accounts, keys
from vendor_service.acts import keys as acts
from vendor_service.acts import own_keys
from vendor_service.cli.books import AsJson, DatabaseUrl, acting, print_json, print_rows, reading
from vendor_service.cli.confirm import Yes, confirm
from vendor_service.cli.parsers import micro_units, moment, whole_number
from vendor_service.clock import from_datetime, system_clock
from vendor_service.database.tables import Account
from vendor_service.errors import UsageError


def _only_id(given: str | None) -> str | None:
    secret_of = None if given is None else keys.id_of(given)
    if secret_of is not None:
        raise UsageError(
            f"that is a whole key with its secret, which belongs on no command line; give its id: {secret_of}"
        )
    return given


KeyId = Annotated[str, typer.Argument(callback=_only_id, help="The middle part of a key: tk_<KEY_ID>_...")]
AccountName = Annotated[str, typer.Argument(callback=_only_id)]

app = typer.Typer(help="The keys with which customers ask.", no_args_is_help=True)


@app.command("create")
def create(
    account: AccountName,
    label: Annotated[str, typer.Option(help="What the key is for.")] = "",
    scope: Annotated[
        list[keys.Scope] | None,
        typer.Option(help="What the key may do; may be repeated. (default: embed and usage:read)"),
    ] = None,
    quota: Annotated[
        int | None,
        typer.Option(
            parser=whole_number, help="Queries of its own a period. (default: only the account's limit)"
        ),
    ] = None,
    spend_limit: Annotated[
        int | None,
        typer.Option(
            parser=micro_units, help="Micro-units of its own a period. (default: only the account's limit)"
        ),
    ] = None,
    rate: Annotated[
        int | None,
        typer.Option(
            parser=whole_number, help="Queries of its own a second. (default: only the account's limit)"
        ),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(parser=whole_number, help="Requests that may be in flight. (default: no limit)"),
    ] = None,
    expires: Annotated[
        datetime | None, typer.Option(parser=moment, help="When the key ends, UTC. (default: never)")
    ] = None,
    project: Annotated[str, typer.Option(help="The project that the key belongs to.")] = DEFAULT_PROJECT,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Issue a key to an account and print it, this once.

    Example: vendor keys create acme --label laptop --quota 1000 --expires 2031-06-30
    """
    terms = keys.KeyTerms(
        label=label,
        scopes=frozenset(scope or keys.DEFAULT_SCOPES),
        quota=quota,
        spend_limit_micros=spend_limit,
        queries_per_second=rate,
        concurrency=concurrency,
        expires_at=None if expires is None else from_datetime(expires),
        project=project,
    )
    with acting(database_url) as act:
        issued = acts.issue(act, account, terms)
    _print_secret(issued, as_json=as_json)


@app.command("list")
def list_all(
    account: AccountName,
    after: Annotated[
        str | None, typer.Option(callback=_only_id, help="Only keys newer than this one, named by its id.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many keys to list.")] = 1000,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """List an account's keys, the oldest first, without their secrets.

    When a key was last used is some seconds late.

    Example: vendor keys list acme
    """
    with reading(database_url) as session:
        owner = accounts.find_account(session, account)
        found, more = own_keys.page(session, owner.id, None, after, limit)
        rows = [keys.public(key, owner, system_clock()).model_dump(mode="json") for key in found]
    print_rows(rows, as_json=as_json)
    if more:
        typer.echo(f"There are more: list them with --after {found[-1].id}", err=True)


@app.command("rotate")
def rotate(
    key_id: KeyId,
    grace: Annotated[
        int, typer.Option(parser=whole_number, help="Seconds for which the present secret stays good.")
    ] = 0,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Give a key another secret and print it, this once. Its limits, and what it used of them, stay.

    Example: vendor keys rotate 0f3c7a91d2b45e68 --grace 86400
    """
    with acting(database_url) as act:
        issued = acts.rotate(act, key_id, grace)
    _print_secret(issued, as_json=as_json)


class Limit(StrEnum):
    """What limits a key, as it is typed."""

    QUOTA = "quota"
    SPEND_LIMIT = "spend-limit"
    RATE = "rate"
    CONCURRENCY = "concurrency"
    EXPIRES = "expires"


_COLUMNS = dict(zip(Limit, keys.OWN_LIMITS, strict=True))


@app.command("set")
def set_limit(
    key_id: KeyId,
    limit: Annotated[Limit, typer.Argument(help="What is limited.")],
    value: Annotated[
        str | None,
        typer.Argument(help="A number, as for `keys create`, or a day, UTC; without it there is no limit."),
    ] = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Let another limit of a key hold from now on. What was used of the former one counts.

    Example: vendor keys set 0f3c7a91d2b45e68 quota 2000
    """
    with acting(database_url) as act:
        shown = acts.set_limits(act, key_id, {_COLUMNS[limit]: _read(limit, value)})
    print_rows([shown.model_dump(mode="json")], as_json=as_json, one=True)


def _read(limit: Limit, written: str | None) -> int | None:
    if written is None:
        return None
    if limit is Limit.EXPIRES:
        return from_datetime(moment(written))
    return micro_units(written) if limit is Limit.SPEND_LIMIT else whole_number(written)


@app.command("revoke")
def revoke(
    key_id: KeyId, database_url: DatabaseUrl = None, as_json: AsJson = False, yes: Yes = False
) -> None:
    """End a key at once and for good.

    Example: vendor keys revoke 0f3c7a91d2b45e68
    """
    with reading(database_url) as session:
        key = keys.find_key(session, key_id)
        owner = session.get_one(Account, key.account_id).name
    if key.revoked_at is None:
        label = f" ({key.label})" if key.label else ""
        loss = f"Whoever asks with the key {key_id}{label} of {owner} is refused from now on, for good."
        confirm(loss, key_id, yes=yes)
    with acting(database_url) as act:
        shown = acts.revoke(act, key_id)
    print_rows([shown.model_dump(mode="json")], as_json=as_json, one=True)


def _print_secret(issued: keys.IssuedKey, *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(issued))
        return
    print(issued.api_key)
    typer.echo("Keep it: only its hash is stored, so it cannot be shown again.", err=True)
