"""The `vendor` command: data on standard output, what went wrong in one line, documented exits."""

import csv
import getpass
import io
import json
import os
import pty
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from pypdf import PdfReader
from sqlalchemy import insert

from tests.support.commit_cutter import CommitCutter, Cut
from tests.support.forking import ForkedOn
from tests.support.postgres import Postgres
from tests.support.quick import remembering
from tests.support.tiny_clip import write_tiny_clip
from tests.vendor_service.books import laid_out, lay_out
from tests.vendor_service.cli.command import Command, at_a_terminal
from vendor_service.__main__ import main as program
from vendor_service.accounts.accounts import find_account
from vendor_service.acts.act import Act, ActContext
from vendor_service.cli import books, models
from vendor_service.cli import main as cli
from vendor_service.clock import DAY, system_clock, to_datetime
from vendor_service.database import schema
from vendor_service.database.session import Database
from vendor_service.database.tables import Hold
from vendor_service.encoder.choice import ChoiceMemory
from vendor_service.errors import OperatorError
from vendor_service.run import logs


@pytest.fixture
def vendor(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VENDOR_DATABASE_URL", "sqlite:///books.db")
    monkeypatch.setattr(logs, "log_as", lambda _: None)  # it belongs to the test runner here
    return Command(capsys, monkeypatch)


@pytest.fixture
def opened(vendor: Command, tmp_path: Path) -> Command:
    """The command beside books that are there, and empty."""
    lay_out(f"sqlite:///{tmp_path / 'books.db'}")
    return vendor


def test_books_and_backups_are_for_their_owner_alone(vendor: Command, tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        vendor.json("accounts", "create", "acme")
        assert vendor("db", "backup", "copy.db")[0] == 0
    finally:
        os.umask(before)
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o600}


def test_keys_are_issued_listed_and_revoked(opened: Command) -> None:
    opened.json("accounts", "create", "acme")
    issued = opened.json("keys", "create", "acme", "--label", "laptop")
    assert issued["api_key"].startswith(f"tk_{issued['key_id']}_")
    code, out, err = opened("keys", "create", "acme")
    assert code == 0
    assert out.startswith("tk_")
    assert len(out.splitlines()) == 1
    assert "cannot be shown again" in err
    code, _, err = opened("keys", "create", "acme", "--label", "x" * 256)
    assert (code, "up to 255 characters" in err) == (2, True)
    listed = opened.json("keys", "list", "acme")
    assert [(each["label"], each["revoked_at"]) for each in listed] == [("laptop", None), ("", None)]
    oldest, newest = (each["key_id"] for each in listed)
    code, out, err = opened("keys", "list", "acme", "--limit", "1", "--json")
    assert ([each["key_id"] for each in json.loads(out)], f"--after {oldest}\n" in err) == ([oldest], True)
    code, out, err = opened("keys", "list", "acme", "--after", oldest, "--limit", "1", "--json")
    assert ([each["key_id"] for each in json.loads(out)], err) == ([newest], "")
    code, out, err = opened("keys", "list", "acme", "--after", issued["api_key"])
    assert (code, "with its secret" in err) == (2, True)
    code, out, err = opened("keys", "revoke", issued["key_id"])
    assert (code, out) == (2, "")
    assert all(word in err for word in ("(laptop) of acme", "for good", "--yes"))
    assert opened.json("keys", "list", "acme")[0]["revoked_at"] is None
    assert opened.json("keys", "revoke", issued["key_id"], "--yes")["revoked_at"]
    assert opened.json("keys", "list", "acme")[0]["revoked_at"]
    assert issued["api_key"] not in json.dumps(listed)


def test_limits_are_changed_or_taken_away_all_that_are_typed_or_none(opened: Command) -> None:
    opened.json("accounts", "create", "acme", "--quota", "5")
    changed = opened.json(
        "accounts", "set", "acme", "--quota", "none", "--rate", "5", "--spend-limit", "70micros"
    )
    assert (changed["quota"], changed["spend_limit_micros"]) == (None, 70)
    assert changed["rate_limit"] == {"queries_per_second": 5, "burst": 50}
    assert opened("accounts", "set", "acme", "--quota", "9", "--coverage-limit", "-1")[0] == 2
    assert opened("accounts", "set", "acme", "--quota", "9", "--plan", "research")[0] == 1
    assert opened.json("accounts", "show", "acme") == changed
    key = opened.json("keys", "create", "acme", "--quota", "5")["key_id"]
    limited = opened.json("keys", "set", key, "--quota", "none", "--expires", "2099-06-30")
    assert (limited["quota"], limited["expires_at"]) == (None, "2099-06-30T00:00:00Z")
    opened.json("projects", "create", "acme", "search", "--quota", "5")
    assert opened.json("projects", "set", "acme", "search", "--quota", "none")["quota"] is None
    for command, words in (
        (["accounts", "set", "acme"], "at least one field"),
        (["keys", "set", key, "--quota", "many"], "a whole number"),
        (["keys", "set", key, "--rate", "0"], "between"),
        (["keys", "set", key, "--expires", "2001-01-01"], "in the future"),
    ):
        code, _, err = opened(*command)
        assert (code, words in err) == (2, True), err
    assert opened("keys", "revoke", key, "--yes")[0] == 0
    assert "was revoked" in opened("keys", "set", key, "--quota", "5")[2]


def test_money_moves_by_commands_and_is_accounted_for(opened: Command) -> None:
    opened.json("accounts", "create", "acme", "--credit", "500micros")
    assert opened.json("top-up", "acme", "100micros", "--reference", "bank 1")["amount_micros"] == 100
    mistake = ("adjust", "acme", "--reason", "a mistake", "--reference", "ticket 1", "--", "-50micros")
    opened(*mistake)
    assert "recorded already, as entry 3" in opened(*mistake)[2]
    assert opened("refund", "acme", "--entry", "1")[0] == 1
    code, _, err = opened("refund", "acme", "--entry", "1", "--amount", "5")
    assert (code, "needs a reference" in err) == (2, True)
    assert opened.json("currency")["currency"] is None
    assert [opened("currency", name)[0] for name in ("euro", "EUR", "USD")] == [2, 0, 1]
    assert opened.json("currency")["currency"] == "EUR"
    (verified,) = opened.json("ledger", "verify")
    assert verified == {"account": "acme", "entries": 3, "balance_micros": 550, "problem": None}
    _, out, _ = opened("ledger", "export", "acme")
    rows = list(csv.DictReader(out.splitlines()))
    assert [(row["kind"], row["amount_micros"]) for row in rows] == [
        ("top_up", "500"),
        ("top_up", "100"),
        ("adjustment", "-50"),
    ]
    _, out, _ = opened("ledger", "export", "acme", "--format", "jsonl")
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["reason"] for line in lines] == [None, None, "a mistake"]
    month = rows[0]["created_at"][:7]
    _, out, _ = opened("invoice", "acme", "--month", month, "--format", "json")
    assert (json.loads(out)["total_micros"], json.loads(out)["top_ups_micros"]) == (50, 600)
    assert "not yet final" in opened("invoice", "acme", "--month", month)[1]
    assert opened("invoice", "acme", "--month", month, "--format", "html")[1].startswith("<!doctype html>")
    asked = ("invoice", "acme", "--month", month, "--format", "pdf")
    command = [Path(sys.executable).with_name("vendor"), *asked]
    printed = subprocess.run(command, capture_output=True, check=True).stdout
    assert "0.000050" in PdfReader(io.BytesIO(printed)).pages[0].extract_text()
    code, shown = at_a_terminal(Path.cwd(), "", *asked)
    assert (code, f"> acme-{month}.pdf" in shown) == (2, True), shown


