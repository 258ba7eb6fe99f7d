"""The model that the scripted vendors sell."""

from shared.embeddings import Limits, ModelCard, Prices

MODEL = ModelCard(
    id="m",
    owned_by="v",
    dimensions=2,
    fingerprint="fp_1",
    tolerance=1e-4,
    dtype="float32",
    image_size=8,
    prices=Prices(image_micros=100, text_micros=20),
    limits=Limits(max_inputs=256, max_request_bytes=10_000, max_image_bytes=4000, max_image_pixels=10**6),
)
