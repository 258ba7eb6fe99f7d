"""The desk: what all routes of `/admin` share: who asks, transactions, bodies, and answers given before."""

import asyncio
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Header, Request, Response, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict
from sqlalchemy.orm import Session

from shared.errors import ErrorCode
from vendor_service.acts import idempotency
from vendor_service.acts.act import Act
from vendor_service.acts.authentication import Operator, OperatorAuthentication
from vendor_service.acts.tokens import OperatorScope
from vendor_service.clock import Clock
from vendor_service.database.session import Database
from vendor_service.errors import APIError, CommitInDoubt
from vendor_service.money.clock_watch import ClockWatch

Result = TypeVar("Result")
Content = TypeVar("Content", bound=BaseModel)
IdempotencyKey = Annotated[
    str,
    Header(
        alias="idempotency-key",
        min_length=1,
        max_length=255,
        description="A name of your own for this request; sent again under it, it is done once.",
    ),
]


class Body(BaseModel):
    """A body of a request: of these fields and no others, with numbers that are numbers."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Desk:
    """The books, the clock (see `Act`), and who may ask."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        watch: ClockWatch,
        *,
        trust_clock: bool,
        percents: tuple[int, ...],
    ) -> None:
        self.database = database
        self.clock = clock
        self.watch = watch
        self.trust_clock = trust_clock
        self._percents = percents
        self.authentication = OperatorAuthentication(database, clock)

    def requiring(self, scope: OperatorScope) -> Any:  # noqa: ANN401 - as FastAPI's own Depends
        """Make the dependency that admits only a good token with the scope; see `OperatorAuthentication`."""
        bearer = HTTPBearer(auto_error=False, description="An operator's token, `op_...`")

        async def authenticate(
            request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Security(bearer)]
        ) -> Operator:
            return await self.identify(request, scope)

        return Depends(authenticate)

    async def identify(self, request: Request, scope: OperatorScope) -> Operator:
        """Who asks; raises what `OperatorAuthentication` does."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            message = "send your token as: Authorization: Bearer op_..."
            raise APIError(ErrorCode.INVALID_API_KEY, message)
        address = "nowhere" if request.client is None else request.client.host
        operator = await asyncio.to_thread(self.authentication.identify, token, scope, address)
        request.state.key_id = operator.token_id  # for the log
        return operator

    async def read(self, work: Callable[[Session], Result]) -> Result:
        """Do what only reads, in one transaction beside the event loop."""

        def reading() -> Result:
            with self.database.read() as session:
                return work(session)

        return await asyncio.to_thread(reading)

    async def act(self, operator: Operator, work: Callable[[Act], Result]) -> Result:
        """Do an act, in one transaction beside the event loop."""
        try:
            return await asyncio.to_thread(self._acted, operator, work)
        except CommitInDoubt as doubt:
            rest = "done; it may have been: look at /admin/audit before you send it again"
            raise CommitInDoubt.unkeyed(rest) from doubt

    async def act_once(
        self,
        operator: Operator,
        request: Request,
        key: str,
        body: Content,
        work: Callable[[Act], BaseModel],
    ) -> Response:
        """Do an act that moves money, or answer as before what this idempotency key stands for."""
        asked = f"{request.url.path} {body.model_dump_json()}"

        def acting(act: Act) -> idempotency.Answer:
            return idempotency.once(act, operator.token_id, key, asked, lambda: work(act))

        try:
            answer = await asyncio.to_thread(self._acted, operator, acting)
        except CommitInDoubt as doubt:
            raise CommitInDoubt.keyed() from doubt
        headers = {"idempotent-replayed": "true"} if answer.replayed else None
        return Response(answer.content, media_type="application/json", headers=headers)

    def _acted(self, operator: Operator, work: Callable[[Act], Result]) -> Result:
        with self.database.write() as session:
            return work(self._act(session, operator))

    def _act(self, session: Session, operator: Operator) -> Act:
        return Act(session, operator.actor, self.clock, self.trust_clock, self._percents, self.watch)


def taking(model: type[BaseModel]) -> dict[str, Any]:
    """What the OpenAPI document says of a body that a route reads itself, once it knows who asks."""
    schema = {"content": {"application/json": {"schema": model.model_json_schema()}}}
    return {"requestBody": {"required": True, **schema}}


def only_id(given: str, id_of: Callable[[str], str | None], name: str) -> str:
    """An id from a path, which must not be a whole secret.

    Raises:
        APIError: `not_found`; it is one, which belongs in no URL.
    """
    if (whole := id_of(given)) is not None:
        message = f"that has its secret in it, which belongs in no URL; name the id alone, {whole}"
        raise APIError(ErrorCode.NOT_FOUND, message, param=name)
    return given