def test_money_is_typed_in_the_currency_and_exact(opened: Command) -> None:
    opened.json("accounts", "create", "acme", "--credit", "50")
    assert opened.json("accounts", "show", "acme")["credit_micros"] == 50_000_000
    code, _, err = opened("accounts", "set", "acme", "--spend-limit", "5 EUR")
    assert (code, "`vendor currency EUR`" in err) == (1, True)
    for written in ("5 EUR", "5EUR", "5eur", "5.000000", "5000000micros"):
        opened("currency", "EUR")
        assert (
            opened.json("accounts", "set", "acme", "--spend-limit", written)["spend_limit_micros"]
            == 5_000_000
        )
        assert opened.json("accounts", "set", "acme", "--spend-limit", "none")["spend_limit_micros"] is None
    assert "credit: 50.00 EUR\n" in opened("accounts", "show", "acme")[1]
    for written, code, said in (
        ("5 USD", 2, "are in EUR"),
        ("", 2, "not an amount"),
        ("1e3", 2, "not an amount"),
    ):
        ended, _, err = opened("accounts", "set", "acme", "--spend-limit", written)
        assert (ended, said in err) == (code, True), err


def test_what_moves_a_price_far_or_ends_a_secret_at_once_is_asked(opened: Command) -> None:
    price = ("prices", "set", "icon-clip", "image")
    opened.json(*price, "0.0001", "--new")
    for micros, asks in (("150micros", False), ("301micros", True), ("70micros", True), ("75micros", False)):
        code, _, err = opened(*price, micros, "--new")
        assert (code, "Add --yes" in err) == ((2, True) if asks else (0, False))
        assert opened(*price, micros, "--new", "--yes")[0] == 0
        opened(*price, "150micros", "--new", "--yes")
    opened.json(*price[:3], "batch-percent", "40", "--new")
    assert "40%" in opened("prices", "list")[1]
    assert opened("prices", "set", "icon-clip", "text", "0.00003", "--new")[1] == opened("prices", "list")[1]
    opened.json("accounts", "create", "acme")
    key = opened.json("keys", "create", "acme")["key_id"]
    code, _, err = opened("keys", "rotate", key)
    assert (code, "stops working at once" in err) == (2, True)
    assert opened("keys", "rotate", key, "--yes")[0] == opened("keys", "rotate", key, "--grace", "60")[0] == 0


