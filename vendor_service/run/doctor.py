"""The doctor's checks, each a few lines: none loads a model, and none changes anything."""

import shutil
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.http import server
from vendor_service.acts.doctor import Finding
from vendor_service.advice import addressed, whole_url
from vendor_service.batches.store import Store
from vendor_service.clock import Clock
from vendor_service.database import schema
from vendor_service.database.session import Database
from vendor_service.database.tables import Account, OperatorToken, SigningKeyRow
from vendor_service.errors import APIError, OperatorError
from vendor_service.money import currency, signing
from vendor_service.money.clock_check import against_database
from vendor_service.run.settings import Settings

_GIB = 2**30
_LEAST_BYTES, _FEW_BYTES = _GIB // 4, 5 * _GIB
_LOOPBACK = ("127.", "::1", "localhost")
_SHOWN = 5  # accounts that are named

Check = Callable[[Settings, Database, Clock], Iterator[Finding]]


def examine(
    settings: Settings, database: Database, clock: Clock, *, serves: bool = False
) -> Iterator[Finding]:
    """All findings; a vendor that `serves` has its own ports. What raises is bad."""
    url = whole_url(settings.database_url)
    for each in _found(settings, database, clock, serves=serves):
        yield each.model_copy(update={"next": each.next and addressed(each.next, url)})


def _found(settings: Settings, database: Database, clock: Clock, *, serves: bool) -> Iterator[Finding]:
    checks = [*_CHECKS, *([] if serves else [_ports])]
    if not _has_books(database):
        advice = "make them: `vendor db upgrade`, or `vendor serve`"
        yield _bad("books", f"there are none in {database.file or database.shown}", advice)
        checks = [each for each in checks if each not in _OF_BOOKS]
    for each in checks:
        try:
            yield from each(settings, database, clock)
        except (APIError, OperatorError, OSError) as error:
            yield _bad(each.__name__.strip("_"), str(error), None)


def _has_books(database: Database) -> bool:
    try:
        return (database.file is None or database.file.exists()) and schema.current(database) is not None
    except OperatorError:
        return False


def _settings(settings: Settings, _: Database, __: Clock) -> Iterator[Finding]:
    if unknown := Settings.unknown():
        yield _look("settings", f"no settings: {', '.join(unknown)}", "correct their names, or remove them")
    else:
        yield _good("settings", "all VENDOR_ variables are settings")
    if settings.trust_clock:
        yield _look("settings", "VENDOR_TRUST_CLOCK is set", "remove it once the clock is right")


def _books(_: Settings, database: Database, __: Clock) -> Iterator[Finding]:
    schema.check(database)
    kind = "SQLite" if database.embedded else "PostgreSQL"
    yield _good("books", f"{kind}, with this version's tables, in {database.file or database.shown}")


def _clock(settings: Settings, database: Database, clock: Clock) -> Iterator[Finding]:
    with database.read() as session:
        fault = against_database(session, clock(), trust_clock=settings.trust_clock)
    yield _good("clock", "nothing speaks against it") if fault is None else _bad("clock", fault, None)


def _disk(settings: Settings, database: Database, _: Clock) -> Iterator[Finding]:
    files = [database.file, settings.billing_log]
    folders = {file.absolute().parent for file in files if file is not None}
    if settings.batch_store is not None and "://" not in settings.batch_store:
        folders.add(Path(settings.batch_store).absolute())
    for folder in sorted(folders):
        while not folder.exists():
            folder = folder.parent
        free = shutil.disk_usage(folder).free
        told = f"{free / _GIB:.1f} GiB are free in {folder}"
        if free < _LEAST_BYTES:
            yield _bad("disk", told, "make room: what is sold is written there first")
        else:
            yield _look("disk", told, "make room in time") if free < _FEW_BYTES else _good("disk", told)


def _modes(settings: Settings, database: Database, _: Clock) -> Iterator[Finding]:
    beside = [] if database.file is None else [*database.file.parent.glob(f"{database.file.stem}.*")]
    files = [*beside, signing.default_file(database, settings.keys_in), settings.billing_log]
    if settings.batch_store is not None and "://" not in settings.batch_store:
        files.append(Path(settings.batch_store))
    there = {file for file in files if file is not None and file.exists()}
    open_ones = sorted(file for file in there if stat.S_IMODE(file.stat().st_mode) & 0o077)
    for file in open_ones:
        yield _look("file modes", f"others can read {file}", f"chmod go= {file}")
    if there and not open_ones:
        yield _good("file modes", "books, keys and logs are for their owner alone")


def _store(settings: Settings, _: Database, __: Clock) -> Iterator[Finding]:
    if settings.batch_store is not None:
        store = Store(settings.batch_store)
        try:
            store.check()
        finally:
            store.close()
        yield _good("store of bulk jobs", f"can be written: {settings.batch_store}")


