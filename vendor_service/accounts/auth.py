"""Who is asking: the one dependency that turns an API key into a caller."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from shared.errors import ErrorCode
from vendor_service.accounts.keys import verify_key
from vendor_service.database.session import Database
from vendor_service.database.tables import Account
from vendor_service.errors import Refusal


@dataclass(frozen=True)
class Caller:
    """The account that asks, and the key with which it does."""

    account_id: str
    key_id: str


def authentication(database: Database) -> Callable[..., Awaitable[Caller]]:
    """Make the dependency that admits only requests with a good `Authorization: Bearer tk_...`.

    What it returns raises `Refusal`: `invalid_api_key`, `key_revoked` or `account_suspended`.
    """
    bearer = HTTPBearer(auto_error=False, description="An API key, `tk_...`")

    async def authenticate(
        credentials: Annotated[HTTPAuthorizationCredentials | None, Security(bearer)],
    ) -> Caller:
        if credentials is None:
            raise Refusal(ErrorCode.INVALID_API_KEY, "send your API key as: Authorization: Bearer tk_...")
        return await asyncio.to_thread(_identify, database, credentials.credentials)

    return authenticate


def _identify(database: Database, api_key: str) -> Caller:
    with database.read() as session:
        key = verify_key(session, api_key)
        if key is None:
            raise Refusal(
                ErrorCode.INVALID_API_KEY, "this API key is not known here; check that it is complete"
            )
        if key.revoked_at is not None:
            raise Refusal(ErrorCode.KEY_REVOKED, "this API key was revoked; ask the vendor for a new one")
        account = session.get_one(Account, key.account_id)
        if account.status != "active":
            raise Refusal(ErrorCode.ACCOUNT_SUSPENDED, "this account is suspended; ask the vendor why")
        return Caller(account.id, key.id)
