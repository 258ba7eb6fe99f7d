"""Operators' tokens, `op_<id>_<secret>`: issued once in clear, kept only as a hash; and acts on them."""

import re
import secrets
from collections.abc import Collection, Iterator
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel
from sqlalchemy import select

from vendor_service.accounts.keys import LONGEST_GRACE_SECONDS
from vendor_service.acts.act import Act, OperatorScope
from vendor_service.acts.declaration import act, preview, query
from vendor_service.acts.names import GraceSeconds, ends_a_secret
from vendor_service.clock import optional_datetime, to_datetime
from vendor_service.database.tables import OperatorToken
from vendor_service.database.tables.base import hash_secret
from vendor_service.errors import OperatorError, UnknownName, UsageError
from vendor_service.terms import Term

_ID_BYTES, _SECRET_BYTES = 8, 24
_TOKEN = re.compile(rf"op_([0-9a-f]{{{2 * _ID_BYTES}}})_([0-9a-f]{{{2 * _SECRET_BYTES}}})")
_WRITTEN = re.compile(rf"op_([0-9a-f]{{{2 * _ID_BYTES}}})_.")
_LONGEST_NAME = 64


def id_of(token: str) -> str | None:
    """The id of what is written like a whole token, or `None` for anything else."""
    match = _WRITTEN.match(token.strip())
    return None if match is None else match[1]


TokenId = Annotated[
    str, Term("The middle part of a token: op_<TOKEN_ID>_...", label="Token", typed="TOKEN_ID", id_of=id_of)
]


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


def by_id(act: Act, token_id: str, *, lock: bool = False) -> OperatorToken:
    """The token that an act is about, locked if it is to be changed, and then as it is under the lock.

    Raises:
        UnknownName: there is none.
    """
    row = act.session.get(OperatorToken, token_id, with_for_update=lock or None, populate_existing=lock)
    if row is None:
        raise UnknownName(f"there is no token {token_id!r}; see: `vendor operators list`")
    return row


@act(
    "operator.create",
    command="operators create",
    route="POST /operators",
    status=201,
    scope=OperatorScope.ALL,
    title="Make a token",
    done="{name} has a token.",
    reveals="token",
)
def issue(
    act: Act,
    name: Annotated[
        str,
        Term(
            "Name of the operator or the program, as in the audit log.",
            label="Name",
            typed="NAME",
            id_of=id_of,
        ),
    ],
    scopes: Annotated[
        Collection[OperatorScope],
        Term("What the token may do besides reading.", label="Permissions", typed="--scope", form="scope"),
    ] = (OperatorScope.READ,),
) -> NewToken:
    """Make a token for an operator or a program of theirs; its secret is shown this once.

    Example: vendor operators create crm --scope accounts
    """
    if not name.strip() or len(name) > _LONGEST_NAME:
        raise UsageError(f"the name of a token has 1 to {_LONGEST_NAME} characters")
    chosen = sorted(set(scopes))
    if not chosen:
        raise UsageError("a token has at least one scope: read, accounts, money or all")
    token_id, secret = secrets.token_hex(_ID_BYTES), secrets.token_hex(_SECRET_BYTES)
    act.session.add(
        OperatorToken(
            id=token_id,
            name=name,
            secret_hash=hash_secret(secret),
            scopes=" ".join(chosen),
            created_at=act.now,
        )
    )
    act.record(token_id, None, {"name": name, "scopes": chosen})
    return NewToken(token_id=token_id, token=f"op_{token_id}_{secret}")


@act(
    "operator.rotate",
    command="operators rotate",
    route="POST /operators/{token_id}/rotate",
    scope=OperatorScope.ALL,
    title="Rotate the token",
    done="The token {token_id} has a new secret.",
    of=by_id,
    state=lambda token: token.secret_hash,
    applies=lambda token: token.revoked_at is None,
    asks_if=ends_a_secret,
    word="token_id",
    reveals="token",
)
def rotate(act: Act, token_id: TokenId, grace_seconds: GraceSeconds = 0) -> NewToken:
    """Give a token another secret, shown this once; the present one is good for the grace more.

    Example: vendor operators rotate 0f3c7a91d2b45e68 --grace 3600
    """
    if not 0 <= grace_seconds <= LONGEST_GRACE_SECONDS:
        raise UsageError(f"the grace is between 0 and {LONGEST_GRACE_SECONDS} seconds, not {grace_seconds}")
    row = by_id(act, token_id, lock=True)
    if row.revoked_at is not None:
        raise OperatorError(
            f"the token {token_id!r} was revoked; make another: `vendor operators create NAME`"
        )
    act.believe_clock()
    secret, before = secrets.token_hex(_SECRET_BYTES), {"former_until": row.former_until}
    row.replace_secret(hash_secret(secret), act.now, grace_seconds)
    act.record(token_id, before, {"former_until": row.former_until})
    return NewToken(token_id=token_id, token=f"op_{token_id}_{secret}")


@act(
    "operator.revoke",
    command="operators revoke",
    route="POST /operators/{token_id}/revoke",
    scope=OperatorScope.ALL,
    title="Revoke the token",
    done="The token {token_id} was revoked.",
    of=by_id,
    applies=lambda token: token.revoked_at is None,
    dangerous=True,
)
def revoke(act: Act, token_id: TokenId) -> TokenInfo:
    """End a token at once and for good; ending it again changes nothing.

    Example: vendor operators revoke 0f3c7a91d2b45e68
    """
    row = by_id(act, token_id, lock=True)
    if row.revoked_at is None:
        row.revoked_at = act.now
        act.record(token_id, {"revoked_at": None}, {"revoked_at": row.revoked_at})
    return _public(row)


@preview(revoke)
def _of_revoke(act: Act, token_id: str) -> Iterator[str]:
    row = by_id(act, token_id)
    if row.revoked_at is None:
        yield f"Whoever asks with the token of {row.name} is refused from now on, for good."


@query(command="operators list", route="GET /operators")
def list_tokens(act: Act) -> list[TokenInfo]:
    """List all tokens, without their secrets. When one was last used is up to a minute late.

    Example: vendor operators list
    """
    found = act.session.scalars(select(OperatorToken).order_by(OperatorToken.created_at))
    return [_public(each) for each in found]


def split(token: str) -> tuple[str, str] | None:
    """The id of a whole token and the hash of its secret; `None` for what is not written like one."""
    match = _TOKEN.fullmatch(token)
    return None if match is None else (match[1], hash_secret(match[2]))


def _public(row: OperatorToken) -> TokenInfo:
    return TokenInfo(
        token_id=row.id,
        name=row.name,
        scopes=row.scopes.split(),
        created_at=to_datetime(row.created_at),
        last_used_at=optional_datetime(row.last_used_at),
        former_until=optional_datetime(row.former_until),
        revoked_at=optional_datetime(row.revoked_at),
    )
