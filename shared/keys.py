"""What is told about API keys: never the secret, but once."""

from datetime import datetime

from pydantic import BaseModel


class KeyInfo(BaseModel):
    """A key: what it may do, its own limits and what it used of them, and when it was used and ends.

    `former_until` is when the secret before the last rotation ends, or ended.
    """

    key_id: str
    label: str
    scopes: list[str]
    quota: int | None
    queries_used: int
    spend_limit_micros: int | None
    spent_micros: int
    created_at: datetime
    last_used_at: datetime | None
    former_until: datetime | None
    revoked_at: datetime | None


class KeyList(BaseModel):
    """The answer of `GET /v1/keys`."""

    data: list[KeyInfo]


class NewSecret(BaseModel):
    """A key whose secret is new; `api_key` is shown this once."""

    key_id: str
    api_key: str
