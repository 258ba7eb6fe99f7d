"""Prices and the currency in which they are: what a query costs, by plan, model and kind, and since when."""

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel

from shared.kinds import KINDS, Kind, UnitPrices, price_fields
from vendor_service.acts.act import Act, OperatorScope
from vendor_service.acts.declaration import Given, act, preview, query
from vendor_service.clock import month_of, month_start, to_datetime
from vendor_service.database.tables import STANDARD_PLAN
from vendor_service.errors import UnknownName, UsageError
from vendor_service.money import currency, price_preview, prices
from vendor_service.money.price_preview import PricePreview
from vendor_service.money.prices import (
    BATCH_PERCENT,
    DEFAULT_BATCH_PERCENT,
    PriceDifference,
    PriceKind,
    PriceState,
)
from vendor_service.terms import Term, Unit, money

MOST_MICROS = 10**12

Model = Annotated[str, Term("The model's id.", label="Model", typed="MODEL", choices="models", is_open=True)]
KindOfPrice = Annotated[PriceKind, Term("What is priced.", label="Kind", typed="KIND")]
OfPlan = Annotated[
    str, Term("The plan whose price it is.", label="Plan", typed="--plan", choices="plans", is_open=True)
]
PriceMicros = Annotated[
    int,
    Term(
        "Price of a query, as in 0.0001 or 100micros; for batch-percent, percent of the other prices.",
        label="One query (for batch-percent a percentage)",
        typed="PRICE",
        form="price",
        unit=Unit.PRICE,
    ),
]
Since = Annotated[
    int | None,
    Term(
        "First moment, UTC, not in the past.",
        label="From (UTC)",
        typed="--from",
        unit=Unit.MOMENT,
        none="now",
    ),
]
New = Annotated[
    bool,
    Term(
        "Make a plan, or price a model that was not served here yet.",
        label="This plan or model is new",
        typed="--new",
    ),
]


class PriceLine(BaseModel):
    """A line of the history of prices: `since` is `None` for one that has always held, `micros` for none.

    `currency` is the code of what `micros` are millionths of; `None`: nobody has named it.
    """

    price_id: str
    plan: str
    model: str
    kind: str
    since: datetime | None
    micros: int | None
    currency: str | None
    state: PriceState


class CurrencyName(BaseModel):
    """The currency of all money in the books, by its code in ISO 4217; `None`: nobody has named it."""

    currency: str | None


def _moves_much(act: Act, given: Given) -> bool:
    """Whether a price becomes more than twice, or less than half, of what holds then."""
    model, kind = given["model"], given["kind"]
    moment = given.get("since") or act.now
    for plan in (given.get("plan", STANDARD_PLAN), STANDARD_PLAN):
        if (holding := prices.named(act.session, plan, model, kind, moment)) is not None:
            least, most = sorted((holding, given["micros"]))
            return bool(most > 2 * least)
    return False


@act(
    "price.set",
    command="prices set",
    route="POST /prices",
    scope=OperatorScope.MONEY,
    title="Set the price",
    done="The price of {kind} to {model} on the plan {plan} is set.",
    asks_if=_moves_much,
    word="model",
)
def set_price(
    act: Act,
    model: Model,
    kind: KindOfPrice,
    micros: PriceMicros,
    plan: OfPlan = STANDARD_PLAN,
    since: Since = None,
    new: New = False,
) -> list[PriceLine]:
    """Let a price hold from a moment on. What was charged before keeps its price.

    A plan that names no price for a model and kind has the standard one. batch-percent is what bulk jobs pay
    of the other two: 50 where nobody has said anything else.

    Example: vendor prices set icon-clip image 0.00008 --plan research --new
    """  # fmt: skip
    now = act.now
    _check_price(model, kind, micros, plan)
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
    act.record(_subject(plan, model, kind), {"micros": before}, after)
    return history(act)


@preview(set_price)
def _of_set_price(
    act: Act,
    model: str,
    kind: PriceKind,
    micros: int,
    plan: str = STANDARD_PLAN,
    since: int | None = None,
    new: bool = False,
) -> Iterator[str]:
    holding = prices.named(act.session, plan, model, kind, act.now)
    before = "names none" if holding is None else f"is {_shown(kind, holding)}"
    when = "at once" if since is None else f"from {to_datetime(since):%Y-%m-%d %H:%M} UTC on"
    yield f"{_what(kind, model)} is {_shown(kind, micros)} on the plan {plan!r}, {when}; now it {before}."
    yield "What was charged before keeps its price. Who agreed to less is refused, not charged more."


