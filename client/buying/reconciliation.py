"""Reconciliation: the client's receipts against the vendor's ledger, entry by entry."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from client.buying.receipts import Receipt
from shared.billing import Entry


@dataclass(frozen=True)
class Difference:
    """One request, or one entry, on which the two sides do not agree."""

    request_id: str
    problem: str


@dataclass
class Reconciliation:
    """What was found.

    Attributes:
        matched: receipts whose charge says the same; `queries` and `cost_micros` are their sums.
        differences: where the two sides do not agree.
        of_other_keys: charges without a receipt here that another key of the account asked for.
        of_other_accounts: receipts that no key of this account explains.
    """

    matched: int = 0
    queries: int = 0
    cost_micros: int = 0
    differences: list[Difference] = field(default_factory=list)
    of_other_keys: int = 0
    of_other_accounts: int = 0


def reconcile(entries: Iterable[Entry], receipts: Sequence[Receipt], key_id: str | None) -> Reconciliation:
    """Compare an account's whole ledger, oldest entry first, with the receipts of a cache.

    A cache may be used with several accounts, and an account from several computers: what other keys of
    the account bought needs no receipt here, and a receipt of a key that this ledger never names is of
    another account. `key_id` is the key that asks.
    """
    found = Reconciliation()
    charges = _charges(entries, found)
    keys = {charge.key_id for charge in charges.values()} | {key_id}
    for receipt in receipts:
        charge = charges.pop(receipt.request_id, None)
        if charge is not None:
            _compare(receipt, charge, found)
        elif receipt.key_id is not None and receipt.key_id in keys:
            problem = f"the receipt of {receipt.cost_micros} micros is not in the ledger"
            found.differences.append(Difference(receipt.request_id, problem))
        else:
            found.of_other_accounts += 1
    for request_id, charge in charges.items():
        if charge.key_id == key_id:
            problem = (
                f"entry {charge.seq} charges {-charge.amount_micros} micros, and there is no receipt here"
            )
            found.differences.append(Difference(request_id, problem))
        else:
            found.of_other_keys += 1
    return found


def _charges(entries: Iterable[Entry], found: Reconciliation) -> dict[str, Entry]:
    """The charges by request; entries that do not follow from each other are differences."""
    charges: dict[str, Entry] = {}
    before: Entry | None = None
    for entry in entries:
        seq, previous = (0, entry.previous_hash) if before is None else (before.seq, before.entry_hash)
        if (entry.seq, entry.previous_hash) != (seq + 1, previous):
            problem = f"entry {entry.seq} does not follow from the one before it"
            found.differences.append(Difference(entry.request_id or "", problem))
        if entry.kind == "charge":
            request_id = entry.request_id or ""
            if request_id in charges:
                found.differences.append(Difference(request_id, f"entry {entry.seq} charges it again"))
            charges[request_id] = entry
        before = entry
    return charges


def _compare(receipt: Receipt, charge: Entry, found: Reconciliation) -> None:
    here = (receipt.images, receipt.texts, receipt.cost_micros, receipt.fingerprint)
    there = (charge.images, charge.texts, -charge.amount_micros, charge.model_fingerprint)
    if here == there:
        found.matched += 1
        found.queries += receipt.images + receipt.texts
        found.cost_micros += receipt.cost_micros
        return
    names = ("images", "texts", "micros", "model")
    differing = [
        f"{name}: {mine} by the receipt, {theirs} by entry {charge.seq}"
        for name, mine, theirs in zip(names, here, there, strict=True)
        if mine != theirs
    ]
    found.differences.append(Difference(receipt.request_id, "; ".join(differing)))
