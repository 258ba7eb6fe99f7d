"""What each API answers, from its documents; read on 2026-12-02. Live services were not asked."""

import base64
import binascii
import hashlib
import hmac
import re
from typing import Any
from urllib.parse import quote

import numpy as np

from tests.client.vendors.servers import ApiServer, Asked, Refusal

KEY = "secret"


def _require(condition: object, status: int, body: Any) -> None:
    if not condition:
        raise Refusal(status, body)


def _image(uri: str, refusal: Refusal, *, is_uri: bool = True) -> str:
    """The image of a data URI, or of base64, by its bytes."""
    match = re.fullmatch(r"data:(image/(?:png|jpeg|webp|gif));base64,(.+)", uri) if is_uri else None
    try:
        content = base64.b64decode(match[2] if match else uri, validate=True)
    except binascii.Error:
        raise refusal from None
    if (is_uri and match is None) or not content.startswith((b"\x89PNG", b"\xff\xd8", b"RIFF")):
        raise refusal
    return content.hex()


def cohere(server: ApiServer, asked: Asked) -> Any:
    """POST /v2/embed: https://docs.cohere.com/reference/embed, and the SDK cohere 7.3.1.

    Errors are `{"id", "message"}`: 400, 401, 404, 422, 429 and 5xx.
    """
    body = asked.json
    _require(asked.path == "/v2/embed", 404, {"message": "not found"})
    _require(asked.headers.get("authorization") == f"Bearer {KEY}", 401, {"message": "invalid api token"})
    _require(body.get("model") == "embed-v4.0", 404, {"message": f"model '{body.get('model')}' not found"})
    kinds = [name for name in ("texts", "images", "inputs") if body.get(name)]
    _require(len(kinds) == 1, 400, {"message": "exactly one of texts, images and inputs is needed"})
    types = {"search_document", "search_query", "classification", "clustering", "image"}
    _require(body.get("input_type") in types, 400, {"message": "invalid input_type"})
    given = body[kinds[0]]
    _require(len(given) <= 96, 400, {"message": "at most 96 texts can be processed"})
    if kinds[0] == "images":
        refusal = Refusal(400, {"message": "invalid image data"})
        items = [_image(each, refusal) for each in given]
    else:
        items = [f"{body['input_type']} {each}" for each in given]
    server.charged += len(items)
    return {
        "id": "5c6f",
        "response_type": "embeddings_by_type",
        "embeddings": {"float": [server.vector(each) for each in items]},
        kinds[0]: given if kinds[0] == "texts" else [],
        "meta": {"api_version": {"version": "2"}, "billed_units": {"input_tokens": 5 * len(items)}},
    }


def voyage(server: ApiServer, asked: Asked) -> Any:
    """POST /v1/multimodalembeddings: https://docs.voyageai.com/reference/multimodal-embeddings-api.

    The SDK voyageai 0.5.0 asks for base64 as `encoding_format`. Errors are `{"detail"}`: 400, 401, 429, 5xx.
    """
    body = asked.json
    _require(asked.path == "/v1/multimodalembeddings", 404, {"detail": "Not Found"})
    _require(asked.headers.get("authorization") == f"Bearer {KEY}", 401, {"detail": "Invalid API key."})
    known = {
        "inputs",
        "model",
        "input_type",
        "truncation",
        "output_encoding",
        "encoding_format",
        "output_dimension",
        "output_dtype",
    }
    _require(body.keys() <= known, 400, {"detail": f"unknown argument {body.keys() - known}"})
    _require(str(body.get("model")).startswith("voyage-multimodal-3"), 400, {"detail": "no such model"})
    _require(body.get("input_type") in (None, "query", "document"), 400, {"detail": "invalid input_type"})
    _require(0 < len(body["inputs"]) <= 1000, 400, {"detail": "at most 1,000 inputs"})
    rows, pixels = [], 0
    for index, each in enumerate(body["inputs"]):
        (piece,) = each["content"]
        if piece["type"] == "text":
            item = f"{body.get('input_type')} {piece['text']}"
        else:
            item = _image(piece["image_base64"], Refusal(400, {"detail": "cannot read the image"}))
            pixels += 560
        vector: Any = server.vector(item)
        if "base64" in (body.get("output_encoding"), body.get("encoding_format")):
            vector = base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode()
        rows.append({"object": "embedding", "embedding": vector, "index": index})
    server.charged += len(rows)
    usage = {"text_tokens": len(rows), "image_pixels": pixels, "video_pixels": 0, "total_tokens": len(rows)}
    return {"object": "list", "data": rows, "model": body["model"], "usage": usage}


def jina(server: ApiServer, asked: Asked) -> Any:
    """POST /v1/embeddings: https://api.jina.ai/redoc.

    Errors are `{"detail"}`: 400, 401, 402 (no tokens left), 422, 429 and 5xx.
    """
    body = asked.json
    _require(asked.path == "/v1/embeddings", 404, {"detail": "Not Found"})
    _require(asked.headers.get("authorization") == f"Bearer {KEY}", 401, {"detail": "Unauthorized"})
    _require(body.get("model") in ("jina-clip-v1", "jina-clip-v2"), 422, {"detail": "no such model"})
    _require(len(body["input"]) <= 512, 422, {"detail": "at most 512 inputs"})
    rows = []
    for index, each in enumerate(body["input"]):
        ((kind, value),) = each.items()
        refusal = Refusal(422, {"detail": "Failed to load the image"})
        item = value if kind == "text" else _image(value, refusal, is_uri=False)
        rows.append({"object": "embedding", "index": index, "embedding": server.vector(item)})
    server.charged += len(rows)
    return {"model": body["model"], "object": "list", "usage": {"total_tokens": 9}, "data": rows}


