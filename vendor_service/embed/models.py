"""The models for sale: which one a request is for, and which one may go once nobody is served by it."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime

from shared.embeddings import Limits
from shared.errors import ErrorCode
from vendor_service.embed.signed_card import ModelPromise
from vendor_service.encoder.encoder import Encoder
from vendor_service.encoder.facts import ModelFacts
from vendor_service.errors import APIError
from vendor_service.metrics import Metrics


@dataclass(frozen=True)
class ModelTerms:
    """On which terms a model is sold; `max_queued_inputs` may be in hand for it alone, if that is bounded.

    From `deprecated_at` on it should not be bought any more, and at `sunset_at` it is expected to go.
    """

    limits: Limits
    max_queued_inputs: int | None = None
    deprecated_at: datetime | None = None
    sunset_at: datetime | None = None

    @property
    def headers(self) -> dict[str, str]:
        """`deprecation` as of RFC 9745 and `sunset` as of RFC 8594, where there is something to tell."""
        headers = {}
        if self.deprecated_at is not None:
            headers["deprecation"] = f"@{int(self.deprecated_at.timestamp())}"
        if self.sunset_at is not None:
            headers["sunset"] = format_datetime(self.sunset_at, usegmt=True)
        return headers


class ServedModel:
    """A model that is loaded, and how much is in hand for it. It belongs to the event loop.

    What uses the `encoder` does so within `in_hand`, after which a model that was retired may end.
    """

    def __init__(self, encoder: Encoder, terms: ModelTerms, promise: ModelPromise, metrics: Metrics) -> None:
        self.encoder = encoder
        self.terms = terms
        self.promise = promise
        self.metrics = metrics
        self._users = 0
        self._inputs: Counter[str] = Counter()  # by account
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def facts(self) -> ModelFacts:
        """Which model it is."""
        return self.encoder.facts

    @contextmanager
    def in_hand(self, account: str = "", inputs: int = 0) -> Iterator[None]:
        """Use it, for so many inputs of an account. A use without inputs is never refused.

        An account that has inputs in hand gets no more than what is left free for everybody else.

        Raises:
            APIError: `overloaded`; too many inputs are in hand for it.
        """
        if inputs and not self._has_room(account, inputs):
            message = f"the model {self.facts.id!r} is overloaded; try again"
            raise APIError(ErrorCode.OVERLOADED, message, retry_after=1)
        asked = Counter({account: inputs})
        self._users += 1
        self._inputs += asked
        self._idle.clear()
        try:
            yield
        finally:
            self._users -= 1
            self._inputs -= asked
            if not self._users:
                self._idle.set()

    def _has_room(self, account: str, inputs: int) -> bool:
        most, held = self.terms.max_queued_inputs, self._inputs.total()
        return most is None or not held or self._inputs[account] + inputs <= most - held

    async def retire(self) -> None:
        """End it, once nobody is served by it any more. Nobody new may find it."""
        await self._idle.wait()
        await asyncio.to_thread(self.encoder.close)


class Models:
    """The models that can be asked for now, the first of which answers who names none.

    They are replaced all at once. Whoever found one before goes on with that one. Reading is thread-safe.
    """

    def __init__(self, models: Sequence[ServedModel]) -> None:
        self._offered = {each.facts.id: each for each in models}

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._offered.values())

    @property
    def default(self) -> ServedModel:
        """The one that answers who names none."""
        return next(iter(self))

    def find(self, name: str | None, param: str = "model") -> ServedModel:
        """The model of that name, or the default.

        Raises:
            APIError: `model_not_found`.
        """
        offered = self._offered
        if name is None:
            return next(iter(offered.values()))
        if name not in offered:
            served = ", ".join(map(repr, offered))
            message = f"there is no model {name!r} here; this vendor serves {served}"
            raise APIError(ErrorCode.MODEL_NOT_FOUND, message, param=param)
        return offered[name]

    def replace(self, models: Sequence[ServedModel]) -> list[ServedModel]:
        """Offer these from now on; those that were offered before and are no longer."""
        before = list(self)
        self._offered = {each.facts.id: each for each in models}
        return [each for each in before if each not in models]
