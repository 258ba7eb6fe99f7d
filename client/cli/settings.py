"""tuition.toml: options that stand in a file of the working directory instead of on the command line.

Every option of the commands can stand there under its long name (`max_spend` is `--max-spend`). A key at
the top counts for all commands that have the option; one in a table `[distill]` or `["data check"]` counts
for that command alone. The command line and the environment come before the file, and the file before the
default.
"""

import inspect
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from typer.core import TyperGroup
from typer.models import ParameterInfo

from client.errors import UsageError
from client.paths import is_file, is_there

SETTINGS_FILE = Path("tuition.toml")
_MOST_BYTES = 64 * 1024
# What somebody agrees to for one command, or what turns it into another, is typed.
_TYPED = frozenset(
    {"cancel", "damaged", "dry_run", "force", "help", "probe", "reconcile", "replace", "version", "yes"}
)
# The same of one command, by its last word: what it deletes.
_TYPED_OF = {"prune": frozenset({"model_fingerprint"})}
# Each command writes something else there.
_OF_ONE_COMMAND = frozenset({"out"})
_WORDS = {bool: "true or false", int: "a whole number", float: "a number", Path: "a path", str: "a text"}


@dataclass(frozen=True)
class Setting:
    """An option of a command, as it can stand in the file.

    Attributes:
        key: its name there.
        parameter: its name in the command's function.
        kind: the type of its values; of a list, the type of its items.
        choices: the only values that it takes, if there are any.
        several: whether it takes a list.
        low: the smallest value of a number.
        high: the largest.
        default: what holds without it; `None` if nothing does.
        help: what it means.
    """

    key: str
    parameter: str
    kind: type
    choices: tuple[str, ...]
    several: bool
    low: float | None
    high: float | None
    default: Any
    help: str

    @property
    def accepted(self) -> str:
        """Its values, in words."""
        if self.choices:
            return "one of " + ", ".join(f'"{choice}"' for choice in self.choices)
        word = _WORDS[self.kind]
        if self.several:
            return f"{word}, or a list of such"
        if self.low is None:
            return word
        return f"{word} from {self.low}" if self.high is None else f"{word} from {self.low} to {self.high:,}"

    def takes(self, value: object) -> bool:
        """Whether the file may give it this value."""
        if self.several and isinstance(value, list):
            return bool(value) and all(self._takes_one(each) for each in value)
        return self._takes_one(value)

    def _takes_one(self, value: object) -> bool:
        if self.choices:
            return value in self.choices
        if self.kind is bool or isinstance(value, bool):
            return self.kind is bool and isinstance(value, bool)
        if self.kind in (int, float):
            return isinstance(value, (int, self.kind)) and self._reaches(value)
        return isinstance(value, str) and bool(value) and "\0" not in value

    def _reaches(self, value: float) -> bool:
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)


def read_settings(group: TyperGroup, path: Path = SETTINGS_FILE, *, of: str | None = None) -> dict[str, Any]:
    """The defaults that a file gives to the commands of a group, as Typer's `default_map` has them.

    Args:
        group: the program.
        path: the file; without one, nothing is given. Its relative paths are the working directory's, where
            it lies.
        of: the command that was typed, by its first word; an error names it before others.

    Raises:
        UsageError: the file cannot be read, or holds what no command takes.
    """
    if not is_there(path):
        return {}
    document = _parsed(path)
    listed = sorted(commands_of(group), key=lambda each: each[0].split()[0] != of)
    commands = {words: settings_of(command) for words, command in listed}
    shared = {key: value for key, value in document.items() if not isinstance(value, dict)}
    _check_shared(path, shared, commands)
    defaults: dict[str, Any] = {}
    for words, settings in commands.items():
        own = document.get(words)
        values = _own(path, words, own, settings) if isinstance(own, dict) else {}
        given = {**{key: value for key, value in shared.items() if key in settings}, **values}
        named = {settings[key].parameter: _value(settings[key], value) for key, value in given.items()}
        _put(defaults, words.split(), named)
    if unknown := [
        name for name, value in document.items() if isinstance(value, dict) and name not in commands
    ]:
        name = unknown[0]
        below = [words for words in commands if words.startswith(f"{name} ")]
        raise UsageError(
            f"{path}: there is no command for the table [{name}]{'' if below else _meant(name, commands)}. "
            f"A table is named for a command: {', '.join(map(table_of, below or commands))}."
        )
    return defaults


def commands_of(group: TyperGroup) -> Iterator[tuple[str, Any]]:
    """Every command by its words ("data check"), in the order in which the program lists them."""
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from ((f"{name} {words}", each) for words, each in commands_of(command))
        else:
            yield name, command


