"""The declaration of an act or a query, from which its command, route, form and reference are made.

An act is one function: its parameters carry `Term`s, its docstring is its help, and `@act` says the rest. A
query is declared alike by `@query`, and only reads. A parameter whose type is a dataclass is a group, whose
fields count as parameters; so is a mapping with `Changes`, of fields that only change where they are given.
"""

import dataclasses
import hashlib
import inspect
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property, wraps
from typing import Annotated, Any, Concatenate, Literal, ParamSpec, TypeVar, Union, get_args, get_origin
from typing import get_type_hints as hints_of

from pydantic import BaseModel

from shared.billing import Entry
from shared.errors import ErrorCode
from vendor_service.accounts.keys import Scope
from vendor_service.acts.act import Act, ActContext, OperatorScope
from vendor_service.errors import APIError
from vendor_service.terms import Term, shown

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", Act, ActContext)
Given = Mapping[str, Any]
Value = Any  # of whatever kind an act takes or returns

REQUIRED: Any = inspect.Parameter.empty
_UNCHANGED: Any = object()  # the default of a field that changes only where it is given

ACTS: dict[str, "DeclaredAct"] = {}
QUERIES: dict[str, "DeclaredQuery"] = {}


@dataclass(frozen=True)
class Changes:
    """Marks a mapping of changes, of fields of a dataclass of terms but those that it has to `omit`."""

    of: type
    omit: Sequence[str] = ()


@dataclass(frozen=True)
class Recorded:
    """An entry of the ledger that counts once for its reference, and whether it was there `before`."""

    entry: Entry
    before: bool


@dataclass(frozen=True)
class Own:
    """How customers do, or ask, this about their own account: by a route of `/v1`, by a form, or both.

    Their account takes the place of the `account` that operators name. The route takes a key with the
    `scope`; without one any key will do. `asks` says whether a page asks before the form is done. `most` is
    how long a list is. What reads an account's `history` is asked at a rate; so is what takes `usage:read`.
    """

    route: str = ""
    form: str = ""
    asks: bool = True
    scope: Scope | None = Scope.ADMIN
    most: int | None = None
    history: bool = False


@dataclass(frozen=True)
class Parameter:
    """A value that an act or a query takes, perhaps in the `group` that is one parameter of the function.

    `kind` is its type without `None`, which is allowed where it `may_be_none`.
    """

    name: str
    kind: Any
    may_be_none: bool
    default: Any
    term: Term
    group: str = ""

    @property
    def is_required(self) -> bool:
        """Whether it has to be given."""
        return self.default is REQUIRED

    @property
    def only_changes(self) -> bool:
        """Whether it stays as it is where it is not given."""
        return self.default is _UNCHANGED

    @property
    def on_wire(self) -> str:
        """Its name in requests."""
        return self.term.wire or self.name

    @property
    def in_form(self) -> str:
        """Its name in a form."""
        return self.term.form or (self.option.replace("-", "_") if self.term.typed else self.name)

    @property
    def option(self) -> str:
        """Its name on the command line."""
        return self.term.typed.split()[0].strip("-[]").lower()

    @property
    def several(self) -> type[StrEnum] | None:
        """The values of which several may be chosen, if it is a collection of them."""
        inner = get_args(self.kind)
        is_one = len(inner) == 1 and get_origin(self.kind) is not Literal and isinstance(inner[0], type)
        return inner[0] if is_one and issubclass(inner[0], StrEnum) else None

    @property
    def label(self) -> str:
        """Its name for people."""
        return self.term.label or self.name.replace("_", " ").capitalize()

    def shown(self, value: Value) -> str:
        """A value of it as people read it."""
        return shown(value, self.term.unit, self.term.none or "none")


