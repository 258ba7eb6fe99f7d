"""Containment of a key that somebody else may have: one act that ends what it does, and tells what it did."""

import json
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel
from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from vendor_service.accounts.keys import revoke_key
from vendor_service.acts import keys, sessions
from vendor_service.acts.act import Act, OperatorScope
from vendor_service.acts.declaration import Own, act, preview
from vendor_service.acts.names import KeyId
from vendor_service.audit import actors
from vendor_service.batches import book
from vendor_service.clock import to_datetime
from vendor_service.database.tables import Account, ApiKey, AuditEntry, BatchJob, WebhookEndpoint
from vendor_service.database.view import View
from vendor_service.money.standing import why_ended
from vendor_service.money.usage import usage_report
from vendor_service.terms import Term, Unit, money

# The acts by which a key gets hold of a secret, of a key or of a receiver; they are in the audit log.
_KEYS = ("key.create", "key.rotate", "key.contain")
_RECEIVERS = ("webhook.create", "webhook.rotate")
_MOST_LISTED = 1000
_MOST_READ = 10_000  # of such acts on all keys of an account
Row = TypeVar("Row", ApiKey, WebhookEndpoint)


class Made(BaseModel):
    """A key or a receiver that a key made or gave another secret, or a bulk job that it began.

    `act` says which, `by` is the key that did it, and `label` is the key's label, the receiver's URL or the
    job's model. `state` is `in use`, why a key ended, `disabled`, or the job's status.
    """

    kind: Literal["key", "receiver", "job"]
    id: str
    act: str
    by: str
    at: datetime
    label: str
    state: str


class Contained(BaseModel):
    """A key that was contained: its new secret, what ended with that, and what it did since a moment.

    There is no `api_key` if the key has ended. `made` has also what was made by keys that it made. It bought
    `queries` for `cost_micros`.
    """

    account: str
    key_id: str
    api_key: str | None
    jobs_stopped: list[str]
    sessions_ended: int
    since: datetime
    queries: int
    cost_micros: int
    made: list[Made]


def _told(done: Contained) -> str:
    stopped, since = len(done.jobs_stopped), f"{done.since:%Y-%m-%d %H:%M} UTC"
    lines = [
        f"Bulk jobs stopped: {stopped}; sessions ended: {done.sessions_ended}.",
        f"Since {since} it bought {done.queries:,} queries for {money(done.cost_micros)}.",
    ]
    if not done.made:
        return "\n".join([*lines, "It made no key, receiver or job since then."])
    lines.append("It made, or got the secret of (contain each key that you do not know):")
    for each in done.made:
        named = f" ({each.label})" if each.label else ""
        lines.append(
            f"{each.kind} {each.id}{named}: {each.act} by {each.by}, {each.at:%Y-%m-%d %H:%M}, {each.state}"
        )
    return "\n".join(lines)


@act(
    "key.contain",
    command="keys contain",
    route="POST /keys/{key_id}/contain",
    own=Own(route="POST /v1/keys/{key_id}/contain", form="/keys/{key_id}/contain", history=True),
    scope=OperatorScope.ACCOUNTS,
    title="Contain the key",
    done="The key {key_id} is contained.",
    of=keys.any_by_id,
    state=lambda key: [key.secret_hash, key.revoked_at],
    applies=lambda key: key.revoked_at is None,
    reveals="api_key",
    hint=_told,
    dangerous=True,
    word="key_id",
)
def contain(
    act: Act,
    key_id: KeyId,
    revoke: Annotated[
        bool,
        Term(
            "End the key for good, rather than give it another secret.",
            label="End it for good",
            typed="--revoke",
            in_query=True,
        ),
    ] = False,
    since: Annotated[
        int | None,
        Term(
            "Tell what it made and bought since this moment, UTC.",
            label="Show what it did since (UTC)",
            typed="--since",
            unit=Unit.MOMENT,
            none="it was made",
            in_query=True,
        ),
    ] = None,
) -> Contained:
    """Take a key from whoever else has its secret, and tell what they did with it.

    In one step it gets another secret, without grace, or is revoked; its bulk jobs stop, and their finished
    lines stay charged and can be downloaded; and who signed in to the console with it is signed out. The
    answer lists the keys and receivers that it made or got the secret of, its jobs, and what it bought.
    A key that has ended gets no other secret.

    Example: vendor keys contain 0f3c7a91d2b45e68 --since 2031-06-30
    """
    key = keys.any_by_id(act, key_id, lock=True)
    owner, revoked_before = act.session.get_one(Account, key.account_id), key.revoked_at
    stopped = book.stop_all(act.session, owner.id, act.keep_micros, act.now, key_id=key_id)
    secret = None
    if revoke:
        revoke_key(act.session, key_id, act.clock)
    elif not why_ended(key, act.now):
        secret = keys.renew(act, key, 0)[1].api_key
    ended = sessions.end_all(act.session, key_id=key_id)
    begin = key.created_at if since is None else since
    used = _bought(act.session, owner, key_id, begin, act.now)
    done = Contained(
        account=owner.name,
        key_id=key_id,
        api_key=secret,
        jobs_stopped=stopped,
        sessions_ended=len(ended),
        since=to_datetime(begin),
        queries=used[0],
        cost_micros=used[1],
        made=_made(act.session, owner, key_id, begin, act.now),
    )
    facts = {"revoked_at": key.revoked_at, "jobs_stopped": stopped, "sessions_ended": len(ended)}
    # Whatever a customer asks, the log grows only with secrets, keys, jobs and sessions, which are counted.
    if secret is not None or key.revoked_at != revoked_before or stopped or ended:
        act.record(owner.name, None, {"key_id": key_id, **facts})
    return done


