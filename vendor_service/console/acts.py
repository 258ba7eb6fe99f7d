"""The declared acts as forms: their fields, the question before them, and what is shown of their result."""

import secrets
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, get_args, get_origin

from pydantic import BaseModel

from shared.errors import ErrorCode
from shared.pages.fields import Field
from vendor_service.acts import idempotency
from vendor_service.acts.act import ActContext
from vendor_service.acts.declaration import REQUIRED, DeclaredAct, Parameter, Value
from vendor_service.acts.registry import ACTS
from vendor_service.clock import from_datetime, to_datetime
from vendor_service.console.forms import Fields, WrongFields
from vendor_service.console.routes import Action, ConsoleRequest, Done, Question, Shown, Who
from vendor_service.errors import APIError, OperatorError, UsageError
from vendor_service.terms import Unit, money

Choices = Mapping[str, Collection[str]]


def new_once() -> str:
    """What tells a form, or a page with a question, from every other one."""
    return secrets.token_urlsafe(16)


@dataclass(frozen=True)
class ActForm:
    """The form of an act: where it is sent, its fields, what is known already, and what is `once` alone.

    One that `asks` gets its own `once` with the question.
    """

    name: str
    path: str
    title: str
    asks: bool
    dangerous: bool
    fields: Sequence[Field]
    known: Mapping[str, str]
    once: str = field(default_factory=new_once)

    def only(self, **values: str) -> "ActForm":
        """The form with these fields alone, and what stands in them; the others are left as by default."""
        kept = [each for each in self.fields if each.name in values]
        return replace(self, fields=[replace(each, value=values[each.name] or each.value) for each in kept])


class Face(ABC, Generic[Who]):
    """A site as its acts see it."""

    @abstractmethod
    def path_of(self, declared: DeclaredAct) -> str:
        """Where the form of an act is sent, below the site's root; nothing where it has none here."""

    @abstractmethod
    def asks(self, declared: DeclaredAct) -> bool:
        """Whether a page asks before it is done."""

    @abstractmethod
    def allow(self, who: Who, declared: DeclaredAct) -> None:
        """Make sure that somebody may do it; raises an `APIError`."""

    @abstractmethod
    def context(self, who: Who) -> ActContext:
        """The context of acts on their behalf."""

    @abstractmethod
    def asker_id(self, who: Who) -> str:
        """Whose idempotency keys the forms bring."""

    @abstractmethod
    def back(self, request: ConsoleRequest[Who], declared: DeclaredAct) -> str:
        """The page to go back to."""

    def own(self, _: Who) -> Mapping[str, Value]:
        """The values that need no question, by the names of parameters."""
        return {}

    def done(self, request: ConsoleRequest[Who], declared: DeclaredAct, _: Mapping[str, Value]) -> str:
        """The page to go to when it is done."""
        return self.back(request, declared)

    def did(self, request: ConsoleRequest[Who], declared: DeclaredAct, result: Value) -> None:
        """Do what follows from an act here."""


class _Said(BaseModel):
    message: str


