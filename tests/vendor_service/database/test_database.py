"""The tables, their migrations, and a ledger that nobody can rewrite."""

import re
import resource
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from pathlib import Path
from unittest.mock import Mock
from urllib.parse import urlsplit

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import event, select, text
from sqlalchemy.exc import DatabaseError, IntegrityError, InternalError, OperationalError
from sqlalchemy.orm import Session

from shared.errors import ErrorCode
from tests.support.forking import CONTEXT
from tests.support.postgres import Postgres
from tests.support.quick import configure_durable
from tests.support.sqlite_writer import writing
from tests.vendor_service.books import Books, laid_out, opened_books, renewed
from vendor_service.database import schema
from vendor_service.database.session import Database
from vendor_service.database.tables import Base, BooksHead
from vendor_service.errors import APIError, OperatorError, RowLocked, UsageError


def test_an_empty_database_gets_exactly_the_tables_in_code(books: Books) -> None:
    with books.database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []


def test_another_database_is_migrated_only_when_asked(postgres: Postgres) -> None:
    with closing(Database(postgres.create_database())) as database:
        with pytest.raises(OperatorError, match=r"no tables yet; .*`vendor db upgrade`"):
            schema.prepare(database)
        schema.prepare(database, migrate=True)
        schema.prepare(database)
        with database.write() as session:
            session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        with pytest.raises(OperatorError, match=r"another version's tables; .*vendor db upgrade"):
            schema.prepare(database)


@pytest.mark.parametrize(
    "change",
    ["UPDATE ledger_entries SET amount_micros = 0", "DELETE FROM ledger_entries WHERE seq = 1"],
)
def test_the_ledger_refuses_every_change(books: Books, change: str) -> None:
    order = books.open()
    books.buy(order)
    # A trigger's refusal is a broken constraint to SQLite, an error of its own to PostgreSQL.
    with pytest.raises(DatabaseError, match="append-only"), books.database.write() as session:
        session.execute(text(change))
    books.check(order)


def test_a_hold_can_be_charged_once_whatever_the_program_does(books: Books) -> None:
    order = books.open()
    books.buy(order)
    copy = (
        "INSERT INTO ledger_entries (account_id, seq, kind, amount_micros, counts, prices, "
        "model, model_fingerprint, key_id, hold_id, created_at, previous_hash, entry_hash, "
        "corrects_seq, reason) SELECT account_id, 2, kind, amount_micros, counts, prices, "
        "model, model_fingerprint, key_id, hold_id, created_at, previous_hash, entry_hash, "
        "corrects_seq, reason "
        "FROM ledger_entries"
    )
    with pytest.raises(IntegrityError, match="hold_id"), books.database.write() as session:
        session.execute(text(copy))


