"""Keys: those that a vendor publishes are pinned, and one that vanishes is missed, with the evidence."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.cache.cache import EmbeddingCache
from client.errors import UsageError, VendorError
from client.proofs import evidence
from client.proofs.canary import Canary
from client.proofs.evidence import Evidence
from client.purchase.buyer import Buyer
from client.vendors.signatures import SignedKeys
from client.vendors.teachers.tuition import VendorClient
from shared.receipts import KeySet, PublicKey
from tests.client.cards import MODEL
from tests.client.key_sets import key_set
from tests.client.proofs.test_receipts import QUERIES, Signing
from vendor_service.money.signing import SigningKey

pytestmark = pytest.mark.usefixtures("hurry")
URL = "https://vendor.example/clip"


class Naming(Signing):
    """Signs in a name, and publishes what it is made to; `former` is its first key."""

    def __init__(self, vendor: str | None = None, iss: str | None = None) -> None:
        super().__init__()
        self.vendor, self.iss, self.former = vendor, iss, self.key
        self.said: list[str] = []
        self.sales = 0
        self.withdrawn: list[PublicKey] = []

    def key_set(self) -> KeySet:
        withdrawn, iss, vendor = self.withdrawn, self.iss, self.vendor
        return key_set(self.publisher, self.published, withdrawn=withdrawn, iss=iss, vendor=vendor)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.sales += request.method == "POST"
        self.claims = {"iss": self.iss, "vendor": self.vendor, "entry_hash": f"{self.sales:064x}"}
        return super().handle_request(request)

    def rotate(self, *published: SigningKey) -> None:
        """Sign with another key, and publish it beside these."""
        self.key = self.publisher = SigningKey(Ed25519PrivateKey.generate())
        self.published = [self.key.public, *(each.public for each in published)]


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[EmbeddingCache]:
    with EmbeddingCache(tmp_path / "cache.db") as cache:
        yield cache


def _buy(cache: EmbeddingCache, vendor: Naming, url: str = URL) -> None:
    with VendorClient(url, "tk_1_s", transport=vendor, on_wait=vendor.said.append) as client:
        Buyer(client, cache, model=MODEL, run_id="run", budget=None).buy(QUERIES)


def _buy_again(cache: EmbeddingCache, vendor: Naming) -> None:
    with VendorClient(URL, "tk_1_s", transport=vendor, on_wait=vendor.said.append) as client:
        Canary(client, cache, MODEL).ask(QUERIES)


def _exported(cache: EmbeddingCache, folder: Path, keys: KeySet | None) -> Evidence:
    """What somebody else finds in the receipts, by the keys that the vendor publishes."""
    evidence.export_receipts(cache, folder / "bought.json")
    found = evidence.check_file(folder / "bought.json", keys)
    assert isinstance(found, Evidence)
    return found


@pytest.mark.parametrize("url", [URL, "https://VENDOR.example:443/clip/"])
def test_receipts_say_who_sold_what_to_whom_and_nobody_else_need_be_believed(
    cache: EmbeddingCache, tmp_path: Path, url: str
) -> None:
    vendor = Naming(vendor="Vendor Ltd", iss=URL)
    _buy(cache, vendor, url)
    for found in (evidence.check_cache(cache), _exported(cache, tmp_path, vendor.key_set())):
        assert (found.vendors, found.accounts) == ([f"'Vendor Ltd' at {URL}"], ["me"])
        assert found.holds
    assert "https://vendor.example:443 published it from" in evidence.check_cache(cache).seen[0]
    # What the buyer noted of the vendor is signed by nobody, and is handed to nobody.
    assert "443" not in (tmp_path / "bought.json").read_text()


def test_a_vendor_that_signs_as_another_is_asked_for_nothing(cache: EmbeddingCache) -> None:
    for iss in ("https://other.example", "https://vendor.example", "http://vendor.example/clip"):
        with pytest.raises(VendorError, match=f"signs its receipts as {iss}"):
            _buy(cache, Naming(iss=iss))
    assert not cache.receipts()
    assert not cache.notes.of_run()


def _unsigned(vendor: Naming) -> KeySet:
    return KeySet(keys=vendor.published or [])


def _of_others(vendor: Naming) -> KeySet:
    stranger = SigningKey(Ed25519PrivateKey.generate())
    return key_set(vendor.key, [vendor.key.public, stranger.public]).model_copy(
        update={"keys": vendor.published}
    )


def _disowned(vendor: Naming) -> KeySet:
    return key_set(vendor.key, [], withdrawn=[vendor.key.public])


@pytest.mark.parametrize(
    ("publish", "why"),
    [
        (_unsigned, "does not sign the set"),
        (_of_others, "signed another set of keys than it publishes"),
        (_disowned, "signed by a key that it does not publish"),
    ],
)
def test_a_key_set_that_nobody_vouches_for_is_no_key_set(
    cache: EmbeddingCache, publish: Callable[[Naming], KeySet], why: str
) -> None:
    vendor = Naming()
    vendor.key_set = lambda: publish(vendor)  # type: ignore[method-assign]
    with pytest.raises(VendorError, match=why):
        _buy(cache, vendor)
    assert not cache.receipts()


def _rotated(cache: EmbeddingCache) -> Naming:
    """A vendor that rotated its key between two sales, and said so."""
    vendor = Naming()
    _buy(cache, vendor)
    vendor.rotate(vendor.former)
    _buy_again(cache, vendor)
    return vendor


def test_a_rotation_that_is_announced_passes_and_both_keys_stay_good(
    cache: EmbeddingCache, tmp_path: Path
) -> None:
    vendor = _rotated(cache)
    assert vendor.said == []
    found = evidence.check_cache(cache)
    assert found.holds
    assert len(found.seen) == 2
    assert _exported(cache, tmp_path, vendor.key_set()).holds


def test_a_key_that_is_hidden_is_missed_and_proved_by_what_its_vendor_signed(
    cache: EmbeddingCache, tmp_path: Path
) -> None:
    vendor = _rotated(cache)
    vendor.published = [vendor.key.public]
    for _ in range(2):  # it is not forgotten
        with pytest.raises(VendorError, match=f"hides keys .*{vendor.former.public.kid}.*another --cache"):
            _buy_again(cache, vendor)
    assert len(cache.receipts()) == 2
    (gone,) = evidence.check_cache(cache).disowned
    assert gone.request_id == vendor.former.public.kid
    assert "hides it without a word since" in gone.problem
    # Others need not believe the buyer: the key that is still published had signed for the hidden one.
    found = _exported(cache, tmp_path, vendor.key_set())
    assert (found.receipts, found.problems, found.holds) == (2, [], False)
    assert f"signed by {vendor.key.public.kid}, and hides it now" in found.disowned[0].problem
    vendor.published = [vendor.key.public, vendor.former.public]
    _buy_again(cache, vendor)
    assert evidence.check_cache(cache).holds


@pytest.mark.parametrize("published", [True, False])
def test_keys_that_are_all_swapped_or_gone_are_missed_before_anything_is_paid(
    cache: EmbeddingCache, tmp_path: Path, *, published: bool
) -> None:
    vendor = Naming()
    _buy(cache, vendor)
    vendor.rotate()
    vendor.published = vendor.published if published else None
    with pytest.raises(VendorError, match="hides keys"):
        _buy_again(cache, vendor)
    assert len(cache.receipts()) == 1
    # Nobody but the buyer has seen the key there; the set that it signed itself is handed on as it is.
    found = _exported(cache, tmp_path, key_set(vendor.key))
    assert [each.problem for each in found.problems] == [
        f"signed by a key that it does not publish, {vendor.former.public.kid}"
    ]
    (kept,) = json.loads((tmp_path / "bought.json").read_text())["key_sets"]
    assert SignedKeys.read(kept, {vendor.former.public.kid: vendor.former.public}.get).claims.keys


def test_a_key_that_is_withdrawn_openly_is_told_of_once_and_proves_nothing_any_more(
    cache: EmbeddingCache, tmp_path: Path
) -> None:
    vendor = _rotated(cache)
    vendor.published, vendor.withdrawn = [vendor.key.public], [vendor.former.public]
    for _ in range(2):
        _buy_again(cache, vendor)
    assert [f"its key {vendor.former.public.kid} was stolen" in each for each in vendor.said] == [True]
    (gone,) = evidence.check_cache(cache).disowned
    assert "has withdrawn it since" in gone.problem
    # A thief of the key cannot undo that with an older set.
    (problem,) = _exported(cache, tmp_path, vendor.key_set()).problems
    assert "does not publish" in problem.problem


def test_a_key_that_another_process_saw_meanwhile_is_not_missed(cache: EmbeddingCache) -> None:
    vendor = Naming()
    before = SignedKeys.of(vendor.key_set())
    vendor.rotate(vendor.former)
    after = SignedKeys.of(vendor.key_set())
    assert cache.keys.pin(URL, after, 2.0) == ([], [])
    assert cache.keys.pin(URL, before, 1.0) == ([], [])
    assert [(row.first_seen, row.last_seen) for row in cache.keys.all()] in (
        [(1.0, 2.0), (2.0, 2.0)],
        [(2.0, 2.0), (1.0, 2.0)],
    )
    assert cache.keys.pin(URL, before, 3.0) == ([vendor.key.public.kid], [])


def test_keys_that_are_not_what_their_vendor_signed_are_no_keys_to_check_by(
    cache: EmbeddingCache, tmp_path: Path
) -> None:
    vendor = Naming()
    _buy(cache, vendor)
    with pytest.raises(UsageError, match="signed another set of keys"):
        _exported(cache, tmp_path, _of_others(vendor))
    assert _exported(cache, tmp_path, _unsigned(vendor)).holds  # of a contract, say
