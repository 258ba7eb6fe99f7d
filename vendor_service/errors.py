"""The vendor's errors: what an operator reads carries an exit code, what a customer reads an error code.

VendorError
├── OperatorError        exit 1   a command or a start of the server failed
│   └── UsageError       exit 2   an option names something that does not exist or cannot be
└── APIError                      a customer's request is refused; rendered as the HTTP error body
    └── CommitInDoubt             the database was sent a COMMIT and did not say whether it took it
"""

from collections.abc import Mapping
from datetime import datetime

from shared.errors import ErrorCode


class VendorError(Exception):
    """The root of everything that the vendor raises on purpose."""


class OperatorError(VendorError):
    """A command or a start of the server failed; the message says what to do."""

    exit_code = 1


class UsageError(OperatorError):
    """An option names something that does not exist or cannot be."""

    exit_code = 2


class APIError(VendorError):
    """A customer's request is refused. `code` decides the HTTP status and whether a retry can help.

    `param` names the part of the request that is at fault, `retry_after` is in seconds,
    `resets_at` says when a limit that was reached starts anew, and `headers` go with the answer.
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
    ) -> None:
        super().__init__(code, message)  # pickle makes the exception of these in another process
        self.code = code
        self.message = message
        self.param = param
        self.retry_after = retry_after
        self.resets_at = resets_at
        self.headers = dict(headers or {})

    def __str__(self) -> str:
        return self.message


class CommitInDoubt(APIError):
    """The connection ended between a COMMIT and its answer: it may have gone through, or not."""