@preview(contain)
def _of_contain(act: Act, key_id: str, revoke: bool = False, since: int | None = None) -> Iterator[str]:
    key = keys.any_by_id(act, key_id)
    if why_ended(key, act.now):
        yield f"The key {key_id} has ended already ({why_ended(key, act.now)}), and gets no new secret."
    elif revoke:
        yield f"The key {key_id} ends at once and for good; nobody can bring it back."
    else:
        if act.customer is not None:
            keys.check_may_rotate(act, act.customer, key)
        yield f"The key {key_id} gets a new secret, which is shown once; the present one ends at once."
    yield "Its bulk jobs stop: finished lines stay charged and can be downloaded, the rest is released."
    yield "Anybody who signed in to the console with it is signed out."
    yield "You are shown the keys and receivers that it made, its jobs, and what it bought."
    if act.customer is not None and act.customer.key is not None and act.customer.key.id == key_id:
        yield "You signed in with this key: you will be signed out."


def _bought(session: Session, owner: Account, key_id: str, since: int, now: int) -> tuple[int, int]:
    """The queries that a key bought since a moment, and what they cost."""
    until = max(now, owner.ledger_at) + 1
    rows = usage_report(session, View.whole(owner.id), "key", min(since, until), until).rows
    row = next((each for each in rows if each.group == key_id), None)
    return (0, 0) if row is None else (row.billed_queries, row.cost_micros)


def _made(session: Session, owner: Account, key_id: str, since: int, now: int) -> list[Made]:
    """The keys and receivers whose secrets a key got since a moment, or a key that it got; and their jobs.

    They are the newest of each kind, the oldest first.
    """
    got = [
        (entry.actor.partition(":")[2], json.loads(entry.after or "{}")["key_id"], entry)
        for entry in _entries(session, _KEYS, since, _MOST_READ, AuditEntry.subject == owner.name)
        if entry.actor.startswith(actors.customer_key(""))
    ]
    makers, left = {key_id}, {key_id}
    while left:
        left = {made for by, made, _ in got if by in left} - makers
        makers |= left
    secrets = [(made, entry) for by, made, entry in got if by in makers and made != by][-_MOST_LISTED:]
    by = AuditEntry.actor.in_([actors.customer_key(each) for each in makers])
    hooks = [(entry.subject, entry) for entry in _entries(session, _RECEIVERS, since, _MOST_LISTED, by)]
    keys_got = {each.id: each for each in _rows(session, ApiKey, [made for made, _ in secrets])}
    hooks_got = {each.id: each for each in _rows(session, WebhookEndpoint, [made for made, _ in hooks])}
    found = [
        _of_entry("key", made, entry, keys_got[made].label, why_ended(keys_got[made], now))
        for made, entry in secrets
    ]
    for made, entry in hooks:
        receiver = hooks_got[made]
        state = "" if receiver.disabled_at is None else "disabled"
        found.append(_of_entry("receiver", made, entry, receiver.url, state))
    mine = (BatchJob.account_id == owner.id, BatchJob.created_at >= since, BatchJob.key_id.in_(makers))
    for job in session.scalars(
        select(BatchJob).where(*mine).order_by(BatchJob.created_at.desc()).limit(_MOST_LISTED)
    ):
        at = to_datetime(job.created_at)
        found.append(
            Made(kind="job", id=job.id, act="begun", by=job.key_id, at=at, label=job.model, state=job.state)
        )
    return sorted(found, key=lambda each: each.at)


def _entries(
    session: Session, acts: Collection[str], since: int, most: int, whose: ColumnElement[bool]
) -> list[AuditEntry]:
    """The newest entries of the log about these acts, the oldest first."""
    found = select(AuditEntry).where(whose, AuditEntry.action.in_(acts), AuditEntry.created_at >= since)
    return list(session.scalars(found.order_by(AuditEntry.seq.desc()).limit(most)))[::-1]


def _rows(session: Session, table: type[Row], ids: Collection[str]) -> Sequence[Row]:
    return session.scalars(select(table).where(table.id.in_(ids))).all()


def _of_entry(kind: Literal["key", "receiver"], made: str, entry: AuditEntry, label: str, state: str) -> Made:
    return Made(
        kind=kind,
        id=made,
        act=entry.action,
        by=entry.actor.partition(":")[2],
        at=to_datetime(entry.created_at),
        label=label,
        state=state or "in use",
    )
