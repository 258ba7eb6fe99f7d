"""A swap: the evidence that a vendor sold two models under one fingerprint, and how others check it.

The vendor has signed two answers to one input: each in a receipt, or the first one in its model's card.
"""

import itertools
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel

from client.proofs.reconciliation import Discrepancy
from client.vendors.signatures import BadSignature, by_id
from client.vendors.statements import PinnedCard, Proof
from shared.embeddings import Kind
from shared.encoding import Vector, from_wire, to_base64
from shared.receipts import KeySet, PublicKey, Sold, vector_digest

_MOST_DIMENSIONS = 2**16


class SignedAnswer(BaseModel):
    """An answer (base64 of little-endian float32) and its receipt; an answer of a card has none."""

    embedding: str
    receipt: str | None = None
    sold: list[tuple[int, Kind, str, str]] = []

    @classmethod
    def of(cls, vector: Vector, proof: Proof | None) -> "SignedAnswer":
        """An answer and, if it has one, its receipt."""
        if proof is None:
            return cls(embedding=to_base64(vector))
        return cls(embedding=to_base64(vector), receipt=proof.token, sold=list(proof.sold))


class Contradiction(BaseModel):
    """Two answers to one input, which is named by its SHA-256 (hex)."""

    kind: Kind
    asked: str
    before: SignedAnswer
    after: SignedAnswer


class SwapEvidence(BaseModel):
    """Evidence as it is written to a file, which needs neither the cache nor the vendor."""

    format: Literal["tuition-swap/1"] = "tuition-swap/1"
    model_fingerprint: str
    tolerance: float
    keys: list[PublicKey]
    cards: list[str]
    pairs: list[Contradiction]


@dataclass
class SwapCheck:
    """The result of checking evidence.

    Attributes:
        model_fingerprint: the model that is meant.
        keys: the ids of the keys that signed.
        pairs: inputs with two signed answers that differ by more than the tolerance.
        cards: how its signed cards contradict each other, if they do.
        problems: what of the evidence proves nothing.
    """

    model_fingerprint: str
    keys: list[str] = field(default_factory=list)
    pairs: int = 0
    cards: str | None = None
    problems: list[Discrepancy] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The result for `json.dumps`."""
        return asdict(self)

    @property
    def proven(self) -> bool:
        """Whether the vendor contradicts itself."""
        return bool(self.pairs) or self.cards is not None

    @property
    def holds(self) -> bool:
        """Whether that is proven, and by everything in the evidence."""
        return self.proven and not self.problems


def check_swap(evidence: SwapEvidence, keys: KeySet | None = None) -> SwapCheck:
    """Check evidence by the keys in it, unless others are given, as their vendor publishes them."""
    checker = _Checker(evidence, by_id(evidence.keys if keys is None else keys.keys))
    return checker.check()


class _Checker:
    def __init__(self, evidence: SwapEvidence, keys: dict[str, PublicKey]) -> None:
        self._evidence = evidence
        self._keys = keys
        self._found = SwapCheck(evidence.model_fingerprint)
        self._cards: list[PinnedCard] = []

    def check(self) -> SwapCheck:
        for number, token in enumerate(self._evidence.cards, start=1):
            try:
                card = PinnedCard.read(token, self._find_key)
            except BadSignature as error:
                self._found.problems.append(Discrepancy(f"card {number}", f"the vendor {error}"))
                continue
            if card.claims.model_fingerprint == self._evidence.model_fingerprint:
                self._cards.append(card)
        for one, other in itertools.combinations(self._cards, 2):
            self._found.cards = self._found.cards or one.contradicted_by(other)
        for each in self._evidence.pairs:
            try:
                self._check_pair(each)
            except ValueError as error:
                self._found.problems.append(Discrepancy(f"{each.kind} {each.asked[:16]}", str(error)))
            else:
                self._found.pairs += 1
        return self._found

    def _check_pair(self, pair: Contradiction) -> None:
        before, after = self._signed(pair, pair.before), self._signed(pair, pair.after)
        # The vendor's own word counts; only without a card is the accuser's taken.
        tolerance = max((card.claims.tolerance for card in self._cards), default=self._evidence.tolerance)
        if before.shape != after.shape or not np.abs(before - after).max() > tolerance:
            raise ValueError(f"both answers are the same within {tolerance:.3g}")

    def _signed(self, pair: Contradiction, answer: SignedAnswer) -> Vector:
        """An answer, once it is found that the vendor has signed it.

        Raises:
            ValueError: it has not.
        """
        dimensions = len(answer.embedding) // 4 * 3 // 4
        vector = from_wire(answer.embedding, min(dimensions, _MOST_DIMENSIONS))
        if answer.receipt is None:
            self._promised(pair, vector)
            return vector
        sold = tuple(Sold(*each) for each in answer.sold)
        _, claims = Proof.of(answer.receipt, self._find_key, sold)
        if claims.model_fingerprint != self._evidence.model_fingerprint:
            raise ValueError("a receipt is of another model")
        wanted = (pair.kind, pair.asked, vector_digest(vector))
        if wanted not in {(each.kind, each.asked, each.answered) for each in sold}:
            raise ValueError("a receipt does not name this input with this answer")
        return vector

    def _promised(self, pair: Contradiction, vector: Vector) -> None:
        for card in self._cards:
            for query, promised in card.canaries().items():
                if (query.kind, query.digest) == (pair.kind, pair.asked) and np.array_equal(promised, vector):
                    return
        raise ValueError("an answer has no receipt, and no card promises it")

    def _find_key(self, kid: str) -> PublicKey | None:
        if kid in self._keys and kid not in self._found.keys:
            self._found.keys.append(kid)
        return self._keys.get(kid)
