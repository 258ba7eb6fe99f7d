"""Answers about API keys: never the secret, but once."""

from datetime import datetime

from pydantic import BaseModel

from shared.projects import DEFAULT_PROJECT


class KeyInfo(BaseModel):
    """A key: what it may do, its own limits and what it used of them, and when it was used and ends.

    `concurrency` is how many of its requests may be in flight. It is refused from `expires_at` on.
    `former_until` is when the secret before the last rotation ends, or ended.
    """

    key_id: str
    label: str
    project: str = DEFAULT_PROJECT
    scopes: list[str]
    quota: int | None
    queries_used: int
    spend_limit_micros: int | None
    spent_micros: int
    queries_per_second: int | None = None
    concurrency: int | None = None
    created_at: datetime
    expires_at: datetime | None = None
    last_used_at: datetime | None
    former_until: datetime | None
    revoked_at: datetime | None


class KeyList(BaseModel):
    """A page of keys, the oldest first; with `has_more`, ask again after the last one."""

    data: list[KeyInfo]
    has_more: bool = False


class NewSecret(BaseModel):
    """A key whose secret is new; `api_key` is shown this once."""

    key_id: str
    api_key: str
