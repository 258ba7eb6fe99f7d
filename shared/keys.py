"""Answers about API keys: never the secret, but once."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from shared.moments import Moment
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


class NewKey(BaseModel):
    """The body of `POST /v1/keys`: a key to be issued; no `project` is that of the asking key."""

    model_config = ConfigDict(extra="forbid")

    label: Annotated[str, Field(max_length=255)] = ""
    project: str | None = None
    scopes: list[Literal["embed", "usage:read", "admin"]] = ["embed", "usage:read"]
    quota: Annotated[int, Field(strict=True)] | None = None
    spend_limit_micros: Annotated[int, Field(strict=True)] | None = None
    queries_per_second: Annotated[int, Field(strict=True)] | None = None
    concurrency: Annotated[int, Field(strict=True)] | None = None
    expires_at: Moment | None = None


class NewSecret(BaseModel):
    """A key whose secret is new; `api_key` is shown this once."""

    key_id: str
    api_key: str
