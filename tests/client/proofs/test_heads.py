"""Heads: what a vendor signs of its ledger is kept, and what cannot be is not believed."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from client.cache.cache import EmbeddingCache
from client.errors import VendorError, VendorUnreachable
from client.purchase.buyer import Buyer
from client.vendors.statements import SignedHead
from client.vendors.teachers.tuition import VendorClient
from shared.receipts import HEAD_TYPE, HeadClaims, LedgerHead
from tests.client.cards import MODEL
from tests.client.proofs.test_receipts import QUERIES, Signing


class _WithHead(Signing):
    """Shows its ledger's head as well; `head` is changed before it is signed."""

    def __init__(self) -> None:
        super().__init__()
        self.head: dict[str, Any] = {}

    def signed(self) -> SignedHead:
        claims = HeadClaims(iat=1_800_000_000, account_id="me", ledger_seq=1, entry_hash="e" * 64)
        claims = claims.model_copy(update=self.head)
        return SignedHead(claims, self.key.sign(HEAD_TYPE, claims), self.key.public)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path != "/v1/ledger/head":
            return super().handle_request(request)
        head = self.signed()
        answer = LedgerHead(
            account_id=head.claims.account_id,
            seq=head.claims.ledger_seq,
            entry_hash=head.claims.entry_hash,
            created_at=None,
            signed=head.token,
        )
        return httpx.Response(200, json=answer.model_dump())


class _Silent(_WithHead):
    """Sells, and then does not answer; `asked` is after what, and how many seconds that was waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, float]] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if not request.url.path.endswith(("/head", "/signed-card")):
            return super().handle_request(request)
        self.asked.append((request.url.path, request.extensions["timeout"]["read"]))
        raise httpx.ReadTimeout("slow")


class _Trickle(httpx.SyncByteStream):
    def __iter__(self) -> Iterator[bytes]:
        for _ in range(100):
            time.sleep(0.01)
            yield b" "


class _Trickling(_WithHead):
    """Answers what was asked of its ledger's end a byte at a time."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path != "/v1/ledger/head":
            return super().handle_request(request)
        return httpx.Response(200, stream=_Trickle())


def _buy(folder: Path, vendor: _WithHead) -> list[int]:
    """The entries whose heads are kept after a purchase."""
    with (
        VendorClient("http://vendor", "tk_1_s", transport=vendor) as client,
        EmbeddingCache(folder / "cache.db") as cache,
    ):
        assert Buyer(client, cache, model=MODEL, run_id="run", budget=None).buy(QUERIES).bought == 3
        return [pin.seq for pin in cache.heads.all()]


def test_a_head_is_kept_when_something_was_bought(tmp_path: Path) -> None:
    assert _buy(tmp_path, _WithHead()) == [1]


def test_what_is_only_a_precaution_is_asked_once_and_not_waited_for_long(tmp_path: Path) -> None:
    vendor = _Silent()
    assert _buy(tmp_path, vendor) == []
    assert vendor.asked == [("/v1/ledger/head", 10), (f"/v1/models/{MODEL.id}/signed-card", 10)]


def test_a_head_that_only_trickles_in_is_not_waited_for_either() -> None:
    with (
        VendorClient("http://vendor", "tk_1_s", transport=_Trickling()) as client,
        pytest.raises(VendorUnreachable, match="does not end"),
    ):
        client.head(within=0.02)


@pytest.mark.parametrize("head", [{"ledger_seq": 2**63}, {"ledger_seq": -1}, {"iat": 10**15}, {"iat": -1}])
def test_a_head_that_cannot_be_is_refused_and_ends_no_purchase(tmp_path: Path, head: dict[str, Any]) -> None:
    vendor = _WithHead()
    vendor.head = head
    assert _buy(tmp_path, vendor) == []
    with (
        VendorClient("http://vendor", "tk_1_s", transport=vendor) as client,
        pytest.raises(VendorError, match="cannot be"),
    ):
        client.head()


def test_a_head_that_was_kept_before_is_evidence_whatever_its_time(tmp_path: Path) -> None:
    vendor = _WithHead()
    vendor.head = {"iat": 10**15}
    with EmbeddingCache(tmp_path / "cache.db") as cache:
        cache.heads.pin(vendor.signed())
        assert [pin.signed_at for pin in cache.heads.all()] == [10**15]
