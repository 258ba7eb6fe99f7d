"""Notices of models: receivers are told once of each date at which a model is, or will be, deprecated."""

from datetime import datetime

from sqlalchemy.orm import Session

from vendor_service.clock import from_datetime
from vendor_service.database.session import take_turns
from vendor_service.database.tables import ModelNotice
from vendor_service.webhooks import events
from vendor_service.webhooks.events import EventKind


def tell(
    session: Session, model: str, deprecated_at: datetime | None, sunset_at: datetime | None, now: int
) -> None:
    """Write an event if a model's dates have changed since the last one.

    What was told is noted in the same transaction, so that each change is told once, by whichever of several
    processes. A model that is deprecated no more is no news.
    """
    if deprecated_at is None:
        return
    take_turns(session.connection(), "model notices")
    dates = (from_datetime(deprecated_at), None if sunset_at is None else from_datetime(sunset_at))
    told = session.get(ModelNotice, model)
    if told is not None and (told.deprecated_at, told.sunset_at) == dates:
        return
    session.merge(ModelNotice(model=model, deprecated_at=dates[0], sunset_at=dates[1]))
    data = {
        "model": model,
        "deprecated_at": deprecated_at.isoformat(),
        "sunset_at": None if sunset_at is None else sunset_at.isoformat(),
    }
    events.emit(session, EventKind.MODEL_DEPRECATED, None, data, now)