def openai(server: ApiServer, asked: Asked) -> Any:
    """POST /v1/embeddings: https://platform.openai.com/docs/api-reference/embeddings.

    The SDK is openai 3.57.0. Images are data URIs under a `modality`, as in
    https://github.com/michaelfeil/infinity. Errors are `{"error": {"message"}}`.
    """
    _require(
        asked.headers.get("authorization") == f"Bearer {KEY}", 401, {"error": {"message": "no such key"}}
    )
    if asked.method == "GET":
        return {"object": "list", "data": [{"id": "clip", "object": "model"}]}
    body = asked.json
    _require(asked.path == "/v1/embeddings", 404, {"error": {"message": "Not Found"}})
    _require(body["model"] == "clip", 404, {"error": {"message": "no such model"}})
    refusal = Refusal(400, {"error": {"message": "cannot read the image"}})
    is_image, rows = body.get("modality") == "image", []
    for index, each in enumerate(body["input"]):
        vector: Any = server.vector(_image(each, refusal) if is_image else each)
        if body.get("encoding_format") == "base64":
            vector = base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode()
        rows.append({"object": "embedding", "index": index, "embedding": vector})
    server.charged += len(rows)
    return {"object": "list", "model": "clip", "data": rows, "usage": {"prompt_tokens": 1, "total_tokens": 1}}


def vertex(server: ApiServer, asked: Asked) -> Any:
    """POST .../multimodalembedding@001:predict, of the page "Get multimodal embeddings" of Vertex AI.

    One instance a request. The SDK is google-cloud-aiplatform 2.7.0. Errors are
    `{"error": {"code", "message", "status"}}`.
    """
    path = "/v1/projects/p/locations/us-central1/publishers/google/models/multimodalembedding@001:predict"

    def error(code: int, status: str) -> Any:
        return {"error": {"code": code, "message": status.lower(), "status": status}}

    asked_for = asked.path.partition("?")[0]  # the SDK asks for enumerations as numbers
    _require(asked_for.replace("%40", "@") == path, 404, error(404, "NOT_FOUND"))
    _require(asked.headers.get("authorization") == f"Bearer {KEY}", 401, error(401, "UNAUTHENTICATED"))
    _require(len(asked.json["instances"]) == 1, 400, error(400, "INVALID_ARGUMENT"))
    (instance,) = asked.json["instances"]
    refusal, found = Refusal(400, error(400, "INVALID_ARGUMENT")), {}
    if "text" in instance:
        found["textEmbedding"] = server.vector(instance["text"])
    if "image" in instance:
        encoded = instance["image"]["bytesBase64Encoded"]
        _require(not base64.b64decode(encoded).startswith(b"RIFF"), 400, refusal.body)
        found["imageEmbedding"] = server.vector(_image(encoded, refusal, is_uri=False))
    server.charged += 1
    return {"predictions": [found], "deployedModelId": "1"}


def bedrock(server: ApiServer, asked: Asked) -> Any:
    """POST /model/amazon.titan-embed-image-v1/invoke: "Amazon Titan Multimodal Embeddings G1", AWS's guide.

    Errors are `{"message"}`, with their name in `x-amzn-errortype`: 400, 403, 404, 429 (throttling) and 5xx.
    """
    path = "/model/amazon.titan-embed-image-v1/invoke"
    _require(asked.path == path, 404, {"message": "Could not resolve the foundation model"})
    signed = _is_signed(asked)
    allowed = signed or asked.headers.get("authorization") == f"Bearer {KEY}"
    _require(allowed, 403, {"message": "The security token included in the request is invalid."})
    body = asked.json
    _require(body.keys() & {"inputText", "inputImage"}, 400, {"message": "Malformed input request"})
    refusal = Refusal(400, {"message": "Invalid image"})
    item = body["inputText"] if "inputText" in body else _image(body["inputImage"], refusal, is_uri=False)
    server.charged += 1
    return {"embedding": server.vector(item), "inputTextTokenCount": 5, "message": None}


def _is_signed(asked: Asked) -> bool:
    """Whether a request is signed by the only account: "Create a signed AWS API request", AWS's IAM guide."""
    found = re.fullmatch(
        r"AWS4-HMAC-SHA256 Credential=AKID/(\d{8})/(us-east-1/bedrock)/aws4_request, "
        r"SignedHeaders=([\w;-]+), Signature=([0-9a-f]{64})",
        asked.headers.get("authorization", ""),
    )
    if found is None:
        return False
    day, scope, names, signature = found.groups()
    content = hashlib.sha256(asked.content).hexdigest()
    headers = "".join(f"{name}:{asked.headers[name].strip()}\n" for name in names.split(";"))
    # Each part of the path is escaped once more than in the request.
    canonical = f"POST\n{quote(asked.path)}\n\n{headers}\n{names}\n{content}"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    whole = f"{day}/{scope}/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{asked.headers['x-amz-date']}\n{whole}\n{digest}"
    key = f"AWS4{KEY}".encode()
    for part in (*whole.split("/"), text):
        key = hmac.digest(key, part.encode(), "sha256")
    return key.hex() == signature
