"""From a request's body to its images: a form or JSON, read no further than the limits allow."""

from starlette.requests import Request

from client.serving.classify import ClassifyInput, ClassifyOptions, ClassifyRequest, ImageFile
from shared.embeddings import Limits
from shared.errors import APIError, ErrorCode
from shared.http import multipart
from shared.http.body import JSON, BodyReader, media_type, parse
from shared.http.capacity import Reservation
from shared.http.json_body import JsonBody, ReadJson, Shape
from shared.http.multipart import Form, FormBody, FormShape

_LONGEST_NAME = 255  # characters
_UNHURRIED_BYTES = 4 * 2**20  # beyond a photograph, a body gives way to others
_OPTIONS = frozenset(ClassifyOptions.model_fields)


class ImageReader:
    """Reads the bodies of all requests, each within `limits`."""

    def __init__(self, limits: Limits) -> None:
        self._form = FormShape(_OPTIONS, limits.max_inputs, is_hashed=False)
        self._json = Shape(
            _OPTIONS | {"inputs"}, frozenset(ClassifyInput.model_fields), "inputs", limits.max_inputs
        )
        self._bodies = BodyReader(limits.max_request_bytes, _UNHURRIED_BYTES)

    async def read(
        self, request: Request, reservation: Reservation
    ) -> tuple[list[ImageFile], ClassifyOptions]:
        """Read `POST /classify`.

        Raises:
            APIError: the body is too large, too slow, of another media type, or breaks the contract.
        """
        if media_type(request, JSON, multipart.MEDIA_TYPE) == JSON:
            body = JsonBody(self._json, _LONGEST_NAME)
            images, options = await self._bodies.read(request, reservation, body, _of_json)
        else:
            form = FormBody(request.headers["content-type"], self._form)
            images, options = await self._bodies.read(request, reservation, form, _of_form)
        if not images:
            raise APIError(ErrorCode.EMPTY_INPUT, "there are no images", param="inputs")
        return images, options


def _of_json(read: ReadJson) -> tuple[list[ImageFile], ClassifyOptions]:
    request = parse(ClassifyRequest, read.rest)
    images = []
    for each in request.inputs:
        name = None if each.name is None else read.long.take(each.name)[:_LONGEST_NAME]
        images.append(ImageFile(read.long.take(each.image), name))
    return images, request


def _of_form(form: Form) -> tuple[list[ImageFile], ClassifyOptions]:
    options = parse(ClassifyOptions, dict(form.fields))
    images = [ImageFile(part.content, part.name or None) for part in form.items]
    return images, options
