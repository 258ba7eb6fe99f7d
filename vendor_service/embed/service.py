"""One request, from its bytes to its answer: decode, admit, encode, settle. Whatever fails is not charged."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from pydantic import ValidationError
from pydantic_core import to_json

from shared.embeddings import Embedding, EmbedRequest, EmbedResponse, InputError, Usage
from shared.encoding import to_base64
from shared.errors import ErrorCode
from vendor_service.accounts.auth import Caller
from vendor_service.billing.admission import Admission
from vendor_service.billing.orders import Admitted, Order
from vendor_service.encoder.batcher import Vectors
from vendor_service.encoder.engine import Engine, Prepared
from vendor_service.errors import Refusal


@dataclass(frozen=True)
class Call:
    """A request apart from its body: who asks, and on which terms."""

    request_id: str
    caller: Caller
    idempotency_key: str | None = None
    max_cost_micros: int | None = None
    expect_fingerprint: str | None = None


@dataclass(frozen=True)
class Answer:
    """The JSON of an `EmbedResponse`, and how the order was admitted (`None`: nothing was left to charge)."""

    content: bytes
    admitted: Admitted | None


class EmbedService:
    """Answers `POST /embed`; an admitted request may wait and be encoded for `timeout_seconds`."""

    def __init__(
        self, engine: Engine, admission: Admission, *, max_inputs: int, timeout_seconds: int
    ) -> None:
        self._engine = engine
        self._admission = admission
        self._max_inputs = max_inputs
        self._timeout_seconds = timeout_seconds

    async def embed(self, call: Call, body: bytes, gone: Callable[[], Awaitable[None]]) -> Answer:
        """Answer one request; `gone` returns when its caller has hung up.

        Raises:
            Refusal: for any reason of the contract; nothing is charged then.
        """
        request, body_hash = await asyncio.to_thread(_parse, body)
        self._check(request, call)
        prepared = await self._engine.prepare(request.inputs)
        refused = {index: each for index, each in enumerate(prepared) if isinstance(each, Refusal)}
        if refused and request.on_error == "fail":
            index, refusal = next(iter(refused.items()))
            refusal.param = f"inputs.{index}.{request.inputs[index].kind}"
            raise refusal
        accepted = [each for each in prepared if not isinstance(each, Refusal)]
        if not accepted:
            return Answer(await asyncio.to_thread(self._render, call, request, refused, None, None), None)
        order = self._order(call, body_hash, accepted)
        admitted = await asyncio.wrap_future(self._admission.admit(order))
        try:
            rows = await self._encode(accepted, gone)
            # Rendered before it is settled: whatever is charged is ready to be sent.
            content = await asyncio.to_thread(self._render, call, request, refused, admitted, rows)
            if not admitted.replayed:
                await asyncio.wrap_future(self._admission.settle(order.account_id, admitted.request_id))
        except BaseException:
            # Whatever the reason, a cancelled task included.
            await asyncio.wrap_future(self._admission.void(order.account_id, admitted.request_id))
            raise
        return Answer(content, admitted)

    def _check(self, request: EmbedRequest, call: Call) -> None:
        model = self._engine.model
        if request.model not in (None, model.id):
            message = f"there is no model {request.model!r} here; this vendor serves {model.id!r}"
            raise Refusal(ErrorCode.MODEL_NOT_FOUND, message, param="model")
        if call.expect_fingerprint not in (None, model.fingerprint):
            message = f"the model's fingerprint is {model.fingerprint}, not {call.expect_fingerprint}"
            raise Refusal(ErrorCode.FINGERPRINT_MISMATCH, message, param="x-expect-fingerprint")
        if not request.inputs:
            raise Refusal(ErrorCode.EMPTY_INPUT, "there are no inputs", param="inputs")
        if len(request.inputs) > self._max_inputs:
            message = f"a request may have {self._max_inputs} inputs, not {len(request.inputs)}"
            raise Refusal(ErrorCode.TOO_MANY_INPUTS, message, param="inputs")

    def _order(self, call: Call, body_hash: str, accepted: Sequence[Prepared]) -> Order:
        texts = sum(isinstance(each, str) for each in accepted)
        return Order(
            request_id=call.request_id,
            account_id=call.caller.account_id,
            key_id=call.caller.key_id,
            model=self._engine.model.id,
            model_fingerprint=self._engine.model.fingerprint,
            images=len(accepted) - texts,
            texts=texts,
            body_hash=body_hash,
            idempotency_key=call.idempotency_key,
            max_cost_micros=call.max_cost_micros,
        )

    async def _encode(self, accepted: Sequence[Prepared], gone: Callable[[], Awaitable[None]]) -> Vectors:
        encoding = asyncio.ensure_future(self._engine.encode(accepted))
        leaving = asyncio.ensure_future(gone())
        try:
            await asyncio.wait(
                {encoding, leaving}, timeout=self._timeout_seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if encoding.done():
                return encoding.result()
        finally:
            encoding.cancel()
            leaving.cancel()
        message = f"there was no answer within {self._timeout_seconds} s, or nobody waited for it any more"
        raise Refusal(ErrorCode.DEADLINE_EXCEEDED, message, retry_after=1)

    def _render(
        self,
        call: Call,
        request: EmbedRequest,
        refused: dict[int, Refusal],
        admitted: Admitted | None,
        rows: Vectors | None,
    ) -> bytes:
        model = self._engine.model
        answered = [index for index in range(len(request.inputs)) if index not in refused]
        values = [] if rows is None else _values(rows, request.encoding)
        # Constructed, not validated: these are our own numbers, and there are many of them.
        response = EmbedResponse.model_construct(
            id=call.request_id if admitted is None else admitted.request_id,
            model=model.id,
            model_fingerprint=model.fingerprint,
            dimensions=model.dimensions,
            data=[
                Embedding.model_construct(index=index, kind=request.inputs[index].kind, embedding=value)
                for index, value in zip(answered, values, strict=True)
            ],
            errors=[
                InputError(index=index, code=each.code, message=each.message)
                for index, each in refused.items()
            ],
            usage=_usage(admitted),
            replayed=admitted is not None and admitted.replayed,
        )
        return to_json(response)


def _parse(body: bytes) -> tuple[EmbedRequest, str]:
    try:
        return EmbedRequest.model_validate_json(body), hashlib.sha256(body).hexdigest()
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
        param = ".".join(map(str, problem["loc"])) or None
        raise Refusal(ErrorCode.INVALID_REQUEST, problem["msg"], param=param) from error


def _values(rows: Vectors, encoding: str) -> list[list[float]] | list[str]:
    if encoding == "base64":
        return [to_base64(row) for row in rows]
    values: list[list[float]] = rows.tolist()
    return values


def _usage(admitted: Admitted | None) -> Usage:
    if admitted is None:
        return Usage(images=0, texts=0, billed_queries=0, cost_micros=0)
    return Usage(
        images=admitted.images,
        texts=admitted.texts,
        billed_queries=admitted.images + admitted.texts,
        cost_micros=admitted.cost_micros,
    )
