"""What operators do: the acts of `vendor_service/operators`, each after a page that says what will happen."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import get_args

from sqlalchemy.orm import Session

from shared.billing import QuotaPeriod
from shared.embeddings import Kind
from shared.errors import ErrorCode
from shared.projects import DEFAULT_PROJECT
from vendor_service.accounts import keys
from vendor_service.accounts.accounts import Terms, find_account, list_accounts
from vendor_service.accounts.keys import KeyTerms
from vendor_service.audit import log
from vendor_service.billing import ledger, prices
from vendor_service.billing.prices import PriceKind
from vendor_service.billing.usage import account_status
from vendor_service.billing.verification import Verification, verify
from vendor_service.clock import from_datetime, to_datetime
from vendor_service.console import api_keys, sessions
from vendor_service.console.forms import Fields
from vendor_service.console.operators.acting import Acting, By, per_period, requiring
from vendor_service.console.operators.pages import describe
from vendor_service.console.operators.project_actions import ProjectActions
from vendor_service.console.operators.visitor import SignedInOperator
from vendor_service.console.rendering import money
from vendor_service.console.site import Action, Done, Question, Shown
from vendor_service.database.tables import STANDARD_PLAN, Account, ApiKey, LedgerEntry
from vendor_service.errors import APIError, OperatorError, UsageError
from vendor_service.operators import accounts as acts
from vendor_service.operators import invitations
from vendor_service.operators import keys as key_acts
from vendor_service.operators import money as money_acts
from vendor_service.operators import prices as price_acts
from vendor_service.operators.act import Act
from vendor_service.operators.tokens import OperatorScope

_ACCOUNT = "/accounts/{name}"
_ONE_OF_TERMS = ("quota", "spend_limit", "rate", "coverage", "plan")


@dataclass(frozen=True)
class OperatorActions(Acting):
    """The actions, on these books; those about projects are in `ProjectActions`."""

    _verifying: threading.Lock = field(default_factory=threading.Lock)

    def all(self) -> list[Action[SignedInOperator]]:
        """Every action."""
        change, move, read = (
            requiring(each) for each in (OperatorScope.ACCOUNTS, OperatorScope.MONEY, OperatorScope.READ)
        )
        return [
            Action("/accounts/open", "/accounts", change, self.open, self.ask_to_open),
            Action(f"{_ACCOUNT}/terms", _ACCOUNT, change, self.set_terms, self.ask_for_terms),
            Action(f"{_ACCOUNT}/suspend", _ACCOUNT, change, self.suspend, self.ask_to_suspend),
            Action(f"{_ACCOUNT}/resume", _ACCOUNT, change, self.resume, self.ask_to_resume),
            Action(f"{_ACCOUNT}/invite", _ACCOUNT, change, self.invite, self.ask_to_invite),
            Action(f"{_ACCOUNT}/keys/create", _ACCOUNT, change, self.create_key, self.ask_to_create_key),
            Action(
                f"{_ACCOUNT}/keys/{{key_id}}/revoke", _ACCOUNT, change, self.revoke_key, self.ask_to_revoke
            ),
            Action(f"{_ACCOUNT}/top-up", _ACCOUNT, move, self.top_up, self.ask_to_top_up),
            Action(f"{_ACCOUNT}/pay", _ACCOUNT, move, self.pay, self.ask_to_pay),
            Action(f"{_ACCOUNT}/refund", _ACCOUNT, move, self.refund, self.ask_to_refund),
            Action(f"{_ACCOUNT}/adjust", _ACCOUNT, move, self.adjust, self.ask_to_adjust),
            *ProjectActions(self.database, self.clock, self.trust_clock, self.percents).all(),
            Action("/prices/set", "/models", move, self.set_price, self.ask_to_set_price),
            Action("/prices/unset", "/models", move, self.unset_price, self.ask_to_unset_price),
            Action("/money/verify", "/money", read, self.verify_ledger),
            Action("/audit/verify", "/audit", read, self.verify_log),
        ]

    # Accounts.

    def ask_to_open(self, asked: By, _: Session) -> Question:
        """What the new account will have."""
        terms, form = _terms(asked.form), asked.form
        facts = [
            f"An account {form.required('name')!r} is opened, on the plan {terms.plan!r}.",
            *_limits(terms),
        ]
        return Question("Open this account?", facts, "Open the account")

    def open(self, asked: By) -> Done:
        """Open an account; credit that it starts with is money."""
        name, terms = asked.form.required("name"), _terms(asked.form)
        if terms.credit_micros:
            asked.who.require(OperatorScope.MONEY)
        self._act(asked, lambda act: acts.open_account(act, name, terms))
        return Done(
            f"The account {name} is open. Next: make it a key, or invite somebody.", f"/accounts/{name}"
        )

    def ask_for_terms(self, asked: By, session: Session) -> Question:
        """What changes of what is agreed."""
        account = find_account(session, asked.path["name"])
        wanted, period = _wanted_terms(asked.form), account.quota_period
        now = {
            "quota": account.quota,
            "spend_limit": account.spend_limit_micros,
            "rate": account.queries_per_second,
            "coverage": account.coverage_limit,
            "plan": account.plan,
        }
        facts = [
            f"{_TERMS[name]}: {_shown(name, now[name], period)} → {_shown(name, wanted[name], period)}."
            for name in _ONE_OF_TERMS
            if now[name] != wanted[name]
        ]
        if not facts:
            raise UsageError("nothing would change; write another number first")
        status = account_status(session, account.id, asked.now)
        so_far = f"{status.queries_used:,} queries, {money(status.spent_micros)}"
        used = f"What was used of this period ({so_far}) counts."
        return Question(
            f"Agree on this with {account.name}?", [*facts, used, "It holds at once."], "Change it"
        )

    def set_terms(self, asked: By) -> Done:
        """Agree on something else, all of it or nothing."""
        name, wanted = asked.path["name"], _wanted_terms(asked.form)

        def change(act: Act) -> None:
            account = find_account(act.session, name, lock=True)
            if account.quota != wanted["quota"]:
                acts.set_quota(act, name, _number(wanted["quota"]))
            if account.spend_limit_micros != wanted["spend_limit"]:
                acts.set_spend_limit(act, name, _number(wanted["spend_limit"]))
            if account.queries_per_second != wanted["rate"]:
                acts.set_rate_limit(act, name, _number(wanted["rate"]))
            if account.coverage_limit != wanted["coverage"]:
                acts.set_coverage_limit(act, name, _number(wanted["coverage"]))
            if account.plan != wanted["plan"]:
                acts.set_plan(act, name, str(wanted["plan"]))

        self._act(asked, change)
        return Done(f"What is agreed with {name} was changed.", f"/accounts/{name}")

    def ask_to_suspend(self, asked: By, session: Session) -> Question:
        """What a suspension means."""
        account = find_account(session, asked.path["name"])
        facts = [
            f"Nothing is sold to {account.name} from now on: requests get account_suspended.",
            f"What is in flight ({account.queries_held:,} queries) is answered and charged.",
            "It may still read what it was charged, here and by its keys.",
        ]
        return Question(f"Suspend {account.name}?", facts, "Suspend the account", dangerous=True)

    def suspend(self, asked: By) -> Done:
        """Sell an account nothing from now on."""
        name = asked.path["name"]
        self._act(asked, lambda act: acts.suspend(act, name))
        return Done(f"{name} is suspended.", f"/accounts/{name}")

    def ask_to_resume(self, asked: By, session: Session) -> Question:
        """What the end of a suspension means."""
        account = find_account(session, asked.path["name"])
        facts = [f"{account.name} may buy again from now on, within its limits."]
        return Question(f"Resume {account.name}?", facts, "Resume the account")

    def resume(self, asked: By) -> Done:
        """Serve a suspended account again."""
        name = asked.path["name"]
        self._act(asked, lambda act: acts.resume(act, name))
        return Done(f"{name} is active again.", f"/accounts/{name}")

    def ask_to_invite(self, asked: By, session: Session) -> Question:
        """What an invitation lets do."""
        account, hours = find_account(session, asked.path["name"]), asked.form.number("hours") or 72
        facts = [
            f"You get a link that signs somebody in to {account.name}'s console, once, within {hours} hours.",
            "Whoever has it may see everything of this account, and make and revoke its keys.",
        ]
        return Question(f"Invite somebody to {account.name}?", facts, "Make the link")

    def invite(self, asked: By) -> Shown:
        """Make a link that signs somebody in to the console, once."""
        name, hours = asked.path["name"], asked.form.number("hours") or 72
        made = self._act(asked, lambda act: invitations.invite(act, name, hours))
        values = {"secret": made.path, "until": made.expires_at, "name": name, "what": "link"}
        return Shown("The invitation", "operators/secret.html", values)

    # Keys.

    def ask_to_create_key(self, asked: By, session: Session) -> Question:
        """What the new key may do."""
        account, terms = find_account(session, asked.path["name"]), _key_terms(asked.form)
        may = ", ".join(sorted(terms.scopes))
        facts = [
            f"{account.name} gets a key of the project {terms.project} that may: {may}.",
            *api_keys.told(terms, per_period(account)),
            "Its secret is shown once.",
        ]
        return Question("Make this key?", facts, "Make the key")

    def create_key(self, asked: By) -> Shown:
        """Issue a key, which is shown once."""
        name, terms = asked.path["name"], _key_terms(asked.form)
        issued = self._act(asked, lambda act: key_acts.issue(act, name, terms))
        values = {"secret": issued.api_key, "until": None, "name": name, "what": "key"}
        return Shown("The new key", "operators/secret.html", values)

    def ask_to_revoke(self, asked: By, session: Session) -> Question:
        """What the end of a key means."""
        key = _key_of(session, asked)
        facts = [
            f"The key {key.id} of {asked.path['name']} ends at once and for good.",
            "Every program that uses it is refused from then on.",
        ]
        return Question("Revoke this key?", facts, "Revoke the key", dangerous=True)

    def revoke_key(self, asked: By) -> Done:
        """End a key."""

        def revoke(act: Act) -> None:
            key_acts.revoke(act, _key_of(act.session, asked).id)

        self._act(asked, revoke)
        return Done(f"The key {asked.path['key_id']} was revoked.", f"/accounts/{asked.path['name']}")

    # Money.

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
        said = self._once(asked, lambda act: _said(money_acts.top_up(act, name, micros, reference), done))
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
        said = self._once(asked, lambda act: _said(money_acts.pay(act, name, micros, reference), done))
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
        said = self._once(
            asked, lambda act: _said(money_acts.refund(act, name, seq, micros, reference), done)
        )
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
            money_acts.adjust(act, name, micros, reason)
            return f"{name} was adjusted by {money(micros)}."

        return Done(self._once(asked, adjust), f"/accounts/{name}")

    # Prices.

    def ask_to_set_price(self, asked: By, session: Session) -> Question:
        """What a price changes."""
        model, kind, plan, micros, since = _price(asked.form)
        holding = prices.named(session, plan, model, kind, asked.now)
        before = "names none" if holding is None else f"is {money(holding)}"
        when = "at once" if since is None else f"from {to_datetime(since):%Y-%m-%d %H:%M} UTC on"
        facts = [
            f"One {kind} to {model} costs {money(micros)} on the plan {plan!r}, {when}; now it {before}.",
            "What was charged before keeps its price. Who agreed to less is refused, not charged more.",
        ]
        return Question("Set this price?", facts, "Set the price")

    def set_price(self, asked: By) -> Done:
        """Let a price hold."""
        model, kind, plan, micros, since = _price(asked.form)
        new = bool(asked.form.get("new"))
        self._act(asked, lambda act: price_acts.set_price(act, plan, model, kind, micros, since, new=new))
        return Done(f"One {kind} to {model} costs {money(micros)} on the plan {plan}.", "/models")

    def ask_to_unset_price(self, asked: By, session: Session) -> Question:
        """What is left without a plan's price."""
        form, kind = asked.form, _price_kind(asked.form)
        model, plan = form.required("model"), form.required("plan")
        standard = prices.named(session, STANDARD_PLAN, model, kind, asked.now)
        shown = "" if standard is None else f": {money(standard)}"
        if kind == prices.BATCH_PERCENT:
            shown = f": {prices.DEFAULT_BATCH_PERCENT if standard is None else standard}%"
        facts = [_no_longer_named(plan, model, kind), f"The standard one holds for it then{shown}."]
        return Question("Take this price back?", facts, "Take the price back", dangerous=True)

    def unset_price(self, asked: By) -> Done:
        """Take a plan's price back."""
        form, kind = asked.form, _price_kind(asked.form)
        model, plan = form.required("model"), form.required("plan")
        self._act(asked, lambda act: price_acts.unset_price(act, plan, model, kind))
        return Done(_no_longer_named(plan, model, kind), "/models")

    # Verification.

    def verify_ledger(self, asked: By) -> Shown:
        """Recompute chains, sums and counters, of one account or of all; one verification at a time."""
        if not self._verifying.acquire(blocking=False):
            message = "the ledger is being verified; ask again when that is over"
            raise APIError(ErrorCode.OVERLOADED, message, retry_after=30)
        try:
            found = self._verified(asked.form.get("account"))
        finally:
            self._verifying.release()
        return Shown("What the verification found", "operators/verified.html", {"found": found})

    def verify_log(self, _: By) -> Done:
        """Recompute the chain of the audit log."""
        with self.database.read() as session:
            found = log.verify(session)
        if found.problem is not None:
            raise OperatorError(f"the audit log is not in order: {found.problem}")
        return Done(f"The audit log is in order: {found.entries:,} entries.", "/audit")

    def _verified(self, account: str) -> list[Verification]:
        with self.database.read() as session:
            chosen = [find_account(session, account)] if account else list_accounts(session)
            ids = [each.id for each in chosen]
        found = []
        for each in ids:
            with self.database.read() as session:
                found.append(verify(session, session.get_one(Account, each)))
        return found


