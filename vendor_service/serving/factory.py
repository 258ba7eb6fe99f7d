"""The engine that the settings ask for."""

from platformdirs import user_cache_path

from shared.serving.image_limits import ImageLimits
from vendor_service.encoder.clip import ClipModel, choose_devices
from vendor_service.encoder.engine import Engine
from vendor_service.encoder.known_fingerprints import KnownFingerprints
from vendor_service.encoder.observer import Observer
from vendor_service.encoder.preparation import Preparation, count_decoders
from vendor_service.encoder.preprocessing import Preprocessing
from vendor_service.encoder.sources import find_model
from vendor_service.encoder.tokenizing import Tokenizer, load_tokenizer
from vendor_service.errors import OperatorError
from vendor_service.settings import Settings


def load_engine(settings: Settings, observer: Observer, *, prepares: bool = True) -> Engine:
    """Load the model on its devices; `prepares` says whether inputs come as their callers sent them.

    Raises:
        OperatorError: it cannot be loaded.
    """
    model = ClipModel(
        find_model(settings.model, settings.pretrained),
        choose_devices(settings.device),
        settings.dtype,
        compiled=settings.compile,
        known=KnownFingerprints(user_cache_path("tuition") / "fingerprints.json"),
    )
    preparation = prepare_with(settings, model.preprocessing, model.tokenizer, observer) if prepares else None
    return Engine(model, preparation, settings.text_cache_bytes, observer)


def prepare_with(
    settings: Settings, preprocessing: Preprocessing, tokenizer: Tokenizer, observer: Observer
) -> Preparation:
    """What checks, decodes and tokenizes inputs, within the limits that are set."""
    return Preparation(
        preprocessing,
        tokenizer,
        ImageLimits(settings.max_image_bytes, settings.max_image_pixels),
        settings.max_text_characters,
        count_decoders(settings.workers),
        observer,
    )


def find_tokenizer(settings: Settings) -> Tokenizer:
    """The tokenizer of the model, without the model.

    Raises:
        OperatorError: it cannot be loaded.
    """
    source = find_model(settings.model, settings.pretrained)
    try:
        return load_tokenizer(source.name)
    except Exception as error:  # whatever open_clip and its hub raise
        raise OperatorError(f"the tokenizer of {source.id} cannot be loaded: {error}") from error
