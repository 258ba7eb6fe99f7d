"""What operators do about prices."""

from datetime import datetime
from typing import get_args

from sqlalchemy.orm import Session

from shared.embeddings import Kind
from vendor_service.acts import prices as acts
from vendor_service.acts.tokens import OperatorScope
from vendor_service.clock import from_datetime, to_datetime
from vendor_service.console.forms import Fields
from vendor_service.console.operators.acting import Acting, By, requiring
from vendor_service.console.operators.visitor import SignedInOperator
from vendor_service.console.rendering import money
from vendor_service.console.routes import Action, Done, Question
from vendor_service.database.tables import STANDARD_PLAN
from vendor_service.errors import UsageError
from vendor_service.money import prices
from vendor_service.money.prices import PriceKind


class PriceActions(Acting):
    """The actions, on these books."""

    def all(self) -> list[Action[SignedInOperator]]:
        """Every action."""
        move = requiring(OperatorScope.MONEY)
        return [
            Action("/prices/set", "/models", move, self.set_price, self.ask_to_set_price),
            Action("/prices/unset", "/models", move, self.unset_price, self.ask_to_unset_price),
        ]

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
        self._act(asked, lambda act: acts.set_price(act, plan, model, kind, micros, since, new=new))
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
        self._act(asked, lambda act: acts.unset_price(act, plan, model, kind))
        return Done(_no_longer_named(plan, model, kind), "/models")


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
        moment = from_datetime(datetime.fromisoformat(since)) if since else None
    except ValueError as error:
        raise UsageError("since: write a moment in UTC as in 2026-12-01T00:00") from error
    return form.required("model"), _kind(form), form.get("plan") or STANDARD_PLAN, micros, moment
