"""Google's multimodal embeddings on Vertex AI."""

from collections.abc import Generator, Mapping, Sequence
from datetime import date
from typing import Any
from urllib.parse import quote

import httpx

from client.errors import KeyRefused
from client.vendors.declaration import REDUCED_PIXELS, Declaration, KnownModel
from client.vendors.embeddings_api import EmbeddingsApi, as_base64
from shared.embeddings import Kind, Limits


class Vertex(EmbeddingsApi):
    """One project in one region; without a key, with the credentials that Google's own programs find."""

    # 0.0001 USD an image, 0.0002 USD a thousand characters of text, a prompt about 70: a third party's table,
    # as it was on the date. One input a request.
    declares = Declaration(
        name="vertex",
        title="Vertex AI",
        url="https://{GOOGLE_CLOUD_LOCATION}-aiplatform.googleapis.com/v1/projects/{GOOGLE_CLOUD_PROJECT}"
        "/locations/{GOOGLE_CLOUD_LOCATION}",
        key_variable=None,
        models={"multimodalembedding@001": KnownModel(1408, image_micros=100, text_micros=14)},
        default_model="multimodalembedding@001",
        limits=Limits(
            max_inputs=1,
            max_request_bytes=27 * 2**20,
            max_image_bytes=20 * 2**20,
            max_image_pixels=50_000_000,
        ),
        formats=("PNG", "JPEG"),
        most_pixels=REDUCED_PIXELS,
        requests_a_minute=120,
        currency="USD",
        priced_on=date(2026, 8, 1),
        read_on=date(2026, 12, 2),
        sources=(
            "https://cloud.google.com/vertex-ai/generative-ai/docs/embeddings/get-multimodal-embeddings",
            "https://github.com/BerriAI/litellm/blob/main/model_prices_and_context_window.json",
        ),
        needs=("google.auth", "requests"),
        extra="vertex",
    )

    def path_of(self, model: str) -> str:
        """The model is in the path."""
        return f"/publishers/google/models/{quote(model, safe='@')}:predict"

    def body(self, model: str, kind: Kind, contents: Sequence[bytes]) -> Mapping[str, Any]:  # noqa: ARG002
        """One instance an input."""
        piece = (lambda content: content.decode()) if kind == "text" else _image
        return {"instances": [{kind: piece(content)} for content in contents]}

    def rows(self, answer: Any, kind: Kind) -> Sequence[list[float] | str]:  # noqa: ANN401 (JSON)
        """The embedding of each instance."""
        return [each[f"{kind}Embedding"] for each in answer["predictions"]]

    def _auth(self, api_key: str | None) -> httpx.Auth | None:
        return None if api_key else _GoogleToken()


class _GoogleToken(httpx.Auth):
    """The token of the environment's credentials, renewed before it ends."""

    def __init__(self) -> None:
        from google.auth import default
        from google.auth.exceptions import GoogleAuthError
        from google.auth.transport.requests import Request

        self._errors, self._renewal = GoogleAuthError, Request()
        self._credentials: Any
        try:
            self._credentials, _ = default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
        except GoogleAuthError as error:
            raise KeyRefused(f"There are no Google credentials here: {error}.") from error

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Send the token along."""
        try:
            if not self._credentials.valid:
                self._credentials.refresh(self._renewal)
        except self._errors as error:
            raise KeyRefused(f"Google gives no token for these credentials: {error}.") from error
        request.headers["authorization"] = f"Bearer {self._credentials.token}"
        yield request


def _image(content: bytes) -> Mapping[str, str]:
    return {"bytesBase64Encoded": as_base64(content)}


TEACHER = Vertex
