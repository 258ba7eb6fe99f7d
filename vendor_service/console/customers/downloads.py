"""The files of bulk jobs, sent to the browser of who may buy, as `/v1/files` sends them."""

import asyncio
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from shared.errors import APIError, ErrorCode
from shared.http.capacity import Capacity
from vendor_service.batches.services import BatchServices
from vendor_service.console.customers.visitor import SignedInCustomer
from vendor_service.console.site import SignedOut, Site
from vendor_service.errors import OperatorError
from vendor_service.http.files import streamed


@dataclass(frozen=True)
class Downloads:
    """The links to files, and what is behind them."""

    site: Site[SignedInCustomer]
    jobs: BatchServices
    capacity: Capacity

    async def answer(self, request: Request) -> Response:
        """Send a file; one that is not there, or not theirs, is the page of an error."""
        who: SignedInCustomer | None = None
        try:
            who = visitor = await self.site.enter(request)
            self.site.limit(visitor, 1)
            _require_buying(visitor)
            file_id = request.path_params["file_id"]
            response = await streamed(self.jobs, self.capacity, request, visitor.view, file_id)
        except SignedOut:
            return self.site.answers.to_sign_in(request)
        except (APIError, OperatorError) as error:
            return await asyncio.to_thread(self.site.answers.failed, request, error, who, "/batches")
        # Its own name is the customer's; the id names it as well, and can be written into a header.
        response.headers["content-disposition"] = f'attachment; filename="{file_id}.jsonl"'
        response.headers["cache-control"] = "no-store"
        response.headers["x-content-type-options"] = "nosniff"
        return response


def _require_buying(who: SignedInCustomer) -> None:
    if who.account.status != "active":
        raise APIError(ErrorCode.ACCOUNT_SUSPENDED, "this account is suspended, and its files are not sent")
    if not who.may_buy:
        message = "files are sent to who may buy; sign in with a key that has the scope embed"
        raise APIError(ErrorCode.INSUFFICIENT_SCOPE, message)
