"""What an API says of itself: how it is asked, what it costs, and what it cannot promise.

Each module of `teachers/` declares one. Options, quotes, warnings and the documents' table derive from it.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from importlib.util import find_spec

from client.errors import UsageError
from shared.embeddings import Limits, Prices
from shared.text import visible

# Larger images are reduced to as many pixels before they are sent where an API charges by pixels or bounds
# them; no student of today sees more.
REDUCED_PIXELS = 512 * 512


@dataclass(frozen=True)
class KnownModel:
    """A model that an API sells, by its documents; prices are in millionths of the currency unit.

    Attributes:
        dimensions: of its vectors; 0 where its documents do not say.
        image_micros: the price of an image of the most pixels that are sent; `None` where it is not known.
        text_micros: the price of a text of a dozen words; `None` where it is not known.
    """

    dimensions: int = 0
    image_micros: int | None = None
    text_micros: int | None = None

    @property
    def prices(self) -> Prices | None:
        """The price of a query of each kind; `None` where it is not known."""
        if self.image_micros is None or self.text_micros is None:
            return None
        return Prices(image_micros=self.image_micros, text_micros=self.text_micros)


@dataclass(frozen=True)
class Declaration:
    """What an API says of itself.

    Attributes:
        name: what `--teacher` takes; fingerprints and receipts begin with it.
        title: its name in sentences.
        url: where it is, with environment variables in braces; `None` where `--vendor` has to say, or where
            nothing is asked over a network.
        key_variable: the environment variable of its key; `None` where it takes none.
        models: those that are known; others may be named as well.
        default_model: the one that answers those who name none; `None` where one has to be named.
        limits: the largest request.
        formats: the images that it takes; others are sent as PNG.
        most_pixels: larger images are reduced to as many before they are sent; `None`: sent as they are.
        requests_a_minute: its rate limit; `None` where it has none, or none is known.
        repeats_are_free: whether a request that is sent again under its idempotency key is charged once.
            Where it is not, an answer that is lost counts as paid, and what it held is bought anew.
        states_prices: whether it tells its prices itself, and keeps to them.
        states_fingerprints: whether it says which model it sells under a name. Where it does not, the model
            is recognised by its answers to two queries, which are paid for.
        unit_length: whether its vectors have length 1, by its documents. All are normalised here.
        batch_queries: how many queries go into a request at most, where that is not as many as into others'.
        batch_bytes: how many bytes of them do.
        at_once: how many requests are in flight at most; `None` for as many as speed it up.
        currency: of its prices, by the code in ISO 4217.
        priced_on: when its prices were as they are here.
        read_on: when its documents were read.
        sources: the addresses of its documents.
        needs: modules that it takes beside the client's own.
        extra: the extra of the package that installs them.
        is_local: whether it computes in this process, and is asked over no network.
    """

    name: str
    title: str
    url: str | None = None
    key_variable: str | None = None
    models: Mapping[str, KnownModel] = field(default_factory=dict)
    default_model: str | None = None
    limits: Limits = field(
        default_factory=lambda: Limits(
            max_inputs=32,
            max_request_bytes=16 * 2**20,
            max_image_bytes=10 * 2**20,
            max_image_pixels=50_000_000,
        )
    )
    formats: tuple[str, ...] = ("PNG", "JPEG", "WEBP")
    most_pixels: int | None = None
    requests_a_minute: int | None = None
    repeats_are_free: bool = False
    states_prices: bool = False
    states_fingerprints: bool = False
    unit_length: bool = False
    batch_queries: int | None = None
    batch_bytes: int | None = None
    at_once: int | None = None
    currency: str | None = None
    priced_on: date | None = None
    read_on: date | None = None
    sources: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    extra: str | None = None
    is_local: bool = False

    def address(self) -> str:
        """Where it is, with what the environment says.

        Raises:
            UsageError: it has no address of its own, or a variable of it is not set.
        """
        if self.url is None:
            raise UsageError(
                f"--teacher {self.name} has no address of its own: say with --vendor where it is."
            )
        missing = [name for name in re.findall(r"{(\w+)}", self.url) if not os.environ.get(name)]
        if missing:
            raise UsageError(
                f"{self.title} is asked at {self.url}: set {' and '.join(dict.fromkeys(missing))} in the "
                "environment, or give the whole address with --vendor."
            )
        return re.sub(r"{(\w+)}", lambda match: os.environ[match[1]], self.url)

    def require(self) -> None:
        """See that what it takes is installed.

        Raises:
            UsageError: something is not; with the line that installs it.
        """
        missing = [name for name in self.needs if not _is_installed(name)]
        if missing:
            line = f"'tuition[{self.extra}]'" if self.extra else " ".join(missing)
            raise UsageError(f"{self.title} takes {missing[0]}, which is not installed: pip install {line}")

    def listed(self, model: str) -> Prices | None:
        """The list price of a query of a model; `None` where it is not known."""
        known = self.models.get(model)
        return None if known is None else known.prices

    def warnings(self, prices: Prices | None, *, of_user: bool) -> list[str]:
        """What it cannot promise and the client makes up for, a sentence each.

        Args:
            prices: those that the client counts with; `None` where none are known.
            of_user: whether the user has given them.
        """
        found: list[str] = []
        if self.is_local:
            return found
        if not self.states_prices and prices is None:
            found.append(f"{self.title} states no prices: give them with --price, or costs are shown as 0.")
        elif not self.states_prices and any(prices.by_kind.values() if prices else ()):
            whose = "yours" if of_user else f"its list's of {self.priced_on:%B %Y}, and the bill is its own"
            image, text = (prices.image_micros, prices.text_micros) if prices else (0, 0)
            found.append(
                f"{self.title} sends no bill with an answer: {image} micros an image and {text} a text are "
                f"{whose}. --price sets others."
            )
        if not self.states_fingerprints:
            found.append(
                f"{self.title} does not name its model's weights: each command recognises it by two queries, "
                "which are paid for beside the budget."
            )
        if not self.repeats_are_free:
            found.append("A request that may have been served and is sent again counts as paid each time.")
        return [visible(each) for each in found]


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of what it would be a part
        return False
