"""tuition.toml: options that stand in a file of the working directory instead of on the command line.

Every option of the commands can stand there under its long name (`max_spend` is `--max-spend`). A key at
the top counts for all commands that have the option; one in a table `[distill]` or `["data check"]` counts
for that command alone. The command line and the environment come before the file, and the file before the
default. What is not `Option.safe` there counts only in a folder that is trusted (`client.cli.trusted`).
"""

import hashlib
import tomllib
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from typer.core import TyperGroup

from client.errors import UsageError
from client.paths import is_file, is_there
from shared.declared import Declared
from shared.text import BLANK, visible
from shared.typer_commands import options_of, parameter_of

SETTINGS_FILE = Path("tuition.toml")
_MOST_BYTES = 16 * 1024  # a dotted key of 64 KiB would take Python's parser seconds


@dataclass(frozen=True)
class Settings:
    """A file, read once.

    Attributes:
        path: its place.
        sha256: of its bytes (hex).
        defaults: what it gives to the commands, as Typer's `default_map` has it.
        unsafe: what it sets that is not `Option.safe`, by its key; with `[TABLE] ` before that of a table.
    """

    path: Path
    sha256: str
    defaults: dict[str, Any]
    unsafe: dict[str, Any]


def read_settings(group: TyperGroup, path: Path = SETTINGS_FILE, *, of: str | None = None) -> Settings | None:
    """The options that a file gives to the commands of a group; `None` where there is no file.

    Args:
        group: the program.
        path: the file. Its relative paths are the working directory's, where it lies.
        of: the command that was typed, by its first word; an error names it before others.

    Raises:
        UsageError: the file cannot be read, or holds what no command takes.
    """
    if not is_there(path):
        return None
    content = _content(path)
    document = _parsed(path, content)
    listed = sorted(commands_of(group), key=lambda each: each[0].split()[0] != of)
    commands = {words: settings_of(command) for words, command in listed}
    typed = {
        words: {each.key for each in options_of(command) if each.option.typed} for words, command in listed
    }
    shared = {key: value for key, value in document.items() if not isinstance(value, dict)}
    _check_shared(path, shared, commands, set().union(*typed.values()))
    defaults: dict[str, Any] = {}
    for words, settings in commands.items():
        own = document.get(words, {})
        if isinstance(own, dict):
            _check_own(path, words, own, settings, typed[words])
            shared_here = {key: value for key, value in shared.items() if key in settings}
            _put(defaults, words.split(), {**shared_here, **own}, settings)
    if unknown := [
        name for name, value in document.items() if isinstance(value, dict) and name not in commands
    ]:
        name = unknown[0]
        below = [words for words in commands if words.startswith(f"{name} ")]
        raise UsageError(
            f"{path}: there is no command for the table [{name}]{'' if below else _meant(name, commands)}. "
            f"A table is named for a command: {', '.join(map(table_of, below or commands))}."
        )
    return Settings(path, hashlib.sha256(content).hexdigest(), defaults, _unsafe(document, commands))


def _unsafe(document: Mapping[str, Any], commands: Mapping[str, Mapping[str, Declared]]) -> dict[str, Any]:
    """What a file of somebody else's may not say unseen, by table and key."""
    return {
        name if of_table is None else f"{table_of(of_table)} {name}": value
        for of_table, name, value in _in_file(document)
        if any(
            not settings[name].option.safe
            for words, settings in commands.items()
            if of_table in (None, words) and name in settings
        )
    }


def commands_of(group: TyperGroup) -> Iterator[tuple[str, Any]]:
    """Every command by its words ("data check"), in the order in which the program lists them."""
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from ((f"{name} {words}", each) for words, each in commands_of(command))
        else:
            yield name, command


def settings_of(command: Any) -> dict[str, Declared]:  # noqa: ANN401 (Typer's commands)
    """The options of a command that the file may set, by key."""
    return {each.key: each for each in options_of(command) if each.is_setting}


def table_of(words: str) -> str:
    """The head of the table of a command."""
    return f'["{words}"]' if " " in words else f"[{words}]"


def _in_file(document: Mapping[str, Any]) -> Iterator[tuple[str | None, str, Any]]:
    """Each option of a file, as (the words of its table or `None`, key, value)."""
    for name, value in document.items():
        if isinstance(value, dict):
            yield from ((name, key, each) for key, each in value.items())
        else:
            yield None, name, value


