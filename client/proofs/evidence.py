"""Evidence: the signed receipts of a cache, checked, written for others and checked by them; offline."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
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
from client.vendors.signatures import BadSignature, by_id
from client.vendors.statements import Proof
from shared.embeddings import Kind
from shared.encoding import WIRE_DTYPE
from shared.receipts import KeySet, PublicKey, ReceiptClaims, Sold

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
        vendors: where they were bought, by the addresses that the buyer noted.
        keys: the ids of the keys that signed them.
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
    keys: list[str] = field(default_factory=list)
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
        return not self.problems

    def add(self, claims: ReceiptClaims, key: PublicKey, vendor: str | None) -> None:
        """Count a receipt that is right."""
        self.receipts += 1
        self.queries += sum(claims.counts.values())
        self.cost_micros += claims.cost_micros
        self.first = claims.iat if self.first is None else min(self.first, claims.iat)
        self.last = claims.iat if self.last is None else max(self.last, claims.iat)
        for name, names in ((key.kid, self.keys), (vendor, self.vendors)):
            if name is not None and name not in names:
                names.append(name)

    def find_fault(self, request_id: str, problem: str) -> None:
        """Note what is not right."""
        self.problems.append(Discrepancy(request_id, problem))


class ExportedReceipt(BaseModel):
    """A receipt in an exported file: where it was bought, the receipt, and [place, kind, asked, answered]."""

    vendor: str | None
    receipt: str
    sold: list[tuple[int, Kind, str, str]]


class ExportedReceipts(BaseModel):
    """An exported file, which needs neither the cache nor the vendor."""

    format: Literal["tuition-receipts/1"] = "tuition-receipts/1"
    keys: list[PublicKey]
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
        found.add(claims, proof.key, bill.vendor)
        for one in proof.sold:
            name = (claims.model_fingerprint, one.kind, bytes.fromhex(one.asked))
            sold.setdefault(name, set()).add(bytes.fromhex(one.answered))
    _check_embeddings(cache, sold, found)
    return found


def export_receipts(cache: EmbeddingCache, file: Path) -> int:
    """Write every readable signed receipt, with the keys to check them; returns how many.

    Raises:
        ClientError: the file cannot be written.
    """
    proofs = [(receipt.vendor, proof) for receipt, proof in cache.billed.signed() if proof is not None]
    exported = ExportedReceipts(
        keys=list({proof.key.kid: proof.key for _, proof in proofs}.values()),
        receipts=[
            ExportedReceipt(vendor=vendor, receipt=proof.token, sold=list(proof.sold))
            for vendor, proof in proofs
        ],
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
    known = by_id(exported.keys if keys is None else keys.keys)
    found = Evidence()
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
        found.add(claims, proof.key, each.vendor)
    return found


def read_keys(file: Path) -> KeySet:
    """The keys in a file, as `/.well-known/jwks.json` has them.

    Raises:
        UsageError: it cannot be read, or is something else.
    """
    return _read(file, KeySet)


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
    yield ',\n "receipts": ['
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
