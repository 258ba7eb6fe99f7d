"""An open_clip model in this process.

Its fingerprint is that of a Tuition vendor that serves the same weights in float32, so the two share a cache,
after each has answered a few known queries alike.
"""

from dataclasses import replace
from functools import lru_cache
from importlib import import_module

from client.vendors.in_process import IN_PROCESS, InProcess

_DECLARES = replace(
    IN_PROCESS,
    name="open_clip",
    title="open_clip",
    states_fingerprints=True,
    unit_length=True,
    needs=("open_clip", "torch"),
    extra="client",
)


@lru_cache(maxsize=1)  # a comparison asks one teacher many times
def load(name: str, *, device: str = "auto") -> InProcess:
    """The model of a name, loaded.

    Raises:
        UsageError: there is no such model, or open_clip is not installed.
    """
    _DECLARES.require()
    # Named and not imported: buying works without PyTorch.
    encoder = import_module("client.learning.open_clip_encoder").load(name, device=device)
    return InProcess(
        encoder.embed_images,
        encoder.embed_texts,
        name=name,
        fingerprint=encoder.fingerprint,
        tolerance=encoder.tolerance,
        dimensions=encoder.dimensions,
        declares=_DECLARES,
    )