def test_a_payment_or_top_up_that_is_said_again_counts_once(opened: Command) -> None:
    opened.json("accounts", "create", "invoiced")
    opened.json("accounts", "create", "prepaid", "--credit", "5micros")
    for command, account in (("payment", "invoiced"), ("top-up", "prepaid")):
        first = opened.json(command, account, "100", "--reference", "bank 1")
        code, out, err = opened(command, account, "100", "--reference", "bank 1", "--json")
        assert (code, json.loads(out)) == (0, first)
        assert f"recorded already, as entry {first['seq']}" in err
        code, _, err = opened(command, account, "101", "--reference", "bank 1")
        assert (code, "'bank 1'" in err) == (1, True)
    assert [each["entries"] for each in opened.json("ledger", "verify")] == [1, 2]
    assert "vendor payment invoiced" in opened("top-up", "invoiced", "5", "--reference", "r")[2]
    assert "vendor top-up prepaid" in opened("payment", "prepaid", "5", "--reference", "r")[2]
    back = opened("payment", "invoiced", "--reference", "bank 1 returned", "--json", "--", "-100")[1]
    assert json.loads(back)["amount_micros"] == -100_000_000
    month = json.loads(back)["created_at"][:7]
    _, out, _ = opened("invoice", "invoiced", "--month", month, "--format", "json")
    assert (json.loads(out)["payments_micros"], json.loads(out)["balance_due_micros"]) == (0, 0)


def test_a_moment_is_in_the_zone_that_is_typed_with_it_and_else_in_utc(opened: Command) -> None:
    for kind, since in (("image", "2100-01-01T00:00+02:00"), ("text", "2100-01-01T00:00")):
        opened.json("prices", "set", "icon-clip", kind, "50", "--new", "--from", since)
    found = {each["kind"]: each["since"] for each in opened.json("prices", "list")}
    assert found == {"image": "2099-12-31T22:00:00Z", "text": "2100-01-01T00:00:00Z"}
    opened.json("accounts", "create", "acme")
    opened.json("keys", "create", "acme", "--expires", "2100-01-01T00:00+02:00")
    assert opened.json("keys", "list", "acme")[0]["expires_at"] == "2099-12-31T22:00:00Z"
    code, _, err = opened("usage", "acme", "--from", "2026-12-01T00:00Z", "--to", "2026-12-01T00:30+01:00")
    assert (code, "`from` is later than `to`" in err) == (2, True)


