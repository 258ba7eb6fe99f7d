"""Invitations: links by which somebody signs in to the console of an account, once."""

import hmac
import re
import secrets
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.errors import ErrorCode
from vendor_service.accounts.accounts import find_account, lock_account
from vendor_service.acts import sessions
from vendor_service.acts.accounts import by_name
from vendor_service.acts.act import Act, OperatorScope
from vendor_service.acts.declaration import Own, act, preview, query
from vendor_service.acts.names import AccountName, Named
from vendor_service.clock import SECOND, optional_datetime, to_datetime
from vendor_service.database.tables import Invitation
from vendor_service.database.tables.base import hash_secret
from vendor_service.errors import APIError, UnknownName, UsageError
from vendor_service.terms import Term

LONGEST_HOURS = 24 * 30
_MOST_LISTED = 100
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


class InvitationInfo(BaseModel):
    """An invitation, without its link: until when it is good, and when it was used or withdrawn, if ever."""

    invitation_id: str
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None
    withdrawn_at: datetime | None


def by_id(act: Act, account: str, invitation_id: str, *, lock: bool = False) -> Invitation:
    """The invitation that an act is about, with its account locked if it is to be changed.

    Raises:
        UnknownName: an operator names one that is not there.
        APIError: `not_found` or `insufficient_scope`; a customer does, or has a key of a project.
    """
    if act.customer is not None:
        act.customer.require_whole("invitations are")
    owner = find_account(act.session, account, lock=lock)
    row = act.session.get(Invitation, invitation_id, with_for_update=lock or None, populate_existing=lock)
    if row is not None and row.account_id == owner.id:
        return row
    if act.customer is not None:
        message = "this account has no such invitation"
        raise APIError(ErrorCode.NOT_FOUND, message, param="invitation_id")
    raise UnknownName(
        f"{account} has no invitation {invitation_id!r}; see: `vendor invitations list {account}`"
    )


@act(
    "account.invite",
    command="accounts invite",
    route="POST /accounts/{account}/invitations",
    status=201,
    scope=OperatorScope.ACCOUNTS,
    title="Invite to the console",
    done="The link signs one person in to {name}.",
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
            label="The vendor's address for customers",
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
    account = find_account(act.session, name, lock=True)
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
    yield "Anybody who has it can see everything in this account, and make and revoke its keys."


@query(
    command="invitations list",
    route="GET /accounts/{account}/invitations",
    own=Own(route="GET /v1/invitations"),
)
def list_invitations(act: Act, account: AccountName) -> list[InvitationInfo]:
    """List the last 100 invitations to the console of an account, the newest first.

    Example: vendor invitations list acme
    """
    if act.customer is not None:
        act.customer.require_whole("invitations are")
    mine = select(Invitation).where(Invitation.account_id == find_account(act.session, account).id)
    newest = mine.order_by(Invitation.created_at.desc(), Invitation.id).limit(_MOST_LISTED)
    return [public(each) for each in act.session.scalars(newest)]


@act(
    "invitation.withdraw",
    command="invitations withdraw",
    route="POST /accounts/{account}/invitations/{invitation_id}/withdraw",
    own=Own(
        route="POST /v1/invitations/{invitation_id}/withdraw",
        form="/sessions/invitations/{invitation_id}/withdraw",
    ),
    scope=OperatorScope.ACCOUNTS,
    title="Withdraw the invitation",
    done="The invitation was withdrawn.",
    of=by_id,
    applies=lambda row: row.withdrawn_at is None,
)
def withdraw(
    act: Act,
    account: AccountName,
    invitation_id: Annotated[
        str, Term("As `vendor invitations list ACCOUNT` names it.", label="Invitation", typed="INVITATION_ID")
    ],
) -> InvitationInfo:
    """End an invitation for good, used or not: who signed in by it is signed out.

    Keys that they made stay: `vendor audit list` has them, and each can be contained.

    Example: vendor invitations withdraw acme 0f3c7a91d2b45e68
    """
    row = by_id(act, account, invitation_id, lock=True)
    if row.withdrawn_at is None:
        row.withdrawn_at = act.now
        ended = sessions.end_all(act.session, invitation_id=row.id)
        act.record(account, None, {"invitation_id": row.id, "sessions_ended": len(ended)})
    return public(row)


@preview(withdraw)
def _of_withdraw(act: Act, account: str, invitation_id: str) -> Iterator[str]:
    row = by_id(act, account, invitation_id)
    if row.withdrawn_at is not None:
        return
    yield f"The invitation {row.id} to {account} signs nobody in from now on, for good."
    if row.used_at is not None:
        yield f"Whoever signed in with it at {to_datetime(row.used_at):%Y-%m-%d %H:%M} UTC is signed out."
        yield "Keys that they made stay. The audit log has them, and each can be contained."


def public(row: Invitation) -> InvitationInfo:
    """An invitation as its customer and operators may see it."""
    return InvitationInfo(
        invitation_id=row.id,
        created_at=to_datetime(row.created_at),
        expires_at=to_datetime(row.expires_at),
        used_at=optional_datetime(row.used_at),
        withdrawn_at=optional_datetime(row.withdrawn_at),
    )


def redeem(act: Act, code: str) -> Invitation | None:
    """Use an invitation up; `None` if it is none that is good now. Several at once get it once."""
    found = find(act.session, code, act.now)
    if found is None:
        return None
    account = lock_account(act.session, found.account_id)  # as who suspends it, and shuts all out
    row = find(act.session, code, act.now, lock=True)
    if row is None:
        return None
    row.used_at = act.now
    act.record(account.name, None, {"invitation_id": row.id}, action="account.join")
    return row


def find(session: Session, code: str, now: int, *, lock: bool = False) -> Invitation | None:
    """The invitation of a code, locked if it is to be used; `None` if it is none that is good now."""
    match = _CODE.fullmatch(code)
    if match is None:
        return None
    row = session.get(Invitation, match[1], with_for_update=lock or None, populate_existing=lock)
    if row is None or not hmac.compare_digest(row.secret_hash, hash_secret(match[2])):
        return None
    ended = row.used_at is not None or row.withdrawn_at is not None or now >= row.expires_at
    return None if ended else row


def id_of(code: str) -> str | None:
    """The id of what is written like an invitation, or `None` for anything else."""
    match = _CODE.fullmatch(code)
    return None if match is None else match[1]
