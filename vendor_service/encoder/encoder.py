"""The interface of a model, wherever it runs: in this process, or on machines of a cluster."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from shared.embeddings import Kind
from vendor_service.encoder.facts import ModelFacts
from vendor_service.encoder.preparation import Preparation, Took
from vendor_service.encoder.queries import Encoded, Prepared, Query
from vendor_service.errors import APIError


class Encoder(ABC):
    """One model that is ready to serve, from what a caller sent to rows of a matrix.

    Attributes:
        facts: which model it is.
        preparation: prepares inputs in this process; `None` for one that takes only prepared ones.
    """

    facts: ModelFacts
    preparation: Preparation | None

    @property
    @abstractmethod
    def deaths(self) -> int:
        """How often a part of it was found dead: what was believed of it before holds no longer."""

    @property
    @abstractmethod
    def answered_at(self) -> float:
        """When it last answered anybody, by `time.monotonic`."""

    def start(self) -> None:
        """Start the processes that prepare inputs.

        Raises:
            OperatorError: they do not start.
        """
        if self.preparation is not None:
            self.preparation.start()

    def close(self) -> None:
        """End the processes that prepare inputs; inputs that are not prepared are refused."""
        if self.preparation is not None:
            self.preparation.close()

    @abstractmethod
    def waiting(self, kind: Kind) -> int:
        """How many queries of this kind wait for the model, those of the background left out."""

    async def prepare(
        self,
        account: str,
        queries: Sequence[Query],
        *,
        background: bool = False,
        took: Took = lambda *_: None,
    ) -> list[Prepared | APIError]:
        """Check and decode every query; where one cannot be served, why not stands in its place.

        Accounts take turns, and those of the `background` wait for all others. What waits is dropped when
        this is cancelled. `took` is told what each one cost.
        """
        assert self.preparation is not None
        return await self.preparation.prepare(account, queries, background=background, took=took)

    @abstractmethod
    async def encode(
        self, account: str, prepared: Sequence[Prepared], *, background: bool = False
    ) -> Encoded:
        """Unit vectors of the inputs, in their order: float32 of shape (inputs, dimensions).

        Those of the `background` are taken where no others wait for the model.

        Raises:
            APIError: nothing that could encode lives (`not_ready`), or it stops (`shutting_down`).
        """

    @abstractmethod
    async def check(self) -> None:
        """Encode a small image and a text the way that requests go; raises whatever is wrong with that."""
