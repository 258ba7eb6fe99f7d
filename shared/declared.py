"""Options that are declared once: the fields of a pydantic model, and how each is written elsewhere.

A field's name, type, bounds (`ge`, `le`), default and `description` say most of it. `Option`, in the field's
`Annotated`, says what these do not. The command lines, tuition.toml, `client init`, the reference and the
help of a notebook are all read from here.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from inspect import get_annotations
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

_WORDS = {bool: "true or false", int: "a whole number", float: "a number", Path: "a path", str: "a text"}


@dataclass(frozen=True)
class Option:
    """How a field is written, where that does not follow from the field itself.

    Attributes:
        name: its name on the command line and in a file, with `_`; `None` for the field's own.
        also: further names on the command line.
        env: the environment variable that sets it.
        metavar: what stands for its value in help.
        typed: whether no file sets it, for it is meant for one command, or is the user's own affair.
        safe: whether a file that nobody has trusted may set it: it spends and sends nothing, and names no
            file, address or command.
        argument: whether it stands on the command line without a name.
        commas: whether several values are written as one word, with commas.
        nothing: what is written for no value at all, where several may be given.
        instead_of: the field that it stands for. Of the two, the one from the more binding place counts.
        one_command: whether each command means something else by it, so that no file sets it for all.
        hidden: whether no command line has it.
        needs: of a nested model, the field of it without which nothing of it counts.
    """

    name: str | None = None
    also: tuple[str, ...] = ()
    env: str | None = None
    metavar: str | None = None
    typed: bool = False
    safe: bool = False
    argument: bool = False
    commas: bool = False
    nothing: str | None = None
    instead_of: str | None = None
    one_command: bool = False
    hidden: bool = False
    needs: str | None = None


@dataclass(frozen=True)
class Declared:
    """A field, as the command line and a file take it. Equal ones mean the same to a file.

    Attributes:
        key: its name on the command line and in a file, with `_`.
        kind: the type of a value; of several, that of each.
        choices: the only values, if there are any.
        several: whether it takes several values.
        low: the smallest number.
        high: the largest.
        default: what holds without it; `None` if nothing does.
        required: whether it must be given.
        help: what it means, in the words of the command line.
        option: how it is written.
        path: its name in the model; of a nested model's field, both names.
        panel: the heading that it stands under in help; `None` for none of its own.
        is_own: whether the model declares it, and no base of the model.
    """

    key: str
    kind: type
    choices: tuple[str, ...]
    several: bool
    low: float | None
    high: float | None
    default: Any
    required: bool
    help: str
    option: Option = field(compare=False)
    path: tuple[str, ...] = field(compare=False)
    panel: str | None = field(compare=False)
    is_own: bool = field(compare=False)

    @property
    def spelled(self) -> str:
        """Its name as it is typed; of what holds unless it is turned off, both names."""
        if self.option.argument:
            return self.key.upper()
        name = self.key.replace("_", "-")
        return f"--{name}/--no-{name}" if self.kind is bool and self.default else f"--{name}"

    @property
    def spellings(self) -> tuple[str, ...]:
        """All its names as they are typed."""
        return (self.spelled, *(f"--{name.replace('_', '-')}" for name in self.option.also))

    @property
    def rival(self) -> tuple[str, ...] | None:
        """The path of the field that it stands for instead."""
        return (*self.path[:-1], self.option.instead_of) if self.option.instead_of else None

    @property
    def metavar(self) -> str | None:
        """The placeholder of its value in help; `None` for that of its type."""
        if self.option.metavar or not self.option.argument:
            return self.option.metavar or ("TEXT" if self.is_list else None)
        return self.spelled

    @property
    def is_list(self) -> bool:
        """Whether it is given again for each of several values."""
        return self.several and not self.option.commas

    @property
    def is_setting(self) -> bool:
        """Whether a file may set it: not what is meant for one command, or names what it is about."""
        named_each_time = self.option.argument and self.required
        return not (self.option.typed or self.option.hidden or named_each_time)

    @property
    def accepted(self) -> str:
        """Its values, in words."""
        if self.choices:
            return "one of " + ", ".join(f'"{choice}"' for choice in self.choices)
        word = _WORDS[self.kind]
        if self.is_list:
            return f"{word}, or a list of such"
        if self.low is None:
            return word
        return f"{word} from {self.low}" if self.high is None else f"{word} from {self.low} to {self.high:,}"

    @property
    def written_default(self) -> Any:  # noqa: ANN401 (of the field's own type)
        """The default as it is typed; `None` where nothing would be."""
        if not self.several:
            return self.default
        return ",".join(map(str, self.default or ())) or self.option.nothing if self.option.commas else None


def declared(model: type[BaseModel]) -> list[Declared]:
    """The fields that a model declares, its own before those of its bases.

    A nested model that has `Option.needs` is given by its own fields.
    """
    found: list[Declared] = []
    for owner, name in _in_order(model):
        info = model.model_fields[name]
        option = option_of(info)
        if option.needs is None:
            found.append(_declared(name, info, option, model, owner))
        else:
            (inner,) = (each for each in _alternatives(info.annotation) if issubclass(each, BaseModel))
            found += [_nested(name, each, option.needs) for each in declared(inner)]
    return found


def _nested(name: str, inner: Declared, needs: str) -> Declared:
    """A nested model's field. That without which nothing of the model counts has no default."""
    if inner.path == (needs,):
        inner = replace(inner, default=None, option=replace(inner.option, env=None))
    return replace(inner, path=(name, *inner.path), required=False)


