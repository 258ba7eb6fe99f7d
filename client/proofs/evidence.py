"""Evidence: the signed receipts of a cache, checked, written for others and checked by them; offline."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, Field, RootModel, ValidationError

from client.cache.cache import EmbeddingCache
from client.errors import UsageError, unwritable
from client.paths import replace_text
from client.proofs.reconciliation import Discrepancy
from client.proofs.swap import SwapCheck, SwapEvidence, check_swap
from client.vendors.signatures import BadSignature, SignedKeys, by_id, time_of
from client.vendors.statements import Proof
from shared.embeddings import Kind
from shared.encoding import WIRE_DTYPE
from shared.receipts import KeySet, PublicKey, ReceiptClaims, Sold

_MOST_SETS = 1000
Content = TypeVar("Content", bound=BaseModel)


@dataclass
class Evidence:
    """The result of checking signed receipts.

    Attributes:
        receipts: those whose signature and hashes are right.
        queries: how many queries they are of.
        cost_micros: what these cost, in millionths of the vendor's currency unit.
        first: when the first of them was charged, in seconds since 1970.
        last: when the last of them was.
        vendors: who sold, by name and URL, as the vendor has signed it.
        accounts: who bought, as the vendor's ledger names the accounts.
        keys: the ids of the keys that signed them.
        seen: where and when the buyer's cache saw these keys first and last; nobody has signed that.
        disowned: keys that the vendor published as its own, and has withdrawn or hides now.
        unsigned: receipts in the cache that the vendor did not sign.
        proven: embeddings in the cache that are what a receipt says was sold.
        unproven: those that no receipt covers.
        problems: receipts that are not right, and embeddings that differ from what was sold.
    """

    receipts: int = 0
    queries: int = 0
    cost_micros: int = 0
    first: int | None = None
    last: int | None = None
    vendors: list[str] = field(default_factory=list)
    accounts: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    disowned: list[Discrepancy] = field(default_factory=list)
    unsigned: int = 0
    proven: int = 0
    unproven: int = 0
    problems: list[Discrepancy] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The result for `json.dumps`."""
        return asdict(self)

    @property
    def holds(self) -> bool:
        """Whether everything is right."""
        return not self.problems and not self.disowned

    def add(self, claims: ReceiptClaims, key: PublicKey) -> None:
        """Count a receipt that is right."""
        self.receipts += 1
        self.queries += sum(claims.counts.values())
        self.cost_micros += claims.cost_micros
        self.first = claims.iat if self.first is None else min(self.first, claims.iat)
        self.last = claims.iat if self.last is None else max(self.last, claims.iat)
        # A name is quoted, so that none reads like a name and an address.
        name = None if claims.vendor is None else repr(claims.vendor)
        vendor = " at ".join(filter(None, (name, claims.iss)))
        for each, known in (
            (key.kid, self.keys),
            (vendor, self.vendors),
            (claims.account_id, self.accounts),
        ):
            if each and each not in known:
                known.append(each)

    def find_fault(self, request_id: str, problem: str) -> None:
        """Note what is not right."""
        self.problems.append(Discrepancy(request_id, problem))


class ExportedReceipt(BaseModel):
    """A receipt in an exported file, and what it is of: [place, kind, asked, answered]."""

    receipt: str
    sold: list[tuple[int, Kind, str, str]]


class ExportedReceipts(BaseModel):
    """An exported file, which needs neither the cache nor the vendor."""

    format: Literal["tuition-receipts/1"] = "tuition-receipts/1"
    keys: list[PublicKey]
    key_sets: list[str] = Field(max_length=_MOST_SETS, description="as the vendor signed them, each a JWS")
    receipts: list[ExportedReceipt]


class EvidenceFile(RootModel[ExportedReceipts | SwapEvidence]):
    """A file to check: receipts, or the evidence of a swap."""

    root: Annotated[ExportedReceipts | SwapEvidence, Field(discriminator="format")]


def check_cache(cache: EmbeddingCache) -> Evidence:
    """Check every signed receipt of a cache, and every embedding against what its receipts say was sold."""
    found = Evidence(unsigned=cache.billed.unsigned())
    sold: dict[tuple[str, Kind, bytes], set[bytes]] = {}
    for bill, proof in cache.billed.signed():
        try:
            if proof is None:
                raise BadSignature("signed a receipt of which this cache has lost the key or the contents")
            claims = proof.claims()
        except BadSignature as error:
            found.find_fault(bill.request_id, f"the vendor {error}")
            continue
        stored = (bill.fingerprint, +Counter(bill.counts), bill.cost_micros)
        if stored != (claims.model_fingerprint, +Counter(claims.counts), claims.cost_micros):
            found.find_fault(bill.request_id, "what is stored of the bill is not what the vendor signed")
            continue
        found.add(claims, proof.key)
        for one in proof.sold:
            name = (claims.model_fingerprint, one.kind, bytes.fromhex(one.asked))
            sold.setdefault(name, set()).add(bytes.fromhex(one.answered))
    _check_embeddings(cache, sold, found)
    for row in cache.keys.all():
        first, last = (time_of(int(each), "%Y-%m-%d") for each in (row.first_seen, row.last_seen))
        published = f"{row.vendor} published it from {first} to {last}"
        if row.kid in found.keys:
            found.seen.append(f"{row.kid}: {published}")
        if gone := row.withdrawn or row.hidden:
            how = "has withdrawn it" if row.withdrawn else "hides it without a word"
            problem = f"{published}, and {how} since {time_of(int(gone), '%Y-%m-%d')}"
            found.disowned.append(Discrepancy(row.kid, problem))
    return found


