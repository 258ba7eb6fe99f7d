"""`GET /v1/models`: what is for sale, exactly enough to know whether two embeddings can be compared."""

import asyncio
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response

from shared.embeddings import ModelCard, ModelList, Prices
from shared.kinds import UnitPrices, price_fields
from shared.receipts import CARD_TYPE, SignedCard, Signs
from vendor_service.accounts.callers import Caller
from vendor_service.clock import Clock
from vendor_service.database.session import Database
from vendor_service.database.tables import STANDARD_PLAN, Account
from vendor_service.embed.models import Models, ServedModel
from vendor_service.http.authentication import Authentication, welcoming
from vendor_service.money import currency, prices

_KEY_OPTIONAL: dict[str, Any] = {"security": [{}]}  # beside the key, which FastAPI tells of


@dataclass(frozen=True)
class Catalogue:
    """What is for sale. `runs_jobs` says whether there are bulk jobs, and so prices of them."""

    models: Models
    database: Database
    clock: Clock
    runs_jobs: bool

    def cards(self, caller: Caller | None, *asked: ServedModel) -> list[ModelCard]:
        """The cards of models, at the prices of the caller's plan, or at the standard ones without a key."""
        with self.database.read() as session:
            plan = session.get_one(Account, caller.account_id).plan if caller else STANDARD_PLAN
            now, unit = self.clock(), currency.current(session)
            return [
                _card(
                    each,
                    prices.current(session, plan, each.facts.id, now),
                    prices.batch(session, plan, each.facts.id, now) if self.runs_jobs else None,
                    unit,
                    is_default=each is self.models.default,
                )
                for each in asked
            ]


def catalogue_router(catalogue: Catalogue, authentication: Authentication, signer: Signs) -> APIRouter:
    """The routes. Limits and the standard prices are public; a key gets its account's prices."""
    router = APIRouter(prefix="/v1/models", tags=["models"])
    anybody, models = Depends(welcoming(authentication)), catalogue.models

    @router.get("", openapi_extra=_KEY_OPTIONAL)
    async def list_models(caller: Annotated[Caller | None, anybody]) -> ModelList:
        """The models that this vendor serves, at the caller's own prices if it sends a key."""
        return ModelList(data=await asyncio.to_thread(catalogue.cards, caller, *models))

    @router.get("/{model_id:path}/signed-card", tags=["receipts"])
    async def signed_card(model_id: str) -> SignedCard:
        """The facts of one model and its answers to a few inputs, signed; needs no key."""
        model = models.find(model_id, "model_id")
        with model.in_hand():
            claims = await model.promise.claims()
        return SignedCard(signed=signer.sign(CARD_TYPE, claims))

    @router.get("/{model_id:path}", openapi_extra=_KEY_OPTIONAL)
    async def one_model(
        model_id: str, caller: Annotated[Caller | None, anybody], response: Response
    ) -> ModelCard:
        """One model by its id."""
        model = models.find(model_id, "model_id")
        response.headers.update(model.terms.headers)
        (card,) = await asyncio.to_thread(catalogue.cards, caller, model)
        return card

    return router


def _card(
    model: ServedModel,
    price: UnitPrices,
    batch_price: UnitPrices | None,
    unit: str | None,
    *,
    is_default: bool,
) -> ModelCard:
    facts, terms = model.facts, model.terms
    return ModelCard(
        id=facts.id,
        owned_by="tuition-vendor",
        dimensions=facts.dimensions,
        fingerprint=facts.fingerprint,
        tolerance=facts.tolerance,
        dtype=facts.dtype,
        image_size=facts.image_size,
        prices=Prices(**price_fields(price)),
        batch_prices=None if batch_price is None else Prices(**price_fields(batch_price)),
        currency=unit,
        limits=terms.limits,
        default=is_default,
        deprecated_at=terms.deprecated_at,
        sunset_at=terms.sunset_at,
    )
