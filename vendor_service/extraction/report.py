"""The report: what accounts have asked about, how much of the model that covers, and what a copy is worth."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from vendor_service.database.tables import Account, Coverage, LedgerTotal, SketchRow
from vendor_service.extraction import curve
from vendor_service.extraction.recorder import BUCKETS
from vendor_service.extraction.sketch import Sketch
from vendor_service.money import coverage

ALL = "(all together)"
# Those that cover most: to compare all pairs of a million accounts would take days.
MOST_ACCOUNTS = 200


@dataclass(frozen=True)
class Extraction:
    """One account's use of one model, over all time.

    Attributes:
        account: its name, or `ALL`.
        queries: those that were charged.
        distinct_inputs: of them, estimated; an input counts twice if the vendor changed its key between.
        buckets: of the embedding space that the answers lie in.
        coverage: the share of all buckets.
        effective_rank: how many directions the answers fill, of 64; `None` where there is no sketch.
        cosine: expected of a surrogate: the mean cosine between its answers and the model's.
        agreement: the share of images that both would give the same class.
        alike: the account that is most like this one, if any is.
        shared_inputs: the share of the inputs of both that both asked about.
        shared_buckets: the same of buckets.
    """

    account: str
    model: str
    model_fingerprint: str
    queries: int
    distinct_inputs: int
    buckets: int
    coverage: float
    effective_rank: float | None
    cosine: float | None
    agreement: float | None
    alike: str | None = None
    shared_inputs: float | None = None
    shared_buckets: float | None = None


@dataclass
class _Known:
    """All that the books have on some accounts and a model; a sketch for each key that hashed inputs."""

    account: str
    buckets: int = 0
    sketches: dict[str, Sketch] = field(default_factory=dict)

    def merge(self, other: "_Known") -> None:
        self.buckets |= other.buckets
        for key, sketch in other.sketches.items():
            self.sketches.setdefault(key, Sketch()).merge(sketch)

    def resemblance(self, other: "_Known") -> tuple[float, float]:
        """By inputs, and by buckets."""
        same_keys = self.sketches.keys() & other.sketches.keys()
        inputs = max((self.sketches[key].resemblance(other.sketches[key]) for key in same_keys), default=0.0)
        either = (self.buckets | other.buckets).bit_count()
        return inputs, (self.buckets & other.buckets).bit_count() / either if either else 0.0


def extraction(session: Session, account: Account | None = None) -> list[Extraction]:
    """A row for each model of the accounts that cover most, those first; or of one account alone.

    Where several of these accounts have asked a model, a first row has what they would know together.
    """
    most = select(Account).order_by(Account.buckets_covered.desc(), Account.name).limit(MOST_ACCOUNTS)
    accounts = {each.id: each for each in session.scalars(most)}
    if account is not None:
        accounts[account.id] = account
    rows: list[Extraction] = []
    for fingerprint, known in sorted(_known(session, accounts).items()):
        charged = _charged(session, fingerprint, list(known))
        model = _model(session, fingerprint)
        found = [
            _row(each, model, fingerprint, charged.get(account_id, 0)) for account_id, each in known.items()
        ]
        for place, each in enumerate(known.values()):
            if account is None or each.account == account.name:
                others = [other for other in known.values() if other is not each]
                found[place] = _with_the_most_alike(found[place], each, others)
        if account is not None:
            rows += [each for each in found if each.account == account.name]
            continue
        found.sort(key=lambda row: (-row.buckets, row.account))
        if len(found) > 1:
            found.insert(0, _row(_together(known.values()), model, fingerprint, sum(charged.values())))
        rows += found
    return rows


def forget(session: Session, account: Account) -> None:
    """Delete the sketches of an account, which this transaction has locked.

    The buckets go too, unless a coverage limit is counted by them.
    """
    session.execute(delete(SketchRow).where(SketchRow.account_id == account.id))
    if account.coverage_limit is None:
        session.execute(delete(Coverage).where(Coverage.account_id == account.id))
        account.buckets_covered = 0


def meaning(row: Extraction) -> str:
    """A row, in sentences."""
    who = "All accounts together have" if row.account == ALL else f"{row.account} has"
    said = (
        f"{who} asked {row.model} about {row.distinct_inputs:,} different inputs. The answers lie in "
        f"{row.buckets:,} of {BUCKETS:,} buckets"
    )
    if row.cosine is None or row.agreement is None:
        return f"{said}."
    return (
        f"{said}. The best copy of icon-clip that was measured with so much coverage has a mean cosine of "
        f"{row.cosine:.2f} to the model, and gives {row.agreement:.0%} of new images the class that it gives."
    )


def _known(session: Session, accounts: dict[str, Account]) -> dict[str, dict[str, _Known]]:
    """By fingerprint and account."""
    known: dict[str, dict[str, _Known]] = defaultdict(dict)

    def of(account_id: str, fingerprint: str) -> _Known:
        return known[fingerprint].setdefault(account_id, _Known(accounts[account_id].name))

    for row in session.scalars(select(Coverage).where(Coverage.account_id.in_(accounts))):
        of(row.account_id, row.model_fingerprint).buckets = coverage.bits_of(row)
    for each in session.scalars(select(SketchRow).where(SketchRow.account_id.in_(accounts))):
        sketches = of(each.account_id, each.model_fingerprint).sketches
        sketches[each.key_id] = Sketch.of_stored(each.inputs, each.moment)
    return known


def _together(known: Iterable[_Known]) -> _Known:
    together = _Known(ALL)
    for each in known:
        together.merge(each)
    return together


def _row(known: _Known, model: str, fingerprint: str, queries: int) -> Extraction:
    covered = known.buckets.bit_count()
    all_keys = Sketch()
    for each in known.sketches.values():
        all_keys.merge(each)
    fidelity = curve.expected(covered)
    return Extraction(
        account=known.account,
        model=model,
        model_fingerprint=fingerprint,
        queries=queries,
        distinct_inputs=sum(each.distinct_inputs for each in known.sketches.values()),
        buckets=covered,
        coverage=round(covered / BUCKETS, 4),
        effective_rank=round(all_keys.effective_rank, 1) if known.sketches else None,
        cosine=None if fidelity is None else round(fidelity.cosine, 3),
        agreement=None if fidelity is None else round(fidelity.agreement, 3),
    )


def _with_the_most_alike(row: Extraction, known: _Known, others: Sequence[_Known]) -> Extraction:
    found = [(*known.resemblance(each), each.account) for each in others]
    inputs, shared, name = max(found, default=(0.0, 0.0, ""))
    if not inputs and not shared:
        return row
    return replace(row, alike=name, shared_inputs=round(inputs, 3), shared_buckets=round(shared, 3))


def _charged(session: Session, fingerprint: str, accounts: Sequence[str]) -> dict[str, int]:
    """Queries by account."""
    summed = (
        select(LedgerTotal.account_id, func.sum(LedgerTotal.quantity))
        .where(LedgerTotal.kind == "charge", LedgerTotal.model_fingerprint == fingerprint)
        .where(LedgerTotal.account_id.in_(accounts))
        .group_by(LedgerTotal.account_id)
    )
    return {account_id: int(queries) for account_id, queries in session.execute(summed)}


def _model(session: Session, fingerprint: str) -> str:
    """The name under which a model was sold last."""
    named = select(LedgerTotal.model).where(LedgerTotal.model_fingerprint == fingerprint)
    return session.scalar(named.order_by(LedgerTotal.hour.desc()).limit(1)) or fingerprint
