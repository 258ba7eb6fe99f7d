"""Coverage: the buckets of a model's embedding space in which an account's answers lie, each counted once.

A bucket is a number that says roughly where a vector lies. The buckets of an account and a model are one
integer here, of which bit n stands for bucket n.
"""

from collections.abc import Iterable

from sqlalchemy.orm import Session

from vendor_service.database.tables import Account, Coverage


def bits(buckets: Iterable[int]) -> int:
    """The integer that stands for some buckets."""
    together = 0
    for each in buckets:
        together |= 1 << each
    return together


def add(session: Session, account: Account, fingerprint: str, more: int) -> None:
    """Count what is new of `more` buckets of a model; this transaction must have locked the account."""
    row = session.get(Coverage, (account.id, fingerprint))
    before = 0 if row is None else bits_of(row)
    after = before | more
    if after == before:
        return
    account.buckets_covered += (after ^ before).bit_count()
    content = after.to_bytes(-(-after.bit_length() // 8), "little")
    if row is None:
        session.add(Coverage(account_id=account.id, model_fingerprint=fingerprint, buckets=content))
        session.flush()  # the rest of the transaction finds it
    else:
        row.buckets = content


def bits_of(row: Coverage) -> int:
    """The buckets of a row."""
    return int.from_bytes(row.buckets, "little")
