"""Preparation: inputs checked, decoded and tokenized, in processes of their own, before they are charged."""

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future

import numpy as np
import torch

from shared.embeddings import Kind
from shared.errors import ErrorCode
from shared.http.images import ImageLimits
from vendor_service.encoder.images import ImageDecoder
from vendor_service.encoder.observer import Observer
from vendor_service.encoder.preprocessing import Preprocessing
from vendor_service.encoder.processes.fork_server import ForkServer
from vendor_service.encoder.processes.pool import Pool, PoolSpec
from vendor_service.encoder.processes.worker import ArenaLayout, InputJob, Outcome
from vendor_service.encoder.queries import ImageQuery, Prepared, PreparedText, Query, TextQuery, Vectors
from vendor_service.encoder.tokenizing import TextTask, Tokenizer
from vendor_service.errors import APIError

# What images may take while they are decoded beside each other. Half of it is shared out evenly, and the
# other half is for what images take beyond their shares. One for which that is too little, as one of 50
# megapixels that takes 600 MB, has no other beside it that needs more than its share.
_MEMORY_BYTES = 1 << 30
_SLOTS = 32  # inputs that one process has in its hands
_TEXT_BYTES = 1 << 18
_TOKEN_BYTES = 8
_CANARY = ""  # no account has this name
_PAUSE_SECONDS = 1.0  # until a server that died is started again

_log = logging.getLogger(__name__)

Known = Callable[[str], Vectors | None]
Took = Callable[[int, float], None]  # which query, and how many seconds of a processor


class ProcessPools:
    """A pool for each kind of input; accounts take turns.

    It may be started and closed on any thread; all else is for the event loop that asks first.
    """

    def __init__(self, specs: Mapping[Kind, PoolSpec], observer: Observer) -> None:
        self._server = ForkServer({kind: (spec.task, spec.layout) for kind, spec in specs.items()})
        self._pools = {kind: Pool(kind, spec, self._server, observer) for kind, spec in specs.items()}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._closed = False
        self._starting: asyncio.Task[None] | None = None  # another server, after one that died

    def start(self) -> None:
        """Start them, and wait for the first of each kind; the others come as soon as they can.

        Raises:
            OperatorError: it does not start.
        """
        self._server.start()
        for first in [pool.start() for pool in self._pools.values()]:
            self._server.wait_for(first)

    def close(self) -> None:
        """End them. Inputs that are not done are refused."""
        loop = self._loop
        if loop is None or loop.is_closed() or self._thread == threading.get_ident():
            self._end()
        else:
            ended: Future[None] = Future()
            loop.call_soon_threadsafe(self._end, ended)
            ended.result()
        self._server.close()

    def living(self, kind: Kind) -> int:
        """How many processes of this kind there are."""
        return self._pools[kind].living

    def waiting(self, kind: Kind) -> int:
        """How many inputs of this kind nobody works on yet."""
        return self._pools[kind].waiting

    def submit(
        self,
        kind: Kind,
        account: str,
        inputs: Sequence[tuple[bytes | str, bool]],
        *,
        background: bool = False,
    ) -> InputJob:
        """Queue one caller's inputs, each with whether it is base64; those of the background wait.

        Raises:
            APIError: `shutting_down`.
        """
        if self._closed:
            raise _stopping()
        if self._loop is None:
            self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
            self._loop.add_reader(self._server.control, self._on_readable)
            for pool in self._pools.values():
                pool.watch(self._loop)
        return self._pools[kind].submit(account, inputs, background=background)

    def drop(self, kind: Kind, job: InputJob) -> None:
        """Forget the waiting inputs of a job whose caller has gone."""
        self._pools[kind].drop(job)

    def _on_readable(self) -> None:
        assert self._loop is not None
        control = self._server.control
        deaths = self._server.poll()
        if not self._server.alive:
            self._loop.remove_reader(control)
            self._starting = self._loop.create_task(self._start_anew())
        for death in deaths:
            for pool in self._pools.values():
                pool.mark_dead(death)

    async def _start_anew(self) -> None:
        while not self._server.alive:
            await asyncio.sleep(_PAUSE_SECONDS)
            try:
                await self._server.start_anew()
            except OSError as error:
                _log.error("the server that forks cannot be started, which is tried again: %s", error)
        assert self._loop is not None
        self._loop.add_reader(self._server.control, self._on_readable)
        for pool in self._pools.values():
            pool.refill()

    def _end(self, ended: Future[None] | None = None) -> None:
        self._closed = True
        if self._starting is not None and self._loop is not None and not self._loop.is_closed():
            self._starting.cancel()
        if self._loop is not None and self._server.alive:
            self._loop.remove_reader(self._server.control)
        for pool in self._pools.values():
            pool.close(_stopping())
        if ended is not None and self._loop is not None:
            self._loop.call_soon(ended.set_result, None)  # once the socket of what was cancelled is let go


def _stopping() -> APIError:
    return APIError(ErrorCode.SHUTTING_DOWN, "the vendor is stopping; try again", retry_after=1)


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
        spare_bytes = _MEMORY_BYTES // 2
        decoder = ImageDecoder(preprocessing, limits, (_MEMORY_BYTES - spare_bytes) // decoders)
        tokens = ArenaLayout(
            _SLOTS, _TOKEN_BYTES * tokenizer.context_length, _TEXT_BYTES + 4 * max_characters
        )
        # As base64, a file may come with a third more.
        pixels = ArenaLayout(_SLOTS, preprocessing.image_bytes, (1 << 20) + limits.max_bytes // 3 * 4 + 8)
        text = PoolSpec(1, TextTask(tokenizer), tokens)
        image = PoolSpec(decoders, decoder, pixels, spare_bytes)
        self.processes = ProcessPools({"text": text, "image": image}, observer)

    def start(self) -> None:
        """Start the processes.

        Raises:
            OperatorError: they do not start.
        """
        self.processes.start()

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