@act(
    "price.discount",
    command="prices discount",
    route="POST /prices/discount",
    scope=OperatorScope.MONEY,
    title="Set a discount",
    done="The plan {plan} has a discount of {percent}%. Next: put accounts on it.",
)
def discount(
    act: Act,
    plan: Annotated[
        str, Term("The plan, made if need be.", label="Plan", typed="PLAN", choices="plans", is_open=True)
    ],
    percent: Annotated[
        int, Term("Percent off the standard prices.", label="Percent off", typed="PERCENT", least=1, most=100)
    ],
) -> list[PriceLine]:
    """Let all prices of a plan be the standard ones less a percentage, rounded down, from now on.

    Standard prices that change later, and models that are served later, have no discount until this is done
    again. `vendor accounts set ACCOUNT --plan PLAN` puts an account on the plan.

    Example: vendor prices discount partners 20
    """
    if plan == STANDARD_PLAN:
        raise UsageError("the standard prices are what a discount is of; name another plan")
    act.believe_clock()
    before, after = dict[str, int | None](), dict[str, int]()
    for model, kind, standard in _standard(act):
        _check_price(model, kind, micros := _less(standard, percent), plan)
        before[f"{model} {kind}"] = prices.named(act.session, plan, model, kind, act.now)
        after[f"{model} {kind}"] = micros
        prices.set_price(act.session, plan, model, kind, micros, act.now)
    act.record(plan, before, after)
    return history(act)


@preview(discount)
def _of_discount(act: Act, plan: str, percent: int) -> Iterator[str]:
    for model, kind, standard in _standard(act):
        less, before = _shown(kind, _less(standard, percent)), _shown(kind, standard)
        yield f"{_what(kind, model)} is {less} on the plan {plan!r}, at once, and not {before}."
    yield "What was charged before keeps its price."


def _standard(act: Act) -> Iterator[tuple[str, Kind, int]]:
    for model in sorted(prices.served_models(act.session)):
        for kind in KINDS:
            if (standard := prices.named(act.session, STANDARD_PLAN, model, kind, act.now)) is not None:
                yield model, kind, standard


def _less(micros: int, percent: int) -> int:
    return micros * (100 - percent) // 100


@act(
    "price.unset",
    command="prices unset",
    route="POST /prices/unset",
    scope=OperatorScope.MONEY,
    title="Remove the price",
    done="The plan {plan} names no price of {kind} to {model} any more.",
    dangerous=True,
    word="plan",
)
def unset_price(act: Act, model: Model, kind: KindOfPrice, plan: OfPlan = STANDARD_PLAN) -> list[PriceLine]:
    """Take a price back, from now on: a plan has the standard one then. What was charged stays.

    Example: vendor prices unset icon-clip image --plan research
    """
    act.believe_clock()
    before = prices.named(act.session, plan, model, kind, act.now)
    prices.unset_price(act.session, plan, model, kind, act.now)
    act.record(_subject(plan, model, kind), {"micros": before}, {"micros": None})
    return history(act)


@preview(unset_price)
def _of_unset_price(act: Act, model: str, kind: PriceKind, plan: str = STANDARD_PLAN) -> Iterator[str]:
    standard = prices.named(act.session, STANDARD_PLAN, model, kind, act.now)
    if standard is None and kind == BATCH_PERCENT:
        standard = DEFAULT_BATCH_PERCENT
    what = _what(kind, model)
    yield f"{what[0].lower()}{what[1:]} is named by the plan {plan!r} no more."
    yield f"The standard one holds for it then{'' if standard is None else f': {_shown(kind, standard)}'}."


def _priced(found: list[PriceLine]) -> Iterator[dict[str, Any]]:
    for each in found:
        row = each.model_dump(mode="json", exclude={"price_id", "micros", "currency"})
        shown = None if each.micros is None else _shown(each.kind, each.micros)
        yield row | {"price": shown, "currency": each.currency}


@query(command="prices list", route="GET /prices", rows=_priced)
def history(
    act: Act,
    past: Annotated[bool, Term("List former prices as well: every change.", typed="--all")] = False,
) -> list[PriceLine]:
    """List all prices that hold or will hold.

    Example: vendor prices list --all
    """
    unit = currency.current(act.session)
    return [
        PriceLine(
            price_id=f"{each.plan}:{each.model}:{each.kind}:{each.since}",
            plan=each.plan,
            model=each.model,
            kind=each.kind,
            since=to_datetime(each.since) if each.since else None,
            micros=each.micros,
            currency=unit,
            state=each.state,
        )
        for each in prices.history(act.session, act.now)
        if past or (each.state != "past" and each.micros is not None)
    ]


def _previewed(found: PricePreview) -> Iterator[dict[str, Any]]:
    for each in (*found.data, found.total):
        yield each.model_dump()


