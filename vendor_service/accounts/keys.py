"""API keys, `tk_<id>_<secret>`: issued once in clear, kept only as a hash."""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from vendor_service.clock import Clock
from vendor_service.database.tables import Account, ApiKey
from vendor_service.errors import OperatorError

_ID_BYTES = 8
_SECRET_BYTES = 24  # 192 bits: a plain hash at rest is as good as a slow one, since nothing can be guessed
_KEY = re.compile(rf"tk_([0-9a-f]{{{2 * _ID_BYTES}}})_([0-9a-f]{{{2 * _SECRET_BYTES}}})")


@dataclass(frozen=True)
class IssuedKey:
    """A new key; `api_key` is the only copy of its secret."""

    key_id: str
    api_key: str


def issue_key(session: Session, account: Account, label: str, clock: Clock) -> IssuedKey:
    """Give an account one more key."""
    key_id, secret = secrets.token_hex(_ID_BYTES), secrets.token_hex(_SECRET_BYTES)
    session.add(
        ApiKey(
            id=key_id,
            account_id=account.id,
            secret_hash=_hash(secret),
            label=label,
            created_at=clock(),
            revoked_at=None,
        )
    )
    return IssuedKey(key_id, f"tk_{key_id}_{secret}")


def verify_key(session: Session, api_key: str) -> ApiKey | None:
    """The row of a genuine key, revoked or not; `None` for anything else."""
    match = _KEY.fullmatch(api_key)
    if match is None:
        return None
    key_id, secret = match.groups()
    row = session.get(ApiKey, key_id)
    if row is None or not hmac.compare_digest(row.secret_hash, _hash(secret)):
        return None
    return row


def revoke_key(session: Session, key_id: str, clock: Clock) -> ApiKey:
    """End a key; ending it again changes nothing.

    Raises:
        OperatorError: there is no such key.
    """
    row = session.get(ApiKey, key_id)
    if row is None:
        raise OperatorError(f"there is no key {key_id!r}; list an account's with: vendor keys list ACCOUNT")
    row.revoked_at = row.revoked_at or clock()
    return row


def list_keys(session: Session, account: Account) -> list[ApiKey]:
    """An account's keys, oldest first."""
    return list(
        session.scalars(select(ApiKey).where(ApiKey.account_id == account.id).order_by(ApiKey.created_at))
    )


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("ascii")).hexdigest()