def test_the_end_of_a_month_verifies_the_books_and_lists_all_invoices(
    opened: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened.json("currency", "EUR")
    for name, owes in (("acme", "3.141592"), ("idle", ""), ("north", "2")):
        opened.json("accounts", "create", name)
        if owes:
            opened("adjust", name, "--reason", "use", "--reference", "1", "--", f"-{owes}")
    month = f"{to_datetime(system_clock()):%Y-%m}"
    code, _, err = opened("month", "close", month)
    assert (code, f"{month} is not over" in err) == (2, True)
    assert opened("month", "close", "2026-1")[0] == 2
    monkeypatch.setattr(books, "system_clock", lambda: system_clock() + 40 * DAY)
    told = ("number", "account", "due_micros", "carried_micros", "is_new")
    for is_new in (True, False):
        closed = opened.json("month", "close", month)
        assert [tuple(each[name] for name in told) for each in closed] == [
            (1, "acme", 3_140_000, 1_592, is_new),
            (2, "north", 2_000_000, 0, is_new),
        ]
    assert "3.14 EUR" in opened("month", "close", month)[1]
    recorded = [each for each in opened.json("audit", "list") if each["action"] == "month.close"]
    assert [(each["subject"], each["after"]["issued"]) for each in recorded] == [
        (month, 2), (month, 0), (month, 0)
    ]  # fmt: skip
    with closing(sqlite3.connect(tmp_path / "books.db")) as tampered:
        tampered.execute("UPDATE accounts SET spent_micros = spent_micros + 1 WHERE name = 'north'")
        tampered.commit()
    code, _, err = opened("month", "close", month)
    assert (code, "the books of north are not in order" in err) == (1, True)


def test_an_account_that_a_wrong_clock_dated_is_repaired(
    opened: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened.json("accounts", "create", "acme")
    with monkeypatch.context() as wrong:
        wrong.setattr(books, "system_clock", lambda: system_clock() + 300 * DAY)
        opened.json("adjust", "acme", "5", "--reason", "at a wrong clock", "--reference", "at a wrong clock")
    code, _, err = opened(
        "adjust", "acme", "5", "--reason", "at the right one", "--reference", "at the right one"
    )
    assert (code, "vendor accounts repair acme" in err) == (1, True)
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    code, _, err = opened("accounts", "repair", "acme")
    assert (code, "clock must be right" in err) == (2, True)
    done = opened.json("accounts", "repair", "acme", "--yes")
    assert done["by_seq"] == 2
    assert "nothing was changed" in opened("accounts", "repair", "acme", "--yes")[2]
    assert opened.json("accounts", "repair", "acme", "--yes")["by_seq"] is None
    opened.json("adjust", "acme", "5", "--reason", "at the right one", "--reference", "at the right one")
    (verified,) = opened.json("ledger", "verify")
    assert (verified["entries"], verified["problem"]) == (3, None)
    # Years ahead of all that the books know, the clock is not believed.
    with monkeypatch.context() as wrong:
        wrong.setattr(books, "system_clock", lambda: system_clock() + 4000 * DAY)
        code, _, err = opened("adjust", "acme", "5", "--reason", "at a wrong clock", "--reference", "another")
        assert (code, "VENDOR_TRUST_CLOCK" in err) == (1, True)
        wrong.setenv("VENDOR_TRUST_CLOCK", "true")
        opened.json(
            "adjust", "acme", "5", "--reason", "after years of rest", "--reference", "after years of rest"
        )


def test_verification_says_how_far_it_is_on_a_terminal(opened: Command, tmp_path: Path) -> None:
    """And prints its findings on standard output, whatever it draws beside."""
    opened.json("accounts", "create", "acme", "--credit", "5micros")
    terminal, its_terminal = pty.openpty()
    out, its_out = os.pipe()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    arguments = ("ledger", "verify", "--json")
    running = ForkedOn("vendor_service.cli.main", arguments, tmp_path, environment, its_terminal, its_out)
    with os.fdopen(out) as printed:
        found = json.load(printed)
    assert running.wait(60) == 0
    drawn = os.read(terminal, 65_536).decode()
    os.close(terminal)
    assert found[0]["entries"] == 1
    assert "acme" in drawn
    assert "1/1" in drawn


def test_books_that_do_not_add_up_fail_the_command(opened: Command, tmp_path: Path) -> None:
    for name in ("acme", "beta"):
        opened.json("accounts", "create", name, "--credit", "500micros")
    with sqlite3.connect(tmp_path / "books.db") as connection:
        connection.execute("UPDATE accounts SET credit_micros = 501 WHERE name = 'beta'")
    connection.close()
    assert opened("ledger", "verify", "acme")[0] == 0
    code, out, err = opened("ledger", "verify")
    assert (code, "501" in out) == (1, True)
    assert "beta are not in order" in err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["invoice", "nobody", "--month", "2026-11"], 1, "no account"),
        (["top-up", "nobody", "5", "--reference", "r"], 1, "no account"),
        (["prices", "set", "icon-clip", "image", "5", "--from", "2020-01-01"], 2, "past"),
        (["prices", "set", "icon-clip", "sound", "5"], 2, "sound"),
        (["keys", "rotate", "0", "--grace", "60"], 1, "no key"),
        (["accounts", "show", "nobody"], 1, "vendor accounts list"),
        (["keys", "create", "nobody"], 1, "no account 'nobody'"),
        (["keys", "revoke", "0"], 1, "no key"),
        (["accounts", "create", "Not A Name"], 2, "lower-case"),
        (["accounts", "create", "acme", "--quota=-1"], 2, "quota must be between"),
        (["accounts", "create", "acme", "--period", "week"], 2, "week"),
        (["accounts", "list", "--database-url", "nonsense"], 2, "sqlite:///FILE"),
        (["accounts", "list", "--database-url", "sqlite:///no/folder/x.db"], 1, "no/folder/x.db"),
        (["accounts", "create", "x", "--database-url", "sqlite:///no/folder/x.db"], 1, "cannot be used"),
        (["invoice", "acme", "--month", "2026-1"], 2, "'2026-1' is no month"),
        (["prices", "set", "icon-klip", "image", "5"], 1, "no model 'icon-klip'"),
        (["prices", "set", "icon-klip", "image", "5", "--plan", "reserach"], 1, "--new"),
        (["prices", "unset", "icon-klip", "image"], 2, "--yes"),
        (["prices", "unset", "icon-klip", "image", "--yes"], 1, "no price"),
        (["serve", "--port", "70000"], 2, "port"),
        (["serve", "--model", "icon-klip"], 2, "icon-clip"),
        (["serve", "--device", "cuda:99"], 2, "no device"),
        (["refund", "acme", "--entry", "0"], 2, "--entry"),
        (["refund", "acme", "--entry", str(2**63)], 2, "--entry"),
        (["audit", "list", "--after", str(2**63)], 2, "--after"),
    ],
)
def test_what_cannot_be_done_is_said_with_its_exit_code(
    opened: Command, arguments: list[str], code: int, message: str
) -> None:
    ended, out, err = opened(*arguments)
    assert ended == code
    assert message in err
    assert "Traceback" not in err
    assert out == ""


