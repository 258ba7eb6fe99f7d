"""`/admin/prices`: what a query costs, by plan, model and kind, and since when; and in which currency."""

from typing import Annotated

from fastapi import APIRouter, Request

from shared.http.body import read_model
from shared.moments import Moment
from vendor_service.acts import prices
from vendor_service.acts.act import Act
from vendor_service.acts.authentication import Operator
from vendor_service.acts.currency import CurrencyName, name_currency
from vendor_service.acts.prices import PriceLine
from vendor_service.acts.tokens import OperatorScope
from vendor_service.api.admin.desk import Body, Desk, taking
from vendor_service.clock import from_datetime
from vendor_service.database.tables import STANDARD_PLAN
from vendor_service.money import currency
from vendor_service.money.prices import PriceKind


class PriceName(Body):
    """Which price it is."""

    model: str
    kind: PriceKind
    plan: str = STANDARD_PLAN


class NewPrice(PriceName):
    """A price to hold from `since` on (`null`: now); `new` allows a plan or a model that is not known yet."""

    micros: int
    since: Moment | None = None
    new: bool = False


def prices_router(desk: Desk) -> APIRouter:
    """The routes; those that change a price take the scope `money`."""
    router = APIRouter(prefix="/admin/prices", tags=["prices"])
    may_change = desk.requiring(OperatorScope.MONEY)

    @router.get("", dependencies=[desk.requiring(OperatorScope.READ)])
    async def list_all(past: bool = False) -> list[PriceLine]:
        """All prices that hold or will hold, with those of the past if wanted."""
        return await desk.read(lambda session: prices.history(session, desk.clock(), past=past))

    @router.post("", openapi_extra=taking(NewPrice))
    async def set_price(request: Request, operator: Annotated[Operator, may_change]) -> list[PriceLine]:
        """Let a price hold from a moment on; what was charged before keeps its price."""
        asked = await read_model(request, NewPrice)
        since = None if asked.since is None else from_datetime(asked.since)

        def change(act: Act) -> list[PriceLine]:
            prices.set_price(act, asked.plan, asked.model, asked.kind, asked.micros, since, new=asked.new)
            return prices.history(act.session, act.now)

        return await desk.act(operator, change)

    @router.post("/unset", openapi_extra=taking(PriceName))
    async def unset_price(request: Request, operator: Annotated[Operator, may_change]) -> list[PriceLine]:
        """Take a plan's price back, from now on: the plan has the standard one then."""
        asked = await read_model(request, PriceName)

        def change(act: Act) -> list[PriceLine]:
            prices.unset_price(act, asked.plan, asked.model, asked.kind)
            return prices.history(act.session, act.now)

        return await desk.act(operator, change)

    return router


class NewCurrency(Body):
    """The currency of all money, by its code in ISO 4217."""

    currency: str


def currency_router(desk: Desk) -> APIRouter:
    """The routes of `/admin/currency`; naming it takes the scope `money`."""
    router = APIRouter(prefix="/admin/currency", tags=["prices"])
    may_change = desk.requiring(OperatorScope.MONEY)

    @router.get("", dependencies=[desk.requiring(OperatorScope.READ)])
    async def show() -> CurrencyName:
        """The currency of which all sums are millionths; `null` where nobody has named it."""
        return await desk.read(lambda session: CurrencyName(currency=currency.current(session)))

    @router.post("", openapi_extra=taking(NewCurrency))
    async def name(request: Request, operator: Annotated[Operator, may_change]) -> CurrencyName:
        """Name the currency. It stays the same once money has moved."""
        asked = await read_model(request, NewCurrency)
        return await desk.act(operator, lambda act: name_currency(act, asked.currency))

    return router
