"""API keys, `tk_<id>_<secret>`: issued once in clear, kept only as a hash."""

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

from sqlalchemy.orm import Session

from shared.keys import KeyInfo, NewSecret
from shared.projects import DEFAULT_PROJECT
from vendor_service.accounts.checks import check_numbers, check_rate
from vendor_service.accounts.projects import find_project
from vendor_service.clock import Clock, optional_datetime, to_datetime
from vendor_service.database.tables import Account, ApiKey
from vendor_service.database.tables.base import hash_secret
from vendor_service.errors import OperatorError, UnknownName, UsageError
from vendor_service.terms import Quota, Rate, SpendLimit, Term, Unit

_ID_BYTES = 8
_SECRET_BYTES = 24  # 192 bits: a plain hash at rest is as good as a slow one, since nothing can be guessed
KEY = re.compile(rf"tk_([0-9a-f]{{{2 * _ID_BYTES}}})_([0-9a-f]{{{2 * _SECRET_BYTES}}})")
_WRITTEN = re.compile(rf"tk_([0-9a-f]{{{2 * _ID_BYTES}}})_.")  # a slip of the hand included
_MOST_CONCURRENCY = 10**6
_LONGEST_LABEL = 255
LONGEST_GRACE_SECONDS = 366 * 86_400


class Scope(StrEnum):
    """A permission of a key; `ADMIN` includes the others, and lets customers manage their own keys."""

    EMBED = "embed"
    READ_USAGE = "usage:read"
    ADMIN = "admin"


# What limits a key beside the limits of its account and its project.
OWN_LIMITS = ("quota", "spend_limit_micros", "queries_per_second", "concurrency", "expires_at")
DEFAULT_SCOPES = frozenset({Scope.EMBED, Scope.READ_USAGE})
SCOPES = {
    Scope.EMBED: "embed: buy embeddings",
    Scope.READ_USAGE: "usage:read: see usage, ledger and the console",
    Scope.ADMIN: "admin: change keys, and all of the above",
}


@dataclass(frozen=True)
class KeyTerms:
    """The permissions, the project and the own limits of a key (`None`: only the account's).

    `quota` and `spend_limit_micros` are for the account's quota period; `concurrency` is how many requests
    may be in flight. The key ends at `expires_at`, in microseconds since the epoch, or with `None` never.
    Without a `project` it belongs to that of the key by which it is issued, or to the default one.
    """

    label: Annotated[
        str, Term("What the key is for.", label="What it is for", typed="--label", longest=_LONGEST_LABEL)
    ] = ""
    scopes: Annotated[
        frozenset[Scope],
        Term("What the key may do.", label="Permissions", typed="--scope", form="scope", choices=SCOPES),
    ] = DEFAULT_SCOPES
    quota: Quota = None
    spend_limit_micros: SpendLimit = None
    queries_per_second: Rate = None
    concurrency: Annotated[
        int | None,
        Term(
            "Requests that may be in flight.",
            label="Requests at once",
            typed="--concurrency",
            none="no limit",
        ),
    ] = None
    expires_at: Annotated[
        int | None,
        Term(
            "When the key ends, UTC.",
            label="Ends (UTC)",
            typed="--expires",
            unit=Unit.MOMENT,
            none="never",
        ),
    ] = None
    project: Annotated[
        str | None,
        Term(
            "The project that the key belongs to.",
            label="Project",
            typed="--project",
            none=DEFAULT_PROJECT,
            choices="projects",
        ),
    ] = None


def issue_key(session: Session, account: Account, terms: KeyTerms, clock: Clock) -> NewSecret:
    """Give an account one more key.

    Raises:
        UsageError: the label, a limit or the end cannot be.
        OperatorError: there is no such project, or it was archived.
    """
    now = clock()
    _check(terms, now)
    key_id, secret = secrets.token_hex(_ID_BYTES), secrets.token_hex(_SECRET_BYTES)
    session.add(
        ApiKey(
            id=key_id,
            account_id=account.id,
            secret_hash=hash_secret(secret),
            label=terms.label,
            scopes=" ".join(sorted(terms.scopes)),
            created_at=now,
            expires_at=terms.expires_at,
            project_id=_project_id(session, account, terms.project),
            quota=terms.quota,
            spend_limit_micros=terms.spend_limit_micros,
            queries_per_second=terms.queries_per_second,
            concurrency=terms.concurrency,
            period_started_at=account.period_started_at,
        )
    )
    return NewSecret(key_id=key_id, api_key=f"tk_{key_id}_{secret}")


def secret_hash(api_key: str) -> str:
    """The hash of the secret half of a whole key."""
    return hash_secret(api_key.rpartition("_")[2])


