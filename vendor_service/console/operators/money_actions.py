"""What operators do about money that is not charged: top-ups, payments, refunds and corrections."""

from sqlalchemy.orm import Session

from vendor_service.accounts.accounts import find_account
from vendor_service.acts import money as acts
from vendor_service.acts.act import Act
from vendor_service.acts.tokens import OperatorScope
from vendor_service.console.forms import Fields
from vendor_service.console.operators.acting import ACCOUNT, Acting, By, requiring
from vendor_service.console.operators.pages import describe
from vendor_service.console.operators.visitor import SignedInOperator
from vendor_service.console.rendering import money
from vendor_service.console.routes import Action, Done, Question
from vendor_service.database.tables import Account, LedgerEntry
from vendor_service.errors import OperatorError, UsageError
from vendor_service.money import ledger


class MoneyActions(Acting):
    """The actions, on these books."""

    def all(self) -> list[Action[SignedInOperator]]:
        """Every action."""
        move = requiring(OperatorScope.MONEY)
        return [
            Action(f"{ACCOUNT}/top-up", ACCOUNT, move, self.top_up, self.ask_to_top_up),
            Action(f"{ACCOUNT}/pay", ACCOUNT, move, self.pay, self.ask_to_pay),
            Action(f"{ACCOUNT}/refund", ACCOUNT, move, self.refund, self.ask_to_refund),
            Action(f"{ACCOUNT}/adjust", ACCOUNT, move, self.adjust, self.ask_to_adjust),
        ]

    def ask_to_top_up(self, asked: By, session: Session) -> Question:
        """What a top-up adds."""
        account, micros = find_account(session, asked.path["name"]), _amount(asked.form)
        if account.credit_micros is None:
            raise OperatorError(f"{account.name} is invoiced, not prepaid; record a payment instead")
        if known := _known(session, account, "top_up", micros, _reference(asked.form)):
            return known
        facts = [
            f"The credit of {account.name} goes from {money(account.credit_micros)} to "
            f"{money(account.credit_micros + micros)}.",
            f"The ledger gets a top-up of {money(micros)} with the reference "
            f"{_reference(asked.form)!r}, which counts once.",
        ]
        return Question("Top this account up?", facts, f"Top up by {money(micros)}")

    def top_up(self, asked: By) -> Done:
        """Add to an account's credit."""
        name, micros, reference = asked.path["name"], _amount(asked.form), _reference(asked.form)
        done = f"{money(micros)} were added to the credit of {name}."
        said = self._once(asked, lambda act: _said(acts.top_up(act, name, micros, reference), done))
        return Done(said, f"/accounts/{name}")

    def ask_to_pay(self, asked: By, session: Session) -> Question:
        """What a payment changes."""
        account, micros = find_account(session, asked.path["name"]), _amount(asked.form)
        if account.credit_micros is not None:
            raise OperatorError(f"{account.name} is prepaid, not invoiced; top it up instead")
        if known := _known(session, account, "payment", micros, _reference(asked.form)):
            return known
        what = "a payment" if micros > 0 else "a payment that was returned, of"
        facts = [
            f"The ledger of {account.name} gets {what} {money(abs(micros))} with the reference "
            f"{_reference(asked.form)!r}, which counts once.",
            "What it owes at the end of the month is as much " + ("less." if micros > 0 else "more."),
        ]
        return Question("Record this payment?", facts, "Record the payment")

    def pay(self, asked: By) -> Done:
        """Record a payment."""
        name, micros, reference = asked.path["name"], _amount(asked.form), _reference(asked.form)
        done = f"A payment of {money(micros)} by {name} was recorded."
        said = self._once(asked, lambda act: _said(acts.pay(act, name, micros, reference), done))
        return Done(said, f"/accounts/{name}")

    def ask_to_refund(self, asked: By, session: Session) -> Question:
        """What a refund gives back."""
        account, seq = find_account(session, asked.path["name"]), _entry(asked.form)
        row = session.get(LedgerEntry, (account.id, seq))
        if row is None or row.kind != "charge":
            raise OperatorError(f"{account.name} has no charge {seq}; look it up in its ledger below")
        micros, reference = _part(asked.form)
        if known := reference and _known(session, account, "refund", micros, reference, seq):
            return known
        refunds, given_back = ledger.given_back_of(session, account.id, seq)
        charge = ledger.public(row)
        left, when = -charge.amount_micros - given_back, f"{charge.created_at:%Y-%m-%d %H:%M} UTC"
        if refunds and not left:
            raise OperatorError(f"charge {seq} of {account.name} was given back already")
        if micros is not None and not 0 < micros <= left:
            raise OperatorError(f"{money(left)} are left of charge {seq} of {account.name}; write no more")
        micros = left if micros is None else micros
        facts = [
            f"Charge {seq} of {account.name}: {describe(charge)} for {money(-charge.amount_micros)}, {when}.",
            _how_much(micros, left, given_back),
            _where_it_goes(account, micros),
            "Its queries stay used. It cannot be undone.",
        ]
        if micros == left:
            facts.append("The answer is not sent again for free.")
        if reference is not None:
            facts.append(f"The ledger has it with the reference {reference!r}, which counts once.")
        return Question("Give this charge back?", facts, f"Give {money(micros)} back", dangerous=True)

    def refund(self, asked: By) -> Done:
        """Give a charge back, or a part of it."""
        name, seq = asked.path["name"], _entry(asked.form)
        micros, reference = _part(asked.form)
        what = f"Charge {seq}" if micros is None else f"{money(micros)} of charge {seq}"
        done = f"{what} of {name} was given back."
        said = self._once(asked, lambda act: _said(acts.refund(act, name, seq, micros, reference), done))
        return Done(said, f"/accounts/{name}")

    def ask_to_adjust(self, asked: By, session: Session) -> Question:
        """What a correction changes."""
        account, micros = find_account(session, asked.path["name"]), _amount(asked.form)
        whom = "in the customer's favour" if micros > 0 else "against the customer"
        facts = [
            f"The ledger of {account.name} gets an adjustment of {money(micros)}, {whom}.",
            _where_it_goes(account, micros),
            f"The customer reads the reason: {asked.form.required('reason')!r}.",
        ]
        return Question(
            "Correct what this account owes?", facts, f"Adjust by {money(micros)}", dangerous=True
        )

    def adjust(self, asked: By) -> Done:
        """Correct what an account owes."""
        name, micros, reason = asked.path["name"], _amount(asked.form), asked.form.required("reason")

        def adjust(act: Act) -> str:
            acts.adjust(act, name, micros, reason)
            return f"{name} was adjusted by {money(micros)}."

        return Done(self._once(asked, adjust), f"/accounts/{name}")


