"""`GET /.well-known/jwks.json`: the keys by which anybody can check what this vendor has signed."""

import asyncio

from fastapi import APIRouter, Response

from shared.receipts import KEYS_PATH, KEYS_TYPE, KeysClaims, KeySet, PublicKey, Signs
from vendor_service.clock import SECOND, Clock
from vendor_service.database.session import Database
from vendor_service.money import signing


def signing_router(database: Database, clock: Clock, signer: Signs) -> APIRouter:
    """The route; it needs no key."""
    router = APIRouter(tags=["receipts"])

    @router.get(KEYS_PATH)
    async def keys(response: Response) -> KeySet:
        """The public keys (RFC 7517) of all receipts, those of former keys included; and the same, signed."""
        # A copy that lacks the newest key would make good receipts look bad.
        response.headers["cache-control"] = "no-cache"

        def read() -> KeySet:
            with database.read() as session:
                every = signing.every_key(session)
            good = [PublicKey(kid=key.kid, x=key.x) for key in every if key.withdrawn is None]
            signed = signer.sign(KEYS_TYPE, KeysClaims(iat=clock() // SECOND, keys=every))
            return KeySet(keys=good, signed=signed)

        return await asyncio.to_thread(read)

    return router
