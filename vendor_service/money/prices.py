"""Prices: by plan, model and kind, each from a moment on; a change never touches what was charged before."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Select, bindparam, select
from sqlalchemy.orm import Session

from shared.kinds import KINDS, Kind, UnitPrices
from vendor_service.database.session import take_turns
from vendor_service.database.tables import STANDARD_PLAN, Price
from vendor_service.errors import OperatorError

# What one of a kind costs where nobody has said anything else; nothing where it is not named here.
DEFAULT: UnitPrices = {"image": 100, "text": 20}
# Beside the prices of queries: what bulk jobs pay of them, in percent, and what that is by default.
BATCH_PERCENT: Literal["batch-percent"] = "batch-percent"
DEFAULT_BATCH_PERCENT = 50
PriceKind = Literal[Kind, "batch-percent"]
# In the place of a price: from this moment on the plan names none, and the standard one holds.
_OF_PLAN = (
    select(Price.plan, Price.kind, Price.effective_at, Price.micros)
    .where(Price.plan.in_(bindparam("plans", expanding=True)), Price.model == bindparam("model"))
    .order_by(Price.effective_at)
)
_NONE = -1

PriceState = Literal["past", "in force", "to come"]


@dataclass(frozen=True)
class PriceDifference:
    """A price that was asked for at a start, and the other one that holds; `None` where it was withdrawn."""

    kind: Kind
    asked_micros: int
    holding_micros: int | None
    plan: str = STANDARD_PLAN


@dataclass(frozen=True)
class PriceFact:
    """One line of the history of prices; `micros` is `None` where a plan's price was withdrawn."""

    plan: str
    model: str
    kind: str
    since: int
    micros: int | None
    state: PriceState


def publish(session: Session, model: str, wanted: UnitPrices, now: int) -> list[PriceDifference]:
    """Give a model standard prices where it has none: these, or the defaults for kinds that are not named.

    Prices that hold are left as they are, so that a start changes none; where others are asked for, it says
    so.
    """
    take_turns(session.connection(), "publish prices")
    differences = []
    for kind in KINDS:
        asked, holding = wanted.get(kind), _current(session, STANDARD_PLAN, model, kind, now)
        if session.get(Price, (STANDARD_PLAN, model, kind, 0)) is None:
            # The first price has always held, so that a clock that steps back finds one too.
            first = _first(session, model, kind, now)
            default = DEFAULT.get(kind, 0) if asked is None else asked
            set_price(session, STANDARD_PLAN, model, kind, default if first is None else first, 0)
        if asked is not None and holding is not None and holding != asked:
            differences.append(PriceDifference(kind, asked, holding))
    return differences


def publish_plan(
    session: Session, plan: str, model: str, wanted: UnitPrices, now: int
) -> list[PriceDifference]:
    """Give a model these prices on a plan from now on, where it never named any; else as `publish` does."""
    take_turns(session.connection(), "publish prices")
    differences = []
    for kind, asked in wanted.items():
        holding = _current(session, plan, model, kind, now)
        if session.scalar(_of(plan, model, kind).limit(1)) is None:
            set_price(session, plan, model, kind, asked, now)
        elif holding is not None and holding != asked:
            differences.append(PriceDifference(kind, asked, None if holding == _NONE else holding, plan))
    return differences


def set_price(session: Session, plan: str, model: str, kind: PriceKind, micros: int, since: int) -> None:
    """Let a price, or the percent of bulk jobs, hold from `since` on, until a later one does."""
    session.merge(Price(plan=plan, model=model, kind=kind, effective_at=since, micros=micros))


def unset_price(session: Session, plan: str, model: str, kind: PriceKind, now: int) -> None:
    """Let a plan name no price from now on, so that the standard one holds; what is to come is dropped.

    What was charged stays, and the history with it. A standard price is dropped altogether, which only one of
    a model can be that was never served here.

    Raises:
        OperatorError: there is no such price, or it is a standard one of a model that was served.
    """
    rows = list(session.scalars(_of(plan, model, kind)))
    to_come = [row for row in rows if row.effective_at > now]
    holding = max(
        (row for row in rows if row.effective_at <= now), key=lambda row: row.effective_at, default=None
    )
    if not to_come and (holding is None or holding.micros == _NONE):
        raise OperatorError(f"the plan {plan!r} has no price of {model} {kind}; see: vendor prices list")
    is_only = plan == STANDARD_PLAN and kind != BATCH_PERCENT
    if is_only and model in served_models(session):
        raise OperatorError(
            f"{model} is sold, and what is sold has a standard price; set another with: vendor prices set"
        )
    for row in rows if is_only else to_come:
        session.delete(row)
    if not is_only and holding is not None:
        set_price(session, plan, model, kind, _NONE, now)
    session.info.pop("prices", None)


