"""Disputes: what a customer shows, held against the books."""

from collections.abc import Iterator
from typing import Annotated

from vendor_service.acts.act import Act
from vendor_service.acts.declaration import query
from vendor_service.money.disputes import LONGEST, Dispute, facts, judge
from vendor_service.terms import Term


def _facts(found: Dispute) -> Iterator[dict[str, str]]:
    for fact, value in facts(found):
        yield {"fact": fact, "found": value}


@query(
    command="dispute",
    route="GET /disputes/{receipt}",
    rows=_facts,
    fault=lambda found: None if found.holds else found.verdict,
)
def dispute(
    act: Act,
    receipt: Annotated[
        str,
        Term(
            "A receipt or a signed head (a JWS, as `x-tuition-receipt` has it), or a request's id.",
            label="Receipt, or id of a request",
            typed="RECEIPT",
            longest=LONGEST,
        ),
    ],
) -> Dispute:
    """Say whether a receipt is ours, and what the ledger has of it: entry, refunds and verdict.

    Example: vendor dispute req_0123456789abcdef
    """
    return judge(act.session, receipt)
