"""OpenAI's embeddings API as infinity-emb takes images: strings that `modality` says are data-URIs."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from client.vendors.openai import OpenAIVendor
from shared.embeddings import Kind


class InfinityVendor(OpenAIVendor):
    """A server of infinity-emb, https://github.com/michaelfeil/infinity, and one key."""

    name = "infinity"

    def body(self, kind: Kind, contents: Sequence[bytes]) -> Mapping[str, Any]:
        """The inputs as strings, answered in base64."""
        as_string = bytes.decode if kind == "text" else _data_uri
        return {
            "input": [as_string(content) for content in contents],
            "encoding_format": "base64",
            "modality": kind,
        }


def _data_uri(content: bytes) -> str:
    media_type = "image/webp" if content[8:12] == b"WEBP" else "image/jpeg"
    if content.startswith(b"\x89PNG"):
        media_type = "image/png"
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


VENDOR = InfinityVendor