@dataclass(frozen=True)
class Acts(Generic[Who]):
    """The acts that have a form at a site."""

    face: Face[Who]
    declared: Mapping[str, DeclaredAct] = field(default_factory=lambda: ACTS)

    def actions(self) -> list[Action[Who]]:
        """The actions of their forms."""
        return [self._action(each) for each in self.declared.values() if self.face.path_of(each)]

    def form(
        self, who: Who, act: str, row: Value = None, /, *, choices: Choices | None = None, **known: Value
    ) -> ActForm | None:
        """The form of an act on a row of the books, with what is known; `None` for who may not.

        `choices` are the lists that fields name. What only changes has what stands in the row, and an act
        that makes no sense for it has no form.
        """
        declared = self.declared[act]
        try:
            self.face.allow(who, declared)
        except APIError:
            return None
        if row is not None and declared.applies is not None and not declared.applies(row):
            return None
        known = {**known, **self.face.own(who)}
        shown = [each for each in declared.parameters if each.term.typed and each.name not in known]
        placed = self.face.path_of(declared)
        hidden = {}
        for each in declared.parameters:
            if each.name in known and each.name not in self.face.own(who):
                placed = placed.replace(f"{{{each.on_wire}}}", str(known[each.name]))
                hidden[each.in_form] = str(known[each.name])
        fields = [_field(each, declared, row, choices or {}) for each in shown]
        asks = self.face.asks(declared)
        return ActForm(act, placed, declared.title, asks, declared.dangerous, fields, hidden)

    def some(self, who: Who, acts: Iterable[str], row: Value = None, /, **known: Value) -> list[ActForm]:
        """The forms of these acts, as `form` has them."""
        found = [self.form(who, act, row, **known) for act in acts]
        return [each for each in found if each is not None]

    def forms(
        self, who: Who, row: Value, /, *, choices: Choices | None = None, **known: Value
    ) -> dict[str, list[ActForm]]:
        """The forms of all acts on a row, by the noun that they are about; `known` names the row."""
        found: dict[str, list[ActForm]] = defaultdict(list)
        for each in self.declared.values():
            named = {one.name: known[one.on_wire] for one in each.subjects if one.on_wire in known}
            if not named or len(named) < len(each.subjects):
                continue
            form = self.form(who, each.name, row, choices=choices, **named)
            if form is not None:
                found[each.noun].append(form)
        return found

    def _action(self, declared: DeclaredAct) -> Action[Who]:
        def ask(request: ConsoleRequest[Who]) -> Question | None:
            given = self._given(request, declared)
            with self.face.context(request.who).read() as act:
                facts = declared.facts(act, given)
                state = declared.state_of(declared.row(act, given))
            if not facts:
                return None
            return Question(f"{declared.title}?", facts, declared.title, declared.dangerous, state)

        return Action(
            self.face.path_of(declared),
            lambda request: self.face.back(request, declared),
            lambda who: self.face.allow(who, declared),
            lambda request: self._do(request, declared),
            ask if self.face.asks(declared) else None,
            lambda request, error: self._again(request, declared, error),
        )

    def _again(
        self, request: ConsoleRequest[Who], declared: DeclaredAct, error: APIError | OperatorError
    ) -> ActForm | None:
        """The form as it was sent, with what is wrong beside its fields; `None` where that is no help."""
        written, own = request.form, self.face.own(request.who)
        known = written.get("known").split()
        shown = [
            each
            for each in declared.parameters
            if each.term.typed and each.in_form not in known and each.on_wire not in request.path
        ]
        shown = [each for each in shown if each.name not in own]
        if error.code not in _MENDED or not shown:
            return None
        wrong = error.wrong if isinstance(error, WrongFields) else {}
        fields = [
            replace(
                _field(each, declared, _NOTHING, {}),
                value=written.get(each.in_form),
                chosen=written.all(each.in_form),
                error=wrong.get(each.in_form, ""),
            )
            for each in shown
        ]
        placed = self.face.path_of(declared)
        for name, value in request.path.items():
            placed = placed.replace(f"{{{name}}}", value)
        hidden = {name: written.get(name) for name in known}
        return ActForm(
            *(declared.name, placed, declared.title, self.face.asks(declared), declared.dangerous),
            *(fields, hidden),
        )

    def _do(self, request: ConsoleRequest[Who], declared: DeclaredAct) -> Done | Shown:
        given = self._given(request, declared)
        to = self.face.done(request, declared, given)
        if not declared.repeats:
            state = request.form.get("state") if declared.state is not None else None
            result = declared.perform(self.face.context(request.who), given, state)
            said = declared.said(given, result)
        else:
            said, result = self._once(request, declared, given)
            if result is None:
                return Done(f"{said}{_SHOWN_THEN if declared.reveals else ''}", to)
        self.face.did(request, declared, result)
        if not declared.reveals:
            return Done(said, to)
        shown = _revealed(declared, result, said, to)
        asked = {"act": declared.name, "given": given, "url": request.base_url}
        return replace(shown, values={**shown.values, **asked})

    def _once(
        self, request: ConsoleRequest[Who], declared: DeclaredAct, given: Mapping[str, Value]
    ) -> tuple[str, Value]:
        """Do an act once for each form or question, however often that is sent; what is said, and the result.

        The same is said again then, and there is no result.
        """
        key = f"console {request.form.required('once')}"
        pairs = sorted(pair for pair in request.form.pairs if pair[0] != "csrf")
        asked = f"{declared.name} {'&'.join(f'{name}={value}' for name, value in pairs)}"
        results = list[Value]()

        def work() -> BaseModel:
            results.append(declared.call(act, given))
            return _Said(message=declared.said(given, results[0]))

        with self.face.context(request.who).write() as act:
            said = idempotency.once(act, self.face.asker_id(request.who), key, asked, work)
        return _Said.model_validate_json(said.content).message, results[0] if results else None

    def _given(self, request: ConsoleRequest[Who], declared: DeclaredAct) -> dict[str, Value]:
        """The written values, by the names of parameters.

        Raises:
            UsageError: something makes no sense.
        """
        given = dict(self.face.own(request.who))
        given = {each.name: given[each.name] for each in declared.parameters if each.name in given}
        wrong: dict[str, str] = {}
        for each in declared.parameters:
            if each.name in given or not each.term.typed:
                continue
            if each.on_wire in request.path:
                given[each.name] = request.path[each.on_wire]
                continue
            try:
                if (value := _written(each, request.form)) is not _NOTHING:
                    given[each.name] = value
            except UsageError as error:
                said = str(error).partition(": ")[2] or "this is empty"
                wrong[each.in_form] = f"{said[:1].upper()}{said[1:]}."
        if wrong:
            raise WrongFields(wrong, {each.in_form: each.label for each in declared.parameters})
        declared.check_given(given)
        return self.face.context(request.who).in_currency(given)


