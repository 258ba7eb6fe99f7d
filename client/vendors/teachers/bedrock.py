"""Amazon's Titan Multimodal Embeddings on Bedrock."""

from collections.abc import Generator, Mapping, Sequence
from datetime import date
from typing import Any
from urllib.parse import quote

import httpx

from client.errors import KeyRefused
from client.vendors.declaration import REDUCED_PIXELS, Declaration, KnownModel
from client.vendors.embeddings_api import EmbeddingsApi, as_base64
from shared.embeddings import Kind, Limits


class Bedrock(EmbeddingsApi):
    """One account in one region: with a key of Bedrock's own, or with the credentials that boto3 finds."""

    # 0.00006 USD an image, 0.0008 USD a thousand tokens, a prompt about 20: a third party's table, as it was
    # on the date. One input a request.
    declares = Declaration(
        name="bedrock",
        title="Amazon Bedrock",
        url="https://bedrock-runtime.{AWS_REGION}.amazonaws.com",
        key_variable="AWS_BEARER_TOKEN_BEDROCK",
        models={"amazon.titan-embed-image-v1": KnownModel(1024, image_micros=60, text_micros=16)},
        default_model="amazon.titan-embed-image-v1",
        limits=Limits(
            max_inputs=1,
            max_request_bytes=25 * 2**20,
            max_image_bytes=18 * 2**20,
            max_image_pixels=2048 * 2048,
        ),
        formats=("PNG", "JPEG"),
        most_pixels=REDUCED_PIXELS,
        requests_a_minute=2000,
        currency="USD",
        priced_on=date(2026, 8, 1),
        read_on=date(2026, 12, 2),
        sources=(
            "https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-titan-embed-mm.html",
            "https://docs.aws.amazon.com/bedrock/latest/userguide/titan-multiemb-models.html",
            "https://github.com/BerriAI/litellm/blob/main/model_prices_and_context_window.json",
        ),
        needs=("botocore",),
        extra="bedrock",
    )

    def path_of(self, model: str) -> str:
        """The model is in the path."""
        return f"/model/{quote(model, safe='')}/invoke"

    def status(self, response: httpx.Response) -> int:
        """A quota of the account that is spent is refused as a wrong input is, but for its name."""
        name = response.headers.get("x-amzn-errortype", "")
        return 402 if name.startswith("ServiceQuotaExceeded") else response.status_code

    def body(self, model: str, kind: Kind, contents: Sequence[bytes]) -> Mapping[str, Any]:  # noqa: ARG002
        """The only input."""
        (content,) = contents
        return {"inputText": content.decode()} if kind == "text" else {"inputImage": as_base64(content)}

    def rows(self, answer: Any, kind: Kind) -> Sequence[list[float] | str]:  # noqa: ANN401, ARG002 (JSON)
        """The only embedding."""
        return [answer["embedding"]]

    def _auth(self, api_key: str | None) -> httpx.Auth | None:
        return None if api_key else _Signature()


class _Signature(httpx.Auth):
    """Signature version 4 of AWS, by botocore, with the credentials of the environment."""

    requires_request_body = True

    def __init__(self) -> None:
        import botocore.session
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest

        session = botocore.session.get_session()
        credentials, region = session.get_credentials(), session.get_config_variable("region")
        if credentials is None:
            raise KeyRefused("There are no AWS credentials here: set AWS_BEARER_TOKEN_BEDROCK, or log in.")
        self._request, self._signer = AWSRequest, SigV4Auth(credentials, "bedrock", region or "us-east-1")

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Sign the request."""
        signed = self._request(
            request.method,
            str(request.url),
            data=request.content,
            headers={"content-type": request.headers["content-type"]},
        )
        self._signer.add_auth(signed)
        request.headers.update(dict(signed.headers.items()))
        yield request


TEACHER = Bedrock
