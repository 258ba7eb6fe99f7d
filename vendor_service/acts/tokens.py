"""Operators' tokens, `op_<id>_<secret>`: issued once in clear, kept only as a hash; and acts on them."""

import hashlib
import re
import secrets
from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.orm import Session

from vendor_service.accounts.keys import LONGEST_GRACE_SECONDS
from vendor_service.acts.act import Act
from vendor_service.clock import to_datetime
from vendor_service.database.tables import OperatorToken
from vendor_service.errors import OperatorError, UnknownName, UsageError

_ID_BYTES, _SECRET_BYTES = 8, 24
_TOKEN = re.compile(rf"op_([0-9a-f]{{{2 * _ID_BYTES}}})_([0-9a-f]{{{2 * _SECRET_BYTES}}})")
_WRITTEN = re.compile(rf"op_([0-9a-f]{{{2 * _ID_BYTES}}})_.")
_LONGEST_NAME = 64


class OperatorScope(StrEnum):
    """What a token may do. Every token may read; `ALL` includes the others, and tokens themselves."""

    READ = "read"
    ACCOUNTS = "accounts"
    MONEY = "money"
    ALL = "all"


class TokenInfo(BaseModel):
    """A token, without its secret; `former_until` is when the secret before the last rotation ends."""

    token_id: str
    name: str
    scopes: list[str]
    created_at: datetime
    last_used_at: datetime | None
    former_until: datetime | None
    revoked_at: datetime | None


class NewToken(BaseModel):
    """A token whose secret is new; `token` is shown this once."""

    token_id: str
    token: str


def issue(act: Act, name: str, scopes: Iterable[OperatorScope]) -> NewToken:
    """Make a token for an operator or a program of theirs.

    Raises:
        UsageError: the name or the scopes cannot be.
    """
    if not name.strip() or len(name) > _LONGEST_NAME:
        raise UsageError(f"the name of a token has 1 to {_LONGEST_NAME} characters")
    chosen = sorted(set(scopes))
    if not chosen:
        raise UsageError("a token has at least one scope: read, accounts, money or all")
    token_id, secret = secrets.token_hex(_ID_BYTES), secrets.token_hex(_SECRET_BYTES)
    act.session.add(
        OperatorToken(
            id=token_id, name=name, secret_hash=_hash(secret), scopes=" ".join(chosen), created_at=act.now
        )
    )
    act.record("operator.create", token_id, None, {"name": name, "scopes": chosen})
    return NewToken(token_id=token_id, token=f"op_{token_id}_{secret}")


def rotate(act: Act, token_id: str, grace_seconds: int) -> NewToken:
    """Give a token another secret; the present one is good for `grace_seconds` more.

    Raises:
        UnknownName: there is no such token.
        OperatorError: it was revoked.
        UsageError: the grace is negative, or longer than a year.
        WrongClock: this clock cannot be right.
    """
    if not 0 <= grace_seconds <= LONGEST_GRACE_SECONDS:
        raise UsageError(f"the grace is between 0 and {LONGEST_GRACE_SECONDS} seconds, not {grace_seconds}")
    row = _locked(act, token_id)
    if row.revoked_at is not None:
        raise OperatorError(f"the token {token_id!r} was revoked; make another: vendor operators create NAME")
    act.believe_clock()
    secret, before = secrets.token_hex(_SECRET_BYTES), {"former_until": row.former_until}
    row.replace_secret(_hash(secret), act.now, grace_seconds)
    act.record("operator.rotate", token_id, before, {"former_until": row.former_until})
    return NewToken(token_id=token_id, token=f"op_{token_id}_{secret}")


def revoke(act: Act, token_id: str) -> TokenInfo:
    """End a token at once and for good; ending it again changes nothing.

    Raises:
        UnknownName: there is no such token.
    """
    row = _locked(act, token_id)
    if row.revoked_at is None:
        row.revoked_at = act.now
        act.record("operator.revoke", token_id, {"revoked_at": None}, {"revoked_at": row.revoked_at})
    return public(row)


def find(session: Session, token_id: str) -> TokenInfo:
    """The token of that id.

    Raises:
        UnknownName: there is none.
    """
    row = session.get(OperatorToken, token_id)
    if row is None:
        raise UnknownName(f"there is no token {token_id!r}; see: vendor operators list")
    return public(row)


def list_tokens(session: Session) -> list[TokenInfo]:
    """All tokens, oldest first."""
    return [
        public(each) for each in session.scalars(select(OperatorToken).order_by(OperatorToken.created_at))
    ]


def split(token: str) -> tuple[str, str] | None:
    """The id of a whole token and the hash of its secret; `None` for what is not written like one."""
    match = _TOKEN.fullmatch(token)
    return None if match is None else (match[1], _hash(match[2]))


def id_of(token: str) -> str | None:
    """The id of what is written like a whole token, or `None` for anything else."""
    match = _WRITTEN.match(token.strip())
    return None if match is None else match[1]


def public(row: OperatorToken) -> TokenInfo:
    """A token as operators may see it."""
    return TokenInfo(
        token_id=row.id,
        name=row.name,
        scopes=row.scopes.split(),
        created_at=to_datetime(row.created_at),
        last_used_at=_moment(row.last_used_at),
        former_until=_moment(row.former_until),
        revoked_at=_moment(row.revoked_at),
    )


def _locked(act: Act, token_id: str) -> OperatorToken:
    find(act.session, token_id)
    return act.session.get_one(OperatorToken, token_id, with_for_update=True, populate_existing=True)


def _moment(micros: int | None) -> datetime | None:
    return None if micros is None else to_datetime(micros)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("ascii")).hexdigest()
