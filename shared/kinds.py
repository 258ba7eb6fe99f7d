"""The kinds of what is sold: each is an input, has a price, and is counted in usage, ledger and receipts.

Everything else takes `Counts` and `UnitPrices`, mappings by kind. Only this module names the kinds one by
one: to sell another, add it to `Kind` and `KINDS`, and its fields to the models below. What a request has of
it is counted in `vendor_service/embed/request.py`.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Kind = Literal["text", "image"]
# Each kind with its plural, which names the field of its count. Its price is in the field `KIND_micros`.
KINDS: Mapping[Kind, str] = {"image": "images", "text": "texts"}

Counts = Mapping[Kind, int]  # how many of each kind; none of one that is missing
NOTHING: Counts = MappingProxyType({})
UnitPrices = Mapping[Kind, int]  # what one of each kind costs, in millionths of the currency unit


def _in_books(number: int) -> int:
    if not -_MOST <= number <= _MOST:
        raise ValueError("no books hold that number")
    return number


_MOST = 2**63 - 1
# A whole number as books and SQLite can hold it; a vendor may write any.
Whole = Annotated[int, AfterValidator(_in_books)]

_Named = Annotated[int, Field(ge=0, le=10**12, strict=True)]
_Asked = Annotated[int, Field(ge=0, le=10**9, strict=True)]


class Input(BaseModel):
    """One query: a text, or an image as the base64 of a PNG, JPEG or WebP file."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"oneOf": [{"required": ["text"]}, {"required": ["image"]}]}
    )

    text: str | None = None
    image: str | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.text is None) == (self.image is None):
            raise ValueError('an input is either {"text": ...} or {"image": ...}')
        return self

    @property
    def kind(self) -> Kind:
        """Which of the two it is."""
        return "text" if self.text is not None else "image"


class CountFields(BaseModel):
    """How many there are of each kind."""

    images: Whole
    texts: Whole

    @property
    def counts(self) -> Counts:
        """The same by kind."""
        return {kind: getattr(self, plural) for kind, plural in KINDS.items()}


class AskedFields(CountFields):
    """How many are asked about of each kind; none of one that is not named."""

    images: _Asked = 0
    texts: _Asked = 0


class Usage(CountFields):
    """The bill of a request. `cost_micros` is in millionths of the vendor's currency unit."""

    billed_queries: Whole
    cost_micros: Whole

    @classmethod
    def of(cls, counts: Counts, cost_micros: int) -> "Usage":
        """The bill of these."""
        return cls(**count_fields(counts), billed_queries=queries(counts), cost_micros=cost_micros)


class PriceFields(BaseModel):
    """The price of one of each kind, in millionths of the vendor's currency unit."""

    image_micros: Whole
    text_micros: Whole

    @property
    def by_kind(self) -> UnitPrices:
        """The same by kind."""
        return {kind: getattr(self, f"{kind}_micros") for kind in KINDS}


class OfferedPriceFields(PriceFields):
    """The same, as it is offered."""

    image_micros: Annotated[int, Field(ge=0, description="of an image"), AfterValidator(_in_books)]
    text_micros: Annotated[int, Field(ge=0, description="of a text"), AfterValidator(_in_books)]


class SomePriceFields(BaseModel):
    """The same, where some are named."""

    image_micros: _Named | None = None
    text_micros: _Named | None = None

    @property
    def by_kind(self) -> UnitPrices:
        """Those that are named, by kind."""
        found = {kind: getattr(self, f"{kind}_micros") for kind in KINDS}
        return {kind: micros for kind, micros in found.items() if micros is not None}


def count_fields(counts: Counts) -> dict[str, Any]:
    """Counts as the fields of `CountFields`."""
    return {plural: counts.get(kind, 0) for kind, plural in KINDS.items()}


def price_fields(prices: UnitPrices) -> dict[str, Any]:
    """Prices as the fields of `PriceFields`."""
    return {f"{kind}_micros": prices.get(kind, 0) for kind in KINDS}


def queries(counts: Counts) -> int:
    """How many queries these are: what quotas, rates and the largest request are counted in."""
    return sum(counts.values())


def cost_micros(counts: Counts, prices: UnitPrices) -> int:
    """The price of all together; integers throughout, so it is exact."""
    return sum(number * prices[kind] for kind, number in counts.items())
