"""Cohere's embed API, version 2."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from client.vendors.declaration import REDUCED_PIXELS, Declaration, KnownModel
from client.vendors.embeddings_api import EmbeddingsApi, as_data_uri
from shared.embeddings import Kind, Limits


class Cohere(EmbeddingsApi):
    """Cohere's API, and one key.

    A class prompt is embedded as a search query, and an image as what is searched: the space is made for
    finding images by texts.
    """

    # 0.12 USD a million tokens of text, 0.47 of images; 512 x 512 pixels are 1,610 tokens, a prompt about 15.
    declares = Declaration(
        name="cohere",
        title="Cohere",
        url="https://api.cohere.com",
        key_variable="COHERE_API_KEY",
        models={"embed-v4.0": KnownModel(1536, image_micros=757, text_micros=2)},
        default_model="embed-v4.0",
        limits=Limits(
            max_inputs=96,
            max_request_bytes=20 * 2**20,
            max_image_bytes=5 * 2**20,
            max_image_pixels=50_000_000,
        ),
        most_pixels=REDUCED_PIXELS,
        requests_a_minute=2000,
        currency="USD",
        priced_on=date(2026, 6, 1),
        read_on=date(2026, 12, 2),
        sources=(
            "https://docs.cohere.com/reference/embed",
            "https://developer.puter.com/tutorials/cohere-api-pricing/",
            "https://docs.oracle.com/iaas/Content/generative-ai/cohere-embed-4.htm",
        ),
    )
    path = "/v2/embed"

    def body(self, model: str, kind: Kind, contents: Sequence[bytes]) -> Mapping[str, Any]:
        """Texts as search queries, images as data URIs; too long a text is an error, and not cut off."""
        inputs = (
            {"input_type": "search_query", "texts": [content.decode() for content in contents]}
            if kind == "text"
            else {"input_type": "image", "images": [as_data_uri(content) for content in contents]}
        )
        return {"model": model, "embedding_types": ["float"], "truncate": "NONE", **inputs}

    def rows(self, answer: Any, kind: Kind) -> Sequence[list[float] | str]:  # noqa: ANN401, ARG002 (JSON)
        """The rows of floats."""
        found: list[list[float]] = answer["embeddings"]["float"]
        return found


TEACHER = Cohere
