"""`GET /v1/models`: what is for sale, exactly enough to know whether two embeddings can be compared."""

import asyncio

from fastapi import APIRouter

from shared.embeddings import Limits, ModelCard, ModelList
from shared.errors import ErrorCode
from vendor_service.billing import prices
from vendor_service.clock import Clock
from vendor_service.database.session import Database
from vendor_service.database.tables import STANDARD_PLAN
from vendor_service.encoder.clip import ClipModel
from vendor_service.errors import Refusal


def catalogue_router(model: ClipModel, limits: Limits, database: Database, clock: Clock) -> APIRouter:
    """The routes. They need no key: limits and the standard prices are public."""
    router = APIRouter(prefix="/v1/models", tags=["models"])

    def card() -> ModelCard:
        with database.read() as session:
            price = prices.current(session, STANDARD_PLAN, model.id, clock())
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

    @router.get("")
    async def models() -> ModelList:
        """The models that this vendor serves."""
        return ModelList(data=[await asyncio.to_thread(card)])

    @router.get("/{model_id:path}")
    async def one_model(model_id: str) -> ModelCard:
        """One model by its id."""
        if model_id != model.id:
            message = f"there is no model {model_id!r} here; this vendor serves {model.id!r}"
            raise Refusal(ErrorCode.MODEL_NOT_FOUND, message, param="model_id")
        return await asyncio.to_thread(card)

    return router