def needed(model: type[BaseModel]) -> dict[str, str]:
    """The fields that are nested models, and that field of each without which nothing of it counts."""
    options = {name: option_of(info) for name, info in model.model_fields.items()}
    return {name: option.needs for name, option in options.items() if option.needs is not None}


def option_of(info: FieldInfo) -> Option:
    """How a field is written."""
    return next((each for each in info.metadata if isinstance(each, Option)), Option())


def documented(model: type[BaseModel]) -> str:
    """The docstring of a model, with what each of the fields means that it declares itself."""
    meanings = [
        f"    {name}: {info.description}"
        for name, info in model.model_fields.items()
        if info.description and name in get_annotations(model)
    ]
    text = (model.__doc__ or "").rstrip()
    return "\n".join([text, "", "Attributes:", *meanings]) if meanings else text


def refusal_words(error: ValidationError, options: Sequence[Declared] = ()) -> str:
    """The message about a value that a model does not take, with the name of its option as it is typed."""
    first = error.errors()[0]
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])
    place = tuple(str(each) for each in first["loc"])
    typed = next((option.spelled for option in options if option.path == place[: len(option.path)]), None)
    return f"{typed or f'`{place[0]}`'}: {first['msg']}, not {first['input']!r}."


def _in_order(model: type[BaseModel]) -> Iterator[tuple[type, str]]:
    """The fields and the class that declares each: a panel together, the model's own panel first."""
    owners = {
        name: owner
        for owner in reversed(model.__mro__)
        for name in get_annotations(owner)
        if name in model.model_fields
    }
    panels = list(dict.fromkeys(getattr(each, "panel", None) for each in model.__mro__))
    for name in sorted(
        model.model_fields, key=lambda name: panels.index(getattr(owners[name], "panel", None))
    ):
        yield owners[name], name


def _declared(name: str, info: FieldInfo, option: Option, model: type[BaseModel], owner: type) -> Declared:
    kind, choices, several = _kind(info.annotation)
    low, high = (
        next((bound for each in info.metadata if (bound := getattr(each, side, None)) is not None), None)
        for side in ("ge", "le")
    )
    return Declared(
        key=option.name or name,
        kind=kind,
        choices=choices,
        several=several,
        low=low,
        high=high,
        default=None if info.is_required() else info.get_default(call_default_factory=True),
        required=info.is_required(),
        help=_in_words(info.description or "", model),
        option=option,
        path=(name,),
        panel=getattr(owner, "panel", None),
        is_own=owner is model,
    )


def _kind(annotation: Any) -> tuple[type, tuple[str, ...], bool]:  # noqa: ANN401 (a type)
    """The type of what is typed, its choices, and whether several may be given."""
    kinds = list(_alternatives(annotation))
    for each in kinds:
        if get_origin(each) is tuple:
            kind, choices, _ = _kind(get_args(each)[0])
            return kind, choices, True
        if get_origin(each) is Literal:  # of a number or a word, any may be typed
            return str, () if {int, float} & {*kinds} else get_args(each), False
    simple = [each for each in kinds if each in _WORDS]
    return (simple[0] if simple and str not in simple else str), (), False


def _alternatives(annotation: Any) -> Iterator[Any]:  # noqa: ANN401 (a type)
    """The types of a union, without `None`."""
    if get_origin(annotation) is Annotated:
        yield from _alternatives(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for each in get_args(annotation):
            yield from _alternatives(each)
    elif annotation is not NoneType:
        yield annotation


def _in_words(description: str, model: type[BaseModel]) -> str:
    """A description in which other options of the model are named as they are typed."""

    def typed(match: re.Match[str]) -> str:
        info = model.model_fields.get(match[1])
        return match[0] if info is None else f"--{(option_of(info).name or match[1]).replace('_', '-')}"

    return re.sub(r"`(\w+)`", typed, " ".join(description.split()))
