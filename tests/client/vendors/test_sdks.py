"""The vendors' own SDKs, pointed at the servers that stand for their vendors: these speak as the SDKs expect.

`make test-teachers` runs them. What an SDK is answered is what the client is answered by the same server.
"""

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from client.cache.cache import EmbeddingCache
from client.purchase.buyer import Buyer
from client.purchase.identification import identify
from client.vendors.embeddings_api import as_base64, as_data_uri
from client.vendors.query import Query
from client.vendors.teachers.bedrock import Bedrock
from client.vendors.teachers.cohere import Cohere
from client.vendors.teachers.openai import OpenAiLike
from client.vendors.teachers.vertex import Vertex
from client.vendors.teachers.voyage import Voyage
from client.vendors.vendor import HttpVendor
from tests.client.vendors.servers import ApiServer, apis, listening

pytestmark = pytest.mark.sdk

TEXT = "a photo of a cat"


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "cat.png"
    Image.new("RGB", (20, 16), "red").save(path)
    return path


def _bought(vendor: HttpVendor, folder: Path, picture: Path) -> Any:
    """What the client buys: a text and an image."""
    with vendor, EmbeddingCache(folder / "cache.db") as cache:
        teacher = Buyer(vendor, cache, model=identify(vendor, cache), run_id="run", budget=None)
        queries = [Query.text(TEXT), Query.image_file(picture)]
        assert teacher.buy(queries).bought == 2
        return teacher.lookup(queries)[0]


def _unit(rows: Any) -> Any:
    rows = np.asarray(rows, np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_cohere(tmp_path: Path, picture: Path) -> None:
    sdk = pytest.importorskip("cohere")
    with listening(ApiServer(apis.cohere)) as url:
        client = sdk.ClientV2(api_key=apis.KEY, base_url=url)
        model: dict[str, Any] = {"model": "embed-v4.0", "embedding_types": ["float"]}
        text = client.embed(texts=[TEXT], input_type="search_query", **model)
        image = client.embed(images=[as_data_uri(picture.read_bytes())], input_type="image", **model)
        with pytest.raises(sdk.UnauthorizedError):
            sdk.ClientV2(api_key="wrong", base_url=url).embed(
                texts=[TEXT], input_type="search_query", **model
            )
        theirs = _unit([*text.embeddings.float_, *image.embeddings.float_])
        assert np.allclose(theirs, _bought(Cohere(url, apis.KEY), tmp_path, picture), atol=1e-6)


def test_voyage(tmp_path: Path, picture: Path) -> None:
    sdk = pytest.importorskip("voyageai")
    with listening(ApiServer(apis.voyage)) as url:
        client = sdk.Client(api_key=apis.KEY, base_url=f"{url}/v1")
        model = "voyage-multimodal-3.5"
        text = client.multimodal_embed([[TEXT]], model=model, input_type="query")
        piece = {"type": "image_base64", "image_base64": as_data_uri(picture.read_bytes())}
        image = client.multimodal_embed([{"content": [piece]}], model=model, input_type="document")
        with pytest.raises(sdk.error.AuthenticationError):
            sdk.Client(api_key="wrong", base_url=f"{url}/v1").multimodal_embed([[TEXT]], model=model)
        theirs = _unit([*text.embeddings, *image.embeddings])
        assert np.allclose(theirs, _bought(Voyage(f"{url}/v1", apis.KEY), tmp_path, picture), atol=1e-6)


def test_openai(tmp_path: Path, picture: Path) -> None:
    sdk = pytest.importorskip("openai")
    with listening(ApiServer(apis.openai)) as url:
        client = sdk.OpenAI(api_key=apis.KEY, base_url=f"{url}/v1", max_retries=0)
        assert [each.id for each in client.models.list()] == ["clip"]
        text = client.embeddings.create(model="clip", input=[TEXT])
        image = client.embeddings.create(
            model="clip", input=[as_data_uri(picture.read_bytes())], extra_body={"modality": "image"}
        )
        with pytest.raises(sdk.AuthenticationError):
            sdk.OpenAI(api_key="wrong", base_url=f"{url}/v1").models.list()
        theirs = _unit([text.data[0].embedding, image.data[0].embedding])
        assert np.allclose(theirs, _bought(OpenAiLike(f"{url}/v1", apis.KEY), tmp_path, picture), atol=1e-6)


def test_vertex(tmp_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sdk = pytest.importorskip("google.cloud.aiplatform_v1")
    credentials = pytest.importorskip("google.oauth2.credentials")
    rest = importlib.import_module(f"{sdk.__name__}.services.prediction_service.transports.rest")
    errors = importlib.import_module("google.auth.exceptions")
    place = "projects/p/locations/us-central1"
    with listening(ApiServer(apis.vertex)) as url:

        def embedding(kind: str, value: Any, key: str = apis.KEY) -> Any:
            host = url.removeprefix("http://")
            asked_by = rest.PredictionServiceRestTransport(
                host=host, url_scheme="http", credentials=credentials.Credentials(token=key)
            )
            answer = sdk.PredictionServiceClient(transport=asked_by).predict(
                endpoint=f"{place}/publishers/google/models/multimodalembedding@001",
                instances=[{kind: value}],
            )
            return list(answer.predictions[0][f"{kind}Embedding"])

        image = {"bytesBase64Encoded": as_base64(picture.read_bytes())}
        theirs = _unit([embedding("text", TEXT), embedding("image", image)])
        with pytest.raises(errors.RefreshError):  # it takes 401 for a token that has ended
            embedding("text", TEXT, key="wrong")
        token = credentials.Credentials(token=apis.KEY)
        monkeypatch.setattr("google.auth.default", lambda **_: (token, "p"))
        ours = _bought(Vertex(f"{url}/v1/{place}", None), tmp_path, picture)
        assert np.allclose(theirs, ours, atol=1e-6)


def test_bedrock(tmp_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sdk = pytest.importorskip("boto3")
    for name, value in (("AWS_ACCESS_KEY_ID", "AKID"), ("AWS_SECRET_ACCESS_KEY", apis.KEY)):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with listening(ApiServer(apis.bedrock)) as url:
        client = sdk.client("bedrock-runtime", endpoint_url=url)

        def embedding(**body: str) -> list[float]:
            model = "amazon.titan-embed-image-v1"
            answer = client.invoke_model(modelId=model, body=json.dumps(body), contentType="application/json")
            found: list[float] = json.loads(answer["body"].read())["embedding"]
            return found

        theirs = _unit([embedding(inputText=TEXT), embedding(inputImage=as_base64(picture.read_bytes()))])
        assert np.allclose(theirs, _bought(Bedrock(url, None), tmp_path, picture), atol=1e-6)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        with pytest.raises(Exception, match="security token"):
            sdk.session.Session().client("bedrock-runtime", endpoint_url=url).invoke_model(
                modelId="amazon.titan-embed-image-v1", body="{}"
            )
