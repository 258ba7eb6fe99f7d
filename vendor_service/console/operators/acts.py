"""Operators' acts: every declared one, each after a page that says what will happen."""

from collections.abc import Mapping
from dataclasses import dataclass

from vendor_service.acts.act import ActContext
from vendor_service.acts.declaration import DeclaredAct, Value
from vendor_service.console.acts import Face
from vendor_service.console.operators.visitor import SignedInOperator
from vendor_service.console.routes import ConsoleRequest


@dataclass(frozen=True)
class OperatorFace(Face[SignedInOperator]):
    """The operators' site as its acts see it."""

    acts: ActContext

    def path_of(self, declared: DeclaredAct) -> str:
        """See `Face`."""
        return f"/do/{declared.name}"

    def asks(self, _: DeclaredAct) -> bool:
        """See `Face`."""
        return True

    def allow(self, who: SignedInOperator, declared: DeclaredAct) -> None:
        """See `Face`."""
        who.require(declared.scope)

    def context(self, who: SignedInOperator) -> ActContext:
        """See `Face`."""
        return self.acts.by(who.actor, scopes=who.scopes)

    def asker_id(self, who: SignedInOperator) -> str:
        """See `Face`."""
        return who.token.id

    def back(self, request: ConsoleRequest[SignedInOperator], _: DeclaredAct) -> str:
        """The page on which the form stands, which the form names."""
        back = request.form.get("back")
        return back if back.startswith("/") else ""

    def done(
        self, request: ConsoleRequest[SignedInOperator], declared: DeclaredAct, given: Mapping[str, Value]
    ) -> str:
        """See `Face`; who opens an account is shown it."""
        if declared.name == "account.create":
            return f"/accounts/{given['name']}"
        return self.back(request, declared)
