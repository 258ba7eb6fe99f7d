"""The engine that the settings ask for."""

from platformdirs import user_cache_path

from vendor_service.encoder.clip import ClipModel, choose_devices
from vendor_service.encoder.engine import Engine
from vendor_service.encoder.images import ImageDecoder, ImageLimits
from vendor_service.encoder.known_fingerprints import KnownFingerprints
from vendor_service.encoder.observer import Observer
from vendor_service.encoder.preparation import Preparation
from vendor_service.encoder.preprocessing import Preprocessing
from vendor_service.encoder.sources import find_model
from vendor_service.settings import Settings

# What images may take while they are decoded; a PNG of 50 megapixels takes 600 MB.
_DECODING_BYTES = 1 << 30


def load_engine(settings: Settings, observer: Observer) -> Engine:
    """Load the model on its devices.

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
    preparation = prepare_with(settings, model.preprocessing, observer)
    return Engine(model, preparation, settings.text_cache_bytes, observer)


def prepare_with(settings: Settings, preprocessing: Preprocessing, observer: Observer) -> Preparation:
    """What checks and decodes inputs, within the limits that are set."""
    limits = ImageLimits(settings.max_image_bytes, settings.max_image_pixels)
    decoder = ImageDecoder(preprocessing, limits, _DECODING_BYTES)
    return Preparation(preprocessing, decoder, settings.max_text_characters, observer)
