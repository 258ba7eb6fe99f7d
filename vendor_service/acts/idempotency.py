"""Idempotency: a request that moves money, or a form, is done once, however often it is sent."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import BaseModel

from shared.errors import ErrorCode
from vendor_service.acts.act import Act
from vendor_service.database.session import take_turns
from vendor_service.database.tables import AnsweredRequest
from vendor_service.errors import APIError


@dataclass(frozen=True)
class Answer:
    """The answer to a request, as JSON, and whether it was given before."""

    content: str
    replayed: bool


def once(act: Act, asker_id: str, key: str, asked: str, work: Callable[[], BaseModel]) -> Answer:
    """Do the `work`, unless the asker's request of that idempotency key was answered before.

    `asked` is all that tells the request from another one. What was answered is kept in the transaction of
    the work, for as long as the books are, so nothing is done twice by whatever retry.

    Raises:
        APIError: `idempotency_key_reused`; the key stands for another request.
    """
    request_hash = hashlib.sha256(asked.encode()).hexdigest()
    take_turns(act.session.connection(), f"request {asker_id} {key}")
    before = act.session.get(AnsweredRequest, (asker_id, key))
    if before is not None:
        if before.request_hash != request_hash:
            message = "this idempotency key was used for another request; each has one of its own"
            raise APIError(ErrorCode.IDEMPOTENCY_KEY_REUSED, message, param="idempotency-key")
        return Answer(before.content, replayed=True)
    content = work().model_dump_json()
    act.session.add(
        AnsweredRequest(
            asker_id=asker_id,
            idempotency_key=key,
            request_hash=request_hash,
            content=content,
            created_at=act.now,
        )
    )
    return Answer(content, replayed=False)
