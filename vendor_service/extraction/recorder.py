"""The recorder: takes note of what was answered, and writes sketches and coverage beside the requests.

Coverage is counted in buckets of the embedding space, which say on which side of a few planes a vector lies.
They are a locality-sensitive hash (Charikar, "Similarity estimation techniques from rounding algorithms",
STOC 2002): vectors with a small angle between them tend to fall into one. The planes follow from the model's
fingerprint alone, so every process has the same ones, and a customer can count its own buckets.
"""

import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.encoding import Vector
from vendor_service.clock import Clock
from vendor_service.database.session import Database
from vendor_service.database.tables import Account, SketchRow
from vendor_service.errors import APIError
from vendor_service.extraction.key import key_id
from vendor_service.extraction.sketch import Sketch, directions, hashes_of
from vendor_service.money import coverage

# Accounts of one transaction: it holds their locks, and SQLite's, no longer than an admission does.
_AT_ONCE = 8
_PLANES = 12
BUCKETS = 1 << _PLANES  # many of them hold no vector of any image or text


@dataclass(frozen=True)
class Answered:
    """An answer that was paid for: digests (SHA-256, hex) of the inputs, and row by row their embeddings."""

    account_id: str
    fingerprint: str
    digests: Sequence[str]
    rows: Vector
    buckets: Sequence[int]


def buckets_of(rows: Vector, fingerprint: str) -> list[int]:
    """The bucket, from 0 up to but not including `BUCKETS`, of each row of shape (rows, dimensions)."""
    sides = rows @ directions(fingerprint, "buckets", _PLANES, rows.shape[1]).T > 0
    found: list[int] = (sides @ (1 << np.arange(_PLANES))).tolist()
    return found


@dataclass
class _Unwritten:
    """Counts of an account and a model since the last writing."""

    sketch: Sketch = field(default_factory=Sketch)
    buckets: int = 0


class Recorder:
    """Keeps the sketches of all accounts, with what this process adds to them. Thread-safe.

    To take note costs next to nothing. A process that is killed loses what it had not written.
    """

    def __init__(self, database: Database, clock: Clock, key: bytes | None) -> None:
        self._database = database
        self._clock = clock
        self._key = key
        self._key_id = key_id(key)
        self._noted: list[Answered] = []
        self._lock = threading.Lock()  # of what was noted
        self._writing = threading.Lock()
        self._unwritten: dict[tuple[str, str], _Unwritten] = {}

    def note(self, answered: Answered) -> None:
        """Remember an answer until the next writing."""
        with self._lock:
            self._noted.append(answered)

    def write(self) -> None:
        """Bring the books up to date. What cannot be written now is written the next time.

        An account that another transaction has locked is not waited for, and one that fails stops no other.

        Raises:
            APIError: the database does not answer.
        """
        with self._writing:
            with self._lock:
                noted, self._noted = self._noted, []
            self._learn(noted)
            waiting = sorted({account for account, _ in self._unwritten})
            failed: Exception | None = None
            for start in range(0, len(waiting), _AT_ONCE):
                try:
                    self._write_some(waiting[start : start + _AT_ONCE])
                except Exception as error:
                    if isinstance(error, APIError) and isinstance(failed, APIError):
                        raise  # the database is away, which takes long to find out again and again
                    failed = failed or error
            if failed is not None:
                raise failed

    def _learn(self, noted: Sequence[Answered]) -> None:
        together: dict[tuple[str, str], list[Answered]] = defaultdict(list)
        for each in noted:
            together[each.account_id, each.fingerprint].append(each)
        for (account_id, fingerprint), answers in together.items():
            to = self._unwritten.setdefault((account_id, fingerprint), _Unwritten())
            to.buckets |= coverage.bits(bucket for each in answers for bucket in each.buckets)
            digests = [] if self._key is None else [digest for each in answers for digest in each.digests]
            rows = np.concatenate([each.rows for each in answers])
            to.sketch.add(hashes_of(digests, self._key or b""), rows, fingerprint)

    def _write_some(self, accounts: Sequence[str]) -> None:
        mine = select(Account).where(Account.id.in_(accounts)).order_by(Account.id)
        with self._database.write() as session:
            free = {each.id: each for each in session.scalars(mine.with_for_update(skip_locked=True))}
            unwritten = [each for each in self._unwritten if each[0] in free]
            self._merge(session, free, unwritten)
        for each in unwritten:
            del self._unwritten[each]

    def _merge(
        self, session: Session, locked: Mapping[str, Account], unwritten: Sequence[tuple[str, str]]
    ) -> None:
        for account_id, fingerprint in unwritten:
            new = self._unwritten[account_id, fingerprint]
            coverage.add(session, locked[account_id], fingerprint, new.buckets)
            row = session.get(SketchRow, (account_id, fingerprint, self._key_id))
            if row is None:
                row = SketchRow(account_id=account_id, model_fingerprint=fingerprint, key_id=self._key_id)
                session.add(row)
                sketch = Sketch()
            else:
                sketch = Sketch.of_stored(row.inputs, row.moment)
            sketch.merge(new.sketch)
            row.inputs, row.moment = sketch.stored()
            row.updated_at = self._clock()
