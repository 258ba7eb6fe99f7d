"""`/v1/batches`: bulk jobs, in OpenAI's shapes."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request

from shared.batches import BatchList, BatchObject, BatchReceipts, BatchRequest, ChunkReceipt
from shared.errors import ErrorCode
from shared.http.body import JSON, media_type, parse_small
from shared.kinds import count_fields
from shared.receipts import RECEIPT_TYPE, ReceiptClaims
from vendor_service.accounts.callers import Caller
from vendor_service.accounts.keys import Scope
from vendor_service.audit import actors
from vendor_service.batches.jobs import ChunkCharge, JobTerms
from vendor_service.batches.services import BatchServices
from vendor_service.clock import SECOND
from vendor_service.database.view import View
from vendor_service.errors import APIError
from vendor_service.http.account_threads import AccountThreads
from vendor_service.http.authentication import Authentication, requiring
from vendor_service.http.history_rate import HistoryRate
from vendor_service.http.sale import terms_description, terms_of
from vendor_service.terms import MAX_NUMBER

# Signatures that count as one question about the past, at most 125 a second of one account.
_SIGNATURES_A_QUESTION = 25


def batches_router(
    services: BatchServices, authentication: Authentication, rate: HistoryRate, threads: AccountThreads
) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/v1/batches", tags=["bulk jobs"])
    buyer = Depends(requiring(authentication, Scope.EMBED))
    schema = {"content": {JSON: {"schema": BatchRequest.model_json_schema()}}}
    body = {"requestBody": {"required": True, **schema}}

    @router.post("", openapi_extra=terms_description() | body)
    async def create_batch(request: Request, caller: Annotated[Caller, buyer]) -> BatchObject:
        """Begin a job: the price of all lines of a file is held, and charged as they are answered."""
        return await _begin(services, threads, request, caller)

    @router.get("")
    async def list_batches(
        caller: Annotated[Caller, buyer],
        after: str | None = None,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
    ) -> BatchList:
        """The jobs in this key's view, the newest first."""
        found, more = await threads.read(caller.account_id, services.jobs.page, caller.view, after, limit)
        return BatchList.of(found, more)

    @router.get("/{batch_id}")
    async def one_batch(batch_id: str, caller: Annotated[Caller, buyer]) -> BatchObject:
        """A job by its id."""
        return await threads.read(caller.account_id, services.jobs.get, caller.view, batch_id)

    @router.post("/{batch_id}/cancel")
    async def cancel_batch(batch_id: str, caller: Annotated[Caller, buyer]) -> BatchObject:
        """End a job now: what is answered is charged and kept, what is held for the rest is released."""
        actor = actors.customer_key(caller.key_id)
        cancel = partial(services.jobs.cancel, caller.view, batch_id, actor)
        return await threads.do(caller.account_id, authentication.while_good, caller, cancel)

    @router.get("/{batch_id}/receipts", tags=["receipts"])
    async def batch_receipts(
        batch_id: str,
        caller: Annotated[Caller, buyer],
        after: Annotated[int, Query(ge=-1, le=MAX_NUMBER)] = -1,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> BatchReceipts:
        """The signed receipts of what a job was charged so far, one for some lines each."""
        rate.take(caller.key_id, -(-limit // _SIGNATURES_A_QUESTION))
        return await threads.read(caller.account_id, _receipts, services, caller.view, batch_id, after, limit)

    return router


async def _begin(
    services: BatchServices, threads: AccountThreads, request: Request, caller: Caller
) -> BatchObject:
    """Begin the job that is asked for.

    Raises:
        APIError: it cannot be begun; nothing is held.
    """
    media_type(request, JSON)
    asked = parse_small(BatchRequest, await request.body())
    wanted, account_id = terms_of(request), caller.account_id
    terms = JobTerms(
        caller.view,
        caller.project_id,
        caller.key_id,
        caller.secret_hash,
        wanted.idempotency_key,
        wanted.max_cost_micros,
    )
    file = await threads.read(account_id, services.files.get, caller.view, asked.input_file_id)
    model = services.models.find(file.model).facts
    if wanted.expect_fingerprint not in (None, model.fingerprint):
        message = f"the model's fingerprint is {model.fingerprint}, not {wanted.expect_fingerprint}"
        raise APIError(ErrorCode.FINGERPRINT_MISMATCH, message, param="x-expect-fingerprint")
    job = await threads.do(account_id, services.jobs.begin, terms, asked, file, model)
    services.runner.wake()
    return job


def _receipts(services: BatchServices, view: View, batch_id: str, after: int, limit: int) -> BatchReceipts:
    charges = services.jobs.charges(view, batch_id, after, limit)
    data = [
        ChunkReceipt(
            first_line=each.first_line,
            lines=each.lines,
            receipt=services.signer.sign(RECEIPT_TYPE, _claims(each)),
        )
        for each in charges
    ]
    return BatchReceipts(data=data, next_after=charges[-1].number if len(charges) == limit else None)


def _claims(charge: ChunkCharge) -> ReceiptClaims:
    entry = charge.entry
    return ReceiptClaims(
        iat=entry.created_at // SECOND,
        request_id=str(entry.hold_id),
        request_hash=charge.request_hash,
        answer_hash=charge.answer_hash,
        model=str(entry.model),
        model_fingerprint=str(entry.model_fingerprint),
        cost_micros=-entry.amount_micros,
        account_id=entry.account_id,
        key_id=str(entry.key_id),
        ledger_seq=entry.seq,
        entry_hash=entry.entry_hash,
        **count_fields(entry.counts),
    )
