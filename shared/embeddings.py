"""`POST /embed` and `GET /v1/models`: what is asked, what is answered, what is for sale."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field, PlainSerializer

from shared.kinds import (
    Counts,
    Input,
    OfferedPriceFields,
    UnitPrices,
    Usage,
    Whole,
    cost_micros,
    price_fields,
)
from shared.kinds import Kind as Kind

Encoding = Literal["float", "base64"]


# Written as a string wherever a card is, be it JSON or what JSON is made from.
_Moment = Annotated[datetime, PlainSerializer(datetime.isoformat, return_type=str)]


class EmbedOptions(BaseModel):
    """How a request is to be answered; in a form, these are fields of their own."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = None
    encoding: Encoding = "float"
    on_error: Literal["fail", "skip"] = "fail"


class EmbedRequest(EmbedOptions):
    """Texts and images, mixed, in the order in which their embeddings are wanted."""

    # One bad input condemns the request: a hostile million of them must not become a million error reports.
    inputs: Annotated[list[Input], FailFast()]


class Embedding(BaseModel):
    """One answered query. `embedding` is L2-normalised: floats, or base64 of little-endian float32."""

    index: Whole
    kind: Kind
    embedding: list[float] | str


class InputError(BaseModel):
    """One input that `on_error: skip` passed over; it was not charged."""

    index: Whole
    code: str
    message: str


class EmbedResponse(BaseModel):
    """The answered queries, those passed over, and the bill."""

    id: str
    model: str
    model_fingerprint: str
    dimensions: Whole
    data: list[Embedding]
    errors: list[InputError] = []
    usage: Usage
    replayed: bool = False


class Prices(OfferedPriceFields):
    """The price of one query of each kind, in millionths of the vendor's currency unit."""

    def cost_of(self, counts: Counts) -> int:
        """The price of so many queries of each kind; integers throughout, so it is exact."""
        return cost_micros(counts, self.by_kind)

    @classmethod
    def of(cls, prices: UnitPrices) -> "Prices":
        """These prices."""
        return cls(**price_fields(prices))


class Limits(BaseModel):
    """The largest request that the vendor accepts, and how long and how often one is answered again for free.

    `None` is what a vendor does not say.
    """

    max_inputs: Whole = Field(description="queries in one request")
    max_request_bytes: Whole = Field(description="bytes of a request's body")
    max_image_bytes: Whole = Field(description="bytes of one image")
    max_image_pixels: Whole = Field(description="width times height of one image")
    max_image_side: Whole | None = Field(default=None, description="pixels of the longer side of one image")
    replay_window_seconds: Whole | None = Field(
        default=None, description="how long a paid request is answered again under its idempotency key"
    )
    max_replays: Whole | None = Field(default=None, description="how often it is answered again")


class ModelCard(BaseModel):
    """One model for sale.

    Two embeddings are comparable only under one `fingerprint`. The same input gives the same vector
    within `tolerance` (largest difference of one component), whatever else was in the batch.
    """

    id: str = Field(description="the name to ask for")
    object: Literal["model"] = Field(default="model", description="as OpenAI's list has it")
    created: Whole = Field(default=0, description="as OpenAI's list has it")
    owned_by: str = Field(description="who sells it")
    dimensions: Whole = Field(description="length of an embedding")
    fingerprint: str = Field(description="a digest of weights and preprocessing")
    tolerance: float = Field(description="the largest difference of one component between two answers")
    dtype: str = Field(description="the numbers that it computes with")
    image_size: Whole = Field(description="side of its input in pixels")
    prices: Prices = Field(description="what a query costs")
    batch_prices: Prices | None = Field(
        default=None, description="what a query of a bulk job costs; null where none are run"
    )
    currency: str | None = Field(
        default=None,
        description="of what the prices are millionths, by its code in ISO 4217; null: not named",
    )
    limits: Limits = Field(description="how large a request may be")
    default: bool = Field(default=False, description="whether it answers those who name no model")
    deprecated_at: _Moment | None = Field(
        default=None, description="since when, or from when on, it should not be bought any more"
    )
    sunset_at: _Moment | None = Field(default=None, description="when it will no longer be sold")


class ModelList(BaseModel):
    """The models for sale, in the shape of OpenAI's list."""

    object: Literal["list"] = "list"
    data: list[ModelCard]
