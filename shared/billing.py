"""Answers about money and quota: account, usage, ledger, invoices, quotes."""

import hashlib
import json
from datetime import UTC, date, datetime, timedelta
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, computed_field

from shared.kinds import AskedFields, CountFields, Kind, PriceFields, Whole

QuotaPeriod = Literal["month", "total"]
GroupBy = Literal["day", "key", "kind", "model", "project"]
EntryKind = Literal["charge", "top_up", "payment", "refund", "adjustment"]
# The kind of an entry that is out of the asking key's view: all that is told of it is its place in the chain.
SEALED = "sealed"


class RateLimit(BaseModel):
    """A token bucket, in queries."""

    queries_per_second: Whole
    burst: Whole


class AccountStatus(BaseModel):
    """The answer of `GET /v1/account`; money in millionths of the `currency`.

    `currency` is a code of ISO 4217, here as elsewhere; `None`: the vendor has not named it.

    `queries_used` and `spent_micros` count the current quota period; `None` means no limit,
    and for `credit_micros` that the account is invoiced rather than prepaid. `buckets_covered` are the
    buckets of the embedding space that answers lie in, over all time, as far as they are counted by now; how
    many there may be is the `coverage_limit`.

    `project` is the one that the asking key sees, and `None` where it sees the whole account. A project has
    its own quota, spend limit and rate here, and its own use. The default one has the account's limits; where
    there is one, its use is what the whole account used of it.
    """

    account: str
    plan: str
    status: Literal["active", "suspended", "closed"]
    quota: Whole | None
    quota_period: QuotaPeriod
    queries_used: Whole
    queries_held: Whole
    resets_at: datetime | None
    spend_limit_micros: Whole | None
    spent_micros: Whole
    credit_micros: Whole | None
    rate_limit: RateLimit | None
    coverage_limit: Whole | None = None
    buckets_covered: Whole = 0
    currency: str | None = None
    project: str | None = None

    @property
    def quota_left(self) -> int | None:
        """Queries that may still be asked for in this period, or `None` where there is no quota."""
        return None if self.quota is None else max(0, self.quota - self.queries_used - self.queries_held)


class _Group(BaseModel):
    group: str
    requests: Whole


# Fields are in the order of the bases, the last one first.
class UsageRow(CountFields, _Group):
    """The use and the bill of one group: a day, a key, a kind, a model or a project."""

    billed_queries: Whole
    cost_micros: Whole


class UsageReport(BaseModel):
    """The answer of `GET /v1/usage`: the rows of a period and their sum; and coverage, over all time."""

    account: str
    group_by: GroupBy
    rows: list[UsageRow]
    total: UsageRow
    coverage_limit: Whole | None = None
    buckets_covered: Whole = 0
    currency: str | None = None


class _EntryHead(BaseModel):
    account_id: str | None = None
    seq: Whole
    kind: EntryKind | str
    amount_micros: Whole


class Entry(PriceFields, CountFields, _EntryHead):
    """One entry of the ledger; `amount_micros` is signed: a charge is negative.

    The prices are those that applied; `request_id` is the request that was charged, `project_id` the project
    that it belongs to (`None`: the default one), `corrects_seq` the charge of which a refund gives back a
    part or all, `reason` that of an adjustment, `reference` that of a top-up, a payment or a refund; `batch`
    says that the charge is a bulk job's. A newer
    vendor may know further kinds, and further fields, which its hashes cover. A `sealed` entry belongs to
    another project than the asking key, and has its `seq` and its hashes alone.
    """

    model_config = ConfigDict(extra="allow")

    model: str | None
    model_fingerprint: str | None
    key_id: str | None
    request_id: str | None
    corrects_seq: Whole | None
    reason: str | None
    reference: str | None = None
    batch: bool = False
    project_id: str | None = None
    created_at: AwareDatetime | None
    previous_hash: str
    entry_hash: str


