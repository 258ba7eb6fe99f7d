"""The keys that customers issue and manage themselves: of their account, or of the project of their key."""

from dataclasses import replace

from sqlalchemy import ColumnElement, Select, and_, func, not_, or_, select, true, tuple_
from sqlalchemy.orm import Session

from shared.errors import ErrorCode
from shared.projects import DEFAULT_PROJECT
from vendor_service.accounts import keys
from vendor_service.accounts.accounts import find_account
from vendor_service.accounts.keys import IssuedKey, KeyTerms
from vendor_service.acts import keys as acts
from vendor_service.acts.act import Act
from vendor_service.clock import DAY
from vendor_service.database.tables import Account, ApiKey, Project, WebhookEvent
from vendor_service.errors import APIError, OperatorError, UnknownName, WrongClock
from vendor_service.money.limits import check_key
from vendor_service.webhooks.events import EventKind

# A customer's own requests make no more than this, and make and rotate so many in a day; operators may.
_MOST_KEYS = 1000
_MOST_A_DAY = 1000


def may_manage(account_id: str, by: ApiKey | None, key: ApiKey) -> bool:
    """Whether who asks by a key of an account, or with `None` by an invitation, may manage another key.

    A key of the default project may manage all keys of its account, another one those of its project.
    """
    return key.account_id == account_id and (by is None or by.project_id in (None, key.project_id))


def managed(account_id: str, by: ApiKey | None) -> ColumnElement[bool]:
    """What is so of the keys that who asks may manage (see `may_manage`)."""
    of_project = true() if by is None or by.project_id is None else ApiKey.project_id == by.project_id
    return and_(ApiKey.account_id == account_id, of_project)


def good(account_id: str, now: int) -> ColumnElement[bool]:
    """What is so of an account's keys of which `check_key` says that they have not ended."""
    archived = select(Project.id).where(Project.account_id == account_id, Project.archived_at.is_not(None))
    return and_(
        ApiKey.revoked_at.is_(None),
        or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > now),
        or_(ApiKey.project_id.is_(None), ApiKey.project_id.not_in(archived)),
    )


def newest(
    session: Session,
    account_id: str,
    by: ApiKey | None,
    before: str | None,
    limit: int,
    *,
    now: int,
    ended: bool,
) -> tuple[list[ApiKey], bool]:
    """Keys that who asks may manage, and that are good or have `ended`; and whether there are more.

    They are up to `limit` of those older than the key `before`, the newest first.

    Raises:
        APIError: `not_found`; there is no key `before` that may be managed.
    """
    wanted = good(account_id, now)
    found = select(ApiKey).where(managed(account_id, by), not_(wanted) if ended else wanted)
    if before is not None:
        last = _find(session, account_id, by, before)
        found = found.where(tuple_(ApiKey.created_at, ApiKey.id) < tuple_(last.created_at, last.id))
    return _some(session, found.order_by(ApiKey.created_at.desc(), ApiKey.id.desc()), limit)


def page(
    session: Session, account_id: str, by: ApiKey | None, after: str | None, limit: int
) -> tuple[list[ApiKey], bool]:
    """Keys that who asks may manage (see `may_manage`), the oldest first, and whether there are more.

    They are up to `limit` of those behind the key `after`.

    Raises:
        APIError: `not_found`; there is no key `after` that may be managed.
    """
    order = (ApiKey.created_at, ApiKey.id)
    found = select(ApiKey).where(managed(account_id, by))
    if after is not None:
        last = _find(session, account_id, by, after)
        found = found.where(tuple_(*order) > tuple_(last.created_at, last.id))
    return _some(session, found.order_by(*order), limit)


def _some(session: Session, found: Select[ApiKey], limit: int) -> tuple[list[ApiKey], bool]:
    """The first keys that are found, and whether there are more."""
    listed = session.scalars(found.limit(limit + 1)).all()
    return list(listed[:limit]), len(listed) > limit


def find(session: Session, account_id: str, by: ApiKey | None, key_id: str) -> ApiKey:
    """A key that who asks may manage (see `may_manage`) and that was not revoked; it may have ended.

    Raises:
        APIError: `not_found` or `key_revoked`.
    """
    key = _find(session, account_id, by, key_id)
    if key.revoked_at is not None:
        raise APIError(ErrorCode.KEY_REVOKED, f"the key {key_id} was revoked already", param="key_id")
    return key


def _find(session: Session, account_id: str, by: ApiKey | None, key_id: str) -> ApiKey:
    if (whole := keys.id_of(key_id)) is not None:
        message = f"that is a whole key with its secret, which belongs in no URL; name its id, {whole}"
        raise APIError(ErrorCode.NOT_FOUND, message, param="key_id")
    key = session.get(ApiKey, key_id)
    if key is None or not may_manage(account_id, by, key):
        raise APIError(ErrorCode.NOT_FOUND, f"this account has no key {key_id!r}", param="key_id")
    return key