_TERMS = {
    "quota": "Quota",
    "spend_limit": "Spend limit",
    "rate": "Rate",
    "coverage": "Coverage limit",
    "plan": "Plan",
}


def end_everywhere(session: Session, who: SignedInOperator) -> int:
    """End all sessions of a token."""
    return sessions.end_all(session, token_id=who.token.id)


def _key_of(session: Session, asked: By) -> ApiKey:
    account = find_account(session, asked.path["name"])
    key = keys.find_key(session, asked.path["key_id"])
    if key.account_id != account.id:
        raise APIError(ErrorCode.NOT_FOUND, f"{account.name} has no such key")
    return key


def _terms(form: Fields) -> Terms:
    period = form.get("quota_period") or "month"
    if period not in get_args(QuotaPeriod):
        raise UsageError("a quota is for a month, or in total")
    return Terms(
        quota=form.number("quota"),
        quota_period=period,  # type: ignore[arg-type]
        spend_limit_micros=form.money("spend_limit"),
        credit_micros=form.money("credit"),
        queries_per_second=form.number("rate"),
        coverage_limit=form.number("coverage"),
        plan=form.get("plan") or STANDARD_PLAN,
    )


def _wanted_terms(form: Fields) -> dict[str, int | str | None]:
    return {
        "quota": form.number("quota"),
        "spend_limit": form.money("spend_limit"),
        "rate": form.number("rate"),
        "coverage": form.number("coverage"),
        "plan": form.get("plan") or STANDARD_PLAN,
    }


