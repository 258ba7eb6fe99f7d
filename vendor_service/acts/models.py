"""The act of having a vendor read its file of models again."""

from datetime import datetime

from pydantic import BaseModel

from vendor_service.acts.act import Act
from vendor_service.clock import to_datetime


class Reload(BaseModel):
    """When a vendor was asked to read its file of models again. Its log says what became of it."""

    asked_at: datetime


def reload(act: Act) -> Reload:
    """Record that the vendor is asked; whoever asks it does so once this is committed."""
    act.record("models.reload", "models", None, None)
    return Reload(asked_at=to_datetime(act.now))