def _amount(form: Fields) -> int:
    micros = form.money("amount")
    if not micros:
        raise UsageError("amount: write how much, in units of the currency, as in 12.50")
    return micros


def _reference(form: Fields) -> str:
    return form.required("reference")


def _known(
    session: Session, account: Account, kind: str, micros: int | None, reference: str, seq: int | None = None
) -> Question | None:
    """What is asked where the ledger has the reference already."""
    found = ledger.recorded(session, account, kind, micros, reference, seq)
    if found is None:
        return None
    facts = [
        f"{money(found.amount_micros)} with the reference {reference!r} were recorded before as entry "
        f"{found.seq}; nothing will be changed.",
        "Another one takes a reference of its own.",
    ]
    return Question("This was recorded before", facts, "Send it all the same")


def _said(recorded: acts.Recorded, done: str) -> str:
    """That something was done, unless it was recorded before."""
    if recorded.before:
        return f"This was recorded before as entry {recorded.entry.seq}; nothing was changed."
    return done


def _entry(form: Fields) -> int:
    seq = form.number("entry")
    if seq is None or not 0 < seq <= ledger.MAX_NUMBER:
        raise UsageError("entry: write the number of a charge in the ledger")
    return seq


def _part(form: Fields) -> tuple[int | None, str | None]:
    """How much of a charge to give back, `None` for all that is left, and the reference of that."""
    micros, reference = form.money("amount"), form.get("reference") or None
    if micros is not None and reference is None:
        raise UsageError("reference: write one for a part of a charge, so that it is given back once")
    return micros, reference


def _how_much(micros: int, left: int, given_back: int) -> str:
    before = f" {money(given_back)} were given back before." if given_back else ""
    if micros < left:
        return f"{money(micros)} are given back, and {money(left - micros)} stay charged.{before}"
    return f"All {'that is left' if given_back else 'of it'} is given back: {money(micros)}.{before}"


def _where_it_goes(account: Account, micros: int) -> str:
    if account.credit_micros is None:
        return f"The invoice of this month is {money(abs(micros))} {'less' if micros > 0 else 'more'}."
    return f"The credit goes from {money(account.credit_micros)} to {money(account.credit_micros + micros)}."
