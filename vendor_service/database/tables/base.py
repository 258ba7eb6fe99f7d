"""Common parts of tables: their base, numbers by kind, rows that make a chain, and secrets kept as hashes."""

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Dialect, MetaData, String, Text, and_, or_
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from shared.kinds import Kind
from vendor_service.clock import SECOND

STANDARD_PLAN = "standard"
# What the first row of a chain has for the hash of the one before it.
GENESIS_HASH = "0" * 64
_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


class ByKind(TypeDecorator[Mapping[Kind, int]]):
    """A number for each kind of what is sold, as canonical JSON."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Mapping[Kind, int] | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Write it."""
        return None if value is None else _written(tuple(value.items()))

    def process_result_value(self, value: str | None, dialect: Dialect) -> Mapping[Kind, int] | None:  # noqa: ARG002
        """Read it."""
        return None if value is None else _read(value)


# Each request writes and reads the same few.
@lru_cache(4096)
def _written(numbers: tuple[tuple[Kind, int], ...]) -> str:
    return json.dumps(dict(sorted(numbers)), separators=(",", ":"))


@lru_cache(4096)
def _read(text: str) -> Mapping[Kind, int]:
    return MappingProxyType(json.loads(text))


class Base(DeclarativeBase):
    """The base of every table; constraints have names, so that migrations can refer to them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {int: BigInteger, str: String(255)}  # noqa: RUF012 - SQLAlchemy reads it as it is


class Chained:
    """Each row carries the hash of the one before it, so that none is changed or removed unseen."""

    previous_hash: Mapped[str] = mapped_column(String(64), sort_order=1)
    entry_hash: Mapped[str] = mapped_column(String(64), sort_order=1)


def row_hash(
    row: Any,  # noqa: ANN401 - a mapped row or a plain one
    names: Iterable[str],
    more: Mapping[str, Any] = MappingProxyType({}),
) -> str:
    """SHA-256 (hex) of these columns of a row, `previous_hash` included, and `more`, as canonical JSON.

    What is null or 0 is left out: a column that a later version adds leaves the hashes of old rows as they
    are.
    """
    said = {name: value for name in names if (value := getattr(row, name))}
    said |= {name: value for name, value in more.items() if value}
    return hashlib.sha256(_canonical(said).encode()).hexdigest()


def hash_secret(secret: str) -> str:
    """SHA-256 of a secret, as hexadecimal digits. Secrets are random, so it takes no salt."""
    return hashlib.sha256(secret.encode("ascii")).hexdigest()


class Secret:
    """A secret, kept as a hash; after a rotation the former one is good until `former_until`."""

    secret_hash: Mapped[str] = mapped_column(String(64))
    former_hash: Mapped[str | None] = mapped_column(String(64))
    former_until: Mapped[int | None]

    def is_secret(self, hashed: str, now: int) -> bool:
        """Whether this is the hash of the secret, or of the former one while that is good."""
        good = hmac.compare_digest(self.secret_hash, hashed)
        return good or (
            hmac.compare_digest(self.former_hash or "", hashed) and now < (self.former_until or 0)
        )

    @classmethod
    def has_secret(cls, hashed: ColumnElement[Any], now: int) -> ColumnElement[bool]:
        """`is_secret` as a condition on rows, for a hash that is not null."""
        former = and_(cls.former_hash.is_not(None), cls.former_hash == hashed, cls.former_until > now)
        return or_(cls.secret_hash == hashed, former)

    def replace_secret(self, hashed: str, now: int, grace_seconds: int) -> None:
        """Take another secret; an earlier former one is good no longer.

        Without grace the present one is forgotten: by a clock that is behind it would be good for a while.
        """
        self.former_hash = self.secret_hash if grace_seconds else None
        self.former_until = now + grace_seconds * SECOND
        self.secret_hash = hashed
