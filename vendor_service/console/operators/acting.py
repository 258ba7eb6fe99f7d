"""How operators' actions act: as the token that asks, in one transaction, and once where money moves."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel
from sqlalchemy.orm import Session

from vendor_service.acts import idempotency
from vendor_service.acts.act import Act
from vendor_service.acts.tokens import OperatorScope
from vendor_service.clock import Clock
from vendor_service.console.operators.visitor import SignedInOperator
from vendor_service.console.routes import Asked
from vendor_service.database.session import Database
from vendor_service.database.tables import Account
from vendor_service.money.clock_watch import ClockWatch

ACCOUNT = "/accounts/{name}"  # its page, to which actions on it lead back
By = Asked[SignedInOperator]
Result = TypeVar("Result")


class _Said(BaseModel):
    message: str


@dataclass(frozen=True)
class Acting:
    """Acts on these books. See `Act` for the clock, the percents and the watch."""

    database: Database
    clock: Clock
    trust_clock: bool
    percents: tuple[int, ...]
    watch: ClockWatch

    def _act(self, asked: By, work: Callable[[Act], Result]) -> Result:
        with self.database.write() as session:
            return work(self._of(session, asked))

    def _once(self, asked: By, work: Callable[[Act], str]) -> str:
        """Do what moves money, once for each page that asked about it, however often that is sent.

        What the work says of it is said again then.
        """
        key = f"console {asked.form.required('once')}"
        said = "&".join(f"{name}={value}" for name, value in sorted(asked.form.pairs) if name != "csrf")
        path = " ".join(asked.path.values())

        def do(act: Act) -> idempotency.Answer:
            return idempotency.once(
                act, asked.who.token.id, key, f"{path} {said}", lambda: _Said(message=work(act))
            )

        return _Said.model_validate_json(self._act(asked, do).content).message

    def _of(self, session: Session, asked: By) -> Act:
        return Act(session, asked.who.actor, self.clock, self.trust_clock, self.percents, self.watch)


def requiring(scope: OperatorScope) -> Callable[[SignedInOperator], None]:
    """What lets nobody act without a scope."""
    return lambda who: who.require(scope)


def per_period(account: Account) -> str:
    """For how long an account's quota is, as in `100 queries a month`."""
    return "a month" if account.quota_period == "month" else "in all"