def _number(value: int | str | None) -> int | None:
    assert not isinstance(value, str)
    return value


def _limits(terms: Terms) -> Sequence[str]:
    period = terms.quota_period
    facts = [
        f"{_TERMS[name]}: {_shown(name, value, period)}."
        for name, value in (
            ("quota", terms.quota),
            ("spend_limit", terms.spend_limit_micros),
            ("rate", terms.queries_per_second),
            ("coverage", terms.coverage_limit),
        )
    ]
    paid = (
        "It is invoiced." if terms.credit_micros is None else f"Prepaid credit: {money(terms.credit_micros)}."
    )
    if (terms.quota, terms.spend_limit_micros, terms.credit_micros) == (None, None, None):
        facts.append("It may buy without a limit.")
    return [*facts, paid]


def _shown(name: str, value: int | str | None, period: str) -> str:
    if value is None:
        return "no limit"
    if isinstance(value, str):
        return repr(value)
    span = "a month" if period == "month" else "in all"
    shown = {
        "quota": f"{value:,} queries {span}",
        "spend_limit": f"{money(value)} {span}",
        "rate": f"{value:,} queries a second",
        "coverage": f"{value:,} buckets",
    }
    return shown[name]


def _key_terms(form: Fields) -> KeyTerms:
    return replace(api_keys.terms_of(form), project=form.get("project") or DEFAULT_PROJECT)


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


def _said(recorded: money_acts.Recorded, done: str) -> str:
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


def _kind(form: Fields) -> Kind:
    kind = form.get("kind")
    if kind not in get_args(Kind):
        raise UsageError("a price is of an image or of a text")
    return kind  # type: ignore[return-value]


def _price_kind(form: Fields) -> PriceKind:
    return prices.BATCH_PERCENT if form.get("kind") == prices.BATCH_PERCENT else _kind(form)


def _no_longer_named(plan: str, model: str, kind: PriceKind) -> str:
    what = "percent of bulk jobs" if kind == prices.BATCH_PERCENT else f"price of one {kind}"
    return f"The plan {plan!r} names no {what} to {model} any more."


def _price(form: Fields) -> tuple[str, Kind, str, int, int | None]:
    micros, since = form.money("price"), form.get("since")
    if micros is None:
        raise UsageError("price: write what one query costs, in units of the currency, as in 0.0001")
    try:
        moment = from_datetime(datetime.fromisoformat(since).replace(tzinfo=UTC)) if since else None
    except ValueError as error:
        raise UsageError("since: write a moment in UTC as in 2026-12-01T00:00") from error
    return form.required("model"), _kind(form), form.get("plan") or STANDARD_PLAN, micros, moment
