"""The error codes of the HTTP contract, the exception that has one, and the one body that every error has."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from pydantic import BaseModel


class ErrorType(StrEnum):
    """The sort of an error, which says who can do something about it."""

    INVALID_REQUEST = "invalid_request_error"
    AUTHENTICATION = "authentication_error"
    BILLING = "billing_error"
    RATE_LIMIT = "rate_limit_error"
    SERVER = "server_error"


class ErrorKind(NamedTuple):
    """The meaning of a code: its HTTP status, its type, and whether the same request may be sent again."""

    status: int
    type: ErrorType
    retryable: bool = False


class ErrorCode(StrEnum):
    """Every code that the vendor answers with; `ErrorCode.kind` says what each one means."""

    INVALID_IMAGE = "invalid_image"
    IMAGE_TOO_LARGE = "image_too_large"
    UNSUPPORTED_IMAGE_FORMAT = "unsupported_image_format"
    EMPTY_INPUT = "empty_input"
    TOO_MANY_INPUTS = "too_many_inputs"
    INVALID_API_KEY = "invalid_api_key"
    KEY_EXPIRED = "key_expired"
    KEY_REVOKED = "key_revoked"
    PROJECT_ARCHIVED = "project_archived"
    ACCOUNT_SUSPENDED = "account_suspended"
    INSUFFICIENT_SCOPE = "insufficient_scope"
    QUOTA_EXHAUSTED = "quota_exhausted"
    SPEND_LIMIT_REACHED = "spend_limit_reached"
    INSUFFICIENT_CREDIT = "insufficient_credit"
    COVERAGE_LIMIT_REACHED = "coverage_limit_reached"
    MAX_COST_EXCEEDED = "max_cost_exceeded"
    NOT_FOUND = "not_found"
    MODEL_NOT_FOUND = "model_not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    NOT_ACCEPTABLE = "not_acceptable"
    IDEMPOTENCY_IN_FLIGHT = "idempotency_in_flight"
    IDEMPOTENCY_KEY_EXPIRED = "idempotency_key_expired"
    REPLAYS_EXHAUSTED = "replays_exhausted"
    CHARGE_REFUNDED = "charge_refunded"
    FINGERPRINT_MISMATCH = "fingerprint_mismatch"
    REQUEST_TOO_LARGE = "request_too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    CONFLICT = "conflict"
    INVALID_REQUEST = "invalid_request"
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused"
    RATE_LIMITED = "rate_limited"
    INTERNAL_ERROR = "internal_error"
    OVERLOADED = "overloaded"
    NOT_READY = "not_ready"
    SHUTTING_DOWN = "shutting_down"
    DEADLINE_EXCEEDED = "deadline_exceeded"

    @property
    def kind(self) -> ErrorKind:
        """The status, type and retryability that this code always has."""
        return _KINDS[self]


_KINDS = {
    ErrorCode.INVALID_IMAGE: ErrorKind(400, ErrorType.INVALID_REQUEST),
    ErrorCode.IMAGE_TOO_LARGE: ErrorKind(400, ErrorType.INVALID_REQUEST),
    ErrorCode.UNSUPPORTED_IMAGE_FORMAT: ErrorKind(400, ErrorType.INVALID_REQUEST),
    ErrorCode.EMPTY_INPUT: ErrorKind(400, ErrorType.INVALID_REQUEST),
    ErrorCode.TOO_MANY_INPUTS: ErrorKind(400, ErrorType.INVALID_REQUEST),
    ErrorCode.INVALID_API_KEY: ErrorKind(401, ErrorType.AUTHENTICATION),
    ErrorCode.KEY_EXPIRED: ErrorKind(401, ErrorType.AUTHENTICATION),
    ErrorCode.KEY_REVOKED: ErrorKind(403, ErrorType.AUTHENTICATION),
    ErrorCode.PROJECT_ARCHIVED: ErrorKind(403, ErrorType.AUTHENTICATION),
    ErrorCode.ACCOUNT_SUSPENDED: ErrorKind(403, ErrorType.AUTHENTICATION),
    ErrorCode.INSUFFICIENT_SCOPE: ErrorKind(403, ErrorType.AUTHENTICATION),
    ErrorCode.QUOTA_EXHAUSTED: ErrorKind(402, ErrorType.BILLING),
    ErrorCode.SPEND_LIMIT_REACHED: ErrorKind(402, ErrorType.BILLING),
    ErrorCode.INSUFFICIENT_CREDIT: ErrorKind(402, ErrorType.BILLING),
    ErrorCode.COVERAGE_LIMIT_REACHED: ErrorKind(402, ErrorType.BILLING),
    ErrorCode.MAX_COST_EXCEEDED: ErrorKind(402, ErrorType.BILLING),
    ErrorCode.NOT_FOUND: ErrorKind(404, ErrorType.INVALID_REQUEST),
    ErrorCode.MODEL_NOT_FOUND: ErrorKind(404, ErrorType.INVALID_REQUEST),
    ErrorCode.METHOD_NOT_ALLOWED: ErrorKind(405, ErrorType.INVALID_REQUEST),
    ErrorCode.NOT_ACCEPTABLE: ErrorKind(406, ErrorType.INVALID_REQUEST),
    ErrorCode.IDEMPOTENCY_IN_FLIGHT: ErrorKind(409, ErrorType.INVALID_REQUEST, retryable=True),
    # Not 409, which SDKs repeat: what was paid for is answered no more, however often it is asked for.
    ErrorCode.IDEMPOTENCY_KEY_EXPIRED: ErrorKind(410, ErrorType.INVALID_REQUEST),
    ErrorCode.REPLAYS_EXHAUSTED: ErrorKind(410, ErrorType.INVALID_REQUEST),
    ErrorCode.CHARGE_REFUNDED: ErrorKind(410, ErrorType.INVALID_REQUEST),
    ErrorCode.FINGERPRINT_MISMATCH: ErrorKind(412, ErrorType.INVALID_REQUEST),
    ErrorCode.REQUEST_TOO_LARGE: ErrorKind(413, ErrorType.INVALID_REQUEST),
    ErrorCode.UNSUPPORTED_MEDIA_TYPE: ErrorKind(415, ErrorType.INVALID_REQUEST),
    ErrorCode.CONFLICT: ErrorKind(422, ErrorType.INVALID_REQUEST),  # 409 is what SDKs repeat
    ErrorCode.INVALID_REQUEST: ErrorKind(422, ErrorType.INVALID_REQUEST),
    ErrorCode.IDEMPOTENCY_KEY_REUSED: ErrorKind(422, ErrorType.INVALID_REQUEST),
    ErrorCode.RATE_LIMITED: ErrorKind(429, ErrorType.RATE_LIMIT, retryable=True),
    ErrorCode.INTERNAL_ERROR: ErrorKind(500, ErrorType.SERVER, retryable=True),
    ErrorCode.OVERLOADED: ErrorKind(503, ErrorType.SERVER, retryable=True),
    ErrorCode.NOT_READY: ErrorKind(503, ErrorType.SERVER, retryable=True),
    ErrorCode.SHUTTING_DOWN: ErrorKind(503, ErrorType.SERVER, retryable=True),
    ErrorCode.DEADLINE_EXCEEDED: ErrorKind(504, ErrorType.SERVER, retryable=True),
}


class APIError(Exception):
    """A request is refused. `code` decides the HTTP status and whether a retry can help.

    `param` names the part of the request that is at fault, `retry_after` is in seconds,
    `resets_at` says when a limit that was reached starts anew, and `headers` go with the answer.
    `retryable` is given where it is not what the code says.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        param: str | None = None,
        retry_after: int | None = None,
        resets_at: datetime | None = None,
        headers: Mapping[str, str] | None = None,
        retryable: bool | None = None,
    ) -> None:
        super().__init__(code, message)  # pickle makes the exception of these in another process
        self.code = code
        self.message = message
        self.param = param
        self.retry_after = retry_after
        self.resets_at = resets_at
        self.headers = dict(headers or {})
        self.retryable = code.kind.retryable if retryable is None else retryable

    def __str__(self) -> str:
        return self.message


class ErrorDetail(BaseModel):
    """An error, for a program (`code`, `param`, `retryable`) and for a person (`message`).

    `code` is a string rather than an `ErrorCode`, so that an older client can read a newer vendor's codes.
    """

    code: str
    type: str
    message: str
    param: str | None = None
    request_id: str
    retryable: bool
    resets_at: str | None = None


class ErrorBody(BaseModel):
    """The body of every answer that is not a success."""

    error: ErrorDetail


def error_detail(error: APIError, request_id: str, message: str | None = None) -> ErrorDetail:
    """An error as a caller is told it, with its own message or another one."""
    resets_at = error.resets_at
    return ErrorDetail(
        code=error.code,
        type=error.code.kind.type,
        message=error.message if message is None else message,
        param=error.param,
        request_id=request_id,
        retryable=error.retryable,
        resets_at=None if resets_at is None else resets_at.isoformat().replace("+00:00", "Z"),
    )