def test_the_database_is_made(vendor: Command) -> None:
    assert vendor("db", "current")[0] == 1
    code, out, err = vendor("db", "upgrade")
    assert (code, out) == (0, f"{schema.latest()}\n")
    assert f"new books in {Path('books.db').absolute()}" in err
    assert vendor("db", "current")[1] == f"{schema.latest()}\n"


@pytest.mark.parametrize("command", ["accounts repair acme"])
def test_ctrl_c_at_a_question_ends_the_command_as_it_does_elsewhere(
    opened: Command, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    opened.json("accounts", "create", "acme")
    opened("keys", "create", "acme")

    def interrupt(*_: object) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True, readline=interrupt))
        assert opened(*command.split())[0] == 130
    assert [each["account"] for each in opened.json("accounts", "list")] == ["acme"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["accounts", "list"],
        ["accounts", "suspend", "acme"],
        ["keys", "list", "acme"],
        ["keys", "create", "acme"],
        ["top-up", "acme", "5", "--reference", "bank 1"],
        ["invoice", "acme", "--month", "2026-11"],
        ["ledger", "verify"],
        ["ledger", "export", "acme"],
        ["prices", "set", "icon-clip", "image", "5", "--new"],
        ["prices", "list"],
        ["db", "backup", "copy.db"],
        ["db", "current"],
    ],
    ids=" ".join,
)
def test_books_that_do_not_exist_are_refused_and_not_made(
    vendor: Command, tmp_path: Path, arguments: list[str]
) -> None:
    code, out, err = vendor(*arguments, "--database-url", "sqlite:///typo.db")
    assert (code, out) == (1, "")
    assert str(tmp_path / "typo.db") in err
    assert list(tmp_path.iterdir()) == []


def test_on_an_empty_database_server_it_is_said_what_makes_books(vendor: Command, postgres: Postgres) -> None:
    url = postgres.create_database()
    code, _, err = vendor("accounts", "create", "acme", "--database-url", url)
    assert (code, "no tables yet; " in err, "`vendor db upgrade --database-url" in err) == (1, True, True)
    code, _, err = vendor("accounts", "list", "--database-url", url)
    assert (code, "or `vendor serve --migrate --database-url" in err) == (1, True)


def test_what_only_reads_leaves_a_backup_as_it_is(opened: Command, tmp_path: Path) -> None:
    opened.json("accounts", "create", "acme")
    assert opened("db", "backup", "copy.db")[0] == 0
    copy, before = tmp_path / "copy.db", (tmp_path / "copy.db").read_bytes()
    for command in ("accounts list", "ledger verify", "audit list", "ledger export acme", "currency"):
        assert opened(*command.split(), "--database-url", "sqlite:///copy.db")[0] == 0
    assert copy.read_bytes() == before
    assert not list(tmp_path.glob("copy.db-*"))
    with closing(sqlite3.connect(copy)) as older, older:
        older.execute("UPDATE alembic_version SET version_num = 'older'")
    code, _, err = opened("accounts", "list", "--database-url", "sqlite:///copy.db")
    assert (code, "`vendor db upgrade --database-url sqlite:///copy.db`" in err) == (1, True)


@pytest.mark.parametrize("arguments", [["ledger", "verify"], ["db", "backup", "copy.db"]], ids=" ".join)
def test_books_without_tables_are_no_books(opened: Command, arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "books.db").write_bytes(b"")
    code, out, err = opened(*arguments)
    assert (code, out) == (1, "")
    assert "there are no books" in err
    assert not (tmp_path / "copy.db").exists()


def test_the_first_account_makes_books_and_says_where(vendor: Command, tmp_path: Path) -> None:
    code, _, err = vendor("accounts", "create", "acme", "--quota", "5")
    assert code == 0
    assert f"new books in {tmp_path / 'books.db'}" in err
    assert "new books" not in vendor("accounts", "create", "beta", "--quota", "5")[2]


