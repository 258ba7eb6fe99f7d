"""Every command that the vendor's messages, pages, help and documents print runs as it is printed."""

import ast
import re
import shlex
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.documents.test_commands import fault
from tests.vendor_service.books import lay_out
from tests.vendor_service.cli.command import Command
from tools.site.hooks import ROOT
from vendor_service.advice import addressed
from vendor_service.cli import declared
from vendor_service.cli.main import app
from vendor_service.database.session import Database
from vendor_service.money import prices

PACKAGE = ROOT / "vendor_service"
GROUPS = "|".join(
    sorted(
        [each.name or "" for each in app.registered_groups]
        + [
            each.name or each.callback.__name__
            for each in app.registered_commands
            if each.callback is not None
        ]
    )
)
BETWEEN_BACKTICKS = re.compile(r"`(vendor [^`\n]+)`")
BARE = re.compile(rf"\bvendor (?:{GROUPS})\b(?! by)")
# What stands for a value, in the source of a message or in a document.
FILLED = {
    "AMOUNT": "5", "COUNTRY": "FR", "PRICE": "100",
    "REFERENCE": "r-1", "ACCOUNT": "acme", "MODEL": "icon-clip",
    "KIND": "image", "EUR": "EUR", "QUERIES": "50", "URL": "https://example.com/hooks",
    "model": "icon-clip", "kind": "image", "plan": "research", "price": "100",
}  # fmt: skip
NAMES = {"accounts create": "another", "operators create": "crm", "top-up": "prepaid"}
# These do more than a test of their words should: they are parsed, and run by tests of their own.
ONLY_PARSED = ("serve", "models", "db backup")


def strings(tree: ast.AST) -> Iterator[str]:
    """The texts of a module that are no docstrings, an f-string with `{name}` for each value."""
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(map(_part, node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs | inside:
            yield node.value


def _part(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    names = re.findall(r"[a-z_]+", ast.unparse(node.value) if isinstance(node, ast.FormattedValue) else "")
    return "{" + next((each for each in names[::-1] if each in FILLED), "name") + "}"


def messages() -> list[str]:
    """Every text of the package that names a command."""
    found = []
    for module in sorted(PACKAGE.rglob("*.py")):
        found += [
            each for each in strings(ast.parse(module.read_text(encoding="utf-8"))) if BARE.search(each)
        ]
    for page in sorted(PACKAGE.rglob("*.html")):
        found += [f"`{each}`" for each in re.findall(r"<code>(vendor [^<]+)</code>", page.read_text("utf-8"))]
    return found


def filled(command: str) -> list[str]:
    """The words of a command with a value for each placeholder."""
    name = next((value for words, value in NAMES.items() if command.startswith(f"vendor {words}")), "acme")
    words = []
    for each in shlex.split(command)[1:]:
        bare = each.strip("{}")
        known = each.isupper() or each.startswith(("{", "%"))
        words.append(FILLED.get(bare, name) if known else each)
    return words


@pytest.fixture
def vendor(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command, in a folder without books and settings; whoever is asked agrees."""
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    monkeypatch.setattr(declared, "confirm", lambda *_: None)
    return Command(capsys, monkeypatch)


@pytest.fixture
def url(vendor: Command, tmp_path: Path) -> str:
    """Books with an account `acme`, a prepaid one, and a model with a price of a plan."""
    url = f"sqlite:///{tmp_path / 'some books.db'}"
    lay_out(url)
    for command in (
        "accounts create acme", "accounts create prepaid --credit 500", "projects create acme search",
        "prices set icon-clip image 80 --plan research --new",
    ):  # fmt: skip
        assert vendor(*command.split(), "--database-url", url)[0] == 0
    with closing(Database(url)) as database, database.write() as session:
        prices.publish(session, "icon-clip", {"image": 100}, 0)
    return url


def test_messages_write_commands_between_backticks() -> None:
    bare = [each for each in messages() if BARE.search(BETWEEN_BACKTICKS.sub("", each))]
    assert bare == []


def test_every_command_of_a_message_runs_as_printed_and_finds_the_same_books(
    vendor: Command, url: str
) -> None:
    found = {command for each in messages() for command in BETWEEN_BACKTICKS.findall(each)}
    assert len(found) > 25
    made = vendor.json("webhooks", "create", "https://example.com/hooks", "--database-url", url)
    endpoint = made["endpoint_id"]
    for command in sorted(found):
        assert fault(command.replace("%s", "X"), whole=True) is None, command
        words = filled(command)
        if " ".join(words).startswith(ONLY_PARSED):
            continue
        if "webhooks test" in command:
            words[2] = endpoint
        printed = addressed(f"`{shlex.join(['vendor', *words])}`", url)
        code, _, err = vendor(*shlex.split(printed.strip("`"))[1:])
        assert code == 0, f"{printed}: {err}"
    assert list(Path.cwd().iterdir()) == []
