"""A model that replicas of a Ray Serve deployment run, asked as if it were here."""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from ray.exceptions import RayActorError, RayTaskError
from ray.serve.handle import DeploymentHandle
from typing_extensions import override

from shared.embeddings import Kind
from shared.errors import ErrorCode
from vendor_service.encoder.encoder import Encoder
from vendor_service.encoder.facts import ModelFacts
from vendor_service.encoder.preparation import Preparation
from vendor_service.encoder.queries import Encoded, Prepared, PreparedText
from vendor_service.errors import APIError

_CANARY = ""  # no account has this name
_PATIENCE_SECONDS = 5.0


@dataclass(frozen=True)
class PreparedBatch:
    """Prepared inputs on their way to a replica, as arrays.

    Pixels have the shape (images, height, width, 3), tokens (texts, context_length).
    """

    pixels: NDArray[np.uint8] | None
    tokens: NDArray[np.int64] | None
    texts: list[str]
    kinds: list[Kind]

    @classmethod
    def pack(cls, prepared: Sequence[Prepared]) -> Self:
        """Wrap inputs."""
        images = [each for each in prepared if isinstance(each, torch.Tensor)]
        texts = [each for each in prepared if isinstance(each, PreparedText)]
        tokens = [each.tokens for each in texts if each.tokens is not None]
        kinds: list[Kind] = ["image" if isinstance(each, torch.Tensor) else "text" for each in prepared]
        return cls(_stacked(images), _stacked(tokens), [each.text for each in texts], kinds)

    def unpack(self) -> list[Prepared]:
        """The inputs, in their order."""
        # A copy: what Ray hands over is not to be written to, and PyTorch knows no such memory.
        images = iter(() if self.pixels is None else torch.tensor(self.pixels))
        tokens = () if self.tokens is None else torch.tensor(self.tokens)
        texts = iter([PreparedText(*each) for each in zip(self.texts, tokens, strict=True)])
        return [next(images) if kind == "image" else next(texts) for kind in self.kinds]


def _stacked(rows: Sequence[torch.Tensor]) -> NDArray[Any] | None:
    return torch.stack(list(rows)).numpy() if rows else None


def ask_facts(model: DeploymentHandle[Any]) -> ModelFacts:
    """Which model the replicas serve; waits until one of them is there. Blocks, on whatever thread."""
    with ThreadPoolExecutor(1) as apart:  # a handle refuses to block on the thread of an event loop
        facts: ModelFacts = apart.submit(lambda: model.facts.remote().result()).result()
    return facts


class RemoteEncoder(Encoder):
    """Prepares inputs here and has the replicas encode them.

    Replicas come, go and are replaced by Ray's own doing, which also ends them.
    """

    deaths = 0
    answered_at = -math.inf

    def __init__(self, model: DeploymentHandle[Any], facts: ModelFacts, preparation: Preparation) -> None:
        self.facts = facts
        self.preparation = preparation
        self._model = model
        self._sent: Counter[Kind] = Counter()

    @override
    def waiting(self, kind: Kind) -> int:
        return self._sent[kind]

    @override
    async def encode(
        self, account: str, prepared: Sequence[Prepared], *, background: bool = False
    ) -> Encoded:
        batch = PreparedBatch.pack(prepared)
        self._sent.update(batch.kinds)
        answering = self._model.encode.remote(account, batch, self.facts.fingerprint, background)
        try:
            encoded: Encoded = await answering
        except asyncio.CancelledError:
            answering.cancel()  # type: ignore[no-untyped-call]
            raise
        except RayActorError as error:
            self.deaths += 1
            message = "the model failed and starts again; nothing was charged"
            raise APIError(ErrorCode.NOT_READY, message, retry_after=1) from error
        except RayTaskError as error:
            if isinstance(error.cause, APIError):
                raise error.cause from error
            raise
        finally:
            self._sent.subtract(batch.kinds)
        self.answered_at = time.monotonic()
        return encoded

    @override
    async def check(self) -> None:
        assert self.preparation is not None
        await self.encode(_CANARY, await self.preparation.check())

    async def check_exchanged(self) -> None:
        """Raise if a replica has another model than this is for: here is then nothing that can be sold.

        Whether replicas answer at all is not what is asked: Ray sees to those that do not.
        """
        asking = self._model.facts.remote()
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                facts: ModelFacts = await asking
        except Exception:  # whatever Ray raises, and a time-out
            asking.cancel()  # type: ignore[no-untyped-call]
            return
        known = self.facts.fingerprint
        if facts.fingerprint != known:
            raise RuntimeError(f"a replica has the model {facts.fingerprint}, and not {known}")
