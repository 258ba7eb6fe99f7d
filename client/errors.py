"""The client's errors. Each one says what to do, and carries the exit code of the command line.

ClientError                  1  something failed
├── UsageError               2  an option or a folder is not what the command needs
│   └── DataError            2  the image folder cannot be used as it is
├── VendorError              1  the vendor answered with an error
│   ├── VendorUnreachable    1  the vendor did not answer at all
│   ├── AnswerRejected       1  the vendor billed what was not agreed, or answered what cannot be used
│   └── RequestRefused       1  the vendor refused the request, and charged nothing for it
│       ├── KeyRefused           1  the API key is missing, wrong, expired, revoked or suspended
│       ├── RequestTooLarge      1  the vendor takes no request of this size
│       ├── InputRefused         1  the vendor will not embed something in the request
│       ├── NotFound             1  the vendor has nothing of that name, or not any more
│       ├── NotOffered           1  the vendor does not do what was asked for at all
│       ├── IdempotencyKeySpent  1  what was paid for under this key is no longer to be had
│       └── FingerprintChanged   1  the vendor's model is no longer the one that was bought from
├── RunBusy                  1  something else is at work on the same run
├── CacheError               1  the cache cannot be read or written
├── EmbeddingsDiffer         1  embeddings of one model differ from those in the cache
└── SpendingStopped          3  a limit was reached; what was bought is kept, and the run can go on
    ├── BudgetExhausted      3  the run's own budget of queries or money
    ├── QuotaExhausted       3  the vendor's quota, spend limit or credit
    ├── PriceRaised          3  the vendor asks more than the price that it was asked to keep to
    └── JobRunning           3  a bulk job goes on at the vendor, and was not waited for
"""

import errno
from dataclasses import dataclass
from pathlib import Path

from shared.kinds import Usage


@dataclass(frozen=True)
class Bill:
    """The charge of one request and the model that answered it, as the vendor states them."""

    request_id: str
    fingerprint: str
    usage: Usage


class ClientError(Exception):
    """The root: something failed, and the message says what and what to do.

    Of a request that failed, `unsure` is whether any try of it may have been served, and charged, all the
    same; `request_id` is the vendor's name for the last try, where it gave one. `paid_in_vain` is whether
    queries that tell a vendor's model may have been paid for, and would be paid for again.
    """

    exit_code = 1
    unsure = False
    paid_in_vain = False
    request_id: str | None = None


class UsageError(ClientError):
    """An option or a folder is not what the command needs."""

    exit_code = 2


class DataError(UsageError):
    """The image folder cannot be used as it is."""


class VendorError(ClientError):
    """The vendor answered with an error that no retry can mend.

    `bill` is what it says that it charged all the same, and `fault` in a few words why the answer was not
    taken.
    """

    unsure = True
    bill: Bill | None = None
    fault: str | None = None


class VendorUnreachable(VendorError):
    """The vendor did not answer, however often it was asked."""


class AnswerRejected(VendorError):
    """The vendor billed what was not agreed, or answered what cannot be used; nothing of it is stored."""


class RequestRefused(VendorError):
    """The vendor refused the request, and charged nothing for it."""

    unsure = False


class KeyRefused(RequestRefused):
    """The API key is missing, wrong, expired or revoked, or its project is archived or account suspended."""


class RequestTooLarge(RequestRefused):
    """The vendor takes no request of this size; a smaller one may do."""


class InputRefused(RequestRefused):
    """The vendor will not embed something in the request, and does not say what; parts of it may do."""


class NotFound(RequestRefused):
    """The vendor has nothing of the name that was asked for, such as a job or a file, or not any more."""


class NotOffered(RequestRefused):
    """The vendor knows no such path: it does not do what was asked for, such as bulk jobs, at all."""


class IdempotencyKeySpent(RequestRefused):
    """The answer that was paid for under this idempotency key is gone, and the key cannot be used again."""


class FingerprintChanged(RequestRefused):
    """The vendor serves another model than the one that the run began with."""


class RunBusy(ClientError):
    """Another thread or process is at work on the same run."""


class CacheError(ClientError):
    """The cache cannot be read or written."""


class EmbeddingsDiffer(ClientError):
    """Embeddings differ from what the cache has of the same queries and the same model."""


class SpendingStopped(ClientError):
    """A limit was reached. What was bought is in the cache, and the run can go on later."""

    exit_code = 3


class BudgetExhausted(SpendingStopped):
    """The run's own budget does not reach further."""


class QuotaExhausted(SpendingStopped):
    """The vendor's quota, spend limit or credit does not reach further."""


class PriceRaised(SpendingStopped):
    """The vendor asks more than the price at which the purchase began; nothing was charged at the new one."""


class JobRunning(SpendingStopped):
    """A bulk job goes on at the vendor; the same command fetches later what it brings."""


def unwritable(path: Path, error: BaseException) -> ClientError:
    """The error for a file that could not be written, however its writer reports the system's refusal."""
    context = error.__context__
    refusal = context if isinstance(context, OSError) and not isinstance(error, OSError) else error
    number = refusal.errno if isinstance(refusal, OSError) else None
    if number in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in str(refusal):
        return ClientError(
            f"{path} cannot be written: the disk is full. Make room, and give the same command again; what "
            "was there before is still there."
        )
    reason = refusal.strerror if isinstance(refusal, OSError) else None
    return ClientError(f"{path} cannot be written: {reason or refusal}.")
