"""Pinning: while something is bought, what the vendor signs of ledger and model is kept for later."""

import math
import time
from collections.abc import Callable
from contextlib import suppress

from client.cache.cache import EmbeddingCache
from client.errors import ClientError
from client.vendors.vendor import Vendor
from shared.embeddings import ModelCard

# More often adds little: every receipt is a pin too.
_EVERY_SECONDS = 600.0
# The user waits: the purchase itself is over.
_WITHIN_SECONDS = 10.0


class Pinning:
    """Keeps a vendor's signed head and card now and then; where that fails, it is left."""

    def __init__(self, cache: EmbeddingCache, model: ModelCard, say: Callable[[str], None]) -> None:
        """Ask nothing yet.

        Args:
            cache: where they are kept.
            model: what is bought.
            say: told if the vendor contradicts what it has signed before.
        """
        self._cache = cache
        self._model = model
        self._say = say
        self._pinned_at = -math.inf

    def pin(self, vendor: Vendor) -> None:
        """Keep what the vendor signs now, unless that was done a short while ago."""
        if time.monotonic() - self._pinned_at < _EVERY_SECONDS:
            return
        self._pinned_at = time.monotonic()
        with suppress(ClientError):  # a key that may not read the ledger, say
            head = vendor.head(within=_WITHIN_SECONDS)
            if head is not None:
                self._cache.heads.pin(head)
        with suppress(ClientError):
            card = vendor.signed_card(self._model.id, within=_WITHIN_SECONDS)
            contradiction = None if card is None else self._cache.cards.pin(card)
            if contradiction is not None:
                self._say(
                    f"{vendor.url} contradicts what it has signed of {self._model.fingerprint} before: "
                    f"{contradiction}. Ask some of what you bought again: client canary --images PATH"
                )
