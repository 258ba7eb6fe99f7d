"""A teacher in this process: functions that embed images and texts, bought from like any vendor."""

import math
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from typing import Any

from PIL import Image

from client.errors import InputRefused, PriceRaised, RequestTooLarge, VendorError
from client.vendors.declaration import Declaration
from client.vendors.query import Query, counts_of
from client.vendors.transport import NO_HOOKS, Hooks
from client.vendors.vectors import unit_vectors
from client.vendors.vendor import EmbedResult, Vendor
from shared.billing import Quote
from shared.embeddings import Limits, ModelCard, Prices
from shared.images.colours import loaded_rgb
from shared.kinds import AskedFields, Usage

EmbedImages = Callable[[list[Image.Image]], Any]
EmbedTexts = Callable[[list[str]], Any]

_LIMITS = Limits(
    max_inputs=1024, max_request_bytes=2**30, max_image_bytes=2**27, max_image_pixels=200_000_000
)
IN_PROCESS = Declaration(
    name="python",
    title="The teacher in this process",
    limits=_LIMITS,
    batch_queries=128,
    batch_bytes=32 * 2**20,
    is_local=True,
)


class InProcess(Vendor):
    """Two functions as a vendor. What costs nothing is computed again for nothing, and so is paid once."""

    def __init__(
        self,
        embed_images: EmbedImages,
        embed_texts: EmbedTexts,
        *,
        name: str,
        prices: Prices | None = None,
        fingerprint: str = "",
        tolerance: float = 1e-3,
        dimensions: int = 0,
        declares: Declaration = IN_PROCESS,
    ) -> None:
        """Compute nothing yet.

        Args:
            embed_images: gives a row for each of some RGB images, as an array, a tensor or lists of numbers.
            embed_texts: the same of texts, in the same space.
            name: of the model.
            prices: of a query of each kind; `None` where it costs nothing.
            fingerprint: names the very model; empty where it is to be recognised by its answers.
            tolerance: the largest difference of a component between two answers, where it has `dimensions`.
            dimensions: of its vectors; 0 where its answers are to tell.
            declares: what it says of itself.
        """
        self.declares = replace(
            declares,
            repeats_are_free=prices is None,
            # Calls come one after another anyway; one that waits would be in doubt when another fails.
            at_once=None if prices is None else 1,
            states_prices=True,
            states_fingerprints=bool(fingerprint and dimensions),
        )
        self.url = f"in-process:{self.declares.name}"
        self._functions: Mapping[str, Callable[[list[Any]], Any]] = {
            "image": embed_images,
            "text": embed_texts,
        }
        self._turn = threading.Lock()
        self._card = ModelCard(
            id=name,
            owned_by=self.declares.name,
            dimensions=dimensions,
            fingerprint=fingerprint,
            tolerance=tolerance,
            dtype="unknown",
            image_size=0,
            prices=prices or Prices(image_micros=0, text_micros=0),
            limits=self.declares.limits,
        )

    def model(self, name: str | None = None, *, fingerprint: str | None = None) -> ModelCard:  # noqa: ARG002
        """The only one."""
        return self._card

    def estimate(self, *, model: ModelCard | None = None, batch: bool = False, **counts: int) -> Quote:  # noqa: ARG002
        """Its price; there are no limits."""
        return Quote(
            cost_micros=self._card.prices.cost_of(AskedFields(**counts).counts),
            quota_left=None,
            fits_quota=True,
            fits_money=True,
            seconds_at_rate_limit=0,
            currency=None,
        )

    def embed(
        self,
        queries: Sequence[tuple[Query, bytes]],
        *,
        model: ModelCard,
        idempotency_key: str,  # noqa: ARG002
        max_cost_micros: int | None = None,
        hooks: Hooks = NO_HOOKS,
    ) -> EmbedResult:
        """Compute the embeddings of some queries, all of one kind; one call at a time.

        Raises:
            InputRefused: an image cannot be read.
            RequestTooLarge: a function that costs nothing had not the memory for so many.
            VendorError: a function raised, or did not answer with a vector of each.
        """
        asked = [query for query, _ in queries]
        counts, kind = counts_of(asked), asked[0].kind
        cost = self._card.prices.cost_of(counts)
        if cost > (math.inf if max_cost_micros is None else max_cost_micros):
            raise PriceRaised(f"{self.declares.title} costs {cost} micros, not {max_cost_micros}.")
        hooks.on_try()
        contents = [content for _, content in queries]
        inputs: list[Any] = [_image(each) if kind == "image" else each.decode() for each in contents]
        who = f"{self.declares.title} ({model.id})"
        try:
            with self._turn:
                rows = self._functions[kind](inputs)
        except Exception as error:
            if self.declares.repeats_are_free and len(asked) > 1 and _is_of_memory(error):
                raise RequestTooLarge(f"{who} has no memory for {len(asked)} at once.") from error
            raise VendorError(f"{who} raised {type(error).__name__}: {error}") from error
        vectors = unit_vectors(rows, asked=len(asked), dimensions=model.dimensions, who=who)
        return EmbedResult(
            dict(zip(asked, vectors, strict=True)),
            {},
            Usage.of(counts, cost),
            f"{self.declares.name}-{secrets.token_hex(8)}",
        )


def _is_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"  # PyTorch's


def _image(content: bytes) -> Image.Image:
    try:
        with Image.open(BytesIO(content)) as image:
            return loaded_rgb(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputRefused(f"An image cannot be read: {error}.") from error
