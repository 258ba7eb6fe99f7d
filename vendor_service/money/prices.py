"""Prices: by plan, model and kind, each from a moment on; a change never touches what was charged before."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from shared.kinds import KINDS, Kind, UnitPrices
from vendor_service.database.session import take_turns
from vendor_service.database.tables import STANDARD_PLAN, Price
from vendor_service.errors import OperatorError

# The price of one of a kind where nobody has said anything else; nothing where it is not named here.
DEFAULT: UnitPrices = {"image": 100, "text": 20}
# Beside the prices of queries: what bulk jobs pay of them, in percent, and what that is by default.
BATCH_PERCENT: Literal["batch-percent"] = "batch-percent"
DEFAULT_BATCH_PERCENT = 50
PriceKind = Literal[Kind, "batch-percent"]
# In the place of a price: from this moment on the plan names none, and the standard one holds.
_NONE = -1
_OF_PLAN = (
    select(Price.plan, Price.kind, Price.effective_at, Price.micros)
    .where(Price.plan.in_(bindparam("plans", expanding=True)), Price.model == bindparam("model"))
    .order_by(Price.effective_at)
)

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

    Prices that hold are left as they are, so that a start changes none; the differences are told.
    """
    take_turns(session.connection(), "publish prices")
    differences = []
    for kind in KINDS:
        asked, holding = wanted.get(kind), named(session, STANDARD_PLAN, model, kind, now)
        until_now = [each for each in _history(session, STANDARD_PLAN, model, kind) if each[0] <= now]
        if not until_now or until_now[0][0] > 0:
            # The first price has always held, so that a clock that steps back finds one too.
            first = until_now[0][1] if until_now else DEFAULT.get(kind, 0) if asked is None else asked
            set_price(session, STANDARD_PLAN, model, kind, first, 0)
        if asked is not None and holding not in (None, asked):
            differences.append(PriceDifference(kind, asked, holding))
    return differences


def publish_plan(
    session: Session, plan: str, model: str, wanted: UnitPrices, now: int
) -> list[PriceDifference]:
    """Give a model these prices on a plan from now on, where it never named any; else as `publish` does."""
    take_turns(session.connection(), "publish prices")
    differences = []
    for kind, asked in wanted.items():
        history = _history(session, plan, model, kind)
        holding = named(session, plan, model, kind, now)
        if not history:
            set_price(session, plan, model, kind, asked, now)
        elif history[0][0] <= now and holding != asked:
            differences.append(PriceDifference(kind, asked, holding, plan))
    return differences


def set_price(session: Session, plan: str, model: str, kind: PriceKind, micros: int, since: int) -> None:
    """Let a price, or the percent of bulk jobs, hold from `since` on, until a later one does."""
    session.merge(Price(plan=plan, model=model, kind=kind, effective_at=since, micros=micros))
    _forget(session)


def unset_price(session: Session, plan: str, model: str, kind: PriceKind, now: int) -> None:
    """Let a plan name no price from now on, so that the standard one holds; what is to come is dropped.

    What was charged stays, and the history with it. A standard price is dropped altogether, which only one of
    a model can be that was never served here.

    Raises:
        OperatorError: there is no such price, or it is a standard one of a model that was served.
    """
    of_kind = (Price.plan == plan, Price.model == model, Price.kind == kind)
    rows = session.scalars(select(Price).where(*of_kind).order_by(Price.effective_at)).all()
    to_come = [row for row in rows if row.effective_at > now]
    holds = named(session, plan, model, kind, now) is not None
    if not to_come and not holds:
        raise OperatorError(f"the plan {plan!r} has no price of {model} {kind}; see: `vendor prices list`")
    is_only = plan == STANDARD_PLAN and kind != BATCH_PERCENT
    if is_only and model in served_models(session):
        raise OperatorError(
            f"{model} is sold, and what is sold has a standard price; set another with: "
            f"`vendor prices set {model} {kind} PRICE`"
        )
    for row in rows if is_only else to_come:
        session.delete(row)
    if not is_only and len(to_come) < len(rows):
        set_price(session, plan, model, kind, _NONE, now)
    _forget(session)


def current(session: Session, plan: str, model: str, now: int) -> UnitPrices:
    """The prices that hold now: the plan's, or where it names none the standard ones (published before)."""
    return {kind: _of_plan_or_standard(session, plan, model, kind, now, None) for kind in KINDS}


def batch(session: Session, plan: str, model: str, now: int) -> UnitPrices:
    """The prices of bulk jobs: the plan's percent of its others, rounded up to a whole micro-unit."""
    percent = _of_plan_or_standard(session, plan, model, BATCH_PERCENT, now, DEFAULT_BATCH_PERCENT)
    return {kind: part_of(micros, percent) for kind, micros in current(session, plan, model, now).items()}


def part_of(micros: int, percent: int) -> int:
    """A percentage of a price, rounded up."""
    return -(-micros * percent // 100)


def named(session: Session, plan: str, model: str, kind: PriceKind, now: int) -> int | None:
    """The price that the plan itself names now; `None` where it names none."""
    until_now = [micros for since, micros in _history(session, plan, model, kind) if since <= now]
    return until_now[-1] if until_now and until_now[-1] != _NONE else None


def history(session: Session, now: int) -> list[PriceFact]:
    """All prices that hold, held or will hold, by plan, model and kind, in the order of time."""
    rows = list(session.scalars(select(Price).order_by(*Price.__table__.primary_key)))
    newest = {(row.plan, row.model, row.kind): row.effective_at for row in rows if row.effective_at <= now}

    def state(row: Price) -> PriceState:
        if row.effective_at > now:
            return "to come"
        return "in force" if row.effective_at == newest[row.plan, row.model, row.kind] else "past"

    return [
        PriceFact(
            row.plan,
            row.model,
            row.kind,
            row.effective_at,
            None if row.micros == _NONE else row.micros,
            state(row),
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


def _of_plan_or_standard(
    session: Session, plan: str, model: str, kind: PriceKind, now: int, default: int | None
) -> int:
    for each in (plan, STANDARD_PLAN):
        if (micros := named(session, each, model, kind, now)) is not None:
            return micros
    assert default is not None, f"{model} has no standard price of {kind}"
    return default


def _history(session: Session, plan: str, model: str, kind: PriceKind) -> Sequence[tuple[int, int]]:
    """All prices of a plan, with the moments from which they hold, oldest first.

    They are read once a transaction: every order in it has a moment of its own.
    """
    known: dict[tuple[str, str], dict[str, list[tuple[int, int]]]] = session.info.setdefault("prices", {})
    if (plan, model) not in known:
        known |= {(each, model): {} for each in (plan, STANDARD_PLAN)}
        found = session.connection().execute(_OF_PLAN, {"plans": [plan, STANDARD_PLAN], "model": model})
        for of_plan, of_kind, since, micros in found:
            known[of_plan, model].setdefault(of_kind, []).append((since, micros))
    return known[plan, model].get(kind, [])


def _forget(session: Session) -> None:
    session.flush()
    session.info.pop("prices", None)
