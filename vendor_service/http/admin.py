"""The context of `/admin`: who asks, by an operator's token, and where it is done what they ask."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request, Response, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel

from shared.errors import ErrorCode
from shared.hosts import subscriber
from vendor_service.acts import idempotency
from vendor_service.acts.act import ActContext, OperatorScope
from vendor_service.acts.authentication import Operator, OperatorAuthentication
from vendor_service.acts.declaration import Declared, DeclaredAct, DeclaredQuery, Parameter, Recorded, Value
from vendor_service.errors import APIError, CommitInDoubt
from vendor_service.http.declared import Once


@dataclass(frozen=True)
class AdminContext:
    """The context of operators' acts over HTTP, and who may do them; a `Door`."""

    acts: ActContext
    authentication: OperatorAuthentication

    def route_of(self, declared: Declared) -> str:
        """See `Door`."""
        return declared.route.replace(" ", " /admin", 1)

    def adapted(self, declared: Declared) -> Sequence[Parameter]:
        """See `Door`."""
        return declared.parameters

    def admit(self, declared: Declared) -> Value:
        """Admit only a good token with the scope; see `OperatorAuthentication`."""
        bearer = HTTPBearer(auto_error=False, description="An operator's token, `op_...`")

        async def authenticate(
            request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Security(bearer)]
        ) -> Operator:
            return await self._identify(request, declared.scope)

        return Annotated[Operator, Depends(authenticate)]

    def documented(self, declared: Declared) -> dict[str, Value]:
        """See `Door`."""
        command = {"x-command": f"vendor {declared.command}"} if declared.command else {}
        return {"x-scope": declared.scope.value, **command}

    async def ask(self, who: Operator, declared: DeclaredQuery, given: dict[str, Value]) -> Value:
        """Ask a query, beside the event loop."""
        return await asyncio.to_thread(declared.ask, self._by(who), given)

    async def perform(
        self, who: Operator, declared: DeclaredAct, given: dict[str, Value], once: Once | None
    ) -> Value:
        """Do an act, beside the event loop; what moves money is answered as before, if it was done before."""
        try:
            if once is None:
                return await asyncio.to_thread(declared.perform, self._by(who), given)
            answer = await asyncio.to_thread(self._once, who, declared, given, once)
        except CommitInDoubt as doubt:
            if once is not None:
                raise CommitInDoubt.keyed() from doubt
            rest = "done; it may have been: look at /admin/audit before you send it again"
            raise CommitInDoubt.unkeyed(rest) from doubt
        headers = {"idempotent-replayed": "true"} if answer.replayed else None
        return Response(answer.content, media_type="application/json", headers=headers)

    def _once(
        self, who: Operator, declared: DeclaredAct, given: dict[str, Value], once: Once
    ) -> idempotency.Answer:
        with self._by(who).write() as act:

            def work() -> BaseModel:
                result = declared.call(act, given)
                return result.entry if isinstance(result, Recorded) else result

            return idempotency.once(act, who.token_id, once.key, once.asked, work)

    def _by(self, who: Operator) -> ActContext:
        return self.acts.by(who.actor, scopes=who.scopes)

    async def _identify(self, request: Request, scope: OperatorScope) -> Operator:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            message = "send your token as: Authorization: Bearer op_..."
            raise APIError(ErrorCode.INVALID_API_KEY, message)
        address = "nowhere" if request.client is None else subscriber(request.client.host)
        operator = await asyncio.to_thread(self.authentication.identify, token, scope, address)
        request.state.key_id = operator.token_id  # for the log
        return operator
