"""Keys: issued, limited, rotated and revoked by operators, and by customers as far as they are their own.

The audit log names a key by its id, among what was done to its account.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Annotated

from sqlalchemy import Select, func, select, tuple_
from sqlalchemy.orm import Session

from shared.errors import ErrorCode
from shared.keys import KeyInfo, KeyList, NewSecret
from shared.projects import DEFAULT_PROJECT
from vendor_service.accounts import accounts, keys
from vendor_service.accounts.accounts import lock_account
from vendor_service.accounts.keys import OWN_LIMITS, KeyTerms
from vendor_service.acts.act import Act, Customer, OperatorScope
from vendor_service.acts.declaration import Changes, Own, act, changes_of, facts_of, preview, query
from vendor_service.acts.names import AccountName, GraceSeconds, KeyId, ends_a_secret
from vendor_service.clock import DAY
from vendor_service.database.tables import Account, ApiKey, WebhookEvent
from vendor_service.database.view import DEFAULT_ID, View
from vendor_service.errors import APIError, OperatorError, UnknownName, UsageError, WrongClock
from vendor_service.money.standing import check_key, has_ended
from vendor_service.terms import Term
from vendor_service.webhooks import events
from vendor_service.webhooks.events import EventKind

NO_LIMIT = "only the account's limit"
# In a project, customers' own requests make no more keys than this, and make and rotate so many in a day;
# operators may.
_MOST_KEYS = 1000
_MOST_A_DAY = 1000


def by_id(act: Act, key_id: str, *, lock: bool = False) -> ApiKey:
    """The key that an act is about; a customer's is in their view, and was not revoked.

    Raises:
        UnknownName: an operator names one that is not there.
        APIError: `not_found` or `key_revoked`; it is not in a customer's view, or was revoked.
    """
    key = any_by_id(act, key_id, lock=lock)
    if act.customer is not None and key.revoked_at is not None:
        raise APIError(ErrorCode.KEY_REVOKED, f"the key {key_id} was revoked already", param="key_id")
    return key


def any_by_id(act: Act, key_id: str, *, lock: bool = False) -> ApiKey:
    """The same key, also one that was revoked.

    To change a key, whoever does, its account is locked and then the key, as by what charges to it: so
    changes of one key come one after another, and none waits in a circle with a charge.
    """
    if act.customer is None:
        key = keys.find_key(act.session, key_id)
    else:
        key = _own(act.session, act.customer.view, key_id)
    if not lock:
        return key
    lock_account(act.session, key.account_id)
    return keys.find_key(act.session, key_id, lock=True)


@act(
    "key.create",
    command="keys create",
    route="POST /accounts/{account}/keys",
    status=201,
    own=Own(route="POST /v1/keys", form="/keys/create", asks=False),
    scope=OperatorScope.ACCOUNTS,
    title="Make a key",
    done="{account} has a new key.",
    none=NO_LIMIT,
    reveals="api_key",
)
def issue(act: Act, account: AccountName, terms: KeyTerms) -> NewSecret:
    """Issue a key to an account; its secret is shown this once.

    A customer's key that has limits or an end of its own issues none.

    Example: vendor keys create acme --label laptop --quota 1000 --expires 2031-06-30
    """
    if act.customer is not None:
        return _issue_own(act, act.customer, terms)
    return _issue(act, account, terms)


def _issue(act: Act, account: str, terms: KeyTerms) -> NewSecret:
    owner = accounts.find_account(act.session, account)
    act.believe_clock()
    issued = keys.issue_key(act.session, owner, terms, act.clock)
    facts = {
        "key_id": issued.key_id,
        "label": terms.label,
        "scopes": sorted(terms.scopes),
        "quota": terms.quota,
        "spend_limit_micros": terms.spend_limit_micros,
    }
    later = ("queries_per_second", "concurrency", "expires_at", "project")
    facts |= {name: value for name in later if (value := getattr(terms, name)) not in (None, DEFAULT_PROJECT)}
    act.record(account, None, facts)
    return issued


def _issue_own(act: Act, customer: Customer, terms: KeyTerms) -> NewSecret:
    """Issue a key as its customer may.

    Raises:
        APIError: `insufficient_scope`; the asking key has limits, or belongs to another project.
            `conflict`; the project has too many keys, or got too many in a day. `invalid_request`; what
            `keys.issue_key` refuses. `not_ready`; the vendor's clock cannot be right.
    """
    lock_account(act.session, customer.account_id)  # nobody counts beside this
    by = customer.key
    if by is not None and is_limited(by):
        message = "this key has limits or an end of its own, which another key would not have: it issues none"
        raise APIError(ErrorCode.INSUFFICIENT_SCOPE, message)
    own_project = None if by is None or by.project is None else by.project.name
    project = terms.project or own_project
    if own_project not in (None, project):
        message = f"this key belongs to the project {own_project}, and issues keys of that one alone"
        raise APIError(ErrorCode.INSUFFICIENT_SCOPE, message, param="project")
    try:
        issued = _issue(act, customer.name, replace(terms, project=project))
    except UnknownName as error:
        message = f"this account has no project {project!r}"
        raise APIError(ErrorCode.INVALID_REQUEST, message, param="project") from error
    except WrongClock as error:
        raise _not_ready() from error
    except OperatorError as error:
        raise APIError(ErrorCode.INVALID_REQUEST, str(error)) from error
    _check_room(act, customer.account_id, issued.key_id)
    return issued


@preview(issue)
def _of_issue(act: Act, account: str, terms: KeyTerms) -> Iterator[str]:
    owner = accounts.find_account(act.session, account)
    project = terms.project or DEFAULT_PROJECT
    may = ", ".join(sorted(terms.scopes))
    yield f"{owner.name} gets a key of the project {project} that may: {may}."
    given = {name: value for name in OWN_LIMITS if (value := getattr(terms, name)) is not None}
    yield from facts_of(KeyTerms, given) or ["Only the account's limits apply to it."]
    yield "Its secret is shown once."


@act(
    "key.rotate",
    command="keys rotate",
    route="POST /keys/{key_id}/rotate",
    own=Own(route="POST /v1/keys/{key_id}/rotate", form="/keys/{key_id}/rotate"),
    scope=OperatorScope.ACCOUNTS,
    title="Rotate the key",
    done="The key {key_id} has a new secret.",
    of=by_id,
    state=lambda key: key.secret_hash,
    applies=lambda key: key.revoked_at is None,
    asks_if=ends_a_secret,
    word="key_id",
    reveals="api_key",
)
def rotate(act: Act, key_id: KeyId, grace_seconds: GraceSeconds = 0) -> NewSecret:
    """Give a key another secret, shown this once. Its limits, and what it used of them, stay.

    The present secret is good for the grace more, and bulk jobs that were begun with it run no longer. If
    somebody else has it, contain the key instead. A customer's key that has limits or an end of its own
    rotates itself alone, and one that expired or whose project was archived gets no other secret.

    Example: vendor keys rotate 0f3c7a91d2b45e68 --grace 86400
    """
    key = by_id(act, key_id, lock=True)
    before = _rotation(key)
    try:
        act.believe_clock()
    except WrongClock as error:
        if act.customer is not None:
            raise _not_ready() from error
        raise
    owner, issued = renew(act, key, grace_seconds)
    act.record(owner.name, before, _rotation(key))
    return issued


def renew(act: Act, key: ApiKey, grace_seconds: int) -> tuple[Account, NewSecret]:
    """Give a locked key another secret if it may have one, and tell receivers; its account and the secret."""
    if act.customer is not None:
        check_may_rotate(act, act.customer, key)
        _check_rotations(act, key)
    owner = act.session.get_one(Account, key.account_id)
    issued = keys.rotate_key(act.session, key.id, grace_seconds, act.clock)
    told = {"key_id": key.id, "label": key.label, "former_until": key.former_until}
    events.emit(act.session, EventKind.KEY_ROTATED, owner, told, act.now, key.project_id)
    return owner, issued


@preview(rotate)
def _of_rotate(act: Act, key_id: str, grace_seconds: int = 0) -> Iterator[str]:
    key = by_id(act, key_id)
    if act.customer is not None:
        check_may_rotate(act, act.customer, key)
    until = f"in {grace_seconds:,} seconds" if grace_seconds else "at once"
    yield f"The key {_named(key)} gets a new secret, which is shown once."
    yield f"The present secret stops working {until}, and so do programs and bulk jobs that use it."
    yield "Its limits, its scopes and what it used of them stay."
    yield "If somebody else has the present secret, contain the key instead: that tells what they did."
    if (key.former_until or 0) > act.now:
        yield "The secret that it had before the present one stops working at once."


@act(
    "key.set",
    command="keys set",
    route="PATCH /keys/{key_id}",
    scope=OperatorScope.ACCOUNTS,
    title="Change the limits of the key",
    done="The limits of the key {key_id} were changed.",
    none=NO_LIMIT,
    of=by_id,
    state=lambda key: [getattr(key, name) for name in OWN_LIMITS],
    applies=lambda key: key.revoked_at is None,
)
def set_limits(
    act: Act,
    key_id: KeyId,
    limits: Annotated[Mapping[str, int | None], Changes(KeyTerms, omit=("label", "scopes", "project"))],
) -> KeyInfo:
    """Let other limits of a key, or another end, hold from now on: those that are named, all or none.

    What was used of the former limits counts. `none` takes a limit away.

    Example: vendor keys set 0f3c7a91d2b45e68 --quota 2000 --expires none
    """
    if not limits:
        raise UsageError("name at least one field that is to change")
    key = by_id(act, key_id, lock=True)
    owner = act.session.get_one(Account, key.account_id)
    with act.changing(owner, key, OWN_LIMITS, {"key_id": key_id}):
        keys.change_limits(key, limits, act.now)
    return keys.public(key, owner, act.now)


@preview(set_limits)
def _of_set_limits(act: Act, key_id: str, limits: Mapping[str, int | None]) -> Iterator[str]:
    facts = changes_of(KeyTerms, by_id(act, key_id), limits, NO_LIMIT)
    if not facts:
        raise UsageError("nothing would change; write another number first")
    yield from facts
    yield "What was used of the former limits counts. The new limits apply at once."


@act(
    "key.revoke",
    command="keys revoke",
    route="POST /keys/{key_id}/revoke",
    own=Own(route="POST /v1/keys/{key_id}/revoke", form="/keys/{key_id}/revoke"),
    scope=OperatorScope.ACCOUNTS,
    title="Revoke the key",
    done="The key {key_id} was revoked.",
    of=by_id,
    applies=lambda key: key.revoked_at is None,
    dangerous=True,
)
def revoke(act: Act, key_id: KeyId) -> KeyInfo:
    """End a key at once and for good, with its bulk jobs. If somebody else has it, contain it instead.

    Example: vendor keys revoke 0f3c7a91d2b45e68
    """
    key = by_id(act, key_id, lock=True)
    owner, before = act.session.get_one(Account, key.account_id), key.revoked_at
    keys.revoke_key(act.session, key_id, act.clock)
    if before is None:
        act.record(owner.name, *({"key_id": key_id, "revoked_at": each} for each in (None, key.revoked_at)))
    return keys.public(key, owner, act.now)


@preview(revoke)
def _of_revoke(act: Act, key_id: str) -> Iterator[str]:
    key = by_id(act, key_id)
    if key.revoked_at is not None:
        return
    owner = act.session.get_one(Account, key.account_id)
    yield f"The key {_named(key)} of {owner.name} ends at once and for good; nobody can bring it back."
    yield "Every program that uses it is refused from then on, and its bulk jobs end."
    yield "What was bought with it stays in the ledger."
    if act.customer is not None and act.customer.key is not None and act.customer.key.id == key_id:
        yield "You signed in with this key: you will be signed out."


@query(
    command="keys list",
    route="GET /accounts/{account}/keys",
    command_limit=1000,
    own=Own(route="GET /v1/keys", most=100),
)
def list_keys(
    act: Act,
    account: AccountName,
    after: Annotated[
        str | None,
        Term("Only keys newer than this one, named by its id.", typed="--after", id_of=keys.id_of),
    ] = None,
    limit: Annotated[int, Term("How many keys to list.", typed="--limit", least=1, most=1000)] = 100,
) -> KeyList:
    """List an account's keys, the oldest first, without their secrets.

    When a key was last used is some seconds late.

    Example: vendor keys list acme
    """
    owner = accounts.find_account(act.session, account)
    found, more = page(act.session, act.view(owner), after, limit)
    return KeyList(data=[keys.public(key, owner, act.now) for key in found], has_more=more)


def is_limited(key: ApiKey) -> bool:
    """Whether a key has limits or an end of its own, past which no other key may help it."""
    return any(getattr(key, name) is not None for name in OWN_LIMITS)


def newest(
    session: Session, view: View, before: str | None, limit: int, *, now: int, ended: bool
) -> tuple[list[ApiKey], bool]:
    """Keys in view that are good or have `ended`; and whether there are more.

    They are up to `limit` of those older than the key `before`, the newest first.

    Raises:
        APIError: `not_found`; there is no key `before` in view.
    """
    over = has_ended(now)
    found = select(ApiKey).where(view.rows(ApiKey), over if ended else ~over)
    if before is not None:
        last = _own(session, view, before)
        found = found.where(tuple_(ApiKey.created_at, ApiKey.id) < tuple_(last.created_at, last.id))
    return _some(session, found.order_by(ApiKey.created_at.desc(), ApiKey.id.desc()), limit)


def page(session: Session, view: View, after: str | None, limit: int) -> tuple[list[ApiKey], bool]:
    """Up to `limit` keys in view behind `after`, the oldest first; and whether there are more.

    Raises:
        APIError: `not_found`; there is no key `after` in view.
    """
    order = (ApiKey.created_at, ApiKey.id)
    found = select(ApiKey).where(view.rows(ApiKey))
    if after is not None:
        last = _own(session, view, after)
        found = found.where(tuple_(*order) > tuple_(last.created_at, last.id))
    return _some(session, found.order_by(*order), limit)


def _some(session: Session, found: Select[ApiKey], limit: int) -> tuple[list[ApiKey], bool]:
    listed = session.scalars(found.limit(limit + 1)).all()
    return list(listed[:limit]), len(listed) > limit


def _own(session: Session, view: View, key_id: str) -> ApiKey:
    key = session.get(ApiKey, key_id)
    if key is None or not view.has(key):
        raise APIError(ErrorCode.NOT_FOUND, f"this account has no key {key_id!r}", param="key_id")
    return key


def check_may_rotate(act: Act, customer: Customer, key: ApiKey) -> None:
    """Make sure that a key is good for another secret, which the customer is shown.

    Raises:
        APIError: `key_revoked`, `key_expired` or `project_archived`; or `insufficient_scope`, the asking key
            has limits or an end of its own, and is another one.
    """
    try:
        check_key(key, act.now)
    except APIError as error:
        message = f"the key {key.id} gets no other secret: {error.message}"
        raise APIError(error.code, message, param="key_id") from error
    by = customer.key
    if by is not None and by.id != key.id and is_limited(by):
        message = "this key has limits or an end of its own, so it rotates itself alone"
        raise APIError(ErrorCode.INSUFFICIENT_SCOPE, message)


def _check_rotations(act: Act, key: ApiKey) -> None:
    """Raises an `APIError`, `conflict`, where keys of this key's project were rotated too often in a day.

    The account is locked: nobody counts beside this.
    """
    rotated = select(func.count()).where(
        WebhookEvent.account_id == key.account_id,
        WebhookEvent.project_id == (key.project_id or DEFAULT_ID),
        WebhookEvent.kind == EventKind.KEY_ROTATED,
        WebhookEvent.created_at > act.now - DAY,
    )
    if (act.session.scalar(rotated) or 0) >= _MOST_A_DAY:  # what is logged of each stays for good
        message = f"keys of this project were rotated {_MOST_A_DAY} times in 24 hours; try again tomorrow"
        raise APIError(ErrorCode.CONFLICT, message)


def _check_room(act: Act, account_id: str, made: str) -> None:
    """Raises an `APIError`, `conflict`, where a key that was made is one too many of its project."""
    project_id = act.session.scalar(select(ApiKey.project_id).where(ApiKey.id == made))
    beside = View(account_id, project_id or DEFAULT_ID).rows(ApiKey)
    live = func.count().filter(ApiKey.revoked_at.is_(None))
    today = func.count().filter(ApiKey.created_at > act.now - DAY)
    counted = act.session.execute(select(live, today).where(beside)).one()
    if counted[0] > _MOST_KEYS:
        message = f"this project has {_MOST_KEYS} keys; revoke one that is not used"
        raise APIError(ErrorCode.CONFLICT, message)
    if counted[1] > _MOST_A_DAY:  # rows of revoked keys stay for good
        message = (
            f"this project got {_MOST_A_DAY} keys in 24 hours, revoked ones included; try again tomorrow"
        )
        raise APIError(ErrorCode.CONFLICT, message)


def _not_ready() -> APIError:
    message = "the vendor's clock is wrong, so no key can be issued or rotated now; try again later"
    return APIError(ErrorCode.NOT_READY, message, retry_after=30)


def _named(key: ApiKey) -> str:
    return f"{key.id} ({key.label})" if key.label else key.id


def _rotation(key: ApiKey) -> dict[str, str | int | None]:
    return {"key_id": key.id, "former_until": key.former_until}
