"""`GET /v1/models`: what is for sale, exactly enough to know whether two embeddings can be compared."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends

from shared.embeddings import Limits, ModelCard, ModelList
from shared.errors import ErrorCode
from shared.receipts import SignedCard
from vendor_service.accounts.authentication import Authentication, Caller
from vendor_service.api.authentication import welcoming
from vendor_service.billing import prices
from vendor_service.clock import Clock
from vendor_service.database.session import Database
from vendor_service.database.tables import STANDARD_PLAN, Account
from vendor_service.embed.signed_card import ModelPromise
from vendor_service.encoder.encoder import ModelFacts
from vendor_service.errors import APIError

_KEY_OPTIONAL: dict[str, Any] = {"security": [{}]}  # beside the key, which FastAPI tells of


def catalogue_router(
    model: ModelFacts,
    limits: Limits,
    database: Database,
    clock: Clock,
    authentication: Authentication,
    promise: ModelPromise,
) -> APIRouter:
    """The routes. Limits and the standard prices are public; who sends a key is told its account's prices."""
    router = APIRouter(prefix="/v1/models", tags=["models"])
    anybody = Depends(welcoming(authentication))

    def card(caller: Caller | None) -> ModelCard:
        with database.read() as session:
            plan = session.get_one(Account, caller.account_id).plan if caller else STANDARD_PLAN
            price = prices.current(session, plan, model.id, clock())
        return ModelCard(
            id=model.id,
            owned_by="tuition-vendor",
            dimensions=model.dimensions,
            fingerprint=model.fingerprint,
            tolerance=model.tolerance,
            dtype=model.dtype,
            image_size=model.image_size,
            prices=price,
            limits=limits,
        )

    @router.get("", openapi_extra=_KEY_OPTIONAL)
    async def models(caller: Annotated[Caller | None, anybody]) -> ModelList:
        """The models that this vendor serves, at the caller's own prices if it sends a key."""
        return ModelList(data=[await asyncio.to_thread(card, caller)])

    def check(model_id: str) -> None:
        if model_id != model.id:
            message = f"there is no model {model_id!r} here; this vendor serves {model.id!r}"
            raise APIError(ErrorCode.MODEL_NOT_FOUND, message, param="model_id")

    @router.get("/{model_id:path}/signed-card", tags=["receipts"])
    async def signed_card(model_id: str) -> SignedCard:
        """The facts of one model and its answers to a few inputs, signed; needs no key."""
        check(model_id)
        return SignedCard(signed=await promise.signed())

    @router.get("/{model_id:path}", openapi_extra=_KEY_OPTIONAL)
    async def one_model(model_id: str, caller: Annotated[Caller | None, anybody]) -> ModelCard:
        """One model by its id."""
        check(model_id)
        return await asyncio.to_thread(card, caller)

    return router