def entry_hash(entry: Entry) -> str:
    """The hash that an entry has to carry: SHA-256 (hex) of all else that it says, as canonical JSON.

    That is JSON with sorted names and without spaces, of what is neither null, false nor 0, with the time in
    microseconds since 1970 and with the request's id as `hold_id`.
    """
    content = {name: value for name, value in dict(entry).items() if value}
    del content["entry_hash"]
    if entry.created_at is not None:
        since = entry.created_at - datetime(1970, 1, 1, tzinfo=UTC)
        content["created_at"] = since // timedelta(microseconds=1)
    if "request_id" in content:
        content["hold_id"] = content.pop("request_id")
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class EntryPage(BaseModel):
    """The answer of `GET /v1/ledger`: entries, oldest first, and what to ask for next; no `data` ends it."""

    data: list[Entry]
    next_after: Whole
    has_more: bool = False
    currency: str | None = None


class InvoiceLine(BaseModel):
    """Queries of one kind, of one model under one fingerprint, at one price; `batch`: of bulk jobs."""

    model: str
    model_fingerprint: str = ""
    kind: Kind
    queries: Whole
    unit_micros: Whole
    amount_micros: Whole
    batch: bool = False


class AdjustmentLine(BaseModel):
    """A correction, with the reason that the ledger has for it; positive: in the customer's favour."""

    seq: Whole
    amount_micros: Whole
    reason: str | None


# Currencies whose smallest unit is not a hundredth (ISO 4217): the digits behind the point.
_WHOLE_UNITS = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
_DIGITS = {
    **dict.fromkeys(_WHOLE_UNITS.split(), 0),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
    **dict.fromkeys(("CLF", "UYW"), 4),
}


def smallest_unit(currency: str | None) -> int:
    """The micro-units of what a bank can pay, such as a cent."""
    unit: int = 10 ** (6 - _DIGITS.get(currency or "", 2))
    return unit


def payable_micros(micros: int, currency: str | None) -> int:
    """What a bank can pay of an amount: its whole smallest units, rounded down; nothing of a negative one.

    The rest is not lost, since the amount is a balance: the next invoice asks for it.
    """
    unit = smallest_unit(currency)
    return max(0, micros) // unit * unit


class Party(BaseModel):
    """A party to an invoice; what is empty is not known."""

    legal_name: str = ""
    street: str = ""
    postcode: str = ""
    city: str = ""
    country: str = ""
    tax_id: str = ""
    email: str = ""


class Seller(Party):
    """The vendor: its prices include a tax of so many hundredths of a percent, and are due in `due_days`."""

    iban: str = ""
    bic: str = ""
    tax_basis_points: Whole = 0
    due_days: Whole = 14


class Buyer(Party):
    """The customer, with their own `reference` (an order, say), and how they are `taxed`."""

    reference: str = ""
    taxed: Literal["standard", "reverse-charge", "exempt"] = "standard"


class Billed(BaseModel):
    """The parts that invoices and credit notes share.

    `billed_micros` is the total of this document in whole cents: the total with `brought_micros`, the rest of
    what earlier documents of its kind had, rounded down. So the totals of all invoices less those of all
    credit notes are what was charged, but for less than a cent of each kind. `tax_micros` is the tax in it.
    Seller, buyer and date are as they were when it was issued.
    """

    number: Whole | None = None
    currency: str | None = None
    total_micros: Whole
    brought_micros: Whole = 0
    seller: Seller = Seller()
    buyer: Buyer = Buyer()
    issued_on: date | None = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def billed_micros(self) -> int:
        """The total of this document, which a bank can pay."""
        unit = smallest_unit(self.currency)
        return (self.brought_micros + self.total_micros) // unit * unit

    @computed_field  # type: ignore[prop-decorator]
    @property
    def tax_micros(self) -> int:
        """The tax in that total, rounded to a cent, half of one away from zero."""
        rate, unit = self.tax_basis_points, smallest_unit(self.currency)
        size, whole = abs(self.billed_micros) * rate, (10_000 + rate) * unit
        tax = (2 * size + whole) // (2 * whole) * unit
        return tax if self.billed_micros >= 0 else -tax

    @property
    def tax_basis_points(self) -> int:
        """The rate of that tax, in hundredths of a percent."""
        return self.seller.tax_basis_points if self.buyer.taxed == "standard" else 0