@dataclass(frozen=True)
class Declared:
    """The parts that acts and queries share: `function` takes an `Act`, or an `ActContext` for several.

    `none` is what `None` means of each parameter that does not say it itself.
    """

    name: str
    function: Callable[..., Any]
    command: str
    route: str
    scope: OperatorScope
    none: str
    transaction: bool
    own: Own | None

    @property
    def help(self) -> str:
        """Its help, in sentences, with an example of its command."""
        return inspect.cleandoc(self.function.__doc__ or "")

    @property
    def description(self) -> str:
        """The same without the example."""
        return self.help.partition("\n\nExample:")[0].strip()

    @property
    def operation_id(self) -> str:
        """Its name in OpenAPI documents, and so in clients that are generated from them."""
        words = self.command or inspect.unwrap(self.function).__name__
        return words.replace(" ", "_").replace("-", "_")

    @property
    def summary(self) -> str:
        """Its first sentence."""
        return " ".join(self.description.split("\n\n")[0].split()).split(". ")[0].rstrip(".")

    @property
    def noun(self) -> str:
        """Its noun: the module that declares it."""
        return self.function.__module__.rpartition(".")[2]

    @cached_property
    def hints(self) -> dict[str, Any]:
        """The types of the function's parameters and of what it returns."""
        return hints_of(self.function, include_extras=True)

    @cached_property
    def parameters(self) -> Sequence[Parameter]:
        """Its parameters, with the fields of groups in their place."""
        named = list(inspect.signature(self.function).parameters.values())[1:]
        found = [each for one in named for each in _parameters(one.name, self.hints[one.name], one.default)]
        return [
            replace(each, term=replace(each.term, none=self.none))
            if each.may_be_none and not each.term.none
            else each
            for each in found
        ]

    def arguments(self, given: Given) -> dict[str, Any]:
        """The arguments of the function, groups put together."""
        arguments: dict[str, Any] = {}
        for each in self.parameters:
            value = given.get(each.name, each.default)
            if not each.group:
                arguments[each.name] = value
            elif value is not _UNCHANGED:
                arguments.setdefault(each.group, {})[each.name] = value
            else:
                arguments.setdefault(each.group, {})
        for name in {each.group for each in self.parameters if each.group}:
            if dataclasses.is_dataclass(self.hints[name]):
                arguments[name] = self.hints[name](**arguments[name])
        return arguments

    def call(self, act: Act | ActContext, given: Given) -> Value:
        """Call the function."""
        return self.function(act, **self.arguments(given))


@dataclass(frozen=True)
class DeclaredAct(Declared):
    """An act. See `act` for what is declared."""

    title: str
    done: str
    status: int
    of: Callable[..., Any] | None
    state: Callable[[Any], object] | None
    applies: Callable[[Any], bool] | None
    check: Callable[..., None] | None
    moves_money: bool
    dangerous: bool
    asks_if: Callable[[Act, Given], bool] | None
    word: str
    reveals: str
    keep: str
    hint: Callable[[Any], str | None] | None
    begins_books: bool

    @property
    def operation_id(self) -> str:
        """See `Declared`: the name of the act."""
        return self.name.replace(".", "_")

    @property
    def summary(self) -> str:
        """See `Declared`: what it does in a few words."""
        return self.title

    @cached_property
    def subjects(self) -> Sequence[Parameter]:
        """The names of what it is about: those that `of` finds, or that are in the path of its route."""
        names = [] if self.of is None else list(inspect.signature(self.of).parameters)[1:]
        return [each for each in self.parameters if each.name in names or f"{{{each.on_wire}}}" in self.route]

    @property
    def repeats(self) -> bool:
        """Whether it makes or moves something again, done again: no row and no state tells that it was."""
        makes = self.of is None or bool(self.reveals) or self.moves_money
        return makes and self.state is None and self.transaction

    def row(self, act: Act, given: Given, *, lock: bool = False) -> Value:
        """The row that it is about; `None` where it makes something new."""
        if self.of is None:
            return None
        names = list(inspect.signature(self.of).parameters)[1:]
        return self.of(act, **{name: given[name] for name in names if name != "lock"}, lock=lock)

    def check_given(self, given: Given) -> None:
        """Refuse what only an idempotency key would allow; raises what `check` does."""
        if self.check is not None:
            names = inspect.signature(self.check).parameters
            self.check(**{name: given.get(name) for name in names})

    def facts(self, act: Act, given: Given) -> list[str]:
        """Its effect, sentence by sentence; nothing where it would change nothing."""
        preview = _PREVIEWS.get(self.name)
        if preview is not None:
            return list(preview(act, **self.arguments(given)))
        return _facts(self.parameters, given)

    @property
    def asks_at_times(self) -> bool:
        """Whether a command may ask before this is done; what moves money has a reference instead."""
        return (self.dangerous or self.asks_if is not None) and not self.moves_money

    def must_ask(self, act: Act, given: Given) -> bool:
        """Whether a command asks before this is done."""
        return self.dangerous or (self.asks_if is not None and self.asks_if(act, given))

    def state_of(self, row: Value) -> str:
        """A digest of the facts that a question is based on, to see later whether they still hold."""
        if self.state is None or row is None:
            return ""
        return hashlib.sha256(repr(self.state(row)).encode()).hexdigest()

    def perform(self, context: ActContext, given: Given, state: str | None = None) -> Value:
        """Do it, in one transaction if it is one; with a `state` only if that still holds.

        Raises:
            APIError: `conflict`; somebody else changed something since the question was asked.
        """
        if not self.transaction:
            return self.call(context, given)
        with context.write() as act:
            if state is not None and state != self.state_of(self.row(act, given, lock=True)):
                message = (
                    "this has changed since the page was loaded, or the form was sent before; reload the page"
                )
                raise APIError(ErrorCode.CONFLICT, message)
            return self.call(act, given)

    def said(self, given: Given, result: Value) -> str:
        """Its result, for people."""
        if isinstance(result, Recorded) and result.before:
            return f"This was recorded before as entry {result.entry.seq}; nothing was changed."
        return self.done.format(**{each.name: each.shown(given.get(each.name)) for each in self.parameters})


