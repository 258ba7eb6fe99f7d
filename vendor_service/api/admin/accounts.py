"""`/admin/accounts` and `/admin/keys`: customers, what is agreed with them, and their keys."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from shared.billing import AccountStatus, QuotaPeriod
from shared.errors import ErrorCode
from shared.http.body import read_model
from shared.keys import KeyInfo, KeyList, NewSecret
from shared.moments import Moment
from shared.projects import DEFAULT_PROJECT
from vendor_service.accounts import keys
from vendor_service.accounts.accounts import Terms, find_account, list_accounts
from vendor_service.accounts.keys import OWN_LIMITS, KeyTerms, Scope
from vendor_service.acts import accounts as acts
from vendor_service.acts import keys as key_acts
from vendor_service.acts import own_keys
from vendor_service.acts.authentication import Operator
from vendor_service.acts.tokens import OperatorScope
from vendor_service.api.admin.desk import Body, Desk, only_id, taking
from vendor_service.clock import from_datetime
from vendor_service.database.tables import STANDARD_PLAN
from vendor_service.errors import APIError
from vendor_service.extraction.report import Extraction, extraction
from vendor_service.money.repair import Repair
from vendor_service.money.usage import account_status

Grace = Annotated[int, Query(ge=0, le=keys.LONGEST_GRACE_SECONDS, description="Seconds.")]


class NewAccount(Body):
    """An account to be opened; `null` is no limit, and for `credit_micros` an invoiced account."""

    name: str
    quota: int | None = None
    quota_period: QuotaPeriod = "month"
    spend_limit_micros: int | None = None
    credit_micros: int | None = None
    queries_per_second: int | None = None
    coverage_limit: int | None = None
    plan: str = STANDARD_PLAN


class AccountChange(Body):
    """What is agreed from now on: the fields that are sent; `null` is no limit."""

    quota: int | None = None
    spend_limit_micros: int | None = None
    queries_per_second: int | None = None
    coverage_limit: int | None = None
    plan: str = STANDARD_PLAN
    status: Literal["active", "suspended"] = "active"


class AccountPage(BaseModel):
    """Accounts by name; the name to ask behind for the next ones, `null` where there are no more."""

    data: list[AccountStatus]
    next_after: str | None


class ExtractionReport(BaseModel):
    """A row for each model."""

    data: list[Extraction]


class KeyLimits(Body):
    """A key's limits and its end; `null` is only the account's limit, or no end."""

    quota: int | None = None
    spend_limit_micros: int | None = None
    queries_per_second: int | None = None
    concurrency: int | None = None
    expires_at: Moment | None = None

    def given(self) -> dict[str, int | None]:
        """Those that were sent."""
        sent = {name: getattr(self, name) for name in OWN_LIMITS if name in self.model_fields_set}
        end = sent.get("expires_at")
        return sent if end is None else sent | {"expires_at": from_datetime(end)}


class NewAccountKey(KeyLimits):
    """A key to be issued."""

    label: Annotated[str, Field(max_length=255)] = ""
    scopes: list[Literal["embed", "usage:read", "admin"]] = Field(default=["embed", "usage:read"])
    project: str = DEFAULT_PROJECT


def accounts_router(desk: Desk) -> APIRouter:
    """The routes of accounts; those that change something take the scope `accounts`."""
    router = APIRouter(prefix="/admin/accounts", tags=["accounts"])
    _add_reading(router, desk)
    _add_changing(router, desk)
    return router


def _add_reading(router: APIRouter, desk: Desk) -> None:
    may_read = desk.requiring(OperatorScope.READ)

    @router.get("", dependencies=[may_read])
    async def list_all(after: str = "", limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> AccountPage:
        """Accounts with what they have used, by name."""

        def read(session: Session) -> AccountPage:
            found = list_accounts(session, after, limit)
            data = [account_status(session, each.id, desk.clock()) for each in found]
            return AccountPage(data=data, next_after=found[-1].name if len(found) == limit else None)

        return await desk.read(read)

    @router.get("/{name}", dependencies=[may_read])
    async def show(name: str) -> AccountStatus:
        """One account."""

        def read(session: Session) -> AccountStatus:
            return account_status(session, find_account(session, name).id, desk.clock())

        return await desk.read(read)

    @router.get("/{name}/extraction", dependencies=[may_read])
    async def extraction_of(name: str) -> ExtractionReport:
        """How much of each model the answers to it have given away; see `docs/trust.md`."""
        found = await desk.read(lambda session: extraction(session, find_account(session, name)))
        return ExtractionReport(data=found)


def _add_changing(router: APIRouter, desk: Desk) -> None:
    may_change = desk.requiring(OperatorScope.ACCOUNTS)

    @router.post("", status_code=201, openapi_extra=taking(NewAccount))
    async def create(request: Request, operator: Annotated[Operator, may_change]) -> AccountStatus:
        """Open an account. Credit that it starts with is money: it takes a token with the scope `money`."""
        asked = await read_model(request, NewAccount)
        if asked.credit_micros:
            operator = await desk.identify(request, OperatorScope.MONEY)
        terms = Terms(**asked.model_dump(exclude={"name"}))
        return await desk.act(operator, lambda act: acts.open_account(act, asked.name, terms))

    @router.patch("/{name}", openapi_extra=taking(AccountChange))
    async def change(name: str, request: Request, operator: Annotated[Operator, may_change]) -> AccountStatus:
        """Agree on something else from now on; of several changes all are made, or none."""
        changes = (await read_model(request, AccountChange)).model_dump(exclude_unset=True)
        if not changes:
            raise APIError(ErrorCode.INVALID_REQUEST, "name at least one field that is to change")
        return await desk.act(operator, lambda act: acts.set_terms(act, name, changes))

    @router.delete("/{name}/sketches")
    async def forget(name: str, operator: Annotated[Operator, may_change]) -> AccountStatus:
        """Delete what is known of all that it asked about. Under a coverage limit its buckets stay."""
        return await desk.act(operator, lambda act: acts.forget_sketches(act, name))

    @router.post("/{name}/repair")
    async def repair(name: str, operator: Annotated[Operator, may_change]) -> Repair:
        """Let its books go on from now, which a wrong clock dated ahead. The clock must be right."""
        return await desk.act(operator, lambda act: acts.repair_dates(act, name))


def keys_router(desk: Desk) -> APIRouter:
    """The routes of keys; those that change something take the scope `accounts`."""
    router = APIRouter(prefix="/admin", tags=["keys"])
    may_change = desk.requiring(OperatorScope.ACCOUNTS)

    @router.get("/accounts/{name}/keys", dependencies=[desk.requiring(OperatorScope.READ)])
    async def list_keys(
        name: str,
        after: Annotated[str | None, Query(description="the last `key_id` seen")] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> KeyList:
        """An account's keys behind `after`, oldest first."""

        def read(session: Session) -> KeyList:
            owner = find_account(session, name)
            found, more = own_keys.page(session, owner.id, None, after, limit)
            return KeyList(data=[keys.public(key, owner, desk.clock()) for key in found], has_more=more)

        return await desk.read(read)

    @router.post("/accounts/{name}/keys", status_code=201, openapi_extra=taking(NewAccountKey))
    async def create_key(name: str, request: Request, operator: Annotated[Operator, may_change]) -> NewSecret:
        """Issue a key; its secret is shown this once."""
        asked = await read_model(request, NewAccountKey)
        scopes = frozenset(map(Scope, asked.scopes))
        terms = KeyTerms(asked.label, scopes, project=asked.project, **asked.given())
        issued = await desk.act(operator, lambda act: key_acts.issue(act, name, terms))
        return NewSecret(key_id=issued.key_id, api_key=issued.api_key)

    @router.patch("/keys/{key_id}", openapi_extra=taking(KeyLimits))
    async def change_key(key_id: str, request: Request, operator: Annotated[Operator, may_change]) -> KeyInfo:
        """Let other limits hold from now on: those that are sent; of several all are changed, or none."""
        only_id(key_id, keys.id_of, "key_id")
        limits = (await read_model(request, KeyLimits)).given()
        if not limits:
            raise APIError(ErrorCode.INVALID_REQUEST, "name at least one field that is to change")
        return await desk.act(operator, lambda act: key_acts.set_limits(act, key_id, limits))

    @router.post("/keys/{key_id}/rotate")
    async def rotate_key(
        key_id: str, operator: Annotated[Operator, may_change], grace_seconds: Grace = 0
    ) -> NewSecret:
        """Give a key another secret, shown this once; the present one is good for `grace_seconds` more."""
        only_id(key_id, keys.id_of, "key_id")
        issued = await desk.act(operator, lambda act: key_acts.rotate(act, key_id, grace_seconds))
        return NewSecret(key_id=issued.key_id, api_key=issued.api_key)

    @router.post("/keys/{key_id}/revoke")
    async def revoke_key(key_id: str, operator: Annotated[Operator, may_change]) -> KeyInfo:
        """End a key at once and for good."""
        only_id(key_id, keys.id_of, "key_id")
        return await desk.act(operator, lambda act: key_acts.revoke(act, key_id))

    return router
