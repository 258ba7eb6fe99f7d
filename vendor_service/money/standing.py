"""Standing: whether an account may still ask by a key and a secret of it.

It is said of rows that were read, and as a condition to the database. Requests, jobs, sessions and lists of
keys all ask here, so what ends one of them ends the others.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, or_
from sqlalchemy.orm import InstrumentedAttribute

from shared.errors import ErrorCode
from vendor_service.clock import to_datetime
from vendor_service.database.tables import Account, ApiKey, Project
from vendor_service.errors import APIError

_ACTIVE = "active"


@dataclass(frozen=True)
class _End:
    """An end of a key: a moment of the key or of its project, once it is set or, if it `comes`, is over."""

    word: str
    code: ErrorCode
    message: str
    moment: InstrumentedAttribute[int | None]
    comes: bool = False

    def has_come(self, key: ApiKey, now: int) -> bool:
        """Whether it has ended this key."""
        row: Any = key.project if self.moment.class_ is Project else key
        at = None if row is None else getattr(row, self.moment.key)
        return at is not None and (not self.comes or at <= now)

    def condition(self, now: int) -> ColumnElement[bool]:
        """The same as a condition on keys; it is never null."""
        come: ColumnElement[bool] = self.moment.is_not(None)
        if self.comes:
            come = and_(come, self.moment <= now)
        if self.moment.class_ is Project:
            return exists().where(Project.id == ApiKey.project_id, come)
        return come


_ENDS = (
    _End(
        "revoked",
        ErrorCode.KEY_REVOKED,
        "this API key was revoked; ask the vendor for a new one",
        ApiKey.revoked_at,
    ),
    _End(
        "expired",
        ErrorCode.KEY_EXPIRED,
        "this API key expired at {expires}; ask for a new one",
        ApiKey.expires_at,
        comes=True,
    ),
    _End(
        "project archived",
        ErrorCode.PROJECT_ARCHIVED,
        "the project {project} of this API key was archived; use a key of another one",
        Project.archived_at,
    ),
)


def check(account: Account, key: ApiKey | None, secret_hash: str | None, now: int) -> None:
    """Make sure that an account may ask anything at all, by a key and a secret of it, if they are named.

    Raises:
        APIError: `account_suspended`, or what `check_key` raises.
    """
    if account.status != _ACTIVE:
        raise APIError(ErrorCode.ACCOUNT_SUSPENDED, "this account is suspended; ask the vendor why")
    if key is not None:
        check_key(key, now, secret_hash)


def check_key(key: ApiKey, now: int, secret_hash: str | None = None) -> None:
    """Make sure that neither a key has ended nor its project nor, if one is named, a secret of it.

    Raises:
        APIError: `key_revoked`, `key_expired`, `project_archived` or `invalid_api_key`.
    """
    for each in _ENDS:
        if each.has_come(key, now):
            expires = "" if key.expires_at is None else f"{to_datetime(key.expires_at):%Y-%m-%d %H:%M} UTC"
            project = "" if key.project is None else key.project.name
            raise APIError(each.code, each.message.format(expires=expires, project=project))
    if secret_hash is not None and not key.is_secret(secret_hash, now):
        raise APIError(ErrorCode.INVALID_API_KEY, "this API key was replaced by a new one; use that")


def why_ended(key: ApiKey, now: int) -> str:
    """Why a key is good no longer, in a word or two; nothing where it is good."""
    return next((each.word for each in _ENDS if each.has_come(key, now)), "")


def has_ended(now: int) -> ColumnElement[bool]:
    """The condition on keys that have ended by `check_key`; it is never null."""
    return or_(*(each.condition(now) for each in _ENDS))


def may_ask(secret_hash: InstrumentedAttribute[str | None], now: int) -> ColumnElement[bool]:
    """The condition by which `check` lets an account ask by a key, and by the secret in a column, if any."""
    secret = or_(secret_hash.is_(None), ApiKey.has_secret(secret_hash.expression, now))
    return and_(Account.status == _ACTIVE, ~has_ended(now), secret)