def test_a_failed_transaction_leaves_nothing(books: Books) -> None:
    def fail_half_way() -> None:
        with books.database.write() as session:
            session.execute(text("DELETE FROM prices"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    with books.database.read() as session:
        assert session.execute(text("SELECT count(*) FROM prices")).scalar() == 2


def test_a_connection_that_the_server_closed_is_replaced_unseen(postgres: Postgres) -> None:
    """Even one that was used a moment ago, about which nobody asks the server."""
    with closing(Database(renewed(postgres))) as database, closing(Database(postgres.uri)) as other:
        mine = _backend(database)
        assert _backend(database) == mine
        with other.read() as session:
            assert session.scalar(text("SELECT pg_terminate_backend(:mine, 10000)"), {"mine": mine})
        assert _backend(database) != mine


def test_a_connection_is_asked_about_only_when_it_was_idle(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(Database(renewed(postgres))) as database:
        asked = Mock(wraps=database.engine.dialect.do_ping)
        monkeypatch.setattr(database.engine.dialect, "do_ping", asked)
        mine = _backend(database)
        assert _backend(database) == mine
        asked.assert_not_called()
        monkeypatch.setattr("vendor_service.database.session._SURE_SECONDS", 0.0)
        assert _backend(database) == mine
        asked.assert_called_once()


def test_a_transaction_says_how_long_it_waits_for_locks_and_is_whole_all_the_same(postgres: Postgres) -> None:
    url = renewed(postgres)

    def count_one(lock_seconds: float | None, *, fails: bool = False) -> str:
        with database.write(lock_seconds) as session:
            session.execute(text("UPDATE books_head SET invoices_issued = invoices_issued + 1"))
            if fails:
                raise ZeroDivisionError
            return str(session.scalar(text("SHOW lock_timeout")))

    with closing(Database(url)) as database:
        for _ in range(7):  # the driver has a statement prepared that was run five times
            assert count_one(0.25) == "250ms"
            with pytest.raises(ZeroDivisionError):
                count_one(0.25, fails=True)
        assert count_one(None) == "30s"
        with database.read() as session:
            assert session.scalars(select(BooksHead.invoices_issued)).one() == 8


def test_who_waited_for_a_lock_in_vain_is_told_so(postgres: Postgres) -> None:
    url = renewed(postgres)
    with closing(Database(url)) as database, database.write() as session:
        head = select(BooksHead).with_for_update()
        session.scalars(head).one()
        with pytest.raises(RowLocked) as raised, database.write(lock_seconds=0.1) as other:
            other.scalars(head).one()
        assert raised.value.code == ErrorCode.OVERLOADED


def test_connections_that_were_needed_at_once_stay_open(database_url: str) -> None:
    """To open one for each request that finds the others in use would cost more than the request."""
    with closing(Database(database_url)) as database, ThreadPoolExecutor(10) as pool:
        opened = Mock()
        event.listen(database.engine, "connect", opened)
        together = threading.Barrier(10)

        def read() -> None:
            with database.read() as session:
                session.execute(text("SELECT 1"))
                together.wait(30)

        for _ in range(3):
            list(pool.map(lambda _: read(), range(10)))
        assert opened.call_count == 10


def test_who_finds_all_connections_in_use_is_told_to_try_again(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 0.1}
    monkeypatch.setattr("vendor_service.database.session._CONNECTIONS", few)

    def nest(transaction: Callable[[], AbstractContextManager[Session]]) -> None:
        with database.read() as session:
            session.execute(text("SELECT 1"))
            with transaction() as other:
                other.execute(text("SELECT 1"))

    with closing(Database(database_url)) as database:
        for transaction in (database.read, database.write):
            with pytest.raises(APIError) as refused:
                nest(transaction)
            assert refused.value.code == ErrorCode.OVERLOADED


def test_a_postgres_that_takes_no_changes_is_asked_again_over_another_connection(postgres: Postgres) -> None:
    """As where a host has closed a full one to changes."""
    url = postgres.create_database(of=laid_out(postgres))

    def alter(setting: str) -> None:
        with psycopg.connect(postgres.uri, autocommit=True) as connection:
            connection.execute(f"ALTER DATABASE {urlsplit(url).path[1:]} {setting}".encode())

    with closing(Database(url)) as database:
        alter("SET default_transaction_read_only = on")
        with pytest.raises(APIError) as refused:
            database.check_writing()
        assert refused.value.code == ErrorCode.OVERLOADED
        alter("RESET default_transaction_read_only")
        database.check_writing()
        with pytest.raises(InternalError), database.read() as session:  # this is a fault of the program
            session.execute(text("DELETE FROM prices"))


def test_a_postgres_that_follows_another_can_be_read_and_takes_changes_once_it_is_promoted(
    postgres: Postgres,
) -> None:
    with closing(Database(postgres.create_database(of=laid_out(postgres)))) as database:
        postgres.stop()
        postgres.stand_by()
        try:
            for _ in range(2):  # it has another word for it on a connection that was read from
                with pytest.raises(APIError) as refused:
                    database.check_writing()
                assert refused.value.code == ErrorCode.OVERLOADED
                database.check()
        finally:
            postgres.promote()
        database.check_writing()


def _backend(database: Database) -> int:
    with database.read() as session:
        return int(session.execute(text("SELECT pg_backend_pid()")).scalar_one())


def test_an_embedded_database_survives_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vendor_service.database.session._configure_sqlite", configure_durable)
    with opened_books(f"sqlite:///{tmp_path / 'books.db'}") as books, books.database.read() as session:
        assert session.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert session.execute(text("PRAGMA synchronous")).scalar() == 2
        assert session.execute(text("PRAGMA foreign_keys")).scalar() == 1


def test_a_full_disk_undoes_the_transaction_and_passes_once_there_is_room(tmp_path: Path) -> None:
    def fill() -> None:
        with database.write() as session:
            session.execute(text("INSERT INTO filler VALUES ('small')"))
            session.execute(text("INSERT INTO filler VALUES (zeroblob(1000000))"))

    with closing(Database(f"sqlite:///{tmp_path / 'books.db'}")) as database:
        with database.write() as session:
            session.execute(text("CREATE TABLE filler (bytes BLOB)"))
            session.execute(text("PRAGMA max_page_count = 100"))  # of the one connection that the pool has
        with pytest.raises(APIError) as refused:
            fill()
        assert refused.value.code == ErrorCode.OVERLOADED
        with database.read() as session:
            assert session.scalar(text("SELECT count(*) FROM filler")) == 0
            session.execute(text("PRAGMA max_page_count = 1000000"))
        fill()


def test_a_disk_quota_undoes_the_transaction_and_passes_once_there_is_room(tmp_path: Path) -> None:
    def fill() -> None:
        with database.write() as session:
            session.execute(text("INSERT INTO filler VALUES (zeroblob(50000000))"))

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with closing(Database(f"sqlite:///{tmp_path / 'books.db'}")) as database:
        with database.write() as session:
            session.execute(text("CREATE TABLE filler (bytes BLOB)"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000_000, hard))  # as a quota, it is an error of writing
        try:
            with pytest.raises(APIError) as refused:
                fill()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert refused.value.code == ErrorCode.OVERLOADED
        assert isinstance(refused.value.__cause__, OperationalError)
        assert getattr(refused.value.__cause__.orig, "sqlite_errorname", "") == "SQLITE_IOERR_WRITE"
        with database.read() as session:
            assert session.scalar(text("SELECT count(*) FROM filler")) == 0
        fill()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "nonsense", "nosuchdb://x/y"])
def test_a_url_that_cannot_be_used_says_what_to_write(url: str) -> None:
    with pytest.raises(UsageError, match="sqlite:///FILE"):
        Database(url)


def test_what_postgres_takes_is_installed_from_the_project() -> None:
    with pytest.raises(UsageError, match=re.escape("pip install 'tuition[postgres]'")):
        Database("nonsense")


def test_a_database_that_cannot_be_opened_or_is_newer_is_an_operators_error(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("not a database at all, but quite a long text" * 100)
    for file in ("no/such/folder/x.db", "text.db"):
        with closing(Database(f"sqlite:///{tmp_path / file}")) as database, pytest.raises(OperatorError):
            schema.prepare(database)
    with closing(Database(f"sqlite:///{tmp_path / 'newer.db'}")) as database:
        schema.upgrade(database)
        with database.write() as session:
            session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        with pytest.raises(OperatorError, match="newer version"):
            schema.prepare(database)


def _prepare(url: str) -> str | None:
    with closing(Database(url)) as database:
        schema.prepare(database, migrate=True)
        return schema.current(database)


def test_an_embedded_database_that_another_process_is_just_making_is_waited_for(tmp_path: Path) -> None:
    with writing(tmp_path / "books.db", 0.3):
        assert _prepare(f"sqlite:///{tmp_path / 'books.db'}") == schema.latest()


def test_several_processes_may_make_the_tables_at_once(database_url: str) -> None:
    with ProcessPoolExecutor(3, CONTEXT) as pool:
        assert set(pool.map(_prepare, [database_url] * 3)) == {schema.latest()}
