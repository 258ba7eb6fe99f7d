"""The models that a vendor serves."""

from collections.abc import Iterator
from datetime import datetime

from pydantic import BaseModel

from shared.errors import ErrorCode
from vendor_service.acts.act import Act, ActContext, OperatorScope
from vendor_service.acts.declaration import act, preview
from vendor_service.clock import to_datetime
from vendor_service.errors import APIError


class Reload(BaseModel):
    """When a vendor was asked to read its file of models again. Its log says what became of it."""

    asked_at: datetime


@act(
    "models.reload",
    route="POST /models/reload",
    status=202,
    scope=OperatorScope.ALL,
    title="Reload the file of models",
    done="The vendor reads its file of models again; its log says what became of it.",
    transaction=False,
)
def reload(context: ActContext) -> Reload:
    """Have the vendor read its file of models again; its log says what became of it."""
    if context.reload_models is None:
        raise APIError(
            ErrorCode.CONFLICT, "this vendor serves no file of models: start it with --models FILE"
        )
    with context.write() as act:
        act.record("models", None, None)
        asked = Reload(asked_at=to_datetime(act.now))
    context.reload_models()
    return asked


@preview(reload)
def _of_reload(act: Act) -> Iterator[str]:
    yield "The vendor beside this process reads its file of models again, as at SIGHUP."
    yield "What it served before, it serves until the others are loaded."
