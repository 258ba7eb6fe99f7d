"""Jina's embeddings API: OpenAI's, with items `{"text": ...}` and `{"image": ...}`."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import httpx

from client.vendors.declaration import REDUCED_PIXELS, Declaration, KnownModel
from client.vendors.embeddings_api import as_base64
from client.vendors.teachers.openai import OpenAiLike
from shared.embeddings import Kind, Limits


class Jina(OpenAiLike):
    """Jina's API, or one like it, and one key. What it charges is shown to those who log in."""

    declares = Declaration(
        name="jina",
        title="Jina",
        url="https://api.jina.ai/v1",
        key_variable="JINA_API_KEY",
        models={"jina-clip-v2": KnownModel(1024), "jina-clip-v1": KnownModel(768)},
        default_model="jina-clip-v2",
        limits=Limits(
            max_inputs=512,
            max_request_bytes=16 * 2**20,
            max_image_bytes=10 * 2**20,
            max_image_pixels=50_000_000,
        ),
        most_pixels=REDUCED_PIXELS,
        requests_a_minute=500,
        unit_length=True,
        currency="USD",
        read_on=date(2026, 12, 2),
        sources=("https://jina.ai/embeddings/", "https://jina.ai/contact-sales#rate-limit"),
    )

    def status(self, response: httpx.Response) -> int:
        """A balance that is spent is refused as a wrong key is, but for its code."""
        return 402 if "INSUFFICIENT_BALANCE" in response.text else response.status_code

    def body(self, model: str, kind: Kind, contents: Sequence[bytes]) -> Mapping[str, Any]:
        """The inputs as items that say what they are; images in base64."""
        as_string = bytes.decode if kind == "text" else as_base64
        return {"model": model, "input": [{kind: as_string(content)} for content in contents]}


TEACHER = Jina