def current(session: Session, plan: str, model: str, now: int) -> UnitPrices:
    """The prices that hold now: the plan's, or where it names none the standard ones (published before)."""
    newest = {
        (of_plan, kind): micros
        for of_plan, kind, since, micros in _history(session, plan, model)
        if since <= now
    }
    own = {kind: micros for (of_plan, kind), micros in newest.items() if of_plan == plan and micros != _NONE}
    return {kind: own[kind] if kind in own else newest[STANDARD_PLAN, kind] for kind in KINDS}


def batch(session: Session, plan: str, model: str, now: int) -> UnitPrices:
    """The prices of bulk jobs: the plan's percent of its others, rounded up to a whole micro-unit."""
    price = current(session, plan, model, now)
    newest = {
        of_plan: micros
        for of_plan, kind, since, micros in _history(session, plan, model)
        if since <= now and kind == BATCH_PERCENT
    }
    named = [newest[each] for each in (plan, STANDARD_PLAN) if newest.get(each, _NONE) != _NONE]
    percent = named[0] if named else DEFAULT_BATCH_PERCENT
    return {kind: part_of(micros, percent) for kind, micros in price.items()}


def part_of(micros: int, percent: int) -> int:
    """So many percent of a price, rounded up."""
    return -(-micros * percent // 100)


def _history(session: Session, plan: str, model: str) -> Sequence[tuple[str, str, int, int]]:
    # All of it, oldest first, read once a transaction: every order in it has a moment of its own.
    known: dict[tuple[str, str], list[tuple[str, str, int, int]]] = session.info.setdefault("prices", {})
    if (plan, model) not in known:
        if session.new or session.deleted:  # a price may be among them; what else was changed can wait
            session.flush()
        found = session.connection().execute(_OF_PLAN, {"plans": [plan, STANDARD_PLAN], "model": model})
        known[plan, model] = [(of_plan, kind, since, micros) for of_plan, kind, since, micros in found]
    return known[plan, model]


def named(session: Session, plan: str, model: str, kind: PriceKind, now: int) -> int | None:
    """The price that the plan itself names now; `None` where it names none."""
    micros = _current(session, plan, model, kind, now)
    return None if micros == _NONE else micros


def history(session: Session, now: int) -> list[PriceFact]:
    """All prices that hold, held or will hold, by plan, model and kind, in the order of time."""
    rows = list(session.scalars(select(Price).order_by(*Price.__table__.primary_key)))
    newest = {(row.plan, row.model, row.kind): row.effective_at for row in rows if row.effective_at <= now}
    return [
        PriceFact(
            row.plan,
            row.model,
            row.kind,
            row.effective_at,
            None if row.micros == _NONE else row.micros,
            _state(row, newest, now),
        )
        for row in rows
    ]


def plans(session: Session, now: int) -> set[str]:
    """The plans that there are: the standard one, and each one that names a price now or will."""
    facts = history(session, now)
    return {STANDARD_PLAN, *(each.plan for each in facts if each.micros is not None and each.state != "past")}


def served_models(session: Session) -> set[str]:
    """The models that were served on these books: each was given a standard price that has always held."""
    first = select(Price.model).where(Price.plan == STANDARD_PLAN, Price.effective_at == 0)
    return set(session.scalars(first.distinct()))


def _state(row: Price, newest: dict[tuple[str, str, str], int], now: int) -> PriceState:
    if row.effective_at > now:
        return "to come"
    return "in force" if row.effective_at == newest[row.plan, row.model, row.kind] else "past"


def _of(plan: str, model: str, kind: PriceKind) -> Select[Any]:
    return select(Price).where(Price.plan == plan, Price.model == model, Price.kind == kind)


def _first(session: Session, model: str, kind: Kind, now: int) -> int | None:
    earliest = _of(STANDARD_PLAN, model, kind).where(Price.effective_at <= now).order_by(Price.effective_at)
    row = session.scalars(earliest.limit(1)).first()
    return None if row is None else row.micros


def _current(session: Session, plan: str, model: str, kind: PriceKind, now: int) -> int | None:
    newest = _of(plan, model, kind).where(Price.effective_at <= now).order_by(Price.effective_at.desc())
    row = session.scalars(newest.limit(1)).first()
    return None if row is None else row.micros
