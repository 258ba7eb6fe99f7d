"""The engine that a model's spec asks for."""

import logging
from functools import cache, partial

import torch
from platformdirs import user_cache_path

from shared.images.limits import ImageLimits
from vendor_service.encoder.choice import Choice, ChoiceMemory
from vendor_service.encoder.clip import ClipModel, choose_devices
from vendor_service.encoder.engine import Engine
from vendor_service.encoder.observer import Observer
from vendor_service.encoder.preparation import Preparation
from vendor_service.encoder.preprocessing import Preprocessing
from vendor_service.encoder.tokenizing import Tokenizer, load_tokenizer
from vendor_service.errors import OperatorError
from vendor_service.run.model_specs import ModelSpec
from vendor_service.run.threads import make_apart

_log = logging.getLogger(__name__)


def load_engine(spec: ModelSpec, decoders: int, observer: Observer) -> Engine:
    """Load a model on its devices, with `decoders` processes for its images; 0 if they are elsewhere.

    Raises:
        OperatorError: it cannot be loaded.
    """
    model = make_apart(partial(_load, spec, _all_threads()))
    if model.choice.timings:
        _log.info("%s computes in %s", spec.id, model.choice)
    preparation = None
    if decoders:
        preparation = prepare_with(spec, decoders, model.preprocessing, model.tokenizer, observer)
    return Engine(model, preparation, spec.text_cache_bytes, observer)


def measured(spec: ModelSpec, *, anew: bool = False) -> Choice:
    """By what a model computes on this machine: as it is remembered, or measured now, or `anew` in any case.

    Raises:
        OperatorError: it cannot be loaded.
    """
    return make_apart(partial(_load, spec, _all_threads(), anew=anew)).choice


@cache
def _all_threads() -> int:
    """How many threads torch computes with where no replica has set that: asked before the first is made.

    What one thread sets holds for all that begin later, and each replica sets its part.
    """
    return torch.get_num_threads()


def _load(spec: ModelSpec, threads: int, *, anew: bool = False) -> ClipModel:
    """Load a model for replicas that share `threads`; `anew`, by what it computes is measured again."""
    torch.set_num_threads(threads)
    return ClipModel(
        spec.source,
        choose_devices(spec.device),
        spec.dtype,
        halves=spec.device == "auto",
        compiled=spec.compiled,
        calibration=spec.calibration,
        kept_in=user_cache_path("tuition") / "int8",
        memory=ChoiceMemory(user_cache_path("tuition") / "arithmetic", anew=anew),
    )


def prepare_with(
    spec: ModelSpec, decoders: int, preprocessing: Preprocessing, tokenizer: Tokenizer, observer: Observer
) -> Preparation:
    """Make the preparation of a model's inputs, within the limits of the model."""
    return Preparation(
        preprocessing,
        tokenizer,
        ImageLimits(spec.max_image_bytes, spec.max_image_pixels),
        spec.max_text_characters,
        decoders,
        observer,
    )


def find_tokenizer(spec: ModelSpec) -> Tokenizer:
    """The tokenizer of a model, without the model.

    Raises:
        OperatorError: it cannot be loaded.
    """
    try:
        return load_tokenizer(spec.source.name)
    except Exception as error:  # whatever open_clip and its hub raise
        raise OperatorError(f"the tokenizer of {spec.id} cannot be loaded: {error}") from error