_NOTHING: Any = object()
_NONE = "none"
# Errors after which the form is shown again, to be mended.
_MENDED = (ErrorCode.INVALID_REQUEST, ErrorCode.CONFLICT, ErrorCode.NOT_FOUND)
_SHOWN_THEN = (
    " This form was sent before; the secret was shown then, and can only be replaced by another one."
)


def _revealed(declared: DeclaredAct, result: Value, said: str, to: str) -> Shown:
    """The page of a result that is shown once: a secret, if there is one, and what else is told."""
    facts = dict(result)
    secret = facts[declared.reveals]
    keep = said if secret is None else declared.keep.format(**facts)
    told = [] if declared.hint is None else (declared.hint(result) or "").splitlines()
    values = {"secret": secret, "keep": keep, "told": told, "to": to}
    return Shown(declared.title if secret is None else "Copy it now", "secret.html", values)


def _written(each: Parameter, form: Fields) -> Value:
    """The value of a parameter in a form; `_NOTHING` where it stays as it is, or has its default.

    Raises:
        UsageError: something makes no sense.
    """
    name = each.in_form
    if (kind := each.several) is not None:
        chosen = [_choice(each, [*kind], value) for value in form.all(name)]
        if not chosen and each.default:
            raise UsageError(f"{each.label.lower()}: tick at least one")
        return [kind(value) for value in chosen]
    if each.kind is bool:
        return bool(form.get(name))
    if each.may_be_none and each.only_changes:  # a field that was forgotten takes no limit away
        written = form.get(name).lower()
        if written in ("", _NONE):
            return None if written else _NOTHING
    value = _read(each, form)
    if value is None or value == "":
        if each.is_required:
            raise UsageError(f"{name.replace('_', ' ')} is empty")
        return None if each.may_be_none and not each.only_changes else _NOTHING
    if each.term.longest is not None and len(str(value)) > each.term.longest:
        raise UsageError(f"{each.label.lower()}: write up to {each.term.longest} characters")
    return value


def _read(each: Parameter, form: Fields) -> Value:
    name = each.in_form
    if each.term.unit is Unit.MOMENT:
        moment = form.moment(name)
        return None if moment is None else from_datetime(moment)
    if each.term.unit in (Unit.MONEY, Unit.PRICE):
        return form.money(name)
    if each.kind is int:
        return _bounded(each, form.number(name))
    value = form.get(name)
    return _choice(each, get_args(each.kind), value) if value and get_origin(each.kind) is Literal else value


def _bounded(each: Parameter, value: int | None) -> int | None:
    least, most = each.term.least, each.term.most
    if value is not None and ((least is not None and value < least) or (most is not None and value > most)):
        raise UsageError(f"{each.in_form.replace('_', ' ')}: write a number from {least} to {most}")
    return value


def _choice(each: Parameter, allowed: Sequence[str], value: str) -> str:
    if value not in allowed:
        raise UsageError(f"{each.label.lower()}: there is no {value[:64]!r}")
    return value


def _field(each: Parameter, declared: DeclaredAct, row: Value, choices: Choices) -> Field:
    present = getattr(row, each.name, None) if each.only_changes and row is not None else each.default
    term, known = each.term, each.term.choices
    if (kind := each.several) is not None:
        meant = known if isinstance(known, Mapping) else {}
        pairs = [(str(one), meant.get(one, str(one))) for one in kind]
        return Field(each.in_form, each.label, "several", choices=pairs, chosen=[*map(str, each.default)])
    value = "" if present is None or present is REQUIRED else _as_written(each, present)
    if present is None and each.only_changes and each.may_be_none and row is not None:
        value = _NONE
    if isinstance(known, Mapping):
        offered = [(str(one), meaning) for one, meaning in known.items()]
    elif get_origin(each.kind) is Literal:
        offered = [(one, one) for one in get_args(each.kind)]
    else:
        offered = [(one, one) for one in choices.get(known, ())]
    closed = bool(offered) and not term.is_open
    if closed and present is each.default and term.example:
        value = term.example
    return Field(
        each.in_form,
        each.label,
        "select" if closed else _entered(each),
        value,
        (term.none or declared.none if each.may_be_none else "") or term.example,
        _with_present(offered, value) if closed else offered,
        [value],
        each.is_required,
        term.longest,
    )


def _with_present(offered: list[tuple[str, str]], value: str) -> list[tuple[str, str]]:
    """The values to choose from, with the one that stands there, even where it is none of them."""
    return offered if not value or value in dict(offered) else [*offered, (value, value)]


def _entered(each: Parameter) -> Literal["text", "number", "money", "moment", "flag"]:
    if each.kind is bool:
        return "flag"
    if each.term.unit is Unit.MOMENT:
        return "moment"
    if each.term.unit in (Unit.MONEY, Unit.PRICE):
        return "money"
    return "number" if each.kind is int else "text"


def _as_written(each: Parameter, value: Value) -> str:
    if each.kind is bool:
        return ""
    if each.term.unit is Unit.MOMENT:
        return f"{to_datetime(value):%Y-%m-%dT%H:%M}"
    return money(value) if each.term.unit is Unit.MONEY else str(value)