@dataclass(frozen=True)
class DeclaredQuery(Declared):
    """A query. See `query` for what is declared."""

    rows: Callable[[Any], Iterable[Mapping[str, Any]]] | None
    note: Callable[[Any], str | None] | None
    fault: Callable[[Any], str | None] | None
    command_limit: int | None
    needs_books: bool
    pages: bool

    @property
    def is_list(self) -> bool:
        """Whether it is answered page by page over HTTP: all lists are, but for reports of all at once."""
        return self.pages and get_origin(self.hints["return"]) is list

    @property
    def is_cut(self) -> bool:
        """Whether it is a list that is read whole, and cut into pages afterwards."""
        return self.is_list and all(each.name != "after" for each in self.parameters)

    def ask(self, context: ActContext, given: Given) -> Value:
        """Ask it, in one transaction that reads if it is one."""
        if not self.transaction:
            return self.call(context, given)
        with context.read() as act:
            return self.call(act, given)


def act(
    name: str,
    *,
    title: str,
    done: str,
    scope: OperatorScope,
    command: str = "",
    route: str = "",
    status: int = 200,
    own: Own | None = None,
    of: Callable[..., Any] | None = None,
    state: Callable[[Any], object] | None = None,
    applies: Callable[[Any], bool] | None = None,
    none: str = "none",
    check: Callable[..., None] | None = None,
    moves_money: bool = False,
    dangerous: bool = False,
    asks_if: Callable[[Act, Given], bool] | None = None,
    word: str = "",
    reveals: str = "",
    keep: str = "Keep it: only its hash is stored, so it cannot be shown again.",
    hint: Callable[[Any], str | None] | None = None,
    begins_books: bool = False,
    transaction: bool = True,
) -> Callable[[Callable[Concatenate[C, P], R]], Callable[Concatenate[C, P], R]]:
    """Declare a function as the act of this `name`, by which the audit log knows it.

    `title` says what it does in a few words, and `done` what was done, with the values of parameters in
    braces. `route` is a method and a path behind `/admin`. `of` finds the row that it is about, for the
    parameters of its own names; `applies` says whether it makes sense for that row, and `state` what a
    question about it is based on. What `moves_money` is done once for an idempotency key; `check` refuses
    some parameters of commands and forms, which bring none. What is `dangerous` cannot be undone; who types
    it agrees by the `word`, the value of that parameter or of the last one, and so does who types something
    that `asks_if` calls surprising. The field that it `reveals` is
    shown this once, with the advice to `keep` it. `hint` is told beside the result. `begins_books` allows
    new ones.
    """

    def declare(function: Callable[Concatenate[C, P], R]) -> Callable[Concatenate[C, P], R]:
        @wraps(function)
        def perform(first: C, /, *args: P.args, **kwargs: P.kwargs) -> R:
            return function(replace(first, action=name), *args, **kwargs)

        ACTS[name] = DeclaredAct(
            name, perform, command, route, scope, none, transaction, own, title, done, status, of,
            state, applies, check, moves_money, dangerous, asks_if, word, reveals, keep, hint, begins_books,
        )  # fmt: skip
        return perform

    return declare


