"""Invitations: links by which somebody signs in to the console of an account, once."""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from vendor_service.accounts import accounts
from vendor_service.acts.act import Act
from vendor_service.clock import SECOND, to_datetime
from vendor_service.database.tables import Account, Invitation
from vendor_service.errors import UsageError

LONGEST_HOURS = 24 * 30
_ID_BYTES, _SECRET_BYTES = 8, 24
_CODE = re.compile(rf"in_([0-9a-f]{{{2 * _ID_BYTES}}})_([0-9a-f]{{{2 * _SECRET_BYTES}}})")


@dataclass(frozen=True)
class NewInvitation:
    """The code of a link, of which this is the only copy, and until when it is good."""

    code: str
    expires_at: datetime

    @property
    def path(self) -> str:
        """What the link has behind the vendor's address."""
        return f"/console/invitation?code={self.code}"


def invite(act: Act, name: str, hours: int) -> NewInvitation:
    """Make a link by which whoever has it may once sign in to an account's console, and act there.

    Raises:
        UnknownName: there is no such account.
        UsageError: it cannot be good for so long.
    """
    if not 1 <= hours <= LONGEST_HOURS:
        raise UsageError(f"an invitation is good for 1 to {LONGEST_HOURS} hours, not {hours}")
    account = accounts.find_account(act.session, name)
    invitation_id, secret = secrets.token_hex(_ID_BYTES), secrets.token_hex(_SECRET_BYTES)
    expires_at = act.now + hours * 3600 * SECOND
    act.session.add(
        Invitation(
            id=invitation_id,
            account_id=account.id,
            secret_hash=_hash(secret),
            created_at=act.now,
            expires_at=expires_at,
        )
    )
    act.record("account.invite", name, None, {"invitation_id": invitation_id, "hours": hours})
    return NewInvitation(f"in_{invitation_id}_{secret}", to_datetime(expires_at))


def redeem(act: Act, code: str) -> Invitation | None:
    """Use an invitation up; `None` if it is none that is good now. Several at once get it once."""
    row = find(act.session, code, act.now, lock=True)
    if row is None:
        return None
    row.used_at = act.now
    account = act.session.get_one(Account, row.account_id)
    act.record("account.join", account.name, None, {"invitation_id": row.id})
    return row


def find(session: Session, code: str, now: int, *, lock: bool = False) -> Invitation | None:
    """The invitation of a code, locked if it is to be used; `None` if it is none that is good now."""
    match = _CODE.fullmatch(code)
    if match is None:
        return None
    row = session.get(Invitation, match[1], with_for_update=lock or None)
    if row is None or not hmac.compare_digest(row.secret_hash, _hash(match[2])):
        return None
    return None if row.used_at is not None or now >= row.expires_at else row


def id_of(code: str) -> str | None:
    """The id of what is written like an invitation, or `None` for anything else."""
    match = _CODE.fullmatch(code)
    return None if match is None else match[1]


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("ascii")).hexdigest()