@pytest.mark.parametrize("limit", [None, "--quota", "--spend-limit", "--credit"])
def test_an_account_without_limits_is_said_to_be_one(opened: Command, limit: str | None) -> None:
    _, _, err = opened("accounts", "create", "acme", *([limit, "5"] if limit else []))
    assert ("without a limit" in err) == (limit is None)


SECRET = "0123456789abcdef" * 3


@pytest.mark.parametrize("command", ["rotate", "revoke", "list", "create"])
def test_a_whole_key_is_not_echoed(opened: Command, command: str) -> None:
    code, out, err = opened("keys", command, f"tk_0f3c7a91d2b45e68_{SECRET}")
    assert (code, out) == (2, "")
    assert "its id: 0f3c7a91d2b45e68" in err
    assert SECRET not in err
    assert SECRET not in opened("accounts", "show", f"tk_0f3c7a91d2b45e68_{SECRET}")[2]


def test_a_list_cuts_nothing_in_a_pipe_and_at_eighty_columns(opened: Command, tmp_path: Path) -> None:
    name = "a" * 63
    opened.json("accounts", "create", name)
    key_id = opened.json("keys", "create", name, "--label", "x" * 100)["key_id"]
    for arguments, wanted in ((["keys", "list", name], key_id), (["accounts", "list"], name)):
        _, out, _ = opened(*arguments)
        assert wanted in out.split()
        assert len(out.splitlines()) == 2
        _, shown = at_a_terminal(tmp_path, "", *arguments)
        assert wanted in shown.split()
        assert all(len(line) <= 80 for line in shown.splitlines() if wanted in line)


def test_what_a_label_holds_cannot_play_with_the_terminal(opened: Command) -> None:
    opened.json("accounts", "create", "acme")
    opened("keys", "create", "acme", "--label", "\x1b[2Jhello")
    _, out, _ = opened("keys", "list", "acme")
    assert "\\x1b[2Jhello" in out
    assert "\x1b" not in out


def test_what_standard_output_cannot_encode_is_escaped_and_json_stays_json(
    opened: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened.json("accounts", "create", "acme")
    opened("keys", "create", "acme", "--label", "кот")
    opened("adjust", "acme", "--reason", "кот 😀", "--reference", "кот 😀", "--", "5")

    def printed(*arguments: str) -> str:
        shown = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, "latin-1"))
        monkeypatch.setattr(sys, "argv", ["vendor", *arguments])
        with pytest.raises(SystemExit) as ended:
            program()
        sys.stdout.flush()
        assert not ended.value.code
        return shown.getvalue().decode("latin-1")

    assert "\\u043a\\u043e\\u0442" in printed("keys", "list", "acme")
    (entry,) = printed("ledger", "export", "acme", "--format", "jsonl").splitlines()
    assert json.loads(entry)["reason"] == "кот 😀"


def test_every_change_of_a_price_can_be_seen(opened: Command) -> None:
    for micros in ("50", "60"):
        opened.json("prices", "set", "icon-clip", "image", f"{micros}micros", "--plan", "research", "--new")
    assert opened("prices", "unset", "icon-clip", "image", "--plan", "research", "--yes")[0] == 0
    assert opened.json("prices", "list") == []
    seen = opened.json("prices", "list", "--all")
    assert [(each["micros"], each["state"]) for each in seen] == [
        (50, "past"),
        (60, "past"),
        (None, "in force"),
    ]


def test_all_holds_are_listed_however_many_there_are(opened: Command) -> None:
    opened.json("accounts", "create", "acme")
    key = opened.json("keys", "create", "acme")["key_id"]
    facts = {"key_id": key, "project_id": "", "state": "open", "model": "m", "model_fingerprint": "f",
             "counts": {"image": 1}, "prices": {"image": 1}, "cost_micros": 1, "body_hash": "h",
             "created_at": 0, "expires_at": 0}  # fmt: skip
    with closing(Database("sqlite:///books.db")) as database, database.write() as session:
        facts["account_id"] = find_account(session, "acme").id
        session.execute(insert(Hold), [facts | {"id": f"req_{count}"} for count in range(1001)])
    assert len(opened.json("holds")) == len(opened.json("holds", "acme")) == 1001