def _content(path: Path) -> bytes:
    try:
        if not is_file(path):
            raise UsageError(f"{path} is not a file.")
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise UsageError(f"{path} is larger than {_MOST_BYTES // 1024} KiB: it cannot be all options.")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error
    return content


def _parsed(path: Path, content: bytes) -> dict[str, Any]:
    """Parse the file; keys are spelled as in `Declared.key`."""
    try:
        return _with_keys(path, tomllib.loads(content.decode("utf-8")))
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text.") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not TOML: {error}.") from error


def _with_keys(path: Path, table: Mapping[str, Any]) -> dict[str, Any]:
    """A table whose options are spelled with `_`; the `-` of the command line is taken too."""
    spelled: dict[str, Any] = {}
    for name, value in table.items():
        key = name if isinstance(value, dict) else name.replace("-", "_")
        if key in spelled:
            raise UsageError(f"{path}: `{key}` is set twice.")
        spelled[key] = _with_keys(path, value) if isinstance(value, dict) else value
    return spelled


def _check_shared(
    path: Path, shared: Mapping[str, Any], commands: Mapping[str, Mapping[str, Declared]], typed: Set[str]
) -> None:
    known = {key: setting for settings in commands.values() for key, setting in settings.items()}
    for key, value in shared.items():
        if key not in known:
            raise UsageError(f"{path}: {_unknown(key, known, typed)}")
        if known[key].option.one_command:
            raise UsageError(f"{path}: put `{key}` into the table of a command, such as [distill].")
        having = {words: settings[key] for words, settings in commands.items() if key in settings}
        for words, setting in having.items():
            if not _takes(setting, value):
                of = f" of client {words}" if len(having) > 1 else ""
                raise UsageError(f"{path}: `{key}`{of} is {setting.accepted}, not {value!r}.")


def _check_own(
    path: Path, words: str, own: Mapping[str, Any], settings: Mapping[str, Declared], typed: Set[str]
) -> None:
    where = f"{path}, {table_of(words)}"
    for key, value in own.items():
        if key not in settings:
            raise UsageError(f"{where}: {_unknown(key, settings, typed)}")
        if not _takes(settings[key], value):
            raise UsageError(f"{where}: `{key}` is {settings[key].accepted}, not {value!r}.")


def _takes(setting: Declared, value: object) -> bool:
    """Whether the file may give an option this value."""
    if setting.is_list and isinstance(value, list):
        return bool(value) and all(_takes_one(setting, each) for each in value)
    return _takes_one(setting, value)


def _takes_one(setting: Declared, value: object) -> bool:
    if setting.choices:
        return value in setting.choices
    if setting.kind is bool or isinstance(value, bool):
        return setting.kind is bool and isinstance(value, bool)
    if setting.kind in (int, float):
        low, high = setting.low, setting.high
        reaches = (
            isinstance(value, int | float)
            and (low is None or value >= low)
            and (high is None or value <= high)
        )
        return reaches and (isinstance(value, int) or setting.kind is float)
    return isinstance(value, str) and bool(value) and value == visible(value, keep=BLANK)  # help shows it


def _unknown(key: str, known: Mapping[str, Declared], typed: Set[str]) -> str:
    """The message about a key that is no option."""
    if key == "api_key":
        return (
            "a key is secret and does not belong here. Put it into a file of its own, which --api-key-file "
            "or "
            "TUITION_API_KEY_FILE names, or into TUITION_API_KEY; and have this key revoked if others can "
            "read the file."
        )
    if key == "api_key_file":
        return (
            "which file is sent as your API key is yours to say: on the command line with --api-key-file, or "
            "in the environment with TUITION_API_KEY_FILE."
        )
    if key in typed:
        return f"`{key}` is given on the command line alone, where it is meant for one command."
    return f"there is no option `{key}`{_meant(key, known)}. Accepted: {', '.join(sorted(known))}."


def _meant(name: str, known: Mapping[str, Any]) -> str:
    near = get_close_matches(name, known, n=1)
    return f" (is `{near[0]}` meant?)" if near else ""


def _put(
    defaults: dict[str, Any], words: list[str], values: Mapping[str, object], settings: Mapping[str, Declared]
) -> None:
    """Put values under the words of a command and the names of its parameters."""
    for word in words:
        defaults = defaults.setdefault(word, {})
    for key, value in values.items():
        is_one_of_several = settings[key].is_list and not isinstance(value, list)
        defaults[parameter_of(settings[key])] = [value] if is_one_of_several else value