def id_of(api_key: str) -> str | None:
    """The id of what is written like a whole key, or `None` for anything else."""
    match = _WRITTEN.match(api_key.strip())
    return None if match is None else match[1]


def rotate_key(session: Session, key_id: str, grace_seconds: int, clock: Clock) -> NewSecret:
    """Give a key another secret. The present one is good for `grace_seconds` more, an older one no longer.

    The key stays the same one, with its scopes, its limits and what it used of them.

    Raises:
        OperatorError: there is no such key, or it was revoked.
        UsageError: the grace is negative, or longer than a year.
    """
    if not 0 <= grace_seconds <= LONGEST_GRACE_SECONDS:
        raise UsageError(f"the grace is between 0 and {LONGEST_GRACE_SECONDS} seconds, not {grace_seconds}")
    row = find_key(session, key_id)
    if row.revoked_at is not None:
        raise OperatorError(
            f"the key {key_id!r} was revoked; issue another with: `vendor keys create ACCOUNT`"
        )
    secret = secrets.token_hex(_SECRET_BYTES)
    row.replace_secret(hash_secret(secret), clock(), grace_seconds)
    return NewSecret(key_id=key_id, api_key=f"tk_{key_id}_{secret}")


def change_limits(key: ApiKey, limits: Mapping[str, int | None], now: int) -> None:
    """Let other limits or another end hold from now on; what was used of the former ones counts.

    This transaction must have locked the account and the key. `limits` names some of `OWN_LIMITS`.

    Raises:
        UsageError: a limit or the end cannot be.
        OperatorError: the key was revoked.
    """
    if key.revoked_at is not None:
        raise OperatorError(
            f"the key {key.id!r} was revoked; issue another with: `vendor keys create ACCOUNT`"
        )
    present: dict[str, Any] = {name: getattr(key, name) for name in OWN_LIMITS if name != "expires_at"}
    _check(KeyTerms(**present | dict(limits)), now)
    for name, value in limits.items():
        setattr(key, name, value)


def revoke_key(session: Session, key_id: str, clock: Clock) -> ApiKey:
    """End a key; ending it again changes nothing.

    Raises:
        OperatorError: there is no such key.
    """
    row = find_key(session, key_id)
    row.revoked_at = row.revoked_at or clock()
    return row


def find_key(session: Session, key_id: str, *, lock: bool = False) -> ApiKey:
    """The key of that id, locked if it is to be changed, and then as it is under the lock.

    Raises:
        UnknownName: there is none.
    """
    row = session.get(ApiKey, key_id, with_for_update=lock or None, populate_existing=lock)
    if row is None:
        raise UnknownName(f"there is no key {key_id!r}; list an account's with: `vendor keys list ACCOUNT`")
    return row


def public(key: ApiKey, account: Account, now: int) -> KeyInfo:
    """A key of an account as its customer and its operator may see it."""
    # The month may have turned since the row was last written.
    over = key.is_period_over(account, now)
    return KeyInfo(
        key_id=key.id,
        label=key.label,
        project=DEFAULT_PROJECT if key.project is None else key.project.name,
        scopes=key.scopes.split(),
        quota=key.quota,
        queries_used=0 if over else key.queries_used,
        spend_limit_micros=key.spend_limit_micros,
        spent_micros=0 if over else key.spent_micros,
        queries_per_second=key.queries_per_second,
        concurrency=key.concurrency,
        created_at=to_datetime(key.created_at),
        expires_at=optional_datetime(key.expires_at),
        last_used_at=optional_datetime(key.last_used_at),
        former_until=optional_datetime(key.former_until),
        revoked_at=optional_datetime(key.revoked_at),
    )


def _check(terms: KeyTerms, now: int) -> None:
    if not terms.scopes:
        raise UsageError("a key has at least one scope: embed, usage:read or admin")
    if len(terms.label) > _LONGEST_LABEL:
        raise UsageError(f"the label of a key has up to {_LONGEST_LABEL} characters")
    check_numbers(quota=terms.quota, spend_limit_micros=terms.spend_limit_micros)
    check_rate(terms.queries_per_second)
    if terms.concurrency is not None and not 1 <= terms.concurrency <= _MOST_CONCURRENCY:
        raise UsageError(f"concurrency must be between 1 and {_MOST_CONCURRENCY}, not {terms.concurrency}")
    if terms.expires_at is not None and terms.expires_at <= now:
        raise UsageError("a key expires in the future, not in the past")


def _project_id(session: Session, account: Account, name: str | None) -> str | None:
    if name in (None, DEFAULT_PROJECT):
        return None
    project = find_project(session, account, name)
    if project.archived_at is not None:
        raise OperatorError(f"the project {name!r} of {account.name} was archived")
    return project.id
