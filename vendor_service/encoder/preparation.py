"""Preparation: inputs checked, decoded and tokenized, in processes of their own, before they are charged."""

import os
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from shared.embeddings import Kind
from shared.errors import ErrorCode
from shared.images.decoder import decoding
from shared.images.limits import ImageLimits
from shared.processes.fork_server import CannotStart
from shared.processes.pool import PoolSpec
from shared.processes.pools import ProcessPools
from shared.processes.worker import ArenaLayout, InputJob, Outcome
from vendor_service.encoder.observer import Observer
from vendor_service.encoder.preprocessing import Preprocessing
from vendor_service.encoder.queries import ImageQuery, Prepared, PreparedText, Query, TextQuery, Vectors
from vendor_service.encoder.tokenizing import TextTask, Tokenizer
from vendor_service.errors import APIError, OperatorError

_SLOTS = 32  # texts that one process has in its hands
_TEXT_BYTES = 1 << 18
_TOKEN_BYTES = 8
_CANARY = ""  # no account has this name

Known = Callable[[str], Vectors | None]
Took = Callable[[int, float], None]  # which query, and how many seconds of a processor


class Preparation:
    """Makes of queries what the model is given. A text may have `max_characters`.

    Images are decoded by `decoders` processes, texts tokenized by one that does nothing else.
    """

    def __init__(
        self,
        preprocessing: Preprocessing,
        tokenizer: Tokenizer,
        limits: ImageLimits,
        max_characters: int,
        decoders: int,
        observer: Observer,
    ) -> None:
        self._shape = preprocessing.shape
        self._limits = limits
        self._max_characters = max_characters
        self._observer = observer
        tokens = ArenaLayout(
            _SLOTS, _TOKEN_BYTES * tokenizer.context_length, _TEXT_BYTES + 4 * max_characters
        )
        text = PoolSpec(1, TextTask(tokenizer), tokens, kind="text")
        image = decoding(preprocessing, limits, decoders)
        self.processes = ProcessPools({"text": text, "image": image}, observer)

    def start(self) -> None:
        """Start the processes.

        Raises:
            OperatorError: they do not start.
        """
        try:
            self.processes.start()
        except CannotStart as error:
            raise OperatorError(str(error)) from error

    def close(self) -> None:
        """End the processes."""
        self.processes.close()

    async def prepare(
        self,
        account: str,
        queries: Sequence[Query],
        known: Known = lambda _: None,
        *,
        background: bool = False,
        took: Took = lambda *_: None,
    ) -> list[Prepared | APIError]:
        """Check and decode every query; where one cannot be served, why not stands in its place.

        A text whose row is `known` is not tokenized. Those of the `background` wait for all others. `took` is
        told what each one cost, also where this is cancelled.
        """
        prepared: dict[int, Prepared | APIError] = {}
        jobs: list[tuple[Kind, list[int], InputJob]] = []
        try:
            for kind in _KINDS:
                inputs = self._inputs(kind, queries, known, prepared)
                if inputs:
                    job = self.processes.submit(kind, account, [*inputs.values()], background=background)
                    jobs.append((kind, list(inputs), job))
            for _, indices, job in jobs:
                for index, outcome in zip(indices, await job.done, strict=True):
                    prepared[index] = self._prepared(queries[index], outcome)
        finally:
            for kind, indices, job in jobs:
                self.processes.drop(kind, job)
                for index, seconds in zip(indices, job.seconds, strict=True):
                    took(index, seconds)
        return [prepared[index] for index in range(len(queries))]

    async def check(self) -> list[Prepared]:
        """A small image, and a text that went the way of those of requests; raises what is wrong with that.

        No image goes there: somebody's large ones must not make the vendor look ill.
        """
        if not all(map(self.processes.living, _KINDS)):
            raise RuntimeError("the processes that prepare inputs are dead")
        (text,) = await self.prepare(_CANARY, [TextQuery("a photo")])
        if isinstance(text, APIError):
            raise text
        return [torch.full(self._shape, 255, dtype=torch.uint8), text]

    def _inputs(
        self, kind: Kind, queries: Sequence[Query], known: Known, prepared: dict[int, Prepared | APIError]
    ) -> dict[int, tuple[bytes | str, bool]]:
        """The inputs of one kind that are to be worked on; what is known of others already is `prepared`."""
        inputs: dict[int, tuple[bytes | str, bool]] = {}
        for index, query in enumerate(queries):
            if query.kind != kind:
                continue
            began = time.perf_counter()
            try:
                if isinstance(query, ImageQuery):
                    self._limits.check(query.file)
                    inputs[index] = (query.file, isinstance(query.file, str))
                    continue
                row = known(self._checked(query.text))
                if row is None:
                    inputs[index] = (query.text.encode("utf-8", "surrogatepass"), False)
                    continue
                prepared[index] = PreparedText(query.text, row=row)
            except APIError as error:
                prepared[index] = error
            self._observer.decoded(kind, time.perf_counter() - began)
        return inputs

    def _prepared(self, query: Query, outcome: Outcome) -> Prepared | APIError:
        if isinstance(outcome, APIError):
            return outcome
        if isinstance(query, TextQuery):
            return PreparedText(query.text, torch.from_numpy(outcome.view(np.int64)))
        return torch.from_numpy(outcome.reshape(self._shape))

    def _checked(self, text: str) -> str:
        if not text.strip():
            raise APIError(ErrorCode.EMPTY_INPUT, "the text is empty")
        if len(text) > self._max_characters:
            message = f"the text is longer than {self._max_characters} characters"
            raise APIError(ErrorCode.INVALID_REQUEST, message)
        if "\0" in text:
            raise APIError(ErrorCode.INVALID_REQUEST, "the text holds a NUL character")
        return text


def count_decoders(vendors: int) -> int:
    """The number of processes that decode images, if `vendors` share the processors of this machine."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)) // vendors)
    return max(1, (os.cpu_count() or 1) // vendors)


_KINDS: tuple[Kind, ...] = ("image", "text")
