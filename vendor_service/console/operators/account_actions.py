"""What operators do about accounts: what is agreed with them, who may act for them, and their keys."""

from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

from sqlalchemy.orm import Session

from shared.billing import QuotaPeriod
from shared.errors import ErrorCode
from shared.projects import DEFAULT_PROJECT
from vendor_service.accounts import keys
from vendor_service.accounts.accounts import Terms, find_account
from vendor_service.accounts.keys import KeyTerms
from vendor_service.acts import accounts as acts
from vendor_service.acts import invitations
from vendor_service.acts import keys as key_acts
from vendor_service.acts.act import Act
from vendor_service.acts.tokens import OperatorScope
from vendor_service.console import api_keys
from vendor_service.console.forms import Fields
from vendor_service.console.operators.acting import ACCOUNT, Acting, By, per_period, requiring
from vendor_service.console.operators.visitor import SignedInOperator
from vendor_service.console.rendering import money
from vendor_service.console.routes import Action, Done, Question, Shown, state_of
from vendor_service.database.tables import STANDARD_PLAN, Account, ApiKey
from vendor_service.errors import APIError, UsageError
from vendor_service.money.usage import account_status

# What may be changed of the terms, by the names of `Terms`.
_TERMS = {
    "quota": "Quota",
    "spend_limit_micros": "Spend limit",
    "queries_per_second": "Rate",
    "coverage_limit": "Coverage limit",
    "plan": "Plan",
}


class AccountActions(Acting):
    """The actions, on these books."""

    def all(self) -> list[Action[SignedInOperator]]:
        """Every action."""
        change = requiring(OperatorScope.ACCOUNTS)
        return [
            Action("/accounts/open", "/accounts", change, self.open, self.ask_to_open),
            Action(f"{ACCOUNT}/terms", ACCOUNT, change, self.set_terms, self.ask_for_terms),
            Action(f"{ACCOUNT}/suspend", ACCOUNT, change, self.suspend, self.ask_to_suspend),
            Action(f"{ACCOUNT}/resume", ACCOUNT, change, self.resume, self.ask_to_resume),
            Action(f"{ACCOUNT}/invite", ACCOUNT, change, self.invite, self.ask_to_invite),
            Action(f"{ACCOUNT}/keys/create", ACCOUNT, change, self.create_key, self.ask_to_create_key),
            Action(f"{ACCOUNT}/keys/{{key_id}}/revoke", ACCOUNT, change, self.revoke_key, self.ask_to_revoke),
        ]

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
        now, wanted, period = _agreed(account), _agreed(_terms(asked.form)), account.quota_period
        facts = [
            f"{_TERMS[field]}: {_shown(field, now[field], period)} → {_shown(field, wanted[field], period)}."
            for field in _TERMS
            if now[field] != wanted[field]
        ]
        if not facts:
            raise UsageError("nothing would change; write another number first")
        status = account_status(session, account.id, asked.now)
        so_far = f"{status.queries_used:,} queries, {money(status.spent_micros)}"
        used = f"What was used of this period ({so_far}) counts."
        return Question(
            f"Agree on this with {account.name}?",
            [*facts, used, "It holds at once."],
            "Change it",
            state=_state(account),
        )

    def set_terms(self, asked: By) -> Done:
        """Agree on something else, all of it or nothing."""
        name, wanted = asked.path["name"], _agreed(_terms(asked.form))

        def change(act: Act) -> None:
            account = find_account(act.session, name, lock=True)
            message = f"what is agreed with {name} was changed since this page was made"
            asked.check_state(_state(account), message)
            acts.set_terms(act, name, wanted)

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


def _agreed(terms: Terms | Account) -> dict[str, int | str | None]:
    return {field: getattr(terms, field) for field in _TERMS}


def _state(account: Account) -> str:
    return state_of(account.quota_period, _agreed(account))


def _limits(terms: Terms) -> Sequence[str]:
    period = terms.quota_period
    facts = [
        f"{_TERMS[field]}: {_shown(field, value, period)}."
        for field, value in _agreed(terms).items()
        if field != "plan"
    ]
    paid = (
        "It is invoiced." if terms.credit_micros is None else f"Prepaid credit: {money(terms.credit_micros)}."
    )
    if (terms.quota, terms.spend_limit_micros, terms.credit_micros) == (None, None, None):
        facts.append("It may buy without a limit.")
    return [*facts, paid]


def _shown(field: str, value: int | str | None, period: str) -> str:
    if value is None:
        return "no limit"
    if isinstance(value, str):
        return repr(value)
    span = "a month" if period == "month" else "in all"
    shown = {
        "quota": f"{value:,} queries {span}",
        "spend_limit_micros": f"{money(value)} {span}",
        "queries_per_second": f"{value:,} queries a second",
        "coverage_limit": f"{value:,} buckets",
    }
    return shown[field]


def _key_terms(form: Fields) -> KeyTerms:
    return replace(api_keys.terms_of(form), project=form.get("project") or DEFAULT_PROJECT)
