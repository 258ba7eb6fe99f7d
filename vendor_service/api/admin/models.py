"""`/admin/models/reload`: the vendor reads its file of models again, as at SIGHUP."""

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter

from shared.errors import ErrorCode
from vendor_service.acts import models
from vendor_service.acts.authentication import Operator
from vendor_service.acts.models import Reload
from vendor_service.acts.tokens import OperatorScope
from vendor_service.api.admin.desk import Desk
from vendor_service.errors import APIError


def models_router(desk: Desk, reload: Callable[[], None] | None) -> APIRouter:
    """The route, which takes the scope `all`; `reload` asks the vendor, and is `None` without such a file."""
    router = APIRouter(prefix="/admin/models", tags=["models"])
    may_change = desk.requiring(OperatorScope.ALL)

    @router.post("/reload", status_code=202)
    async def ask(operator: Annotated[Operator, may_change]) -> Reload:
        """Have the vendor read its file of models again; its log says what became of it."""
        if reload is None:
            message = "this vendor serves no file of models: start it with --models FILE"
            raise APIError(ErrorCode.CONFLICT, message)
        asked = await desk.act(operator, models.reload)
        reload()
        return asked

    return router
