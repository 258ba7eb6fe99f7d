"""Reconciliation: the client's receipts against the vendor's ledger, entry by entry."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from client.cache.pending import PendingBatch
from client.cache.receipts import LOST, Receipt
from client.cache.statements import Pin
from client.vendors.signatures import time_of
from client.vendors.statements import SignedHead
from shared.billing import Entry, entry_hash

_GENESIS = "0" * 64


@dataclass(frozen=True)
class Discrepancy:
    """One request, or one entry, on which the two sides do not agree."""

    request_id: str
    problem: str


@dataclass
class UnknownCharges:
    """Charges that this cache never asked for: by curl, an SDK or another computer, on the same account.

    `cost_micros` is their sum, and `of_other_keys` how many of them another key than the asking one made.
    """

    charges: int = 0
    queries: int = 0
    cost_micros: int = 0
    of_other_keys: int = 0


@dataclass
class Rewritten:
    """One place of the ledger of which the vendor signed something else than what it shows now.

    Attributes:
        seq: the entry.
        signed_hash: the hash that the vendor has signed.
        shown_hash: the one that it shows; `None` where its ledger ends before.
        signed_at: when it signed, in seconds since 1970.
        statement: what it signed, a compact JWS: a head of the ledger or a receipt.
    """

    seq: int
    signed_hash: str
    shown_hash: str | None
    signed_at: int
    statement: str


@dataclass
class Reconciliation:
    """Where the receipts of a cache and a vendor's ledger agree, and where they do not.

    Attributes:
        matched: receipts whose charge says the same.
        queries: the queries of these receipts.
        cost_micros: what they cost, in millionths of the vendor's currency unit.
        differences: where the two sides do not agree.
        elsewhere: charges that nothing here asked for.
        lost: charges of requests whose answers never came: they were given up here and counted as paid, or
            asked for more than three days ago.
        in_hand: charges of requests that a run here is buying right now.
        of_other_accounts: receipts that no key of this account explains.
        pinned: places of the ledger that are as the vendor had signed them.
        rewritten: those that are not.
        head: the vendor's signed statement of the ledger's present end, which whoever is shown `rewritten`
            needs as well; `None` of a vendor that does not sign.
    """

    matched: int = 0
    queries: int = 0
    cost_micros: int = 0
    differences: list[Discrepancy] = field(default_factory=list)
    elsewhere: UnknownCharges = field(default_factory=UnknownCharges)
    lost: int = 0
    in_hand: int = 0
    of_other_accounts: int = 0
    pinned: int = 0
    rewritten: list[Rewritten] = field(default_factory=list)
    head: str | None = None

    def to_json(self) -> dict[str, Any]:
        """What `json.dumps` takes."""
        return asdict(self)


def reconcile(
    entries: Iterable[Entry],
    receipts: Sequence[Receipt],
    key_id: str | None,
    *,
    owed: Sequence[PendingBatch] = (),
    in_hand: Sequence[PendingBatch] = (),
    refused: Collection[str] = (),
    pins: Sequence[Pin] = (),
    head: SignedHead | None = None,
) -> Reconciliation:
    """Compare an account's whole ledger, oldest entry first, with what a cache knows of its own requests.

    Whatever the client sends is noted before, and the note goes only when there is a receipt, or the vendor
    refused. So a charge is the client's own if there is a receipt of it, if it was refused, or if it is one
    of those that are owed or were given up; any other was made elsewhere. A cache may be used with several
    accounts: a receipt of a key that this ledger never names is of another one.

    Args:
        entries: the ledger.
        receipts: those of the cache.
        key_id: the key that asks.
        owed: requests whose answers were never stored.
        in_hand: requests that are being answered right now.
        refused: the ids of requests that the vendor refused.
        pins: what the vendor has signed of its ledger, of whatever account.
        head: the ledger's end, as it was signed just before the entries were asked for.
    """
    found = Reconciliation(head=None if head is None else head.token)
    charges, corrected, hashes = _charges(entries, found)
    keys = {charge.key_id for charge in charges.values()} | {key_id}
    account = None if head is None else head.claims.account_id
    mine = [pin for pin in pins if pin.key_id in keys or (account and pin.account_id == account)]
    _compare_pins(mine, hashes, found)
    for receipt in receipts:
        if receipt.request_id == LOST:
            continue
        charge = charges.pop(receipt.request_id, None)
        if charge is not None:
            _compare(receipt, charge, found, is_corrected=charge.seq in corrected)
        elif not receipt.images + receipt.texts and not receipt.cost_micros:
            continue  # every input was refused, and nothing was to be charged
        elif receipt.key_id is not None and receipt.key_id in keys:
            problem = f"the receipt of {receipt.cost_micros} micros is not in the ledger"
            found.differences.append(Discrepancy(receipt.request_id, problem))
        else:
            found.of_other_accounts += 1
    _find_refused(charges, refused, found)
    _find_lost(charges, receipts, found)
    found.in_hand = sum(_charge_of_note(charges, note) is not None for note in in_hand)
    _find_owed(charges, owed, corrected, found)
    for charge in charges.values():
        found.elsewhere.charges += 1
        found.elsewhere.queries += charge.images + charge.texts
        found.elsewhere.cost_micros -= charge.amount_micros
        found.elsewhere.of_other_keys += charge.key_id != key_id
    return found


def _charges(
    entries: Iterable[Entry], found: Reconciliation
) -> tuple[dict[str, Entry], set[int], dict[int, str]]:
    """The charges by request, which were corrected, and all hashes; what does not follow is a difference."""
    hashes = {0: _GENESIS}
    charges: dict[str, Entry] = {}
    corrected: set[int] = set()
    before: Entry | None = None
    for entry in entries:
        seq, previous = (0, entry.previous_hash) if before is None else (before.seq, before.entry_hash)
        if (entry.seq, entry.previous_hash) != (seq + 1, previous):
            problem = f"entry {entry.seq} does not follow from the one before it"
            found.differences.append(Discrepancy(entry.request_id or "", problem))
        if entry.account_id is not None and entry.entry_hash != entry_hash(entry):
            problem = f"entry {entry.seq} says something else than what its hash is of"
            found.differences.append(Discrepancy(entry.request_id or "", problem))
        hashes[entry.seq] = entry.entry_hash
        if entry.kind == "charge":
            request_id = entry.request_id or ""
            if request_id in charges:
                found.differences.append(Discrepancy(request_id, f"entry {entry.seq} charges it again"))
            charges[request_id] = entry
        if entry.corrects_seq is not None:
            corrected.add(entry.corrects_seq)
        before = entry
    return charges, corrected, hashes


def _compare_pins(pins: Sequence[Pin], hashes: dict[int, str], found: Reconciliation) -> None:
    """Hold what the vendor has signed of its ledger against what it shows."""
    for pin in pins:
        shown = hashes.get(pin.seq)
        if shown == pin.entry_hash:
            found.pinned += 1
            continue
        found.rewritten.append(Rewritten(pin.seq, pin.entry_hash, shown, pin.signed_at, pin.token))
        day = time_of(pin.signed_at, "%Y-%m-%d %H:%M")
        now = "its ledger ends before that" if shown is None else f"it has {shown[:16]} there now"
        problem = (
            f"the vendor signed on {day} UTC that entry {pin.seq} is {pin.entry_hash[:16]}, "
            f"and {now}: the ledger was rewritten since"
        )
        found.differences.append(Discrepancy(pin.request_id, problem))


def _compare(receipt: Receipt, charge: Entry, found: Reconciliation, *, is_corrected: bool) -> None:
    here = (receipt.images, receipt.texts, receipt.cost_micros, receipt.fingerprint)
    there = (charge.images, charge.texts, -charge.amount_micros, charge.model_fingerprint)
    names = ("images", "texts", "micros", "model")
    differing = [
        f"{name}: {mine} by the receipt, {theirs} by entry {charge.seq}"
        for name, mine, theirs in zip(names, here, there, strict=True)
        if mine != theirs
    ]
    if differing:
        found.differences.append(Discrepancy(receipt.request_id, "; ".join(differing)))
        return
    if receipt.fault is not None and not is_corrected:
        problem = f"entry {charge.seq} charges {receipt.cost_micros} micros for an answer that was not taken"
        found.differences.append(Discrepancy(receipt.request_id, f"{problem}: {receipt.fault}"))
        return
    found.matched += 1
    found.queries += receipt.images + receipt.texts
    found.cost_micros += receipt.cost_micros


def _find_refused(charges: dict[str, Entry], refused: Collection[str], found: Reconciliation) -> None:
    for request_id in charges.keys() & set(refused):
        charge = charges.pop(request_id)
        problem = f"entry {charge.seq} charges {-charge.amount_micros} micros for what the vendor had refused"
        found.differences.append(Discrepancy(request_id, problem))


def _find_lost(charges: dict[str, Entry], receipts: Sequence[Receipt], found: Reconciliation) -> None:
    for receipt in receipts:
        if receipt.request_id == LOST:
            size = (receipt.images, receipt.texts)
            charge = _charge_of(charges, size, receipt.fingerprint, receipt.key_id)
            if charge is not None:
                found.lost += 1


def _find_owed(
    charges: dict[str, Entry], owed: Sequence[PendingBatch], corrected: set[int], found: Reconciliation
) -> None:
    for note in sorted(owed, key=lambda note: note.is_expired):  # first those that one can do something about
        charge = _charge_of_note(charges, note)
        if charge is None or charge.seq in corrected:
            continue
        if note.is_expired:
            found.lost += 1
        else:
            problem = (
                f"entry {charge.seq} charges {-charge.amount_micros} micros, and there is no receipt here: "
                "its answer never came. Repeat the command that was interrupted: it is fetched free of "
                "charge. Where none fetches it, as of a canary or a served student, ask the vendor for a "
                "refund; after three days it counts as given up"
            )
            found.differences.append(Discrepancy(charge.request_id or "", problem))


def _charge_of_note(charges: dict[str, Entry], note: PendingBatch) -> Entry | None:
    size = (note.images, len(note.batch.queries) - note.images)
    return _charge_of(charges, size, note.batch.fingerprint, note.key_id)


def _charge_of(
    charges: dict[str, Entry], size: tuple[int, int], fingerprint: str, key_id: str | None
) -> Entry | None:
    """Take the charge that is of a request of so many images and texts, skipped ones among them."""
    images, texts = size
    fitting = [
        (images - charge.images + texts - charge.texts, request_id)
        for request_id, charge in charges.items()
        if charge.model_fingerprint == fingerprint
        and (key_id is None or charge.key_id == key_id)
        and charge.images <= images
        and charge.texts <= texts
    ]
    return charges.pop(min(fitting)[1]) if fitting else None
