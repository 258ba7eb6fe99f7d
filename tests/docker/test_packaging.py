"""`packaging/`: units that systemd takes, and a backup that counts once its restore verifies."""

import getpass
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from dotenv import dotenv_values

from tests.support.postgres import PROGRAMS, Postgres
from tests.vendor_service.books import opened_books
from vendor_service.run.settings import Settings

ROOT = Path(__file__).parents[2]
PACKAGING = ROOT / "packaging"
BACKUP = PACKAGING / "tuition-backup"


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder with the program `vendor` of this checkout."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "vendor"
    program.write_text(f"#!{sys.executable}\nfrom vendor_service.__main__ import main\nmain()\n")
    program.chmod(0o755)
    return folder


def back_up(url: str, to: Path, programs: Path) -> "subprocess.CompletedProcess[str]":
    path = f"{programs}:{PROGRAMS}:{os.environ['PATH']}"
    environment = os.environ | {"VENDOR_DATABASE_URL": url, "PATH": path, "PYTHONPATH": str(ROOT)}
    environment["VENDOR_KEYS_IN"] = str(to.parent / "keys")
    return subprocess.run([BACKUP, to], env=environment, capture_output=True, text=True)


def test_a_backup_counts_once_its_restored_copy_verifies(tmp_path: Path, programs: Path) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    with opened_books(f"sqlite:///{tmp_path / 'books.db'}") as books:
        books.buy(books.open())
        done = back_up(books.url, folder, programs)
        assert done.returncode == 0, done.stderr
        (kept,) = folder.glob("books-*.db")
        assert kept.stat().st_mode & 0o777 == 0o600
        books.tamper("UPDATE ledger_entries SET amount_micros = -1")
        failed = back_up(books.url, folder, programs)
    assert failed.returncode != 0
    assert "account-0" in failed.stdout + failed.stderr
    assert list(folder.glob("books-*.db")) == [kept]
    with closing(sqlite3.connect(kept)) as copy:
        assert copy.execute("SELECT amount_micros FROM ledger_entries").fetchall() == [(-100,)]


def test_a_backup_of_postgresql_is_restored_beside_it_and_can_take_its_place(
    tmp_path: Path, programs: Path, postgres: Postgres
) -> None:
    folder, keys = tmp_path / "backups", tmp_path / "keys"
    folder.mkdir()
    keys.mkdir()
    (keys / "signing-key.pem").write_text("secret")
    url = postgres.create_database()  # with a query, as `?host=/run/postgresql`
    with opened_books(url) as books:
        books.buy(books.open())
        done = back_up(url, folder, programs)
        assert done.returncode == 0, done.stderr
        books.tamper("UPDATE ledger_entries SET amount_micros = -1")
        assert back_up(url, folder, programs).returncode != 0
    (kept,) = folder.glob("books-*.dump")
    assert kept.stat().st_mode & 0o777 == 0o600
    assert (folder / "signing-key.pem").read_text() == "secret"
    place = postgres.create_database()
    options = ["--no-owner", "--exit-on-error", "--single-transaction", f"--dbname={place}"]
    subprocess.run([PROGRAMS / "pg_restore", *options, kept], check=True)
    with closing(psycopg.connect(place)) as copy:
        assert copy.execute("SELECT amount_micros FROM ledger_entries").fetchall() == [(-100,)]


def test_the_command_has_the_settings_of_the_service(tmp_path: Path) -> None:
    """In its folder; a shell and systemd read the same file alike."""
    program = tmp_path / "vendor"
    told = tmp_path / "told"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$PWD" "$VENDOR_NAME" "$HOME" "$@" > {told}\n')
    command = tmp_path / "command"
    text = (PACKAGING / "vendor").read_text().replace("/opt/tuition/bin/vendor", str(program))
    text = text.replace("/etc/tuition", str(PACKAGING)).replace("cd /var/lib/tuition", f"cd {tmp_path}")
    command.write_text(text.replace("!= tuition", f"!= {getpass.getuser()}"))
    for each in (program, command):
        each.chmod(0o755)
    subprocess.run([command, "accounts", "create", "a b"], check=True)
    written = dotenv_values(PACKAGING / "vendor.env")
    assert told.read_text().splitlines() == [
        str(tmp_path),
        written["VENDOR_NAME"],
        written["HOME"],
        *("accounts", "create", "a b"),
    ]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
@pytest.mark.parametrize(
    "unit", sorted(each.name for each in PACKAGING.iterdir() if each.suffix in (".service", ".timer"))
)
def test_systemd_takes_every_unit(unit: str, tmp_path: Path) -> None:
    """With the programs that they name in the place where they are installed."""
    program = tmp_path / "opt"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for each in PACKAGING.iterdir():
        if each.suffix in (".service", ".timer"):
            text = each.read_text()
            for name in ("vendor", "tuition-backup"):
                text = text.replace(f"/opt/tuition/bin/{name}", str(program))
            (tmp_path / each.name).write_text(text)
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(tmp_path / unit)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_settings_of_the_unit_are_settings() -> None:
    given = dotenv_values(PACKAGING / "vendor.env")
    named = {name.removeprefix("VENDOR_").lower() for name in given if name.startswith("VENDOR_")}
    assert named <= set(Settings.model_fields)
    billing = given["VENDOR_BILLING_LOG"] or ""
    assert (PACKAGING / "tuition.logrotate").read_text().count(f"{Path(billing).parent}/*.jsonl") == 1


@pytest.mark.skipif(shutil.which("logrotate") is None, reason="there is no logrotate here")
def test_logrotate_takes_its_file() -> None:
    done = subprocess.run(
        ["logrotate", "--debug", PACKAGING / "tuition.logrotate"], capture_output=True, text=True
    )
    assert "error" not in done.stderr.lower().replace("error: /var/log", "")


def test_the_production_page_names_every_file_of_packaging() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    page = text[text.index("## Production in ten minutes") : text.index("## Settings")]
    assert [each.name for each in PACKAGING.iterdir() if each.name not in page] == []