def test_text_that_a_spreadsheet_would_run_is_quoted_in_csv(opened: Command) -> None:
    opened.json("accounts", "create", "acme", "--credit", "500micros")
    for reason in ("=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "  =1", "plain, with a comma"):
        opened("adjust", "acme", "--reason", reason, "--reference", reason, "--", "-5micros")
    _, out, _ = opened("ledger", "export", "acme")
    rows = list(csv.DictReader(StringIO(out, newline="")))
    assert [row["reason"] for row in rows][1:] == [
        *("'=1+1", "'+1", "'-1", "'@SUM(A1)", "'\tx", "'\rx", "'  =1"),
        "plain, with a comma",
    ]
    assert {row["amount_micros"] for row in rows} == {"500", "-5"}
    _, out, _ = opened("invoice", "acme", "--month", rows[0]["created_at"][:7], "--format", "csv")
    sums = {row["item"]: row["amount_micros"] for row in csv.DictReader(out.splitlines())}
    assert sums == {"adjustments": "40", "total": "40"}


def test_every_change_is_in_the_audit_log_and_no_secret_is(opened: Command, tmp_path: Path) -> None:
    opened.json("accounts", "create", "acme", "--credit", "500micros")
    opened.json("accounts", "create", "later")
    key = opened.json("keys", "create", "acme", "--label", "laptop")
    rotated = opened.json("keys", "rotate", key["key_id"], "--grace", "60")
    signing = ("--keys-in", str(tmp_path))
    assert opened("receipts-key", "rotate", *signing)[0] == 0
    (signs,) = opened.json("receipts-key", "list")
    for command in (
        ("keys", "revoke", key["key_id"], "--yes"),
        ("accounts", "set", "acme", "--quota", "5", "--spend-limit", "6", "--rate-limit", "7"),
        ("prices", "set", "icon-clip", "image", "80micros", "--plan", "research", "--new"),
        ("accounts", "set", "acme", "--plan", "research"),
        ("accounts", "suspend", "acme"),
        ("accounts", "resume", "acme"),
        ("prices", "unset", "icon-clip", "image", "--plan", "research", "--yes"),
        ("top-up", "acme", "100micros", "--reference", "bank 1"),
        ("top-up", "acme", "100micros", "--reference", "bank 1"),  # which changes nothing
        ("payment", "later", "100", "--reference", "bank 2"),
        ("adjust", "acme", "5", "--reason", "outage", "--reference", "outage"),
        ("accounts", "repair", "acme", "--yes"),  # which changes nothing
        ("receipts-key", "withdraw", "--yes", "--", signs["key"]),  # an id may begin with a dash
        ("refund", "acme", "--entry", "1"),  # which is refused
    ):
        assert opened(*command)[0] == (1 if command[0] == "refund" else 0), command
    found = opened.json("audit", "list")
    assert [each["action"] for each in found] == [
        *("account.create", "account.create", "key.create", "key.rotate", "receipts_key.rotate"),
        *("key.revoke", "account.set"),
        *("price.set", "account.set", "account.suspend", "account.resume", "price.unset"),
        *("money.top_up", "money.payment", "money.adjustment", "receipts_key.withdraw"),
    ]
    assert {each["actor"].partition(" ")[0] for each in found} == {f"os:{getpass.getuser()}"}
    by_action = {each["action"]: (each["subject"], each["before"], each["after"]) for each in found}
    assert by_action["account.set"] == ("acme", {"plan": "standard"}, {"plan": "research"})
    assert by_action["price.unset"] == ("research icon-clip image", {"micros": 80}, {"micros": None})
    topped_up = {
        "seq": 2,
        "kind": "top_up",
        "amount_micros": 100,
        "reference": "bank 1",
        "credit_micros": 600,
    }
    assert by_action["money.top_up"] == ("acme", {"credit_micros": 500}, topped_up)
    with sqlite3.connect(tmp_path / "books.db") as connection:
        stored = str(connection.execute("SELECT * FROM audit_entries").fetchall())
        hashes = connection.execute("SELECT secret_hash, former_hash FROM api_keys").fetchone()
    connection.close()
    secrets = [*hashes, *(each["api_key"].split("_")[2] for each in (key, rotated))]
    assert not any(secret in stored for secret in secrets)
    code, out, _ = opened("audit", "list", "--subject", "later")
    assert (code, len(out.splitlines())) == (0, 3)
    assert opened.json("audit", "verify")["entries"] == len(found)
    with sqlite3.connect(tmp_path / "books.db") as connection:
        connection.execute("DROP TRIGGER audit_entries_refuses_update")
        connection.execute("UPDATE audit_entries SET actor = 'os:nobody' WHERE seq = 3")
    connection.close()
    code, _, err = opened("audit", "verify")
    assert (code, "entry 3 was changed" in err) == (1, True)


def test_the_version_is_told(vendor: Command) -> None:
    assert vendor("--version")[:2] == (0, f"{version('tuition')}\n")


@pytest.mark.parametrize(("cut", "done"), [("before the commit", False), ("before its answer", True)])
def test_who_cannot_be_told_whether_it_was_done_is_sent_to_the_audit_log(
    vendor: Command, monkeypatch: pytest.MonkeyPatch, postgres: Postgres, cut: Cut, done: bool
) -> None:
    with CommitCutter(postgres.create_database(of=laid_out(postgres))) as cutter:
        monkeypatch.setenv("VENDOR_DATABASE_URL", cutter.url)
        vendor.json("accounts", "create", "acme")
        write = ActContext.write

        @contextmanager
        def cut_off(context: ActContext) -> Iterator[Act]:
            with write(context) as act:
                yield act
                cutter.cut_next(cut)

        monkeypatch.setattr(ActContext, "write", cut_off)
        code, out, err = vendor("adjust", "acme", "5", "--reason", "an outage", "--reference", "an outage")
        assert (code, out) == (1, "")
        assert "it may have been: look with `vendor audit list` before you repeat it" in err
        assert "Idempotency-Key" not in err
        actions = [each["action"] for each in vendor.json("audit", "list", "--subject", "acme")]
    assert ("money.adjustment" in actions) == done


@pytest.mark.parametrize(
    "arguments",
    [["accounts", "create", "beta"], ["accounts", "set", "acme", "--quota", "5"], ["keys", "create", "acme"]],
    ids=" ".join,
)
def test_nothing_is_printed_of_a_change_that_could_not_be_committed(
    opened: Command, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    opened.json("accounts", "create", "acme")
    write = ActContext.write

    @contextmanager
    def without_commit(context: ActContext) -> Iterator[Act]:
        with write(context) as act:
            yield act
            raise OperatorError("the disk is full")

    monkeypatch.setattr(ActContext, "write", without_commit)
    assert opened(*arguments) == (1, "", "error: the disk is full\n")


@pytest.mark.parametrize(
    "arguments",
    [["keys", "create", "acme", "--label"], ["accounts", "list", "--database-url"], ["db", "backup"]],
    ids=" ".join,
)
def test_an_argument_that_is_not_utf8_is_named(opened: Command, arguments: list[str]) -> None:
    opened.json("accounts", "create", "acme")
    said = f"error: argument {len(arguments) + 1} is not UTF-8: caf\\udce9\n"
    assert opened(*arguments, os.fsdecode(b"caf\xe9")) == (2, "", said)


def test_the_models_are_listed_ready_to_be_pasted(vendor: Command) -> None:
    _, out, _ = vendor("models")
    assert out.splitlines()[0] == "--model icon-clip"
    assert "--model ViT-B-16/openai" in out.splitlines()
    assert {"model": "ViT-B-16", "pretrained": "openai"} in vendor.json("models")


def test_a_model_is_measured_and_what_was_remembered_is_printed(
    vendor: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ChoiceMemory, "alone", remembering)
    monkeypatch.setattr("vendor_service.run.factory.user_cache_path", lambda _: tmp_path / "cache")
    ask = ("models", "measure", "--model", write_tiny_clip(tmp_path / "tiny", seed=1))
    first = vendor.json(*ask)
    assert {(each["model"], each["kind"]) for each in first} == {("tiny", "image"), ("tiny", "text")}
    assert [each["kind"] for each in first if each["taken"]] == ["image", "text"]
    assert vendor.json(*ask) == first
    assert vendor.json(*ask, "--again") != first
    _, out, _ = vendor(*ask)
    assert out.split()[:4] == ["model", "taken", "kind", "dtype"]


def test_a_file_of_models_is_checked_and_none_is_loaded(vendor: Command, tmp_path: Path) -> None:
    file = tmp_path / "models.toml"
    table = '[[model]]\nid = "photos"\nsource = "ViT-B-16/openai"\ndefault = true\nsunset_at = 2027-01-31\n'
    file.write_text(table + "deprecated_at = 2026-10-01")
    (told,) = vendor.json("models", "--check", str(file))
    assert (told["model"], told["source"], told["default"]) == ("photos", "ViT-B-16/openai", True)
    assert (told["deprecated_at"][:10], told["sunset_at"][:10]) == ("2026-10-01", "2027-01-31")
    file.write_text(table)
    code, _, problem = vendor("models", "--check", str(file))
    assert (code, "[[model]] 1 (photos), sunset_at" in problem) == (2, True)


def test_help_tells_what_holds_when_nothing_is_said(vendor: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    _, out, _ = vendor("serve", "--help")
    told = set(re.findall(r"[\[(]default: (\S+)[\])]", out))
    assert {"127.0.0.1", "8000", "icon-clip", "sqlite:///tuition-vendor.db"} <= told


def test_every_command_has_help_with_an_example() -> None:
    def commands(group: typer.Typer) -> list[typer.models.CommandInfo]:
        inner = [
            each
            for sub in group.registered_groups
            if sub.typer_instance
            for each in commands(sub.typer_instance)
        ]
        return group.registered_commands + inner

    of_group = models.app.registered_callback
    assert of_group is not None
    for callback in (*(each.callback for each in commands(cli.app)), of_group.callback):
        assert callback is not None
        assert "Example: vendor " in (callback.__doc__ or ""), callback.__name__