def _models(settings: Settings, _: Database, __: Clock) -> Iterator[Finding]:
    from vendor_service.run.model_specs import find_specs

    named = ", ".join(each.id for each in find_specs(settings))
    yield _good("models", f"can be found: {named}")


def _ports(settings: Settings, _: Database, __: Clock) -> Iterator[Finding]:
    wanted = [(settings.host, settings.port, "--port")]
    if settings.admin_port is not None:
        wanted.append((settings.admin_host, settings.admin_port, "--admin-port"))
    for host, port, option in wanted:
        try:
            server.bind(host, port).close()
        except server.CannotServe as error:
            if _answers(host, port):
                yield _look(
                    "port", f"somebody answers on {host}:{port}", f"this vendor? Else: another {option}"
                )
            else:
                yield _bad("port", str(error), f"choose another {option}")
        else:
            yield _good("port", f"{host}:{port} is free")


def _answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1" if host == "0.0.0.0" else host, port), timeout=1):  # noqa: S104
            return True
    except OSError:
        return False


def _proxy(settings: Settings, _: Database, __: Clock) -> Iterator[Finding]:
    url = settings.public_url
    if url is None:
        advice = "set VENDOR_PUBLIC_URL and VENDOR_NAME: receipts then name who sold"
        yield _look("public address", "nobody has said at which URL customers ask", advice)
    elif url.startswith("http://") and not url.removeprefix("http://").startswith(_LOOPBACK):
        yield _look(
            "public address", f"{url} has no TLS", "put a proxy with TLS in front; see Running a vendor"
        )
    else:
        yield _good("public address", url)
    if not settings.host.startswith(_LOOPBACK):
        advice = "listen on 127.0.0.1 behind a proxy with TLS, or let a firewall close the port"
        yield _look("proxy", f"the port is open on {settings.host}, without TLS", advice)
        if settings.plain_metrics_token is None:
            yield _look("metrics", "everybody can read /metrics", "set VENDOR_METRICS_TOKEN")


def _accounts(_: Settings, database: Database, __: Clock) -> Iterator[Finding]:
    with database.read() as session:
        limits = (Account.quota, Account.spend_limit_micros, Account.credit_micros)
        unbounded = select(Account.name).where(
            Account.status == "active", *(each.is_(None) for each in limits)
        )
        names = list(session.scalars(unbounded.order_by(Account.name)))
        yield from _money(session)
    if names:
        told = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} others" if names[_SHOWN:] else "")
        advice = f"`vendor accounts set {names[0]} --quota QUERIES`"
        yield _look("limits", f"accounts that may buy without a limit: {told}", advice)
    else:
        yield _good("limits", "every active account has a quota, a spend limit or prepaid credit")


def _money(session: Session) -> Iterator[Finding]:
    unit = currency.current(session)
    if unit is None:
        yield _look("currency", "nobody has named it, and invoices have none", "`vendor currency EUR`")
    else:
        yield _good("currency", unit)


def _operators(settings: Settings, database: Database, _: Clock) -> Iterator[Finding]:
    if settings.admin_port is None:
        return
    with database.read() as session:
        if (
            session.scalar(select(OperatorToken.id).where(OperatorToken.revoked_at.is_(None)).limit(1))
            is None
        ):
            advice = "`vendor operators create NAME`"
            yield _look("operators", "there is an operators' API, and nobody has a token of it", advice)


def _receipts_key(settings: Settings, database: Database, _: Clock) -> Iterator[Finding]:
    file = signing.default_file(database, settings.keys_in)
    if not file.exists():
        yield _look("key of receipts", f"{file} is made by the first start", "keep a copy of it then")
        return
    kid = signing.read_key(file).public.kid
    with database.read() as session:
        row = session.get(SigningKeyRow, kid)
    if row is not None and row.withdrawn_at is not None:
        advice = "`vendor receipts-key rotate`"
        yield _bad("key of receipts", f"{kid} was withdrawn, and nobody believes what it signs", advice)
    else:
        yield _good("key of receipts", f"{kid}, in {file}")


def _good(check: str, found: str) -> Finding:
    return Finding(check=check, state="good", found=found)


def _look(check: str, found: str, advice: str) -> Finding:
    return Finding(check=check, state="look", found=found, next=advice)


def _bad(check: str, found: str, advice: str | None) -> Finding:
    return Finding(check=check, state="bad", found=found, next=advice)


_OF_BOOKS: tuple[Check, ...] = (_books, _clock, _accounts, _operators, _receipts_key)
_CHECKS: tuple[Check, ...] = (_settings, *_OF_BOOKS, _disk, _modes, _store, _models, _proxy)
