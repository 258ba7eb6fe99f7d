"""A function that takes one model becomes a command of Typer: the fields of the model are its options."""

import inspect
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, get_type_hints

import typer
from pydantic import BaseModel, ValidationError
from typer.core import TyperCommand

from shared.declared import Declared, declared, needed, refusal_words

# Where a value comes from; the later binds more.
_DEFAULT, _FILE, _ENVIRONMENT, _TYPED = range(4)
_RANKS = {"DEFAULT": _DEFAULT, "DEFAULT_MAP": _FILE, "ENVIRONMENT": _ENVIRONMENT, "COMMANDLINE": _TYPED}


def add_command(
    app: typer.Typer,
    function: Callable[[Any], None],
    *,
    name: str | None = None,
    panel: str | None = None,
    without: Collection[str] = (),
    refusal: Callable[[str], Exception] = typer.BadParameter,
    read: Callable[..., BaseModel] | None = None,
    vet: Callable[[typer.Context, Sequence[Declared]], None] | None = None,
) -> None:
    """Make a command of a function.

    Args:
        app: the program, or a group of it.
        function: takes one model; its docstring is the help.
        name: of the command; `None` for the function's.
        panel: the heading that it stands under in help.
        without: fields of the model that the command does not have.
        refusal: the error for values that do not go together.
        read: makes the model of what was said, where it has other sources too; it raises errors of its own.
        vet: is called with the options that hold as a file sets them, before anything is done by them; it
            raises errors of its own.
    """
    (model,) = (hint for parameter, hint in get_type_hints(function).items() if parameter != "return")
    options = [option for option in declared(model) if option.path[-1] not in without]
    make, needs = read or _validating(model, options, refusal), needed(model)

    def call(context: typer.Context, **values: Any) -> None:  # noqa: ANN401 (each option has a type)
        function(_given(make, needs, options, context, values, refusal, vet))

    run: Any = call
    run.__name__, run.__module__ = function.__name__, function.__module__

    run.__doc__ = "\n\n".join(" ".join(each.split()) for each in (function.__doc__ or "").split("\n\n"))
    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    typed = [_parameter(option) for option in options if not option.option.hidden]
    run.__signature__ = inspect.Signature([context, *typed])
    run.options, run.function = options, function
    app.command(name, rich_help_panel=panel, cls=_Command)(run)


