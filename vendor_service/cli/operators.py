"""`vendor operators`: the tokens with which operators ask `/admin`."""

from typing import Annotated

import typer

from vendor_service.acts import tokens
from vendor_service.acts.tokens import NewToken, OperatorScope
from vendor_service.cli.books import AsJson, DatabaseUrl, acting, print_json, print_rows, reading
from vendor_service.cli.confirm import Yes, confirm
from vendor_service.errors import UsageError


def _only_id(given: str) -> str:
    if (whole := tokens.id_of(given)) is not None:
        raise UsageError(
            f"that is a whole token with its secret, which belongs on no command line; give its id: {whole}"
        )
    return given


TokenId = Annotated[
    str, typer.Argument(callback=_only_id, help="The middle part of a token: op_<TOKEN_ID>_...")
]

app = typer.Typer(help="The tokens with which operators ask /admin.", no_args_is_help=True)


@app.command("create")
def create(
    name: Annotated[
        str,
        typer.Argument(callback=_only_id, help="Name of the operator or the program, as in the audit log."),
    ],
    scope: Annotated[
        list[OperatorScope] | None,
        typer.Option(help="What the token may do besides reading; may be repeated. (default: read)"),
    ] = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Make a token for an operator or a program of theirs, and print it, this once.

    Example: vendor operators create crm --scope accounts
    """
    with acting(database_url) as act:
        made = tokens.issue(act, name, scope or [OperatorScope.READ])
    _print_secret(made, as_json=as_json)


@app.command("list")
def list_all(database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """List all tokens, without their secrets. When one was last used is up to a minute late.

    Example: vendor operators list
    """
    with reading(database_url) as session:
        found = tokens.list_tokens(session)
    print_rows([each.model_dump(mode="json") for each in found], as_json=as_json)


@app.command("rotate")
def rotate(
    token_id: TokenId,
    grace: Annotated[int, typer.Option(help="Seconds for which the present secret stays good.")] = 0,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Give a token another secret and print it, this once.

    Example: vendor operators rotate 0f3c7a91d2b45e68 --grace 3600
    """
    with acting(database_url) as act:
        made = tokens.rotate(act, token_id, grace)
    _print_secret(made, as_json=as_json)


@app.command("revoke")
def revoke(
    token_id: TokenId, database_url: DatabaseUrl = None, as_json: AsJson = False, yes: Yes = False
) -> None:
    """End a token at once and for good.

    Example: vendor operators revoke 0f3c7a91d2b45e68
    """
    with reading(database_url) as session:
        name = tokens.find(session, token_id).name
    confirm(f"Whoever asks with the token of {name} is refused from now on, for good.", token_id, yes=yes)
    with acting(database_url) as act:
        revoked = tokens.revoke(act, token_id)
    print_rows([revoked.model_dump(mode="json")], as_json=as_json, one=True)


def _print_secret(made: NewToken, *, as_json: bool) -> None:
    if as_json:
        print_json(made.model_dump())
        return
    print(made.token)
    typer.echo("Keep it: only its hash is stored, so it cannot be shown again.", err=True)