class CreditNote(Billed):
    """A refund of a charge that an invoice has already: `total_micros` are given back of it.

    Its `number` goes from 1 on without a gap over all accounts; `name` is how documents write it. It names
    the invoice of the charge, with that one's seller and buyer and so its tax; and the entries of the ledger:
    the refund (`seq`, `entry_hash`), and the charge (`corrects_seq`). No invoice counts the refund.
    """

    account: str
    month: str
    invoice_number: Whole | None
    invoice_issued_on: date | None
    seq: Whole
    entry_hash: str
    corrects_seq: Whole
    model: str | None
    reference: str | None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def name(self) -> str:
        """Its number, apart from those of invoices."""
        return f"CN-{self.number}"


class Invoice(Billed):
    """A month's ledger as a bill: `total_micros` is the sum of the lines less refunds and adjustments.

    Final invoices have a `number`, from 1 on without a gap over all accounts; a month without charges,
    refunds and adjustments has none. `adjustments` are those that `adjustments_micros` sums up.
    `refunds_micros` are of the month's own charges. What was given back in the month of other months' charges
    is `credited_micros`: it is in the balance and not in the total, since each has a `CreditNote`.

    What was paid is told apart: by a prepaid account in `top_ups_micros`, by an invoiced one in
    `payments_micros`, with what it owes at the end of the month over all time in `balance_due_micros` (`None`
    for a prepaid account; negative: it paid too much). Until the month is over the invoice is not `final`; a
    final one never changes. The entries it sums up are those from `first_seq` to `last_seq`.

    `due_micros` is what is to be paid: the balance in whole cents, or whatever the currency's smallest unit
    is, rounded down. `carried_micros`, the rest, stays in the balance, and so in the next invoice. A prepaid
    account has nothing to pay.
    """

    account: str
    month: str
    final: bool
    lines: list[InvoiceLine]
    refunds_micros: Whole
    adjustments_micros: Whole
    credited_micros: Whole = 0
    top_ups_micros: Whole
    payments_micros: Whole = 0
    balance_due_micros: Whole | None = None
    first_seq: Whole | None
    first_hash: str | None
    last_seq: Whole | None
    last_hash: str | None
    adjustments: list[AdjustmentLine] = []
    due_on: date | None = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def due_micros(self) -> int:
        """The amount to pay, which a bank can pay."""
        return payable_micros(self.balance_due_micros or 0, self.currency)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def carried_micros(self) -> int:
        """The rest of a balance that is due, which the next invoice asks for."""
        return max(0, self.balance_due_micros or 0) - self.due_micros

    @property
    def is_empty(self) -> bool:
        """Whether it bills nothing: such a month takes no number."""
        return not (self.lines or self.refunds_micros or self.adjustments)


class EstimateRequest(AskedFields):
    """Counts of queries to be priced, as those of a `batch` if they are to be a bulk job's."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = None
    batch: bool = False


class Quote(BaseModel):
    """The answer of `POST /v1/estimate`: the price, and whether it could be bought now."""

    cost_micros: Whole = Field(description="the price, in millionths of the vendor's currency unit")
    quota_left: Whole | None = Field(
        description="queries left of all quotas, of account, project and key; null: there is none"
    )
    fits_quota: bool = Field(description="whether all of them have as many left")
    fits_money: bool = Field(description="whether spend limit and credit allow it")
    seconds_at_rate_limit: Whole = Field(description="how long the rate limit makes it take")
    currency: str | None = Field(None, description="the currency, by its code in ISO 4217; null: not named")
