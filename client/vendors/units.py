"""What is sold, by kind: counts and prices as mappings."""

from collections.abc import Mapping

from shared.billing import Entry
from shared.embeddings import Kind, Prices, Usage
from shared.receipts import ReceiptClaims

Counts = Mapping[Kind, int]


def counts_of(told: Usage | Entry | ReceiptClaims) -> Counts:
    """What is counted by kind."""
    return {"image": told.images, "text": told.texts}


def by_kind(prices: Prices) -> Mapping[Kind, int]:
    """Prices by kind."""
    return {"image": prices.image_micros, "text": prices.text_micros}


def prices_of(micros: Mapping[Kind, int]) -> Prices:
    """What `by_kind` gave."""
    return Prices(image_micros=micros.get("image", 0), text_micros=micros.get("text", 0))


def cost_of(counts: Counts, prices: Prices) -> int:
    """What these cost together."""
    return prices.cost_micros(images=counts.get("image", 0), texts=counts.get("text", 0))


def usage_of(counts: Counts, cost_micros: int) -> Usage:
    """The bill of these."""
    images, texts = counts.get("image", 0), counts.get("text", 0)
    return Usage(images=images, texts=texts, billed_queries=images + texts, cost_micros=cost_micros)