class _Command(TyperCommand):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 (Typer's context)
        return super().parse_args(ctx, _once(options_of(self), args))


def _once(options: Sequence[Declared], words: Sequence[str]) -> list[str]:
    """The words of a command, where an option of values with commas that comes again adds to the first."""
    named = {name: option for option in options if option.option.commas for name in option.spellings}
    found, places, left = list[str](), dict[Declared, int](), iter(words)
    for word in left:
        name, has_value, value = word.partition("=")
        option = named.get(name)
        if option is None:
            found += [word, *left] if word == "--" else [word]
            continue
        given = value if has_value else next(left, None)
        if given is None:
            found.append(word)  # Typer says what is missing
        elif option in places:
            found[places[option]] += f",{given}"
        else:
            places[option] = len(found)
            found.append(f"{name}={given}")
    return found


def options_of(command: Any) -> list[Declared]:  # noqa: ANN401 (Typer's commands)
    """The options of a command that was made here; none of any other."""
    return getattr(command.callback, "options", [])


def parameter_of(option: Declared) -> str:
    """The name of an option among the parameters of its command."""
    return "_".join(option.path)


def _parameter(option: Declared) -> inspect.Parameter:
    kind: Any = Literal[option.choices] if option.choices else option.kind
    if option.is_list:
        kind = list[kind]
    default = ... if option.required else option.written_default
    told: dict[str, Any] = {
        "help": option.help, "envvar": option.option.env, "metavar": option.metavar,
        "show_default": not option.required, "rich_help_panel": option.panel,
    }  # fmt: skip
    if option.kind in (int, float):
        told |= {"min": option.low, "max": option.high}
    info = (
        typer.Argument(default, **told)
        if option.option.argument
        else typer.Option(default, *option.spellings, **told)
    )
    annotation = kind if option.kind is bool or option.required else kind | None
    return inspect.Parameter(
        parameter_of(option), inspect.Parameter.KEYWORD_ONLY, default=info, annotation=annotation
    )


def _validating(
    model: type[BaseModel], options: Sequence[Declared], refusal: Callable[[str], Exception]
) -> Callable[..., BaseModel]:
    def validated(**found: Any) -> BaseModel:  # noqa: ANN401 (each option has a type)
        try:
            return model.model_validate(found)
        except ValidationError as error:
            raise refusal(refusal_words(error, options)) from error

    return validated


def _given(
    read: Callable[..., BaseModel],
    needs: Mapping[str, str],
    options: Sequence[Declared],
    context: typer.Context,
    values: Mapping[str, Any],
    refusal: Callable[[str], Exception],
    vet: Callable[[typer.Context, Sequence[Declared]], None] | None,
) -> BaseModel:
    """The model of what was said. What was typed counts as set (`model_fields_set`), and nothing else."""
    ranks = {option: _rank(context, option) for option in options}
    said = [option for option in options if ranks[option] and not _gives_way(option, ranks, refusal)]
    for nested, key in needs.items():
        said = _only_with(key, nested, said, ranks, refusal)
    if vet is not None:
        vet(context, [option for option in said if ranks[option] == _FILE])
    found: dict[str, Any] = {}
    for option in said:
        place = found if len(option.path) == 1 else found.setdefault(option.path[0], {})
        place[option.path[-1]] = _value(option, values, refusal)
    instance = read(**found)
    for option in said:
        if ranks[option] < _TYPED:
            holder = instance if len(option.path) == 1 else getattr(instance, option.path[0])
            holder.model_fields_set.discard(option.path[-1])
    return instance


def _rank(context: typer.Context, option: Declared) -> int:
    if option.option.hidden:
        return _ENVIRONMENT if os.environ.get(option.option.env or "") else _DEFAULT
    source = context.get_parameter_source(parameter_of(option))
    return _DEFAULT if source is None else _RANKS[source.name]


def _gives_way(option: Declared, ranks: Mapping[Declared, int], refusal: Callable[[str], Exception]) -> bool:
    """Whether another option stands instead of this one, which comes from no less binding a place."""
    for other in ranks:
        stands_instead = option.path == other.rival
        if not stands_instead and other.path != option.rival:
            continue
        if ranks[option] == ranks[other] == _TYPED:
            first, second = (option, other) if stands_instead else (other, option)
            raise refusal(f"Give one of {first.spelled} and {second.spelled}.")
        return ranks[other] > ranks[option] or (stands_instead and ranks[other] == ranks[option])
    return False


def _only_with(
    key: str,
    nested: str,
    said: Sequence[Declared],
    ranks: Mapping[Declared, int],
    refusal: Callable[[str], Exception],
) -> list[Declared]:
    """Drop the fields of a nested model where the field that it needs is missing."""
    inside = [option for option in said if option.path[0] == nested]
    if any(option.path[-1] == key for option in inside):
        return list(said)
    for option in inside:
        if ranks[option] == _TYPED and option.is_own:
            raise refusal(f"{option.spelled} counts only with {_spelling_of(key, nested, ranks)}.")
    return [option for option in said if option not in inside]


def _spelling_of(key: str, nested: str, options: Collection[Declared]) -> str:
    return next(option.spelled for option in options if option.path == (nested, key))


def _value(option: Declared, values: Mapping[str, Any], refusal: Callable[[str], Exception]) -> Any:  # noqa: ANN401 (each option has a type)
    """The value that was given, as the field takes it."""
    if option.option.hidden:
        return os.environ[option.option.env or ""]
    value = values[parameter_of(option)]
    if not option.option.commas or value == option.option.nothing:
        return () if option.several and value == option.option.nothing else value
    words = tuple(word.strip() for word in value.split(",") if word.strip())
    if not words or len(set(words)) < len(words):
        raise refusal(f"{option.spelled} takes different names, comma-separated, not {value!r}.")
    return words