def export_receipts(cache: EmbeddingCache, file: Path) -> int:
    """Write every readable signed receipt, with the keys to check them; returns how many.

    Raises:
        ClientError: the file cannot be written.
    """
    proofs = [proof for _, proof in cache.billed.signed() if proof is not None]
    keys = {proof.key.kid: proof.key for proof in proofs}
    exported = ExportedReceipts(
        keys=list(keys.values()),
        key_sets=cache.keys.sets(keys)[-_MOST_SETS:],
        receipts=[ExportedReceipt(receipt=proof.token, sold=list(proof.sold)) for proof in proofs],
    )
    try:
        replace_text(file, "".join(_lines(exported)))
    except OSError as error:
        raise unwritable(file, error) from error
    return len(proofs)


def check_file(file: Path, keys: KeySet | None = None) -> Evidence | SwapCheck:
    """Check exported receipts, or the evidence of a swap, by the keys in the file unless others are given.

    Raises:
        UsageError: it cannot be read, or is something else.
    """
    exported = _read(file, EvidenceFile).root
    if isinstance(exported, SwapEvidence):
        return check_swap(exported, keys)
    found = Evidence()
    known = by_id(exported.keys) if keys is None else _known(keys, exported.key_sets, found)
    seen: set[str] = set()
    for number, each in enumerate(exported.receipts, start=1):
        try:
            proof, claims = Proof.of(each.receipt, known.get, tuple(Sold(*one) for one in each.sold))
        except (BadSignature, ValueError) as error:
            found.find_fault(f"receipt {number}", str(error))
            continue
        if claims.entry_hash in seen:
            found.find_fault(claims.request_id, "is in the file twice, and counted once")
            continue
        seen.add(claims.entry_hash)
        found.add(claims, proof.key)
    return found


def read_keys(file: Path) -> KeySet:
    """The keys in a file, as `/.well-known/jwks.json` has them.

    Raises:
        UsageError: it cannot be read, or is something else.
    """
    return _read(file, KeySet)


def _known(own: KeySet, sets: Sequence[str], found: Evidence) -> dict[str, PublicKey]:
    """The keys of a vendor: those that it publishes, and those that it has vouched for in a signed set.

    A key that it withdraws with its date is none of them. One that it named before, signed by a key that it
    still publishes, is its own although it names it no more.

    Raises:
        UsageError: what it publishes now is not rightly signed.
    """
    if own.signed is None:
        return by_id(own.keys)
    try:
        published = SignedKeys.of(own)
    except BadSignature as error:
        raise UsageError(f"These are no vendor's keys: it {error}.") from error
    assert published is not None
    known, withdrawn = published.good, {key.kid for key in published.claims.keys if key.withdrawn is not None}
    unread, before = list(sets), -1
    while len(known) != before:
        before, tokens, unread = len(known), unread, []
        for token in tokens:
            try:
                former = SignedKeys.read(token, known.get)
            except BadSignature:
                unread.append(token)
                continue
            for kid in former.good.keys() - known.keys() - withdrawn:
                known[kid] = former.good[kid]
                if former.claims.iat <= published.claims.iat:
                    day = time_of(former.claims.iat, "%Y-%m-%d")
                    by = f"signed by {former.key.kid}"
                    problem = f"the vendor named it as its own on {day}, {by}, and hides it now"
                    found.disowned.append(Discrepancy(kid, problem))
    return known


def _check_embeddings(
    cache: EmbeddingCache, sold: Mapping[tuple[str, Kind, bytes], set[bytes]], found: Evidence
) -> None:
    if cache.dtype != WIRE_DTYPE:  # it was rounded when it was stored
        found.unproven = sum(holding.embeddings for holding in cache.holdings())
        return
    for fingerprint in cache.fingerprints():
        for entry in cache.stored(fingerprint):
            known = sold.get((fingerprint, entry.kind, entry.digest))
            if known is None:
                found.unproven += 1
            elif hashlib.sha256(np.frombuffer(entry.vector, dtype=WIRE_DTYPE).tobytes()).digest() in known:
                found.proven += 1
            else:
                problem = f"the embedding of the {entry.kind} {entry.digest.hex()} is not what was sold"
                found.find_fault(fingerprint, problem)


def _lines(exported: ExportedReceipts) -> Iterator[str]:
    """JSON with a receipt a line, so that people can look into it."""
    yield f'{{"format": {json.dumps(exported.format)},\n "keys": '
    yield json.dumps([key.model_dump() for key in exported.keys])
    yield f',\n "key_sets": {json.dumps(exported.key_sets)},\n "receipts": ['
    yield ",\n  ".join(_each(exported.receipts))
    yield "]}\n"


def _each(receipts: Iterable[ExportedReceipt]) -> Iterator[str]:
    return (receipt.model_dump_json() for receipt in receipts)


def _read(file: Path, model: type[Content]) -> Content:
    try:
        return model.model_validate_json(file.read_bytes())
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}.") from error
    except ValidationError as error:
        what = "exported receipts, nor evidence of a canary" if model is EvidenceFile else "keys (a JWK Set)"
        raise UsageError(f"{file} has no {what} ({error.error_count()} faults).") from error
