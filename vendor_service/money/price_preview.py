"""A preview of prices: a month of the ledger at other prices, before they hold."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel
from sqlalchemy import Row, func, select
from sqlalchemy.orm import Session

from shared.kinds import KINDS
from vendor_service.amounts import read_amount
from vendor_service.clock import HOUR
from vendor_service.database.tables import STANDARD_PLAN, Account, LedgerTotal
from vendor_service.errors import UsageError
from vendor_service.money import currency, prices
from vendor_service.money.invoices import month_bounds
from vendor_service.money.prices import BATCH_PERCENT, DEFAULT_BATCH_PERCENT, PriceKind, part_of

LONGEST = 65_536
_MOST = 1000

# The plan, the model and the kind of a price.
Place = tuple[str, str, str]


class AccountPreview(BaseModel):
    """A month of an account: what was charged, and what it had come to at the other prices."""

    account: str
    plan: str
    queries: int
    charged_micros: int
    at_new_micros: int
    difference_micros: int
    currency: str | None


class PricePreview(BaseModel):
    """A month at other prices, those who would pay most more first; `total` is of all accounts."""

    month: str
    data: list[AccountPreview]
    total: AccountPreview


def read_prices(session: Session, written: str) -> dict[Place, int]:
    """Prices as they are written in a file: a line `MODEL KIND PRICE [PLAN]` each; `#` begins a remark.

    Raises:
        UsageError: a line is something else; the message says which.
    """
    unit = currency.current(session)
    found: dict[Place, int] = {}
    for number, line in enumerate(written.splitlines(), start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) not in (3, 4) or len(found) >= _MOST:
            raise UsageError(f"line {number} is not: MODEL KIND PRICE [PLAN]")
        model, kind, amount, plan = (*words, STANDARD_PLAN)[:4]
        if kind not in (*KINDS, *get_args(PriceKind)):
            raise UsageError(
                f"line {number}: there is no kind {kind!r}; write image, text or {BATCH_PERCENT}"
            )
        try:
            written_amount = read_amount(amount)
            price = written_amount.as_percent() if kind == BATCH_PERCENT else written_amount.of_books_in(unit)
        except UsageError as error:
            raise UsageError(f"line {number}: {error}") from error
        if price < 0 or (kind == BATCH_PERCENT and price > 100):
            raise UsageError(f"line {number}: {amount!r} is no price")
        found[plan, model, kind] = price
    if not found:
        raise UsageError("there is no price in it; write a line for each: MODEL KIND PRICE [PLAN]")
    for model in {model for _, model, _ in found} - prices.served_models(session):
        raise UsageError(f"there is no model {model!r} in these books")
    return found


def preview(session: Session, wanted: Mapping[Place, int], month: str, now: int) -> PricePreview:
    """What each account was charged in a month, and what that had come to at the wanted prices.

    What no wanted price is about stays as it was charged. The free choice of customers is left out: they ask
    as much as they did.
    """
    charged = _charged(session, month)
    unit = currency.current(session)
    at_new = _NewPrices(session, wanted, now)
    sums: dict[tuple[str, str], list[int]] = {}
    for row in charged:
        mine = sums.setdefault((row.name, row.plan), [0, 0, 0])
        quantity = int(row.quantity)
        for place, value in enumerate(
            (quantity, quantity * row.unit_micros, quantity * at_new.unit_of(row)),
        ):
            mine[place] += value
    data = [_row(name, plan, mine, unit) for (name, plan), mine in sums.items()]
    data.sort(key=lambda each: (-each.difference_micros, each.account))
    whole = [sum(each[place] for each in sums.values()) for place in range(3)]
    return PricePreview(month=month, data=data, total=_row("total", "", whole, unit))


@dataclass(frozen=True)
class _NewPrices:
    session: Session
    wanted: Mapping[Place, int]
    now: int

    def unit_of(self, row: Row[Any]) -> int:
        """The price of one query of what was charged."""
        price, is_new = self._price(row.plan, row.model, row.sold)
        if not row.batch:
            return price if is_new and price is not None else int(row.unit_micros)
        percent, is_new_percent = self._price(row.plan, row.model, BATCH_PERCENT)
        if price is None or not (is_new or is_new_percent):
            return int(row.unit_micros)
        return part_of(price, DEFAULT_BATCH_PERCENT if percent is None else percent)

    def _price(self, plan: str, model: str, kind: PriceKind) -> tuple[int | None, bool]:
        """The price that would hold on a plan, and whether it is a wanted one."""
        for each in (plan, STANDARD_PLAN):
            if (each, model, kind) in self.wanted:
                return self.wanted[each, model, kind], True
            if (holding := prices.named(self.session, each, model, kind, self.now)) is not None:
                return holding, False
        return None, False


def _charged(session: Session, month: str) -> list[Row[Any]]:
    begin, end = month_bounds(month)
    group = (Account.name, Account.plan, LedgerTotal.model, LedgerTotal.sold, LedgerTotal.unit_micros)
    found = (
        select(*group, LedgerTotal.batch, func.sum(LedgerTotal.quantity).label("quantity"))
        .join_from(LedgerTotal, Account, Account.id == LedgerTotal.account_id)
        .where(LedgerTotal.hour >= begin // HOUR, LedgerTotal.hour < end // HOUR)
        .where(LedgerTotal.kind == "charge", LedgerTotal.sold != "")
    )
    return list(session.execute(found.group_by(*group, LedgerTotal.batch).order_by(Account.name)))


def _row(name: str, plan: str, sums: list[int], unit: str | None) -> AccountPreview:
    queries, charged, at_new = sums
    return AccountPreview(
        account=name,
        plan=plan,
        queries=queries,
        charged_micros=charged,
        at_new_micros=at_new,
        difference_micros=at_new - charged,
        currency=unit,
    )
