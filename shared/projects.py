"""Answers about the projects of an account."""

from datetime import datetime

from pydantic import BaseModel

from shared.billing import RateLimit

# What belongs to no other project. It has the account's limits and none of its own.
DEFAULT_PROJECT = "default"


class ProjectInfo(BaseModel):
    """A project: its own limits inside the account's (`None`: only these), and what it used of them.

    Keys of one that was archived are refused.
    """

    project_id: str
    project: str
    quota: int | None
    queries_used: int
    queries_held: int
    spend_limit_micros: int | None
    spent_micros: int
    rate_limit: RateLimit | None
    created_at: datetime
    archived_at: datetime | None


class ProjectList(BaseModel):
    """A page of projects, without the default one; with `has_more`, ask again after the last one's id."""

    data: list[ProjectInfo]
    has_more: bool = False
