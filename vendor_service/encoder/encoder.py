"""The interface of a model, wherever it runs: in this process, or on machines of a cluster."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from shared.embeddings import Kind
from vendor_service.encoder.precision import Dtype
from vendor_service.encoder.preparation import Preparation, Took
from vendor_service.encoder.queries import Prepared, Query
from vendor_service.encoder.queues import Encoded
from vendor_service.errors import APIError


@dataclass(frozen=True)
class ModelFacts:
    """What is told about a model.

    `tolerance` is the largest difference of one component between two answers to the same input,
    `preprocessing` open_clip's own configuration of it; sizes are in pixels and bytes.
    """

    id: str
    fingerprint: str
    dtype: Dtype
    tolerance: float
    devices: tuple[str, ...]
    dimensions: int
    image_size: int
    image_bytes: int
    preprocessing: Mapping[str, Any]


class Encoder(Protocol):
    """One model that is ready to serve, from what a caller sent to rows of a matrix."""

    @property
    def facts(self) -> ModelFacts:
        """Which model it is."""

    @property
    def preparation(self) -> Preparation | None:
        """What prepares inputs in this process."""

    @property
    def deaths(self) -> int:
        """How often a part of it was found dead: what was believed of it before holds no longer."""

    @property
    def answered_at(self) -> float:
        """When it last answered anybody, by `time.monotonic`."""

    def start(self) -> None:
        """Be ready for what comes."""

    def close(self) -> None:
        """Answer what waits, then end."""

    def waiting(self, kind: Kind) -> int:
        """How many queries of this kind wait for the model."""

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

    async def encode(
        self, account: str, prepared: Sequence[Prepared], *, background: bool = False
    ) -> Encoded:
        """Unit vectors of the inputs, in their order: float32 of shape (inputs, dimensions).

        Those of the `background` are taken where no others wait for the model.

        Raises:
            APIError: nothing that could encode lives (`not_ready`), or it stops (`shutting_down`).
        """

    async def check(self) -> None:
        """Encode a small image and a text the way that requests go; raises whatever is wrong with that."""