def query(
    *,
    command: str = "",
    route: str = "",
    transaction: bool = True,
    rows: Callable[[Any], Iterable[Mapping[str, Any]]] | None = None,
    note: Callable[[Any], str | None] | None = None,
    fault: Callable[[Any], str | None] | None = None,
    command_limit: int | None = None,
    own: Own | None = None,
    needs_books: bool = True,
    pages: bool = True,
) -> Callable[[Callable[Concatenate[C, P], R]], Callable[Concatenate[C, P], R]]:
    """Declare a function as a query, which every operator may ask.

    `rows` makes the table for people of its result, where that is not its data as they are. `note` is told
    below the table. A `fault` that is found fails the command. A command without `--limit` lists as many as
    `command_limit`, or all. What is not one `transaction` may write. A command may need no books.
    Over HTTP a list is answered in `pages`: `after` names the last row that was seen by its first field.
    """

    def declare(function: Callable[Concatenate[C, P], R]) -> Callable[Concatenate[C, P], R]:
        name = command or route
        QUERIES[name] = DeclaredQuery(
            name, function, command, route, OperatorScope.READ, "none", transaction, own, rows, note,
            fault, command_limit, needs_books, pages,
        )  # fmt: skip
        return function

    return declare


_PREVIEWS: dict[str, Callable[..., Iterable[str]]] = {}


def preview(
    of: Callable[Concatenate[C, P], Any],
) -> Callable[[Callable[Concatenate[Act, P], Iterable[str]]], Callable[Concatenate[Act, P], Iterable[str]]]:
    """Declare what tells, fact by fact, what an act of the same parameters will do."""

    def declare(
        function: Callable[Concatenate[Act, P], Iterable[str]],
    ) -> Callable[Concatenate[Act, P], Iterable[str]]:
        (name,) = [each.name for each in ACTS.values() if each.function is of]
        _PREVIEWS[name] = function
        return function

    return declare


def facts_of(terms: type, given: Given) -> list[str]:
    """The values of some terms, a sentence each."""
    return _facts(_fields("", terms), given)


def changes_of(terms: type, row: Value, changes: Given, none: str) -> list[str]:
    """The changes of a row, from and to, a sentence for each of these terms."""
    facts = []
    for each in _fields("", terms):
        field = replace(each, term=replace(each.term, none=each.term.none or none))
        if field.name in changes and changes[field.name] != (now := getattr(row, field.name)):
            facts.append(f"{field.label}: {field.shown(now)} → {field.shown(changes[field.name])}.")
    return facts


def data_of(result: Value) -> Value:
    """A result as JSON has it."""
    if isinstance(result, Recorded):
        return data_of(result.entry)
    if isinstance(result, BaseModel):
        return result.model_dump(mode="json")
    if dataclasses.is_dataclass(result) and not isinstance(result, type):
        return dataclasses.asdict(result)
    return [data_of(each) for each in result] if isinstance(result, list) else result


def _facts(parameters: Iterable[Parameter], given: Given) -> list[str]:
    return [f"{each.label}: {each.shown(given[each.name])}." for each in parameters if each.name in given]


def _parameters(name: str, hint: Value, default: Value) -> Iterable[Parameter]:
    changes = [each for each in get_args(hint)[1:] if isinstance(each, Changes)]
    if changes:
        for each in _fields(name, changes[0].of):
            if each.name not in changes[0].omit:
                yield replace(each, default=_UNCHANGED)
    elif dataclasses.is_dataclass(hint):
        yield from _fields(name, hint)
    else:
        yield _parameter(name, hint, default)


def _fields(group: str, terms: Value) -> Iterable[Parameter]:
    kinds = hints_of(terms, include_extras=True)
    for each in dataclasses.fields(terms):
        yield replace(_parameter(each.name, kinds[each.name], _default(each)), group=group)


def _default(field: Value) -> Value:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return REQUIRED if field.default is dataclasses.MISSING else field.default


def _parameter(name: str, hint: Value, default: Value) -> Parameter:
    term, kind, may_be_none = Term(), hint, False
    while True:
        origin: Value = get_origin(kind)
        if origin is Annotated:
            kind, *told = get_args(kind)
            term = next((each for each in told if isinstance(each, Term)), term)
        elif origin in (Union, types.UnionType) and type(None) in get_args(kind):
            may_be_none = True
            kind = Union[tuple(each for each in get_args(kind) if each is not type(None))]  # noqa: UP007
        else:
            return Parameter(name, kind, may_be_none, default, term)
