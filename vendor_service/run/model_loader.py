"""The model loader: loads what is asked for, and exchanges models while others serve."""

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch

from shared.embeddings import Limits
from shared.images.limits import MOST_SIDE
from vendor_service.clock import Clock
from vendor_service.embed.models import Models, ModelTerms, ServedModel
from vendor_service.embed.signed_card import ModelPromise
from vendor_service.encoder.encoder import Encoder
from vendor_service.encoder.engine import Engine
from vendor_service.encoder.quantized import calibration_files
from vendor_service.errors import OperatorError
from vendor_service.metrics import Metrics
from vendor_service.money.replays import REPLAYS
from vendor_service.run.model_specs import ModelSpec, find_specs
from vendor_service.run.settings import Settings

_LOADING = "loading"  # the name of a thread that loads a model
_log = logging.getLogger(__name__)

Made = TypeVar("Made")
# Path, inode, size, and the moments of the last change of its content and of anything about it.
FileStamp = tuple[str, int, int, int, int]
MakeEncoder = Callable[[ModelSpec, Settings, Metrics], Encoder]


# Gives models their first prices.
Publish = Callable[[Sequence[ModelSpec]], None]


@dataclass
class _Loaded:
    """A model, with its spec, and the stamps of its files before they were read."""

    spec: ModelSpec
    stamps: list[FileStamp]
    model: ServedModel


class ModelLoader:
    """Loads models by their specs, offers them as `models`, and lets those go that are no longer wanted."""

    def __init__(
        self,
        specs: Sequence[ModelSpec],
        settings: Settings,
        metrics: Metrics,
        make_encoder: MakeEncoder,
        clock: Clock,
        *,
        exchanges: bool,
    ) -> None:
        """Load the first models; `exchanges` says whether others may take their places later.

        Raises:
            OperatorError: one of them cannot be loaded.
        """
        self._settings = settings
        self._metrics = metrics
        self._make_encoder = make_encoder
        self._clock = clock
        self._exchanges = exchanges
        self._faulty = metrics.gauge(
            "models_file_faulty", "Whether the file of models could not be taken up when it was last read."
        )
        self._loaded = [self._load(spec) for spec in specs]
        self._retiring: set[asyncio.Task[None]] = set()
        self.models = Models([each.model for each in self._loaded])
        for model in self.models:
            _show(model)

    def start(self) -> None:
        """Be ready for what comes.

        Raises:
            OperatorError: the processes of a model do not start.
        """
        for model in self.models:
            model.encoder.start()

    async def close(self) -> None:
        """Answer what waits, then end all of them."""
        await asyncio.gather(*self._retiring)
        await asyncio.gather(*(asyncio.to_thread(model.encoder.close) for model in self.models))

    async def reread(self, publish: Publish) -> None:
        """Serve the models of the file as it is now; where that fails, log why, and all stays as it was."""
        try:
            specs = await asyncio.to_thread(find_specs, self._settings)
            await self.exchange(specs, publish)
        except Exception as error:  # whatever a model may raise that does not fit here
            self._faulty.set(1)
            _log.error("the file of models is not taken up, and all models stay as they were: %s", error)
        else:
            self._faulty.set(0)

    async def exchange(self, specs: Sequence[ModelSpec], publish: Publish) -> None:
        """Load the models that are new, offer all at once, then let go of those that are not wanted any more.

        Until all that is new answers, nothing changes. `publish` is called before they are offered.

        Raises:
            Exception: one of them cannot be served, for whatever reason; all is as it was then.
        """
        kept = await asyncio.to_thread(self._kept, specs)
        async with AsyncExitStack() as undo:
            fresh = [await self._fresh(spec, undo) for spec in specs if spec.id not in kept]
            await asyncio.to_thread(publish, specs)
            undo.pop_all()
        by_id = kept | {each.spec.id: each for each in fresh}
        after = [by_id[spec.id] for spec in specs]
        for spec, each in zip(specs, after, strict=True):
            each.spec, each.model.terms = spec, _terms(spec, self._settings)
        gone = self.models.replace([each.model for each in after])
        self._loaded = after
        for model in gone:
            model.metrics.withdraw()
            self._retire(model)
        for each in fresh:
            _show(each.model)
        _log.info(
            "models: %s", ", ".join(f"{each.facts.id} ({each.facts.fingerprint})" for each in self.models)
        )

    def _kept(self, specs: Sequence[ModelSpec]) -> dict[str, _Loaded]:
        """Those that are loaded already, from the files as they still are."""
        before = {each.spec.id: each for each in self._loaded}
        return {
            spec.id: loaded
            for spec in specs
            if (loaded := before.get(spec.id)) is not None
            and loaded.spec.loaded == spec.loaded
            and loaded.stamps == _stamps(spec)
        }

    async def _fresh(self, spec: ModelSpec, undo: AsyncExitStack) -> _Loaded:
        """A model, loaded, started and tried; `undo` ends it again."""
        _log.info("loading the model %s", spec.id)
        loaded = await _apart(lambda: self._load(spec))
        encoder = loaded.model.encoder
        await asyncio.to_thread(encoder.start)
        undo.push_async_callback(asyncio.to_thread, encoder.close)
        await encoder.check()
        return loaded

    def _retire(self, model: ServedModel) -> None:
        async def retire() -> None:
            await model.retire()
            _log.info("the model %s (%s) has ended", model.facts.id, model.facts.fingerprint)

        task = asyncio.create_task(retire())
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    def _load(self, spec: ModelSpec) -> _Loaded:
        stamps = _stamps(spec) if self._exchanges else []
        metrics = self._metrics.of_model(spec.id)
        encoder = self._make_encoder(spec, self._settings, metrics)
        model = ServedModel(
            encoder, _terms(spec, self._settings), ModelPromise(encoder, self._clock), metrics
        )
        return _Loaded(spec, stamps, model)