def settings_of(command: Any) -> dict[str, Setting]:  # noqa: ANN401 (Typer's and Click's commands alike)
    """What can stand in the file of a command: its options, and arguments that may be left out; by key."""
    hints = get_type_hints(inspect.unwrap(command.callback), include_extras=True)
    found = {}
    for parameter in command.params:
        if parameter.name in hints and not (parameter.param_type_name == "argument" and parameter.required):
            setting = _setting(parameter, hints[parameter.name])
            if setting.key not in _typed_of(command.name):
                found[setting.key] = setting
    return found


def shareable(setting: Setting) -> bool:
    """Whether a key means the same to all commands that have it, and may stand at the top."""
    return setting.key not in _OF_ONE_COMMAND


def table_of(words: str) -> str:
    """The head of the table of a command."""
    return f'["{words}"]' if " " in words else f"[{words}]"


def _setting(parameter: Any, hint: Any) -> Setting:  # noqa: ANN401
    kind, *notes = get_args(hint)
    (info,) = (note for note in notes if isinstance(note, ParameterInfo))
    kinds = [each for each in get_args(kind) if each is not type(None)] or [kind]
    inner = kind if get_origin(kind) in (Literal, list) else kinds[0]
    several = get_origin(inner) is list
    item = get_args(inner)[0] if several else inner
    choices = get_args(item) if get_origin(item) is Literal else ()
    return Setting(
        key=parameter.opts[0].lstrip("-").replace("-", "_"),
        parameter=parameter.name,
        kind=str if choices else item,
        choices=choices,
        several=several,
        low=info.min,
        high=info.max,
        default=parameter.default,
        help=" ".join((parameter.help or "").split()),
    )


def _parsed(path: Path) -> dict[str, Any]:
    """What the file says, with the keys of options as `Setting` has them."""
    try:
        if not is_file(path):
            raise UsageError(f"{path} is not a file.")
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise UsageError(f"{path} is larger than {_MOST_BYTES // 1024} KiB: it cannot be all options.")
        document = tomllib.loads(content.decode("utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text.") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not TOML: {error}.") from error
    return _with_keys(path, document)


def _with_keys(path: Path, table: Mapping[str, Any]) -> dict[str, Any]:
    """A table whose options are spelled with `_`; the `-` of the command line is taken too."""
    spelled: dict[str, Any] = {}
    for name, value in table.items():
        key = name if isinstance(value, dict) else name.replace("-", "_")
        if key in spelled:
            raise UsageError(f"{path}: `{key}` stands there twice.")
        spelled[key] = _with_keys(path, value) if isinstance(value, dict) else value
    return spelled


def _check_shared(
    path: Path, shared: Mapping[str, Any], commands: Mapping[str, Mapping[str, Setting]]
) -> None:
    known = {key: setting for settings in commands.values() for key, setting in settings.items()}
    for key, value in shared.items():
        if key not in known:
            raise UsageError(f"{path}: {_unknown(key, known)}")
        if not shareable(known[key]):
            raise UsageError(f"{path}: put `{key}` into the table of a command, such as [distill].")
        having = {words: settings[key] for words, settings in commands.items() if key in settings}
        for words, setting in having.items():
            if not setting.takes(value):
                of = f" of client {words}" if len(having) > 1 else ""
                raise UsageError(f"{path}: `{key}`{of} is {setting.accepted}, not {value!r}.")


def _own(
    path: Path, words: str, table: Mapping[str, Any], settings: Mapping[str, Setting]
) -> Mapping[str, Any]:
    for key, value in table.items():
        if key not in settings:
            raise UsageError(f"{path}, {table_of(words)}: {_unknown(key, settings, _typed_of(words))}")
        if not settings[key].takes(value):
            raise UsageError(
                f"{path}, {table_of(words)}: `{key}` is {settings[key].accepted}, not {value!r}."
            )
    return table


def _typed_of(words: str) -> frozenset[str]:
    """The options that a command takes from the command line alone."""
    return _TYPED | _TYPED_OF.get(words.split()[-1], frozenset())


def _unknown(key: str, known: Mapping[str, Setting], typed: frozenset[str] = _TYPED) -> str:
    """What to say of a key that does not stand for an option."""
    if key in typed:
        return f"`{key}` is given on the command line alone, where it is meant for one command."
    if key == "api_key":
        return (
            "a key is secret and does not stand here. Put it into a file of its own, which `api_key_file` "
            "names, or into TUITION_API_KEY; and have this key revoked if others can read the file."
        )
    return f"there is no option `{key}`{_meant(key, known)}. Accepted are: {', '.join(sorted(known))}."


def _meant(name: str, known: Mapping[str, Any]) -> str:
    near = get_close_matches(name, known, n=1)
    return f" (is `{near[0]}` meant?)" if near else ""


def _value(setting: Setting, value: object) -> object:
    return [value] if setting.several and not isinstance(value, list) else value


def _put(defaults: dict[str, Any], words: list[str], values: Mapping[str, object]) -> None:
    for word in words[:-1]:
        defaults = defaults.setdefault(word, {})
    defaults.setdefault(words[-1], {}).update(values)
