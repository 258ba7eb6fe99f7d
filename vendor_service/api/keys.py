"""`/v1/keys`: a customer's own keys, for a key with the scope `admin`; of its project, if it has one."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from sqlalchemy.orm import Session

from shared.http.body import read_model
from shared.keys import KeyInfo, KeyList, NewKey, NewSecret
from vendor_service.accounts import keys
from vendor_service.accounts.authentication import Authentication, Caller
from vendor_service.acts import keys as acts
from vendor_service.acts import own_keys
from vendor_service.acts.act import Act
from vendor_service.audit.actors import customer_key
from vendor_service.clock import Clock, from_datetime
from vendor_service.database.session import Database
from vendor_service.database.tables import Account
from vendor_service.http.account_threads import AccountThreads
from vendor_service.http.authentication import requiring

_LARGEST_PAGE = 100


def keys_router(
    database: Database,
    clock: Clock,
    authentication: Authentication,
    threads: AccountThreads,
    *,
    trust_clock: bool,
) -> APIRouter:
    """The routes; all of them need the scope `admin`."""
    router = APIRouter(prefix="/v1/keys", tags=["keys"])
    admin = Depends(requiring(authentication, keys.Scope.ADMIN))

    def act_in(session: Session, caller: Caller) -> Act:
        return Act(session, customer_key(caller.key_id), clock, trust_clock=trust_clock)

    @router.get("")
    async def list_keys(
        caller: Annotated[Caller, admin],
        after: Annotated[str | None, Query(description="the last `key_id` seen")] = None,
        limit: Annotated[int, Query(ge=1, le=_LARGEST_PAGE)] = _LARGEST_PAGE,
    ) -> KeyList:
        """Keys of this account, or of the asking key's project, behind `after`, the oldest first."""

        def read() -> KeyList:
            with database.read() as session:
                account = session.get_one(Account, caller.account_id)
                found, more = own_keys.page(session, caller.account_id, caller.key, after, limit)
                return KeyList(data=[keys.public(key, account, clock()) for key in found], has_more=more)

        return await threads.read(caller.account_id, read)

    # The route reads the body itself, once it knows the caller; this is for the OpenAPI document.
    schema = {"content": {"application/json": {"schema": NewKey.model_json_schema()}}}

    @router.post("", status_code=201, openapi_extra={"requestBody": {"required": True, **schema}})
    async def create_key(request: Request, caller: Annotated[Caller, admin]) -> NewSecret:
        """Issue a key, shown this once. A key that has limits or an end of its own issues none."""
        asked = await read_model(request, NewKey)

        def create() -> NewSecret:
            with database.write() as session:
                return _create(act_in(session, caller), caller, asked)

        return await threads.do(caller.account_id, create)

    @router.post("/{key_id}/rotate")
    async def rotate_key(
        key_id: str,
        caller: Annotated[Caller, admin],
        grace_seconds: Annotated[int, Query(ge=0, le=keys.LONGEST_GRACE_SECONDS)] = 0,
    ) -> NewSecret:
        """Give a key another secret; the present one is good for `grace_seconds` more.

        A key that has limits or an end of its own rotates itself alone. One that expired, or whose project
        was archived, gets no other secret.
        """

        def rotate() -> NewSecret:
            with database.write() as session:
                key = own_keys.find(session, caller.account_id, caller.key, key_id)
                issued = own_keys.rotate(act_in(session, caller), caller.key, key, grace_seconds)
                return NewSecret(key_id=issued.key_id, api_key=issued.api_key)

        return await threads.do(caller.account_id, rotate)

    @router.post("/{key_id}/revoke")
    async def revoke_key(key_id: str, caller: Annotated[Caller, admin]) -> KeyInfo:
        """End a key at once."""

        def revoke() -> KeyInfo:
            with database.write() as session:
                own_keys.find(session, caller.account_id, caller.key, key_id)
                return acts.revoke(act_in(session, caller), key_id)

        return await threads.do(caller.account_id, revoke)

    return router


def _create(act: Act, caller: Caller, asked: NewKey) -> NewSecret:
    given = asked.model_dump(exclude={"project", "scopes", "expires_at"})
    terms = keys.KeyTerms(
        scopes=frozenset(map(keys.Scope, asked.scopes)),
        expires_at=None if asked.expires_at is None else from_datetime(asked.expires_at),
        **given,
    )
    issued = own_keys.issue(act, caller.account.name, caller.key, terms, asked.project)
    return NewSecret(key_id=issued.key_id, api_key=issued.api_key)
