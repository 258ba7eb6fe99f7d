"""The client as a library: the documented example, and everything that a vendor can be asked."""

import re
import secrets
from collections.abc import Iterator
from contextlib import chdir, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import client
from client.errors import KeyRefused, VendorError, VendorUnreachable
from client.vendors import transport
from client.vendors.teachers.tuition import VendorClient
from tests.end_to_end.command import Command
from tests.support.vendor_process import VendorProcess
from vendor_service.accounts.accounts import Terms, open_account
from vendor_service.accounts.keys import KeyTerms, Scope, issue_key
from vendor_service.clock import system_clock
from vendor_service.database.session import Database
from vendor_service.money.prices import set_price

DOCS = Path(__file__).parents[2] / "docs" / "buying.md"


def _issue(vendor: VendorProcess, *, plan: str = "standard", scopes: frozenset[Scope] | None = None) -> str:
    """A key of a new account, on a plan whose prices are 70 and 30 micros unless it is the standard one."""
    with closing(Database(vendor.database_url)) as database, database.write() as session:
        if plan != "standard":
            set_price(session, plan, "icon-clip", "image", 70, 0)
            set_price(session, plan, "icon-clip", "text", 30, 0)
        account = open_account(session, f"a{secrets.token_hex(8)}", Terms(quota=50, plan=plan), system_clock)
        terms = KeyTerms() if scopes is None else KeyTerms(scopes=scopes)
        return issue_key(session, account, terms, system_clock).api_key


@pytest.fixture
def vendor(vendor_process: VendorProcess) -> Iterator[VendorClient]:
    key = _issue(vendor_process, scopes=frozenset(Scope))
    with VendorClient(vendor_process.url, key) as vendor:
        yield vendor


def test_the_example_in_the_documentation_works(vendor_process: VendorProcess, tmp_path: Path) -> None:
    examples = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    (example,) = [each for each in examples if "VendorClient(url" in each]
    Image.new("RGB", (32, 32), "orange").save(tmp_path / "cat.png")
    names: dict[str, Any] = {"url": vendor_process.url, "api_key": vendor_process.create_key()}
    with chdir(tmp_path):
        exec(example, names)
    assert names["quote"].cost_micros == names["purchase"].cost_micros == 120
    assert names["vectors"].shape == (2, 256)
    assert names["have"].all()
    assert names["left"].spent.queries == 2


def test_the_public_names_are_there_and_others_are_not() -> None:
    assert all(getattr(client, name).__name__ == name for name in dir(client))
    with pytest.raises(AttributeError, match="Vendors"):
        _ = client.Vendors  # type: ignore[attr-defined]


def test_a_customer_can_ask_about_money_quota_and_keys(
    vendor: VendorClient, vendor_process: VendorProcess
) -> None:
    query = client.Query.text("a cat")
    answer = vendor.embed([(query, query.content())], model=vendor.model(), idempotency_key="key")
    quote = vendor.estimate(images=40, texts=10)
    assert (quote.cost_micros, quote.quota_left, quote.fits_quota, quote.fits_money) == (
        4200,
        49,
        False,
        True,
    )
    now = datetime.now(UTC)
    assert vendor.usage("kind", since=now - timedelta(hours=1)).total.cost_micros == 20
    assert vendor.usage(until=now - timedelta(hours=1)).total.requests == 0
    (entry,) = vendor.ledger()
    assert (entry.request_id, entry.amount_micros) == (answer.request_id, -20)
    assert not list(vendor.ledger(after=entry.seq))
    assert entry.created_at is not None
    month = vendor.invoice(entry.created_at.strftime("%Y-%m"))
    assert (month.total_micros, month.final) == (20, False)

    (key,) = vendor.keys()
    assert key.key_id == vendor.key_id
    renewed = vendor.rotate_key(key.key_id, grace_seconds=60)
    with VendorClient(vendor_process.url, renewed.api_key) as again:
        assert again.revoke_key(key.key_id).revoked_at is not None
        with pytest.raises(KeyRefused):
            again.account()


def test_a_rotation_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "FIRST_DELAY", 60.0)  # any second try would be waited for
    with VendorClient("http://127.0.0.1:9", "tk_1_2") as vendor, pytest.raises(VendorUnreachable):
        vendor.rotate_key("1")


def test_what_a_key_may_not_do_is_said(vendor_process: VendorProcess) -> None:
    key = _issue(vendor_process, scopes=frozenset({Scope.READ_USAGE}))
    with VendorClient(vendor_process.url, key) as vendor, pytest.raises(KeyRefused, match="scope"):
        vendor.keys()
    with VendorClient(vendor_process.url, key) as vendor, pytest.raises(VendorError):
        vendor.invoice("never")


def test_an_account_is_planned_for_and_pays_at_its_own_prices(
    vendor_process: VendorProcess, tmp_path: Path
) -> None:
    """The prices of its plan are above and below the standard ones; none is refused as having risen."""
    command = Command(tmp_path, vendor_process.url, _issue(vendor_process, plan="special"))
    Image.new("RGB", (32, 32), "orange").save(tmp_path / "cat.png")
    words = ["embed", "--text", "a cat", "--images", "cat.png", "--out", "out.npy"]
    assert "budget of 99 micros" in command(*words, "--max-spend", "99", code=3).stderr
    command(*words, "--max-spend", "100")
    assert vendor_process.charges(command.api_key).cost_micros == 100
