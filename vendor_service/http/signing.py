"""`GET /.well-known/jwks.json`: the keys by which anybody can check what this vendor has signed."""

import asyncio

from fastapi import APIRouter, Response

from shared.receipts import KEYS_PATH, KeySet
from vendor_service.database.session import Database
from vendor_service.money import signing


def signing_router(database: Database) -> APIRouter:
    """The route; it needs no key."""
    router = APIRouter(tags=["receipts"])

    @router.get(KEYS_PATH)
    async def keys(response: Response) -> KeySet:
        """The public keys (RFC 7517) of all receipts, those of former keys included."""
        # A copy that lacks the newest key would make good receipts look bad.
        response.headers["cache-control"] = "no-cache"

        def read() -> KeySet:
            with database.read() as session:
                return KeySet(keys=signing.published(session))

        return await asyncio.to_thread(read)

    return router
