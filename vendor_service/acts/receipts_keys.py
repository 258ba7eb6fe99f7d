"""The keys that sign receipts."""

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.orm import Session

from vendor_service.acts.act import Act, ActContext, OperatorScope
from vendor_service.acts.declaration import act, preview, query
from vendor_service.clock import optional_datetime, to_datetime
from vendor_service.database.tables import SigningKeyRow
from vendor_service.terms import Term


class ReceiptsKey(BaseModel):
    """A key that signs or signed receipts, since when, and when it was replaced or withdrawn, if it was."""

    key: str
    since: datetime
    retired: datetime | None
    withdrawn: datetime | None


@act(
    "receipts_key.rotate",
    command="receipts-key rotate",
    route="POST /receipts-keys/rotate",
    scope=OperatorScope.ALL,
    title="Make a new key",
    done="Receipts are signed by a new key.",
    transaction=False,
)
def rotate(context: ActContext) -> list[ReceiptsKey]:
    """Make a new key, by which the vendors of this file sign within seconds. Old receipts stay good.

    Example: vendor receipts-key rotate
    """
    from vendor_service.money import signing

    where = signing.default_file(context.database, context.keys_in)

    def record(session: Session, kid: str) -> None:
        act = Act(session, context.actor, context.clock, action=context.action)
        act.record(kid, None, {"file": where.name})

    signing.rotate(context.database, where, context.clock, record)
    with context.read() as act:
        return list_keys(act)


@preview(rotate)
def _of_rotate(act: Act) -> Iterator[str]:
    yield "The vendors of this machine's file sign by a new key within seconds."
    yield "Receipts that were signed before stay good."


@act(
    "receipts_key.withdraw",
    command="receipts-key withdraw",
    route="POST /receipts-keys/{key}/withdraw",
    scope=OperatorScope.ALL,
    title="Withdraw the key",
    done="The key {key} is withdrawn.",
    dangerous=True,
)
def withdraw(
    act: Act,
    key: Annotated[str, Term("As `vendor receipts-key list` names it.", label="Key", typed="KEY")],
) -> list[ReceiptsKey]:
    """Disown a key that others have got hold of; rotate first. Nothing that it signed is proof any more.

    The signed key set goes on naming it, with the date: a client refuses to buy if a key vanishes unsaid.

    Example: vendor receipts-key withdraw 8vKzXxYw...
    """
    from vendor_service.money import signing

    if signing.withdraw(act.session, key, act.now):
        act.record(key, None, None)
    return list_keys(act)


@preview(withdraw)
def _of_withdraw(act: Act, key: str) -> Iterator[str]:
    yield f"Customers will refuse every receipt that {key} signed."


@query(command="receipts-key list", route="GET /receipts-keys")
def list_keys(act: Act) -> list[ReceiptsKey]:
    """List the keys that ever signed receipts, the newest first.

    Example: vendor receipts-key list
    """
    found = act.session.scalars(select(SigningKeyRow).order_by(SigningKeyRow.created_at.desc()))
    return [
        ReceiptsKey(
            key=each.kid,
            since=to_datetime(each.created_at),
            retired=optional_datetime(each.retired_at),
            withdrawn=optional_datetime(each.withdrawn_at),
        )
        for each in found
    ]
