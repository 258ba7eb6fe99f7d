"""Prices: by plan, model and kind, each from a moment on; a change never touches what was charged before."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.embeddings import Kind, Prices
from vendor_service.database.session import take_turns
from vendor_service.database.tables import STANDARD_PLAN, Price

# What a query costs where nobody has said anything else.
DEFAULT: dict[Kind, int] = {"image": 100, "text": 20}


def publish(
    session: Session, model: str, image_micros: int | None, text_micros: int | None, now: int
) -> None:
    """Let these standard prices hold from now on; `None` leaves a price as it is, or at its default."""
    take_turns(session.connection(), "publish prices")
    wanted: dict[Kind, int | None] = {"image": image_micros, "text": text_micros}
    for kind, micros in wanted.items():
        before = _current(session, STANDARD_PLAN, model, kind, now)
        if before is None:
            # The first price has always held, so that a clock that steps back finds one too.
            set_price(session, STANDARD_PLAN, model, kind, DEFAULT[kind] if micros is None else micros, 0)
        elif micros is not None and micros != before:
            set_price(session, STANDARD_PLAN, model, kind, micros, now)


def set_price(session: Session, plan: str, model: str, kind: Kind, micros: int, since: int) -> None:
    """Let a price hold from `since` on, until a later one does."""
    session.merge(Price(plan=plan, model=model, kind=kind, effective_at=since, micros=micros))


def current(session: Session, plan: str, model: str, now: int) -> Prices:
    """The prices that hold now: the plan's, or where it names none the standard ones (published before)."""
    newest = {
        (of_plan, kind): micros
        for of_plan, kind, since, micros in _history(session, plan, model)
        if since <= now
    }
    image, text = (newest.get((plan, kind), newest[STANDARD_PLAN, kind]) for kind in ("image", "text"))
    return Prices(image_micros=image, text_micros=text)


def _history(session: Session, plan: str, model: str) -> Sequence[tuple[str, str, int, int]]:
    # All of it, oldest first, read once a transaction: every order in it has a moment of its own.
    known: dict[tuple[str, str], list[tuple[str, str, int, int]]] = session.info.setdefault("prices", {})
    if (plan, model) not in known:
        rows = session.execute(
            select(Price.plan, Price.kind, Price.effective_at, Price.micros)
            .where(Price.plan.in_({plan, STANDARD_PLAN}), Price.model == model)
            .order_by(Price.effective_at)
        )
        known[plan, model] = [(of_plan, kind, since, micros) for of_plan, kind, since, micros in rows]
    return known[plan, model]


def list_prices(session: Session) -> list[Price]:
    """All prices that hold, held or will hold, by plan, model and kind, in the order of time."""
    return list(session.scalars(select(Price).order_by(*Price.__table__.primary_key)))


def plans(session: Session) -> set[str]:
    """The plans that there are: the standard one, and each one that has a price."""
    return {STANDARD_PLAN, *session.scalars(select(Price.plan).distinct())}


def _current(session: Session, plan: str, model: str, kind: Kind, now: int) -> int | None:
    newest = (
        select(Price.micros)
        .where(Price.plan == plan, Price.model == model, Price.kind == kind, Price.effective_at <= now)
        .order_by(Price.effective_at.desc())
        .limit(1)
    )
    return session.scalar(newest)
