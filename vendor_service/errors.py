"""The vendor's errors: what an operator reads carries an exit code, what a customer reads an error code.

VendorError
└── OperatorError        exit 1   a command or a start of the server failed
    ├── UnknownName      exit 1   there is no account, key, plan or the like of that name
    └── UsageError       exit 2   an option names something that does not exist or cannot be
APIError (shared/errors.py)       a customer's request is refused; rendered as the HTTP error body
└── CommitInDoubt                 the database was sent a COMMIT and did not say whether it took it
"""

from typing import Self

from shared.errors import APIError, ErrorCode

__all__ = ["APIError", "CommitInDoubt", "OperatorError", "UnknownName", "UsageError", "VendorError"]

_IN_DOUBT = "the vendor's database went away before it said whether this was"


class VendorError(Exception):
    """The root of what an operator reads."""


class OperatorError(VendorError):
    """A command or a start of the server failed; the message says what to do."""

    exit_code = 1


class UnknownName(OperatorError):
    """There is nothing of the kind that goes by that name or id."""


class UsageError(OperatorError):
    """An option names something that does not exist or cannot be."""

    exit_code = 2


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
        return cls(ErrorCode.OVERLOADED, f"{_IN_DOUBT} {rest}", headers=headers)
