"""What customers do about who is told of their account's events."""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from shared.errors import APIError, ErrorCode
from vendor_service.acts import own_receivers, webhooks
from vendor_service.acts.act import Act
from vendor_service.clock import Clock
from vendor_service.console.customers.visitor import Customer, require_acting
from vendor_service.console.routes import Action, Asked, Done, Question, Shown, state_of
from vendor_service.database.session import Database
from vendor_service.database.tables import Account
from vendor_service.errors import UsageError
from vendor_service.webhooks.events import EventKind

# For how long the former secret of a receiver signs as well, in seconds.
_GRACE = 24 * 3600


def require_whole_account(who: Customer) -> None:
    """Make sure that a customer may change what is of the whole account; a key of a project may not.

    Raises:
        APIError: `account_suspended` or `insufficient_scope`.
    """
    require_acting(who)
    if not who.of_whole_account:
        message = "you signed in with a key of a project; receivers are told of the whole account"
        raise APIError(ErrorCode.INSUFFICIENT_SCOPE, message)


@dataclass(frozen=True)
class ReceiverActions:
    """The actions, on these books."""

    database: Database
    clock: Clock

    def all(self) -> list[Action[Customer]]:
        """Every action."""
        one, allow = "/events/receivers/{endpoint_id}", require_whole_account
        return [
            Action("/events/receivers/add", "/events", allow, self.add),
            Action(f"{one}/rotate", "/events", allow, self.rotate, self.ask_to_rotate),
            Action(f"{one}/disable", "/events", allow, self.disable, self.ask_to_disable),
            Action(f"{one}/send/{{event_id}}", "/events", allow, self.send),
        ]

    def add(self, asked: Asked[Customer]) -> Shown:
        """Add a receiver; its secret is shown once."""
        url, kinds = asked.form.required("address"), [*map(_kind, asked.form.all("event"))]
        with self.database.write() as session:
            made = own_receivers.add(self._act(session, asked), asked.who.name, url, kinds)
        return _secret(made.secret, "The secret of the receiver")

    def ask_to_rotate(self, asked: Asked[Customer], session: Session) -> Question:
        """What another secret means."""
        receiver = own_receivers.find(session, asked.who.account_id, asked.path["endpoint_id"])
        facts = [
            f"What is sent to {receiver.url} is signed by another secret, which is shown once.",
            "For a day it is signed by the present secret as well.",
        ]
        if (receiver.former_until or 0) > asked.now:
            facts.append("By the secret before the present one it is signed no longer.")
        return Question(
            "Give this receiver another secret?",
            facts,
            "Make another secret",
            state=state_of(receiver.secret),
        )

    def rotate(self, asked: Asked[Customer]) -> Shown:
        """Give a receiver another secret, which is shown once."""
        account_id, endpoint_id = asked.who.account_id, asked.path["endpoint_id"]
        with self.database.write() as session:
            session.get_one(Account, account_id, with_for_update=True)  # one at a time
            receiver = own_receivers.find(session, account_id, endpoint_id)
            message = "this receiver got another secret since this page was made, which was shown once"
            asked.check_state(state_of(receiver.secret), message)
            made = own_receivers.rotate(self._act(session, asked), account_id, endpoint_id, _GRACE)
        return _secret(made.secret, "The new secret of the receiver")

    def ask_to_disable(self, asked: Asked[Customer], session: Session) -> Question:
        """What the end of a receiver means."""
        receiver = own_receivers.find(session, asked.who.account_id, asked.path["endpoint_id"])
        facts = [f"Nothing is sent to {receiver.url} from now on, for good.", "Add it again to have it told."]
        return Question("Disable this receiver?", facts, "Disable the receiver", dangerous=True)

    def disable(self, asked: Asked[Customer]) -> Done:
        """Tell a receiver nothing any more."""
        with self.database.write() as session:
            receiver = own_receivers.find(session, asked.who.account_id, asked.path["endpoint_id"])
            webhooks.disable(self._act(session, asked), receiver.id)
        return Done("The receiver is told nothing from now on.", "/events")

    def send(self, asked: Asked[Customer]) -> Done:
        """Send an event to a receiver again, under the same id."""
        with self.database.write() as session:
            own_receivers.send_again(
                self._act(session, asked), asked.who.account_id, asked.path["event_id"],
                asked.path["endpoint_id"],
            )  # fmt: skip
        return Done("The event is sent again, under the same id.", "/events")

    def _act(self, session: Session, asked: Asked[Customer]) -> Act:
        return Act(session, asked.who.actor, self.clock)


def _kind(written: str) -> EventKind:
    try:
        return EventKind(written)
    except ValueError as error:
        raise UsageError(f"there is no kind of events {written[:64]!r}") from error


def _secret(secret: str, title: str) -> Shown:
    return Shown(title, "customers/receiver.html", {"secret": secret})
