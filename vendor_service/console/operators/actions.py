"""What operators do: the acts of `vendor_service/acts`, each after a page that says what will happen."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from vendor_service.acts.tokens import OperatorScope
from vendor_service.acts.verification import LedgerVerifier
from vendor_service.audit import log
from vendor_service.console import sessions
from vendor_service.console.operators.account_actions import AccountActions
from vendor_service.console.operators.acting import Acting, By, requiring
from vendor_service.console.operators.money_actions import MoneyActions
from vendor_service.console.operators.price_actions import PriceActions
from vendor_service.console.operators.project_actions import ProjectActions
from vendor_service.console.operators.visitor import SignedInOperator
from vendor_service.console.routes import Action, Done, Shown
from vendor_service.database.tables import ConsoleSession
from vendor_service.errors import OperatorError


@dataclass(frozen=True)
class OperatorActions(Acting):
    """The actions, on these books: those of a part each, and the verifications."""

    verifier: LedgerVerifier

    def all(self) -> list[Action[SignedInOperator]]:
        """Every action."""
        read = requiring(OperatorScope.READ)
        parts = (
            part(self.database, self.clock, self.trust_clock, self.percents, self.watch)
            for part in (AccountActions, MoneyActions, ProjectActions, PriceActions)
        )
        return [
            *(action for part in parts for action in part.all()),
            Action("/money/verify", "/money", read, self.verify_ledger),
            Action("/audit/verify", "/audit", read, self.verify_log),
        ]

    def verify_ledger(self, asked: By) -> Shown:
        """Recompute chains, sums and counters, of one account or of all; one verification at a time."""
        found = self.verifier.verify(asked.form.get("account"))
        return Shown("What the verification found", "operators/verified.html", {"found": found})

    def verify_log(self, _: By) -> Done:
        """Recompute the chain of the audit log."""
        with self.database.read() as session:
            found = log.verify(session)
        if found.problem is not None:
            raise OperatorError(f"the audit log is not in order: {found.problem}")
        return Done(f"The audit log is in order: {found.entries:,} entries.", "/audit")


def end_everywhere(session: Session, who: SignedInOperator) -> Sequence[ConsoleSession]:
    """End all sessions of a token."""
    return sessions.end_all(session, token_id=who.token.id)
