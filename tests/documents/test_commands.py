"""Every command that a document shows is one that there is, with these options."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from tools.site.commands import PROGRAMS
from tools.site.hooks import DOCS, ROOT
from tools.site.hooks import PAGES as SITE_PAGES

PAGES = [*sorted(DOCS.glob("*.md")), *(ROOT / source for source in SITE_PAGES.values())]
_FENCE = re.compile(r"^```(?:sh)?\n(.*?)^```", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"^```(?:sh)?\n.*?^```|`[^`\n]+`", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`((?:client|vendor)(?: [^`]+)?)`")
# A line may set variables first, and end in a comment, a pipe or a redirection.
_LINE = re.compile(r"^(?:\$ |[A-Z_]+=\S+ |docker compose exec vendor )*((?:client|vendor) .*)$", re.MULTILINE)


def shown_commands(text: str) -> Iterator[tuple[str, bool]]:
    """The commands of a page, and whether each stands in a block, so that it is whole."""
    for block in _FENCE.findall(text):
        for line in _LINE.findall(block.replace("\\\n", " ")):
            yield line, True
    for span in _SPAN.findall(_FENCE.sub("", text)):
        yield span, False


def fault(line: str, *, whole: bool) -> str | None:
    """What is wrong with a command, or `None`."""
    words = words_of(line)
    command: Any = typer.main.get_command(PROGRAMS[words.pop(0)])
    while words and hasattr(command, "commands"):
        if words[0].startswith("-") and command.invoke_without_command:
            break
        name = words.pop(0)
        if name.isupper() or name == "...":  # a placeholder
            return None
        if name.startswith("-"):
            return None if name in ("--help", "--version") else f"no command before {name}"
        if name not in command.commands:
            return f"no command {name}"
        command = command.commands[name]
    if hasattr(command, "commands") and not command.invoke_without_command:
        return "a group, and no command" if whole else None
    return _option_fault(command, words, whole=whole)


def words_of(line: str) -> list[str]:
    line = re.sub(r"\$\([^)]*\)", "value", line)
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|>&;<")
    lexer.whitespace_split = True
    words = []
    for word in lexer:
        if re.fullmatch(r"[|>&;<]+", word):
            break
        words.append(word)
    return words


def _option_fault(command: Any, words: list[str], *, whole: bool) -> str | None:
    options = {name: each for each in command.params for name in (*each.opts, *each.secondary_opts)}
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    given = []
    while words:
        name, equals, _ = (word := words.pop(0)).partition("=")
        if word == "--":
            given += words
            break
        if not re.match(r"--?[a-z]", word):
            given.append(word)
        elif name == "--help":
            continue
        elif name not in options:
            return f"no option {name}"
        elif not options[name].is_flag and not equals:
            if not words and whole:
                return f"{name} without its value"
            words = words[1:]
    most = len(arguments) if all(each.nargs == 1 for each in arguments) else 99
    least = sum(each.required for each in arguments)
    if len(given) > most or (whole and len(given) < least):
        return f"{len(given)} arguments for {len(arguments)}"
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_is_one_with_these_options(page: Path) -> None:
    found = list(shown_commands(page.read_text(encoding="utf-8")))
    wrong = [f"{line}: {said}" for line, whole in found if (said := fault(line, whole=whole))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_target_of_make_and_every_module_of_a_page_is_there(page: Path) -> None:
    code = "\n".join(_CODE.findall(page.read_text(encoding="utf-8"))).replace("\\\n", " ")
    targets = {*re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)}
    assert {
        each for each in re.findall(r"(?m)^`?(?:sudo )?make ([a-z-]+)", code) if not each.endswith("-")
    } <= targets
    for module, words in re.findall(r"python3? -m ((?:benchmarks|examples|tools)[\w.]*)([^\n`#]*)", code):
        source = ROOT / f"{module.replace('.', '/')}.py"
        options = {*re.findall(r"--[a-z-]+", words)} - {"--help"}
        assert options <= _options_beside(source), f"python -m {module}{words}"


def _options_beside(source: Path) -> set[str]:
    """The options that a program may have: those that it and its neighbours declare."""
    texts = [each.read_text(encoding="utf-8") for each in (source, *source.parent.glob("*.py"))]
    return {option for text in texts for option in re.findall(r"\"(--[a-z-]+)\"", text)}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("client distill --data photos --budget 5 --yes > log", None),
        ("vendor adjust acme --reason outage --reference 7 -- -0.25", None),
        ("client distil --data photos", "no command distil"),
        ("client distill --datas photos", "no option --datas"),
        ("vendor keys", "a group, and no command"),
        ("vendor keys revoke", "0 arguments for 1"),
        ("vendor keys revoke one two", "2 arguments for 1"),
        ("client distill --data", "--data without its value"),
    ],
)
def test_a_command_that_there_is_not_is_found(line: str, said: str | None) -> None:
    assert fault(line, whole=True) == said
