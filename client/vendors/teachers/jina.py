"""OpenAI's embeddings API as Jina's CLIP takes images: items `{"text": ...}` and `{"image": ...}`."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from client.vendors.openai import OpenAIVendor
from shared.embeddings import Kind


class JinaVendor(OpenAIVendor):
    """Jina's API, or one like it, and one key."""

    name = "jina"

    def body(self, kind: Kind, contents: Sequence[bytes]) -> Mapping[str, Any]:
        """The inputs as items that say what they are; images in base64."""
        if kind == "text":
            return {"input": [{"text": content.decode()} for content in contents]}
        return {"input": [{"image": base64.b64encode(content).decode("ascii")} for content in contents]}


VENDOR = JinaVendor
