"""Invitations: links by which somebody signs in to the console of an account, once."""

import hmac
import re
import secrets
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel
from sqlalchemy.orm import Session

from vendor_service.accounts.accounts import find_account
from vendor_service.acts.accounts import by_name
from vendor_service.acts.act import Act, OperatorScope
from vendor_service.acts.declaration import act, preview
from vendor_service.acts.names import Named
from vendor_service.clock import SECOND, to_datetime
from vendor_service.database.tables import Account, Invitation
from vendor_service.database.tables.base import hash_secret
from vendor_service.errors import UsageError
from vendor_service.terms import Term

LONGEST_HOURS = 24 * 30
_ID_BYTES, _SECRET_BYTES = 8, 24
_CODE = re.compile(rf"in_([0-9a-f]{{{2 * _ID_BYTES}}})_([0-9a-f]{{{2 * _SECRET_BYTES}}})")


class NewInvitation(BaseModel):
    """A link that signs somebody in, of which this is the only copy, and until when it is good."""

    link: str
    expires_at: datetime

    @property
    def code(self) -> str:
        """The code that the link carries."""
        return self.link.rpartition("=")[2]


@act(
    "account.invite",
    command="accounts invite",
    scope=OperatorScope.ACCOUNTS,
    title="Invite to the console",
    done="Somebody may sign in to {name}.",
    of=by_name,
    reveals="link",
    keep="Send it to one person. It is good once, until {expires_at:%Y-%m-%d %H:%M} UTC.",
)
def invite(
    act: Act,
    name: Named,
    hours: Annotated[
        int,
        Term(
            "Hours for which the link is good.", label="Hours", typed="--hours", least=1, most=LONGEST_HOURS
        ),
    ] = 72,
    address: Annotated[
        str | None,
        Term(
            "Where customers reach the vendor, as in https://vendor.example.",
            label="Customers' address of the vendor",
            typed="--address",
            none="put it in front of the link",
        ),
    ] = None,
) -> NewInvitation:
    """Make a link that signs somebody in to an account's console, once, to see and change everything there.

    Example: vendor accounts invite acme --address https://vendor.example
    """
    if not 1 <= hours <= LONGEST_HOURS:
        raise UsageError(f"an invitation is good for 1 to {LONGEST_HOURS} hours, not {hours}")
    account = find_account(act.session, name)
    invitation_id, secret = secrets.token_hex(_ID_BYTES), secrets.token_hex(_SECRET_BYTES)
    expires_at = act.now + hours * 3600 * SECOND
    act.session.add(
        Invitation(
            id=invitation_id,
            account_id=account.id,
            secret_hash=hash_secret(secret),
            created_at=act.now,
            expires_at=expires_at,
        )
    )
    act.record(name, None, {"invitation_id": invitation_id, "hours": hours})
    link = f"{(address or '').rstrip('/')}/console/invitation?code=in_{invitation_id}_{secret}"
    return NewInvitation(link=link, expires_at=to_datetime(expires_at))


@preview(invite)
def _of_invite(act: Act, name: str, hours: int = 72, address: str | None = None) -> Iterator[str]:
    find_account(act.session, name)
    yield f"You get a link that signs somebody in to {name}'s console, once, within {hours} hours."
    yield "Whoever has it may see everything of this account, and make and revoke its keys."


def redeem(act: Act, code: str) -> Invitation | None:
    """Use an invitation up; `None` if it is none that is good now. Several at once get it once."""
    row = find(act.session, code, act.now, lock=True)
    if row is None:
        return None
    row.used_at = act.now
    account = act.session.get_one(Account, row.account_id)
    act.record(account.name, None, {"invitation_id": row.id}, action="account.join")
    return row


def find(session: Session, code: str, now: int, *, lock: bool = False) -> Invitation | None:
    """The invitation of a code, locked if it is to be used; `None` if it is none that is good now."""
    match = _CODE.fullmatch(code)
    if match is None:
        return None
    row = session.get(Invitation, match[1], with_for_update=lock or None)
    if row is None or not hmac.compare_digest(row.secret_hash, hash_secret(match[2])):
        return None
    return None if row.used_at is not None or now >= row.expires_at else row


def id_of(code: str) -> str | None:
    """The id of what is written like an invitation, or `None` for anything else."""
    match = _CODE.fullmatch(code)
    return None if match is None else match[1]
