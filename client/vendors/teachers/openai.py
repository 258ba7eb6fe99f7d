"""OpenAI's embeddings API, as servers speak it that embed images too: infinity-emb, vLLM and their like."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from pydantic import BaseModel

from client.errors import VendorError
from client.vendors.declaration import Declaration
from client.vendors.embeddings_api import EmbeddingsApi, as_data_uri, ordered
from client.vendors.transport import parse
from shared.embeddings import Kind
from shared.text import visible


class OpenAiLike(EmbeddingsApi):
    """A server of https://github.com/michaelfeil/infinity, or one like it, and one key.

    Images are strings that `modality` says are data URIs.
    """

    declares = Declaration(
        name="openai",
        title="A server with OpenAI's API",
        key_variable="OPENAI_API_KEY",
        read_on=date(2026, 12, 2),
        sources=("https://github.com/michaelfeil/infinity", "https://platform.openai.com/docs/api-reference"),
    )

    def body(self, model: str, kind: Kind, contents: Sequence[bytes]) -> Mapping[str, Any]:
        """The inputs as strings, answered in base64."""
        as_string = bytes.decode if kind == "text" else as_data_uri
        return {
            "model": model,
            "input": [as_string(content) for content in contents],
            "encoding_format": "base64",
            "modality": kind,
        }

    def rows(self, answer: Any, kind: Kind) -> Sequence[list[float] | str]:  # noqa: ANN401, ARG002 (JSON)
        """The rows in the order of the inputs."""
        return ordered(answer["data"])

    def answered_by(self, answer: Any) -> str | None:  # noqa: ANN401 (JSON)
        """The model that the answer names."""
        name: str | None = answer.get("model")
        return name

    def only_model(self) -> str:
        """The API's own default, or the only one that the server lists."""
        if self.declares.default_model is not None:
            return self.declares.default_model
        names = [model.id for model in parse(_Models, self._http.send("GET", "/models")).data]
        if len(names) == 1:
            return names[0]
        sold = ", ".join(visible(name) for name in names)
        raise VendorError(
            f"{self.url} sells {sold}; name one of them with --teacher {self.declares.name}:MODEL."
        )


class _Model(BaseModel):
    id: str


class _Models(BaseModel):
    data: list[_Model]


TEACHER = OpenAiLike
