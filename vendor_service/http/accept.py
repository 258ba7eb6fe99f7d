"""The Accept header: in which form embeddings are sent."""

from typing import Literal, get_args

from python_multipart.multipart import parse_options_header

from shared.encoding import ROWS_MEDIA_TYPE, RowDtype
from shared.errors import ErrorCode
from vendor_service.errors import APIError

AnswerForm = Literal["json"] | RowDtype

# It is parsed on the event loop, which takes as long as there are separators.
_MOST_CHARACTERS = 1024
_MOST_SEPARATORS = 32
_JSON_RANGES = ("application/json", "application/*", "*/*")


def answer_form(accept: str) -> AnswerForm:
    """The form that an `Accept` header prefers among those that can be served.

    Raises:
        APIError: `not_acceptable`.
    """
    if len(accept) > _MOST_CHARACTERS or accept.count(",") + accept.count(";") > _MOST_SEPARATORS:
        message = f"up to {_MOST_CHARACTERS:,} characters, and {_MOST_SEPARATORS} commas and semicolons"
        raise _refused(f"this header may have {message}")
    best: tuple[float, AnswerForm] | None = None
    for choice in accept.split(","):
        media_type, options = parse_options_header(choice.strip())
        form = _form(media_type.decode("latin-1"), options.get(b"dtype", b"float32").decode("latin-1"))
        weight = _weight(options.get(b"q", b"1"))
        if form is not None and weight > 0 and (best is None or weight > best[0]):
            best = weight, form
    if best is None:
        forms = f"application/json or {ROWS_MEDIA_TYPE}, with dtype=float32 or dtype=float16"
        raise _refused(f"the answer is {forms}")
    return best[1]


def _refused(message: str) -> APIError:
    return APIError(ErrorCode.NOT_ACCEPTABLE, message, param="accept")


def _form(media_type: str, dtype: str) -> AnswerForm | None:
    if media_type in _JSON_RANGES:
        return "json"
    if media_type == ROWS_MEDIA_TYPE:
        return next((each for each in get_args(RowDtype) if each == dtype), None)
    return None


def _weight(quality: bytes) -> float:
    try:
        return float(quality)
    except ValueError:
        return 0.0