async def _apart(make: Callable[[], Made]) -> Made:
    """Make something on a thread of its own, for which an ending process does not wait.

    It would wait for threads of the event loop, and a large model takes minutes.
    """
    made: Future[Made] = Future()
    made.set_running_or_notify_cancel()  # who no longer waits does not touch it

    def run() -> None:
        try:
            made.set_result(make())
        except BaseException as error:
            made.set_exception(error)

    threading.Thread(target=run, name=_LOADING, daemon=True).start()
    return await asyncio.wrap_future(made)


def end_while_loading(status: int) -> None:
    """End this process with a status, at once, if it loads a model that nobody waits for any more.

    Python would wait for it: it joins the threads of executors before it ends, and a model is loaded on one.
    """
    if any(each.name == _LOADING for each in threading.enumerate()):
        logging.shutdown()
        sys.stdout.flush()
        os._exit(status)


def _stamps(spec: ModelSpec) -> list[FileStamp]:
    """The stamps of its files; taken before the files are read, so that no later change is missed."""
    measured_on = spec.calibration if spec.dtype == "int8" else None
    try:
        files = spec.source.files()
        if measured_on is not None:
            files += calibration_files(measured_on)
        found = [(str(path.resolve()), path.stat()) for path in files]
    except Exception as error:  # whatever open_clip and its hub raise
        raise OperatorError(f"the model {spec.id} cannot be loaded: {error}") from error
    return [(path, each.st_ino, each.st_size, each.st_mtime_ns, each.st_ctime_ns) for path, each in found]


def _terms(spec: ModelSpec, settings: Settings) -> ModelTerms:
    limits = Limits(
        max_inputs=spec.max_inputs,
        max_request_bytes=settings.max_request_bytes,
        max_image_bytes=spec.max_image_bytes,
        max_image_pixels=spec.max_image_pixels,
        max_image_side=MOST_SIDE,
        replay_window_seconds=REPLAYS.window_seconds,
        max_replays=REPLAYS.most,
    )
    return ModelTerms(limits, spec.max_queued_inputs, spec.deprecated_at, spec.sunset_at)


def _show(model: ServedModel) -> None:
    """Have the metrics tell of a model that is served."""
    encoder, metrics, facts = model.encoder, model.metrics, model.facts
    devices = ",".join(facts.devices)
    metrics.show_model(model=facts.id, fingerprint=facts.fingerprint, dtype=facts.dtype, device=devices)
    metrics.show_queue(encoder.waiting)
    if encoder.preparation is not None:
        processes = encoder.preparation.processes
        metrics.show_preparation(processes.waiting, processes.living)
    if isinstance(encoder, Engine):
        metrics.show_measured(encoder.model.choice.rates)
        metrics.show_devices(lambda: encoder.batcher.living)
        if on_cuda := {device for device in encoder.model.devices if device.type == "cuda"}:
            metrics.show_gpu_memory(_gpu_memory(on_cuda))


def _gpu_memory(devices: Iterable[torch.device]) -> dict[tuple[str, str], Callable[[], float]]:
    """How to read what this process holds of each device's memory, and how much there is, in bytes."""
    readings: dict[tuple[str, str], Callable[[], float]] = {}
    for device in devices:
        total = torch.cuda.get_device_properties(device).total_memory
        readings[str(device), "allocated"] = partial(torch.cuda.memory_allocated, device)
        readings[str(device), "reserved"] = partial(torch.cuda.memory_reserved, device)
        readings[str(device), "total"] = partial(float, total)
    return readings
