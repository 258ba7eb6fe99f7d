"""What customers do with what is their own: the declared acts and queries that have a route of `/v1`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, TypeVar

from fastapi import Depends

from vendor_service.accounts.callers import Caller
from vendor_service.accounts.keys import Scope
from vendor_service.acts.act import ActContext, Customer
from vendor_service.acts.declaration import Declared, DeclaredAct, DeclaredQuery, Parameter, Value
from vendor_service.audit.actors import customer_key
from vendor_service.errors import APIError, OperatorError
from vendor_service.http.account_threads import AccountThreads
from vendor_service.http.authentication import Authentication, requiring
from vendor_service.http.declared import Once
from vendor_service.http.history_rate import HistoryRate

T = TypeVar("T")
ACCOUNT = "account"


@dataclass(frozen=True)
class OwnContext:
    """What customers act with over HTTP, by a key; a `Door`. Questions about the past are counted."""

    acts: ActContext
    authentication: Authentication
    threads: AccountThreads
    rate: HistoryRate

    def route_of(self, declared: Declared) -> str:
        """See `Door`."""
        return "" if declared.own is None else declared.own.route

    def adapted(self, declared: Declared) -> Sequence[Parameter]:
        """All but the account, which is their own; of a list they get fewer at once."""
        found = [each for each in declared.parameters if each.name != ACCOUNT]
        most = None if declared.own is None else declared.own.most
        return [
            replace(each, default=most, term=replace(each.term, most=most))
            if each.name == "limit" and most is not None
            else each
            for each in found
        ]

    def admit(self, declared: Declared) -> Value:
        """See `Door`."""
        assert declared.own is not None
        admitted = requiring(self.authentication, declared.own.scope)
        if declared.own.history or declared.own.scope is Scope.READ_USAGE:
            admitted = self.rate.limiting(admitted)
        return Annotated[Caller, Depends(admitted)]

    def documented(self, _: Declared) -> dict[str, Value]:
        """See `Door`."""
        return {}

    async def ask(self, who: Caller, declared: DeclaredQuery, given: dict[str, Value]) -> Value:
        """Ask a query, in a thread that the account may have."""
        call = self.threads.read if declared.transaction else self.threads.do
        return await call(
            who.account_id, translated, lambda: declared.ask(self._by(who), self._own(who, declared, given))
        )

    async def perform(
        self, who: Caller, declared: DeclaredAct, given: dict[str, Value], once: Once | None
    ) -> Value:
        """Do an act, in a thread that the account may have."""
        assert once is None, "customers move no money"
        return await self.threads.do(
            who.account_id,
            translated,
            lambda: declared.perform(self._by(who), self._own(who, declared, given)),
        )

    def _by(self, who: Caller) -> ActContext:
        customer = Customer(who.account, who.key, who.secret_hash)
        return self.acts.by(customer_key(who.key_id), customer=customer)

    def _own(self, who: Caller, declared: Declared, given: dict[str, Value]) -> dict[str, Value]:
        if any(each.name == ACCOUNT for each in declared.parameters):
            return given | {ACCOUNT: who.account.name}
        return given


def translated(work: Callable[[], T]) -> T:
    """Do something; what an operator would be told is told to a customer as a refusal."""
    try:
        return work()
    except OperatorError as error:
        raise APIError(error.code, str(error)) from error
