"""The vendor's errors: each has an error code of HTTP, and what an operator reads an exit code as well.

OperatorError     exit 1, conflict          a command or a start of the server failed
├── WrongClock    exit 1, conflict          this machine's clock cannot be right
├── UnknownName   exit 1, not_found         there is no account, key, plan or the like of that name
└── UsageError    exit 2, invalid_request   an option names something that does not exist or cannot be
APIError (shared/errors.py)                 a request is refused; rendered as the HTTP error body
├── CommitInDoubt                           the database was sent a COMMIT and did not say whether it took it
└── RowLocked                               another transaction has locked a row for too long
"""

from typing import Self

from shared.errors import APIError, ErrorCode

__all__ = [
    "APIError",
    "CommitInDoubt",
    "OperatorError",
    "RowLocked",
    "UnknownName",
    "UsageError",
    "WrongClock",
]

_IN_DOUBT = "the vendor's database went away before it said whether this was"


class OperatorError(Exception):
    """A command or a start of the server failed; the message says what to do.

    The command line ends with the `exit_code`, and HTTP answers with the `code`.
    """

    exit_code = 1
    code = ErrorCode.CONFLICT


class WrongClock(OperatorError):
    """This machine's clock cannot be right, so what is dated by it would be misdated."""


class UnknownName(OperatorError):
    """There is nothing of the kind that goes by that name or id."""

    code = ErrorCode.NOT_FOUND


class UsageError(OperatorError):
    """An option names something that does not exist or cannot be."""

    exit_code = 2
    code = ErrorCode.INVALID_REQUEST


class CommitInDoubt(APIError):
    """The connection ended between a COMMIT and its answer: it may have gone through, or not."""

    @classmethod
    def keyed(cls) -> Self:
        """One that tells to send again a request that counts once under its idempotency key."""
        message = (
            f"{_IN_DOUBT} done; to find out, send it again with the same Idempotency-Key, "
            "under which it counts once"
        )
        return cls(ErrorCode.OVERLOADED, message, retry_after=1)

    @classmethod
    def unkeyed(cls, rest: str = "done; it may have been: look before you send it again") -> Self:
        """One of a request that counts each time; it asks nobody, and no program, to send it again."""
        headers = {"x-should-retry": "false"}  # OpenAI's SDK would repeat it
        return cls(ErrorCode.OVERLOADED, f"{_IN_DOUBT} {rest}", headers=headers, retryable=False)


class RowLocked(APIError):
    """Another transaction has kept a row locked for longer than this one was to wait."""
