"""What customers do, about keys by the same acts as `/v1/keys`, as themselves in the audit log."""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from vendor_service.accounts.keys import secret_hash
from vendor_service.acts import keys as acts
from vendor_service.acts import own_keys
from vendor_service.acts.act import Act
from vendor_service.batches.services import BatchServices
from vendor_service.clock import Clock
from vendor_service.console import api_keys
from vendor_service.console.customers.jobs import JobActions
from vendor_service.console.customers.pages import GRACES
from vendor_service.console.customers.receivers import ReceiverActions
from vendor_service.console.customers.visitor import Customer, require_acting
from vendor_service.console.routes import Action, Asked, Done, Question, Shown, state_of
from vendor_service.database.session import Database
from vendor_service.database.tables import Account, ApiKey, ConsoleSession


@dataclass(frozen=True)
class CustomerActions:
    """The actions, on these books; those on jobs where there is a `desk` of them."""

    database: Database
    clock: Clock
    desk: BatchServices | None = None
    trust_clock: bool = False

    def all(self) -> list[Action[Customer]]:
        """Every action."""
        allow = require_acting
        return [
            Action("/keys/create", "/keys", allow, self.create_key),
            Action("/keys/{key_id}/rotate", "/keys", allow, self.rotate_key, self.ask_to_rotate),
            Action("/keys/{key_id}/revoke", "/keys", allow, self.revoke_key, self.ask_to_revoke),
            *ReceiverActions(self.database, self.clock).all(),
            *([] if self.desk is None else JobActions(self.desk).all()),
        ]

    def create_key(self, asked: Asked[Customer]) -> Shown:
        """Issue a key, which is shown once."""
        terms, project = api_keys.terms_of(asked.form), asked.form.get("project") or None
        with self.database.write() as session:
            issued = own_keys.issue(self._act(session, asked), asked.who.name, asked.who.key, terms, project)
        return Shown("The new key", "customers/secret.html", {"secret": issued.api_key, "rotated": False})

    def ask_to_rotate(self, asked: Asked[Customer], session: Session) -> Question:
        """What another secret means."""
        key, grace = self._find(session, asked), asked.form.number("grace") or 0
        own_keys.check_may_rotate(asked.who.key, key, asked.now)
        until = "at once" if not grace else f"in {GRACES.get(grace, f'{grace} seconds')}"
        facts = [
            f"The key {_named(key)} gets another secret, which is shown once.",
            f"The present secret stops working {until}, and so does every program that still uses it.",
            "Its limits, its scopes and what it used of them stay.",
        ]
        if (key.former_until or 0) > asked.now:
            facts.append("The secret that it had before the present one stops working at once.")
        return Question("Rotate this key?", facts, "Rotate the key", state=state_of(key.secret_hash))

    def rotate_key(self, asked: Asked[Customer]) -> Shown:
        """Give a key another secret, which is shown once."""
        with self.database.write() as session:
            session.get_one(Account, asked.who.account_id, with_for_update=True)  # one at a time
            key = self._find(session, asked)
            message = f"the key {key.id} got another secret since this page was made, which was shown once"
            asked.check_state(state_of(key.secret_hash), message)
            grace = asked.form.number("grace") or 0
            issued = own_keys.rotate(self._act(session, asked), asked.who.key, key, grace)
            if asked.who.key is not None and asked.who.key.id == key.id:
                # Who rotates the key with which they signed in has proved to be its owner.
                mine = session.get(ConsoleSession, asked.who.session_id)
                if mine is not None:
                    mine.secret_hash = secret_hash(issued.api_key)
        return Shown("The new secret", "customers/secret.html", {"secret": issued.api_key, "rotated": True})

    def ask_to_revoke(self, asked: Asked[Customer], session: Session) -> Question:
        """What the end of a key means."""
        key = self._find(session, asked)
        facts = [
            f"The key {_named(key)} ends at once and for good; nobody can bring it back.",
            "Every program that uses it is refused from then on.",
            "What was bought with it stays in the ledger.",
        ]
        if asked.who.key is not None and asked.who.key.id == key.id:
            facts.append("You signed in with this key: you will be signed out.")
        return Question("Revoke this key?", facts, "Revoke the key", dangerous=True)

    def revoke_key(self, asked: Asked[Customer]) -> Done:
        """End a key."""
        with self.database.write() as session:
            key = self._find(session, asked)
            acts.revoke(self._act(session, asked), key.id)
        return Done(f"The key {key.id} was revoked.", "/keys")

    def _find(self, session: Session, asked: Asked[Customer]) -> ApiKey:
        return own_keys.find(session, asked.who.account_id, asked.who.key, asked.path["key_id"])

    def _act(self, session: Session, asked: Asked[Customer]) -> Act:
        return Act(session, asked.who.actor, self.clock, trust_clock=self.trust_clock)


def _named(key: ApiKey) -> str:
    return f"{key.id} ({key.label})" if key.label else key.id
