"""A vendor that is new to a cache is asked again about a few queries whose answers are in it.

A fingerprint is only what a vendor says. So what one vendor sold, or a file brought, is used together with
what another sells only after the other's answers to some of the same queries were found to agree.
"""

import random
from collections.abc import Callable, Collection, Iterator, Sequence

from client.cache.cache import EmbeddingCache
from client.cache.origins import UNKNOWN, origin_of
from client.errors import VendorError
from client.vendors.query import Query
from shared.embeddings import ModelCard

# This many queries of each origin and kind are asked again; nobody can foresee which.
CANARIES = 3
_dice = random.SystemRandom()

Strangers = dict[int, list[Query]]
"""By pool: the queries that a run uses, and whose answers are of nobody whom the vendor was compared with."""


class VendorCheck:
    """A vendor that may be new to a cache."""

    def __init__(self, cache: EmbeddingCache, model: ModelCard, url: str) -> None:
        """Look at nothing yet.

        Args:
            cache: what was bought.
            model: of what.
            url: the vendor.
        """
        self._cache = cache
        self._model = model
        self._url = url

    def passes(
        self,
        queries: Collection[Query],
        *,
        buys: bool,
        compare: Callable[[Sequence[Query]], bool],
        say: Callable[[str], None],
    ) -> bool:
        """Compare the vendor with what is known, where both would be used; False where the budget ends that.

        Args:
            queries: all that a run uses.
            buys: whether it is about to buy some of it. What is all there, and agrees, needs no vendor.
            compare: buys known queries of one kind again and compares the answers; raises where they do not
                agree, and returns False where it cannot pay.
            say: receives a message about the comparison.

        Raises:
            VendorError: nothing could be compared.
        """
        found = self._strangers(queries, buys=buys)
        if not found:
            return True
        asked = 0
        for sample in _samples(found):
            if not compare(sample):
                return False
            asked += len(sample)
        if self._strangers(queries, buys=buys):
            raise VendorError(
                f"{self._url} could not be compared with what the cache {self._cache.path} has from "
                f"{self._names(found)}, so nothing was bought. Repeat the command, or name another --cache "
                "for this vendor."
            )
        say(
            f"Up to {asked} queries that the cache has from {self._names(found)} were bought again from "
            f"{self._url}: the answers agree, and it is believed from now on."
        )
        return True

    def _strangers(self, queries: Collection[Query], *, buys: bool) -> Strangers:
        """Queries of origins that nobody has compared and the run would use together, by pool."""
        used: Strangers = {}
        for query, (_, pool) in self._cache.origins(self._model.fingerprint, queries).items():
            used.setdefault(pool, []).append(query)
        if not buys and len(used) < 2:
            return {}
        own = self._cache.pool(self._model.fingerprint, origin_of(self._url))
        return {pool: known for pool, known in used.items() if pool != own}

    def _names(self, found: Strangers) -> str:
        """Where the embeddings of strangers come from, in words."""
        queries = [query for known in found.values() for query in known[:1]]
        origins = {name for name, _ in self._cache.origins(self._model.fingerprint, queries).values()}
        return ", ".join(
            sorted("vendors that were not noted" if name == UNKNOWN else name for name in origins)
        )


def _samples(found: Strangers) -> Iterator[list[Query]]:
    """Samples of queries to ask again: `CANARIES` of every pool and kind."""
    for known in found.values():
        for kind in ("text", "image"):
            of_kind = [query for query in known if query.kind == kind]
            if of_kind:
                yield _dice.sample(of_kind, min(CANARIES, len(of_kind)))
