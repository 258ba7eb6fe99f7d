"""Prices: by model and kind, each from a moment on; a change never touches what was charged before."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.embeddings import Kind, Prices
from vendor_service.database.tables import Price


def publish(session: Session, model: str, prices: Prices, now: int) -> None:
    """Let these prices hold from now on; prices that hold already are left as they are."""
    wanted: dict[Kind, int] = {"image": prices.image_micros, "text": prices.text_micros}
    for kind, micros in wanted.items():
        before = _current(session, model, kind, now)
        if before != micros:
            # The first price has always held, so that a clock that steps back finds one too.
            since = 0 if before is None else now
            session.merge(Price(model=model, kind=kind, effective_at=since, micros=micros))


def current(session: Session, model: str, now: int) -> Prices:
    """The prices that hold now; the model's must have been published."""
    image, text = _current(session, model, "image", now), _current(session, model, "text", now)
    assert image is not None
    assert text is not None
    return Prices(image_micros=image, text_micros=text)


def _current(session: Session, model: str, kind: Kind, now: int) -> int | None:
    newest = (
        select(Price.micros)
        .where(Price.model == model, Price.kind == kind, Price.effective_at <= now)
        .order_by(Price.effective_at.desc())
        .limit(1)
    )
    return session.scalar(newest)