def check_may_issue(by: ApiKey | None) -> None:
    """Make sure that who asks by a key may issue others.

    Raises:
        APIError: `insufficient_scope`; the key has limits or an end of its own.
    """
    if by is not None and is_limited(by):
        message = "this key has limits or an end of its own, which another key would not have: it issues none"
        raise APIError(ErrorCode.INSUFFICIENT_SCOPE, message)


def check_may_rotate(by: ApiKey | None, key: ApiKey, now: int) -> None:
    """Make sure that a key that may be managed is good for another secret, which who asks by a key is shown.

    Raises:
        APIError: `key_revoked`, `key_expired` or `project_archived`; or `insufficient_scope`, the asking key
            has limits or an end of its own, and is another one.
    """
    try:
        check_key(key, now)
    except APIError as error:
        message = f"the key {key.id} gets no other secret: {error.message}"
        raise APIError(error.code, message, param="key_id") from error
    if by is not None and by.id != key.id and is_limited(by):
        message = "this key has limits or an end of its own, so it rotates itself alone"
        raise APIError(ErrorCode.INSUFFICIENT_SCOPE, message)


def rotate(act: Act, by: ApiKey | None, key: ApiKey, grace_seconds: int) -> IssuedKey:
    """Give a key that may be managed another secret.

    Raises:
        APIError: what `check_may_rotate` raises; or `conflict`, the account rotated its keys too often in a
            day; or `not_ready`, the vendor's clock cannot be right.
    """
    check_may_rotate(by, key, act.now)
    act.session.get_one(Account, key.account_id, with_for_update=True)  # nobody counts beside this
    rotated = select(func.count()).where(
        WebhookEvent.account_id == key.account_id,
        WebhookEvent.kind == EventKind.KEY_ROTATED,
        WebhookEvent.created_at > act.now - DAY,
    )
    if (act.session.scalar(rotated) or 0) >= _MOST_A_DAY:  # what is logged of each stays for good
        message = f"keys of this account were rotated {_MOST_A_DAY} times in 24 hours; try again tomorrow"
        raise APIError(ErrorCode.CONFLICT, message)
    try:
        return acts.rotate(act, key.id, grace_seconds)
    except WrongClock as error:
        raise _not_ready() from error


def is_limited(key: ApiKey) -> bool:
    """Whether a key has limits or an end of its own, past which no other key may help it."""
    return any(getattr(key, name) is not None for name in keys.OWN_LIMITS)


def issue(act: Act, account: str, by: ApiKey | None, terms: KeyTerms, project: str | None) -> IssuedKey:
    """Issue a key of the `project`, or without one of that of the asking key, whatever `terms` name.

    Raises:
        APIError: `insufficient_scope`; the asking key has limits, or belongs to another project.
            `conflict`; the account has too many keys, or got too many in a day. `invalid_request`; what
            `keys.issue_key` refuses. `not_ready`; the vendor's clock cannot be right.
    """
    owner = find_account(act.session, account, lock=True)
    check_may_issue(by)
    its_own = DEFAULT_PROJECT if by is None or by.project is None else by.project.name
    project = project or its_own
    if project != its_own and by is not None and by.project is not None:
        message = f"this key belongs to the project {its_own}, and issues keys of that one alone"
        raise APIError(ErrorCode.INSUFFICIENT_SCOPE, message, param="project")
    _check_room(act, owner)
    try:
        return acts.issue(act, owner.name, replace(terms, project=project))
    except UnknownName as error:
        message = f"this account has no project {project!r}"
        raise APIError(ErrorCode.INVALID_REQUEST, message, param="project") from error
    except WrongClock as error:
        raise _not_ready() from error
    except OperatorError as error:
        raise APIError(ErrorCode.INVALID_REQUEST, str(error)) from error


def _not_ready() -> APIError:
    message = "the vendor's clock is wrong, so no key can be issued or rotated now; try again later"
    return APIError(ErrorCode.NOT_READY, message, retry_after=30)


def _check_room(act: Act, owner: Account) -> None:
    live = func.count().filter(ApiKey.revoked_at.is_(None))
    today = func.count().filter(ApiKey.created_at > act.now - DAY)
    counted = act.session.execute(select(live, today).where(ApiKey.account_id == owner.id)).one()
    if counted[0] >= _MOST_KEYS:
        message = f"this account has {_MOST_KEYS} keys; revoke one that is not used"
        raise APIError(ErrorCode.CONFLICT, message)
    if counted[1] >= _MOST_A_DAY:  # rows of revoked keys stay for good
        message = (
            f"this account got {_MOST_A_DAY} keys in 24 hours, revoked ones included; try again tomorrow"
        )
        raise APIError(ErrorCode.CONFLICT, message)