def _winners(found: PricePreview) -> str:
    more = sum(each.difference_micros > 0 for each in found.data)
    less = sum(each.difference_micros < 0 for each in found.data)
    rest = len(found.data) - more - less
    return f"At these prices {more} accounts had paid more for {found.month}, {less} less, {rest} the same."


@query(
    command="prices preview",
    route="POST /prices/preview",
    rows=_previewed,
    note=_winners,
)
def preview_prices(
    act: Act,
    written: Annotated[
        str,
        Term(
            "Prices, a line MODEL KIND PRICE [PLAN] each, as `prices set` takes them; - is standard input.",
            label="Prices, a line each: MODEL KIND PRICE [PLAN]",
            typed="FILE",
            wire="prices",
            longest=price_preview.LONGEST,
            is_file=True,
        ),
    ],
    month: Annotated[
        str | None,
        Term("YYYY-MM, UTC.", label="Month (UTC)", typed="--month", none="the last one that is over"),
    ] = None,
) -> PricePreview:
    """Show what a month had cost each account at other prices, before they hold. It changes nothing.

    Who would pay most more comes first. What no line is about stays as it was charged.

    Example: vendor prices preview prices.txt --month 2026-11
    """
    wanted = price_preview.read_prices(act.session, written)
    if month is None:
        month = month_of(month_start(act.now) - 1)
    return price_preview.preview(act.session, wanted, month, act.now)


@act(
    "currency.set",
    route="POST /currency",
    scope=OperatorScope.MONEY,
    title="Set the currency",
    done="All amounts are in {code}.",
)
def name_currency(
    act: Act,
    code: Annotated[
        str,
        Term("The currency, a code of ISO 4217.", label="Code of ISO 4217", typed="CODE", wire="currency"),
    ],
) -> CurrencyName:
    """Set the currency of which all sums are millionths. It stays the same once money has moved.

    Example: vendor currency EUR
    """
    before = currency.name(act.session, code)
    if before != code:
        act.record(code, {"currency": before}, {"currency": code})
    return CurrencyName(currency=code)


@query(route="GET /currency")
def show_currency(act: Act) -> CurrencyName:
    """The currency of which all sums are millionths; `null` where nobody has named it."""
    return CurrencyName(currency=currency.current(act.session))


def publish(act: Act, model: str, wanted: UnitPrices) -> list[PriceDifference]:
    """Give a model that is served standard prices where it has none; see `prices.publish`."""
    known = model in prices.served_models(act.session)
    differences = prices.publish(act.session, model, wanted, act.now)
    if not known:
        act.session.flush()
        after = price_fields(prices.current(act.session, STANDARD_PLAN, model, act.now))
        act.record(model, None, after, action="price.publish")
    return differences


def publish_plan(act: Act, plan: str, model: str, wanted: UnitPrices) -> list[PriceDifference]:
    """Give a model these prices on a plan, where it never named any; see `prices.publish_plan`."""
    before = {kind: prices.named(act.session, plan, model, kind, act.now) for kind in wanted}
    differences = prices.publish_plan(act.session, plan, model, wanted, act.now)
    act.session.flush()
    for kind, micros in wanted.items():
        if before[kind] is None and prices.named(act.session, plan, model, kind, act.now) is not None:
            act.record(_subject(plan, model, kind), None, {"micros": micros}, action="price.publish")
    return differences


def _check_price(model: str, kind: PriceKind, micros: int, plan: str) -> None:
    if not 0 <= micros <= MOST_MICROS:
        raise UsageError(f"a price is between 0 and {money(MOST_MICROS)}, not {money(micros)}")
    if kind == BATCH_PERCENT and micros > 100:
        raise UsageError(f"bulk jobs pay up to 100 percent of a price, not {micros}")
    if not 0 < len(plan) <= 64 or not 0 < len(model) <= 255:
        raise UsageError("the name of a plan has up to 64 characters, that of a model up to 255")


def _subject(plan: str, model: str, kind: PriceKind) -> str:
    return f"{plan} {model} {kind}"


def _what(kind: PriceKind, model: str) -> str:
    return f"The percentage of bulk jobs with {model}" if kind == BATCH_PERCENT else f"One {kind} to {model}"


def _shown(kind: str, value: int) -> str:
    return f"{value}%" if kind == BATCH_PERCENT else money(value)


def _require(what: str, name: str, known: set[str]) -> None:
    if name not in known:
        there = f"only {', '.join(sorted(known))}" if known else "nor any other yet"
        raise UnknownName(f"there is no {what} {name!r} in these books, {there}; if it is meant, add --new")
