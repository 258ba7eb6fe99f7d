"""Acts on prices, and the history of prices as operators see it."""

from datetime import datetime

from pydantic import BaseModel
from sqlalchemy.orm import Session

from shared.kinds import UnitPrices, price_fields
from vendor_service.acts.act import Act
from vendor_service.clock import to_datetime
from vendor_service.database.tables import STANDARD_PLAN
from vendor_service.errors import UnknownName, UsageError
from vendor_service.money import currency, prices
from vendor_service.money.prices import BATCH_PERCENT, PriceDifference, PriceKind, PriceState

MOST_MICROS = 10**12


class PriceLine(BaseModel):
    """A line of the history of prices: `since` is `None` for one that has always held, `micros` for none.

    `currency` is the code of what `micros` are millionths of; `None`: nobody has named it.
    """

    plan: str
    model: str
    kind: str
    since: datetime | None
    micros: int | None
    currency: str | None
    state: PriceState


def history(session: Session, now: int, *, past: bool = False) -> list[PriceLine]:
    """The prices that hold or will hold, with those of the `past` if wanted."""
    unit = currency.current(session)
    return [
        PriceLine(
            plan=each.plan,
            model=each.model,
            kind=each.kind,
            since=to_datetime(each.since) if each.since else None,
            micros=each.micros,
            currency=unit,
            state=each.state,
        )
        for each in prices.history(session, now)
        if past or (each.state != "past" and each.micros is not None)
    ]


def set_price(
    act: Act,
    plan: str,
    model: str,
    kind: PriceKind,
    micros: int,
    since: int | None = None,
    *,
    new: bool = False,
) -> None:
    """Let a price hold from `since` on (`None`: now); `new` allows a plan or a model that is not known yet.

    Raises:
        UsageError: the price cannot be, or begins in the past.
        UnknownName: there is no such plan or model.
        WrongClock: this clock cannot be right.
    """
    now = act.now
    if not 0 <= micros <= MOST_MICROS:
        raise UsageError(f"a price is between 0 and {MOST_MICROS} micro-units, not {micros}")
    if kind == BATCH_PERCENT and micros > 100:
        raise UsageError(f"bulk jobs pay up to 100 percent of a price, not {micros}")
    if not 0 < len(plan) <= 64 or not 0 < len(model) <= 255:
        raise UsageError("the name of a plan has up to 64 characters, that of a model up to 255")
    if since is not None and since < now:
        raise UsageError("a price cannot begin in the past")
    if not new:
        _require("model", model, prices.served_models(act.session))
        _require("plan", plan, prices.plans(act.session, now))
    act.believe_clock()
    moment = now if since is None else since
    before = prices.named(act.session, plan, model, kind, moment)
    prices.set_price(act.session, plan, model, kind, micros, moment)
    after = {"micros": micros, "since": to_datetime(moment).isoformat()}
    act.record("price.set", _subject(plan, model, kind), {"micros": before}, after)


def unset_price(act: Act, plan: str, model: str, kind: PriceKind) -> None:
    """Take a plan's price back, from now on; raises what `prices.unset_price` and `Act.believe_clock` do."""
    act.believe_clock()
    before = prices.named(act.session, plan, model, kind, act.now)
    prices.unset_price(act.session, plan, model, kind, act.now)
    act.record("price.unset", _subject(plan, model, kind), {"micros": before}, {"micros": None})


def publish(act: Act, model: str, wanted: UnitPrices) -> list[PriceDifference]:
    """Give a model that is served standard prices where it has none; see `prices.publish`."""
    known = model in prices.served_models(act.session)
    differences = prices.publish(act.session, model, wanted, act.now)
    if not known:
        act.session.flush()
        after = price_fields(prices.current(act.session, STANDARD_PLAN, model, act.now))
        act.record("price.publish", model, None, after)
    return differences


def publish_plan(act: Act, plan: str, model: str, wanted: UnitPrices) -> list[PriceDifference]:
    """Give a model these prices on a plan, where it never named any; see `prices.publish_plan`."""
    before = {kind: prices.named(act.session, plan, model, kind, act.now) for kind in wanted}
    differences = prices.publish_plan(act.session, plan, model, wanted, act.now)
    act.session.flush()
    for kind, micros in wanted.items():
        if before[kind] is None and prices.named(act.session, plan, model, kind, act.now) is not None:
            act.record("price.publish", _subject(plan, model, kind), None, {"micros": micros})
    return differences


def _subject(plan: str, model: str, kind: PriceKind) -> str:
    return f"{plan} {model} {kind}"


def _require(what: str, name: str, known: set[str]) -> None:
    if name not in known:
        there = f"only {', '.join(sorted(known))}" if known else "nor any other yet"
        raise UnknownName(f"there is no {what} {name!r} in these books, {there}; if it is meant, add --new")
