"""Voyage AI's multimodal embeddings API."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from client.vendors.declaration import REDUCED_PIXELS, Declaration, KnownModel
from client.vendors.embeddings_api import EmbeddingsApi, as_data_uri, ordered
from shared.embeddings import Kind, Limits

# 0.12 USD a million tokens of text, 0.60 USD a billion pixels: its own page of prices for
# voyage-multimodal-3, and for both a third party's that had read it in 2026.
_MODEL = KnownModel(1024, image_micros=158, text_micros=2)


class Voyage(EmbeddingsApi):
    """Voyage's API, and one key.

    A class prompt is embedded as a query, and an image as a document.
    """

    declares = Declaration(
        name="voyage",
        title="Voyage",
        url="https://api.voyageai.com/v1",
        key_variable="VOYAGE_API_KEY",
        models={
            "voyage-multimodal-3.5": _MODEL,
            "voyage-multimodal-3": _MODEL,
        },
        default_model="voyage-multimodal-3.5",
        # 1,000 inputs and 320,000 tokens, of which an image has one for 560 pixels.
        limits=Limits(
            max_inputs=512,
            max_request_bytes=20 * 2**20,
            max_image_bytes=20 * 2**20,
            max_image_pixels=16_000_000,
        ),
        most_pixels=REDUCED_PIXELS,
        requests_a_minute=2000,
        unit_length=True,
        currency="USD",
        priced_on=date(2026, 1, 1),
        read_on=date(2026, 12, 2),
        sources=(
            "https://docs.voyageai.com/docs/multimodal-embeddings",
            "https://docs.voyageai.com/reference/multimodal-embeddings-api",
            "https://docs.voyageai.com/docs/rate-limits",
            "https://docs.voyageai.com/pricing",
            "https://usagepricing.com/blueprint/voyage-ai",
        ),
    )
    path = "/multimodalembeddings"

    def body(self, model: str, kind: Kind, contents: Sequence[bytes]) -> Mapping[str, Any]:
        """One piece of content an input; too long a text is an error, and not cut off."""
        piece = _text if kind == "text" else _image
        return {
            "model": model,
            "inputs": [{"content": [piece(content)]} for content in contents],
            "input_type": "query" if kind == "text" else "document",
            "truncation": False,
        }

    def rows(self, answer: Any, kind: Kind) -> Sequence[list[float] | str]:  # noqa: ANN401, ARG002 (JSON)
        """The rows in the order of the inputs."""
        return ordered(answer["data"])

    def answered_by(self, answer: Any) -> str | None:  # noqa: ANN401 (JSON)
        """The model that the answer names."""
        name: str | None = answer.get("model")
        return name


def _text(content: bytes) -> Mapping[str, str]:
    return {"type": "text", "text": content.decode()}


def _image(content: bytes) -> Mapping[str, str]:
    return {"type": "image_base64", "image_base64": as_data_uri(content)}


TEACHER = Voyage
