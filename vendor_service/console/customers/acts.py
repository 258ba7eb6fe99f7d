"""Customers' acts on their own account: the declared ones that have a form at `/console`."""

from collections.abc import Mapping
from dataclasses import dataclass

from vendor_service.accounts.keys import secret_hash
from vendor_service.acts.act import ActContext
from vendor_service.acts.declaration import DeclaredAct, Value
from vendor_service.console.acts import Face
from vendor_service.console.customers.visitor import SignedInCustomer, require_acting
from vendor_service.console.routes import ConsoleRequest
from vendor_service.database.tables import ConsoleSession

QUICK_START = "/quick-start"


@dataclass(frozen=True)
class CustomerFace(Face[SignedInCustomer]):
    """The console as its acts see it. Where the vendor runs no jobs, there are no acts on them."""

    acts: ActContext
    runs_jobs: bool = False

    def path_of(self, declared: DeclaredAct) -> str:
        """See `Face`."""
        if declared.own is None or (declared.noun == "jobs" and not self.runs_jobs):
            return ""
        return declared.own.form

    def asks(self, declared: DeclaredAct) -> bool:
        """See `Face`."""
        return declared.own is not None and declared.own.asks

    def allow(self, who: SignedInCustomer, _: DeclaredAct) -> None:
        """See `Face`."""
        require_acting(who)

    def context(self, who: SignedInCustomer) -> ActContext:
        """See `Face`."""
        return self.acts.by(who.actor, customer=who.customer)

    def asker_id(self, who: SignedInCustomer) -> str:
        """See `Face`."""
        return who.session_id

    def own(self, who: SignedInCustomer) -> Mapping[str, Value]:
        """See `Face`."""
        return {"account": who.name}

    def back(self, request: ConsoleRequest[SignedInCustomer], declared: DeclaredAct) -> str:
        """The page on which the form stands: the first part of its path, or the quick start."""
        usual = f"/{self.path_of(declared).split('/')[1]}"
        return QUICK_START if request.form.get("back") == QUICK_START else usual

    def did(self, request: ConsoleRequest[SignedInCustomer], declared: DeclaredAct, result: Value) -> None:
        """Keep those signed in who rotate the key with which they signed in: they have proved to own it."""
        own = request.who.key
        if declared.name == "key.rotate" and own is not None and own.id == result.key_id:
            with self.acts.database.write() as session:
                mine = session.get(ConsoleSession, request.who.session_id)
                if mine is not None:
                    mine.secret_hash = secret_hash(result.api_key)
