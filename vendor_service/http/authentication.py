"""The dependencies of routes that turn a request's API key into a caller."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from shared.errors import ErrorCode
from vendor_service.accounts.authentication import Authentication
from vendor_service.accounts.callers import Caller
from vendor_service.accounts.keys import Scope
from vendor_service.database.tables import ApiKey
from vendor_service.errors import APIError

Dependency = Callable[..., Awaitable[Caller]]
_Credentials = HTTPAuthorizationCredentials | None
_UNSENT = "send your API key as: Authorization: Bearer tk_..."


def requiring(authentication: Authentication, scope: Scope | None = None) -> Dependency:
    """Make the dependency that admits only requests with a good `Authorization: Bearer tk_...`.

    What it returns raises what `Authentication.identify` does.
    """
    bearer = HTTPBearer(auto_error=False, description="An API key, `tk_...`")

    async def authenticate(
        request: Request, credentials: Annotated[_Credentials, Security(bearer)]
    ) -> Caller:
        if credentials is None:
            raise APIError(ErrorCode.INVALID_API_KEY, _UNSENT)
        return await _identify(authentication, request, credentials.credentials, scope)

    return authenticate


def welcoming(authentication: Authentication) -> Callable[..., Awaitable[Caller | None]]:
    """Make the dependency of what anybody may ask: the caller, or `None` for one who sends no key.

    A key that is sent must be good; see `requiring` for what is raised otherwise.
    """
    bearer = HTTPBearer(auto_error=False, description="An API key, `tk_...`; optional here")

    async def recognise(
        request: Request, credentials: Annotated[_Credentials, Security(bearer)]
    ) -> Caller | None:
        if credentials is None:
            return None
        return await _identify(authentication, request, credentials.credentials, None)

    return recognise


async def buyer_of(request: Request, authentication: Authentication) -> Caller:
    """Identify the buyer. A key that was good a moment ago is checked once more when the price is held.

    Raises:
        APIError: as of `Authentication.identify`.
    """
    scheme, _, api_key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not api_key:
        raise APIError(ErrorCode.INVALID_API_KEY, _UNSENT)
    caller = authentication.recall(api_key)
    if caller is None:
        return await _identify(authentication, request, api_key, Scope.EMBED)
    request.state.account_id, request.state.key_id = caller.account_id, caller.key_id
    return caller


async def _identify(
    authentication: Authentication, request: Request, api_key: str, scope: Scope | None
) -> Caller:
    def name(key: ApiKey) -> None:  # for the log, which names them in refusals as well
        request.state.account_id, request.state.key_id = key.account_id, key.id

    return await asyncio.to_thread(authentication.identify, api_key, scope, name)
