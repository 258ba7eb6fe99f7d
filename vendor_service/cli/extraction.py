"""`vendor extraction`: how much of a model its answers have given away."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vendor_service.accounts import accounts
from vendor_service.acts.accounts import forget_sketches
from vendor_service.cli.books import AsJson, DatabaseUrl, acting, print_json, print_rows, reading
from vendor_service.cli.confirm import Yes, confirm

if TYPE_CHECKING:
    from vendor_service.extraction.report import Extraction

app = typer.Typer(help="How much of a model its answers have given away.", no_args_is_help=True)


@app.command("report")
def report(
    account: Annotated[
        str | None,
        typer.Argument(help="One account. (default: the 200 that cover most, and these together)"),
    ] = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Tell what accounts asked about, how much of the model that covers, and how good a copy it would make.

    Vendors write what they know every five seconds. docs/trust.md says what the figures mean.

    Example: vendor extraction report acme
    """
    from vendor_service.extraction.report import extraction, meaning

    with reading(database_url) as session:
        one = None if account is None else accounts.find_account(session, account)
        found = extraction(session, one)
    if as_json:
        print_json([asdict(each) for each in found])
        return
    if not found:
        print("Nothing was sold since sketches are kept; VENDOR_SKETCHES=false keeps none.")
        return
    print_rows([_for_people(each) for each in found], as_json=False)
    print(f"\n{meaning(found[0])}")


def _for_people(row: "Extraction") -> dict[str, Any]:
    return {
        "account": row.account,
        "model": row.model,
        "queries": row.queries,
        "inputs": row.distinct_inputs,
        "buckets": row.buckets,
        "coverage": f"{row.coverage:.1%}",
        "rank": row.effective_rank,
        "copy_cosine": row.cosine,
        "copy_agrees": _percent(row.agreement),
        "most_like": row.alike,
        "same_inputs": _percent(row.shared_inputs),
        "same_buckets": _percent(row.shared_buckets),
    }


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{share:.0%}"


@app.command("forget")
def forget(name: str, yes: Yes = False, database_url: DatabaseUrl = None) -> None:
    """Delete the sketches of an account. Under a coverage limit its buckets stay, by which that is counted.

    Example: vendor extraction forget acme
    """
    confirm(f"What is known of all that {name} asked about is lost.", name, yes=yes)
    with acting(database_url) as act:
        forget_sketches(act, name)
    print(f"the sketches of {name} are deleted")
