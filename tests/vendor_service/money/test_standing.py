"""Who may still ask: the same by rows that were read and by the database, for all that can end."""

from itertools import product

from sqlalchemy import insert, select

from tests.vendor_service.batches.bulk_books import BulkProcess
from tests.vendor_service.books import Books
from vendor_service.database.tables import Account, ApiKey, BatchJob, Project
from vendor_service.errors import APIError
from vendor_service.money import standing


def test_the_database_finds_those_who_may_ask_that_are_not_refused(books: Books) -> None:
    """Every state of account, key, project and secret, each as a job of its own."""
    accounts = [books.open(), books.open()]
    batch = BulkProcess(books.database, books.clock, books.admission).begin(accounts[0], (1, 0))
    now = books.clock()
    with books.database.write() as session:
        session.get_one(Account, accounts[1].account_id).status = "suspended"
        template = session.get_one(BatchJob, batch.id)
        columns = {each.key: getattr(template, each.key) for each in BatchJob.__table__.columns}
        for order in accounts:
            for name, archived in (("open", None), ("archived", now - 1)):
                found = {"id": f"{name}-{order.account_id}"[:32], "account_id": order.account_id}
                found |= {"name": name}
                session.execute(insert(Project), [found | {"created_at": 0, "archived_at": archived}])
        states = product(
            accounts, (None, now - 1, now + 1), (None, now, now + 1), (None, "open", "archived"),
            (None, now, now + 1), ("present", "former", "other", None),
        )  # fmt: skip
        keys, jobs = list[dict[str, object]](), list[dict[str, object]]()
        for number, (order, revoked, expires, project, until, secret) in enumerate(states):
            key: dict[str, object] = {
                "id": f"key-{number}",
                "account_id": order.account_id,
                "label": "",
                "created_at": 0,
            }
            key |= {"revoked_at": revoked, "expires_at": expires, "secret_hash": "present"}
            key |= {"former_hash": until and "former", "former_until": until}
            key |= {"project_id": project and f"{project}-{order.account_id}"[:32]}
            job = {"id": f"job-{number}", "key_id": key["id"], "account_id": order.account_id}
            keys.append(key)
            jobs.append(columns | job | {"secret_hash": secret})
        session.execute(insert(ApiKey), keys)
        session.execute(insert(BatchJob), jobs)
    both = select(BatchJob, Account, ApiKey).join(Account, Account.id == BatchJob.account_id)
    both = both.join(ApiKey, ApiKey.id == BatchJob.key_id).where(BatchJob.id.startswith("job-"))
    with books.database.read() as session:
        rows = session.execute(both).all()
        may = set(session.scalars(both.with_only_columns(BatchJob.id).where(
            standing.may_ask(BatchJob.secret_hash, now)
        )))  # fmt: skip
        may_not = set(session.scalars(both.with_only_columns(BatchJob.id).where(
            ~standing.may_ask(BatchJob.secret_hash, now)
        )))  # fmt: skip
    admitted = {job.id for job, account, key in rows if _is_admitted(account, key, job.secret_hash, now)}
    assert len(rows) == 648
    assert 0 < len(admitted) < len(rows)
    assert (may, may_not) == (admitted, {job.id for job, _, _ in rows} - admitted)


def _is_admitted(account: Account, key: ApiKey, secret_hash: str | None, now: int) -> bool:
    try:
        standing.check(account, key, secret_hash, now)
    except APIError:
        return False
    return True
