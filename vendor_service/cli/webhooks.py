"""`vendor webhooks`: who is told of what happens, and what became of it."""

from typing import Annotated

import typer

from vendor_service.acts import webhooks
from vendor_service.cli.books import AsJson, DatabaseUrl, acting, print_json, print_rows, reading
from vendor_service.cli.confirm import Yes, confirm
from vendor_service.webhooks import endpoints
from vendor_service.webhooks.endpoints import NewEndpoint
from vendor_service.webhooks.events import EventKind

EndpointId = Annotated[str, typer.Argument(help="As `vendor webhooks list` names it.")]

app = typer.Typer(help="Receivers of events, and the deliveries to them.", no_args_is_help=True)


@app.command("create")
def create(
    url: str,
    event: Annotated[
        list[EventKind] | None, typer.Option(help="An event to send; may be repeated. (default: all)")
    ] = None,
    account: Annotated[
        str | None, typer.Option(help="Only events of this account. (default: all accounts)")
    ] = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Have events sent to a URL, and print the secret that signs them, this once.

    Example: vendor webhooks create https://crm.example.com/hooks --event invoice.finalized
    """
    with acting(database_url) as act:
        made = webhooks.create(act, url, event or (), account)
    _print_secret(made, as_json=as_json)


@app.command("list")
def list_all(database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """List all webhooks, without their secrets.

    Example: vendor webhooks list
    """
    with reading(database_url) as session:
        found = endpoints.list_endpoints(session)
    print_rows([each.model_dump(mode="json") for each in found], as_json=as_json)


@app.command("rotate")
def rotate(
    endpoint_id: EndpointId,
    grace: Annotated[int, typer.Option(help="Seconds in which the present secret signs as well.")] = 0,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Give a webhook another secret and print it, this once.

    Example: vendor webhooks rotate wh_0f3c7a91d2b45e68 --grace 86400
    """
    with acting(database_url) as act:
        made = webhooks.rotate(act, endpoint_id, grace)
    _print_secret(made, as_json=as_json)


@app.command("disable")
def disable(
    endpoint_id: EndpointId, database_url: DatabaseUrl = None, as_json: AsJson = False, yes: Yes = False
) -> None:
    """Send a webhook nothing from now on, for good. Its log stays.

    Example: vendor webhooks disable wh_0f3c7a91d2b45e68
    """
    with reading(database_url) as session:
        url = endpoints.find(session, endpoint_id).url
    confirm(f"Nothing is sent to {url} from now on, for good.", endpoint_id, yes=yes)
    with acting(database_url) as act:
        info = webhooks.disable(act, endpoint_id)
    print_rows([info.model_dump(mode="json")], as_json=as_json, one=True)


@app.command("log")
def log(
    endpoint: Annotated[
        str | None, typer.Option(help="Only deliveries to this webhook. (default: to all)")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many deliveries to list.")] = 100,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """List the last deliveries, the newest first: what became of the last try, and when the next one is.

    Example: vendor webhooks log --endpoint wh_0f3c7a91d2b45e68
    """
    with reading(database_url) as session:
        found = webhooks.deliveries(session, endpoint_id=endpoint, limit=limit)
    print_rows([each.model_dump(mode="json") for each in found], as_json=as_json)


@app.command("replay")
def replay(
    event_id: str, endpoint_id: EndpointId, database_url: DatabaseUrl = None, as_json: AsJson = False
) -> None:
    """Send an event to a webhook again, under the same id.

    Example: vendor webhooks replay evt_5d41402abc4b2a76b9719d911017c592 wh_0f3c7a91d2b45e68
    """
    with acting(database_url) as act:
        info = webhooks.replay(act, event_id, endpoint_id)
    print_rows([info.model_dump(mode="json")], as_json=as_json, one=True)


def _print_secret(made: NewEndpoint, *, as_json: bool) -> None:
    if as_json:
        print_json(made.model_dump())
        return
    print(made.secret)
    typer.echo(f"Keep it: {made.endpoint_id} is signed by it, and it is not shown again.", err=True)
