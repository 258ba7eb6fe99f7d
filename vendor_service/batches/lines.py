"""The lines of a file: each is a request, with the caller's own name for it."""

import re
from typing import Any, NamedTuple

from pydantic_core import from_json, to_json

from shared.embeddings import Encoding
from shared.errors import APIError, ErrorCode
from shared.http.errors import invalid
from shared.http.json_body import JsonBody, ReadJson, Shape
from shared.kinds import Input
from vendor_service.embed.dialects import DIALECTS
from vendor_service.embed.request import Queries

_FIELDS = frozenset({"custom_id", "method", "url", "body"})
_LONGEST_NAME = 255
# Of a line that is no JSON, or is not read to its end: it is told apart by this, where that is to be found.
_NAME = re.compile(rb'"custom_id"\s*:\s*("(?:[^"\\]|\\.)*+")')
_HEAD_BYTES = 4096


class Line(NamedTuple):
    """A line that can be asked."""

    custom_id: str
    endpoint: str
    queries: Queries
    encoding: Encoding


class LineRefused(Exception):
    """A line cannot be asked; `custom_id` is what the caller calls it, if that is to be found."""

    def __init__(self, custom_id: str | None, error: APIError) -> None:
        super().__init__(str(error))
        self.custom_id = custom_id
        self.error = error


class LineReader:
    """Reads lines, of up to `max_inputs` inputs and texts of up to `longest_text` characters each."""

    def __init__(self, max_inputs: int, longest_text: int) -> None:
        self._max_inputs = max_inputs
        self._longest_text = longest_text
        fields = {name for each in DIALECTS.values() for name in each.model.model_fields}
        self._shape = Shape(_FIELDS, frozenset(fields | set(Input.model_fields)), "body", max_inputs)

    def read(self, line: bytes) -> Line:
        """Take a line apart.

        Raises:
            LineRefused: it cannot be asked.
        """
        try:
            read, given = self._json(line)
        except APIError as error:
            raise LineRefused(_found_name(line), error) from error
        try:
            return self._line(read, given)
        except APIError as error:
            raise LineRefused(_given_name(given), error) from error

    def _json(self, line: bytes) -> tuple[ReadJson, Any]:
        taken = JsonBody(self._shape, self._longest_text)
        taken.feed(line)
        read = taken.finish()
        try:
            return read, from_json(read.rest)
        except ValueError as error:
            raise invalid(f"Invalid JSON: {error}") from error

    def _line(self, read: ReadJson, given: Any) -> Line:  # noqa: ANN401 - whatever JSON there is
        custom_id, url, body = _parts(given)
        dialect = DIALECTS.get(url)
        if dialect is None:
            raise invalid(f"the endpoints of bulk jobs are {' and '.join(DIALECTS)}", "url")
        # Serialized once more, for JSON is read more strictly than what was made of it; it is small.
        queries, encoding = dialect.read(ReadJson(bytearray(to_json(body)), read.long, read.body_hash))
        if not queries.items:
            raise APIError(ErrorCode.EMPTY_INPUT, "there are no inputs", param=queries.param)
        if len(queries.items) > self._max_inputs:
            message = f"a request may have {self._max_inputs} inputs, not {len(queries.items)}"
            raise APIError(ErrorCode.TOO_MANY_INPUTS, message, param=queries.param)
        return Line(custom_id, url, queries, encoding)


def _found_name(line: bytes) -> str | None:
    """The `custom_id` of a line that cannot be read, if it can be found."""
    found = _NAME.search(line[:_HEAD_BYTES])
    try:
        return None if found is None else _name(from_json(found[1].decode(errors="replace")))
    except ValueError:
        return None


def _given_name(given: Any) -> str | None:  # noqa: ANN401 - whatever JSON there is
    return _name(given.get("custom_id")) if isinstance(given, dict) else None


def _name(given: Any) -> str | None:  # noqa: ANN401 - whatever JSON there is
    return given if isinstance(given, str) and 1 <= len(given) <= _LONGEST_NAME else None


def _parts(given: Any) -> tuple[str, str, dict[str, Any]]:  # noqa: ANN401 - whatever JSON there is
    if not isinstance(given, dict):
        raise invalid("a line is a JSON object")
    custom_id, url, body = _given_name(given), given.get("url"), given.get("body")
    if custom_id is None:
        raise invalid(f"give each line a custom_id of up to {_LONGEST_NAME} characters", "custom_id")
    if given.get("method") != "POST":
        raise invalid("the method is POST", "method")
    if not isinstance(url, str):
        raise invalid("name the endpoint, as in /v1/embeddings", "url")
    if not isinstance(body, dict):
        raise invalid("the body is a JSON object", "body")
    return custom_id, url, body
