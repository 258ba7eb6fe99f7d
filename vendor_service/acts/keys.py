"""Acts on keys. The audit log names a key by its id, among what was done to its account."""

from collections.abc import Mapping
from typing import Any

from shared.keys import KeyInfo
from shared.projects import DEFAULT_PROJECT
from vendor_service.accounts import accounts, keys
from vendor_service.accounts.keys import IssuedKey, KeyTerms
from vendor_service.acts.act import Act
from vendor_service.database.tables import Account, ApiKey
from vendor_service.money import periods, thresholds
from vendor_service.webhooks import events
from vendor_service.webhooks.events import EventKind


def issue(act: Act, account: str, terms: KeyTerms) -> IssuedKey:
    """Give an account one more key; raises what `keys.issue_key` and `Act.believe_clock` do."""
    owner = accounts.find_account(act.session, account)
    act.believe_clock()
    issued = keys.issue_key(act.session, owner, terms, act.clock)
    after: dict[str, Any] = {
        "key_id": issued.key_id,
        "label": terms.label,
        "scopes": sorted(terms.scopes),
        "quota": terms.quota,
        "spend_limit_micros": terms.spend_limit_micros,
    }
    later = ("queries_per_second", "concurrency", "expires_at")
    after |= {name: value for name in later if (value := getattr(terms, name)) is not None}
    if terms.project != DEFAULT_PROJECT:
        after["project"] = terms.project
    act.record("key.create", account, None, after)
    return issued


def rotate(act: Act, key_id: str, grace_seconds: int) -> IssuedKey:
    """Give a key another secret; raises what `keys.rotate_key` and `Act.believe_clock` do."""
    key, owner = _of(act, key_id)
    act.believe_clock()
    before = _rotation(key)
    issued = keys.rotate_key(act.session, key_id, grace_seconds, act.clock)
    told = {"key_id": key_id, "label": key.label, "former_until": key.former_until}
    events.emit(act.session, EventKind.KEY_ROTATED, owner, told, act.now)
    act.record("key.rotate", owner.name, before, _rotation(key))
    return issued


def set_limits(act: Act, key_id: str, limits: Mapping[str, int | None]) -> KeyInfo:
    """Let other limits of a key hold from now on; raises what `keys.change_limits` does."""
    account_id = keys.find_key(act.session, key_id).account_id
    owner = act.session.get_one(Account, account_id, with_for_update=True, populate_existing=True)
    key = keys.find_key(act.session, key_id, lock=True)
    before, stood = {name: getattr(key, name) for name in limits}, thresholds.levels(key)
    keys.change_limits(key, limits, act.now)
    if not periods.is_over(key, owner, act.now):  # what was used of a former period is no news
        thresholds.tell(act.session, owner, stood, act.percents, act.now, of=key)
    if before != limits:
        act.record("key.set_limits", owner.name, *({"key_id": key_id, **side} for side in (before, limits)))
    return keys.public(key, owner, act.now)


def revoke(act: Act, key_id: str) -> KeyInfo:
    """End a key at once and for good; raises what `keys.revoke_key` does."""
    key, owner = _of(act, key_id)
    before = {"key_id": key_id, "revoked_at": key.revoked_at}
    keys.revoke_key(act.session, key_id, act.clock)
    if before["revoked_at"] is None:
        act.record("key.revoke", owner.name, before, {"key_id": key_id, "revoked_at": key.revoked_at})
    return keys.public(key, owner, act.now)


def _of(act: Act, key_id: str) -> tuple[ApiKey, Account]:
    key = keys.find_key(act.session, key_id, lock=True)
    return key, act.session.get_one(Account, key.account_id)


def _rotation(key: ApiKey) -> dict[str, str | int | None]:
    return {"key_id": key.id, "former_until": key.former_until}
