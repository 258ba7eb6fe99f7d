"""Reconciliation: the client's receipts against the vendor's ledger, entry by entry."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from client.cache.notes import Note
from client.cache.receipts import LOST, Pin
from client.cache.tables import Receipt
from client.vendors.query import counts_of
from client.vendors.signatures import time_of
from client.vendors.statements import SignedHead
from shared.billing import SEALED, Entry, entry_hash
from shared.kinds import Counts

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

    def add(self, charge: Entry, key_id: str | None) -> None:
        """Count a charge; `key_id` names the key that asks."""
        self.charges += 1
        self.queries += sum(charge.counts.values())
        self.cost_micros -= charge.amount_micros
        self.of_other_keys += charge.key_id != key_id


@dataclass
class Rewritten:
    """One place of the ledger where the vendor signed something else than it shows now.

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
        sealed: entries of other projects than the asking key's, of which the vendor shows the hashes alone.
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
    sealed: int = 0
    pinned: int = 0
    rewritten: list[Rewritten] = field(default_factory=list)
    head: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The result for `json.dumps`."""
        return asdict(self)


def reconcile(
    entries: Iterable[Entry],
    receipts: Sequence[Receipt],
    key_id: str | None,
    *,
    owed: Sequence[Note] = (),
    in_hand: Sequence[Note] = (),
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
    books = _Books(entries, found)
    keys = {charge.key_id for charge in books.charges.values()} | {key_id}
    account = None if head is None else head.claims.account_id
    books.compare_pins([p for p in pins if p.key_id in keys or (account and p.account_id == account)])
    lost = [receipt for receipt in receipts if receipt.request_id == LOST]
    for receipt in receipts:
        if receipt.request_id != LOST:
            books.compare_receipt(receipt, is_ours=receipt.key_id is not None and receipt.key_id in keys)
    books.find_refused(refused)
    found.lost = sum(books.take(each.counts, each.fingerprint, each.key_id) is not None for each in lost)
    found.in_hand = sum(books.take_of(note) is not None for note in in_hand)
    books.find_owed(owed)
    for charge in books.charges.values():
        found.elsewhere.add(charge, key_id)
    return found


class _Books:
    """An account's ledger, whose charges are taken out one after the other as they are explained."""

    def __init__(self, entries: Iterable[Entry], found: Reconciliation) -> None:
        self.charges: dict[str, Entry] = {}  # by request
        self._hashes = {0: _GENESIS}
        self._corrected: set[int] = set()
        self._found = found
        before: Entry | None = None
        for entry in entries:
            self._read(entry, before)
            before = entry

    def _read(self, entry: Entry, before: Entry | None) -> None:
        """Note an entry; what does not follow from the one before is a difference."""
        request_id = entry.request_id or ""
        seq, previous = (0, entry.previous_hash) if before is None else (before.seq, before.entry_hash)
        if (entry.seq, entry.previous_hash) != (seq + 1, previous):
            self._differs(request_id, f"entry {entry.seq} does not follow from the one before it")
        if entry.kind == SEALED:
            self._found.sealed += 1
        elif entry.entry_hash != entry_hash(entry):
            self._differs(request_id, f"entry {entry.seq} does not match its hash")
        self._hashes[entry.seq] = entry.entry_hash
        if entry.kind == "charge":
            if request_id in self.charges:
                self._differs(request_id, f"entry {entry.seq} charges it again")
            self.charges[request_id] = entry
        if entry.corrects_seq is not None:
            self._corrected.add(entry.corrects_seq)

    def _differs(self, request_id: str, problem: str) -> None:
        self._found.differences.append(Discrepancy(request_id, problem))

    def compare_pins(self, pins: Iterable[Pin]) -> None:
        """Hold what the vendor has signed of its ledger against what it shows."""
        for pin in pins:
            shown = self._hashes.get(pin.seq)
            if shown == pin.entry_hash:
                self._found.pinned += 1
                continue
            rewritten = Rewritten(pin.seq, pin.entry_hash, shown, pin.signed_at, pin.token)
            self._found.rewritten.append(rewritten)
            day = time_of(pin.signed_at, "%Y-%m-%d %H:%M")
            now = "its ledger ends before that" if shown is None else f"it has {shown[:16]} there now"
            self._differs(
                pin.request_id,
                f"the vendor signed on {day} UTC that entry {pin.seq} is {pin.entry_hash[:16]}, "
                f"and {now}: the ledger was rewritten since",
            )

    def compare_receipt(self, receipt: Receipt, *, is_ours: bool) -> None:
        """Hold a receipt against its charge, which is taken out."""
        charge, cost = self.charges.pop(receipt.request_id, None), receipt.cost_micros
        if charge is not None:
            self._compare(receipt, charge)
        elif not receipt.queries and not cost:
            pass  # every input was refused, and nothing was to be charged
        elif is_ours:
            self._differs(receipt.request_id, f"the receipt of {cost} micros is not in the ledger")
        else:
            self._found.of_other_accounts += 1

    def _compare(self, receipt: Receipt, charge: Entry) -> None:
        there = charge.counts
        pairs = [(f"{kind}s", receipt.counts.get(kind, 0), there[kind]) for kind in there]
        pairs.append(("micros", receipt.cost_micros, -charge.amount_micros))
        differing = [
            f"{name}: {mine} by the receipt, {theirs} by entry {charge.seq}"
            for name, mine, theirs in (*pairs, ("model", receipt.fingerprint, charge.model_fingerprint))
            if mine != theirs
        ]
        if differing:
            self._differs(receipt.request_id, "; ".join(differing))
        elif receipt.fault is not None and charge.seq not in self._corrected:
            cost = receipt.cost_micros
            problem = f"entry {charge.seq} charges {cost} micros for an answer that was not taken"
            self._differs(receipt.request_id, f"{problem}: {receipt.fault}")
        else:
            self._found.matched += 1
            self._found.queries += receipt.queries
            self._found.cost_micros += receipt.cost_micros

    def find_refused(self, refused: Collection[str]) -> None:
        """Take out what is charged although the vendor had refused it."""
        for request_id in self.charges.keys() & set(refused):
            charge = self.charges.pop(request_id)
            cost = -charge.amount_micros
            problem = f"entry {charge.seq} charges {cost} micros for what the vendor had refused"
            self._differs(request_id, problem)

    def find_owed(self, owed: Sequence[Note]) -> None:
        """Take out what is charged and owed; first what one can do something about."""
        for note in sorted(owed, key=lambda note: note.is_expired):
            charge = self.take_of(note)
            if charge is None or charge.seq in self._corrected:
                continue
            if note.is_expired:
                self._found.lost += 1
                continue
            self._differs(
                charge.request_id or "",
                f"entry {charge.seq} charges {-charge.amount_micros} micros, and there is no receipt here: "
                "its answer never came. Repeat the command that was interrupted: it is fetched free of "
                "charge. Where none fetches it, as of a canary or a served student, ask the vendor for a "
                "refund; after three days it counts as given up",
            )

    def take_of(self, note: Note) -> Entry | None:
        """Take out the charge that is of a noted batch."""
        asked = counts_of(note.batch.queries)
        return self.take(asked, note.batch.fingerprint, note.sender.key_id)

    def take(self, asked: Counts, fingerprint: str, key_id: str | None) -> Entry | None:
        """Take out the charge of a request with these counts by kind, skipped queries included."""
        fitting = [
            (sum(asked.values()) - sum(charge.counts.values()), request_id)
            for request_id, charge in self.charges.items()
            if charge.model_fingerprint == fingerprint
            and (key_id is None or charge.key_id == key_id)
            and all(number <= asked.get(kind, 0) for kind, number in charge.counts.items())
        ]
        return self.charges.pop(min(fitting)[1]) if fitting else None
